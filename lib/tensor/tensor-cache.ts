import { requireNumber } from '../base/check.js'
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
  #bytes = 0
  readonly #kept = new Map<string, T>()

  constructor(where: string, name: string, limit: number) {
    requireNumber(where, name, limit, { least: 0 })
    this.limit = limit
  }

  /** Return the tensors of a value. */
  protected abstract tensorsOf(value: T): Tensor[]
  /** Return a copy of a value; `copy` copies a tensor. */
  protected abstract copied(value: T, copy: (tensor: Tensor) => Tensor): T

  /** Current size in bytes. */
  get bytes(): number {
    return this.#bytes
  }

  /** Number of cached values. */
  get length(): number {
    return this.#kept.size
  }

  /** @internal */
  get(key: string): T | undefined {
    const found = this.#kept.get(key)
    if (!found) {
      this.misses += 1
      return undefined
    }
    this.hits += 1
    // A Map keeps insertion order, so reinserting marks the entry as most recently used.
    this.#kept.delete(key)
    this.#kept.set(key, found)
    return found
  }

  /** Cache a copy of a value beyond the current scope, if it fits, and return it, or else the value. @internal */
  keep(key: string, value: T): T {
    const before = this.#kept.get(key)
    if (before !== undefined) this.#forget(key, before)
    const size = this.#sizeOf(value)
    if (size > this.limit) return value
    for (const [oldest, old] of this.#kept) {
      if (this.#bytes + size <= this.limit) break
      this.#forget(oldest, old)
    }
    const kept = this.copied(value, (tensor) => keepForever(tensor.detach().clone()))
    this.#kept.set(key, kept)
    this.#bytes += size
    return kept
  }

  /** Free all values. */
  clear(): void {
    for (const [key, value] of this.#kept) this.#forget(key, value)
  }

  #sizeOf(value: T): number {
    return this.tensorsOf(value).reduce((sum, { nbytes }) => sum + nbytes, 0)
  }

  #forget(key: string, value: T): void {
    this.#kept.delete(key)
    this.#bytes -= this.#sizeOf(value)
    for (const tensor of this.tensorsOf(value)) tensor.dispose()
  }
}
