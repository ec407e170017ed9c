import { type Case, closePair, duel, rateCases, ratesOf, startPair } from './duel.js'
import type { Options } from './options.js'
import type { Report } from './report.js'

const cases: Case[] = [
  { name: 'resample', label: 'resample 60 s, 44.1 to 16 kHz', target: 1 },
  { name: 'resampleUp', label: 'resample 60 s, 16 to 22.05 kHz', target: 1 },
  { name: 'fbank', label: 'Kaldi fbank, 128 bands, 60 s', target: 1 },
  { name: 'logMel', label: 'Whisper log-mel, 80 bands, 30 s', target: 1 },
]

export async function run({ rounds = 21, milliseconds = 100, only = '' }: Options): Promise<Report> {
  const pair = await startPair('audio')
  try {
    const chosen = cases.filter(({ name, label }) => `${name} ${label}`.includes(only))
    const rows = await duel(pair, [...chosen, ...rateCases], rounds, milliseconds)
    const versions = { ...pair.voxtorch.versions, ...pair.torch.versions }
    return { question: 'audio', rounds, rows, rates: ratesOf(rows), versions }
  } finally {
    closePair(pair)
  }
}
