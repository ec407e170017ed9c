import { readFileSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { type Case, closePair, duel, rateCases, ratesOf, startPair } from './duel.js'
import { type Limits, measureLimits } from './limits.js'
import { isAsked, type Options } from './options.js'
import type { Report } from './report.js'

interface OperatorList {
  operators: { name: string; label?: string; forward?: boolean }[]
}

const { operators } = JSON.parse(
  readFileSync(new URL('./peers/operators.json', import.meta.url), 'utf8'),
) as OperatorList

/**
 * Operators that users compose networks of, on small, middle and large inputs; both sides read peers/operators.json. The limit is the time
 * of the products at the peak of the machine's arithmetic, or that of reading inputs and writing outputs once: small ones stay in a cache
 * and can be below it.
 */
export async function run({ rounds = 3, milliseconds = 60, only = '' }: Options): Promise<Report> {
  const cases = operators.flatMap(({ name, label = name, forward = false }, index): Case[] =>
    ['small', 'middle', 'large'].flatMap((size, i) => {
      const one = { label: `${label}, ${size}`, target: 1 }
      const both = { label: `${label}, ${size}, with gradients`, target: 1 }
      const ahead = { ...one, name: `${index}.${i}.forward` }
      return forward ? [ahead] : [ahead, { ...both, name: `${index}.${i}.backward` }]
    }),
  )
  const pair = await startPair('operators')
  try {
    const asked = cases.filter((one) => isAsked(only, one))
    const [{ float32, reading }] = measureLimits(availableParallelism(), 1) as [Limits]
    for (const one of asked) {
      const { flops, bytes } = await pair.torch.ask({ work: one.name })
      one.limit = 1e9 * Math.max(Number(flops) / float32, Number(bytes) / reading)
    }
    const rows = await duel(pair, [...asked, ...rateCases], rounds, milliseconds)
    const versions = { ...pair.voxtorch.versions, ...pair.torch.versions }
    return { question: 'operators', rounds, rows, rates: ratesOf(rows), versions }
  } finally {
    closePair(pair)
  }
}
