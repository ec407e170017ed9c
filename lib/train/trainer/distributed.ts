import { ConfigError, DistributedError } from '../../base/errors.js'
import {
  allGather,
  allGatherObject,
  DistributedDataParallel,
  initProcessGroup,
  isInitialized,
  rank,
  worldSize,
} from '../../distributed/index.js'
import { Module } from '../../nn/index.js'
import { noGrad, ops, scope, stack, type Tensor, tensor } from '../../tensor/index.js'
import type { ResolvedArguments } from './arguments.js'

/** The processes that train together, seen from one of them. One alone asks nobody. */
export class Ranks {
  constructor(
    readonly rank = 0,
    readonly size = 1,
  ) {}

  /** Whether this is the process that logs and saves. */
  get isMain(): boolean {
    return this.rank === 0
  }

  /** Sums over the ranks, the same on each. */
  async sum(values: readonly number[]): Promise<number[]> {
    return columns(await this.gather(values), (column) => column.reduce((sum, value) => sum + value, 0))
  }

  async max(values: readonly number[]): Promise<number[]> {
    return columns(await this.gather(values), (column) => Math.max(...column))
  }

  /** The values of all ranks, on each: anything that JSON can hold. */
  async all<T>(value: T): Promise<T[]> {
    return this.size === 1 ? [value] : allGatherObject(value)
  }

  /**
   * What rank 0's work gives, on every rank; the others wait for it.
   * @throws DistributedError on the others where the work failed
   */
  async fromMain<T>(work: () => Promise<T>): Promise<T> {
    if (this.size === 1) return work()
    let result: { value?: T; error?: string } = {}
    let failure: unknown
    if (this.isMain) {
      try {
        result = { value: await work() }
      } catch (error) {
        failure = error
        result = { error: String(error) }
      }
    }
    const [main] = await allGatherObject(result)
    if (failure !== undefined) throw failure
    if (main?.error !== undefined) throw new DistributedError(`Rank 0 failed: ${main.error}`, { rank: 0 })
    return main?.value as T
  }

  /**
   * The rows of all ranks, [rows, ...], with row i of rank r at place i · size + r, as shares of a batch are dealt; where
   * the ranks' numbers of rows do not fit that, one rank's after the other. Shorter rows are filled with -100.
   */
  async rows(own: Tensor | null): Promise<Tensor | null> {
    if (this.size === 1) return own
    const kinds = await allGatherObject(own && { shape: own.shape, dtype: own.dtype })
    const known = kinds.find((kind) => kind !== null)
    if (!known) return null
    const counts = kinds.map((kind) => kind?.shape[0] ?? 0)
    const [most, total] = [Math.max(...counts), counts.reduce((sum, count) => sum + count, 0)]
    const shape = [most, ...known.shape.slice(1)]
    if (shape.length > 1) shape[1] = Math.max(...kinds.map((kind) => kind?.shape[1] ?? 0))
    const sent = filled(own ?? ops.empty([0, ...shape.slice(1)], { dtype: known.dtype }), shape)
    const parts = await allGather(sent)
    const dealt = counts.every((count, r) => count === Math.ceil((total - r) / this.size))
    if (dealt) {
      return stack(parts, 1)
        .reshape([most * this.size, ...shape.slice(1)])
        .narrow(0, 0, total)
        .clone()
    }
    return ops.cat(parts.map((part, r) => part.narrow(0, 0, counts[r] as number)))
  }

  /** The numbers of each rank. */
  async gather(values: readonly number[]): Promise<number[][]> {
    if (this.size === 1) return [[...values]]
    return scope(() =>
      noGrad(async () =>
        (await allGather(tensor([...values], { dtype: 'float64' }))).map((one) => one.toArray() as number[]),
      ),
    )
  }
}

const columns = (rows: number[][], reduce: (column: number[]) => number): number[] =>
  (rows[0] as number[]).map((_, i) => reduce(rows.map((row) => row[i] as number)))

