/** Right calls of what lib/nn writes by hand. */
import { Generator, Module, Parameter } from '../../lib/index.js'
import { type Args, add, type Loose, lib, many, of, options } from './define.js'
import { dense as f, indices, list, made, type Spec } from './values.js'

/** Makes a layer, runs it where there are inputs, frees it. */
export function layer(name: string, construct: Args[], forward: Args[] = []): void {
  const build = (args: unknown[]): Loose => new lib[name](...args)
  add(
    name,
    (...args) => {
      const module = build(args)
      try {
        return [(name.startsWith('Lazy') ? String(module) : module.summary()).length, module.parameters().length]
      } finally {
        module.dispose()
      }
    },
    ...construct,
  )
  forward.forEach((inputs, i) => {
    const settings = construct[Math.min(i, construct.length - 1)]!
    add(
      `${name}.forward${i > 0 ? ` ${i}` : ''}`,
      (...args) => {
        const module = build(settings.map(plain))
        try {
          return module.forward(...args)
        } finally {
          module.dispose()
        }
      },
      inputs,
    )
  })
}

/** The value of a specification without tensors. */
function plain(spec: Spec): unknown {
  if (spec.is === 'value') return spec.value
  if (spec.is === 'list') return spec.items.map(plain)
  if (spec.is === 'object') return Object.fromEntries(spec.entries.map(([name, entry]) => [name, plain(entry)]))
  if (spec.is === 'made') return spec.make()
  throw new Error('a tensor among the settings of a layer')
}

