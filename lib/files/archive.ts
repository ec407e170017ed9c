import { requireString } from '../base/check.js'
import { DataError } from '../base/errors.js'
import { type ByteSource, FileSource, Place } from './byte-source.js'
import { inflated } from './inflate.js'
import { type ArchiveEntry, archiveEntry, readTar, requireInside, requireName } from './tar.js'
import { ZipArchive } from './zip/zip.js'

/**
 * Iterate over the files in a `.tar`, `.tgz` (`.tar.gz`) or `.zip` archive, in its order. Nothing is written to the disk; links
 * are not followed.
 *
 * ```ts
 * for await (const entry of readArchive('mosi.tgz')) console.log(entry.name, entry.size)
 * ```
 *
 * @throws DataError that names the file and the entry: for a broken archive, a name that leads out of it such as `../x`, an
 *   entry whose size differs from the stated one or that is read a second time, a decompression bomb
 */
export async function* readArchive(path: string): AsyncGenerator<ArchiveEntry> {
  requireString('readArchive', 'path', path)
  const source = await FileSource.open(path, DataError)
  try {
    if (await isZip(source)) yield* zipEntries(source)
    else yield* readTar(await unpackedStream(source), source.place)
  } finally {
    await source.close()
  }
}

export async function isZip(source: ByteSource): Promise<boolean> {
  const head = await source.bytes(0, Math.min(source.size, 4))
  return head.toString('latin1') === 'PK\x03\x04'
}

/** Return the source's bytes, decompressed if they are gzip. @internal */
export async function unpackedStream(source: ByteSource): Promise<AsyncGenerator<Buffer>> {
  const [first, second] = await source.bytes(0, Math.min(source.size, 2))
  if (first !== 0x1f || second !== 0x8b) return source.stream()
  return inflated(source.stream(), 'gzip', (what, fields) => source.error(what, fields))
}

async function* zipEntries(source: ByteSource): AsyncGenerator<ArchiveEntry> {
  const archive = await ZipArchive.open(source)
  for (const entry of archive.entries.values()) {
    requireInside(entry.name, source.place)
    if (entry.name.endsWith('/')) continue
    requireName(entry.name, source.place)
    const place = new Place(source.place.file, DataError, entry.name)
    yield archiveEntry(entry.name, entry.size, archive.stream(entry), place)
  }
}
