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

/** What published vision_configs of LanguageBind have besides CLIP's. */
export interface LanguageBindVisionConfig extends ClipVisionConfig {
  /** Rank of the adapters that the checkpoint holds beside its weights; 0: none. */
  loraR?: number
  loraAlpha?: number
  loraDropout?: number
  audioSampleRate?: number
  audioMean?: number
  audioStd?: number
  /** In metres, with which depth is divided; 0: its own maximum. */
  maxDepth?: number
}

/** One checkpoint's configuration: a text tower and the tower of a modality. */
export interface LanguageBindTowerConfig extends ClipConfig {
  textConfig?: ClipTextConfig
  visionConfig?: LanguageBindVisionConfig
}

export const languageBindTowerKeys: ConfigKeys = {
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

/** The configuration, or the name of a published checkpoint (`languageBindSizes`), of each modality. */
export type LanguageBindConfig = { [M in LanguageBindModality]?: LanguageBindTowerConfig | string }

/** The same with names looked up and what follows from the modality. */
export type CompleteLanguageBindConfig = { [M in LanguageBindModality]?: LanguageBindTowerConfig }

const text: ClipTextConfig = { hiddenSize: 768, intermediateSize: 3072, numAttentionHeads: 12, hiddenAct: 'gelu' }
const picture: LanguageBindVisionConfig = {
  hiddenSize: 1024,
  intermediateSize: 4096,
  numHiddenLayers: 24,
  numAttentionHeads: 16,
  patchSize: 14,
  imageSize: 224,
  hiddenAct: 'gelu',
  loraR: 0,
}
const sized = (visionConfig: LanguageBindVisionConfig): LanguageBindTowerConfig => ({
  textConfig: { ...text },
  visionConfig: { ...picture, ...visionConfig },
  projectionDim: 768,
})
const video: LanguageBindVisionConfig = { addTimeAttn: true, numFrames: 8 }
const sound: LanguageBindVisionConfig = { targetLength: 1036, audioMean: -4.2677393, audioStd: 4.5689974 }

/** Published checkpoints of ViT-L/14 by name. */
export const languageBindSizes: Record<string, LanguageBindTowerConfig> = {
  LanguageBind_Video: sized({ ...video, loraR: 16, loraAlpha: 16 }),
  LanguageBind_Video_FT: sized(video),
  'LanguageBind_Video_V1.5_FT': sized({ ...video, clipType: 'vl_new', tubeSize: 1 }),
  LanguageBind_Audio: sized({ ...sound, numMelBins: 126, loraR: 16, loraAlpha: 16 }),
  LanguageBind_Audio_FT: sized({ ...sound, numMelBins: 112 }),
  LanguageBind_Image: sized({}),
  LanguageBind_Depth: sized({ loraR: 2, loraAlpha: 16, maxDepth: 10 }),
  LanguageBind_Thermal: sized({ loraR: 2, loraAlpha: 16 }),
}

/** As a published config.json calls a checkpoint of the modality. */
export const modelTypeOf = (modality: LanguageBindModality): string =>
  `LanguageBind${modality[0]?.toUpperCase()}${modality.slice(1)}`

/** @throws ConfigError for a modality or a name that is none, and for no modality at all */
export function completeConfig(where: string, given: LanguageBindConfig): CompleteLanguageBindConfig {
  if (typeof given !== 'object' || given === null || Array.isArray(given)) {
    throw new ConfigError(`${where}: a configuration has one for each of ${MODALITIES.join(', ')}, not ${shown(given)}`)
  }
  const known: readonly string[] = MODALITIES
  const entries = Object.entries(given).filter(([, value]) => value !== undefined)
  const strange = entries.find(([name]) => !known.includes(name))
  if (strange || entries.length === 0) {
    const what = strange ? `there is no modality '${strange[0]}'` : 'there is no modality'
    throw new ConfigError(`${where}: ${what}; LanguageBind has ${MODALITIES.join(', ')}`, { config: given })
  }
  return Object.fromEntries(
    entries.map(([name, value]) => [name, towerConfig(where, name as LanguageBindModality, value)]),
  )
}

function towerConfig(where: string, modality: LanguageBindModality, given: unknown): LanguageBindTowerConfig {
  if (typeof given === 'string') {
    const found = Object.hasOwn(languageBindSizes, given) ? languageBindSizes[given] : undefined
    if (found) return withModality(modality, found)
    throw new ConfigError(`${where}: there is no '${given}'; there are ${Object.keys(languageBindSizes).join(', ')}`, {
      config: given,
    })
  }
  if (typeof given !== 'object' || given === null || Array.isArray(given)) {
    throw new ConfigError(`${where}: ${modality} must be a configuration or the name of one, not ${shown(given)}`, {
      [modality]: given,
    })
  }
  return withModality(modality, bothOf(given as NetworkConfig) as LanguageBindTowerConfig)
}

/** Attention over time has a feed-forward of its own everywhere but in video towers; none of those was published. */
function withModality(modality: LanguageBindModality, config: LanguageBindTowerConfig): LanguageBindTowerConfig {
  const { visionConfig = {} } = config
  const temporalMlp = visionConfig.addTimeAttn === true && modality !== 'video'
  return { ...config, visionConfig: { ...visionConfig, temporalMlp } }
}

/** The configuration of each modality with every key that its towers read. @throws ConfigError for an unknown key */
export const wholeTowers = (config: CompleteLanguageBindConfig): CompleteLanguageBindConfig =>
  Object.fromEntries(
    Object.entries(config).map(([modality, tower]) => [
      modality,
      completedConfig(`LanguageBind: ${modality}`, languageBindTowerKeys, tower),
    ]),
  )

/** What a file's text_config says of special tokens was never read: a text ends at its highest id. */
export const textTowerConfig = (config: LanguageBindTowerConfig): ClipTextConfig => ({
  ...config.textConfig,
  eosTokenId: 2,
})

/** As config.json has it. */
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

/** What {@link savedConfig} wrote. */
export function readSavedConfig(towers: object): LanguageBindConfig {
  return Object.fromEntries(
    Object.entries(towers).map(([modality, one]) => [
      modality,
      typeof one === 'object' && one !== null && !Array.isArray(one) ? toCamel(one) : one,
    ]),
  )
}
