import { type SpeechEncoderConfig, speechEncoderClass, speechKeys } from './speech-encoder.js'

export interface HubertConfig extends SpeechEncoderConfig {
  /** Whether a layer norm precedes the projection of the convolutions' output. Default true. */
  featProjLayerNorm?: boolean
  /** Whether the convolution for positions has a batch norm before it instead of a normalized weight. Default false. */
  convPosBatchNorm?: boolean
}

const base: HubertConfig = { featProjDropout: 0.1 }
const stable: HubertConfig = { ...base, featExtractNorm: 'layer', convBias: true, doStableLayerNorm: true }

/** Published sizes by name. */
export const hubertSizes: Record<string, HubertConfig> = {
  base,
  large: { ...stable, hiddenSize: 1024, numHiddenLayers: 24, numAttentionHeads: 16, intermediateSize: 4096 },
  xlarge: { ...stable, hiddenSize: 1280, numHiddenLayers: 48, numAttentionHeads: 16, intermediateSize: 5120 },
}

/** HuBERT has no convolutions after the transformer, and no heads for speakers. */
const LACKING = [
  ...['addAdapter', 'numAdapterLayers', 'adapterKernelSize', 'adapterStride', 'outputHiddenSize'],
  ...['tdnnDim', 'tdnnKernel', 'tdnnDilation', 'xvectorOutputDim'],
]

export const hubertKeys = speechKeys(
  { ctcLossReduction: 'sum', adapterAttnDim: null, featProjLayerNorm: true, convPosBatchNorm: false },
  { lacking: LACKING },
)

/**
 * HuBERT (Hsu et al. 2021, https://arxiv.org/abs/2106.07447), as transformers' HubertModel; runs in native code. It is wav2vec 2.0's
 * network, trained to predict clusters of speech. See {@link Wav2Vec2} for `featExtractNorm` and padding. The large sizes need
 * waveforms with mean 0 and variance 1. Without `featProjLayerNorm`, `extractFeatures` are not normalized.
 *
 * Published sizes: `'base'` (facebook/hubert-base-ls960), `'large'` (facebook/hubert-large-ll60k, -large-ls960-ft), `'xlarge'`
 * (facebook/hubert-xlarge-ll60k). Files with fairseq's names work too.
 */
export class Hubert extends speechEncoderClass<Hubert, HubertConfig>({
  kind: 'wav2vec2',
  modelType: 'hubert',
  architecture: 'HubertModel',
  sizes: hubertSizes,
  keys: hubertKeys,
}) {}
