import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { shown } from '../../base/arguments.js'
import { CheckpointError } from '../../base/errors.js'
import { snakeCase, toSnake } from '../../base/words.js'
import { type GenerationConfig, generationConfig } from '../../generation/config.js'
import { readGenerationConfig } from '../../generation/files.js'
import { kinds } from '../../generation/keys.js'
import { readConfig } from '../pretrained.js'
import { positionsOf, type WhisperConfig } from './config.js'
import { ctranslate2Generation, isCTranslate2 } from './ctranslate2.js'
import { languageCode, type WhisperTokens } from './tokens.js'
import type { Whisper } from './whisper.js'

/** A folder's defaults for options of `transcribe`. */
export interface TranscribeDefaults {
  /** A language code. */
  language?: string
  task?: 'transcribe' | 'translate'
  logprobThreshold?: number
  noSpeechThreshold?: number
  conditionOnPrevious?: boolean
}

const FILE = 'generation_config.json'

/** Keys that are not part of GenerationConfig, and that `Whisper` uses. */
const READ = new Set([
  ...['alignmentHeads', 'decoderStartTokenId', 'forcedDecoderIds', 'isMultilingual', 'langToId', 'language'],
  ...['conditionOnPrevTokens', 'logprobThreshold', 'noSpeechThreshold', 'prevSotTokenId', 'task', 'taskToId'],
])

/** Keys that change how transformers computes or returns a text, but not the text. */
const WITHOUT_EFFECT = new Set([
  ...['transformersVersion', 'FromModelConfig', 'CommitHash', 'OriginalObjectHash', 'returnDictInGenerate'],
  ...['outputAttentions', 'outputHiddenStates', 'useCache', 'cacheImplementation', 'maxCacheLen', 'returnLegacyCache'],
  ...['compileConfig', 'disableCompile', 'isAssistant', 'numAssistantTokensSchedule', 'lowMemory', 'prefillChunkSize'],
  // transformers' Whisper takes these only from the arguments of `generate`.
  ...['promptConditionType', 'doSample', 'temperature', 'returnTokenTimestamps', 'numReturnSequences'],
])

/** Return whether a value has no effect. */
const isOff = (value: unknown): boolean => value === null || value === undefined || value === false

/**
 * Return the generation settings and transcription defaults of a folder: from generation_config.json, or if it is missing from the same keys
 * of config.json, as in transformers. Unsupported keys that would change the text are reported by `process.emitWarning`.
 * @throws CheckpointError naming the file and the key of an invalid value
 */
export async function readWhisperGeneration(
  directory: string,
  config: WhisperConfig,
  tokens: WhisperTokens,
): Promise<{ generation: GenerationConfig; defaults: TranscribeDefaults }> {
  const file = join(directory, FILE)
  const readBoth = async () => ({
    ...(await readGenerationConfig(directory, config)),
    ...(await ctranslate2Generation(directory)),
  })
  if (existsSync(file)) {
    const said = await readConfig(directory, FILE)
    report(file, said)
    const network = isCTranslate2(directory) ? {} : await readConfig(directory)
    return { generation: await readBoth(), defaults: defaultsOf(file, said, network.forcedDecoderIds, tokens) }
  }
  if (isCTranslate2(directory)) return { generation: await readBoth(), defaults: {} }
  const network = await readConfig(directory)
  // Some published files use -1 for a missing token.
  const isSaid = (key: string, value: unknown) => !isOff(value) && !(key.endsWith('TokenId') && value === -1)
  const said = Object.entries(network).filter(([key, value]) => Object.hasOwn(kinds, key) && isSaid(key, value))
  const generation = generationConfig(Object.fromEntries(said), await readGenerationConfig(directory, config))
  // WhisperConfig's default for a missing key.
  if (network.beginSuppressTokens === undefined) {
    const { vocabSize = 51_865 } = config
    generation.beginSuppressTokens = [220, 50_256].filter((id) => id < vocabSize)
  }
  const name = join(directory, 'config.json')
  return { generation, defaults: defaultsOf(name, {}, network.forcedDecoderIds, tokens) }
}

function report(file: string, said: Record<string, unknown>): void {
  const unread = Object.entries(said).flatMap(([key, value]) => {
    // readGenerationConfig uses or refuses the keys that it supports.
    const isKnown = Object.hasOwn(kinds, key) || READ.has(key) || WITHOUT_EFFECT.has(key)
    return isKnown || isOff(value) || NEUTRAL[key] === value ? [] : [snakeCase(key)]
  })
  if (unread.length === 0) return
  process.emitWarning(`${file}: these keys are not used by Whisper: ${unread.join(', ')}`, 'WhisperWarning')
}

/** Values of unsupported options that have no effect. */
const NEUTRAL: Readonly<Record<string, unknown>> = {
  numBeamGroups: 1,
  diversityPenalty: 0,
  penaltyAlpha: 0,
  encoderRepetitionPenalty: 1,
  encoderNoRepeatNgramSize: 0,
}

