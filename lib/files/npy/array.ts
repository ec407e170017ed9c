import { heapHolds, tooMuch } from '../../base/heap.js'
import { opAsync } from '../../native/call.js'
import type { DType } from '../../tensor/dtype.js'
import type { Tensor } from '../../tensor/tensor.js'
import type { ByteSource } from '../byte-source.js'
import { type PlaceOptions, placeBytes, readPlaces } from '../file-tensors.js'
import { ZipArchive } from '../zip/zip.js'
import { type NpyElements, type NpyHeader, readNpyHeader } from './header.js'
import type { NpyTexts, NpyValue } from './npy.js'

// Texts become JavaScript strings, which use more memory than the file.
const MAX_TEXTS = 2 ** 24
const MAX_TEXT_BYTES = 2 ** 28

const flip = opAsync('aten::flip')

/** Read the arrays of an archive. Call inside a scope. */
export async function readArchive(source: ByteSource, options: PlaceOptions = {}): Promise<Record<string, NpyValue>> {
  const archive = await ZipArchive.open(source)
  const values: Record<string, NpyValue> = Object.create(null)
  const budget = { texts: fewTexts(source) }
  for (const entry of archive.entries.values()) {
    if (!entry.name.endsWith('.npy')) continue
    values[entry.name.slice(0, -4)] = await readArray(await archive.open(entry), options, budget)
  }
  return values
}

/** Return the maximum number of texts, including the lists around them: empty texts take no bytes in a file. */
const fewTexts = (source: ByteSource): number => Math.max(1_000_000, source.size)

/** Read the array of a .npy source. Call inside a scope. */
export async function readArray(
  source: ByteSource,
  options: PlaceOptions = {},
  budget = { texts: fewTexts(source) },
): Promise<NpyValue> {
  const header = await readNpyHeader(source)
  const { elements, shape, offset } = header
  const count = shape.reduce((product, size) => product * size, 1)
  const end = offset + count * elements.bytes
  if (end > source.size) {
    throw source.error(`expected ${end} bytes for an array of shape [${shape}], but it ends at byte ${source.size}`, {
      byte: source.size,
    })
  }
  if (end < source.size) {
    throw source.error(
      `expected the end of the file after the array, at byte ${end}, but ${source.size - end} more bytes follow`,
      { byte: end },
    )
  }
  if (elements.kind === 'text') return readTexts(source, header, elements, count, budget)
  // Reverse the dimensions so that the fastest one is last; permuting them back does not move the bytes.
  const stored = header.fortran ? [...shape].reverse() : shape
  const { dtype, swapped } = elements
  const value =
    swapped && elements.bytes > 1
      ? await readSwapped(source, dtype, stored, offset, options)
      : (await readPlaces(source, [{ dtype, shape: stored, offset }], options))[0]!
  return header.fortran && shape.length > 1 ? value.permute(shape.map((_, i) => shape.length - 1 - i)) : value
}

/** Read big-endian numbers. */
async function readSwapped(
  source: ByteSource,
  dtype: DType,
  shape: readonly number[],
  offset: number,
  options: PlaceOptions,
): Promise<Tensor> {
  const bytes = placeBytes({ dtype, shape })
  const width = placeBytes({ dtype, shape: [] }) / (dtype.startsWith('complex') ? 2 : 1)
  const place = { dtype: 'uint8', shape: [bytes / width, width], offset } as const
  const [raw] = await readPlaces(source, [place], options)
  const turned = (await flip(raw, [1])) as Tensor
  return turned.reshape([bytes]).view(dtype).reshape(shape)
}

async function readTexts(
  source: ByteSource,
  { shape, fortran, offset }: NpyHeader,
  elements: NpyElements & { kind: 'text' },
  count: number,
  budget: { texts: number },
): Promise<NpyTexts> {
  // Nested arrays use memory even if they are empty.
  const span = shape.reduce((product, size) => product * Math.max(size, 1), 1)
  budget.texts -= span
  if (budget.texts < 0) {
    throw source.error(`its shape [${shape}] of empty texts is larger than the file`, { byte: offset })
  }
  if (count > MAX_TEXTS || count * elements.bytes > MAX_TEXT_BYTES) {
    const limits = `${MAX_TEXTS} texts of ${MAX_TEXT_BYTES} bytes in all`
    throw source.error(`it holds ${count} texts of ${elements.bytes} bytes, the most are ${limits}`, { byte: offset })
  }
  // Memory for a list's element, and the text that it points to.
  if (!heapHolds(span * 32 + count * elements.bytes)) throw source.error(tooMuch(), { byte: offset })
  const bytes = await source.bytes(offset, count * elements.bytes)
  const steps = stepsOf(shape, fortran)
  const build = (dim: number, at: number): NpyTexts => {
    if (dim < shape.length) return Array.from({ length: shape[dim]! }, (_, i) => build(dim + 1, at + i * steps[dim]!))
    const begin = at * elements.bytes
    return decode(source, bytes, begin, elements, offset)
  }
  return build(0, 0)
}

/** Return the strides in elements of each dimension. */
function stepsOf(shape: readonly number[], fortran: boolean): number[] {
  const steps = new Array<number>(shape.length)
  let step = 1
  for (let i = 0; i < shape.length; i += 1) {
    const dim = fortran ? i : shape.length - 1 - i
    steps[dim] = step
    step *= shape[dim]!
  }
  return steps
}

/** Decode the fixed-width text at `begin`, without the trailing zeros. */
function decode(
  source: ByteSource,
  bytes: Buffer,
  begin: number,
  { encoding, swapped, bytes: width }: NpyElements & { kind: 'text' },
  offset: number,
): string {
  let end = begin + width
  while (end > begin && bytes[end - 1] === 0) end -= 1
  if (encoding === 'latin1') return bytes.toString('latin1', begin, end)
  let text = ''
  for (let at = begin; at < end; at += 4) {
    const point = swapped ? bytes.readUInt32BE(at) : bytes.readUInt32LE(at)
    if (point > 0x10ffff) {
      throw source.error(`expected a Unicode character at byte ${offset + at}, got ${point}`, { byte: offset + at })
    }
    text += String.fromCodePoint(point)
  }
  return text
}
