import { isArrayLike, listOf, misuse, requireOptions, requireString, requireWhole, shown } from '../../../base/check.js'
import { ConfigError, DataError } from '../../../base/errors.js'
import { harmlessText } from '../../../kit/harmless-text.js'
import { Tokenizer } from '../../../text/tokenizer.js'

/** The same content stream goes on in the other modality. */
export const CONTINUE = '<|continue|>'
/** The same content again in the other modality. */
export const CORRESPOND = '<|correspond|>'
export const PAD = '<pad>'
/** The token of a unit of speech. */
export const unitToken = (unit: number): string => `<|unit${unit}|>`

/** USDM's units: clusters of XLS-R's frames. */
export const USDM_UNITS = 10_000

export interface UsdmTokenizerOptions {
  /** How many units of speech there are. Default 10,000; of a tokenizer that has them already: as many as it has. */
  units?: number
}

/** The ids that training, prompts and generation are told in. */
export interface UsdmIds {
  /** Put before every text; none where the tokenizer puts nothing. */
  readonly bos: number | null
  readonly eos: number
  readonly continue: number
  readonly correspond: number
  /** Unit k is `firstUnit + k`. */
  readonly firstUnit: number
  readonly pad: number
  /** A line break: what a transcript ends with. */
  readonly newline: number
  /** What speech ends with, before the line break: the lone space of Mistral's tokenizer (28705); else the line break. */
  readonly endOfSpeech: number
}

/** Text, or units of speech, or one of the tokens between the two. */
export type UsdmPiece = string | { units: ArrayLike<number> } | { token: 'continue' | 'correspond' | 'eos' }

/**
 * A language model's tokenizer with tokens for speech: `<|continue|>`, `<|correspond|>`, `<|unit0|>` … `<|unitK-1|>` and
 * `<pad>`, in this order behind its own, K + 3 in all. With Mistral-7B-v0.1 and 10,000 units these are the ids of USDM: 32000,
 * 32001, 32002 … 42001, and 42002.
 *
 * Text is cut at these tokens first, and each stretch between them is encoded for itself, as transformers' fast tokenizers do
 * (for Mistral: each begins with a space). Where a tokenizer may join a line break with its neighbours, as GPT-2's do, each
 * piece of {@link encode} is a stretch of its own instead, so that line breaks stand alone and prompts are prefixes of what was
 * trained. The cost of encoding grows with the text, not with the number of units.
 *
 * ```ts
 * const tokenizer = await UsdmTokenizer.fromPretrained('./mistral-7b-v0.1')
 * tokenizer.encode([{ units: [7, 7, 2] }, { token: 'correspond' }, 'hello.\n']) // [1, 32009, 32009, 32004, 32001, …]
 * ```
 */
export class UsdmTokenizer {
  /** The tokenizer, with the tokens. */
  readonly tokenizer: Tokenizer
  /** K */
  readonly units: number
  readonly ids: UsdmIds
  /** Whether line breaks are tokens of their own whatever stands beside them, so that text is encoded as a whole. */
  readonly joinsPieces: boolean

