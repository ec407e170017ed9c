import type { Random } from '../fuzz/random.js'

/** What pickleparser 0.2.1 reads wrongly, by the instruction: pickleparser.test.ts shows each. */
export type Fault =
  | 'LONG1 of a negative int'
  | 'LONG1 beyond 2^53'
  | 'LONG4'
  | 'decimal int beyond 2^53'
  | 'FLOAT that is infinite'
  | 'STRING with escapes'
  | 'UNICODE with escapes'
  | 'BINSTRING of latin1'
  | 'text that begins with a byte order mark'
  | 'text with a single surrogate'
  | 'DICT'
  | 'OBJ'
  | 'POP of a mark'
  | 'state of __slots__'

/** A value in words that tell an int from a bigint and do not depend on the order of sets and dicts. */
export type Canonical = string | Canonical[] | { [kind: string]: Canonical }

export function canonical(value: unknown): Canonical {
  if (value === null || typeof value === 'boolean' || value === undefined) return String(value)
  if (typeof value === 'number') return Object.is(value, -0) ? 'number -0' : `number ${value}`
  if (typeof value === 'bigint') return `bigint ${value}`
  if (typeof value === 'string') return `text ${JSON.stringify(value)}`
  if (value instanceof Uint8Array) return `bytes ${Buffer.from(value).toString('hex')}`
  if (Array.isArray(value)) return value.map(canonical)
  if (value instanceof Set) return { set: sorted([...value].map(canonical)) }
  const entries = value instanceof Map ? [...value] : Object.entries(value as object)
  const prototype = Object.getPrototypeOf(value)
  const isDict = value instanceof Map || prototype === null || prototype === Object.prototype
  return {
    [isDict ? 'dict' : (value as object).constructor.name]: sorted(
      entries.map(([key, item]) => [canonical(key), canonical(item)]),
    ),
  }
}

const sorted = (list: Canonical[]): Canonical[] =>
  list.sort((a, b) => (JSON.stringify(a) < JSON.stringify(b) ? -1 : JSON.stringify(a) > JSON.stringify(b) ? 1 : 0))

/** A class and a function that pickles of this writer name. */
export class Point {
  x: unknown
  y: unknown
  constructor(x?: unknown, y?: unknown) {
    this.x = x
    this.y = y
  }
}
export const pair = (one: unknown, other: unknown): unknown => ({ pair: [one, other] })

export interface Written {
  file: Buffer
  value: Canonical
  faults: Set<Fault>
  /** Whether it names {@link Point} or {@link pair}. */
  calls: boolean
}

type Item = { bytes: Buffer; value: unknown }

/** A random pickle of a protocol, with any of the instructions that the protocol has, those that CPython never writes too. */
export function randomPickle(random: Random, protocol: number): Written {
  const writer = new Writer(random, protocol)
  const { bytes, value } = writer.item(4)
  const head = protocol >= 2 ? Buffer.of(0x80, protocol) : Buffer.alloc(0)
  const frame = Buffer.alloc(9)
  frame[0] = 0x95
  frame.writeBigUInt64LE(BigInt(bytes.length + 1), 1)
  const file = Buffer.concat([head, protocol >= 4 ? frame : Buffer.alloc(0), bytes, Buffer.from('.')])
  return { file, value: canonical(value), faults: writer.faults, calls: writer.calls }
}

const latin1 = (text: string): Buffer => Buffer.from(text, 'latin1')

function uint(value: number, width: number): Buffer {
  const bytes = Buffer.alloc(width)
  if (width === 8) bytes.writeBigUInt64LE(BigInt(value))
  else bytes.writeUIntLE(value, 0, width)
  return bytes
}

const LETTERS = ['', 'a', 'word', 'é', '日本', '😀', 'x y', '-', '\u{10ffff}', 'Zürich']
const ODD_LETTERS = ['\n', '\\', 'tab\t', "'", '"', '\x7f', '\0', 'line\nbreak\\u0041']

class Writer {
  readonly faults = new Set<Fault>()
  calls = false
  private readonly memo: { index: number; value: unknown }[] = []
  private memoized = 0

  constructor(
    private readonly random: Random,
    private readonly protocol: number,
  ) {}

  item(depth: number): Item {
    const { random } = this
    if (this.memo.length > 0 && random.chance(0.1)) {
      const { index, value } = random.pick(this.memo)
      return { bytes: this.get(index), value }
    }
    const made = this.fresh(depth)
    if (random.chance(0.1)) return { bytes: this.discarding(made.bytes), value: made.value }
    if (!random.chance(0.3)) return made
    const bytes = Buffer.concat([made.bytes, this.put()])
    this.memo.push({ index: this.memoized - 1, value: made.value })
    return { bytes, value: made.value }
  }

