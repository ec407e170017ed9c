import { AlignedBuilder, AlignedText, prepend } from '../aligned.js'
import type { Trie } from '../models/trie.js'
import { STEP, type Steps } from '../steps.js'
import { Charsmap } from './charsmap.js'
import type { NormalizerSpec } from './proto.js'

export const MARK = '\u2581'

/**
 * SentencePiece's normalizer: applies the rules of the model, strips and merges spaces, adds a leading space, and replaces spaces by
 * marks. User-defined symbols are not changed.
 */
export class SentencePieceNormalizer {
  readonly #charsmap: Charsmap | undefined
  readonly #mark: string

  constructor(
    readonly spec: NormalizerSpec,
    readonly whitespaceIsSuffix: boolean,
    readonly symbols: Trie | null,
    file: string,
  ) {
    this.#charsmap = spec.charsmap.length === 0 ? undefined : new Charsmap(spec.charsmap, file)
    this.#mark = spec.escapeWhitespaces ? MARK : ' '
  }

  /** @param dummyPrefix whether to add a leading space (a trailing one if the model's marks are suffixes) */
  *normalize(source: AlignedText, dummyPrefix = this.spec.addDummyPrefix): Steps<AlignedText> {
    const { removeExtraWhitespaces: joins, escapeWhitespaces: escapes } = this.spec
    const escaped = (text: string): string => (escapes ? text.replaceAll(' ', MARK) : text)
    if (this.#charsmap === undefined && this.symbols === null && !joins && !this.whitespaceIsSuffix) {
      const text = source.exchanged(escaped(source.text))
      return dummyPrefix ? prepend(text, this.#mark) : text
    }
    const builder = new AlignedBuilder(source)
    const parts = this.#parts(source.text)
    let part = parts.next()
    for (let count = 1; joins && !part.done && part.value.text === ' '; count++) {
      part = parts.next()
      if (count % STEP === 0) yield
    }
    if (part.done) return builder.done()
    if (dummyPrefix && !this.whitespaceIsSuffix) builder.add(this.#mark, part.value.from, part.value.to)
    let afterSpace = joins
    let next = 0
    for (; !part.done; part = parts.next()) {
      const { from, to } = part.value
      if (from >= next) {
        yield
        next = from + STEP
      }
      const changed = afterSpace ? part.value.text.replace(/^ +/, '') : part.value.text
      if (changed === '') continue
      afterSpace = joins && changed.endsWith(' ')
      builder.add(escaped(changed), from, to)
    }
    let normalized = builder.done()
    if (joins) normalized = trimEnd(normalized, this.#mark)
    if (!dummyPrefix || !this.whitespaceIsSuffix) return normalized
    const last = source.text.length
    const end = source.endOf(last - 1)
    return new AlignedText(
      normalized.text + this.#mark,
      [...Array.from({ length: normalized.text.length }, (_, i) => normalized.startOf(i)), end],
      [...Array.from({ length: normalized.text.length }, (_, i) => normalized.endOf(i)), end],
    )
  }

  /** Yield the parts of a text with their replacements by the longest rules. */
  *#parts(text: string): Generator<{ text: string; from: number; to: number }> {
    const bytes = this.#charsmap === undefined ? undefined : Buffer.from(text)
    let byte = 0
    for (let from = 0; from < text.length; ) {
      const symbol = this.symbols?.longest(text, from) ?? -1
      let to = symbol
      let changed: string | undefined
      if (symbol === -1 && bytes !== undefined) {
        changed = this.#charsmap!.search(bytes, byte, bytes.length, 'longest')
        if (changed !== undefined) to = from + unitsOf(bytes, byte, this.#charsmap!.end)
      }
      if (to === -1) to = from + (text.codePointAt(from)! > 0xffff ? 2 : 1)
      const old = text.slice(from, to)
      yield { text: changed ?? old, from, to }
      if (bytes !== undefined) byte += Buffer.byteLength(old)
      from = to
    }
  }
}

/** Return the number of UTF-16 units of a range of UTF-8. */
function unitsOf(bytes: Uint8Array, start: number, end: number): number {
  let units = 0
  for (let i = start; i < end; i++) {
    const byte = bytes[i]!
    if ((byte & 0xc0) !== 0x80) units += byte >= 0xf0 ? 2 : 1
  }
  return Math.max(units, 1)
}

function trimEnd(normalized: AlignedText, mark: string): AlignedText {
  let end = normalized.text.length
  while (end > 0 && normalized.text[end - 1] === mark) end--
  return normalized.slice(0, end)
}