const dtype64 = { dtype: 'float64' }
layer(
  'Linear',
  [of(3, 4), of(3, 4, options({ bias: false, ...dtype64 }))],
  [of(f([2, 3])), of(f([3], 'normal', 'float64'))],
)
layer('Identity', [of()], [of(f([2]))])
layer('Flatten', [of(), of(0, 1)], [of(f([2, 3, 4])), of(f([2, 3]))])
layer('Dropout', [of(0.5), of()], [of(f([2]))])
layer('GELU', [of(), of(options({ approximate: 'tanh' }))], [of(f([2])), of(f([2]))])
for (const name of ['ReLU', 'SiLU', 'Tanh', 'Sigmoid']) layer(name, [of()], [of(f([2]))])
layer('Softmax', [of(-1)], [of(f([2, 3]))])
layer(
  'Conv1d',
  [
    of(2, 4, 3),
    of(2, 4, [3], options({ stride: 2, padding: 1, dilation: list([1]), groups: 2, paddingMode: 'reflect' })),
    of(2, 2, 3, options({ padding: 'same' })),
  ],
  [of(f([1, 2, 8])), of(f([2, 8])), of(f([1, 2, 8]))],
)
layer(
  'Conv2d',
  [of(2, 4, 3), of(2, 4, [3, 2], options({ stride: list([2, 1]), padding: 'valid', bias: false }))],
  [of(f([1, 2, 8, 8])), of(f([1, 2, 8, 8]))],
)
layer('Embedding', [of(5, 3), of(5, 3, options({ paddingIdx: -1 }))], [of(indices([2, 3])), of(indices([2]))])
layer(
  'LayerNorm',
  [of(3), of([2, 3], options({ eps: 1e-6, bias: false })), of(3, options({ elementwiseAffine: false }))],
  [of(f([2, 3])), of(f([4, 2, 3]))],
)
layer('RMSNorm', [of(3), of([2, 3], options({ eps: 1e-6 }))], [of(f([2, 3])), of(f([4, 2, 3]))])
layer('GroupNorm', [of(2, 4), of(1, 4, options({ affine: false }))], [of(f([2, 4, 3])), of(f([2, 4]))])
layer(
  'BatchNorm1d',
  [of(3), of(3, options({ momentum: null, trackRunningStats: true, affine: false }))],
  [of(f([4, 3])), of(f([4, 3, 2]))],
)
layer(
  'GRU',
  [of(3, 4), of(3, 4, options({ numLayers: 2, bidirectional: true, batchFirst: true, dropout: 0.1 }))],
  [of(f([5, 2, 3])), of(f([2, 5, 3]), null, options({ lengths: list([5, 3]) }))],
)
layer(
  'LSTM',
  [of(3, 4), of(3, 4, options({ bias: false, batchFirst: true }))],
  [
    of(f([5, 2, 3])),
    of(
      f([2, 5, 3]),
      options({ hidden: f([1, 2, 4]), cell: f([1, 2, 4]) }),
      options({ lengths: indices([2], 'int64') }),
    ),
  ],
)
layer(
  'MultiheadAttention',
  [of(4, 2), of(4, 2, options({ batchFirst: true, dropout: 0.1, kdim: 3, vdim: 5 }))],
  [
    of(
      f([3, 2, 4]),
      f([5, 2, 4]),
      f([5, 2, 4]),
      options({ keyPaddingMask: f([2, 5], 'zeros', 'bool'), needWeights: true, averageAttnWeights: false }),
    ),
    of(f([2, 3, 4]), f([2, 5, 3]), f([2, 5, 5]), options({ attnMask: f([3, 5]), needWeights: false })),
  ],
)
layer(
  'TransformerEncoderLayer',
  [
    of(4, 2, options({ dimFeedforward: 8 })),
    of(4, 2, options({ dimFeedforward: 8, activation: 'gelu', normFirst: true, batchFirst: true })),
  ],
  [
    of(f([3, 2, 4]), options({ isCausal: true })),
    of(f([2, 3, 4]), options({ mask: f([3, 3]), keyPaddingMask: f([2, 3], 'zeros', 'bool') })),
  ],
)
const encoderLayer = made(
  'new TransformerEncoderLayer(4, 2, { dimFeedforward: 8 })',
  () => new lib.TransformerEncoderLayer(4, 2, { dimFeedforward: 8 }),
)
add(
  'TransformerEncoder',
  (layer, ...rest) => {
    try {
      new lib.TransformerEncoder(layer, ...rest).dispose()
    } finally {
      if (layer instanceof Module) layer.dispose()
    }
  },
  of(encoderLayer, 2),
)
const linearModule = made('new Linear(3, 3)', () => new lib.Linear(3, 3))
/** Containers of modules: frees what they were given, too. */
function container(name: string, ...right: Args[]): void {
  add(
    name,
    (...args) => {
      try {
        const module = new lib[name](...args)
        return module.parameters().length
      } finally {
        disposeModules(args)
      }
    },
    ...right,
  )
}
function disposeModules(it: unknown): void {
  if (it instanceof Module) it.dispose()
  else if (Array.isArray(it)) for (const entry of it.slice(0, 100)) disposeModules(entry === it ? null : entry)
  else if (typeof it === 'object' && it !== null && Object.getPrototypeOf(it) === Object.prototype)
    disposeModules(Object.values(it))
}
container('Sequential', of(linearModule, linearModule), of())
container('ModuleList', of(many(linearModule, linearModule)), of())
container('ModuleDict', of(options({ a: linearModule })), of())
add(
  'Parameter',
  (data, ...rest) => new (Parameter as Loose)(data, ...rest),
  of(f([2])),
  of(indices([2]), options({ requiresGrad: false })),
)

const network = (): Loose => new lib.Sequential(new lib.Linear(3, 2), new lib.ReLU())
function ofModule(name: string, invoke: (module: Loose, ...args: Loose[]) => unknown, ...right: Args[]): void {
  add(
    `Module.${name}`,
    (...args) => {
      const module = network()
      try {
        return invoke(module, ...args)
      } finally {
        module.dispose()
      }
    },
    ...right,
  )
}
const nothing = (): void => {}
ofModule(
  'registerBuffer',
  (m, ...rest) => nothing.call(m.registerBuffer(...rest)),
  of('running', f([2])),
  of('none', null, options({ persistent: false })),
)
ofModule(
  'parameters',
  (m) => [m.parameters().length, m.namedParameters().length, m.namedBuffers().length, m.modules().length, m.summary()],
  of(),
)
ofModule('get', (m, path) => typeof m.get(path), of('0'), of(''))
ofModule('stateDict', (m) => Object.keys(m.stateDict()), of())
ofModule(
  'loadStateDict',
  (m, ...rest) => m.loadStateDict(...rest),
  of(options({ '0.weight': f([2, 3]), '0.bias': f([2]) })),
  of(options({ '0.weight': f([2, 3]) }), options({ strict: false })),
)
ofModule('train', (m, mode) => typeof m.train(mode).eval(), of(true), of())
ofModule(
  'to',
  (m, ...rest) => typeof m.to(...rest),
  of(options({ dtype: 'float64' })),
  of(options({ device: 'meta' })),
  of(),
)
ofModule(
  'freeze',
  (m, pattern) => typeof m.freeze(pattern).unfreeze(),
  of(),
  of('0'),
  of('*weight'),
  of(made('/bias/', () => /bias/)),
)
ofModule('zeroGrad', (m) => typeof m.zeroGrad(), of())
ofModule('apply', (m, fn) => typeof m.apply(fn), of(made('() => {}', () => nothing)))
ofModule('registerForwardHook', (m, hook) => m.registerForwardHook(hook)(), of(made('() => {}', () => nothing)))
ofModule('dispose', (m) => m.dispose(), of())

