import { type Case, closePair, duel, rateCases, ratesOf, startPair } from './duel.js'
import { isAsked, type Options } from './options.js'
import { BenchError } from './peer.js'
import type { Report } from './report.js'
import { removeScratch, scratchFolder } from './scratch.js'

/**
 * LanguageBind's towers in their published sizes with random weights, the same on both sides: texts of 77 tokens, a sound of 112 bands,
 * a clip of 8 frames in float32 and bfloat16, and a step that trains adapters of the attention over time; against transformers' text tower
 * and PyTorch's own operators.
 */
const cases: Case[] = [
  { name: 'text', label: 'text tower, 8 texts of 77 tokens', target: 1 },
  { name: 'audio', label: 'audio tower, 112 × 1,036', target: 0.95 },
  { name: 'video', label: 'video tower, 8 frames', target: 0.95 },
  { name: 'videoHalf', label: 'video tower, 8 frames, bfloat16', target: 0.9 },
  { name: 'lora', label: 'LoRA step of the video tower, 8 frames', target: 0.95 },
]

// Of bfloat16, in which neighbouring numbers are 0.8 % apart.
const MOST_DIFFERENCE: Record<string, number> = { videoHalf: 0.05 }

export async function run({ rounds = 3, milliseconds = 1, only = '' }: Options): Promise<Report> {
  const asked = cases.filter((one) => isAsked(only, one))
  if (asked.length === 0) throw new BenchError('Nothing was measured: no case is called that.')
  const names = [...new Set(asked.map(({ name }) => name))]
  const folder = scratchFolder()
  const pair = await startPair('languagebind')
  try {
    await pair.voxtorch.ask({ make: folder, names })
    const { differences } = await pair.torch.ask({ load: folder, names })
    for (const [name, difference] of Object.entries(differences as Record<string, number>)) {
      console.log(`${name}: differs from theirs by ${difference.toExponential(1)}`)
      const most = MOST_DIFFERENCE[name] ?? 1e-3
      if (!(difference <= most)) throw new BenchError(`${name} differs by more than ${most}.`)
    }
    const rows = await duel(pair, [...asked, ...rateCases], rounds, milliseconds)
    const versions = { ...pair.voxtorch.versions, ...pair.torch.versions }
    return { question: 'languagebind', rounds, rows, rates: ratesOf(rows), versions }
  } finally {
    closePair(pair)
    removeScratch(folder)
  }
}
