import { appendFileSync, existsSync, mkdirSync, readFileSync, renameSync } from 'node:fs'
import { cpus, release, totalmem } from 'node:os'
import { fileURLToPath } from 'node:url'
import { capability, isaOf } from './isa.js'
import { busyProcesses } from './loaded.js'
import type { Versions } from './peer.js'
import type { Summary } from './statistics.js'

/**
 * One line of the table. `ratio` is voxtorch over the other side, below 1 is faster (or smaller); `met` judges it, or the
 * value where there is no peer. The other side is `torch`, unless `against` names it.
 */
export type Row = {
  label: string
  unit: string
  voxtorch: Summary
  torch?: Summary
  against?: string
  ratio?: number
  pairRatio?: number
  target?: number
  met?: boolean
  /**
   * Time that the machine needs at least, and each side's time as a multiple of it: to read the weights once, or for the
   * operations of the products at the peak of its arithmetic.
   */
  floor?: { value: number; voxtorch?: number; torch?: number; target?: number }
}

export type Rates = Record<'gemm' | 'gemv', { voxtorch: number; torch: number }>

export type Report = { question: string; rounds: number; rows: Row[]; rates: Rates; versions: Versions }

const results = fileURLToPath(new URL('results/', import.meta.url))

function short(value: number): string {
  if (!Number.isFinite(value)) return '-'
  if (Number.isInteger(value)) return String(value)
  const digits = Math.abs(value) >= 100 ? 0 : Math.abs(value) >= 10 ? 1 : Math.abs(value) >= 1 ? 2 : 3
  return value.toFixed(digits)
}

function cell(summary: Summary | undefined, unit: string): string {
  if (!summary) return '-'
  const spread = summary.samples.length > 1 ? ` (${short(summary.low)}–${short(summary.high)})` : ''
  return `${short(summary.median)} ${unit}${spread}`
}

function verdict({ target, met }: Row): string {
  if (target === undefined) return ''
  return `≤ ${target} ${met ? 'met' : 'MISSED'}`
}

function timesFloor({ floor, unit }: Row): string {
  if (floor === undefined) return ''
  const sides = [floor.voxtorch, floor.torch].map((one) => (one === undefined ? '-' : one.toFixed(2))).join(' / ')
  const judged = floor.target === undefined ? '' : ` ≤ ${floor.target} ${isOnFloor(floor) ? 'met' : 'MISSED'}`
  return `${sides} × ${short(floor.value)} ${unit}${judged}`
}

const isOnFloor = ({ voxtorch = 0, target = Number.POSITIVE_INFINITY }: NonNullable<Row['floor']>) => voxtorch <= target

/** Whether no target of the row was missed. */
export const isMet = ({ met, floor }: Row): boolean => met !== false && (floor === undefined || isOnFloor(floor))

export function table({ question, rounds, rows, rates, versions }: Report): string {
  const lines = [
    ['case', 'voxtorch', 'peer', 'against', 'ratio', 'pairs', 'target', '× the limit'],
    ...rows.map((row) => [
      row.label,
      cell(row.voxtorch, row.unit),
      cell(row.torch, row.unit),
      row.torch === undefined ? '' : (row.against ?? 'torch'),
      row.ratio === undefined ? '' : row.ratio.toFixed(2),
      row.pairRatio === undefined ? '' : row.pairRatio.toFixed(2),
      verdict(row),
      timesFloor(row),
    ]),
  ]
  const widths = lines[0].map((_, column) => Math.max(...lines.slice(1).map((line) => line[column].length)))
  // Columns without values are left out.
  const columns = widths.flatMap((width, i) => (width > 0 ? [i] : []))
  const body = lines.map((line) =>
    columns
      .map((i) => line[i].padEnd(Math.max(widths[i], lines[0][i].length)))
      .join('  ')
      .trimEnd(),
  )
  body.splice(1, 0, columns.map((i) => '-'.repeat(Math.max(widths[i], lines[0][i].length))).join('  '))
  const { cpu, cores, memory } = machine()
  return [
    `${question}: ${rounds} round${rounds === 1 ? '' : 's'}; median (quartiles); ratio of medians; median of the ratios of pairs`,
    ...body,
    `rates of this run, voxtorch / torch: GEMM ${short(rates.gemm.voxtorch)} / ${short(rates.gemm.torch)} GFLOP/s, ` +
      `GEMV ${short(rates.gemv.voxtorch)} / ${short(rates.gemv.torch)} GB/s`,
    `${cpu}, ${cores} cores, ${memory}, with ${capability() || 'no instruction sets that are known'}; held to: ${isaOf()}`,
    Object.entries(versions)
      .map(([name, version]) => `${name} ${version}`)
      .join(', '),
  ].join('\n')
}

function machine() {
  const all = cpus()
  const gib = totalmem() / 2 ** 30
  return { cpu: all[0].model.trim(), cores: all.length, memory: `${gib.toFixed(0)} GiB` }
}

function csvField(value: unknown): string {
  const text = String(value ?? '')
  return /[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text
}

/** Appends one line per case and side to `bench/results/<question>.csv`, every sample kept. Returns the file. */
export function writeCsv({ question, rounds, rows, rates, versions }: Report): string {
  const { cpu, cores, memory } = machine()
  const date = new Date().toISOString()
  const lines = rows.flatMap((row) =>
    (['voxtorch', 'torch'] as const).flatMap((side) => {
      const summary = row[side]
      if (!summary) return []
      return [
        {
          date,
          question,
          case: row.label,
          side: side === 'torch' ? (row.against ?? side) : side,
          unit: row.unit,
          median: summary.median,
          q1: summary.low,
          q3: summary.high,
          min: summary.min,
          max: summary.max,
          rounds,
          ratio: side === 'voxtorch' ? row.ratio : undefined,
          pair_ratio: side === 'voxtorch' ? row.pairRatio : undefined,
          target: side === 'voxtorch' ? row.target : undefined,
          floor: row.floor?.value,
          gemm_gflops: rates.gemm[side],
          gemv_gbytes: rates.gemv[side],
          cpu,
          cores,
          memory,
          isa: isaOf(),
          busy: busyProcesses()?.count ?? 0,
          system: `${process.platform}-${process.arch} ${release()}`,
          versions: Object.entries(versions)
            .map(([name, version]) => `${name} ${version}`)
            .join('; '),
          samples: summary.samples.map((value) => Number(value.toPrecision(5))).join(' '),
        },
      ]
    }),
  )
  mkdirSync(results, { recursive: true })
  const file = `${results}${question}.csv`
  const head = `${Object.keys(lines[0]).join(',')}\n`
  // A file whose columns were others is put aside: its rows would not line up with these.
  if (existsSync(file) && !readFileSync(file, 'utf8').startsWith(head)) renameSync(file, `${file}.before-${date}`)
  if (!existsSync(file)) appendFileSync(file, head)
  appendFileSync(file, lines.map((line) => `${Object.values(line).map(csvField).join(',')}\n`).join(''))
  return file
}
