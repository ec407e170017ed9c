import { argumentError, requireOneOf, requireOptions, requireWhole } from '../base/check.js'
import { BusyError, VoxtorchError } from '../base/errors.js'
import { op } from '../native/call.js'
import { type Complex, Slice } from '../native/encode.js'
import { cat } from './create.js'
import { type DType, dtypeFacts } from './dtype.js'
import { noGrad, scope } from './scope.js'
import { type Index, type NestedArray, registerPrinter, type Scalar, type Tensor } from './tensor.js'

/** Print tensors as PyTorch does: same numbers, same columns, same suffixes. */

export interface PrintOptions {
  /** Number of digits after the decimal point. Default: 4. */
  precision?: number
  /** Number of elements above which a tensor is summarized; Infinity for never. Default: 1000. */
  threshold?: number
  /** Number of elements shown at each end of a summarized dimension. Default: 3. */
  edgeitems?: number
  /** Number of characters of a line. Default: 80. */
  linewidth?: number
  /** Values for the four options above: the defaults, fewer digits and elements ('short'), or all elements ('full'). */
  profile?: 'default' | 'short' | 'full'
  /** Whether to print in scientific notation; null decides by the elements. Default: null, also where it is left out. */
  sciMode?: boolean | null
}

const DEFAULTS = { precision: 4, threshold: 1000, edgeitems: 3, linewidth: 80 }
const PROFILES = {
  default: DEFAULTS,
  short: { ...DEFAULTS, precision: 2, edgeitems: 2 },
  full: { ...DEFAULTS, threshold: Number.POSITIVE_INFINITY },
}
const settings = { ...DEFAULTS, sciMode: null as boolean | null }

/** Set how tensors are printed, like torch.set_printoptions. Options that are left out keep their values, except `sciMode`. */
export function setPrintoptions(options: PrintOptions): void {
  const where = 'setPrintoptions'
  requireOptions(where, options, [...Object.keys(DEFAULTS), 'profile', 'sciMode'])
  const { profile, sciMode = null, ...own } = options
  if (profile !== undefined) requireOneOf(where, 'profile', profile, Object.keys(PROFILES))
  const numbers = Object.fromEntries(Object.entries(own).filter(([, value]) => value !== undefined))
  for (const [name, value] of Object.entries(numbers)) {
    if (name === 'threshold' && value === Number.POSITIVE_INFINITY) continue
    requireWhole(where, name, value, name === 'precision' || name === 'threshold' ? 0 : 1)
    if (name === 'precision' && value > 100) throw argumentError(where, name, 'an integer of at most 100', value)
  }
  if (sciMode !== null && typeof sciMode !== 'boolean')
    throw argumentError(where, 'sciMode', 'true, false or null', sciMode)
  Object.assign(settings, profile === undefined ? {} : PROFILES[profile], numbers, { sciMode })
}

type Format = (value: Scalar) => string

interface Formatter {
  readonly width: number
  readonly format: Format
}

/** Format with fixed-point digits and ties to even, like C's printf: JavaScript's toFixed rounds ties up. */
function fixed(value: number, digits: number): string {
  const scale = 10 ** digits
  const scaled = Math.abs(value) * scale
  const whole = Math.floor(scaled)
  if (scaled - whole === 0.5 && whole % 2 === 0 && Number.isInteger(value * 2 ** (digits + 1))) {
    return `${value < 0 ? '-' : ''}${(whole / scale).toFixed(digits)}`
  }
  const text = value.toFixed(digits)
  if (Math.abs(value) < 1e21) return Object.is(value, -0) ? `-${text}` : text
  return BigInt(value).toString() + (digits > 0 ? `.${'0'.repeat(digits)}` : '')
}

function nonFinite(value: number): string {
  return Number.isNaN(value) ? 'nan' : value > 0 ? 'inf' : '-inf'
}

function exponential(value: number): string {
  let text = value.toExponential(settings.precision)
  // Round ties to even here too: the digits before an exact 5 stay if the last of them is even.
  const tie = /^(-?\d\.\d*[02468])50*(e.*)$/.exec(value.toExponential(100))
  if (tie !== null && tie[1]!.length === text.indexOf('e')) text = tie[1]! + tie[2]!
  // JavaScript drops the sign of -0 in fixed-point numbers.
  if (Object.is(value, -0)) text = `-${text}`
  return text.replace(/e([+-])(\d)$/, 'e$10$2')
}

function floatFormatter(values: readonly number[]): Formatter {
  const finite = values.filter((value) => Number.isFinite(value) && value !== 0)
  let smallest = Number.POSITIVE_INFINITY
  let largest = 0
  let whole = true
  for (const value of finite) {
    smallest = Math.min(smallest, Math.abs(value))
    largest = Math.max(largest, Math.abs(value))
    if (!Number.isInteger(value)) whole = false
  }
  const spread = largest / smallest > 1000 || largest > 1e8 || smallest < 1e-4
  const scientific = finite.length > 0 && (settings.sciMode ?? spread)
  const text = (value: number): string => {
    if (!Number.isFinite(value)) return nonFinite(value)
    if (scientific) return exponential(value)
    return whole ? `${fixed(value, 0)}.` : fixed(value, settings.precision)
  }
  const width = finite.reduce((widest, value) => Math.max(widest, text(value).length), 1)
  return { width, format: (value) => text(value as number).padStart(width) }
}

