import { STEP, type Steps } from '../steps.js'
import type { PairMap } from './pair-map.js'

/**
 * Byte-pair merges (Sennrich et al. 2016, https://arxiv.org/abs/1508.07909): of all adjacent pairs with a rule, the one with the
 * lowest rank merges first; of equal ranks, the leftmost.
 */
export class Merges {
  /** @param rules index of the rule of a pair of symbols; @param ranks, @param results rank and result of each rule */
  constructor(
    readonly rules: PairMap,
    readonly ranks: Int32Array,
    readonly results: Int32Array,
  ) {}

  /**
   * Merge `symbols` in place.
   * @param widths units of each symbol, which are added up
   * @returns number of remaining symbols, at the front of both arrays
   */
  *apply(symbols: number[], widths: number[], count: number): Steps<number> {
    return count <= FEW ? this.#applyToFew(symbols, widths, count) : yield* this.#applyToMany(symbols, widths, count)
  }

  /** Search all pairs for each merge: fastest for single words. */
  #applyToFew(symbols: number[], widths: number[], count: number): number {
    const rules = few
    for (let i = 0; i + 1 < count; i++) rules[i] = this.rules.get(symbols[i]!, symbols[i + 1]!)
    for (;;) {
      let best = -1
      let lowest = NONE
      for (let i = 0; i + 1 < count; i++) {
        const rule = rules[i]!
        if (rule !== -1 && this.ranks[rule]! < lowest) {
          lowest = this.ranks[rule]!
          best = i
        }
      }
      if (best === -1) return count
      symbols[best] = this.results[rules[best]!]!
      widths[best] = widths[best]! + widths[best + 1]!
      count--
      for (let i = best + 1; i < count; i++) {
        symbols[i] = symbols[i + 1]!
        widths[i] = widths[i + 1]!
        rules[i] = rules[i + 1]!
      }
      if (best > 0) rules[best - 1] = this.rules.get(symbols[best - 1]!, symbols[best]!)
      if (best + 1 < count) rules[best] = this.rules.get(symbols[best]!, symbols[best + 1]!)
    }
  }

  /** Merge with a heap of candidates and a linked list, in O(n log n). */
  *#applyToMany(symbols: number[], widths: number[], count: number): Steps<number> {
    const next = new Int32Array(count)
    const previous = new Int32Array(count)
    for (let i = 0; i < count; i++) {
      next[i] = i + 1 < count ? i + 1 : -1
      previous[i] = i - 1
    }
    const heap = new Heap()
    const consider = (left: number): void => {
      if (left === -1 || next[left] === -1) return
      const right = next[left]!
      const rule = this.rules.get(symbols[left]!, symbols[right]!)
      if (rule !== -1) heap.push(this.ranks[rule]! * POSITIONS + left)
    }
    for (let i = 0; i + 1 < count; i++) {
      consider(i)
      if (i % STEP === STEP - 1) yield
    }
    let popped = 0
    for (let key = heap.pop(); key !== -1; key = heap.pop()) {
      if (++popped % STEP === 0) yield
      const left = key % POSITIONS
      const right = next[left]!
      if (right < 0) continue
      const rule = this.rules.get(symbols[left]!, symbols[right]!)
      if (rule === -1 || this.ranks[rule] !== (key - left) / POSITIONS) continue // merged since it was pushed
      symbols[left] = this.results[rule]!
      widths[left] = widths[left]! + widths[right]!
      next[left] = next[right]!
      if (next[right] !== -1) previous[next[right]!] = left
      next[right] = GONE
      consider(previous[left]!)
      consider(left)
    }
    let kept = 0
    for (let i = 0; i >= 0; i = next[i]!) {
      symbols[kept] = symbols[i]!
      widths[kept++] = widths[i]!
    }
    return kept
  }
}

const GONE = -2
const FEW = 48
const NONE = 0x7fffffff
const few: number[] = new Array(FEW).fill(-1)
// Ranks are below 2^23, the limit on values of a file, so rank and position fit into one double.
const POSITIONS = 2 ** 30

/** Binary min-heap of numbers. */
class Heap {
  readonly #keys: number[] = []

  push(key: number): void {
    const keys = this.#keys
    let at = keys.length
    keys.push(key)
    while (at > 0) {
      const parent = (at - 1) >> 1
      if (keys[parent]! <= key) break
      keys[at] = keys[parent]!
      at = parent
    }
    keys[at] = key
  }

  /** Remove and return the lowest number, or -1. */
  pop(): number {
    const keys = this.#keys
    if (keys.length === 0) return -1
    const lowest = keys[0]!
    const last = keys.pop()!
    const count = keys.length
    let at = 0
    for (let child = 1; child < count; child = 2 * at + 1) {
      if (child + 1 < count && keys[child + 1]! < keys[child]!) child++
      if (keys[child]! >= last) break
      keys[at] = keys[child]!
      at = child
    }
    if (count > 0) keys[at] = last
    return lowest
  }
}
