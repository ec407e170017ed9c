import { ConfigError, DistributedError } from '../../base/errors.js'
import {
  allGather,
  allGatherObject,
  DistributedDataParallel,
  getRank,
  getWorldSize,
  initProcessGroup,
  isInitialized,
} from '../../distributed/index.js'
import { Module } from '../../nn/index.js'
import { noGrad, ops, scope, stack, type Tensor, tensor } from '../../tensor/index.js'
import type { ResolvedArguments } from './arguments.js'

/** Process group of a training as one rank sees it. A single process does not communicate. */
export class Ranks {
  constructor(
    readonly rank = 0,
    readonly size = 1,
  ) {}

  /** Whether this process logs and saves. */
  get isMain(): boolean {
    return this.rank === 0
  }

  /** Sum values over the ranks; returns the same sums on each. */
  async sum(values: readonly number[]): Promise<number[]> {
    return columns(await this.gather(values), (column) => column.reduce((sum, value) => sum + value, 0))
  }

  async max(values: readonly number[]): Promise<number[]> {
    return columns(await this.gather(values), (column) => Math.max(...column))
  }

  /** Gather the values of all ranks on each rank. Values must be serializable as JSON. */
  async all<T>(value: T): Promise<T[]> {
    return this.size === 1 ? [value] : allGatherObject(value)
  }

  /**
   * Run work on each rank, and gather its values on each rank. Values must be serializable as JSON.
   * @param where name of the caller, for errors
   * @throws the error of the work; DistributedError on the other ranks if it failed on one
   */
  async each<T>(where: string, work: () => Promise<T>): Promise<T[]> {
    if (this.size === 1) return [await work()]
    let result: { value?: T; error?: string } = {}
    let failure: unknown
    try {
      result = { value: await work() }
    } catch (error) {
      failure = error
      result = { error: String(error) }
    }
    const results = await allGatherObject(result)
    if (failure !== undefined) throw failure
    const failed = results.findIndex(({ error }) => error !== undefined)
    if (failed < 0) return results.map(({ value }) => value as T)
    throw new DistributedError(
      `${where}: expected every rank to finish, got an error on rank ${failed}: ${results[failed]?.error}`,
      { rank: failed },
    )
  }

  /**
   * Run work on rank 0 and return its result on every rank; the others wait for it.
   * @throws DistributedError on the other ranks if the work failed
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
    if (main?.error !== undefined)
      throw new DistributedError(`Trainer: expected rank 0 to finish, got its error: ${main.error}`, { rank: 0 })
    return main?.value as T
  }

  /**
   * Gather the rows of all ranks, [rows, ...]. Row i of rank r goes to index i · size + r, which undoes the sharding of a
   * batch; if the numbers of rows do not match that, the ranks' rows are concatenated. Shorter rows are padded with -100.
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

  /** Gather the numbers of each rank. */
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

/** Pad a tensor at the ends of its first two dimensions. */
function filled(part: Tensor, shape: readonly number[]): Tensor {
  // `pad` takes pairs of sizes, starting with the last dimension.
  const sizes = shape.flatMap((size, i) => [size - part.size(i), 0]).reverse()
  return sizes.every((size) => size === 0) ? part.contiguous() : ops.constantPadNd(part, sizes, -100)
}

/**
 * Return the ranks of the open process group. Without one, but with a launcher's environment of several processes, open a
 * group, which stays open when training is done.
 */
export async function joinRanks(device: string, { ddpTimeout }: ResolvedArguments): Promise<Ranks> {
  if (!isInitialized()) {
    const launched = ['RANK', 'WORLD_SIZE', 'MASTER_ADDR', 'MASTER_PORT'].every((name) => process.env[name])
    if (!launched || getWorldSize() < 2) return new Ranks()
    await initProcessGroup({ backend: device === 'cpu' ? 'gloo' : 'nccl', timeout: ddpTimeout * 1000 })
  }
  return new Ranks(getRank(), getWorldSize())
}

/** Runs the model on a batch, and `backward` on its loss. */
export interface Gradients<B> {
  /**
   * @param batch null on a rank without a batch while other ranks have one; its loss depends on nothing
   * @param last whether to send the accumulated gradients to the other ranks
   */
  of(batch: B | null, last: boolean, backward: (loss: Tensor) => Promise<void>): Promise<void>
  release(): void
}

export type LossOf<B> = (batch: B) => Promise<Tensor>

/** Return the gradient computation for one process or for several. All ranks call it. */
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

/** Model together with its loss, as a module for DistributedDataParallel, so that `computeLoss` may use the model freely. */
class Objective<B> extends Module {
  readonly #loss: LossOf<B>
  readonly #findUnused: boolean
  /** Any parameter that takes part in the loss. */
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

  /** Look for a used parameter once there are gradients. */
  look(): void {
    this.#used ??= this.#trained().find((parameter) => parameter.grad)
  }

  override async forward(batch: B | null): Promise<Tensor> {
    return batch === null ? this.#nothing() : this.#loss(batch)
  }

  /** Return a loss of 0 whose gradients are zeros: for all parameters, or for one if unused parameters are detected. */
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

/** Check that the ranks do not read the same batches. @throws ConfigError if they would */
export function requireSharded(name: string, source: unknown): void {
  if ((source as { sharded?: unknown }).sharded !== false) return
  throw new ConfigError(
    `Trainer.${name}: expected a sharded DataLoader with several processes, got one that every rank reads in full. Pass ` +
      '`shard: { rank: getRank(), worldSize: getWorldSize() }`, or a DistributedSampler',
    { argument: name },
  )
}
