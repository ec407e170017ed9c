import { optionsOf, shown } from '../base/arguments.js'
import { requireObject } from '../base/check.js'
import { ConfigError } from '../base/errors.js'
import { type KvCache, nativeCacheOf } from '../generation/kv-cache.js'
import { opAsync } from '../native/call.js'
import { currentDevice } from '../native/context.js'
import { requireTensorInputs } from '../nn/check.js'
import { Module } from '../nn/module.js'
import { isConfiguration, makeNative, NativeModule, withActiveAdapters } from '../nn/native-module.js'
import type { MakeOptions, NetworkOptions } from '../nn/parameter.js'
import { type Device, noGrad, Tensor } from '../tensor/index.js'
import { withSeed } from '../tensor/random.js'
import { type ConfigKeys, completedConfig, keepOthers, keysOf, partedConfig } from './config-keys.js'
import {
  type LoadNetworkOptions,
  loadNetwork,
  type NetworkKind,
  type SaveNetworkOptions,
  saveNetwork,
} from './pretrained.js'
import type { Fillable } from './weights.js'

/** A network's configuration. Keys of published files that the network does not need are kept for saving. */
export interface NetworkConfig {
  [key: string]: unknown
}

/** The differences between network classes: names, sizes, and the layout of configurations and checkpoints. */
export interface NetworkLayout<C extends NetworkConfig = NetworkConfig> extends NetworkKind {
  /** Configurations by the names of published sizes. */
  sizes: Record<string, C>
  /** Keys of the configuration. */
  keys: ConfigKeys | ((config: C) => ConfigKeys)
  /** Complete the configuration with values that follow from others. */
  completed?: (config: C) => C
  /** Complete the configuration of a file by the names of its weights. */
  found?: (config: C, has: (name: string) => boolean) => C
  /** Return patterns of names with tied weights; a file may have those twice. */
  tied?: (config: C) => RegExp[]
  /** Return the configuration for native code. */
  native?: (config: C) => NetworkConfig
  /** Return the configuration for config.json. */
  saved?: (config: C) => NetworkConfig
  /** Return model type and architecture for config.json, if they depend on the configuration. */
  savedAs?: (config: C) => Pick<NetworkKind, 'modelType' | 'architecture'>
}

/** Static methods of a class with networks `M`. */
export interface NetworkStatics<M, C extends NetworkConfig> {
  /**
   * Create a network with random weights.
   * @param config a configuration or the name of a published size
   * @throws ConfigError for an unknown name or option, and for an inconsistent configuration
   */
  fromConfig(config: C | string, options?: NetworkOptions): M
  /**
   * Load the weights of a directory or hub repository in transformers' layout; the network is in evaluation mode. Checkpoints of
   * models with another head work too. If a checkpoint lacks weights, `allowMissing` initializes them.
   * @throws CheckpointError with missing, unexpected and mis-shaped names
   */
  fromPretrained(from: string, options?: LoadNetworkOptions & ConfigChanges<C>): Promise<M>
}

export interface ConfigChanges<C> {
  /** Changes to the directory's configuration, such as `{ attentionDropout: 0.1 }`. Keys that determine shapes cannot change. */
  config?: Partial<C>
}

/** Constructor of a network. */
export type NetworkConstructor<C extends NetworkConfig, M> = new (config: C, options?: MakeOptions) => M

/** Static methods of a base class, which create an instance of the class on which they are called. */
export interface HeadStatics<C extends NetworkConfig> {
  /** Create a network with random weights from a config. */
  fromConfig<M extends Module>(this: NetworkConstructor<C, M>, config: C | string, options?: NetworkOptions): M
  /** Load a folder or repository of the Hugging Face hub. */
  fromPretrained<M extends Fillable>(
    this: NetworkConstructor<C, M>,
    from: string,
    options?: LoadNetworkOptions & ConfigChanges<C>,
  ): Promise<M>
}

/** Members of a network in addition to its layers. */
export interface SavableNetwork<C extends NetworkConfig> {
  readonly config: C
  /** Write config.json and model.safetensors, which transformers and `fromPretrained` read. */
  save(directory: string, options?: SaveNetworkOptions): Promise<void>
}

