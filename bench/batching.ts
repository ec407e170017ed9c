import { measureRates } from './duel.js'
import type { Options } from './options.js'
import { startVoxtorch } from './peer.js'
import type { Report, Row } from './report.js'
import { compare, summarise } from './statistics.js'

/** LLaMA of 110M parameters with random weights; each client decodes 32 greedy tokens after a prompt of 32. */
const throughput = ['float32', 'bfloat16'].flatMap((dtype) =>
  [1, 4, 8].map((clients) => ({ dtype, clients, tokens: 32 })),
)
/** The first token after a prompt of 400, of which 360 are in the prefix cache. */
const beginning = { dtype: 'float32', clients: 1, tokens: 1, prompt: 400, shared: 360 }

/** Voxtorch alone: answers in the same passes, against each by itself as before. */
export async function run({ rounds = 5, only = '' }: Options): Promise<Report> {
  const { rates, versions } = await measureRates()
  const peer = await startVoxtorch('batching')
  const seconds = async (request: object) => Number((await peer.ask({ ...request })).seconds)
  const rows: Row[] = []
  try {
    const measure = async (label: string, request: { clients: number; tokens: number }, unit: string) => {
      if (!label.includes(only)) return
      const together: number[] = []
      const apart: number[] = []
      for (let round = -1; round < rounds; round++) {
        const sides = [
          [together, true],
          [apart, false],
        ] as const
        for (const [samples, batched] of round % 2 === 0 ? sides : [...sides].reverse()) {
          const took = await seconds({ ...request, batched })
          if (round >= 0) samples.push(took) // round -1 warms up
        }
      }
      const told = (took: number) => (unit === 'ms' ? took * 1000 : (request.clients * request.tokens) / took)
      rows.push({ label: `${label}, in one batching`, unit, voxtorch: summarise(together.map(told)) })
      rows.push({ label: `${label}, each by itself`, unit, voxtorch: summarise(apart.map(told)) })
      const shares = together.map((took, i) => took / (apart[i] as number))
      rows.push({ label: `${label}, time of the one over the other`, unit: '×', voxtorch: summarise(shares) })
      rows[rows.length - 1] = { ...(rows.at(-1) as Row), pairRatio: compare(together, apart).pairRatio }
    }
    for (const one of throughput) await measure(`${one.dtype}, ${one.clients} clients`, one, 'tokens/s')
    await measure('first token, 360 of 400 known', beginning, 'ms')
  } finally {
    peer.close()
  }
  return { question: 'batching', rounds, rows, rates, versions: { ...versions, ...peer.versions } }
}
