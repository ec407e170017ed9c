import { requireBoolean } from '../base/check.js'
import { type DType, ops, scope, type Tensor } from '../tensor/index.js'
import { type ByPosition, byPosition } from './by-position.js'
import { requireTensors } from './check.js'

export interface InPlaceOptions {
  /** Overwrite the input and return it. Default: false. */
  inplace?: boolean
}

export interface SoftmaxOptions {
  /** Dimension along which the results sum to 1. */
  dim: number
  /** Convert the input to this dtype first. */
  dtype?: DType | null
}

// biome-ignore lint/suspicious/noExplicitAny: operators of several signatures.
type Run = (input: Tensor, ...settings: any[]) => Tensor

/** An activation with settings `O`, in the order of `names`, and `inplace`. A setting that is left out has ATen's default. */
function activation<O extends object, const N extends readonly (keyof O & string)[]>(
  where: string,
  names: N,
  apart: Run,
  inPlace: Run,
) {
  const run = (input: Tensor, options: O & InPlaceOptions): Tensor => {
    const { inplace = false } = options
    requireBoolean(where, 'inplace', inplace)
    return (inplace ? inPlace : apart)(input, ...names.map((name) => options[name]))
  }
  const places: readonly string[] = [...names, 'inplace']
  // The compiler cannot tell that the names of an unknown type and `inplace` are keys of the options.
  type Places = readonly [...N, 'inplace']
  return byPosition(where, places as readonly never[], run) as unknown as ByPosition<
    [input: Tensor],
    O & InPlaceOptions,
    Places,
    Tensor
  >
}

type Plain = Record<never, never>

/** Return max(0, x). */
export const relu = activation<Plain, []>('relu', [], ops.relu, ops.relu_)

/** Return min(max(0, x), 6). */
export const relu6 = activation<Plain, []>('relu6', [], ops.relu6, ops.relu6_)

/** Return x sigmoid(x). */
export const silu = activation<Plain, []>('silu', [], ops.silu, ops.silu_)

/** Return x tanh(softplus(x)) (Misra 2019, https://arxiv.org/abs/1908.08681). */
export const mish = activation<Plain, []>('mish', [], ops.mish, ops.mish_)

/** Return the scaled exponential linear unit (Klambauer et al. 2017, https://arxiv.org/abs/1706.02515). */
export const selu = activation<Plain, []>('selu', [], ops.selu, ops.selu_)

/** Return min(max(x + 3, 0), 6) / 6. */
export const hardsigmoid = activation<Plain, []>('hardsigmoid', [], ops.hardsigmoid, ops.hardsigmoid_)

/** Return x min(max(x + 3, 0), 6) / 6 (https://arxiv.org/abs/1905.02244). */
export const hardswish = activation<Plain, []>('hardswish', [], ops.hardswish, ops.hardswish_)

/** Return x where it is positive, else alpha (exp(x) - 1) (https://arxiv.org/abs/1511.07289). Default: alpha 1. */
export const elu = activation<{ alpha?: number }, ['alpha']>('elu', ['alpha'], ops.elu, ops.elu_)

/** Return max(0, x) + min(0, alpha (exp(x / alpha) - 1)) (https://arxiv.org/abs/1704.07483). Default: alpha 1. */
export const celu = activation<{ alpha?: number }, ['alpha']>('celu', ['alpha'], ops.celu, ops.celu_)

/** Return x where it is positive, else `negativeSlope` x. Default: 0.01. */
export const leakyRelu = activation<{ negativeSlope?: number }, ['negativeSlope']>(
  'leakyRelu',
  ['negativeSlope'],
  ops.leakyRelu,
  ops.leakyRelu_,
)

/** Return min(max(x, minVal), maxVal). Default: -1 and 1. */
export const hardtanh = activation<{ minVal?: number; maxVal?: number }, ['minVal', 'maxVal']>(
  'hardtanh',
  ['minVal', 'maxVal'],
  ops.hardtanh,
  ops.hardtanh_,
)

/** Return x where it is above `threshold`, else `value`. */
export const threshold = activation<{ threshold: number; value: number }, ['threshold', 'value']>(
  'threshold',
  ['threshold', 'value'],
  ops.threshold,
  ops.threshold_,
)

