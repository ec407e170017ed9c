import { SPEECH_RATE } from '../../audio/speech.js'
import { shown } from '../../base/check.js'
import { ConfigError } from '../../base/errors.js'
import { toCamel, toSnake } from '../../base/words.js'
import {
  bothOf,
  type ClipConfig,
  type ClipTextConfig,
  type ClipVisionConfig,
  clipKeys,
  clipTextKeys,
  clipVisionKeys,
} from '../clip/config.js'
import { type ConfigKeys, completedConfig } from '../config-keys.js'
import type { NetworkConfig } from '../network.js'

export const MODALITIES = ['video', 'audio', 'image', 'depth', 'thermal'] as const
export type LanguageBindModality = (typeof MODALITIES)[number]

/** Keys of LanguageBind's published vision_configs, in addition to CLIP's. */
export interface LanguageBindVisionConfig extends ClipVisionConfig {
  /** Rank of the LoRA adapters in the checkpoint; 0: none. */
  loraR?: number
  loraAlpha?: number
  loraDropout?: number
  audioSampleRate?: number
  audioMean?: number
  audioStd?: number
  /** Divisor of depth, in meters; 0: the maximum of the image. */
  maxDepth?: number
}

/** Configuration of one checkpoint: the text encoder and the encoder of a modality. */
export interface LanguageBindEncoderConfig extends ClipConfig {
  textConfig?: ClipTextConfig
  visionConfig?: LanguageBindVisionConfig
}

export const languageBindEncoderKeys: ConfigKeys = {
  ...clipKeys,
  parts: {
    textConfig: clipTextKeys,
    visionConfig: {
      ...clipVisionKeys,
      defaults: {
        ...clipVisionKeys.defaults,
        loraR: 0,
        loraAlpha: 16,
        loraDropout: 0,
        audioMean: -4.2677393,
        audioStd: 4.5689974,
        maxDepth: 10,
      },
      only: { ...clipVisionKeys.only, audioSampleRate: [SPEECH_RATE] },
    },
  },
}

/** Configuration of each modality, or the name of a published checkpoint (`languageBindSizes`). */
export type LanguageBindConfig = { [M in LanguageBindModality]?: LanguageBindEncoderConfig | string }

/** A configuration with names resolved, and with the values that follow from the modality. */
export type CompleteLanguageBindConfig = { [M in LanguageBindModality]?: LanguageBindEncoderConfig }

const text: ClipTextConfig = { hiddenSize: 768, intermediateSize: 3072, numAttentionHeads: 12, hiddenAct: 'gelu' }
const image: LanguageBindVisionConfig = {
  hiddenSize: 1024,
  intermediateSize: 4096,
  numHiddenLayers: 24,
  numAttentionHeads: 16,
  patchSize: 14,
  imageSize: 224,
  hiddenAct: 'gelu',
  loraR: 0,
}
const sized = (visionConfig: LanguageBindVisionConfig): LanguageBindEncoderConfig => ({
  textConfig: { ...text },
  visionConfig: { ...image, ...visionConfig },
  projectionDim: 768,
})
const video: LanguageBindVisionConfig = { addTimeAttn: true, numFrames: 8 }
const audio: LanguageBindVisionConfig = { targetLength: 1036, audioMean: -4.2677393, audioStd: 4.5689974 }

/** Published checkpoints of ViT-L/14 by name. */
export const languageBindSizes: Record<string, LanguageBindEncoderConfig> = {
  LanguageBind_Video: sized({ ...video, loraR: 16, loraAlpha: 16 }),
  LanguageBind_Video_FT: sized(video),
  'LanguageBind_Video_V1.5_FT': sized({ ...video, clipType: 'vl_new', tubeSize: 1 }),
  LanguageBind_Audio: sized({ ...audio, numMelBins: 126, loraR: 16, loraAlpha: 16 }),
  LanguageBind_Audio_FT: sized({ ...audio, numMelBins: 112 }),
  LanguageBind_Image: sized({}),
  LanguageBind_Depth: sized({ loraR: 2, loraAlpha: 16, maxDepth: 10 }),
  LanguageBind_Thermal: sized({ loraR: 2, loraAlpha: 16 }),
}

