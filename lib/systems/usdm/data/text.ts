import {
  argumentError,
  isArrayLike,
  listOf,
  requireOptions,
  requireString,
  requireWhole,
  shown,
} from '../../../base/check.js'
import { ConfigError, DataError } from '../../../base/errors.js'
import { harmlessText } from '../../../kit/harmless-text.js'
import { Tokenizer } from '../../../text/tokenizer.js'
import { USDM_MAX_LENGTH } from '../configuration/settings.js'

export { USDM_MAX_LENGTH } from '../configuration/settings.js'

/** Token between different content in the two modalities. */
export const CONTINUE = '<|continue|>'
/** Token between the same content in the two modalities. */
export const CORRESPOND = '<|correspond|>'
export const PAD = '<pad>'
/** Return the token of a unit of speech. */
export const unitToken = (unit: number): string => `<|unit${unit}|>`

/** Default number of units: clusters of XLS-R frames. */
export const USDM_UNITS = 10_000

export interface UsdmTokenizerOptions {
  /** Number of units of speech. Default: the number that the tokenizer already has, else 10,000. */
  units?: number
}

/** Ids of the tokens that prompts, labels and generation use. */
export interface UsdmIds {
  /** BOS, put before every text; null if the tokenizer has none. */
  readonly bos: number | null
  readonly eos: number
  readonly continue: number
  readonly correspond: number
  /** Unit k is `firstUnit + k`. */
  readonly firstUnit: number
  readonly pad: number
  /** A line break, which ends a transcript. */
  readonly newline: number
  /** The id that ends speech, before the line break: the lone space of Mistral's tokenizer (28705), else the line break. */
  readonly endOfSpeech: number
}

/** Text, units of speech, or a special token between the two. */
export type UsdmPiece = string | { units: ArrayLike<number> } | { token: 'continue' | 'correspond' | 'eos' }

/**
 * A language model's tokenizer with tokens for speech: `<|continue|>`, `<|correspond|>`, `<|unit0|>` … `<|unitK-1|>` and
 * `<pad>`, appended to the vocabulary in this order, K + 3 in all. With Mistral-7B-v0.1 and 10,000 units these are the ids of USDM:
 * 32000, 32001, 32002 … 42001, and 42002.
 *
 * Text is split at these tokens first, and each part between them is encoded separately, as transformers' fast tokenizers do (with
 * Mistral, each part starts with a space token). If a tokenizer may merge a line break with its neighbors, as GPT-2's do, each piece
 * of {@link encode} is encoded separately, so that line breaks are single tokens and prompts are prefixes of the training examples.
 * The cost of encoding grows with the text, not with the number of units.
 *
 * ```ts
 * const tokenizer = await UsdmTokenizer.fromPretrained('./mistral-7b-v0.1')
 * tokenizer.encode([{ units: [7, 7, 2] }, { token: 'correspond' }, 'hello.\n']) // [1, 32009, 32009, 32004, 32001, …]
 * ```
 */
export class UsdmTokenizer {
  /** The tokenizer, with the speech tokens. */
  readonly tokenizer: Tokenizer
  /** Number of units, K. */
  readonly units: number
  readonly ids: UsdmIds
  /** Whether line breaks are always single tokens, so that text can be encoded in one piece. */
  readonly joinsPieces: boolean

