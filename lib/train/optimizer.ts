import { listOf, misuse, requireNumber, requireObject, shown } from '../data/check.js'
import { CheckpointError, ConfigError } from '../native/errors.js'
import { noGrad, scope, Tensor, tensor } from '../tensor/index.js'
import { keepForever } from '../tensor/scope.js'

/** What every optimiser's groups have. Set `lr` at any time: the next step uses it. */
export interface GroupOptions {
  /** Learning rate. */
  lr: number
  /** Maximise instead of minimise. */
  maximize: boolean
}

/** Parameters that share options; `initialLr` is there once a schedule is bound to the optimiser. */
export type ParamGroup<O extends GroupOptions> = O & { params: Tensor[]; initialLr?: number }

/** Parameters, or groups of them with options that differ from the optimiser's. */
export type ParamsOrGroups<O extends GroupOptions> =
  | Iterable<Tensor>
  | Iterable<{ params: Iterable<Tensor> } & Partial<O>>

/** PyTorch's `torch.optim.Optimizer.state_dict()`, key for key: parameters are numbered through all groups. */
export interface OptimizerState {
  state: Record<string, Record<string, Tensor>>
  param_groups: (Record<string, unknown> & { params: number[] })[]
}

/** One parameter's state: names and meaning are PyTorch's. */
export type ParamState = Record<string, Tensor>

/** What the optimisers have in common. The optimiser owns its state tensors; `dispose()` or `using` frees them. */
export abstract class Optimizer<O extends GroupOptions = GroupOptions> {
  readonly groups: ParamGroup<O>[] = []
  readonly #defaults: O
  readonly #states = new Map<Tensor, ParamState>()
  /** Device and dtype of parameters, asked once: asking takes a noticeable part of a small model's step. */
  readonly #kinds = new Map<Tensor, string>()

  /** @param defaults for what a group leaves out; subclasses check them. */
  constructor(params: ParamsOrGroups<O>, defaults: O) {
    this.#defaults = defaults
    type Group = { params: Iterable<Tensor> } & Partial<O>
    const list = listOf<Tensor | Group>(this.constructor.name, 'params', params, 'parameters or groups')
    if (list.length === 0) throw this.#config('was given no parameters')
    const grouped = list.every(
      (item) => !(item instanceof Tensor) && typeof item === 'object' && item && 'params' in item,
    )
    for (const group of (grouped ? list : [{ params: list }]) as Group[]) this.addGroup(group)
  }

  /** What a group has that names nothing else. */
  get defaults(): Readonly<O> {
    return this.#defaults
  }

