import { argumentError, requireOptions, shown } from '../../base/check.js'
import { CheckpointError, ConfigError } from '../../base/errors.js'
import type { DType } from '../../tensor/dtype.js'
import { scope, type Tensor } from '../../tensor/index.js'
import { ByteSource, quoted, withFile } from '../byte-source.js'
import { placeBytes, readPlaces, requireNames, requirePath } from '../file-tensors.js'
import { chosenNames } from '../safetensors/file.js'

/** Header of a variable. */
export interface CTranslate2Variable {
  readonly dtype: DType
  readonly shape: readonly number[]
  /** Offset in the file of its first byte, and number of bytes. */
  readonly offset: number
  readonly bytes: number
}

export interface LoadCTranslate2Options {
  /** Load only these variables, by name or by a function of the name. Default: all. */
  names?: readonly string[] | ((name: string) => boolean)
  /** Return views of a mapping of the file instead of copies; see `loadSafetensors`. Default false. */
  mmap?: boolean
}

/** By the format's codes. */
const DTYPES: readonly DType[] = ['float32', 'int8', 'int16', 'int32', 'float16', 'bfloat16']
const VERSION = 6
const MAX_VARIABLES = 1 << 20
const MAX_RANK = 8
// libtorch computes strides from sizes without checking for overflow, also if one of them is 0.
const MAX_SPAN = 2 ** 47

/** A `model.bin` of CTranslate2 whose list of variables was read. The variables are read by `load`. */
export class CTranslate2File {
  /** Kind of the model, such as `WhisperSpec`. */
  readonly spec: string
  readonly revision: number
  /** Variables by name. Without prototype, so that any name is safe. */
  readonly variables: Readonly<Record<string, CTranslate2Variable>>
  /** Aliases: names that refer to a variable of another name. */
  readonly aliases: Readonly<Record<string, string>>
  readonly #source: ByteSource

  /** @internal Use `readCTranslate2`. */
  constructor(source: ByteSource, head: Pick<CTranslate2File, 'spec' | 'revision' | 'variables' | 'aliases'>) {
    if (!(source instanceof ByteSource)) {
      const what = `CTranslate2File: expected the source of readCTranslate2, got ${shown(source)}.`
      throw new ConfigError(`${what} Call readCTranslate2(path).`)
    }
    this.#source = source
    this.spec = head.spec
    this.revision = head.revision
    this.variables = head.variables
    this.aliases = head.aliases
  }

  get path(): string {
    return this.#source.place.file
  }

