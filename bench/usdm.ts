import { type Case, closePair, duel, rateCases, ratesOf, startPair } from './duel.js'
import { isAsked, type Options } from './options.js'
import { BenchError } from './peer.js'
import type { Report, Row } from './report.js'
import { removeScratch, scratchFolder } from './scratch.js'

/**
 * The networks around USDM's language model in their published sizes with random weights, the same on both sides: XLS-R 1B as far as
 * units need it, against transformers' as far and against all 48 blocks, which the original runs; a step of the Voicebox with
 * guidance, against a restatement in PyTorch that makes all scores and biases as the original does; BigVGAN by NVIDIA's own code; and
 * units of a folder of clips, batched by length and one by one, both ours; and a spoken reply whose text is known, until its sound
 * begins and until all of it is there, both ours (SmolLM2-135M as published writes the units).
 */
const BATCHED = 'units of 48 clips of 1 to 5 s (XLS-R 300M, 24 layers), batched'
const SINGLY = 'the same, one by one'
const FIRST = 'a reply of 6 s to 3 s, until its sound begins'
const WHOLE = 'the same, until all of it is there'

const cases: Case[] = [
  { name: 'xlsr', label: 'XLS-R 1B, 35 blocks, 10 s', target: 0.95 },
  { name: 'xlsr', theirs: 'xlsrWhole', label: 'XLS-R 1B, 10 s, 35 of the 48 blocks that they run', target: 0.7 },
  { name: 'voicebox', label: 'Voicebox, 2 evaluations with guidance, 5 s', target: 0.95 },
  { name: 'bigvgan', label: 'BigVGAN, 5 s', target: 0.8 },
  { name: 'unitsBatched', label: BATCHED, alone: true },
  { name: 'unitsSingly', label: SINGLY, alone: true },
  { name: 'replyFirst', label: FIRST, alone: true },
  { name: 'replyWhole', label: WHOLE, alone: true },
]

const MOST_DIFFERENCE = 1e-3

export async function run({ rounds = 3, milliseconds = 1, only = '' }: Options): Promise<Report> {
  const asked = cases.filter((one) => isAsked(only, one))
  if (asked.length === 0) throw new BenchError('Nothing was measured: no case is called that.')
  const names = [...new Set(asked.map(({ name }) => name))]
  const folder = scratchFolder()
  const pair = await startPair('usdm')
  try {
    await pair.voxtorch.ask({ make: folder, names })
    const { differences } = await pair.torch.ask({
      load: folder,
      names: [...new Set(asked.filter(({ alone }) => !alone).map(({ name }) => name))],
    })
    for (const [name, difference] of Object.entries(differences as Record<string, number>)) {
      console.log(`${name}: differs from theirs by ${difference.toExponential(1)}`)
      if (!(difference <= MOST_DIFFERENCE)) throw new BenchError(`${name} differs by more than ${MOST_DIFFERENCE}.`)
    }
    const rows = await duel(pair, [...asked, ...rateCases], rounds, milliseconds)
    compareOurs(rows, 'units batched take', BATCHED, 'of their time one by one (target 0.67)', SINGLY)
    compareOurs(rows, 'sound begins after', FIRST, 'of the time of the whole reply (target 0.4)', WHOLE)
    const versions = { ...pair.voxtorch.versions, ...pair.torch.versions }
    return { question: 'usdm', rounds, rows, rates: ratesOf(rows), versions }
  } finally {
    closePair(pair)
    removeScratch(folder)
  }
}

function compareOurs(rows: readonly Row[], what: string, label: string, of: string, other: string): void {
  const [one, another] = [label, other].map((name) => rows.find((row) => row.label === name)?.voxtorch.median)
  if (one !== undefined && another !== undefined) console.log(`${what} ${(one / another).toFixed(2)} ${of}`)
}
