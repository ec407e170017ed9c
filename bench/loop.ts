import { measureRates } from './duel.js'
import type { Options } from './options.js'
import { startVoxtorch } from './peer.js'
import type { Report, Row } from './report.js'
import { summarise } from './statistics.js'

/** Seconds that the queued job should last. */
const duration = 3

/** Voxtorch alone: Python has no event loop to keep turning. */
export async function run({ rounds = 3 }: Options): Promise<Report> {
  const { rates, versions } = await measureRates()
  const peer = await startVoxtorch('loop')
  const samples: Record<string, number[]> = {}
  try {
    for (let round = 0; round < rounds; round++) {
      for (const job of ['one', 'many']) {
        const reply = await peer.ask({ job, seconds: duration, gflops: rates.gemm.voxtorch })
        for (const [name, value] of Object.entries(reply)) {
          samples[`${job}.${name}`] = [...(samples[`${job}.${name}`] ?? []), Number(value)]
        }
      }
    }
    const parallel = await peer.ask({ job: 'parallel' })
    for (const [name, value] of Object.entries(parallel)) samples[`parallel.${name}`] = [Number(value)]
  } finally {
    peer.close()
  }
  const row = (name: string, label: string, unit: string, target?: number): Row => {
    const summary = summarise(samples[name] ?? [])
    return { label, unit, voxtorch: summary, target, met: target === undefined ? undefined : summary.max <= target }
  }
  const delays = (job: string, label: string) => [
    row(`${job}.seconds`, `${label}: duration`, 's'),
    row(`${job}.p50`, `${label}: loop delay p50`, 'ms'),
    row(`${job}.p99`, `${label}: loop delay p99`, 'ms', 20),
    row(`${job}.max`, `${label}: loop delay max`, 'ms'),
    row(`${job}.cores`, `${label}: cores busy`, ''),
  ]
  const rows = [
    ...delays('one', 'one queued matmul'),
    ...delays('many', 'many queued operators'),
    row('parallel.core', "threads of at::parallel_for in voxtorch's core", ''),
    row('parallel.threads', 'threads kept busy by a queued exp()', ''),
    row('parallel.cores', 'cores busy in a queued exp()', ''),
    row('parallel.openmp', 'OpenMP libraries mapped', '', 1),
  ]
  return { question: 'loop', rounds, rows, rates, versions }
}
