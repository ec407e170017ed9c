import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { writeAtomicallySync } from '../base/atomic.js'
import { writeFolderAtomicallySync } from '../base/atomic-folder.js'
import { argumentError, defined, isArrayLike, requireObject, requireOptions, requireString } from '../base/check.js'
import { ConfigError, DataError } from '../base/errors.js'
import { patternOf } from '../base/words.js'
import { readConfig } from './config.js'
import { cleanUpSpaces } from './decoders.js'
import { Fields } from './fields.js'
import { readJson } from './files.js'

export interface CtcTokenizerOptions {
  /** Ids by token; or, for several languages, one such vocabulary per language. */
  vocab: Record<string, number> | Record<string, Record<string, number>>
  /** Language to use of several. Default: the first. */
  targetLang?: string | null
  /** CTC's blank token. Default '<pad>'. */
  padToken?: string
  /** Token for unknown characters. Default '<unk>'. */
  unkToken?: string
  /** Begin-of-sequence token. Default '<s>'. */
  bosToken?: string
  /** End-of-sequence token. Default '</s>'. */
  eosToken?: string
  /** The token between words. Default '|'. */
  wordDelimiterToken?: string
  /** Text that replaces the delimiter when decoding. Default a space. */
  replaceWordDelimiterChar?: string
  /** Whether texts are lower case and the vocabulary is upper case. Default false. */
  doLowerCase?: boolean
  /** Ids of special tokens outside the vocabulary. */
  addedTokens?: Record<string, number>
  /** Whether to remove spaces before punctuation. Default false. */
  cleanUpSpaces?: boolean
}

export interface CtcDecodeOptions {
  /** Whether to merge repeated tokens: true for frame predictions, false for labels. Default true. */
  groupTokens?: boolean
  /** Whether to leave out `<s>`, `</s>` and `<unk>`. Default false. */
  skipSpecialTokens?: boolean
}

/** A piece of text with its frames: `start` is the first, `end` the one after the last. */
export interface CtcOffset {
  text: string
  start: number
  end: number
}

/** A decoded text with the frames of its characters and words. */
export interface CtcText {
  text: string
  chars: CtcOffset[]
  words: CtcOffset[]
}

const defaults = {
  padToken: '<pad>',
  unkToken: '<unk>',
  bosToken: '<s>',
  eosToken: '</s>',
  wordDelimiterToken: '|',
  replaceWordDelimiterChar: ' ',
  doLowerCase: false,
  cleanUpSpaces: false,
}
const KEYS = [...Object.keys(defaults), 'vocab', 'targetLang', 'addedTokens']
const DECODING = ['groupTokens', 'skipSpecialTokens']
const FILE = 'vocab.json'

type Settings = typeof defaults

/** Tokenizer of CTC models: encodes text as characters, and decodes frame predictions. Equal to transformers' Wav2Vec2CTCTokenizer. */
export class CtcTokenizer {
  readonly #settings: Settings
  readonly #vocabularies: Map<string | null, Map<string, number>>
  readonly #added: Map<string, number>
  #targetLang: string | null
  #ids: Map<string, number> = new Map()
  #tokens: Map<number, string> = new Map()
  /** Pattern of tokens of several characters, the longest first. */
  #long: RegExp | undefined

  /** @throws ConfigError for an unknown option or language, or ids that are not integers of at least 0 */
  constructor(options: CtcTokenizerOptions) {
    requireOptions('CtcTokenizer', options, KEYS)
    for (const [key, value] of Object.entries(options)) {
      if (!Object.hasOwn(defaults, key) || value === undefined) continue
      const kind = typeof defaults[key as keyof Settings]
      if (typeof value !== kind) {
        throw argumentError('CtcTokenizer', key, kind === 'string' ? 'a string' : 'true or false', value)
      }
    }
    const { vocab, targetLang = null, addedTokens = {}, ...rest } = options
    requireObject('CtcTokenizer', 'vocab', vocab)
    requireObject('CtcTokenizer', 'addedTokens', addedTokens)
    this.#settings = { ...defaults, ...defined(rest) }
    this.#vocabularies = vocabulariesOf(vocab)
    this.#added = idsOf('addedTokens', addedTokens)
    this.#targetLang = null
    const first = this.#vocabularies.keys().next().value ?? null
    if (targetLang !== null && first === null) this.#refuse(targetLang)
    this.#choose(targetLang ?? first)
  }

