/** Right calls of what lib/tensor writes by hand. The first argument of a method's target is the tensor itself. */
import * as voxtorch from '../../lib/index.js'
import { ConfigError, Generator, Tensor, zeros } from '../../lib/index.js'
import { type Args, add, exported, type Loose, learnt, lib, many, of, options } from './define.js'
import { dense as f, indices, list, made, value } from './values.js'

/** Methods and properties of a tensor, which is the first argument. */
function ofTensor(name: string, invoke: (tensor: Loose, ...args: Loose[]) => unknown, ...right: Args[]): void {
  add(
    `Tensor.${name}`,
    (self, ...args) => {
      if (!(self instanceof Tensor)) throw new ConfigError('the fuzz spoiled the object itself')
      return invoke(self, ...args)
    },
    ...right,
  )
}

exported(
  'tensor',
  of(1),
  of([1, 2, 3]),
  of(many(list([1, 2]), list([3, 4]))),
  of([1.5, 2], options({ dtype: 'bfloat16' })),
  of(
    made('new Float32Array([1, 2])', () => new Float32Array([1, 2])),
    options({ shape: list([2, 1]) }),
  ),
  of(
    made('Buffer.alloc(8)', () => Buffer.alloc(8)),
    options({ dtype: 'int64' }),
  ),
  of([true, false]),
  of(5n, options({ requiresGrad: true })),
)
for (const name of ['zeros', 'ones', 'empty', 'rand', 'randn']) {
  exported(
    name,
    of([2, 3]),
    of([], options({ dtype: 'float64', requiresGrad: true })),
    of([3], options({ device: 'meta' })),
  )
}
exported('full', of([2], 3), of([2, 2], 0.5, options({ dtype: 'float16', device: 'cpu' })))
exported('randint', of(0, 5, [3]), of(-2, 2, [2, 2], options({ dtype: 'int32' })))
exported('randperm', of(5), of(0, options({ generator: made('new Generator()', () => new Generator()) })))
exported('linspace', of(0, 1, 5), of(1, -1, 0, options({ dtype: 'float64' })))
exported('unravelIndex', of(indices([2]), [8, 9]), of(indices([2]), 99))
exported('eye', of(3), of(2, 3), of(2, options({ dtype: 'int64' })), of(2, 3, options({ dtype: 'bool' })))
exported('arange', of(5), of(1, 5), of(0, 1, 0.25, options({ dtype: 'float64' })))
for (const name of ['zerosLike', 'onesLike', 'emptyLike', 'randLike', 'randnLike'])
  exported(name, of(f([2, 3])), of(f([2]), options({ dtype: 'float64' })))
exported('fullLike', of(f([2, 3]), 7), of(f([2]), 1.5, options({ requiresGrad: true })))
exported('cat', of(many(f([2, 3]), f([1, 3]))), of(many(f([2, 3]), f([2, 1])), 1))
exported('stack', of(many(f([2]), f([2]))), of(many(f([2, 3]), f([2, 3])), -1))
exported('asFloat', of(2))
exported('slice', of(), of(1), of(0, 5, 2), of(null, -1))
exported('isTensor', of(f([1])), of(3))
exported('manualSeed', of(1), of(2n ** 40n))
exported('getRngState', of())
add('setRngState', (state) => lib.setRngState(state), of(made('getRngState()', () => lib.getRngState())))
add(
  'setNumThreads',
  (threads) => {
    const before = lib.getNumThreads()
    try {
      return lib.setNumThreads(threads)
    } finally {
      lib.setNumThreads(before)
    }
  },
  of(1),
  of(2),
)
exported('getNumThreads', of())
exported('memoryStats', of())
exported('isGradEnabled', of())
add('cuda.isAvailable', () => lib.cuda.isAvailable(), of())
add('cuda.deviceCount', () => lib.cuda.deviceCount(), of())
add('cuda.unavailableReason', () => lib.cuda.unavailableReason(), of())
add('cuda.synchronize', (index) => (lib.cuda.isAvailable() ? lib.cuda.synchronize(index) : undefined), of(0))