function plainFormatter(values: readonly Scalar[]): Formatter {
  const text = (value: Scalar): string => (typeof value === 'boolean' ? (value ? 'True' : 'False') : String(value))
  const width = values.reduce<number>((widest, value) => Math.max(widest, text(value).length), 1)
  return { width, format: (value) => text(value).padStart(width) }
}

function complexFormatter(values: readonly Complex[]): Formatter {
  const real = floatFormatter(values.map((value) => value.re))
  const imaginary = floatFormatter(values.map((value) => value.im))
  return {
    width: real.width + imaginary.width + 1,
    format: (value) => {
      const { re, im } = value as Complex
      const tail = `${imaginary.format(im)}j`.trimStart()
      return real.format(re) + (tail.startsWith('-') ? tail : `+${tail}`)
    },
  }
}

function formatterFor(values: readonly Scalar[], dtype: DType): Formatter {
  const { kind } = dtypeFacts(dtype)
  if (kind === 'complex') return complexFormatter(values as Complex[])
  return kind === 'float' ? floatFormatter(values as number[]) : plainFormatter(values)
}

/** Return the corners that a summary shows: the first and last elements of each dimension. */
function corners(tensor: Tensor): Tensor {
  let result = tensor
  tensor.shape.forEach((size, dim) => {
    if (size <= 2 * settings.edgeitems) return
    const before: Index[] = new Array(dim).fill(new Slice())
    result = cat(
      [result.at(...before, new Slice(0, settings.edgeitems)), result.at(...before, new Slice(-settings.edgeitems))],
      dim,
    )
  })
  return result
}

function body(
  values: NestedArray,
  shape: readonly number[],
  dim: number,
  indent: number,
  summary: boolean,
  format: Formatter,
): string {
  if (dim === shape.length) return format.format(values as Scalar)
  const list = values as NestedArray[]
  const cut = summary && shape[dim]! > 2 * settings.edgeitems
  if (dim === shape.length - 1) {
    const perLine = Math.max(1, Math.floor((settings.linewidth - indent) / (format.width + 2)))
    const items = list.map((value) => format.format(value as Scalar))
    if (cut) items.splice(settings.edgeitems, 0, ' ...')
    const lines: string[] = []
    for (let i = 0; i < items.length; i += perLine) lines.push(items.slice(i, i + perLine).join(', '))
    return `[${lines.join(`,\n${' '.repeat(indent + 1)}`)}]`
  }
  const parts = list.map((value) => body(value, shape, dim + 1, indent + 1, summary, format))
  if (cut) parts.splice(settings.edgeitems, 0, '...')
  return `[${parts.join(`,${'\n'.repeat(shape.length - dim - 1)}${' '.repeat(indent + 1)}`)}]`
}

function suffixes(tensor: Tensor, dtype: DType, showShape: boolean, showDType: boolean): string[] {
  const list: string[] = []
  const { device, shape } = tensor
  if (device !== 'cpu') list.push(`device='${device}'`)
  if (showShape) list.push(`size=(${shape.length === 1 ? `${shape[0]},` : shape.join(', ')})`)
  // Without elements to show, the text must state int64 and bool explicitly.
  const usual = dtype === 'float32' || (!showDType && ['int64', 'bool', 'complex64'].includes(dtype))
  if (!usual) list.push(`dtype=torch.${dtype}`)
  const { gradFn } = tensor
  if (gradFn !== null) list.push(`grad_fn=<${gradFn.replace(/^torch::autograd::/, '')}>`)
  else if (tensor.requiresGrad) list.push('requires_grad=True')
  return list
}

const nonzeros = op('aten::_nnz')

/** Return the number of elements that a sparse tensor stores. */
function stored(tensor: Tensor): string[] {
  try {
    return [`nnz=${nonzeros(tensor)}`]
  } catch {
    return []
  }
}

/** Format a tensor as text. */
export function format(tensor: Tensor): string {
  return noGrad(() =>
    scope(() => {
      const prefix = 'tensor('
      const { dtype, shape, device } = tensor
      const count = shape.reduce((product, size) => product * size, 1)
      let text = '...'
      let hidden = true
      let extra: string[] = []
      if (count === 0 && device !== 'meta') text = '[]'
      else if (device !== 'meta') {
        try {
          const summary = count > settings.threshold
          const shown = summary ? corners(tensor.detach()) : tensor.detach()
          const values = shown.toArray()
          const flat = [values].flat(shape.length as 1) as Scalar[]
          text = body(values, shape, 0, prefix.length, summary, formatterFor(flat, dtype))
          hidden = false
        } catch (error) {
          // Printing a tensor without readable values, such as a sparse one, must not fail.
          if (!(error instanceof VoxtorchError) || error instanceof BusyError) throw error
          extra = stored(tensor)
        }
      }
      const showShape = hidden && (text === '...' || shape.length !== 1)
      // A suffix that would exceed the line width moves to the next line.
      let result = prefix + text
      let length = result.length - (result.lastIndexOf('\n') + 1)
      for (const suffix of [...extra, ...suffixes(tensor, dtype, showShape, hidden)]) {
        if (length + suffix.length + 2 > settings.linewidth) {
          result += `,\n${' '.repeat(prefix.length)}${suffix}`
          length = prefix.length + suffix.length
        } else {
          result += `, ${suffix}`
          length += suffix.length + 2
        }
      }
      return `${result})`
    }),
  )
}

registerPrinter(format)
