/** Right calls of pooling, padding, losses and the other layers that have no function of their own. */
import { Module } from '../../lib/index.js'
import { add, lib, of, options } from './define.js'
import { layer } from './layers.js'
import { dense as f, indices, list, made } from './values.js'

for (const name of ['LogSigmoid', 'Mish', 'Hardsigmoid', 'Hardswish', 'ReLU6', 'SELU', 'Softsign', 'Tanhshrink']) {
  layer(name, [of()], [of(f([2]))])
}
for (const name of ['LeakyReLU', 'ELU', 'CELU', 'Hardshrink', 'Softshrink']) layer(name, [of(), of(0.3)], [of(f([2]))])
for (const name of ['LogSoftmax', 'Softmin']) layer(name, [of(-1)], [of(f([2, 3]))])
layer('Softmax2d', [of()], [of(f([2, 3, 4]))])
layer('GLU', [of(), of(0)], [of(f([2, 4]))])
layer('Hardtanh', [of(), of(options({ minVal: -2, maxVal: 3 }))], [of(f([2]))])
layer('Softplus', [of(), of(options({ beta: 2, threshold: 3 }))], [of(f([2]))])
layer('RReLU', [of(), of(options({ lower: 0.1, upper: 0.2 }))], [of(f([2]))])
layer('PReLU', [of(), of(options({ numParameters: 3, init: 0.1 }))], [of(f([2, 3])), of(f([2, 3]))])
layer('Threshold', [of(0.1, 2)], [of(f([2]))])
for (const name of ['AlphaDropout', 'FeatureAlphaDropout']) layer(name, [of(0.5), of()], [of(f([2, 3]))])
for (const [dims, size] of [
  [1, [6]],
  [2, [5, 6]],
  [3, [4, 4, 4]],
] as const) {
  const x = f([1, 2, ...size])
  layer(`Dropout${dims}d`, [of(0.5)], [of(x)])
  layer(
    `MaxPool${dims}d`,
    [
      of(2),
      of(Array(dims).fill(2), options({ stride: 1, padding: 1, dilation: 1, returnIndices: true, ceilMode: true })),
    ],
    [of(x), of(x)],
  )
  layer(
    `AvgPool${dims}d`,
    [of(2), of(2, options({ stride: 1, padding: 1, ceilMode: true, countIncludePad: false }))],
    [of(x)],
  )
  layer(`AdaptiveAvgPool${dims}d`, [of(2)], [of(x)])
  layer(`AdaptiveMaxPool${dims}d`, [of(2, options({ returnIndices: true }))], [of(x)])
  layer(`LPPool${dims}d`, [of(2, 2), of(1.5, 2, options({ stride: 1, ceilMode: true }))], [of(x)])
  layer(`MaxUnpool${dims}d`, [of(2), of(2, options({ stride: 2, padding: 0 }))], [of(x, indices([1, 2, ...size]))])
  layer(
    `ConvTranspose${dims}d`,
    [
      of(2, 4, 2),
      of(2, 4, 2, options({ stride: 2, padding: 1, outputPadding: 1, groups: 2, bias: false, dilation: 2 })),
    ],
    [of(x), of(x)],
  )
  layer(`InstanceNorm${dims}d`, [of(2), of(2, options({ affine: true, trackRunningStats: true }))], [of(x), of(x)])
  layer(`ConstantPad${dims}d`, [of(1, 0.5)], [of(x)])
  for (const name of ['ZeroPad', 'ReflectionPad', 'ReplicationPad', 'CircularPad'])
    layer(`${name}${dims}d`, [of(1)], [of(x)])
}
for (const dims of [2, 3]) {
  layer(
    `FractionalMaxPool${dims}d`,
    [of(2, options({ outputSize: 2, returnIndices: true }))],
    [of(f([1, 2, 5, 5, 5].slice(0, dims + 2)))],
  )
}
layer(
  'Conv3d',
  [of(2, 4, 2), of(2, 4, 2, options({ padding: 'same', bias: false, groups: 2 }))],
  [of(f([1, 2, 4, 4, 4]))],
)
layer('BatchNorm2d', [of(3), of(3, options({ momentum: null, affine: false }))], [of(f([2, 3, 2, 2]))])
layer('BatchNorm3d', [of(3)], [of(f([2, 3, 2, 2, 2]))])
layer('LocalResponseNorm', [of(2), of(3, options({ alpha: 0.1, beta: 0.5, k: 2 }))], [of(f([1, 4, 3]))])
layer('Unflatten', [of(1, [2, -1])], [of(f([2, 4]))])
layer('Upsample', [of(options({ scaleFactor: 2 }))], [of(f([1, 2, 3]))])
layer('UpsamplingNearest2d', [of(options({ scaleFactor: 2 }))], [of(f([1, 2, 3, 3]))])
layer('UpsamplingBilinear2d', [of(options({ size: list([4, 5]) }))], [of(f([1, 2, 3, 3]))])
layer('PixelShuffle', [of(2)], [of(f([1, 4, 2, 2]))])
layer('PixelUnshuffle', [of(2)], [of(f([1, 1, 4, 4]))])
layer('ChannelShuffle', [of(2)], [of(f([1, 4, 2]))])
layer('Unfold', [of(2), of([2, 2], options({ stride: 2, padding: 1, dilation: 1 }))], [of(f([1, 2, 4, 4]))])
layer('Fold', [of([4, 4], 2), of(4, 2, options({ stride: 2 }))], [of(f([1, 8, 9])), of(f([1, 8, 4]))])
layer('CosineSimilarity', [of(), of(options({ dim: 0, eps: 1e-3 }))], [of(f([2, 3]), f([2, 3]))])
layer('PairwiseDistance', [of(), of(options({ p: 1, eps: 1e-3, keepdim: true }))], [of(f([2, 3]), f([2, 3]))])
layer('Bilinear', [of(2, 3, 4), of(2, 3, 4, options({ bias: false }))], [of(f([5, 2]), f([5, 3]))])
layer(
  'EmbeddingBag',
  [of(5, 3), of(5, 3, options({ mode: 'sum', includeLastOffset: false, paddingIdx: 0, maxNorm: 1 }))],
  [of(indices([2, 3])), of(indices([4]), options({ offsets: f([2], 'zeros', 'int64'), perSampleWeights: f([4]) }))],
)
layer('RNN', [of(3, 4), of(3, 4, options({ nonlinearity: 'relu', numLayers: 2 }))], [of(f([5, 2, 3]))])
for (const name of ['RNNCell', 'GRUCell'])
  layer(name, [of(3, 4), of(3, 4, options({ bias: false }))], [of(f([2, 3]), f([2, 4]))])
