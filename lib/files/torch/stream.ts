import { dtypeFacts } from '../../tensor/dtype.js'
import type { ByteSource } from '../byte-source.js'
import { Payload, SourceFeed } from '../pickle/feed.js'
import { type Host, unpickle } from '../pickle/machine.js'
import { PyDict, type Site } from '../pickle/objects.js'
import { storageDType, TorchData, TorchStorage } from '../pickle/torch.js'

/**
 * Format of torch.save before 1.6, and of a tensor in a plain pickle: pickles of a magic number, a version, facts about the
 * system, the object and the keys of its storages; then each storage's length and bytes.
 */

const MAGIC = 0x1950a86a20f9469cfc6cn
const VERSION = 1001

const nothing: Host = { global: () => undefined, encoding: 'ascii' }

interface Block {
  data: TorchData
  count: number
  width: number
  payload?: Payload
}

/** Read such a stream up to its storages, which stay in place. */
export async function readTorchStream(source: ByteSource, host: Host): Promise<unknown> {
  const feed = new SourceFeed(source)
  const [magic, version, system] = [
    await unpickle(feed, nothing),
    await unpickle(feed, nothing),
    await unpickle(feed, nothing),
  ]
  if (magic !== MAGIC) throw source.error('it is not a file of torch.save: the magic number is missing')
  if (version !== VERSION) throw source.error(`it is of the unknown version ${String(version)}`)
  if (!(system instanceof PyDict) || system.get('little_endian') !== true) {
    throw source.error(
      'expected little-endian data, got a file from a big-endian machine. Save it again on another machine',
    )
  }
  const blocks = new Map<string, Block>()
  const root = await unpickle(feed, {
    ...host,
    persistent: (id, site) => storageOf(id, blocks, source, site),
  })
  const keys = await unpickle(feed, nothing)
  if (!Array.isArray(keys)) throw source.error('expected a list of storages', { byte: feed.position })
  await placeBlocks(source, feed.position, keys, blocks)
  return root
}

/** Find the location of each storage's bytes. */
async function placeBlocks(
  source: ByteSource,
  start: number,
  keys: readonly unknown[],
  blocks: ReadonlyMap<string, Block>,
): Promise<void> {
  let position = start
  for (const key of keys) {
    const block = typeof key === 'string' ? blocks.get(key) : undefined
    if (block === undefined || block.payload !== undefined) {
      throw source.error(`it lists the storage ${String(key)}, which nothing refers to`, { byte: position })
    }
    const count = (await source.bytes(position, 8)).readBigInt64LE(0)
    if (count !== BigInt(block.count)) {
      throw source.error(`the storage ${key} has ${count} elements, expected ${block.count}`, { byte: position })
    }
    position += 8
    // Check that the bytes exist, without allocating memory.
    source.slice(position, block.data.length)
    block.payload = new Payload(source, position, block.data.length)
    position += block.data.length
  }
  for (const [key, { payload }] of blocks) {
    if (payload === undefined) throw source.error(`the storage ${key} is missing`)
  }
}

/** Read a storage: ('storage', type, key, location, number of elements, (key of a view, offset, size)). */
function storageOf(id: unknown, blocks: Map<string, Block>, source: ByteSource, site: Site): TorchStorage {
  const [kind, type, key, , count, view = null] = Array.isArray(id) ? id : []
  if (kind === 'module') {
    throw site.error('it contains a whole nn.Module, which is code. In Python, save model.state_dict() instead')
  }
  if (kind !== 'storage' || typeof key !== 'string' || !isCount(count))
    throw site.error('expected a reference to a storage')
  const dtype = storageDType(type, site)
  const width = dtypeFacts(dtype).bytes
  let block = blocks.get(key)
  if (block === undefined) {
    if (count * width > source.size) {
      throw site.error(`it has a storage of ${count} elements, more than the file's ${source.size} bytes`)
    }
    const made: Block = { count, width, data: new TorchData(count * width, async () => made.payload!) }
    blocks.set(key, made)
    block = made
  }
  if (count * width > block.data.length) throw site.error(`it gives the storage ${key} two sizes`)
  if (view === null) return new TorchStorage(block.data, 0, block.data.length, dtype)
  const [, offset, size] = Array.isArray(view) ? view : []
  if (!isCount(offset) || !isCount(size) || (offset + size) * width > block.data.length) {
    throw site.error(`it has a view beyond the storage ${key}`)
  }
  return new TorchStorage(block.data, offset * width, size * width, dtype)
}

const isCount = (value: unknown): value is number => Number.isSafeInteger(value) && (value as number) >= 0
