import { closeSync, fsyncSync, openSync, writeSync } from 'node:fs'
import { hostname } from 'node:os'
import { join } from 'node:path'
import { makeDirectory } from '../base/atomic.js'
import { argumentError, elementsOf, isArrayLike, requireString, requireWhole } from '../base/check.js'
import { ConfigError, DataError } from '../base/errors.js'
import { Tensor } from '../tensor/index.js'

let writers = 0

/**
 * Writes a TensorBoard events file, `events.out.tfevents.<seconds>.<host>.<pid>.<n>`, into a directory, which is created if it
 * does not exist. Each record is written as it is added, so that a killed process loses none; a full disk is a DataError that
 * names the file.
 *
 * The file is TFRecord framing around `tensorflow.Event` messages (tensorflow/core/util/event.proto).
 */
export class SummaryWriter {
  /** Path of the file. */
  readonly path: string
  #file: number | undefined

  constructor(directory: string) {
    requireString('SummaryWriter', 'directory', directory)
    const seconds = String(Math.floor(Date.now() / 1000)).padStart(10, '0')
    this.path = join(directory, `events.out.tfevents.${seconds}.${hostname()}.${process.pid}.${writers++}`)
    makeDirectory(directory, DataError)
    try {
      this.#file = openSync(this.path, 'ax')
    } catch (cause) {
      throw new DataError(`${this.path} cannot be written: ${(cause as Error).message}`, {
        file: this.path,
        cause,
      })
    }
    this.#write(string(FILE_VERSION, 'brain.Event:2'))
  }

  /** Add a number at a step, as a point of the curve `tag`; 'train/loss' is in the group 'train'. */
  addScalar(tag: string, value: number, step: number): void {
    if (typeof value !== 'number') throw argumentError('SummaryWriter.addScalar', 'value', 'a number', value)
    this.#add(tag, step, [float(SIMPLE_VALUE, value)])
  }

  /** Add text, which TensorBoard shows as Markdown. */
  addText(tag: string, text: string, step: number): void {
    requireString('SummaryWriter.addText', 'text', text)
    const plugin = message(METADATA, message(PLUGIN_DATA, string(PLUGIN_NAME, 'text')))
    const shape = message(TENSOR_SHAPE, message(DIM, integer(SIZE, 1)))
    const value = message(TENSOR, integer(DTYPE, DT_STRING), shape, string(STRING_VAL, text))
    this.#add(tag, step, [plugin, value])
  }

  /** Add a histogram of the values of a tensor of any shape (waits for it on CUDA) or of a list. NaN is left out. */
  addHistogram(tag: string, values: Tensor | ArrayLike<number>, step: number): void {
    if (!(values instanceof Tensor) && !isArrayLike(values)) {
      throw argumentError('SummaryWriter.addHistogram', 'values', 'a tensor or a list', values)
    }
    const given = values instanceof Tensor ? values.dataSync() : values
    const list = elementsOf('SummaryWriter.addHistogram', 'values', given, (value) =>
      toNumber(value as number | bigint),
    )
    this.#add(tag, step, [message(HISTO, ...histogram(list))])
  }

  /**
   * Wait until the file is on the disk.
   * @throws DataError that names the file if it cannot be written
   */
  flush(): void {
    this.#guarded(fsyncSync)
  }

  close(): void {
    if (this.#file !== undefined) closeSync(this.#file)
    this.#file = undefined
  }

  [Symbol.dispose](): void {
    this.close()
  }

  #add(tag: string, step: number, value: Uint8Array[]): void {
    requireString('SummaryWriter', 'tag', tag)
    requireWhole('SummaryWriter', 'step', step, Number.MIN_SAFE_INTEGER)
    this.#write(integer(STEP, step), message(SUMMARY, message(VALUE, string(TAG, tag), ...value)))
  }

  #write(...fields: Uint8Array[]): void {
    const bytes = record(Buffer.concat([double(WALL_TIME, Date.now() / 1000), ...fields]))
    this.#guarded((file) => {
      for (let done = 0; done < bytes.length; ) done += writeSync(file, bytes, done)
    })
  }

  #guarded(work: (file: number) => void): void {
    const file = this.#open()
    try {
      work(file)
    } catch (cause) {
      throw new DataError(`${this.path} cannot be written: ${(cause as Error).message}`, {
        file: this.path,
        cause,
      })
    }
  }

  #open(): number {
    if (this.#file === undefined)
      throw new ConfigError('SummaryWriter: expected an open writer, got a closed one', { path: this.path })
    return this.#file
  }
}

// Field numbers of Event, Summary.Value, SummaryMetadata, TensorProto and HistogramProto.
const [WALL_TIME, STEP, FILE_VERSION, SUMMARY] = [1, 2, 3, 5]
const [VALUE, TAG, SIMPLE_VALUE, HISTO, TENSOR, METADATA] = [1, 1, 2, 5, 8, 9]
const [PLUGIN_DATA, PLUGIN_NAME] = [1, 1]
const [DTYPE, TENSOR_SHAPE, STRING_VAL, DIM, SIZE, DT_STRING] = [1, 2, 8, 2, 1, 7]
const [MIN, MAX, NUM, SUM, SUM_SQUARES, BUCKET_LIMIT, BUCKET] = [1, 2, 3, 4, 5, 6, 7]

