import { optionsOf, shown } from '../base/arguments.js'
import { ConfigError, IndexError, InsufficientMemoryError, OperatorError, ShapeError } from '../base/errors.js'
import { toSnake } from '../base/words.js'
import { native } from '../native/addon.js'
import { callNative, op } from '../native/call.js'
import { registerCallback } from '../native/callbacks.js'
import { currentContext } from '../native/context.js'
import { put } from '../native/encode.js'
import { handleOf } from '../native/handle.js'
import type { ModuleHandle } from '../native/objects.js'
import { type Device, scope } from '../tensor/index.js'
import { withSeed } from '../tensor/random.js'
import { inCallback, Tensor } from '../tensor/tensor.js'
import { isFloating } from './check.js'
import type { ForwardHooks } from './hooks.js'
import { Module } from './module.js'
import { adopt, type MakeOptions } from './parameter.js'
import { nativeRepr } from './repr.js'

const make = op('voxtorch::module')
const bytesOf = op('voxtorch::module_bytes')
const parametersOf = op('voxtorch::module_parameters')
const buffersOf = op('voxtorch::module_buffers')
const childrenOf = op('voxtorch::module_children')
const childOf = op('voxtorch::module_child')
const train = op('voxtorch::module_train')
const isTraining = op('voxtorch::module_training')
const setCheckpointing = op('voxtorch::module_gradient_checkpointing')
const initialize = op('voxtorch::module_initialize')
const kindOf = op('voxtorch::module_kind')
const isBlock = op('voxtorch::module_is_block')

/**
 * The native object behind a module, for the operator that is called with it next: the adapters that are active where this
 * is called are activated in it first.
 */
export let withActiveAdapters: (module: NativeModule) => ModuleHandle
/** The native object as it is, for an operator that does not run the network. */
export let handleOfNetwork: (module: NativeModule) => ModuleHandle
/** The class of the native object: 'Linear', 'WavLM'. */
export let nativeKind: (module: NativeModule) => string
/** What to do before the network's next operator is called, where its adapters may be others than at the last. */
export let beforeCalls: (module: NativeModule, prepare: (handle: ModuleHandle) => void) => void

/**
 * Builds a native network from the JSON of its configuration.
 * @throws ConfigError naming the key that is wrong; InsufficientMemoryError where the network is larger than memory
 */
export function makeNative(kind: string, config: object, options: MakeOptions = {}): ModuleHandle {
  if (!isConfiguration(config)) {
    throw new ConfigError(`${kind}: a configuration is an object, not ${shown(config)}`, { network: kind, config })
  }
  const {
    device = currentContext().deviceName ?? 'cpu',
    dtype = 'float32',
    initialize = true,
    seed,
  } = optionsOf(options, kind, ['device', 'dtype', 'initialize', 'seed'])
  const json = configurationText(kind, config)
  try {
    // Linux grants more memory than there is, and ends the process when it is used.
    if (typeof device === 'string' && device.startsWith('cpu'))
      requireMemory(kind, bytesOf(kind, json, { dtype }) as number)
    return withSeed(seed, () => make(kind, json, { device, dtype, initialize }) as ModuleHandle, device as Device)
  } catch (error) {
    // What the sentence speaks of is a key of the configuration, whatever its words sound like.
    const named = error instanceof ConfigError && /^module(_bytes)?: /.test(error.message)
    if (!(named || error instanceof ShapeError || error instanceof OperatorError || error instanceof IndexError))
      throw error
    throw new ConfigError(error.message.replace(/^module(_bytes)?: /, `${kind}: `), { network: kind, cause: error })
  }
}

/** A Map or a Date has no field that a configuration would: its defaults would be those of a network of 7 billion. */
export const isConfiguration = (config: unknown): config is object =>
  typeof config === 'object' &&
  config !== null &&
  !Array.isArray(config) &&
  (Object.keys(config).length > 0 || [Object.prototype, null].includes(Object.getPrototypeOf(config)))

/** The configuration as native code reads it, which says which key is wrong. */
function configurationText(network: string, config: object): string {
  const wrong = (key: string, value: unknown) =>
    new ConfigError(`${network}: '${key}' of the configuration cannot be ${shown(value)}`, { network, key })
  try {
    return JSON.stringify(toSnake(config), (key, value: unknown) => {
      if (typeof value === 'symbol' || typeof value === 'function') throw wrong(key, value)
      // In JSON these would be null, which stands for the default. As texts they are refused where a number is read.
      if (typeof value === 'number' && !Number.isFinite(value)) return String(value)
      if (typeof value !== 'bigint') return value
      return Number.isFinite(Number(value)) ? Number(value) : String(value)
    })
  } catch (cause) {
    if (cause instanceof ConfigError) throw cause
    throw new ConfigError(`${network}: the configuration has no form in JSON: ${(cause as Error).message}`, {
      network,
      cause,
    })
  }
}

function requireMemory(network: string, bytes: number): void {
  const available = process.availableMemory()
  if (bytes <= available) return
  throw new InsufficientMemoryError(
    `${network}: a network of this configuration needs ${bytes} bytes of memory, ${available} are available`,
    { network, bytes, available },
  )
}