/** Return the model_type of a published checkpoint of the modality. */
export const modelTypeOf = (modality: LanguageBindModality): string =>
  `LanguageBind${modality[0]?.toUpperCase()}${modality.slice(1)}`

/** Resolve a configuration. @throws ConfigError for an unknown modality or name, and without any modality */
export function completeConfig(where: string, input: LanguageBindConfig): CompleteLanguageBindConfig {
  if (typeof input !== 'object' || input === null || Array.isArray(input)) {
    throw new ConfigError(
      `${where}: config: expected an object with a configuration for each modality, got ${shown(input)}. Modalities: ${MODALITIES.join(', ')}.`,
    )
  }
  const known: readonly string[] = MODALITIES
  const entries = Object.entries(input).filter(([, value]) => value !== undefined)
  const unknownEntry = entries.find(([name]) => !known.includes(name))
  if (unknownEntry || entries.length === 0) {
    const value = unknownEntry ? JSON.stringify(unknownEntry[0]) : 'no modality'
    throw new ConfigError(
      `${where}: config: expected modalities of ${MODALITIES.join(', ')}, got ${value}. Correct the key.`,
      {
        config: input,
      },
    )
  }
  return Object.fromEntries(
    entries.map(([name, value]) => [name, encoderConfig(where, name as LanguageBindModality, value)]),
  )
}

function encoderConfig(where: string, modality: LanguageBindModality, input: unknown): LanguageBindEncoderConfig {
  if (typeof input === 'string') {
    const found = Object.hasOwn(languageBindSizes, input) ? languageBindSizes[input] : undefined
    if (found) return withModality(modality, found)
    throw new ConfigError(
      `${where}: ${modality}: expected a published name of ${Object.keys(languageBindSizes).join(', ')}, got ${shown(input)}. Correct it.`,
      {
        config: input,
      },
    )
  }
  if (typeof input !== 'object' || input === null || Array.isArray(input)) {
    throw new ConfigError(
      `${where}: ${modality}: expected a configuration or the name of one, got ${shown(input)}. Pass an object or a name.`,
      {
        [modality]: input,
      },
    )
  }
  return withModality(modality, bothOf(input as NetworkConfig) as LanguageBindEncoderConfig)
}

/** Set whether temporal attention has its own feed-forward layer: yes, except in video encoders, the only published ones. */
function withModality(modality: LanguageBindModality, config: LanguageBindEncoderConfig): LanguageBindEncoderConfig {
  const { visionConfig = {} } = config
  const temporalMlp = visionConfig.addTimeAttn === true && modality !== 'video'
  return { ...config, visionConfig: { ...visionConfig, temporalMlp } }
}

/** Complete the configuration of each modality with all keys. @throws ConfigError for an unknown key */
export const wholeEncoders = (config: CompleteLanguageBindConfig): CompleteLanguageBindConfig =>
  Object.fromEntries(
    Object.entries(config).map(([modality, encoder]) => [
      modality,
      completedConfig(`LanguageBind: ${modality}`, languageBindEncoderKeys, encoder),
    ]),
  )

/** Return the text configuration. Its special tokens are ignored, as in the original: the highest token id ends a text. */
export const textEncoderConfig = (config: LanguageBindEncoderConfig): ClipTextConfig => ({
  ...config.textConfig,
  eosTokenId: 2,
})

/** Return the contents of config.json. */
export const savedConfig = (config: CompleteLanguageBindConfig): object =>
  Object.fromEntries(
    Object.entries(config).map(([modality, one]) => [
      modality,
      {
        ...toSnake(one),
        text_config: toSnake(one.textConfig ?? {}),
        vision_config: toSnake(one.visionConfig ?? {}),
      },
    ]),
  )

/** Read the configurations that {@link savedConfig} wrote. */
export function readSavedConfig(encoders: object): LanguageBindConfig {
  return Object.fromEntries(
    Object.entries(encoders).map(([modality, one]) => [
      modality,
      typeof one === 'object' && one !== null && !Array.isArray(one) ? toCamel(one) : one,
    ]),
  )
}
