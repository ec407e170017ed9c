import { requireRecord } from '../../base/arguments.js'
import { argumentError, requireOneOf, requireOptions, shown } from '../../base/check.js'
import { CheckpointError } from '../../base/errors.js'
import { opAsync } from '../../native/call.js'
import { noGrad, scope, Tensor } from '../../tensor/index.js'
import { quoted } from '../byte-source.js'
import { bytePart, requirePath, writeFileParts } from '../file-tensors.js'
import {
  ARRAYS,
  GGUF_SAVE_TYPES,
  type GgufElementType,
  type GgufSaveType,
  type GgufType,
  type GgufValue,
  type GgufValueType,
  TYPES,
  VALUE_TYPES,
} from './types.js'

export interface SaveGgufOptions {
  /** Metadata: `general.architecture` and other keys for llama.cpp. */
  metadata?: Readonly<Record<string, GgufValue>>
  /**
   * Types of the values. Default: uint32 for integers (int32 below 0), float32 for other numbers; typed arrays have their own.
   * The types of `readGguf` can be passed on.
   */
  metadataTypes?: Readonly<Record<string, GgufValueType>>
  /**
   * Types of the tensors in the file: one type for all that have rows (the others are F32, as llama.cpp requires), or a
   * function of name and tensor. Rows of Q8_0 and Q4_0 must be a multiple of 32 long. Default F16.
   */
  type?: GgufSaveType | ((name: string, tensor: Tensor) => GgufSaveType)
}

/** A tensor that is already quantized to blocks: uint8, with the number of bytes of its shape, in one or more dimensions. */
export interface GgufBlocks {
  type: GgufType
  shape: readonly number[]
  blocks: Tensor
}

const ALIGNMENT = 32

const quantize = opAsync('voxtorch::gguf_quantize') as (values: Tensor, type: number) => Promise<Tensor>

/**
 * Write a GGUF file of version 3, which llama.cpp reads. The file is written atomically: under a temporary name, then synced
 * and renamed. Q8_0 and Q4_0 round like llama.cpp; blocks are written unchanged.
 * @throws CheckpointError that names key or tensor for values that the format cannot store, and if the file cannot be written
 */
export async function saveGguf(
  path: string,
  tensors: Readonly<Record<string, Tensor | GgufBlocks>>,
  options: SaveGgufOptions = {},
): Promise<void> {
  const where = 'saveGguf'
  requirePath(where, 'path', path)
  requireRecord(where, tensors, [], 'tensors')
  requireOptions(where, options, ['metadata', 'metadataTypes', 'type'])
  const { metadata = {}, metadataTypes = {}, type = 'F16' } = options
  requireRecord(where, metadata, [], 'metadata')
  requireRecord(where, metadataTypes, [], 'metadataTypes')
  if (typeof type !== 'function') requireOneOf(where, 'type', type, GGUF_SAVE_TYPES)
  const fail = (what: string, fields: Record<string, unknown>): never => {
    throw new CheckpointError(`${path}: ${what}`, { file: path, ...fields })
  }
  const entries = Object.entries(tensors).map(([name, value]): Entry => {
    if (isBlocks(value)) return blocksEntry(name, value, fail)
    if (!(value instanceof Tensor)) fail(`${quoted(name)} is not a tensor`, { tensor: name })
    if (value.ndim > 4) fail(`expected at most 4 dimensions of ${quoted(name)}, got ${value.ndim}`, { tensor: name })
    if (!/^b?float/.test(value.dtype))
      fail(`expected a floating-point tensor ${quoted(name)}, got ${value.dtype}`, { tensor: name })
    if (value.device === 'meta') fail(`${quoted(name)} is on the meta device and has no values`, { tensor: name })
    const savedType = typeof type === 'function' ? type(name, value) : value.ndim < 2 ? 'F32' : type
    if (!GGUF_SAVE_TYPES.includes(savedType))
      throw argumentError(where, 'type', `a function that returns ${GGUF_SAVE_TYPES.join(', ')}`, savedType)
    const { block } = TYPES[savedType]
    const row = value.shape.at(-1) ?? 1
    if (row % block !== 0) {
      fail(
        `expected rows of a multiple of ${block} in ${quoted(name)} for ${savedType}, got ${row}. Choose another type`,
        {
          tensor: name,
        },
      )
    }
    return { name, value, type: savedType, shape: value.shape, bytes: (value.numel() / block) * TYPES[savedType].bytes }
  })
  const head = new Writer()
  head.uint32(0x46554747)
  head.uint32(3)
  head.uint64(entries.length)
  writeMetadata(head, { ...metadata }, metadataTypes, fail)
  let offset = 0
  for (const { name, type: made, shape, bytes } of entries) {
    head.text(name)
    head.uint32(shape.length)
    for (const length of [...shape].reverse()) head.uint64(length)
    head.uint32(TYPES[made].code)
    head.uint64(offset)
    offset = aligned(offset + bytes)
  }
  head.pad()
  await noGrad(() =>
    scope(async () => {
      const parts = [bytePart(head.bytes())]
      for (const { value, type: made, name, bytes } of entries) {
        parts.push(value.dtype === 'uint8' ? value : await encoded(value, made as GgufSaveType, name, fail))
        const gap = aligned(bytes) - bytes
        if (gap > 0) parts.push(bytePart(new Uint8Array(gap)))
      }
      await writeFileParts(path, parts, CheckpointError)
    }),
  )
}

