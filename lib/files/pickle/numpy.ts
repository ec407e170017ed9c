import { heapHolds, LONGEST_LIST, tooMuch } from '../../base/heap.js'
import { type DType, dtypesBy } from '../../tensor/dtype.js'
import { bytesOf, callable, type Globals, marker } from './builtins.js'
import { Payload } from './feed.js'
import { Buildable, Callable, Marker, type Site } from './objects.js'
import { narrowed } from './text.js'

/** NumPy's arrays, scalars and dtypes in pickles: the forms of NumPy 1 and 2, and `_frombuffer` of protocol 5. */

const numeric = dtypesBy('numpy')

/** A NumPy dtype: a number type, `U` and `S` texts of a fixed width, or `O` for Python objects. */
export class NumpyDType extends Buildable {
  bigEndian = false
  readonly kind: 'number' | 'U' | 'S' | 'O'
  readonly dtype: DType | undefined
  itemSize: number

  constructor(code: string, site: Site) {
    super()
    const match = /^([<>|=]?)([a-zA-Z?])(\d{0,9})$/.exec(code === '?' ? 'b1' : code)
    const [, order, letter = '', digits = ''] = match ?? []
    this.dtype = numeric.get(letter + digits)
    if (this.dtype === undefined && !['U', 'S', 'O'].includes(letter)) throw unreadable(code, site)
    this.kind = this.dtype === undefined ? (letter as 'U' | 'S' | 'O') : 'number'
    this.bigEndian = order === '>'
    this.itemSize = this.kind === 'U' ? 4 * Number(digits) : Number(digits)
  }

  /** State: (version, byte order, subdtype, names, fields, width, alignment, flags). */
  build(state: unknown, site: Site): void {
    const [, order, subdtype, names, , width] = tupleOf(state, 'the state of a dtype', site)
    if ((subdtype ?? null) !== null || (names ?? null) !== null) throw unreadable('a structured dtype', site)
    this.bigEndian = textOf(order) === '>'
    if ((this.kind === 'U' || this.kind === 'S') && Number.isSafeInteger(width)) {
      if ((width as number) < 0) throw unreadable('of negative width', site)
      this.itemSize = width as number
    }
  }
}

function unreadable(code: string, site: Site): Error {
  return site.error(`it has an array of the numpy dtype ${JSON.stringify(code)}, which has no counterpart here`, {
    global: 'numpy.dtype',
  })
}

/** An array: its bytes and their layout, or its items if they are Python objects. */
export class NumpyArray extends Buildable {
  shape: readonly number[] = [0]
  /** Strides in elements per dimension. */
  strides: readonly number[] = [1]
  descr: NumpyDType | undefined
  data: Uint8Array | Payload | readonly unknown[] = new Uint8Array(0)
  result: unknown

  /** State: (version, shape, dtype, whether columns come first, bytes or list). */
  build(state: unknown, site: Site): void {
    const parts = tupleOf(state, 'the state of an array', site)
    const [shape, descr, fortran, data] = parts.length === 5 ? parts.slice(1) : parts
    this.set(shape, descr, data, fortran === true || fortran === 1 ? 'F' : 'C', site)
  }

  set(shape: unknown, descr: unknown, data: unknown, order: 'C' | 'F', site: Site): void {
    if (!(descr instanceof NumpyDType)) throw site.error('it has an array without a dtype')
    const sizes = shapeOf(shape, site)
    const count = sizes.reduce((product, size) => product * BigInt(size), 1n)
    this.shape = sizes
    this.strides = contiguous(sizes, order)
    this.descr = descr
    if (descr.kind !== 'number') {
      // The result is nested arrays: [10^9, 0] has no item but 10^9 lists.
      let lists = 1
      for (const size of sizes) site.charge((lists *= size))
    }
    if (descr.kind === 'O') {
      if (!Array.isArray(data)) throw site.error('it has an array of objects without its list')
      if (BigInt(data.length) !== count) throw mismatch(sizes, count, data.length, 'items', site)
      site.charge(data.length)
      // NumPy lists objects row by row, for any memory order.
      this.strides = contiguous(sizes, 'C')
      this.data = data
      return
    }
    const bytes = bytesOf(data, site)
    const wanted = count * BigInt(descr.itemSize)
    // The number of bytes of latin1 text is known only after decoding.
    const known = !(bytes instanceof Payload && bytes.form === 'latin1')
    if (known ? wanted !== BigInt(bytes.length) : wanted > BigInt(bytes.length)) {
      throw mismatch(sizes, wanted, bytes.length, 'bytes', site)
    }
    site.charge(bytes.length)
    // A text of width 0 has an item but no byte.
    if (wanted === 0n) site.charge(Number(count))
    this.data = bytes
  }
}

