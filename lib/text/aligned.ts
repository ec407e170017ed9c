import { DataError } from '../base/errors.js'
import { LONGEST_LIST } from '../base/heap.js'
import { STEP, type Steps } from './steps.js'

/**
 * A text with an alignment to the original text: each UTF-16 unit has the range of the original that it stands for, so the
 * offsets of tokens stay correct after normalization.
 */
export class AlignedText {
  /**
   * @param starts start of unit `i` in the original: `starts[shift + i]`. Null while units were only replaced one by one: then
   *   unit `i` is unit `shift + i` of the original.
   * @param floor without `starts`: units before this one were prepended, and stand for the character from `floor` to `floorEnd`
   */
  constructor(
    readonly text: string,
    readonly starts: ArrayLike<number> | null = null,
    readonly ends: ArrayLike<number> | null = null,
    readonly shift = 0,
    readonly floor = 0,
    readonly floorEnd = 0,
  ) {}

  startOf(unit: number): number {
    const at = this.shift + unit
    if (this.starts !== null) return this.starts[at]!
    return Math.max(at, this.floor)
  }

  endOf(unit: number): number {
    const at = this.shift + unit
    if (this.ends !== null) return this.ends[at]!
    return at < this.floor ? this.floorEnd : at + 1
  }

  slice(from: number, to: number): AlignedText {
    return this.part(this.text.slice(from, to), from)
  }

  /** Return the part from `from` on, whose text is `text`. */
  part(text: string, from: number): AlignedText {
    return new AlignedText(text, this.starts, this.ends, this.shift + from, this.floor, this.floorEnd)
  }

  /** Return the alignment with another text of the same length. */
  exchanged(text: string): AlignedText {
    return this.part(text, 0)
  }
}

// Normalizers of a file may lengthen a text, also in combination. NFKD turns one unit into up to 18.
const MOST_GROWTH = 32
const ALWAYS = 2 ** 12

let longest = LONGEST_LIST

/** Return the length to which the rules of a file may grow a text of `length` units. */
export const mostGrown = (length: number): number => Math.min(LONGEST_LIST, ALWAYS + MOST_GROWTH * length)

/** Apply the rules of a file to a text, with a limit on its growth. @throws DataError above it */
export function* limitedGrowth(
  file: string,
  source: AlignedText,
  change: (text: AlignedText) => AlignedText | Steps<AlignedText>,
): Steps<AlignedText> {
  const most = mostGrown(source.text.length)
  const limited = <T>(work: () => T): T => {
    const outer = longest
    longest = most
    try {
      return work()
    } catch (cause) {
      if (cause !== TOO_LONG) throw cause
      throw new DataError(
        `${file}: normalizer: expected at most ${longest} characters for a text of ${source.text.length}, got more`,
        { file, entry: 'normalizer' },
      )
    } finally {
      longest = outer
    }
  }
  const changed = limited(() => change(source))
  if (changed instanceof AlignedText) return changed
  // Other texts may be changed between two steps, with their own limits.
  for (;;) {
    const step = limited(() => changed.next())
    if (step.done) return step.value
    yield
  }
}

const TOO_LONG = new DataError('the normalizer grows the text beyond its limit')

function requireLength(length: number): void {
  if (length > longest) throw TOO_LONG
}

/** Builder of a changed text with its alignment. */
export class AlignedBuilder {
  #text = ''
  readonly #starts: number[] = []
  readonly #ends: number[] = []

  constructor(readonly source: AlignedText) {}

