import { misuse, requireString } from '../base/check.js'
import { ConfigError, DataError, InsufficientMemoryError } from '../base/errors.js'
import { opAsync } from '../native/call.js'
import { currentContext } from '../native/context.js'
import { tensor } from '../tensor/create.js'
import { type Device, type DType, dtypeFacts } from '../tensor/dtype.js'
import type { Tensor } from '../tensor/tensor.js'
import { type ByteSource, type FileErrorClass, Place } from './byte-source.js'

/**
 * Tensors from files and into files, by native jobs on the executor: the bytes never pass through the JavaScript heap.
 * native/core/io is the other half.
 */

/** Where a tensor lies: its bytes in row-major order, from `offset` on. Shape and offset were checked by the reader. */
export interface TensorPlace {
  offset: number
  dtype: DType
  shape: readonly number[]
  /** Bytes that the tensor's address is a multiple of. Default: the size of an element. */
  alignment?: number
}

export interface PlaceOptions {
  /**
   * Views of one private mapping of the file instead of copies. CPU only. A tensor whose bytes lie at an offset that is no
   * multiple of `alignment` is copied: libtorch's kernels load whole elements, and a complex128 at an odd multiple of 8 ends the
   * process.
   */
  mmap?: boolean
  /** Default: that of `withDevice`, else the CPU. */
  device?: Device
}

const readTensors = opAsync('voxtorch::read_tensors')
const mapTensors = opAsync('voxtorch::map_tensors')
const writeFile = opAsync('voxtorch::write_file')

/**
 * Reads tensors from a file, or from bytes that are in memory already. A bool is true for every byte but 0.
 * @throws the source's error for places that are not in it, InsufficientMemoryError where copies would not fit
 */
export async function readPlaces(
  source: ByteSource,
  places: readonly TensorPlace[],
  { mmap = false, device }: PlaceOptions = {},
): Promise<Tensor[]> {
  if (mmap && device !== undefined && device !== 'cpu') {
    throw new ConfigError(`mmap: true gives CPU tensors; leave it out to read onto '${device}'`, { device })
  }
  if (source.disk === undefined) return Promise.all(places.map((place) => readFromMemory(source, place, device)))
  // While it is open, its path leads to the file whose head was read, not to one that took its name since.
  return source.opened(async () => {
    const { path, offset: start } = source.disk!
    const isMapped = ({ offset, dtype, alignment = dtypeFacts(dtype).bytes }: TensorPlace) =>
      mmap && (start + offset) % alignment === 0
    const mapped = places.filter(isMapped)
    const copied = places.filter((place) => !isMapped(place))
    if (mmap || (device ?? currentContext().deviceName ?? 'cpu') === 'cpu') {
      requireMemory(
        source,
        copied.reduce((sum, one) => sum + placeBytes(one), 0),
      )
    }
    const options = device === undefined ? {} : { device }
    const [views, copies] = await translated(
      source.place,
      path,
      Promise.all([
        mapped.length > 0 ? mapTensors(path, ...placeLists(mapped, start)) : [],
        copied.length > 0 ? readTensors(path, ...placeLists(copied, start), options) : [],
      ]),
    )
    const [nextView, nextCopy] = [views.values(), copies.values()]
    return places.map((place) => (isMapped(place) ? nextView : nextCopy).next().value as Tensor)
  })
}

/** Places as the native functions take them. */
function placeLists(places: readonly TensorPlace[], start: number): readonly (readonly number[])[] {
  return [
    places.map(({ offset }) => start + offset),
    places.map(({ dtype }) => dtypeFacts(dtype).code),
    places.map(({ shape }) => shape.length),
    places.flatMap(({ shape }) => shape),
  ]
}

async function readFromMemory(source: ByteSource, place: TensorPlace, device: Device | undefined): Promise<Tensor> {
  const { offset, dtype, shape } = place
  const bytes = await source.bytes(offset, placeBytes(place))
  // As native code does: libtorch trusts a bool to be 0 or 1.
  if (dtype === 'bool') for (let i = 0; i < bytes.length; i += 1) bytes[i] = Number(bytes[i] !== 0)
  return tensor(bytes, device === undefined ? { dtype, shape } : { dtype, shape, device })
}

/** How many bytes a tensor of this dtype and shape has. */
export function placeBytes({ dtype, shape }: { dtype: DType; shape: readonly number[] }): number {
  return shape.reduce((product, size) => product * size, dtypeFacts(dtype).bytes)
}

/** Linux grants more memory than there is, and ends the process when it is used. */
export function requireMemory({ place }: ByteSource, bytes: number): void {
  const available = process.availableMemory()
  if (bytes <= available) return
  throw new InsufficientMemoryError(
    `${place.file}: its tensors need ${bytes} bytes of memory, ${available} are available; read fewer of them, or map the file`,
    { file: place.file, bytes, available },
  )
}

/**
 * Writes the bytes of `parts` in row-major order, one after the other. Tensors on a device leave it piece by piece. The
 * file has its name only once it is whole and synced; until then, and after a failure, what was at `path` stays.
 * @throws the given class when the file cannot be written
 */
export async function writeFileParts(
  path: string,
  parts: readonly Tensor[],
  ErrorClass: FileErrorClass,
): Promise<void> {
  await translated(new Place(path, ErrorClass), path, writeFile(path, parts))
}

/** Bytes as a part of a file. */
export function bytePart(bytes: Uint8Array): Tensor {
  return tensor(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength), { device: 'cpu' })
}

/** A path that native code and Node understand alike. */
export function requirePath(where: string, argument: string, value: unknown): void {
  requireString(where, argument, value)
  if (/[\0\p{Surrogate}]/u.test(value as string)) throw misuse(where, argument, 'a path of whole characters', value)
}

/** Which tensors of a file are wanted: a list of names, a function of a name, or all. */
export function requireNames(where: string, names: unknown): void {
  if (names === undefined || typeof names === 'function') return
  if (Array.isArray(names) && names.every((name) => typeof name === 'string')) return
  throw misuse(where, 'names', 'a list of strings or a function', names)
}

/** A native job whose complaints about the file come as the reader's errors, under the name that the caller gave. */
async function translated<T>(place: Place, path: string, job: Promise<T>): Promise<T> {
  try {
    return await job
  } catch (cause) {
    if (!(cause instanceof DataError)) throw cause
    const what = cause.message.startsWith(path) ? cause.message.slice(path.length).trim() : cause.message
    throw place.error(`it ${what}`, { cause })
  }
}
