import {
  argumentError,
  listOf,
  requireFunction,
  requireNumber,
  requireOneOf,
  requireOptions,
  requireWhole,
} from '../base/check.js'
import { CheckpointError, ConfigError } from '../base/errors.js'
import { snakeCase } from '../base/words.js'
import { cat, enableGrad, noGrad, scope, Tensor } from '../tensor/index.js'
import { keepForever } from '../tensor/scope.js'
import { dense } from './gradients.js'
import { type LinePoint, strongWolfe } from './line-search.js'
import { readState } from './optimizer-state.js'

export interface LBFGSOptions {
  /** Learning rate, or step length without a line search. Default: 1. */
  lr?: number
  /** Maximum number of iterations per step. Default: 20. */
  maxIter?: number
  /** Maximum number of closure calls per step. Default: 1.25 times `maxIter`. */
  maxEval?: number | null
  /** A step ends if no element of the gradient is larger. Default: 1e-7. */
  toleranceGrad?: number
  /** A step ends if no weight changes by more, or the loss changes by less. Default: 1e-9. */
  toleranceChange?: number
  /** Number of stored updates; memory is twice as many vectors of the size of all weights. Default: 100. */
  historySize?: number
  /** 'strong_wolfe' searches for the length of each step; null, the default, uses `lr`. */
  lineSearchFn?: 'strong_wolfe' | null
}

export interface LBFGSState {
  state: Record<string, Record<string, unknown>>
  param_groups: (Record<string, unknown> & { params: number[] })[]
}

/** Closure that computes the loss and its gradients: zero them, compute the loss, `await` its backward, and return the loss. */
export type Closure = () => Tensor | number | Promise<Tensor | number>

const DEFAULTS = {
  lr: 1,
  maxIter: 20,
  maxEval: null,
  toleranceGrad: 1e-7,
  toleranceChange: 1e-9,
  historySize: 100,
  lineSearchFn: null,
} satisfies Required<LBFGSOptions>

type Group = Required<LBFGSOptions> & { params: Tensor[]; maxEval: number; initialLr?: number }

/** State kept between iterations; vectors concatenate all weights. */
interface Memory {
  funcEvals: number
  iterations: number
  direction: Tensor | null
  length: number
  changes: Tensor[]
  steps: Tensor[]
  inverses: number[]
  scale: number
  gradient: Tensor | null
  loss: number
}

const fresh = (): Memory => ({
  funcEvals: 0,
  iterations: 0,
  direction: null,
  length: 0,
  changes: [],
  steps: [],
  inverses: [],
  scale: 1,
  gradient: null,
  loss: 0,
})

/**
 * L-BFGS (Liu and Nocedal 1989) as in `torch.optim.LBFGS`, for smooth losses of whole data sets. Takes one group of parameters
 * of one dtype on one device; a step calls the closure several times.
 *
 * ```ts
 * await optimizer.step(async () => {
 *   optimizer.zeroGrad()
 *   const loss = lossOf(model)
 *   await loss.backward()
 *   return loss
 * })
 * ```
 */
export class LBFGS {
  readonly groups: [Group]
  #memory = fresh()

  constructor(params: Iterable<Tensor>, options: LBFGSOptions = {}) {
    requireOptions('LBFGS', options, Object.keys(DEFAULTS))
    const list = listOf('LBFGS', 'params', params, 'parameters')
    for (const param of list) {
      if (!(param instanceof Tensor)) throw argumentError('LBFGS', 'a parameter', 'a Tensor: there is one group', param)
      if (!param.isLeaf || !/^b?float/.test(param.dtype)) {
        throw new ConfigError(`LBFGS: expected floating-point leaf tensors, got ${param.dtype} [${param.shape}]`, {})
      }
    }
    if (list.length === 0) throw new ConfigError('LBFGS: expected at least one parameter, got none', {})
    const kinds = new Set(list.map(({ device, dtype }) => `${device} ${dtype}`))
    if (kinds.size > 1)
      throw new ConfigError(`LBFGS: expected parameters of one device and dtype, got ${[...kinds].join(', ')}`, {})
    const group = { ...DEFAULTS, ...options, params: list }
    this.groups = [{ ...group, maxEval: group.maxEval ?? Math.floor((group.maxIter * 5) / 4) }]
    this.#check()
  }