function mismatch(shape: readonly number[], wanted: bigint, got: number, unit: string, site: Site): Error {
  return site.error(`it has an array of shape [${shape}] that needs ${wanted} ${unit}, with ${got}`)
}

function shapeOf(value: unknown, site: Site): readonly number[] {
  const sizes = typeof value === 'number' ? [value] : value
  const good = (size: unknown) => Number.isSafeInteger(size) && (size as number) >= 0
  if (!Array.isArray(sizes) || sizes.length > 64 || !sizes.every(good)) {
    throw site.error('it has an array whose shape is not a list of at most 64 sizes')
  }
  return sizes
}

export function contiguous(shape: readonly number[], order: 'C' | 'F'): number[] {
  const strides: number[] = new Array(shape.length)
  let step = 1
  for (let k = 0; k < shape.length; k += 1) {
    const i = order === 'C' ? shape.length - 1 - k : k
    strides[i] = step
    step *= Math.max(shape[i]!, 1)
  }
  return strides
}

function tupleOf(value: unknown, what: string, site: Site): readonly unknown[] {
  if (Array.isArray(value)) return value
  throw site.error(`expected a tuple as ${what}`)
}

/** Return a short text, or the bytes that it was in Python 2. */
function textOf(value: unknown): string | undefined {
  if (value instanceof Uint8Array && value.length < 100) return Buffer.from(value).toString('latin1')
  return typeof value === 'string' ? value : undefined
}

const arrayTypes = [marker('numpy', 'ndarray'), marker('numpy', 'memmap'), marker('numpy.core.memmap', 'memmap')]

/** Apply `_reconstruct(ndarray, (0,), b'b')`: an array that BUILD will fill. */
function reconstruct(args: readonly unknown[], site: Site): NumpyArray {
  if (arrayTypes.some(([, type]) => type === args[0])) return new NumpyArray()
  const name = args[0] instanceof Marker || args[0] instanceof Callable ? args[0].name : 'another object'
  throw site.error(`it rebuilds ${name} as an array`, { global: 'numpy.core.multiarray._reconstruct' })
}

/** Apply `dtype('f4', align, copy)`. */
function makeDType(args: readonly unknown[], site: Site): NumpyDType {
  const code = textOf(args[0])
  if (code === undefined) throw unreadable('of another form', site)
  return new NumpyDType(code, site)
}

/** Apply `_frombuffer(bytes, dtype, shape, order, axes)`. */
function fromBuffer(args: readonly unknown[], site: Site): NumpyArray {
  const [data, descr, shape, order = 'C', axes = null] = args
  const array = new NumpyArray()
  array.set(shape, descr, data, order === 'F' ? 'F' : 'C', site)
  if (order !== 'K' || axes === null) return array
  const { shape: sizes, strides } = array
  const seen = new Set(tupleOf(axes, 'the order of the axes', site))
  if (seen.size !== sizes.length || !sizes.every((_, i) => seen.has(i)))
    throw site.error('expected an order of the axes of the array')
  array.shape = [...seen].map((axis) => sizes[axis as number]!)
  array.strides = [...seen].map((axis) => strides[axis as number]!)
  return array
}

