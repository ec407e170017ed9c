import { optionsOf, shown } from '../base/arguments.js'
import { requireObject } from '../base/check.js'
import { ConfigError } from '../base/errors.js'
import { type KvCache, nativeCacheOf } from '../generation/kv-cache.js'
import { opAsync } from '../native/call.js'
import { currentContext } from '../native/context.js'
import { Module } from '../nn/module.js'
import { isConfiguration, makeNative, NativeModule, withActiveAdapters } from '../nn/native-module.js'
import type { MakeOptions, NetworkOptions } from '../nn/parameter.js'
import { type Device, noGrad, type Tensor } from '../tensor/index.js'
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

/** A network's configuration. Published files have more keys than a network needs; they are kept for saving. */
export interface NetworkConfig {
  [key: string]: unknown
}

/** What the classes of networks differ in: names, sizes, and how their configurations and checkpoints look. */
export interface NetworkLayout<C extends NetworkConfig = NetworkConfig> extends NetworkKind {
  /** Configurations by the names of published sizes. */
  sizes: Record<string, C>
  /** What the configuration may say. */
  keys: ConfigKeys | ((config: C) => ConfigKeys)
  /** The complete configuration with what follows from it, which the network then has. */
  completed?: (config: C) => C
  /** The configuration of a file, by what weights are there. */
  found?: (config: C, has: (name: string) => boolean) => C
  /** Names of the network's that share another one's weights; a file may hold them a second time. */
  tied?: (config: C) => RegExp[]
  /** What native code is given for `config`. */
  native?: (config: C) => NetworkConfig
  /** What config.json is given for `config`. */
  saved?: (config: C) => NetworkConfig
  /** What config.json calls such a network, where that depends on its configuration. */
  savedAs?: (config: C) => Pick<NetworkKind, 'modelType' | 'architecture'>
}

/** The static methods of a class whose networks are `M`. */
export interface NetworkStatics<M, C extends NetworkConfig> {
  /**
   * Random weights.
   * @param config a configuration or the name of a published size
   * @throws ConfigError for a name that is none, for an unknown option, and where the configuration contradicts itself
   */
  fromConfig(config: C | string, options?: NetworkOptions): M
  /**
   * The weights of a directory or hub repository in transformers' layout, in evaluation mode. Checkpoints of models with
   * another head on top work too; one that lacks weights needs `allowMissing`, which gives those fresh values.
   * @throws CheckpointError that lists missing, unexpected and mis-shaped names
   */
  fromPretrained(from: string, options?: LoadNetworkOptions & ConfigChanges<C>): Promise<M>
}

export interface ConfigChanges<C> {
  /** Over the directory's configuration, such as `{ attentionDropout: 0.1 }`; what decides shapes has to stay as it is. */
  config?: Partial<C>
}

/** Its constructor. */
export type NetworkConstructor<C extends NetworkConfig, M> = new (config: C, options?: MakeOptions) => M

/** The same of a class with several below it, which make what they are called on. */
export interface HeadStatics<C extends NetworkConfig> {
  /** As {@link NetworkStatics.fromConfig}. */
  fromConfig<M extends Module>(this: NetworkConstructor<C, M>, config: C | string, options?: NetworkOptions): M
  /** As {@link NetworkStatics.fromPretrained}. */
  fromPretrained<M extends Fillable>(
    this: NetworkConstructor<C, M>,
    from: string,
    options?: LoadNetworkOptions & ConfigChanges<C>,
  ): Promise<M>
}

/** What a network has besides its layers. */
export interface SavableNetwork<C extends NetworkConfig> {
  readonly config: C
  /** Writes config.json and model.safetensors, which transformers and `fromPretrained` read. */
  save(directory: string, options?: SaveNetworkOptions): Promise<void>
}

/** A network that runs in native code. */
export interface Network<C extends NetworkConfig, Inputs, Output> extends NativeModule, SavableNetwork<C> {
  /**
   * Runs on the executor.
   * @throws ShapeError where the arguments' shapes do not fit each other
   */
  forward(inputs: Inputs): Promise<Output>
}

