import { shown } from '../../base/arguments.js'
import { ConfigError } from '../../base/errors.js'
import { toSnake } from '../../base/words.js'
import type { ConfigKeys } from '../config-keys.js'
import type { CtcReduction } from '../encoders/ctc-loss.js'
import type { NetworkConfig } from '../network.js'
import { type FastConformerConfig, fastConformerKeys, fastConformerSizes } from './encoder.js'

/** Keys that {@link ParakeetForCTC}, {@link ParakeetForRNNT} and {@link ParakeetForTDT} share. */
export interface ParakeetConfig extends NetworkConfig {
  /** Number of tokens with the blank. Default 1025 for CTC, 8193 for RNN-T and TDT. */
  vocabSize?: number
  /** Configuration of the encoder; see {@link FastConformerConfig}. */
  encoderConfig?: FastConformerConfig
  /** Padding of labels; CTC's blank token. Default 1024 for CTC, 2 for RNN-T and TDT. */
  padTokenId?: number
}

/** Configuration of {@link ParakeetForCTC}: transformers' ParakeetCTCConfig. */
export interface ParakeetCTCConfig extends ParakeetConfig {
  /** Default 'mean'. */
  ctcLossReduction?: CtcReduction
  /** Whether the loss of clips that are too short for their labels is 0 instead of infinity. Default true. */
  ctcZeroInfinity?: boolean
}

/** Configuration of {@link ParakeetForRNNT}: transformers' ParakeetRNNTConfig. */
export interface ParakeetRNNTConfig extends ParakeetConfig {
  /** Size of the prediction and the joint network. Default 640. */
  decoderHiddenSize?: number
  /** Number of LSTM layers of the prediction network. Default 2. */
  numDecoderLayers?: number
  /** Activation of the joint network: 'relu', 'tanh' or 'sigmoid'. Default 'relu'. */
  hiddenAct?: string
  /** Maximum number of tokens per frame in decoding. Default 10. */
  maxSymbolsPerStep?: number
  /** Default 8192. */
  blankTokenId?: number
}

/** Configuration of {@link ParakeetForTDT}: transformers' ParakeetTDTConfig. */
export interface ParakeetTDTConfig extends ParakeetRNNTConfig {
  /** Durations in frames that the network predicts. Default [0, 1, 2, 3, 4]. */
  durations?: number[]
}

const keysWith = (defaults: NetworkConfig, only: ConfigKeys['only'] = {}): ConfigKeys => ({
  only,
  defaults: { ...defaults, encoderConfig: {} },
  parts: { encoderConfig: fastConformerKeys },
  // transformers writes the encoder's here too.
  unused: ['initializerRange'],
})

const TRANSDUCER = {
  vocabSize: 8193,
  decoderHiddenSize: 640,
  numDecoderLayers: 2,
  hiddenAct: 'relu',
  maxSymbolsPerStep: 10,
  padTokenId: 2,
  blankTokenId: 8192,
}

export const ctcKeys = keysWith({ vocabSize: 1025, ctcLossReduction: 'mean', ctcZeroInfinity: true, padTokenId: 1024 })
/** Activations of the joint network. */
const ACTIVATIONS = ['relu', 'tanh', 'sigmoid']
const JOINT = { hiddenAct: ACTIVATIONS }
export const rnntKeys = keysWith(TRANSDUCER, JOINT)
export const tdtKeys = keysWith({ ...TRANSDUCER, durations: [0, 1, 2, 3, 4] }, JOINT)

const sized = (name: string, config: NetworkConfig = {}): NetworkConfig => ({
  ...config,
  encoderConfig: { ...fastConformerSizes[name] },
})
// Their tokenizers have 1024 tokens.
const small: ParakeetRNNTConfig = { vocabSize: 1025, blankTokenId: 1024, padTokenId: 1024 }

export const ctcSizes: Record<string, ParakeetCTCConfig> = {
  'parakeet-ctc-0.6b': sized('parakeet-ctc-0.6b'),
  'parakeet-ctc-1.1b': sized('parakeet-ctc-1.1b'),
}
export const rnntSizes: Record<string, ParakeetRNNTConfig> = {
  'parakeet-rnnt-0.6b': sized('parakeet-rnnt-0.6b', small),
  'parakeet-rnnt-1.1b': sized('parakeet-rnnt-1.1b', small),
}
export const tdtSizes: Record<string, ParakeetTDTConfig> = {
  'parakeet-tdt-0.6b-v2': sized('parakeet-tdt-0.6b-v2', small),
  'parakeet-tdt-0.6b-v3': sized('parakeet-tdt-0.6b-v3'),
  'parakeet-tdt-1.1b': sized('parakeet-tdt-1.1b', small),
}

/** Fill in what transformers derives: the spread of the initial weights is the encoder's. */
export const withSpread = <C extends ParakeetConfig>(config: C): C => ({
  ...config,
  initializerRange: config.encoderConfig?.initializerRange ?? 0.02,
})

/** Return the configuration for config.json. */
export const savedParakeet = (config: ParakeetConfig): NetworkConfig => ({
  ...config,
  encoderConfig: { ...toSnake(config.encoderConfig ?? {}), model_type: 'parakeet_encoder' },
})

const MOST = 2 ** 24

/** Check the configuration of a transducer. @throws ConfigError with the key */
export function requireTransducer(where: string, config: ParakeetTDTConfig): void {
  const wrong = (key: string, expected: string, value: unknown) =>
    new ConfigError(`${where}: ${key}: expected ${expected}, got ${shown(value)}. Correct the configuration.`, {
      key,
      value,
    })
  const { vocabSize, blankTokenId, padTokenId, hiddenAct, durations } = config
  for (const key of ['vocabSize', 'decoderHiddenSize', 'numDecoderLayers', 'maxSymbolsPerStep'] as const) {
    const value = config[key]
    if (!Number.isSafeInteger(value) || (value as number) < 1 || (value as number) > MOST)
      throw wrong(key, `an integer from 1 to ${MOST}`, value)
  }
  if (!isToken(blankTokenId, vocabSize))
    throw wrong('blankTokenId', `a token below vocabSize ${vocabSize}`, blankTokenId)
  if (!Number.isSafeInteger(padTokenId)) throw wrong('padTokenId', 'an integer', padTokenId)
  if (typeof hiddenAct !== 'string' || !ACTIVATIONS.includes(hiddenAct))
    throw wrong('hiddenAct', ACTIVATIONS.join(', '), hiddenAct)
  if (durations === undefined) return
  const isList = Array.isArray(durations) && durations.length > 0 && durations.length <= 1000
  if (!isList || !durations.every((one) => Number.isSafeInteger(one) && one >= 0) || !durations.some((one) => one > 0))
    throw wrong('durations', 'a list of numbers of frames with one above 0', durations)
}

const isToken = (id: unknown, vocabSize = 0): boolean =>
  Number.isSafeInteger(id) && (id as number) >= 0 && (id as number) < vocabSize
