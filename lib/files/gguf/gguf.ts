import { argumentError, requireBoolean, requireOneOf, requireOptions, requireString, shown } from '../../base/check.js'
import { CheckpointError, ConfigError, DTypeError } from '../../base/errors.js'
import { opAsync } from '../../native/call.js'
import { type Device, deviceWord } from '../../tensor/dtype.js'
import { scope, type Tensor } from '../../tensor/index.js'
import { ByteSource, quoted, withFile } from '../byte-source.js'
import { placeBytes, readPlaces, requireMemory, requireNames, requirePath, type TensorPlace } from '../file-tensors.js'
import { chosenNames } from '../safetensors/file.js'
import { ggufIn } from './find.js'
import { type GgufHeader, readHeader } from './header.js'
import { readShards } from './shards.js'
import { type GgufTensor, type GgufValue, type GgufValueType, READ_TYPES, TYPES } from './types.js'

export interface LoadGgufOptions {
  /** Load only these tensors, by name or by a function of the name. Default: all. */
  names?: readonly string[] | ((name: string) => boolean)
  /** Dtype of dequantized tensors; the others keep theirs. Default float32. */
  dtype?: 'float32' | 'bfloat16' | 'float16'
  /**
   * Return views of a mapping of the file instead of copies, for tensors that are not quantized; see `loadSafetensors`. Default
   * false.
   */
  mmap?: boolean
  /** Device. Default: that of `withDevice`, else the CPU. Not with `mmap`. */
  device?: Device
}

const dequantize = opAsync('voxtorch::gguf_dequantize') as (
  blocks: Tensor,
  type: number,
  size: readonly number[],
  options: { dtype: string },
) => Promise<Tensor>

/**
 * A GGUF file whose header was read, the format of llama.cpp and programs based on it. Its tensors are read by `load`, which
 * throws if the file has changed since.
 */
export class GgufFile {
  readonly version: number
  /** Metadata by key. Without prototype, so that any key is safe. */
  readonly metadata: Readonly<Record<string, GgufValue>>
  /** Type of each metadata value, as `saveGguf` takes it. */
  readonly metadataTypes: Readonly<Record<string, GgufValueType>>
  /** Tensors by name, in the order of the file's list. */
  readonly tensors: Readonly<Record<string, GgufTensor>>
  /** Files of the model in order: one, unless it is split. */
  readonly paths: readonly string[]
  readonly #sources: readonly ByteSource[]

  /** @internal Use `readGguf`. */
  constructor(sources: readonly ByteSource[], header: GgufHeader) {
    const isRead = Array.isArray(sources) && sources.length > 0 && sources.every((one) => one instanceof ByteSource)
    if (!isRead || typeof header !== 'object' || header === null) {
      throw new ConfigError(`GgufFile: expected the sources of readGguf, got ${shown(sources)}. Call readGguf(path).`)
    }
    const { version, metadata, metadataTypes, tensors } = header
    this.#sources = sources
    this.paths = sources.map(({ place }) => place.file)
    this.version = version
    this.metadata = metadata
    this.metadataTypes = metadataTypes
    this.tensors = tensors
  }

  /** Path of the first file, if the model is split. */
  get path(): string {
    return this.paths[0] as string
  }

  /** Value of `general.architecture`, such as `'llama'`; null if the file lacks it. */
  get architecture(): string | null {
    const value = this.metadata['general.architecture']
    return typeof value === 'string' ? value : null
  }

  /** Jinja chat template; null if the file lacks it. */
  get chatTemplate(): string | null {
    const value = this.metadata['tokenizer.chat_template']
    return typeof value === 'string' ? value : null
  }

  /** Tokenizer metadata, without the prefix `tokenizer.ggml.`; `Tokenizer.fromFile` reads it. */
  get tokenizer(): Readonly<Record<string, GgufValue>> {
    const prefix = 'tokenizer.ggml.'
    const entries = Object.entries(this.metadata).filter(([key]) => key.startsWith(prefix))
    return Object.assign(
      Object.create(null),
      Object.fromEntries(entries.map(([key, value]) => [key.slice(prefix.length), value])),
    )
  }

