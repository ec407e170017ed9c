import { logMelSpectrogram } from '../../audio/features.js'
import { opAsync } from '../../native/call.js'
import { makeNative, NativeModule, withActiveAdapters } from '../../nn/native-module.js'
import type { MakeOptions } from '../../nn/parameter.js'
import { ops, scope, type Tensor } from '../../tensor/index.js'
import { type ConfigKeys, completedConfig } from '../config-keys.js'
import type { NetworkConfig } from '../network.js'
import { type SpeechFeatures, type SpeechStates, stepMask } from './encoder-inputs.js'

const encode = opAsync('voxtorch::qwen3_asr_encoder_forward')

/** Keys of transformers' Qwen3ASREncoderConfig. */
export const qwen3AsrEncoderKeys: ConfigKeys = {
  defaults: {
    numMelBins: 128,
    encoderLayers: 24,
    encoderAttentionHeads: 16,
    encoderFfnDim: 4096,
    dModel: 1024,
    activationFunction: 'gelu',
    initializerRange: 0.02,
    nWindow: 50,
    nWindowInfer: 800,
    outputDim: 3584,
    downsampleHiddenSize: 480,
    maxPositionEmbeddings: 13,
  },
  // transformers ignores these.
  unused: ['dropout', 'attentionDropout', 'activationDropout', 'scaleEmbedding'],
}

/**
 * The audio encoder of Qwen3-ASR (Shi et al. 2026, https://arxiv.org/abs/2601.21337), as transformers' Qwen3ASREncoder: three 2-D
 * convolutions over each chunk of 2 · `nWindow` steps, then Whisper's layers, in which a frame attends to the frames of its window of
 * `nWindowInfer` steps. With a mask on the CPU, nothing is computed for padding.
 */
export class Qwen3AsrEncoder extends NativeModule {
  readonly config: NetworkConfig

  /** @throws ConfigError for an unknown key or a contradictory configuration */
  constructor(config: NetworkConfig, options: MakeOptions = {}) {
    const whole = completedConfig('Qwen3AsrEncoder', qwen3AsrEncoderKeys, config)
    super(makeNative('qwen3_asr_encoder', whole, options))
    this.config = whole
  }

  /** Encode features [batch, numMelBins, steps], a multiple of 2 · `nWindow` steps, to [batch, frames, dModel]. */
  encode(inputs: SpeechFeatures): Promise<SpeechStates> {
    return encode(withActiveAdapters(this), inputs) as Promise<SpeechStates>
  }

  /**
   * @param lengths number of steps of each row that are audio, from its start; null for all
   * @returns [batch, frames, dModel]
   */
  override forward(features: Tensor, lengths: readonly number[] | null = null): Promise<Tensor> {
    return scope(async () => {
      const chunk = 2 * Number(this.config.nWindow)
      const steps = Math.ceil(features.size(2) / chunk) * chunk
      const inputFeatures = ops.constantPadNd(features, [0, steps - features.size(2)])
      const found = lengths ?? Array.from({ length: features.size(0) }, () => features.size(2))
      return (await this.encode({ inputFeatures, attentionMask: stepMask(found, steps) })).lastHiddenState
    })
  }
}

/** Return the number of frames of so many steps of audio. */
export function qwen3AsrFrames(steps: number, { nWindow = 50 }: NetworkConfig): number {
  const chunk = 2 * Number(nWindow)
  const halved = (length: number) => Math.floor((length + 1) / 2)
  const frames = (length: number) => halved(halved(halved(length)))
  return Math.floor(steps / chunk) * frames(chunk) + frames(steps % chunk)
}

/** Fewest samples of a clip; the original pads shorter ones with silence, which the encoder reads. */
const LEAST_SAMPLES = 8000
const HOP = 160

/** Compute the features [1, numMelBins, steps] of samples [n] at 16 kHz, as transformers' Qwen3ASRFeatureExtractor before its padding. */
export function qwen3AsrFeatures(
  samples: Tensor,
  config: NetworkConfig,
): Promise<{ features: Tensor; lengths: number[] }> {
  return scope(async () => {
    const missing = Math.max(0, LEAST_SAMPLES - samples.size(0))
    const padded = ops.constantPadNd(samples, [0, missing]).unsqueeze(0)
    const features = await logMelSpectrogram(padded, { nMels: Number(config.numMelBins), length: null })
    return { features, lengths: [Math.floor(padded.size(1) / HOP)] }
  })
}
