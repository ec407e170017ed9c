import { optionsOf } from '../../base/arguments.js'
import { argumentError, requireOneOf, requireString } from '../../base/check.js'
import { DataError } from '../../base/errors.js'
import { requireForm } from '../../base/form.js'
import { scope } from '../../tensor/index.js'
import { isZip, unpackedStream } from '../archive.js'
import { type ByteSource, Place, quoted, withFile } from '../byte-source.js'
import { isTar, readTar, TAR_BLOCK } from '../tar.js'
import { ZipArchive } from '../zip/zip.js'
import { type Feed, SourceFeed, StreamFeed } from './feed.js'
import { fileHost } from './host.js'
import { type PickleEncoding, unpickle } from './machine.js'
import {
  type PickleExtensionResolver,
  type PickleNameResolver,
  type PicklePersistentResolver,
  Resolving,
} from './resolvers.js'
import { finish, type PickleValue } from './result.js'

export interface ReadPickleOptions {
  /**
   * Form of arrays. `'tensor'` (default) reads them into tensors; `'lazy'` leaves their numbers in the file and returns a
   * {@link LazyTensor} for each, for files larger than memory.
   */
  arrays?: 'tensor' | 'lazy'
  /** The pickle's name in a `.tar`, `.tgz` or `.zip` archive, which is read without extracting it to the disk. */
  entry?: string
  /**
   * Encoding of a `str` of Python 2. Default `'ascii'` as in Python, with an error for other characters; data sets of that time
   * mostly need `'latin1'`. The bytes of arrays need no setting.
   */
  encoding?: PickleEncoding
  /**
   * Classes whose instances are read as plain objects of their fields, by name (`'DSTExample'`) or by module and name. Their
   * code is neither needed nor run.
   */
  records?: readonly string[]
  /**
   * Resolver of names that are not data, such as a `NameRegistry` of npm's pickleparser. It is called before the reader reads a
   * name as data; undefined leaves a name to the reader. A function is called with the arguments in the file, a class is
   * constructed with them (then `__setnewargs_ex__(keywords)` is called if there are any). A state is passed to the object's
   * `__setstate__`, or becomes its fields. The calls run in the file's order after the file has been read.
   */
  nameResolver?: PickleNameResolver
  /** Returns the objects outside the file that Python's `persistent_id` named. Without it they are an error. */
  persistentResolver?: PicklePersistentResolver
  /** Returns the classes or functions of Python's `copyreg.add_extension`. Without it they are an error. */
  extensionResolver?: PickleExtensionResolver
}

/**
 * Read a Python pickle of protocol 0 to 5: plain data, NumPy arrays and torch tensors, as {@link PickleValue} lists. The file
 * may be compressed with gzip, or be in an archive.
 *
 * Only data is read. Any other name in a pickle is an error, unless one of your resolvers handles it; no code in a file ever
 * runs. Tensors belong to the current scope. The type parameter is not checked.
 *
 * @throws DataError that names the file, the byte and, for a name that is not data, the `global`; errors of a resolver and of
 *   its functions unchanged
 */
export async function readPickle<T = PickleValue>(path: string, options: ReadPickleOptions = {}): Promise<T> {
  requireString('readPickle', 'path', path)
  const {
    arrays = 'tensor',
    entry,
    encoding = 'ascii',
    records,
    ...resolvers
  } = optionsOf(options, 'readPickle', ['arrays', 'entry', 'encoding', 'records', ...RESOLVERS])
  requireOneOf('readPickle', 'arrays', arrays, ['tensor', 'lazy'])
  requireOneOf('readPickle', 'encoding', encoding, ['ascii', 'latin1', 'utf-8', 'bytes'])
  if (entry !== undefined) requireString('readPickle', 'entry', entry)
  if (records !== undefined && !(Array.isArray(records) && records.every((name) => typeof name === 'string'))) {
    throw argumentError('readPickle', 'records', 'an array of strings', records)
  }
  for (const name of RESOLVERS) {
    if (resolvers[name] !== undefined) requireForm('readPickle', name, resolvers[name], { resolve: 'function' })
  }
  const resolving = new Resolving(resolvers)
  let found: Awaited<ReturnType<typeof parsePickle>> | undefined
  await withFile(path, DataError, (source) =>
    scope(async () => {
      const pickles = entry === undefined ? wholeFile(source) : archived(source, entry)
      // Leaving the loop closes the archive, so read the pickle first.
      for await (const feed of pickles) {
        found = await parsePickle(feed, { encoding, records, resolving, lazy: arrays === 'lazy' })
        return found.tensors
      }
      throw source.error('expected a pickle')
    }),
  )
  // Tensors of the caller's code belong to the caller, so leave the reader's scope first.
  try {
    await resolving.run()
  } catch (cause) {
    for (const tensor of found!.tensors) tensor.dispose()
    throw cause
  }
  return found!.value as T
}

const RESOLVERS = ['nameResolver', 'persistentResolver', 'extensionResolver'] as const

/** Read one pickle from a feed. */
export async function parsePickle(
  feed: Feed,
  options: { encoding: PickleEncoding; records?: readonly string[] | undefined; resolving?: Resolving; lazy: boolean },
): ReturnType<typeof finish> {
  const advice = "the option `records: ['Class']` reads instances of a class as plain objects"
  const { encoding, records, resolving, lazy } = options
  const root = await unpickle(feed, fileHost({ encoding, records, resolving, advice }))
  return finish(root, feed.place, { encoding, lazy, resolving })
}

async function* wholeFile(source: ByteSource): AsyncGenerator<Feed> {
  const head = await source.bytes(0, Math.min(source.size, TAR_BLOCK))
  const advice = "name the pickle in it with { entry: '…' }"
  if (isTar(head)) throw source.error(`expected a pickle, got a tar archive; ${advice}`)
  if (await isZip(source)) {
    throw source.error(`expected a pickle, got a zip archive; ${advice}, or read a file of torch.save with loadTorch`)
  }
  if (head[0] !== 0x1f || head[1] !== 0x8b) {
    yield new SourceFeed(source)
    return
  }
  const feed = new StreamFeed(await unpackedStream(source), source.place)
  await feed.fill(TAR_BLOCK)
  if (isTar(feed.buffer)) throw source.error(`expected a pickle, got a compressed tar archive; ${advice}`)
  yield feed
}

async function* archived(source: ByteSource, name: string): AsyncGenerator<Feed> {
  const place = new Place(source.place.file, DataError, name)
  if (await isZip(source)) {
    const archive = await ZipArchive.open(source)
    const entry = archive.get(name)
    yield entry.method === 'stored'
      ? new SourceFeed(await archive.open(entry))
      : new StreamFeed(archive.stream(entry), place)
    return
  }
  for await (const entry of readTar(await unpackedStream(source), source.place)) {
    if (entry.name !== name) continue
    yield new StreamFeed(entry.stream() as AsyncGenerator<Buffer>, place)
    return
  }
  throw source.error(`expected a file ${quoted(name)} in it, got none`, { entry: name })
}
