/** A map that removes its least recently used values when their sizes exceed a limit. */
export class LruCache<V> {
  // A Map keeps insertion order, so reinserting marks an entry as the most recently used.
  readonly #all = new Map<string, { value: V; size: number }>()
  #size = 0

  /**
   * @param limit maximum sum of sizes
   * @param sizeOf default: 1 for each value
   * @param onRemove called with each value that leaves
   */
  constructor(
    readonly limit: number,
    readonly sizeOf: (value: V) => number = () => 1,
    readonly onRemove: (value: V) => void = () => {},
  ) {}

  /** Number of values. */
  get length(): number {
    return this.#all.size
  }

  /** Sum of their sizes. */
  get size(): number {
    return this.#size
  }

  get(key: string): V | undefined {
    const found = this.#all.get(key)
    if (found === undefined) return undefined
    this.#all.delete(key)
    this.#all.set(key, found)
    return found.value
  }

  /** Return the size of a value, without using it; undefined if there is none. */
  sizeAt(key: string): number | undefined {
    return this.#all.get(key)?.size
  }

  /** Store a value, if it is not larger than the limit. */
  put(key: string, value: V): void {
    const size = this.sizeOf(value)
    if (size > this.limit) return
    this.delete(key)
    for (const oldest of this.#all.keys()) {
      if (this.#size + size <= this.limit) break
      this.delete(oldest)
    }
    this.#all.set(key, { value, size })
    this.#size += size
  }

  delete(key: string): void {
    const found = this.#all.get(key)
    if (found === undefined) return
    this.#all.delete(key)
    this.#size -= found.size
    this.onRemove(found.value)
  }

  clear(): void {
    for (const key of this.#all.keys()) this.delete(key)
  }
}
