import { shown } from '../base/arguments.js'
import { requireOptions } from '../base/check.js'
import { ConfigError, DeviceError, DTypeError } from '../base/errors.js'
import { type Device, type DType, noGrad, scope, Tensor } from '../tensor/index.js'
import { keepForever } from '../tensor/scope.js'
import { isFloating, requireTensors } from './check.js'
import { ForwardHooks, wrapForward } from './hooks.js'
import { Parameter } from './parameter.js'
import { layerRepr, reprText } from './repr.js'
import { type Differences, joined, matcher, misfit, sameShape, summaryTable } from './text.js'

/** Sees each call of `forward`; what it returns, if not undefined, replaces the output. */
export type ForwardHook<M extends Module = Module> = (module: M, args: unknown[], output: unknown) => unknown

/** What lib/peft hangs on a layer: parameters that train with it but stay out of its state dictionary. */
export interface LayerAdapters {
  namedParameters(): [string, Parameter][]
  /** The layer's output; undefined when no adapter is active. */
  forward(input: Tensor): Tensor | undefined
}

/** Tensors whose dtype is their meaning, as of packed weights: `to({ dtype })` leaves it, and no other is loaded. */
const fixed = new WeakSet<Tensor>()
export const keepDType = (tensor: Tensor, keep = true): void => void (keep ? fixed.add(tensor) : fixed.delete(tensor))

/** What a layer has in place of its own buffers once a state dictionary is loaded; null: none. */
export interface StateForm {
  buffers: Record<string, Tensor | null>
  /** Called when they hold the values. */
  take(): void
}

/** Asks a layer which form a dictionary has, whose entry for one of the layer's names `entry` gives. */
export type ChooseForm = (entry: (name: string) => unknown) => StateForm | undefined

/** Layers that can hold their state in more than one form. */
const forms = new WeakMap<Module, ChooseForm>()
export const setStateForms = (layer: Module, choose: ChooseForm | undefined): void =>
  void (choose ? forms.set(layer, choose) : forms.delete(layer))

export let adaptersOf: (layer: Module) => LayerAdapters | undefined
export let setAdapters: (layer: Module, adapters: LayerAdapters | undefined) => void

export interface LoadResult {
  /** Names that the module has and the dictionary lacks. */
  missing: string[]
  /** Names that the dictionary has and the module lacks. */
  unexpected: string[]
}

/**
 * A network, or a piece of one, written in TypeScript.
 *
 * ```ts
 * class Head extends Module {
 *   hidden = new Linear(768, 256)
 *   out = new Linear(256, 4)
 *   forward(x: Tensor): Tensor {
 *     return scope(() => this.out.forward(this.hidden.forward(x).relu()))
 *   }
 * }
 * ```
 *
 * **What belongs to it** is found in its own fields, in the order of their definition: a {@link Parameter} is a
 * parameter, a Module is a child, and what `registerBuffer` named is a buffer. A field's name is its name in the state
 * dictionary, letter for letter; so the layers here call their fields what PyTorch's checkpoints call them
 * (`in_proj_weight`, `weight_ih_l0`), and a network that shall load a published checkpoint does the same. `#private`
 * fields are not looked at. Modules in a plain array are an error; use ModuleList.
 *
 * **Calling it** is calling `forward`; forward hooks see that call too.
 *
 * **Memory**: no scope owns parameters and buffers. They live until `dispose()` (or `using`) or garbage collection.
 */
export class Module {
  /** True after construction and `train()`, false after `eval()`. Dropout and BatchNorm look at it. */
  training = true
  #buffers: Map<string, { persistent: boolean }> | undefined
  #hooks: ForwardHooks | undefined
  #adapters: LayerAdapters | undefined

  static {
    adaptersOf = (layer) => Module.#checked(layer).#adapters
    setAdapters = (layer, adapters) => {
      layer.#adapters = adapters
    }
  }

  /** The computation; subclasses define it with their own arguments and result. */
  forward(..._args: never[]): unknown {
    throw new ConfigError(`${this.constructor.name} has no forward(); define one or call its children`, {})
  }

