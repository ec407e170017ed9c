import { relative } from 'node:path'
import {
  findRuns,
  type MetricsLine,
  type RunFile,
  readMetrics,
  readRun,
  statusOf,
  stepOf,
} from '../train/trainer/run-files.js'

/** A row of the output of `voxtorch runs`. */
interface Row {
  folder: string
  run: RunFile
  lines: MetricsLine[]
}

/**
 * List the training runs in a folder and its subfolders: status, last metrics, and the arguments in which they differ.
 * @throws DataError naming the file, for a run that cannot be read
 */
export function listRuns(root: string): string[] {
  const folders = findRuns(root)
  if (folders.length === 0) return [`No runs found in ${root}. A Trainer writes run.json into its outputDir.`]
  const rows = folders.map((folder) => ({
    folder: relative(root, folder) || folder,
    run: readRun(folder),
    lines: readMetrics(folder),
  }))
  const metrics = [...new Set(rows.flatMap(({ lines }) => Object.keys(last(lines))))]
  const table = rows.map((row) => {
    const { folder, run, lines } = row
    const values = last(lines)
    const seconds = run.seconds ?? lines.filter(({ speed }) => speed).at(-1)?.speed?.seconds
    return [
      folder,
      statusOf(run),
      `${stepOf(run, lines)}/${run.maxSteps}`,
      seconds === undefined ? '' : duration(seconds),
      ...metrics.map((name) => (values[name] === undefined ? '' : shown(values[name]))),
    ]
  })
  return [...columns([['run', 'status', 'step', 'time', ...metrics], ...table]), ...differences(rows)]
}

/** Return the latest value of each metric. */
function last(lines: readonly MetricsLine[]): Record<string, number> {
  const values: Record<string, number> = {}
  for (const line of lines) {
    for (const [name, value] of Object.entries(line)) {
      if (typeof value === 'number' && !/^(step|epoch|gradNorm|learningRate)$/.test(name)) values[name] = value
    }
  }
  return values
}

/** Return a table of the arguments in which runs differ, other than their names. */
function differences(rows: readonly Row[]): string[] {
  if (rows.length < 2) return []
  const text = ({ run }: Row, name: string) => JSON.stringify(run.arguments[name]) ?? ''
  const names = new Set(rows.flatMap(({ run }) => Object.keys(run.arguments)))
  const different = [...names].filter(
    (name) => !/^(outputDir|runName)$/.test(name) && new Set(rows.map((row) => text(row, name))).size > 1,
  )
  if (different.length === 0) return ['', 'All runs have the same arguments.']
  const table = rows.map((row) => [row.folder, ...different.map((name) => text(row, name))])
  return ['', ...columns([['run', ...different], ...table])]
}

function columns(table: string[][]): string[] {
  const widths = (table[0] as string[]).map((_, i) => Math.max(...table.map((row) => (row[i] as string).length)))
  return table.map((row) =>
    row
      .map((cell, i) => cell.padEnd(widths[i] as number))
      .join('  ')
      .trimEnd(),
  )
}

function shown(value: number): string {
  const size = Math.abs(value)
  if (Number.isInteger(value)) return String(value)
  return size < 1e-3 || size >= 1e6 ? value.toExponential(3) : value.toPrecision(4)
}

function duration(seconds: number): string {
  const whole = Math.round(seconds)
  const two = (value: number) => String(value).padStart(2, '0')
  return `${Math.floor(whole / 3600)}:${two(Math.floor(whole / 60) % 60)}:${two(whole % 60)}`
}
