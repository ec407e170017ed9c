import { setImmediate } from 'node:timers/promises'
import type { VoxtorchError } from '../../base/errors.js'
import { heapHolds, listMayGrow, mapMayGrow, tooMuch } from '../../base/heap.js'
import { type Place, quoted } from '../byte-source.js'
import { build, call, globalOf, nameOf } from './calls.js'
import { type Feed, Payload, truncated } from './feed.js'
import { Buildable, type Callable, DEEPEST, type Marker, OldString, PyDict, type Site } from './objects.js'
import { Resolved, type Resolving } from './resolvers.js'
import { Stack } from './stack.js'
import {
  decodeRawUnicodeEscape,
  decodeStringEscape,
  decodeUtf8,
  littleEndianInteger,
  parseFloatText,
  parseInteger,
} from './text.js'

/** Encoding of a `str` of Python 2: a text encoding, or bytes. */
export type PickleEncoding = 'ascii' | 'latin1' | 'utf-8' | 'bytes'

export interface Host {
  /** Return the meaning of a global name; undefined if it is not allowed. */
  global(module: string, name: string): Callable | Marker | Resolved | undefined
  /** Return the object for a persistent id. Without this method such ids are rejected. */
  persistent?(id: unknown, site: Site): unknown
  /** Resolvers of the caller. */
  readonly resolving?: Resolving | undefined
  readonly encoding: PickleEncoding
  /** Advice for a name that is not allowed. */
  readonly advice?: string
}

// Longer payloads stay in the file.
const LONG_PAYLOAD = 1 << 16
const LONGEST_TEXT = 2 ** 29 - 24
const LONGEST_INTEGER = 1 << 20
// Number of operations after which the thread yields.
const SLICE_OPERATIONS = 20_000
const SLICE_MILLISECONDS = 10

const STOPPED = Symbol('stopped')
const PAUSE = Symbol('pause')
/** Requests of the synchronous part: the end, a pause, a wider window, or an asynchronous step. */
type Request = typeof STOPPED | typeof PAUSE | number | (() => Promise<void>)

/**
 * A machine for pickles of protocols 0 to 5 (https://github.com/python/cpython/blob/3.13/Lib/pickletools.py). It builds what
 * CPython builds, from plain data and an allow-list of names.
 *
 * It replaces the npm package pickleparser, whose resolver interfaces it uses. Version 0.2.1 of that package reads ints without
 * their sign, builds from DICT what a Map cannot hold, keeps the escapes of protocol 0, lets a key `__proto__` replace an
 * object's prototype, and reads a whole file into one Buffer. test/files/pickleparser.test.ts demonstrates each fault.
 */
export class Machine implements Site {
  private readonly stack: Stack
  private readonly depths = new WeakMap<object, number>()
  private charged = 0

  constructor(
    private readonly feed: Feed,
    private readonly host: Host,
  ) {
    this.stack = new Stack(this)
  }

  /** Read one pickle and leave the feed after it. */
  async run(): Promise<unknown> {
    let until = performance.now() + SLICE_MILLISECONDS
    for (;;) {
      if (!heapHolds()) throw this.error(tooMuch())
      const request = this.step(until)
      if (request === STOPPED) return this.stack.pop()
      // Await at once: the request may fail before a later handler is attached.
      if (typeof request === 'function') await request()
      else if (typeof request === 'number') await this.feed.fill(request)
      if (performance.now() > until) {
        await setImmediate()
        until = performance.now() + SLICE_MILLISECONDS
      }
    }
  }

  error(what: string, fields: Record<string, unknown> = {}): VoxtorchError {
    const { position } = this.feed
    return this.feed.place.error(`byte ${position} of the pickle: ${what}`, { byte: position, ...fields })
  }

  charge(amount: number): void {
    this.charged += amount
    if (this.charged > 4 * this.feed.position + (1 << 20)) {
      throw this.error('it refers to the same data too often, which would fill the memory')
    }
  }

  get place(): Place {
    return this.feed.place
  }

  get position(): number {
    return this.feed.position
  }

  /** Run until the pickle stops or must wait. */
  private step(until: number): Request {
    const { feed } = this
    let left = SLICE_OPERATIONS
    for (;;) {
      if (feed.at + 9 > feed.end) {
        if (!feed.finished) return 9
        if (feed.at >= feed.end) throw truncated(feed.place, feed.position, 1, 0)
      }
      left -= 1
      if (left === 0) {
        if (!heapHolds()) throw this.error(tooMuch())
        if (performance.now() > until) return PAUSE
        left = SLICE_OPERATIONS
      }
      const request = this.operation(feed.buffer[feed.at]!)
      if (request !== undefined) return request
    }
  }