  /**
   * Read vocab.json and tokenizer_config.json of a directory.
   * @throws ConfigError without a vocab.json; DataError naming file and entry for an invalid one
   */
  static async fromPretrained(directory: string): Promise<CtcTokenizer> {
    requireString('CtcTokenizer.fromPretrained', 'directory', directory)
    const file = join(directory, FILE)
    if (!existsSync(file)) throw new ConfigError(`${directory}: expected a CTC tokenizer, found no ${FILE}`, { file })
    const vocab = Fields.of(await readJson(file), 'the vocabulary', file).values as CtcTokenizerOptions['vocab']
    const { special, addedTokens, doLowerCase, cleanUpSpaces } = await readConfig(directory)
    const options: CtcTokenizerOptions = { vocab, cleanUpSpaces, doLowerCase: doLowerCase ?? false }
    for (const name of ['pad', 'unk', 'bos', 'eos'] as const) {
      if (special[name] !== undefined) options[`${name}Token`] = special[name]
    }
    const configFile = join(directory, 'tokenizer_config.json')
    if (existsSync(configFile)) {
      const fields = Fields.of(await readJson(configFile), '', configFile)
      const text = (key: string) => (fields.has(key) ? fields.string(key) : undefined)
      // Some versions write the delimiter as a token object.
      const delimiter = fields.get('word_delimiter_token')
      options.wordDelimiterToken =
        typeof delimiter === 'object'
          ? fields.object('word_delimiter_token').string('content')
          : text('word_delimiter_token')
      options.replaceWordDelimiterChar = text('replace_word_delimiter_char')
      options.targetLang = text('target_lang') ?? null
    }
    options.addedTokens = Object.fromEntries(addedTokens.map(([id, { content }]) => [content, id]))
    try {
      return new CtcTokenizer(options)
    } catch (cause) {
      throw new DataError(`${file}: ${(cause as Error).message}`, { file, cause })
    }
  }

