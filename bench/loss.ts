import { closePair, measureRates, startPair } from './duel.js'
import type { Options } from './options.js'
import { BenchError } from './peer.js'
import type { Report } from './report.js'
import { summarise } from './statistics.js'

const size = { tokens: 8192, classes: 32000, dim: 512 }

/**
 * Loss and all gradients of a language model's head: our fused operator against PyTorch's linear and cross_entropy. Each
 * round is a fresh process of each side; its peak is above what it held before the step.
 */
export async function run({ rounds = 3 }: Options): Promise<Report> {
  const { rates, versions } = await measureRates()
  const samples = {
    voxtorch: { time: [] as number[], peak: [] as number[] },
    torch: { time: [] as number[], peak: [] as number[] },
  }
  for (let round = 0; round < rounds; round += 1) {
    const pair = await startPair('loss')
    try {
      const losses: number[] = []
      for (const side of ['voxtorch', 'torch'] as const) {
        const reply = await pair[side].ask(size)
        samples[side].time.push(Number(reply.milliseconds))
        samples[side].peak.push(Number(reply.peak) / 2 ** 20)
        losses.push(Number(reply.loss))
      }
      const [ours, theirs] = losses as [number, number]
      if (Math.abs(ours - theirs) > 1e-5 * theirs) throw new BenchError(`The losses differ: ${ours} and ${theirs}.`)
    } finally {
      closePair(pair)
    }
  }
  const of = (what: 'time' | 'peak') => ({
    voxtorch: summarise(samples.voxtorch[what]),
    torch: summarise(samples.torch[what]),
  })
  const label = `${size.tokens} tokens × ${size.classes} classes, dim ${size.dim}`
  const peak = of('peak')
  const rows = [
    {
      label: `peak RSS of a step above before, ${label}`,
      unit: 'MiB',
      ...peak,
      target: 0.2,
      met: peak.voxtorch.median <= 0.2 * peak.torch.median,
    },
    { label: `time of a step, ${label}`, unit: 'ms', ...of('time') },
  ]
  return { question: 'loss', rounds, rows, rates, versions }
}