  private operation(code: number): Request | undefined {
    const { feed } = this
    const { buffer, at } = feed
    const argument = at + 1
    switch (code) {
      case 0x80: // PROTO
        this.need(1)
        if (buffer[argument]! > 5) throw this.error(`it is of protocol ${buffer[argument]}, the newest known is 5`)
        return this.skip(1)
      case 0x95: // FRAME
        this.need(8)
        if (buffer.readBigUInt64LE(argument) > BigInt(Number.MAX_SAFE_INTEGER)) {
          throw this.error(`it claims a frame of ${buffer.readBigUInt64LE(argument)} bytes`)
        }
        return this.skip(8)
      case 0x2e: // STOP
        this.skip(0)
        if (this.stack.isEmpty()) throw this.error('it stops with nothing on the stack')
        return STOPPED
      case 0x28: // MARK
        this.stack.mark()
        return this.skip(0)
      case 0x30: // POP
        this.stack.popItemOrMark()
        return this.skip(0)
      case 0x31: // POP_MARK
        this.stack.popMark()
        return this.skip(0)
      case 0x32: // DUP
        this.stack.push(this.stack.top())
        return this.skip(0)
      case 0x4e: // NONE
        return this.made(0, null)
      case 0x88: // NEWTRUE
        return this.made(0, true)
      case 0x89: // NEWFALSE
        return this.made(0, false)
      case 0x4b: // BININT1
        this.need(1)
        return this.made(1, buffer[argument]!)
      case 0x4d: // BININT2
        this.need(2)
        return this.made(2, buffer.readUInt16LE(argument))
      case 0x4a: // BININT
        this.need(4)
        return this.made(4, buffer.readInt32LE(argument))
      case 0x47: // BINFLOAT
        this.need(8)
        return this.made(8, buffer.readDoubleBE(argument))
      case 0x8a: // LONG1
        this.need(1)
        return this.long(1, buffer[argument]!)
      case 0x8b: // LONG4
        this.need(4)
        return this.long(4, buffer.readInt32LE(argument))
      case 0x49: // INT
      case 0x4c: // LONG
      case 0x46: // FLOAT
      case 0x53: // STRING
      case 0x56: // UNICODE
      case 0x50: // PERSID
      case 0x67: // GET
      case 0x70: // PUT
        return this.line(code)
      case 0x63: // GLOBAL
      case 0x69: // INST
        return this.twoLines(code)
      case 0x8c: // SHORT_BINUNICODE
        this.need(1)
        return this.sized('text', 1, buffer[argument]!)
      case 0x58: // BINUNICODE
        this.need(4)
        return this.sized('text', 4, buffer.readUInt32LE(argument))
      case 0x8d: // BINUNICODE8
        this.need(8)
        return this.sized('text', 8, Number(buffer.readBigUInt64LE(argument)))
      case 0x43: // SHORT_BINBYTES
        this.need(1)
        return this.sized('bytes', 1, buffer[argument]!)
      case 0x42: // BINBYTES
        this.need(4)
        return this.sized('bytes', 4, buffer.readUInt32LE(argument))
      case 0x8e: // BINBYTES8
      case 0x96: // BYTEARRAY8
        this.need(8)
        return this.sized('bytes', 8, Number(buffer.readBigUInt64LE(argument)))
      case 0x55: // SHORT_BINSTRING
        this.need(1)
        return this.sized('old', 1, buffer[argument]!)
      case 0x54: // BINSTRING
        this.need(4)
        if (buffer.readInt32LE(argument) < 0) throw this.error('it has a string of negative length')
        return this.sized('old', 4, buffer.readInt32LE(argument))
      case 0x71: // BINPUT
        this.need(1)
        this.stack.remember(buffer[argument]!)
        return this.skip(1)
      case 0x72: // LONG_BINPUT
        this.need(4)
        this.stack.remember(buffer.readUInt32LE(argument))
        return this.skip(4)
      case 0x94: // MEMOIZE
        this.stack.memoize()
        return this.skip(0)
      case 0x68: // BINGET
        this.need(1)
        this.stack.recall(buffer[argument]!)
        return this.skip(1)
      case 0x6a: // LONG_BINGET
        this.need(4)
        this.stack.recall(buffer.readUInt32LE(argument))
        return this.skip(4)
      default:
        return this.structure(code)
    }
  }

