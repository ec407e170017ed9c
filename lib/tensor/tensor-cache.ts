import { requireNumber } from '../base/check.js'
import { LruCache } from '../base/lru-cache.js'
import { keepForever } from './scope.js'
import type { Tensor } from './tensor.js'

/**
 * Cache of values with tensors, by key, such as outputs of encoders by the content of their input. The least recently used value is removed
 * first, and its tensors are freed.
 */
export abstract class TensorCache<T> {
  /** Maximum size in bytes. */
  readonly limit: number
  /** Number of values found in the cache, and of those that were not. */
  hits = 0
  misses = 0
  readonly #kept: LruCache<T>
  #isClosed = false

  constructor(where: string, name: string, limit: number) {
    requireNumber(where, name, limit, { least: 0 })
    this.limit = limit
    this.#kept = new LruCache(
      limit,
      (value) => this.#sizeOf(value),
      (value) => {
        for (const tensor of this.tensorsOf(value)) tensor.dispose()
      },
    )
  }

  /** Return the tensors of a value. */
  protected abstract tensorsOf(value: T): Tensor[]
  /** Return a copy of a value; `copy` copies a tensor. */
  protected abstract copied(value: T, copy: (tensor: Tensor) => Tensor): T

  /** Current size in bytes. */
  get bytes(): number {
    return this.#kept.size
  }

  /** Number of cached values. */
  get length(): number {
    return this.#kept.length
  }

  /** Return a copy of a value, which stays when the cache frees its own. @internal */
  get(key: string): T | undefined {
    const found = this.#kept.get(key)
    if (found === undefined) this.misses += 1
    else this.hits += 1
    return found && this.copied(found, (tensor) => tensor.clone())
  }

  /** Cache a copy of a value beyond the current scope, if it fits. @internal */
  keep(key: string, value: T): void {
    // Another call may have computed the same value meanwhile, or the cache may have been freed.
    if (this.#isClosed || this.#kept.get(key) !== undefined || this.#sizeOf(value) > this.limit) return
    this.#kept.put(
      key,
      this.copied(value, (tensor) => keepForever(tensor.detach().clone())),
    )
  }

  /** Free all values. */
  clear(): void {
    this.#kept.clear()
  }

  /** Free all values, and cache no others. @internal */
  close(): void {
    this.#isClosed = true
    this.clear()
  }

  #sizeOf(value: T): number {
    return this.tensorsOf(value).reduce((sum, { nbytes }) => sum + nbytes, 0)
  }
}
