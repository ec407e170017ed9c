import { native, whenLoaded } from './addon.js'
import { type Context, defaultDevice, scopeNumber } from './context.js'
import { failure } from './failure.js'

/**
 * The buffer for calls: a header and tagged cells that both sides read and that native code checks against the operator's
 * schema. native/binding/values.h is the counterpart of this file.
 */

// Tags and header slots: numbers shared with binding/values.h and binding/environment.h.
export const NULL = 0
export const NUMBER = 1
export const BOOL = 2
export const BIGINT = 3
export const TENSOR = 4
export const LIST = 5
export const STRING = 6
export const INLINE = 7
export const COMPLEX = 8
export const OBJECT = 9
export const UNDEFINED = 10
export const KEYWORD = 11
export const SAME = 12
export const SLICE = 13
export const ELLIPSIS = 14
export const DOUBLE = 15
export const MODULE = 16

export const STATUS = 0
export const OPERATOR = 1
export const BEGIN = 2
export const END = 3
export const FLAGS = 4
export const SCOPE = 5
export const WARNED = 6
export const DEVICE = 7
export const OVERLOAD = 8
export const DONE = 9
export const JOB = 11
export const HEADER = 16

// Until the addon is loaded, arguments are written into memory of this side.
let buffer = new ArrayBuffer(32_768)
export let cells = new Float64Array(buffer)
export let integers = new BigInt64Array(buffer)

whenLoaded(() => {
  const written = cells
  buffer = native.callBuffer()
  if (buffer.byteLength < written.byteLength) buffer = native.growBuffer(written.length)
  cells = new Float64Array(buffer)
  integers = new BigInt64Array(buffer)
  cells.set(written)
})
/**
 * Index of the next free cell. Calls nest (a getter in an options object may call an operator), so each starts where the
 * enclosing one ended.
 */
export let top = HEADER

export function moveTop(to: number): void {
  top = to
}

/** Reserve space for a count of numbers at the top. */
export function room(doubles: number): void {
  if (top + doubles <= cells.length) return
  let size = cells.length * 2
  while (size < top + doubles) size *= 2
  const grown = native.growBuffer(size)
  if (grown.byteLength < size * 8) throw failure()
  buffer = grown
  cells = new Float64Array(buffer)
  integers = new BigInt64Array(buffer)
}

export function putCell(tag: number, value: number): void {
  if (top + 2 > cells.length) room(2)
  cells[top] = tag
  cells[top + 1] = value
  top += 2
}

/** Tell native code where a call's cells are and in which context it runs; returns the id of the scope. */
export function enter(base: number, context: Context): number {
  const scope = scopeNumber(context)
  cells[BEGIN] = base
  cells[END] = top
  cells[FLAGS] = context.flags
  cells[SCOPE] = scope
  cells[DEVICE] = context.device || defaultDevice.word
  return scope
}

/** After a native call: throw its error, or enlarge the buffer for a result that did not fit. */
export function checkStatus(): void {
  if (cells[STATUS] === 2) {
    const base = cells[BEGIN]!
    const before = top
    top = base
    try {
      room(cells[JOB]! + 2)
    } finally {
      top = before
    }
    native.writeStashed()
    if ((cells[STATUS] as number) === 0) return
  }
  throw failure()
}

export function emitWarnings(): void {
  for (const warning of native.takeWarnings()) process.emitWarning(warning, 'LibtorchWarning')
}