  /** Execute the operations without argument that use the stack. */
  private structure(code: number): Request | undefined {
    switch (code) {
      case 0x5d: // EMPTY_LIST
      case 0x29: // EMPTY_TUPLE
        return this.made(0, [])
      case 0x6c: // LIST
      case 0x74: // TUPLE
        return this.made(0, this.stack.popMark())
      case 0x85: // TUPLE1
        return this.made(0, [this.stack.pop()])
      case 0x86: {
        // TUPLE2
        const second = this.stack.pop()
        return this.made(0, [this.stack.pop(), second])
      }
      case 0x87: {
        // TUPLE3
        const third = this.stack.pop()
        const second = this.stack.pop()
        return this.made(0, [this.stack.pop(), second, third])
      }
      case 0x61: {
        // APPEND
        const item = this.stack.pop()
        if (this.extended('push', [item])) return this.skip(0)
        const list = this.listOnTop()
        if (Array.isArray(item)) this.deepen(list, item)
        if (!listMayGrow(list.length)) throw this.error(tooMuch())
        list.push(item)
        return this.skip(0)
      }
      case 0x65: {
        // APPENDS
        const items = this.stack.popMark()
        if (this.extended('push', items)) return this.skip(0)
        const list = this.listOnTop()
        for (const item of items) {
          if (!listMayGrow(list.length)) throw this.error(tooMuch())
          list.push(item)
        }
        return this.skip(0)
      }
      case 0x7d: // EMPTY_DICT
        return this.made(0, new PyDict())
      case 0x64: {
        // DICT
        const items = this.stack.popMark()
        this.stack.push(new PyDict())
        return this.setItems(items)
      }
      case 0x73: {
        // SETITEM
        const value = this.stack.pop()
        return this.setItems([this.stack.pop(), value])
      }
      case 0x75: // SETITEMS
        return this.setItems(this.stack.popMark())
      case 0x8f: // EMPTY_SET
        return this.made(0, new Set())
      case 0x90: {
        // ADDITEMS
        const items = this.stack.popMark()
        if (this.extended('add', items)) return this.skip(0)
        const set = this.stack.top()
        if (!(set instanceof Set)) throw this.error('expected a set to add items to')
        this.addItems(set, items)
        return this.skip(0)
      }
      case 0x91: {
        // FROZENSET
        const set = new Set()
        this.addItems(set, this.stack.popMark())
        return this.made(0, set)
      }
      case 0x93: {
        // STACK_GLOBAL
        const name = this.stack.pop()
        const module = this.stack.pop()
        if (typeof name !== 'string' || typeof module !== 'string')
          throw this.error('expected a text as name of a global')
        this.stack.push(this.global(module, name))
        return this.skip(0)
      }
      case 0x52: // REDUCE
      case 0x81: {
        // NEWOBJ
        const args = this.stack.pop()
        return this.called(this.stack.pop(), args, 0, code === 0x81)
      }
      case 0x92: {
        // NEWOBJ_EX
        const keywords = this.stack.pop()
        const args = this.stack.pop()
        const target = this.stack.pop()
        if (target instanceof Resolved && keywords instanceof PyDict) {
          return this.made(0, target.by.call(target, args, true, this, keywords))
        }
        if (keywords instanceof PyDict && keywords.size === 0) return this.called(target, args)
        throw this.error(`it calls ${nameOf(target)} with keyword arguments`, globalOf(target))
      }
      case 0x6f: {
        // OBJ
        const [target, ...args] = this.stack.popMark()
        return this.called(target, args, 0, true)
      }
      case 0x62: // BUILD
        return this.built(this.stack.pop())
      case 0x51: // BINPERSID
        return this.persistent(this.stack.pop(), 0)
      case 0x82: // EXT1
        this.need(1)
        return this.extension(1, this.feed.buffer[this.feed.at + 1]!)
      case 0x83: // EXT2
        this.need(2)
        return this.extension(2, this.feed.buffer.readUInt16LE(this.feed.at + 1))
      case 0x84: // EXT4
        this.need(4)
        return this.extension(4, this.feed.buffer.readInt32LE(this.feed.at + 1))
      case 0x97: // NEXT_BUFFER
      case 0x98: // READONLY_BUFFER
        throw this.error('it keeps its data in buffers outside the file. Pickle without a buffer_callback')
      default:
        throw this.error(`${shownCode(code)} is not an instruction: the file is damaged or not a pickle`)
    }
  }

  /** Check that the window, which cannot grow, contains the opcode's argument. */
  private need(count: number): void {
    const { at, end, place, position } = this.feed
    if (at + 1 + count > end) throw truncated(place, position, 1 + count, end - at)
  }

