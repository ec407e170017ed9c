import { CancelledError, DeviceError, nativeError } from '../base/errors.js'
import { native } from './addon.js'

/** Return the error of a failed native call. */
export function failure(): Error {
  const error = native.takeError()
  if (error.kind === 10) return takeCallbackError(error.jsError)
  const mistake = error.message.startsWith('no form of ') ? argumentMistake(error.message) : undefined
  if (mistake) return mistake
  const result = nativeError(error)
  if (!(result instanceof DeviceError) || !/cuda/i.test(result.message)) return result
  // Replace libtorch's message, which names its compile flags.
  const reason = noCudaReason()
  return reason === null
    ? result
    : new DeviceError(`${error.op.replace(/^\w+::/, '')}: expected CUDA to be available, but ${reason}`, {
        op: error.op,
      })
}

// Operators find the reason, and they are called through this file: lib/native/runtime.ts registers it, to avoid an import
// cycle.
let noCudaReason: () => string | null = () => null

export function registerCudaReason(reason: () => string | null): void {
  noCudaReason = reason
}

// Tensors know the devices and dtypes, and lib/tensor/tensor.ts registers their check here, for the same reason.
let argumentMistake: (message: string) => Error | undefined = () => undefined

export function registerArgumentMistake(find: (message: string) => Error | undefined): void {
  argumentMistake = find
}

// An exception cannot pass through native frames, but its number can.
const callbackErrors = new Map<number, unknown>()
let nextError = 2

/** Keep the error that a callback threw, under a number that native code passes on. */
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
