import { ConfigError } from '../../../base/errors.js'
import { KvCache } from '../../../generation/kv-cache.js'

/**
 * What the language model has read of a conversation: keys and values of its tokens. Give the same one to each turn: only what is new is
 * read then. It is for one conversation at a time, of one model whose weights stay as they are.
 *
 * Its memory lives as long as it does: `dispose()` it, or declare it with `using`.
 */
export class UsdmCache {
  readonly #kv = new KvCache()
  #read: number[] = []
  #busy = false

  /** Tokens that need not be read again. */
  get length(): number {
    return this.#read.length
  }

  /** @internal */
  get kv(): KvCache {
    return this.#kv
  }

  /** Takes it for one reply. @internal */
  begin(): void {
    if (this.#busy) throw new ConfigError('Usdm: the cache is in use by another reply; await it first', {})
    this.#busy = true
  }

  /** @internal */
  end(): void {
    this.#busy = false
  }

  /** How much of a prompt is there already; the rest of what was read is forgotten. The last token is always read anew. @internal */
  async matching(ids: readonly number[]): Promise<number> {
    let same = 0
    const most = Math.min(this.#read.length, ids.length - 1, this.#kv.length)
    while (same < most && this.#read[same] === ids[same]) same += 1
    this.#read.length = same
    if (same < this.#kv.length) await this.#kv.crop(same)
    return same
  }

  /** Says what keys and values are there of; what comes behind is forgotten. @internal */
  async keep(read: readonly number[]): Promise<void> {
    this.#read = []
    const sure = Math.min(read.length, this.#kv.length)
    await this.#kv.crop(sure)
    this.#read = read.slice(0, sure)
  }

  /** Frees the memory; a reply that still uses the cache fails. */
  dispose(): void {
    this.#read = []
    this.#kv.dispose()
  }

  [Symbol.dispose](): void {
    this.dispose()
  }
}
