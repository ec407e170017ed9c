import { constants } from 'node:buffer'
import { setImmediate } from 'node:timers/promises'
import { heapHolds, listMayGrow, mapMayGrow, tooMuch } from '../../base/heap.js'
import type { DType } from '../../tensor/dtype.js'
import type { Complex, Device, Tensor } from '../../tensor/index.js'
import { type Place, quoted } from '../byte-source.js'
import { Payload } from './feed.js'
import type { PickleEncoding } from './machine.js'
import { itemsOf, NumpyArray, NumpyDType } from './numpy.js'
import { Callable, DEEPEST, Marker, OldString, PyDict } from './objects.js'
import { Resolved, type Resolving } from './resolvers.js'
import { LazyTensor, loadNumpy, loadTorchTensors } from './tensors.js'
import { decodeUtf8, encodeLatin1 } from './text.js'
import { TorchStorage, TorchTensor } from './torch.js'

/**
 * Contents of a pickle in JavaScript:
 *
 * | Python                          | here                                                             |
 * | ------------------------------- | ---------------------------------------------------------------- |
 * | None, bool, str                 | null, boolean, string                                            |
 * | int                             | number, or bigint where a number is not exact                    |
 * | float, complex                  | number, `{ re, im }`                                             |
 * | bytes, bytearray                | Uint8Array                                                       |
 * | list, tuple                     | array                                                            |
 * | set, frozenset                  | Set                                                              |
 * | dict, OrderedDict, defaultdict, Counter | object without prototype when all keys are strings, else Map     |
 * | numpy array, torch tensor       | Tensor (or {@link LazyTensor}) with its dtype, shape and strides |
 * | numpy array of str, bytes, objects | nested arrays                                                 |
 * | numpy scalar                    | as the Python value                                              |
 * | torch.Size, torch.device, torch.dtype | array, string, string                                      |
 *
 * One object in Python is one object here, also if it contains itself. As everywhere in JavaScript, an object lists keys such
 * as '7' before all others.
 */
export type PickleValue =
  | null
  | boolean
  | number
  | bigint
  | string
  | Complex
  | Uint8Array
  | Tensor
  | LazyTensor
  | PickleValue[]
  | Set<PickleValue>
  | Map<PickleValue, PickleValue>
  | { [key: string]: PickleValue }

export interface ResultOptions {
  readonly encoding: PickleEncoding
  /** Leave the numbers of tensors in the file. */
  readonly lazy?: boolean
  /** Return whether to load a tensor, by its keys from the root joined with dots. Others are left out. */
  readonly select?: ((name: string) => boolean) | undefined
  readonly device?: Device | undefined
  /** Dtype of floating-point tensors. */
  readonly dtype?: DType | undefined
  readonly mmap?: boolean | undefined
  /** Calls of the caller's code: their arguments are converted here, their results when they run. */
  readonly resolving?: Resolving | undefined
}

const SMALL_LIST = 16
const OMITTED = Symbol('omitted')

type Container = unknown[] | Set<unknown> | PyDict
type Put = (value: unknown) => void

interface Work {
  container: Container
  depth: number
  path: string
}

/**
 * Convert the machine's result to the caller's. Tensors belong to the current scope; they are listed, so that the scope need
 * not search for them in millions of lists.
 */
export async function finish(
  root: unknown,
  place: Place,
  options: ResultOptions,
): Promise<{ readonly value: PickleValue; tensors: Tensor[] }> {
  const result = new Result(place, options)
  await result.walk(root)
  await result.load()
  return {
    // The caller's code may replace the value when it runs.
    get value() {
      return result.root as PickleValue
    },
    tensors: result.tensors,
  }
}

class Result {
  root: unknown
  readonly tensors: Tensor[] = []
  private readonly work: Work[] = []
  private readonly visited = new Set<object>()
  /** Values that must be read from the file, and their destinations. */
  private readonly waiting = new Map<Payload | OldString | NumpyArray | TorchTensor, Put[]>()
  private readonly storages = new Map<TorchStorage, TorchTensor>()

