import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { shown } from '../base/arguments.js'
import { CheckpointError, ConfigError } from '../base/errors.js'
import { didYouMean, snakeCase, toCamel, toSnake } from '../base/words.js'
import { quoted } from '../files/byte-source.js'
import { readJson, writeJson } from '../files/json/json.js'
import { JsonFloat } from '../files/json/write.js'
import { type GenerationConfig, generationConfig } from './config.js'
import { checkKey, fileKinds, kinds } from './keys.js'

const FILE = 'generation_config.json'

/** Keys of transformers' `GenerationConfig` that ask for what this library does not do, with the values that do not ask. */
const unsupported: Readonly<Record<string, readonly unknown[]>> = {
  assistantEarlyExit: [],
  assistantEnsembleWeight: [],
  constraints: [],
  diversityPenalty: [0],
  dolaLayers: [],
  encoderNoRepeatNgramSize: [0],
  encoderRepetitionPenalty: [1],
  forceWordsIds: [],
  maxTime: [],
  numBeamGroups: [1],
  penaltyAlpha: [0],
  speculationType: [],
  stopStrings: [],
  tokenHealing: [false],
  useMtp: [false],
  watermarkingConfig: [],
}

/** Those that do not change which tokens are generated here: memory, compilation, what `generate` returns, versions. */
const irrelevant: ReadonlySet<string> = new Set([
  'FromModelConfig',
  'assistantLookbehind',
  'cacheConfig',
  'cacheImplementation',
  'compileConfig',
  'continuousBatchingConfig',
  'decoderStartTokenId',
  'disableCompile',
  'isAssistant',
  'lowMemory',
  'maxCacheLen',
  'numAssistantTokensSchedule',
  'outputAttentions',
  'outputHiddenStates',
  'prefillChunkSize',
  'returnDictInGenerate',
  'targetLookbehind',
  'transformersVersion',
  'useCache',
])

/** Keys of other programs' and networks' files, which those read: Whisper's are read by lib/models/whisper. */
const ofNetworks: Readonly<Record<string, readonly string[]>> = {
  whisper: [
    'alignmentHeads',
    'conditionOnPrevTokens',
    'forcedDecoderIds',
    'isMultilingual',
    'langToId',
    'language',
    'logprobThreshold',
    'medianFilterWidth',
    'noSpeechThreshold',
    'prevSotTokenId',
    'task',
    'taskToId',
  ],
}

/** Keys of {@link GenerationConfig} that transformers does not have, and so ignores in a saved file. */
const ours = ['stopSequences', 'allowedTokens', 'allowedSequences', 'outputLogprobs'] as const

/** Most unknown keys that a warning names. */
const NAMED = 8

/**
 * Read how a checkpoint's folder says its network generates: `generation_config.json`, and the special tokens of
 * `config.json` where that file leaves them out. Without the file, all generation keys of `config.json` count, as in
 * transformers. A process warning names the keys of the file that nothing reads.
 *
 * @param network the configuration in `config.json`, with keys in camelCase
 * @throws CheckpointError where the file is no JSON object
 * @throws ConfigError naming file and key, for a value out of range and for what this library does not do
 */
export async function readGenerationConfig(
  directory: string,
  network: Record<string, unknown> = {},
): Promise<GenerationConfig> {
  const file = join(directory, FILE)
  if (!existsSync(file)) return generationConfig(fromNetwork(join(directory, 'config.json'), network))
  const base: Record<string, unknown> = {}
  for (const key of ['bosTokenId', 'eosTokenId', 'padTokenId'] as const) {
    const value = network[key]
    // Some published files have -1 for none.
    if (value !== null && value !== undefined && kinds[key].test(value)) base[key] = value
  }
  const read = await readJson(file)
  if (typeof read !== 'object' || read === null || Array.isArray(read)) {
    throw new CheckpointError(
      `${file}: expected a JSON object, got ${Array.isArray(read) ? 'a list' : String(read)}.`,
      {
        file,
      },
    )
  }
  const known: Record<string, unknown> = {}
  const unknown: string[] = []
  for (const [key, value] of Object.entries(toCamel(read))) {
    if (Object.hasOwn(kinds, key)) {
      if (asks(key, value)) known[key] = checked(file, key, value)
    } else if (Object.hasOwn(unsupported, key)) requireNeutral(file, key, value)
    else if (!irrelevant.has(key) && !ofNetworks[String(network.modelType)]?.includes(key)) unknown.push(snakeCase(key))
  }
  if (unknown.length > 0) report(file, unknown)
  return generationConfig(known as GenerationConfig, base as GenerationConfig)
}