  private constructor(tokenizer: Tokenizer, units: number) {
    this.tokenizer = tokenizer
    this.units = units
    const id = (token: string): number => {
      const found = tokenizer.tokenToId(token)
      if (found !== undefined) return found
      throw new ConfigError(
        `UsdmTokenizer: expected a tokenizer with the token ${token}, got one without. Add the speech tokens with UsdmTokenizer.extend(tokenizer).`,
        { token },
      )
    }
    const firstUnit = id(unitToken(0))
    if (id(unitToken(units - 1)) !== firstUnit + units - 1 || id(unitToken(units >> 1)) !== firstUnit + (units >> 1)) {
      throw new ConfigError(`UsdmTokenizer: expected consecutive ids of the unit tokens from ${firstUnit}, got gaps.`, {
        firstUnit,
        units,
      })
    }
    const { eosTokenId: eos } = tokenizer
    if (eos === null) {
      throw new ConfigError('UsdmTokenizer: expected a tokenizer with an EOS token, got one without. Set its eosToken.')
    }
    const lines = plain(tokenizer, '\n')
    const newline = lines.at(-1)
    if (newline === undefined || tokenizer.decode([newline]) !== '\n') {
      throw new ConfigError("UsdmTokenizer: expected a tokenizer with a token for '\\n', got one without.", {
        ids: lines,
      })
    }
    this.joinsPieces = isSingleToken(tokenizer, newline)
    this.ids = {
      bos: plain(tokenizer, '', true)[0] ?? null,
      eos,
      continue: id(CONTINUE),
      correspond: id(CORRESPOND),
      firstUnit,
      pad: id(PAD),
      newline,
      endOfSpeech: this.joinsPieces ? (lines[0] as number) : newline,
    }
  }

  /**
   * Load a tokenizer as `Tokenizer.fromPretrained` does, and add the missing speech tokens.
   * @throws ConfigError, DataError as `Tokenizer.fromPretrained`
   */
  static async fromPretrained(directory: string, options: UsdmTokenizerOptions = {}): Promise<UsdmTokenizer> {
    checkOptions('UsdmTokenizer.fromPretrained', options)
    return UsdmTokenizer.extend(await Tokenizer.fromPretrained(directory), options)
  }

  /**
   * Add the speech tokens to a tokenizer that lacks them, and make `<pad>` its padding token. Existing tokens are kept.
   * @throws ConfigError for a tokenizer with another number of units, without a line break token, or without EOS
   */
  static extend(tokenizer: Tokenizer, options: UsdmTokenizerOptions = {}): UsdmTokenizer {
    const where = 'UsdmTokenizer.extend'
    if (!(tokenizer instanceof Tokenizer)) throw argumentError(where, 'tokenizer', 'a Tokenizer', tokenizer)
    checkOptions(where, options)
    const own = unitsOf(tokenizer)
    const units = options.units ?? (own > 0 ? own : USDM_UNITS)
    if (own > 0 && own !== units) {
      throw new ConfigError(
        `${where}: expected a tokenizer with ${units} units or none, got one with ${own}. Leave out units.`,
        { units, own },
      )
    }
    const tokens = Array.from({ length: units }, (_, unit) => unitToken(unit))
    tokenizer.addSpecialTokens([CONTINUE, CORRESPOND, ...tokens, PAD])
    tokenizer.padToken = PAD
    return new UsdmTokenizer(tokenizer, units)
  }

  /** The number of rows that a language model's embeddings need: the highest id + 1. */
  get vocabSize(): number {
    return Math.max(this.tokenizer.vocabSize, this.ids.pad + 1, this.ids.firstUnit + this.units)
  }

  /** Maximum length of a text in tokens: from the tokenizer's files, else 8192. */
  get modelMaxLength(): number {
    return this.tokenizer.modelMaxLength ?? USDM_MAX_LENGTH
  }

  /** Return the id of a unit. @throws DataError unless it is an integer from 0 to below `units` */
  unitId(unit: number): number {
    if (Number.isInteger(unit) && unit >= 0 && unit < this.units) return this.ids.firstUnit + unit
    throw new DataError(`UsdmTokenizer: expected a unit from 0 to ${this.units - 1}, got ${shown(unit)}`, {
      unit,
      units: this.units,
    })
  }

  isUnit(id: number): boolean {
    return Number.isInteger(id) && id >= this.ids.firstUnit && id < this.ids.firstUnit + this.units
  }

  /** Return the units among ids, in order. */
  unitsOf(ids: Iterable<number | bigint>): number[] {
    const { firstUnit } = this.ids
    const list = listOf<number | bigint>('UsdmTokenizer.unitsOf', 'ids', ids, 'ids')
    return list.flatMap((id) => {
      const number = typeof id === 'bigint' ? Number(id) : id
      return this.isUnit(number) ? [number - firstUnit] : []
    })
  }