layer('LSTMCell', [of(3, 4)], [of(f([2, 3]), options({ hidden: f([2, 4]), cell: f([2, 4]) }))])
layer(
  'TransformerDecoderLayer',
  [
    of(4, 2, options({ dimFeedforward: 8 })),
    of(4, 2, options({ dimFeedforward: 8, normFirst: true, batchFirst: true })),
  ],
  [
    of(f([3, 2, 4]), f([5, 2, 4]), options({ targetIsCausal: true, memoryKeyPaddingMask: f([2, 5], 'zeros', 'bool') })),
    of(f([2, 3, 4]), f([2, 5, 4]), options({ targetMask: f([3, 3]), memoryMask: f([3, 5]) })),
  ],
)
layer(
  'Transformer',
  [of(options({ dModel: 4, nhead: 2, numEncoderLayers: 1, numDecoderLayers: 1, dimFeedforward: 4, batchFirst: true }))],
  [of(f([1, 2, 4]), f([1, 3, 4]), options({ sourceIsCausal: true, targetIsCausal: true }))],
)
for (const name of [
  'L1Loss',
  'MSELoss',
  'SmoothL1Loss',
  'HuberLoss',
  'SoftMarginLoss',
  'MultiLabelSoftMarginLoss',
  'HingeEmbeddingLoss',
  'PoissonNLLLoss',
  'KLDivLoss',
  'BCEWithLogitsLoss',
]) {
  layer(name, [of(), of(options({ reduction: 'sum' }))], [of(f([2, 3], 'unit'), f([2, 3], 'unit'))])
}
layer('BCELoss', [of(options({ reduction: 'none' }))], [of(f([2, 3], 'unit'), f([2, 3], 'unit'))])
layer('CrossEntropyLoss', [of(), of(options({ ignoreIndex: 1, labelSmoothing: 0.1 }))], [of(f([2, 3]), indices([2]))])
layer('NLLLoss', [of(), of(options({ ignoreIndex: 1 }))], [of(f([2, 3]), indices([2]))])
layer('MultiMarginLoss', [of(), of(options({ p: 2, margin: 0.5 }))], [of(f([2, 3]), indices([2]))])
layer('MultiLabelMarginLoss', [of()], [of(f([2, 3]), f([2, 3], 'zeros', 'int64'))])
layer('CosineEmbeddingLoss', [of(options({ margin: 0.1 }))], [of(f([2, 3]), f([2, 3]), f([2], 'ones'))])
layer('MarginRankingLoss', [of(options({ margin: 0.1 }))], [of(f([2]), f([2]), f([2], 'ones'))])
layer('TripletMarginLoss', [of(options({ margin: 0.1, p: 1, swap: true }))], [of(f([2, 3]), f([2, 3]), f([2, 3]))])
layer('GaussianNLLLoss', [of(options({ full: true, eps: 1e-3 }))], [of(f([2, 3]), f([2, 3]), f([2, 3], 'unit'))])
layer(
  'CTCLoss',
  [of(options({ blank: 0, zeroInfinity: true }))],
  [of(f([6, 2, 4]), f([2, 3], 'ones', 'int64'), [6, 5], [3, 2])],
)

const decoderLayer = made(
  'new TransformerDecoderLayer(4, 2, { dimFeedforward: 8 })',
  () => new lib.TransformerDecoderLayer(4, 2, { dimFeedforward: 8 }),
)
add(
  'TransformerDecoder',
  (layer, ...rest) => {
    try {
      new lib.TransformerDecoder(layer, ...rest).dispose()
    } finally {
      if (layer instanceof Module) layer.dispose()
    }
  },
  of(decoderLayer, 2),
)
add(
  'Transformer.generateSquareSubsequentMask',
  (...args) => lib.Transformer.generateSquareSubsequentMask(...args),
  of(3),
  of(2, options({ dtype: 'float64' })),
)
