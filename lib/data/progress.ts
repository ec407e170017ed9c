// Not cli-progress 3.12.0: its timer keeps a process alive if a bar was not closed, and it lacks bars without a total and lines
// printed above a bar.
import { argumentError, requireNumber, requireObject, requireString } from '../base/check.js'
import { type ChangesOf, checkedBy, settings } from '../base/settings.js'

/** Output stream of a bar: `process.stderr`, or an object like it. */
export interface ProgressStream {
  write(text: string): unknown
  readonly isTTY?: boolean
  readonly columns?: number
}

const SETTINGS = settings({
  /** Expected number of ticks; without it the bar shows only a count and a rate. */
  total: { type: 'number', infinite: true },
  /** Text before the bar. */
  label: { type: 'string' },
  /** Output stream. Default `process.stderr`. */
  stream: {
    type: checkedBy<ProgressStream>((where, name, value) => {
      if (typeof (value as ProgressStream | null)?.write !== 'function')
        throw argumentError(where, name, 'a stream', value)
    }),
  },
  /** Minimum milliseconds between two writes. Default 100 on a terminal, 10,000 elsewhere. */
  interval: { type: 'number', infinite: true },
  /** Unit of the ticks, for the rate. Default 'it'. */
  unit: { type: 'string' },
})

/** Options of a {@link ProgressBar}. @interface */
export type ProgressBarOptions = ChangesOf<typeof SETTINGS.table>

/** Fields shown after the bar; numbers are shown with four digits. */
export type ProgressFields = Record<string, number | string>

/**
 * Shows the progress of work in one line: bar, count, elapsed and remaining time, rate, and the caller's fields.
 *
 * On a terminal the line is redrawn in place and cut to its width; elsewhere whole lines are written at intervals, and one at
 * the end. It never hides the cursor, so that a killed program leaves the terminal unchanged.
 *
 * ```ts
 * using bar = new ProgressBar({ total: loader.length, label: 'epoch 1' })
 * for await (const batch of loader) bar.tick(1, { loss, lr })
 * ```
 */
export class ProgressBar {
  readonly #stream: ProgressStream
  readonly #options: ProgressBarOptions
  readonly #terminal: boolean
  readonly #interval: number
  readonly #start = performance.now()
  #written: number
  #count = 0
  #fields: ProgressFields = {}
  #closed = false

  constructor(options: ProgressBarOptions = {}) {
    this.#options = SETTINGS.read('ProgressBar', options)
    const { stream = process.stderr, interval } = this.#options
    this.#stream = stream
    this.#terminal = stream.isTTY === true
    this.#interval = interval ?? (this.#terminal ? 100 : 10_000)
    // A terminal shows the empty bar at once; a log only shows progress.
    this.#written = this.#terminal ? Number.NEGATIVE_INFINITY : this.#start
    this.#draw(false)
  }

  get count(): number {
    return this.#count
  }

  /** Add to the count and update fields; fields of earlier calls stay until they are replaced. */
  tick(count = 1, fields: ProgressFields = {}): void {
    requireNumber('ProgressBar.tick', 'count', count, { least: 0 })
    requireObject('ProgressBar.tick', 'fields', fields)
    for (const [name, value] of Object.entries(fields)) {
      if (typeof value !== 'number' && typeof value !== 'string') {
        throw argumentError('ProgressBar.tick', name, 'a number or a string', value)
      }
    }
    this.#count += count
    Object.assign(this.#fields, fields)
    this.#draw(false)
  }

  /** Print a line of text above the bar. */
  print(text: string): void {
    requireString('ProgressBar.print', 'text', text)
    this.#stream.write(this.#terminal && !this.#closed ? `\r\u001b[K${text}\n` : `${text}\n`)
    if (this.#terminal && !this.#closed) this.#draw(true)
  }

  /** Draw the last state and end the line. */
  close(): void {
    if (this.#closed) return
    this.#draw(true)
    if (this.#terminal) this.#stream.write('\n')
    this.#closed = true
  }

  [Symbol.dispose](): void {
    this.close()
  }

  #draw(always: boolean): void {
    const now = performance.now()
    if (this.#closed || (!always && now - this.#written < this.#interval)) return
    this.#written = now
    const columns = Number.isSafeInteger(this.#stream.columns) ? this.#stream.columns : 0
    // A pseudo-terminal without a size reports 0 columns.
    const width = this.#terminal ? (columns || 80) - 1 : Number.POSITIVE_INFINITY
    const line = this.#line((now - this.#start) / 1000, width)
    this.#stream.write(this.#terminal ? `\r${line}\u001b[K` : `${line}\n`)
  }

  #line(seconds: number, width: number): string {
    const { total, label, unit = 'it' } = this.#options
    const rate = seconds > 0 ? this.#count / seconds : 0
    const left = total === undefined || rate === 0 ? undefined : Math.max(0, total - this.#count) / rate
    const share = total ? Math.min(1, this.#count / total) : 1
    const before = [label, total === undefined ? undefined : `${Math.floor(share * 100)}%`].filter(Boolean).join(' ')
    const after = [
      `${this.#count}${total === undefined ? '' : `/${total}`}${this.#options.unit ? ` ${unit}` : ''}`,
      left === undefined || this.#count === total ? clock(seconds) : `${clock(seconds)}<${clock(left)}`,
      rate >= 1 || rate === 0 ? `${digits(rate)} ${unit}/s` : `${digits(1 / rate)} s/${unit}`,
      ...Object.entries(this.#fields).map(
        ([name, value]) => `${name} ${typeof value === 'number' ? digits(value) : value}`,
      ),
    ].join('  ')
    const room = Math.min(30, width - before.length - after.length - 4)
    const bar = !this.#terminal || total === undefined || room < 3 ? '' : ` ${blocks(share, room)}`
    const line = `${before}${bar}${before || bar ? '  ' : ''}${after}`
    return line.length > width ? line.slice(0, Math.max(0, width)) : line
  }
}

const EIGHTHS = ['', '▏', '▎', '▍', '▌', '▋', '▊', '▉']

function blocks(share: number, width: number): string {
  const eighths = Math.round(share * width * 8)
  return `${'█'.repeat(eighths >> 3)}${EIGHTHS[eighths & 7]}`.padEnd(width, '░')
}

function clock(seconds: number): string {
  const whole = Math.round(seconds)
  const two = (value: number) => String(value).padStart(2, '0')
  const [hours, minutes] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60]
  return hours > 0 ? `${hours}:${two(minutes)}:${two(whole % 60)}` : `${two(minutes)}:${two(whole % 60)}`
}

/** Format with four significant digits: 12345, 3.142, 0.0002 as 2.000e-4. */
function digits(value: number): string {
  const size = Math.abs(value)
  if (value === 0 || !Number.isFinite(value)) return String(value)
  if (size < 1e-3 || size >= 1e6) return value.toExponential(3)
  if (Number.isInteger(value) || size >= 1e4) return value.toFixed(0)
  return value.toPrecision(4)
}
