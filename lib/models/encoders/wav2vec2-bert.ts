import type { ConfigKeys } from '../config-keys.js'
import { type SpeechFeatureInputs, speechEncoderClass, speechKeys } from './speech-encoder.js'
import { CONFORMER, type ConformerConfig } from './wav2vec2-conformer.js'

export interface Wav2Vec2BertConfig extends ConformerConfig {
  /** Size of an input vector: two steps of 80 mel bands. Default 160. */
  featureProjectionInputDim?: number
  /** With 'relative_key': distance to the left from which all have the same vector. Default 64. */
  leftMaxPositionEmbeddings?: number
  /** The same to the right. Default 8. */
  rightMaxPositionEmbeddings?: number
  /** Activation of the adapter's feed-forward layers. Default 'relu'. */
  adapterAct?: string
  /** Whether a feed-forward layer precedes the adapter. Default false. */
  useIntermediateFfnBeforeAdapter?: boolean
}

/** Published sizes by name. */
export const wav2vec2BertSizes: Record<string, Wav2Vec2BertConfig> = { '2.0': { layerdrop: 0, addAdapter: false } }

/** It has no convolutions over waveforms and for positions. */
const LACKING = [
  ...['convDim', 'convKernel', 'convStride', 'convBias', 'featExtractNorm', 'featExtractActivation'],
  ...['numConvPosEmbeddings', 'numConvPosEmbeddingGroups', 'doStableLayerNorm'],
]

export const wav2vec2BertKeys: ConfigKeys = {
  ...speechKeys(
    {
      ...CONFORMER,
      ctcLossReduction: 'sum',
      hiddenSize: 1024,
      numHiddenLayers: 24,
      numAttentionHeads: 16,
      intermediateSize: 4096,
      featureProjectionInputDim: 160,
      hiddenAct: 'swish',
      hiddenDropout: 0,
      activationDropout: 0,
      attentionDropout: 0,
      classifierProjSize: 768,
      numAdapterLayers: 1,
      adapterAct: 'relu',
      useIntermediateFfnBeforeAdapter: false,
      positionEmbeddingsType: 'relative_key',
      leftMaxPositionEmbeddings: 64,
      rightMaxPositionEmbeddings: 8,
    },
    { lacking: LACKING, unused: ['maxSourcePositions'] },
  ),
  nullable: ['positionEmbeddingsType'],
}

/**
 * w2v-BERT 2.0 (Barrault et al. 2023, https://arxiv.org/abs/2312.05187), as transformers' Wav2Vec2BertModel; runs in native code. Its
 * input are `inputFeatures` of `seamlessFeatures`, one vector every 20 ms, so `featureLengths` takes and gives numbers of
 * vectors. The convolutions of its layers are causal, and a padded row equals the unpadded clip.
 *
 * Published size: `'2.0'` (facebook/w2v-bert-2.0).
 */
export class Wav2Vec2Bert extends speechEncoderClass<Wav2Vec2Bert, Wav2Vec2BertConfig, SpeechFeatureInputs>({
  kind: 'wav2vec2',
  modelType: 'wav2vec2-bert',
  architecture: 'Wav2Vec2BertModel',
  sizes: wav2vec2BertSizes,
  keys: wav2vec2BertKeys,
  forward: 'voxtorch::wav2vec2_bert_forward',
}) {}