  constructor(
    private readonly place: Place,
    private readonly options: ResultOptions,
  ) {}

  /** Visit all reachable values without recursion: a file may be nested deeper than the call stack. */
  async walk(root: unknown): Promise<void> {
    const settled = this.settle(root, 0, '', (late) => {
      this.root = late
    })
    this.root = settled === OMITTED ? null : settled
    for (const list of this.options.resolving?.held ?? []) this.later(list, 0, '')
    let until = performance.now() + 10
    for (let i = 1; this.work.length > 0; i += 1) {
      const { container, depth, path } = this.work.pop()!
      if (depth > DEEPEST) throw this.place.error(`it is nested deeper than ${DEEPEST} levels`)
      if (container instanceof PyDict) this.fillDict(container, depth + 1, path)
      else if (container instanceof Set) this.fillSet(container, depth + 1)
      else this.fillList(container, depth + 1, path)
      if (i % 1000 === 0 && !heapHolds()) throw this.place.error(tooMuch())
      if (i % 1000 === 0 && performance.now() > until) {
        await setImmediate()
        until = performance.now() + 10
      }
    }
  }

  private fillList(list: unknown[], depth: number, path: string): void {
    for (let i = 0; i < list.length; i += 1) {
      const value = list[i]
      if (typeof value !== 'object' || value === null) continue
      const settled = this.settle(value, depth, this.inside(path, i), (late) => {
        list[i] = late
      })
      list[i] = settled === OMITTED ? null : settled
    }
  }

  private fillDict(dict: PyDict, depth: number, path: string): void {
    const { result } = dict
    if (result instanceof Map && [...dict.keys()].some(isResolved)) return this.fillResolved(dict, result, depth)
    for (const [key, value] of dict) {
      const name = this.key(key, depth)
      const put: Put =
        result instanceof Map
          ? (late) => result.set(name, late)
          : (late) => {
              ;(result as Record<string, unknown>)[name as string] = late
            }
      const settled = this.settle(value, depth, this.inside(path, key), put)
      if (settled !== OMITTED) put(settled)
    }
  }

  private fillSet(set: Set<unknown>, depth: number): void {
    const items = [...set]
    for (const item of items) if (!isResolved(item)) this.key(item, depth)
    if (!items.some(isResolved)) return
    whenResolved(items, () => {
      set.clear()
      for (const item of items) set.add(item)
    })
  }

  /** Fill a dict whose keys come from the caller's code: in its order, once the last key is known. */
  private fillResolved(dict: PyDict, result: Map<unknown, unknown>, depth: number): void {
    const keys = [...dict.keys()]
    const values = [...dict.values()]
    let filled = false
    for (const [i, value] of values.entries()) {
      if (!isResolved(keys[i])) this.key(keys[i], depth)
      values[i] = this.settle(value, depth, '', (late) => {
        values[i] = late
        if (filled) result.set(keys[i], late)
      })
    }
    whenResolved(keys, () => {
      filled = true
      for (const [i, key] of keys.entries()) result.set(key, values[i])
    })
  }

  private inside(path: string, key: unknown): string {
    if (this.options.select === undefined || typeof key === 'object') return ''
    return path === '' ? String(key) : `${path}.${String(key)}`
  }

  /** Convert a dict's key or a set's item. */
  private key(value: unknown, depth: number): unknown {
    if (Array.isArray(value) || value instanceof Set) this.later(value, depth, '')
    else if (typeof value === 'object' && value !== null && !(value instanceof Uint8Array) && !('re' in value)) {
      throw this.unusable(value, ' as a key')
    }
    return value
  }

  private later(container: Container, depth: number, path: string): void {
    if (Array.isArray(container) && container.length <= SMALL_LIST && !container.some(isObject)) return
    if (this.visited.has(container)) return
    if (!mapMayGrow(this.visited.size) || !listMayGrow(this.work.length)) throw this.place.error(tooMuch())
    this.visited.add(container)
    this.work.push({ container, depth, path })
  }

