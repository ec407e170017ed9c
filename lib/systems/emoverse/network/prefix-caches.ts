import { commonLength } from '../../../base/words.js'
import { KvCache } from '../../../generation/kv-cache.js'
import type { DecoderLM } from '../../../models/decoder/decoder-lm.js'
import type { InternVL } from '../../../models/internvl/internvl.js'
import type { Module } from '../../../nn/module.js'
import { weightsIdentity } from '../../../peft/identity.js'

/** Shortest common prefix, in tokens, that is worth reusing a cache for. */
const LEAST = 8

interface Entry {
  cache: KvCache
  /** Contents of the cache: token ids, and a number below 0 for each token of an image or audio clip. */
  marks: number[]
}

/** A cache, and the number of marks that it already holds. */
export interface CachedPrefix {
  cache: KvCache
  known: number
  /** Return the cache with its current contents; without marks it is freed. */
  leave(marks?: readonly number[]): void
}

/**
 * Caches of keys and values of recent prompts, images included. Another question about the same image, or the next turn, computes only
 * its new tokens. A cache that is in use is not shared.
 */
export class PrefixCaches {
  /** Caches that are not in use, most recent last. */
  #free: Entry[] = []
  #identity = ''

  constructor(
    readonly model: DecoderLM | InternVL,
    /** Module with every parameter that the embeddings depend on. */
    readonly whole: Module,
    readonly most: number,
  ) {}

  /** Take the cache with the longest common prefix, which is shorter than the prompt by at least one token. */
  async take(marks: readonly number[]): Promise<CachedPrefix> {
    this.#check()
    const commons = this.#free.map((entry) => Math.min(commonLength(entry.marks, marks), marks.length - 1))
    const best = commons.indexOf(Math.max(...commons))
    const isUseful = best >= 0 && (commons[best] as number) >= LEAST
    const [entry] = isUseful ? this.#free.splice(best, 1) : []
    const known = entry ? (commons[best] as number) : 0
    const cache = entry?.cache ?? new KvCache()
    if (entry && cache.length > known) await cache.crop(known)
    const identity = this.#identity
    return { cache, known, leave: (now) => this.#leave(cache, now, identity) }
  }

  #leave(cache: KvCache, marks: readonly number[] | undefined, identity: string): void {
    const length = marks === undefined ? 0 : Math.min(marks.length, cache.length)
    if (marks === undefined || length === 0 || identity !== this.#identity) {
      cache.dispose()
      return
    }
    this.#free.push({ cache, marks: marks.slice(0, length) })
    while (this.#free.length > this.most) this.#free.shift()?.cache.dispose()
  }

  /** Free all caches if weights or active adapters have changed. */
  #check(): void {
    const identity = weightsIdentity(this.whole)
    if (identity !== this.#identity) this.dispose()
    this.#identity = identity
  }

  /** Free all caches that are not in use. */
  dispose(): void {
    for (const { cache } of this.#free.splice(0)) cache.dispose()
  }
}
