import { join } from 'node:path'
import { filesIn, writeFolderAtomically } from '../../base/atomic-folder.js'
import { argumentError, requireOptions } from '../../base/check.js'
import { CheckpointError } from '../../base/errors.js'
import { scope, type Tensor } from '../../tensor/index.js'
import { bytePart, placeBytes, requirePath, writeFileParts } from '../file-tensors.js'
import { type SavedEntry, savedEntries, writeEntries } from './file.js'
import { isPlainName } from './shards.js'

export interface SaveShardedOptions {
  /** Maximum number of bytes of tensors in one file; a larger tensor has a file of its own. Default 5e9. */
  maxShardBytes?: number
  /** Metadata of each file. Default `{ format: 'pt' }`, which Hugging Face's loaders require. */
  metadata?: Readonly<Record<string, string>>
  /** Prefix of the files' names. Default `'model'`. */
  name?: string
}

/**
 * Write tensors into a folder in files of limited size: `model-00001-of-00002.safetensors`, …, and then
 * `model.safetensors.index.json`; or only `model.safetensors` if one file is enough. They replace the shards and the index of an
 * earlier save in that folder, all or none of them.
 * @returns the path to load: the index, or the one file
 * @throws CheckpointError if something cannot be written, or the format cannot store a value
 */
export async function saveSafetensorsSharded(
  folder: string,
  tensors: Readonly<Record<string, Tensor>>,
  options: SaveShardedOptions = {},
): Promise<string> {
  const where = 'saveSafetensorsSharded'
  requirePath(where, 'folder', folder)
  requireOptions(where, options, ['maxShardBytes', 'metadata', 'name'])
  const { maxShardBytes = 5e9, metadata = { format: 'pt' }, name = 'model' } = options
  if (!Number.isSafeInteger(maxShardBytes) || maxShardBytes < 1) {
    throw argumentError(where, 'maxShardBytes', 'an integer of at least 1', maxShardBytes)
  }
  requirePath(where, 'name', name)
  if (!isPlainName(name)) throw argumentError(where, 'name', 'a name without a folder', name)
  const shards = split(savedEntries(where, folder, tensors, metadata), maxShardBytes)
  const index = `${name}.safetensors.index.json`
  const single = `${name}.safetensors`
  const number = (value: number): string => String(value).padStart(5, '0')
  const files =
    shards.length === 1
      ? [single]
      : shards.map((_, i) => `${name}-${number(i + 1)}-of-${number(shards.length)}.safetensors`)
  await writeFolderAtomically(
    folder,
    CheckpointError,
    async (temporary) => {
      for (const [i, shard] of shards.entries()) await writeEntries(join(temporary, files[i]!), shard, metadata)
      if (files.length === 1) return
      const bytes = Buffer.from(indexText(shards, files))
      await scope(() => writeFileParts(join(temporary, index), [bytePart(bytes)], CheckpointError))
    },
    (earlier) => weightFiles(earlier, name),
  )
  return join(folder, files.length > 1 ? index : single)
}

/** Split in the given order like Hugging Face: a file is full when the next tensor would exceed the limit. */
function split(entries: readonly SavedEntry[], limit: number): SavedEntry[][] {
  const shards: SavedEntry[][] = []
  let current: SavedEntry[] = []
  let size = 0
  for (const entry of entries) {
    const bytes = placeBytes(entry)
    if (bytes > limit) {
      shards.push([entry])
      continue
    }
    if (size + bytes > limit) {
      shards.push(current)
      current = []
      size = 0
    }
    current.push(entry)
    size += bytes
  }
  if (current.length > 0 || shards.length === 0) shards.push(current)
  return shards
}

/** Return the text of Python's `json.dumps(index, indent=2, sort_keys=True)` with a line break, byte for byte. */
function indexText(shards: readonly SavedEntry[][], files: readonly string[]): string {
  const total = shards.flat().reduce((sum, entry) => sum + placeBytes(entry), 0)
  const map = shards
    .flatMap((shard, i) => shard.map(({ name }): [string, string] => [name, files[i]!]))
    .sort(([a], [b]) => byCodePoints(a, b))
    .map(([name, file]) => `    ${asciiJson(name)}: ${asciiJson(file)}`)
  return `{\n  "metadata": {\n    "total_size": ${total}\n  },\n  "weight_map": {\n${map.join(',\n')}\n  }\n}\n`
}

/** Compare texts in Python's order, by code points. */
function byCodePoints(a: string, b: string): number {
  return Buffer.compare(Buffer.from(a), Buffer.from(b))
}

function asciiJson(text: string): string {
  return JSON.stringify(text).replace(
    /[\u007f-\uffff]/g,
    (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`,
  )
}

/** List the weights in a folder: shards, their index, or the one file. */
export function weightFiles(folder: string, name = 'model'): string[] {
  const isOfName = (file: string) =>
    file.startsWith(name) &&
    /^(?:-\d{5}-of-\d{5}\.safetensors|\.safetensors(?:\.index\.json)?)$/.test(file.slice(name.length))
  return filesIn(folder, /\.safetensors/).filter(isOfName)
}
