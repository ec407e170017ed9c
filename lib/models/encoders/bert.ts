import type { ConfigKeys } from '../config-keys.js'
import { networkClass } from '../network.js'
import { type RobertaConfig, type RobertaInputs, type RobertaOutput, robertaKeys } from './roberta.js'

/** The keys of a published config.json in camelCase; what is left out has the value of transformers' BertConfig. */
export interface BertConfig extends RobertaConfig {
  /** Only `'absolute'` ones are known. */
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
 * BERT (Devlin et al. 2018, https://arxiv.org/abs/1810.04805) and what has its form, such as MiniLM (Wang et al. 2020,
 * https://arxiv.org/abs/2002.10957), as transformers' BertModel; runs in native code, which is RoBERTa's with positions that
 * count from 0.
 *
 * Published sizes: `'base-uncased'`, `'base-cased'`, `'large-uncased'`, `'minilm-l6'`, `'minilm-l12'`. Where a file has no
 * pooler there is none in the network. Vectors of sentences: {@link embedSentences}.
 */
export class Bert extends networkClass<Bert, BertConfig, RobertaInputs, RobertaOutput>({
  kind: 'bert',
  forward: 'voxtorch::roberta_forward',
  modelType: 'bert',
  architecture: 'BertModel',
  sizes: bertSizes,
  prefix: 'bert.',
  ignored: [/^cls\./, /^classifier\./, /^qa_outputs\./, /(^|\.)position_ids$/],
  // As TensorFlow's first files had them.
  rename: (name) => name.replace(/LayerNorm\.gamma$/, 'LayerNorm.weight').replace(/LayerNorm\.beta$/, 'LayerNorm.bias'),
  keys: bertKeys,
  found: (config, has) => ({ ...config, addPoolingLayer: has('pooler.dense.weight') }),
}) {}
