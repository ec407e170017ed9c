import { requireFunction, shown } from '../base/arguments.js'
import { ConfigError, DeviceError } from '../base/errors.js'
import { native } from '../native/addon.js'
import { op } from '../native/call.js'
import * as machine from '../native/runtime.js'

const memoryUse = op('voxtorch::memory_use')
const kvCacheBytes = op('voxtorch::kv_cache_bytes')
const freeCaches = op('voxtorch::empty_cache')
const setThreads = op('voxtorch::set_num_threads')
const synchronize = op('voxtorch::cuda_synchronize')
const startProfile = op('voxtorch::profile_start')
const stopProfile = op('voxtorch::profile_stop')

export interface MemoryStats {
  /** Number of tensors (and generators) that this thread's JavaScript holds. */
  liveTensors: number
  /** CPU bytes allocated by this thread's calls that JavaScript still holds, each storage once. */
  liveBytes: number
  /** CPU bytes that no tensor uses and that the process keeps for later tensors, of all threads. */
  cachedBytes: number
  /** Bytes of all key-value caches of decoders, of all threads. */
  kvCacheBytes: number
  /** Number of scopes that have not ended. */
  liveScopes: number
  /** Number of jobs on the executor, of all threads. */
  queuedJobs: number
}

/** Return what this thread holds in native memory: counts that tests can assert. */
export function memoryStats(): MemoryStats {
  return { ...native.memory(), ...memoryUse(), kvCacheBytes: kvCacheBytes() }
}

/**
 * Release the memory of freed tensors, on the CPU and on CUDA devices, and that of frozen weights in the CPU's fastest layout
 * for products (512 MiB at most). The CPU's is released automatically when it was not used for ten seconds; the environment
 * variable `VOXTORCH_NO_CPU_CACHE=1` disables its cache.
 */
export function emptyCache(): void {
  freeCaches()
}

/**
 * Set the number of threads that an operator uses, whether it is queued or called directly; small ones use one. Default: libtorch's
 * choice if `OMP_NUM_THREADS` or `MKL_NUM_THREADS` is set, as launchers do to avoid contention between processes; otherwise one
 * per core.
 */
export function setNumThreads(threads: number): void {
  if (!Number.isInteger(threads) || threads < 1 || threads > 1024) {
    throw new ConfigError(`setNumThreads: expected an integer from 1 to 1024, got ${shown(threads)}`, { threads })
  }
  setThreads(threads)
}

/** Return the number of threads; see {@link setNumThreads}. */
export function getNumThreads(): number {
  return machine.getNumThreads()
}

/** NVIDIA devices. */
export const cuda = {
  /** Return whether tensors can be created on `'cuda'`. */
  isAvailable(): boolean {
    return machine.cudaDeviceCount() > 0
  },

  deviceCount(): number {
    return machine.cudaDeviceCount()
  },

  /** Return why CUDA is not available; null if it is. */
  unavailableReason: machine.noCudaReason,

  /** Wait until a device has finished all its work. Blocks this thread. */
  synchronize(index = 0): void {
    const reason = machine.noCudaReason()
    if (reason !== null) throw new DeviceError(reason)
    synchronize(index)
  },
}

export interface ProfileRow {
  /** Name of the operator, such as `aten::addmm`, or of a backward function. */
  name: string
  calls: number
  /** Microseconds, including nested calls. */
  totalMicroseconds: number
  /** Microseconds, excluding nested calls. */
  selfMicroseconds: number
}

/** Rows of a profile in native code's format. */
type ProfileColumns = { names: string[] } & Record<'calls' | 'total' | 'self', number[]>

/**
 * Profile every operator that runs, on any thread, during `fn`. Rows are sorted by their own time.
 *
 * ```ts
 * const { result, rows } = await profile(() => model.forward(x))
 * console.table(rows.slice(0, 10))
 * ```
 */
export async function profile<T>(fn: () => T | Promise<T>): Promise<{ result: T; rows: ProfileRow[] }> {
  startProfile()
  let columns: ProfileColumns | undefined
  let result: T
  try {
    result = await requireFunction(fn)()
  } finally {
    columns = stopProfile() as ProfileColumns
  }
  const { names, calls, total, self } = columns
  const rows = names.map((name, i) => ({
    name,
    calls: calls[i]!,
    totalMicroseconds: total[i]!,
    selfMicroseconds: self[i]!,
  }))
  rows.sort((a, b) => b.selfMicroseconds - a.selfMicroseconds)
  return { result, rows }
}
