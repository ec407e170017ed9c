/** Random choices that a seed and a name fix, on every machine. */
export class Random {
  #a: number
  #b: number
  #c: number
  #d = 1

  constructor(...seeds: (string | number)[]) {
    let hash = 2166136261
    for (const letter of seeds.join('\0')) hash = Math.imul(hash ^ letter.charCodeAt(0), 16777619)
    this.#a = hash | 0
    this.#b = Math.imul(hash, 2654435761) | 0
    this.#c = Math.imul(hash ^ 0x5bd1e995, 2246822519) | 0
    for (let i = 0; i < 12; i += 1) this.next()
  }

  /** In [0, 1): the generator sfc32. */
  next(): number {
    const sum = (((this.#a + this.#b) | 0) + this.#d) | 0
    this.#d = (this.#d + 1) | 0
    this.#a = this.#b ^ (this.#b >>> 9)
    this.#b = (this.#c + (this.#c << 3)) | 0
    this.#c = (((this.#c << 21) | (this.#c >>> 11)) + sum) | 0
    return (sum >>> 0) / 4294967296
  }

  /** Return an integer in [0, count). */
  below(count: number): number {
    return Math.floor(this.next() * count)
  }

  chance(probability: number): boolean {
    return this.next() < probability
  }

  pick<T>(list: readonly T[]): T {
    return list[this.below(list.length)]!
  }
}
