import { PairMap } from './pair-map.js'

/** Trie of strings by their UTF-16 units, each with a number. Adding takes time linear in the length, a walk in the matched length. */
export class Trie {
  readonly #children = new PairMap()
  readonly #values: number[] = [-1]
  /** First units of the strings, which rule out most positions of a text with one lookup. */
  readonly #starts = new Uint8Array(0x10000)
  /** Number of steps of all walks, for tests. */
  steps = 0

  add(text: string, value: number): void {
    let node = 0
    if (text !== '') this.#starts[text.charCodeAt(0)] = 1
    for (let i = 0; i < text.length; i++) {
      const unit = text.charCodeAt(i)
      let child = this.#children.get(node, unit)
      if (child === -1) {
        child = this.#values.length
        this.#values.push(-1)
        this.#children.set(node, unit, child)
      }
      node = child
    }
    this.#values[node] = value
  }

  /** Return the child of `node` for a code unit, or -1. The root is 0. */
  child(node: number, unit: number): number {
    this.steps++
    return this.#children.get(node, unit)
  }

  /** Return the number of the string that ends at a node, or -1. */
  valueAt(node: number): number {
    return this.#values[node]!
  }

  /** Return the end of the longest string at `start`, or -1; `found` is then its number. */
  longest(text: string, start: number): number {
    if (this.#starts[text.charCodeAt(start)] !== 1) {
      this.steps++
      return -1
    }
    let node = 0
    let end = -1
    for (let i = start; i < text.length; ) {
      node = this.child(node, text.charCodeAt(i++))
      if (node === -1) break
      const value = this.#values[node]!
      if (value !== -1) {
        end = i
        this.found = value
      }
    }
    return end
  }

  found = -1
}