// ---- functional and init

const functional = (name: string, ...right: Args[]): void =>
  add(`functional.${name}`, (...args) => lib.functional[name](...args), ...right)
for (const name of ['relu', 'gelu', 'silu', 'softsign', 'tanhshrink']) functional(name, of(f([2])))
functional('softmin', of(f([2, 3]), -1))
functional('localResponseNorm', of(f([1, 4, 3]), 2), of(f([1, 4, 3]), 3, options({ alpha: 0.1, beta: 1, k: 2 })))
for (const name of ['alphaDropout', 'featureAlphaDropout']) functional(name, of(f([2, 3]), 0.5))
functional('dropout1d', of(f([2, 3]), 0.5), of(f([1, 2, 3]), 0.1, options({ training: false })))
functional('dropout2d', of(f([1, 2, 3, 2]), 0.5))
functional('dropout3d', of(f([2, 3, 2, 1]), 0.5))
functional(
  'gridSample',
  of(f([1, 2, 3, 4]), f([1, 2, 2, 2])),
  of(f([1, 1, 3, 3]), f([1, 1, 1, 2]), options({ mode: 'nearest' })),
)
functional('affineGrid', of(f([1, 2, 3]), [1, 1, 2, 3], options({ alignCorners: true })))
functional(
  'embeddingBag',
  of(indices([2, 3]), f([5, 4])),
  of(indices([2, 3]), f([5, 4]), options({ mode: 'max', paddingIdx: 1 })),
)
functional('multilabelSoftMarginLoss', of(f([2, 3]), f([2, 3])))
functional('softmax', of(f([2, 3]), -1))
functional('logSoftmax', of(f([2, 3]), 0))
functional('glu', of(f([2, 4])), of(f([2, 4]), 0))
functional('dropout', of(f([2]), 0.5), of(f([2]), 0.1, options({ training: false })))
functional('linear', of(f([2, 3]), f([4, 3])), of(f([2, 3]), f([4, 3]), f([4])))
functional(
  'conv1d',
  of(f([1, 2, 8]), f([3, 2, 3])),
  of(f([1, 2, 8]), f([3, 2, 3]), options({ bias: f([3]), stride: 2, padding: list([1]), dilation: 1, groups: 1 })),
  of(f([1, 2, 8]), f([3, 2, 3]), options({ padding: 'same' })),
)
functional('conv2d', of(f([1, 2, 8, 8]), f([3, 2, 3, 3]), options({ padding: 1 })))
functional('embedding', of(indices([2, 3]), f([5, 4])), of(indices([2]), f([5, 4]), options({ paddingIdx: -1 })))
functional('oneHot', of(indices([3])), of(indices([3]), 4))
functional('layerNorm', of(f([2, 3]), [3]), of(f([2, 3]), [3], options({ weight: f([3]), bias: f([3]), eps: 1e-3 })))
functional('rmsNorm', of(f([2, 3]), [3]), of(f([2, 3]), [3], options({ weight: f([3]), eps: null })))
functional('normalize', of(f([2, 3])), of(f([2, 3]), options({ p: 1, dim: 0, eps: 1e-6 })))
functional('cosineSimilarity', of(f([2, 3]), f([2, 3])), of(f([2, 3]), f([2, 3]), options({ dim: 0 })))
functional(
  'scaledDotProductAttention',
  of(f([1, 2, 3, 4]), f([1, 2, 5, 4]), f([1, 2, 5, 4])),
  of(f([1, 2, 3, 4]), f([1, 2, 3, 4]), f([1, 2, 3, 4]), options({ isCausal: true, scale: 0.5 })),
  of(
    f([1, 4, 3, 4]),
    f([1, 2, 3, 4]),
    f([1, 2, 3, 4]),
    options({ enableGqa: true, attnMask: f([3, 3], 'ones', 'bool') }),
  ),
)
functional(
  'pad',
  of(f([2, 3]), [1, 1]),
  of(f([1, 2, 3]), [1, 1], options({ mode: 'reflect' })),
  of(f([2, 3]), [1, -1], options({ value: 2 })),
)
functional(
  'interpolate',
  of(f([1, 2, 4]), options({ size: 8 })),
  of(f([1, 2, 4, 4]), options({ scaleFactor: list([2, 0.5]), mode: 'bilinear', alignCorners: true })),
)
for (const name of ['mseLoss', 'l1Loss', 'huberLoss', 'smoothL1Loss'])
  functional(name, of(f([2, 3]), f([2, 3])), of(f([2]), f([2]), options({ reduction: 'sum' })))