  /**
   * Load tensors by name. Quantized ones are dequantized to `dtype` on all threads of the executor.
   * @throws CheckpointError for an unknown name, and a file that has changed
   * @throws DTypeError that names a tensor whose type is not supported
   * @throws InsufficientMemoryError if the tensors need more memory than there is
   */
  async load(options: LoadGgufOptions = {}): Promise<Record<string, Tensor>> {
    const where = 'GgufFile.load'
    requireOptions(where, options, ['names', 'dtype', 'mmap', 'device'])
    const { names: wanted, dtype = 'float32', mmap = false, device } = options
    requireOneOf(where, 'dtype', dtype, ['float32', 'bfloat16', 'float16'])
    requireBoolean(where, 'mmap', mmap)
    requireNames(where, wanted)
    if (device !== undefined) deviceWord(device)
    const names = chosenNames(Object.keys(this.tensors), wanted, this.path)
    for (const name of names) this.#requireReadable(name)
    const plain = names.filter((name) => TYPES[this.#entry(name).type].dtype !== undefined)
    const packed = names.filter((name) => TYPES[this.#entry(name).type].dtype === undefined)
    if (device === undefined || device === 'cpu') {
      requireMemory(
        this.#sources[0] as ByteSource,
        packed.reduce((sum, name) => sum + placeBytes({ dtype, shape: this.#entry(name).shape }), 0),
      )
    }
    return scope(async () => {
      const place = ({ type, shape, offset }: GgufTensor) => ({ dtype: TYPES[type].dtype!, shape, offset })
      const found = await this.#read(plain, place, device === undefined ? { mmap } : { mmap, device })
      for (const name of packed) found.set(name, await this.#dequantized(name, dtype, device))
      const tensors: Record<string, Tensor> = Object.create(null)
      for (const name of names) tensors[name] = found.get(name)!
      return tensors
    })
  }

  /**
   * Return the blocks of a quantized tensor as stored in the file, uint8 [rows, bytes per row], in a mapping of it: for code
   * that computes with blocks. A tensor without rows is one row.
   * @throws CheckpointError for an unknown name, or a tensor that is not quantized
   */
  async blocks(name: string): Promise<Tensor> {
    return (await this.blocksOf([name], { mmap: true }))[name]!
  }

  /**
   * Return the blocks of several tensors, as `blocks` does, by name: read by all threads, or with `mmap` in a mapping of the file.
   * @throws CheckpointError for an unknown name, or a tensor that is not quantized
   * @throws InsufficientMemoryError if the blocks need more memory than there is
   */
  async blocksOf(names: readonly string[], options: { mmap?: boolean } = {}): Promise<Record<string, Tensor>> {
    const where = 'GgufFile.blocksOf'
    requireOptions(where, options, ['mmap'])
    const { mmap = false } = options
    requireBoolean(where, 'mmap', mmap)
    if (!Array.isArray(names)) throw argumentError(where, 'names', 'an array of names', names)
    const place = ({ type, shape, offset, bytes, name }: GgufTensor & { name: string }) => {
      if (TYPES[type].dtype !== undefined) {
        throw new CheckpointError(
          `${this.path}: expected a quantized tensor, but ${quoted(name)} is ${type}. Use load()`,
          {
            file: this.path,
            tensor: name,
          },
        )
      }
      const row = ((shape.at(-1) ?? 1) / TYPES[type].block) * TYPES[type].bytes
      return { dtype: 'uint8' as const, shape: [row === 0 ? 0 : bytes / row, row], offset }
    }
    return Object.assign(
      Object.create(null),
      Object.fromEntries(await this.#read(names, place, { mmap, device: 'cpu' })),
    )
  }

  /** Read tensors at places in their files: one job for each file. */
  async #read(
    names: readonly string[],
    placeOf: (entry: GgufTensor & { name: string }) => TensorPlace,
    options: { mmap: boolean; device?: Device },
  ): Promise<Map<string, Tensor>> {
    const found = new Map<string, Tensor>()
    const entries = names.map((name) => ({ name, ...this.#entry(name) }))
    for (const [shard, source] of this.#sources.entries()) {
      const here = entries.filter((entry) => entry.shard === shard)
      const read = await readPlaces(source, here.map(placeOf), options)
      for (const [i, { name }] of here.entries()) found.set(name, read[i]!)
    }
    return found
  }

  async #dequantized(name: string, dtype: string, device: Device | undefined): Promise<Tensor> {
    const { type, shape } = this.#entry(name)
    return scope(async () => {
      const values = await dequantize((await this.blocks(name)).flatten(), TYPES[type].code, shape, { dtype })
      return device === undefined ? values.to({}) : values.to({ device })
    })
  }

  #entry(name: string): GgufTensor {
    requireString('GgufFile', 'name', name)
    const entry = this.tensors[name]
    if (entry !== undefined) return entry
    throw new CheckpointError(`${this.path}: expected a tensor ${quoted(name)}, got none`, {
      file: this.path,
      tensor: name,
    })
  }

  #requireReadable(name: string): void {
    const { type } = this.#entry(name)
    if (READ_TYPES.includes(type)) return
    throw new DTypeError(
      `${this.path}: expected a tensor type of ${READ_TYPES.join(', ')}, but ${quoted(name)} is ${type}. Leave it out with \`names\``,
      { file: this.path, tensor: name, dtype: type },
    )
  }
}

/**
 * Read the header of a GGUF file of version 2 or 3: metadata, tokenizer, chat template, and the locations of its tensors. The
 * header is checked against the file's size; tensors are read by `load` only.
 *
 * A split model (`NAME-00001-of-00003.gguf`, …) is read as one: pass its first file, or the folder of its files. Its metadata
 * are those of the first file, without `split.no`, `split.count` and `split.tensors.count`.
 *
 * ```ts
 * const file = await readGguf('SmolLM2-135M-Instruct.Q4_1.gguf')
 * file.metadata['general.name']
 * const { 'token_embd.weight': embeddings } = await file.load({ names: ['token_embd.weight'], dtype: 'bfloat16' })
 * ```
 * @param path a file, or a folder with the files of one model
 * @throws CheckpointError that names file, byte, and key or tensor, for any file that is incomplete or invalid: a missing
 *   shard, big-endian numbers, metadata with more than 4,194,304 texts and booleans in arrays
 */
export async function readGguf(path: string): Promise<GgufFile> {
  requirePath('readGguf', 'path', path)
  const first = ggufIn(path) ?? path
  return withFile(first, CheckpointError, openGguf)
}

/** Read the header of a model whose first or only file is `source`. */
export async function openGguf(source: ByteSource): Promise<GgufFile> {
  const { sources, whole } = await readShards(source, await readHeader(source))
  return new GgufFile(sources, whole)
}
