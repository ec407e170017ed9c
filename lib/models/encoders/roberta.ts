import type { NativeModule } from '../../nn/native-module.js'
import type { Tensor } from '../../tensor/index.js'
import type { ConfigKeys } from '../config-keys.js'
import { type NetworkConfig, networkClass } from '../network.js'

/** The keys of a published config.json in camelCase; what is left out has the value of transformers' RobertaConfig. */
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
  /** Whether the network ends in a pooler. Default true. */
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
    // Of the heads.
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
  /** Token ids [batch, time], int64; tokens that are `padTokenId` are padding. */
  inputIds?: Tensor
  /**
   * [batch, time], 1 for real tokens and 0 for padding; or bool [batch, 1 or heads, time, time], true where a query may
   * look at a key, as `blockDiagonalMask` makes it for packed rows.
   */
  attentionMask?: Tensor | null
  /** [batch, time], int64; default 0. */
  tokenTypeIds?: Tensor | null
  /** [batch, time], int64; counted from `inputIds` by default. */
  positionIds?: Tensor | null
  /** [batch, time, hiddenSize], in place of `inputIds`. */
  inputsEmbeds?: Tensor | null
  outputHiddenStates?: boolean
  outputAttentions?: boolean
}

export interface RobertaOutput {
  /** [batch, time, hiddenSize] */
  lastHiddenState: Tensor
  /** [batch, hiddenSize]; null without a pooler. */
  poolerOutput: Tensor | null
  /** The embeddings and the output of each layer, each [batch, time, hiddenSize]; empty unless asked for. */
  hiddenStates: Tensor[]
  /** Per layer [batch, heads, time, time]; empty unless asked for. */
  attentions: Tensor[]
}

const published = { keys: robertaKeys, modelType: 'roberta', alike: ['xlm-roberta', 'camembert'], sizes: robertaSizes }

/**
 * RoBERTa (Liu et al. 2019, https://arxiv.org/abs/1907.11692), as transformers' RobertaModel; runs in native code.
 *
 * Published sizes: `'base'`, `'large'`. Where a file has no pooler there is none in the network.
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
  /** The embeddings and the output of each layer, each [batch, time, hiddenSize]; empty unless asked for. */
  hiddenStates: Tensor[]
  /** Per layer [batch, heads, time, time]; empty unless asked for. */
  attentions: Tensor[]
}

/** RoBERTa with its masked language modelling head, as transformers' RobertaForMaskedLM. */
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
  // The decoder is tied to the word embeddings; older files hold it a second time.
  ignored: [/^lm_head\.decoder\./, /^roberta\.pooler\./, /(^|\.)position_ids$/],
}) {
  declare readonly roberta: NativeModule
}
