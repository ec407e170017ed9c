import { constants } from 'node:fs'
import { type FileHandle, open } from 'node:fs/promises'
import { join } from 'node:path'
import { crc32 } from 'node:zlib'
import { makeDirectory } from '../base/atomic.js'
import { misuse } from '../base/check.js'
import { BusyError, DataError } from '../base/errors.js'
import { Lock, takeLock } from '../base/lock.js'

const KEY = 32
/** Key, length of what follows, its checksum, and the checksum of these. */
const HEAD = KEY + 12

/**
 * A folder of such files, made where it is not there, for this process alone.
 * @param name what it is, for those who find it locked
 * @throws BusyError where another process has it; DataError where it cannot be made
 */
export function lockFeatures(folder: string, name: string): Lock {
  makeDirectory(folder, DataError)
  const lock = takeLock(join(folder, 'lock'), { name })
  if (lock instanceof Lock) return lock
  const { pid, host } = lock
  const message = `${folder} is filled by process ${pid} on ${host}: wait for it, or give another folder`
  throw new BusyError(message, { pid, host })
}

interface Place {
  at: number
  length: number
  sum: number
}

/**
 * Bytes by keys in one file that only grows: what frozen networks made of clips and pictures, so that they are made once, by
 * whatever run. What a kill left half written is cut off when the file is opened, and the rest goes on. Heads are read then, and
 * bodies, each checked, when they are wanted: memory holds where they are. One process writes to it at a time; see `lockFeatures`.
 */
export class FeatureFile {
  readonly #places = new Map<string, Place>()
  #end = 0
  /** Appends, one after the other. */
  #last: Promise<unknown> = Promise.resolve()

  private constructor(
    readonly path: string,
    readonly handle: FileHandle,
  ) {}

  /** @throws DataError where it cannot be opened */
  static async open(path: string): Promise<FeatureFile> {
    const handle = await open(path, constants.O_RDWR | constants.O_CREAT, 0o666).catch((cause) => {
      throw new DataError(`${path} cannot be opened: ${cause.message}`, { file: path, cause })
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

  /** How many there are. */
  get size(): number {
    return this.#places.size
  }

  /** Finds what is whole, and cuts off what is not. */
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

  /** Bytes that a key has. */
  sizeOf(key: string): number | undefined {
    return this.#places.get(key)?.length
  }

  /** Adds what is not there yet. @param key a SHA-256 in hexadecimal digits */
  append(key: string, bytes: Uint8Array): Promise<void> {
    if (!/^[0-9a-f]{64}$/.test(key)) throw misuse('FeatureFile.append', 'key', '64 hexadecimal digits', key)
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
        throw new DataError(`${this.path} takes no more: the disk is full`, { file: this.path })
      }
      this.#places.set(key, place)
      this.#end = place.at + place.length
    })
    this.#last = added.catch(() => {})
    return added
  }

  /** Undefined for what is not there, or is damaged: it is to be made anew then. */
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