/**
 * Return x where it is positive, else x times a slope: with `training` drawn uniformly from [lower, upper] for each element,
 * otherwise their mean. Default: 1/8, 1/3 and no training.
 */
export const rrelu = activation<{ lower?: number; upper?: number; training?: boolean }, ['lower', 'upper', 'training']>(
  'rrelu',
  ['lower', 'upper', 'training'],
  ops.rrelu,
  ops.rrelu_,
)

export const { celu_, elu_, hardtanh_, leakyRelu_, relu_, rrelu_, selu_, threshold_ } = ops
export const { hardshrink, logSigmoid: logsigmoid, prelu, sigmoid, softplus, softshrink, tanh } = ops

/** Return x Φ(x), exactly, or with `approximate: 'tanh'` by the tanh formula. */
export const gelu = byPosition(
  'gelu',
  [],
  (input: Tensor, { approximate = 'none' }: { approximate?: 'none' | 'tanh' }): Tensor =>
    ops.gelu(input, { approximate }),
  ['approximate'],
)

/** Return exp(x) / Σ exp(x), with the sum along `dim`. */
export const softmax = byPosition(
  'softmax',
  ['dim'],
  (input: Tensor, { dim, dtype = null }: SoftmaxOptions): Tensor => ops.softmax(input, dim, dtype),
  ['dtype'],
)

/** Return the logarithm of {@link softmax}. */
export const logSoftmax = byPosition(
  'logSoftmax',
  ['dim'],
  (input: Tensor, { dim, dtype = null }: SoftmaxOptions): Tensor => ops.logSoftmax(input, dim, dtype),
  ['dtype'],
)

/** Return {@link softmax} of -x. */
export const softmin = byPosition(
  'softmin',
  ['dim'],
  (input: Tensor, { dim, dtype = null }: SoftmaxOptions): Tensor => {
    requireTensors('softmin', input)
    return scope(() => ops.softmax(input.neg(), dim, dtype))
  },
  ['dtype'],
)

export interface GumbelSoftmaxOptions {
  /** Temperature. Default: 1. */
  tau?: number
  /** Return one-hot samples with the gradient of the soft ones. Default: false. */
  hard?: boolean
  /** Without effect, as in PyTorch, where it is deprecated. */
  eps?: number
  /** Dimension of the categories. Default: -1. */
  dim?: number
}

/** Sample from the Gumbel-softmax distribution of logits (Jang et al. 2016, https://arxiv.org/abs/1611.01144). */
export const gumbelSoftmax = byPosition(
  'gumbelSoftmax',
  ['tau', 'hard', 'eps', 'dim'],
  (logits: Tensor, { tau = 1, hard = false, eps = 1e-10, dim = -1 }: GumbelSoftmaxOptions): Tensor => {
    requireTensors('gumbelSoftmax', logits)
    if (eps !== 1e-10) process.emitWarning('gumbelSoftmax: eps has no effect, as in PyTorch')
    requireBoolean('gumbelSoftmax', 'hard', hard)
    return scope(() => {
      const gumbels = logits.emptyLike().exponential_().log().neg()
      const soft = logits.add(gumbels).div(tau).softmax(dim)
      if (!hard) return soft
      const { indices } = soft.max(dim, true)
      const chosen = logits.zerosLike().scatter_(dim, indices, 1)
      return chosen.sub(soft.detach()).add(soft)
    })
  },
)

/** Return x / (1 + |x|). */
export function softsign(input: Tensor): Tensor {
  requireTensors('softsign', input)
  return scope(() => input.div(input.abs().add(1)))
}

/** Return x - tanh(x). */
export function tanhshrink(input: Tensor): Tensor {
  requireTensors('tanhshrink', input)
  return scope(() => input.sub(input.tanh()))
}

/** Split `dim` (default -1) into halves a and b, and return a sigmoid(b). */
export const glu = byPosition(
  'glu',
  ['dim'],
  (input: Tensor, { dim = -1 }: { dim?: number }): Tensor => ops.glu(input, dim),
)
