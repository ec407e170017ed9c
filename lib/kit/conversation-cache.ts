import { ConfigError } from '../base/errors.js'
import { commonLength } from '../base/words.js'
import { KvCache } from '../generation/kv-cache.js'

/**
 * Keys and values of a conversation, with what each position holds: a token id, or the key of a token of media. One answer at a time uses
 * it.
 */
export class ConversationCache<Position extends number | string = number> {
  readonly #kv = new KvCache()
  #read: readonly Position[] = []
  #isBusy = false

  /** Number of cached tokens, those of media included. */
  get length(): number {
    return this.#read.length
  }

  /** @internal */
  get kv(): KvCache {
    return this.#kv
  }

  /** Reserve the cache for one answer. @throws ConfigError with this message if another one uses it */
  protected reserve(message: string): void {
    if (this.#isBusy) throw new ConfigError(message, {})
    this.#isBusy = true
  }

  /** End the reservation. @internal */
  end(): void {
    this.#isBusy = false
  }

  /** Forget what the cache holds, so that nothing matches. */
  protected forget(): void {
    this.#read = []
  }

  /** Return how many positions of a prompt are cached, and drop everything after them. The last one is always computed again. @internal */
  async matching(prompt: readonly Position[]): Promise<number> {
    const same = Math.max(0, Math.min(commonLength(this.#read, prompt), prompt.length - 1, this.#kv.length))
    this.#read = this.#read.slice(0, same)
    if (same < this.#kv.length) await this.#kv.crop(same)
    return same
  }

  /** Record what the cache holds, and drop everything after it. @internal */
  async keep(read: readonly Position[]): Promise<void> {
    this.#read = []
    const length = Math.min(read.length, this.#kv.length)
    await this.#kv.crop(length)
    this.#read = read.slice(0, length)
  }

  /** Free the memory. An answer that still uses the cache fails. */
  dispose(): void {
    this.#read = []
    this.#kv.dispose()
  }

  [Symbol.dispose](): void {
    this.dispose()
  }
}
