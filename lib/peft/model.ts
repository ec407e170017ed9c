import { join } from 'node:path'
import { optionsOf } from '../base/arguments.js'
import { writeFolderAtomically } from '../base/atomic-folder.js'
import { argumentError, requireFunction, requireNumber, requireOptions, requireString } from '../base/check.js'
import { CheckpointError, ConfigError } from '../base/errors.js'
import { currentContext, withContext } from '../native/context.js'
import { adaptersOf, Module, setAdapters } from '../nn/module.js'
import { outputLayerOf } from '../nn/output-layer.js'
import { isConstant, type Parameter } from '../nn/parameter.js'
import { keepForever, type Tensor } from '../tensor/index.js'
import { checkedCombination, combine, configOfCombination, type WeightedAdapterOptions } from './combine.js'
import { type LoraConfig, type ResolvedLoraConfig, resolveConfig } from './config.js'
import { fileNamesOf, namedForFile, namedForModel } from './file-names.js'
import { type AdapterFile, fill, readAdapter, writeAdapter } from './files.js'
import { LoraLayer } from './layer.js'
import { MergedWeights } from './merge.js'
import { NativeNetworks, nativeName } from './native.js'
import { embeddingWeights, sharedBiases, UntiedHeads } from './output-layers.js'
import { dequantizeLayer } from './packed-layer.js'
import { patternValues, withinOneLimit } from './patterns.js'
import { SavedModule } from './saved-modules.js'
import { fileTargets, findModulesToSave, findTargets, namesEmbeddings, type Target } from './targets.js'
import { findTokenTargets } from './tokens.js'

export interface AdapterOptions {
  /** Name of the adapter. Default 'default'. */
  adapterName?: string
}

export interface LoadAdapterOptions extends AdapterOptions {
  /** Whether the adapter will be trained further. Default false. */
  isTrainable?: boolean
}

export interface MergeOptions {
  /** Convert quantized weights back to floating point, permanently. Default false. */
  dequantize?: boolean
}

interface Adapter {
  config: ResolvedLoraConfig
  nativeName: string
  /** Native names under which the adapter is attached with a factor, by factor. */
  scaled: Map<number, string>
}

/**
 * Add a low-rank adapter to the layers of a network that `config` selects, and freeze everything else. The network stays the
 * same object with the same state dictionary. The adapter's parameters are among its `parameters()`, so an optimizer created
 * afterwards trains them.
 *
 * ```ts
 * const peft = getPeftModel(model, { r: 16, loraAlpha: 32, targetModules: ['query', 'value'] })
 * const optimizer = new AdamW(model.parameters().filter((parameter) => parameter.requiresGrad), { lr: 1e-4 })
 * await peft.savePretrained('adapter')
 * ```
 *
 * Works on Linear, Conv1d and Embedding, in native networks and in those written in TypeScript. In a network in half precision
 * the adapter is float32; a linear layer computes it in the layer's dtype.
 * @throws ConfigError if the configuration matches no layer, or the network already has adapters
 */
export function getPeftModel<M extends Module>(
  model: M,
  config: LoraConfig,
  options: AdapterOptions = {},
): PeftModel<M> {
  const peft = new PeftModel(model)
  peft.addAdapter(optionsOf(options, 'getPeftModel', ['adapterName']).adapterName ?? 'default', config)
  return peft
}

const owners = new WeakMap<Module, PeftModel>()

/** Return the PeftModel of a network; undefined without adapters. */
export const peftModelOf = (model: Module): PeftModel | undefined => owners.get(model)

/** Add the adapter of a file to a network, and dispose the file's tensors. @throws CheckpointError as `loadAdapter` does */
export let adapterOfFile: <M extends Module>(model: M, file: AdapterFile) => PeftModel<M>

/** Adapters of a network, created by {@link getPeftModel} or {@link PeftModel.fromPretrained}. */
export class PeftModel<M extends Module = Module> {
  readonly model: M
  readonly #adapters = new Map<string, Adapter>()
  readonly #layers = new Map<Module, LoraLayer>()
  readonly #saved = new Map<Module, SavedModule>()
  readonly #networks: NativeNetworks
  readonly #heads: UntiedHeads
  readonly #merged = new MergedWeights()
  #active: readonly string[] = []

