import { op } from './call.js'
import { registerCudaReason } from './failure.js'

// The process and the machine as native code reports them: operators of native/core/runtime.cc.

export interface Versions {
  /** Version of libtorch that the addon was built for. */
  built: string
  /** Instruction set that ATen uses. */
  cpu: string
  /** Build configuration of libtorch. */
  config: string
  variant: 'cpu' | 'cuda'
}

export const versions = op('voxtorch::versions') as () => Versions
export const cudaDeviceCount = op('voxtorch::cuda_device_count') as () => number
export const getNumThreads = op('voxtorch::get_num_threads') as () => number
const hasCuda = op('voxtorch::has_cuda') as () => boolean

/** Return why CUDA is not available (driver, libtorch build or addon variant); null if it is. */
export function noCudaReason(): string | null {
  if (cudaDeviceCount() > 0) return null
  if (versions().variant !== 'cuda') {
    return 'this build of voxtorch is the CPU variant; build the other with `npx voxtorch install --cuda`'
  }
  if (!hasCuda()) return 'the loaded libtorch is a CPU build; set LIBTORCH to a CUDA build'
  return 'libtorch finds no NVIDIA device; `npx voxtorch doctor` tells what it looked for'
}

registerCudaReason(noCudaReason)
