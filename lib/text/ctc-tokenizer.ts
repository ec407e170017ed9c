import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { makeDirectory, writeAtomicallySync } from '../base/atomic.js'
import { isArrayLike, misuse, requireObject, requireOptions, requireString } from '../base/check.js'
import { ConfigError, DataError } from '../base/errors.js'
import { patternOf } from '../base/words.js'
import { readConfig } from './config.js'
import { cleanUpSpaces } from './decoders.js'
import { Fields } from './fields.js'
import { readJson } from './files.js'

export interface CtcTokenizerOptions {
  /** Ids by token; or, for several languages, such a vocabulary by language. */
  vocab: Record<string, number> | Record<string, Record<string, number>>
  /** Which of several languages; default the first. */
  targetLang?: string | null
  /** CTC's blank, which stands in no text. Default '<pad>'. */
  padToken?: string
  /** What stands for characters that the vocabulary lacks. Default '<unk>'. */
  unkToken?: string
  /** Default '<s>'. */
  bosToken?: string
  /** Default '</s>'. */
  eosToken?: string
  /** The token between words. Default '|'. */
  wordDelimiterToken?: string
  /** What a text has in its place. Default a space. */
  replaceWordDelimiterChar?: string
  /** The vocabulary is upper case and the texts are lower case. Default false. */
  doLowerCase?: boolean
  /** Ids of special tokens that the vocabulary lacks. */
  addedTokens?: Record<string, number>
  /** Removes the spaces before punctuation. Default false. */
  cleanUpSpaces?: boolean
}

export interface CtcDecodeOptions {
  /** Whether equal neighbours are one token: true for what a network's frames say, false for labels. Default true. */
  groupTokens?: boolean
  /** Leaves `<s>`, `</s>` and `<unk>` out. Default false. */
  skipSpecialTokens?: boolean
}

/** What stands where: `start` is the first frame and `end` the one behind the last. */
export interface CtcOffset {
  text: string
  start: number
  end: number
}

/** A text and what stands where in the frames. */
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

/** Characters, or what a network's frames say, and texts: transformers' Wav2Vec2CTCTokenizer, with its files. */
export class CtcTokenizer {
  readonly #settings: Settings
  readonly #vocabularies: Map<string | null, Map<string, number>>
  readonly #added: Map<string, number>
  #targetLang: string | null
  #ids: Map<string, number> = new Map()
  #tokens: Map<number, string> = new Map()
  /** Finds tokens of several characters, the longest first. */
  #long: RegExp | undefined

  /** @throws ConfigError for an unknown option, a language that there is none of, or ids that are no whole numbers */
  constructor(options: CtcTokenizerOptions) {
    requireOptions('CtcTokenizer', options, KEYS)
    for (const [key, value] of Object.entries(options)) {
      if (!Object.hasOwn(defaults, key) || value === undefined) continue
      const kind = typeof defaults[key as keyof Settings]
      if (typeof value !== kind) {
        throw misuse('CtcTokenizer', key, kind === 'string' ? 'a string' : 'true or false', value)
      }
    }
    const { vocab, targetLang = null, addedTokens = {}, ...rest } = options
    requireObject('CtcTokenizer', 'vocab', vocab)
    requireObject('CtcTokenizer', 'addedTokens', addedTokens)
    const given = Object.fromEntries(Object.entries(rest).filter(([, value]) => value !== undefined))
    this.#settings = { ...defaults, ...given }
    this.#vocabularies = vocabulariesOf(vocab)
    this.#added = idsOf('addedTokens', addedTokens)
    this.#targetLang = null
    const first = this.#vocabularies.keys().next().value ?? null
    if (targetLang !== null && first === null) this.#refuse(targetLang)
    this.#choose(targetLang ?? first)
  }

