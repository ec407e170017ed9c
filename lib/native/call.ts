import { asTyped } from '../base/arguments.js'
import { native, whenLoaded } from './addon.js'
import {
  BEGIN,
  cells,
  checkStatus,
  DEVICE,
  END,
  emitWarnings,
  enter,
  FLAGS,
  LIST,
  moveTop,
  OPERATOR,
  OVERLOAD,
  putCell,
  SCOPE,
  STATUS,
  TENSOR,
  top,
  WARNED,
} from './buffer.js'
import { dispatch, unregisterCallback } from './callbacks.js'
import { currentContext, defaultDevice, scopeNumber } from './context.js'
import { decode } from './decode.js'
import { putArguments } from './encode.js'
import { failure } from './failure.js'
import { type Handle, handleOf, isHandle } from './handle.js'
import { queue, settle } from './jobs.js'
import { tensorClass, wrapTensor } from './objects.js'

// Calls of operators and of the addon's own functions. Arguments go through the buffer and are checked natively.

whenLoaded(() => native.setDispatchers(settle, dispatch, unregisterCallback))

const VERSIONS = 'voxtorch::versions'

/** An ATen or voxtorch operator, looked up once. */
export class Operator {
  readonly #names: (string[] | undefined)[] = []
  readonly #id: number

  constructor(readonly name: string) {
    this.#id = native.resolve(name)
    if (cells[STATUS] !== 0) {
      const error = failure()
      if (name !== VERSIONS) {
        const { built } = operator(VERSIONS).call(undefined, []) as { built: string }
        error.message = `${error.message} (voxtorch was built for ${built})`
      }
      throw error
    }
  }

  /** Call the operator synchronously on this thread. */
  call(self: Handle | undefined, args: ArrayLike<unknown>): unknown {
    const base = top
    let scope: number
    // One or two tensors: encoding them cannot run user code, so no guard is needed.
    const second = args[0]
    if (
      self !== undefined &&
      base + 4 <= cells.length &&
      (args.length === 0 || (args.length === 1 && second instanceof tensorClass && isHandle(second)))
    ) {
      cells[base] = TENSOR
      cells[base + 1] = handleOf(self)
      if (args.length === 1) {
        cells[base + 2] = TENSOR
        cells[base + 3] = handleOf(second as Handle)
      }
      const context = currentContext()
      scope = scopeNumber(context)
      cells[OPERATOR] = this.#id
      cells[BEGIN] = base
      cells[END] = base + 2 + 2 * args.length
      cells[FLAGS] = context.flags
      cells[SCOPE] = scope
      cells[DEVICE] = context.device || defaultDevice.word
      native.call()
      if (cells[STATUS] === 0 && cells[WARNED] === 0 && cells[base] === TENSOR)
        return wrapTensor(cells[base + 1]!, scope)
      return this.#result(base, scope, args, self)
    }
    try {
      if (self !== undefined) putCell(TENSOR, handleOf(self))
      putArguments(args)
      scope = enter(base, currentContext())
    } catch (error) {
      throw asTyped(this.name.replace(/^\w+::/, ''), error)
    } finally {
      moveTop(base)
    }
    cells[OPERATOR] = this.#id
    native.call()
    return this.#result(base, scope, args, self)
  }

  #result(base: number, scope: number, args: ArrayLike<unknown>, self: Handle | undefined): unknown {
    if (cells[WARNED] !== 0) emitWarnings()
    if (cells[STATUS] !== 0) checkStatus()
    const tag = cells[base]
    if (tag === TENSOR) return wrapTensor(cells[base + 1]!, scope)
    const result = decode(base, scope, args, self)
    return tag === LIST ? this.#named(result as unknown[], cells[OVERLOAD]!) : result
  }

  /** Run the operator on the executor, in queue order. */
  callQueued(self: Handle | undefined, args: ArrayLike<unknown>): Promise<unknown> {
    return queue(
      () => {
        if (self !== undefined) putCell(TENSOR, handleOf(self))
        putArguments(args)
      },
      () => {
        cells[OPERATOR] = this.#id
        native.callQueued()
        const overload = cells[OVERLOAD]!
        return (result) => (Array.isArray(result) ? this.#named(result, overload) : result)
      },
      args,
      self,
    )
  }

  /** Convert named results to an object, like PyTorch's named tuples. */
  #named(values: unknown[], overload: number): unknown {
    let names = this.#names[overload]
    if (names === undefined) {
      names = native.returnNames(this.#id, overload).map(camelCase)
      this.#names[overload] = names
    }
    // A single name belongs to a list, however many elements it has.
    if (names.length !== values.length || names.length < 2) return values
    const result: Record<string, unknown> = {}
    for (let i = 0; i < names.length; i += 1) result[names[i]!] = values[i]
    return result
  }
}

const operators = new Map<string, Operator>()

export function operator(name: string): Operator {
  let found = operators.get(name)
  if (found === undefined) {
    found = new Operator(name)
    operators.set(name, found)
  }
  return found
}

/** Return any operator by its full name, such as `aten::_fused_adamw_`, as a synchronous function. */
// biome-ignore lint/suspicious/noExplicitAny: the schema is checked natively; public operators are typed by lib/native/generated.
export function op(name: string): (...args: any[]) => any {
  let found: Operator | undefined
  return (...args) => (found ??= operator(name)).call(undefined, args)
}

/** Return any operator by its full name as a job on the executor. */
// biome-ignore lint/suspicious/noExplicitAny: as above.
export function opAsync(name: string): (...args: any[]) => Promise<any> {
  let found: Operator | undefined
  return (...args) => (found ??= operator(name)).callQueued(undefined, args)
}

/** Call one of the addon's own functions with values in cells; returns the decoded result (undefined without one). */
export function callNative(run: () => void, write: () => void, read: boolean): unknown {
  const base = top
  let scope: number
  try {
    write()
    scope = enter(base, currentContext())
  } catch (error) {
    throw asTyped('voxtorch', error)
  } finally {
    moveTop(base)
  }
  // Functions that call back into JavaScript must not overwrite these arguments.
  const end = cells[END]!
  moveTop(end)
  try {
    run()
  } finally {
    moveTop(base)
  }
  if (cells[WARNED] !== 0) emitWarnings()
  if (cells[STATUS] !== 0) checkStatus()
  if (!read) return undefined
  return decode(base, scope)
}

/** Read numbers that a native function left in the buffer. */
export function readNumbers(run: () => void, write: () => void): Float64Array {
  const base = top
  try {
    write()
    enter(base, currentContext())
  } finally {
    moveTop(base)
  }
  run()
  if (cells[STATUS] !== 0) throw failure()
  return cells.subarray(base)
}

function camelCase(name: string): string {
  return name.replace(/_([a-z0-9])/g, (_, letter: string) => letter.toUpperCase())
}
