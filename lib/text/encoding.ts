/** Stands for "belongs to no word" in the columns. */
const NO_WORD = -1

/**
 * Tokens of one text or of a pair, as columns of equal length. Offsets and words are those of Hugging Face's fast
 * tokenizers, but counted in UTF-16 units, JavaScript's own: `text.slice(...offsets[i])` is what token `i` stands for.
 */
export class Encoding {
  /** @param starts, @param ends, @param words the columns behind `offsets` and `wordIds` */
  constructor(
    readonly inputIds: number[],
    readonly starts: number[],
    readonly ends: number[],
    readonly words: number[],
    readonly tokenTypeIds: number[],
    readonly specialTokensMask: number[],
    readonly attentionMask: number[],
  ) {}

  /** Tokens of a text. */
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
    // `flatMap` takes tens of times as long for a million tokens.
    const column = (name: Column): number[] => ([] as number[]).concat(...parts.map((part) => part[name]))
    return new Encoding(...(columns.map(column) as Columns))
  }

  get length(): number {
    return this.inputIds.length
  }

  /** Where each token stands in its text: `[start, end)` in UTF-16 units; `[0, 0]` for special tokens and padding. */
  get offsets(): [number, number][] {
    return this.starts.map((start, i) => [start, this.ends[i]!])
  }

  /** The number of the pre-token that each token is part of, in its text; null for special tokens and padding. */
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

  /** `length` tokens, from the left or the right end. */
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
