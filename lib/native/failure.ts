import { CancelledError, DeviceError, nativeError } from '../base/errors.js'
import { native } from './addon.js'

/** What a native call left behind when it failed, as an error to throw. */
export function failure(): Error {
  const error = native.takeError()
  if (error.kind === 10) return takeCallbackError(error.jsError)
  const result = nativeError(error)
  if (!(result instanceof DeviceError) || !/cuda/i.test(result.message)) return result
  // libtorch's own sentence names its compile flags.
  const reason = noCudaReason()
  return reason === null
    ? result
    : new DeviceError(`${error.op.replace(/^\w+::/, '')}: CUDA was asked for, but ${reason}`, { op: error.op })
}

// Found out by operators, which are called through this file: lib/native/runtime.ts registers it, to avoid an import cycle.
let noCudaReason: () => string | null = () => null

export function registerCudaReason(reason: () => string | null): void {
  noCudaReason = reason
}

// An exception cannot travel through native frames; its number does.
const callbackErrors = new Map<number, unknown>()
let nextError = 2

/** Keeps what a callback threw, under the number that native code carries. */
export function keepCallbackError(error: unknown): number {
  const id = nextError
  nextError += 1
  callbackErrors.set(id, error)
  return id
}

function takeCallbackError(id: number): Error {
  const error = callbackErrors.get(id)
  callbackErrors.delete(id)
  return error instanceof Error ? error : new CancelledError(`a callback threw ${String(error)}`, { cause: error })
}