type Fail = (what: string, fields: Record<string, unknown>) => never

const aligned = (bytes: number): number => Math.ceil(bytes / ALIGNMENT) * ALIGNMENT

interface Entry {
  name: string
  /** uint8 for a tensor in blocks. */
  value: Tensor
  type: GgufType
  shape: readonly number[]
  bytes: number
}

const isBlocks = (value: unknown): value is GgufBlocks =>
  typeof value === 'object' && value !== null && !(value instanceof Tensor) && 'blocks' in value

function blocksEntry(name: string, { type, shape, blocks }: GgufBlocks, fail: Fail): Entry {
  const facts = Object.hasOwn(TYPES, type) ? TYPES[type] : undefined
  const lengths = Array.isArray(shape) ? (shape as readonly unknown[]) : []
  const isShape = lengths.length > 0 && lengths.length <= 4 && lengths.every((length) => Number.isSafeInteger(length))
  if (facts === undefined || facts.dtype !== undefined || !isShape || shape.some((length) => length < 0)) {
    return fail(`expected ${quoted(name)} to be a Tensor or { type, shape, blocks }`, { tensor: name })
  }
  const count = shape.reduce((product, length) => product * length, 1)
  const bytes = (count / facts.block) * facts.bytes
  const fits = (shape.at(-1) as number) % facts.block === 0 && blocks instanceof Tensor && blocks.dtype === 'uint8'
  if (!fits || blocks.device !== 'cpu' || blocks.numel() !== bytes) {
    return fail(
      `expected blocks of ${quoted(name)} with shape [${shape.join(', ')}] in ${type} to be uint8 of ${bytes} bytes on the CPU`,
      {
        tensor: name,
      },
    )
  }
  return { name, value: blocks, type, shape, bytes }
}

async function encoded(value: Tensor, type: GgufSaveType, tensor: string, fail: Fail): Promise<Tensor> {
  const { dtype, code } = TYPES[type]
  if (dtype === 'float16' && value.dtype !== dtype && value.numel() > 0) {
    const most = Number(value.abs().max().item())
    if (!(most < 65_520)) fail(`expected weights of ${quoted(tensor)} in the range of float16, got ${most}`, { tensor })
  }
  if (dtype !== undefined) return value.to({ dtype })
  try {
    return await quantize(value, code)
  } catch (error) {
    return fail(`${quoted(tensor)} cannot be ${type}: ${(error as Error).message}`, { tensor, cause: error })
  }
}

function writeMetadata(
  head: Writer,
  metadata: Record<string, GgufValue>,
  types: Readonly<Record<string, GgufValueType>>,
  fail: Fail,
): void {
  // Every file has the default value; that of another file would be wrong here.
  delete metadata['general.alignment']
  const keys = Object.entries(metadata).filter(([, value]) => value !== undefined)
  head.uint64(keys.length)
  for (const [key, value] of keys) {
    const wrong = (what: string): never => fail(`the metadata ${quoted(key)} ${what}`, { field: key })
    head.text(key)
    const type = types[key] ?? typeOf(value) ?? wrong(`is ${shown(value)}, which the format cannot store`)
    if (type.endsWith('[]')) {
      head.uint32(VALUE_TYPES.indexOf('array'))
      head.array(type.slice(0, -2) as GgufElementType, value, wrong)
    } else {
      head.uint32(VALUE_TYPES.indexOf(type as GgufElementType))
      head.value(type as GgufElementType, value, wrong)
    }
  }
}

