import { readSync } from 'node:fs'
import { type FileHandle, open, stat } from 'node:fs/promises'
import { type CheckpointError, DataError, VoxtorchError } from '../base/errors.js'

// A small read takes a few microseconds, a trip to another thread and back a hundred.
const SMALL_READ = 1 << 16

/** What a reader throws: DataError for data, CheckpointError for weights. */
export type FileErrorClass = typeof CheckpointError | typeof DataError

/** Text from a file as a message may show it: quoted, short, without control characters. */
export function quoted(text: string): string {
  return JSON.stringify(text.length > 100 ? `${text.slice(0, 100)}…` : text)
}

/** Where bytes lie, for errors. */
export class Place {
  constructor(
    /** The path as the caller wrote it. */
    readonly file: string,
    readonly ErrorClass: FileErrorClass = DataError,
    /** The name inside an archive. */
    readonly entry?: string,
  ) {}

  /** The error for something wrong here; `fields` such as `byte` and `global` become fields of it. */
  error(what: string, fields: Record<string, unknown> = {}): VoxtorchError {
    const inside = this.entry === undefined ? '' : `, entry ${quoted(this.entry)}`
    const facts = this.entry === undefined ? { file: this.file } : { file: this.file, entry: this.entry }
    return new this.ErrorClass(`${this.file}${inside}: ${what}`, { ...facts, ...fields })
  }
}

/**
 * Bytes with addresses from 0 to `size`: a file, memory, or a part of either. Nothing is read before it is asked for, and
 * what is asked for is checked against `size` before memory is taken.
 */
export abstract class ByteSource {
  constructor(
    readonly place: Place,
    readonly size: number,
  ) {}

  /**
   * Where byte 0 lies on the disk, for readers that go to the file themselves. While a file is open, its path here leads to
   * that very file, whatever has been renamed to its name since.
   */
  abstract readonly disk: { readonly path: string; readonly offset: number } | undefined

  /** Fills `into` with the bytes from `offset`, which are known to be there. */
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

  /** The bytes in chunks of at most `chunk`. A chunk is the caller's to keep. @internal */
  async *stream(offset = 0, length = this.size - offset, chunk = 1 << 18): AsyncGenerator<Buffer> {
    this.check(offset, length)
    for (let done = 0; done < length; done += chunk) {
      yield await this.bytes(offset + done, Math.min(chunk, length - done))
    }
  }

  /** A part as a source of its own. */
  slice(offset: number, length: number, entry = this.place.entry): ByteSource {
    this.check(offset, length)
    return new Slice(this, offset, length, new Place(this.place.file, this.place.ErrorClass, entry))
  }

  /** Keeps what the bytes come from open while `use` runs. */
  opened<T>(use: () => Promise<T>): Promise<T> {
    return use()
  }

  /** The whole that this is a part of, and where `offset` is in it. */
  root(offset = 0): { source: ByteSource; offset: number } {
    return { source: this, offset }
  }

  error(what: string, fields: Record<string, unknown> = {}): VoxtorchError {
    return this.place.error(what, fields)
  }

  private check(offset: number, length: number): void {
    if (offset >= 0 && length >= 0 && Number.isSafeInteger(offset) && offset <= this.size - length) return
    throw this.error(`it ends at byte ${this.size}, before the ${length} bytes that should start at byte ${offset}`, {
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
    // Checks here; the result does not grow a chain.
    super.slice(offset, length, entry)
    return new Slice(this.whole, this.start + offset, length, new Place(this.place.file, this.place.ErrorClass, entry))
  }
}

/** Memory whose pages can be given back before it is collected. */
interface ResizableBuffer {
  readonly resizable?: boolean
  resize?(length: number): void
}

/** Bytes that are in memory already. */
export class MemorySource extends ByteSource {
  readonly disk = undefined

  constructor(
    readonly memory: Uint8Array,
    place: Place,
  ) {
    super(place, memory.length)
  }

  /** The parts one after the other, in memory that `release` can give back. */
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

  /** Gives the memory back at once where it came from `joined`; nobody may read it any more. */
  release(): void {
    const buffer = this.memory.buffer as ResizableBuffer
    if (buffer.resizable === true) buffer.resize?.(0)
  }

  protected async fill(into: Uint8Array, offset: number): Promise<void> {
    if (this.memory.length < this.size) throw this.error('it is read again after its bytes were given back')
    into.set(this.memory.subarray(offset, offset + into.length))
  }
}

/**
 * A regular file. After `close` it opens again by itself for each read, and refuses when the file is not the one it was.
 */
export class FileSource extends ByteSource {
  #handle: FileHandle | undefined
  #opening: Promise<FileHandle> | undefined
  /** Who needs it open: the one who opened it, until `close`, and whoever reads. */
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

  /** Opens a file. Throws the place's error when there is none, or it is a folder, a pipe or a device. */
  static async open(path: string, ErrorClass: FileErrorClass = DataError): Promise<FileSource> {
    const place = new Place(path, ErrorClass)
    try {
      // A pipe would wait for a writer when it is opened, so ask first.
      const facts = await stat(path)
      if (!facts.isFile()) throw place.error('it is not a regular file')
      const source = new FileSource(place, facts.size, facts.mtimeMs)
      source.#handle = await open(path, 'r')
      source.#opening = Promise.resolve(source.#handle)
      source.#users = 1
      return source
    } catch (cause) {
      throw cause instanceof VoxtorchError
        ? cause
        : place.error(`it cannot be opened: ${(cause as Error).message}`, { cause })
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
          if (bytesRead === 0) throw this.error(`it was cut at byte ${offset + done} while it was read`)
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

/** Opens a file, hands it to `use` and closes it. */
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
