import { type DType, dtypeFacts, dtypesBy } from '../../tensor/dtype.js'
import { type ByteSource, quoted } from '../byte-source.js'

/**
 * Header of a .npy file (NEP 1 and numpy.lib.format): a magic string, a version, and a Python dictionary literal with the keys
 * descr, fortran_order and shape. Versions 1.0, 2.0 and 3.0. A grammar of its own parses the literal; nothing is evaluated.
 */

/** Elements of the array: numbers of a dtype, or texts of a fixed width. */
export type NpyElements =
  | { kind: 'number'; dtype: DType; bytes: number; swapped: boolean }
  | { kind: 'text'; encoding: 'latin1' | 'utf32'; bytes: number; swapped: boolean }

export interface NpyHeader {
  elements: NpyElements
  /** Whether the first dimension varies fastest. */
  fortran: boolean
  shape: number[]
  /** Offset of the data. */
  offset: number
}

const MAX_HEADER = 1 << 20
const MAX_DIMS = 64
// libtorch computes strides from sizes without checking for overflow, also if one of them is 0.
const MAX_SPAN = 2 ** 47

const dtypes = dtypesBy('numpy')

/** @throws the source's error for a header that NumPy does not write, or elements without a dtype here */
export async function readNpyHeader(source: ByteSource): Promise<NpyHeader> {
  const invalid = (what: string, byte: number): never => {
    throw source.error(`it is not a valid .npy file: ${what} (byte ${byte})`, { byte })
  }
  const start = await source.bytes(0, Math.min(source.size, 12))
  if (start.length < 10 || start.toString('latin1', 0, 6) !== '\x93NUMPY')
    invalid('it does not start with \\x93NUMPY', 0)
  const version = start[6]!
  if (version < 1 || version > 3 || start[7] !== 0) invalid(`it has the unknown version ${version}.${start[7]}`, 6)
  if (version > 1 && start.length < 12) invalid('it ends in its head', start.length)
  const begin = version === 1 ? 10 : 12
  const length = version === 1 ? start.readUInt16LE(8) : start.readUInt32LE(8)
  if (length > MAX_HEADER) invalid(`its head claims ${length} bytes, more than ${MAX_HEADER}`, 8)
  if (length > source.size - begin) invalid(`its head claims ${length} bytes, the file has ${source.size}`, 8)
  const text = (await source.bytes(begin, length)).toString('latin1')
  const { descr, fortran, shape } = readLiteral(text, (what, at) => invalid(what, begin + at))
  return { elements: elementsOf(source, descr), fortran, shape, offset: begin + length }
}

interface Literal {
  descr: string
  fortran: boolean
  shape: number[]
}

