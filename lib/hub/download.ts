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
 * Download one file into the cache. The download of `@huggingface/hub` is not used: it restarts from zero after an interruption,
 * has no timeout for stalled connections, checks no hash, and has no lock between processes.
 *
 * The bytes are written to `<hash>.voxtorch.incomplete`, which is kept after an interruption and continued by the next attempt or
 * process. It is renamed when size and hash are correct.
 * @param count called with the number of bytes downloaded so far
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
  const url = `${wire.endpoint}/${cache.address}/resolve/${commit}/${file.path.split('/').map(encodeURIComponent).join('/')}`
  await fetchFile(wire, async () => url, file, blob, count)
}

/** A file to download, with the hash of its bytes, or its git id. */
type ExpectedFile = Pick<HubFile, 'path' | 'size' | 'sha256'> & { oid?: string }

/** Download a file to `to`, which is created when size and hash are correct. A complete partial file is not downloaded again. */
export async function fetchFile(
  wire: Wire,
  address: () => Promise<string>,
  file: ExpectedFile,
  to: string,
  count: (bytes: number) => void,
): Promise<void> {
  const partial = new Partial(`${to}.voxtorch.incomplete`, file, count)
  await partial.open()
  try {
    await requireSpace(dirname(to), file.size - partial.size)
    // A partial file of an earlier run may be damaged, so it is downloaded again; a file of this run is not.
    for (let fresh = partial.size === 0; ; fresh = true) {
      const url = partial.size === file.size ? '' : await address()
      await complete(wire, url, partial)
      if (partial.hash() === (file.sha256 ?? file.oid)) break
      await partial.clear()
      if (fresh) {
        throw new HubError(
          `${file.path}: expected the hash ${file.sha256 ?? file.oid}, got another from ${url}. The file was deleted; try again.`,
          { reason: 'integrity', file: file.path, url },
        )
      }
    }
    await partial.publish(to)
  } finally {
    await partial.close()
  }
}

/** Download the missing bytes, with retries after interruptions. */
async function complete(wire: Wire, url: string, partial: Partial): Promise<void> {
  let before = partial.size
  const advanced = (): boolean => {
    // Retries are limited for a server that sends only a few bytes per connection.
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
    throw new HubError(`${file.path}: ${what} (${url}). Check the server and its proxies, then try again.`, {
      reason: 'integrity',
      file: file.path,
      url,
    })
  }
  // With compression, lengths would differ from those of the file.
  const headers: Record<string, string> = { 'accept-encoding': 'identity' }
  if (partial.size > 0) headers.range = `bytes=${partial.size}-`
  await request(wire, url, { headers }, async (response, alive) => {
    if (response.status === 416) {
      await partial.clear()
      throw new PassingFailure('the server cannot continue the interrupted download')
    }
    if (response.status === 206) {
      const range = /^bytes (\d+)-\d+\/(\d+|\*)$/.exec(response.headers.get('content-range') ?? '')
      if (range === null || Number(range[1]) !== partial.size)
        return lie(`expected bytes from ${partial.size}, got content-range ${response.headers.get('content-range')}`)
      if (range[2] !== '*' && Number(range[2]) !== file.size) {
        return lie(`expected ${file.size} bytes as in the file list, got ${range[2]}`)
      }
    } else {
      await partial.clear()
      const length = response.headers.get('content-length')
      if (length !== null && !response.headers.has('content-encoding') && Number(length) !== file.size) {
        return lie(`expected ${file.size} bytes as in the file list, got ${length}`)
      }
    }
    for await (const bytes of response.body ?? []) {
      alive(bytes.length)
      if (partial.size + bytes.length > file.size)
        return lie(`expected ${file.size} bytes as in the file list, got more`)
      await partial.append(bytes)
    }
    if (partial.size < file.size) throw new PassingFailure(`the file ended after ${partial.size} of ${file.size} bytes`)
  })
}

async function requireSpace(folder: string, bytes: number): Promise<void> {
  const { bavail, bsize } = await statfs(folder)
  if (bavail * bsize >= bytes) return
  throw new HubError(
    `${folder}: expected ${bytes} bytes of free space, got ${bavail * bsize}. Free space and try again.`,
    {
      reason: 'storage',
      file: folder,
    },
  )
}

/** A partially downloaded file, with the running hash of its bytes. */
class Partial {
  size = 0
  #handle: FileHandle | undefined
  #hash: Hash

  constructor(
    readonly path: string,
    readonly file: ExpectedFile,
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
    // Reports a full disk as a storage error, not as a failure of the network request around it.
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
    if (this.size === 0) await rm(this.path, { force: true })
  }

  #begin(): Hash {
    if (this.file.sha256 !== undefined) return createHash('sha256')
    // A git id is the hash of a header with the size, followed by the content.
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
 * Run `work` while holding a lock between processes, on this machine or on others with the same file system. Python's
 * huggingface_hub uses other locks. No common lock is needed, because both rename complete files into place.
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
