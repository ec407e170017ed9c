import { optionsOf, shown } from '../base/arguments.js'
import {
  ConfigError,
  DTypeError,
  IndexError,
  InsufficientMemoryError,
  OperatorError,
  ShapeError,
} from '../base/errors.js'
import { toSnake, withArticle } from '../base/words.js'
import { native } from '../native/addon.js'
import { callNative, op } from '../native/call.js'
import { registerCallback } from '../native/callbacks.js'
import { currentDevice } from '../native/context.js'
import { put } from '../native/encode.js'
import { handleOf } from '../native/handle.js'
import type { ModuleHandle } from '../native/objects.js'
import { requireDevice, requireNetworkDType } from '../tensor/dtype.js'
import { type Device, scope } from '../tensor/index.js'
import { withSeed } from '../tensor/random.js'
import { inCallback, Tensor } from '../tensor/tensor.js'
import { isFloating } from './check.js'
import type { ForwardHooks, HookKind } from './hooks.js'
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
 * Return the native object of a module for an operator call; the adapters that are active in the current context are first
 * activated in it.
 */
export let withActiveAdapters: (module: NativeModule) => ModuleHandle
/** Return the native object unchanged, for an operator that does not run the network. */
export let handleOfNetwork: (module: NativeModule) => ModuleHandle
/** Return the class of the native object: 'Linear', 'WavLM'. */
export let nativeKind: (module: NativeModule) => string
/** Register a function to call before the network's next operator, if its active adapters may have changed since the last one. */
export let beforeCalls: (module: NativeModule, prepare: (handle: ModuleHandle) => void) => void

/**
 * Build a native network from its configuration.
 * @throws ConfigError that names the wrong key; InsufficientMemoryError if the network is larger than memory
 */
export function makeNative(kind: string, config: object, options: MakeOptions = {}): ModuleHandle {
  if (!isConfiguration(config)) {
    throw new ConfigError(`${kind}: expected a configuration object, got ${shown(config)}`, { network: kind, config })
  }
  const {
    device = currentDevice() ?? 'cpu',
    dtype = 'float32',
    initialize = true,
    seed,
  } = optionsOf(options, kind, ['device', 'dtype', 'initialize', 'seed'])
  const json = configurationText(kind, config)
  requireDevice(`${kind}: device`, device)
  requireNetworkDType(`${kind}: dtype`, dtype)
  try {
    // Linux overcommits memory, and kills the process when it is used.
    if (typeof device === 'string' && device.startsWith('cpu'))
      requireMemory(kind, bytesOf(kind, json, { dtype }) as number)
    return withSeed(seed, () => make(kind, json, { device, dtype, initialize }) as ModuleHandle, device as Device)
  } catch (error) {
    // The message is about a key of the configuration, whatever error class its wording suggests.
    const named =
      (error instanceof ConfigError || error instanceof DTypeError) && /^module(_bytes)?: /.test(error.message)
    if (!(named || error instanceof ShapeError || error instanceof OperatorError || error instanceof IndexError))
      throw error
    throw new ConfigError(error.message.replace(/^module(_bytes)?: /, `${kind}: `), { network: kind, cause: error })
  }
}

/** A Map or a Date has none of the configuration's fields, so all defaults would apply: a network of 7 billion parameters. */
export const isConfiguration = (config: unknown): config is object =>
  typeof config === 'object' &&
  config !== null &&
  !Array.isArray(config) &&
  (Object.keys(config).length > 0 || [Object.prototype, null].includes(Object.getPrototypeOf(config)))

/** Return the configuration as JSON for native code, whose errors name the wrong key. */
function configurationText(network: string, config: object): string {
  const wrong = (key: string, value: unknown) =>
    new ConfigError(
      `${network}: expected a value that JSON can store as '${key}' of the configuration, got ${shown(value)}`,
      { network, key },
    )
  try {
    return JSON.stringify(toSnake(config), (key, value: unknown) => {
      if (typeof value === 'symbol' || typeof value === 'function') throw wrong(key, value)
      // JSON would turn these into null, which means the default. As strings they are rejected where a number is expected.
      if (typeof value === 'number' && !Number.isFinite(value)) return String(value)
      if (typeof value !== 'bigint') return value
      return Number.isFinite(Number(value)) ? Number(value) : String(value)
    })
  } catch (cause) {
    if (cause instanceof ConfigError) throw cause
    throw new ConfigError(`${network}: expected a configuration that JSON can store: ${(cause as Error).message}`, {
      network,
      cause,
    })
  }
}

function requireMemory(network: string, bytes: number): void {
  const available = process.availableMemory()
  if (bytes <= available) return
  throw new InsufficientMemoryError(
    `${network}: expected a network that fits in ${available} bytes of available memory, got one that needs ${bytes}`,
    { network, bytes, available },
  )
}

/**
 * A network, or a part of one, that runs in native code. It is a {@link Module} like those written in TypeScript: its
 * parameters, buffers and children are its fields, under the names of the published checkpoint.
 */
