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

/** What a folder says about transcribing, for the options that a call of `transcribe` leaves out. */
export interface TranscribeDefaults {
  /** A code. */
  language?: string
  task?: 'transcribe' | 'translate'
  logprobThreshold?: number
  noSpeechThreshold?: number
  conditionOnPrevious?: boolean
}

const FILE = 'generation_config.json'

/** Keys that no generation configuration of this library has, and that `Whisper` reads by itself. */
const READ = new Set([
  ...['alignmentHeads', 'decoderStartTokenId', 'forcedDecoderIds', 'isMultilingual', 'langToId', 'language'],
  ...['conditionOnPrevTokens', 'logprobThreshold', 'noSpeechThreshold', 'prevSotTokenId', 'task', 'taskToId'],
])

/** Keys that change how transformers computes or returns a text, and not the text. */
const WITHOUT_EFFECT = new Set([
  ...['transformersVersion', 'FromModelConfig', 'CommitHash', 'OriginalObjectHash', 'returnDictInGenerate'],
  ...['outputAttentions', 'outputHiddenStates', 'useCache', 'cacheImplementation', 'maxCacheLen', 'returnLegacyCache'],
  ...['compileConfig', 'disableCompile', 'isAssistant', 'numAssistantTokensSchedule', 'lowMemory', 'prefillChunkSize'],
  // transformers' Whisper takes these from the arguments of `generate` alone.
  ...['promptConditionType', 'doSample', 'temperature', 'returnTokenTimestamps', 'numReturnSequences'],
])

/** Values that ask for nothing. */
const isOff = (value: unknown): boolean => value === null || value === undefined || value === false

/**
 * Return how the network of a folder generates, and what it transcribes by default: by generation_config.json, or where that
 * is absent by the same keys of config.json, as transformers reads them. Keys that change a text and have no counterpart here
 * are reported by `process.emitWarning`.
 * @throws CheckpointError naming the file for a value that is none of its key
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
  // Some published files have -1 for no token.
  const isSaid = (key: string, value: unknown) => !isOff(value) && !(key.endsWith('TokenId') && value === -1)
  const said = Object.entries(network).filter(([key, value]) => Object.hasOwn(kinds, key) && isSaid(key, value))
  const generation = generationConfig(Object.fromEntries(said), await readGenerationConfig(directory, config))
  // WhisperConfig's own default, where the key is absent.
  if (network.beginSuppressTokens === undefined) {
    const { vocabSize = 51_865 } = config
    generation.beginSuppressTokens = [220, 50_256].filter((id) => id < vocabSize)
  }
  const name = join(directory, 'config.json')
  return { generation, defaults: defaultsOf(name, {}, network.forcedDecoderIds, tokens) }
}

function report(file: string, said: Record<string, unknown>): void {
  const unread = Object.entries(said).flatMap(([key, value]) => {
    // readGenerationConfig reads or refuses what it knows.
    const isKnown = Object.hasOwn(kinds, key) || READ.has(key) || WITHOUT_EFFECT.has(key)
    return isKnown || isOff(value) || NEUTRAL[key] === value ? [] : [snakeCase(key)]
  })
  if (unread.length === 0) return
  process.emitWarning(`${file}: Whisper does not use ${unread.join(', ')}`, 'WhisperWarning')
}

/** Values of other ways to generate that ask for none of them. */
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
  // transformers: forced tokens are an older way to say language and task, which those two replace.
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

/** Language and task of pairs [position, token]; a language of null is to be detected. */
function forcedOf(file: string, forced: unknown, tokens: WhisperTokens): TranscribeDefaults {
  const isPair = (one: unknown): one is [number, number | null] =>
    Array.isArray(one) && one.length === 2 && Number.isInteger(one[0]) && (one[1] === null || Number.isInteger(one[1]))
  if (!Array.isArray(forced) || !forced.every(isPair)) {
    throw new CheckpointError(
      `${file}: forced_decoder_ids: expected pairs [position, token id], got ${shown(forced)}`,
      {
        file,
        field: 'forced_decoder_ids',
      },
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
      `${file}: Whisper reads language and task from forced_decoder_ids, and does not use the tokens ${unread.join(', ')}`,
      'WhisperWarning',
    )
  }
  return defaults
}

/** Return what generation_config.json says of a network, so that transformers generates as `transcribe` does. */
export function whisperGeneration(model: Whisper): Record<string, unknown> {
  const { prefixAllowedTokensFn: _, ...plain } = generationConfig(model.generationConfig)
  const { languages, transcribe, translate, startOfTranscript, startOfPrevious, noTimestamps } = model.tokens
  const { language, task, logprobThreshold, noSpeechThreshold, conditionOnPrevious } = model.transcribeDefaults
  const multilingual = Object.keys(languages).length > 0
  // Without a limit transformers stops after 20 tokens.
  const limit = plain.maxLength == null && plain.maxNewTokens == null && { max_length: positionsOf(model.config) }
  const said = {
    language,
    // Without a task transformers leaves its token out where it detects the language.
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
