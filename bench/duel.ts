import { type BusyProcesses, busyProcesses } from './loaded.js'
import { findPython, type Peer, startTorch, startVoxtorch } from './peer.js'
import type { Rates, Row } from './report.js'
import { compare, median, summarise } from './statistics.js'

/** A measurement of one block. By default a case has one, its time. */
export type Figure = {
  /** Field of the reply. */
  key: string
  label: string
  target?: number
  unit?: 'µs' | 'ms'
  /** Bytes that must be read from memory: the row gives the time as a multiple of that. */
  bytes?: number
  /** Largest multiple allowed. */
  floorTarget?: number
}

/** `work` turns time into a rate: floating-point operations or bytes in one iteration. */
export type Case = {
  name: string
  label: string
  target?: number
  work?: { amount: number; unit: 'GFLOP/s' | 'GB/s' }
  /** The peer's name for it. */
  theirs?: string
  /** Measured of voxtorch only. */
  alone?: boolean
  /** Further arguments of a block. */
  request?: Record<string, unknown>
  theirRequest?: Record<string, unknown>
  figures?: Figure[]
  /** Nanoseconds that the machine needs at least. */
  limit?: number
  /** It has run before, and its blocks are of one size. */
  isWarm?: boolean
  /** It takes minutes: measured in the first round alone, and not run before. */
  once?: boolean
}

/** `torch` is the other side, whoever it is; `against` names it. */
export type Pair = { voxtorch: Peer; torch: Peer; against?: string }

type Side = 'voxtorch' | 'torch'
type Samples = Record<Side, number[]>

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

const figuresOf = ({ label, target, figures }: Case): Figure[] => figures ?? [{ key: 'nanoseconds', label, target }]

/**
 * Blocks of A and B alternate, and the order turns over every round, so heat, frequency and other work on the machine fall on both sides alike.
 * All cases take part in every round for the same reason. With `--loaded` each round runs twice: quiet, and with the busy processes.
 */
export async function duel(pair: Pair, cases: Case[], rounds: number, milliseconds: number): Promise<Row[]> {
  const busy = busyProcesses()
  const empty = () => cases.map((one) => figuresOf(one).map((): Samples => ({ voxtorch: [], torch: [] })))
  const [quiet, loaded] = [empty(), empty()]
  const pass = async (round: number, into: Samples[][]) => {
    for (const [i, one] of cases.entries()) {
      if (one.once ? round !== 0 : round < 0 && one.isWarm) continue
      const order: Side[] = one.alone ? ['voxtorch'] : round % 2 === 0 ? ['voxtorch', 'torch'] : ['torch', 'voxtorch']
      for (const side of order) {
        const name = side === 'torch' ? (one.theirs ?? one.name) : one.name
        const more = side === 'torch' ? (one.theirRequest ?? one.request) : one.request
        const reply = await pair[side].ask({ case: name, milliseconds, ...(one.once && { once: true }), ...more })
        if (round < 0) continue // warms up and calibrates
        for (const [j, { key }] of figuresOf(one).entries()) into[i][j][side].push(Number(reply[key]))
      }
      if (round >= 0) console.error(`round ${round + 1} of ${one.once ? 1 : rounds}: ${blockOf(one, into[i])}`)
    }
  }
  for (let round = -1; round < rounds; round++) {
    await pass(round, quiet)
    if (busy === undefined || round < 0) continue
    await busy.go()
    await pass(round, loaded)
    await busy.rest()
  }
  const bandwidth = bandwidthOf(cases, quiet)
  return cases.flatMap((one, i) =>
    figuresOf(one).flatMap((figure, j) => {
      const row = toRow(one, figure, quiet[i][j], pair.against, bandwidth)
      return busy === undefined ? [row] : [row, ...loadedRows(row, one, quiet[i][j], loaded[i][j], busy)]
    }),
  )
}

