import { closePair, measureRates, type Pair, startPair } from './duel.js'
import type { Options } from './options.js'
import { BenchError } from './peer.js'
import type { Report, Row } from './report.js'
import { compare, summarise } from './statistics.js'

/** Small steps of both shapes, by the names that the peers know, and how much time against PyTorch's (PEFT's) is aimed at. */
const cases = [
  { name: 'spectra', label: 'SPECTRA-shaped, full fine-tune', target: 1 },
  { name: 'spectraLora', label: 'SPECTRA-shaped, LoRA on q and v', target: 1 },
  { name: 'llama', label: 'LLaMA-shaped, full fine-tune', target: 1 },
  { name: 'llamaLora', label: 'LLaMA-shaped, LoRA on q and v', target: 1 },
  { name: 'llamaLoraAll', label: 'LLaMA-shaped, LoRA on all seven projections', target: 0.85 },
]
const memoryTarget = 0.8
const sides = ['voxtorch', 'torch'] as const
type Side = (typeof sides)[number]

/**
 * Whole training steps: forward, backward, gradient clipping, AdamW. Each case has a fresh process of each side, in which
 * blocks of steps alternate; the peak is of resident memory, above what the process held after import and build.
 */
export async function run({ rounds = 7, only = '' }: Options): Promise<Report> {
  const chosen = cases.filter(({ name, label }) => `${name} ${label}`.includes(only))
  const { rates, versions } = await measureRates()
  const rows: Row[] = []
  for (const { name, label, target } of chosen) {
    const pair = await startPair('train')
    try {
      const { times, peaks } = await measure(pair, name, rounds)
      const time = compare(times.voxtorch, times.torch)
      const peak = peaks.voxtorch / peaks.torch
      rows.push(
        { label, unit: 'ms', ...summaries(times), ...time, target, met: time.ratio <= target },
        {
          label: `${label}, peak RSS above build`,
          unit: 'MiB',
          ...summaries({ voxtorch: [peaks.voxtorch], torch: [peaks.torch] }),
          ratio: peak,
          target: memoryTarget,
          met: peak <= memoryTarget,
        },
      )
    } finally {
      closePair(pair)
    }
  }
  return { question: 'train', rounds, rows, rates, versions }
}

async function measure(pair: Pair, name: string, rounds: number) {
  const times: Record<Side, number[]> = { voxtorch: [], torch: [] }
  const losses: Record<Side, number> = { voxtorch: 0, torch: 0 }
  const peaks: Record<Side, number> = { voxtorch: 0, torch: 0 }
  for (const side of sides) await pair[side].ask({ build: name })
  for (let round = -1; round < rounds; round += 1) {
    for (const side of round % 2 === 0 ? sides : [...sides].reverse()) {
      const reply = await pair[side].ask({ steps: 3 })
      losses[side] = Number(reply.loss)
      peaks[side] = Number(reply.peak) / 2 ** 20
      if (round >= 0) times[side].push(Number(reply.milliseconds))
    }
    // Both sides have the same weights and batch, and no dropout.
    const apart = Math.abs(losses.voxtorch - losses.torch)
    if (!(apart <= 1e-3 * Math.abs(losses.torch))) {
      throw new BenchError(`The losses of ${name} differ: ${losses.voxtorch} and ${losses.torch}.`)
    }
  }
  return { times, peaks }
}

const summaries = (samples: Record<Side, number[]>) => ({
  voxtorch: summarise(samples.voxtorch),
  torch: summarise(samples.torch),
})
