/** Value for "no word" in the columns. */
const NO_WORD = -1

/**
 * The tokens of a text or a pair, as columns of equal length. Offsets and words are those of Hugging Face's fast tokenizers, but in
 * UTF-16 units: `text.slice(...offsets[i])` is the text of token `i`.
 */
export class Encoding {
  /** @param starts, @param ends, @param words the columns of `offsets` and `wordIds` */
  constructor(
    readonly inputIds: number[],
    readonly starts: number[],
    readonly ends: number[],
    readonly words: number[],
    readonly tokenTypeIds: number[],
    readonly specialTokensMask: number[],
    readonly attentionMask: number[],
  ) {}

  /** Create the encoding of a text. */
  static of(ids: number[], starts: number[], ends: number[], words: number[]): Encoding {
    const { length } = ids
    return new Encoding(ids, starts, ends, words, filled(length, 0), filled(length, 0), filled(length, 1))
  }

  static special(ids: readonly number[], type: number): Encoding {
    const { length } = ids
    return new Encoding(
      [...ids],
      filled(length, 0),
      filled(length, 0),
      filled(length, NO_WORD),
      filled(length, type),
      filled(length, 1),
      filled(length, 1),
    )
  }

  static join(parts: readonly Encoding[]): Encoding {
    if (parts.length === 1) return parts[0]!
    // `flatMap` is more than 10 times slower for a million tokens.
    const column = (name: Column): number[] => ([] as number[]).concat(...parts.map((part) => part[name]))
    return new Encoding(...(columns.map(column) as Columns))
  }

  get length(): number {
    return this.inputIds.length
  }

  /** Range `[start, end)` of each token in its text, in UTF-16 units; `[0, 0]` for special tokens and padding. */
  get offsets(): [number, number][] {
    return this.starts.map((start, i) => [start, this.ends[i]!])
  }

  /** Index of the pre-token of each token in its text; null for special tokens and padding. */
  get wordIds(): (number | null)[] {
    return this.words.map((word) => (word === NO_WORD ? null : word))
  }

  withType(type: number): Encoding {
    return new Encoding(
      this.inputIds,
      this.starts,
      this.ends,
      this.words,
      filled(this.length, type),
      this.specialTokensMask,
      this.attentionMask,
    )
  }

  /** Return the encoding cut to `length` tokens at `side`. */
  truncated(length: number, side: Side): Encoding {
    if (length >= this.length) return this
    const from = side === 'right' ? 0 : this.length - length
    return new Encoding(...(columns.map((name) => this[name].slice(from, from + length)) as Columns))
  }

  padded(length: number, side: Side, id: number, type: number): Encoding {
    const missing = length - this.length
    if (missing <= 0) return this
    const padding = Encoding.special(filled(missing, id), type)
    padding.attentionMask.fill(0)
    return Encoding.join(side === 'right' ? [this, padding] : [padding, this])
  }
}

export type Side = 'left' | 'right'

const columns = ['inputIds', 'starts', 'ends', 'words', 'tokenTypeIds', 'specialTokensMask', 'attentionMask'] as const
type Column = (typeof columns)[number]
type Columns = ConstructorParameters<typeof Encoding>

function filled(length: number, value: number): number[] {
  return new Array<number>(length).fill(value)
}
