import { execFileSync } from 'node:child_process'
import { rmSync } from 'node:fs'
import { join } from 'node:path'
import { type Case, closePair, duel, rateCases, ratesOf, startPair } from './duel.js'
import { isAsked, type Options } from './options.js'
import { BenchError, findPython, peersFolder, type Versions } from './peer.js'
import type { Report, Row } from './report.js'
import { removeScratch, scratchFolder } from './scratch.js'

/**
 * LanguageBind's encoders in their published sizes with the same random weights on both sides: texts of 77 tokens, audio of 112
 * bands, a video of 8 frames in float32 and bfloat16, and a training step for adapters of the attention over time with AdamW; against
 * transformers' text encoder and PyTorch's operators. Then preprocessing: images against Pillow (VOXTORCH_SKIMAGE is the folder
 * skimage/data of scikit-image's wheel), H.264 files against PyAV in two processes of torch's DataLoader, and the time for which a step
 * of the video encoder waits for its videos.
 */
const cases: Case[] = [
  { name: 'resize', label: '100 photographs of scikit-image to 224, bicubic', target: 1 },
  { name: 'clips', label: '100 clips of 3 s, 640 x 360: 8 frames decoded and prepared', target: 1, isWarm: true },
  {
    name: 'step',
    label: 'step on clips',
    alone: true,
    isWarm: true,
    figures: [
      { key: 'nanoseconds', label: '2 clips through the video encoder, with prefetching', unit: 'ms' },
      { key: 'waited', label: 'of which the step waited for clips', unit: 'ms' },
    ],
  },
  { name: 'text', label: 'text encoder, 8 texts of 77 tokens', target: 1 },
  { name: 'audio', label: 'audio encoder, 112 × 1,036', target: 0.95 },
  { name: 'video', label: 'video encoder, 8 frames', target: 0.95 },
  { name: 'videoHalf', label: 'video encoder, 8 frames, bfloat16', target: 0.9 },
  { name: 'lora', label: 'LoRA step of the video encoder with AdamW, 8 frames', target: 0.95, request: { warm: true } },
]

// Of bfloat16, in which neighboring numbers are 0.8 % apart; of pixels that are one level of 255 apart; and of bytes.
const MOST_DIFFERENCE: Record<string, number> = { videoHalf: 0.05, clips: 0.01, resize: 0 }

/** Fraction of a step's time. */
const MOST_WAITED = 0.01

export async function run({ rounds = 3, milliseconds = 1, only = '' }: Options): Promise<Report> {
  const asked = cases.filter((one) => isAsked(only, one))
  if (asked.length === 0) throw new BenchError('Nothing was measured: no case is called that.')
  const names = [...new Set(asked.map(({ name }) => name))]
  if (names.includes('resize') && process.env.VOXTORCH_SKIMAGE === undefined) {
    throw new BenchError(
      'resize needs photographs: pip download --no-deps scikit-image==0.26.0, unzip it, VOXTORCH_SKIMAGE=DIR/skimage/data',
    )
  }
  const folder = scratchFolder()
  if (names.some((name) => name === 'clips' || name === 'step')) {
    execFileSync(findPython(), [join(peersFolder, 'videos.py'), join(folder, 'clips')])
  }
  try {
    const rows: Row[] = []
    let versions: Versions = {}
    for (const [i, one] of asked.entries()) {
      const measured = await alone(folder, one, i === 0 ? rateCases : [], rounds, milliseconds)
      rows.push(...measured.rows)
      versions = measured.versions
    }
    const [whole, waited] = ['2 clips through', 'of which'].map(
      (label) => rows.find((row) => row.label.startsWith(label))?.voxtorch.median ?? Number.NaN,
    ) as [number, number]
    if (waited >= 0)
      console.log(
        `The step waited for its clips ${((100 * waited) / whole).toFixed(1)} % of the time; at most ${100 * MOST_WAITED} % is wanted.`,
      )
    return { question: 'languagebind', rounds, rows, rates: ratesOf(rows), versions }
  } finally {
    removeScratch(folder)
  }
}

/** A case in its own processes, because a user of one network has no other in memory. */
async function alone(folder: string, one: Case, more: Case[], rounds: number, milliseconds: number) {
  const { name } = one
  const pair = await startPair('languagebind')
  try {
    await pair.voxtorch.ask({ make: folder, names: [name] })
    const { differences } = one.alone ? { differences: {} } : await pair.torch.ask({ load: folder, names: [name] })
    for (const difference of Object.values(differences as Record<string, number>)) {
      console.log(`${name}: differs from theirs by ${difference.toExponential(1)}`)
      const most = MOST_DIFFERENCE[name] ?? 1e-3
      if (!(difference <= most)) throw new BenchError(`${name} differs by more than ${most}.`)
    }
    const rows = await duel(pair, [one, ...more], rounds, milliseconds)
    return { rows, versions: { ...pair.voxtorch.versions, ...pair.torch.versions } }
  } finally {
    closePair(pair)
    // Networks of gigabytes; two cases use videos.
    if (name !== 'clips') rmSync(join(folder, name), { recursive: true, force: true })
  }
}
