import type { Fields } from '../fields.js'
import { drained, STEP, type Steps } from '../steps.js'
import { byteTokens, type TokenModel, type Tokens, widthAt } from './model.js'
import { Trie } from './trie.js'

/** Most characters of a piece, because the search at each position takes time linear in it. Published ones have a few dozen. */
export const LONGEST_PIECE = 1024
/** Penalty of an unknown character, relative to the lowest score. */
const UNKNOWN_PENALTY = 10

/**
 * Unigram model: the most probable segmentation of a text (Kudo 2018, https://arxiv.org/abs/1804.10959), by the Viterbi algorithm.
 */
export class Lattice {
  readonly #trie = new Trie()
  readonly #scores: ArrayLike<number>
  readonly #round: (score: number) => number
  readonly #unknownScore: number
  readonly #unk: number

  /**
   * @param pieces texts of the allowed entries, with their ids; @param scores scores of all ids
   * @param round rounding of sums: SentencePiece uses single precision, the tokenizers library double
   */
  constructor(
    pieces: Iterable<[string, number]>,
    scores: ArrayLike<number>,
    lowest: number,
    unk: number,
    round = (score: number) => score,
  ) {
    for (const [piece, id] of pieces) this.#trie.add(piece, id)
    this.#scores = scores
    this.#unk = unk
    this.#round = round
    this.#unknownScore = round(lowest - UNKNOWN_PENALTY)
  }

  /** Append the tokens of the best path. */
  *path(text: string, into: Tokens): Steps<void> {
    const size = text.length
    const best = new Float64Array(size + 1)
    const from = new Int32Array(size + 1).fill(-1)
    const ids = new Int32Array(size + 1)
    let next = STEP
    for (let start = 0; start < size; ) {
      if (start >= next) {
        yield
        next = start + STEP
      }
      const width = widthAt(text, start)
      const here = best[start]!
      let single = false
      const reach = (end: number, id: number, score: number): void => {
        if (from[end] !== -1 && score <= best[end]!) return
        best[end] = score
        from[end] = start
        ids[end] = id
      }
      let node = 0
      for (let end = start; end < size; ) {
        node = this.#trie.child(node, text.charCodeAt(end++))
        if (node === -1) break
        const id = this.#trie.valueAt(node)
        if (id === -1) continue
        reach(end, id, this.#round(here + this.#scores[id]!))
        single ||= end - start === width
      }
      if (!single) reach(start + width, this.#unk, this.#round(here + this.#unknownScore))
      start += width
    }
    const first = into.ids.length
    for (let end = size; end > 0; end = from[end]!) {
      into.ids.push(ids[end]!)
      into.starts.push(from[end]!)
      into.ends.push(end)
    }
    for (const column of [into.ids, into.starts, into.ends]) reverseFrom(column, first)
  }
}

function reverseFrom(values: number[], first: number): void {
  for (let low = first, high = values.length - 1; low < high; low++, high--) {
    const value = values[low]!
    values[low] = values[high]!
    values[high] = value
  }
}

/** Read the Unigram model of a tokenizer.json. */
export class Unigram implements TokenModel {
  readonly kind = 'Unigram'
  readonly #ids = new Map<string, number>()
  readonly #lattice: Lattice

  constructor(
    readonly pieces: readonly [string, number][],
    readonly unk: number | undefined,
    readonly byteFallback: boolean,
  ) {
    const scores = new Float64Array(pieces.length)
    let lowest = Number.POSITIVE_INFINITY
    for (const [id, [piece, score]] of pieces.entries()) {
      this.#ids.set(piece, id)
      scores[id] = score
      lowest = Math.min(lowest, score)
    }
    this.#lattice = new Lattice(this.#ids, scores, lowest, unk ?? -1)
  }

  get size(): number {
    return this.pieces.length
  }

  tokenToId(token: string): number | undefined {
    return this.#ids.get(token)
  }

  idToToken(id: number): string | undefined {
    return this.pieces[id]?.[0]
  }

  entries(): IterableIterator<[string, number]> {
    return this.#ids.entries()
  }

  tokenize(text: string, into: Tokens): void {
    drained(this.steps(text, into))
  }

  *steps(text: string, into: Tokens): Steps<void> {
    const path: Tokens = { ids: [], starts: [], ends: [] }
    yield* this.#lattice.path(text, path)
    for (let i = 0, count = 1; i < path.ids.length; i++, count++) {
      if (count % STEP === 0) yield
      const start = path.starts[i]!
      const unknown = path.ids[i] === (this.unk ?? -1)
      while (unknown && path.ids[i + 1] === path.ids[i]) i++
      const end = path.ends[i]!
      const bytes = unknown && this.byteFallback ? this.#bytes(text.slice(start, end)) : undefined
      for (const id of bytes ?? [path.ids[i]!]) {
        if (id === -1) continue
        into.ids.push(id)
        into.starts.push(start)
        into.ends.push(end)
      }
    }
  }

  #bytes(text: string): number[] | undefined {
    const ids = byteTokens(text).map((token) => this.#ids.get(token))
    return ids.every((id) => id !== undefined) ? ids : undefined
  }
}

export function readUnigram(fields: Fields): Unigram {
  const pieces = fields.list('vocab').map((entry, i) => {
    const good = Array.isArray(entry) && typeof entry[0] === 'string' && Number.isFinite(entry[1])
    if (!good) throw fields.error(`vocab[${i}]`, 'a string and a score', entry)
    const { length } = entry[0] as string
    if (length > LONGEST_PIECE) {
      throw fields.error(`vocab[${i}]`, `a string of at most ${LONGEST_PIECE} characters`, `${length} characters`)
    }
    return entry as [string, number]
  })
  const unk = fields.has('unk_id') ? fields.whole('unk_id') : undefined
  if (unk !== undefined && unk >= pieces.length)
    fields.fail(`unk_id: expected an id below ${pieces.length}, the number of entries, got ${unk}`)
  return new Unigram(pieces, unk, fields.boolean('byte_fallback', false))
}