  /**
   * Load the variables as they are in the file: the scales of `int8` weights are in another variable, whose name ends in
   * `_scale`.
   * @throws CheckpointError for an unknown name, and a file that has changed
   */
  async load(options: LoadCTranslate2Options = {}): Promise<Record<string, Tensor>> {
    const where = 'CTranslate2File.load'
    requireOptions(where, options, ['names', 'mmap'])
    const { mmap = false } = options
    if (typeof mmap !== 'boolean') throw argumentError(where, 'mmap', 'a boolean', mmap)
    requireNames(where, options.names)
    const names = chosenNames(Object.keys(this.variables), options.names, this.path)
    const places = names.map((name) => this.variables[name]!)
    return scope(async () => {
      const read = await readPlaces(this.#source, places, { mmap })
      const tensors: Record<string, Tensor> = Object.create(null)
      names.forEach((name, i) => {
        tensors[name] = read[i]!
      })
      return tensors
    })
  }
}

/**
 * Read the list of variables of CTranslate2's `model.bin`, binary version 6 (https://github.com/OpenNMT/CTranslate2,
 * `python/ctranslate2/specs/model_spec.py`). Its contents are checked against the file's size.
 * @throws CheckpointError that names file, byte and variable, for any file that is incomplete or invalid
 */
export async function readCTranslate2(path: string): Promise<CTranslate2File> {
  requirePath('readCTranslate2', 'path', path)
  return withFile(path, CheckpointError, openCTranslate2)
}

export const openCTranslate2 = async (source: ByteSource): Promise<CTranslate2File> =>
  new CTranslate2File(source, await readHead(source))

async function readHead(source: ByteSource) {
  const cursor = new Cursor(source)
  const version = await cursor.number(4)
  if (version !== VERSION) {
    cursor.invalid(`expected binary version ${VERSION}, got ${version}. Convert the model again`, {
      byte: 0,
    })
  }
  const spec = await cursor.text("the model's name")
  const revision = await cursor.number(4)
  const count = await cursor.number(4)
  if (count > MAX_VARIABLES) cursor.invalid(`it claims ${count} variables`)
  const variables: Record<string, CTranslate2Variable> = Object.create(null)
  for (let i = 0; i < count; i++) {
    const name = await cursor.text(`the name of variable ${i + 1} of ${count}`)
    if (name in variables) cursor.invalid(`the variable ${quoted(name)} is there twice`, { tensor: name })
    variables[name] = await readVariable(cursor, name)
  }
  const aliases: Record<string, string> = Object.create(null)
  const others = await cursor.number(4)
  if (others > MAX_VARIABLES) cursor.invalid(`it claims ${others} aliases`)
  for (let i = 0; i < others; i++) {
    const alias = await cursor.text(`alias ${i + 1} of ${others}`)
    const name = await cursor.text(`the target of alias ${quoted(alias)}`)
    if (!(name in variables))
      cursor.invalid(`alias ${quoted(alias)} refers to ${quoted(name)}, which does not exist`, { tensor: name })
    if (alias in variables || alias in aliases)
      cursor.invalid(`the name ${quoted(alias)} is there twice`, { tensor: alias })
    aliases[alias] = name
  }
  if (cursor.at !== source.size) cursor.invalid(`it ends at byte ${cursor.at}, the file at byte ${source.size}`)
  return { spec, revision, variables, aliases }
}

async function readVariable(cursor: Cursor, name: string): Promise<CTranslate2Variable> {
  const fail = (what: string): never => cursor.invalid(`the variable ${quoted(name)} ${what}`, { tensor: name })
  const rank = await cursor.number(1)
  if (rank > MAX_RANK) fail(`has ${rank} dimensions`)
  const shape: number[] = []
  let span = 8
  for (let i = 0; i < rank; i++) {
    const length = await cursor.number(4)
    span *= Math.max(length, 1)
    if (span > MAX_SPAN) fail('has more values than any memory')
    shape.push(length)
  }
  const code = await cursor.number(1)
  const dtype = DTYPES[code] ?? fail(`is of the unknown type ${code}`)
  const bytes = await cursor.number(4)
  const expected = placeBytes({ dtype, shape })
  if (bytes !== expected) fail(`has ${bytes} bytes, and ${dtype} [${shape.join(', ')}] has ${expected}`)
  const offset = cursor.skip(bytes, name)
  return { dtype, shape, offset, bytes }
}

/** Reader of the list. Names and sizes are stored between the values, so small pieces are read across the file. */
class Cursor {
  at = 0
  #from = 0
  #piece: Buffer = Buffer.alloc(0)

  constructor(readonly source: ByteSource) {}

  invalid(what: string, fields: Record<string, unknown> = {}): never {
    throw this.source.error(`it is not a valid model.bin of CTranslate2: ${what}`, { byte: this.at, ...fields })
  }

  async number(bytes: 1 | 2 | 4): Promise<number> {
    return (await this.#take(bytes)).readUIntLE(0, bytes)
  }

  /** Read a text with its terminating 0, which its length includes. */
  async text(what: string): Promise<string> {
    const length = await this.number(2)
    const bytes = await this.#take(length)
    if (length === 0 || bytes[length - 1] !== 0) this.invalid(`${what} does not end`)
    const text = bytes.toString('utf8', 0, length - 1)
    if (text === '' || text.includes('\0') || text.includes('\ufffd')) this.invalid(`${what} is not a valid text`)
    return text
  }

  skip(bytes: number, tensor: string): number {
    const { at } = this
    if (bytes > this.source.size - at) {
      this.invalid(`the variable ${quoted(tensor)} ends at byte ${at + bytes}, the file at byte ${this.source.size}`, {
        tensor,
      })
    }
    this.at += bytes
    return at
  }

  async #take(bytes: number): Promise<Buffer> {
    const { at, source } = this
    if (bytes > source.size - at) this.invalid(`it ends at byte ${source.size}, in the middle of its list`)
    if (at < this.#from || at + bytes > this.#from + this.#piece.length) {
      this.#from = at
      this.#piece = await source.bytes(at, Math.min(Math.max(bytes, 4096), source.size - at))
    }
    this.at += bytes
    return this.#piece.subarray(at - this.#from, at - this.#from + bytes)
  }
}
