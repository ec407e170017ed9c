import { findPython, type Peer, startTorch, startVoxtorch } from './peer.js'
import type { Rates, Row } from './report.js'
import { compare, summarise } from './statistics.js'

/** `work` turns time into a rate: floating-point operations or bytes in one iteration. */
export type Case = {
  name: string
  label: string
  target?: number
  work?: { amount: number; unit: 'GFLOP/s' | 'GB/s' }
}

export type Pair = { voxtorch: Peer; torch: Peer }

export async function startPair(question: string): Promise<Pair> {
  const python = findPython()
  const voxtorch = await startVoxtorch(question)
  const torch = await startTorch(question, python)
  return { voxtorch, torch }
}

export function closePair({ voxtorch, torch }: Pair) {
  voxtorch.close()
  torch.close()
}

async function block(peer: Peer, name: string, milliseconds: number): Promise<number> {
  return Number((await peer.ask({ case: name, milliseconds })).nanoseconds)
}

/**
 * Blocks of A and B alternate, and the order turns over every round, so heat, frequency and other work on the machine fall on both sides alike.
 * All cases take part in every round for the same reason.
 */
export async function duel(pair: Pair, cases: Case[], rounds: number, milliseconds: number): Promise<Row[]> {
  const samples = cases.map(() => ({ voxtorch: [] as number[], torch: [] as number[] }))
  for (let round = -1; round < rounds; round++) {
    for (const [i, { name }] of cases.entries()) {
      const order = round % 2 === 0 ? (['voxtorch', 'torch'] as const) : (['torch', 'voxtorch'] as const)
      for (const side of order) {
        const nanoseconds = await block(pair[side], name, milliseconds)
        if (round >= 0) samples[i][side].push(nanoseconds) // round -1 warms up and calibrates
      }
    }
  }
  return cases.map((one, i) => toRow(one, samples[i]))
}

function toRow({ label, target, work }: Case, times: { voxtorch: number[]; torch: number[] }): Row {
  const ratios = compare(times.voxtorch, times.torch)
  const convert = (ns: number) => (work ? work.amount / ns : ns / 1000)
  return {
    label,
    unit: work?.unit ?? 'µs',
    voxtorch: summarise(times.voxtorch.map(convert)),
    torch: summarise(times.torch.map(convert)),
    ...ratios,
    target,
    met: target === undefined ? undefined : ratios.ratio <= target,
  }
}

const gemmSize = 1024
const gemvSize = 4096

export const rateCases: Case[] = [
  { name: 'gemm', label: 'GEMM 1024, float32', work: { amount: 2 * gemmSize ** 3, unit: 'GFLOP/s' } },
  { name: 'gemv', label: 'GEMV 4096, float32', work: { amount: 4 * gemvSize ** 2, unit: 'GB/s' } },
]

/** How fast this machine was while this run was made: without it two runs cannot be compared. */
export function ratesOf(rows: Row[]): Rates {
  const rate = (label: string, side: 'voxtorch' | 'torch') =>
    rows.find((row) => row.label.startsWith(label))?.[side]?.median ?? Number.NaN
  return {
    gemm: { voxtorch: rate('GEMM', 'voxtorch'), torch: rate('GEMM', 'torch') },
    gemv: { voxtorch: rate('GEMV', 'voxtorch'), torch: rate('GEMV', 'torch') },
  }
}

export async function measureRates(): Promise<{ rates: Rates; versions: Record<string, string> }> {
  const pair = await startPair('ops')
  try {
    const rates = ratesOf(await duel(pair, rateCases, 5, 100))
    return { rates, versions: { ...pair.voxtorch.versions, ...pair.torch.versions } }
  } finally {
    closePair(pair)
  }
}