  /** The same, with something on the stack that is taken away again. */
  private discarding(bytes: Buffer): Buffer {
    const { random } = this
    if (this.protocol > 0 && random.chance(0.4)) return Buffer.concat([bytes, latin1('(NN1')])
    if (random.chance(0.4)) return Buffer.concat([bytes, latin1('20')])
    if (random.chance(0.7)) return Buffer.concat([bytes, latin1('N0')])
    this.faults.add('POP of a mark')
    return Buffer.concat([bytes, latin1('(0')])
  }

  private put(): Buffer {
    const index = this.memoized
    this.memoized += 1
    if (this.protocol >= 4 && this.random.chance(0.6)) return Buffer.of(0x94)
    if (this.protocol === 0 || this.random.chance(0.2)) return latin1(`p${index}\n`)
    if (index < 256 && this.random.chance(0.7)) return Buffer.of(0x71, index)
    return Buffer.concat([latin1('r'), uint(index, 4)])
  }

  private get(index: number): Buffer {
    if (this.protocol === 0 || this.random.chance(0.2)) return latin1(`g${index}\n`)
    if (index < 256 && this.random.chance(0.7)) return Buffer.of(0x68, index)
    return Buffer.concat([latin1('j'), uint(index, 4)])
  }

  private fresh(depth: number): Item {
    const { random } = this
    const kinds = ['constant', 'int', 'int', 'float', 'text', 'text', 'bytes']
    if (depth > 0) kinds.push('list', 'list', 'tuple', 'tuple', 'dict', 'dict', 'set', 'call')
    switch (random.pick(kinds)) {
      case 'constant':
        return this.constant()
      case 'int':
        return this.int()
      case 'float':
        return this.float()
      case 'text':
        return this.text()
      case 'bytes':
        return this.bytes()
      case 'list':
        return this.list(depth)
      case 'tuple':
        return this.tuple(depth)
      case 'dict':
        return this.dict(depth)
      case 'set':
        return this.set()
      default:
        return this.call(depth)
    }
  }

  private constant(): Item {
    const value = this.random.pick([null, true, false])
    if (value === null) return { bytes: latin1('N'), value }
    if (this.protocol >= 2) return { bytes: Buffer.of(value ? 0x88 : 0x89), value }
    return { bytes: latin1(value ? 'I01\n' : 'I00\n'), value }
  }

  private int(): Item {
    const { random, protocol } = this
    const bits = random.pick([7, 8, 15, 16, 31, 40, 53, 54, 63, 64, 90])
    const size = BigInt(Math.floor(random.next() * 2 ** 30)) ** 3n % 2n ** BigInt(bits)
    const exact = random.chance(0.4) ? -size : size
    const value = Number.isSafeInteger(Number(exact)) ? Number(exact) : exact
    const ways: (() => Buffer)[] = [() => this.decimal(exact)]
    if (protocol >= 1) {
      if (exact >= 0n && exact < 256n) ways.push(() => Buffer.of(0x4b, Number(exact)))
      if (exact >= 0n && exact < 65536n) ways.push(() => Buffer.concat([latin1('M'), uint(Number(exact), 2)]))
      if (exact >= -(2n ** 31n) && exact < 2n ** 31n) {
        ways.push(() => {
          const bytes = Buffer.alloc(5, 'J')
          bytes.writeInt32LE(Number(exact), 1)
          return bytes
        })
      }
    }
    if (protocol >= 2) ways.push(() => this.long(exact))
    return { bytes: random.pick(ways)(), value }
  }

  private decimal(value: bigint): Buffer {
    if (!Number.isSafeInteger(Number(value))) this.faults.add('decimal int beyond 2^53')
    if (value === 0n || value === 1n) return latin1(`L${value}L\n`)
    return latin1(this.random.chance(0.5) ? `I${value}\n` : `L${value}${this.random.chance(0.5) ? 'L' : ''}\n`)
  }

  private long(value: bigint): Buffer {
    let width = 0
    while (BigInt.asIntN(8 * width, value) !== value) width += 1
    const bytes = Buffer.from(
      BigInt.asUintN(8 * width, value)
        .toString(16)
        .padStart(2 * width, '0'),
      'hex',
    ).reverse()
    if (this.random.chance(0.3)) {
      this.faults.add('LONG4')
      return Buffer.concat([Buffer.of(0x8b), uint(width, 4), bytes.subarray(0, width)])
    }
    if (value < 0n) this.faults.add('LONG1 of a negative int')
    else if (!Number.isSafeInteger(Number(value))) this.faults.add('LONG1 beyond 2^53')
    return Buffer.concat([Buffer.of(0x8a, width), bytes.subarray(0, width)])
  }

