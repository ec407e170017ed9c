import { misuse, requireOptions, requireWhole } from '../base/check.js'
import { ConfigError } from '../base/errors.js'
import { Turns } from '../base/turn.js'
import { native } from '../native/addon.js'
import { op, opAsync } from '../native/call.js'
import { type Context, currentContext, runInContext } from '../native/context.js'
import { handleOf } from '../native/handle.js'
import type { ModuleHandle } from '../native/objects.js'
import { handleOfNetwork, NativeModule, withActiveAdapters } from '../nn/native-module.js'
import { noGrad } from '../tensor/index.js'
import type { Added, GenerationSession } from './session.js'

const make = op('voxtorch::generation_batch')
const join = opAsync('voxtorch::generation_batch_join')
const leave = opAsync('voxtorch::generation_batch_leave')
const pass = opAsync('voxtorch::generation_batch_step')
const errorOf = opAsync('voxtorch::generation_batch_error')
const factsOf = op('voxtorch::generation_batch_facts')
const tokenBytes = op('voxtorch::generation_token_bytes')

/** Bytes that a token takes in the cache of a language model; 0 for other networks. */
export const bytesPerToken = (network: NativeModule): number => tokenBytes(handleOfNetwork(network)) as number

export interface ContinuousBatchingOptions {
  /** Texts that are written at once; others wait, and enter in the order in which they came. Default 8. */
  maxNumSeqs?: number
  /**
   * Tokens that a pass reads at most: one of each text that is being written, the rest of prompts, of which each new text has
   * an equal share. Smaller: texts that are being written wait less for long prompts. Default 128.
   */
  maxNumBatchedTokens?: number
  /**
   * Bytes of keys and values that the texts may take together, prompts and the most new tokens counted in full; a text waits
   * until there is room. Default: no limit.
   */
  maxCacheBytes?: number
  /**
   * Bytes of keys and values that are kept of texts that were read, so that a prompt with the same beginning (by its
   * token ids, as long as weights and adapters are the same) reads only the rest. What was not used for longest goes first.
   * Texts that are being written at the same time share their beginnings too. Where RoPE angles depend on the length of the
   * text, only texts with the same angles share. Default 0: nothing is kept or shared.
   */
  prefixCacheBytes?: number
}

export interface ContinuousBatchingStats {
  /** Texts that are being read or written. */
  running: number
  /** Texts that wait for a place. */
  waiting: number
  prefixCache: {
    /** Texts that are kept, and their bytes. */
    texts: number
    bytes: number
    /** Tokens of all prompts so far that were looked up, and those of them that had been read before. */
    promptTokens: number
    cachedTokens: number
  }
}

/** Tokens that a text is ahead of whoever takes them, at most. */
const AHEAD = 16

/** What a text brings. */
export interface Joining {
  session: GenerationSession
  inputs: Record<string, unknown>
  /** Tokens that it will have in the end, at most. */
  tokens: number
  /** The tokens that may come next. */
  allowed: (() => number[][]) | undefined
}

/** A token of a text, and how many tokens of its prompt had been read before. */
export interface Seated extends Added {
  cachedTokens: number
}

/** For generate(): the network of a batching, a place in it, and whether the caller's adapters are the batching's. */
export let networkOf: (batching: ContinuousBatching) => NativeModule
export let seatIn: (batching: ContinuousBatching, joining: Joining) => Seat
export let hasAdaptersOf: (batching: ContinuousBatching) => boolean

/**
 * Writes several texts in the same passes of a network (Yu et al. 2022, Orca): each joins between two tokens of the others
 * and leaves when it ends, so that weights are read once for all. Long prompts are read in pieces, between which the others
 * go on. Options have vLLM's names.
 *
 * ```ts
 * using batching = new ContinuousBatching(model, { maxNumSeqs: 4, prefixCacheBytes: 256e6 })
 * const answers = await Promise.all(prompts.map((inputIds) => model.generate({ inputIds }, config, { batching })))
 * ```
 *
 * In float32 and float64 greedy text is the text of a call without `batching`, unless the best two logits differ only in the
 * last digits. In bfloat16 and float16 it may go on with the other token where the best two are within a few roundings of
 * each other. The same holds for beginnings that were read for another text. One that fails, or is given up, leaves the others as they are. What has
 * several rows, beams, several answers, guidance or guesses, and what runs with other adapters than those where the batching
 * was made, is written by itself between the passes, and counts for none of the limits.
 *
 * Its caches live as long as it does: `dispose()` it, or declare it with `using`.
 * @throws ConfigError for an unknown option, and a network that is no language model
 */
