import { ConversationCache } from '../../../kit/conversation-cache.js'
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
export class SalmonnCache extends ConversationCache<Read> {
  readonly #clips = new Map<string, Tensor>()
  #settings = ''

  /** Number of clips with cached embeddings. */
  get clips(): number {
    return this.#clips.size
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
    this.reserve(
      'Salmonn: cache: expected one that is not in use, got that of a running answer. Await the answer first.',
    )
    if (settings !== this.#settings) this.forget()
    this.#settings = settings
    for (const [key, embeddings] of this.#clips) {
      if (clips.includes(key)) continue
      embeddings.dispose()
      this.#clips.delete(key)
    }
  }

  override dispose(): void {
    for (const embeddings of this.#clips.values()) embeddings.dispose()
    this.#clips.clear()
    super.dispose()
  }
}
