import { CheckpointError } from '../../base/errors.js'
import { type ByteSource, FileSource, quoted } from '../byte-source.js'
import { shardOf, shardPath } from './find.js'
import { type GgufHeader, readHeader } from './header.js'
import type { GgufTensor } from './types.js'

/**
 * A model in several files, as llama.cpp's gguf-split and Python's gguf write it. The first file has the metadata, and each a
 * part of the tensors; `split.no` (from 0), `split.count` and `split.tensors.count` describe the split
 * (https://github.com/ggml-org/llama.cpp/blob/master/src/llama-model-loader.cpp).
 */

const NUMBER = 'split.no'
const COUNT = 'split.count'
const TENSORS = 'split.tensors.count'

/**
 * Read the header of a whole model, whose first or only file is `source`. The other files are closed again; each reopens when
 * its tensors are read.
 * @throws CheckpointError for a file that is not the first, a shard that is missing or belongs to another model, and a tensor
 *   in two shards
 */
export async function readShards(
  source: ByteSource,
  header: GgufHeader,
): Promise<{ sources: readonly ByteSource[]; whole: GgufHeader }> {
  const count = numberAt(source, header, COUNT) ?? 1
  if (count <= 1) return { sources: [source], whole: header }
  const number = numberAt(source, header, NUMBER) ?? 0
  const named = shardOf(source.place.file)
  if (named?.count !== count || named.number !== number + 1) {
    throw source.error(
      `${COUNT}: it is file ${number + 1} of a model in ${count}, whose name must end in ${shardPath({ prefix: '', count }, number + 1)}. ` +
        'Restore the published names of the files',
      { field: COUNT },
    )
  }
  if (number !== 0) {
    throw source.error(`it is file ${number + 1} of a model in ${count}. Name the first: ${shardPath(named, 1)}`, {
      field: NUMBER,
    })
  }
  const sources: ByteSource[] = [source]
  const tensors: Record<string, GgufTensor> = Object.assign(Object.create(null), header.tensors)
  for (let shard = 1; shard < count; shard++) {
    const next = await FileSource.open(shardPath(named, shard + 1), CheckpointError)
    sources.push(next)
    try {
      addShard(tensors, next, await readHeader(next), { shard, count })
    } finally {
      await next.close()
    }
  }
  const expected = numberAt(source, header, TENSORS)
  const found = Object.keys(tensors).length
  if (expected !== undefined && expected !== found) {
    throw source.error(`its ${count} files have ${found} tensors, and ${TENSORS} says ${expected}`, { field: TENSORS })
  }
  const metadata = { ...header.metadata }
  const metadataTypes = { ...header.metadataTypes }
  for (const key of [NUMBER, COUNT, TENSORS]) {
    delete metadata[key]
    delete metadataTypes[key]
  }
  const bare = <T extends object>(values: T): T => Object.assign(Object.create(null), values)
  return { sources, whole: { ...header, metadata: bare(metadata), metadataTypes: bare(metadataTypes), tensors } }
}

function addShard(
  tensors: Record<string, GgufTensor>,
  source: ByteSource,
  header: GgufHeader,
  { shard, count }: { shard: number; count: number },
): void {
  const [number, of] = [numberAt(source, header, NUMBER), numberAt(source, header, COUNT)]
  if (number !== shard || of !== count) {
    throw source.error(
      `expected file ${shard + 1} of ${count}, got file ${(number ?? 0) + 1} of ${of ?? 1} by its metadata`,
      {
        field: NUMBER,
      },
    )
  }
  for (const [name, place] of Object.entries(header.tensors)) {
    if (name in tensors) throw source.error(`the tensor ${quoted(name)} is in an earlier file too`, { tensor: name })
    tensors[name] = { ...place, shard }
  }
}

function numberAt(source: ByteSource, { metadata }: GgufHeader, field: string): number | undefined {
  const value = metadata[field]
  if (value === undefined) return undefined
  if (typeof value === 'number' && Number.isSafeInteger(value) && value >= 0) return value
  throw source.error(`expected a number of files or tensors as ${field}`, { field })
}
