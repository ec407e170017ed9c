import { readSync } from 'node:fs'
import { type FileHandle, open, stat } from 'node:fs/promises'
import { type CheckpointError, DataError, VoxtorchError } from '../base/errors.js'

// A small read takes a few microseconds, a round trip to another thread a hundred.
const SMALL_READ = 1 << 16

/** Error class of a reader: DataError for data, CheckpointError for weights. */
export type FileErrorClass = typeof CheckpointError | typeof DataError

/** Return text from a file for a message: quoted, shortened, without control characters. */
export function quoted(text: string): string {
  return JSON.stringify(text.length > 100 ? `${text.slice(0, 100)}…` : text)
}

/** Return why a file cannot be opened, without the path, which messages name already. */
export function unopened(path: string, cause: Error): string {
  if (/^https?:\/\//i.test(path)) return 'it is a URL. Download the file, and pass its path'
  const { code } = cause as NodeJS.ErrnoException
  if (code === 'ENOENT') return 'there is no such file'
  if (code === 'EACCES' || code === 'EPERM') return 'permission denied'
  if (code === 'ENOTDIR') return 'a part of its path is a file, not a folder'
  return cause.message
}

/** Location of bytes, for errors. */
export class Place {
  constructor(
    /** Path as the caller wrote it. */
    readonly file: string,
    readonly ErrorClass: FileErrorClass = DataError,
    /** Name inside an archive. */
    readonly entry?: string,
  ) {}

  /** Return the error for a fault at this place; `fields` such as `byte` and `global` become its fields. */
  error(what: string, fields: Record<string, unknown> = {}): VoxtorchError {
    const inside = this.entry === undefined ? '' : `, entry ${quoted(this.entry)}`
    const facts = this.entry === undefined ? { file: this.file } : { file: this.file, entry: this.entry }
    return new this.ErrorClass(`${this.file}${inside}: ${what}`, { ...facts, ...fields })
  }
}

/**
 * Bytes with addresses from 0 to `size`: a file, memory, or a part of either. Nothing is read in advance, and each request is
 * checked against `size` before memory is allocated.
 */
export abstract class ByteSource {
  constructor(
    readonly place: Place,
    readonly size: number,
  ) {}

  /**
   * Location of byte 0 on the disk, for readers that read the file themselves. While a file is open, this path leads to that
   * same file, even if another one was renamed to its name since.
   */
  abstract readonly disk: { readonly path: string; readonly offset: number } | undefined

  /** Fill `into` with the bytes from `offset`, which are within the source. */
  protected abstract fill(into: Uint8Array, offset: number): Promise<void>

  async read(into: Uint8Array, offset: number): Promise<void> {
    this.check(offset, into.length)
    if (into.length > 0) await this.fill(into, offset)
  }

  /** @internal */
  async bytes(offset = 0, length = this.size - offset): Promise<Buffer> {
    this.check(offset, length)
    const bytes = Buffer.allocUnsafe(length)
    await this.read(bytes, offset)
    return bytes
  }

  /** Yield the bytes in chunks of at most `chunk`. The caller may keep a chunk. @internal */
  async *stream(offset = 0, length = this.size - offset, chunk = 1 << 18): AsyncGenerator<Buffer> {
    this.check(offset, length)
    for (let done = 0; done < length; done += chunk) {
      yield await this.bytes(offset + done, Math.min(chunk, length - done))
    }
  }

  /** Return a part as a source. */
  slice(offset: number, length: number, entry = this.place.entry): ByteSource {
    this.check(offset, length)
    return new Slice(this, offset, length, new Place(this.place.file, this.place.ErrorClass, entry))
  }

  /** Keep the underlying file open while `use` runs. */
  opened<T>(use: () => Promise<T>): Promise<T> {
    return use()
  }

  /** Return the whole source that this is a part of, and the position of `offset` in it. */
  root(offset = 0): { source: ByteSource; offset: number } {
    return { source: this, offset }
  }

  error(what: string, fields: Record<string, unknown> = {}): VoxtorchError {
    return this.place.error(what, fields)
  }

  private check(offset: number, length: number): void {
    if (offset >= 0 && length >= 0 && Number.isSafeInteger(offset) && offset <= this.size - length) return
    throw this.error(`expected ${length} bytes from byte ${offset} on, but it ends at byte ${this.size}`, {
      byte: offset,
    })
  }
}

class Slice extends ByteSource {
  constructor(
    private readonly whole: ByteSource,
    private readonly start: number,
    size: number,
    place: Place,
  ) {
    super(place, size)
  }

  get disk() {
    const { disk } = this.whole
    return disk && { path: disk.path, offset: disk.offset + this.start }
  }

  override opened<T>(use: () => Promise<T>): Promise<T> {
    return this.whole.opened(use)
  }

  override root(offset = 0): { source: ByteSource; offset: number } {
    return this.whole.root(this.start + offset)
  }

  protected async fill(into: Uint8Array, offset: number): Promise<void> {
    await this.whole.read(into, this.start + offset)
  }

  override slice(offset: number, length: number, entry = this.place.entry): ByteSource {
    // Check the range here; the result does not chain to this one.
    super.slice(offset, length, entry)
    return new Slice(this.whole, this.start + offset, length, new Place(this.place.file, this.place.ErrorClass, entry))
  }
}

/** Memory whose pages can be released before it is collected. */
interface ResizableBuffer {
  readonly resizable?: boolean
  resize?(length: number): void
}

/** Bytes in memory. */
export class MemorySource extends ByteSource {
  readonly disk = undefined

  constructor(
    readonly memory: Uint8Array,
    place: Place,
  ) {
    super(place, memory.length)
  }

  /** Join parts in memory that `release` can free. */
  static joined(parts: readonly Uint8Array[], length: number, place: Place): MemorySource {
    const Resizable = ArrayBuffer as unknown as new (length: number, options: object) => ArrayBuffer
    const memory = new Uint8Array(new Resizable(length, { maxByteLength: length }))
    let done = 0
    for (const part of parts) {
      const used = part.subarray(0, length - done)
      memory.set(used, done)
      done += used.length
    }
    return new MemorySource(memory, place)
  }

  /** Free the memory at once if it came from `joined`; it must not be read afterwards. */
  release(): void {
    const buffer = this.memory.buffer as ResizableBuffer
    if (buffer.resizable === true) buffer.resize?.(0)
  }

  protected async fill(into: Uint8Array, offset: number): Promise<void> {
    if (this.memory.length < this.size) throw this.error('expected a source that was not released, got one that was')
    into.set(this.memory.subarray(offset, offset + into.length))
  }
}

/** A regular file. After `close` it reopens for each read, and throws if the file is no longer the same. */
export class FileSource extends ByteSource {
  #handle: FileHandle | undefined
  #opening: Promise<FileHandle> | undefined
  /** Number of users that need the file open: the opener, until `close`, and current reads. */
  #users = 0
  #closed = false

  private constructor(
    place: Place,
    size: number,
    private readonly changed: number,
  ) {
    super(place, size)
  }

  get disk() {
    return { path: this.#handle === undefined ? this.place.file : `/proc/self/fd/${this.#handle.fd}`, offset: 0 }
  }

  /** Open a file. Throws the place's error if it does not exist, or is a folder, a pipe or a device. */
  static async open(path: string, ErrorClass: FileErrorClass = DataError): Promise<FileSource> {
    const place = new Place(path, ErrorClass)
    try {
      // Check first: opening a pipe would wait for a writer.
      const facts = await stat(path)
      if (!facts.isFile()) {
        throw place.error(`expected a regular file, got ${facts.isDirectory() ? 'a folder' : 'a device or a pipe'}`)
      }
      const source = new FileSource(place, facts.size, facts.mtimeMs)
      source.#handle = await open(path, 'r')
      source.#opening = Promise.resolve(source.#handle)
      source.#users = 1
      return source
    } catch (cause) {
      throw cause instanceof VoxtorchError
        ? cause
        : place.error(`it cannot be opened: ${unopened(path, cause as Error)}`, { cause })
    }
  }

  async close(): Promise<void> {
    if (this.#closed) return
    this.#closed = true
    await this.#leave()
  }

  override async opened<T>(use: () => Promise<T>): Promise<T> {
    this.#users += 1
    try {
      this.#opening ??= this.reopened()
      this.#handle = await this.#opening
      return await use()
    } finally {
      await this.#leave()
    }
  }

  async #leave(): Promise<void> {
    this.#users -= 1
    if (this.#users > 0) return
    const opening = this.#opening
    this.#opening = undefined
    this.#handle = undefined
    const handle = await opening?.catch(() => undefined)
    await handle?.close()
  }

  protected fill(into: Uint8Array, offset: number): Promise<void> {
    return this.opened(async () => {
      const handle = this.#handle!
      try {
        for (let done = 0; done < into.length; ) {
          const wanted = Math.min(into.length - done, 1 << 30)
          const bytesRead =
            into.length <= SMALL_READ
              ? readSync(handle.fd, into, done, wanted, offset + done)
              : (await handle.read(into, done, wanted, offset + done)).bytesRead
          if (bytesRead === 0) throw this.error(`it was truncated at byte ${offset + done} while it was read`)
          done += bytesRead
        }
      } catch (cause) {
        if (cause instanceof VoxtorchError) throw cause
        throw this.error(`it cannot be read at byte ${offset}: ${(cause as Error).message}`, { cause, byte: offset })
      }
    })
  }

  private async reopened(): Promise<FileHandle> {
    const handle = await open(this.place.file, 'r').catch((cause: Error) => {
      throw this.error(`it cannot be opened again: ${cause.message}`, { cause })
    })
    const { size, mtimeMs } = await handle.stat()
    if (size === this.size && mtimeMs === this.changed) return handle
    await handle.close()
    throw this.error('it has changed since it was opened; open it again')
  }
}

/** Open a file, pass it to `use` and close it. */
export async function withFile<T>(
  path: string,
  ErrorClass: FileErrorClass,
  use: (source: FileSource) => Promise<T>,
): Promise<T> {
  const source = await FileSource.open(path, ErrorClass)
  try {
    return await use(source)
  } finally {
    await source.close()
  }
}