  private skip(argument: number): undefined {
    this.feed.at += 1 + argument
  }

  private made(argument: number, value: unknown): undefined {
    this.stack.push(value)
    this.feed.at += 1 + argument
  }

  private listOnTop(): unknown[] {
    const list = this.stack.top()
    if (!Array.isArray(list)) throw this.error('expected a list to append to')
    return list
  }

  /** The depth of the result is checked as a whole; this stops a chain of lists before it has filled the memory. */
  private deepen(list: object, item: object): void {
    const depth = (this.depths.get(item) ?? 0) + 1
    if (depth > DEEPEST) throw this.error(`it is nested deeper than ${DEEPEST} levels`)
    this.depths.set(list, depth)
  }

  private setItems(items: unknown[]): undefined {
    const dict = this.stack.top()
    if (items.length % 2 !== 0) throw this.error('expected a value for each key')
    if (this.extended('set', items)) return this.skip(0)
    if (!(dict instanceof PyDict)) throw this.error('expected a dict to set items of')
    for (let i = 0; i < items.length; i += 2) {
      if (!mapMayGrow(dict.size)) throw this.error(tooMuch())
      dict.set(this.key(items[i]), items[i + 1])
    }
    this.skip(0)
  }

  private addItems(set: Set<unknown>, items: readonly unknown[]): void {
    for (const item of items) {
      if (!mapMayGrow(set.size)) throw this.error(tooMuch())
      set.add(this.key(item))
    }
  }

  /** Return whether the items are for an object of the caller. */
  private extended(how: 'push' | 'set' | 'add', items: unknown[]): boolean {
    const target = this.stack.top()
    if (!(target instanceof Resolved)) return false
    target.by.extend(target, how, items, this)
    return true
  }

  private key(value: unknown): unknown {
    if (value instanceof PyDict || value instanceof Buildable || value instanceof Payload) {
      throw this.error('expected a hashable key that is not too long')
    }
    return value
  }

  /** Read an int from the next bytes. */
  private long(width: number, length: number): Request | undefined {
    if (length < 0 || length > LONGEST_INTEGER) throw this.error(`it has an int of ${length} bytes`)
    const { feed } = this
    const start = feed.at + 1 + width
    if (start + length > feed.end) return this.more(1 + width + length)
    return this.made(width + length, littleEndianInteger(feed.buffer, start, start + length))
  }

  /** Request a wider window, or throw at the end of the input. */
  private more(count: number): number {
    const { feed } = this
    if (feed.finished) throw truncated(feed.place, feed.position, count, feed.end - feed.at)
    return count
  }

  /** Read a text or bytes with a length before it. */
  private sized(kind: 'text' | 'bytes' | 'old', width: number, length: number): Request | undefined {
    const { feed } = this
    if (length >= LONG_PAYLOAD) {
      if (!Number.isSafeInteger(length)) throw this.error(`it claims a text or bytes of ${length} bytes`)
      return async () => {
        const byte = feed.position
        feed.at += 1 + width
        const payload = await feed.payload(length)
        this.stack.push(
          kind === 'text' ? payload.as('utf8') : kind === 'bytes' ? payload : new OldString(payload, byte),
        )
      }
    }
    const start = feed.at + 1 + width
    const end = start + length
    if (end > feed.end) return this.more(1 + width + length)
    if (kind === 'text') {
      const text = decodeUtf8(feed.buffer, start, end)
      if (text === undefined) throw this.error('expected a text in UTF-8')
      return this.made(width + length, text)
    }
    // Copy, since the window is reused.
    const bytes = new Uint8Array(feed.buffer.subarray(start, end))
    return this.made(width + length, kind === 'bytes' ? bytes : this.oldString(bytes))
  }

