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

/** What decides how SPECTRA's parts are joined. */
export interface SpectraOptions {
  /** RoBERTa layers over text and speech; their size is that of the text encoder [1]. */
  numFusedLayers?: number
  /** Tokens that a text is cut to by those who make batches [512]. */
  maxTextLength?: number
  /** Samples that a clip is cut to by those who make batches, and padded to with `compat: 'published'` [160000]. */
  maxAudioLength?: number
  /** Whether the learned vector that stands before two clips stands before a single one too [false]. */
  hasAudioCls?: boolean
  /** Whether speech gets the text's token types in `forward` [where there are two clips]; pre-training always does. */
  multiTurn?: boolean
  /**
   * Computes as the authors' code does: every clip is padded or cut to `maxAudioLength`, the first norm counts padding, and
   * each clip has one frame more than it gives (an empty one has one). Without it padding never changes a result.
   */
  compat?: 'published'
  /**
   * Computes nothing for padding: each clip and text has its own length, whose results are the same, and states
   * of padding are 0. Where attention maps are asked for, layers compute padding all the same [true, but with `compat` or
   * `legacyFusionMask`, which read padding].
   */
  paddingFree?: boolean
  /**
   * Pre-training with the masks of other rows, as the authors' code has it: it repeats the masks where it expands the
   * states [false].
   */
  legacyFusionMask?: boolean
  /**
   * With `compat` and `hasAudioCls`: the last two rows of a batch of single clips lose their speech, as in the authors'
   * code, where a mask became an index [false].
   */
  legacyAudioClsRows?: boolean
  /** Whether gradients flow through the frames that masked acoustic modelling shall predict [with `compat`]. */
  mamTargetGradients?: boolean
  /** Outputs of SpectraForSequenceClassification; 1 is a quantity with an L1 loss [2]. */
  numLabels?: number
}

/** The two encoders in the keys of a published config.json, in camelCase, and how they are joined. */
export interface SpectraConfig extends NetworkConfig, SpectraOptions {
  textConfig: RobertaConfig
  audioConfig: WavLMConfig
}

type Needed = 'numFusedLayers' | 'maxTextLength' | 'maxAudioLength' | 'hasAudioCls'
/** With every choice made. */
export type CompleteSpectraConfig = SpectraConfig & Required<Pick<SpectraOptions, Needed>>

const TEXT = 512
const AUDIO = 160_000
/** transformers writes this `max_length` for models that have none. */
const NO_LENGTH = 20

const SMALL = { hiddenSize: 64, numHiddenLayers: 2, numAttentionHeads: 4, intermediateSize: 128 }
const ROBERTA = { vocabSize: 50265, maxPositionEmbeddings: 514, typeVocabSize: 2, layerNormEps: 1e-5, padTokenId: 1 }

/** The published size, and one that a laptop trains: WavLM's convolutions in width 32, two layers of width 64. */
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

/** Published files hold SPECTRA's own choices in the configurations of its encoders. */
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

/** The configuration of a size by its name. @throws ConfigError for a size that there is not */
export const namedSpectraConfig = (name: string): SpectraConfig => configOf('Spectra', name, names)

/** A checked configuration. Choices that the encoders' published files hold are taken from there where none is made. */
export function spectraConfig(given: SpectraConfig | string): CompleteSpectraConfig {
  const config = configOf('Spectra', given, names)
  const keys = [...optionKeys, 'textConfig', 'audioConfig']
  for (const key of Object.keys(config)) {
    if (keys.includes(key)) continue
    const near = nearest(key, keys)
    throw new ConfigError(`Spectra has no option '${key}'${near ? `; did you mean '${near}'?` : ''}`, { key })
  }
  for (const key of ['textConfig', 'audioConfig'] as const) {
    const value: unknown = config[key]
    if (typeof value === 'object' && value !== null && !Array.isArray(value)) continue
    throw new ConfigError(`Spectra needs ${key}, an encoder's configuration, not ${shown(value)}`, { key })
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

/** What the native network is built from. */
export const nativeConfig = (config: SpectraConfig): object => ({
  ...config,
  textConfig: toSnake(config.textConfig),
  audioConfig: toSnake(config.audioConfig),
})

/** Frames that clips of these lengths count as: whole ones, or what the authors' code counts. */
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

/** The options of a configuration, without the encoders. */
export function optionsIn(config: SpectraConfig): SpectraOptions {
  return Object.fromEntries(Object.entries(config).filter(([key]) => optionKeys.includes(key)))
}

/**
 * The configuration of a network that is made from scratch: `'base'`, the published size; `'tiny'`, one that a laptop
 * trains; or a JSON file that holds `textConfig`, `audioConfig` and the other fields of {@link SpectraConfig}. It has as
 * many tokens as the tokenizer, unless a file says another number.
 * @param tokenizer left out where texts come as RoBERTa's token numbers
 * @throws ConfigError for a size that there is not; DataError for a file that is no JSON
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
    throw new ConfigError(`${nameOrFile} has no textConfig: it must hold an object with textConfig and audioConfig`, {
      file: nameOrFile,
    })
  }
  const own = named ? undefined : config.textConfig.vocabSize
  const vocabSize = own ?? tokenizer?.vocabSize ?? config.textConfig.vocabSize
  return { ...config, textConfig: { ...config.textConfig, ...defined({ vocabSize }) } }
}