  /** Name and value of everything that could be a parameter, buffer or child. Containers override it. */
  protected members(): Iterable<[string, unknown]> {
    return Object.entries(this)
  }

  /** Makes `tensor` part of the module's state, though not trained: it moves with `to()`, and if `persistent`
   * (default) it is in the state dictionary. It becomes the field `name`, and no scope owns it any more. */
  registerBuffer<T extends Tensor | null>(name: string, tensor: T, options: { persistent?: boolean } = {}): T {
    requireOptions('registerBuffer', options, ['persistent'])
    const { persistent = true } = options
    if (typeof name !== 'string') throw new ConfigError(`a buffer's name is a string, not ${shown(name)}`)
    if (tensor !== null) requireTensors('registerBuffer', tensor)
    this.#buffers ??= new Map()
    this.#buffers.set(name, { persistent })
    if (tensor) keepForever(tensor)
    Reflect.set(this, name, tensor)
    return tensor
  }

  // ---- what is inside

  /** All parameters, own ones first, then the children's; one that is used twice (tied weights) is listed once. */
  parameters(): Parameter[] {
    return this.namedParameters().map(([, parameter]) => parameter)
  }

  /** As `parameters()`, with names; a tied one has the name that comes first. */
  namedParameters(): [string, Parameter][] {
    const own = (module: Module) => [...module.#ownParameters(), ...(module.#adapters?.namedParameters() ?? [])]
    return once(
      Module.#checked(this)
        .#walkModules()
        .flatMap(([path, module]) => join(path, own(module))),
    )
  }

  /** All buffers with names, persistent or not, each once. */
  namedBuffers(): [string, Tensor][] {
    const modules = Module.#checked(this).#walkModules()
    return once(modules.flatMap(([path, module]) => join(path, module.#ownBuffers())))
  }

  /** This module under the name '' and everything below it, parents before children, each once. */
  namedModules(): [string, Module][] {
    return once(Module.#checked(this).#walkModules())
  }

  /** This module and everything below it. */
  modules(): Module[] {
    return this.namedModules().map(([, module]) => module)
  }

  /** The direct children with their names, each once. */
  namedChildren(): [string, Module][] {
    return once(Module.#checked(this).#ownChildren())
  }

  /** The module at a path such as `encoder.layers.3`. Throws ConfigError that lists what is there. */
  get<M extends Module = Module>(path: string): M {
    if (typeof path !== 'string') throw new ConfigError(`a module's path is a string, not a ${typeof path}`)
    let found: Module = this
    for (const name of path === '' ? [] : path.split('.')) {
      const children = found.namedChildren()
      const child = children.find(([candidate]) => candidate === name)
      if (!child) {
        const names = children.map(([candidate]) => candidate).join(', ') || 'no children'
        throw new ConfigError(
          `no module '${path}': ${found.constructor.name} has no child '${name}', it has ${names}`,
          {
            path,
          },
        )
      }
      found = child[1]
    }
    return found as M
  }

  // ---- state

  /**
   * Parameters and persistent buffers by name, in PyTorch's order. The values are the module's own tensors, not
   * copies: do not dispose them, and `clone()` what shall be a snapshot. A tied parameter stands under all its names.
   */
  stateDict(): Record<string, Tensor> {
    const state = Module.#checked(this)
      .#walkModules()
      .flatMap(([path, module]) => join<Tensor>(path, [...module.#ownParameters(), ...module.#ownBuffers(true)]))
    return Object.fromEntries(state)
  }

  /**
   * Copies the values in, converting dtype and device; tensors keep their identity, so an optimizer made before still
   * works. All names and shapes are checked before the first copy. Packed weights (see `quantize`) are not converted: a
   * layer in NF4 takes on the form of the scales that the dictionary has, and any other dtype counts as a wrong shape.
   *
   * @throws CheckpointError with `missing`, `unexpected` and `mismatched` ({ name, expected, actual } shapes). With
   * `strict: false` missing and unexpected names are returned instead; a wrong shape always throws.
   */
  loadStateDict(state: Record<string, Tensor>, options: { strict?: boolean } = {}): LoadResult {
    requireOptions('loadStateDict', options, ['strict'])
    const { strict = true } = options
    if (typeof state !== 'object' || state === null) {
      throw new ConfigError(`a state dictionary is an object of tensors, not ${state === null ? 'null' : typeof state}`)
    }
    return scope(() => noGrad(() => Module.#checked(this).#load(state, strict)))
  }

  #load(state: Record<string, Tensor>, strict: boolean): LoadResult {
    const { own, chosen } = this.#stateLike(state)
    const missing = Object.keys(own).filter((name) => !Object.hasOwn(state, name))
    const unexpected = Object.keys(state).filter((name) => !Object.hasOwn(own, name))
    const pairs: [Tensor, Tensor][] = []
    const mismatched: Differences['mismatched'] = []
    for (const [name, target] of Object.entries(own)) {
      if (!Object.hasOwn(state, name)) continue
      const source: unknown = state[name]
      if (!(source instanceof Tensor)) mismatched.push({ name, expected: target.shape, actual: `a ${typeof source}` })
      else if (fixed.has(target) && source.dtype !== target.dtype) {
        const actual = `a tensor of ${source.dtype}, not ${target.dtype}`
        mismatched.push({ name, expected: target.shape, actual })
      } else if (sameShape(target.shape, source.shape)) pairs.push([target, source])
      else mismatched.push({ name, expected: target.shape, actual: source.shape })
    }
    if (mismatched.length > 0 || (strict && missing.length + unexpected.length > 0)) {
      const sentence = `the state dictionary does not fit ${this.constructor.name}, which was not changed`
      throw misfit(sentence, { missing, unexpected, mismatched })
    }
    const empty = pairs.find(([target]) => target.device === 'meta')
    if (empty) {
      throw new DeviceError(
        `${this.constructor.name} is on the meta device, which has no memory to load into; build it on 'cpu' or 'cuda'`,
        { device: 'meta' },
      )
    }
    for (const [target, source] of pairs) target.copy_(source)
    for (const form of chosen.values()) form.take()
    return { missing, unexpected }
  }

  /** The state dictionary that this module would have in the form of another one. */
  #stateLike(state: Record<string, Tensor>) {
    const chosen = new Map<Module, StateForm>()
    const named = this.#walkModules().flatMap(([path, module]) => {
      const entry = (name: string) => {
        const full = joined(path, name)
        return Object.hasOwn(state, full) ? state[full] : undefined
      }
      const form = chosen.get(module) ?? forms.get(module)?.(entry)
      if (form) chosen.set(module, form)
      const buffers = { ...Object.fromEntries(module.#ownBuffers(true)), ...form?.buffers }
      const kept = Object.entries(buffers).filter((each): each is [string, Tensor] => each[1] !== null)
      return join<Tensor>(path, [...module.#ownParameters(), ...kept])
    })
    return { own: Object.fromEntries(named), chosen }
  }

  /** Training mode on or off, for everything below too. */
  train(mode = true): this {
    for (const module of this.modules()) module.training = mode
    return this
  }

  /** The same as `train(false)`: no dropout, running statistics. It does not turn gradients off; `noGrad` does. */
  eval(): this {
    return this.train(false)
  }

  /**
   * Moves parameters, their gradients and buffers. `dtype` must be floating point or complex and leaves integer
   * buffers as they are. Tensors keep their identity.
   */
  to(options: { device?: Device; dtype?: DType } = {}): this {
    requireOptions('Module.to', options, ['device', 'dtype'])
    const { device, dtype } = options
    if (dtype && !isFloating(dtype)) {
      throw new DTypeError(`a module can be converted to floating-point and complex types, not to ${shown(dtype)}`, {
        dtype,
      })
    }
    // One after the other, so that the network is never there twice.
    const move = (tensor: Tensor) =>
      scope(() => {
        const type = dtype && isFloating(tensor.dtype) && !fixed.has(tensor) ? dtype : tensor.dtype
        tensor.setData(tensor.detach().to({ device: device ?? tensor.device, dtype: type }))
      })
    noGrad(() =>
      scope(() => {
        for (const parameter of this.parameters()) {
          move(parameter)
          if (parameter.grad) move(parameter.grad)
        }
        for (const [, buffer] of this.namedBuffers()) move(buffer)
      }),
    )
    return this
  }

  /**
   * Stops gradients of the parameters that `pattern` names, or of all. A pattern is a RegExp, or a string that is a
   * full name, a module's path (`encoder` means all below it), or a glob: `*` stands for any characters, dots included.
   * @throws ConfigError when it matches nothing
   */
  freeze(pattern?: string | RegExp): this {
    for (const parameter of Module.#checked(this).#matching(pattern)) parameter.requiresGrad = false
    return this
  }

  /** The reverse of `freeze`. */
  unfreeze(pattern?: string | RegExp): this {
    for (const parameter of Module.#checked(this).#matching(pattern)) parameter.requiresGrad = true
    return this
  }

  /** Drops every gradient, as PyTorch's `zero_grad(set_to_none=True)`. */
  zeroGrad(): this {
    for (const parameter of this.parameters()) parameter.grad = null
    return this
  }

  // ---- the rest

  /** Calls `fn` with every module, children before parents. */
  apply(fn: (module: Module) => void): this {
    if (typeof fn !== 'function') throw new ConfigError(`apply() needs a function, not a ${typeof fn}`)
    // Refuses what cannot be gone through.
    Module.#checked(this).#walkModules()
    this.#applied(fn)
    return this
  }

  /**
   * Calls `hook(module, args, output)` after each `forward`; what it returns, if not undefined, is the new output.
   * While a module has hooks, its `forward` is an own property that wraps the class's; without hooks nothing is in
   * the way. When `forward` returns a promise, hooks run on its result and may be async.
   *
   * A part of a native network (`model.get('encoder.layers.3')`) is called by native code, which waits for the hook: it
   * must be synchronous. It gets the block's input, `args[0]`, and its output, both tensors, as PyTorch's hooks do; where
   * a network computes nothing for padding, they have no padding either. A layer with a hook is not fused with others.
   * With gradient checkpointing it runs again in backward. A tensor that the hook wants
   * to hold on to needs `keepForever`, for the layer's scope ends.
   * @returns removes the hook
   */
  registerForwardHook(hook: ForwardHook<this>): () => void {
    if (typeof hook !== 'function') throw new ConfigError(`a forward hook is a function, not ${typeof hook}`)
    Module.#checked(this)
    this.#hooks ??= new ForwardHooks(this, (hooks) => this.watchForward(hooks))
    return this.#hooks.add(hook as ForwardHook)
  }

  /** Has each forward pass run the hooks; returns what ends that. */
  protected watchForward(hooks: ForwardHooks): () => void {
    return wrapForward(this, hooks)
  }

  /**
   * Return what the module's text shows between its brackets: settings, as in `Linear(in_features=4, out_features=8, bias=True)`.
   * A class of your own may override it; several lines are shown one below the other. As PyTorch's `extra_repr`.
   */
  extraRepr(): string {
    return layerRepr(this)
  }

  /** The name of the class in the module's text. */
  protected get reprName(): string {
    return this.constructor.name
  }

  /** Whether children that read the same are shown once. */
  protected get joinsAlike(): boolean {
    return false
  }

  /** Return the tree of the module and everything below it, as PyTorch's `repr` has it. */
  toString(): string {
    return Module.#text(Module.#checked(this), [])
  }

  /** What `console.log` and `util.inspect` print: the same as {@link toString}. */
  [Symbol.for('nodejs.util.inspect.custom')](): string {
    return #hooks in this ? this.toString() : `[${shown(this)}]`
  }

  static #text(module: Module, above: Module[]): string {
    // Unlike what walks a tree, a text shows what is wrong with it.
    if (above.includes(module) || above.length > DEEPEST) return `${module.constructor.name}(...)`
    const within = [...above, module]
    const found = [...module.members()].filter((member): member is [string, Module] => member[1] instanceof Module)
    const children = found.map(([name, child]) => [name, Module.#text(child, within)] as const)
    return reprText({ name: module.reprName, extra: module.extraRepr(), children, joinsAlike: module.joinsAlike })
  }

  /** A table of parameter names, shapes, types and counts, with totals. Nothing is printed. */
  summary(): string {
    return summaryTable(this.constructor.name, this.namedParameters(), this.namedBuffers())
  }

  /** Frees all parameters and buffers, the children's too. Harmless when repeated; any other use of them throws DisposedError. */
  dispose(): void {
    for (const [, tensor] of [...this.namedParameters(), ...this.namedBuffers()]) tensor.dispose()
    for (const module of this.modules()) module.freeNative()
  }

  /** Frees what this module alone holds beside its tensors. */
  protected freeNative(): void {}

  [Symbol.dispose](): void {
    this.dispose()
  }

  #applied(fn: (module: Module) => void): void {
    for (const [, child] of this.namedChildren()) child.#applied(fn)
    fn(this)
  }

  #ownParameters(): [string, Parameter][] {
    return [...this.members()].filter((member): member is [string, Parameter] => member[1] instanceof Parameter)
  }

  #ownBuffers(persistentOnly = false): [string, Tensor][] {
    const found: [string, Tensor][] = []
    for (const [name, { persistent }] of this.#buffers ?? []) {
      const value: unknown = Reflect.get(this, name)
      if (value instanceof Tensor && (persistent || !persistentOnly)) found.push([name, value])
    }
    return found
  }

  #ownChildren(): [string, Module][] {
    const children: [string, Module][] = []
    for (const [name, value] of this.members()) {
      if (value instanceof Module) children.push([name, value])
      else if (Array.isArray(value) && value.some((item) => item instanceof Module || item instanceof Parameter)) {
        throw new ConfigError(
          `${this.constructor.name}.${name} is a plain array of modules or parameters, which training and saving ` +
            'would not see; make it a ModuleList, or a #private field if that is what you want',
          { field: name },
        )
      }
    }
    return children
  }

  /** Depth first with repeats: a module that hangs in two places comes twice, as the state dictionary needs. */
  #walkModules(path = '', ancestors: Module[] = []): [string, Module][] {
    if (ancestors.includes(this)) {
      throw new ConfigError(
        `'${path}' refers back to a module that contains it; keep such a link in a #private field`,
        {
          path,
        },
      )
    }
    if (ancestors.length > DEEPEST) {
      throw new ConfigError(`modules are nested deeper than ${DEEPEST} levels, as '${path.slice(0, 50)}…'`, {
        depth: ancestors.length,
      })
    }
    ancestors.push(this)
    const below = this.#ownChildren().flatMap(([name, child]) =>
      Module.#checked(child).#walkModules(joined(path, name), ancestors),
    )
    ancestors.pop()
    return [[path, this], ...below]
  }

  /** A proxy passes for what is behind it, but for what is #private. */
  static #checked(module: Module): Module {
    if (#hooks in module) return module
    throw new ConfigError(
      `${shown(module)} was given that is a Proxy around a module, or was not made by its constructor: use the module itself`,
      {},
    )
  }

  #matching(pattern: string | RegExp | undefined): Parameter[] {
    const named = this.namedParameters()
    if (pattern === undefined) return named.map(([, parameter]) => parameter)
    const matches = matcher(pattern)
    const found = named.filter(([name]) => matches(name))
    if (found.length === 0) {
      const some = named.slice(0, 5).map(([name]) => name)
      throw new ConfigError(
        `no parameter of ${this.constructor.name} matches ${pattern}; names look like ${some.join(', ')}`,
        {
          pattern: String(pattern),
        },
      )
    }
    return found.map(([, parameter]) => parameter)
  }
}

/** Of modules in modules: more than any network has, and less than the call stack. */
const DEEPEST = 1000

function join<T>(path: string, members: [string, T][]): [string, T][] {
  return path === '' ? members : members.map(([name, value]) => [`${path}.${name}`, value])
}

function once<T>(named: [string, T][]): [string, T][] {
  const seen = new Set<T>()
  return named.filter(([, value]) => !seen.has(value) && seen.add(value))
}
