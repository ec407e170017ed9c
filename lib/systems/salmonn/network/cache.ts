import { ConfigError } from '../../../base/errors.js'
import { KvCache } from '../../../generation/kv-cache.js'
import type { Tensor } from '../../../tensor/index.js'
import { keepForever } from '../../../tensor/scope.js'

/** One place in what was read: a token's id, or an audio token by its clip. */
export type Read = number | string

/**
 * What `Salmonn` has read of a conversation: keys and values of the language model, and the embeddings of its clips. Give
 * the same cache to each turn: what stands at the beginning of the new prompt as before is not computed again, above all
 * audio. It is for one conversation at a time, of one model whose weights stay as they are.
 *
 * Its memory lives as long as it does: `dispose()` it, or declare it with `using`.
 */
export class SalmonnCache {
  readonly #kv = new KvCache()
  readonly #clips = new Map<string, Tensor>()
  #read: Read[] = []
  #settings = ''
  #busy = false

  /** Tokens and audio tokens that need not be read again. */
  get length(): number {
    return this.#read.length
  }

  /** Clips whose embeddings are kept. */
  get clips(): number {
    return this.#clips.size
  }

  /** @internal */
  get kv(): KvCache {
    return this.#kv
  }

  /** The embeddings of a clip that was heard. @internal */
  clip(key: string): Tensor | undefined {
    return this.#clips.get(key)
  }

  /** @internal */
  keepClip(key: string, embeddings: Tensor): void {
    this.#clips.set(key, keepForever(embeddings))
  }

  /**
   * Takes the cache for one answer.
   * @param settings what keys and values depend on beside the text
   * @param clips those of the new prompt; others are forgotten
   * @internal
   */
  begin(settings: string, clips: readonly string[]): void {
    if (this.#busy) throw new ConfigError('Salmonn: the cache is in use by another answer; await it first', {})
    this.#busy = true
    if (settings !== this.#settings) this.#read = []
    this.#settings = settings
    for (const [key, embeddings] of this.#clips) {
      if (clips.includes(key)) continue
      embeddings.dispose()
      this.#clips.delete(key)
    }
  }

  /** How much of the text is there already; the rest of what was read is forgotten. The last place is always read anew. @internal */
  async matching(places: readonly Read[]): Promise<number> {
    let same = 0
    const most = Math.min(this.#read.length, places.length - 1, this.#kv.length)
    while (same < most && this.#read[same] === places[same]) same += 1
    if (same < this.#kv.length) await this.#kv.crop(same)
    this.#read.length = same
    return same
  }

  /** Says what keys and values are there of; what comes behind is forgotten. @internal */
  async end(read: readonly Read[]): Promise<void> {
    try {
      const sure = Math.min(read.length, this.#kv.length)
      await this.#kv.crop(sure)
      this.#read = read.slice(0, sure)
    } catch (error) {
      this.#read = []
      throw error
    } finally {
      this.#busy = false
    }
  }

  /** Frees the memory; an answer that still uses the cache fails. */
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
