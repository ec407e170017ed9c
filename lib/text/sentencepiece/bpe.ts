import { DataError } from '../../base/errors.js'
import { append } from '../models/bpe.js'
import { Merges } from '../models/merges.js'
import { noTokens, type Tokens, widthAt } from '../models/model.js'
import { PairMap } from '../models/pair-map.js'
import { WordCache } from '../models/word-cache.js'
import { drained, STEP, type Steps } from '../steps.js'
import type { SentencePieceModel } from './model.js'
import { MARK } from './normalize.js'
import { PieceType, type SentencePieceProto } from './proto.js'

/** Budget for splitting pieces at all positions, which takes n² steps for n characters. */
const MAX_CUTS = 2 ** 27

// Symbols are ids of pieces, then indices of characters without a piece, then these.
const UNKNOWN = 2 ** 28
const FROZEN = 2 ** 29

/**
 * SentencePiece's byte-pair encoding: adjacent symbols merge if their joined text is a piece, the one with the highest score first.
 * User-defined symbols never merge.
 */
export class SentencePieceBpe {
  readonly #model: SentencePieceModel
  /** Characters that begin or end a piece without being one. */
  readonly #characters = new Map<string, number>()
  readonly #merges: Merges
  readonly #splitsAtMarks: boolean
  readonly #cache = new WordCache()

  constructor(model: SentencePieceModel, file: string) {
    const { proto } = (this.#model = model)
    if (proto.types.includes(PieceType.unused)) {
      throw new DataError(
        `${file}: expected a byte-pair model without unused pieces, which are not supported. Use the full vocabulary.`,
        {
          file,
        },
      )
    }
    const pieces = [...proto.pieces.entries()].filter(([id]) => merges(proto, id))
    if (pieces.reduce((cuts, [, piece]) => cuts + piece.length ** 2, 0) > MAX_CUTS) {
      throw new DataError(`${file}: expected shorter pieces, got pieces too long for byte-pair encoding`, { file })
    }
    for (const [, piece] of pieces) for (const character of piece) this.#number(character)

    const rules = new PairMap(proto.pieces.length * 2)
    const results: number[] = []
    for (const [id, piece] of pieces) {
      for (let at = widthAt(piece, 0); at < piece.length; at += widthAt(piece, at)) {
        const left = this.#symbol(piece.slice(0, at))
        const right = this.#symbol(piece.slice(at))
        if (left === undefined || right === undefined) continue
        rules.set(left, right, results.length)
        results.push(id)
      }
    }
    this.#merges = new Merges(rules, ranksByScore(results, proto.scores), Int32Array.from(results))
    this.#splitsAtMarks =
      model.tokenToId(MARK) !== undefined && pieces.every(([, piece]) => !/[^\u2581]\u2581/.test(piece))
  }

  *steps(text: string, into: Tokens): Steps<void> {
    let start = 0
    let next = STEP
    // If no piece spans a mark, words can be merged separately.
    if (this.#splitsAtMarks) {
      for (let i = text.indexOf(MARK, 1); i !== -1; i = text.indexOf(MARK, i + 1)) {
        if (text[i - 1] === MARK) continue
        if (i - start > STEP) yield* this.#longWord(text.slice(start, i), start, into)
        else this.#word(text.slice(start, i), start, into)
        start = i
        if (i < next) continue
        yield
        next = i + STEP
      }
    }
    if (start < text.length) yield* this.#longWord(text.slice(start), start, into)
  }

  #word(word: string, offset: number, into: Tokens): void {
    append(
      into,
      this.#cache.get(word, () => drained(this.#cut(word))),
      offset,
    )
  }

  *#longWord(word: string, offset: number, into: Tokens): Steps<void> {
    if (word.length <= STEP) return this.#word(word, offset, into)
    append(into, yield* this.#cut(word), offset)
  }

  *#cut(word: string): Steps<Tokens> {
    const { proto, symbols: userDefined } = this.#model
    const symbols: number[] = []
    const widths: number[] = []
    let next = STEP
    for (let start = 0; start < word.length; ) {
      if (start >= next) {
        yield
        next = start + STEP
      }
      const frozen = userDefined?.longest(word, start) ?? -1
      const end = frozen === -1 ? start + widthAt(word, start) : frozen
      symbols.push(frozen === -1 ? (this.#symbol(word.slice(start, end)) ?? UNKNOWN) : FROZEN + userDefined!.found)
      widths.push(end - start)
      start = end
    }
    const tokens = noTokens()
    const count = yield* this.#merges.apply(symbols, widths, symbols.length)
    let start = 0
    for (let i = 0; i < count; i++) {
      const id = symbols[i]! >= FROZEN ? symbols[i]! - FROZEN : symbols[i]!
      tokens.ids.push(id < proto.pieces.length ? id : proto.unkId)
      tokens.starts.push(start)
      start += widths[i]!
      tokens.ends.push(start)
    }
    return tokens
  }

  #number(character: string): void {
    if (this.#model.tokenToId(character) !== undefined || this.#characters.has(character)) return
    this.#characters.set(character, this.#model.size + this.#characters.size)
  }

  #symbol(text: string): number | undefined {
    const id = this.#model.tokenToId(text)
    if (text.length === widthAt(text, 0)) return id ?? this.#characters.get(text)
    return id !== undefined && merges(this.#model.proto, id) ? id : undefined
  }
}

function merges(proto: SentencePieceProto, id: number): boolean {
  return proto.types[id] === PieceType.normal || proto.types[id] === PieceType.userDefined
}

/** Return ranks of scores. Equal scores get equal ranks, so that the leftmost pair merges first. */
function ranksByScore(results: readonly number[], scores: Float32Array): Int32Array {
  const order = [...results.keys()].sort((a, b) => scores[results[b]!]! - scores[results[a]!]!)
  const ranks = new Int32Array(results.length)
  let rank = -1
  let last = Number.NaN
  for (const rule of order) {
    const score = scores[results[rule]!]!
    if (score !== last) rank++
    last = score
    ranks[rule] = rank
  }
  return ranks
}
