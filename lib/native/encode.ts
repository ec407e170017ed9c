import { ConfigError } from '../base/errors.js'
import { snakeCase } from '../base/words.js'
import { native } from './addon.js'
import {
  BIGINT,
  BOOL,
  COMPLEX,
  cells,
  DOUBLE,
  ELLIPSIS,
  INLINE,
  integers,
  KEYWORD,
  LIST,
  moveTop,
  NULL,
  NUMBER,
  OBJECT,
  putCell,
  room,
  SLICE,
  STRING,
  TENSOR,
  top,
  UNDEFINED,
} from './buffer.js'
import { handleOf, isHandle } from './handle.js'
import { tensorClass } from './objects.js'

/** A complex number. */
export interface Complex {
  readonly re: number
  readonly im: number
}

/** A range of indices for `Tensor.at`, like Python's `start:stop:step`. */
export class Slice {
  constructor(
    readonly start: number | null = null,
    readonly stop: number | null = null,
    readonly step: number | null = null,
  ) {}
}

/** Marks a number as floating point: `asFloat(2)` is 2.0, not the integer 2. */
export class Double {
  constructor(readonly value: number) {}
}

/** Encode an operator's arguments; those of a last plain object by name. */
export function putArguments(args: ArrayLike<unknown>): void {
  const count = args.length
  if (count === 0) return
  for (let i = 0; i < count - 1; i += 1) put(args[i])
  const last = args[count - 1]
  if (typeof last !== 'object' || !isOptions(last)) return put(last)
  for (const name in last) {
    const value = last[name]
    if (value === undefined) continue
    const id = internString(snakeName(name))
    if (id === undefined) throw new ConfigError(`expected an option of an operator, got '${name}'`)
    putCell(KEYWORD, id)
    put(value)
  }
}

/** Encode one argument. */
export function put(value: unknown): void {
  switch (typeof value) {
    case 'number':
      return putCell(NUMBER, value)
    case 'object':
      if (value === null) return putCell(NULL, 0)
      if (isHandle(value)) return putCell(value instanceof tensorClass ? TENSOR : OBJECT, handleOf(value))
      return putObject(value)
    case 'boolean':
      return putCell(BOOL, value ? 1 : 0)
    case 'undefined':
      return putCell(UNDEFINED, 0)
    case 'string':
      return putString(value)
    case 'bigint':
      return putBigInt(value)
    default:
      throw new ConfigError(`expected an argument that an operator takes, got a ${typeof value}`)
  }
}

/** Encode several arguments. */
export function putAll(...values: unknown[]): void {
  for (const value of values) put(value)
}

function putObject(value: object): void {
  if (Array.isArray(value) || (ArrayBuffer.isView(value) && !(value instanceof DataView))) {
    const list = value as ArrayLike<unknown>
    putCell(LIST, list.length)
    for (let i = 0; i < list.length; i += 1) {
      const item = list[i]
      // A sparse list with a length of a billion would fill the memory.
      if (item === undefined && !(i in list))
        throw new ConfigError(
          `expected a list without holes as argument, got one of length ${list.length} with a hole at ${i}`,
        )
      if (Array.isArray(item))
        throw new ConfigError(
          'expected a flat list or a tensor as argument, got a list of lists. Convert it with tensor()',
        )
      put(item)
    }
  } else if (value instanceof Slice) {
    putCell(SLICE, 0)
    for (const bound of [value.start, value.stop, value.step]) {
      if (typeof bound === 'object' && bound !== null)
        throw new ConfigError('slice: expected bounds that are numbers or null')
      put(bound)
    }
  } else if (value instanceof Double) {
    putCell(DOUBLE, value.value)
  } else if (isComplex(value)) {
    putCell(COMPLEX, value.re)
    putCell(NUMBER, value.im)
  } else {
    throw new ConfigError(
      `expected options as the last argument, got an object with the keys ${Object.keys(value).join(', ') || '(none)'} before it`,
    )
  }
}

function putString(text: string): void {
  // There may be as many texts as files; reserve half of the table for option names.
  const id = internString(text, MAX_STRINGS / 2)
  if (id !== undefined) return putCell(STRING, id)
  room(4 + text.length)
  putCell(INLINE, text.length)
  for (let i = 0; i < text.length; i += 1) cells[top + i] = text.charCodeAt(i)
  moveTop(top + text.length + (text.length & 1))
}

function putBigInt(value: bigint): void {
  if (BigInt.asIntN(64, value) !== value) throw new ConfigError(`expected an integer of at most 64 bits, got ${value}`)
  putCell(BIGINT, 0)
  integers[top - 1] = value
}

export function putEllipsis(): void {
  putCell(ELLIPSIS, 0)
}

export function isComplex(value: object): value is Complex {
  return typeof (value as Complex).re === 'number' && typeof (value as Complex).im === 'number'
}

export function isOptions(value: unknown): value is Record<string, unknown> {
  if (typeof value !== 'object' || value === null || isHandle(value) || Array.isArray(value)) return false
  const prototype = Object.getPrototypeOf(value)
  return (prototype === Object.prototype || prototype === null) && !isComplex(value)
}

const snakeNames = new Map<string, string>()

function snakeName(name: string): string {
  let snake = snakeNames.get(name)
  if (snake === undefined) {
    snake = /[a-z]/.test(name) ? snakeCase(name) : name
    if (snakeNames.size < MAX_STRINGS) snakeNames.set(name, snake)
  }
  return snake
}

const strings = new Map<string, number>()
const MAX_STRINGS = 4096

function internString(text: string, most = MAX_STRINGS): number | undefined {
  let id = strings.get(text)
  if (id === undefined && strings.size < most && text.length < 64) {
    id = native.intern(text)
    strings.set(text, id)
  }
  return id
}
