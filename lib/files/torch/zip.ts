import { dtypeFacts } from '../../tensor/dtype.js'
import { type ByteSource, quoted } from '../byte-source.js'
import { Payload, SourceFeed } from '../pickle/feed.js'
import { type Host, unpickle } from '../pickle/machine.js'
import type { Site } from '../pickle/objects.js'
import { storageDType, TorchData, TorchStorage } from '../pickle/torch.js'
import { ZipArchive } from '../zip/zip.js'

// Maximum size of a pickle without its tensors' bytes.
const LARGEST_PICKLE = 2 ** 30

/** Read the format of torch.save since 1.6: a zip archive of one pickle and a file for each storage. */
export async function readTorchZip(source: ByteSource, host: Host): Promise<unknown> {
  const archive = await ZipArchive.open(source)
  const [first = ''] = archive.entries.keys()
  const prefix = first.slice(0, first.indexOf('/') + 1)
  const pickle = archive.entries.get(`${prefix}data.pkl`)
  if (pickle === undefined || prefix === '') {
    throw source.error(`expected a 'data.pkl', got a zip archive that is not of torch.save`)
  }
  if (archive.entries.has(`${prefix}constants.pkl`)) {
    throw source.error('it is a TorchScript archive, which is code. In Python, save model.state_dict() instead')
  }
  const order = archive.entries.get(`${prefix}byteorder`)
  if (order !== undefined && (await archive.bytes(order, 16)).toString('latin1').trim() !== 'little') {
    throw source.error(
      'expected little-endian data, got a file from a big-endian machine. Save it again on another machine',
      {
        entry: order.name,
      },
    )
  }
  if (pickle.size > LARGEST_PICKLE) throw source.error(`its pickle claims ${pickle.size} bytes`, { entry: pickle.name })
  const blocks = new Map<string, TorchData>()
  return unpickle(new SourceFeed(await archive.open(pickle)), {
    ...host,
    persistent: (id, site) => storageOf(id, blocks, archive, prefix, site),
  })
}

/** Read a storage: ('storage', type, key, location, number of elements). */
function storageOf(
  id: unknown,
  blocks: Map<string, TorchData>,
  archive: ZipArchive,
  prefix: string,
  site: Site,
): TorchStorage {
  const [kind, type, key, , count] = Array.isArray(id) ? id : []
  if (kind !== 'storage' || typeof key !== 'string' || !Number.isSafeInteger(count) || count < 0) {
    throw site.error('expected a reference to a storage')
  }
  const dtype = storageDType(type, site)
  const length = count * dtypeFacts(dtype).bytes
  const entry = archive.entries.get(`${prefix}data/${key}`)
  if (entry === undefined) throw site.error(`expected the storage ${quoted(key)} in the archive, got none`)
  if (entry.size < length) {
    throw site.error(`expected ${length} bytes in the storage ${quoted(key)}, got ${entry.size}`)
  }
  let data = blocks.get(key)
  if (data === undefined) {
    data = new TorchData(entry.size, async () => new Payload(await archive.open(entry), 0, entry.size))
    blocks.set(key, data)
  }
  return new TorchStorage(data, 0, length, dtype)
}
