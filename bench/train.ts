import { availableParallelism, cpus } from 'node:os'
import { closePair, measureRates, type Pair, startPair } from './duel.js'
import { type Limits, measureLimits } from './limits.js'
import { isAsked, type Options } from './options.js'
import { BenchError } from './peer.js'
import type { Report, Row } from './report.js'
import { compare, median, summarise } from './statistics.js'

interface TrainCase {
  name: string
  label: string
  /** Time against the other side that is aimed at. */
  target?: number
  /** Peak memory against the other side that is aimed at. Default 0.8. */
  memory?: number
  half?: boolean
}

const isAmd = cpus()[0]?.model.includes('AMD') === true

/** By the names that the peers know. */
const float32: TrainCase[] = [
  { name: 'spectra', label: 'SPECTRA-shaped, full fine-tune', target: 0.6 },
  { name: 'spectraLora', label: 'SPECTRA-shaped, LoRA on q and v', target: 0.6 },
  { name: 'llama', label: 'LLaMA-shaped, full fine-tune', target: 0.6 },
  { name: 'llamaLora', label: 'LLaMA-shaped, LoRA on q and v', target: 0.6 },
  { name: 'llamaLoraAll', label: 'LLaMA-shaped, LoRA on all seven projections', target: 0.6 },
  { name: 'whisper', label: 'Whisper-base-shaped, full fine-tune', target: 0.6 },
  { name: 'whisperLora', label: 'Whisper-base-shaped, LoRA on q and v', target: 0.6 },
  { name: 'qwen2AudioLora', label: 'Qwen2-Audio-shaped, LoRA on q and v', target: 0.8, memory: 0.6 },
  { name: 'gpt', label: 'GPT of 10.6M parameters, written by hand', target: isAmd ? 0.5 : 0.8 },
]
const cases = [...float32, ...float32.map((one) => ({ ...one, label: `${one.label}, bfloat16`, half: true }))]
const sides = ['voxtorch', 'torch'] as const
type Side = (typeof sides)[number]

/**
 * Whole training steps: forward, backward, gradient clipping, AdamW, against eager PyTorch and `torch.compile`. Each case has a fresh
 * process of each side, in which blocks of steps alternate; the peak is of resident memory, above what the process held after import and
 * build. The limit is the time of the step's products at the peak of the machine's arithmetic.
 */
export async function run({ rounds = 7, only = '', against = '' }: Options): Promise<Report> {
  const named = cases.filter(({ name, half = false }) => only === (half ? `${name}Half` : name))
  const chosen = named.length > 0 ? named : cases.filter((one) => isAsked(only, one))
  const peers = ['eager', 'torch.compile'].filter((peer) => peer.includes(against))
  if (chosen.length === 0 || peers.length === 0)
    throw new BenchError('Nothing was measured: no case or no peer is called that.')
  const [limits] = measureLimits(availableParallelism(), 1)
  const { rates, versions } = await measureRates()
  const rows: Row[] = []
  for (const one of chosen) {
    const { label, target, memory = 0.8, half = false } = one
    for (const peer of peers) {
      console.log(`${label}, against ${peer}`)
      const pair = await startPair('train')
      try {
        const { times, peaks, flops } = await measure(pair, one, peer === 'torch.compile', rounds)
        const time = compare(times.voxtorch, times.torch)
        console.log(`  ${time.ratio.toFixed(2)} of its time`)
        const peak = peaks.voxtorch / peaks.torch
        const floor = (flops / peakOf(limits, half)) * 1000
        const over = (side: Side) => median(times[side]) / floor
        rows.push(
          {
            label,
            unit: 'ms',
            ...summaries(times),
            ...time,
            against: peer,
            target,
            met: target === undefined ? undefined : time.ratio <= target,
            floor: { value: floor, voxtorch: over('voxtorch'), torch: over('torch') },
          },
          {
            label: `${label}, peak RSS above build`,
            unit: 'MiB',
            ...summaries({ voxtorch: [peaks.voxtorch], torch: [peaks.torch] }),
            against: peer,
            ratio: peak,
            target: memory,
            met: peak <= memory,
          },
        )
      } finally {
        closePair(pair)
      }
    }
  }
  return { question: 'train', rounds, rows, rates, versions }
}

/** Operations a second. Where the processor has no instruction for bfloat16, float32's is the limit. */
const peakOf = ({ float32, bfloat16, amx_bfloat16 }: Limits, half: boolean): number =>
  half ? Math.max(float32, bfloat16, amx_bfloat16) : float32

async function measure(pair: Pair, { name, half }: TrainCase, compiled: boolean, rounds: number) {
  const times: Record<Side, number[]> = { voxtorch: [], torch: [] }
  const losses: Record<Side, number> = { voxtorch: 0, torch: 0 }
  const peaks: Record<Side, number> = { voxtorch: 0, torch: 0 }
  await pair.voxtorch.ask({ build: name, half })
  await pair.torch.ask({ build: name, half, compiled })
  for (let round = -1; round < rounds; round += 1) {
    for (const side of round % 2 === 0 ? sides : [...sides].reverse()) {
      const reply = await pair[side].ask({ steps: 3 })
      losses[side] = Number(reply.loss)
      peaks[side] = Number(reply.peak) / 2 ** 20
      if (round >= 0) times[side].push(Number(reply.milliseconds))
    }
    // Both sides have the same weights and batch, and no dropout.
    const apart = Math.abs(losses.voxtorch - losses.torch)
    if (!(apart <= (half ? 2e-2 : 1e-3) * Math.abs(losses.torch))) {
      throw new BenchError(`The losses of ${name} differ: ${losses.voxtorch} and ${losses.torch}.`)
    }
  }
  const { flops } = await pair.torch.ask({ flops: true })
  return { times, peaks, flops: Number(flops) }
}

const summaries = (samples: Record<Side, number[]>) => ({
  voxtorch: summarise(samples.voxtorch),
  torch: summarise(samples.torch),
})
