import type { NativeModule } from '../../nn/native-module.js'
import type { Tensor } from '../../tensor/index.js'
import type { ConfigKeys } from '../config-keys.js'
import { type NetworkConfig, networkClass } from '../network.js'

/** Keys of a published config.json, in camelCase. Defaults are those of transformers' RobertaConfig. */
export interface RobertaConfig extends NetworkConfig {
  vocabSize?: number
  hiddenSize?: number
  numHiddenLayers?: number
  numAttentionHeads?: number
  intermediateSize?: number
  maxPositionEmbeddings?: number
  typeVocabSize?: number
  padTokenId?: number
  layerNormEps?: number
  initializerRange?: number
  hiddenAct?: string
  hiddenDropoutProb?: number
  attentionProbsDropoutProb?: number
  /** Whether the network has a pooler. Default true. */
  addPoolingLayer?: boolean
}

export const robertaKeys: ConfigKeys = {
  defaults: {
    vocabSize: 50265,
    hiddenSize: 768,
    numHiddenLayers: 12,
    numAttentionHeads: 12,
    intermediateSize: 3072,
    maxPositionEmbeddings: 512,
    typeVocabSize: 2,
    padTokenId: 1,
    bosTokenId: 0,
    eosTokenId: 2,
    layerNormEps: 1e-12,
    initializerRange: 0.02,
    hiddenAct: 'gelu',
    hiddenDropoutProb: 0.1,
    attentionProbsDropoutProb: 0.1,
    classifierDropout: null,
    addPoolingLayer: true,
    // Keys of the heads.
    tieWordEmbeddings: true,
    problemType: null,
  },
  only: { positionEmbeddingType: ['absolute'] },
  unused: ['numLabels'],
}

/** Published sizes by name. */
export const robertaSizes: Record<string, RobertaConfig> = {
  base: { vocabSize: 50265, maxPositionEmbeddings: 514, typeVocabSize: 1, layerNormEps: 1e-5 },
  large: {
    vocabSize: 50265,
    maxPositionEmbeddings: 514,
    typeVocabSize: 1,
    layerNormEps: 1e-5,
    hiddenSize: 1024,
    numHiddenLayers: 24,
    numAttentionHeads: 16,
    intermediateSize: 4096,
  },
}

export interface RobertaInputs {
  /** Token ids [batch, time], int64; `padTokenId` is padding. */
  inputIds?: Tensor
  /**
   * [batch, time], 1 for real tokens and 0 for padding; or bool [batch, 1 or heads, time, time], true where a query attends to a
   * key, as `blockDiagonalMask` returns it for packed rows.
   */
  attentionMask?: Tensor | null
  /** [batch, time], int64; default 0. */
  tokenTypeIds?: Tensor | null
  /** [batch, time], int64; default: counted from `inputIds`. */
  positionIds?: Tensor | null
  /** [batch, time, hiddenSize], instead of `inputIds`. */
  inputsEmbeds?: Tensor | null
  outputHiddenStates?: boolean
  outputAttentions?: boolean
}

export interface RobertaOutput {
  /** [batch, time, hiddenSize] */
  lastHiddenState: Tensor
  /** [batch, hiddenSize]; null without a pooler. */
  poolerOutput: Tensor | null
  /** Embeddings and output of each layer, each [batch, time, hiddenSize]; [] without `outputHiddenStates`. */
  hiddenStates: Tensor[]
  /** Attention of each layer, [batch, heads, time, time]; [] without `outputAttentions`. */
  attentions: Tensor[]
}

const published = { keys: robertaKeys, modelType: 'roberta', alike: ['xlm-roberta', 'camembert'], sizes: robertaSizes }

/**
 * RoBERTa (Liu et al. 2019, https://arxiv.org/abs/1907.11692), as transformers' RobertaModel; runs in native code.
 *
 * Published sizes: `'base'`, `'large'`. The network has a pooler only if the file has one.
 */
export class Roberta extends networkClass<Roberta, RobertaConfig, RobertaInputs, RobertaOutput>({
  ...published,
  kind: 'roberta',
  forward: 'voxtorch::roberta_forward',
  architecture: 'RobertaModel',
  prefix: 'roberta.',
  ignored: [/^lm_head\./, /^classifier\./, /(^|\.)position_ids$/],
  found: (config, has) => ({ ...config, addPoolingLayer: has('pooler.dense.weight') }),
}) {}

export interface RobertaMaskedLMOutput {
  /** [batch, time, vocabSize] */
  logits: Tensor
  /** Embeddings and output of each layer, each [batch, time, hiddenSize]; [] without `outputHiddenStates`. */
  hiddenStates: Tensor[]
  /** Attention of each layer, [batch, heads, time, time]; [] without `outputAttentions`. */
  attentions: Tensor[]
}

/** RoBERTa with its masked language modeling head, as transformers' RobertaForMaskedLM. */
export class RobertaForMaskedLM extends networkClass<
  RobertaForMaskedLM,
  RobertaConfig,
  RobertaInputs,
  RobertaMaskedLMOutput
>({
  ...published,
  kind: 'roberta_masked_lm',
  forward: 'voxtorch::roberta_masked_lm_forward',
  architecture: 'RobertaForMaskedLM',
  prefix: '',
  // The decoder is tied to the token embeddings; older files have it twice.
  ignored: [/^lm_head\.decoder\./, /^roberta\.pooler\./, /(^|\.)position_ids$/],
}) {
  declare readonly roberta: NativeModule
}
