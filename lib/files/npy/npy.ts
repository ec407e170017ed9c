import { requireRecord } from '../../base/arguments.js'
import { argumentError, requireOptions } from '../../base/check.js'
import { DataError, DTypeError } from '../../base/errors.js'
import { opAsync } from '../../native/call.js'
import type { Device } from '../../tensor/dtype.js'
import { scope, Tensor } from '../../tensor/index.js'
import { quoted, withFile } from '../byte-source.js'
import { bytePart, placeBytes, requirePath, writeFileParts } from '../file-tensors.js'
import { zipDirectory, zipHead } from '../zip/writer.js'
import { readArchive, readArray } from './array.js'
import { buildNpyHeader, isNpyDType } from './header.js'

/** Texts in nested arrays, as deep as the NumPy array has dimensions. */
export type NpyTexts = string | NpyTexts[]
/** Numbers are a tensor; NumPy's `U` and `S` arrays are texts, with bytes as the characters 0 to 255. */
export type NpyValue = Tensor | NpyTexts

export interface ReadNpyOptions {
  /** Return a view of a private mapping of the file instead of a copy; see `loadSafetensors`. Default false. */
  mmap?: boolean
  /** Device of the tensor. Default: that of `withDevice`, else the CPU. Not with `mmap`. */
  device?: Device
}

const crc32 = opAsync('voxtorch::crc32')

/**
 * Read a .npy file: every numeric dtype of either byte order, bool, and texts. A Fortran-order array becomes a tensor with
 * Fortran strides.
 * @throws DataError that names file and byte, for any file that is incomplete or invalid, and for arrays of objects, records,
 *   dates or long doubles, which have no dtype here
 * @throws InsufficientMemoryError if the array needs more memory than there is
 */
export async function readNpy(path: string, options: ReadNpyOptions = {}): Promise<NpyValue> {
  requirePath('readNpy', 'path', path)
  requireOptions('readNpy', options, ['mmap', 'device'])
  return scope(() => withFile(path, DataError, (source) => readArray(source, options)))
}

/**
 * Read the arrays of a .npz archive, as `numpy.savez` or `numpy.savez_compressed` writes it. Entries that are not .npy files
 * are left out.
 * @throws DataError as {@link readNpy}, with the entry
 */
export async function readNpz(
  path: string,
  options: Pick<ReadNpyOptions, 'device'> = {},
): Promise<Record<string, NpyValue>> {
  requirePath('readNpz', 'path', path)
  requireOptions('readNpz', options, ['device'])
  return scope(() => withFile(path, DataError, (source) => readArchive(source, options)))
}

/**
 * Write a tensor as a .npy file, byte for byte like NumPy, on the executor. The file is written atomically.
 * @throws DTypeError for dtypes that NumPy does not have (bfloat16, float8); DataError if the file cannot be written
 */
export async function saveNpy(path: string, value: Tensor): Promise<void> {
  requirePath('saveNpy', 'path', path)
  requireTensor('saveNpy', 'value', value)
  await scope(() => writeFileParts(path, [bytePart(buildNpyHeader(value.dtype, value.shape)), value], DataError))
}

/**
 * Write tensors as an uncompressed .npz archive, which `numpy.load` opens. They must not change until it is written, since the
 * archive contains their checksums.
 * @throws as {@link saveNpy}
 */
export async function saveNpz(path: string, values: Readonly<Record<string, Tensor>>): Promise<void> {
  requirePath('saveNpz', 'path', path)
  requireRecord('saveNpz', values, [], 'values')
  for (const [name, value] of Object.entries(values)) {
    requireTensor('saveNpz', quoted(name), value)
    if (/\p{Surrogate}/u.test(name) || name.length > 10_000) {
      throw argumentError('saveNpz', 'a name', 'at most 10,000 whole characters', name.slice(0, 100))
    }
  }
  await scope(async () => {
    const parts: Tensor[] = []
    const entries = []
    let offset = 0
    for (const [name, value] of Object.entries(values)) {
      const header = bytePart(buildNpyHeader(value.dtype, value.shape))
      const crc = (await crc32([header, value])) as number
      const size = header.numel() + placeBytes(value)
      const entry = { name: `${name}.npy`, size, crc, offset }
      const head = zipHead(entry)
      parts.push(bytePart(head), header, value)
      entries.push(entry)
      offset += head.length + size
    }
    parts.push(bytePart(zipDirectory(entries, offset)))
    await writeFileParts(path, parts, DataError)
  })
}

function requireTensor(where: string, argument: string, value: unknown): void {
  if (!(value instanceof Tensor)) throw argumentError(where, argument, 'a tensor', value)
  if (isNpyDType(value.dtype)) return
  throw new DTypeError(
    `${where}: expected a dtype that NumPy has for ${argument}, got ${value.dtype}. Convert it first`,
    {
      dtype: value.dtype,
    },
  )
}
