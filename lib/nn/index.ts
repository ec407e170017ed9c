export {
  CELU,
  ELU,
  GELU,
  GLU,
  Hardshrink,
  Hardsigmoid,
  Hardswish,
  Hardtanh,
  LeakyReLU,
  LogSigmoid,
  LogSoftmax,
  Mish,
  PReLU,
  ReLU,
  ReLU6,
  RReLU,
  SELU,
  Sigmoid,
  SiLU,
  Softmax,
  Softmax2d,
  Softmin,
  Softplus,
  Softshrink,
  Softsign,
  Tanh,
  Tanhshrink,
  Threshold,
} from './activation.js'
export { type AdaptiveLogSoftmaxOptions, AdaptiveLogSoftmaxWithLoss } from './adaptive-softmax.js'
export { MultiheadAttention, type MultiheadAttentionOptions } from './attention.js'
export type { FullBackwardHook, FullBackwardPreHook, Gradients } from './backward-hooks.js'
export {
  BatchNorm1d,
  BatchNorm2d,
  BatchNorm3d,
  type BatchNormOptions,
  InstanceNorm1d,
  InstanceNorm2d,
  InstanceNorm3d,
  type InstanceNormOptions,
} from './batch-norm.js'
export { type Layer, ModuleDict, ModuleList, ParameterDict, ParameterList, Sequential } from './containers.js'
export { Conv1d, Conv2d, Conv3d, type ConvLayerOptions } from './conv.js'
export { ConvTranspose1d, ConvTranspose2d, ConvTranspose3d, type ConvTransposeOptions } from './conv-transpose.js'
export { CosineSimilarity, PairwiseDistance } from './distance.js'
export { AlphaDropout, Dropout, Dropout1d, Dropout2d, Dropout3d, FeatureAlphaDropout } from './dropout.js'
export { Embedding, EmbeddingBag, type EmbeddingBagOptions, type EmbeddingOptions } from './embedding.js'
export { Transformer, type TransformerOptions } from './encoder-decoder.js'
export { withEvalMode } from './eval-mode.js'
export * as functional from './functional.js'
export type { HookOptions } from './hooks.js'
export * as init from './init.js'
export {
  LazyBatchNorm1d,
  LazyBatchNorm2d,
  LazyBatchNorm3d,
  LazyConv1d,
  LazyConv2d,
  LazyConv3d,
  LazyConvTranspose1d,
  LazyConvTranspose2d,
  LazyConvTranspose3d,
  LazyInstanceNorm1d,
  LazyInstanceNorm2d,
  LazyInstanceNorm3d,
  LazyLinear,
} from './lazy.js'
export { Bilinear, Flatten, Identity, Linear, type LinearOptions } from './linear.js'
export {
  BCELoss,
  BCEWithLogitsLoss,
  CosineEmbeddingLoss,
  CrossEntropyLoss,
  CTCLoss,
  type CTCLossOptions,
  GaussianNLLLoss,
  HingeEmbeddingLoss,
  HuberLoss,
  KLDivLoss,
  L1Loss,
  MarginRankingLoss,
  MSELoss,
  MultiLabelMarginLoss,
  MultiLabelSoftMarginLoss,
  MultiMarginLoss,
  NLLLoss,
  PoissonNLLLoss,
  SmoothL1Loss,
  SoftMarginLoss,
  TripletMarginLoss,
  TripletMarginWithDistanceLoss,
} from './loss-layers.js'
export {
  type ForwardHook,
  type ForwardPreHook,
  type LoadStateDictPostHook,
  Module,
  type StateDictHook,
  type StateDictPreHook,
} from './module.js'
export { NativeModule } from './native-module.js'
export {
  GroupNorm,
  LayerNorm,
  type LayerNormOptions,
  LocalResponseNorm,
  RMSNorm,
  type RMSNormOptions,
} from './normalization.js'
export {
  CircularPad1d,
  CircularPad2d,
  CircularPad3d,
  ConstantPad1d,
  ConstantPad2d,
  ConstantPad3d,
  ReflectionPad1d,
  ReflectionPad2d,
  ReflectionPad3d,
  ReplicationPad1d,
  ReplicationPad2d,
  ReplicationPad3d,
  ZeroPad1d,
  ZeroPad2d,
  ZeroPad3d,
} from './padding.js'
export {
  type FactoryOptions,
  type NetworkOptions,
  Parameter,
  UninitializedBuffer,
  UninitializedParameter,
} from './parameter.js'
export {
  AdaptiveAvgPool1d,
  AdaptiveAvgPool2d,
  AdaptiveAvgPool3d,
  AdaptiveMaxPool1d,
  AdaptiveMaxPool2d,
  AdaptiveMaxPool3d,
  AvgPool1d,
  AvgPool2d,
  AvgPool3d,
  type AvgPoolOptions,
  LPPool1d,
  LPPool2d,
  LPPool3d,
  MaxPool1d,
  MaxPool2d,
  MaxPool3d,
  type MaxPoolOptions,
} from './pooling.js'
export type { QuantizationScheme } from './quantized-weight.js'
export {
  ChannelShuffle,
  Fold,
  PixelShuffle,
  PixelUnshuffle,
  Unflatten,
  Unfold,
  Upsample,
  UpsamplingBilinear2d,
  UpsamplingNearest2d,
} from './reshaping.js'
export { GRU, LSTM, type LSTMOptions, RNN, RNNBase, type RNNMode, type RNNOptions } from './rnn.js'
export { GRUCell, LSTMCell, RNNCell } from './rnn-cells.js'
export { TransformerEncoder, TransformerEncoderLayer, type TransformerEncoderLayerOptions } from './transformer.js'
export {
  TransformerDecoder,
  TransformerDecoderLayer,
  type TransformerDecoderLayerOptions,
} from './transformer-decoder.js'
export { FractionalMaxPool2d, FractionalMaxPool3d, MaxUnpool1d, MaxUnpool2d, MaxUnpool3d } from './unpooling.js'
