import { ConfigError } from '../../base/errors.js'
import { networkClass } from '../network.js'
import type { RobertaConfig, RobertaInputs, RobertaOutput } from './roberta.js'

/** The keys of a published config.json in camelCase; what is left out has the value of bert-base-uncased. */
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

function completed(config: BertConfig): BertConfig {
  const { positionEmbeddingType = 'absolute' } = config ?? {}
  if (positionEmbeddingType === 'absolute') return config
  throw new ConfigError(
    `Bert has absolute positions, not positionEmbeddingType ${JSON.stringify(positionEmbeddingType)}`,
    {
      positionEmbeddingType,
    },
  )
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
  completed,
  found: (config, has) => ({ ...config, addPoolingLayer: has('pooler.dense.weight') }),
}) {}
