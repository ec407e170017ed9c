import { asTyped } from '../base/arguments.js'
import { ConfigError } from '../base/errors.js'
import { type Operator, operator } from '../native/call.js'
import { functionNames, methodNames } from '../native/generated/names.js'
import type { QueuedOperators, TensorFunctions } from '../native/generated/operators.js'
import { isHandle } from '../native/handle.js'
import { type Form, pythonForms } from './python-forms.js'
import { Tensor } from './tensor.js'

/**
 * Every public ATen operator under its camelCase name, as a function that runs synchronously on the calling thread, and in
 * `ops.async` as a job on the executor, for operators that are worth the round trip.
 */
export const ops = {} as TensorFunctions & { readonly async: QueuedOperators }

const queued: Record<string, unknown> = {}

/** Convert arguments in the form of Python's function; returns null if they are already ATen's. */
function formed(name: string, form: Form, args: readonly unknown[]): ReturnType<Form> {
  try {
    return form(args)
  } catch (error) {
    throw asTyped(name, error)
  }
}

// Look up operators at their first use: two thousand look-ups would take most of the import time.
for (const [name, full] of functionNames) {
  let found: Operator | undefined
  const form = pythonForms[name]
  const run = ops as unknown as Record<string, unknown>
  if (form === undefined) {
    run[name] = (...args: unknown[]) => (found ??= operator(full)).call(undefined, args)
    queued[name] = (...args: unknown[]) => (found ??= operator(full)).callQueued(undefined, args)
    continue
  }
  run[name] = (...args: unknown[]) => {
    const [other, values] = formed(name, form, args) ?? [full, args]
    return operator(other).call(undefined, values)
  }
  // Not an async function: argument errors are thrown synchronously, as everywhere.
  queued[name] = (...args: unknown[]) => {
    const [other, values] = formed(name, form, args) ?? [full, args]
    return operator(other).callQueued(undefined, values)
  }
}
Object.defineProperty(ops, 'async', { value: queued })

const prototype = Tensor.prototype as unknown as Record<string, unknown>
for (const [name, full] of methodNames) {
  // Keep the methods that the class defines itself: `item`, `data`, `backward`, ...
  if (Object.hasOwn(prototype, name)) continue
  let found: Operator | undefined
  const form = pythonForms[name]
  Object.defineProperty(prototype, name, {
    value(this: Tensor, ...args: unknown[]) {
      if (!isHandle(this)) throw new ConfigError(`Tensor.${name}: expected a Tensor as this`)
      const other = form && formed(name, form, [this, ...args])
      if (other) return operator(other[0]).call(undefined, other[1])
      return (found ??= operator(full)).call(this, args)
    },
    writable: true,
    configurable: true,
  })
}
