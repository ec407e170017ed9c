import { type SpeechEncoderConfig, speechEncoderClass, speechKeys } from './speech-encoder.js'

export interface Data2VecAudioConfig extends SpeechEncoderConfig {
  /** Number of convolutions for positions, one after the other. Default 5. */
  numConvPosEmbeddings?: number
  /** Their kernel. Default 19. */
  convPosKernelSize?: number
}

const base: Data2VecAudioConfig = { featProjDropout: 0.1 }

/** Published sizes by name. */
export const data2vecAudioSizes: Record<string, Data2VecAudioConfig> = {
  base,
  large: { ...base, hiddenSize: 1024, numHiddenLayers: 24, numAttentionHeads: 16, intermediateSize: 4096 },
}

export const data2vecAudioKeys = speechKeys(
  { ctcLossReduction: 'sum', numConvPosEmbeddings: 5, convPosKernelSize: 19 },
  // It always has a norm after each convolution, and layers that normalize their output.
  { lacking: ['featExtractNorm', 'doStableLayerNorm'], unused: ['featExtractNorm', 'doStableLayerNorm'] },
)

/**
 * data2vec for speech (Baevski et al. 2022, https://arxiv.org/abs/2202.03555), as transformers' Data2VecAudioModel; runs in native
 * code. It is wav2vec 2.0's network with a layer norm after each convolution and several convolutions for positions. A padded row
 * equals the unpadded clip only nearly: the convolutions for positions see what padding becomes in the layers before them. It needs
 * waveforms with mean 0 and variance 1.
 *
 * Published sizes: `'base'` (facebook/data2vec-audio-base, -base-960h), `'large'` (facebook/data2vec-audio-large).
 */
export class Data2VecAudio extends speechEncoderClass<Data2VecAudio, Data2VecAudioConfig>({
  kind: 'wav2vec2',
  modelType: 'data2vec-audio',
  architecture: 'Data2VecAudioModel',
  sizes: data2vecAudioSizes,
  keys: data2vecAudioKeys,
  native: (config) => ({ ...config, featExtractNorm: 'layer' }),
}) {}
