import { argumentError, requireNumber, requireOneOf, requireWhole } from '../../base/check.js'
import { camelCase, toCamel } from '../../base/words.js'
import { isConfiguration } from '../../nn/native-module.js'
import { completedConfig } from '../config-keys.js'
import { checkedLayers, type DecoderLMConfig } from '../decoder/config.js'
import type { NetworkConfig } from '../network.js'
import { AUDIO_FAMILIES, AUDIO_MODEL_TYPES, type AudioModelType } from './families.js'
import type { AudioFamily } from './family.js'
import { TEXT_EXTRAS } from './text-part.js'

/** Keys of a published config.json in camelCase; which ones there are depends on the family. */
export interface AudioLMConfig extends NetworkConfig {
  /** Family. Default `'qwen2_audio'`. */
  modelType?: AudioModelType
  /** Audio encoder. */
  audioConfig?: NetworkConfig
  /** Any language model of {@link DecoderLM}; its default is the family's. */
  textConfig?: DecoderLMConfig
  /** Id of the audio token; `audioTokenIndex` in Qwen2-Audio. */
  audioTokenId?: number
}

/** Configuration with all defaults filled in. */
export interface CompleteAudioLMConfig extends AudioLMConfig {
  modelType: AudioModelType
  textConfig: DecoderLMConfig
}

/** Milliseconds that a class of a forced aligner may have. */
export const STEP_RANGE = { least: 1, below: 60_001 }

/** Return the family of a configuration. @throws ConfigError for an unknown model type */
export function familyOf({ modelType = 'qwen2_audio' }: NetworkConfig): AudioFamily {
  requireOneOf('AudioLM', 'modelType', modelType, AUDIO_MODEL_TYPES)
  return AUDIO_FAMILIES[modelType as AudioModelType]
}

/** Return the configuration with the family's names of keys, at the top and in its parts. Keys of parts become camelCase. */
export function withoutAliases({ aliases = {}, keys }: AudioFamily, given: NetworkConfig): NetworkConfig {
  const renamed = (config: NetworkConfig, names: NonNullable<AudioFamily['aliases']>): NetworkConfig =>
    Object.fromEntries(
      Object.entries(config).map(([name, value]) => {
        const key = camelCase(name)
        const alias = Object.hasOwn(names, key) ? names[key] : undefined
        const isPart = keys.parts !== undefined && Object.hasOwn(keys.parts, key) && isConfiguration(value)
        if (typeof alias === 'string') return [alias, value]
        return [key, isPart ? renamed(toCamel(value), alias ?? {}) : value]
      }),
    )
  return renamed(given, aliases)
}

/** Check that a family can compute sizes from the values. @throws ConfigError for a value that JSON cannot store */
function requirePlain(config: object): void {
  for (const [key, value] of Object.entries(config)) {
    if (['bigint', 'symbol', 'function'].includes(typeof value)) {
      throw argumentError('AudioLM', key, 'a value that JSON can store', value)
    }
  }
}

/** Return the configuration with those of its parts filled in. @throws ConfigError for a contradiction */
export function completedAudioLM(given: AudioLMConfig): CompleteAudioLMConfig {
  const where = 'AudioLM'
  const modelType = given.modelType ?? 'qwen2_audio'
  const family = familyOf({ modelType })
  for (const key of Object.keys(family.keys.parts ?? {})) {
    const value = given[key] ?? {}
    if (!isConfiguration(value)) throw argumentError(where, key, 'a configuration', value)
  }
  for (const part of [given, ...Object.keys(family.keys.parts ?? {}).map((key) => given[key] ?? {})]) requirePlain(part)
  const whole: NetworkConfig = completedConfig(where, family.keys, { ...withoutAliases(family, given), modelType })
  requireWhole(where, family.token.key, whole[family.token.key], 0)
  const { stepKey } = family.aligner ?? {}
  if (stepKey !== undefined) requireNumber(where, stepKey, whole[stepKey], STEP_RANGE)
  const text = family.text?.(whole) ?? (whole.textConfig as DecoderLMConfig)
  const known = Object.entries(text).filter(([key]) => !TEXT_EXTRAS.includes(key))
  const tied = { tieWordEmbeddings: family.isTied?.(whole) ?? false }
  return { ...whole, modelType, textConfig: checkedLayers({ ...Object.fromEntries(known), ...tied }) }
}
