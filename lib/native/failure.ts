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

/** Which of driver, libtorch build or addon variant stands between us and CUDA; null when it is there. */
export function noCudaReason(): string | null {
  if (native.cudaDeviceCount() > 0) return null
  if (native.versions().variant !== 'cuda') {
    return 'this build of voxtorch is the CPU variant; build the other with `npx voxtorch install --cuda`'
  }
  if (native.hasCuda() === 0) return 'the loaded libtorch is a CPU build; set LIBTORCH to a CUDA build'
  return 'libtorch finds no NVIDIA device; `npx voxtorch doctor` tells what it looked for'
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
