import { argumentError, defined, listOf, requireNumber, requireObject, requireOptions } from '../base/check.js'
import { CheckpointError, ConfigError } from '../base/errors.js'
import { snakeCase } from '../base/words.js'
import { opAsync } from '../native/call.js'
import { isUninitialized, setOptimized } from '../nn/parameter.js'
import { isHalf } from '../tensor/dtype.js'
import { noGrad, scope, Tensor, zeros } from '../tensor/index.js'
import { keepForever } from '../tensor/scope.js'
import type { Job } from './foreach.js'
import { type Gradient, withGradients } from './gradients.js'
import {
  copyState,
  NUMBER,
  noMaster,
  type OptimizerState,
  type ParamState,
  type ReadState,
  readState,
  type StateSlot,
} from './optimizer-state.js'

export type { Gradient } from './gradients.js'
export type { OptimizerState, ParamState } from './optimizer-state.js'

const copyAll = opAsync('aten::_foreach_copy_')
const addTo = opAsync('aten::_foreach_add_')
const fill = opAsync('aten::fill_')

/** Options that the groups of every optimizer have. Set `lr` at any time: the next step uses it. */
export interface GroupOptions {
  /** Learning rate. */
  lr: number
  /** Maximize instead of minimize. */
  maximize: boolean
  /**
   * For parameters in bfloat16 or float16: the optimizer keeps a float32 copy of each, its master, and updates that; the
   * parameter is the rounded master. Gradients are read in the parameters' dtype, other state is float32. Costs 4 bytes per
   * parameter, and the same again during a step; no effect on other dtypes. Masters are copied from the parameters at the first
   * step: after loading other weights into the parameters call `dispose()`, or load a state too. Default: false.
   */
  masterWeights?: boolean
}

/** Parameters with the same options. `initialLr` is set once a schedule is bound to the optimizer. */
export type ParamGroup<O extends GroupOptions> = O & { params: Tensor[]; initialLr?: number }

/** Parameters, or groups of them with options that differ from the optimizer's. */
export type ParamsOrGroups<O extends GroupOptions> =
  | Iterable<Tensor>
  | Iterable<{ params: Iterable<Tensor> } & Partial<O>>

/** Base class of the optimizers. The optimizer owns its state tensors; `dispose()` or `using` frees them. */
export abstract class Optimizer<O extends GroupOptions = GroupOptions> {
  readonly groups: ParamGroup<O>[] = []
  readonly #defaults: O
  /** State by updated tensor: the parameter's master, or the parameter. */
  readonly #states = new Map<Tensor, ParamState>()
  readonly #masters = new Map<Tensor, Tensor>()
  /** Cache of `numberOf`; a step that failed may have left other values on the device. */
  #numbers = new WeakMap<Tensor, number>()
  /** Device and dtype of each parameter, cached: reading them takes a noticeable part of a small model's step. */
  readonly #kinds = new Map<Tensor, string>()

  /**
   * @param defaults every option that groups may have; subclasses check the values
   * @param options options that replace the defaults; an unknown one is rejected
   */
  constructor(params: ParamsOrGroups<O>, defaults: O, options: Partial<O> = {}) {
    requireOptions(this.constructor.name, options, [...Object.keys(defaults), 'masterWeights'])
    this.#defaults = { ...defaults, ...withoutUndefined(options) }
    type Group = { params: Iterable<Tensor> } & Partial<O>
    const list = listOf<Tensor | Group>(this.constructor.name, 'params', params, 'parameters or groups')
    if (list.length === 0) throw this.#config('expected at least one parameter, got none')
    const grouped = list.every(
      (item) => !(item instanceof Tensor) && typeof item === 'object' && item && 'params' in item,
    )
    for (const group of (grouped ? list : [{ params: list }]) as Group[]) this.addGroup(group)
  }

  /** Default options of the groups. */
  get defaults(): Readonly<O> {
    return this.#defaults
  }

