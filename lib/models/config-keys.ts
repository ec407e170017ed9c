import { shown } from '../base/check.js'
import { ConfigError } from '../base/errors.js'
import { camelCase, didYouMean, snakeCase, toCamel, toSnake } from '../base/words.js'
import { isConfiguration } from '../nn/native-module.js'
import type { NetworkConfig } from './network.js'

/** The keys that a network's configuration may have, in camelCase. */
export interface ConfigKeys {
  /** Keys that the network reads, with their default values. */
  defaults: NetworkConfig | ((config: NetworkConfig) => NetworkConfig)
  /** Keys for which null is a value. For other keys, null means the default. */
  nullable?: readonly string[]
  /** Keys of published files for which the network supports only these values, and of other activations than usual. */
  only?: Readonly<Record<string, readonly unknown[]>>
  /** Keys of the published class that have no effect, neither here nor in the original. */
  unused?: readonly string[]
  /** Keys whose value is a configuration, with the keys of that. */
  parts?: Readonly<Record<string, ConfigKeys | ((config: NetworkConfig) => ConfigKeys)>>
}

/** Keys of any config.json that describe the file, or that only other classes and programs read. */
const COMMON: ReadonlySet<string> = new Set([
  ...['architectures', 'autoMap', 'modelType', 'transformersVersion', 'torchDtype', 'dtype', 'tokenizerClass'],
  ...['finetuningTask', 'taskSpecificParams', 'id2label', 'label2id', 'problemType', 'quantizationConfig'],
  ...['useCache', 'returnDict', 'useReturnDict', 'torchscript', 'useBfloat16', 'tfLegacyLoss', 'gradientCheckpointing'],
  // Attention implementations, and feed-forward layers in chunks, give the same numbers.
  ...[
    'attnImplementation',
    'chunkSizeFeedForward',
    'isEncoderDecoder',
    'tieEncoderDecoder',
    'crossAttentionHiddenSize',
    'tieWordEmbeddings',
  ],
  // Generation settings, which transformers 4 wrote into every config.json.
  ...['maxLength', 'minLength', 'doSample', 'earlyStopping', 'numBeams', 'numBeamGroups', 'diversityPenalty'],
  ...['temperature', 'topK', 'topP', 'typicalP', 'repetitionPenalty', 'lengthPenalty', 'noRepeatNgramSize'],
  ...['encoderNoRepeatNgramSize', 'badWordsIds', 'numReturnSequences', 'forcedBosTokenId', 'forcedEosTokenId'],
  ...['removeInvalidValues', 'exponentialDecayLengthPenalty', 'suppressTokens', 'beginSuppressTokens', 'prefix'],
  ...['returnDictInGenerate', 'bosTokenId', 'eosTokenId', 'padTokenId', 'sepTokenId', 'decoderStartTokenId'],
])

/** Keys of any config.json for which networks support only these values. */
const COMMON_ONLY: Readonly<Record<string, readonly unknown[]>> = {
  isDecoder: [false],
  addCrossAttention: [false],
  prunedHeads: [{}],
}

/** Keys that name an activation, and its names in native code (native/core/nn/functions.cc). */
const ACTIVATION_KEYS: ReadonlySet<string> = new Set([
  ...['hiddenAct', 'hiddenActivation', 'encoderHiddenAct', 'decoderHiddenAct', 'activationFunction', 'adapterAct'],
  ...['featExtractActivation', 'projectorHiddenAct', 'projectorAct'],
])
export const ACTIVATIONS: readonly string[] = [
  ...['gelu', 'gelu_new', 'gelu_fast', 'gelu_pytorch_tanh', 'quick_gelu', 'relu', 'silu', 'swish', 'tanh', 'mish'],
]

/** Outputs that transformers returns by configuration, and this library by an argument of the call. */
const OUTPUTS = ['outputAttentions', 'outputHiddenStates', 'outputScores']

const valuesOf = (keys: ConfigKeys, key: string): readonly unknown[] | undefined => {
  if (keys.only && Object.hasOwn(keys.only, key)) return keys.only[key]
  return Object.hasOwn(COMMON_ONLY, key) ? COMMON_ONLY[key] : undefined
}