/** Apply `scalar(dtype, bytes)`: one number or text. */
function makeScalar(args: readonly unknown[], site: Site): unknown {
  const [descr, data] = args
  if (!(descr instanceof NumpyDType)) throw site.error('it has a scalar without a dtype')
  if (descr.kind === 'O') throw site.error('it has a scalar that is a Python object')
  const bytes = bytesOf(data, site)
  if (!(bytes instanceof Uint8Array) || bytes.length !== descr.itemSize) {
    throw site.error(`it has a scalar of ${bytes.length} bytes, ${descr.itemSize} are needed`)
  }
  return itemsOf(descr, bytes, 1, site)[0]
}

/** Return elements as JavaScript values, in the order of their bytes. */
export function itemsOf(descr: NumpyDType, bytes: Uint8Array, count: number, site: Pick<Site, 'error'>): unknown[] {
  const { itemSize } = descr
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
  const read = descr.kind === 'number' ? readers[descr.dtype!]! : descr.kind === 'U' ? readText : readBytes
  if (count > LONGEST_LIST || !heapHolds(count * itemCost(descr))) throw site.error(tooMuch())
  const items: unknown[] = []
  for (let i = 0; i < count; i += 1) items.push(read(view, i * itemSize, !descr.bigEndian, itemSize, site))
  return items
}

/** Return the bytes of JavaScript memory for an element: in the list, and as an object of its own. */
function itemCost({ kind, itemSize }: NumpyDType): number {
  if (kind === 'number') return 24
  return kind === 'U' ? 40 + itemSize / 2 : 230 + itemSize
}

type Read = (view: DataView, at: number, little: boolean, size: number, site: Pick<Site, 'error'>) => unknown

const readers: Partial<Record<DType, Read>> = {
  bool: (view, at) => view.getUint8(at) !== 0,
  int8: (view, at) => view.getInt8(at),
  int16: (view, at, little) => view.getInt16(at, little),
  int32: (view, at, little) => view.getInt32(at, little),
  int64: (view, at, little) => narrowed(view.getBigInt64(at, little)),
  uint8: (view, at) => view.getUint8(at),
  uint16: (view, at, little) => view.getUint16(at, little),
  uint32: (view, at, little) => view.getUint32(at, little),
  uint64: (view, at, little) => narrowed(view.getBigUint64(at, little)),
  float16: (view, at, little) => halfToNumber(view.getUint16(at, little)),
  float32: (view, at, little) => view.getFloat32(at, little),
  float64: (view, at, little) => view.getFloat64(at, little),
  complex64: (view, at, little) => ({ re: view.getFloat32(at, little), im: view.getFloat32(at + 4, little) }),
  complex128: (view, at, little) => ({ re: view.getFloat64(at, little), im: view.getFloat64(at + 8, little) }),
}

function halfToNumber(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1
  const exponent = (bits >> 10) & 31
  const fraction = bits & 1023
  if (exponent === 31) return fraction === 0 ? sign * Number.POSITIVE_INFINITY : Number.NaN
  return sign * (exponent === 0 ? fraction * 2 ** -24 : (1024 + fraction) * 2 ** (exponent - 25))
}

/** Read UTF-32, padded with zeros. */
const readText: Read = (view, at, little, size, site) => {
  let end = size - (size % 4)
  while (end > 0 && view.getUint32(at + end - 4, little) === 0) end -= 4
  let text = ''
  for (let i = 0; i < end; i += 4) {
    const code = view.getUint32(at + i, little)
    if (code > 0x10ffff) throw site.error(`expected a Unicode character in a text, got the number ${code}`)
    text += String.fromCodePoint(code)
  }
  return text
}

/** Read bytes, padded with zeros. */
const readBytes: Read = (view, at, _little, size) => {
  let end = size
  while (end > 0 && view.getUint8(at + end - 1) === 0) end -= 1
  return new Uint8Array(view.buffer.slice(view.byteOffset + at, view.byteOffset + at + end))
}

export const numpyGlobals: Globals = new Map<string, Callable | Marker>([
  ...arrayTypes,
  callable('numpy', 'dtype', makeDType),
  callable('numpy.core.multiarray', '_reconstruct', reconstruct),
  callable('numpy.core.multiarray', 'scalar', makeScalar),
  callable('numpy.core.numeric', '_frombuffer', fromBuffer),
])
