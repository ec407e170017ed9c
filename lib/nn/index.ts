export { Dropout, GELU, ReLU, Sigmoid, SiLU, Softmax, Tanh } from './activation.js'
export {
  MultiheadAttention,
  type MultiheadAttentionCallOptions,
  type MultiheadAttentionOptions,
  type MultiheadAttentionResult,
} from './attention.js'
export { type Layer, ModuleDict, ModuleList, Sequential } from './containers.js'
export { Conv1d, Conv2d, type ConvLayerOptions } from './conv.js'
export { Embedding, type EmbeddingOptions } from './embedding.js'
export * as functional from './functional.js'
export * as init from './init.js'
export { Flatten, Identity, Linear, type LinearOptions } from './linear.js'
export { type ForwardHook, type LoadResult, Module } from './module.js'
export { NativeModule } from './native-module.js'
export {
  BatchNorm1d,
  type BatchNormOptions,
  type ChannelNormOptions,
  GroupNorm,
  LayerNorm,
  type LayerNormOptions,
  RMSNorm,
  type RMSNormOptions,
} from './normalization.js'
export { type FactoryOptions, Parameter, type ParameterOptions } from './parameter.js'
export type { QuantizationScheme } from './quantized-weight.js'
export { GRU, type GRUResult, LSTM, type LSTMResult, type RecurrentOptions, type SequenceOptions } from './rnn.js'
export {
  type Activation,
  type EncoderMasks,
  TransformerEncoder,
  TransformerEncoderLayer,
  type TransformerEncoderLayerOptions,
} from './transformer.js'
