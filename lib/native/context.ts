import { AsyncLocalStorage } from 'node:async_hooks'
import { requireFunction } from '../base/arguments.js'

/** One `scope()` that may still be open. */
export interface ScopeState {
  /** Its number in the native slab. */
  readonly id: number
  readonly parent: ScopeState | null
  open: boolean
}

/**
 * What follows the async context: every operator and job runs under the context of the code that called it, however many
 * tasks are interleaved.
 */
export interface Context {
  readonly scope: ScopeState | null
  /** Grad mode (bit 0), inference mode (bit 1), autocast dtypes (bits 8-15 CPU, 16-23 CUDA): the native flag word. */
  readonly flags: number
  /** The default device as the native device word; 0 is none. */
  readonly device: number
  readonly deviceName: string | null
  /** Which adapters of a PeftModel are active here, where that is not what the model itself says. */
  readonly adapters?: ReadonlyMap<object, readonly string[]>
  /** What the outputs of a PeftModel's adapters are multiplied by here, where that is not 1. */
  readonly adapterScales?: ReadonlyMap<object, number>
}

export const GRAD = 1
export const INFERENCE = 2

const root: Context = { scope: null, flags: GRAD, device: 0, deviceName: null }

const storage = new AsyncLocalStorage<Context>()

export function currentContext(): Context {
  return storage.getStore() ?? root
}

export function runInContext<T>(context: Context, fn: () => T): T {
  return storage.run(context, requireFunction(fn))
}

/** Runs `fn` under the current context with some parts changed. */
export function withContext<T>(changes: Partial<Context>, fn: () => T): T {
  return storage.run({ ...currentContext(), ...changes }, requireFunction(fn))
}

/** The number of the innermost scope that is still open, 0 for none: a task may outlive the scope it was started in. */
export function scopeNumber(context: Context): number {
  let scope = context.scope
  while (scope !== null && !scope.open) scope = scope.parent
  return scope === null ? 0 : scope.id
}