/** A tensor that is larger at the ends of its first two dimensions. */
function filled(part: Tensor, shape: readonly number[]): Tensor {
  // Pairs of sizes, from the last dimension.
  const sizes = shape.flatMap((size, i) => [size - part.size(i), 0]).reverse()
  return sizes.every((size) => size === 0) ? part.contiguous() : ops.constantPadNd(part, sizes, -100)
}

/**
 * The ranks of the open process group; where there is none but a launcher's environment of several processes, a group is
 * opened. It stays open when training is done.
 */
export async function joinRanks(device: string, { ddpTimeout }: ResolvedArguments): Promise<Ranks> {
  if (!isInitialized()) {
    const launched = ['RANK', 'WORLD_SIZE', 'MASTER_ADDR', 'MASTER_PORT'].every((name) => process.env[name])
    if (!launched || worldSize() < 2) return new Ranks()
    await initProcessGroup({ backend: device === 'cpu' ? 'gloo' : 'nccl', timeout: ddpTimeout * 1000 })
  }
  return new Ranks(rank(), worldSize())
}

/** Runs the model on a batch, and `backward` on its loss. */
export interface Gradients<B> {
  /**
   * @param batch null for a loss that depends on nothing, where only the other ranks have a batch
   * @param last whether the gradients so far go to the other ranks
   */
  of(batch: B | null, last: boolean, backward: (loss: Tensor) => Promise<void>): Promise<void>
  release(): void
}

export type LossOf<B> = (batch: B) => Promise<Tensor>

/** The gradients of one process, or of all. All ranks call it. */
export async function makeGradients<B>(
  ranks: Ranks,
  model: Module,
  loss: LossOf<B>,
  args: ResolvedArguments,
): Promise<Gradients<B>> {
  if (ranks.size === 1) {
    return { of: async (batch, _, backward) => backward(await loss(batch as B)), release: () => {} }
  }
  const findUnusedParameters = args.ddpFindUnusedParameters
  const objective = new Objective(model, loss, findUnusedParameters)
  const parallel = new DistributedDataParallel(objective, { findUnusedParameters })
  await parallel.ready()
  return {
    async of(batch, last, backward) {
      const run = async () => backward(await parallel.forward(batch))
      await (last ? run() : parallel.noSync(run))
      objective.look()
    },
    release: () => parallel.release(),
  }
}

/** A model with its loss: what DistributedDataParallel wraps, so that `computeLoss` may use the model as it likes. */
class Objective<B> extends Module {
  readonly #loss: LossOf<B>
  readonly #findUnused: boolean
  /** A parameter that takes part in the loss. */
  #used: Tensor | undefined

  constructor(
    readonly model: Module,
    loss: LossOf<B>,
    findUnused: boolean,
  ) {
    super()
    this.#loss = loss
    this.#findUnused = findUnused
  }

  /** Called when there are gradients. */
  look(): void {
    this.#used ??= this.#trained().find((parameter) => parameter.grad)
  }

  override async forward(batch: B | null): Promise<Tensor> {
    return batch === null ? this.#nothing() : this.#loss(batch)
  }

  /** 0, with gradients of zeros: for all parameters, or for one where those without a gradient are looked for. */
  #nothing(): Tensor {
    const trained = this.#trained()
    const sums = (this.#findUnused ? [this.#used ?? (trained.at(-1) as Tensor)] : trained).map((parameter) =>
      parameter.reshape([-1]).narrow(0, 0, 0).sum().to({ dtype: 'float32' }),
    )
    const { device } = sums[0] as Tensor
    return stack(sums.map((sum) => sum.to({ device }))).sum()
  }

  #trained(): Tensor[] {
    return this.model.parameters().filter((parameter) => parameter.requiresGrad)
  }
}

/** @throws ConfigError for batches that every rank would train on */
export function requireSharded(name: string, source: unknown): void {
  if ((source as { sharded?: unknown }).sharded !== false) return
  throw new ConfigError(
    `Trainer: every rank would read all of ${name}: give its DataLoader ` +
      '`shard: { rank: rank(), worldSize: worldSize() }`, or a DistributedSampler',
    { argument: name },
  )
}
