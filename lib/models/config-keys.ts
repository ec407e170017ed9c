import { shown } from '../base/check.js'
import { ConfigError } from '../base/errors.js'
import { camelCase, didYouMean, snakeCase, toCamel, toSnake } from '../base/words.js'
import { isConfiguration } from '../nn/native-module.js'
import type { NetworkConfig } from './network.js'

/** What the configuration of a network may say, by its camelCase keys. */
export interface ConfigKeys {
  /** Each key that a network reads, with the value that it has where the configuration leaves it out. */
  defaults: NetworkConfig | ((config: NetworkConfig) => NetworkConfig)
  /** Keys whose null is a value of its own. Any other null stands for the default. */
  nullable?: readonly string[]
  /** Keys that published files have and for which the network computes these values alone. */
  only?: Readonly<Record<string, readonly unknown[]>>
  /** Keys of the published class that change nothing in this network, neither here nor in the original. */
  unused?: readonly string[]
  /** Keys that hold a configuration, and what that may say. */
  parts?: Readonly<Record<string, ConfigKeys | ((config: NetworkConfig) => ConfigKeys)>>
}

/** Keys of any config.json that describe the file, or what other classes and programs do with it. */
const COMMON: ReadonlySet<string> = new Set([
  ...['architectures', 'autoMap', 'modelType', 'transformersVersion', 'torchDtype', 'dtype', 'tokenizerClass'],
  ...['finetuningTask', 'taskSpecificParams', 'id2label', 'label2id', 'problemType', 'quantizationConfig'],
  ...['useCache', 'returnDict', 'useReturnDict', 'torchscript', 'useBfloat16', 'tfLegacyLoss', 'gradientCheckpointing'],
  // Kernels of one function, and feed-forward layers computed piece by piece, give the same numbers.
  ...[
    'attnImplementation',
    'chunkSizeFeedForward',
    'isEncoderDecoder',
    'tieEncoderDecoder',
    'crossAttentionHiddenSize',
    'tieWordEmbeddings',
  ],
  // What transformers 4 wrote of generation into every config.json.
  ...['maxLength', 'minLength', 'doSample', 'earlyStopping', 'numBeams', 'numBeamGroups', 'diversityPenalty'],
  ...['temperature', 'topK', 'topP', 'typicalP', 'repetitionPenalty', 'lengthPenalty', 'noRepeatNgramSize'],
  ...['encoderNoRepeatNgramSize', 'badWordsIds', 'numReturnSequences', 'forcedBosTokenId', 'forcedEosTokenId'],
  ...['removeInvalidValues', 'exponentialDecayLengthPenalty', 'suppressTokens', 'beginSuppressTokens', 'prefix'],
  ...['returnDictInGenerate', 'bosTokenId', 'eosTokenId', 'padTokenId', 'sepTokenId', 'decoderStartTokenId'],
])

/** Keys of any config.json with the values that a network computes. */
const COMMON_ONLY: Readonly<Record<string, readonly unknown[]>> = {
  isDecoder: [false],
  addCrossAttention: [false],
  prunedHeads: [{}],
}

/** Outputs that transformers gives where the configuration asks for them, and this library where a call does. */
const OUTPUTS = ['outputAttentions', 'outputHiddenStates', 'outputScores']

const valuesOf = (keys: ConfigKeys, key: string): readonly unknown[] | undefined => {
  if (keys.only && Object.hasOwn(keys.only, key)) return keys.only[key]
  return Object.hasOwn(COMMON_ONLY, key) ? COMMON_ONLY[key] : undefined
}

/** Keys that may depend on what the configuration says. */
export const keysOf = <C extends NetworkConfig>(
  keys: ConfigKeys | ((config: C) => ConfigKeys),
  config: C,
): ConfigKeys => (typeof keys === 'function' ? keys(config) : keys)

const defaultsOf = (keys: ConfigKeys, config: NetworkConfig): NetworkConfig =>
  typeof keys.defaults === 'function' ? keys.defaults(config) : keys.defaults

const isRead = (keys: ConfigKeys, defaults: NetworkConfig, key: string): boolean =>
  Object.hasOwn(defaults, key) || (keys.parts !== undefined && Object.hasOwn(keys.parts, key))

/** Keys that change nothing. transformers' own notes begin with an underline, which camelCase has no place for. */
const isUnread = (keys: ConfigKeys, key: string): boolean =>
  COMMON.has(key) || (keys.unused?.includes(key) ?? false) || /^[_A-Z]/.test(key)

/** Whether `value` asks for nothing. */
const isOff = (value: unknown): boolean => value === undefined || value === null || value === false

/**
 * Return the configuration with every key that the network reads.
 * @param where what errors begin with
 * @throws ConfigError for a key that no network of this kind has, naming the nearest one, and for a value that cannot be computed
 */
export function completedConfig<C extends NetworkConfig>(where: string, keys: ConfigKeys, config: C): C {
  // Whoever builds the network says what is wrong with it.
  if (!isConfiguration(config)) return config
  const defaults = defaultsOf(keys, config)
  const whole: NetworkConfig = Object.fromEntries(Object.entries(defaults).map(([key, value]) => [key, copied(value)]))
  for (const [key, value] of Object.entries(config)) {
    if (value === undefined) continue
    if (isRead(keys, defaults, key)) {
      const isDefault = value === null && defaults[key] !== undefined && !keys.nullable?.includes(key)
      if (!isDefault) whole[key] = value
      continue
    }
    if (OUTPUTS.includes(key)) {
      if (isOff(value)) continue
      throw new ConfigError(`${where}: expected ${key} as an input of forward, got it in the configuration`, { key })
    }
    const values = valuesOf(keys, key)
    if (values) requireValue(where, key, value, values)
    else if (!isUnread(keys, key)) throw unknownKey(where, keys, defaults, key)
    whole[key] = value
  }
  for (const [key, part] of Object.entries(keys.parts ?? {})) {
    const value = whole[key]
    if (!isConfiguration(value)) continue
    const inner = toCamel(value)
    whole[key] = completedConfig(`${where}: ${key}`, keysOf(part, inner), inner)
  }
  return withSymbols(whole, config) as C
}

