import { argumentError, shown } from '../../base/check.js'
import { CheckpointError, ConfigError, DTypeError } from '../../base/errors.js'
import { opAsync } from '../../native/call.js'
import { isOptions } from '../../native/encode.js'
import { dtypeFacts } from '../../tensor/dtype.js'
import { scope, Tensor } from '../../tensor/index.js'
import { bytePart, placeBytes, requirePath, writeFileParts } from '../file-tensors.js'
import { type WrittenEntry, zipDirectory, zipHead } from '../zip/writer.js'

/** Value for {@link save}: tensors, plain values, and lists, sets, maps and plain objects of them. */
export type TorchValue =
  | null
  | boolean
  | number
  | bigint
  | string
  | Uint8Array
  | Tensor
  | readonly TorchValue[]
  | ReadonlySet<TorchValue>
  | ReadonlyMap<TorchValue, TorchValue>
  | { readonly [key: string]: TorchValue }

const DEEPEST = 1000
const LONGEST_INTEGER = 2n ** 1024n

/** A pickle of protocol 2, which torch.load reads with `weights_only`. */
class PickleWriter {
  readonly tensors: Tensor[] = []
  readonly #parts: Buffer[] = [Buffer.from([0x80, 2])]
  /** Containers that are open: one that contains itself cannot be written. */
  readonly #open = new Set<object>()

  bytes(): Buffer {
    return Buffer.concat([...this.#parts, Buffer.from('.')])
  }

  put(value: unknown, path: string): void {
    if (value === null || value === undefined) return this.#code('N')
    if (typeof value === 'boolean') return this.#code(value ? '\x88' : '\x89')
    if (typeof value === 'number') return this.#number(value)
    if (typeof value === 'bigint') return this.#integer(value, path)
    if (typeof value === 'string') {
      if (/\p{Surrogate}/u.test(value))
        throw argumentError('save', path, 'text of whole characters', value.slice(0, 100))
      return this.#text(value)
    }
    if (value instanceof Tensor) return this.#tensor(value, path)
    if (value instanceof Uint8Array) return this.#bytes(value)
    if (typeof value !== 'object') throw argumentError('save', path, 'tensors and plain values', value)
    if (this.#open.has(value) || this.#open.size >= DEEPEST) {
      throw new ConfigError(`save: expected ${path} not to contain itself, and at most ${DEEPEST} levels`, {})
    }
    this.#open.add(value)
    this.#container(value, path)
    this.#open.delete(value)
  }

  #container(value: object, path: string): void {
    if (Array.isArray(value)) {
      this.#code('](')
      for (let i = 0; i < value.length; i += 1) this.put(value[i], `${path}[${i}]`)
      return this.#code('e')
    }
    if (value instanceof Set) {
      this.#code('cbuiltins\nset\n](')
      for (const item of value) this.put(item, `an element of ${path}`)
      return this.#code('e\x85R')
    }
    if (!(value instanceof Map) && !isOptions(value))
      throw argumentError('save', path, 'tensors and plain values', value)
    this.#code('}(')
    for (const [key, item] of value instanceof Map ? value : Object.entries(value)) {
      this.put(key, `a key of ${path}`)
      this.put(item, `${path}.${typeof key === 'string' ? key.slice(0, 100) : shown(key)}`)
    }
    this.#code('u')
  }

  #code(codes: string): void {
    this.#parts.push(Buffer.from(codes, 'latin1'))
  }

