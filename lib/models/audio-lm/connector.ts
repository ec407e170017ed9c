import { opAsync } from '../../native/call.js'
import { makeNative, NativeModule, withActiveAdapters } from '../../nn/native-module.js'
import type { MakeOptions } from '../../nn/parameter.js'
import type { Tensor } from '../../tensor/index.js'
import type { AudioConnector } from './family.js'

const connect = opAsync('voxtorch::audio_connect')

export interface ProjectionConfig {
  /** Width of the encoder's states. */
  inputSize: number
  hiddenSize: number
  /** Width between two layers. Default `hiddenSize`. */
  intermediateSize?: number
  /** Number of neighboring frames that become one token. Default 1. */
  stackedFrames?: number
  /** True for two layers, `linear_1` and `linear_2`, with an activation between them; false for one, `linear`. */
  hasActivation: boolean
  /** Activation between two layers; `'swiglu'` multiplies the first half of the outputs by SiLU of the second. */
  activation?: string
  bias: boolean
  /** RMS norms of Ultravox: of the input, and after the activation or the last layer. The last frames are stacked with zeros. Default none. */
  norms?: 'middle' | 'end'
  /** Initial weights of the norms. Default 1. */
  normInit?: number
  initializerRange?: number
}

/** A projection, or two with an activation, of stacked frames: [windows, frames, width] -> [windows, tokens, hiddenSize]. */
export class AudioProjection extends NativeModule implements AudioConnector {
  constructor(config: ProjectionConfig, options: MakeOptions) {
    super(makeNative('audio_connector', config, options))
  }

  override forward(states: Tensor): Promise<Tensor> {
    return connect(withActiveAdapters(this), states) as Promise<Tensor>
  }
}