/** A network that runs in native code. */
export interface Network<C extends NetworkConfig, Inputs, Output> extends NativeModule, SavableNetwork<C> {
  /**
   * Run the network on the executor.
   * @throws ShapeError if the shapes of the inputs do not match
   */
  forward(inputs: Inputs): Promise<Output>
}

/**
 * Return the class of a network in native code: `layout.kind` names the native network, `layout.forward` its operator. `M` is the
 * class that extends the result.
 */
export function networkClass<M, C extends NetworkConfig, Inputs extends object, Output>(
  layout: NetworkLayout<C> & { forward: string },
): NetworkStatics<M, C> & NetworkConstructor<C, Network<C, Inputs, Output>> {
  const run = opAsync(layout.forward)
  return withFiles(
    class extends NativeModule {
      readonly config: C

      constructor(config: C, options: MakeOptions = {}) {
        const whole = wholeConfig(new.target.name, layout, config)
        // A copy would turn an invalid value into an object; makeNative reports what is wrong with the original.
        const native = isConfiguration(whole) ? layout.native?.(whole) : undefined
        super(makeNative(layout.kind, native ?? whole, options))
        this.config = whole
      }

      override async forward(inputs: Inputs): Promise<Output> {
        // Native code also takes the first input alone.
        if (!(inputs instanceof Tensor)) requireTensorInputs(`${this.constructor.name}.forward`, inputs)
        return run(withActiveAdapters(this), withCaches(inputs))
      }
    },
    () => layout,
  )
}

/** Return the configuration with every key that a network of the layout reads. */
function wholeConfig<C extends NetworkConfig>(where: string, layout: NetworkLayout<C>, config: C): C {
  const whole = completedConfig(where, keysOf(layout.keys, config), config)
  return isConfiguration(whole) ? (layout.completed?.(whole) ?? whole) : whole
}

function withCaches<Inputs extends object>(inputs: Inputs): Inputs {
  const { cache, encoderCache } = (inputs ?? {}) as { cache?: KvCache | null; encoderCache?: KvCache | null }
  if (!cache && !encoderCache) return inputs
  const prepared = { ...inputs }
  if (cache) Object.assign(prepared, { cache: nativeCacheOf(cache) })
  if (encoderCache) Object.assign(prepared, { encoderCache: nativeCacheOf(encoderCache) })
  return prepared
}

/** The native network under a head that is written in TypeScript. */
export interface Trunk<C extends NetworkConfig> {
  /** Name of its field, which is the prefix of its parameters' names. */
  field: string
  make(config: C, options: MakeOptions): NativeModule
}

/** Base class of heads over a network in native code, like transformers' classes `…For…`. */
export abstract class HeadNetwork<C extends NetworkConfig> extends Module {
  readonly config: C

  protected constructor({ field, make }: Trunk<C>, layout: NetworkLayout<C>, config: C, options: MakeOptions) {
    super()
    requireObject(layout.architecture, 'config', config)
    this.config = wholeConfig(layout.architecture, layout, config)
    Reflect.set(this, field, make(this.config, options))
  }

  /** Initialize the layers, unless a file provides their values. Call it at the end of the constructor. */
  protected begin({ initialize = true }: MakeOptions): void {
    if (!initialize) return
    const trunks = this.namedChildren().flatMap(([field, child]) =>
      child instanceof NativeModule ? [`${field}.`] : [],
    )
    const own = Object.keys(this.stateDict()).filter((name) => !trunks.some((trunk) => name.startsWith(trunk)))
    this.initialize(own)
  }

  /** Initialize the parameters and buffers with these names, with the default random generator. */
  initialize(names: string[]): this {
    const left = new Set(names)
    for (const [field, child] of this.namedChildren()) {
      if (!(child instanceof NativeModule)) continue
      const inside = names.filter((name) => name.startsWith(`${field}.`))
      for (const name of inside) left.delete(name)
      if (inside.length > 0) child.initialize(inside.map((name) => name.slice(field.length + 1)))
    }
    const state = this.stateDict()
    noGrad(() => {
      for (const name of left) this.initial(name, state[name] as Tensor)
    })
    return this
  }

