import { optionsOf, requireFunction, shown } from '../base/arguments.js'
import { ConfigError, ScopeError } from '../base/errors.js'
import { listMayGrow, mapMayGrow } from '../base/heap.js'
import { native } from '../native/addon.js'
import { op } from '../native/call.js'
import {
  currentContext,
  currentDevice,
  defaultDevice,
  GRAD,
  INFERENCE,
  runInContext,
  type ScopeState,
  scopeNumber,
  withContext,
} from '../native/context.js'
import { type Handle, handleOf, isHandle } from '../native/handle.js'
import { freeWhenForgotten } from '../native/objects.js'
import { type Device, deviceWord, dtypeFacts } from './dtype.js'

/** Clear autocast's cache of casted weights on this thread. @internal */
export const clearAutocastCache = op('voxtorch::clear_autocast_cache') as () => void

/**
 * Run `fn` and free every tensor created inside, except those it returns: tensors, and tensors in arrays, plain objects, maps,
 * sets and class instances. With an async function the scope ends when its promise settles, and covers exactly the tensors that
 * this function and its callees create, whatever else runs in between. Any other thenable is awaited in the same way, and
 * returned as a promise.
 */
export function scope<T>(fn: () => T): T {
  requireFunction(fn)
  const parent = currentContext()
  const state: ScopeState = { id: native.openScope(), parent: parent.scope, open: true }
  let result: T
  let promise: Promise<unknown> | undefined
  try {
    ;[result, promise] = runInContext({ ...parent, scope: state }, () => {
      const value = fn()
      return [value, promiseOf(value)]
    })
  } catch (error) {
    close(state)
    throw error
  }
  if (promise !== undefined) {
    return promise.then(
      (value) => {
        leave(value, state)
        return value
      },
      (error) => {
        close(state)
        throw error
      },
    ) as T
  }
  leave(result, state)
  return result
}

function leave(result: unknown, state: ScopeState): void {
  try {
    keepAll(result, state)
  } finally {
    close(state)
  }
}

/** Move tensors out of the current scope into the enclosing one (or to garbage collection if there is none). */
export function keepAlive<T>(value: T): T {
  const { scope: state } = currentContext()
  if (state !== null) keepAll(value, state)
  return value
}

/** Remove a tensor from every scope: it lives until it is disposed or garbage collected. */
export function keepForever<T extends Handle>(tensor: T): T {
  if (typeof tensor !== 'object' || tensor === null || !isHandle(tensor)) {
    throw new ConfigError(`keepForever: expected a tensor, got ${shown(tensor)}`)
  }
  const handle = handleOf(tensor)
  if (native.scopeOf(handle) !== 0) {
    native.moveHandle(handle, 0)
    freeWhenForgotten(tensor)
  }
  return tensor
}

/** Move a tensor that belongs to no scope into the current one, if there is one. @internal */
export function intoScope(tensor: Handle): void {
  const number = scopeNumber(currentContext())
  if (number !== 0) native.moveHandle(handleOf(tensor), number)
}

function close(state: ScopeState): void {
  state.open = false
  native.closeScope(state.id)
}

function keepAll(value: unknown, from: ScopeState): void {
  let target = from.parent
  while (target !== null && !target.open) target = target.parent
  const visited = new Set<object>()
  // Use an explicit stack: a result may be a linked list longer than the call stack is deep.
  const open: object[] = []
  const visit = (item: unknown): void => {
    if (typeof item !== 'object' || item === null || visited.has(item)) return
    if (isHandle(item)) {
      const handle = handleOf(item)
      if (native.scopeOf(handle) !== from.id) return
      if (target === null) keepForever(item)
      else native.moveHandle(handle, target.id)
      return
    }
    if (ArrayBuffer.isView(item) || item instanceof ArrayBuffer || item instanceof SharedArrayBuffer) return
    if (!mapMayGrow(visited.size) || !listMayGrow(open.length)) {
      throw new ScopeError(
        'scope: expected a result that can be searched for tensors, got too many objects. Return the tensors alone, or pass them to keepAlive()',
      )
    }
    visited.add(item)
    open.push(item)
  }
  visit(value)
  for (let item = open.pop(); item !== undefined; item = open.pop()) {
    // Iterate without copying: a copied list of a large result would fill the memory.
    if (item instanceof Map) {
      for (const [key, entry] of item) {
        visit(key)
        visit(entry)
      }
    } else {
      // A longer list than V8 holds densely is almost entirely holes.
      const dense = item instanceof Set || (Array.isArray(item) && item.length < 2 ** 27)
      const entries = dense ? (item as Iterable<unknown>) : Object.values(item)
      for (const entry of entries) visit(entry)
    }
  }
}