  /** Add a group, for instance when layers are unfrozen during training. */
  addGroup(added: { params: Iterable<Tensor> } & Partial<O>): void {
    requireObject(this.constructor.name, 'a group', added)
    const { params, ...options } = added
    requireOptions(this.constructor.name, options, [...Object.keys(this.#defaults), 'masterWeights', 'initialLr'])
    const list = listOf(this.constructor.name, 'params', params, 'parameters')
    const group = { ...this.#defaults, ...withoutUndefined(options), params: list } as ParamGroup<O>
    this.#check(group)
    const known = new Set(this.groups.flatMap((other) => other.params))
    for (const param of group.params) {
      if (!(param instanceof Tensor)) throw argumentError(this.constructor.name, 'a parameter', 'a Tensor', param)
      if (isUninitialized(param)) {
        throw this.#config(
          'expected parameters with a shape, got one of a lazy layer. Run the network once before you create the optimizer',
        )
      }
      if (known.has(param)) throw this.#config(`expected each parameter once, got one of shape [${param.shape}] twice`)
      if (!param.isLeaf) {
        throw this.#config(`expected leaf tensors, got one of shape [${param.shape}] that is computed from others`)
      }
      if (!/^b?float/.test(param.dtype)) throw this.#config(`expected floating-point parameters, got ${param.dtype}`)
      known.add(param)
    }
    for (const param of group.params) setOptimized(param)
    this.groups.push(group)
  }

  /**
   * Update the parameters once from the current gradients, on the executor. Parameters without a gradient are unchanged. The
   * gradients stay: call `zeroGrad()` before the next backward.
   */
  async step(...unread: never[]): Promise<void> {
    if (unread.length > 0) {
      throw this.#config(
        'expected step() without arguments, got a closure. Call backward() first; only LBFGS takes a closure',
      )
    }
    const jobs: Promise<unknown>[] = []
    // Queued jobs hold their tensors, so the gradients' handles can be freed once the jobs are queued.
    try {
      noGrad(() =>
        scope(() => {
          for (const group of this.groups) {
            this.#check(group)
            const pairs = this.gradients(group.params)
            const stepped = group.masterWeights ? this.#onMasters(group, pairs, jobs) : pairs
            for (const same of this.#byKind(stepped)) jobs.push(...this.queueUpdate(group, same))
            const rounded = stepped.flatMap(({ param }, i) => (param === pairs[i]?.param ? [] : [i]))
            if (rounded.length === 0) continue
            const column = (of: Gradient[]) => rounded.map((i) => (of[i] as Gradient).param)
            jobs.push(copyAll(column(pairs), column(stepped)))
          }
        }),
      )
      await Promise.all(jobs)
    } catch (error) {
      await Promise.allSettled(jobs)
      // The model may have been moved to another device.
      this.#kinds.clear()
      this.#numbers = new WeakMap()
      throw error
    }
  }

  /** Set every gradient to null. */
  zeroGrad(): void {
    for (const { params } of this.groups) for (const param of params) param.grad = null
  }

  /**
   * Return the state in the form of PyTorch's `state_dict()`, so either can load the other's. The tensors are not copies: save
   * or clone them before the next step.
   */
  stateDict(): OptimizerState {
    const state: OptimizerState['state'] = {}
    let index = 0
    const groups = this.groups.map(({ params, ...options }) => ({
      ...Object.fromEntries(Object.entries(options).map(([key, value]) => [snakeCase(key), value])),
      ...this.fixedOptions(),
      params: params.map((param) => {
        const master = this.#masters.get(param)
        const paramState = this.#states.get(master ?? param)
        if (paramState || master) state[index] = defined({ ...paramState, master_param: master })
        return index++
      }),
    }))
    return { state, param_groups: groups }
  }

  /**
   * Load copies of the tensors, on each parameter's device and in its dtype, or its master's. The state may come from
   * `stateDict()` or from a file of PyTorch's (`loadTorch`), whose numbered entries are a Map. `masterWeights` keeps its value:
   * without masters in the state, the next step creates them.
   *
   * @throws CheckpointError if the state does not match these groups and this optimizer, with the entry's name, or has masters
   *   without `masterWeights`; then nothing has changed
   */
  loadStateDict(dict: OptimizerState): void {
    const { state, param_groups: saved } = this.#forGroups(dict)
    const options = saved.map((group) => this.#savedOptions(group))
    const loaded = noGrad(() =>
      this.groups.flatMap((before, g) => {
        const group = { ...before, ...options[g] }
        this.#check(group)
        return group.params.flatMap((param, i) => {
          const number = saved[g]?.params[i] as number
          const savedState = state.get(number)
          return savedState ? [[param, this.#loadedState(group, param, number, savedState)] as const] : []
        })
      }),
    )
    this.dispose()
    for (const [param, { master_param: master, ...own }] of loaded) {
      if (master) this.#masters.set(param, master)
      if (Object.keys(own).length > 0) this.#states.set(master ?? param, own)
    }
    this.groups.forEach((group, g) => void Object.assign(group, options[g]))
  }

  /** Convert a state to the form of `stateDict()`: objects for the Maps of a file. Throws as `loadStateDict` does. */
  readState(dict: OptimizerState): OptimizerState {
    const { state, param_groups } = this.#forGroups(dict)
    return { state: Object.fromEntries(state) as OptimizerState['state'], param_groups }
  }

  #forGroups(dict: OptimizerState): ReadState {
    const read = readState(dict)
    const sizes = (groups: { params: unknown[] }[]) => groups.map(({ params }) => params.length).join(', ')
    if (sizes(read.param_groups) === sizes(this.groups)) return read
    throw new CheckpointError(
      `${this.constructor.name}.loadStateDict: expected groups of [${sizes(this.groups)}] parameters, got ` +
        `[${sizes(read.param_groups)}]. Create the optimizer with the groups that it was saved with`,
      {},
    )
  }

  /** Return the options of a saved group that this optimizer has. */
  #savedOptions(saved: ReadState['param_groups'][number]): Partial<ParamGroup<O>> {
    const known = [...Object.keys(this.#defaults), 'initialLr'].filter((key) => key !== 'masterWeights')
    const pairs = known.flatMap((key) => {
      const value = saved[snakeCase(key)]
      // Other implementations store None for values that are computed in each step.
      if (value === undefined || (value === null && typeof Reflect.get(this.#defaults, key) === 'number')) return []
      // PyTorch may store a learning rate as a tensor.
      return [[key, value instanceof Tensor ? value.item() : value]]
    })
    return Object.fromEntries(pairs)
  }

  #loadedState(group: ParamGroup<O>, param: Tensor, number: number, own: Record<string, unknown>): ParamState {
    const wide = this.#keepsMaster(group, param)
    if (!wide && 'master_param' in own) throw noMaster(number, this.constructor.name)
    const slots = this.stateSlots(group, param, own)
    const master: StateSlot = { shape: param.shape, dtype: 'float32', optional: true }
    return copyState(own, param, number, wide ? 'float32' : param.dtype, { ...slots, master_param: master })
  }

  /** Free the state tensors; the next step starts afresh. */
  dispose(): void {
    for (const state of this.#states.values()) for (const value of Object.values(state)) value.dispose()
    for (const master of this.#masters.values()) master.dispose()
    this.#states.clear()
    this.#masters.clear()
    this.#kinds.clear()
  }

  [Symbol.dispose](): void {
    this.dispose()
  }

  /**
   * Check the options: by default `lr`, `eps` and `weightDecay` of at least 0, and `betas` in [0, 1).
   * @throws ConfigError if one is out of range
   */
  protected checkOptions(group: ParamGroup<O>): void {
    const options = group as object as Record<string, unknown>
    for (const option of ['lr', 'eps', 'weightDecay'])
      if (option in options) this.range(group, option, options[option] as number)
    if ('betas' in options) this.pair(group, 'betas', options.betas, 0, 1)
  }

  /** Return the parameters that have a gradient, with it. */
  protected gradients(params: Tensor[]): Gradient[] {
    return withGradients(params)
  }

  /** Queue one update of parameters with the same device and dtype; called in a scope without grad mode. */
  protected abstract queueUpdate(group: ParamGroup<O>, pairs: Gradient[]): Promise<unknown>[]

  /** Return the entries of PyTorch's groups that are not options here. */
  protected fixedOptions(): Record<string, unknown> {
    return { foreach: null, capturable: false, differentiable: false }
  }

  /**
   * Return the expected state of one parameter, for loading; `group` has the options that were saved with it. By default every
   * entry has the parameter's shape, except the number `step`.
   */
  protected stateSlots(
    _group: ParamGroup<O>,
    param: Tensor,
    saved: Record<string, unknown>,
  ): Record<string, StateSlot> {
    return Object.fromEntries(Object.keys(saved).map((key) => [key, key === 'step' ? NUMBER : { shape: param.shape }]))
  }

  /** Return the tensor that is updated and has the state: the parameter's master, created on first use, or the parameter. */
  protected steppedOn(group: ParamGroup<O>, param: Tensor): Tensor {
    if (!group.masterWeights || !this.#keepsMaster(group, param)) return param
    let master = this.#masters.get(param)
    if (!master) {
      master = keepForever(noGrad(() => param.detach().to({ dtype: 'float32' })))
      this.#masters.set(param, master)
    }
    return master
  }

  /** Return the state of a parameter, created on first use by `make`. */
  protected stateOf(param: Tensor, make: () => ParamState): ParamState {
    let state = this.#states.get(param)
    if (!state) {
      state = make()
      for (const value of Object.values(state)) keepForever(value)
      this.#states.set(param, state)
    }
    return state
  }

  /**
   * Group pairs by their number of steps, this one included, so that values that depend on it are the same for a group. `make`
   * creates the state except `step`, which a queued job increments.
   */
  protected counted(
    pairs: Gradient[],
    jobs: Job[],
    make: (param: Tensor) => ParamState,
  ): { step: number; pairs: Gradient[]; params: Tensor[]; column(key: string): Tensor[] }[] {
    const groups = new Map<number, { pairs: Gradient[]; states: ParamState[] }>()
    for (const pair of pairs) {
      const { param } = pair
      const state = this.stateOf(param, () => ({
        step: zeros([], { dtype: 'float32', device: param.device }),
        ...make(param),
      }))
      const counter = state.step as Tensor
      const step = this.numberOf(counter) + 1
      this.#numbers.set(counter, step)
      const same = groups.get(step) ?? { pairs: [], states: [] }
      groups.set(step, { pairs: [...same.pairs, pair], states: [...same.states, state] })
    }
    return [...groups].map(([step, { pairs, states }]) => {
      const column = (key: string) => states.map((state) => state[key] as Tensor)
      jobs.push(() => addTo(column('step'), 1))
      return { step, pairs, params: pairs.map(({ param }) => param), column }
    })
  }

  /** Return a number of the state, read from the device once. */
  protected numberOf(tensor: Tensor): number {
    const known = this.#numbers.get(tensor) ?? Number(tensor.item())
    this.#numbers.set(tensor, known)
    return known
  }

  /** Set numbers of the state in a queued job. */
  protected setNumbers(tensors: Tensor[], values: number[], jobs: Job[]): void {
    tensors.forEach((tensor, i) => {
      const value = Math.fround(values[i] as number)
      this.#numbers.set(tensor, value)
      jobs.push(() => fill(tensor, value))
    })
  }

  protected hasState(param: Tensor): boolean {
    return this.#states.has(param)
  }

  /** Check that an option is two numbers in [least, below). */
  protected pair(group: ParamGroup<O>, option: string, value: unknown, least = 0, below?: number): void {
    if (!Array.isArray(value) || value.length !== 2)
      throw argumentError(this.constructor.name, option, 'two numbers', value)
    for (const one of value) this.range(group, option, one, least, below)
  }

  /** Check that least <= value < below. */
  protected range(group: ParamGroup<O>, option: string, value: number, least = 0, below?: number): void {
    const index = this.groups.indexOf(group)
    requireNumber(this.constructor.name, index < 0 ? option : `${option} of group ${index}`, value, { least, below })
  }

  /** Return the pairs to update; a job added to `jobs` fills the gradients' float32 copies on the executor. */
  #onMasters(group: ParamGroup<O>, given: Gradient[], jobs: Promise<unknown>[]): Gradient[] {
    const [wide, narrow]: [Tensor[], Tensor[]] = [[], []]
    const stepped = given.map((pair) => {
      const master = this.steppedOn(group, pair.param)
      if (master === pair.param) return pair
      const grad = master.emptyLike()
      wide.push(grad)
      narrow.push(pair.grad)
      return { param: master, grad, owned: true }
    })
    if (wide.length > 0) jobs.push(copyAll(wide, narrow))
    return stepped
  }

  #keepsMaster(group: ParamGroup<O>, param: Tensor): boolean {
    return Boolean(group.masterWeights) && isHalf(param.dtype)
  }

  #check(group: ParamGroup<O>): void {
    const { masterWeights = false } = group
    if (typeof masterWeights !== 'boolean') {
      throw argumentError(this.constructor.name, 'masterWeights', 'true or false', masterWeights)
    }
    this.checkOptions(group)
  }

  /** Group pairs by device and dtype, which the fused kernels require. */
  #byKind(pairs: Gradient[]): Gradient[][] {
    const kinds = new Map<string, Gradient[]>()
    for (const pair of pairs) {
      const { param } = pair
      let kind = this.#kinds.get(param)
      if (kind === undefined) {
        kind = `${param.device} ${param.dtype}`
        this.#kinds.set(param, kind)
      }
      const same = kinds.get(kind)
      if (same) same.push(pair)
      else kinds.set(kind, [pair])
    }
    return [...kinds.values()]
  }

  #config(problem: string): ConfigError {
    return new ConfigError(`${this.constructor.name}: ${problem}`, {})
  }
}

/** Return options without the undefined ones. */
const withoutUndefined = <O extends object>(options: O): Partial<O> =>
  Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined)) as Partial<O>
