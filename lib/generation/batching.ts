import { argumentError, requireOptions, requireWhole } from '../base/check.js'
import { ConfigError } from '../base/errors.js'
import { Turns } from '../base/turn.js'
import { native } from '../native/addon.js'
import { op, opAsync } from '../native/call.js'
import { type Context, currentContext, runInContext } from '../native/context.js'
import { handleOf } from '../native/handle.js'
import type { ModuleHandle } from '../native/objects.js'
import { handleOfNetwork, NativeModule, withActiveAdapters } from '../nn/native-module.js'
import { noGrad, type Tensor } from '../tensor/index.js'
import { TensorCache } from '../tensor/tensor-cache.js'
import type { Added, GenerationSession } from './session.js'

const make = op('voxtorch::generation_batch')
const join = opAsync('voxtorch::generation_batch_join')
const leave = opAsync('voxtorch::generation_batch_leave')
const pass = opAsync('voxtorch::generation_batch_step')
const errorOf = opAsync('voxtorch::generation_batch_error')
const factsOf = op('voxtorch::generation_batch_facts')
const tokenBytes = op('voxtorch::generation_token_bytes')

/** Return the bytes of a token in the cache of a language model; 0 for other networks. */
export const bytesPerToken = (network: NativeModule): number => tokenBytes(handleOfNetwork(network)) as number

export interface ContinuousBatchingOptions {
  /** Maximum number of sequences that are generated together; others wait in a queue. Default 8. */
  maxNumSeqs?: number
  /**
   * Maximum number of tokens per pass: one of each running sequence, and prompt tokens, split evenly between new sequences. A smaller value
   * delays running sequences less when a long prompt arrives. Default 128.
   */
  maxNumBatchedTokens?: number
  /**
   * Maximum bytes of keys and values of all running sequences, each counted with its prompt and maximum number of new tokens. A sequence
   * waits until enough is free. Default: no limit.
   */
  maxCacheBytes?: number
  /**
   * Bytes of keys and values of finished sequences that stay cached, so that a prompt with the same prefix of token ids (and the same
   * weights and adapters) computes only the rest. The least recently used go first. Concurrent sequences share prefixes as well. If RoPE
   * angles depend on the length of the text, only texts with the same angles share. Default 0: no caching or sharing.
   */
  prefixCacheBytes?: number
  /**
   * With a prefix cache: bytes of embeddings of audio windows that stay cached, so that an encoder runs once for a clip that several prompts
   * have. The least recently used go first. Default: a quarter of `prefixCacheBytes`.
   */
  mediaCacheBytes?: number
}

export interface ContinuousBatchingStats {
  /** Number of running sequences. */
  running: number
  /** Number of waiting sequences. */
  waiting: number
  prefixCache: {
    /** Number of cached sequences, and their `bytes`. */
    texts: number
    bytes: number
    /** Number of prompt tokens so far, and of those that came from the cache (`cachedTokens`). */
    promptTokens: number
    cachedTokens: number
  }
  /** Number of cached embeddings of audio windows, their `bytes`, and numbers of windows so far that were cached or not. */
  mediaCache: { windows: number; bytes: number; hits: number; misses: number }
}

/** Embeddings of media by content. */
export class MediaCache extends TensorCache<Tensor> {
  protected tensorsOf(value: Tensor): Tensor[] {
    return [value]
  }
  protected copied(value: Tensor, copy: (tensor: Tensor) => Tensor): Tensor {
    return copy(value)
  }
}

/** Maximum number of tokens that a sequence generates ahead of its consumer. */
const AHEAD = 16

/** A sequence that joins a batch. */
export interface SequenceRequest {
  session: GenerationSession
  inputs: Record<string, unknown>
  /** Maximum final length in tokens. */
  tokens: number
  /** Return the tokens that are allowed next. */
  allowed: (() => number[][]) | undefined
}

/** A token of a sequence, with the number of prompt tokens that came from the cache. */
export interface BatchedToken extends Added {
  cachedTokens: number
}

/** Internals: network of a batching, a place in it, whether the caller has its adapters, and its cache of media; none without prefixes. */
export let networkOf: (batching: ContinuousBatching) => NativeModule
export let enqueueIn: (batching: ContinuousBatching, request: SequenceRequest) => BatchedSequence
export let hasAdaptersOf: (batching: ContinuousBatching) => boolean
export let mediaCacheOf: (batching: ContinuousBatching) => MediaCache | undefined

