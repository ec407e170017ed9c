// A random seed per process, so that a hostile file cannot choose pairs with equal hashes.
const salt = Math.floor(Math.random() * 2 ** 32) | 0

/**
 * Hash table from pairs of integers below 2^31 to such an integer, with open addressing in typed arrays. A Map would need an object
 * per key.
 */
export class PairMap {
  #mask: number
  #first: Int32Array
  #second: Int32Array
  #values: Int32Array
  size = 0

  constructor(expected = 16) {
    let capacity = 64
    while (capacity < expected * 2) capacity *= 2
    this.#mask = capacity - 1
    this.#first = new Int32Array(capacity).fill(-1)
    this.#second = new Int32Array(capacity)
    this.#values = new Int32Array(capacity)
  }

  /** Return the value of a pair, or -1. */
  get(first: number, second: number): number {
    const slot = this.#slot(first, second)
    return this.#first[slot] === -1 ? -1 : this.#values[slot]!
  }

  set(first: number, second: number, value: number): void {
    let slot = this.#slot(first, second)
    if (this.#first[slot] === -1) {
      if (this.size * 2 > this.#mask) {
        this.#grow()
        slot = this.#slot(first, second)
      }
      this.size++
      this.#first[slot] = first
      this.#second[slot] = second
    }
    this.#values[slot] = value
  }

  /** Return the slot of a pair, or the free slot for it. */
  #slot(first: number, second: number): number {
    const firsts = this.#first
    const seconds = this.#second
    const mask = this.#mask
    let hash = Math.imul(first ^ salt, 0x9e3779b1) ^ Math.imul(second + salt, 0x85ebca6b)
    hash = Math.imul(hash ^ (hash >>> 15), 0x2c1b3c6d)
    let slot = (hash ^ (hash >>> 13)) & mask
    while (firsts[slot] !== -1 && (firsts[slot] !== first || seconds[slot] !== second)) slot = (slot + 1) & mask
    return slot
  }

  #grow(): void {
    const [firsts, seconds, values] = [this.#first, this.#second, this.#values]
    const capacity = firsts.length * 2
    this.#mask = capacity - 1
    this.#first = new Int32Array(capacity).fill(-1)
    this.#second = new Int32Array(capacity)
    this.#values = new Int32Array(capacity)
    for (let i = 0; i < firsts.length; i++) {
      if (firsts[i] === -1) continue
      const slot = this.#slot(firsts[i]!, seconds[i]!)
      this.#first[slot] = firsts[i]!
      this.#second[slot] = seconds[i]!
      this.#values[slot] = values[i]!
    }
  }
}
