import { dirname, join } from 'node:path'
import { CheckpointError } from '../../base/errors.js'
import { type ByteSource, quoted, withFile } from '../byte-source.js'
import { JsonReader } from '../json/reader.js'
import { chosenNames, loadFrom } from './file.js'
import { readHeader } from './header.js'
import type { LoadSafetensorsOptions, SafetensorsFile, SafetensorsHeader } from './types.js'

/**
 * A checkpoint in several files, in the layout of Hugging Face's transformers: `model-00001-of-00002.safetensors` and so on,
 * and `model.safetensors.index.json`, whose `weight_map` maps each tensor to its file.
 */

const MAX_INDEX = 100_000_000

/** Return the tensor names by file; the files are in the index's folder. */
export async function readIndex(source: ByteSource): Promise<Map<string, string[]>> {
  const invalid = (what: string, fields: Record<string, unknown> = {}): never => {
    throw source.error(`it is not a valid safetensors index: ${what}`, fields)
  }
  if (source.size > MAX_INDEX) invalid(`it has ${source.size} bytes, more than ${MAX_INDEX}`)
  const bytes = await source.bytes()
  const json = new JsonReader(bytes, (what, byte) => invalid(`${what} (byte ${byte})`, { byte }))
  const shards = new Map<string, string[]>()
  let found = false
  json.object('it', (key) => {
    if (key !== 'weight_map') return json.skip()
    found = true
    json.object('its weight_map', (tensor) => {
      const name = json.string(() => `the file of ${quoted(tensor)}`)
      if (!isPlainName(name)) {
        invalid(`${quoted(tensor)} is in ${quoted(name)}, which is not the name of a file in the index's folder`, {
          tensor,
        })
      }
      const names = shards.get(name)
      if (names === undefined) shards.set(name, [tensor])
      else names.push(tensor)
    })
  })
  json.end()
  if (!found) invalid('expected a weight_map')
  return new Map([...shards].sort(([a], [b]) => (a < b ? -1 : 1)))
}

/** Return whether a name cannot lead out of its folder. */
export function isPlainName(name: string): boolean {
  return name !== '' && name.length <= 255 && name !== '.' && name !== '..' && !/[/\\\0]/.test(name)
}

/** Load the tensors that the index lists; others in a shard are ignored. Call inside a scope. */
export async function loadShards(path: string, options: LoadSafetensorsOptions): Promise<SafetensorsFile> {
  const index = await withFile(path, CheckpointError, readIndex)
  const wanted = new Set(chosenNames([...index.values()].flat(), options.names, path))
  const result: SafetensorsFile = { tensors: Object.create(null), metadata: Object.create(null) }
  for (const [name, names] of index) {
    const chosen = names.filter((tensor) => wanted.has(tensor))
    if (chosen.length === 0) continue
    const { tensors, metadata } = await withFile(join(dirname(path), name), CheckpointError, (source) =>
      loadFrom(source, { ...options, names: chosen }),
    )
    Object.assign(result.tensors, tensors)
    Object.assign(result.metadata, metadata)
  }
  return result
}

export async function readShardHeaders(path: string): Promise<SafetensorsHeader> {
  const index = await withFile(path, CheckpointError, readIndex)
  const result: SafetensorsHeader = { tensors: Object.create(null), metadata: Object.create(null) }
  for (const [name, names] of index) {
    const file = join(dirname(path), name)
    const { tensors, metadata } = await withFile(file, CheckpointError, readHeader)
    for (const tensor of chosenNames(Object.keys(tensors), names, file)) result.tensors[tensor] = tensors[tensor]!
    Object.assign(result.metadata, metadata)
  }
  return result
}
