import { type Case, closePair, duel, rateCases, ratesOf, startPair } from './duel.js'
import type { Options } from './main.js'
import type { Report } from './report.js'

/**
 * Whisper-base with random weights, on 30 seconds; Python's with eager attention. Both write as many tokens, so a whole
 * transcription is the spectrogram, the encoder, the prompt and 64 greedy tokens.
 */
const cases: Case[] = [
  { name: 'encoder', label: 'Whisper-base encoder, 30 s, float32', target: 1 },
  { name: 'encoderHalf', label: 'Whisper-base encoder, 30 s, bfloat16' },
  { name: 'decode', label: 'Whisper-base, 64 tokens, 1 row, float32' },
  { name: 'beams', label: 'Whisper-base, 64 tokens, 5 beams, float32' },
  { name: 'transcription', label: 'Whisper-base, 30 s of audio to 64 tokens, float32' },
]

export async function run({ rounds = 5, milliseconds = 1, only = '' }: Options): Promise<Report> {
  const chosen = cases.filter(({ name, label }) => `${name} ${label}`.includes(only))
  const pair = await startPair('whisper')
  try {
    const rows = await duel(pair, [...chosen, ...rateCases], rounds, milliseconds)
    for (const { label, voxtorch, torch } of rows) {
      if (!label.includes('of audio') || !voxtorch || !torch) continue
      const factor = (microseconds: number) => (microseconds / 30e6).toFixed(4)
      console.log(`real-time factor: ${factor(voxtorch.median)}, transformers ${factor(torch.median)}`)
    }
    const versions = { ...pair.voxtorch.versions, ...pair.torch.versions }
    return { question: 'whisper', rounds, rows, rates: ratesOf(rows), versions }
  } finally {
    closePair(pair)
  }
}
