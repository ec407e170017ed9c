import { createHash, type Hash } from 'node:crypto'
import { constants } from 'node:fs'
import { type FileHandle, mkdir, open, rm, stat, statfs } from 'node:fs/promises'
import { dirname } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { moveIntoPlace } from '../base/atomic.js'
import { HubError } from '../base/errors.js'
import { Lock, takeLock } from '../base/lock.js'
import { type HubFile, type RepositoryCache, stored } from './cache.js'
import { cancelIfAborted, PassingFailure, request, type Wire, withRetries } from './http.js'

/**
 * Brings one file into the cache. We do this ourselves because the package's own download starts from zero after a
 * break, waits for ever on a stalled connection, compares no hash, and has no lock between processes.
 *
 * The bytes go to `<hash>.voxtorch.incomplete`, which stays when the download breaks and is continued from by the next
 * attempt or process. Only when size and hash are right does it get its name.
 * @param count is told how many bytes have come
 */
export async function download(
  wire: Wire,
  cache: RepositoryCache,
  commit: string,
  file: HubFile,
  count: (bytes: number) => void,
): Promise<void> {
  const blob = cache.blob(file)
  const done = () =>
    stat(blob).then(
      ({ size }) => size === file.size,
      () => false,
    )
  if (!(await done())) {
    await stored(blob, async () => {
      await mkdir(dirname(blob), { recursive: true })
      await mkdir(cache.locks, { recursive: true })
      await withLock(cache.lock(file), wire.signal, async () => {
        if (!(await done())) await fetchBlob(wire, cache, commit, file, blob, count)
      })
    })
  }
  await cache.link(commit, file)
}

async function fetchBlob(
  wire: Wire,
  cache: RepositoryCache,
  commit: string,
  file: HubFile,
  blob: string,
  count: (bytes: number) => void,
): Promise<void> {
  const url = `${wire.endpoint}/${cache.repository}/resolve/${commit}/${file.path.split('/').map(encodeURIComponent).join('/')}`
  await fetchFile(wire, async () => url, file, blob, count)
}

/** What is to come: with the hash of its bytes, or its git id. */
type Promised = Pick<HubFile, 'path' | 'size' | 'sha256'> & { oid?: string }

/** Fetches a file to `to`, where it appears once size and hash are right. What is whole there is not fetched. */
export async function fetchFile(
  wire: Wire,
  address: () => Promise<string>,
  file: Promised,
  to: string,
  count: (bytes: number) => void,
): Promise<void> {
  const partial = new Partial(`${to}.voxtorch.incomplete`, file, count)
  await partial.open()
  try {
    await refuseWithoutRoom(dirname(to), file.size - partial.size)
    // What an earlier run left may be damaged; what this run fetched is not fetched twice.
    for (let fresh = partial.size === 0; ; fresh = true) {
      const url = partial.size === file.size ? '' : await address()
      await complete(wire, url, partial)
      if (partial.hash() === (file.sha256 ?? file.oid)) break
      await partial.clear()
      if (fresh) {
        throw new HubError(
          `${file.path} came with another hash than was promised and was thrown away; try again (${url})`,
          { reason: 'integrity', file: file.path, url },
        )
      }
    }
    await partial.publish(to)
  } finally {
    await partial.close()
  }
}

/** Fetches what is missing, continuing after breaks. */
async function complete(wire: Wire, url: string, partial: Partial): Promise<void> {
  let before = partial.size
  const advanced = (): boolean => {
    // A server that drops the line after each byte does not get for ever.
    const enough = partial.size - before >= Math.max(1 << 16, partial.file.size / 100)
    if (enough) before = partial.size
    return enough
  }
  if (partial.size === partial.file.size) return
  await withRetries(wire, url, () => fetchRest(wire, url, partial), advanced)
}