  private float(): Item {
    const value = this.random.pick([0.5, -0, 1e300, 5e-324, Number.POSITIVE_INFINITY, this.random.next() * 100 - 50])
    if (this.protocol >= 1 && this.random.chance(0.8)) {
      const bytes = Buffer.alloc(9, 'G')
      bytes.writeDoubleBE(value, 1)
      return { bytes, value }
    }
    if (value === Number.POSITIVE_INFINITY) this.faults.add('FLOAT that is infinite')
    const text = Object.is(value, -0) ? '-0.0' : value === Number.POSITIVE_INFINITY ? 'inf' : String(value)
    return { bytes: latin1(`F${text}\n`), value }
  }

  private letters(list: readonly string[]): string {
    return Array.from({ length: this.random.below(4) }, () => this.random.pick(list)).join('')
  }

  private text(): Item {
    const { random, protocol } = this
    let value = this.letters(random.chance(0.3) ? [...LETTERS, ...ODD_LETTERS] : LETTERS)
    if (random.chance(0.2)) return this.oldString()
    if (protocol === 0 || random.chance(0.1)) {
      const escaped = value.replace(
        /[^\x20-\x5b\x5d-\x7e]/gu,
        (letter) => `\\U${letter.codePointAt(0)!.toString(16).padStart(8, '0')}`,
      )
      if (escaped !== value) this.faults.add('UNICODE with escapes')
      return { bytes: latin1(`V${escaped}\n`), value }
    }
    if (random.chance(0.05)) {
      this.faults.add('text that begins with a byte order mark')
      value = `\ufeff${value}`
    }
    let body = Buffer.from(value)
    if (random.chance(0.05)) {
      this.faults.add('text with a single surrogate')
      value += '\ud800'
      body = Buffer.concat([body, Buffer.of(0xed, 0xa0, 0x80)])
    }
    if (protocol >= 4 && random.chance(0.7))
      return { bytes: Buffer.concat([Buffer.of(0x8c, body.length), body]), value }
    if (protocol >= 4 && random.chance(0.3)) {
      return { bytes: Buffer.concat([Buffer.of(0x8d), uint(body.length, 8), body]), value }
    }
    return { bytes: Buffer.concat([latin1('X'), uint(body.length, 4), body]), value }
  }

  /** A `str` of Python 2, to be read as latin1. */
  private oldString(): Item {
    const { random, protocol } = this
    const value = random.pick(['', 'plain', 'two words', 'é', 'x\x92', '\0'])
    const body = latin1(value)
    if (protocol === 0 || random.chance(0.2)) {
      const escaped = value.replace(
        /[^\x20-\x7e]/g,
        (letter) => `\\x${letter.charCodeAt(0).toString(16).padStart(2, '0')}`,
      )
      if (escaped !== value) this.faults.add('STRING with escapes')
      return { bytes: latin1(`S'${escaped}'\n`), value }
    }
    if (value.includes('\x92')) this.faults.add('BINSTRING of latin1')
    if (random.chance(0.5)) return { bytes: Buffer.concat([Buffer.of(0x55, body.length), body]), value }
    return { bytes: Buffer.concat([latin1('T'), uint(body.length, 4), body]), value }
  }

  private bytes(): Item {
    const { random, protocol } = this
    const value = new Uint8Array(Array.from({ length: random.below(6) }, () => random.below(256)))
    if (protocol < 3) {
      // As Python writes them: a text with a character for each byte, and its encoding.
      const text = latin1(
        Buffer.from(value)
          .toString('latin1')
          .replace(/[^a-z]/g, 'q'),
      )
      const written = text.toString('latin1')
      const head = `c_codecs\nencode\n(V${written}\nVlatin1\ntR`
      return { bytes: latin1(head), value: new Uint8Array(text) }
    }
    if (protocol >= 5 && random.chance(0.3)) {
      return { bytes: Buffer.concat([Buffer.of(0x96), uint(value.length, 8), value]), value }
    }
    if (protocol >= 4 && random.chance(0.3)) {
      return { bytes: Buffer.concat([Buffer.of(0x8e), uint(value.length, 8), value]), value }
    }
    if (random.chance(0.5)) return { bytes: Buffer.concat([latin1('C'), Buffer.of(value.length), value]), value }
    return { bytes: Buffer.concat([latin1('B'), uint(value.length, 4), value]), value }
  }

  private items(depth: number): Item[] {
    return Array.from({ length: this.random.below(5) }, () => this.item(depth - 1))
  }

  private list(depth: number): Item {
    const { random, protocol } = this
    const items = this.items(depth)
    const value = items.map((item) => item.value)
    const parts = items.map((item) => item.bytes)
    if (random.chance(0.2)) return { bytes: Buffer.concat([latin1('('), ...parts, latin1('l')]), value }
    const empty = protocol >= 1 ? latin1(']') : latin1('(l')
    if (protocol >= 1 && random.chance(0.6)) {
      return { bytes: Buffer.concat([empty, latin1('('), ...parts, latin1('e')]), value }
    }
    return { bytes: Buffer.concat([empty, ...parts.flatMap((part) => [part, latin1('a')])]), value }
  }

