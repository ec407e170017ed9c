import { melSpectrogram } from '../../audio/features.js'
import { SPEECH_RATE } from '../../audio/speech.js'
import { opAsync } from '../../native/call.js'
import { makeNative, NativeModule, withActiveAdapters } from '../../nn/native-module.js'
import type { MakeOptions } from '../../nn/parameter.js'
import { scope, type Tensor } from '../../tensor/index.js'
import { type ConfigKeys, completedConfig } from '../config-keys.js'
import type { NetworkConfig } from '../network.js'
import { type SpeechFeatures, type SpeechStates, stepMask } from './encoder-inputs.js'

const encode = opAsync('voxtorch::granite_speech_encoder_forward')
const project = opAsync('voxtorch::granite_speech_project')

/** Keys of transformers' GraniteSpeechEncoderConfig. */
export const graniteSpeechEncoderKeys: ConfigKeys = {
  defaults: ({ hiddenDim = 1024, numHeads = 8 }) => ({
    inputDim: 160,
    numLayers: 10,
    hiddenDim: 1024,
    feedforwardMult: 4,
    numHeads: 8,
    dimHead: Math.floor(Number(hiddenDim) / Number(numHeads)),
    outputDim: 42,
    contextSize: 200,
    maxPosEmb: 512,
    dropout: 0.1,
    convKernelSize: 15,
    convExpansionFactor: 2,
    initializerRange: 0.02,
  }),
}

/**
 * The audio encoder of Granite Speech (Saon et al. 2025, https://arxiv.org/abs/2505.08699), as transformers' GraniteSpeechCTCEncoder:
 * Conformer layers in which a frame attends to its block of `contextSize` frames with Shaw's relative positions. After half of the
 * layers, the probabilities of the CTC head are added to the states.
 */
export class GraniteSpeechEncoder extends NativeModule {
  readonly config: NetworkConfig

  /** @throws ConfigError for an unknown key or a contradictory configuration */
  constructor(config: NetworkConfig, options: MakeOptions = {}) {
    const whole = completedConfig('GraniteSpeechEncoder', graniteSpeechEncoderKeys, config)
    super(makeNative('granite_speech_encoder', whole, options))
    this.config = whole
  }

  /**
   * Encode features [batch, frames, inputDim] to [batch, frames, hiddenDim], 0 where the mask is false. Frames of padding are not read,
   * except by batch norms in training; transformers, which has no mask, reads them.
   */
  encode(inputs: SpeechFeatures): Promise<SpeechStates> {
    return encode(withActiveAdapters(this), inputs) as Promise<SpeechStates>
  }

  /**
   * @param lengths number of frames of each row that are audio, from its start; null for all
   * @returns [batch, frames, hiddenDim]
   */
  override forward(features: Tensor, lengths: readonly number[] | null = null): Promise<Tensor> {
    return scope(async () => {
      const attentionMask = stepMask(lengths, features.size(1))
      return (await this.encode({ inputFeatures: features, attentionMask })).lastHiddenState
    })
  }
}

/** Keys of the projector's configuration: those of transformers' Blip2QFormerConfig. */
export const graniteProjectorKeys: ConfigKeys = {
  defaults: {
    hiddenSize: 768,
    numHiddenLayers: 12,
    numAttentionHeads: 12,
    intermediateSize: 3072,
    hiddenAct: 'gelu',
    hiddenDropoutProb: 0.1,
    attentionProbsDropoutProb: 0.1,
    layerNormEps: 1e-12,
    initializerRange: 0.02,
    crossAttentionFrequency: 2,
    encoderHiddenSize: 1408,
  },
  only: { positionEmbeddingType: ['absolute'], useQformerTextInput: [false] },
  // Of text inputs, which this Q-Former does not have.
  unused: ['vocabSize', 'maxPositionEmbeddings'],
}

export interface GraniteProjectorSizes {
  /** Frames of a window. Default 15. */
  windowSize?: number
  /** Frames of a window per token; divides `windowSize`. Default 5. */
  downsampleRate?: number
  /** Width of the language model. */
  hiddenSize: number
}

/**
 * Granite Speech's projector: a Q-Former (Li et al. 2023, https://arxiv.org/abs/2301.12597) whose `windowSize / downsampleRate` queries
 * read each window of frames, and a linear layer. Zeros fill up the last window, and are read.
 */
export class GraniteProjector extends NativeModule {
  /** @throws ConfigError for an unknown key or a contradictory configuration */
  constructor(config: NetworkConfig, sizes: GraniteProjectorSizes, options: MakeOptions = {}) {
    const whole = completedConfig('GraniteProjector', graniteProjectorKeys, config)
    const { windowSize = 15, downsampleRate = 5, hiddenSize } = sizes
    const { encoderHiddenSize, crossAttentionFrequency, ...rest } = whole
    const native = {
      ...rest,
      encoderWidth: encoderHiddenSize,
      crossAttentionFreq: crossAttentionFrequency,
      windowSize,
      downsampleRate,
      outputSize: hiddenSize,
    }
    super(makeNative('granite_speech_projector', native, options))
  }

  /** Convert frames [batch, frames, encoderHiddenSize] to [batch, tokens, hiddenSize]. */
  override forward(frames: Tensor): Promise<Tensor> {
    return project(withActiveAdapters(this), frames) as Promise<Tensor>
  }
}

/** Return the number of tokens of so many frames of audio. */
export const graniteTokens = (frames: number, { windowSize = 15, downsampleRate = 5 }: NetworkConfig): number =>
  Math.ceil(frames / Number(windowSize)) * Math.floor(Number(windowSize) / Number(downsampleRate))

/**
 * Compute the features [1, frames, 2 · bands] of samples [n] at 16 kHz, two steps of 10 ms in one frame, as transformers'
 * GraniteSpeechFeatureExtractor: power in HTK's mel bands, log10, at most 8 below the clip's maximum.
 */
export function graniteSpeechFeatures(
  samples: Tensor,
  { inputDim = 160 }: NetworkConfig,
): Promise<{ features: Tensor; lengths: number[] }> {
  return scope(async () => {
    const nMels = Number(inputDim) / 2
    const settings = { nMels, nFft: 512, hopLength: 160, winLength: 400, log: 'log10', floor: 1e-10 } as const
    const mels = await melSpectrogram(samples, SPEECH_RATE, { ...settings, melScale: 'htk', norm: 'none' })
    const bounded = mels.maximum(mels.max().sub(8)).div(4).add(1)
    const frames = Math.floor(bounded.size(1) / 2)
    const features = bounded
      .t()
      .narrow(0, 0, 2 * frames)
      .reshape([1, frames, 2 * nMels])
    return { features, lengths: [frames] }
  })
}