  static {
    adapterOfFile = (model, file) => {
      const peft = new PeftModel(model)
      peft.#load(file, {})
      return peft
    }
  }

  /** Use {@link getPeftModel}. */
  constructor(model: M) {
    if (!(model instanceof Module)) throw argumentError('getPeftModel', 'the model', 'a Module', model)
    if (model.modules().some((module) => adaptersOf(module) !== undefined)) {
      throw new ConfigError(
        'getPeftModel: expected a network without adapters. Add another one with addAdapter() of its PeftModel',
        {},
      )
    }
    this.model = model
    this.#heads = new UntiedHeads(model)
    owners.set(model, this as unknown as PeftModel)
    this.#networks = new NativeNetworks(model, () =>
      this.#activeNow().flatMap((name) => {
        const adapter = this.#adapters.get(name)
        return adapter?.scaled.get(this.#scaleNow()) ?? adapter?.nativeName ?? []
      }),
    )
  }

  /** Load an adapter that `savePretrained` or Python's peft wrote into a network. @throws CheckpointError */
  static async fromPretrained<M extends Module>(
    model: M,
    directory: string,
    options: LoadAdapterOptions = {},
  ): Promise<PeftModel<M>> {
    const peft = new PeftModel(model)
    await peft.loadAdapter(directory, options)
    return peft
  }

  /** Names of the active adapters, in the order in which they were set. */
  get activeAdapters(): readonly string[] {
    return this.#active
  }

  /** Names of all adapters. */
  get adapterNames(): readonly string[] {
    return [...this.#adapters.keys()]
  }

  /** Configurations by adapter name, with defaults filled in. */
  get peftConfig(): Record<string, Required<LoraConfig>> {
    return Object.fromEntries([...this.#adapters].map(([name, { config }]) => [name, { ...config }]))
  }

  /** Run the network. */
  forward(...args: Parameters<M['forward']>): ReturnType<M['forward']> {
    return this.model.forward(...(args as never[])) as ReturnType<M['forward']>
  }

  /** Add another adapter. The first one becomes active; activate later ones with `setAdapter`. */
  addAdapter(adapterName: string, config: LoraConfig): void {
    this.#add(adapterName, resolveConfig(config), true)
  }

  /**
   * Activate one adapter, or several, whose outputs are summed; the others no longer train. Pending calls of native networks
   * use the adapters that were active when they were made.
   * @throws BusyError while a queued call still uses adapters that train, or `modulesToSave`; await it first
   */
  setAdapter(adapterName: string | readonly string[]): void {
    this.#activate(this.#known('setAdapter', adapterName))
  }

  /**
   * Call `fn` with other active adapters; several such calls may run at the same time. `fn` may be async. The `modulesToSave`
   * of the adapters, however, are switched for all callers while `fn` runs.
   */
  withAdapter<T>(adapterName: string | readonly string[], fn: () => T): T {
    requireFunction('withAdapter', 'fn', fn)
    const names = this.#known('withAdapter', adapterName)
    this.#requireUnmerged('withAdapter')
    const adapters = new Map([...(currentContext().adapters ?? []), [this as object, names]])
    const run = () => withContext({ adapters }, fn)
    if (this.#saved.size === 0) return run()
    const before = this.#activeNow()
    const gradients = this.#savedGradients()
    this.#placeSaved(names)
    return finally_(run, () => {
      this.#placeSaved(before)
      for (const [parameter, gradient] of gradients) {
        parameter.grad = gradient
        gradient.dispose()
      }
    })
  }

  /** Return the gradients of `modulesToSave`, which placing other values drops. They may be sums over several batches. */
  #savedGradients(): [Parameter, Tensor][] {
    const parameters = [...this.#saved.values()].flatMap(({ module }) => [...module.parameters()])
    return [...new Set(parameters)].flatMap((parameter): [Parameter, Tensor][] => {
      const gradient = parameter.requiresGrad ? parameter.grad : null
      return gradient === null ? [] : [[parameter, keepForever(gradient)]]
    })
  }

  /** Call `fn` with all adapters disabled. */
  disableAdapter<T>(fn: () => T): T {
    return this.withAdapter([], fn)
  }

  /**
   * Call `fn` with the active adapters' outputs multiplied by `factor`. For example 0.5, as SALMONN's authors do to recover
   * abilities that fine-tuning has suppressed. Several such calls may run at the same time. `fn` may be async.
   */
  scaleAdapter<T>(factor: number, fn: () => T): T {
    requireNumber('scaleAdapter', 'factor', factor)
    requireFunction('scaleAdapter', 'fn', fn)
    this.#requireUnmerged('scaleAdapter')
    for (const [name, adapter] of this.#adapters) {
      if (factor === 1 || adapter.scaled.has(factor)) continue
      const other = nativeName(name)
      for (const layer of this.#layersOf(name)) layer.attachScaled(name, other, factor)
      adapter.scaled.set(factor, other)
    }
    const adapterScales = new Map([...(currentContext().adapterScales ?? []), [this as object, factor]])
    return withContext({ adapterScales }, fn)
  }

  /**
   * Combine several adapters into a new one, like peft's `add_weighted_adapter`: by default their weighted sum, truncated to a
   * rank. The new adapter is not active, and has a scaling of 1. A module that trains in full with one of them is copied.
   *
   * ```ts
   * peft.addWeightedAdapter(['angry', 'calm'], [0.7, 0.3], 'both', { combinationType: 'cat' })
   * ```
   * @throws ConfigError for adapters with DoRA, of different ranks if equal ones are required, or with the same module to save
   */
  addWeightedAdapter(
    adapters: readonly string[],
    weights: readonly number[],
    adapterName: string,
    options: WeightedAdapterOptions = {},
  ): void {
    const where = 'addWeightedAdapter'
    const names = this.#known(where, adapters)
    if (names.length !== adapters.length) throw argumentError(where, 'adapters', 'a list of different names', adapters)
    this.#requireNew(adapterName)
    const configs = names.map((name) => (this.#adapters.get(name) as Adapter).config)
    const combination = checkedCombination(names, weights, configs, options)
    const whole = [...this.#saved.values()].map((saved) => [saved, names.filter((name) => saved.has(name))] as const)
    const shared = whole.find(([, having]) => having.length > 1)
    if (shared) {
      const [{ path }, having] = shared
      throw new ConfigError(
        `${where}: expected at most one adapter that trains '${path}' in full, got ${having.join(' and ')}`,
        {},
      )
    }
    const paths = new Set(names.flatMap((name) => this.#layersOf(name).map(({ path }) => path)))
    const modulesToSave = whole.flatMap(([{ path }, having]) => (having.length > 0 ? [path] : []))
    const config = configOfCombination(configs, combination, [...paths], modulesToSave)
    this.#add(adapterName, config, false)
    for (const layer of this.#layersOf(adapterName)) combine(layer, adapterName, combination)
    for (const [saved, having] of whole) if (having[0] !== undefined) saved.copy(having[0], adapterName)
  }

  /** Remove an adapter and free it. If it was the only active one, the first remaining adapter becomes active. */
  deleteAdapter(adapterName: string): void {
    this.#known('deleteAdapter', adapterName)
    this.#requireUnmerged('deleteAdapter')
    const rest = this.#active.filter((name) => name !== adapterName)
    const next = [...this.#adapters.keys()].find((name) => name !== adapterName)
    this.#activate(rest.length > 0 || this.#active.length === 0 ? rest : next === undefined ? [] : [next])
    this.#forget(adapterName)
  }

  /**
   * Merge the active or the named adapters into the weights: the network computes the same without extra work. The original
   * weights are kept for `unmergeAdapter`.
   *
   * A quantized weight (see `quantize`) cannot take a merged adapter: with `dequantize` the layer's weight is permanently
   * converted to floating point, and `unmergeAdapter` restores the dequantized values.
   * @throws ConfigError if a layer is quantized and `dequantize` is not true
   * @throws BusyError while a queued call still reads the weights; await it first
   */
  mergeAdapter(adapterName: string | readonly string[] = this.#active, options: MergeOptions = {}): void {
    const names = this.#known('mergeAdapter', adapterName)
    this.#requireUnmerged('mergeAdapter')
    this.#requireCompatible(names)
    const layers = [...this.#layers.values()]
    const packed = layers.filter((layer) => layer.quantized && names.some((name) => layer.has(name)))
    if (packed.length > 0) {
      requireOptions('mergeAdapter', options, ['dequantize'])
      if (options.dequantize !== true) {
        const { path, quantized } = packed[0] as LoraLayer
        throw new ConfigError(
          `mergeAdapter: expected a floating-point weight, but '${path}' is quantized as ${quantized?.scheme}. Pass ` +
            '{ dequantize: true } to convert it to floating point',
          { path },
        )
      }
      for (const { module } of packed) dequantizeLayer(module)
    }
    this.#heads.untieMerged(layers.filter((layer) => names.some((name) => layer.has(name))))
    this.#merged.merge(layers, names)
  }

  /** Restore the original weights, bit for bit. */
  unmergeAdapter(): void {
    this.#merged.restore()
  }

  /** Merge the active adapters into the weights permanently, and remove all adapters. Returns the network. */
  mergeAndUnload(options: MergeOptions = {}): M {
    if (!this.#merged.any) this.mergeAdapter(this.#active, options)
    this.#merged.forget()
    for (const layer of this.#layers.values()) for (const name of layer.adapters.keys()) layer.giveBack(name, false)
    for (const saved of this.#saved.values()) saved.settle()
    this.#unload()
    this.#heads.tieEqual()
    return this.model
  }

  /** Remove all adapters. Returns the original network, still frozen. */
  unload(): M {
    this.#merged.restore()
    this.#placeSaved([])
    for (const saved of this.#saved.values()) saved.retie()
    this.#unload()
    this.#heads.tie()
    return this.model
  }

  /**
   * Write `adapter_config.json` and `adapter_model.safetensors`, which Python's peft reads. As in peft, the adapter 'default'
   * is written to the directory itself and others to a subdirectory with their name.
   */
  async savePretrained(directory: string, options: { selectedAdapters?: readonly string[] } = {}): Promise<void> {
    requireString('savePretrained', 'directory', directory)
    const { selectedAdapters = [...this.#adapters.keys()] } = optionsOf(options, 'savePretrained', ['selectedAdapters'])
    const names = this.#known('savePretrained', selectedAdapters)
    await writeFolderAtomically(directory, CheckpointError, async (temporary) => {
      for (const name of names) {
        const { config } = this.#adapters.get(name) as Adapter
        const paths = this.#lorasOf(name).map(({ path }) => path)
        const targetModules = fileTargets(this.model, config, paths)
        const folder = name === 'default' ? temporary : join(temporary, name)
        const known = outputLayerOf(this.model) !== undefined && namesEmbeddings(config, this.model)
        const whole = known && config.trainableTokenIndices === null
        const tensors = { ...this.#entries(name), ...(whole && embeddingWeights(this.model, this.#lorasOf(name))) }
        await writeAdapter(folder, ...namedForFile(this.model, { ...config, targetModules }, tensors))
      }
    })
  }

  /**
   * Load an adapter that `savePretrained` or Python's peft wrote. The first one becomes active.
   * @throws CheckpointError with `missing`, `unexpected` and `mismatched` names if it does not match this network
   */
  async loadAdapter(directory: string, options: LoadAdapterOptions = {}): Promise<void> {
    requireString('loadAdapter', 'directory', directory)
    requireOptions('loadAdapter', options, ['isTrainable', 'adapterName'])
    this.#requireNew(options.adapterName ?? 'default')
    this.#load(await readAdapter(directory), options)
  }

  #load(given: AdapterFile, { adapterName = 'default', isTrainable = false }: LoadAdapterOptions): void {
    const file = namedForModel(this.model, given)
    try {
      this.#add(adapterName, { ...file.config, inferenceMode: !isTrainable }, false)
      try {
        fill(this.#entries(adapterName), file, embeddingWeights(this.model, this.#lorasOf(adapterName)))
      } catch (error) {
        this.deleteAdapter(adapterName)
        throw error
      }
    } finally {
      for (const tensor of Object.values(file.tensors)) tensor.dispose()
    }
  }

  /**
   * Load saved values into all existing adapters, to resume a training.
   * @throws CheckpointError as `loadAdapter` does
   */
  async restore(directory: string): Promise<void> {
    requireString('restore', 'directory', directory)
    for (const name of this.#adapters.keys()) {
      const file = namedForModel(this.model, await readAdapter(name === 'default' ? directory : join(directory, name)))
      try {
        fill(this.#entries(name), file, embeddingWeights(this.model, this.#lorasOf(name)))
      } finally {
        for (const tensor of Object.values(file.tensors)) tensor.dispose()
      }
    }
  }

  /** Return the tensors that `savePretrained` writes, of all adapters. */
  adapterTensors(): Tensor[] {
    return [...this.#adapters.keys()].flatMap((name) => Object.values(this.#entries(name)))
  }

  /**
   * Return the matrices of an adapter that consists of them alone, for file formats of other programs.
   * @throws ConfigError if it has more: biases, tokens, modules that train in full
   * @internal
   */
  loraParts(
    adapterName: string,
  ): { path: string; A: Parameter; B: Parameter; magnitude: Parameter | null; scaling: number }[] {
    const [name] = this.#known('loraParts', [adapterName]) as [string]
    const saved = [...this.#saved.values()].find((module) => module.has(name))
    const { bias } = (this.#adapters.get(name) as Adapter).config
    if (saved !== undefined || bias !== 'none') {
      const what = saved === undefined ? `biases ('${bias}')` : `all of '${saved.path}'`
      throw new ConfigError(
        `loraParts: expected an adapter of low-rank matrices alone, but '${name}' also trains ${what}`,
        {
          name,
        },
      )
    }
    return this.#layersOf(name).map((layer) => {
      const lora = layer.adapters.get(name)
      if (lora === undefined) {
        throw new ConfigError(
          `loraParts: expected an adapter of low-rank matrices alone, but '${name}' also trains tokens of '${layer.path}'`,
          {
            name,
          },
        )
      }
      const { A, B, magnitude, scaling } = lora
      return { path: layer.path, A, B, magnitude, scaling }
    })
  }

  /** Return the number of trainable parameters, and of all. */
  getNbTrainableParameters(): { trainable: number; total: number } {
    const count = (parameters: Parameter[]) => parameters.reduce((sum, parameter) => sum + parameter.numel(), 0)
    const all = this.model.parameters()
    return { trainable: count(all.filter((parameter) => parameter.requiresGrad)), total: count(all) }
  }

  // ---- one adapter

  #add(name: string, config: ResolvedLoraConfig, initialize: boolean): void {
    this.#requireNew(name)
    this.#requireUnmerged('addAdapter')
    const others = [...this.#adapters.values()].map((adapter) => adapter.config)
    if (others.length > 0 && [config, ...others].some(({ bias }) => bias !== 'none')) {
      throw new ConfigError(
        "LoraConfig.bias: expected 'none' with several adapters, since only one adapter can train biases",
        { name },
      )
    }
    const tieAgain = this.#heads.untieFor(config)
    try {
      this.#place(name, config, initialize)
    } catch (error) {
      if (this.#adapters.has(name)) this.#forget(name)
      tieAgain()
      throw error
    }
  }

  #place(name: string, config: ResolvedLoraConfig, initialize: boolean): void {
    const { targets, whole, tokens, ranks, alphas } = withinOneLimit(() => {
      const targets = findTargets(this.model, config)
      const whole = findModulesToSave(this.model, config, targets, !initialize)
      const tokens = findTokenTargets(this.model, config, targets, whole)
      const paths = targets.map(({ path }) => path)
      const toFile = fileNamesOf(this.model)?.toFile ?? ((path: string) => path)
      const valuesOf = (name: 'rankPattern' | 'alphaPattern') => {
        const own = patternValues(`LoraConfig.${name}`, config[name], paths)
        const other = patternValues(`LoraConfig.${name}`, config[name], paths.map(toFile))
        return new Map(
          paths.flatMap((path) => {
            const value = own.get(path) ?? other.get(toFile(path))
            return value === undefined ? [] : [[path, value] as const]
          }),
        )
      }
      const [ranks, alphas] = [valuesOf('rankPattern'), valuesOf('alphaPattern')]
      return { targets, whole, tokens, ranks, alphas }
    })
    const layers = targets.map((target) => this.#layers.get(target.module) ?? this.#newLayer(target))
    const adapter: Adapter = { config, nativeName: nativeName(name), scaled: new Map() }
    if (this.#adapters.size === 0) for (const parameter of this.model.parameters()) parameter.requiresGrad = false
    this.#adapters.set(name, adapter)
    for (const layer of layers) {
      const size = { r: ranks.get(layer.path) ?? config.r, alpha: alphas.get(layer.path) ?? config.loraAlpha }
      layer.add(name, config, size, adapter.nativeName, initialize)
      this.#keep(layer)
    }
    for (const target of tokens) {
      const layer = this.#layers.get(target.module) ?? this.#newLayer(target)
      const source = target.follows && this.#layers.get(target.follows)?.tokens.get(name)?.delta
      layer.addTokens(name, target.indices, adapter.nativeName, source)
      this.#keep(layer)
    }
    for (const [path, module] of whole) {
      const saved = this.#saved.get(module) ?? new SavedModule(path, module, this.model)
      saved.add(name)
      this.#saved.set(module, saved)
    }
    this.#activate(this.#active.length === 0 ? [name] : this.#active)
  }

  #keep(layer: LoraLayer): void {
    this.#layers.set(layer.module, layer)
    setAdapters(layer.module, layer)
  }

  #newLayer(target: Target): LoraLayer {
    return new LoraLayer(
      target,
      () => this.#activeNow(),
      () => this.#scaleNow(),
    )
  }

  #forget(name: string): void {
    const { nativeName, scaled } = this.#adapters.get(name) as Adapter
    for (const each of [nativeName, ...scaled.values()]) this.#networks.remove(each)
    this.#adapters.delete(name)
    for (const [module, layer] of this.#layers) {
      layer.remove(name)
      if (layer.adapters.size + layer.tokens.size > 0) continue
      setAdapters(module, undefined)
      this.#layers.delete(module)
    }
    for (const saved of this.#saved.values()) saved.remove(name)
  }

  /** Return the tensors of an adapter's file, with peft's names. */
  #entries(name: string): Record<string, Tensor> {
    const { config } = this.#adapters.get(name) as Adapter
    const entries: [string, Tensor][] = []
    const put = (path: string, key: string, tensor: Tensor) =>
      entries.push([`base_model.model.${path === '' ? '' : `${path}.`}${key}`, tensor])
    for (const layer of this.#layersOf(name)) {
      const title = (part: string, end: string) => (part === 'lora_magnitude_vector' ? part : `${part}${end}`)
      for (const [key, parameter] of layer.parametersOf(name, title)) put(layer.path, key, parameter)
    }
    for (const [path, bias] of this.#biases(config)) {
      const adapted = this.#lorasOf(name).some((layer) => layer.bias === bias)
      put(path, adapted ? 'base_layer.bias' : 'bias', bias)
    }
    for (const saved of this.#saved.values()) {
      for (const [key, value] of Object.entries(saved.valuesOf(name))) put(saved.path, key, value)
    }
    return Object.fromEntries(entries)
  }

  #layersOf(name: string): LoraLayer[] {
    return [...this.#layers.values()].filter((layer) => layer.has(name))
  }

  /** Return the layers with an adapter, without those of which only rows train. */
  #lorasOf(name: string): LoraLayer[] {
    return this.#layersOf(name).filter((layer) => layer.adapters.has(name))
  }

  /** Return the biases that a configuration trains, by the path of their module. */
  #biases({ bias }: ResolvedLoraConfig): [string, Parameter][] {
    if (bias === 'lora_only') {
      const layers = [...this.#layers.values()].filter(({ adapters }) => adapters.size > 0)
      return layers.flatMap(({ path, bias }) => (bias ? [[path, bias] as [string, Parameter]] : []))
    }
    if (bias === 'none') return []
    const ownBiases = this.model
      .namedParameters()
      .filter(([name]) => name === 'bias' || name.endsWith('.bias'))
      .map(([name, parameter]): [string, Parameter] => [name.replace(/\.?bias$/, ''), parameter])
    return [...ownBiases, ...sharedBiases(this.model)]
  }

  // ---- which are active

  #activeNow(): readonly string[] {
    return this.#merged.any ? [] : (currentContext().adapters?.get(this) ?? this.#active)
  }

  #scaleNow(): number {
    return currentContext().adapterScales?.get(this) ?? 1
  }

  #activate(names: readonly string[]): void {
    this.#requireUnmerged('setAdapter')
    this.#requireCompatible(names)
    // Parameters that a queued call still uses cannot be changed; nothing has changed at this point.
    for (const [parameter, train] of this.#training(names)) {
      const trains = train && !isConstant(parameter)
      if (parameter.requiresGrad !== trains) parameter.requiresGrad = trains
    }
    this.#placeSaved(names)
    this.#active = names
  }

  /** Return which parameters train while these adapters are active. */
  #training(names: readonly string[]): Map<Parameter, boolean> {
    const trained = (name: string) => names.includes(name) && !this.#adapters.get(name)?.config.inferenceMode
    const result = new Map<Parameter, boolean>()
    for (const [name, { config }] of this.#adapters) {
      for (const layer of this.#layersOf(name)) {
        for (const [, parameter] of layer.parametersOf(name, (part) => part)) result.set(parameter, trained(name))
      }
      for (const [, bias] of this.#biases(config)) result.set(bias, trained(name))
    }
    for (const saved of this.#saved.values()) {
      const train = names.some((name) => saved.has(name) && trained(name))
      for (const parameter of saved.module.parameters()) result.set(parameter, train)
    }
    return result
  }

  #placeSaved(names: readonly string[]): void {
    for (const saved of this.#saved.values()) saved.activate(names.find((name) => saved.has(name)) ?? null)
  }

  #unload(): M {
    this.#networks.release()
    this.#active = []
    for (const name of [...this.#adapters.keys()]) this.#forget(name)
    this.#saved.clear()
    owners.delete(this.model)
    return this.model
  }

  // ---- checks

  #known(where: string, names: string | readonly string[]): readonly string[] {
    const list = typeof names === 'string' ? [names] : names
    if (!Array.isArray(list)) throw argumentError(where, 'adapterName', 'a name or a list of names', names)
    for (const name of list) {
      if (this.#adapters.has(name)) continue
      const all = [...this.#adapters.keys()].join(', ') || 'none'
      throw new ConfigError(`${where}: expected one of the adapters ${all}, got '${String(name)}'`, {
        adapterName: name,
      })
    }
    return [...new Set(list)]
  }

  #requireNew(name: string): void {
    requireString('addAdapter', 'adapterName', name)
    if (name === '' || name.includes('.') || name.includes('/')) {
      throw new ConfigError(
        `addAdapter: expected an adapter name without dots and slashes that is not empty, got '${name}'`,
        { name },
      )
    }
    if (this.#adapters.has(name))
      throw new ConfigError(`addAdapter: expected a new adapter name, got '${name}', which exists already`, {
        adapterName: name,
      })
  }

  /** Whether adapters are merged into the weights, until `unmergeAdapter`. */
  get isMerged(): boolean {
    return this.#merged.any
  }

  #requireUnmerged(where: string): void {
    if (this.isMerged) throw new ConfigError(`${where}: expected unmerged adapters. Call unmergeAdapter() first`)
  }

  /** Check that adapters can be active together, since several adapters of one layer are computed as one. */
  #requireCompatible(names: readonly string[]): void {
    for (const layer of this.#layers.values()) {
      if (names.some((name) => layer.tokens.has(name)) && names.filter((name) => layer.has(name)).length > 1) {
        throw new ConfigError(
          `setAdapter: expected an adapter with trainableTokenIndices to be the only active one of its layer, got several of '${layer.path}'`,
          { path: layer.path },
        )
      }
      const present = names.flatMap((name) => layer.adapters.get(name) ?? [])
      if (present.length < 2) continue
      if (present.some(({ magnitude }) => magnitude !== null)) {
        throw new ConfigError(
          `setAdapter: expected an adapter with DoRA to be the only active one of its layer, got several of '${layer.path}'`,
          {},
        )
      }
      if (present.some(({ dropout }) => dropout !== present[0]?.dropout)) {
        throw new ConfigError(
          `setAdapter: expected active adapters with equal loraDropout, got different ones of '${layer.path}'`,
          {},
        )
      }
    }
  }
}

function finally_<T>(run: () => T, after: () => void): T {
  let result: T
  try {
    result = run()
  } catch (error) {
    after()
    throw error
  }
  if (!(result instanceof Promise)) {
    after()
    return result
  }
  return result.finally(after) as T
}
