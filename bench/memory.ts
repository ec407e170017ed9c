import { closePair, measureRates, startPair } from './duel.js'
import type { Options } from './options.js'
import type { Report, Row } from './report.js'
import { summarise } from './statistics.js'

const steps = 10_000
const every = 1_000

interface Sample {
  /** MiB after every 1,000 steps. */
  rss: { voxtorch: number[]; torch: number[] }
  live: number[]
}

/** Both sides train the same small network; every 1,000 steps each says how much memory its process holds. */
async function sample(): Promise<Sample> {
  const pair = await startPair('memory')
  const made: Sample = { rss: { voxtorch: [], torch: [] }, live: [] }
  try {
    for (let done = 0; done < steps; done += every) {
      for (const side of ['voxtorch', 'torch'] as const) {
        const reply = await pair[side].ask({ steps: every })
        made.rss[side].push(Number(reply.rss) / 2 ** 20)
        if (side === 'voxtorch') made.live.push(Number(reply.live))
      }
    }
  } finally {
    closePair(pair)
  }
  return made
}

/** A round is a fresh process of each side: when a heap grows by one step depends on the moment of a collection. */
export async function run({ rounds = 3 }: Options): Promise<Report> {
  const { rates, versions } = await measureRates()
  const samples: Sample[] = []
  for (let round = 0; round < rounds; round += 1) samples.push(await sample())
  const first = (list: number[]) => list[0]
  const last = (list: number[]) => list[list.length - 1]
  const growth = (list: number[]) => last(list) / first(list)
  const spread = (list: number[]) => Math.max(...list) - Math.min(...list)
  const of = (side: 'voxtorch' | 'torch', value: (list: number[]) => number) =>
    summarise(samples.map(({ rss }) => value(rss[side])))
  const row = (label: string, unit: string, value: (list: number[]) => number): Row => ({
    label,
    unit,
    voxtorch: of('voxtorch', value),
    torch: of('torch', value),
  })
  const grown = row('growth from 1,000 to 10,000', '×', growth)
  const live = (value: (list: number[]) => number) => summarise(samples.map((one) => value(one.live)))
  const rows: Row[] = [
    row('RSS after 1,000 steps', 'MiB', first),
    row('RSS after 10,000 steps', 'MiB', last),
    { ...grown, target: 1.02, met: grown.voxtorch.median <= 1.02 },
    { label: 'live tensors after 1,000 steps', unit: '', voxtorch: live(first) },
    {
      label: 'live tensors, most minus fewest',
      unit: '',
      voxtorch: live(spread),
      target: 0,
      met: samples.every((one) => spread(one.live) === 0),
    },
  ]
  return { question: 'memory', rounds, rows, rates, versions }
}