function defaultsOf(
  file: string,
  said: Record<string, unknown>,
  forcedByNetwork: unknown,
  tokens: WhisperTokens,
): TranscribeDefaults {
  const bad = (key: string, expected: string, value: unknown): never => {
    throw new CheckpointError(`${file}: ${key}: expected ${expected}, got ${shown(value)}`, { file, field: key })
  }
  const defaults: TranscribeDefaults = {}
  const { language, task, conditionOnPrevTokens } = said
  if (!isOff(language)) {
    if (typeof language !== 'string') bad('language', 'the name or code of one language', language)
    defaults.language = languageOf(file, language as string, tokens)
  }
  if (!isOff(task)) {
    if (task !== 'transcribe' && task !== 'translate') bad('task', "'transcribe' or 'translate'", task)
    defaults.task = task as 'transcribe'
  }
  for (const key of ['logprobThreshold', 'noSpeechThreshold'] as const) {
    const value = said[key]
    if (isOff(value)) continue
    if (typeof value !== 'number') bad(snakeCase(key), 'a number', value)
    defaults[key] = value as number
  }
  if (conditionOnPrevTokens !== undefined && conditionOnPrevTokens !== null) {
    if (typeof conditionOnPrevTokens !== 'boolean')
      bad('condition_on_prev_tokens', 'true or false', conditionOnPrevTokens)
    defaults.conditionOnPrevious = conditionOnPrevTokens as boolean
  }
  const forced = said.forcedDecoderIds ?? forcedByNetwork
  // In transformers, forced tokens are an older form of language and task, which have priority.
  if (isOff(forced) || defaults.language !== undefined || defaults.task !== undefined) return defaults
  return { ...defaults, ...forcedOf(file, forced, tokens) }
}

const languageOf = (file: string, name: string, tokens: WhisperTokens): string => {
  try {
    return languageCode(tokens, name.replace(/^<\|/, '').replace(/\|>$/, ''))
  } catch (cause) {
    throw new CheckpointError(`${file}: language: ${(cause as Error).message}`, { file, field: 'language', cause })
  }
}

/** Return language and task from pairs [position, token]; a language of null is detected. */
function forcedOf(file: string, forced: unknown, tokens: WhisperTokens): TranscribeDefaults {
  const isPair = (one: unknown): one is [number, number | null] =>
    Array.isArray(one) && one.length === 2 && Number.isInteger(one[0]) && (one[1] === null || Number.isInteger(one[1]))
  if (!Array.isArray(forced) || !forced.every(isPair)) {
    throw new CheckpointError(
      `${file}: forced_decoder_ids: expected pairs [position, token id], got ${shown(forced)}`,
      { file, field: 'forced_decoder_ids' },
    )
  }
  const defaults: TranscribeDefaults = {}
  const unread: number[] = []
  for (const [place, id] of forced) {
    if (id === null || id === tokens.noTimestamps) continue
    const language = Object.entries(tokens.languages).find(([, one]) => one === id)?.[0]
    if (place === 1 && language !== undefined) defaults.language = language
    else if (id === tokens.transcribe || id === tokens.translate) {
      defaults.task = id === tokens.translate ? 'translate' : 'transcribe'
    } else unread.push(id)
  }
  if (unread.length > 0) {
    process.emitWarning(
      `${file}: forced_decoder_ids: expected tokens of language and task, got the ids ${unread.join(', ')}, which are ignored`,
      'WhisperWarning',
    )
  }
  return defaults
}

/** Return the contents of generation_config.json for a network, so that transformers generates like `transcribe`. */
export function whisperGeneration(model: Whisper): Record<string, unknown> {
  const { prefixAllowedTokensFn: _, ...plain } = generationConfig(model.generationConfig)
  const { languages, transcribe, translate, startOfTranscript, startOfPrevious, noTimestamps } = model.tokens
  const { language, task, logprobThreshold, noSpeechThreshold, conditionOnPrevious } = model.transcribeDefaults
  const multilingual = Object.keys(languages).length > 0
  // Without a limit, transformers stops after 20 tokens.
  const limit = plain.maxLength == null && plain.maxNewTokens == null && { max_length: positionsOf(model.config) }
  const said = {
    language,
    // Without a task, transformers omits its token if it detects the language.
    task: task ?? (multilingual && transcribe > 0 ? 'transcribe' : undefined),
    ...{ logprobThreshold, noSpeechThreshold, conditionOnPrevTokens: conditionOnPrevious },
  }
  return {
    ...toSnake(plain),
    ...limit,
    ...toSnake(Object.fromEntries(Object.entries(said).filter(([, value]) => value !== undefined))),
    decoder_start_token_id: startOfTranscript,
    // A vocabulary without timestamps has no such tokens.
    ...(startOfPrevious > 0 && { prev_sot_token_id: startOfPrevious, no_timestamps_token_id: noTimestamps }),
    is_multilingual: multilingual,
    alignment_heads: model.alignmentHeads,
    ...(multilingual &&
      transcribe > 0 && {
        lang_to_id: Object.fromEntries(Object.entries(languages).map(([code, id]) => [`<|${code}|>`, id])),
        task_to_id: { transcribe, translate },
      }),
  }
}