  /** Convert a value. Values that must be read first are put in their place afterwards. */
  private settle(value: unknown, depth: number, path: string, put: Put): unknown {
    if (typeof value !== 'object' || value === null) return value
    if (value instanceof Resolved) return value.settle(put)
    if (Array.isArray(value) || value instanceof Set) {
      this.later(value, depth, path)
      return value
    }
    if (value instanceof PyDict) {
      if (value.result === undefined) {
        const named = onlyTexts(value.keys())
        value.result = named ? Object.create(null) : new Map()
        if (!listMayGrow(this.work.length)) throw this.place.error(tooMuch())
        this.work.push({ container: value, depth, path })
      }
      return value.result
    }
    if (value instanceof NumpyArray) return this.settleNumpy(value, depth, path, put)
    if (value instanceof TorchTensor) return this.settleTorch(value, path, put)
    if (value instanceof TorchStorage) return this.settleTorch(this.tensorOf(value), path, put)
    if (value instanceof Marker && value.value !== undefined) return value.value
    if (value instanceof NumpyDType && value.dtype !== undefined) return value.dtype
    if (value instanceof Payload || value instanceof OldString) return this.wait(value, put)
    if (value instanceof Marker || value instanceof Callable || value instanceof NumpyDType) throw this.unusable(value)
    return value
  }

  private wait(value: Payload | OldString | NumpyArray | TorchTensor, put: Put): null {
    const puts = this.waiting.get(value)
    if (puts === undefined ? !mapMayGrow(this.waiting.size) : !listMayGrow(puts.length)) {
      throw this.place.error(tooMuch())
    }
    if (puts === undefined) this.waiting.set(value, [put])
    else puts.push(put)
    return null
  }

  private settleNumpy(array: NumpyArray, depth: number, path: string, put: Put): unknown {
    if (array.result !== undefined) return array.result
    const { descr, data, shape, strides } = array
    if (descr === undefined) throw this.place.error('expected the contents of an array')
    if (descr.kind === 'O') {
      if (shape.length === 0) throw this.place.error('expected an array of objects with at least one dimension')
      array.result = nested(data as unknown[], shape, strides)
      this.later(array.result as unknown[], depth, path)
      return array.result
    }
    if (descr.kind === 'number') {
      if (this.options.select !== undefined && !this.options.select(path)) return OMITTED
      if (this.options.lazy === true) {
        array.result = new LazyTensor(descr.dtype!, shape, async () => {
          const read = async () => (await loadNumpy([array], this.place))[0]!
          return data instanceof Payload ? data.source.opened(read) : read()
        })
        return array.result
      }
    }
    return this.wait(array, put)
  }

  private settleTorch(tensor: TorchTensor, path: string, put: Put): unknown {
    const { select, lazy } = this.options
    if (select !== undefined && !select(path)) return OMITTED
    if (lazy !== true) return this.wait(tensor, put)
    tensor.result ??= new LazyTensor(tensor.dtype, tensor.shape, async () => {
      const { source } = await tensor.data.find()
      return source.opened(async () => (await loadTorchTensors([tensor], this.options)).get(tensor)!)
    })
    return tensor.result
  }

  private tensorOf(storage: TorchStorage): TorchTensor {
    let tensor = this.storages.get(storage)
    if (tensor === undefined) {
      tensor = storage.asTensor()
      this.storages.set(storage, tensor)
    }
    return tensor
  }

  private unusable(value: object, where = ''): Error {
    const name = value instanceof Marker || value instanceof Callable ? quoted(value.name) : 'an object'
    return this.place.error(`it has ${name}${where}, which is not data`, { global: name })
  }

