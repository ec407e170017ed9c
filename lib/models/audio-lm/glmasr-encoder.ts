import { opAsync } from '../../native/call.js'
import { makeNative, NativeModule, withActiveAdapters } from '../../nn/native-module.js'
import type { MakeOptions } from '../../nn/parameter.js'
import { scope, type Tensor } from '../../tensor/index.js'
import { type ConfigKeys, completedConfig } from '../config-keys.js'
import type { NetworkConfig } from '../network.js'
import { plainRopeKeys } from '../rope.js'
import { type SpeechFeatures, type SpeechStates, stepMask } from './encoder-inputs.js'

const encode = opAsync('voxtorch::glmasr_encoder_forward')

/** Keys of transformers' GlmAsrEncoderConfig. */
export const glmAsrEncoderKeys = (config: NetworkConfig): ConfigKeys => {
  const { hiddenSize = 1280, numAttentionHeads = 20 } = config as { hiddenSize?: number; numAttentionHeads?: number }
  return {
    defaults: {
      hiddenSize: 1280,
      intermediateSize: 5120,
      numHiddenLayers: 32,
      numAttentionHeads: 20,
      hiddenAct: 'gelu',
      maxPositionEmbeddings: 1500,
      initializerRange: 0.02,
      ropeTheta: 10000,
      partialRotaryFactor: 0.5,
      ropeParameters: null,
      attentionDropout: 0,
      numMelBins: 128,
    },
    nullable: ['ropeParameters'],
    only: {
      numKeyValueHeads: [numAttentionHeads],
      headDim: [hiddenSize / numAttentionHeads],
      ropeScaling: [null],
    },
    parts: { ropeParameters: plainRopeKeys },
  }
}

/**
 * The audio encoder of GLM-ASR (https://huggingface.co/zai-org/GLM-ASR-Nano-2512), as transformers' GlmAsrEncoder: Whisper's
 * convolutions, and layers with rotary positions in the first half of each head.
 */
export class GlmAsrEncoder extends NativeModule {
  readonly config: NetworkConfig

  /** @throws ConfigError for an unknown key or a contradictory configuration */
  constructor(config: NetworkConfig, options: MakeOptions = {}) {
    const whole = completedConfig('GlmAsrEncoder', glmAsrEncoderKeys(config), config)
    super(makeNative('glmasr_encoder', whole, options))
    this.config = whole
  }

  /** Encode features [batch, numMelBins, steps] to [batch, frames, hiddenSize], one frame per two steps. */
  encode(inputs: SpeechFeatures & { outputAttentions?: boolean }): Promise<SpeechStates & { attentions: Tensor[] }> {
    return encode(withActiveAdapters(this), inputs) as Promise<SpeechStates & { attentions: Tensor[] }>
  }

  /**
   * @param lengths number of steps of each row that are audio, from its start; null for all. Others are not read, while transformers'
   *   encoder reads them.
   * @returns [batch, frames, hiddenSize]
   */
  override forward(features: Tensor, lengths: readonly number[] | null = null): Promise<Tensor> {
    return scope(async () => {
      const attentionMask = stepMask(lengths, features.size(2))
      return (await this.encode({ inputFeatures: features, attentionMask })).lastHiddenState
    })
  }
}
