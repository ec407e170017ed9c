import { requireNumber, requireObject, requireOneOf } from '../base/check.js'
import { ConfigError, GradientError, VoxtorchError } from '../base/errors.js'
import { opAsync } from '../native/call.js'
import { Module } from '../nn/module.js'
import { isGradEnabled, Tensor } from '../tensor/index.js'
import { groupId } from './process-group.js'

export interface DataParallelOptions {
  /** Look through each output's graph for parameters that take no part. Default false: all must get a gradient. */
  findUnusedParameters?: boolean
  /** Gradients travel in buckets of this many MiB. Default 25. */
  bucketCapMb?: number
  /** Before each forward pass, give every rank the buffers (running statistics) of rank 0. Default true. */
  broadcastBuffers?: boolean
}

const KEYS = ['findUnusedParameters', 'bucketCapMb', 'broadcastBuffers'] as const

const makeReducer = opAsync('voxtorch::distributed_reducer')
const beforeForward = opAsync('voxtorch::distributed_reducer_before_forward')
const afterForward = opAsync('voxtorch::distributed_reducer_after_forward')
const destroyReducer = opAsync('voxtorch::distributed_reducer_destroy')

type Arguments<M extends Module> = M['forward'] extends (...args: infer A) => unknown ? A : never
type Result<M extends Module> = Awaited<ReturnType<M['forward']>>

// The native reducer hangs on the parameters and would live as long as they do.
const forgotten = new FinalizationRegistry<Promise<number>>((reducer) => release(reducer))

/**
 * Trains one model in several processes, each on its own part of every batch: after `backward()` every parameter's `grad`
 * is the mean over the ranks. It is c10d's `Reducer`, PyTorch's own: gradients travel in buckets while backward still
 * computes the next ones.
 *
 * ```ts
 * await initProcessGroup()
 * const ddp = new DistributedDataParallel(model)
 * const loss = functional.crossEntropy(await ddp.forward(inputs), labels)
 * await loss.backward() // talks to the other ranks
 * await optimizer.step()
 * ```
 *
 * The first forward pass (or `ready()`) copies rank 0's parameters and buffers to all. The loss of each rank must be a
 * mean over equally many samples for the gradients to be those of the whole batch; otherwise scale it. Every rank runs as
 * many forward and backward passes as the others. To evaluate on one rank alone, call `ddp.module`. Do not move or freeze
 * parameters afterwards.
 *
 * Its state dictionary has the model's names below `module.`, as PyTorch's; save `ddp.module`. `dispose()` frees the
 * model too.
 */
export class DistributedDataParallel<M extends Module = Module> extends Module {
  readonly module: M
  readonly #names: string[]
  readonly #findUnused: boolean
  readonly #broadcastBuffers: boolean
  readonly #bucketCapMb: number
  #reducer: Promise<number> | undefined
  #synchronize = true

  constructor(module: M, options: DataParallelOptions = {}) {
    super()
    if (!(module instanceof Module)) throw new ConfigError(`${WHERE} wraps a Module`, {})
    requireObject(WHERE, 'its options', options)
    for (const key of Object.keys(options)) requireOneOf(WHERE, 'an option', key, KEYS)
    const { findUnusedParameters = false, bucketCapMb = 25, broadcastBuffers = true } = options
    requireNumber(WHERE, 'bucketCapMb', bucketCapMb)
    if (bucketCapMb <= 0 || bucketCapMb > 4096) {
      throw new ConfigError(`${WHERE}: bucketCapMb is ${bucketCapMb}, expected above 0 and at most 4096`, {})
    }
    this.module = module
    this.#findUnused = findUnusedParameters
    this.#broadcastBuffers = broadcastBuffers
    this.#bucketCapMb = bucketCapMb
    const named = module.namedParameters().filter(([, parameter]) => parameter.requiresGrad)
    if (named.length === 0) throw new ConfigError(`${WHERE}: no parameter of the model requires a gradient`, {})
    this.#names = named.map(([name]) => name)
    groupId(WHERE)
  }

  /**
   * Gives all ranks the parameters and buffers of rank 0; the first `forward` waits for it. All ranks call it at the same
   * place. What copies the weights before the first forward pass (an EMA) must wait for it too.
   * @throws DistributedError where the ranks have other models
   */
  async ready(): Promise<void> {
    await this.#start()
  }

