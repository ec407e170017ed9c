import { heapHolds, listMayGrow, mapMayGrow, tooMuch } from '../../base/heap.js'
import type { Site } from './objects.js'

/** The machine's stack with its marks, and its memo. */
export class Stack {
  private readonly items: unknown[] = []
  private readonly marks: number[] = []
  /** Height at the last mark: nothing below may be popped. */
  private fence = 0
  private readonly memo: unknown[] = []
  private readonly sparseMemo = new Map<number, unknown>()

  constructor(private readonly site: Pick<Site, 'error'>) {}

  isEmpty(): boolean {
    return this.items.length <= this.fence
  }

  push(value: unknown): void {
    if (!listMayGrow(this.items.length)) throw this.full()
    this.items.push(value)
  }

  pop(): unknown {
    if (this.items.length <= this.fence) throw this.site.error('it pops more from the stack than there is')
    return this.items.pop()
  }

  top(): unknown {
    if (this.items.length <= this.fence) throw this.site.error('it reads an empty stack')
    return this.items[this.items.length - 1]
  }

  mark(): void {
    if (!listMayGrow(this.marks.length)) throw this.full()
    this.fence = this.items.length
    this.marks.push(this.fence)
  }

  /** Pop the items above the last mark, and the mark. */
  popMark(): unknown[] {
    const start = this.marks.pop()
    if (start === undefined) throw this.site.error('it refers to a mark that was never set')
    this.fence = this.marks[this.marks.length - 1] ?? 0
    const count = this.items.length - start
    if (count > 2 ** 16 && !heapHolds(8 * count)) throw this.full()
    const items = this.items.slice(start)
    this.items.length = start
    return items
  }

  /** Pop an item, or a mark if one is on top, like CPython's POP. */
  popItemOrMark(): void {
    if (this.marks.length > 0 && this.items.length === this.fence) this.popMark()
    else this.pop()
  }

  remember(index: number): void {
    const value = this.top()
    if (index < this.memo.length) this.memo[index] = value
    else if (index === this.memo.length) {
      if (!listMayGrow(index)) throw this.full()
      this.memo.push(value)
    } else {
      if (!mapMayGrow(this.sparseMemo.size)) throw this.full()
      this.sparseMemo.set(index, value)
    }
  }

  /** Store the top under the number of memos so far. */
  memoize(): void {
    this.remember(this.memo.length + this.sparseMemo.size)
  }

  recall(index: number): void {
    if (index >= 0 && index < this.memo.length) this.push(this.memo[index])
    else if (this.sparseMemo.has(index)) this.push(this.sparseMemo.get(index))
    else throw this.site.error(`it refers to the memo ${index}, which was never stored`)
  }

  private full(): Error {
    return this.site.error(tooMuch())
  }
}
