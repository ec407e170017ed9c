import { shown } from '../base/arguments.js'
import { argumentError, requireFunction, requireOptions } from '../base/check.js'
import { ConfigError, DeviceError, DTypeError } from '../base/errors.js'
import { withArticle } from '../base/words.js'
import { requireDevice, requireDType, targetOf } from '../tensor/dtype.js'
import { type Device, type DType, noGrad, scope, Tensor } from '../tensor/index.js'
import { keepForever } from '../tensor/scope.js'
import type { FullBackwardHook, FullBackwardPreHook } from './backward-hooks.js'
import { isFloating, requireTensors } from './check.js'
import { ForwardHooks, type HookKind, HookList, type HookOptions, wrapForward } from './hooks.js'
import { Parameter } from './parameter.js'
import { layerRepr, reprText } from './repr.js'
import { type Differences, joined, matcher, misfit, sameShape, summaryTable } from './text.js'

/** Hook called after each `forward`; a result other than undefined replaces the output. */
export type ForwardHook<M extends Module = Module> = (module: M, args: unknown[], output: unknown) => unknown
/** Hook called before each `forward`; a result other than undefined replaces the arguments, or the only one. */
export type ForwardPreHook<M extends Module = Module> = (module: M, args: unknown[]) => unknown
/** Hook called before a module writes its tensors into a state dictionary, under names that begin with `prefix`. */
export type StateDictPreHook<M extends Module = Module> = (module: M, prefix: string) => void
/** Hook called with a state dictionary that it may change: the module's names begin with `prefix`. */
export type StateDictHook<M extends Module = Module> = (
  module: M,
  state: Record<string, Tensor>,
  prefix: string,
) => void
/** Hook called after a state dictionary was loaded. It may remove names from the two lists, which are errors if `strict`. */
export type LoadStateDictPostHook<M extends Module = Module> = (module: M, incompatible: LoadResult) => void

/** Hooks of one module on its state dictionary. */
class StateHooks {
  readonly savePre = new HookList<StateDictPreHook>()
  readonly savePost = new HookList<StateDictHook>()
  readonly loadPre = new HookList<StateDictHook>()
  readonly loadPost = new HookList<LoadStateDictPostHook>()
}

/** Adapters that lib/peft attaches to a layer: parameters that train with it but are not in its state dictionary. */
export interface LayerAdapters {
  namedParameters(): [string, Parameter][]
  /** Return the layer's output; undefined if no adapter is active. */
  forward(input: Tensor): Tensor | undefined
}

/** Tensors with a fixed dtype, such as quantized weights: `to({ dtype })` does not convert them, and no other dtype loads. */
const fixed = new WeakSet<Tensor>()
export const keepDType = (tensor: Tensor, keep = true): void => void (keep ? fixed.add(tensor) : fixed.delete(tensor))

/** Buffers that a layer gets from a state dictionary in place of its own; null: none. */
export interface StateForm {
  buffers: Record<string, Tensor | null>
  /** Called after the buffers hold the values. */
  take(): void
}

/** Choose the form of a layer's state in a dictionary; `entry` returns the dictionary's entry for one of the layer's names. */
export type ChooseForm = (entry: (name: string) => unknown) => StateForm | undefined

/** Layers that can hold their state in more than one form. */
const forms = new WeakMap<Module, ChooseForm>()
export const setStateForms = (layer: Module, choose: ChooseForm | undefined): void =>
  void (choose ? forms.set(layer, choose) : forms.delete(layer))

/** Place of one of a module's parameters or buffers. */
export interface TensorPlace {
  /** Name in the state dictionary; a tied tensor has a place for each of its names. */
  name: string
  owner: Module
  member: string
  tensor: Tensor
}

/** Return the places of all parameters and buffers. */
export let tensorPlaces: (module: Module) => TensorPlace[]
/** Put a tensor or a child in place of a member. */
export let setMember: (owner: Module, member: string, value: Tensor | Module) => void
export let adaptersOf: (layer: Module) => LayerAdapters | undefined
export let setAdapters: (layer: Module, adapters: LayerAdapters | undefined) => void