add(
  'Generator',
  (...args) => new (lib.Generator as Loose)(...args),
  of(),
  of(options({ seed: 3 })),
  of(options({ seed: 3n, device: 'cpu' })),
)
add(
  'Generator.manualSeed',
  (seed) => withGenerator((generator) => void generator.manualSeed(seed)),
  of(3),
  of(2n ** 60n),
)
add(
  'Generator.setState',
  (state) => withGenerator((generator) => void generator.setState(state)),
  of(made('a state', () => withGenerator((generator) => generator.getState()))),
)
add('Generator.seed', () => withGenerator((generator) => [generator.seed, generator.getState()]), of())

function withGenerator(use: (generator: Loose) => unknown): unknown {
  const generator = new Generator({ seed: 1 })
  try {
    return use(generator)
  } finally {
    generator.dispose()
  }
}

const doubled = made('(x) => x.mul(2)', () => (x: Loose) => (x instanceof Tensor ? x.mul(2) : undefined))
const makes = made('() => zeros([2])', () => () => zeros([2]))
const makesLater = made('async () => zeros([2])', () => async () => zeros([2]))
for (const name of ['scope', 'noGrad', 'enableGrad', 'inferenceMode', 'detectAnomaly'])
  exported(name, of(makes), of(makesLater))
add('profile', async (...args) => (await lib.profile(...args)).result, of(makes), of(makesLater))
exported(
  'autocast',
  of(options({ dtype: 'bfloat16' }), makes),
  of(options({ device: 'cpu', enabled: false }), makesLater),
)
exported('withDevice', of('meta', makes), of('cpu', makesLater))
exported('keepAlive', of(f([2])), of(many(f([2]), f([1]))))
exported('keepForever', of(f([2])))
add('autograd.grad', (...args) => lib.autograd.grad(...args), ...gradCalls())
add(
  'autograd.backward',
  (...args) => lib.autograd.backward(...args),
  of(learnt([])),
  of(many(learnt([2])), options({ gradients: many(f([2])), retainGraph: true })),
)
function gradCalls(): Args[] {
  return [
    of(learnt([]), learnt([2]), options({ allowUnused: true })),
    of(many(learnt([])), many(learnt([3])), options({ allowUnused: true, createGraph: false })),
  ]
}
exported(
  'gradcheck',
  of(doubled, many(learnt([2], 'float64'))),
  of(doubled, many(learnt([], 'float64')), options({ eps: 1e-5, atol: 1e-4, rtol: 1e-3 })),
)

const square = made(
  'Square',
  () =>
    class extends voxtorch.AutogradFunction {
      static override forward(ctx: Loose, x: Loose): Loose {
        ctx.saveForBackward(x)
        return x.mul(x)
      }
      static override backward(ctx: Loose, gradient: Loose): Loose {
        return voxtorch.scope(() => gradient.mul(ctx.savedTensors[0]).mul(2))
      }
    },
)
add(
  'AutogradFunction.apply',
  (type, ...args) =>
    typeof type?.apply === 'function' && type.prototype instanceof voxtorch.AutogradFunction
      ? applied(type, args)
      : undefined,
  of(square, f([2, 3])),
  of(square, learnt([2])),
)
function applied(type: Loose, args: unknown[]): unknown {
  try {
    return type.apply(...args)
  } catch (error) {
    // What the function's own code throws is its own.
    if (error instanceof TypeError && error.stack?.split('\n')[1]?.includes('tensors.ts'))
      throw new ConfigError('the function threw')
    throw error
  }
}

