import { loadNative } from './load.js'

/** Functions of the native module. Only lib/native and lib/tensor call it. */
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

  // binding/jobs.cc
  callQueued(): void
  settle(job: number): void
  retry(job: number): boolean
  ranOutOfMemory(job: number): boolean

  // binding/tensors.cc
  fromBytes(view: ArrayBufferView): void
  toBytes(): ArrayBuffer
  readQueued(): void
  facts(): void
  getItem(): void
  setItem(): void
  setData(): void
  release(handle: number): boolean
  isLive(handle: number): boolean
  moveHandle(handle: number, scope: number): boolean
  scopeOf(handle: number): number
  openScope(): number
  closeScope(scope: number): number
  memory(): { liveTensors: number; liveBytes: number; liveScopes: number }

  // binding/autograd.cc
  backwardQueued(): void
  gradient(): void
  setGradient(): void
  gradFnName(): void
  applyFunction(): void
  graphLeaves(): void
  registerHook(): void
  removeHook(): void
  setForwardHook(): void
  registerAccumulateHook(): void
  removeAccumulateHook(): void

  // binding/functorch.cc
  enterTransform(): void
  leaveTransform(): void
  wrapTensors(): void
  unwrapTensors(): void
  batchTensor(): void
  unbatchTensor(): void
  gradientsHere(): void

  // binding/audio.cc
  openCodec(format: CodecFormat, first: Uint8Array): NativeCodec
  closeCodec(codec: NativeCodec): void
  feedCodec(codec: NativeCodec, bytes: Uint8Array, isEnd: boolean): void
  nextOfCodec(codec: NativeCodec, bytes: number): CodecSamples | undefined
  decodePackets(
    codec: NativeCodec,
    bytes: Uint8Array,
    lengths: number[],
    granule: number,
    isLast: boolean,
  ): CodecSamples | undefined
  decodePcm(bytes: Uint8Array, encoding: number, isBigEndian: boolean, planes: Float32Array[]): void
  copyFloats(values: Float32Array): void
  oggChecksum(page: Uint8Array): number
  beginsMp3(bytes: Uint8Array, isEnd: boolean): boolean
}

export type CodecFormat = 'flac' | 'mp3' | 'vorbis'

/** Native decoder of compressed audio. */
export interface NativeCodec {
  readonly codec: unique symbol
}

export interface CodecSamples {
  channelData: Float32Array[]
  sampleRate: number
}

const waiting: (() => void)[] = []

/** Call a function once the addon is loaded. */
export function whenLoaded(run: () => void): void {
  waiting.push(run)
}

/**
 * The addon, which is loaded when one of its functions is first used: mapping libtorch takes most of the time and memory that
 * importing the library would otherwise take. @throws LibtorchError, in that first use, that says what to do
 */
export let native: NativeAddon = new Proxy({} as NativeAddon, {
  get(_, name) {
    native = loadNative()
    for (const run of waiting.splice(0)) run()
    return Reflect.get(native, name)
  },
})
