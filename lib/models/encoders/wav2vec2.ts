import { type SpeechEncoderConfig, speechEncoderClass, speechKeys } from './speech-encoder.js'

export type Wav2Vec2Config = SpeechEncoderConfig

const base: Wav2Vec2Config = { activationDropout: 0, featProjDropout: 0.1, layerdrop: 0 }
const largeSize = { hiddenSize: 1024, numHiddenLayers: 24, numAttentionHeads: 16, intermediateSize: 4096 }
const stable: Wav2Vec2Config = {
  ...largeSize,
  convBias: true,
  featExtractNorm: 'layer',
  doStableLayerNorm: true,
  featProjDropout: 0.1,
  layerdrop: 0.1,
}
const xlsr: Wav2Vec2Config = { ...stable, activationDropout: 0, maskTimeProb: 0.075 }

/** Published sizes by name. */
export const wav2vec2Sizes: Record<string, Wav2Vec2Config> = {
  base,
  large: { ...base, ...largeSize },
  'large-960h-lv60': stable,
  'xlsr-53': xlsr,
  'xls-r-300m': xlsr,
  'xls-r-1b': { ...xlsr, hiddenSize: 1280, numHiddenLayers: 48, intermediateSize: 5120 },
  'xls-r-2b': { ...xlsr, hiddenSize: 1920, numHiddenLayers: 48, intermediateSize: 7680 },
}

export const wav2vec2Keys = speechKeys({ ctcLossReduction: 'sum', adapterAttnDim: null })

/**
 * wav2vec 2.0 (Baevski et al. 2020, https://arxiv.org/abs/2006.11477), XLSR-53 (https://arxiv.org/abs/2006.13979) and XLS-R
 * (https://arxiv.org/abs/2111.09296), as transformers' Wav2Vec2Model; runs in native code.
 *
 * Checkpoints trained with `featExtractNorm: 'layer'` (large 960h-lv60, XLSR, XLS-R) need waveforms with mean 0 and variance 1. With
 * 'group' a clip's output depends on the padding of the batch despite the mask, because the first norm computes statistics over the
 * whole time axis. With 'layer' a padded row equals the unpadded clip.
 *
 * Published sizes: `'base'`, `'large'`, `'large-960h-lv60'`, `'xlsr-53'`, `'xls-r-300m'`, `'xls-r-1b'`, `'xls-r-2b'`. Files with
 * fairseq's names work too.
 */
export class Wav2Vec2 extends speechEncoderClass<Wav2Vec2, Wav2Vec2Config>({
  kind: 'wav2vec2',
  architecture: 'Wav2Vec2Model',
  sizes: wav2vec2Sizes,
  keys: wav2vec2Keys,
}) {}