export interface LoadResult {
  /** Names that the dictionary lacks. */
  missing: string[]
  /** Names that the module lacks. */
  unexpected: string[]
}

/**
 * A network, or a part of one, written in TypeScript.
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
 * **Registration**: a module's fields are its members, in the order of their definition. A {@link Parameter} is a parameter, a
 * Module is a child, and `registerBuffer` names a buffer. A field's name is its name in the state dictionary, letter for
 * letter. The layers here therefore use the names of PyTorch's checkpoints (`in_proj_weight`, `weight_ih_l0`); do the same in a
 * network that loads a published checkpoint. `#private` fields are ignored. Modules in a plain array are an error; use
 * ModuleList.
 *
 * **Calling**: call `forward`; forward hooks run on that call too.
 *
 * **Memory**: no scope owns parameters and buffers. They live until `dispose()` (or `using`) or garbage collection.
 */
export class Module {
  /** True after construction and `train()`, false after `eval()`. Dropout and BatchNorm depend on it. */
  training = true
  #buffers: Map<string, { persistent: boolean }> | undefined
  #hooks: ForwardHooks | undefined
  #stateHooks: StateHooks | undefined
  #adapters: LayerAdapters | undefined

  static {
    tensorPlaces = (module) =>
      Module.#checked(module)
        .#walkModules()
        .flatMap(([path, owner]) =>
          [...owner.#ownParameters(), ...owner.#ownBuffers()].map(([member, tensor]) => ({
            name: joined(path, member),
            owner,
            member,
            tensor,
          })),
        )
    setMember = (owner, member, value) => owner.setMember(member, value)
    adaptersOf = (layer) => Module.#checked(layer).#adapters
    setAdapters = (layer, adapters) => {
      layer.#adapters = adapters
    }
  }

  /** Compute the output; subclasses define it with their own arguments and result. */
  forward(..._args: never[]): unknown {
    throw new ConfigError(
      `${this.constructor.name}: expected a forward() method, got none. Define one, or call its children`,
      {},
    )
  }

  /** Return name and value of each possible parameter, buffer or child. Containers override it. */
  protected members(): Iterable<[string, unknown]> {
    return Object.entries(this)
  }

  /** Put a tensor or a child in place of the member of this name. Containers override it. */
  protected setMember(name: string, value: Tensor | Module): void {
    Reflect.set(this, name, value)
  }

  /** Makes `tensor` part of the module's state, though not trained: it moves with `to()`, and if `persistent`
   * (default) it is in the state dictionary. It becomes the field `name`, and no scope owns it any more. */
  registerBuffer<T extends Tensor | null>(name: string, tensor: T, options: { persistent?: boolean } = {}): T {
    requireOptions('registerBuffer', options, ['persistent'])
    const { persistent = true } = options
    if (typeof name !== 'string')
      throw new ConfigError(`registerBuffer: expected name to be a string, got ${shown(name)}`)
    if (tensor !== null) requireTensors('registerBuffer', tensor)
    this.#buffers ??= new Map()
    this.#buffers.set(name, { persistent })
    if (tensor) keepForever(tensor)
    Reflect.set(this, name, tensor)
    return tensor
  }

  // ---- what is inside

  /** Return all parameters, the module's first, then the children's; one that is used twice (tied weights) is listed once. */
  parameters(): Parameter[] {
    return this.namedParameters().map(([, parameter]) => parameter)
  }

  /** Return `parameters()` with names; a tied parameter has the first of its names. */
  namedParameters(): [string, Parameter][] {
    const own = (module: Module) => [...module.#ownParameters(), ...(module.#adapters?.namedParameters() ?? [])]
    return once(
      Module.#checked(this)
        .#walkModules()
        .flatMap(([path, module]) => join(path, own(module))),
    )
  }

  /** Return all buffers with names, persistent or not, each once. */
  namedBuffers(): [string, Tensor][] {
    const modules = Module.#checked(this).#walkModules()
    return once(modules.flatMap(([path, module]) => join(path, module.#ownBuffers())))
  }

  /** Return this module under the name '' and all modules below it, parents before children, each once. */
  namedModules(): [string, Module][] {
    return once(Module.#checked(this).#walkModules())
  }

  /** Return this module and all modules below it. */
  modules(): Module[] {
    return this.namedModules().map(([, module]) => module)
  }

  /** Return the direct children with their names, each once. */
  namedChildren(): [string, Module][] {
    return once(Module.#checked(this).#ownChildren())
  }

  /** Return the module at a path such as `encoder.layers.3`. @throws ConfigError that lists the existing children */
  get<M extends Module = Module>(path: string): M {
    if (typeof path !== 'string')
      throw new ConfigError(`Module.get: expected path to be a string, got ${withArticle(typeof path)}`)
    let found: Module = this
    for (const name of path === '' ? [] : path.split('.')) {
      const children = found.namedChildren()
      const child = children.find(([candidate]) => candidate === name)
      if (!child) {
        const names = children.map(([candidate]) => candidate).join(', ') || 'no children'
        throw new ConfigError(
          `Module.get('${path}'): expected a child of ${found.constructor.name} (${names}), got '${name}'`,
          {
            path,
          },
        )
      }
      found = child[1]
    }
    return found as M
  }

  /**
   * Replace the module at a path such as `encoder.layers.3`, for instance by one that wraps it. Its parent then calls the new
   * module. Like PyTorch's `set_submodule` with `strict=True`.
   * @throws ConfigError if the path names no module, or one that native code calls
   */
  setSubmodule(path: string, module: Module): void {
    this.get(path)
    if (path === '') throw new ConfigError("Module.setSubmodule: expected the path of a child, got ''")
    if (!(module instanceof Module)) throw argumentError('Module.setSubmodule', 'module', 'a Module', module)
    const end = path.lastIndexOf('.')
    const parent = this.get(path.slice(0, Math.max(0, end)))
    parent.requireReplaceable(path)
    parent.setMember(path.slice(end + 1), module)
  }

  /** Throw if this module's children cannot be replaced. */
  protected requireReplaceable(_path: string): void {}

  // ---- state

  /**
   * Return parameters and persistent buffers by name, in PyTorch's order. The values are the module's own tensors, not copies:
   * do not dispose them, and `clone()` them for a snapshot. A tied parameter has an entry under each of its names.
   */
  stateDict(): Record<string, Tensor> {
    const walked = Module.#checked(this).#walkModules()
    if (walked.some(([, module]) => module.#stateHooks)) return this.#stateWithHooks('', {})
    const state = walked.flatMap(([path, module]) =>
      join<Tensor>(path, [...module.#ownParameters(), ...module.#ownBuffers(true)]),
    )
    return Object.fromEntries(state)
  }

  #stateWithHooks(path: string, state: Record<string, Tensor>): Record<string, Tensor> {
    const prefix = joined(path, '')
    for (const hook of this.#stateHooks?.savePre ?? []) hook(this, prefix)
    Object.assign(state, Object.fromEntries(join(path, [...this.#ownParameters(), ...this.#ownBuffers(true)])))
    for (const [name, child] of this.#ownChildren()) child.#stateWithHooks(joined(path, name), state)
    for (const hook of this.#stateHooks?.savePost ?? []) hook(this, state, prefix)
    return state
  }

  /**
   * Copy values into the parameters and buffers, converting dtype and device. Tensors keep their identity, so an existing
   * optimizer still works. All names and shapes are checked before the first copy. Quantized weights (see `quantize`) are not
   * converted: an NF4 layer adopts the form of the dictionary's scales, and any other dtype counts as a wrong shape.
   *
   * @throws CheckpointError with `missing`, `unexpected` and `mismatched` ({ name, expected, actual } shapes). With `strict:
   *   false` missing and unexpected names are returned instead; a wrong shape always throws. Where a module has a hook of
   *   `registerLoadStateDictPostHook`, the values that fit are copied before missing and unexpected names throw
   */
  loadStateDict(state: Record<string, Tensor>, options: { strict?: boolean } = {}): LoadResult {
    requireOptions('loadStateDict', options, ['strict'])
    const { strict = true } = options
    if (typeof state !== 'object' || state === null) {
      throw new ConfigError(
        `loadStateDict: expected an object of tensors, got ${state === null ? 'null' : typeof state}`,
      )
    }
    return scope(() => noGrad(() => Module.#checked(this).#load(state, strict)))
  }

  #load(source: Record<string, Tensor>, strict: boolean): LoadResult {
    const walked = this.#walkModules()
    const hooked = walked.filter(([, module]) => module.#stateHooks)
    const state = hooked.length > 0 ? { ...source } : source
    for (const [path, module] of hooked) module.#prepareState(state, joined(path, ''))
    const { own, chosen } = this.#stateLike(state)
    const missing = Object.keys(own).filter((name) => !Object.hasOwn(state, name))
    const unexpected = Object.keys(state).filter((name) => !Object.hasOwn(own, name))
    const pairs: [Tensor, Tensor][] = []
    const mismatched: Differences['mismatched'] = []
    for (const [name, target] of Object.entries(own)) {
      if (!Object.hasOwn(state, name)) continue
      const source: unknown = state[name]
      if (!(source instanceof Tensor))
        mismatched.push({ name, expected: target.shape, actual: withArticle(typeof source) })
      else if (fixed.has(target) && source.dtype !== target.dtype) {
        const actual = `a tensor of ${source.dtype}, not ${target.dtype}`
        mismatched.push({ name, expected: target.shape, actual })
      } else if (sameShape(target.shape, source.shape)) pairs.push([target, source])
      else mismatched.push({ name, expected: target.shape, actual: source.shape })
    }
    const checkedLater = hooked.some(([, module]) => (module.#stateHooks?.loadPost.size ?? 0) > 0)
    const misfits = () => strict && missing.length + unexpected.length > 0
    if (mismatched.length > 0 || (!checkedLater && misfits())) {
      const sentence = `${this.constructor.name}.loadStateDict: expected a matching state dictionary; nothing was changed`
      throw misfit(sentence, { missing, unexpected, mismatched })
    }
    const empty = pairs.find(([target]) => target.device === 'meta')
    if (empty) {
      throw new DeviceError(
        `${this.constructor.name}: expected a module on 'cpu' or 'cuda' to load into, got one on the meta device`,
        { device: 'meta' },
      )
    }
    for (const [target, source] of pairs) target.copy_(source)
    for (const form of chosen.values()) form.take()
    const result = { missing, unexpected }
    if (checkedLater) {
      this.#applied((module) => {
        for (const hook of module.#stateHooks?.loadPost ?? []) hook(module, result)
      })
    }
    if (checkedLater && misfits()) {
      const sentence = `${this.constructor.name}.loadStateDict: expected a matching state dictionary; the values that fit were copied`
      throw misfit(sentence, { missing, unexpected, mismatched })
    }
    return result
  }

  /** Run the hooks before loading on the entries that belong to this module. */
  #prepareState(state: Record<string, Tensor>, prefix: string): void {
    if (!this.#stateHooks || this.#stateHooks.loadPre.size === 0) return
    const names = Object.keys(state).filter((name) => name.startsWith(prefix))
    const entries = Object.fromEntries(names.map((name) => [name, state[name] as Tensor]))
    for (const hook of this.#stateHooks.loadPre) hook(this, entries, prefix)
    for (const name of names) delete state[name]
    Object.assign(state, entries)
  }

  /** Return this module's state dictionary in the form of another one. */
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

  /** Set training mode on or off, for all modules below too. */
  train(mode = true): this {
    for (const module of this.modules()) module.training = mode
    return this
  }

  /**
   * Set evaluation mode, like `train(false)`: no dropout, running statistics. Gradients stay enabled; use `noGrad` to disable
   * them.
   */
  eval(): this {
    return this.train(false)
  }

  /**
   * Move parameters, their gradients and buffers: `to('cuda')`, `to('bfloat16')`, or `to({ device, dtype })`. `dtype` must be floating
   * point or complex and does not affect integer buffers. Tensors keep their identity.
   */
  to(target: Device | DType | { device?: Device; dtype?: DType } = {}): this {
    const options: { device?: Device; dtype?: DType } = typeof target === 'string' ? targetOf(target) : target
    requireOptions('Module.to', options, ['device', 'dtype'])
    const { device, dtype } = options
    requireDevice('Module.to: device', device)
    requireDType('Module.to: dtype', dtype)
    if (dtype && !isFloating(dtype)) {
      throw new DTypeError(`Module.to: expected a floating-point or complex dtype, got ${shown(dtype)}`, {
        dtype,
      })
    }
    // Move one tensor at a time, so that the network never exists twice.
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
   * Disable gradients of the parameters that `pattern` matches, or of all. A pattern is a RegExp, or a string: a full name, a
   * module's path (`encoder` matches everything below it), or a glob, where `*` matches any characters, dots included.
   * @throws ConfigError if nothing matches
   */
  freeze(pattern?: string | RegExp): this {
    for (const parameter of Module.#checked(this).#matching(pattern)) parameter.requiresGrad = false
    return this
  }

  /** Enable gradients again: the reverse of `freeze`. */
  unfreeze(pattern?: string | RegExp): this {
    for (const parameter of Module.#checked(this).#matching(pattern)) parameter.requiresGrad = true
    return this
  }

  /** Set every gradient to null, like PyTorch's `zero_grad(set_to_none=True)`. */
  zeroGrad(): this {
    for (const parameter of this.parameters()) parameter.grad = null
    return this
  }

  // ---- the rest

  /** Call `fn` with every module, children before parents. */
  apply(fn: (module: Module) => void): this {
    if (typeof fn !== 'function')
      throw new ConfigError(`Module.apply: expected a function, got ${withArticle(typeof fn)}`)
    // Throw for modules that cannot be traversed.
    Module.#checked(this).#walkModules()
    this.#applied(fn)
    return this
  }

  /**
   * Call `hook(module, args, output)` after each `forward`; a result other than undefined replaces the output. While a module
   * has hooks, its `forward` is an own property that wraps the class's. If `forward` returns a promise, hooks run on its result
   * and may be async.
   *
   * A part of a native network (`model.get('encoder.layers.3')`) is called by native code, which waits for the hook, so the
   * hook must be synchronous. It gets the block's input, `args[0]`, and its output as tensors, like PyTorch's hooks; where a
   * network skips padding, they contain no padding either. A layer with a hook is not fused with others. With gradient
   * checkpointing the hook runs again in backward. To keep a tensor beyond the call, use `keepForever`, since the layer's scope
   * ends.
   * @returns a function that removes the hook
   */
  registerForwardHook(hook: ForwardHook<this>, options: HookOptions = {}): () => void {
    return this.#addHook('forward', 'registerForwardHook', hook, options)
  }

  /**
   * Call `hook(module, args)` before each `forward`; a result other than undefined replaces the arguments: an array stands for
   * all of them, any other value for the only one. The hook must be synchronous.
   * @returns a function that removes the hook
   * @throws ConfigError for a part of a native network, which native code calls
   */
  registerForwardPreHook(hook: ForwardPreHook<this>, options: HookOptions = {}): () => void {
    return this.#addHook('forwardPre', 'registerForwardPreHook', hook, options)
  }

  /**
   * Call `hook(module, gradInput, gradOutput)` when a backward pass has computed the gradients of the module's inputs: one per
   * argument of `forward` and one per value that it returned, null for what is not a tensor. A result other than undefined replaces
   * `gradInput`. Without an input that requires a gradient, the hook runs at the gradients of the outputs.
   *
   * `forward` must return a tensor, or an array or object of tensors. While a module has such a hook, its inputs and outputs
   * are views that may not be changed in place. The hook must be synchronous, and the backward pass waits for it. To keep a
   * gradient beyond the call, use `keepForever`. Hooks run in the order of registration.
   * @returns a function that removes the hook
   * @throws ConfigError for a part of a native network, which native code calls
   */
  registerFullBackwardHook(hook: FullBackwardHook<this>, options: HookOptions = {}): () => void {
    return this.#addHook('fullBackward', 'registerFullBackwardHook', hook, options)
  }

  /**
   * Call `hook(module, gradOutput)` when a backward pass has computed the gradients of the module's outputs, before it enters
   * the module. A result other than undefined replaces them. Otherwise like {@link registerFullBackwardHook}.
   * @returns a function that removes the hook
   */
  registerFullBackwardPreHook(hook: FullBackwardPreHook<this>, options: HookOptions = {}): () => void {
    return this.#addHook('fullBackwardPre', 'registerFullBackwardPreHook', hook, options)
  }

  /** Call `hook(module, prefix)` before `stateDict` reads this module's tensors. Returns a function that removes the hook. */
  registerStateDictPreHook(hook: StateDictPreHook<this>): () => void {
    return this.#addStateHook('savePre', 'registerStateDictPreHook', hook as StateDictPreHook)
  }

  /**
   * Call `hook(module, state, prefix)` when `stateDict` has read this module and its children. The hook may change `state`, where
   * this module's names begin with `prefix`. Returns a function that removes the hook.
   */
  registerStateDictPostHook(hook: StateDictHook<this>): () => void {
    return this.#addStateHook('savePost', 'registerStateDictPostHook', hook as StateDictHook)
  }

  /**
   * Call `hook(module, state, prefix)` before `loadStateDict` compares names and shapes. The hook may change `state`, an object of the
   * entries under `prefix` that is not the caller's, such as to rename those of an older version. Returns a function that removes
   * the hook.
   */
  registerLoadStateDictPreHook(hook: StateDictHook<this>): () => void {
    return this.#addStateHook('loadPre', 'registerLoadStateDictPreHook', hook as StateDictHook)
  }

  /**
   * Call `hook(module, incompatible)` after `loadStateDict` copied the values, children first. The hook may remove names from
   * `incompatible.missing` and `incompatible.unexpected`, which then are not errors. Returns a function that removes the hook.
   */
  registerLoadStateDictPostHook(hook: LoadStateDictPostHook<this>): () => void {
    return this.#addStateHook('loadPost', 'registerLoadStateDictPostHook', hook as LoadStateDictPostHook)
  }

  // biome-ignore lint/suspicious/noExplicitAny: each kind of hook has its own arguments.
  #addHook(kind: HookKind, where: string, hook: (...args: any[]) => unknown, options: HookOptions): () => void {
    requireFunction(where, 'hook', hook)
    requireOptions(where, options, ['prepend'])
    Module.#checked(this)
    this.requireHook(kind, where)
    this.#hooks ??= new ForwardHooks(this, (hooks) => this.watchForward(hooks))
    return this.#hooks.add(kind, hook, options.prepend ?? false)
  }

  #addStateHook<K extends keyof StateHooks>(
    kind: K,
    where: string,
    hook: StateHooks[K] extends HookList<infer H> ? H : never,
  ): () => void {
    requireFunction(where, 'hook', hook)
    Module.#checked(this)
    this.#stateHooks ??= new StateHooks()
    const remove = (this.#stateHooks[kind] as HookList<typeof hook>).add(hook)
    return () => void remove()
  }

  /** Throw if this module cannot run hooks of a kind. */
  protected requireHook(_kind: HookKind, _where: string): void {}

  /** Run the hooks on each forward pass; returns a function that stops that. */
  protected watchForward(hooks: ForwardHooks): () => void {
    return wrapForward(this, hooks)
  }

  /**
   * Return the settings in the module's text, between the parentheses, as in `Linear(in_features=4, out_features=8,
   * bias=True)`. Override it in your own class; several lines are shown one below the other. Like PyTorch's `extra_repr`.
   */
  extraRepr(): string {
    return layerRepr(this)
  }

  /** Name of the class in the module's text. */
  protected get reprName(): string {
    return this.constructor.name
  }

  /** Whether consecutive children with equal text are shown once. */
  protected get joinsAlike(): boolean {
    return false
  }

  /** Return the module tree as text, like PyTorch's `repr`. */
  toString(): string {
    return Module.#text(Module.#checked(this), [])
  }

  /** Return the text for `console.log` and `util.inspect`: {@link toString}. */
  [Symbol.for('nodejs.util.inspect.custom')](): string {
    return #hooks in this ? this.toString() : `[${shown(this)}]`
  }

  static #text(module: Module, above: Module[]): string {
    // Unlike a traversal, the text shows modules that contain themselves.
    if (above.includes(module) || above.length > DEEPEST) return `${module.constructor.name}(...)`
    const within = [...above, module]
    const found = [...module.members()].filter((member): member is [string, Module] => member[1] instanceof Module)
    const children = found.map(([name, child]) => [name, Module.#text(child, within)] as const)
    return reprText({ name: module.reprName, extra: module.extraRepr(), children, joinsAlike: module.joinsAlike })
  }

  /** Return a table of parameter names, shapes, dtypes and counts, with totals. Prints nothing. */
  summary(): string {
    return summaryTable(this.constructor.name, this.namedParameters(), this.namedBuffers())
  }

  /** Free all parameters and buffers, the children's too. May be called twice; any other use of them throws DisposedError. */
  dispose(): void {
    for (const [, tensor] of [...this.namedParameters(), ...this.namedBuffers()]) tensor.dispose()
    for (const module of this.modules()) module.freeNative()
  }

  /** Free this module's native resources other than its tensors. */
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
          `${this.constructor.name}.${name}: expected a ModuleList, got a plain array of modules or parameters, which training and saving ` +
            'would miss. Use a ModuleList, or a #private field to exclude them on purpose',
          { field: name },
        )
      }
    }
    return children
  }

  /** Return all modules depth first, with repeats: a module in two places comes twice, as the state dictionary needs. */
  #walkModules(path = '', ancestors: Module[] = []): [string, Module][] {
    if (ancestors.includes(this)) {
      throw new ConfigError(
        `Module: expected a tree of modules, got a reference at '${path}' to a module that contains it. Keep such a reference in a #private field`,
        {
          path,
        },
      )
    }
    if (ancestors.length > DEEPEST) {
      throw new ConfigError(
        `Module: expected at most ${DEEPEST} levels of modules, got more at '${path.slice(0, 50)}…'`,
        {
          depth: ancestors.length,
        },
      )
    }
    ancestors.push(this)
    const below = this.#ownChildren().flatMap(([name, child]) =>
      Module.#checked(child).#walkModules(joined(path, name), ancestors),
    )
    ancestors.pop()
    return [[path, this], ...below]
  }

  /** Reject a proxy, which behaves like its module except for #private fields. */
  static #checked(module: Module): Module {
    if (#hooks in module) return module
    throw new ConfigError(
      `expected a module, got ${shown(module)} that is a Proxy around one, or was not created by its constructor. Use the module itself`,
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
        `${this.constructor.name}: expected a pattern that matches parameters (${some.join(', ')}, …), got ${pattern}`,
        {
          pattern: String(pattern),
        },
      )
    }
    return found.map(([, parameter]) => parameter)
  }
}

/** Maximum nesting of modules: more than any network has, and less than the call stack allows. */
const DEEPEST = 1000

function join<T>(path: string, members: [string, T][]): [string, T][] {
  return path === '' ? members : members.map(([name, value]) => [`${path}.${name}`, value])
}

function once<T>(named: [string, T][]): [string, T][] {
  const visited = new Set<T>()
  return named.filter(([, value]) => !visited.has(value) && visited.add(value))
}

/** Return a class of layers for inputs with `dims` spatial dimensions, the first argument of the constructor of `Layer`. */
export const forDims = <A extends unknown[], M extends Module>(
  dims: number,
  Layer: new (dims: number, ...rest: A) => M,
): (new (
  ...args: A
) => M) =>
  class extends (Layer as unknown as new (...args: unknown[]) => Module) {
    constructor(...args: A) {
      super(dims, ...args)
    }
  } as never