  /** Read the pending values, in the order of the file. */
  async load(): Promise<void> {
    const settle = (key: Payload | OldString | NumpyArray | TorchTensor, value: unknown): void => {
      for (const put of this.waiting.get(key)!) put(value)
    }
    const tensors: TorchTensor[] = []
    const arrays: NumpyArray[] = []
    for (const item of this.waiting.keys()) {
      if (item instanceof TorchTensor) tensors.push(item)
      else if (!(item instanceof NumpyArray)) settle(item, await this.loadText(item))
      else if (item.descr!.kind === 'number') arrays.push(item)
      else settle(item, await this.loadTexts(item))
    }
    for (const [i, made] of (await loadNumpy(arrays, this.place, { release: true })).entries()) {
      this.tensors.push(made)
      settle(arrays[i]!, made)
    }
    for (const [tensor, made] of await loadTorchTensors(tensors, this.options)) {
      this.tensors.push(made)
      settle(tensor, made)
    }
  }

  /** Read an array of texts or bytes. */
  private async loadTexts({ descr, data, shape, strides }: NumpyArray): Promise<unknown> {
    const bytes = data instanceof Payload ? await this.bytesOf(data) : (data as Uint8Array)
    const count = shape.reduce((product, size) => product * size, 1)
    return nested(itemsOf(descr!, bytes, count, this.place), shape, strides)
  }

  private async loadText(item: Payload | OldString): Promise<unknown> {
    if (item instanceof Payload) {
      const bytes = await this.bytesOf(item)
      return item.form === 'utf8' ? this.text(bytes) : new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.length)
    }
    const bytes = item.bytes instanceof Payload ? await this.bytesOf(item.bytes) : Buffer.from(item.bytes)
    const { encoding } = this.options
    if (encoding === 'bytes') return new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.length)
    if (encoding === 'latin1') return bytes.toString('latin1')
    if (encoding === 'ascii' && bytes.every((byte) => byte < 128)) return bytes.toString('latin1')
    if (encoding === 'utf-8') return this.text(bytes)
    throw this.place.error(
      `byte ${item.byte} of the pickle: it has a Python 2 string that is not ASCII; ` +
        "set { encoding: 'latin1' }, 'utf-8' or 'bytes' for such strings",
      { byte: item.byte },
    )
  }

  private text(bytes: Buffer): string {
    const text = bytes.length > constants.MAX_STRING_LENGTH ? undefined : decodeUtf8(bytes)
    if (text === undefined)
      throw this.place.error(`it has a text of ${bytes.length} bytes that is not UTF-8 or too long`)
    return text
  }

  private async bytesOf(payload: Payload): Promise<Buffer> {
    if (payload.length > constants.MAX_LENGTH) {
      throw this.place.error(`it has ${payload.length} bytes in one object, more than JavaScript can hold in one`)
    }
    const bytes = await payload.source.bytes(payload.offset, payload.length)
    if (payload.form !== 'latin1') return bytes
    const decoded = encodeLatin1(this.text(bytes))
    if (decoded === undefined) throw this.place.error('expected bytes written as latin1 text, got other characters')
    return decoded
  }
}

function onlyTexts(keys: Iterable<unknown>): boolean {
  for (const key of keys) if (typeof key !== 'string') return false
  return true
}

const isResolved = (value: unknown): value is Resolved => value instanceof Resolved

/** Put the results of the caller's code into a list, and call `done` after the last. */
function whenResolved(list: unknown[], done: () => void): void {
  let open = 1
  const close = (): void => {
    open -= 1
    if (open === 0) done()
  }
  for (const [i, item] of list.entries()) {
    if (!isResolved(item)) continue
    open += 1
    const put = (value: unknown): void => {
      list[i] = value
      close()
    }
    if (item.known) put(item.value)
    else item.settle(put)
  }
  close()
}

const isObject = (value: unknown): boolean => typeof value === 'object' && value !== null

/** Return items as nested lists. */
function nested(items: readonly unknown[], shape: readonly number[], strides: readonly number[]): unknown {
  const at = (dim: number, offset: number): unknown =>
    dim === shape.length
      ? items[offset]
      : Array.from({ length: shape[dim]! }, (_, i) => at(dim + 1, offset + i * strides[dim]!))
  return at(0, 0)
}
