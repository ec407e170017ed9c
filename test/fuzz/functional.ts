/** Right calls of `functional` and `init` beyond those of layers.ts. */
import { type Args, add, lib, many, of, options } from './define.js'
import { dense as f, indices, list, made } from './values.js'

const functional = (name: string, ...right: Args[]): void =>
  add(`functional.${name}`, (...args) => lib.functional[name](...args), ...right)

const x = f([2, 3])
for (const name of ['relu6', 'mish', 'selu', 'hardsigmoid', 'hardswish'])
  functional(name, of(x), of(x, options({ inplace: true })))
for (const name of ['relu_', 'selu_', 'sigmoid', 'tanh', 'logsigmoid']) functional(name, of(x))
for (const name of ['elu', 'celu'])
  functional(name, of(x), of(x, 0.5), of(x, options({ alpha: 0.5, inplace: true })), of(x, 0.5, true))
for (const name of ['elu_', 'celu_', 'hardshrink', 'softshrink']) functional(name, of(x), of(x, 0.5))
functional('leakyRelu', of(x), of(x, 0.2), of(x, options({ negativeSlope: 0.2 })))
functional('leakyRelu_', of(x), of(x, 0.2))
functional('hardtanh', of(x), of(x, -2, 3), of(x, options({ minVal: -2, maxVal: 3 })))
functional('hardtanh_', of(x), of(x, -2, 3))
functional('threshold', of(x, 0.1, 2), of(x, options({ threshold: 0.1, value: 2 })))
functional('threshold_', of(x, 0.1, 2))
functional('rrelu', of(x), of(x, 0.1, 0.3, true), of(x, options({ lower: 0.1, upper: 0.3, training: true })))
functional('rrelu_', of(x), of(x, 0.1, 0.3, true))
functional('softplus', of(x), of(x, 2, 10))
functional('prelu', of(x, f([1])), of(f([2, 3, 4]), f([3])))
functional('gumbelSoftmax', of(x), of(x, 0.5, true), of(x, options({ tau: 2, hard: true, dim: 0 })))

for (const [dims, size] of [
  [1, [6]],
  [2, [6, 5]],
  [3, [4, 5, 4]],
] as const) {
  const image = f([1, 2, ...size])
  const kernel = Array(dims).fill(2)
  for (const ending of ['', 'WithIndices']) {
    functional(
      `maxPool${dims}d${ending}`,
      of(image, 2),
      of(image, kernel, 1, 1, 1, true),
      of(image, 2, options({ stride: 1, padding: 1, dilation: 1, ceilMode: true })),
    )
    functional(`adaptiveMaxPool${dims}d${ending}`, of(image, 2), of(image, options({ outputSize: list(kernel) })))
    if (dims > 1) {
      functional(
        `fractionalMaxPool${dims}d${ending}`,
        of(image, 2, 2),
        of(image, options({ kernelSize: 2, outputRatio: 0.5 })),
      )
    }
  }
  functional(
    `avgPool${dims}d`,
    of(image, 2),
    of(image, kernel, 1, 1, true, false),
    of(image, 2, options({ stride: 1, padding: 1, countIncludePad: false })),
  )
  functional(`adaptiveAvgPool${dims}d`, of(image, 2), of(image, kernel))
  functional(`lpPool${dims}d`, of(image, 2, 2), of(image, 1.5, kernel, 1, true))
  functional(
    `maxUnpool${dims}d`,
    of(f([1, 2, ...kernel]), indices([1, 2, ...kernel]), 2),
    of(f([1, 2, ...kernel]), indices([1, 2, ...kernel]), options({ kernelSize: 2, stride: 2, padding: 0 })),
  )
  functional(
    `convTranspose${dims}d`,
    of(image, f([2, 3, ...kernel])),
    of(image, f([2, 2, ...kernel]), f([4]), 2, 1, 1, 2),
  )
}
functional(
  'conv3d',
  of(f([1, 2, 4, 4, 4]), f([3, 2, 2, 2, 2])),
  of(f([1, 2, 4, 4, 4]), f([2, 1, 2, 2, 2]), f([2]), 1, 1, 1, 2),
)
functional('convTbc', of(f([5, 2, 3]), f([2, 3, 4]), f([4])), of(f([5, 2, 3]), f([2, 3, 4]), f([4]), 1))
functional(
  'batchNorm',
  of(f([4, 3]), f([3]), f([3], 'unit')),
  of(f([4, 3]), null, null, f([3]), f([3]), true, 0.2, 1e-3),
)
functional('instanceNorm', of(f([2, 3, 4])), of(f([2, 3, 4]), f([3]), f([3], 'unit'), f([3]), f([3]), true, 0.2, 1e-3))
functional('groupNorm', of(f([2, 4, 3]), 2), of(f([2, 4, 3]), 2, f([4]), f([4]), 1e-3))
functional('bilinear', of(f([2, 3]), f([2, 4]), f([5, 3, 4])), of(f([2, 3]), f([2, 4]), f([5, 3, 4]), f([5])))
functional('pairwiseDistance', of(x, x), of(x, f([2, 3], 'unit'), 1, 1e-3, true))
functional('pdist', of(x), of(x, 1))
functional('channelShuffle', of(f([1, 4, 2, 2]), 2))
functional('pixelShuffle', of(f([1, 4, 2, 2]), 2))
functional('pixelUnshuffle', of(f([1, 1, 4, 4]), 2))
functional('unfold', of(f([1, 2, 4, 4]), 2), of(f([1, 2, 4, 4]), [2, 2], 1, 1, 2))
functional('fold', of(f([1, 8, 9]), [4, 4], 2), of(f([1, 8, 4]), 4, 2, 1, 0, 2))
functional('upsample', of(f([1, 2, 3]), 6), of(f([1, 2, 3, 3]), options({ scaleFactor: 2, mode: 'bilinear' })))
for (const name of ['upsampleNearest', 'upsampleBilinear'])
  functional(name, of(f([1, 2, 3, 3]), 6), of(f([1, 2, 3, 3]), options({ scaleFactor: 2 })))

