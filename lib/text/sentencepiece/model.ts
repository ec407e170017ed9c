import { noTokens, type TokenModel, type Tokens, widthAt } from '../models/model.js'
import { Trie } from '../models/trie.js'
import { Lattice } from '../models/unigram.js'
import { drained, STEP, type Steps } from '../steps.js'
import { SentencePieceBpe } from './bpe.js'
import { MARK } from './normalize.js'
import { PieceType, type SentencePieceProto } from './proto.js'

/** The model of a SentencePiece `.model`, on normalized text. The ids equal those of the SentencePiece library. */
export class SentencePieceModel implements TokenModel {
  readonly kind = 'SentencePiece'
  /** User-defined symbols, which are never split; null without any. */
  readonly symbols: Trie | null
  readonly #ids = new Map<string, number>()
  readonly #cut: Cutter
  readonly #byteIds: readonly (number | undefined)[]

  /** @throws DataError for unsupported settings */
  constructor(
    readonly proto: SentencePieceProto,
    file: string,
  ) {
    for (const [id, piece] of proto.pieces.entries()) this.#ids.set(piece, id)
    this.symbols = symbolTrie(proto)
    this.#byteIds = Array.from({ length: 256 }, (_, byte) =>
      this.#ids.get(`<0x${byte.toString(16).toUpperCase().padStart(2, '0')}>`),
    )
    this.#cut = cutters[proto.algorithm](this, file)
  }

  get size(): number {
    return this.proto.pieces.length
  }

  /** Return the id of a piece of any type. */
  tokenToId(token: string): number | undefined {
    return this.#ids.get(token)
  }

  idToToken(id: number): string | undefined {
    return this.proto.pieces[id]
  }

  entries(): IterableIterator<[string, number]> {
    return this.#ids.entries()
  }

  tokenize(text: string, into: Tokens): void {
    drained(this.steps(text, into))
  }

  *steps(text: string, into: Tokens): Steps<void> {
    const cut = noTokens()
    yield* this.#cut(text, cut)
    const { unkId, byteFallback } = this.proto
    for (let i = 0, count = 1; i < cut.ids.length; i++, count++) {
      if (count % STEP === 0) yield
      const start = cut.starts[i]!
      let end = cut.ends[i]!
      if (cut.ids[i] !== unkId) push(into, cut.ids[i]!, start, end)
      else if (byteFallback) {
        for (const byte of Buffer.from(text.slice(start, end))) push(into, this.#byteIds[byte]!, start, end)
      } else {
        while (cut.ids[i + 1] === unkId) end = cut.ends[++i]!
        push(into, unkId, start, end)
      }
    }
  }
}

function push(into: Tokens, id: number, start: number, end: number): void {
  into.ids.push(id)
  into.starts.push(start)
  into.ends.push(end)
}

function symbolTrie(proto: SentencePieceProto): Trie | null {
  let trie: Trie | null = null
  for (const [id, piece] of proto.pieces.entries()) {
    if (proto.types[id] === PieceType.userDefined) (trie ??= new Trie()).add(piece, id)
  }
  return trie
}

type Cutter = (text: string, into: Tokens) => Steps<void>

const cutters: Record<SentencePieceProto['algorithm'], (model: SentencePieceModel, file: string) => Cutter> = {
  unigram({ proto }) {
    const lattice = unigramLattice(proto)
    return (text, into) => lattice.path(text, into)
  },
  bpe(model, file) {
    const bpe = new SentencePieceBpe(model, file)
    return (text, into) => bpe.steps(text, into)
  },
  char(model) {
    return function* (text, into) {
      let next = STEP
      for (let start = 0; start < text.length; ) {
        if (start >= next) {
          yield
          next = start + STEP
        }
        const symbol = model.symbols?.longest(text, start) ?? -1
        const end = symbol === -1 ? start + widthAt(text, start) : symbol
        push(into, model.tokenToId(text.slice(start, end)) ?? model.proto.unkId, start, end)
        start = end
      }
    }
  },
  word(model) {
    return function* (text, into) {
      const { whitespaceIsSuffix, unkId } = model.proto
      let start = 0
      for (let i = 1; i <= text.length; i++) {
        if (i % STEP === 0) yield
        if (i < text.length && text[whitespaceIsSuffix ? i - 1 : i] !== MARK) continue
        push(into, model.tokenToId(text.slice(start, i)) ?? unkId, start, i)
        start = i
      }
    }
  },
}

/** Smallest positive normal float32: SentencePiece's initial value of the highest score. */
const FLT_MIN = 2 ** -126

function unigramLattice(proto: SentencePieceProto): Lattice {
  const pieces: [string, number][] = []
  const scores = Float64Array.from(proto.scores)
  let lowest = 3.4028234663852886e38
  let highest = FLT_MIN
  for (let id = 0; id < scores.length; id++) {
    if (proto.types[id] !== PieceType.normal) continue
    lowest = Math.min(lowest, scores[id]!)
    highest = Math.max(highest, scores[id]!)
  }
  for (const [id, piece] of proto.pieces.entries()) {
    const type = proto.types[id]
    if (type === PieceType.userDefined) scores[id] = Math.fround(Buffer.byteLength(piece) * highest - 0.1)
    if (type === PieceType.normal || type === PieceType.userDefined) pieces.push([piece, id])
  }
  return new Lattice(pieces, scores, lowest, proto.unkId, Math.fround)
}