  /** Initialize a parameter of the layers. */
  protected initial(_name: string, values: Tensor): void {
    if (values.ndim < 2) values.zero_()
    else values.normal_(0, (this.config.initializerRange as number | undefined) ?? 0.02)
  }
}

/** Return a base class of heads; `layoutOf` and `trunkOf` are called with the class of the new instance. */
export function headClass<C extends NetworkConfig, Type>(
  layoutOf: (type: Type) => NetworkLayout<C>,
  trunkOf: (type: Type) => Trunk<C>,
): HeadStatics<C> & (abstract new (config: C, options?: MakeOptions) => HeadNetwork<C> & SavableNetwork<C>) {
  return withFiles(
    class extends HeadNetwork<C> {
      constructor(config: C, options: MakeOptions = {}) {
        const type = new.target as Type
        super(trunkOf(type), layoutOf(type), config, options)
      }
    },
    layoutOf,
  )
}

/** A network that reads further files of a directory. */
interface Loaded extends Module {
  loaded?(directory: string, from: string): Promise<void>
}

/** Add the static methods and `save` to a class. */
function withFiles<C extends NetworkConfig, Class>(
  Base: NetworkConstructor<C, Fillable & { readonly config: C }>,
  layoutOf: (type: never) => NetworkLayout<C>,
): Class {
  return class extends Base {
    // biome-ignore-start lint/complexity/noThisInStatic: the class that the method is called on
    static fromConfig<T extends Module>(
      this: NetworkConstructor<C, T>,
      config: C | string,
      options: NetworkOptions = {},
    ): T {
      const { seed, ...factory } = optionsOf(options, `${this.name}.fromConfig`)
      const whole = configOf(this.name, config, layoutOf(this as never).sizes)
      const device = (factory.device ?? currentDevice() ?? 'cpu') as Device
      return withSeed(seed, () => new this(whole, factory), device)
    }

    static async fromPretrained<T extends Fillable>(
      this: NetworkConstructor<C, T>,
      from: string,
      options: LoadNetworkOptions & ConfigChanges<C> = {},
    ): Promise<T> {
      const layout = layoutOf(this as never)
      const optional = [...(layout.optional ?? [])]
      const { config: changes = {}, ...others } = optionsOf(options, `${this.name}.fromPretrained`)
      requireObject(`${this.name}.fromPretrained`, 'config', changes)
      const loading = options.config === undefined ? options : others
      const { network, directory } = await loadNetwork({ ...layout, optional }, from, loading, (read, factory, has) => {
        const found = layout.found?.(read as C, has) ?? (read as C)
        const { known, others } = partedConfig(from, keysOf(layout.keys, found), found)
        const created = new this({ ...known, ...changes }, factory)
        keepOthers(created, others)
        // The network's own configuration has all defaults.
        optional.push(...(layout.tied?.((created as unknown as SavableNetwork<C>).config) ?? []))
        return created
      })
      try {
        await (network as Loaded).loaded?.(directory, from)
      } catch (error) {
        network.dispose()
        throw error
      }
      return network
    }
    // biome-ignore-end lint/complexity/noThisInStatic: the class that the method is called on

    save(directory: string, options: SaveNetworkOptions = {}): Promise<void> {
      const layout = layoutOf(this.constructor as never)
      const { config } = this
      const kind = { ...layout, ...layout.savedAs?.(config) }
      return saveNetwork(kind, directory, this, layout.saved?.(config) ?? config, options)
    }
  } as never
}

/** Return a copy of a configuration, or the configuration of a published size by its name. */
export function configOf<C extends NetworkConfig>(network: string, config: C | string, sizes: Record<string, C>): C {
  if (typeof config === 'string') {
    const found = Object.hasOwn(sizes, config) ? sizes[config] : undefined
    if (found) return { ...found }
    throw new ConfigError(
      `${network}: config: expected a published size of ${Object.keys(sizes).join(', ')}, got ${shown(config)}. Correct it.`,
      { config },
    )
  }
  if (!isConfiguration(config)) {
    throw new ConfigError(
      `${network}: config: expected a configuration or the name of a size, got ${shown(config)}. Pass one.`,
    )
  }
  return { ...config }
}
