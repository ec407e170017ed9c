import { opAsync } from '../../native/call.js'
import { makeNative, NativeModule, withActiveAdapters } from '../../nn/native-module.js'
import type { MakeOptions } from '../../nn/parameter.js'
import { scope, type Tensor } from '../../tensor/index.js'
import { type ConfigKeys, completedConfig } from '../config-keys.js'
import type { NetworkConfig } from '../network.js'
import { plainRopeKeys, withPlainRope } from '../rope.js'
import type { SpeechFeatures, SpeechStates } from './encoder-inputs.js'

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

  /**
   * @param multiple `forward` leaves out frames after the last multiple of this number
   * @throws ConfigError for an unknown key or a contradictory configuration
   */
  constructor(
    config: NetworkConfig,
    options: MakeOptions = {},
    readonly multiple = 1,
  ) {
    const whole = withPlainRope(completedConfig('GlmAsrEncoder', glmAsrEncoderKeys(config), config))
    super(makeNative('glmasr_encoder', whole, options))
    this.config = whole
  }

  /** Encode features [batch, numMelBins, steps] to [batch, frames, hiddenSize], one frame per two steps. */
  encode(inputs: SpeechFeatures & { outputAttentions?: boolean }): Promise<SpeechStates & { attentions: Tensor[] }> {
    return encode(withActiveAdapters(this), inputs) as Promise<SpeechStates & { attentions: Tensor[] }>
  }

  /**
   * Encode windows. Steps after the audio are read too, as in transformers: the published model was trained with the silence that fills
   * a window.
   * @returns [batch, frames, hiddenSize]
   */
  override forward(features: Tensor, _lengths: readonly number[] | null = null): Promise<Tensor> {
    return scope(async () => {
      const { lastHiddenState } = await this.encode({ inputFeatures: features })
      const frames = lastHiddenState.size(1)
      return lastHiddenState.narrow(1, 0, frames - (frames % this.multiple))
    })
  }
}
