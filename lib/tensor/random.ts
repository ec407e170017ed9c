import { optionsOf, shown } from '../base/arguments.js'
import { ConfigError, DeviceError } from '../base/errors.js'
import { native } from '../native/addon.js'
import { op } from '../native/call.js'
import { currentDevice } from '../native/context.js'
import { Handle, handleOf, isHandle } from '../native/handle.js'
import { freeWhenForgotten } from '../native/objects.js'
import { noCudaReason } from '../native/runtime.js'
import type { Device } from './dtype.js'
import type { Tensor } from './tensor.js'

const seedAll = op('voxtorch::manual_seed')
const make = op('voxtorch::make_generator')
const seedOf = op('voxtorch::generator_seed')
const setSeed = op('voxtorch::generator_set_seed')
const stateOf = op('voxtorch::generator_state')
const setStateOf = op('voxtorch::generator_set_state')
const defaultState = op('voxtorch::default_generator_state')
const setDefaultState = op('voxtorch::default_generator_set_state')

/** Seed the default generator of every device, which initialization, dropout and sampling use. */
export function manualSeed(seed: number | bigint): void {
  checkSeed(seed)
  seedAll(seed)
}

/**
 * Run synchronous `work` with random numbers from `seed`, and restore the generators afterwards. Without a seed it uses the
 * current state. @internal
 */
export function withSeed<T>(seed: number | bigint | undefined, work: () => T, device?: Device): T {
  if (seed === undefined) return work()
  checkSeed(seed)
  const generatorDevice = device ?? (currentDevice() as Device | null) ?? 'cpu'
  const devices: Device[] = generatorDevice.startsWith('cuda') ? ['cpu', generatorDevice] : ['cpu']
  const before = devices.map((one) => getRngState(one))
  try {
    // Not manualSeed, which would also seed the other devices.
    for (const one of devices) seedOne(one, seed)
    return work()
  } finally {
    for (const [i, one] of devices.entries()) {
      setRngState(before[i] as Tensor, one)
      before[i]?.dispose()
    }
  }
}

function seedOne(device: Device, seed: number | bigint): void {
  const fresh = new Generator({ seed, device })
  const state = fresh.getState()
  setDefaultState(device, state)
  state.dispose()
  fresh.dispose()
}

/** Return the state of a device's default generator, a uint8 tensor on the CPU; `setRngState` restores it. */
export function getRngState(device: Device = 'cpu'): Tensor {
  checkDevice(device)
  return defaultState(device)
}

/** Restore a state of `getRngState`. */
export function setRngState(state: Tensor, device: Device = 'cpu'): void {
  checkState(state)
  checkDevice(device)
  setDefaultState(device, state)
}

/** Independent random number generator, for functions that take `{ generator }`. */
export class Generator extends Handle {
  /** @param options seed, or seed and device */
  constructor(options: { seed?: number | bigint; device?: Device } | number | bigint = {}) {
    const given = typeof options === 'object' ? optionsOf(options, 'Generator', ['seed', 'device']) : { seed: options }
    const { seed = 67280421310721, device = 'cpu' } = given as { seed?: number | bigint; device?: Device }
    checkSeed(seed)
    super(make(device, seed))
    freeWhenForgotten(this)
  }

  /** Initial seed. */
  get seed(): number | bigint {
    return seedOf(this)
  }

  manualSeed(seed: number | bigint): this {
    checkSeed(seed)
    setSeed(this, seed)
    return this
  }

  /** Return the full state, a uint8 tensor. */
  getState(): Tensor {
    return stateOf(this)
  }

  setState(state: Tensor): this {
    checkState(state)
    setStateOf(this, state)
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
  throw new ConfigError(`setRngState: expected a uint8 tensor as state, got ${shown(state)}`)
}

function checkDevice(device: unknown): void {
  if (typeof device === 'string' && /^(cpu|cuda(:\d+)?)$/.test(device)) {
    const reason = device === 'cpu' ? null : noCudaReason()
    if (reason !== null) throw new DeviceError(reason)
    return
  }
  throw new ConfigError(`expected device 'cpu' or 'cuda:<index>' for a default generator, got ${shown(device)}`)
}

function checkSeed(seed: unknown): void {
  if (typeof seed === 'bigint' || Number.isSafeInteger(seed)) return
  throw new ConfigError(`expected a seed that is an integer or a bigint, got ${shown(seed)}`, { seed })
}