  private oldString(bytes: Uint8Array): unknown {
    const { encoding } = this.host
    const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length)
    if (encoding === 'bytes') return bytes
    if (encoding === 'latin1' || bytes.every((byte) => byte < 128)) return buffer.toString('latin1')
    const text = encoding === 'utf-8' ? decodeUtf8(buffer) : undefined
    return text ?? new OldString(bytes, this.feed.position)
  }

  /** Return the end of the line that starts at `from`; undefined if the window must grow. */
  private lineEnd(from: number): number | undefined {
    const { feed } = this
    const found = feed.buffer.indexOf(10, from)
    if (found >= 0 && found < feed.end) return found
    if (feed.finished) throw truncated(feed.place, feed.position, feed.end - feed.at + 1, feed.end - feed.at)
    if (feed.end - feed.at > LONGEST_TEXT) throw this.error('it has a line longer than a text can be')
    return undefined
  }

  private line(code: number): Request | undefined {
    const { feed } = this
    const start = feed.at + 1
    const end = this.lineEnd(start)
    if (end === undefined) return 2 * (feed.end - feed.at) + 256
    const bytes = feed.buffer.subarray(start, end)
    const length = end + 1 - start
    switch (code) {
      case 0x50: // PERSID
        return this.persistent(bytes.toString('latin1'), length)
      case 0x67: // GET
        this.stack.recall(this.memoIndex(bytes))
        return this.skip(length)
      case 0x70: // PUT
        this.stack.remember(this.memoIndex(bytes))
        return this.skip(length)
      default:
        return this.made(length, this.lineValue(code, bytes))
    }
  }

  private lineValue(code: number, bytes: Buffer): unknown {
    // No number has this many characters, but a text may.
    const short = bytes.length > 8192 ? '' : bytes.toString('latin1')
    switch (code) {
      case 0x49: // INT
        if (short === '00' || short === '01') return short === '01'
        return parseInteger(short) ?? this.broken(bytes, 'an integer')
      case 0x4c: // LONG
        return parseInteger(short) ?? this.broken(bytes, 'an integer')
      case 0x46: // FLOAT
        return parseFloatText(short) ?? this.broken(bytes, 'a number')
      case 0x53: // STRING
        return this.oldString(decodeStringEscape(bytes) ?? this.broken(bytes, 'a quoted string'))
      default: // UNICODE
        return decodeRawUnicodeEscape(bytes) ?? this.broken(bytes, 'an escaped text')
    }
  }

  private memoIndex(bytes: Buffer): number {
    const text = bytes.toString('latin1', 0, 20)
    return /^\d{1,15}$/.test(text) ? Number(text) : this.broken(bytes, 'a place in the memo')
  }

  private broken(bytes: Buffer, what: string): never {
    throw this.error(`${quoted(bytes.toString('latin1', 0, 120))} is not ${what}`)
  }

  private twoLines(code: number): Request | undefined {
    const { feed } = this
    const start = feed.at + 1
    const middle = this.lineEnd(start)
    const end = middle === undefined ? undefined : this.lineEnd(middle + 1)
    if (middle === undefined || end === undefined) {
      if (feed.end - feed.at > LONG_PAYLOAD) throw this.error('it names a global with an endless name')
      return 2 * (feed.end - feed.at) + 256
    }
    const module = decodeUtf8(feed.buffer, start, middle)
    const name = decodeUtf8(feed.buffer, middle + 1, end)
    if (module === undefined || name === undefined) throw this.error('it names a global that is not UTF-8')
    const target = this.global(module, name)
    if (code === 0x63) return this.made(end + 1 - start, target)
    const args = this.stack.popMark()
    return this.called(target, args, end + 1 - start, true)
  }

  private global(module: string, name: string): Callable | Marker | Resolved {
    const found = this.host.global(module, name)
    if (found !== undefined) return found
    const global = `${module}.${name}`
    const advice = this.host.advice === undefined ? '' : `; ${this.host.advice}`
    throw this.error(`it refers to ${quoted(global)}, which is not data${advice}`, { global })
  }

  private called(target: unknown, args: unknown, argument = 0, construct = false): Request | undefined {
    const value = call(target, args, this, construct)
    if (!(value instanceof Promise)) return this.made(argument, value)
    return async () => {
      this.made(argument, await value)
    }
  }

  private built(state: unknown): undefined {
    build(this.stack.top(), state, this)
    this.skip(0)
  }

  private extension(width: number, code: number): undefined {
    const { resolving } = this.host
    if (resolving !== undefined) return this.made(width, resolving.extension(code, this))
    throw this.error('it uses the extension registry of the Python that wrote it. Pass an extensionResolver')
  }

  private persistent(id: unknown, argument: number): undefined {
    if (this.host.persistent === undefined) {
      throw this.error(
        'it refers to an object outside itself. Read a file of torch.save with loadTorch, others with a persistentResolver',
      )
    }
    return this.made(argument, this.host.persistent(id, this))
  }
}

function shownCode(code: number): string {
  return code > 32 && code < 127 ? `'${String.fromCharCode(code)}'` : `0x${code.toString(16).padStart(2, '0')}`
}

/** Read one pickle from a feed, which stops after it. */
export function unpickle(feed: Feed, host: Host): Promise<unknown> {
  return new Machine(feed, host).run()
}
