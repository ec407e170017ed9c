import { AsyncLocalStorage } from 'node:async_hooks'
import { requireFunction } from '../base/arguments.js'

/** A `scope()` that may still be open. */
export interface ScopeState {
  /** Id in the native slab. */
  readonly id: number
  readonly parent: ScopeState | null
  open: boolean
}

/**
 * State that follows the async context: every operator and job runs in the context of the code that called it, however tasks
 * are interleaved.
 */
export interface Context {
  readonly scope: ScopeState | null
  /** Grad mode (bit 0), inference mode (bit 1), autocast dtypes (bits 8-15 CPU, 16-23 CUDA): the native flag word. */
  readonly flags: number
  /** Default device in the native encoding; 0 without one. */
  readonly device: number
  readonly deviceName: string | null
  /** Active adapters of PeftModels in this context, where they differ from the model's own setting. */
  readonly adapters?: ReadonlyMap<object, readonly string[]>
  /** Factors on the adapters' outputs of PeftModels in this context, other than 1. */
  readonly adapterScales?: ReadonlyMap<object, number>
}

export const GRAD = 1
export const INFERENCE = 2

const root: Context = { scope: null, flags: GRAD, device: 0, deviceName: null }

/** Device of new tensors where neither the call nor `withDevice` names one: that of `setDefaultDevice`. */
export const defaultDevice: { word: number; name: string | null } = { word: 0, name: null }

const storage = new AsyncLocalStorage<Context>()

export function currentContext(): Context {
  return storage.getStore() ?? root
}

/** Return the name of the device on which new tensors are created; null for the CPU by default. */
export const currentDevice = (): string | null => currentContext().deviceName ?? defaultDevice.name

export function runInContext<T>(context: Context, fn: () => T): T {
  return storage.run(context, requireFunction(fn))
}

/** Run `fn` in the current context with some parts changed. */
export function withContext<T>(changes: Partial<Context>, fn: () => T): T {
  return storage.run({ ...currentContext(), ...changes }, requireFunction(fn))
}

/** Return the id of the innermost scope that is still open, 0 without one: a task may outlive the scope in which it started. */
export function scopeNumber(context: Context): number {
  let scope = context.scope
  while (scope !== null && !scope.open) scope = scope.parent
  return scope === null ? 0 : scope.id
}