/** The values that readers of files keep under symbols, which no configuration of a user has. */
function withSymbols(copy: NetworkConfig, config: object): NetworkConfig {
  for (const key of Object.getOwnPropertySymbols(config)) Reflect.set(copy, key, Reflect.get(config, key))
  return copy
}

/** Of a list, whose values may be lists; what else is in a configuration is no default. */
const copied = (value: unknown): unknown =>
  Array.isArray(value) ? value.map((one: unknown) => (Array.isArray(one) ? [...(one as unknown[])] : one)) : value

/** Whether a value is one of those that can be computed: they are plain, or an empty object. */
const isSame = (one: unknown, value: unknown): boolean =>
  typeof one === 'object' ? typeof value === 'object' && Object.keys(value ?? {}).length === 0 : one === value

function requireValue(where: string, key: string, value: unknown, values: readonly unknown[]): void {
  if (value === null || values.some((one) => isSame(one, value))) return
  const expected = values.map((one) => JSON.stringify(one)).join(' or ')
  throw new ConfigError(`${where}: expected ${key} ${expected}, got ${shown(value)}; no other value can be computed`, {
    key,
    value,
  })
}

function unknownKey(where: string, keys: ConfigKeys, defaults: NetworkConfig, key: string): ConfigError {
  const known = [...Object.keys(defaults), ...Object.keys(keys.parts ?? {}), ...Object.keys(keys.only ?? {})]
  const short = key.length > LONGEST ? `${key.slice(0, LONGEST)}…` : key
  const near = key.length > LONGEST ? '' : didYouMean(key, known)
  return new ConfigError(`${where}: expected a key of its configuration, got '${short}'${near}`, { key: short })
}

/** No key is so long. */
const LONGEST = 100

/** A file's configuration in two: what a network of this kind takes, and the rest, which `save` writes again. */
export interface PartedConfig<C> {
  known: C
  others: NetworkConfig
}

/**
 * Part a file's configuration, and report the keys that are not read, once for each file, by `process.emitWarning`. Keys
 * that only describe the file are not reported.
 * @param file what the warning names
 */
export function partedConfig<C extends NetworkConfig>(file: string, keys: ConfigKeys, config: C): PartedConfig<C> {
  const unread: string[] = []
  const parted = partedInto(unread, '', keys, config)
  if (unread.length > 0) report(file, unread)
  return parted as PartedConfig<C>
}

function partedInto(unread: string[], path: string, keys: ConfigKeys, config: NetworkConfig) {
  const known: NetworkConfig = {}
  const others: NetworkConfig = {}
  if (!isConfiguration(config)) return { known: config, others }
  const defaults = defaultsOf(keys, toCamel(config))
  for (const [name, value] of Object.entries(config)) {
    const key = camelCase(name)
    const part = keys.parts && Object.hasOwn(keys.parts, key) ? keys.parts[key] : undefined
    if (part && isConfiguration(value)) {
      const inner = partedInto(unread, `${path}${name}.`, keysOf(part, toCamel(value)), value as NetworkConfig)
      known[name] = inner.known
      if (Object.keys(inner.others).length > 0) others[name] = inner.others
    } else if (isRead(keys, defaults, key) || valuesOf(keys, key) || isUnread(keys, key)) {
      known[name] = value
    } else {
      others[name] = value
      const isHarmless = OUTPUTS.includes(key) && isOff(value)
      if (!isHarmless) unread.push(snakeCase(path + name))
    }
  }
  return { known: withSymbols(known, config), others }
}

const MOST_NAMES = 20
const reported = new Set<string>()
const MOST_REPORTS = 10_000

function report(file: string, unread: readonly string[]): void {
  const names = unread.slice(0, MOST_NAMES).map((name) => (name.length > LONGEST ? `${name.slice(0, LONGEST)}…` : name))
  const more = unread.length > MOST_NAMES ? ` and ${unread.length - MOST_NAMES} more` : ''
  const message = `${file}: these keys are not read: ${names.join(', ')}${more}. The network is built without them.`
  if (reported.has(message) || reported.size >= MOST_REPORTS) return
  reported.add(message)
  process.emitWarning(message, { type: 'ConfigWarning', code: 'VOXTORCH_CONFIG_KEYS' })
}

const kept = new WeakMap<object, NetworkConfig>()

/** Remember what a network's file says beside what the network reads. */
export function keepOthers(network: object, others: NetworkConfig): void {
  if (Object.keys(others).length > 0) kept.set(network, others)
}

/** The configuration to save, with what the file that the network is from says beside it. */
export function withOthers(network: object, config: NetworkConfig): NetworkConfig {
  return merged(kept.get(network) ?? {}, config)
}

function merged(others: NetworkConfig, config: NetworkConfig): NetworkConfig {
  const whole: NetworkConfig = { ...others, ...config }
  for (const [key, value] of Object.entries(others)) {
    const own = config[key]
    // What is inside is as files have it.
    if (isConfiguration(value) && isConfiguration(own)) whole[key] = merged(toSnake(value), own as NetworkConfig)
  }
  return whole
}