  /** The model's forward pass, always as a promise: it may have to talk to the other ranks. */
  override async forward(...args: Arguments<M>): Promise<Result<M>> {
    const reducer = await this.#start()
    const synchronize = this.#synchronize
    const trains = synchronize && isGradEnabled()
    const buffers = synchronize && this.#broadcastBuffers ? this.#buffers() : []
    if (trains || buffers.length > 0) await this.#explained(beforeForward(reducer, buffers, trains))
    const result = (await Reflect.apply(this.module.forward, this.module, args)) as Result<M>
    if (trains) await this.#explained(afterForward(reducer, this.#findUnused ? tensorsIn(result) : []))
    return result
  }

  /**
   * Inside `fn` gradients only add up on this rank; the first backward after it sends the sum. For gradient accumulation:
   * the forward pass has to be inside too.
   */
  noSync<T>(fn: () => T): T {
    if (typeof fn !== 'function') throw new ConfigError(`noSync() needs a function, not a ${typeof fn}`, {})
    const before = this.#synchronize
    const restore = () => {
      this.#synchronize = before
    }
    this.#synchronize = false
    let result: T
    try {
      result = fn()
    } catch (error) {
      restore()
      throw error
    }
    if (result instanceof Promise) return result.finally(restore) as T
    restore()
    return result
  }

  /** Lets go of the model, which stays, and of what sends its gradients. A later forward pass begins anew. */
  release(): void {
    forgotten.unregister(this)
    if (this.#reducer) release(this.#reducer)
    this.#reducer = undefined
  }

  protected override freeNative(): void {
    this.release()
  }

  // Not in the constructor: until this job is done, nobody could look at the parameters.
  #start(): Promise<number> {
    if (this.#reducer) return this.#reducer
    const trained = new Set(this.#names)
    const named = this.module.namedParameters()
    const parameters = named.filter(([name]) => trained.has(name)).map(([, parameter]) => parameter)
    // Frozen parameters travel with the buffers: they too have to be equal everywhere.
    const frozen = named.filter(([name]) => !trained.has(name)).map(([, parameter]) => parameter)
    const others = [...frozen, ...this.#buffers()]
    this.#reducer = makeReducer(groupId(WHERE), parameters, others, this.#names, this.#bucketCapMb, this.#findUnused)
    forgotten.register(this, this.#reducer, this)
    return this.#reducer
  }

  #buffers(): Tensor[] {
    return this.module.namedBuffers().map(([, buffer]) => buffer)
  }

  /** What c10d says of a backward pass that did not reach all parameters, in our terms. */
  async #explained(job: Promise<unknown>): Promise<void> {
    try {
      await job
    } catch (error) {
      if (!(error instanceof VoxtorchError) || !/finished reduction/.test(error.message)) throw error
      const indices = /for rank \d+:([\d ]+)/.exec(error.message)?.[1]?.trim().split(/ +/) ?? []
      const parameters = indices.map((index) => this.#names[Number(index)] ?? index)
      throw new GradientError(
        `${WHERE}: the last forward pass had no backward, or these parameters took no part in its loss: ` +
          `${parameters.join(', ') || '(none)'}. Pass findUnusedParameters: true where parameters may be unused, and use ` +
          'noSync or noGrad for passes without a backward',
        { parameters, cause: error },
      )
    }
  }
}

const WHERE = 'DistributedDataParallel'

function release(reducer: Promise<number>): void {
  reducer.then((id) => destroyReducer(id)).catch(() => undefined)
}

/** The tensors with a graph in a result: itself, or in arrays, maps and objects. */
function tensorsIn(value: unknown): Tensor[] {
  const found: Tensor[] = []
  const seen = new Set<unknown>()
  const open: unknown[] = [value]
  while (open.length > 0) {
    const item = open.pop()
    if (typeof item !== 'object' || item === null || seen.has(item)) continue
    seen.add(item)
    if (item instanceof Tensor) {
      if (item.requiresGrad) found.push(item)
    } else if (item instanceof Map) open.push(...item.values())
    else open.push(...Object.values(item))
  }
  return found
}