const converter =
  ({ work }: Case, { unit = 'µs' }: Figure) =>
  (ns: number) =>
    work ? work.amount / ns : ns / (unit === 'ms' ? 1e6 : 1000)

function toRow(one: Case, figure: Figure, times: Samples, against: string | undefined, bandwidth: number): Row {
  const { label, target, unit = 'µs', bytes, floorTarget } = figure
  const convert = converter(one, figure)
  const row: Row = { label, unit: one.work?.unit ?? unit, voxtorch: summarise(times.voxtorch.map(convert)), against }
  const floor = one.limit ?? (bytes === undefined ? Number.NaN : bytes / bandwidth)
  if (Number.isFinite(floor)) {
    const over = (samples: number[]) => (samples.length === 0 ? undefined : median(samples) / floor)
    row.floor = { value: convert(floor), voxtorch: over(times.voxtorch), torch: over(times.torch), target: floorTarget }
  }
  if (times.torch.length === 0) return row
  const ratios = compare(times.voxtorch, times.torch)
  const met = target === undefined ? undefined : ratios.ratio <= target
  return { ...row, torch: summarise(times.torch.map(convert)), ...ratios, target, met }
}

/** The same with the busy processes, and each as a multiple of the median of the quiet blocks. */
function loadedRows(row: Row, one: Case, quiet: Samples, loaded: Samples, { count, nice }: BusyProcesses): Row[] {
  const label = `${row.label}, ${count} busy${nice === 0 ? '' : ` at nice ${nice}`}`
  const figure: Figure = { key: '', label, unit: row.unit === 'ms' ? 'ms' : 'µs' }
  const again = toRow(one, figure, loaded, row.against, Number.NaN)
  const slowdown = (side: Side) => loaded[side].map((value) => value / median(quiet[side]))
  const ours = summarise(slowdown('voxtorch'))
  const slower: Row = { label: `${label}: slowdown`, unit: '×', voxtorch: ours, against: row.against }
  if (one.alone || one.work !== undefined) return [again]
  const theirs = summarise(slowdown('torch'))
  const ratio = ours.median / theirs.median
  return [again, { ...slower, torch: theirs, ratio, target: 1, met: ratio <= 1 }]
}

/** The block that was measured last, for those who wait for the table, or end it before. */
function blockOf(one: Case, samples: readonly Samples[]): string {
  const told = figuresOf(one).map((figure, j) => {
    const value = (side: Side) => {
      const last = samples[j]?.[side].at(-1)
      return last === undefined
        ? '-'
        : `${converter(one, figure)(last).toPrecision(4)} ${one.work?.unit ?? figure.unit ?? 'µs'}`
    }
    return `${figure.label}: ${value('voxtorch')} against ${value('torch')}`
  })
  return told.join('; ')
}

const gemmSize = 1024
const gemvSize = 4096
const bandwidthSize = 7168

export const rateCases: Case[] = [
  { name: 'gemm', label: 'GEMM 1024, float32', work: { amount: 2 * gemmSize ** 3, unit: 'GFLOP/s' } },
  { name: 'gemv', label: 'GEMV 4096, float32', work: { amount: 4 * gemvSize ** 2, unit: 'GB/s' } },
]

/** A product that reads 206 MB once: what no cache holds, as the weights of a language model. */
export const bandwidthCase: Case = {
  name: 'bandwidth',
  label: 'memory: GEMV 7168, float32',
  work: { amount: 4 * bandwidthSize ** 2, unit: 'GB/s' },
  alone: true,
}

/** Bytes for each nanosecond. */
function bandwidthOf(cases: Case[], samples: Samples[][]): number {
  const i = cases.findIndex(({ name }) => name === bandwidthCase.name)
  if (i < 0) return Number.NaN
  return (bandwidthCase.work?.amount ?? Number.NaN) / median(samples[i][0].voxtorch)
}

/** Speed of the machine during this run, needed to compare two runs. */
export function ratesOf(rows: Row[]): Rates {
  const rate = (label: string, side: Side) =>
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
