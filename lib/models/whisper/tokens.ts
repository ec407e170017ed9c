import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { ConfigError } from '../../base/errors.js'
import { nearest } from '../../base/words.js'
import type { Tokenizer } from '../../text/index.js'
import { readConfig } from '../pretrained.js'
import type { WhisperConfig } from './config.js'
import { isCTranslate2 } from './ctranslate2.js'

/** The codes of Whisper's languages with their English names, in the order of their tokens; the last one was added in large-v3. */
export const WHISPER_LANGUAGES: Readonly<Record<string, string>> = Object.fromEntries(
  `en:english zh:chinese de:german es:spanish ru:russian ko:korean fr:french ja:japanese pt:portuguese tr:turkish pl:polish
  ca:catalan nl:dutch ar:arabic sv:swedish it:italian id:indonesian hi:hindi fi:finnish vi:vietnamese he:hebrew
  uk:ukrainian el:greek ms:malay cs:czech ro:romanian da:danish hu:hungarian ta:tamil no:norwegian th:thai ur:urdu
  hr:croatian bg:bulgarian lt:lithuanian la:latin mi:maori ml:malayalam cy:welsh sk:slovak te:telugu fa:persian lv:latvian
  bn:bengali sr:serbian az:azerbaijani sl:slovenian kn:kannada et:estonian mk:macedonian br:breton eu:basque is:icelandic
  hy:armenian ne:nepali mn:mongolian bs:bosnian kk:kazakh sq:albanian sw:swahili gl:galician mr:marathi pa:punjabi
  si:sinhala km:khmer sn:shona yo:yoruba so:somali af:afrikaans oc:occitan ka:georgian be:belarusian tg:tajik sd:sindhi
  gu:gujarati am:amharic yi:yiddish lo:lao uz:uzbek fo:faroese ht:haitian_creole ps:pashto tk:turkmen nn:nynorsk
  mt:maltese sa:sanskrit lb:luxembourgish my:myanmar bo:tibetan tl:tagalog mg:malagasy as:assamese tt:tatar haw:hawaiian
  ln:lingala ha:hausa ba:bashkir jw:javanese su:sundanese yue:cantonese`
    .split(/\s+/)
    .map((entry) => entry.replace('_', ' ').split(':') as [string, string]),
)

const OTHER_NAMES: Record<string, string> = {
  burmese: 'my',
  valencian: 'ca',
  flemish: 'nl',
  haitian: 'ht',
  letzeburgesch: 'lb',
  pushto: 'ps',
  panjabi: 'pa',
  moldavian: 'ro',
  moldovan: 'ro',
  sinhalese: 'si',
  castilian: 'es',
  mandarin: 'zh',
}

/**
 * The ids of Whisper's special tokens. Text tokens are below `endOfText`; timestamps are above `noTimestamps`, 20 ms apart. Tokens added by
 * fine-tuning are above the timestamps, and are text unless the tokenizer marks them as special.
 */
export interface WhisperTokens {
  endOfText: number
  startOfTranscript: number
  translate: number
  transcribe: number
  startOfPrevious: number
  noSpeech: number
  noTimestamps: number
  /** By code; empty for an English-only model. */
  languages: Record<string, number>
}

const TIMESTAMPS = 1501

/** Sizes of the published vocabularies, which end with the timestamps: English, versions 1 and 2, version 3. */
const ENGLISH = 51_864
/** Id of the end-of-text token in the English-only vocabulary. */
const ENGLISH_END = 50_256
const MULTILINGUAL = 51_865
const THIRD = 51_866

/** Return the size of the published vocabulary that a larger one extends. */
function publishedSize({ vocabSize = MULTILINGUAL, eosTokenId, numMelBins }: WhisperConfig): number {
  if (endOf(eosTokenId) === ENGLISH_END) return Math.min(vocabSize, ENGLISH)
  return Math.min(vocabSize, numMelBins === 128 ? THIRD : MULTILINGUAL)
}

/** Return Whisper's end-of-text token: transformers allows a list, and it is the first. */
const endOf = (eosTokenId: unknown): number => {
  const [first] = [eosTokenId].flat()
  return typeof first === 'number' ? first : ENGLISH_END
}

/** Return the ids in the layout of all published vocabularies: text, end, start, languages, six more, timestamps. */
export function tokensOf(config: WhisperConfig): WhisperTokens {
  const { eosTokenId, decoderStartTokenId = 50257 } = config
  const endOfText = endOf(eosTokenId)
  const noTimestamps = publishedSize(config) - TIMESTAMPS - 1
  const count = noTimestamps - 6 - decoderStartTokenId
  const codes = Object.keys(WHISPER_LANGUAGES).slice(0, Math.max(0, count))
  const isMultilingual = endOfText !== ENGLISH_END
  return {
    endOfText,
    startOfTranscript: decoderStartTokenId,
    translate: noTimestamps - 5,
    transcribe: noTimestamps - 4,
    startOfPrevious: noTimestamps - 2,
    noSpeech: noTimestamps - 1,
    noTimestamps,
    languages: isMultilingual ? Object.fromEntries(codes.map((code, i) => [code, decoderStartTokenId + 1 + i])) : {},
  }
}

