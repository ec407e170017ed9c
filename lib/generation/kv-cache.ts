import { shown } from '../base/arguments.js'
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

/** Return the native object of a cache, for an operator call. */
export let nativeCacheOf: (cache: KvCache) => ModuleHandle

/**
 * Keys and values of the tokens that a decoder has processed, so that the next pass computes only new tokens. Pass the same cache to each
 * `forward` of a text: a pass adds its tokens, a pass that fails adds none. Gradients do not flow through it. A cache belongs to the network
 * of its first `forward`, with that dtype and device.
 *
 * Call `dispose()`, or declare it with `using`, to free its memory.
 */
export class KvCache {
  readonly #handle: ModuleHandle = makeNative('kv_cache', {})

  static {
    nativeCacheOf = (cache) => {
      if (!(cache instanceof KvCache)) throw new ConfigError(`cache: expected a KvCache, got ${shown(cache)}.`, {})
      return cache.#handle
    }
  }

  /** Number of tokens of each row, padding included, without passes that are still running. */
  get length(): number {
    return lengthOf(this.#handle) as number
  }

  /** Keep only the first `length` tokens. */
  crop(length: number): Promise<void> {
    return crop(this.#handle, length) as Promise<void>
  }

  /**
   * Replace row `i` by the former row `rows[i]`: for beam search, or to continue one prompt in several rows.
   * @param rows int64 [new batch]
   */
  reorder(rows: Tensor): Promise<void> {
    return reorder(this.#handle, rows) as Promise<void>
  }

  /** Free the memory. Later use of the cache throws. */
  dispose(): void {
    native.release(handleOf(this.#handle))
  }

  [Symbol.dispose](): void {
    this.dispose()
  }
}