/**
 * Return the promise that a value is or stands for, as `await` sees it. The `then` of another thenable is called here: it may
 * start its work only then, and its return value need not be a promise.
 */
function promiseOf(value: unknown): Promise<unknown> | undefined {
  if (value instanceof Promise) return value
  if ((typeof value !== 'object' && typeof value !== 'function') || value === null) return undefined
  const { then } = value as { then?: unknown }
  if (typeof then !== 'function') return undefined
  return new Promise((resolve, reject) => then.call(value, resolve, reject))
}

/** Run `fn` without recording for autograd. */
export function noGrad<T>(fn: () => T): T {
  return withFlags(fn, (flags) => flags & ~GRAD)
}

/** Record again inside {@link noGrad}. */
export function enableGrad<T>(fn: () => T): T {
  return withFlags(fn, (flags) => flags | GRAD)
}

/** Run `fn` like {@link noGrad}; tensors created inside can never take part in autograd. The cheapest way to run a model. */
export function inferenceMode<T>(fn: () => T): T {
  return withFlags(fn, (flags) => (flags & ~GRAD) | INFERENCE)
}

export function isGradEnabled(): boolean {
  return (currentContext().flags & GRAD) !== 0
}

function withFlags<T>(fn: () => T, change: (flags: number) => number): T {
  return withContext({ flags: change(currentContext().flags) }, fn)
}

export interface AutocastOptions {
  /** Device whose operators are cast. Default `'cpu'`. */
  device?: 'cpu' | 'cuda'
  /** Dtype of the computations. Default `'bfloat16'`. */
  dtype?: 'bfloat16' | 'float16' | 'float32'
  /** Whether autocast is on; `false` disables an outer autocast. Default true. */
  enabled?: boolean
}

/**
 * Run `fn` in mixed precision: matrix products and convolutions compute in lower precision, and operators that need float32
 * stay in float32, by PyTorch's lists. Run backward outside.
 */
export function autocast<T>(options: AutocastOptions, fn: () => T): T {
  const {
    device = 'cpu',
    dtype = 'bfloat16',
    enabled = true,
  } = optionsOf(options, 'autocast', ['device', 'dtype', 'enabled'])
  if (device !== 'cpu' && device !== 'cuda')
    throw new ConfigError(`autocast: expected device 'cpu' or 'cuda', got ${shown(device)}`)
  if (!['bfloat16', 'float16', 'float32'].includes(dtype)) {
    throw new ConfigError(`autocast: expected dtype 'bfloat16', 'float16' or 'float32', got ${shown(dtype)}`, { dtype })
  }
  const shift = device === 'cpu' ? 8 : 16
  const code = enabled ? dtypeFacts(dtype).code + 1 : 0
  requireFunction(fn)
  const [result, promise] = withFlags(
    () => {
      const value = fn()
      return [value, promiseOf(value)] as const
    },
    (flags) => (flags & ~(255 << shift)) | (code << shift),
  )
  // Casted weights are cached within one region only, since they may have changed before the next.
  if (promise !== undefined) return promise.finally(() => clearAutocastCache()) as T
  clearAutocastCache()
  return result
}

/**
 * Create new tensors on a device unless their call or {@link withDevice} names another; null is the CPU. Other threads are not
 * affected.
 * @throws ConfigError for an unknown device
 */
export function setDefaultDevice(device: Device | null): void {
  defaultDevice.word = deviceWord(device)
  defaultDevice.name = device
}

/** Return the device on which new tensors are created. */
export function getDefaultDevice(): Device {
  return (currentDevice() as Device | null) ?? 'cpu'
}

/** Create new tensors inside `fn` on a device unless they name another. */
export function withDevice<T>(device: Device, fn: () => T): T {
  return withContext({ device: deviceWord(device), deviceName: device }, fn)
}