// Protocol buffers: a field is (number << 3 | wire type) and its value; negative integers take ten bytes.
const VARINT = 0
const DOUBLE = 1
const BYTES = 2
const FLOAT = 5

function varint(value: number): number[] {
  const bytes: number[] = []
  let rest = BigInt.asUintN(64, BigInt(value))
  for (; rest > 127n; rest >>= 7n) bytes.push(Number(rest & 127n) | 128)
  return [...bytes, Number(rest)]
}

const key = (field: number, wire: number) => varint(field * 8 + wire)

const integer = (field: number, value: number) => Uint8Array.from([...key(field, VARINT), ...varint(value)])

function float(field: number, value: number): Uint8Array {
  const bytes = Buffer.alloc(4)
  bytes.writeFloatLE(value)
  return Uint8Array.from([...key(field, FLOAT), ...bytes])
}

function doubles(values: number[]): Buffer {
  const bytes = Buffer.alloc(values.length * 8)
  for (const [i, value] of values.entries()) bytes.writeDoubleLE(value, i * 8)
  return bytes
}

const double = (field: number, value: number) => Uint8Array.from([...key(field, DOUBLE), ...doubles([value])])

const string = (field: number, text: string) => message(field, Buffer.from(text))

function message(field: number, ...parts: Uint8Array[]): Uint8Array {
  const body = Buffer.concat(parts)
  return Buffer.concat([Uint8Array.from([...key(field, BYTES), ...varint(body.length)]), body])
}

const toNumber = (value: unknown) =>
  typeof value === 'number' || typeof value === 'bigint' ? Number(value) : Number.NaN

/** Return a histogram whose buckets widen by a tenth each, as in TensorBoard's own writers. */
function histogram(given: number[]): Uint8Array[] {
  const values = given.filter((value) => !Number.isNaN(value)).sort((a, b) => a - b)
  const limits: number[] = []
  const counts: number[] = []
  for (const value of values) {
    const limit = bucketLimit(value)
    if (limits.at(-1) === limit) counts[counts.length - 1] = (counts.at(-1) as number) + 1
    else {
      // TensorBoard takes the previous limit as a bucket's lower end; an empty bucket preserves gaps.
      const lower = bucketLimit(value, 1)
      if (limits.length > 0 && lower > (limits.at(-1) as number)) {
        limits.push(lower)
        counts.push(0)
      }
      limits.push(limit)
      counts.push(1)
    }
  }
  const sum = (power: number) => values.reduce((total, value) => total + value ** power, 0)
  const packed = (field: number, list: number[]) => message(field, doubles(list))
  return [
    double(MIN, values[0] ?? 0),
    double(MAX, values.at(-1) ?? 0),
    double(NUM, values.length),
    double(SUM, sum(1)),
    double(SUM_SQUARES, sum(2)),
    packed(BUCKET_LIMIT, limits),
    packed(BUCKET, counts),
  ]
}

const SMALLEST = 1e-12

/** Return the upper end of the bucket that contains a value, or of the bucket `below` it. */
function bucketLimit(value: number, below = 0): number {
  const size = Math.abs(value)
  if (size < SMALLEST) return below ? -SMALLEST : SMALLEST
  const steps = Math.log(size / SMALLEST) / Math.log(1.1)
  return value > 0
    ? SMALLEST * 1.1 ** (Math.floor(steps) + 1 - below)
    : -SMALLEST * 1.1 ** (Math.ceil(steps) - 1 + below)
}

/** Return a TFRecord: length, its checksum, data, its checksum; little endian. */
function record(data: Uint8Array): Buffer {
  const header = Buffer.alloc(12)
  header.writeBigUInt64LE(BigInt(data.length))
  header.writeUInt32LE(maskedCrc32c(header.subarray(0, 8)), 8)
  const footer = Buffer.alloc(4)
  footer.writeUInt32LE(maskedCrc32c(data))
  return Buffer.concat([header, data, footer])
}

const CRC_TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  let crc = byte
  for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0x82f63b78 : crc >>> 1
  return crc
})

/** Compute CRC-32C (Castagnoli), RFC 3720 B.4. */
export function crc32c(data: Uint8Array): number {
  let crc = 0xffffffff
  for (const byte of data) crc = (CRC_TABLE[(crc ^ byte) & 255] as number) ^ (crc >>> 8)
  return (crc ^ 0xffffffff) >>> 0
}

/**
 * Compute the masked checksum of TFRecord: rotated and shifted, so that checksums of data with embedded checksums stay
 * reliable.
 */
export function maskedCrc32c(data: Uint8Array): number {
  const crc = crc32c(data)
  return (((crc >>> 15) | (crc << 17)) + 0xa282ead8) >>> 0
}