/** Return the keys, which may depend on the configuration. */
export const keysOf = <C extends NetworkConfig>(
  keys: ConfigKeys | ((config: C) => ConfigKeys),
  config: C,
): ConfigKeys => (typeof keys === 'function' ? keys(isConfiguration(config) ? config : ({} as C)) : keys)

const defaultsOf = (keys: ConfigKeys, config: NetworkConfig): NetworkConfig =>
  typeof keys.defaults === 'function' ? keys.defaults(config) : keys.defaults

const isRead = (keys: ConfigKeys, defaults: NetworkConfig, key: string): boolean =>
  Object.hasOwn(defaults, key) || (keys.parts !== undefined && Object.hasOwn(keys.parts, key))

/** Tell whether a key has no effect. Notes of transformers begin with an underscore, which is not camelCase. */
const isUnread = (keys: ConfigKeys, key: string): boolean =>
  COMMON.has(key) || (keys.unused?.includes(key) ?? false) || /^[_A-Z]/.test(key)

/** Tell whether a value means "off". */
const isOff = (value: unknown): boolean => value === undefined || value === null || value === false

/**
 * Return the configuration with every key that the network reads.
 * @param where begin of error messages
 * @throws ConfigError for an unknown key, with the nearest known one, and for a value that the network does not support
 */
export function completedConfig<C extends NetworkConfig>(where: string, keys: ConfigKeys, config: C): C {
  // The constructor of the network reports what is wrong with it.
  if (!isConfiguration(config)) return config
  const defaults = defaultsOf(keys, config)
  const whole: NetworkConfig = Object.fromEntries(Object.entries(defaults).map(([key, value]) => [key, copied(value)]))
  for (const [key, value] of Object.entries(config)) {
    if (value === undefined) continue
    if (isRead(keys, defaults, key)) {
      // Native code refuses what is not a string.
      if (ACTIVATION_KEYS.has(key) && typeof value === 'string')
        requireValue(where, key, value, keys.only?.[key] ?? ACTIVATIONS)
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

/** Copy the values that readers of files keep under symbols, which a user's configuration does not have. */
function withSymbols(copy: NetworkConfig, config: object): NetworkConfig {
  for (const key of Object.getOwnPropertySymbols(config)) Reflect.set(copy, key, Reflect.get(config, key))
  return copy
}

/** Copy a default: a list and the lists in it. Other values are immutable. */
const copied = (value: unknown): unknown =>
  Array.isArray(value) ? value.map((one: unknown) => (Array.isArray(one) ? [...(one as unknown[])] : one)) : value

/** Tell whether a value equals a supported one: they are primitive values, or an empty object. */
const isSame = (one: unknown, value: unknown): boolean =>
  typeof one === 'object' ? typeof value === 'object' && Object.keys(value ?? {}).length === 0 : one === value

function requireValue(where: string, key: string, value: unknown, values: readonly unknown[]): void {
  if (value === null || values.some((one) => isSame(one, value))) return
  const expected = values.map((one) => JSON.stringify(one)).join(' or ')
  throw new ConfigError(`${where}: expected ${key} ${expected}, got ${shown(value)}. Other values are not supported.`, {
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

/** Maximum length of a key in messages; no known key is longer. */
const LONGEST = 100

/** A file's configuration, separated into the keys of the network and the others, which `save` writes again. */
export interface PartedConfig<C> {
  known: C
  others: NetworkConfig
}

/**
 * Separate the keys of a file's configuration, and report unknown ones by `process.emitWarning`, once per file. Keys that only
 * describe the file are not reported.
 * @param file name of the file in the warning
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

/** Remember the keys of a network's file that the network does not read. */
export function keepOthers(network: object, others: NetworkConfig): void {
  if (Object.keys(others).length > 0) kept.set(network, others)
}

/** Return the configuration to save, with the keys that the network's file had in addition. */
export function withOthers(network: object, config: NetworkConfig): NetworkConfig {
  return merged(kept.get(network) ?? {}, config)
}

function merged(others: NetworkConfig, config: NetworkConfig): NetworkConfig {
  const whole: NetworkConfig = { ...others, ...config }
  for (const [key, value] of Object.entries(others)) {
    const own = config[key]
    // Keys of nested configurations are in snake_case, as in files.
    if (isConfiguration(value) && isConfiguration(own)) whole[key] = merged(toSnake(value), own as NetworkConfig)
  }
  return whole
}
