import { ConversationCache } from '../../../kit/conversation-cache.js'

/**
 * The KV cache of a conversation. Pass the same one to each turn, so that only new tokens are encoded. It serves one conversation at a
 * time, of one model with fixed weights.
 *
 * Free its memory with `dispose()`, or declare it with `using`.
 */
export class UsdmCache extends ConversationCache {
  /** Reserve the cache for one reply. @internal */
  begin(): void {
    this.reserve('Usdm: expected an unused cache, got one that another reply is using. Await that reply first.')
  }
}