  private tuple(depth: number): Item {
    const items = this.items(depth)
    const value = items.map((item) => item.value)
    const parts = items.map((item) => item.bytes)
    if (this.protocol >= 1 && items.length === 0) return { bytes: latin1(')'), value }
    if (this.protocol >= 2 && items.length >= 1 && items.length <= 3) {
      return { bytes: Buffer.concat([...parts, Buffer.of(0x84 + items.length)]), value }
    }
    return { bytes: Buffer.concat([latin1('('), ...parts, latin1('t')]), value }
  }

  private dict(depth: number): Item {
    const { random, protocol } = this
    const value = new Map<unknown, unknown>()
    const parts: Buffer[][] = []
    for (const { bytes, value: item } of this.items(depth)) {
      const key = random.chance(0.7) ? `key ${parts.length}` : parts.length + 2
      value.set(key, item)
      parts.push([latin1(typeof key === 'string' ? `V${key}\n` : `I${key}\n`), bytes])
    }
    if (random.chance(0.1)) {
      // An empty one is read as it is meant.
      if (parts.length > 0) this.faults.add('DICT')
      return { bytes: Buffer.concat([latin1('('), ...parts.flat(), latin1('d')]), value }
    }
    const empty = protocol >= 1 ? latin1('}') : latin1('(d')
    if (protocol >= 1 && random.chance(0.6)) {
      return { bytes: Buffer.concat([empty, latin1('('), ...parts.flat(), latin1('u')]), value }
    }
    return { bytes: Buffer.concat([empty, ...parts.flatMap((part) => [...part, latin1('s')])]), value }
  }

  private set(): Item {
    const { random, protocol } = this
    const value = new Set(Array.from({ length: random.below(4) }, (_, i) => (random.chance(0.5) ? `item ${i}` : i + 2)))
    const items = [...value].map((item) => latin1(typeof item === 'string' ? `V${item}\n` : `I${item}\n`))
    const frozen = random.chance(0.5)
    if (protocol >= 4 && frozen) return { bytes: Buffer.concat([latin1('('), ...items, Buffer.of(0x91)]), value }
    if (protocol >= 4) {
      return { bytes: Buffer.concat([Buffer.of(0x8f), latin1('('), ...items, Buffer.of(0x90)]), value }
    }
    const name = latin1(`c__builtin__\n${frozen ? 'frozenset' : 'set'}\n`)
    return { bytes: Buffer.concat([name, latin1('(('), ...items, latin1('ltR')]), value }
  }

  private name(name: string): Buffer {
    if (this.protocol < 4 || this.random.chance(0.2)) return latin1(`capp.shapes\n${name}\n`)
    return Buffer.concat([latin1('\x8c\x0aapp.shapes\x8c'), Buffer.of(name.length), latin1(name), Buffer.of(0x93)])
  }

  /** An instance of a class, or what a function gives. */
  private call(depth: number): Item {
    const { random, protocol } = this
    this.calls = true
    const [one, other] = [this.item(depth - 1), this.item(depth - 1)]
    const args = Buffer.concat([latin1('('), one.bytes, other.bytes, latin1('t')])
    if (random.chance(0.4)) {
      return {
        bytes: Buffer.concat([this.name('pair'), args, latin1('R')]),
        value: pair(one.value, other.value),
      }
    }
    const value = new Point(one.value, other.value)
    if (random.chance(0.3)) {
      return { bytes: Buffer.concat([latin1('('), one.bytes, other.bytes, latin1('iapp.shapes\nPoint\n')]), value }
    }
    if (protocol >= 1 && random.chance(0.2)) {
      this.faults.add('OBJ')
      return { bytes: Buffer.concat([latin1('('), this.name('Point'), one.bytes, other.bytes, latin1('o')]), value }
    }
    if (protocol < 2) {
      return { bytes: Buffer.concat([latin1('('), one.bytes, other.bytes, latin1('iapp.shapes\nPoint\n')]), value }
    }
    if (random.chance(0.5)) return { bytes: Buffer.concat([this.name('Point'), args, Buffer.of(0x81)]), value }
    const fields = (name: string, { bytes }: Item) => Buffer.concat([latin1(`}V${name}\n`), bytes, latin1('s')])
    const state = Buffer.concat([fields('x', one), latin1('Vy\n'), other.bytes, latin1('s')])
    const made = Buffer.concat([this.name('Point'), Buffer.of(0x29, 0x81)])
    if (random.chance(0.7)) return { bytes: Buffer.concat([made, state, latin1('b')]), value }
    this.faults.add('state of __slots__')
    return { bytes: Buffer.concat([made, fields('x', one), fields('y', other), Buffer.of(0x86), latin1('b')]), value }
  }
}
