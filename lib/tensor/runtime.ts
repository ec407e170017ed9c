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
  /** Tensors (and generators) that this thread's JavaScript holds. */
  liveTensors: number
  /** CPU bytes that this thread's calls made and that are still held from JavaScript, each storage once. */
  liveBytes: number
  /** CPU bytes that no tensor uses and that the process keeps for the next ones, of all threads. */
  cachedBytes: number
  /** Bytes of all key-value caches of decoders, of all threads. */
  kvCacheBytes: number
  /** Scopes that have not ended. */
  liveScopes: number
  /** Jobs on the executor, of all threads. */
  queuedJobs: number
}

/** What this thread holds in native memory: counts that tests can assert. */
export function memoryStats(): MemoryStats {
  return { ...native.memory(), ...memoryUse(), kvCacheBytes: kvCacheBytes() }
}

/**
 * Gives the memory of freed tensors back to the system, of the CPU and of CUDA devices, and that of frozen weights in the
 * layout in which the CPU multiplies fastest (512 MiB at most). By itself the CPU's goes back when
 * nothing has used it for ten seconds; the environment variable `VOXTORCH_NO_CPU_CACHE=1` turns its cache off.
 */
export function emptyCache(): void {
  freeCaches()
}

/**
 * Threads that queued jobs use inside an operator; operators called directly use one. Default: what libtorch makes of
 * `OMP_NUM_THREADS` or `MKL_NUM_THREADS` where the process was started with one of them, as launchers do so that
 * processes do not fight for cores, else one per core.
 */
export function setNumThreads(threads: number): void {
  if (!Number.isInteger(threads) || threads < 1 || threads > 1024) {
    throw new ConfigError(`setNumThreads needs an integer from 1 to 1024, got ${shown(threads)}`, { threads })
  }
  setThreads(threads)
}

/** See {@link setNumThreads}. */
export function getNumThreads(): number {
  return machine.getNumThreads()
}

/** NVIDIA devices. */
export const cuda = {
  /** Whether a tensor could be made on `'cuda'`. */
  isAvailable(): boolean {
    return machine.cudaDeviceCount() > 0
  },

  deviceCount(): number {
    return machine.cudaDeviceCount()
  },

  /** Why CUDA is not available, null when it is. */
  unavailableReason: machine.noCudaReason,

  /** Waits until a device has done all its work. Blocks this thread. */
  synchronize(index = 0): void {
    const reason = machine.noCudaReason()
    if (reason !== null) throw new DeviceError(reason)
    synchronize(index)
  },
}

export interface ProfileRow {
  /** The operator, such as `aten::addmm`, or a backward function. */
  name: string
  calls: number
  /** Microseconds, calls inside included. */
  totalMicroseconds: number
  /** Microseconds, calls inside left out. */
  selfMicroseconds: number
}

/** The rows of a profile as native code gives them. */
type ProfileColumns = { names: string[] } & Record<'calls' | 'total' | 'self', number[]>

/**
 * Measures every operator that runs, on any thread, while `fn` does. Rows come sorted by their own time.
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