  /** Append text that stands for the units `from` to `to` of the source. */
  add(text: string, from: number, to: number): void {
    requireLength(this.#starts.length + text.length)
    this.#text += text
    const start = this.source.startOf(from)
    const end = this.source.endOf(to - 1)
    for (let i = 0; i < text.length; i++) {
      this.#starts.push(start)
      this.#ends.push(end)
    }
  }

  /** Append units of the source unchanged. */
  keep(from: number, to: number): void {
    requireLength(this.#starts.length + to - from)
    this.#text += this.source.text.slice(from, to)
    for (let i = from; i < to; i++) {
      this.#starts.push(this.source.startOf(i))
      this.#ends.push(this.source.endOf(i))
    }
  }

  *keepInSteps(from: number, to: number): Steps<void> {
    for (let at = from; at < to; at += STEP) {
      this.keep(at, Math.min(at + STEP, to))
      yield
    }
  }

  done(): AlignedText {
    return new AlignedText(this.#text, this.#starts, this.#ends)
  }
}

/** Replace every character by the result of `change`; `''` drops it. */
export function* mapCharacters(source: AlignedText, change: (character: string) => string): Steps<AlignedText> {
  const { text } = source
  let builder: AlignedBuilder | undefined
  let kept = 0
  let next = STEP
  for (let i = 0; i < text.length; ) {
    if (i >= next) {
      yield
      next = i + STEP
    }
    const character = characterAt(text, i)
    const end = i + character.length
    const changed = change(character)
    if (changed !== character) {
      builder ??= new AlignedBuilder(source)
      builder.keep(kept, i)
      builder.add(changed, i, end)
      kept = end
    }
    i = end
  }
  if (builder === undefined) return source
  yield* builder.keepInSteps(kept, text.length)
  return builder.done()
}

/** Replace the ranges of matches; a replacement stands for the last character of its match. */
export function* replaceMatches(source: AlignedText, matches: readonly number[], content: string): Steps<AlignedText> {
  if (matches.length === 0) return source
  if (content.length === 1 && matches.every((to, i) => i % 2 === 0 || to - matches[i - 1]! === 1)) {
    return source.exchanged(yield* exchangeUnits(source.text, matches, content))
  }
  const builder = new AlignedBuilder(source)
  let kept = 0
  for (let i = 0; i < matches.length; i += 2) {
    const [from, to] = [matches[i]!, matches[i + 1]!]
    if (from - kept > STEP) yield* builder.keepInSteps(kept, from)
    else builder.keep(kept, from)
    if (i % STEP === 0) yield
    if (to > 0) builder.add(content, lastCharacter(source.text, to), to)
    else if (source.text.length > 0) builder.add(content, 0, 1)
    kept = to
  }
  yield* builder.keepInSteps(kept, source.text.length)
  return builder.done()
}

function* exchangeUnits(text: string, matches: readonly number[], content: string): Steps<string> {
  let changed = ''
  let kept = 0
  for (let i = 0; i < matches.length; i += 2) {
    if (i % STEP === 0) yield
    changed += text.slice(kept, matches[i]) + content
    kept = matches[i + 1]!
  }
  return changed + text.slice(kept)
}

/** Prepend text, which stands for the first character. An empty text stays empty. */
export function prepend(source: AlignedText, text: string): AlignedText {
  if (source.text === '' || text === '') return source
  requireLength(text.length + source.text.length)
  const first = characterAt(source.text, 0)
  if (source.starts === null && source.shift >= source.floor) {
    const { shift } = source
    return new AlignedText(text + source.text, null, null, shift - text.length, shift, shift + first.length)
  }
  const builder = new AlignedBuilder(source)
  builder.add(text, 0, first.length)
  builder.keep(0, source.text.length)
  return builder.done()
}

export function characterAt(text: string, i: number): string {
  const unit = text.charCodeAt(i)
  if (unit >= 0xd800 && unit < 0xdc00 && i + 1 < text.length) {
    const low = text.charCodeAt(i + 1)
    if (low >= 0xdc00 && low < 0xe000) return text.slice(i, i + 2)
  }
  return text[i]!
}

function lastCharacter(text: string, end: number): number {
  const low = text.charCodeAt(end - 1)
  if (low >= 0xdc00 && low < 0xe000 && end >= 2) {
    const high = text.charCodeAt(end - 2)
    if (high >= 0xd800 && high < 0xdc00) return end - 2
  }
  return end - 1
}