function typeOf(value: GgufValue): GgufValueType | undefined {
  if (typeof value === 'string') return 'string'
  if (typeof value === 'boolean') return 'bool'
  if (typeof value === 'bigint') return value < 0n ? 'int64' : 'uint64'
  if (typeof value === 'number') {
    if (!Number.isInteger(value)) return 'float32'
    if (value >= 0) return value < 2 ** 32 ? 'uint32' : 'uint64'
    return value >= -(2 ** 31) ? 'int32' : 'int64'
  }
  if (Array.isArray(value)) {
    const first = typeof value[0]
    if (value.length === 0 || first === 'string') return 'string[]'
    if (first === 'boolean') return 'bool[]'
    return value.every((one) => Number.isInteger(one)) ? 'int32[]' : 'float32[]'
  }
  return (Object.keys(ARRAYS) as GgufElementType[]).flatMap((type) => {
    const Kind = ARRAYS[type]!.make(new ArrayBuffer(0)).constructor as new () => unknown
    return value instanceof Kind ? [`${type}[]` as const] : []
  })[0]
}

type Wrong = (what: string) => never

const RANGES: Partial<Record<GgufElementType, readonly [least: bigint, most: bigint]>> = {
  uint8: [0n, 255n],
  int8: [-128n, 127n],
  uint16: [0n, 65535n],
  int16: [-32768n, 32767n],
  uint32: [0n, 2n ** 32n - 1n],
  int32: [-(2n ** 31n), 2n ** 31n - 1n],
  uint64: [0n, 2n ** 64n - 1n],
  int64: [-(2n ** 63n), 2n ** 63n - 1n],
}

/** Growing buffer of bytes. */
class Writer {
  #buffer = Buffer.alloc(1 << 16)
  #used = 0

  bytes(): Uint8Array {
    return this.#buffer.subarray(0, this.#used)
  }

  pad(): void {
    this.#reserve(aligned(this.#used) - this.#used)
  }

  uint32(value: number): void {
    const at = this.#reserve(4)
    this.#buffer.writeUInt32LE(value, at)
  }

  uint64(value: number | bigint): void {
    const at = this.#reserve(8)
    this.#buffer.writeBigUInt64LE(BigInt(value), at)
  }

  text(text: string): void {
    const bytes = Buffer.from(text)
    this.uint64(bytes.length)
    const at = this.#reserve(bytes.length)
    bytes.copy(this.#buffer, at)
  }

  array(type: GgufElementType, value: GgufValue, wrong: Wrong): void {
    if (!Array.isArray(value) && !ArrayBuffer.isView(value))
      return wrong(`must be an array of ${type}, not ${shown(value)}`)
    const values = Array.from(value as ArrayLike<GgufValue>)
    if (!VALUE_TYPES.includes(type) || (type as string) === 'array')
      wrong('is an array of arrays, which is not written')
    this.uint32(VALUE_TYPES.indexOf(type))
    this.uint64(values.length)
    for (const one of values) this.value(type, one, wrong)
  }

  value(type: GgufElementType, value: GgufValue, wrong: Wrong): void {
    const bad = (): never => wrong(`must be ${type}, not ${shown(value)}`)
    if (type === 'string') {
      if (typeof value !== 'string' || /\p{Surrogate}/u.test(value)) return bad()
      return this.text(value)
    }
    if (type === 'bool') {
      if (typeof value !== 'boolean') return bad()
      const at = this.#reserve(1)
      this.#buffer[at] = Number(value)
      return
    }
    if (type === 'float32' || type === 'float64') {
      if (typeof value !== 'number') return bad()
      const at = this.#reserve(type === 'float32' ? 4 : 8)
      if (type === 'float32') this.#buffer.writeFloatLE(value, at)
      else this.#buffer.writeDoubleLE(value, at)
      return
    }
    const range = RANGES[type]
    const whole = typeof value === 'bigint' || (typeof value === 'number' && Number.isSafeInteger(value))
    if (range === undefined || !whole) return bad()
    const exact = BigInt(value as number | bigint)
    if (exact < range[0] || exact > range[1]) return bad()
    const bytes = ARRAYS[type]!.bytes
    const at = this.#reserve(bytes)
    // Two's complement: the lower bytes are the same for every width.
    const wide = Buffer.alloc(8)
    wide.writeBigUInt64LE(BigInt.asUintN(64, exact))
    wide.copy(this.#buffer, at, 0, bytes)
  }

  /** Return the position of a number of new zero bytes. The buffer may be replaced. */
  #reserve(count: number): number {
    const at = this.#used
    this.#used += count
    if (this.#used > this.#buffer.length) {
      const larger = Buffer.alloc(2 * this.#used)
      this.#buffer.copy(larger)
      this.#buffer = larger
    }
    return at
  }
}
