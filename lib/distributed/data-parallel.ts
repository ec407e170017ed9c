import { requireNumber, requireObject, requireOneOf } from '../base/check.js'
import { ConfigError, GradientError, VoxtorchError } from '../base/errors.js'
import { opAsync } from '../native/call.js'
import { Module } from '../nn/module.js'
import { isGradEnabled, Tensor } from '../tensor/index.js'
import { groupId } from './process-group.js'

export interface DataParallelOptions {
  /** Search each output's graph for unused parameters. Default false: all parameters must get a gradient. */
  findUnusedParameters?: boolean
  /** Size of the gradient buckets in MiB. Default 25. */
  bucketCapMb?: number
  /** Broadcast the buffers (running statistics) of rank 0 before each forward pass. Default true. */
  broadcastBuffers?: boolean
}

const KEYS = ['findUnusedParameters', 'bucketCapMb', 'broadcastBuffers'] as const

const makeReducer = opAsync('voxtorch::distributed_reducer')
const beforeForward = opAsync('voxtorch::distributed_reducer_before_forward')
const afterForward = opAsync('voxtorch::distributed_reducer_after_forward')
const destroyReducer = opAsync('voxtorch::distributed_reducer_destroy')

type Arguments<M extends Module> = M['forward'] extends (...args: infer A) => unknown ? A : never
type Result<M extends Module> = Awaited<ReturnType<M['forward']>>

// The parameters keep the native reducer alive.
const forgotten = new FinalizationRegistry<Promise<number>>((reducer) => release(reducer))

/**
 * Trains one model in several processes, each on its own part of every batch: after `backward()` every parameter's `grad` is
 * the mean over the ranks. It uses c10d's `Reducer`, PyTorch's own: gradients are sent in buckets while backward still computes
 * the next ones.
 *
 * ```ts
 * await initProcessGroup()
 * const ddp = new DistributedDataParallel(model)
 * const loss = functional.crossEntropy(await ddp.forward(inputs), labels)
 * await loss.backward() // talks to the other ranks
 * await optimizer.step()
 * ```
 *
 * The first forward pass (or `ready()`) copies rank 0's parameters and buffers to all ranks. For the gradients to be those of
 * the whole batch, the loss of each rank must be a mean over equally many samples; otherwise scale it. Every rank must run the
 * same number of forward and backward passes. To evaluate on one rank alone, call `ddp.module`. Do not move or freeze
 * parameters afterwards.
 *
 * Its state dictionary has the model's names with the prefix `module.`, as in PyTorch; save `ddp.module`. `dispose()` frees the
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
    if (!(module instanceof Module)) throw new ConfigError(`${WHERE}: expected a Module`, {})
    requireObject(WHERE, 'its options', options)
    for (const key of Object.keys(options)) requireOneOf(WHERE, 'an option', key, KEYS)
    const { findUnusedParameters = false, bucketCapMb = 25, broadcastBuffers = true } = options
    requireNumber(WHERE, 'bucketCapMb', bucketCapMb)
    if (bucketCapMb <= 0 || bucketCapMb > 4096) {
      throw new ConfigError(`${WHERE}: expected bucketCapMb above 0 and at most 4096, got ${bucketCapMb}`, {})
    }
    this.module = module
    this.#findUnused = findUnusedParameters
    this.#broadcastBuffers = broadcastBuffers
    this.#bucketCapMb = bucketCapMb
    const named = module.namedParameters().filter(([, parameter]) => parameter.requiresGrad)
    if (named.length === 0)
      throw new ConfigError(
        `${WHERE}: expected a model with trainable parameters, got none that requires a gradient`,
        {},
      )
    this.#names = named.map(([name]) => name)
    groupId(WHERE)
  }

  /**
   * Broadcast the parameters and buffers of rank 0; the first `forward` waits for it. All ranks call it at the same point.
   * Await it before copying weights (an EMA) ahead of the first forward pass.
   * @throws DistributedError if the ranks have different models
   */
  async ready(): Promise<void> {
    await this.#start()
  }

  /** Run the model's forward pass. Always returns a promise, since it may communicate with the other ranks. */
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
   * Run `fn` with gradients accumulated on this rank only; the first backward after it sends the sum. For gradient
   * accumulation: the forward pass must be inside too.
   */
  noSync<T>(fn: () => T): T {
    if (typeof fn !== 'function') throw new ConfigError(`noSync: expected a function, got a ${typeof fn}`, {})
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

  /** Release the model, which stays, and the reducer. A later forward pass starts anew. */
  release(): void {
    forgotten.unregister(this)
    if (this.#reducer) release(this.#reducer)
    this.#reducer = undefined
  }

  protected override freeNative(): void {
    this.release()
  }

  // Not in the constructor: until this job is done, the parameters could not be read.
  #start(): Promise<number> {
    if (this.#reducer) return this.#reducer
    const trained = new Set(this.#names)
    const named = this.module.namedParameters()
    const parameters = named.filter(([name]) => trained.has(name)).map(([, parameter]) => parameter)
    // Frozen parameters are sent with the buffers: they must be equal everywhere too.
    const frozen = named.filter(([name]) => !trained.has(name)).map(([, parameter]) => parameter)
    const others = [...frozen, ...this.#buffers()]
    this.#reducer = makeReducer(groupId(WHERE), parameters, others, this.#names, this.#bucketCapMb, this.#findUnused)
    forgotten.register(this, this.#reducer, this)
    return this.#reducer
  }

  #buffers(): Tensor[] {
    return this.module.namedBuffers().map(([, buffer]) => buffer)
  }

  /** Replace c10d's error about a backward pass that did not reach all parameters by a clearer one. */
  async #explained(job: Promise<unknown>): Promise<void> {
    try {
      await job
    } catch (error) {
      if (!(error instanceof VoxtorchError) || !/finished reduction/.test(error.message)) throw error
      const indices = /for rank \d+:([\d ]+)/.exec(error.message)?.[1]?.trim().split(/ +/) ?? []
      const parameters = indices.map((index) => this.#names[Number(index)] ?? index)
      throw new GradientError(
        `${WHERE}: expected a backward pass that reaches all parameters, got none, or one without ` +
          `${parameters.join(', ') || '(none)'}. Pass findUnusedParameters: true if parameters may be unused, and use ` +
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

/** Return the tensors with a graph in a result: the result itself, or in arrays, maps and objects. */
function tensorsIn(value: unknown): Tensor[] {
  const found: Tensor[] = []
  const visited = new Set<unknown>()
  const open: unknown[] = [value]
  while (open.length > 0) {
    const item = open.pop()
    if (typeof item !== 'object' || item === null || visited.has(item)) continue
    visited.add(item)
    if (item instanceof Tensor) {
      if (item.requiresGrad) found.push(item)
    } else if (item instanceof Map) open.push(...item.values())
    else open.push(...Object.values(item))
  }
  return found
}
