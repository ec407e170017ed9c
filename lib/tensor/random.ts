import { optionsOf, shown } from '../base/arguments.js'
import { ConfigError, DeviceError } from '../base/errors.js'
import { native } from '../native/addon.js'
import { callNative, readNumbers } from '../native/call.js'
import { put, putAll } from '../native/encode.js'
import { noCudaReason } from '../native/failure.js'
import { Handle, handleOf, isHandle } from '../native/handle.js'
import { freeWhenForgotten } from '../native/objects.js'
import type { Device } from './dtype.js'
import type { Tensor } from './tensor.js'

/** Seeds the default generator of every device: initialisation, dropout and sampling follow it. */
export function manualSeed(seed: number | bigint): void {
  checkSeed(seed)
  callNative(native.manualSeed, () => put(seed), false)
}

/**
 * What `work` draws comes from `seed`; what others draw afterwards is as if it had not run. Without a seed it draws as it
 * is. `work` is synchronous. @internal
 */
export function withSeed<T>(seed: number | bigint | undefined, work: () => T, device: Device = 'cpu'): T {
  if (seed === undefined) return work()
  checkSeed(seed)
  const devices: Device[] = device.startsWith('cuda') ? ['cpu', device] : ['cpu']
  const before = devices.map((one) => getRngState(one))
  try {
    manualSeed(seed)
    return work()
  } finally {
    for (const [i, one] of devices.entries()) {
      setRngState(before[i] as Tensor, one)
      before[i]?.dispose()
    }
  }
}

/** The state of a device's default generator, a uint8 tensor on the CPU; `setRngState` restores it. */
export function getRngState(device: Device = 'cpu'): Tensor {
  checkDevice(device)
  return callNative(native.generatorState, () => putAll(device === 'cpu' ? null : device, null), true) as Tensor
}

/** The reverse of `getRngState`. */
export function setRngState(state: Tensor, device: Device = 'cpu'): void {
  checkState(state)
  checkDevice(device)
  callNative(native.generatorState, () => putAll(device === 'cpu' ? null : device, state), false)
}

/** A source of random numbers of its own, for functions that take `{ generator }`. */
export class Generator extends Handle {
  /** @param options the seed, or the seed and the device */
  constructor(options: { seed?: number | bigint; device?: Device } | number | bigint = {}) {
    const given = typeof options === 'object' ? optionsOf(options, 'Generator', ['seed', 'device']) : { seed: options }
    const { seed = 67280421310721, device = 'cpu' } = given as { seed?: number | bigint; device?: Device }
    checkSeed(seed)
    // The second number is the new handle.
    super(readNumbers(native.makeGenerator, () => putAll(device, seed))[1]!)
    freeWhenForgotten(this)
  }

  /** The seed that it started from. */
  get seed(): number | bigint {
    return callNative(native.generatorSeed, () => putAll(this, null), true) as number | bigint
  }

  manualSeed(seed: number | bigint): this {
    checkSeed(seed)
    callNative(native.generatorSeed, () => putAll(this, seed), true)
    return this
  }

  /** Its whole state, a uint8 tensor. */
  getState(): Tensor {
    return callNative(native.generatorState, () => putAll(this, null), true) as Tensor
  }

  setState(state: Tensor): this {
    checkState(state)
    callNative(native.generatorState, () => putAll(this, state), false)
    return this
  }

  dispose(): void {
    native.release(handleOf(this))
  }

  [Symbol.dispose](): void {
    this.dispose()
  }
}

function checkState(state: unknown): void {
  if (typeof state === 'object' && state !== null && isHandle(state)) return
  throw new ConfigError(`the state of a generator is a uint8 tensor, not ${shown(state)}`)
}

function checkDevice(device: unknown): void {
  if (typeof device === 'string' && /^(cpu|cuda(:\d+)?)$/.test(device)) {
    const reason = device === 'cpu' ? null : noCudaReason()
    if (reason !== null) throw new DeviceError(reason)
    return
  }
  throw new ConfigError(`a default generator belongs to 'cpu' or 'cuda:<index>', not to ${shown(device)}`)
}

function checkSeed(seed: unknown): void {
  if (typeof seed === 'bigint' || Number.isSafeInteger(seed)) return
  throw new ConfigError(`a seed must be a whole number or a bigint, got ${shown(seed)}`, { seed })
}
