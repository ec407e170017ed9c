import { opAsync } from '../../native/call.js'
import { makeNative, NativeModule, withActiveAdapters } from '../../nn/native-module.js'
import type { NetworkOptions } from '../../nn/parameter.js'
import type { Tensor } from '../../tensor/index.js'
import { configOf, type NetworkConfig } from '../config.js'
import {
  type LoadNetworkOptions,
  loadNetwork,
  type NetworkKind,
  type SaveNetworkOptions,
  saveNetwork,
} from '../pretrained.js'

/** The keys of a published config.json in camelCase; what is left out has the value of roberta-base. */
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
  /** Token ids [batch, time], int64; real tokens are told from padding by `padTokenId`. */
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

const forward = opAsync('voxtorch::roberta_forward')
const forwardMaskedLM = opAsync('voxtorch::roberta_masked_lm_forward')

const kind: NetworkKind = {
  kind: 'roberta',
  modelType: 'roberta',
  alike: ['xlm-roberta', 'camembert'],
  architecture: 'RobertaModel',
  prefix: 'roberta.',
  ignored: [/^lm_head\./, /^classifier\./, /(^|\.)position_ids$/],
}

/** RoBERTa (Liu et al. 2019, https://arxiv.org/abs/1907.11692), as transformers' RobertaModel; runs in native code. */
export class Roberta extends NativeModule {
  constructor(
    readonly config: RobertaConfig,
    options: NetworkOptions & { initialize?: boolean } = {},
  ) {
    super(makeNative('roberta', config, options))
  }

  /** Random weights. `config` is a configuration, `'base'` or `'large'`. */
  static fromConfig(config: RobertaConfig | string, options: NetworkOptions = {}): Roberta {
    return new Roberta(configOf('Roberta', config, robertaSizes), options)
  }

  /**
   * The weights of a directory or hub repository in transformers' layout. Checkpoints of models with a head on top work
   * too; without a pooler in the file there is none in the network.
   * @throws CheckpointError that lists missing, unexpected and mis-shaped names
   */
  static fromPretrained(from: string, options: LoadNetworkOptions = {}): Promise<Roberta> {
    return loadNetwork(kind, from, options, (config, factory, present) => {
      return new Roberta({ ...config, addPoolingLayer: present('pooler.dense.weight') }, factory)
    })
  }

  /** Runs on the executor. */
  override forward(inputs: RobertaInputs): Promise<RobertaOutput> {
    return forward(withActiveAdapters(this), inputs) as Promise<RobertaOutput>
  }

  /** Writes config.json and model.safetensors, which transformers' RobertaModel reads. */
  save(directory: string, options: SaveNetworkOptions = {}): Promise<void> {
    return saveNetwork(kind, directory, this, this.config, options)
  }
}

const maskedLMKind: NetworkKind = {
  kind: 'roberta_masked_lm',
  modelType: 'roberta',
  alike: ['xlm-roberta', 'camembert'],
  architecture: 'RobertaForMaskedLM',
  prefix: '',
  // The decoder is tied to the word embeddings; older files hold it a second time.
  ignored: [/^lm_head\.decoder\./, /^roberta\.pooler\./, /(^|\.)position_ids$/],
}

export interface RobertaMaskedLMOutput {
  /** [batch, time, vocabSize] */
  logits: Tensor
  hiddenStates: Tensor[]
  attentions: Tensor[]
}

/** RoBERTa with its masked language modelling head, as transformers' RobertaForMaskedLM. */
export class RobertaForMaskedLM extends NativeModule {
  declare readonly roberta: NativeModule

  constructor(
    readonly config: RobertaConfig,
    options: NetworkOptions & { initialize?: boolean } = {},
  ) {
    super(makeNative('roberta_masked_lm', config, options))
  }

  static fromConfig(config: RobertaConfig | string, options: NetworkOptions = {}): RobertaForMaskedLM {
    return new RobertaForMaskedLM(configOf('RobertaForMaskedLM', config, robertaSizes), options)
  }

  static fromPretrained(from: string, options: LoadNetworkOptions = {}): Promise<RobertaForMaskedLM> {
    return loadNetwork(maskedLMKind, from, options, (config, factory) => new RobertaForMaskedLM(config, factory))
  }

  override forward(inputs: RobertaInputs): Promise<RobertaMaskedLMOutput> {
    return forwardMaskedLM(withActiveAdapters(this), inputs) as Promise<RobertaMaskedLMOutput>
  }

  save(directory: string, options: SaveNetworkOptions = {}): Promise<void> {
    return saveNetwork(maskedLMKind, directory, this, this.config, options)
  }
}
