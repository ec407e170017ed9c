import { type Case, closePair, duel, rateCases, ratesOf, startPair } from './duel.js'
import type { Options } from './options.js'
import type { Report } from './report.js'

/** Base-sized networks with random weights; both sides two threads, Python's as transformers has them (eager attention). */
const cases: Case[] = [
  { name: 'roberta', label: 'RoBERTa-base, 8×128, forward', target: 1 },
  { name: 'wavlm', label: 'WavLM-base, 10 s, forward', target: 0.85 },
  { name: 'robertaHalf', label: 'RoBERTa-base, 8×128, forward, bfloat16', target: 0.9 },
  { name: 'wavlmHalf', label: 'WavLM-base, 10 s, forward, bfloat16', target: 0.9 },
  { name: 'robertaStep', label: 'RoBERTa-base, 8×128, forward and backward' },
  { name: 'wavlmStep', label: 'WavLM-base, 10 s, forward and backward' },
]

export async function run({ rounds = 9, milliseconds = 1, only = '' }: Options): Promise<Report> {
  const chosen = cases.filter(({ name, label }) => `${name} ${label}`.includes(only))
  const pair = await startPair('encoders')
  try {
    const rows = await duel(pair, [...chosen, ...rateCases], rounds, milliseconds)
    const versions = { ...pair.voxtorch.versions, ...pair.torch.versions }
    return { question: 'encoders', rounds, rows, rates: ratesOf(rows), versions }
  } finally {
    closePair(pair)
  }
}
