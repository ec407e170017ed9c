import { loadNative } from './load.js'

/** The native module, function by function. Only lib/native and lib/tensor call it. */
export interface NativeAddon {
  // binding/call.cc
  call(): void
  intern(text: string): number
  writeStashed(): void
  takeError(): { kind: number; message: string; op: string; jsError: number }
  takeWarnings(): string[]
  callBuffer(): ArrayBuffer
  growBuffer(doubles: number): ArrayBuffer
  setDispatchers(
    onSettled: (job: number) => void,
    onCallback: (callback: number, kind: number, at: number, flags: number) => number,
    onReleased: (callback: number) => void,
  ): void

  // binding/operators.cc
  resolve(name: string): number
  returnNames(operator: number, overload: number): string[]
  schemas(): string[]

  // binding/jobs.cc
  callQueued(): void
  settle(job: number): void
  retry(job: number): number
  ranOutOfMemory(job: number): number

  // binding/tensors.cc
  fromBytes(view: ArrayBufferView): void
  toBytes(): ArrayBuffer
  readQueued(): void
  facts(): void
  getItem(): void
  setItem(): void
  setData(): void
  alias(): void
  release(handle: number): number
  isLive(handle: number): number
  moveHandle(handle: number, scope: number): number
  scopeOf(handle: number): number
  openScope(): number
  closeScope(scope: number): number

  // binding/autograd.cc
  backwardQueued(): void
  gradient(): void
  setGradient(): void
  clearGradients(): void
  gradFnName(): void
  applyFunction(): void
  graphLeaves(): void
  setAnomaly(): void
  clearAutocast(): void

  // binding/hooks.cc
  registerHook(): void
  removeHook(): void
  setForwardHook(): void

  // binding/runtime.cc
  versions(): { built: string; cpu: string; config: string; variant: 'cpu' | 'cuda' }
  hasCuda(): number
  cudaDeviceCount(): number
  synchronizeCuda(index: number): void
  setNumThreads(threads: number): void
  getNumThreads(): number
  manualSeed(): void
  makeGenerator(): void
  generatorSeed(): void
  generatorState(): void
  memory(): { liveTensors: number; liveBytes: number; cachedBytes: number; liveScopes: number; queuedJobs: number }
  emptyCache(): void
  startProfile(): void
  stopProfile(): { name: string; calls: number; totalMicroseconds: number; selfMicroseconds: number }[]
}

export const native: NativeAddon = loadNative()