export class ContinuousBatching {
  readonly #network: NativeModule
  readonly #handle: ModuleHandle
  readonly #context: Context
  readonly #limits: { seqs: number; bytes: number; tokenBytes: number }
  readonly #waiting = new Set<Seat>()
  readonly #running = new Map<number, Seat>()
  #members = 0
  #driving = false
  #disposed = false
  /** Called when a text that was far ahead goes on. */
  #wake = () => {}

  static {
    networkOf = (batching) => batching.#network
    seatIn = (batching, joining) => batching.#seat(joining)
    hasAdaptersOf = (batching) => sameAdapters(batching.#context, currentContext())
  }

  constructor(network: NativeModule, options: ContinuousBatchingOptions = {}) {
    const where = 'ContinuousBatching'
    if (!(network instanceof NativeModule)) throw misuse(where, 'model', 'a language model', network)
    requireOptions(where, options, ['maxNumSeqs', 'maxNumBatchedTokens', 'maxCacheBytes', 'prefixCacheBytes'])
    const { maxNumSeqs = 8, maxNumBatchedTokens = 128, maxCacheBytes, prefixCacheBytes = 0 } = options
    requireWhole(where, 'maxNumSeqs', maxNumSeqs, 1)
    requireWhole(where, 'maxNumBatchedTokens', maxNumBatchedTokens, 1)
    if (maxCacheBytes !== undefined) requireWhole(where, 'maxCacheBytes', maxCacheBytes, 1)
    requireWhole(where, 'prefixCacheBytes', prefixCacheBytes)
    const perToken = bytesPerToken(network)
    if (perToken === 0) throw misuse(where, 'model', 'a language model', network)
    this.#network = network
    this.#limits = { seqs: maxNumSeqs, bytes: maxCacheBytes ?? Number.POSITIVE_INFINITY, tokenBytes: perToken }
    this.#context = { ...currentContext(), scope: null }
    this.#handle = make(
      JSON.stringify({ max_num_batched_tokens: maxNumBatchedTokens, prefix_cache_bytes: prefixCacheBytes }),
    ) as ModuleHandle
  }