/** The generation keys in a network's own configuration, as files before transformers 4.26 have them. */
function fromNetwork(file: string, network: Record<string, unknown>): GenerationConfig {
  const known: Record<string, unknown> = {}
  for (const [key, value] of Object.entries(network)) {
    // Old files spell out this default of transformers, whose own meaning is 20 new tokens.
    if (key === 'maxLength' && value === 20) continue
    if (Object.hasOwn(kinds, key) && asks(key, value)) known[key] = checked(file, key, value)
    else if (Object.hasOwn(unsupported, key)) requireNeutral(file, key, value)
  }
  return known as GenerationConfig
}

const asks = (key: string, value: unknown): boolean =>
  value !== null && value !== undefined && !(key.endsWith('TokenId') && value === -1)

function checked(file: string, key: string, value: unknown): unknown {
  const kind = Object.hasOwn(fileKinds, key) ? fileKinds[key] : kinds[key as keyof GenerationConfig]
  checkKey(`${file}: `, snakeCase(key), value, kind as (typeof kinds)['topK'])
  return value
}

function requireNeutral(file: string, key: string, value: unknown): void {
  const neutral = unsupported[key] as readonly unknown[]
  if (value === null || value === undefined || neutral.includes(value)) return
  const expected = neutral.length > 0 ? `null or ${String(neutral[0])}` : 'null'
  throw new ConfigError(
    `${file}: ${snakeCase(key)}: expected ${expected}, got ${shown(value)}. This library does not do what it asks for; remove the key.`,
    { file, [key]: value },
  )
}

function report(file: string, keys: readonly string[]): void {
  const candidates = [...Object.keys(kinds), ...Object.keys(unsupported)].map(snakeCase)
  const named = keys
    .slice(0, NAMED)
    .map((key) => (key.length > 60 ? quoted(key) : `${quoted(key)}${didYouMean(key, candidates)}`))
  const more = keys.length > NAMED ? ` and ${keys.length - NAMED} more` : ''
  process.emitWarning(`${file}: ignored keys that are no generation settings: ${named.join(', ')}${more}`, {
    type: 'GenerationWarning',
  })
}

/**
 * Write `generation_config.json`, which transformers reads; nothing where there is nothing to say. A process warning names
 * the settings that transformers does not have.
 */
export async function writeGenerationConfig(directory: string, config: GenerationConfig): Promise<void> {
  const { prefixAllowedTokensFn, ...plain } = config
  const lost = ours.filter((key) => plain[key] !== undefined && plain[key] !== null && plain[key] !== false)
  const names = [...lost, ...(prefixAllowedTokensFn ? ['prefixAllowedTokensFn'] : [])]
  const file = join(directory, FILE)
  if (names.length > 0) {
    process.emitWarning(`${file}: transformers has no ${names.join(', ')}, and generates without`, {
      type: 'GenerationWarning',
    })
  }
  if (Object.keys(plain).length === 0) return
  await writeJson(file, toSnake(withFloats(plain)), { indent: 2 })
}

/** Settings that transformers takes as floats alone: it refuses a `repetition_penalty` of 2. */
const FLOATS: ReadonlySet<string> = new Set([
  ...['temperature', 'topP', 'minP', 'topH', 'typicalP', 'epsilonCutoff', 'etaCutoff', 'repetitionPenalty'],
  ...['lengthPenalty', 'guidanceScale', 'assistantConfidenceThreshold'],
])

function withFloats(config: GenerationConfig): Record<string, unknown> {
  const whole: Record<string, unknown> = Object.fromEntries(
    Object.entries(config).map(([key, value]) => [
      key,
      FLOATS.has(key) && typeof value === 'number' ? new JsonFloat(value) : value,
    ]),
  )
  const { sequenceBias, exponentialDecayLengthPenalty } = config
  if (sequenceBias) whole.sequenceBias = sequenceBias.map(([ids, bias]) => [ids, new JsonFloat(bias)])
  if (exponentialDecayLengthPenalty) {
    const [start, factor] = exponentialDecayLengthPenalty
    whole.exponentialDecayLengthPenalty = [start, new JsonFloat(factor)]
  }
  return whole
}