  private constructor(tokenizer: Tokenizer, units: number) {
    this.tokenizer = tokenizer
    this.units = units
    const id = (token: string): number => {
      const found = tokenizer.tokenToId(token)
      if (found !== undefined) return found
      throw new ConfigError(
        `UsdmTokenizer: the tokenizer has no ${token}; UsdmTokenizer.extend(tokenizer) adds the tokens of speech`,
        { token },
      )
    }
    const firstUnit = id(unitToken(0))
    if (id(unitToken(units - 1)) !== firstUnit + units - 1 || id(unitToken(units >> 1)) !== firstUnit + (units >> 1)) {
      throw new ConfigError('UsdmTokenizer: the ids of the units do not follow each other', { firstUnit, units })
    }
    const { eosTokenId: eos } = tokenizer
    if (eos === null) throw new ConfigError('UsdmTokenizer: the tokenizer has no token that ends a text (eosToken)', {})
    const lines = plain(tokenizer, '\n')
    const newline = lines.at(-1)
    if (newline === undefined || tokenizer.decode([newline]) !== '\n') {
      throw new ConfigError('UsdmTokenizer: the tokenizer has no token for a line break', { ids: lines })
    }
    this.joinsPieces = standsAlone(tokenizer, newline)
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
   * Reads a tokenizer as `Tokenizer.fromPretrained` does, and adds the tokens that it lacks.
   * @throws ConfigError, DataError as that does
   */
  static async fromPretrained(directory: string, options: UsdmTokenizerOptions = {}): Promise<UsdmTokenizer> {
    checkOptions('UsdmTokenizer.fromPretrained', options)
    return UsdmTokenizer.extend(await Tokenizer.fromPretrained(directory), options)
  }

  /**
   * Adds the tokens to a tokenizer that lacks them, and makes `<pad>` its padding; one that has them stays as it is.
   * @throws ConfigError for one that has other units than those asked for, or no line break or end of text
   */
  static extend(tokenizer: Tokenizer, options: UsdmTokenizerOptions = {}): UsdmTokenizer {
    const where = 'UsdmTokenizer.extend'
    if (!(tokenizer instanceof Tokenizer)) throw misuse(where, 'tokenizer', 'a Tokenizer', tokenizer)
    checkOptions(where, options)
    const own = unitsOf(tokenizer)
    const units = options.units ?? (own > 0 ? own : USDM_UNITS)
    if (own > 0 && own !== units) {
      throw new ConfigError(`${where}: the tokenizer has ${own} units already, not ${units}`, { units, own })
    }
    const tokens = Array.from({ length: units }, (_, unit) => unitToken(unit))
    tokenizer.addSpecialTokens([CONTINUE, CORRESPOND, ...tokens, PAD])
    tokenizer.padToken = PAD
    return new UsdmTokenizer(tokenizer, units)
  }

  /** Rows that a language model's embeddings must have: the highest id + 1. */
  get vocabSize(): number {
    return Math.max(this.tokenizer.vocabSize, this.ids.pad + 1, this.ids.firstUnit + this.units)
  }

  /** The longest text of the model in tokens: what the tokenizer's files say, else 8192. */
  get modelMaxLength(): number {
    return this.tokenizer.modelMaxLength ?? USDM_MAX_LENGTH
  }

  /** @throws DataError for what is no unit */
  unitId(unit: number): number {
    if (Number.isInteger(unit) && unit >= 0 && unit < this.units) return this.ids.firstUnit + unit
    throw new DataError(`${shown(unit)} is no unit: there are ${this.units}, from 0`, { unit, units: this.units })
  }

  isUnit(id: number): boolean {
    return Number.isInteger(id) && id >= this.ids.firstUnit && id < this.ids.firstUnit + this.units
  }

  /** The units among ids, in their order. */
  unitsOf(ids: Iterable<number | bigint>): number[] {
    const { firstUnit } = this.ids
    const list = listOf<number | bigint>('UsdmTokenizer.unitsOf', 'ids', ids, 'ids')
    return list.flatMap((id) => {
      const number = typeof id === 'bigint' ? Number(id) : id
      return this.isUnit(number) ? [number - firstUnit] : []
    })
  }

  /**
   * The ids of a text, in which special tokens may be spelt, or of pieces one after the other, whose texts are harmless:
   * what a user wrote is never taken for a token of control.
   * @returns the ids, with BOS before them where the tokenizer puts one (unless `addBos` is false)
   * @throws DataError for a unit that is none
   */
  encode(content: string | readonly UsdmPiece[], options: { addBos?: boolean } = {}): number[] {
    requireOptions('UsdmTokenizer.encode', options, ['addBos'])
    const { addBos = true } = options
    if (typeof content === 'string') return plain(this.tokenizer, content, addBos)
    if (!Array.isArray(content)) throw misuse('UsdmTokenizer.encode', 'content', 'a text or a list of pieces', content)
    const { bos } = this.ids
    const start = addBos && bos !== null ? [bos] : []
    if (!this.joinsPieces) return [...start, ...content.flatMap((piece) => this.#pieceIds(piece))]
    // Units of a stretch stand together, so one token marks where they all go: their number costs nothing here.
    const stretches: number[][] = []
    const marker = unitToken(0)
    const text = content.map((piece) => {
      if (typeof piece === 'string') return this.harmless(piece)
      const stretch = this.#pieceIds(piece)
      if (stretch.length === 0) return ''
      stretches.push(stretch)
      return marker
    })
    let next = 0
    return [
      ...start,
      ...plain(this.tokenizer, text.join('')).flatMap((id) =>
        id === this.ids.firstUnit ? (stretches[next++] ?? []) : id,
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
      throw misuse(
        'UsdmTokenizer.encode',
        'a piece',
        `a text, { units } or { token: '${TOKENS.join("' | '")}' }`,
        piece,
      )
    }
    return Array.from(units as ArrayLike<number>, (unit) => this.unitId(unit))
  }

  /** A text of which nothing is a special token: in each that it spells, a space follows the first character. */
  harmless(text: string): string {
    requireString('UsdmTokenizer.harmless', 'text', text)
    return harmlessText(this.tokenizer, text)
  }

  /** The text of ids, special tokens included; spaces stay where they are. @throws ConfigError for what is no id */
  decode(ids: Iterable<number | bigint>): string {
    return this.tokenizer.decode(ids, { cleanUpSpaces: false })
  }

  /** Writes the tokenizer with its tokens, so that `fromPretrained` and transformers read it. @throws DataError */
  saveTo(directory: string): void {
    this.tokenizer.saveTo(directory)
  }
}

/** What a prompt or an example may have of tokens, where the tokenizer's files do not say. */
export const USDM_MAX_LENGTH = 8192
const TOKENS = ['continue', 'correspond', 'eos'] as const

function checkOptions(where: string, options: UsdmTokenizerOptions): void {
  requireOptions(where, options, ['units'])
  if (options.units === undefined) return
  requireWhole(where, 'units', options.units, 1)
  if (options.units > MOST_UNITS) throw misuse(where, 'units', `at most ${MOST_UNITS}`, options.units)
}

const MOST_UNITS = 1_000_000

const plain = (tokenizer: Tokenizer, text: string, addSpecialTokens = false): number[] =>
  tokenizer.encode(text, { addSpecialTokens }).inputIds

/** How many units a tokenizer has: 0 to the first that is missing. */
function unitsOf(tokenizer: Tokenizer): number {
  let count = 0
  while (tokenizer.tokenToId(unitToken(count)) !== undefined) count += 1
  return count
}

/** Whether line breaks are single tokens whatever stands around them. */
function standsAlone(tokenizer: Tokenizer, newline: number): boolean {
  const ids = plain(tokenizer, 'One.\n\n### User\nHello "there!"\n \n)\n')
  const others = ids.filter((id) => id !== newline)
  return ids.length - others.length === 6 && !tokenizer.decode(others).includes('\n')
}
