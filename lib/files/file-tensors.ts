import { argumentError, requireString } from '../base/check.js'
import { ConfigError, DataError, InsufficientMemoryError } from '../base/errors.js'
import { opAsync } from '../native/call.js'
import { currentDevice } from '../native/context.js'
import { tensor } from '../tensor/create.js'
import { type Device, type DType, dtypeFacts } from '../tensor/dtype.js'
import type { Tensor } from '../tensor/tensor.js'
import { type ByteSource, type FileErrorClass, Place } from './byte-source.js'

/**
 * Tensors from files and into files, by native jobs on the executor: the bytes never pass through the JavaScript heap.
 * native/core/io is the counterpart.
 */

/** Location of a tensor in a file: its bytes in row-major order, from `offset` on. The reader has checked shape and offset. */
export interface TensorPlace {
  offset: number
  dtype: DType
  shape: readonly number[]
  /** Required alignment of the tensor's address in bytes. Default: the size of an element. */
  alignment?: number
}

export interface PlaceOptions {
  /**
   * Return views of one private mapping of the file instead of copies. CPU only. A tensor whose offset is not a multiple of
   * `alignment` is copied: libtorch's kernels load whole elements, and a complex128 at an odd multiple of 8 crashes the
   * process.
   */
  mmap?: boolean
  /** Device. Default: that of `withDevice`, else the CPU. */
  device?: Device
}

const readTensors = opAsync('voxtorch::read_tensors')
const mapTensors = opAsync('voxtorch::map_tensors')
const writeFile = opAsync('voxtorch::write_file')

/**
 * Read tensors from a file or from memory. A bool is true for every byte but 0.
 * @throws the source's error for locations outside it; InsufficientMemoryError if copies would not fit in memory
 */
export async function readPlaces(
  source: ByteSource,
  places: readonly TensorPlace[],
  { mmap = false, device }: PlaceOptions = {},
): Promise<Tensor[]> {
  if (mmap && device !== undefined && device !== 'cpu') {
    throw new ConfigError(`mmap: expected device 'cpu' with it, got '${device}'. Leave mmap out`, { device })
  }
  if (source.disk === undefined) return Promise.all(places.map((place) => readFromMemory(source, place, device)))
  // While the file is open, its path leads to the file whose header was read, not to one renamed to its name since.
  return source.opened(async () => {
    const { path, offset: start } = source.disk!
    const isMapped = ({ offset, dtype, alignment = dtypeFacts(dtype).bytes }: TensorPlace) =>
      mmap && (start + offset) % alignment === 0
    const mapped = places.filter(isMapped)
    const copied = places.filter((place) => !isMapped(place))
    if (mmap || (device ?? currentDevice() ?? 'cpu') === 'cpu') {
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

/** Return the locations in the form of the native functions. */
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
  // Like native code: libtorch relies on a bool to be 0 or 1.
  if (dtype === 'bool') for (let i = 0; i < bytes.length; i += 1) bytes[i] = Number(bytes[i] !== 0)
  return tensor(bytes, device === undefined ? { dtype, shape } : { dtype, shape, device })
}

/** Return the number of bytes of a tensor of this dtype and shape. */
export function placeBytes({ dtype, shape }: { dtype: DType; shape: readonly number[] }): number {
  return shape.reduce((product, size) => product * size, dtypeFacts(dtype).bytes)
}

/** Check that memory suffices: Linux overcommits, and kills the process when the memory is used. */
export function requireMemory({ place }: ByteSource, bytes: number): void {
  const available = process.availableMemory()
  if (bytes <= available) return
  throw new InsufficientMemoryError(
    `${place.file}: expected tensors that fit in ${available} bytes of available memory, got ${bytes}. Read fewer of them, or map the file`,
    { file: place.file, bytes, available },
  )
}

/**
 * Write the bytes of `parts` in row-major order, concatenated. Tensors on a device are copied piece by piece. The file is
 * written atomically: until it is complete and synced, and after a failure, the old file at `path` stays.
 * @throws the given class if the file cannot be written
 */
export async function writeFileParts(
  path: string,
  parts: readonly Tensor[],
  ErrorClass: FileErrorClass,
): Promise<void> {
  await translated(new Place(path, ErrorClass), path, writeFile(path, parts))
}

/** Return bytes as a part of a file. */
export function bytePart(bytes: Uint8Array): Tensor {
  return tensor(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength), { device: 'cpu' })
}

/** Check a path that native code and Node interpret alike. */
export function requirePath(where: string, argument: string, value: unknown): void {
  requireString(where, argument, value)
  if (/[\0\p{Surrogate}]/u.test(value as string))
    throw argumentError(where, argument, 'a path of whole characters', value)
}

/** Check the option `names`: a list of names, a function of a name, or undefined for all tensors. */
export function requireNames(where: string, names: unknown): void {
  if (names === undefined || typeof names === 'function') return
  if (Array.isArray(names) && names.every((name) => typeof name === 'string')) return
  throw argumentError(where, 'names', 'a list of strings or a function', names)
}

/** Convert errors of a native job about the file to the reader's errors, with the caller's path. */
async function translated<T>(place: Place, path: string, job: Promise<T>): Promise<T> {
  try {
    return await job
  } catch (cause) {
    if (!(cause instanceof DataError)) throw cause
    const what = cause.message.startsWith(path) ? cause.message.slice(path.length).trim() : cause.message
    throw place.error(`it ${what}`, { cause })
  }
}
