import { DataError } from '../../base/errors.js'

/** Aligned spans of the reference and the hypothesis; ends are exclusive. */
export interface AlignmentChunk {
  type: 'equal' | 'substitute' | 'insert' | 'delete'
  refStart: number
  refEnd: number
  hypStart: number
  hypEnd: number
}

/**
 * Return a shortest sequence of edits (Levenshtein distance) from reference to hypothesis, as runs. Of several shortest ones it
 * is the one of rapidfuzz, and so of jiwer (for very long lists rapidfuzz may choose another with as many edits).
 *
 * The algorithm is bit-parallel (Hyyrö 2003, "A bit-vector algorithm for computing Levenshtein and Damerau edit distances") and
 * uses a quarter byte for each pair of elements.
 * @throws DataError if the lists are so long that this would take more than a gigabyte
 */
export function align(reference: readonly unknown[], hypothesis: readonly unknown[]): AlignmentChunk[] {
  let start = 0
  const shorter = Math.min(reference.length, hypothesis.length)
  while (start < shorter && reference[start] === hypothesis[start]) start++
  let end = 0
  while (end < shorter - start && reference[reference.length - 1 - end] === hypothesis[hypothesis.length - 1 - end]) {
    end++
  }
  const edits = editsBetween(
    reference.slice(start, reference.length - end),
    hypothesis.slice(start, hypothesis.length - end),
  )
  const chunks: AlignmentChunk[] = []
  let ref = 0
  let hyp = 0
  const add = (type: AlignmentChunk['type'], refs: number, hyps: number) => {
    if (refs + hyps === 0) return
    const last = chunks.at(-1)
    if (last?.type === type) {
      last.refEnd += refs
      last.hypEnd += hyps
    } else chunks.push({ type, refStart: ref, refEnd: ref + refs, hypStart: hyp, hypEnd: hyp + hyps })
    ref += refs
    hyp += hyps
  }
  add('equal', start, start)
  for (const type of edits) add(type, type === 'insert' ? 0 : 1, type === 'delete' ? 0 : 1)
  add('equal', end, end)
  return chunks
}

function editsBetween(reference: readonly unknown[], hypothesis: readonly unknown[]): AlignmentChunk['type'][] {
  if (reference.length === 0) return hypothesis.map(() => 'insert')
  if (hypothesis.length === 0) return reference.map(() => 'delete')
  const deltas = new Deltas(reference, hypothesis)
  const edits: AlignmentChunk['type'][] = []
  let column = reference.length
  let row = hypothesis.length
  // Trace back from the last corner. A deletion is tried first, then an insertion, as in rapidfuzz.
  while (row > 0 && column > 0) {
    if (deltas.rises(row, column)) {
      edits.push('delete')
      column--
      continue
    }
    row--
    if (row > 0 && deltas.falls(row, column)) edits.push('insert')
    else edits.push(reference[--column] === hypothesis[row] ? 'equal' : 'substitute')
  }
  for (; column > 0; column--) edits.push('delete')
  for (; row > 0; row--) edits.push('insert')
  return edits.reverse()
}

/**
 * Table of distances D[row][column] between the first `row` elements of the hypothesis and the first `column` of the reference,
 * stored as the signs of D[row][column] - D[row][column - 1], one bit each.
 */
class Deltas {
  readonly #words: number
  readonly #positive: Int32Array
  readonly #negative: Int32Array

  constructor(reference: readonly unknown[], hypothesis: readonly unknown[]) {
    const words = Math.ceil(reference.length / 32)
    const bytes = words * hypothesis.length * 8
    if (bytes > 2 ** 30) {
      throw new DataError(
        `align: expected shorter texts, got ${reference.length} and ${hypothesis.length} elements. Split them into utterances`,
        { reference: reference.length, hypothesis: hypothesis.length },
      )
    }
    this.#words = words
    this.#positive = new Int32Array(words * hypothesis.length)
    this.#negative = new Int32Array(words * hypothesis.length)
    const places = new Map<unknown, Int32Array>()
    reference.forEach((element, i) => {
      let mask = places.get(element)
      if (!mask) places.set(element, (mask = new Int32Array(words)))
      mask[i >> 5] = (mask[i >> 5] as number) | (1 << (i & 31))
    })
    const nowhere = new Int32Array(words)
    const rising = new Int32Array(words).fill(-1)
    const falling = new Int32Array(words)
    hypothesis.forEach((element, row) => {
      const mask = places.get(element) ?? nowhere
      // At column 0, D increases by one from row to row.
      let carryUp = 1
      let carryDown = 0
      for (let word = 0; word < words; word++) {
        const up = rising[word] as number
        const down = falling[word] as number
        const equal = (mask[word] as number) | carryDown
        // The sum carries within 32 bits only; the carry between words is computed from the differences at their border.
        const zero = (((equal & up) + up) ^ up) | equal | down
        let horizontalUp = down | ~(zero | up)
        let horizontalDown = zero & up
        const nextUp = horizontalUp >>> 31
        const nextDown = horizontalDown >>> 31
        horizontalUp = (horizontalUp << 1) | carryUp
        horizontalDown = (horizontalDown << 1) | carryDown
        carryUp = nextUp
        carryDown = nextDown
        rising[word] = horizontalDown | ~(zero | horizontalUp)
        falling[word] = horizontalUp & zero
      }
      this.#positive.set(rising, row * words)
      this.#negative.set(falling, row * words)
    })
  }

  rises(row: number, column: number): boolean {
    return this.#bit(this.#positive, row, column)
  }

  falls(row: number, column: number): boolean {
    return this.#bit(this.#negative, row, column)
  }

  #bit(bits: Int32Array, row: number, column: number): boolean {
    const word = bits[(row - 1) * this.#words + ((column - 1) >> 5)] as number
    return ((word >> ((column - 1) & 31)) & 1) === 1
  }
}