/**
 * Continuous batching (Yu et al. 2022, Orca): generates several sequences in the same passes of a network. Each joins between two tokens of
 * the others and leaves when it ends, so that weights are read once for all. Long prompts are processed in chunks between the tokens of the
 * others. Options have vLLM's names.
 *
 * ```ts
 * using batching = new ContinuousBatching(model, { maxNumSeqs: 4, prefixCacheBytes: 256e6 })
 * const answers = await Promise.all(prompts.map((inputIds) => model.generate({ inputIds }, config, { batching })))
 * ```
 *
 * In float32 and float64 greedy output equals that of a call without `batching`, unless the top two logits differ only in the last digits. In
 * bfloat16 and float16 it may continue with the other token if the top two logits are within a few roundings. The same holds for cached
 * prefixes. A sequence that fails or is aborted does not affect the others. Calls with several rows, beams, several answers, guidance or
 * speculation, and calls with other adapters than at construction, run by themselves between the passes, and do not count for the limits.
 *
 * Call `dispose()`, or declare it with `using`, to free its caches.
 * @throws ConfigError for an unknown option, and for a network that is not a language model
 */
export class ContinuousBatching {
  readonly #network: NativeModule
  readonly #handle: ModuleHandle
  readonly #context: Context
  readonly #limits: { seqs: number; bytes: number; tokenBytes: number }
  readonly #media: MediaCache
  readonly #prefixBytes: number
  readonly #waiting = new Set<BatchedSequence>()
  readonly #running = new Map<number, BatchedSequence>()
  #members = 0
  #driving = false
  #disposed = false
  /** Called when a sequence that was far ahead can continue. */
  #wake = () => {}