  /** Default options of the group. */
  get defaults(): Readonly<{ lr: number }> {
    return this.groups[0]
  }

  /** Set every gradient to null. */
  zeroGrad(): void {
    for (const param of this.groups[0].params) param.grad = null
  }

  /**
   * Run up to `maxIter` iterations, each along one direction.
   * @returns the loss of the first closure call, before any step
   */
  async step(closure: Closure): Promise<number> {
    requireFunction('LBFGS.step', 'closure', closure)
    this.#check()
    return noGrad(() => this.#step(closure))
  }

  async #step(closure: Closure): Promise<number> {
    const [group] = this.groups
    const { maxIter, maxEval, toleranceGrad, toleranceChange, lineSearchFn } = group
    const memory = this.#memory
    const first = await this.#evaluate(closure)
    let { loss, gradient } = first
    let evaluations = 1
    memory.funcEvals++
    const done = () => {
      gradient.dispose()
      return first.loss
    }
    if (largest(gradient) <= toleranceGrad) return done()
    for (let i = 1; i <= maxIter; i++) {
      memory.iterations++
      this.#direct(gradient)
      const direction = memory.direction as Tensor
      const before = loss
      memory.loss = loss
      memory.length = memory.iterations === 1 ? Math.min(1, 1 / absoluteSum(gradient)) * group.lr : group.lr
      const slope = dot(gradient, direction)
      if (slope > -toleranceChange) break

      let used = 0
      if (lineSearchFn === 'strong_wolfe') {
        const start = { t: 0, loss, gradient, slope }
        const found = await this.#search(closure, start, memory.length, maxEval - evaluations)
        used = found.evaluations
        memory.length = found.point.t
        if (found.point.gradient !== gradient) gradient.dispose()
        ;({ loss, gradient } = found.point)
        this.#move(memory.length, direction)
      } else {
        this.#move(memory.length, direction)
        // The loss after the last iteration is not used.
        if (i < maxIter) {
          gradient.dispose()
          ;({ loss, gradient } = await this.#evaluate(closure))
          used = 1
        }
      }
      evaluations += used
      memory.funcEvals += used
      if (evaluations >= maxEval || largest(gradient) <= toleranceGrad) break
      if (largest(direction) * Math.abs(memory.length) <= toleranceChange) break
      if (Math.abs(loss - before) < toleranceChange) break
    }
    return done()
  }

  /** Return PyTorch's `state_dict()`, key for key. The tensors are not copies. */
  stateDict(): LBFGSState {
    const { params, ...options } = this.groups[0]
    const memory = this.#memory
    const own = {
      func_evals: memory.funcEvals,
      n_iter: memory.iterations,
      ...(memory.direction && {
        d: memory.direction,
        t: memory.length,
        old_dirs: [...memory.changes],
        old_stps: [...memory.steps],
        ro: [...memory.inverses],
        H_diag: memory.scale,
        prev_flat_grad: memory.gradient,
        prev_loss: memory.loss,
      }),
    }
    const named = Object.entries(options).map(([key, value]) => [snakeCase(key), value])
    return {
      state: memory.funcEvals > 0 ? { 0: own } : {},
      param_groups: [{ ...Object.fromEntries(named), params: params.map((_, i) => i) }],
    }
  }

  /**
   * Load the state of `stateDict()` or of a file of PyTorch's; tensors are copied.
   * @throws CheckpointError that names the entry that does not match; then nothing has changed
   */
  loadStateDict(dict: LBFGSState): void {
    const { state, param_groups: saved } = readState(dict)
    const [group] = this.groups
    const [options] = saved
    if (saved.length !== 1 || options?.params.length !== group.params.length) {
      throw new CheckpointError(
        `LBFGS.loadStateDict: expected the state of one group of ${group.params.length} parameters`,
        {},
      )
    }
    const savedState = state.get(options.params[0] as number)
    if (state.size > (savedState ? 1 : 0))
      throw new CheckpointError('LBFGS.loadStateDict: expected the state under the first parameter, 0', {})
    const settings = Object.keys(DEFAULTS).flatMap((key) => {
      const value = options[snakeCase(key)]
      return value === undefined ? [] : [[key, value instanceof Tensor ? value.item() : value]]
    })
    const candidate = { ...group, ...Object.fromEntries(settings) } as Group
    this.#check(candidate)
    const memory = savedState ? this.#read(savedState) : fresh()
    this.dispose()
    this.#memory = memory
    this.groups[0] = Object.assign(group, candidate)
  }

  /** Free the stored updates; the next step starts afresh. */
  dispose(): void {
    const { direction, gradient, changes, steps } = this.#memory
    for (const tensor of [direction, gradient, ...changes, ...steps]) tensor?.dispose()
    this.#memory = fresh()
  }

  [Symbol.dispose](): void {
    this.dispose()
  }

  #check(group: Group = this.groups[0]): void {
    requireNumber('LBFGS', 'lr', group.lr, { least: 0 })
    requireWhole('LBFGS', 'maxIter', group.maxIter, 1)
    requireWhole('LBFGS', 'maxEval', group.maxEval, 1)
    requireNumber('LBFGS', 'toleranceGrad', group.toleranceGrad)
    requireNumber('LBFGS', 'toleranceChange', group.toleranceChange)
    requireWhole('LBFGS', 'historySize', group.historySize, 1)
    if (group.lineSearchFn !== null) requireOneOf('LBFGS', 'lineSearchFn', group.lineSearchFn, ['strong_wolfe'])
  }