  /** The languages of the vocabulary; empty for a vocabulary without languages. */
  get languages(): string[] {
    return [...this.#vocabularies.keys()].filter((name) => name !== null)
  }

  /** The current language; null for a vocabulary without languages. */
  get targetLang(): string | null {
    return this.#targetLang
  }

  /** Set the language. @throws ConfigError for a language that the vocabulary does not have */
  setTargetLang(language: string): void {
    if (!this.#vocabularies.has(language) || language === null) this.#refuse(language)
    this.#choose(language)
  }

  /** Ids by token, of the current language. */
  get vocab(): Record<string, number> {
    return Object.fromEntries(this.#ids)
  }

  /** The highest id + 1. */
  get vocabSize(): number {
    let highest = -1
    for (const id of this.#tokens.keys()) highest = Math.max(highest, id)
    return highest + 1
  }

  /** Id of CTC's blank token. */
  get padTokenId(): number | null {
    return this.#ids.get(this.#settings.padToken) ?? null
  }

  get unkTokenId(): number | null {
    return this.#ids.get(this.#settings.unkToken) ?? null
  }

  /**
   * Encode a text as labels: one token per character, or per token of several characters.
   * @throws DataError for a character outside the vocabulary, if it has no unknown token
   */
  encode(text: string): number[] {
    requireString('CtcTokenizer.encode', 'text', text)
    const { unkToken, wordDelimiterToken, doLowerCase } = this.#settings
    const ids: number[] = []
    for (const piece of this.#pieces(text)) {
      if (typeof piece === 'number') {
        ids.push(piece)
        continue
      }
      for (const character of doLowerCase ? piece.toUpperCase() : piece) {
        const id = this.#ids.get(character === ' ' ? wordDelimiterToken : character) ?? this.#ids.get(unkToken)
        if (id === undefined) {
          const shown = JSON.stringify(character)
          throw new DataError(
            `CtcTokenizer.encode: text: expected characters of the vocabulary, got ${shown}, and the vocabulary lacks ${unkToken} too`,
            { character },
          )
        }
        ids.push(id)
      }
    }
    return ids
  }

  /** Decode frame predictions, or with `groupTokens: false` labels, to text. */
  decode(ids: ArrayLike<number | bigint>, options: CtcDecodeOptions = {}): string {
    return this.decodeWithOffsets(ids, options).text
  }

  /**
   * Decode to text with the frames of its characters and words, as transformers' `output_char_offsets` and `output_word_offsets`:
   * `start` is the first frame, `end` the one after the last. Characters have the case of the text.
   */
  decodeWithOffsets(ids: ArrayLike<number | bigint>, options: CtcDecodeOptions = {}): CtcText {
    const where = 'CtcTokenizer.decode'
    if (!isArrayLike(ids)) throw argumentError(where, 'ids', 'a list of ids', ids)
    requireOptions(where, options, DECODING)
    const { groupTokens = true, skipSpecialTokens = false } = options
    const { padToken, unkToken, bosToken, eosToken, wordDelimiterToken, doLowerCase } = this.#settings
    const delimiter = this.#settings.replaceWordDelimiterChar
    const tokens = Array.from(ids, (id) => this.#tokens.get(Number(id)) ?? unkToken)
    const left = new Set(skipSpecialTokens ? [padToken, unkToken, bosToken, eosToken] : [padToken])
    left.delete(wordDelimiterToken)
    const shown = (token: string) => {
      const text = token === wordDelimiterToken ? delimiter : token
      return doLowerCase ? text.toLowerCase() : text
    }
    const chars = offsetsOf(tokens, groupTokens)
      .filter(({ text }) => !left.has(text))
      .map((offset) => ({ ...offset, text: shown(offset.text) }))
    const joined = chars
      .map(({ text }) => text)
      .join('')
      .trim()
    const text = this.#settings.cleanUpSpaces ? cleanUpSpaces(joined) : joined
    return { text, chars, words: wordsOf(chars, delimiter) }
  }

  /** Write vocab.json and tokenizer_config.json, which transformers' Wav2Vec2CTCTokenizer can read. */
  save(directory: string): void {
    requireString('CtcTokenizer.save', 'directory', directory)
    const { padToken, unkToken, bosToken, eosToken, wordDelimiterToken, ...rest } = this.#settings
    const plain = (vocabulary: Map<string, number>) => Object.fromEntries(vocabulary)
    const only = this.#vocabularies.get(null)
    const vocab = only
      ? plain(only)
      : Object.fromEntries([...this.#vocabularies].map(([name, vocabulary]) => [name, plain(vocabulary)]))
    const vocabulary = this.#vocabularies.get(this.#targetLang)
    const decoder = [...this.#added].map(([content, id]) => {
      const isKnown = vocabulary?.has(content) ?? false
      const flags = { lstrip: isKnown, normalized: false, rstrip: isKnown, single_word: false, special: !isKnown }
      return [id, { content, ...flags }]
    })
    const config = {
      added_tokens_decoder: decoder.length > 0 ? Object.fromEntries(decoder) : undefined,
      bos_token: bosToken,
      clean_up_tokenization_spaces: rest.cleanUpSpaces,
      do_lower_case: rest.doLowerCase,
      eos_token: eosToken,
      pad_token: padToken,
      replace_word_delimiter_char: rest.replaceWordDelimiterChar,
      target_lang: this.#targetLang,
      tokenizer_class: 'Wav2Vec2CTCTokenizer',
      unk_token: unkToken,
      word_delimiter_token: wordDelimiterToken,
    }
    writeFolderAtomicallySync(directory, DataError, (folder) => {
      writeAtomicallySync(join(folder, FILE), DataError, `${JSON.stringify(vocab, null, 2)}\n`)
      writeAtomicallySync(join(folder, 'tokenizer_config.json'), DataError, `${JSON.stringify(config, null, 2)}\n`)
    })
  }

  #choose(language: string | null): void {
    const vocabulary = this.#vocabularies.get(language)
    if (!vocabulary) return this.#refuse(language)
    this.#targetLang = language
    this.#tokens = new Map()
    // The vocabulary of the language has precedence over added tokens.
    this.#ids = new Map([...this.#added, ...vocabulary])
    for (const [token, id] of this.#added) this.#tokens.set(id, token)
    for (const [token, id] of vocabulary) this.#tokens.set(id, token)
    for (const [token, id] of this.#added) if (this.#tokens.get(id) !== token) this.#ids.delete(token)
    const long = [...this.#ids.keys()].filter((token) => [...token].length > 1).sort((a, b) => b.length - a.length)
    this.#long = long.length === 0 ? undefined : new RegExp(long.map(patternOf).join('|'), 'gu')
  }

  #refuse(language: unknown): never {
    const names = this.languages
    const expected = names.length === 0 ? 'null, as the vocabulary has no languages' : names.slice(0, 10).join(', ')
    const more = names.length > 10 ? ` or one of ${names.length - 10} more` : ''
    const got = String(JSON.stringify(language))
    throw new ConfigError(`CtcTokenizer: targetLang: expected ${expected}${more}; got ${got}.`, { language })
  }

  /** Yield the ids of tokens of several characters, and the text between them. */
  *#pieces(text: string): Generator<number | string> {
    const vocabulary = this.#vocabularies.get(this.#targetLang)
    let from = 0
    let trims = false
    for (const { 0: token, index } of this.#long ? text.matchAll(this.#long) : []) {
      // Spaces around a token of the vocabulary belong to it, spaces around an added token do not.
      const isKnown = vocabulary?.has(token) ?? false
      const before = text.slice(from, index)
      const left = trims ? before.trimStart() : before
      yield isKnown ? left.trimEnd() : left
      yield this.#ids.get(token) as number
      from = index + token.length
      trims = isKnown
    }
    const rest = text.slice(from)
    yield trims ? rest.trimStart() : rest
  }
}

function vocabulariesOf(vocab: CtcTokenizerOptions['vocab']): Map<string | null, Map<string, number>> {
  const entries = Object.entries(vocab)
  if (entries.length === 0) throw argumentError('CtcTokenizer', 'vocab', 'an object of ids by token', vocab)
  if (typeof entries[0]?.[1] === 'number') return new Map([[null, idsOf('vocab', vocab)]])
  return new Map(entries.map(([language, inner]) => [language, idsOf(`vocab.${language}`, inner)]))
}

function idsOf(what: string, vocabulary: unknown): Map<string, number> {
  requireObject('CtcTokenizer', what, vocabulary)
  const ids = new Map<string, number>()
  for (const [token, id] of Object.entries(vocabulary as object)) {
    if (!Number.isSafeInteger(id) || id < 0) {
      throw argumentError('CtcTokenizer', `${what}[${JSON.stringify(token)}]`, 'an integer of at least 0', id)
    }
    ids.set(token, id)
  }
  return ids
}

/** Return the runs of equal tokens, or with `group: false` each token. */
function offsetsOf(tokens: readonly string[], group: boolean): CtcOffset[] {
  const offsets: CtcOffset[] = []
  for (const [frame, text] of tokens.entries()) {
    const last = offsets.at(-1)
    if (group && last !== undefined && last.text === text) last.end = frame + 1
    else offsets.push({ text, start: frame, end: frame + 1 })
  }
  return offsets
}

/** Group characters to words at delimiters. */
function wordsOf(chars: readonly CtcOffset[], delimiter: string): CtcOffset[] {
  const words: CtcOffset[] = []
  let inside = false
  for (const { text, start, end } of chars) {
    const last = words.at(-1)
    if (text === delimiter) inside = false
    else if (inside && last) {
      last.text += text
      last.end = end
    } else {
      words.push({ text, start, end })
      inside = true
    }
  }
  return words
}