  /**
   * Encode a text, in which special tokens are recognized, or a list of pieces. Special tokens in the texts of pieces are not
   * recognized, so a user's text cannot insert control tokens.
   * @returns the ids, after BOS if the tokenizer has one (unless `addBos` is false)
   * @throws DataError for a unit outside of the tokenizer's units
   */
  encode(content: string | readonly UsdmPiece[], options: { addBos?: boolean } = {}): number[] {
    requireOptions('UsdmTokenizer.encode', options, ['addBos'])
    const { addBos = true } = options
    if (typeof content === 'string') return plain(this.tokenizer, content, addBos)
    if (!Array.isArray(content))
      throw argumentError('UsdmTokenizer.encode', 'content', 'a text or a list of pieces', content)
    const { bos } = this.ids
    const start = addBos && bos !== null ? [bos] : []
    if (!this.joinsPieces) return [...start, ...content.flatMap((piece) => this.#pieceIds(piece))]
    // A run of units is encoded as one marker token and replaced afterwards, so the cost does not depend on the number of units.
    const unitRuns: number[][] = []
    const marker = unitToken(0)
    const text = content.map((piece) => {
      if (typeof piece === 'string') return this.harmless(piece)
      const unitRun = this.#pieceIds(piece)
      if (unitRun.length === 0) return ''
      unitRuns.push(unitRun)
      return marker
    })
    let next = 0
    return [
      ...start,
      ...plain(this.tokenizer, text.join('')).flatMap((id) =>
        id === this.ids.firstUnit ? (unitRuns[next++] ?? []) : id,
      ),
    ]
  }

  #pieceIds(piece: UsdmPiece): number[] {
    if (typeof piece === 'string') return plain(this.tokenizer, this.harmless(piece))
    if (typeof piece === 'object' && piece !== null && 'token' in piece && TOKENS.includes(piece.token)) {
      return [this.ids[piece.token]]
    }
    const units = (piece as { units?: unknown } | null)?.units
    if (!isArrayLike(units)) {
      throw argumentError(
        'UsdmTokenizer.encode',
        'each piece',
        `a text, { units } or { token: '${TOKENS.join("' | '")}' }`,
        piece,
      )
    }
    return Array.from(units as ArrayLike<number>, (unit) => this.unitId(unit))
  }

  /** Return a text without special tokens: a space is inserted after the first character of each that it spells. */
  harmless(text: string): string {
    requireString('UsdmTokenizer.harmless', 'text', text)
    return harmlessText(this.tokenizer, text)
  }

  /** Decode ids, special tokens included, without cleaning up spaces. @throws ConfigError for values that are not ids */
  decode(ids: Iterable<number | bigint>): string {
    return this.tokenizer.decode(ids, { cleanUpSpaces: false })
  }

  /** Save the tokenizer with its tokens, in files for `fromPretrained` and transformers. @throws DataError */
  saveTo(directory: string): void {
    this.tokenizer.saveTo(directory)
  }
}

const TOKENS = ['continue', 'correspond', 'eos'] as const

function checkOptions(where: string, options: UsdmTokenizerOptions): void {
  requireOptions(where, options, ['units'])
  if (options.units === undefined) return
  requireWhole(where, 'units', options.units, 1)
  if (options.units > MAX_UNITS)
    throw argumentError(where, 'units', `an integer of at most ${MAX_UNITS}`, options.units)
}

const MAX_UNITS = 1_000_000

const plain = (tokenizer: Tokenizer, text: string, addSpecialTokens = false): number[] =>
  tokenizer.encode(text, { addSpecialTokens }).inputIds

/** Return the number of units of a tokenizer: the first index without a unit token. */
function unitsOf(tokenizer: Tokenizer): number {
  let count = 0
  while (tokenizer.tokenToId(unitToken(count)) !== undefined) count += 1
  return count
}

/** Return whether line breaks are single tokens in any context. */
function isSingleToken(tokenizer: Tokenizer, newline: number): boolean {
  const ids = plain(tokenizer, 'One.\n\n### User\nHello "there!"\n \n)\n')
  const others = ids.filter((id) => id !== newline)
  return ids.length - others.length === 6 && !tokenizer.decode(others).includes('\n')
}
