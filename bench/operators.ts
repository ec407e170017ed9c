import { readFileSync } from 'node:fs'
import { type Case, closePair, duel, rateCases, ratesOf, startPair } from './duel.js'
import { isAsked, type Options } from './options.js'
import type { Report } from './report.js'

interface OperatorList {
  operators: { name: string; label?: string; forward?: boolean }[]
}

const { operators } = JSON.parse(
  readFileSync(new URL('./peers/operators.json', import.meta.url), 'utf8'),
) as OperatorList

/** Operators that users compose networks of, on small, middle and large inputs; both sides read peers/operators.json. */
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
    const rows = await duel(pair, [...cases.filter((one) => isAsked(only, one)), ...rateCases], rounds, milliseconds)
    const versions = { ...pair.voxtorch.versions, ...pair.torch.versions }
    return { question: 'operators', rounds, rows, rates: ratesOf(rows), versions }
  } finally {
    closePair(pair)
  }
}