/** Return the ids with the overrides of a folder's generation_config.json or tokenizer. */
export async function readTokens(
  directory: string,
  config: WhisperConfig,
  tokenizer: Tokenizer | null,
): Promise<WhisperTokens> {
  const usual = tokensOf(config)
  const has = existsSync(join(directory, 'generation_config.json'))
  const said = has ? await readConfig(directory, 'generation_config.json') : {}
  const id = (key: string, ...names: string[]): number | undefined => {
    if (typeof said[key] === 'number') return said[key]
    return names.map((name) => tokenizer?.tokenToId(name)).find((found) => found !== undefined)
  }
  const tasks = (said.taskToId ?? {}) as Record<string, number>
  const given = said.langToId as Record<string, number> | undefined
  const noTimestamps = id('noTimestampsTokenId', '<|notimestamps|>') ?? usual.noTimestamps
  const named = given
    ? Object.fromEntries(Object.entries(given).map(([name, value]) => [name.replace(/^<\||\|>$/g, ''), value]))
    : languagesOf(usual, tokenizer)
  const languages = isCTranslate2(directory) ? await listedLanguages(directory, named) : named
  const end = [said.eosTokenId ?? usual.endOfText].flat()[0]
  return {
    endOfText: typeof end === 'number' && end >= 0 ? end : usual.endOfText,
    startOfTranscript: id('decoderStartTokenId') ?? usual.startOfTranscript,
    translate: tasks.translate ?? id('', '<|translate|>') ?? noTimestamps - 5,
    transcribe: tasks.transcribe ?? id('', '<|transcribe|>') ?? noTimestamps - 4,
    startOfPrevious: id('prevSotTokenId', '<|startofprev|>') ?? noTimestamps - 2,
    noSpeech: id('', '<|nospeech|>', '<|nocaptions|>') ?? noTimestamps - 1,
    noTimestamps,
    languages: said.isMultilingual === false ? {} : languages,
  }
}

/** Return the languages from the tokenizer's tokens, such as `<|en|>`. English-only models have them too, but do not use them. */
function languagesOf({ endOfText, languages }: WhisperTokens, tokenizer: Tokenizer | null): Record<string, number> {
  if (endOfText === ENGLISH_END || tokenizer === null) return languages
  const found = Object.keys(WHISPER_LANGUAGES).flatMap((code): [string, number][] => {
    const id = tokenizer.tokenToId(`<|${code}|>`)
    return id === undefined ? [] : [[code, id]]
  })
  return found.length > 0 ? Object.fromEntries(found) : languages
}

/** Return the languages in `lang_ids` of CTranslate2's config.json, or all if it lists none of them. */
async function listedLanguages(directory: string, all: Record<string, number>): Promise<Record<string, number>> {
  if (!existsSync(join(directory, 'config.json'))) return all
  const { langIds } = await readConfig(directory)
  if (!Array.isArray(langIds)) return all
  const listed = new Set<unknown>(langIds)
  const found = Object.entries(all).filter(([, id]) => listed.has(id))
  return found.length > 0 ? Object.fromEntries(found) : all
}

/** Tells text tokens and timestamps apart; special tokens are neither. */
export interface TokenKinds {
  isText(id: number): boolean
  isTime(id: number): boolean
  /** The id of the last timestamp. */
  last: number
}

/** Form of timestamp tokens in tokenizers, such as `<|1.24|>`. */
const TIMESTAMP = /^<\|\d{1,4}\.\d\d\|>$/

/** A `Whisper`, or its tokens, tokenizer and configuration. */
export interface TokenLayout {
  tokens: WhisperTokens
  tokenizer: Tokenizer | null
  config: WhisperConfig
}

/** Return whether the tokenizer has a token with this id that is not a timestamp. Older tokenizers have no timestamp tokens. */
function isOtherToken(tokenizer: Tokenizer | null, id: number): boolean {
  const token = tokenizer?.idToToken(id)
  return token !== undefined && !TIMESTAMP.test(token)
}

/** Return the id of the last timestamp. Tokens above it were added by fine-tuning, or pad the vocabulary. */
export function lastTimestampOf({ tokens: { noTimestamps }, tokenizer, config }: TokenLayout): number {
  const { vocabSize = MULTILINGUAL, maxSourcePositions = 1500 } = config
  const most = Math.min(vocabSize - 1, noTimestamps + Math.max(TIMESTAMPS, maxSourcePositions + 1))
  for (let id = noTimestamps + 1; id <= most; id += 1) if (isOtherToken(tokenizer, id)) return id - 1
  return most
}

/** Return the kinds of ids from the special tokens, and above the timestamps from the tokenizer. */
export function tokenKinds(layout: TokenLayout): TokenKinds {
  const { tokens, tokenizer } = layout
  const { endOfText, noTimestamps } = tokens
  const last = lastTimestampOf(layout)
  return {
    isText: (id) => id < endOfText || (id > last && isOtherToken(tokenizer, id) && !tokenizer?.isSpecial(id)),
    isTime: (id) => id > noTimestamps && id <= last,
    last,
  }
}

/** Return the code of a language, given by code or English name. */
export function languageCode(tokens: WhisperTokens, language: string): string {
  const wanted = language.toLowerCase()
  const named = Object.entries(WHISPER_LANGUAGES).find(([, name]) => name === wanted)?.[0]
  const code = Object.hasOwn(tokens.languages, wanted) ? wanted : (named ?? OTHER_NAMES[wanted])
  if (code !== undefined && Object.hasOwn(tokens.languages, code)) return code
  const codes = Object.keys(tokens.languages)
  if (codes.length === 0) {
    throw new ConfigError(`language: expected none for an English-only Whisper, got '${language}'. Leave it out.`, {
      language,
    })
  }
  const names = codes.map((one) => WHISPER_LANGUAGES[one] ?? one)
  const near = nearest(wanted, [...names, ...codes], Math.max(1, Math.floor(wanted.length / 3)))
  const hint = near === undefined ? ` It supports ${codes.join(', ')}.` : ` Did you mean '${near}'?`
  throw new ConfigError(`language: expected a language of this Whisper, got '${language}'.${hint}`, { language })
}
