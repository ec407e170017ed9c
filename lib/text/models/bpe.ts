import { quoted } from '../../files/byte-source.js'
import { toByteCharacters } from '../byte-level.js'
import type { Fields } from '../fields.js'
import { drained, STEP, type Steps } from '../steps.js'
import { Merges } from './merges.js'
import { byteTokens, noTokens, readVocabulary, type TokenModel, type Tokens, Vocabulary, widthAt } from './model.js'
import { PairMap } from './pair-map.js'
import { WordCache } from './word-cache.js'

export interface BpeOptions {
  unkToken: string | null
  fuseUnk: boolean
  byteFallback: boolean
  /** Whether a pre-token in the vocabulary is one token, regardless of merges. */
  ignoreMerges: boolean
  prefix: string
  suffix: string
}

/**
 * Byte-pair encoding. With `byteLevel` the model takes raw text and converts it to byte characters itself, so words can be looked up
 * in the cache before the conversion.
 */
export class Bpe implements TokenModel {
  readonly kind = 'BPE'
  readonly #vocabulary: Vocabulary
  readonly #merges: Merges
  /** The two parts of each merge, for saving. */
  readonly #pairs: readonly [string, string][]
  readonly #cache = new WordCache()
  readonly #unk: number | undefined
  readonly #splitsAtMarks: boolean
  byteLevel = false
  #longest = 0

  constructor(
    ids: ReadonlyMap<string, number>,
    pairs: readonly [string, string][],
    readonly options: BpeOptions,
    fail: (what: string) => never,
  ) {
    this.#vocabulary = new Vocabulary(ids)
    this.#pairs = pairs
    const results = new Int32Array(pairs.length)
    const ranks = new Int32Array(pairs.length)
    const rules = new PairMap(pairs.length)
    for (const [rank, [left, right]] of pairs.entries()) {
      const first = ids.get(left)
      const second = ids.get(right)
      const result = ids.get(left + right.slice(options.prefix.length))
      if (first === undefined || second === undefined || result === undefined) {
        fail(`merges: expected parts and results in the vocabulary, got ${quoted(left)} and ${quoted(right)}`)
      }
      rules.set(first!, second!, rank)
      ranks[rank] = rank
      results[rank] = result!
    }
    this.#merges = new Merges(rules, ranks, results)
    this.#unk = options.unkToken === null ? undefined : ids.get(options.unkToken)
    this.#splitsAtMarks =
      options.prefix === '' && options.suffix === '' && !options.ignoreMerges && marksOnlyLead(ids, pairs)
  }

  /** Merge the pair whose result has the lowest id first, as in tiktoken, and the leftmost of equal ones. */
  rankByResult(): void {
    this.#merges.ranks.set(this.#merges.results)
  }

  /** Characters of the longest entry; bytes if the model is byte-level. */
  get longest(): number {
    if (this.#longest === 0) for (const [token] of this.entries()) this.#longest = Math.max(this.#longest, token.length)
    return this.#longest
  }

  get size(): number {
    return this.#vocabulary.size
  }

  tokenToId(token: string): number | undefined {
    return this.#vocabulary.id(token)
  }

  idToToken(id: number): string | undefined {
    return this.#vocabulary.token(id)
  }

  entries(): IterableIterator<[string, number]> {
    return this.#vocabulary.entries()
  }

  pairs(): readonly [string, string][] {
    return this.#pairs
  }

  tokenize(text: string, into: Tokens): void {
    if (!this.#splitsAtMarks || this.byteLevel) this.#tokenizeWord(text, 0, into)
    else drained(this.steps(text, into))
  }

  *steps(text: string, into: Tokens): Steps<void> {
    if (!this.#splitsAtMarks || this.byteLevel) return yield* this.#tokenizeLongWord(text, 0, into)
    // No merge joins a mark to the text before it, so words can be merged separately.
    let start = 0
    let next = STEP
    for (let i = text.indexOf(MARK, 1); i !== -1; i = text.indexOf(MARK, i + 1)) {
      if (text.charCodeAt(i - 1) === MARK_UNIT) continue
      if (i - start > STEP) yield* this.#tokenizeLongWord(text.slice(start, i), start, into)
      else this.#tokenizeWord(text.slice(start, i), start, into)
      start = i
      if (i < next) continue
      yield
      next = i + STEP
    }
    yield* this.#tokenizeLongWord(start === 0 ? text : text.slice(start), start, into)
  }

  #tokenizeWord(word: string, offset: number, into: Tokens): void {
    append(
      into,
      this.#cache.get(word, () => drained(this.#spellAny(word))),
      offset,
    )
  }

  *#tokenizeLongWord(word: string, offset: number, into: Tokens): Steps<void> {
    if (word.length <= STEP) return this.#tokenizeWord(word, offset, into)
    const { ids, starts, ends } = yield* this.#spellAny(word)
    for (let i = 0; i < ids.length; i += STEP) {
      const [from, to] = [i, i + STEP]
      append(into, { ids: ids.slice(from, to), starts: starts.slice(from, to), ends: ends.slice(from, to) }, offset)
      yield
    }
  }

  #spellAny(word: string): Steps<Tokens> {
    return this.byteLevel ? this.#spellBytes(word) : this.#spell(word)
  }

