import { argumentError, requireOptions } from '../../base/check.js'
import { CheckpointError } from '../../base/errors.js'
import { scope, type Tensor } from '../../tensor/index.js'
import { withFile } from '../byte-source.js'
import { requireNames, requirePath } from '../file-tensors.js'
import { loadFrom, savedEntries, writeEntries } from './file.js'
import { readHeader } from './header.js'
import { loadShards, readShardHeaders } from './shards.js'
import type { LoadSafetensorsOptions, SafetensorsFile, SafetensorsHeader } from './types.js'

/**
 * Load a safetensors file, or all shards of a `*.safetensors.index.json` as Hugging Face writes it, on the executor.
 * @throws CheckpointError that names file, byte and tensor, for any file that is incomplete or invalid, or lacks a name
 * @throws DTypeError for a tensor whose dtype voxtorch does not have (such as F4); leave it out with `names`
 * @throws InsufficientMemoryError if the tensors need more memory than there is
 */
export async function loadSafetensors(path: string, options: LoadSafetensorsOptions = {}): Promise<SafetensorsFile> {
  requirePath('loadSafetensors', 'path', path)
  requireLoadOptions(options)
  return scope(() =>
    path.endsWith('.json')
      ? loadShards(path, options)
      : withFile(path, CheckpointError, (source) => loadFrom(source, options)),
  )
}

/**
 * Read the header of a safetensors file, or of all shards of an index: names, dtypes, shapes, metadata. Loads no tensor.
 * @throws CheckpointError as {@link loadSafetensors}
 */
export async function readSafetensorsHeader(path: string): Promise<SafetensorsHeader> {
  requirePath('readSafetensorsHeader', 'path', path)
  return path.endsWith('.json') ? readShardHeaders(path) : withFile(path, CheckpointError, readHeader)
}

function requireLoadOptions(options: LoadSafetensorsOptions): void {
  requireOptions('loadSafetensors', options, ['mmap', 'device', 'names'])
  const { mmap, names } = options
  if (mmap !== undefined && typeof mmap !== 'boolean') throw argumentError('loadSafetensors', 'mmap', 'a boolean', mmap)
  requireNames('loadSafetensors', names)
}

/**
 * Write tensors to a safetensors file, as a job of the executor: after jobs queued before it, and before those queued after it.
 * The file is written atomically: under a temporary name, then synced and renamed. Views of the same
 * memory are written separately.
 * @throws CheckpointError if the file cannot be written, or the format cannot store a value
 */
export async function saveSafetensors(
  path: string,
  tensors: Readonly<Record<string, Tensor>>,
  metadata: Readonly<Record<string, string>> = {},
): Promise<void> {
  requirePath('saveSafetensors', 'path', path)
  const entries = savedEntries('saveSafetensors', path, tensors, metadata)
  await writeEntries(path, entries, metadata)
}