  #number(value: number): void {
    if (Number.isSafeInteger(value) && !Object.is(value, -0)) return this.#integer(BigInt(value), '')
    const bytes = Buffer.alloc(9, 'G')
    bytes.writeDoubleBE(value, 1)
    this.#parts.push(bytes)
  }

  #integer(value: bigint, path: string): void {
    if (value >= -(2n ** 31n) && value < 2n ** 31n) {
      const bytes = Buffer.alloc(5, 'J')
      bytes.writeInt32LE(Number(value), 1)
      this.#parts.push(bytes)
      return
    }
    if (value >= LONGEST_INTEGER || value <= -LONGEST_INTEGER)
      throw argumentError('save', path, 'integers of at most 1024 bits', value)
    const digits: number[] = []
    let rest = value
    // Two's complement, until the rest is the sign that the last byte already has.
    do {
      digits.push(Number(BigInt.asUintN(8, rest)))
      rest >>= 8n
    } while (rest !== (digits.at(-1)! >= 128 ? -1n : 0n))
    this.#parts.push(Buffer.from([0x8a, digits.length, ...digits]))
  }

  #text(value: string): void {
    const text = Buffer.from(value)
    const head = Buffer.alloc(5, 'X')
    head.writeUInt32LE(text.length, 1)
    this.#parts.push(head, text)
  }

  /** Protocol 2 has no bytes: Python writes a call of `_codecs.encode`. */
  #bytes(value: Uint8Array): void {
    this.#code('c_codecs\nencode\n')
    this.#text(Buffer.from(value).toString('latin1'))
    this.#text('latin1')
    this.#code('\x86R')
  }

  #tensor(value: Tensor, path: string): void {
    const { dtype, shape, device } = value
    const { storage } = dtypeFacts(dtype)
    if (storage === undefined) {
      throw new DTypeError(
        `save: expected a dtype with a storage class in torch for ${path}, got ${dtype}. Convert it first`,
        {
          dtype,
        },
      )
    }
    if (device === 'meta')
      throw new ConfigError(`save: expected a tensor with memory for ${path}, got one on 'meta'`, {})
    this.#code('ctorch._utils\n_rebuild_tensor_v2\n((')
    this.#text('storage')
    this.#code(`ctorch\n${storage}\n`)
    this.#text(String(this.tensors.length))
    this.#text('cpu')
    this.#number(value.numel())
    this.#code('tQ')
    this.#number(0)
    let stride = 1
    const strides = shape.map(() => 0)
    for (let dim = shape.length - 1; dim >= 0; dim--) {
      strides[dim] = stride
      stride *= Math.max(1, shape[dim]!)
    }
    for (const list of [shape, strides]) {
      this.#code('(')
      for (const size of list) this.#number(size)
      this.#code('t')
    }
    this.#code(value.requiresGrad ? '\x88' : '\x89')
    this.#code('ccollections\nOrderedDict\n)RtR')
    this.tensors.push(value)
  }
}

const crc32 = opAsync('voxtorch::crc32')

/**
 * Write a file that `torch.load` in Python and `load` read: the zip format of torch.save. `value` is a tensor, a state dict,
 * or any nesting of lists, sets, maps and plain objects with tensors, numbers, texts and bytes. An object becomes a dict, and
 * an integer an int.
 *
 * Each tensor is written by itself, contiguous and on the CPU: tensors that share memory, and objects that occur twice, do not
 * share it in the file. Modules and optimizers are not written: pass their `stateDict()`.
 *
 * @throws ConfigError that names the place of a value of another type, or that contains itself; DTypeError for a dtype
 *   without a storage class in torch, such as float8_e4m3fn
 */
export async function save(value: TorchValue, path: string): Promise<void> {
  requirePath('save', 'path', path)
  const writer = new PickleWriter()
  writer.put(value, 'value')
  await scope(async () => {
    const parts: Tensor[] = []
    const entries: WrittenEntry[] = []
    let offset = 0
    const add = async (name: string, content: Tensor) => {
      const entry = {
        name: `archive/${name}`,
        size: placeBytes(content),
        crc: (await crc32([content])) as number,
        offset,
      }
      const head = zipHead(entry)
      parts.push(bytePart(head), content)
      entries.push(entry)
      offset += head.length + entry.size
    }
    await add('data.pkl', bytePart(writer.bytes()))
    await add('byteorder', bytePart(Buffer.from('little')))
    for (const [i, tensor] of writer.tensors.entries()) await add(`data/${i}`, tensor.detach())
    await add('version', bytePart(Buffer.from('3\n')))
    parts.push(bytePart(zipDirectory(entries, offset)))
    await writeFileParts(path, parts, CheckpointError)
  })
}