  /**
   * Reads vocab.json and tokenizer_config.json of a directory.
   * @throws ConfigError where there is no vocab.json; DataError naming file and entry for one that is broken
   */
  static async fromPretrained(directory: string): Promise<CtcTokenizer> {
    requireString('CtcTokenizer.fromPretrained', 'directory', directory)
    const file = join(directory, FILE)
    if (!existsSync(file)) throw new ConfigError(`${directory} holds no CTC tokenizer: there is no ${FILE}`, { file })
    const vocab = Fields.of(await readJson(file), 'the vocabulary', file).values as CtcTokenizerOptions['vocab']
    const { special, addedTokens, doLowerCase, cleanUpSpaces } = await readConfig(directory)
    const options: CtcTokenizerOptions = { vocab, cleanUpSpaces, doLowerCase: doLowerCase ?? false }
    for (const name of ['pad', 'unk', 'bos', 'eos'] as const) {
      if (special[name] !== undefined) options[`${name}Token`] = special[name]
    }
    const own = join(directory, 'tokenizer_config.json')
    if (existsSync(own)) {
      const fields = Fields.of(await readJson(own), '', own)
      const text = (key: string) => (fields.has(key) ? fields.string(key) : undefined)
      // The delimiter is written as a token of its own by some versions.
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

  /** The languages of the vocabulary; empty where it has but one. */
  get languages(): string[] {
    return [...this.#vocabularies.keys()].filter((name) => name !== null)
  }

  /** The language that texts are of; null for a vocabulary of one. */
  get targetLang(): string | null {
    return this.#targetLang
  }

  /** @throws ConfigError for a language that the vocabulary lacks */
  setTargetLang(language: string): void {
    if (!this.#vocabularies.has(language) || language === null) this.#refuse(language)
    this.#choose(language)
  }

  /** Ids by token, of the language that was chosen. */
  get vocab(): Record<string, number> {
    return Object.fromEntries(this.#ids)
  }

  /** One above the highest id. */
  get vocabSize(): number {
    let highest = -1
    for (const id of this.#tokens.keys()) highest = Math.max(highest, id)
    return highest + 1
  }

  /** CTC's blank. */
  get padTokenId(): number | null {
    return this.#ids.get(this.#settings.padToken) ?? null
  }

  get unkTokenId(): number | null {
    return this.#ids.get(this.#settings.unkToken) ?? null
  }

  /**
   * A text's labels, a token for each character but for tokens of several.
   * @throws DataError for a character that the vocabulary lacks, where it has no unknown token either
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
          throw new DataError(`CtcTokenizer.encode: the vocabulary has neither ${shown} nor ${unkToken}`, { character })
        }
        ids.push(id)
      }
    }
    return ids
  }

  /** The text of a network's frames, or with `groupTokens: false` of labels. */
  decode(ids: ArrayLike<number | bigint>, options: CtcDecodeOptions = {}): string {
    return this.decodeWithOffsets(ids, options).text
  }

  /**
   * The same with where its characters and words stand: `start` is the first frame and `end` the one behind the last, as
   * transformers' `output_char_offsets` and `output_word_offsets`. Characters have the case of the text.
   */
  decodeWithOffsets(ids: ArrayLike<number | bigint>, options: CtcDecodeOptions = {}): CtcText {
    const where = 'CtcTokenizer.decode'
    if (!isArrayLike(ids)) throw misuse(where, 'ids', 'a list of ids', ids)
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

  /** Writes vocab.json and tokenizer_config.json, which transformers' Wav2Vec2CTCTokenizer reads. */
  save(directory: string): void {
    requireString('CtcTokenizer.save', 'directory', directory)
    makeDirectory(directory, DataError)
    const { padToken, unkToken, bosToken, eosToken, wordDelimiterToken, ...rest } = this.#settings
    const plain = (vocabulary: Map<string, number>) => Object.fromEntries(vocabulary)
    const only = this.#vocabularies.get(null)
    const vocab = only
      ? plain(only)
      : Object.fromEntries([...this.#vocabularies].map(([name, vocabulary]) => [name, plain(vocabulary)]))
    const own = this.#vocabularies.get(this.#targetLang)
    const decoder = [...this.#added].map(([content, id]) => {
      const isOwn = own?.has(content) ?? false
      const flags = { lstrip: isOwn, normalized: false, rstrip: isOwn, single_word: false, special: !isOwn }
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
    writeAtomicallySync(join(directory, FILE), DataError, `${JSON.stringify(vocab, null, 2)}\n`)
    writeAtomicallySync(join(directory, 'tokenizer_config.json'), DataError, `${JSON.stringify(config, null, 2)}\n`)
  }

  #choose(language: string | null): void {
    const vocabulary = this.#vocabularies.get(language)
    if (!vocabulary) return this.#refuse(language)
    this.#targetLang = language
    this.#tokens = new Map()
    // What the language's own vocabulary has goes first.
    this.#ids = new Map([...this.#added, ...vocabulary])
    for (const [token, id] of this.#added) this.#tokens.set(id, token)
    for (const [token, id] of vocabulary) this.#tokens.set(id, token)
    for (const [token, id] of this.#added) if (this.#tokens.get(id) !== token) this.#ids.delete(token)
    const long = [...this.#ids.keys()].filter((token) => [...token].length > 1).sort((a, b) => b.length - a.length)
    this.#long = long.length === 0 ? undefined : new RegExp(long.map(patternOf).join('|'), 'gu')
  }

  #refuse(language: unknown): never {
    const names = this.languages
    const there =
      names.length === 0 ? 'the vocabulary is of one language' : `there are ${names.slice(0, 10).join(', ')}`
    const more = names.length > 10 ? ` and ${names.length - 10} more` : ''
    throw new ConfigError(`CtcTokenizer has no language ${String(JSON.stringify(language))}: ${there}${more}`, {
      language,
    })
  }

  /** Tokens of several characters as ids, and the text between them. */
  *#pieces(text: string): Generator<number | string> {
    const vocabulary = this.#vocabularies.get(this.#targetLang)
    let from = 0
    let trims = false
    for (const { 0: token, index } of this.#long ? text.matchAll(this.#long) : []) {
      // The spaces around a token of several letters are its own, but not those around a token that was added.
      const isOwn = vocabulary?.has(token) ?? false
      const before = text.slice(from, index)
      const left = trims ? before.trimStart() : before
      yield isOwn ? left.trimEnd() : left
      yield this.#ids.get(token) as number
      from = index + token.length
      trims = isOwn
    }
    const rest = text.slice(from)
    yield trims ? rest.trimStart() : rest
  }
}

function vocabulariesOf(vocab: CtcTokenizerOptions['vocab']): Map<string | null, Map<string, number>> {
  const entries = Object.entries(vocab)
  if (entries.length === 0) throw misuse('CtcTokenizer', 'vocab', 'an object of ids by token', vocab)
  if (typeof entries[0]?.[1] === 'number') return new Map([[null, idsOf('vocab', vocab)]])
  return new Map(entries.map(([language, inner]) => [language, idsOf(`vocab.${language}`, inner)]))
}

function idsOf(what: string, given: unknown): Map<string, number> {
  requireObject('CtcTokenizer', what, given)
  const ids = new Map<string, number>()
  for (const [token, id] of Object.entries(given as object)) {
    if (!Number.isSafeInteger(id) || id < 0) {
      throw misuse('CtcTokenizer', `${what}[${JSON.stringify(token)}]`, 'an integer of at least 0', id)
    }
    ids.set(token, id)
  }
  return ids
}

/** The runs of equal tokens, or with `group: false` each token by itself. */
function offsetsOf(tokens: readonly string[], group: boolean): CtcOffset[] {
  const offsets: CtcOffset[] = []
  for (const [frame, text] of tokens.entries()) {
    const last = offsets.at(-1)
    if (group && last !== undefined && last.text === text) last.end = frame + 1
    else offsets.push({ text, start: frame, end: frame + 1 })
  }
  return offsets
}

/** Neighbours without a delimiter between them are a word. */
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
