import { ConfigError } from '../../../base/errors.js'
import { KvCache } from '../../../generation/kv-cache.js'

/**
 * The KV cache of a conversation. Pass the same one to each turn, so that only new tokens are encoded. It serves one conversation at a
 * time, of one model with fixed weights.
 *
 * Free its memory with `dispose()`, or declare it with `using`.
 */
export class UsdmCache {
  readonly #kv = new KvCache()
  #read: number[] = []
  #busy = false

  /** Number of cached tokens. */
  get length(): number {
    return this.#read.length
  }

  /** @internal */
  get kv(): KvCache {
    return this.#kv
  }

  /** Reserve the cache for one reply. @internal */
  begin(): void {
    if (this.#busy) {
      throw new ConfigError(
        'Usdm: expected an unused cache, got one that another reply is using. Await that reply first.',
      )
    }
    this.#busy = true
  }

  /** @internal */
  end(): void {
    this.#busy = false
  }

  /** Return how many tokens of a prompt are cached, and crop the cache to them. The last token is always encoded again. @internal */
  async matching(ids: readonly number[]): Promise<number> {
    let same = 0
    const most = Math.min(this.#read.length, ids.length - 1, this.#kv.length)
    while (same < most && this.#read[same] === ids[same]) same += 1
    this.#read.length = same
    if (same < this.#kv.length) await this.#kv.crop(same)
    return same
  }

  /** Record the tokens of the cached keys and values, and crop the rest. @internal */
  async keep(read: readonly number[]): Promise<void> {
    this.#read = []
    const sure = Math.min(read.length, this.#kv.length)
    await this.#kv.crop(sure)
    this.#read = read.slice(0, sure)
  }

  /** Free the memory. A reply that still uses the cache fails. */
  dispose(): void {
    this.#read = []
    this.#kv.dispose()
  }

  [Symbol.dispose](): void {
    this.dispose()
  }
}