/**
 * The class of a network that runs in native code: it is made from `layout.kind` and calls the operator `layout.forward`.
 * `M` is the class that extends it.
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
        // What is no configuration is not to become one by being copied: makeNative says what is wrong with it.
        const native = isConfiguration(whole) ? layout.native?.(whole) : undefined
        super(makeNative(layout.kind, native ?? whole, options))
        this.config = whole
      }

      override forward(inputs: Inputs): Promise<Output> {
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
  const made = { ...inputs }
  if (cache) Object.assign(made, { cache: nativeCacheOf(cache) })
  if (encoderCache) Object.assign(made, { encoderCache: nativeCacheOf(encoderCache) })
  return made
}

/** The network that layers written here stand on. */
export interface Trunk<C extends NetworkConfig> {
  /** The field that it is in, and the prefix of its parameters' names. */
  field: string
  make(config: C, options: MakeOptions): NativeModule
}

/** Layers written here over a network that runs in native code, as transformers' classes `…For…`. */
export abstract class HeadNetwork<C extends NetworkConfig> extends Module {
  readonly config: C

  protected constructor({ field, make }: Trunk<C>, layout: NetworkLayout<C>, config: C, options: MakeOptions) {
    super()
    requireObject(layout.architecture, 'config', config)
    this.config = wholeConfig(layout.architecture, layout, config)
    Reflect.set(this, field, make(this.config, options))
  }

  /** Gives the layers their first values, unless those come from a file: the last act of a constructor. */
  protected begin({ initialize = true }: MakeOptions): void {
    if (!initialize) return
    const trunks = this.namedChildren().flatMap(([field, child]) =>
      child instanceof NativeModule ? [`${field}.`] : [],
    )
    const own = Object.keys(this.stateDict()).filter((name) => !trunks.some((trunk) => name.startsWith(trunk)))
    this.initialize(own)
  }

  /** Gives the parameters and buffers with these names fresh values, from the default generator. */
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

  /** Fills a parameter of the layers. */
  protected initial(_name: string, values: Tensor): void {
    if (values.ndim < 2) values.zero_()
    else values.normal_(0, (this.config.initializerRange as number | undefined) ?? 0.02)
  }
}

/** The class of layers over a network; `layoutOf` and `trunkOf` are asked for the class that is made. */
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

/** A network that takes more of a directory than weights. */
interface Loaded extends Module {
  loaded?(directory: string, from: string): Promise<void>
}

/** Adds what the static methods and `save` are. */
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
      const { seed, ...factory } = optionsOf(options)
      const whole = configOf(this.name, config, layoutOf(this as never).sizes)
      const device = (factory.device ?? currentContext().deviceName ?? 'cpu') as Device
      return withSeed(seed, () => new this(whole, factory), device)
    }

    static async fromPretrained<T extends Fillable>(
      this: NetworkConstructor<C, T>,
      from: string,
      options: LoadNetworkOptions & ConfigChanges<C> = {},
    ): Promise<T> {
      const layout = layoutOf(this as never)
      const optional = [...(layout.optional ?? [])]
      const { config: changes = {}, ...others } = optionsOf(options)
      requireObject(`${this.name}.fromPretrained`, 'config', changes)
      const loading = options.config === undefined ? options : others
      const { network, directory } = await loadNetwork({ ...layout, optional }, from, loading, (read, factory, has) => {
        const found = layout.found?.(read as C, has) ?? (read as C)
        const { known, others } = partedConfig(from, keysOf(layout.keys, found), found)
        const made = new this({ ...known, ...changes }, factory)
        keepOthers(made, others)
        // What the configuration says with its defaults is known to the network.
        optional.push(...(layout.tied?.((made as unknown as SavableNetwork<C>).config) ?? []))
        return made
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

/** A configuration given as an object or by the name of a published size. */
export function configOf<C extends NetworkConfig>(network: string, config: C | string, sizes: Record<string, C>): C {
  if (typeof config === 'string') {
    const found = Object.hasOwn(sizes, config) ? sizes[config] : undefined
    if (found) return { ...found }
    throw new ConfigError(`${network} has no size '${config}'; it has ${Object.keys(sizes).join(', ')}`, { config })
  }
  if (!isConfiguration(config)) {
    throw new ConfigError(`${network} needs a configuration or the name of one, not ${shown(config)}`)
  }
  return { ...config }
}
