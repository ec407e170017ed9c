import { shown } from '../../../base/arguments.js'
import { defined, requireString } from '../../../base/check.js'
import { ConfigError } from '../../../base/errors.js'
import { nearest, toSnake } from '../../../base/words.js'
import { readJson } from '../../../files/json/json.js'
import { type ConfigKeys, completedConfig } from '../../../models/config-keys.js'
import { type RobertaConfig, robertaKeys } from '../../../models/encoders/roberta.js'
import { framesOf } from '../../../models/encoders/speech-encoder.js'
import { type WavLMConfig, wavlmKeys } from '../../../models/encoders/wavlm.js'
import { configOf, type NetworkConfig } from '../../../models/network.js'

/** Options of SPECTRA that the configurations of its encoders do not have. */
export interface SpectraOptions {
  /** Number of RoBERTa layers over text and speech, with the size of the text encoder. Default 1. */
  numFusedLayers?: number
  /** Maximum tokens of a text, for collators. Default 512. */
  maxTextLength?: number
  /** Maximum samples of a clip, for collators, and the padded length with `compat: 'published'`. Default 160000. */
  maxAudioLength?: number
  /** Put the learned vector that precedes two clips before a single clip too. Default false. */
  hasAudioCls?: boolean
  /** Add the text's token types to speech in `forward`. Default: only for two clips. Pre-training always does. */
  multiTurn?: boolean
  /**
   * Compute like the authors' code: every clip is padded or cut to `maxAudioLength`, the first norm includes padding, and each clip counts
   * one frame more than it has (an empty one counts one). Otherwise, padding never changes a result.
   */
  compat?: 'published'
  /**
   * Skip the computation of padding: each clip and text has its own length. Results are the same, and states of padding are 0. With
   * attention maps, padding is computed anyway. Default true; false with `compat` or `legacyFusionMask`, which depend on padding.
   */
  paddingFree?: boolean
  /**
   * In pre-training, use the masks of other rows, like the authors' code, which repeats the masks where it expands the states. Default
   * false.
   */
  legacyFusionMask?: boolean
  /**
   * With `compat` and `hasAudioCls`: the last two rows of a batch of single clips lose their speech, as in the authors' code, which uses a
   * mask as an index. Default false.
   */
  legacyAudioClsRows?: boolean
  /** Let gradients flow through the target frames of masked acoustic modeling. Default: only with `compat`. */
  mamTargetGradients?: boolean
  /** Outputs of SpectraForSequenceClassification; 1 is a regression with L1 loss. Default 2. */
  numLabels?: number
}

/** Configurations of the two encoders, with the keys of a published config.json in camelCase, and options of SPECTRA. */
export interface SpectraConfig extends NetworkConfig, SpectraOptions {
  textConfig: RobertaConfig
  audioConfig: WavLMConfig
}

type Needed = 'numFusedLayers' | 'maxTextLength' | 'maxAudioLength' | 'hasAudioCls'
/** A configuration with all defaults filled in. */
export type CompleteSpectraConfig = SpectraConfig & Required<Pick<SpectraOptions, Needed>>

const TEXT = 512
const AUDIO = 160_000
/** The `max_length` that transformers writes for models without one. */
const NO_LENGTH = 20

const SMALL = { hiddenSize: 64, numHiddenLayers: 2, numAttentionHeads: 4, intermediateSize: 128 }
const ROBERTA = { vocabSize: 50265, maxPositionEmbeddings: 514, typeVocabSize: 2, layerNormEps: 1e-5, padTokenId: 1 }

/** The published size, and one for a laptop: WavLM's convolutions of width 32, two layers of width 64. */
const names: Record<string, SpectraConfig> = {
  base: {
    textConfig: ROBERTA,
    audioConfig: { activationDropout: 0, featProjDropout: 0.1, layerdrop: 0.05 },
  },
  tiny: {
    textConfig: { ...ROBERTA, ...SMALL },
    audioConfig: {
      ...SMALL,
      convDim: Array<number>(7).fill(32),
      numConvPosEmbeddings: 16,
      numConvPosEmbeddingGroups: 2,
    },
  },
}

/** Options of SPECTRA that published files have in the configurations of the encoders. */
const TEXT_OWN = ['maxLength', 'numFusedLayers', 'numFusionLayers']
const AUDIO_OWN = ['maxLength', 'hasAudioCls', 'multiTurn']
export const encoderKeys: Record<'textConfig' | 'audioConfig', ConfigKeys> = {
  textConfig: { ...robertaKeys, unused: [...(robertaKeys.unused ?? []), ...TEXT_OWN] },
  audioConfig: { ...wavlmKeys, unused: [...(wavlmKeys.unused ?? []), ...AUDIO_OWN] },
}

const optionKeys = [
  'numFusedLayers',
  'maxTextLength',
  'maxAudioLength',
  'hasAudioCls',
  'multiTurn',
  'compat',
  'paddingFree',
  'legacyFusionMask',
  'legacyAudioClsRows',
  'mamTargetGradients',
  'numLabels',
]

