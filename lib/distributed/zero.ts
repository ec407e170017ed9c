import { listOf, requireFunction } from '../base/check.js'
import { ConfigError } from '../base/errors.js'
import { type Device, type DType, empty, noGrad, scope, type Tensor } from '../tensor/index.js'
import { keepForever } from '../tensor/scope.js'
import type { GroupOptions, Optimizer, OptimizerState, ParamGroup } from '../train/optimizer.js'
import { allGatherObject, broadcast } from './collectives.js'
import { getRank, getWorldSize, groupId, requireRank } from './process-group.js'

/** Parameters, or groups of them with their own options, as for an optimizer. */
type Params<O extends GroupOptions> = Iterable<Tensor> | Iterable<{ params: Iterable<Tensor> } & Partial<O>>

/**
 * Shards the state of any optimizer over the ranks (ZeRO stage 1, Rajbhandari et al. 2020, https://arxiv.org/abs/1910.02054;
 * PyTorch's `ZeroRedundancyOptimizer`): each rank keeps state for its part of the parameters, updates those, and sends them to
 * the others. The weights are bit-identical to those of the optimizer alone.
 *
 * ```ts
 * const optimizer = new ZeroRedundancyOptimizer(model.parameters(), (params) => new AdamW(params, { lr: 1e-4 }))
 * ```
 *
 * Gradients must be equal on all ranks, as with DistributedDataParallel.
 */
export class ZeroRedundancyOptimizer<O extends GroupOptions = GroupOptions> {
  /** Optimizer of all parameters, for their groups and checks; it never steps, so it has no state. */
  readonly #whole: Optimizer<O>
  readonly #own: Optimizer<O>
  /** Rank that updates each parameter, in the order of the groups. */
  readonly #owners: number[]