  static {
    networkOf = (batching) => batching.#network
    enqueueIn = (batching, request) => batching.#enqueue(request)
    mediaCacheOf = (batching) => (batching.#prefixBytes > 0 && !batching.#disposed ? batching.#media : undefined)
    hasAdaptersOf = (batching) => sameAdapters(batching.#context, currentContext())
  }

  constructor(network: NativeModule, options: ContinuousBatchingOptions = {}) {
    const where = 'ContinuousBatching'
    if (!(network instanceof NativeModule)) throw argumentError(where, 'model', 'a language model', network)
    const limits = ['maxNumSeqs', 'maxNumBatchedTokens', 'maxCacheBytes', 'prefixCacheBytes', 'mediaCacheBytes']
    requireOptions(where, options, limits)
    const { maxNumSeqs = 8, maxNumBatchedTokens = 128, maxCacheBytes, prefixCacheBytes = 0, mediaCacheBytes } = options
    requireWhole(where, 'maxNumSeqs', maxNumSeqs, 1)
    requireWhole(where, 'maxNumBatchedTokens', maxNumBatchedTokens, 1)
    if (maxCacheBytes !== undefined) requireWhole(where, 'maxCacheBytes', maxCacheBytes, 1)
    requireWhole(where, 'prefixCacheBytes', prefixCacheBytes)
    if (mediaCacheBytes !== undefined) requireWhole(where, 'mediaCacheBytes', mediaCacheBytes)
    if (mediaCacheBytes !== undefined && prefixCacheBytes === 0) {
      throw new ConfigError(`${where}: expected prefixCacheBytes with mediaCacheBytes, got none. Set it.`, {})
    }
    const perToken = bytesPerToken(network)
    if (perToken === 0) throw argumentError(where, 'model', 'a language model', network)
    this.#network = network
    this.#prefixBytes = prefixCacheBytes
    this.#media = new MediaCache(where, 'mediaCacheBytes', mediaCacheBytes ?? Math.floor(prefixCacheBytes / 4))
    this.#limits = { seqs: maxNumSeqs, bytes: maxCacheBytes ?? Number.POSITIVE_INFINITY, tokenBytes: perToken }
    this.#context = { ...currentContext(), scope: null }
    this.#handle = make(
      JSON.stringify({ max_num_batched_tokens: maxNumBatchedTokens, prefix_cache_bytes: prefixCacheBytes }),
    ) as ModuleHandle
  }

  /** Return counts of the current work. @throws ConfigError after disposal */
  stats(): ContinuousBatchingStats {
    this.#requireLive()
    const { texts, bytes, asked, reused } = factsOf(this.#handle) as Record<string, number>
    const prefixCache = {
      texts,
      bytes,
      promptTokens: asked,
      cachedTokens: reused,
    } as ContinuousBatchingStats['prefixCache']
    const { length: windows, bytes: mediaBytes, hits, misses } = this.#media
    const mediaCache = { windows, bytes: mediaBytes, hits, misses }
    return { running: this.#running.size, waiting: this.#waiting.size, prefixCache, mediaCache }
  }

  /** Stop all sequences, whose callers get a ConfigError, and free the caches. */
  dispose(): void {
    if (this.#disposed) return
    this.#disposed = true
    for (const sequence of [...this.#waiting, ...this.#running.values()]) sequence.fail(disposed())
    this.#waiting.clear()
    this.#running.clear()
    this.#wake()
    this.#media.close()
    native.release(handleOf(this.#handle))
  }

  [Symbol.dispose](): void {
    this.dispose()
  }

  #requireLive(): void {
    if (this.#disposed) throw disposed()
  }

  #enqueue(request: SequenceRequest): BatchedSequence {
    this.#requireLive()
    const bytes = request.tokens * this.#limits.tokenBytes
    if (bytes > this.#limits.bytes) {
      throw new ConfigError(
        `generate: expected at most ${this.#limits.bytes} bytes of keys and values (maxCacheBytes of the batching), got up to ${bytes} for ${request.tokens} tokens, prompt and new ones. Lower maxNewTokens, or shorten the prompt.`,
        { tokens: request.tokens, maxCacheBytes: this.#limits.bytes },
      )
    }
    const sequence = new BatchedSequence(request, bytes, {
      wake: () => this.#wake(),
      left: () => this.#left(sequence),
    })
    this.#waiting.add(sequence)
    if (!this.#driving) this.#drive()
    return sequence
  }

  /** Admit waiting sequences in order while the limits allow. A smaller one does not overtake. */
  #admit(): void {
    let bytes = 0
    for (const sequence of this.#running.values()) bytes += sequence.bytes
    for (const sequence of this.#waiting) {
      if (this.#running.size >= this.#limits.seqs || bytes + sequence.bytes > this.#limits.bytes) return
      this.#waiting.delete(sequence)
      const member = this.#members++
      this.#running.set(member, sequence)
      sequence.member = member
      bytes += sequence.bytes
      const { session, inputs } = sequence.request
      join(this.#handle, member, session.handle, withActiveAdapters(this.#network), inputs).catch((error: unknown) => {
        this.#running.delete(member)
        sequence.fail(error)
      })
    }
  }

  #left(sequence: BatchedSequence): void {
    this.#waiting.delete(sequence)
    if (sequence.member === undefined || !this.#running.delete(sequence.member) || this.#disposed) return
    runInContext(this.#context, () => leave(this.#handle, sequence.member as number)).catch(() => {})
    this.#wake()
  }

  #drive(): void {
    this.#driving = true
    runInContext(this.#context, () => noGrad(() => this.#passes()))
      .catch((error: unknown) => {
        for (const sequence of [...this.#waiting, ...this.#running.values()]) sequence.fail(error)
        this.#waiting.clear()
        this.#running.clear()
      })
      .finally(() => {
        this.#driving = false
        if (this.#waiting.size > 0) this.#drive()
      })
  }

  async #passes(): Promise<void> {
    // Start sequences that arrive in one turn of the event loop together.
    await new Promise((resolve) => setImmediate(resolve))
    const turns = new Turns()
    while (!this.#disposed && this.#waiting.size + this.#running.size > 0) {
      this.#admit()
      const paused = [...this.#running].filter(([, sequence]) => sequence.isAhead).map(([member]) => member)
      if (paused.length > 0 && paused.length === this.#running.size) {
        await new Promise<void>((resolve) => {
          this.#wake = resolve
        })
        continue
      }
      const allowed = this.#allowed()
      const result = (await pass(this.#handle, withActiveAdapters(this.#network), paused, allowed)) as PassResult
      if (this.#disposed) return
      await this.#deliver(result)
      await turns.pass()
    }
  }

  /** Return the allowed tokens of sequences with a constraint. */
  #allowed(): object {
    const sets: [number, number[]][] = []
    for (const [member, sequence] of this.#running) {
      try {
        const ids = sequence.allowed()
        if (ids) sets.push([member, ids])
      } catch (error) {
        sequence.fail(error)
        this.#left(sequence)
      }
    }
    if (sets.length === 0) return {}
    return {
      allowedMembers: sets.map(([member]) => member),
      allowedTokens: sets.flatMap(([, ids]) => ids),
      allowedCounts: sets.map(([, ids]) => ids.length),
    }
  }

  async #deliver({ members, tokens, ends, logprobs, cached, failed }: PassResult): Promise<void> {
    for (const [i, member] of members.entries()) {
      const sequence = this.#running.get(member)
      const end = ends[i] as number
      if (end !== 0) this.#running.delete(member)
      sequence?.push({
        tokens: [tokens[i] as number],
        ends: [end],
        logprobs: [logprobs[i] as number],
        done: end !== 0,
        cachedTokens: cached[i] as number,
      })
    }
    for (const member of failed) {
      const sequence = this.#running.get(member)
      this.#running.delete(member)
      await (errorOf(this.#handle, member) as Promise<void>).catch((error: unknown) => sequence?.fail(error))
    }
  }
}

interface PassResult {
  members: number[]
  tokens: number[]
  ends: number[]
  logprobs: number[]
  cached: number[]
  failed: number[]
}

/** A sequence in a batching, as a queue of its tokens. */
export class BatchedSequence {
  /** Its index among the running sequences. */
  member: number | undefined
  readonly #tokens: BatchedToken[] = []
  readonly #owner: { wake: () => void; left: () => void }
  #taker: { resolve: (token: BatchedToken) => void; reject: (error: unknown) => void } | undefined
  #error: { error: unknown } | undefined
  #allowed: number[] | undefined
  #over = false

  constructor(
    readonly request: SequenceRequest,
    readonly bytes: number,
    owner: { wake: () => void; left: () => void },
  ) {
    this.#owner = owner
  }

  /** Whether the queue is full. The sequence pauses until the consumer takes tokens. */
  get isAhead(): boolean {
    return this.#tokens.length >= AHEAD
  }

  /** Return the allowed next tokens, evaluated once per token. */
  allowed(): number[] | undefined {
    if (!this.request.allowed) return undefined
    this.#allowed ??= this.request.allowed()[0]
    return this.#allowed
  }

  push(token: BatchedToken): void {
    this.#allowed = undefined
    this.#over = token.done
    if (!this.#taker) this.#tokens.push(token)
    else this.#taker.resolve(token)
    this.#taker = undefined
  }

  fail(error: unknown): void {
    this.#over = true
    this.#error ??= { error }
    this.#taker?.reject(error)
    this.#taker = undefined
  }

  next(): Promise<BatchedToken> {
    const wasAhead = this.isAhead
    const token = this.#tokens.shift()
    if (wasAhead) this.#owner.wake()
    if (token) return Promise.resolve(token)
    if (this.#error) return Promise.reject(this.#error.error)
    return new Promise((resolve, reject) => {
      this.#taker = { resolve, reject }
    })
  }

  /** Leave the batching. */
  leave(): void {
    if (this.#over && this.member === undefined) return
    this.#over = true
    this.#owner.left()
  }
}

const disposed = () =>
  new ConfigError('ContinuousBatching: expected a live batching, got one that was disposed. Create a new one.', {})

function sameAdapters(a: Context, b: Context): boolean {
  return sameEntries(a.adapters, b.adapters) && sameEntries(a.adapterScales, b.adapterScales)
}

function sameEntries(a: ReadonlyMap<object, unknown> = NONE, b: ReadonlyMap<object, unknown> = NONE): boolean {
  if (a.size !== b.size) return false
  return [...a].every(([key, value]) => JSON.stringify(value) === JSON.stringify(b.get(key)))
}
const NONE: ReadonlyMap<object, unknown> = new Map()