/**
 * A network, or a part of one, that runs in native code. It is a {@link Module} like those written in TypeScript: its
 * parameters, buffers and children are its fields, under the names that the published checkpoint has.
 */
export class NativeModule extends Module {
  readonly #handle: ModuleHandle
  #prepare: ((handle: ModuleHandle) => void) | undefined

  constructor(handle: ModuleHandle) {
    super()
    this.#handle = handle
    // Not among the fields that are looked through for parameters: reading it needs the network, which may be disposed.
    Object.defineProperty(this, 'training', {
      get: () => isTraining(handle),
      set: (mode: boolean) => train(handle, mode),
      enumerable: false,
    })
    const fields = this as unknown as Record<string, unknown>
    scope(() => {
      const own = parametersOf(handle) as { names: string[]; tensors: Tensor[] }
      own.names.forEach((name, i) => {
        fields[name] = adopt(own.tensors[i] as Tensor)
      })
      const buffers = buffersOf(handle) as { names: string[]; tensors: Tensor[]; persistent: boolean[] }
      buffers.names.forEach((name, i) => {
        this.registerBuffer(name, buffers.tensors[i] as Tensor, { persistent: buffers.persistent[i] as boolean })
      })
    })
    for (const name of childrenOf(handle) as string[])
      fields[name] = new NativeModule(childOf(handle, name) as ModuleHandle)
  }

  static {
    withActiveAdapters = (module) => {
      if (!(#handle in module)) {
        throw new ConfigError(`${shown(module)} was given that is a Proxy around a network: use the network itself`, {})
      }
      module.#prepare?.(module.#handle)
      return module.#handle
    }
    handleOfNetwork = (module) => module.#handle
    nativeKind = (module) => kindOf(module.#handle) as string
    beforeCalls = (module, prepare) => {
      module.#prepare = prepare
    }
  }

  /** Fills the parameters and buffers with these names with fresh initial values, from the default generator. */
  initialize(names: string[]): this {
    initialize(this.#handle, names)
    return this
  }

  /**
   * With true, each layer of the network's transformer keeps only its inputs for backward and runs once more then, with
   * the same random numbers: the same gradients, in much less memory and a third more time. Like transformers'
   * `gradient_checkpointing_enable`.
   *
   * @throws ConfigError where the network, or this part of it, has no such layers
   */
  gradientCheckpointing(enabled: boolean): this {
    if (typeof enabled !== 'boolean') {
      throw new ConfigError(`gradientCheckpointing: enabled must be true or false, not ${String(enabled)}`, { enabled })
    }
    if (setCheckpointing(this.#handle, enabled) === 0) {
      throw new ConfigError(`gradientCheckpointing: ${this.constructor.name} has no stack of transformer layers`, {})
    }
    return this
  }

  protected override watchForward(hooks: ForwardHooks): () => void {
    // A network's class has a forward to wrap; its parts are called by native code.
    if (this.forward !== Module.prototype.forward) return super.watchForward(hooks)
    const handle = this.#handle
    if (!isBlock(handle)) {
      const parts = this.namedChildren().map(([name]) => name)
      throw new ConfigError(
        `a ${kindOf(handle)} has no output of its own to hook; hook its parts: ${parts.join(', ')}`,
        {},
      )
    }
    setBlockHook(handle, callbackOf(new WeakRef(hooks)))
    return () => {
      if (native.isLive(handleOf(handle))) setBlockHook(handle, null)
    }
  }

  protected override get reprName(): string {
    // The parts of a network are all of this class; their native ones tell them apart.
    if (this.constructor !== NativeModule) return super.reprName
    return native.isLive(handleOf(this.#handle)) ? (kindOf(this.#handle) as string) : 'NativeModule'
  }

  /** Return the sizes of a linear layer, an embedding or a norm; of other parts what a class of yours says, or nothing. */
  override extraRepr(): string {
    const { weight, bias } = this as unknown as { weight?: unknown; bias?: unknown }
    const known = weight instanceof Tensor && !weight.disposed && isFloating(weight.dtype)
    return known ? nativeRepr(this.reprName, weight.shape, bias instanceof Tensor) : super.extraRepr()
  }

  /** Layers of a stack are shown once where they read the same. */
  protected override get joinsAlike(): boolean {
    return this.reprName === 'ModuleList'
  }

  protected override freeNative(): void {
    native.release(handleOf(this.#handle))
  }
}

/** Has a block call a registered callback with its input and output, or with null no longer. */
export function setBlockHook(handle: ModuleHandle, callback: number | null): void {
  const write = () => {
    put(handle)
    put(callback)
  }
  callNative(native.setForwardHook, write, false)
}

/**
 * Native code holds the callback as long as the block lives. With the hooks in it, or with the handle in the scope that it
 * is made in, neither would ever be collected.
 */
function callbackOf(hooks: WeakRef<ForwardHooks>): number {
  return registerCallback(inCallback(([input, output]) => [checked(hooks.deref()?.run([input], output) ?? output)]))
}

function checked(output: unknown): Tensor {
  if (output instanceof Tensor) return output
  throw new ConfigError(`a forward hook of a native block must return a Tensor or nothing, not ${shown(output)}`, {})
}
