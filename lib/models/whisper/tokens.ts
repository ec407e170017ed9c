import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { ConfigError } from '../../base/errors.js'
import { didYouMean } from '../../base/words.js'
import type { Tokenizer } from '../../text/index.js'
import { readConfig } from '../pretrained.js'
import type { WhisperConfig } from './config.js'
import { isCTranslate2 } from './ctranslate2.js'

/** The codes of Whisper's languages with their English names, in the order of their tokens; the last came with large-v3. */
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
 * The ids of Whisper's special tokens. Text is below `endOfText`; timestamps are above `noTimestamps`, 20 ms apart. Tokens that
 * fine-tuning added stand above the timestamps and are text, unless the tokenizer says that they are special.
 */
export interface WhisperTokens {
  endOfText: number
  startOfTranscript: number
  translate: number
  transcribe: number
  startOfPrevious: number
  noSpeech: number
  noTimestamps: number
  /** By code; empty in a network that knows English only. */
  languages: Record<string, number>
}

const TIMESTAMPS = 1501

/** Rows of the published vocabularies that end with the timestamps: English, the first two versions, the third. */
const ENGLISH = 51_864
/** The end of the text in the English vocabulary alone. */
const ENGLISH_END = 50_256
const MULTILINGUAL = 51_865
const THIRD = 51_866

/** Tokens of the published vocabulary that a larger one was made from, where it is larger. */
function publishedSize({ vocabSize = MULTILINGUAL, eosTokenId, numMelBins }: WhisperConfig): number {
  if (endOf(eosTokenId) === ENGLISH_END) return Math.min(vocabSize, ENGLISH)
  return Math.min(vocabSize, numMelBins === 128 ? THIRD : MULTILINGUAL)
}

/** transformers allows several ends; the first is Whisper's. */
const endOf = (eosTokenId: unknown): number => {
  const [first] = [eosTokenId].flat()
  return typeof first === 'number' ? first : ENGLISH_END
}

/** As all published vocabularies are laid out: text, end, start, languages, six more, timestamps. */
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

/** The same where a folder's generation_config.json or tokenizer says it otherwise. */
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

/** By the tokenizer's tokens such as `<|en|>`; a network that knows English only has them too, and no use for them. */
function languagesOf({ endOfText, languages }: WhisperTokens, tokenizer: Tokenizer | null): Record<string, number> {
  if (endOfText === ENGLISH_END || tokenizer === null) return languages
  const found = Object.keys(WHISPER_LANGUAGES).flatMap((code): [string, number][] => {
    const id = tokenizer.tokenToId(`<|${code}|>`)
    return id === undefined ? [] : [[code, id]]
  })
  return found.length > 0 ? Object.fromEntries(found) : languages
}

/** Of the languages, those that `lang_ids` of CTranslate2's config.json lists, where it lists any that there are. */
async function listedLanguages(directory: string, all: Record<string, number>): Promise<Record<string, number>> {
  if (!existsSync(join(directory, 'config.json'))) return all
  const { langIds } = await readConfig(directory)
  if (!Array.isArray(langIds)) return all
  const listed = new Set<unknown>(langIds)
  const found = Object.entries(all).filter(([, id]) => listed.has(id))
  return found.length > 0 ? Object.fromEntries(found) : all
}

/** Whether a token is a part of the text, and whether it is a timestamp; special tokens are neither. */
export interface TokenKinds {
  isText(id: number): boolean
  isTime(id: number): boolean
  /** The id of the last timestamp. */
  last: number
}

/** How tokenizers spell timestamps, such as `<|1.24|>`. */
const TIMESTAMP = /^<\|\d{1,4}\.\d\d\|>$/

/** A `Whisper`, or what it says of its tokens. */
export interface TokenLayout {
  tokens: WhisperTokens
  tokenizer: Tokenizer | null
  config: WhisperConfig
}

/** Whether the tokenizer has a token of this id that is no timestamp. Older tokenizers have no tokens for timestamps. */
function isOtherToken(tokenizer: Tokenizer | null, id: number): boolean {
  const token = tokenizer?.idToToken(id)
  return token !== undefined && !TIMESTAMP.test(token)
}

/** Return the id of the last timestamp. Tokens above it are those that fine-tuning added, or fill the vocabulary up. */
export function lastTimestampOf({ tokens: { noTimestamps }, tokenizer, config }: TokenLayout): number {
  const { vocabSize = MULTILINGUAL, maxSourcePositions = 1500 } = config
  const most = Math.min(vocabSize - 1, noTimestamps + Math.max(TIMESTAMPS, maxSourcePositions + 1))
  for (let id = noTimestamps + 1; id <= most; id += 1) if (isOtherToken(tokenizer, id)) return id - 1
  return most
}

/** Return the kinds of ids by the places of the special tokens, and above the timestamps by what the tokenizer has there. */
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

/** The code of a language that was given by code or English name. */
export function languageCode(tokens: WhisperTokens, language: string): string {
  const wanted = language.toLowerCase()
  const named = Object.entries(WHISPER_LANGUAGES).find(([, name]) => name === wanted)?.[0]
  const code = Object.hasOwn(tokens.languages, wanted) ? wanted : (named ?? OTHER_NAMES[wanted])
  if (code !== undefined && Object.hasOwn(tokens.languages, code)) return code
  const codes = Object.keys(tokens.languages)
  if (codes.length === 0) {
    throw new ConfigError(`this Whisper knows English only: leave out language '${language}'`, { language })
  }
  const hint = didYouMean(wanted, [...codes.map((one) => WHISPER_LANGUAGES[one] ?? one), ...codes])
  throw new ConfigError(`this Whisper has no language '${language}'${hint}`, { language })
}
