import { type Case, closePair, duel, rateCases, ratesOf, startPair } from './duel.js'
import type { Options } from './options.js'
import type { Report } from './report.js'

/** LLaMA of 110M parameters with random weights: 32 tokens behind a prompt of 32, greedily; time per 32 tokens. */
const cases: Case[] = [
  { name: 'single', label: 'LLaMA 110M, 1 row, float32', target: 0.65 },
  { name: 'half', label: 'LLaMA 110M, 1 row, bfloat16', target: 0.65 },
  { name: 'int8', label: 'LLaMA 110M, 1 row, int8 weights against float32', target: 0.35 },
  { name: 'nf4', label: 'LLaMA 110M, 1 row, NF4 weights against float32' },
  { name: 'batch', label: 'LLaMA 110M, 8 rows padded on the left, float32' },
  { name: 'beams', label: 'LLaMA 110M, 4 beams, float32' },
  { name: 'sampled', label: 'LLaMA 110M, 1 row, top-k, top-p, repetition penalty, float32' },
]

export async function run({ rounds = 5, milliseconds = 1, only = '' }: Options): Promise<Report> {
  const chosen = cases.filter(({ name, label }) => `${name} ${label}`.includes(only))
  const pair = await startPair('decode')
  try {
    const rows = await duel(pair, [...chosen, ...rateCases], rounds, milliseconds)
    const versions = { ...pair.voxtorch.versions, ...pair.torch.versions }
    return { question: 'decode', rounds, rows, rates: ratesOf(rows), versions }
  } finally {
    closePair(pair)
  }
}