  /** Adds a group, as when layers are unfrozen during training. */
  addGroup(added: { params: Iterable<Tensor> } & Partial<O>): void {
    requireObject(this.constructor.name, 'a group', added)
    const { params, ...options } = added
    const given = Object.entries(options).filter(([, value]) => value !== undefined)
    const list = listOf(this.constructor.name, 'params', params, 'parameters')
    const group = { ...this.#defaults, ...Object.fromEntries(given), params: list } as ParamGroup<O>
    this.checkOptions(group)
    const known = new Set(this.groups.flatMap((other) => other.params))
    for (const param of group.params) {
      if (!(param instanceof Tensor)) throw misuse(this.constructor.name, 'a parameter', 'a Tensor', param)
      if (known.has(param)) throw this.#config(`was given one parameter of shape [${param.shape}] twice`)
      if (!param.isLeaf) {
        throw this.#config(`was given a tensor of shape [${param.shape}] that is computed from others, expected a leaf`)
      }
      if (!/^b?float/.test(param.dtype))
        throw this.#config(`was given a ${param.dtype} parameter, expected floating point`)
      known.add(param)
    }
    this.groups.push(group)
  }

  /**
   * One update from the gradients as they are now, on the executor. Parameters without a gradient are left alone. The
   * gradients stay: call `zeroGrad()` before the next backward.
   */
  async step(): Promise<void> {
    const jobs: Promise<unknown>[] = []
    // The queued jobs hold what they use, so the gradients' handles can go as soon as the jobs are queued.
    try {
      noGrad(() =>
        scope(() => {
          for (const group of this.groups) {
            this.checkOptions(group)
            for (const pairs of this.#byKind(withGradients(group.params))) jobs.push(...this.queueUpdate(group, pairs))
          }
        }),
      )
      await Promise.all(jobs)
    } catch (error) {
      await Promise.allSettled(jobs)
      // The model may have been moved: look again.
      this.#kinds.clear()
      throw error
    }
  }

  /** Sets every gradient to null. */
  zeroGrad(): void {
    for (const { params } of this.groups) for (const param of params) param.grad = null
  }

  /**
   * As PyTorch's `state_dict()`, so either can load the other's. The tensors are the optimiser's own, not copies: save
   * or clone them before the next step.
   */
  stateDict(): OptimizerState {
    const state: OptimizerState['state'] = {}
    let index = 0
    const groups = this.groups.map(({ params, ...options }) => ({
      ...Object.fromEntries(Object.entries(options).map(([key, value]) => [snake(key), value])),
      ...this.fixedOptions(),
      params: params.map((param) => {
        const own = this.#states.get(param)
        if (own) state[index] = { ...own }
        return index++
      }),
    }))
    return { state, param_groups: groups }
  }

  /** Takes copies of the tensors, on each parameter's device and in its dtype. Throws `CheckpointError` if it is not for these groups. */
  loadStateDict(dict: OptimizerState): void {
    const { state, param_groups: saved } = checkState(dict)
    const sizes = (groups: { params: unknown[] }[]) => groups.map(({ params }) => params.length).join(', ')
    if (sizes(saved) !== sizes(this.groups)) {
      throw new CheckpointError(
        `The optimiser state has groups of [${sizes(saved)}] parameters, this ${this.constructor.name} of ` +
          `[${sizes(this.groups)}]: make the optimiser with the groups that it was saved with`,
        {},
      )
    }
    const loaded = noGrad(() =>
      saved.flatMap((group, g) =>
        group.params.flatMap((number, i) => {
          const param = this.groups[g]?.params[i] as Tensor
          const own = state[number]
          return own ? [[param, copyState(own, param, number)] as const] : []
        }),
      ),
    )
    this.dispose()
    for (const [param, own] of loaded) this.#states.set(param, own)
    saved.forEach((options, g) => {
      const group = this.groups[g] as unknown as Record<string, unknown>
      for (const key of [...Object.keys(this.#defaults), 'initialLr']) {
        if (snake(key) in options) group[key] = options[snake(key)]
      }
    })
  }

  /** Frees the state tensors; the next step starts afresh. */
  dispose(): void {
    for (const state of this.#states.values()) for (const value of Object.values(state)) value.dispose()
    this.#states.clear()
  }

  [Symbol.dispose](): void {
    this.dispose()
  }

  /** Throws on options out of range. */
  protected abstract checkOptions(group: ParamGroup<O>): void

  /** Queues one update of parameters that share device and dtype; called without grad mode, in a scope. */
  protected abstract queueUpdate(group: ParamGroup<O>, pairs: Gradient[]): Promise<unknown>[]

  /** What PyTorch's state has in each group beside our options. */
  protected abstract fixedOptions(): Record<string, unknown>

  /** The state of a parameter, made on first use from what `make` returns. */
  protected stateOf(param: Tensor, make: () => ParamState): ParamState {
    let state = this.#states.get(param)
    if (!state) {
      state = make()
      for (const value of Object.values(state)) keepForever(value)
      this.#states.set(param, state)
    }
    return state
  }

  protected hasState(param: Tensor): boolean {
    return this.#states.has(param)
  }

  /** Throws unless least <= value < below. */
  protected range(group: ParamGroup<O>, option: string, value: number, least = 0, below?: number): void {
    const index = this.groups.indexOf(group)
    requireNumber(this.constructor.name, index < 0 ? option : `${option} of group ${index}`, value, { least, below })
  }

  /** The fused kernels take parameters of one device and dtype at a time. */
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
    return new ConfigError(`${this.constructor.name} ${problem}`, {})
  }
}

function checkState(dict: OptimizerState): OptimizerState {
  const isObject = (value: unknown) => typeof value === 'object' && value !== null
  const groups = dict?.param_groups
  const good = isObject(dict?.state) && Object.values(dict.state).every(isObject) && Array.isArray(groups)
  if (good && groups.every((group) => isObject(group) && Array.isArray(group.params))) return dict
  throw new CheckpointError('An optimiser state needs state and param_groups, as stateDict() returns them', {})
}

/** A parameter and its gradient, laid out alike in memory. */
export interface Gradient {
  param: Tensor
  grad: Tensor
}

function withGradients(params: Tensor[]): Gradient[] {
  const pairs: Gradient[] = []
  for (const param of params) {
    const grad = param.grad
    if (grad) pairs.push({ param, grad: sameLayout(grad, param) })
  }
  return pairs
}

/** The fused kernels walk all tensors of a parameter as plain memory: other strides would be mixed up in silence. */
function sameLayout(grad: Tensor, param: Tensor): Tensor {
  if (grad.isContiguous() && param.isContiguous()) return grad
  const copy = param.emptyLike().copy_(grad)
  if (copy.strides.join() === param.strides.join()) return copy
  throw new ConfigError(
    `A parameter of shape [${param.shape}] is a view with gaps or overlaps in memory, which the fused optimisers cannot ` +
      'update: make the parameter from its clone',
    { shape: param.shape },
  )
}

function copyState(saved: ParamState, param: Tensor, number: number): ParamState {
  const copies = Object.entries(saved).map(([key, value]) => {
    // Step counts are float32 scalars whatever the parameter is; older files have plain numbers.
    const step = key === 'step'
    const source = value instanceof Tensor ? value : step && typeof value === 'number' ? value : undefined
    const expected = step ? [] : param.shape
    if (source === undefined || (source instanceof Tensor && source.shape.join() !== expected.join())) {
      const found = source instanceof Tensor ? `shape [${source.shape}]` : shown(value)
      throw new CheckpointError(`State ${key} of parameter ${number} has ${found}, expected shape [${expected}]`, {
        tensor: `state.${number}.${key}`,
      })
    }
    const target = step ? tensor(0, { dtype: 'float32', device: param.device }) : param.emptyLike()
    keepForever(target)
    if (source instanceof Tensor) target.copy_(source)
    else target.fill_(source)
    return [key, target] as const
  })
  return Object.fromEntries(copies)
}

const snake = (key: string): string => key.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`)