const reductions = options({ reduction: 'sum' })
for (const name of ['softMarginLoss', 'hingeEmbeddingLoss', 'poissonNllLoss'])
  functional(name, of(x, f([2, 3], 'ones')), of(x, f([2, 3], 'ones'), reductions))
functional(
  'marginRankingLoss',
  of(x, x, f([2, 3], 'ones')),
  of(x, x, f([2, 3], 'ones'), options({ margin: 0.5, reduction: 'none' })),
)
functional(
  'gaussianNllLoss',
  of(x, x, f([2, 3], 'unit')),
  of(x, x, f([2, 3], 'unit'), options({ full: true, eps: 1e-3 })),
)
functional(
  'multiMarginLoss',
  of(x, indices([2])),
  of(x, indices([2]), options({ p: 2, margin: 0.5, weight: f([3], 'unit') })),
)
functional('multilabelMarginLoss', of(x, f([2, 3], 'zeros', 'int64')))
const distance = made(
  '(a, b) => a.sub(b).abs().sum(-1)',
  () => (a: typeof lib, b: typeof lib) => a.sub(b).abs().sum(-1),
)
functional(
  'tripletMarginWithDistanceLoss',
  of(x, x, x),
  of(x, x, x, options({ distanceFunction: distance, margin: 0.5, swap: true })),
)
for (const name of ['linearCrossEntropy', 'linearCrossEntropyAsync'])
  functional(
    name,
    of(x, f([4, 3]), indices([2])),
    of(x, f([4, 3]), indices([2]), options({ bias: f([4]), labelSmoothing: 0.1, chunkSize: 1 })),
  )
functional(
  'multiHeadAttentionForward',
  of(f([3, 1, 4]), f([5, 1, 4]), f([5, 1, 4]), 4, 2, f([12, 4]), f([12]), null, null, false, 0, f([4, 4]), f([4])),
)

const init = (name: string, ...right: Args[]): void =>
  add(`init.${name}`, (...args) => lib.init[name](...args), ...right)
init('eye_', of(x))
init('dirac_', of(f([4, 2, 3])), of(f([4, 2, 3]), 2))
init('sparse_', of(x, 0.5), of(x, 0.1, 0.2))

exportedLists()
function exportedLists(): void {
  for (const name of ['ParameterList', 'ParameterDict']) {
    const parameters = name === 'ParameterList' ? many(f([2]), f([3])) : options({ a: f([2]), b: f([3]) })
    add(
      name,
      (...args) => {
        const module = new lib[name](...args)
        try {
          return [module.parameters().length, module.at(name === 'ParameterList' ? -1 : 'a').shape]
        } finally {
          module.dispose()
        }
      },
      of(parameters),
    )
  }
}