  /** @param make creates the optimizer, for all parameters and for this rank's part */
  constructor(params: Params<O>, make: (params: Params<O>) => Optimizer<O>) {
    groupId(WHERE)
    requireFunction(WHERE, 'make', make)
    this.#whole = make(listOf<Tensor>(WHERE, 'params', params as Iterable<Tensor>, 'parameters or groups'))
    this.#owners = shares(this.#params().map((param) => param.shape.reduce((product, size) => product * size, 1)))
    let index = 0
    const ownGroups = this.#whole.groups.map((group) => ({
      ...group,
      params: group.params.filter(() => this.#owners[index++] === getRank()),
    }))
    this.#own = make(ownGroups as Iterable<{ params: Iterable<Tensor> } & Partial<O>>)
  }

  /** All groups, with all parameters. Set options at any time, as a schedule does: the next step uses them. */
  get groups(): ParamGroup<O>[] {
    return this.#whole.groups
  }

  /** Default options of the groups. */
  get defaults(): Readonly<O> {
    return this.#whole.defaults
  }

  /** Rank that keeps the state of each parameter, in the order of the groups. */
  get owners(): readonly number[] {
    return this.#owners
  }

  /** Update this rank's part and receive the others'. All ranks call it. */
  async step(): Promise<void> {
    this.#passOptions()
    await this.#own.step()
    const params = this.#params()
    for (let owner = 0; owner < getWorldSize(); owner++) {
      const theirs = params.filter((_, i) => this.#owners[i] === owner)
      if (theirs.length > 0) await noGrad(() => broadcast(theirs, owner))
    }
  }

  /** Set every gradient to null. */
  zeroGrad(): void {
    this.#whole.zeroGrad()
  }

  /**
   * Return the state of all ranks as one dictionary, as of the unsharded optimizer: it loads into either, on any number of
   * ranks. All ranks call it. The tensors are copies that no scope owns; dispose them after saving.
   * @param options.to the only rank that needs it; others get null. Default: all ranks
   */
  async consolidateStateDict(options: { to: number }): Promise<OptimizerState | null>
  async consolidateStateDict(options?: { to?: undefined }): Promise<OptimizerState>
  async consolidateStateDict(options: { to?: number | undefined } = {}): Promise<OptimizerState | null> {
    const { to } = options
    if (to !== undefined) requireRank(`${WHERE}.consolidateStateDict`, 'to', to)
    const wanted = to === undefined || to === getRank()
    this.#passOptions()
    const ownState = this.#ownState()
    const params = this.#params()
    const described = await allGatherObject(
      Object.entries(ownState).map(([number, state]) => [number, describe(state)] as const),
    )
    const state: OptimizerState['state'] = {}
    for (const [owner, entries] of described.entries()) {
      for (const [number, kinds] of entries) {
        const tensors = await scope(async () => {
          const held = ownState[number] ?? {}
          const copies = kinds.map(([key, shape, dtype, onCpu]) => {
            const source = held[key]
            // Each rank has its own GPU.
            const device: Device = onCpu ? 'cpu' : (params[Number(number)] as Tensor).device
            return noGrad(() => (source ? source.clone() : empty(shape, { dtype, device })))
          })
          await broadcast(copies, owner)
          if (wanted) for (const copy of copies) keepForever(copy)
          return wanted ? copies : []
        })
        if (wanted) state[number] = Object.fromEntries(kinds.map(([key], i) => [key, tensors[i] as Tensor]))
      }
    }
    return wanted ? { ...this.#whole.stateDict(), state: inOrder(state) } : null
  }

  /** Load this rank's part of a full state, from `consolidateStateDict` or the unsharded optimizer. */
  loadStateDict(dict: OptimizerState): void {
    const whole = this.#whole.readState(dict)
    // Check the groups and load their options; the state goes to the shards.
    this.#whole.loadStateDict({ ...whole, state: {} })
    const numbers = this.#ownNumbers()
    const state = Object.fromEntries(
      numbers.flatMap((number, i) => {
        const one = whole.state[number]
        return one ? [[String(i), one] as const] : []
      }),
    )
    const { param_groups } = this.#own.stateDict()
    this.#own.loadStateDict({
      state,
      param_groups: param_groups.map(({ params }, g) => ({ ...whole.param_groups[g], params })),
    })
  }

  /** Free this rank's state tensors; the next step starts afresh. */
  dispose(): void {
    this.#own.dispose()
  }

  [Symbol.dispose](): void {
    this.dispose()
  }

  #params(): Tensor[] {
    return this.#whole.groups.flatMap(({ params }) => params)
  }

  /** Return the indices, among all parameters, of this rank's. */
  #ownNumbers(): number[] {
    return this.#owners.flatMap((owner, number) => (owner === getRank() ? [number] : []))
  }

  #ownState(): OptimizerState['state'] {
    const numbers = this.#ownNumbers()
    const { state } = this.#own.stateDict()
    return Object.fromEntries(Object.entries(state).map(([i, one]) => [numbers[Number(i)] as number, one]))
  }

  #passOptions(): void {
    if (this.#whole.groups.length !== this.#own.groups.length || this.#params().length !== this.#owners.length) {
      throw new ConfigError(
        `${WHERE}: expected the groups of the constructor, got changed ones. Create a new optimizer`,
        {},
      )
    }
    this.#whole.groups.forEach((group, g) => {
      const { params: _, ...options } = group
      Object.assign(this.#own.groups[g] as object, options)
    })
  }
}

const WHERE = 'ZeroRedundancyOptimizer'

/** Assign the largest parameters first, each to the rank with the least so far: the result is the same on every rank. */
function shares(sizes: number[]): number[] {
  const loads: number[] = new Array(getWorldSize()).fill(0)
  const owners: number[] = new Array(sizes.length).fill(0)
  const order = sizes.map((_, i) => i).sort((a, b) => (sizes[b] as number) - (sizes[a] as number))
  for (const i of order) {
    const owner = loads.indexOf(Math.min(...loads))
    owners[i] = owner
    loads[owner] = (loads[owner] as number) + (sizes[i] as number)
  }
  return owners
}

type Kind = [key: string, shape: number[], dtype: DType, onCpu: boolean]

function describe(state: Record<string, Tensor>): Kind[] {
  return Object.entries(state).map(([key, value]) => [key, value.shape, value.dtype, value.device === 'cpu'])
}

const inOrder = (state: OptimizerState['state']): OptimizerState['state'] =>
  Object.fromEntries(Object.entries(state).sort(([a], [b]) => Number(a) - Number(b)))
