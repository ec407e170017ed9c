import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { shown } from '../base/arguments.js'
import { finalPath, writeFolderAtomically } from '../base/atomic-folder.js'
import { CheckpointError, ConfigError, DataError } from '../base/errors.js'
import { didYouMean, snakeCase, toCamel, toSnake } from '../base/words.js'
import { quoted } from '../files/byte-source.js'
import { readJson, writeJson } from '../files/json/json.js'
import { JsonFloat } from '../files/json/write.js'
import { type GenerationConfig, generationConfig } from './config.js'
import { checkKey, fileKinds, kinds } from './keys.js'

const FILE = 'generation_config.json'

/** Unsupported keys of transformers' `GenerationConfig`, with the values that have no effect. */
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

/** Keys that do not affect the generated tokens: memory, compilation, return values of `generate`, versions. */
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

/** Keys that a network's own code reads, such as lib/models/whisper. */
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

/** Keys of {@link GenerationConfig} that transformers lacks, and so ignores in a saved file. */
const ours = ['stopSequences', 'allowedTokens', 'allowedSequences', 'outputLogprobs'] as const

/** Maximum number of unknown keys in a warning. */
const NAMED = 8

/**
 * Read the generation settings of a checkpoint's folder: `generation_config.json`, and the special tokens of `config.json` if that file lacks
 * them. Without the file, all generation keys of `config.json` count, as in transformers. A process warning names unknown keys of the
 * file.
 *
 * @param network the configuration in `config.json`, with keys in camelCase
 * @throws CheckpointError if the file is not a JSON object
 * @throws ConfigError naming file and key, for a value out of range and for an unsupported setting
 */
export async function readGenerationConfig(
  directory: string,
  network: Record<string, unknown> = {},
): Promise<GenerationConfig> {
  const file = join(directory, FILE)
  if (!existsSync(file)) return generationConfig(fromNetwork(join(directory, 'config.json'), network))
  const base = specialTokens(network)
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
  return generationConfig(known as GenerationConfig, base)
}

/** Return the special tokens of a network's configuration: the generation settings of one without files. */
export function specialTokens(network: Readonly<Record<string, unknown>>): GenerationConfig {
  const found: Record<string, unknown> = {}
  for (const key of ['bosTokenId', 'eosTokenId', 'padTokenId'] as const) {
    const value = network[key]
    // Some published files use -1 for none.
    if (value !== null && value !== undefined && kinds[key].test(value)) found[key] = value
  }
  return found as GenerationConfig
}

/** Read generation keys from a network's configuration, as in files before transformers 4.26. */
function fromNetwork(file: string, network: Record<string, unknown>): GenerationConfig {
  const known: Record<string, unknown> = {}
  for (const [key, value] of Object.entries(network)) {
    // Old files contain this default of transformers, which means 20 new tokens.
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
    `${file}: ${snakeCase(key)}: expected ${expected}, got ${shown(value)}. voxtorch does not support it; remove the key.`,
    { file, [key]: value },
  )
}

function report(file: string, keys: readonly string[]): void {
  const candidates = [...Object.keys(kinds), ...Object.keys(unsupported)].map(snakeCase)
  const named = keys
    .slice(0, NAMED)
    .map((key) => (key.length > 60 ? quoted(key) : `${quoted(key)}${didYouMean(key, candidates)}`))
  const more = keys.length > NAMED ? ` and ${keys.length - NAMED} more` : ''
  process.emitWarning(`${file}: ignored unknown keys: ${named.join(', ')}${more}`, {
    type: 'GenerationWarning',
  })
}

/**
 * Write `generation_config.json`, which transformers reads. Without any settings no file is written, and an older one is removed. A process warning names settings that
 * transformers lacks.
 */
export async function writeGenerationConfig(directory: string, config: GenerationConfig): Promise<void> {
  const { prefixAllowedTokensFn, ...plain } = config
  const lost = ours.filter((key) => plain[key] !== undefined && plain[key] !== null && plain[key] !== false)
  const names = [...lost, ...(prefixAllowedTokensFn ? ['prefixAllowedTokensFn'] : [])]
  if (names.length > 0) {
    process.emitWarning(
      `${join(finalPath(directory), FILE)}: transformers does not support ${names.join(', ')}, and ignores these settings`,
      {
        type: 'GenerationWarning',
      },
    )
  }
  const save = async (folder: string) => {
    if (Object.keys(plain).length > 0) await writeJson(join(folder, FILE), toSnake(withFloats(plain)), { indent: 2 })
  }
  await writeFolderAtomically(directory, DataError, save, () => [FILE])
}

/** Settings that must be floats in transformers' files: it rejects a `repetition_penalty` of 2. */
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
