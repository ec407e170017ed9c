import { constants } from 'node:fs'
import { type FileHandle, open } from 'node:fs/promises'
import { join } from 'node:path'
import { crc32 } from 'node:zlib'
import { makeDirectory } from '../base/atomic.js'
import { argumentError } from '../base/check.js'
import { BusyError, DataError } from '../base/errors.js'
import { Lock, takeLock } from '../base/lock.js'

const KEY = 32
/** Key, length of the body, checksum of the body, and checksum of these fields. */
const HEAD = KEY + 12

/**
 * Create a folder for feature files if needed, and lock it for this process.
 * @param name description for the lock file
 * @throws BusyError if another process holds the lock; DataError if the folder cannot be created
 */
export function lockFeatures(folder: string, name: string): Lock {
  makeDirectory(folder, DataError)
  const lock = takeLock(join(folder, 'lock'), { name })
  if (lock instanceof Lock) return lock
  const { pid, host } = lock
  const message = `${folder}: expected a folder that no other process writes, got one locked by process ${pid} on ${host}. Wait for it, or name another folder.`
  throw new BusyError(message, { pid, host })
}

interface Place {
  at: number
  length: number
  sum: number
}

/**
 * Append-only file of byte arrays by key: outputs of frozen networks, shared by all runs. Opening it reads the headers and cuts off
 * an incomplete last entry. Bodies are read on demand and checked against their checksum. Only one process may write a file at a
 * time; see `lockFeatures`.
 */
export class FeatureFile {
  readonly #places = new Map<string, Place>()
  #end = 0
  /** Tail of the queue of appends, which run one at a time. */
  #last: Promise<unknown> = Promise.resolve()

  private constructor(
    readonly path: string,
    readonly handle: FileHandle,
  ) {}

  /** Open a file, or create it. @throws DataError if that fails */
  static async open(path: string): Promise<FeatureFile> {
    const handle = await open(path, constants.O_RDWR | constants.O_CREAT, 0o666).catch((cause) => {
      throw new DataError(
        `${path}: expected a file that can be opened for writing, got ${cause.message}. Check its permissions.`,
        { file: path, cause },
      )
    })
    const file = new FeatureFile(path, handle)
    try {
      await file.#index()
      return file
    } catch (error) {
      await handle.close()
      throw error
    }
  }

  /** Number of entries. */
  get size(): number {
    return this.#places.size
  }

  /** Index the complete entries, and cut off an incomplete one at the end. */
  async #index(): Promise<void> {
    const { size } = await this.handle.stat()
    const head = Buffer.alloc(HEAD)
    while (this.#end + HEAD <= size) {
      await this.handle.read(head, 0, HEAD, this.#end)
      if (crc32(head.subarray(0, HEAD - 4)) !== head.readUInt32LE(HEAD - 4)) break
      const place = { at: this.#end + HEAD, length: head.readUInt32LE(KEY), sum: head.readUInt32LE(KEY + 4) }
      if (place.at + place.length > size) break
      this.#places.set(head.subarray(0, KEY).toString('hex'), place)
      this.#end = place.at + place.length
    }
    if (this.#end < size) await this.handle.truncate(this.#end)
  }

  has(key: string): boolean {
    return this.#places.has(key)
  }

  /** Return the size of an entry in bytes; undefined without the key. */
  sizeOf(key: string): number | undefined {
    return this.#places.get(key)?.length
  }

  /** Append an entry unless the key exists. @param key a SHA-256 in hexadecimal digits */
  append(key: string, bytes: Uint8Array): Promise<void> {
    if (!/^[0-9a-f]{64}$/.test(key)) throw argumentError('FeatureFile.append', 'key', '64 hexadecimal digits', key)
    const added = this.#last.then(async () => {
      if (this.#places.has(key)) return
      const head = Buffer.alloc(HEAD)
      head.write(key, 0, KEY, 'hex')
      const place = { at: this.#end + HEAD, length: bytes.byteLength, sum: crc32(bytes) }
      head.writeUInt32LE(place.length, KEY)
      head.writeUInt32LE(place.sum, KEY + 4)
      head.writeUInt32LE(crc32(head.subarray(0, HEAD - 4)), HEAD - 4)
      const { bytesWritten } = await this.handle.writev([head, bytes], this.#end)
      if (bytesWritten < HEAD + place.length) {
        throw new DataError(
          `${this.path}: expected to write ${HEAD + place.length} bytes, got ${bytesWritten} written. Free disk space.`,
          { file: this.path },
        )
      }
      this.#places.set(key, place)
      this.#end = place.at + place.length
    })
    this.#last = added.catch(() => {})
    return added
  }

  /** Return the bytes of a key; undefined if there are none or if they are damaged, so that the caller computes them again. */
  async get(key: string): Promise<Uint8Array | undefined> {
    const place = this.#places.get(key)
    if (place === undefined) return undefined
    const bytes = Buffer.alloc(place.length)
    const { bytesRead } = await this.handle.read(bytes, 0, place.length, place.at)
    if (bytesRead === place.length && crc32(bytes) === place.sum) return bytes
    this.#places.delete(key)
    return undefined
  }

  async close(): Promise<void> {
    await this.#last
    await this.handle.close()
  }
}
