import type { ConfigKeys } from '../config-keys.js'
import { type SpeechEncoderConfig, speechEncoderClass, speechKeys } from './speech-encoder.js'

/** Configuration of networks with Conformer layers. */
export interface ConformerConfig extends SpeechEncoderConfig {
  /**
   * 'relative': Transformer-XL's sines of distances; 'rotary'; for w2v-BERT 2.0 also 'relative_key', a learned vector for each distance
   * (Shaw et al. 2018); null: none. Default 'relative', for w2v-BERT 2.0 'relative_key'.
   */
  positionEmbeddingsType?: 'relative' | 'rotary' | 'relative_key' | null
  /** Base of rotary positions. Default 10000. */
  rotaryEmbeddingBase?: number
  /** Kernel of a layer's convolution, an odd number. Default 31. */
  convDepthwiseKernelSize?: number
  /** Dropout of a layer's convolution. Default 0.1. */
  conformerConvDropout?: number
}

export type Wav2Vec2ConformerConfig = ConformerConfig

/** Defaults of the keys of Conformer layers. */
export const CONFORMER = {
  positionEmbeddingsType: 'relative',
  rotaryEmbeddingBase: 10000,
  convDepthwiseKernelSize: 31,
  conformerConvDropout: 0.1,
}

const large: Wav2Vec2ConformerConfig = {
  hiddenSize: 1024,
  numHiddenLayers: 24,
  numAttentionHeads: 16,
  intermediateSize: 4096,
  hiddenAct: 'swish',
  convBias: true,
  featExtractNorm: 'layer',
  featProjDropout: 0.1,
  layerdrop: 0,
}

/** Published sizes by name. */
export const wav2vec2ConformerSizes: Record<string, Wav2Vec2ConformerConfig> = {
  'rel-pos-large': large,
  'rope-large': { ...large, positionEmbeddingsType: 'rotary' },
}

export const wav2vec2ConformerKeys: ConfigKeys = {
  ...speechKeys(
    { ctcLossReduction: 'sum', ...CONFORMER },
    // transformers' configuration has the length of a table of sines, which are computed here.
    { lacking: ['doStableLayerNorm'], unused: ['doStableLayerNorm', 'maxSourcePositions'] },
  ),
  nullable: ['positionEmbeddingsType'],
}

/**
 * wav2vec 2.0 with Conformer layers (Wang et al. 2020, https://arxiv.org/abs/2010.05171), as transformers' Wav2Vec2ConformerModel;
 * runs in native code. As there, padding leaks into a clip's last frames through the convolutions of the layers.
 *
 * Published sizes: `'rel-pos-large'` (facebook/wav2vec2-conformer-rel-pos-large), `'rope-large'`
 * (facebook/wav2vec2-conformer-rope-large). They need waveforms with mean 0 and variance 1.
 */
export class Wav2Vec2Conformer extends speechEncoderClass<Wav2Vec2Conformer, Wav2Vec2ConformerConfig>({
  kind: 'wav2vec2',
  modelType: 'wav2vec2-conformer',
  architecture: 'Wav2Vec2ConformerModel',
  sizes: wav2vec2ConformerSizes,
  keys: wav2vec2ConformerKeys,
}) {}