/** Return the configuration of a named size. @throws ConfigError for an unknown name */
export const namedSpectraConfig = (name: string): SpectraConfig => configOf('Spectra', name, names)

/** Validate a configuration. Missing options are taken from the encoders' configurations, as in published files. */
export function spectraConfig(configOrName: SpectraConfig | string): CompleteSpectraConfig {
  const config = configOf('Spectra', configOrName, names)
  const keys = [...optionKeys, 'textConfig', 'audioConfig']
  for (const key of Object.keys(config)) {
    if (keys.includes(key)) continue
    const near = nearest(key, keys)
    throw new ConfigError(
      `SpectraConfig: expected known options, got '${key}'${near ? `; did you mean '${near}'?` : ''}`,
      { key },
    )
  }
  for (const key of ['textConfig', 'audioConfig'] as const) {
    const value: unknown = config[key]
    if (typeof value === 'object' && value !== null && !Array.isArray(value)) continue
    throw new ConfigError(`SpectraConfig.${key}: expected the configuration of an encoder, got ${shown(value)}`, {
      key,
    })
  }
  const { textConfig: text, audioConfig: audio } = config
  return {
    ...config,
    textConfig: completedConfig('Spectra: textConfig', encoderKeys.textConfig, text),
    audioConfig: completedConfig('Spectra: audioConfig', encoderKeys.audioConfig, audio),
    numFusedLayers: config.numFusedLayers ?? numberIn(text, 'numFusedLayers') ?? numberIn(text, 'numFusionLayers') ?? 1,
    maxTextLength: config.maxTextLength ?? lengthIn(text) ?? TEXT,
    maxAudioLength: config.maxAudioLength ?? lengthIn(audio) ?? AUDIO,
    hasAudioCls: config.hasAudioCls ?? audio.hasAudioCls === true,
    ...multiTurnOf(config),
  }
}

function multiTurnOf(config: SpectraConfig): { multiTurn?: boolean } {
  const value = config.multiTurn ?? config.audioConfig.multiTurn
  return typeof value === 'boolean' ? { multiTurn: value } : {}
}

function numberIn(config: NetworkConfig, key: string): number | undefined {
  const value = config[key]
  return typeof value === 'number' ? value : undefined
}

function lengthIn(config: NetworkConfig): number | undefined {
  const value = numberIn(config, 'maxLength')
  return value === NO_LENGTH ? undefined : value
}

/** Return the configuration for the native network. */
export const nativeConfig = (config: SpectraConfig): object => ({
  ...config,
  textConfig: toSnake(config.textConfig),
  audioConfig: toSnake(config.audioConfig),
})

/** Return the number of frames of a clip; with `compat`, the number that the authors' code counts. */
export function frameCount(config: CompleteSpectraConfig, samples: number): number {
  const whole = framesOf(config.audioConfig, samples)
  if (config.compat !== 'published') return whole
  const { convKernel = [10, 3, 3, 3, 3, 2, 2], convStride = [5, 2, 2, 2, 2, 2, 2] } = config.audioConfig
  const counted = convKernel.reduce(
    (length, kernel, i) => Math.trunc((length - kernel) / (convStride[i] as number)) + 1,
    Math.min(samples, config.maxAudioLength),
  )
  return Math.min(counted + 1, framesOf(config.audioConfig, config.maxAudioLength))
}

/** Return the options of a configuration, without the encoders. */
export function optionsIn(config: SpectraConfig): SpectraOptions {
  return Object.fromEntries(Object.entries(config).filter(([key]) => optionKeys.includes(key)))
}

/**
 * Return the configuration for a network with random weights: `'base'`, the published size; `'tiny'`, for a laptop; or a JSON file with
 * `textConfig`, `audioConfig` and the other fields of {@link SpectraConfig}. The vocabulary size is the tokenizer's, unless a file sets
 * it.
 * @param tokenizer left out if texts are token ids of RoBERTa
 * @throws ConfigError for an unknown name; DataError for a file that is not valid JSON
 */
export async function readSpectraConfig(
  nameOrFile: string,
  tokenizer?: { readonly vocabSize: number },
): Promise<SpectraConfig> {
  requireString('readSpectraConfig', 'nameOrFile', nameOrFile)
  const named = !nameOrFile.endsWith('.json')
  const config = named ? namedSpectraConfig(nameOrFile) : ((await readJson(nameOrFile)) as SpectraConfig)
  const text: unknown = config?.textConfig
  if (typeof text !== 'object' || text === null) {
    throw new ConfigError(
      `${nameOrFile}: expected an object with textConfig and audioConfig, got one without textConfig`,
      { file: nameOrFile },
    )
  }
  const fileVocabSize = named ? undefined : config.textConfig.vocabSize
  const vocabSize = fileVocabSize ?? tokenizer?.vocabSize ?? config.textConfig.vocabSize
  return { ...config, textConfig: { ...config.textConfig, ...defined({ vocabSize }) } }
}