  /** Compute loss and gradient at the current weights. The caller frees the gradient. */
  async #evaluate(closure: Closure): Promise<{ loss: number; gradient: Tensor }> {
    const given = await enableGrad(() => closure())
    const loss = given instanceof Tensor ? Number(given.item()) : given
    if (typeof loss !== 'number') throw argumentError('LBFGS.step', "the closure's result", 'a loss', given)
    const gradient = scope(() => {
      const parts = this.groups[0].params.map((param) =>
        param.grad ? dense(param.grad).reshape([-1]) : param.newZeros([param.numel()]),
      )
      return keepForever(cat(parts))
    })
    return { loss, gradient }
  }

  #move(length: number, direction: Tensor): void {
    scope(() => {
      let offset = 0
      for (const param of this.groups[0].params) {
        const count = param.numel()
        param.detach().add_(direction.narrow(0, offset, count).view(param.shape), { alpha: length })
        offset += count
      }
    })
  }

  async #search(closure: Closure, start: LinePoint, length: number, mostEvaluations: number) {
    const direction = this.#memory.direction as Tensor
    const { params, toleranceChange } = this.groups[0]
    const here = scope(() => params.map((param) => keepForever(param.detach().clone())))
    try {
      const evaluate = async (t: number): Promise<LinePoint> => {
        this.#move(t, direction)
        const { loss, gradient } = await this.#evaluate(closure)
        scope(() => params.forEach((param, i) => void param.detach().copy_(here[i] as Tensor)))
        return { t, loss, gradient, slope: dot(gradient, direction) }
      }
      return await strongWolfe(evaluate, start, length, largest(direction), toleranceChange, mostEvaluations)
    } finally {
      for (const tensor of here) tensor.dispose()
    }
  }

  /** Compute the next direction from the stored gradients and steps. */
  #direct(gradient: Tensor): void {
    const memory = this.#memory
    const { direction: last, gradient: before } = memory
    const next = scope(() => {
      if (!last || !before) return keepForever(gradient.neg())
      const change = gradient.sub(before)
      const step = last.mul(memory.length)
      const curvature = dot(change, step)
      if (curvature > 1e-10) {
        if (memory.changes.length === this.groups[0].historySize) {
          memory.changes.shift()?.dispose()
          memory.steps.shift()?.dispose()
          memory.inverses.shift()
        }
        memory.changes.push(keepForever(change))
        memory.steps.push(keepForever(step))
        memory.inverses.push(1 / curvature)
        memory.scale = curvature / dot(change, change)
      }
      const { changes, steps, inverses, scale } = memory
      const vector = gradient.neg()
      const shares: number[] = []
      for (let i = changes.length - 1; i >= 0; i--) {
        shares[i] = dot(steps[i] as Tensor, vector) * (inverses[i] as number)
        vector.add_(changes[i] as Tensor, { alpha: -(shares[i] as number) })
      }
      vector.mul_(scale)
      for (let i = 0; i < changes.length; i++) {
        const back = dot(changes[i] as Tensor, vector) * (inverses[i] as number)
        vector.add_(steps[i] as Tensor, { alpha: (shares[i] as number) - back })
      }
      return keepForever(vector)
    })
    last?.dispose()
    memory.direction = next
    memory.gradient = before ? before.copy_(gradient) : keepForever(gradient.clone())
  }

  #read(own: Record<string, unknown>): Memory {
    const param = this.groups[0].params[0] as Tensor
    const size = this.groups[0].params.reduce((sum, one) => sum + one.numel(), 0)
    const wrong = (key: string, expected: string) =>
      new CheckpointError(`LBFGS.loadStateDict: expected state ${key} to be ${expected}`, { tensor: `state.0.${key}` })
    const number = (key: string, value: unknown = own[key]) => {
      const plain = value instanceof Tensor && value.numel() === 1 ? Number(value.item()) : value
      if (typeof plain !== 'number') throw wrong(key, 'a number')
      return plain
    }
    const known = [...KEYS, 'al']
    const unknown = Object.keys(own).find((key) => !known.includes(key))
    if (unknown) throw wrong(unknown, `one of ${known.join(', ')}`)
    const begun = 'd' in own
    const memory = { ...fresh(), funcEvals: number('func_evals'), iterations: number('n_iter') }
    if (!begun) return memory
    const list = (key: string) => {
      const value = own[key]
      if (!Array.isArray(value) || value.length > (own.old_dirs as unknown[])?.length) throw wrong(key, 'a list')
      return value
    }
    const check = (key: string, value: unknown) => {
      if (!(value instanceof Tensor) || value.shape.join() !== String(size)) throw wrong(key, `a tensor [${size}]`)
      return value
    }
    const vectors = [check('d', own.d), check('prev_flat_grad', own.prev_flat_grad)]
    const changes = list('old_dirs').map((value) => check('old_dirs', value))
    const steps = list('old_stps').map((value) => check('old_stps', value))
    const inverses = list('ro').map((value) => number('ro', value))
    if (changes.length !== steps.length || steps.length !== inverses.length) throw wrong('ro', 'as long as old_dirs')
    const settings = { length: number('t'), scale: number('H_diag'), loss: number('prev_loss'), inverses }
    const copy = (value: Tensor) => keepForever(scope(() => param.newEmpty([size]).copy_(value)))
    return {
      ...memory,
      ...settings,
      direction: noGrad(() => copy(vectors[0] as Tensor)),
      gradient: noGrad(() => copy(vectors[1] as Tensor)),
      changes: noGrad(() => changes.map(copy)),
      steps: noGrad(() => steps.map(copy)),
    }
  }
}

const KEYS = ['func_evals', 'n_iter', 'd', 't', 'old_dirs', 'old_stps', 'ro', 'H_diag', 'prev_flat_grad', 'prev_loss']

const dot = (a: Tensor, b: Tensor): number => scope(() => Number(a.dot(b).item()))
const largest = (vector: Tensor): number => scope(() => Number(vector.abs().max().item()))
const absoluteSum = (vector: Tensor): number => scope(() => Number(vector.abs().sum().item()))
