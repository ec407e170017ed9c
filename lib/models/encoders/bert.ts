import type { ConfigKeys } from '../config-keys.js'
import { networkClass } from '../network.js'
import { type RobertaConfig, type RobertaInputs, type RobertaOutput, robertaKeys } from './roberta.js'

/** Keys of a published config.json, in camelCase. Defaults are those of transformers' BertConfig. */
export interface BertConfig extends RobertaConfig {
  /** Only `'absolute'` is supported. */
  positionEmbeddingType?: string
}

/** Published sizes by name. */
export const bertSizes: Record<string, BertConfig> = {
  'base-uncased': {},
  'base-cased': { vocabSize: 28996 },
  'large-uncased': { hiddenSize: 1024, numHiddenLayers: 24, numAttentionHeads: 16, intermediateSize: 4096 },
  'minilm-l6': { hiddenSize: 384, numHiddenLayers: 6, numAttentionHeads: 12, intermediateSize: 1536 },
  'minilm-l12': { hiddenSize: 384, numHiddenLayers: 12, numAttentionHeads: 12, intermediateSize: 1536 },
}

const bertKeys: ConfigKeys = {
  ...robertaKeys,
  defaults: { ...robertaKeys.defaults, vocabSize: 30522, padTokenId: 0, bosTokenId: null, eosTokenId: null },
}

/**
 * BERT (Devlin et al. 2018, https://arxiv.org/abs/1810.04805) and networks of the same architecture, such as MiniLM (Wang et al. 2020,
 * https://arxiv.org/abs/2002.10957), as transformers' BertModel; runs in native code. Positions count from 0, unlike RoBERTa's.
 *
 * Published sizes: `'base-uncased'`, `'base-cased'`, `'large-uncased'`, `'minilm-l6'`, `'minilm-l12'`. The network has a pooler only
 * if the file has one. For sentence embeddings see {@link embedSentences}.
 */
export class Bert extends networkClass<Bert, BertConfig, RobertaInputs, RobertaOutput>({
  kind: 'bert',
  forward: 'voxtorch::roberta_forward',
  modelType: 'bert',
  architecture: 'BertModel',
  sizes: bertSizes,
  prefix: 'bert.',
  ignored: [/^cls\./, /^classifier\./, /^qa_outputs\./, /(^|\.)position_ids$/],
  // Names of the first files, from TensorFlow.
  rename: (name) => name.replace(/LayerNorm\.gamma$/, 'LayerNorm.weight').replace(/LayerNorm\.beta$/, 'LayerNorm.bias'),
  keys: bertKeys,
  found: (config, has) => ({ ...config, addPoolingLayer: has('pooler.dense.weight') }),
}) {}