export class NativeModule extends Module {
  readonly #handle: ModuleHandle
  #prepare: ((handle: ModuleHandle) => void) | undefined

  constructor(handle: ModuleHandle) {
    super()
    this.#handle = handle
    // Not enumerable: the traversal for parameters would read it, which needs the network, and that may be disposed.
    Object.defineProperty(this, 'training', {
      get: () => isTraining(handle),
      set: (mode: boolean) => train(handle, mode),
      enumerable: false,
    })
    const fields = this as unknown as Record<string, unknown>
    scope(() => {
      const nativeParameters = parametersOf(handle) as { names: string[]; tensors: Tensor[] }
      nativeParameters.names.forEach((name, i) => {
        fields[name] = adopt(nativeParameters.tensors[i] as Tensor)
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
        throw new ConfigError(
          `expected a network, got ${shown(module)} that is a Proxy around one. Use the network itself`,
          {},
        )
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

  /** Fill the parameters and buffers with these names with initial values from the default generator. */
  initialize(names: string[]): this {
    initialize(this.#handle, names)
    return this
  }

  /**
   * Enable or disable gradient checkpointing: each layer of the network's transformer stores only its inputs and runs again in
   * backward with the same random numbers. The gradients are the same, with much less memory and a third more time. Like
   * transformers' `gradient_checkpointing_enable`.
   *
   * @throws ConfigError if the network, or this part of it, has no such layers
   */
  gradientCheckpointing(enabled: boolean): this {
    if (typeof enabled !== 'boolean') {
      throw new ConfigError(`gradientCheckpointing: expected enabled to be true or false, got ${String(enabled)}`, {
        enabled,
      })
    }
    if (setCheckpointing(this.#handle, enabled) === 0) {
      throw new ConfigError(
        `gradientCheckpointing: expected a module with transformer layers, got ${this.constructor.name}`,
        {},
      )
    }
    return this
  }

  protected override requireHook(kind: HookKind, where: string): void {
    if (kind === 'forward' || this.forward !== Module.prototype.forward) return
    throw new ConfigError(
      `${where}: expected a module with a forward in TypeScript, got ${withArticle(this.reprName)} that native code calls. Hook the whole network, or use registerForwardHook() on this part`,
      {},
    )
  }

  protected override requireReplaceable(path: string): void {
    throw new ConfigError(
      `Module.setSubmodule('${path}'): expected a child that a module in TypeScript calls, got a part of ${withArticle(this.reprName)} that native code calls. Use getPeftModel for adapters, or replace the whole network`,
      { path },
    )
  }

  protected override watchForward(hooks: ForwardHooks): () => void {
    // A network's class has a forward to wrap; its parts are called by native code.
    if (this.forward !== Module.prototype.forward) return super.watchForward(hooks)
    const handle = this.#handle
    if (!isBlock(handle)) {
      const parts = this.namedChildren().map(([name]) => name)
      throw new ConfigError(
        `registerForwardHook: expected a block with an output of its own, got ${withArticle(kindOf(handle))}. Hook its parts: ${parts.join(', ')}`,
        {},
      )
    }
    setBlockHook(handle, callbackOf(new WeakRef(hooks)))
    return () => {
      if (native.isLive(handleOf(handle))) setBlockHook(handle, null)
    }
  }

  protected override get reprName(): string {
    // All parts of a network have this class; their native kinds distinguish them.
    if (this.constructor !== NativeModule) return super.reprName
    return native.isLive(handleOf(this.#handle)) ? (kindOf(this.#handle) as string) : 'NativeModule'
  }

  /** Return the sizes of a linear layer, an embedding or a norm; for other parts the class's own text, or ''. */
  override extraRepr(): string {
    const { weight, bias } = this as unknown as { weight?: unknown; bias?: unknown }
    const known = weight instanceof Tensor && !weight.disposed && isFloating(weight.dtype)
    return known ? nativeRepr(this.reprName, weight.shape, bias instanceof Tensor) : super.extraRepr()
  }

  /** Whether layers of a stack with equal text are shown once. */
  protected override get joinsAlike(): boolean {
    return this.reprName === 'ModuleList'
  }

  protected override freeNative(): void {
    native.release(handleOf(this.#handle))
  }
}

/** Make a block call a registered callback with its input and output; null removes it. */
export function setBlockHook(handle: ModuleHandle, callback: number | null): void {
  const write = () => {
    put(handle)
    put(callback)
  }
  callNative(native.setForwardHook, write, false)
}

/**
 * Native code holds the callback as long as the block lives. A strong reference to the hooks, or the handle in the current
 * scope, would prevent both from ever being collected.
 */
function callbackOf(hooks: WeakRef<ForwardHooks>): number {
  return registerCallback(inCallback(([input, output]) => [checked(hooks.deref()?.run([input], output) ?? output)]))
}

function checked(output: unknown): Tensor {
  if (output instanceof Tensor) return output
  throw new ConfigError(
    `registerForwardHook: expected the hook of a native block to return a Tensor or undefined, got ${shown(output)}`,
    {},
  )
}