async function fetchRest(wire: Wire, url: string, partial: Partial): Promise<void> {
  const { file } = partial
  const lie = (what: string): never => {
    throw new HubError(`${file.path}: ${what}; the server or something before it lies (${url})`, {
      reason: 'integrity',
      file: file.path,
      url,
    })
  }
  // Compressed, the lengths would not be those of the file.
  const headers: Record<string, string> = { 'accept-encoding': 'identity' }
  if (partial.size > 0) headers.range = `bytes=${partial.size}-`
  await request(wire, url, { headers }, async (response, alive) => {
    if (response.status === 416) {
      await partial.clear()
      throw new PassingFailure('the server does not continue where the download broke off')
    }
    if (response.status === 206) {
      const range = /^bytes (\d+)-\d+\/(\d+|\*)$/.exec(response.headers.get('content-range') ?? '')
      if (range === null || Number(range[1]) !== partial.size) return lie('it does not continue where it was asked to')
      if (range[2] !== '*' && Number(range[2]) !== file.size) {
        return lie(`it has ${range[2]} bytes, its list says ${file.size}`)
      }
    } else {
      await partial.clear()
      const length = response.headers.get('content-length')
      if (length !== null && !response.headers.has('content-encoding') && Number(length) !== file.size) {
        return lie(`it has ${length} bytes, its list says ${file.size}`)
      }
    }
    for await (const bytes of response.body ?? []) {
      alive(bytes.length)
      if (partial.size + bytes.length > file.size) return lie(`it sends more than the ${file.size} bytes of its list`)
      await partial.append(bytes)
    }
    if (partial.size < file.size) throw new PassingFailure(`the file ended after ${partial.size} of ${file.size} bytes`)
  })
}

async function refuseWithoutRoom(folder: string, bytes: number): Promise<void> {
  const { bavail, bsize } = await statfs(folder)
  if (bavail * bsize >= bytes) return
  throw new HubError(`${folder} has room for ${bavail * bsize} bytes, ${bytes} are to come; make room and try again`, {
    reason: 'storage',
    file: folder,
  })
}

/** A file that is growing, and the hash of what it holds. */
class Partial {
  size = 0
  #handle: FileHandle | undefined
  #hash: Hash

  constructor(
    readonly path: string,
    readonly file: Promised,
    readonly count: (bytes: number) => void,
  ) {
    this.#hash = this.#begin()
  }

  async open(): Promise<void> {
    this.#handle = await open(this.path, constants.O_RDWR | constants.O_CREAT)
    const { size } = await this.#handle.stat()
    if (size > this.file.size) await this.#handle.truncate(0)
    const left = size > this.file.size ? 0 : size
    const buffer = Buffer.allocUnsafe(1 << 20)
    while (this.size < left) {
      const { bytesRead } = await this.#handle.read(buffer, 0, Math.min(buffer.length, left - this.size), this.size)
      if (bytesRead === 0) break
      this.#take(buffer.subarray(0, bytesRead))
    }
  }

  async append(bytes: Uint8Array): Promise<void> {
    // A full disk is no failure of the network, in the middle of which this happens.
    await stored(this.path, async () => {
      let done = 0
      while (done < bytes.length) {
        const { bytesWritten } = await this.#handle!.write(bytes, done, bytes.length - done, this.size + done)
        done += bytesWritten
      }
    })
    this.#take(bytes)
  }

  async clear(): Promise<void> {
    if (this.size === 0) return
    await stored(this.path, () => this.#handle!.truncate(0))
    this.size = 0
    this.#hash = this.#begin()
  }

  hash(): string {
    return this.#hash.copy().digest('hex')
  }

  async publish(path: string): Promise<void> {
    await this.#handle!.sync()
    await moveIntoPlace(this.path, path)
  }

  async close(): Promise<void> {
    await this.#handle?.close()
    // Nothing to continue from.
    if (this.size === 0) await rm(this.path, { force: true })
  }

  #begin(): Hash {
    if (this.file.sha256 !== undefined) return createHash('sha256')
    // A git id covers a head with the size.
    return createHash('sha1').update(`blob ${this.file.size}\0`)
  }

  #take(bytes: Uint8Array): void {
    this.#hash.update(bytes)
    this.size += bytes.length
    this.count(this.size)
  }
}

const POLL = 100

/**
 * Does something while no other process that asks for the same lock does, on this machine or on one that shares the
 * folder. Python's huggingface_hub has locks of its own kind: the two need not wait for each other, because both publish
 * finished files by renaming.
 */
export async function withLock<T>(path: string, signal: AbortSignal, work: () => Promise<T>): Promise<T> {
  for (;;) {
    const lock = takeLock(path, { name: 'download', fromTheLiving: true })
    if (lock instanceof Lock) {
      try {
        return await work()
      } finally {
        lock.release()
      }
    }
    await sleep(POLL, undefined, { signal }).catch(() => cancelIfAborted(signal))
  }
}
