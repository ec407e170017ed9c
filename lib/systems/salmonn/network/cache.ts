import { ConfigError } from '../../../base/errors.js'
import { KvCache } from '../../../generation/kv-cache.js'
import type { Tensor } from '../../../tensor/index.js'
import { keepForever } from '../../../tensor/scope.js'

/** A cached position: a token id, or the clip and index of an audio token. */
export type Read = number | string

/**
 * Cache of a conversation: keys and values of the language model, and the embeddings of clips. Pass the same cache to each turn: the prefix
 * that a new prompt has in common with it, in particular its audio, is not computed again. A cache is for one conversation at a time, and
 * for one model whose weights do not change.
 *
 * Call `dispose()`, or declare it with `using`, to free its memory.
 */
export class SalmonnCache {
  readonly #kv = new KvCache()
  readonly #clips = new Map<string, Tensor>()
  #read: Read[] = []
  #settings = ''
  #busy = false

  /** Number of cached tokens, audio tokens included. */
  get length(): number {
    return this.#read.length
  }

  /** Number of clips with cached embeddings. */
  get clips(): number {
    return this.#clips.size
  }

  /** @internal */
  get kv(): KvCache {
    return this.#kv
  }

  /** Return the embeddings of a clip, or undefined. @internal */
  clip(key: string): Tensor | undefined {
    return this.#clips.get(key)
  }

  /** @internal */
  keepClip(key: string, embeddings: Tensor): void {
    this.#clips.set(key, keepForever(embeddings))
  }

  /**
   * Reserve the cache for one answer.
   * @param settings everything except the prompt that keys and values depend on
   * @param clips those of the new prompt; others are removed
   * @internal
   */
  begin(settings: string, clips: readonly string[]): void {
    if (this.#busy)
      throw new ConfigError(
        'Salmonn: cache: expected one that is not in use, got that of a running answer. Await the answer first.',
        {},
      )
    this.#busy = true
    if (settings !== this.#settings) this.#read = []
    this.#settings = settings
    for (const [key, embeddings] of this.#clips) {
      if (clips.includes(key)) continue
      embeddings.dispose()
      this.#clips.delete(key)
    }
  }

  /** Return the length of the common prefix, and drop everything after it. The last position is always computed again. @internal */
  async matching(places: readonly Read[]): Promise<number> {
    let same = 0
    const most = Math.min(this.#read.length, places.length - 1, this.#kv.length)
    while (same < most && this.#read[same] === places[same]) same += 1
    if (same < this.#kv.length) await this.#kv.crop(same)
    this.#read.length = same
    return same
  }

  /** Record the contents of the cache, and drop everything after them. @internal */
  async end(read: readonly Read[]): Promise<void> {
    try {
      const length = Math.min(read.length, this.#kv.length)
      await this.#kv.crop(length)
      this.#read = read.slice(0, length)
    } catch (error) {
      this.#read = []
      throw error
    } finally {
      this.#busy = false
    }
  }

  /** Free the memory. An answer that still uses the cache fails. */
  dispose(): void {
    for (const embeddings of this.#clips.values()) embeddings.dispose()
    this.#clips.clear()
    this.#read = []
    this.#kv.dispose()
  }

  [Symbol.dispose](): void {
    this.dispose()
  }
}
