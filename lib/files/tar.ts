import { Readable } from 'node:stream'
import { VoxtorchError } from '../base/errors.js'
import { Place, quoted } from './byte-source.js'

/** A file in an archive. Its bytes can be read once, before the next entry is asked for. */
export interface ArchiveEntry {
  /** The path inside the archive. */
  readonly name: string
  /** In bytes. */
  readonly size: number
  /** All bytes. `most` (default 1 GiB) guards against more than is expected. */
  bytes(most?: number): Promise<Uint8Array>
  /** The bytes in chunks, without holding them all. */
  stream(): AsyncGenerator<Uint8Array>
}

export const TAR_BLOCK = 512
const MOST = 2 ** 30

/** @internal */
export function isTar(head: Buffer): boolean {
  return head.toString('latin1', 257, 262) === 'ustar'
}

/**
 * The files of a tar stream, one after the other. Folders, links and devices are passed over: a link is never followed.
 * A name that leads out of the archive is an error.
 * @internal
 */
export async function* readTar(stream: AsyncIterable<Buffer>, place: Place): AsyncGenerator<ArchiveEntry> {
  const source = Readable.from(stream, { objectMode: false })
  const { extract } = await import('tar-stream') // only who reads archives waits for it
  const tar = extract()
  source.on('error', (cause) => tar.destroy(cause))
  try {
    for await (const entry of source.pipe(tar)) {
      const { name, size = 0, type } = entry.header
      if (leadsOut(name)) {
        throw place.error(`its entry ${quoted(name)} leads out of the archive`, { entry: name })
      }
      if (type === 'file' || type === 'contiguous-file') {
        yield archiveEntry(name, size, entry as AsyncIterable<Buffer>, new Place(place.file, place.ErrorClass, name))
      }
      entry.resume()
    }
  } catch (cause) {
    throw tarError(place, cause)
  } finally {
    source.destroy()
    tar.destroy()
  }
}

/** @internal */
export function archiveEntry(name: string, size: number, chunks: AsyncIterable<Buffer>, place: Place): ArchiveEntry {
  async function* stream(): AsyncGenerator<Buffer> {
    try {
      for await (const chunk of chunks) yield chunk
    } catch (cause) {
      throw tarError(place, cause)
    }
  }
  return {
    name,
    size,
    stream,
    async bytes(most = MOST) {
      if (size > most) throw place.error(`it has ${size} bytes, at most ${most} are expected`)
      const parts: Buffer[] = []
      for await (const chunk of stream()) parts.push(chunk)
      return Buffer.concat(parts)
    },
  }
}

function leadsOut(name: string): boolean {
  return /^([/\\]|[a-zA-Z]:)/.test(name) || name.split(/[/\\]/).includes('..')
}

function tarError(place: Place, cause: unknown): unknown {
  return cause instanceof VoxtorchError
    ? cause
    : place.error(`it is no sound tar archive: ${(cause as Error).message}`, { cause })
}