  /** Extend the offsets of tokens with part of a character to the whole character. */
  *#spellBytes(word: string): Steps<Tokens> {
    let spelled = ''
    for (let i = 0; i < word.length; ) {
      const end = i + STEP
      const isPair = widthAt(word, end - 1) === 2
      const part = word.slice(i, isPair ? end + 1 : end)
      spelled += toByteCharacters(part)
      i += part.length
      yield
    }
    const tokens = yield* this.#spell(spelled)
    if (spelled.length === word.length) return tokens
    const from: number[] = []
    const to: number[] = []
    let next = STEP
    for (let i = 0; i < word.length; ) {
      if (i >= next) {
        yield
        next = i + STEP
      }
      const width = widthAt(word, i)
      const code = word.codePointAt(i)!
      const bytes = code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4
      for (let byte = 0; byte < bytes; byte++) {
        from.push(i)
        to.push(i + width)
      }
      i += width
    }
    return {
      ids: tokens.ids,
      starts: tokens.starts.map((start) => from[start]!),
      ends: tokens.ends.map((end) => to[end - 1]!),
    }
  }

  *#spell(word: string): Steps<Tokens> {
    const whole = this.options.ignoreMerges ? this.#vocabulary.id(word) : undefined
    if (whole !== undefined) return { ids: [whole], starts: [0], ends: [word.length] }
    const symbols: number[] = []
    const widths: number[] = []
    yield* this.#characters(word, symbols, widths)
    const count = yield* this.#merges.apply(symbols, widths, symbols.length)
    const tokens = noTokens()
    let start = 0
    let end = 0
    for (let i = 0; i < count; i++) {
      if (widths[i]! > 0) {
        start = end
        end += widths[i]!
      }
      tokens.ids.push(symbols[i]!)
      tokens.starts.push(start)
      tokens.ends.push(end)
      if (i % STEP === STEP - 1) yield
    }
    return tokens
  }

  /**
   * Return the symbols before merging. Bytes of a character after its first have width 0; a character without an entry is dropped if
   * there is no unknown token.
   */
  *#characters(word: string, symbols: number[], widths: number[]): Steps<void> {
    const { prefix, suffix, byteFallback, fuseUnk } = this.options
    let unknown = false // whether the last symbol is the unknown token
    let next = STEP
    for (let i = 0; i < word.length; ) {
      if (i >= next) {
        yield
        next = i + STEP
      }
      const width = widthAt(word, i)
      let name = word.slice(i, i + width)
      if (i > 0) name = prefix + name
      i += width
      if (i === word.length) name += suffix
      const id = this.#vocabulary.id(name)
      const bytes = id === undefined && byteFallback ? this.#byteIds(name) : undefined
      if (bytes !== undefined) {
        symbols.push(...bytes)
        for (let byte = 0; byte < bytes.length; byte++) widths.push(byte === 0 ? width : 0)
      } else if (id === undefined && fuseUnk && unknown) {
        widths[widths.length - 1]! += width
      } else if (id !== undefined || this.#unk !== undefined) {
        symbols.push(id ?? this.#unk!)
        widths.push(width)
      }
      unknown = id === undefined && bytes === undefined && this.#unk !== undefined
    }
  }

  #byteIds(name: string): number[] | undefined {
    const ids = byteTokens(name).map((token) => this.#vocabulary.id(token))
    return ids.every((id) => id !== undefined) ? ids : undefined
  }
}

/** Append tokens of a range that starts at `offset`. */
export function append(into: Tokens, { ids, starts, ends }: Tokens, offset: number): void {
  for (let i = 0; i < ids.length; i++) {
    into.ids.push(ids[i]!)
    into.starts.push(offset + starts[i]!)
    into.ends.push(offset + ends[i]!)
  }
}

const MARK = '\u2581'
const MARK_UNIT = MARK.charCodeAt(0)

/** Whether SentencePiece's space mark is an entry, and only occurs at the beginning of entries. */
function marksOnlyLead(ids: ReadonlyMap<string, number>, pairs: readonly [string, string][]): boolean {
  return ids.has(MARK) && pairs.every(([left, right]) => !right.startsWith(MARK) || /^\u2581+$/.test(left))
}

export function readBpe(fields: Fields): Bpe {
  const dropout = fields.number('dropout', 0)
  if (dropout !== 0)
    fields.fail(`dropout: expected null or 0, got ${dropout}, which would make tokens random. Set it to null.`)
  const options: BpeOptions = {
    unkToken: fields.has('unk_token') ? fields.string('unk_token') : null,
    fuseUnk: fields.boolean('fuse_unk', false),
    byteFallback: fields.boolean('byte_fallback', false),
    ignoreMerges: fields.boolean('ignore_merges', false),
    prefix: fields.string('continuing_subword_prefix', ''),
    suffix: fields.string('end_of_word_suffix', ''),
  }
  const ids = readVocabulary(fields)
  if (options.unkToken !== null && !ids.has(options.unkToken))
    fields.fail(`unk_token: expected a token of the vocabulary, got ${quoted(options.unkToken)}`)
  return new Bpe(ids, readPairs(fields), options, (what) => fields.fail(what))
}

function readPairs(fields: Fields): [string, string][] {
  return fields.list('merges', []).map((merge, i) => {
    const halves = typeof merge === 'string' ? merge.split(' ') : merge
    if (Array.isArray(halves) && halves.length === 2 && halves.every((half) => typeof half === 'string')) {
      return halves as [string, string]
    }
    throw fields.error(`merges[${i}]`, 'two strings', merge)
  })
}
