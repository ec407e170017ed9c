import { CancelledError } from '../base/errors.js'
import { cells, moveTop, SCOPE, top } from './buffer.js'
import { decodeSeveral } from './decode.js'
import { put } from './encode.js'
import { keepCallbackError } from './failure.js'

/** A JavaScript function that native code may call: custom gradients and hooks. */
export type Callback = (kind: number, values: unknown[], flags: number, scope: number) => unknown[]

const callbacks = new Map<number, Callback>()
let nextCallback = 1

export function registerCallback(callback: Callback): number {
  const id = nextCallback
  nextCallback += 1
  callbacks.set(id, callback)
  return id
}

export function unregisterCallback(id: number): void {
  callbacks.delete(id)
}

// forward, backward, hook of a gradient, hook of a block's forward, hook after a gradient was accumulated
const argumentCounts = [0, 2, 1, 2, 1]

/** Run a callback on the arguments at `start`, write its results there and return their end. */
export function dispatch(id: number, kind: number, start: number, flags: number): number {
  const before = top
  const scope = cells[SCOPE]!
  try {
    const callback = callbacks.get(id)
    if (callback === undefined)
      throw new CancelledError('callback: expected a registered callback, got one that was removed')
    const values = decodeSeveral(start, argumentCounts[kind]!, scope)
    // Calls inside the callback must not overwrite cells below `start` that native code still reads.
    moveTop(start)
    const results = callback(kind, values, flags, scope)
    moveTop(start)
    for (const value of results) put(value)
    return top
  } catch (error) {
    return -keepCallbackError(error)
  } finally {
    moveTop(before)
  }
}