  /** What goes on now. @throws ConfigError once disposed */
  stats(): ContinuousBatchingStats {
    this.#requireLive()
    const { texts, bytes, asked, reused } = factsOf(this.#handle) as Record<string, number>
    const prefixCache = {
      texts,
      bytes,
      promptTokens: asked,
      cachedTokens: reused,
    } as ContinuousBatchingStats['prefixCache']
    return { running: this.#running.size, waiting: this.#waiting.size, prefixCache }
  }

  /** Ends all texts, whose callers get a ConfigError, and frees what is kept. */
  dispose(): void {
    if (this.#disposed) return
    this.#disposed = true
    for (const seat of [...this.#waiting, ...this.#running.values()]) seat.fail(disposed())
    this.#waiting.clear()
    this.#running.clear()
    this.#wake()
    native.release(handleOf(this.#handle))
  }

  [Symbol.dispose](): void {
    this.dispose()
  }

  #requireLive(): void {
    if (this.#disposed) throw disposed()
  }

  #seat(joining: Joining): Seat {
    this.#requireLive()
    const bytes = joining.tokens * this.#limits.tokenBytes
    if (bytes > this.#limits.bytes) {
      throw new ConfigError(
        `generate: a text of ${joining.tokens} tokens, prompt and new ones, may take ${bytes} bytes of keys and values, more than the batching's maxCacheBytes, ${this.#limits.bytes}`,
        { tokens: joining.tokens, maxCacheBytes: this.#limits.bytes },
      )
    }
    const seat = new Seat(joining, bytes, {
      wake: () => this.#wake(),
      left: () => this.#left(seat),
    })
    this.#waiting.add(seat)
    if (!this.#driving) this.#drive()
    return seat
  }

  /** Who waits longest enters as long as there is room; nobody overtakes. */
  #admit(): void {
    let bytes = 0
    for (const seat of this.#running.values()) bytes += seat.bytes
    for (const seat of this.#waiting) {
      if (this.#running.size >= this.#limits.seqs || bytes + seat.bytes > this.#limits.bytes) return
      this.#waiting.delete(seat)
      const member = this.#members++
      this.#running.set(member, seat)
      seat.member = member
      bytes += seat.bytes
      const { session, inputs } = seat.joining
      join(this.#handle, member, session.handle, withActiveAdapters(this.#network), inputs).catch((error: unknown) => {
        this.#running.delete(member)
        seat.fail(error)
      })
    }
  }

  #left(seat: Seat): void {
    this.#waiting.delete(seat)
    if (seat.member === undefined || !this.#running.delete(seat.member) || this.#disposed) return
    runInContext(this.#context, () => leave(this.#handle, seat.member as number)).catch(() => {})
    this.#wake()
  }

  #drive(): void {
    this.#driving = true
    runInContext(this.#context, () => noGrad(() => this.#passes()))
      .catch((error: unknown) => {
        for (const seat of [...this.#waiting, ...this.#running.values()]) seat.fail(error)
        this.#waiting.clear()
        this.#running.clear()
      })
      .finally(() => {
        this.#driving = false
        if (this.#waiting.size > 0) this.#drive()
      })
  }

  async #passes(): Promise<void> {
    // Texts that come in one turn of the event loop begin together.
    await new Promise((resolve) => setImmediate(resolve))
    const turns = new Turns()
    while (!this.#disposed && this.#waiting.size + this.#running.size > 0) {
      this.#admit()
      const paused = [...this.#running].filter(([, seat]) => seat.isAhead).map(([member]) => member)
      if (paused.length > 0 && paused.length === this.#running.size) {
        await new Promise<void>((resolve) => {
          this.#wake = resolve
        })
        continue
      }
      const allowed = this.#allowed()
      const told = (await pass(this.#handle, withActiveAdapters(this.#network), paused, allowed)) as Told
      if (this.#disposed) return
      await this.#tell(told)
      await turns.pass()
    }
  }

  /** Of those whose next token is constrained. */
  #allowed(): object {
    const sets: [number, number[]][] = []
    for (const [member, seat] of this.#running) {
      try {
        const ids = seat.allowed()
        if (ids) sets.push([member, ids])
      } catch (error) {
        seat.fail(error)
        this.#left(seat)
      }
    }
    if (sets.length === 0) return {}
    return {
      allowedMembers: sets.map(([member]) => member),
      allowedTokens: sets.flatMap(([, ids]) => ids),
      allowedCounts: sets.map(([, ids]) => ids.length),
    }
  }

  async #tell({ members, tokens, ends, logprobs, cached, failed }: Told): Promise<void> {
    for (const [i, member] of members.entries()) {
      const seat = this.#running.get(member)
      const end = ends[i] as number
      if (end !== 0) this.#running.delete(member)
      seat?.push({
        tokens: [tokens[i] as number],
        ends: [end],
        logprobs: [logprobs[i] as number],
        done: end !== 0,
        cachedTokens: cached[i] as number,
      })
    }
    for (const member of failed) {
      const seat = this.#running.get(member)
      this.#running.delete(member)
      await (errorOf(this.#handle, member) as Promise<void>).catch((error: unknown) => seat?.fail(error))
    }
  }
}

interface Told {
  members: number[]
  tokens: number[]
  ends: number[]
  logprobs: number[]
  cached: number[]
  failed: number[]
}

/** A text in a batching: its tokens, in order, as somebody takes them. */
export class Seat {
  /** Its number among those that run. */
  member: number | undefined
  readonly #tokens: Seated[] = []
  readonly #owner: { wake: () => void; left: () => void }
  #taker: { resolve: (token: Seated) => void; reject: (error: unknown) => void } | undefined
  #error: { error: unknown } | undefined
  #allowed: number[] | undefined
  #over = false

  constructor(
    readonly joining: Joining,
    readonly bytes: number,
    owner: { wake: () => void; left: () => void },
  ) {
    this.#owner = owner
  }

  /** Whether nobody has taken the latest tokens: it writes no more until somebody does. */
  get isAhead(): boolean {
    return this.#tokens.length >= AHEAD
  }

  /** Asked once for each token. */
  allowed(): number[] | undefined {
    if (!this.joining.allowed) return undefined
    this.#allowed ??= this.joining.allowed()[0]
    return this.#allowed
  }

  push(token: Seated): void {
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

  next(): Promise<Seated> {
    const wasAhead = this.isAhead
    const token = this.#tokens.shift()
    if (wasAhead) this.#owner.wake()
    if (token) return Promise.resolve(token)
    if (this.#error) return Promise.reject(this.#error.error)
    return new Promise((resolve, reject) => {
      this.#taker = { resolve, reject }
    })
  }

  /** Gives its place to others. */
  leave(): void {
    if (this.#over && this.member === undefined) return
    this.#over = true
    this.#owner.left()
  }
}

const disposed = () => new ConfigError('the batching was disposed', {})

function sameAdapters(a: Context, b: Context): boolean {
  return sameEntries(a.adapters, b.adapters) && sameEntries(a.adapterScales, b.adapterScales)
}

function sameEntries(a: ReadonlyMap<object, unknown> = NONE, b: ReadonlyMap<object, unknown> = NONE): boolean {
  if (a.size !== b.size) return false
  return [...a].every(([key, value]) => JSON.stringify(value) === JSON.stringify(b.get(key)))
}
const NONE: ReadonlyMap<object, unknown> = new Map()