ofTensor('shape', (t) => [t.shape, t.strides, t.ndim, t.dtype, t.device], of(f([2, 3])))
ofTensor(
  'requiresGrad',
  (t, on) => {
    t.requiresGrad = on
    return t.requiresGrad
  },
  of(f([2]), true),
  of(f([2]), false),
)
ofTensor('isLeaf', (t) => [t.isLeaf, t.gradFn, t.disposed], of(f([2])))
ofTensor(
  'grad',
  (t, gradient) => {
    t.grad = gradient
    const now = t.grad
    t.grad = null
    return now
  },
  of(learnt([2]), f([2])),
  of(f([2]), null),
)
ofTensor('dispose', (t) => t.dispose(), of(f([2])))
ofTensor('item', (t) => t.item(), of(f([])), of(indices([1])))
ofTensor(
  'toArray',
  (t) => t.toArray(),
  of(f([2, 3])),
  of(f([2], 'normal', 'bfloat16')),
  of(f([1], 'normal', 'complex64')),
)
ofTensor('data', (t) => t.data(), of(f([2, 3])), of(indices([3])))
ofTensor('dataSync', (t) => t.dataSync(), of(f([2, 3])), of(f([2], 'indices', 'bool')))
ofTensor('toString', (t) => String(t), of(f([2, 3])), of(f([], 'nan')))
const range = made('slice(0, 1)', () => lib.slice(0, 1))
ofTensor(
  'at',
  (t, ...rest) => t.at(...rest),
  of(f([2, 3]), 0),
  of(f([2, 3]), -1, range),
  of(f([2, 3]), null, '...', 1),
  of(f([2, 3]), f([2, 3], 'indices', 'bool')),
  of(f([2, 3]), indices([4])),
  of(f([2, 3]), [0, 1, 1], true),
)
ofTensor(
  'setAt',
  (t, ...rest) => t.setAt(...rest),
  of(f([2, 3]), [0], 7),
  of(f([2, 3]), many(range, value(1)), f([1])),
  of(f([2, 3]), many(f([2, 3], 'indices', 'bool')), 0.5),
  of(f([2, 3]), many(indices([4])), f([4, 3])),
)
ofTensor('setData', (t, other) => t.setData(other), of(f([2]), f([3])), of(learnt([2]), f([2])))
ofTensor(
  'backward',
  (t, ...rest) => t.backward(...rest),
  of(learnt([])),
  of(learnt([2]), options({ gradient: f([2]), retainGraph: true })),
  of(learnt([]), options({ createGraph: false, inputs: many() })),
)
ofTensor('retainGrad', (t) => t.retainGrad(), of(learnt([2])))
ofTensor(
  'registerHook',
  (t, hook) => {
    const remove = t.registerHook(hook)
    remove()
  },
  of(learnt([2]), doubled),
)
ofTensor(
  'to',
  (t, ...rest) => t.to(...rest),
  of(f([2]), 'float64'),
  of(f([2]), 'meta'),
  of(f([2]), f([1], 'normal', 'float64')),
  of(f([2]), options({ dtype: 'float16', device: 'cpu', copy: true })),
  of(f([2]), 'cpu', options({ copy: true })),
)
ofTensor(
  'where',
  (t, ...rest) => t.where(...rest),
  of(f([2]), f([2], 'indices', 'bool'), f([2])),
  of(f([2]), f([2], 'indices', 'bool'), 0),
)
ofTensor('T', (t) => [t.T], of(f([2, 3])))
ofTensor('mT', (t) => [t.mT], of(f([2, 3])))
for (const name of ['float', 'double', 'half', 'bfloat16', 'long', 'int', 'bool', 'cpu'])
  ofTensor(name, (t) => t[name](), of(f([2, 3])))
ofTensor('cuda', (t, index) => (lib.cuda.isAvailable() ? undefined : t.cuda(index)), of(f([2, 3]), 0))
add(
  'Tensor',
  (handle) => {
    const forged = new (Tensor as Loose)(handle)
    return forged.disposed ? undefined : forged.shape
  },
  of(12345),
  of(0),
)
