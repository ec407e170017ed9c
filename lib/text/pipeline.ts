import type { AddedTokens } from './added-tokens.js'
import { AlignedText } from './aligned.js'
import { Encoding } from './encoding.js'
import { Bpe } from './models/bpe.js'
import { noTokens, type TokenModel, type Tokens } from './models/model.js'
import type { Normalizer } from './normalizers.js'
import type { PreTokenizer } from './pretokenizers.js'
import { MARK } from './sentencepiece/normalize.js'
import { drained, STEP, type Steps, unhurried } from './steps.js'
import { withDeadline } from './time-limit.js'

// Time limit for regular expressions of a file, in milliseconds: thousands of times what published ones take.
const LEAST_TIME = 5000
const TIME_PER_UNIT = 0.02

/** The steps from a text to its tokens, without special tokens at the ends. */
export class Pipeline {
  constructor(
    readonly addedTokens: AddedTokens,
    readonly normalizer: Normalizer | null,
    readonly preTokenizer: PreTokenizer | null,
    readonly model: TokenModel,
  ) {}

  /**
   * Return a test for characters at which a text can be split after a letter without changing its tokens; undefined if no position
   * is safe. Positions are safe if each step processes single characters, or splits words with a published pattern: none of these
   * matches across a word end. Only an added token can span one.
   */
  boundaries(): ((after: string) => boolean) | undefined {
    const { normalizer, preTokenizer, model, addedTokens } = this
    if (model.kind !== 'BPE' || preTokenizer?.cutsWords !== true) return undefined
    if (normalizer !== null && normalizer.keepsWords !== true) return undefined
    const inside = new Set<string>()
    for (const [, { content, rstrip }] of addedTokens.entries()) {
      if (rstrip) return undefined
      for (const { 1: after } of content.matchAll(/(?<=\p{L})(.)/gsu)) inside.add((after as string)[0] as string)
    }
    return (after) => !inside.has(after)
  }

  /** Return the bytes of the longest token; undefined if tokens can stand for more text than their own. */
  longestToken(): number | undefined {
    const { normalizer, model, addedTokens } = this
    if (normalizer !== null || !(model instanceof Bpe) || !model.byteLevel) return undefined
    let longest = 1
    for (const [, { content, lstrip, rstrip }] of addedTokens.entries()) {
      if (lstrip || rstrip) return undefined
      longest = Math.max(longest, Buffer.byteLength(content))
    }
    return Math.max(longest, model.longest)
  }

  run(text: string): Encoding {
    return withDeadline(timeOf(text), () => drained(this.#steps(text)))
  }

  /**
   * The same, while other work of the process runs too, whatever the text and the tokenizer.
   * @throws the signal's reason once it is aborted
   */
  runUnhurried(text: string, signal?: AbortSignal): Promise<Encoding> {
    return unhurried(this.#steps(text), timeOf(text), signal)
  }

  *#steps(text: string): Steps<Encoding> {
    const out: Columns = { ids: [], starts: [], ends: [], words: [] }
    const wellFormed = replaceLoneSurrogates(text)
    const source = new AlignedText(wellFormed)
    let word = 0
    let next = STEP
    for (const raw of yield* this.addedTokens.splitRaw(wellFormed)) {
      if (raw.from >= next) {
        yield
        next = raw.from + STEP
      }
      const section = source.slice(raw.from, raw.to)
      if (raw.id !== -1) {
        word = pushToken(out, raw.id, section, word)
        continue
      }
      const changed = this.normalizer?.(section) ?? section
      const normalized = changed instanceof AlignedText ? changed : yield* changed
      let nextPart = STEP
      for (const { from, to, id } of yield* this.addedTokens.splitNormalized(normalized.text)) {
        if (from >= nextPart) {
          yield
          nextPart = from + STEP
        }
        const part = from === 0 && to === normalized.text.length ? normalized : normalized.slice(from, to)
        word = id !== -1 ? pushToken(out, id, part, word) : yield* this.#cut(part, out, word)
      }
    }
    return Encoding.of(out.ids, out.starts, out.ends, out.words)
  }

  *#cut(text: AlignedText, out: Columns, firstWord: number): Steps<number> {
    if (text.text === '') return firstWord
    if (this.model.kind === 'SentencePiece') return yield* this.#cutMarked(text, out, firstWord)
    const pieces = this.preTokenizer?.(text) ?? [text]
    let word = firstWord
    let next = out.ids.length + STEP
    for (const piece of Array.isArray(pieces) ? pieces : yield* pieces) {
      if (piece.text === '') continue
      if (piece.text.length > STEP) yield* this.#pushLong(piece, out, () => word)
      else this.#push(piece, out, word)
      word++
      if (out.ids.length < next) continue
      yield
      next = out.ids.length + STEP
    }
    return word
  }

  /** Tokenize with a SentencePiece model, which takes the whole text; words begin at its marks. */
  *#cutMarked(text: AlignedText, out: Columns, firstWord: number): Steps<number> {
    let word = firstWord
    let done = 0
    yield* this.#pushLong(text, out, (start) => {
      for (; done < start; done++) {
        if (text.text[done + 1] === MARK && text.text[done] !== MARK) word++
      }
      return word
    })
    return word + 1
  }

  #push(piece: AlignedText, out: Columns, word: number): void {
    const tokens = noTokens()
    this.model.tokenize(piece.text, tokens)
    for (let i = 0; i < tokens.ids.length; i++) pushOne(out, tokens, i, piece, word)
  }

  *#pushLong(piece: AlignedText, out: Columns, wordOf: (start: number) => number): Steps<void> {
    const tokens = noTokens()
    if (this.model.steps) yield* this.model.steps(piece.text, tokens)
    else this.model.tokenize(piece.text, tokens)
    for (let i = 0; i < tokens.ids.length; i++) {
      pushOne(out, tokens, i, piece, wordOf(tokens.starts[i]!))
      if (i % STEP === STEP - 1) yield
    }
  }
}

const timeOf = (text: string): number => LEAST_TIME + TIME_PER_UNIT * text.length

interface Columns {
  ids: number[]
  starts: number[]
  ends: number[]
  words: number[]
}

function pushOne(out: Columns, { ids, starts, ends }: Tokens, i: number, piece: AlignedText, word: number): void {
  out.ids.push(ids[i]!)
  out.starts.push(piece.startOf(starts[i]!))
  out.ends.push(piece.endOf(ends[i]! - 1))
  out.words.push(word)
}

function pushToken(out: Columns, id: number, section: AlignedText, word: number): number {
  out.ids.push(id)
  out.starts.push(section.startOf(0))
  out.ends.push(section.endOf(section.text.length - 1))
  out.words.push(word)
  return word + 1
}

/** Replace lone surrogates, which have no UTF-8, by U+FFFD, as TextEncoder does. */
function replaceLoneSurrogates(text: string): string {
  const { isWellFormed, toWellFormed } = text as unknown as { isWellFormed(): boolean; toWellFormed(): string }
  return isWellFormed.call(text) ? text : toWellFormed.call(text)
}