/** Parse `{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }`. */
function readLiteral(text: string, fail: (what: string, at: number) => never): Literal {
  let at = 0
  const take = (pattern: RegExp): RegExpExecArray | null => {
    pattern.lastIndex = at
    const found = pattern.exec(text)
    if (found !== null) at += found[0].length
    return found
  }
  const punctuation = (sign: RegExp, name: string): void => {
    if (take(sign) === null) fail(`a ${name} is missing in its head`, at)
  }
  const string = (): string => {
    const found = take(/\s*(?:'([^'\\\n]*)'|"([^"\\\n]*)")/y)
    return found === null ? fail('a text is missing in its head', at) : (found[1] ?? found[2]!)
  }
  const result: Partial<Literal> = {}
  const value: Record<string, () => void> = {
    descr: () => {
      if (take(/\s*[[({]/y) !== null) fail('it holds records with named fields, which have no dtype here', at)
      result.descr = string()
    },
    fortran_order: () => {
      const found = take(/\s*(True|False)\b/y)
      result.fortran = found === null ? fail('fortran_order is neither True nor False', at) : found[1] === 'True'
    },
    shape: () => {
      result.shape = tuple()
    },
  }
  const tuple = (): number[] => {
    const sizes: number[] = []
    punctuation(/\s*\(/y, '(')
    while (take(/\s*\)/y) === null) {
      // Python 2 wrote an L after long numbers.
      const found = take(/\s*(\d{1,16})L?\s*(,|(?=\)))/y)
      const size = Number(found?.[1])
      if (found === null || !Number.isSafeInteger(size)) fail('its shape is not a tuple of sizes', at)
      if (found?.[2] === '' && sizes.length === 0) fail('its shape is a number in brackets', at)
      if (sizes.length === MAX_DIMS) fail(`it has more than ${MAX_DIMS} dimensions`, at)
      sizes.push(size)
    }
    if (sizes.reduce((span, size) => span * Math.max(size, 1), 1) > MAX_SPAN) fail('its shape is impossible', at)
    return sizes
  }
  punctuation(/\s*\{/y, '{')
  while (take(/\s*\}/y) === null) {
    const keyAt = at
    const key = string()
    const read = Object.hasOwn(value, key) ? value[key]! : fail(`its head has the unknown key ${quoted(key)}`, keyAt)
    delete value[key]
    punctuation(/\s*:/y, ':')
    read()
    if (take(/\s*,/y) === null && take(/\s*(?=\})/y) === null) fail('a , is missing in its head', at)
  }
  if (take(/\s*$/y) === null) fail('something follows the dictionary in its head', at)
  const { descr, fortran, shape } = result
  if (descr === undefined || fortran === undefined || shape === undefined) {
    return fail(`its head lacks ${Object.keys(value).join(', ')}`, at)
  }
  return { descr, fortran, shape }
}

const refused: Record<string, string> = {
  O: 'Python objects, which are stored as a pickle and could run anything; save numbers or texts instead',
  V: 'raw bytes without a type',
  M: 'dates; save them as int64',
  m: 'durations; save them as int64',
  a: 'texts by an old name; save them again',
}

function elementsOf(source: ByteSource, descr: string): NpyElements {
  const parts = /^([<>|=])([a-zA-Z?])(\d{0,9})$/.exec(descr)
  const [, order, letter, digits] = parts ?? []
  const swapped = order === '>'
  const number = Number(digits)
  if (parts !== null && digits !== '') {
    const dtype = dtypes.get(`${letter}${number}`)
    if (dtype !== undefined) return { kind: 'number', dtype, bytes: number, swapped }
    if (letter === 'U') return { kind: 'text', encoding: 'utf32', bytes: 4 * number, swapped }
    if (letter === 'S') return { kind: 'text', encoding: 'latin1', bytes: number, swapped: false }
  }
  const what = Object.hasOwn(refused, letter ?? '') ? refused[letter!]! : 'elements that have no dtype here'
  throw source.error(`its dtype ${quoted(descr)} means ${what}`, { dtype: descr })
}

/** Return whether NumPy has a dtype for it. */
export function isNpyDType(dtype: DType): boolean {
  return dtypeFacts(dtype).numpy !== undefined
}

/** Return the header that NumPy writes, byte for byte; null for a dtype that NumPy does not have. */
export function buildNpyHeader(dtype: DType, shape: readonly number[]): Uint8Array {
  const code = dtypeFacts(dtype).numpy!
  const order = code.endsWith('1') && !code.startsWith('c') ? '|' : '<'
  const sizes = shape.length === 1 ? `(${shape[0]},)` : `(${shape.join(', ')})`
  let text = `{'descr': '${order}${code}', 'fortran_order': False, 'shape': ${sizes}, }`
  // NumPy reserves space for the first size to grow.
  if (shape.length > 0) text += ' '.repeat(Math.max(0, 21 - String(shape[0]).length))
  const version = text.length + 1 + 10 + 63 > 65535 ? 2 : 1
  const begin = version === 1 ? 10 : 12
  text = `${text.padEnd(Math.ceil((begin + text.length + 1) / 64) * 64 - begin - 1)}\n`
  const head = Buffer.alloc(begin)
  head.write('\x93NUMPY', 'latin1')
  head[6] = version
  if (version === 1) head.writeUInt16LE(text.length, 8)
  else head.writeUInt32LE(text.length, 8)
  return Buffer.concat([head, Buffer.from(text, 'latin1')])
}