functional(
  'binaryCrossEntropy',
  of(f([2], 'unit'), f([2], 'unit')),
  of(f([2], 'unit'), f([2], 'unit'), options({ weight: f([2], 'unit'), reduction: 'none' })),
)
functional(
  'binaryCrossEntropyWithLogits',
  of(f([2]), f([2], 'unit')),
  of(f([2]), f([2], 'unit'), options({ weight: f([2]), posWeight: f([2]) })),
)
functional(
  'crossEntropy',
  of(f([2, 3]), indices([2])),
  of(
    f([2, 3, 4]),
    indices([2, 4]),
    options({ weight: f([3], 'unit'), ignoreIndex: 0, labelSmoothing: 0.1, reduction: 'none' }),
  ),
  of(f([2, 3]), f([2, 3], 'unit')),
)
functional(
  'nllLoss',
  of(f([2, 3]), indices([2])),
  of(f([2, 3, 4]), indices([2, 4]), options({ weight: f([3], 'unit'), ignoreIndex: 1 })),
)
functional(
  'klDiv',
  of(f([2, 3]), f([2, 3], 'unit')),
  of(f([2, 3]), f([2, 3]), options({ reduction: 'batchmean', logTarget: true })),
)
functional(
  'cosineEmbeddingLoss',
  of(f([2, 3]), f([2, 3]), f([2], 'ones')),
  of(f([2, 3]), f([2, 3]), f([2], 'ones'), options({ margin: 0.1, reduction: 'none' })),
)
functional(
  'tripletMarginLoss',
  of(f([2, 3]), f([2, 3]), f([2, 3])),
  of(f([2, 3]), f([2, 3]), f([2, 3]), options({ margin: 0.5, p: 1, swap: true })),
)
functional(
  'ctcLoss',
  of(f([6, 2, 4]), f([2, 3], 'ones', 'int64'), [6, 5], [3, 2]),
  of(
    f([6, 2, 4]),
    f([2, 3], 'ones', 'int64'),
    f([2], 'ones', 'int64'),
    f([2], 'ones', 'int64'),
    options({ blank: 0, zeroInfinity: true, reduction: 'sum' }),
  ),
)

const init = (name: string, ...right: Args[]): void =>
  add(`init.${name}`, (...args) => lib.init[name](...args), ...right)
const seeded = made('new Generator()', () => new Generator({ seed: 1 }))
init('uniform_', of(f([2, 3])), of(f([2, 3]), -1, 1, options({ generator: seeded })))
init('normal_', of(f([2, 3])), of(f([2, 3]), 1, 2))
init('constant_', of(f([2, 3]), 3))
init('zeros_', of(f([2, 3])))
init('ones_', of(f([2, 3])))
for (const name of ['xavierUniform_', 'xavierNormal_']) init(name, of(f([2, 3])), of(f([2, 3, 4]), 2))
for (const name of ['kaimingUniform_', 'kaimingNormal_'])
  init(name, of(f([2, 3])), of(f([2, 3]), options({ a: 1, mode: 'fanOut', nonlinearity: 'relu' })))
init('truncNormal_', of(f([2, 3])), of(f([2, 3]), 0, 1, 2, 3, options({ generator: seeded })))
init('orthogonal_', of(f([2, 3])), of(f([4, 2]), 2))
init('calculateFans', of(f([2, 3])))
init('calculateGain', of('relu'), of('leakyRelu', 0.2))
init('skipInit', of(made('() => 3', () => () => 3)))
