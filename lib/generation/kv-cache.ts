import { ConfigError } from '../base/errors.js'
import { native } from '../native/addon.js'
import { op, opAsync } from '../native/call.js'
import { handleOf } from '../native/handle.js'
import type { ModuleHandle } from '../native/objects.js'
import { makeNative } from '../nn/native-module.js'
import type { Tensor } from '../tensor/index.js'

const lengthOf = op('voxtorch::kv_cache_length')
const crop = opAsync('voxtorch::kv_cache_crop')
const reorder = opAsync('voxtorch::kv_cache_reorder')

/** The native object behind a cache, for the operator that is called with it next. */
export let nativeCacheOf: (cache: KvCache) => ModuleHandle

/**
 * The keys and values of the tokens that a decoder has read, so that the next pass computes only what is new. Give the
 * same cache to each `forward` of one text: a pass adds its tokens, a pass that fails adds none. No gradient goes through
 * it. It belongs to the network whose `forward` first had it, with that dtype and device.
 *
 * Its memory lives as long as it does: `dispose()` it, or declare it with `using`.
 */
export class KvCache {
  readonly #handle: ModuleHandle = makeNative('kv_cache', {})

  static {
    nativeCacheOf = (cache) => {
      if (!(cache instanceof KvCache)) throw new ConfigError('cache must be a KvCache', {})
      return cache.#handle
    }
  }

  /** Tokens of each row, padding included. Passes that are still running are not counted. */
  get length(): number {
    return lengthOf(this.#handle) as number
  }

  /** Forgets all but the first `length` tokens. */
  crop(length: number): Promise<void> {
    return crop(this.#handle, length) as Promise<void>
  }

  /**
   * Makes row `i` what row `rows[i]` was: for beam search, or to go on from one prompt in several rows.
   * @param rows int64 [new batch]
   */
  reorder(rows: Tensor): Promise<void> {
    return reorder(this.#handle, rows) as Promise<void>
  }

  /** Frees the memory; whatever uses the cache afterwards throws. */
  dispose(): void {
    native.release(handleOf(this.#handle))
  }

  [Symbol.dispose](): void {
    this.dispose()
  }
}
