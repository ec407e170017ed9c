import { type Case, closePair, duel, rateCases, ratesOf, startPair } from './duel.js'
import type { Options } from './options.js'
import type { Report } from './report.js'

const cases: Case[] = [
  { name: 'addInScope', label: 'add, 1 element, in a scope', target: 0.8 },
  { name: 'addOutside', label: 'add, 1 element, outside', target: 1.05 },
  { name: 'matmul', label: 'matmul 64×64', target: 1 },
  { name: 'layerNorm', label: 'layer_norm 32×768', target: 1 },
  { name: 'slice', label: 'slice x[1:5] of 64×64', target: 1 },
  { name: 'trainingStep', label: 'training step, MLP 64→128→10, batch 64', target: 1 },
]

export async function run({ rounds = 21, milliseconds = 60, only = '' }: Options): Promise<Report> {
  const pair = await startPair('ops')
  try {
    const chosen = cases.filter(({ name, label }) => `${name} ${label}`.includes(only))
    const rows = await duel(pair, [...chosen, ...rateCases], rounds, milliseconds)
    const versions = { ...pair.voxtorch.versions, ...pair.torch.versions }
    return { question: 'ops', rounds, rows, rates: ratesOf(rows), versions }
  } finally {
    closePair(pair)
  }
}
