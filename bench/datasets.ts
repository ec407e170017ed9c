import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { measureRates } from './duel.js'
import type { Options } from './options.js'
import { BenchError, findPython, peersFolder, startVoxtorch } from './peer.js'
import type { Report, Row } from './report.js'
import { removeScratch, scratchFolder } from './scratch.js'
import { summarise } from './statistics.js'

const ROWS = 100_000
/** At least 5,000 rows a second. */
const mostSeconds = ROWS / 5000
/** Megabytes that memory may grow by after the first tenth of the rows. */
const mostGrowth = 64

const cases = [
  { label: 'row groups of 1,000', file: 'groups.parquet', loader: false },
  { label: 'one row group', file: 'one.parquet', loader: false },
  { label: 'row groups of 1,000, DataLoader with a buffer of 1,000', file: 'groups.parquet', loader: true },
]

/** Each epoch in a process of its own, since memory is compared. */
export async function run({ rounds = 3, only = '' }: Options): Promise<Report> {
  const folder = scratchFolder()
  const rows: Row[] = []
  try {
    const written = spawnSync(findPython(), [join(peersFolder, 'datasets.py'), folder], { encoding: 'utf8' })
    if (written.status !== 0) throw new BenchError(`pyarrow could not write the data: ${written.stderr}`)
    for (const { label, file, loader } of cases.filter((one) => one.label.includes(only))) {
      const samples = { seconds: [] as number[], growth: [] as number[], peak: [] as number[] }
      for (let round = 0; round < rounds; round++) {
        const peer = await startVoxtorch('datasets')
        try {
          const reply = await peer.ask({ file: join(folder, file), loader })
          if (reply.rows !== ROWS) throw new BenchError(`${file}: ${reply.rows} rows of ${ROWS} were read.`)
          for (const name of ['seconds', 'growth', 'peak'] as const) samples[name].push(Number(reply[name]))
        } finally {
          peer.close()
        }
      }
      const row = (name: keyof typeof samples, what: string, unit: string, target?: number): Row => {
        const summary = summarise(samples[name])
        const met = target === undefined ? undefined : summary.median <= target
        return { label: `${label}: ${what}`, unit, voxtorch: summary, target, met }
      }
      rows.push(
        row('seconds', '100,000 rows', 's', mostSeconds),
        row('growth', 'growth after 10,000 rows', 'MB', mostGrowth),
        row('peak', 'resident memory', 'MB'),
      )
    }
  } finally {
    removeScratch(folder)
  }
  const { rates, versions } = await measureRates()
  return { question: 'datasets', rounds, rows, rates, versions }
}
