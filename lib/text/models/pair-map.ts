// Drawn for each process: a file cannot choose pairs that fall into one slot.
const salt = Math.floor(Math.random() * 2 ** 32) | 0

/**
 * A hash table from pairs of whole numbers below 2^31 to such a number: open addressing in typed arrays, because a Map
 * would box every key.
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

  /** The value, or -1. */
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

  /** Where the pair is, or the free slot where it would go. */
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
