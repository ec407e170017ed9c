import { closePair, measureRates, startPair } from './duel.js'
import type { Options } from './main.js'
import type { Report, Row } from './report.js'
import { summarise } from './statistics.js'

const steps = 10_000
const every = 1_000

/** Both sides train the same small network; every 1,000 steps each says how much memory its process holds. */
export async function run(_options: Options): Promise<Report> {
  const { rates, versions } = await measureRates()
  const pair = await startPair('memory')
  const rss = { voxtorch: [] as number[], torch: [] as number[] }
  const live: number[] = []
  try {
    for (let done = 0; done < steps; done += every) {
      for (const side of ['voxtorch', 'torch'] as const) {
        const reply = await pair[side].ask({ steps: every })
        rss[side].push(Number(reply.rss) / 2 ** 20)
        if (side === 'voxtorch') live.push(Number(reply.live))
      }
    }
  } finally {
    closePair(pair)
  }
  const one = (value: number) => summarise([value])
  const last = live.length - 1
  const growth = (list: number[]) => list[last] / list[0]
  const rows: Row[] = [
    { label: 'RSS after 1,000 steps', unit: 'MiB', voxtorch: one(rss.voxtorch[0]), torch: one(rss.torch[0]) },
    { label: 'RSS after 10,000 steps', unit: 'MiB', voxtorch: one(rss.voxtorch[last]), torch: one(rss.torch[last]) },
    {
      label: 'growth from 1,000 to 10,000',
      unit: '×',
      voxtorch: one(growth(rss.voxtorch)),
      torch: one(growth(rss.torch)),
      target: 1.02,
      met: growth(rss.voxtorch) <= 1.02,
    },
    { label: 'live tensors after 1,000 steps', unit: '', voxtorch: one(live[0]) },
    {
      label: 'live tensors, most minus fewest',
      unit: '',
      voxtorch: one(Math.max(...live) - Math.min(...live)),
      target: 0,
      met: Math.max(...live) === Math.min(...live),
    },
  ]
  return { question: 'memory', rounds: 1, rows, rates, versions }
}
