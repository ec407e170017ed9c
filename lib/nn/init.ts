/**
 * Weight initializations, in place and without gradient; each returns its tensor. They draw the same random numbers as
 * PyTorch's in the same order, so the same seed gives the same weights.
 */

import { requireFunction, shown } from '../base/arguments.js'
import { requireOptions } from '../base/check.js'
import { ConfigError, ShapeError } from '../base/errors.js'
import {
  type Generator,
  eye as makeEye,
  tensor as makeTensor,
  noGrad,
  ops,
  randperm,
  scope,
  type Tensor,
} from '../tensor/index.js'
import { otherRank, requireNumbers, requireTensors } from './check.js'

export type Nonlinearity = 'linear' | 'conv1d' | 'conv2d' | 'sigmoid' | 'tanh' | 'relu' | 'leakyRelu' | 'selu'
export type FanMode = 'fanIn' | 'fanOut'

export interface InitOptions {
  /** Random number generator. Default: the device's default generator, which `manualSeed` seeds. */
  generator?: Generator
}

export interface KaimingOptions extends InitOptions {
  /** Negative slope of the leaky ReLU that follows. Default: 0. */
  a?: number
  /** Pass whose variance is preserved: forward (default) or backward. */
  mode?: FanMode
  /** Nonlinearity that follows. Default: 'leakyRelu'. */
  nonlinearity?: Nonlinearity
}

function initOptions(options: InitOptions): InitOptions {
  requireOptions('init', options, ['generator'])
  return options
}

let skipping = false

/**
 * Run `build` with initialization disabled: its parameters are uninitialized memory and no random number is drawn. For modules
 * whose weights are loaded right away. `build` must be synchronous.
 */
export function skipInit<T>(build: () => T): T {
  const before = skipping
  skipping = true
  try {
    return requireFunction(build)()
  } finally {
    skipping = before
  }
}

function fill(tensor: Tensor, change: (tensor: Tensor) => void): Tensor {
  requireTensors('init', tensor)
  if (!skipping) scope(() => noGrad(() => change(tensor)))
  return tensor
}

/** Return the recommended gain of a nonlinearity; `param` is leaky ReLU's slope (0.01). */
export function calculateGain(nonlinearity: Nonlinearity, param = 0.01): number {
  requireNumbers('calculateGain', { param })
  switch (nonlinearity) {
    case 'linear':
    case 'conv1d':
    case 'conv2d':
    case 'sigmoid':
      return 1
    case 'tanh':
      return 5 / 3
    case 'relu':
      return Math.sqrt(2)
    case 'leakyRelu':
      return Math.sqrt(2 / (1 + param ** 2))
    case 'selu':
      return 3 / 4
    default:
      throw new ConfigError(`calculateGain: expected a known nonlinearity, got ${shown(nonlinearity)}`, {
        nonlinearity,
      })
  }
}

/** Return the numbers of inputs and outputs of a weight [out, in, ...kernel]. */
export function calculateFans(tensor: Tensor): { fanIn: number; fanOut: number } {
  requireTensors('init', tensor)
  const [outputs, inputs, ...kernel] = tensor.shape
  if (outputs === undefined || inputs === undefined) {
    throw new ShapeError(`calculateFans: expected a tensor of at least two dimensions, got [${tensor.shape}]`, {
      shape: tensor.shape,
    })
  }
  const receptive = kernel.reduce((product, size) => product * size, 1)
  return { fanIn: inputs * receptive, fanOut: outputs * receptive }
}

export function uniform_(tensor: Tensor, low = 0, high = 1, options: InitOptions = {}): Tensor {
  const { generator } = initOptions(options)
  return fill(tensor, (t) => t.uniform_(low, high, { generator }))
}

export function normal_(tensor: Tensor, mean = 0, std = 1, options: InitOptions = {}): Tensor {
  const { generator } = initOptions(options)
  return fill(tensor, (t) => t.normal_(mean, std, { generator }))
}

export function constant_(tensor: Tensor, value: number): Tensor {
  return fill(tensor, (t) => t.fill_(value))
}

export function zeros_(tensor: Tensor): Tensor {
  return constant_(tensor, 0)
}

export function ones_(tensor: Tensor): Tensor {
  return constant_(tensor, 1)
}

/** Fill uniformly with variance 2 gain² / (fanIn + fanOut) (Glorot and Bengio 2010). */
export function xavierUniform_(tensor: Tensor, gain = 1, options: InitOptions = {}): Tensor {
  const bound = Math.sqrt(3) * xavierStd(tensor, gain)
  return uniform_(tensor, -bound, bound, options)
}

/** Fill normally with variance 2 gain² / (fanIn + fanOut) (Glorot and Bengio 2010). */
export function xavierNormal_(tensor: Tensor, gain = 1, options: InitOptions = {}): Tensor {
  return normal_(tensor, 0, xavierStd(tensor, gain), options)
}

/** Fill uniformly with variance gain² / fan (He et al. 2015). */
export function kaimingUniform_(tensor: Tensor, options: KaimingOptions = {}): Tensor {
  const bound = Math.sqrt(3) * kaimingStd(tensor, options)
  return uniform_(tensor, -bound, bound, drawing(options))
}

/** Fill normally with variance gain² / fan (He et al. 2015). */
export function kaimingNormal_(tensor: Tensor, options: KaimingOptions = {}): Tensor {
  return normal_(tensor, 0, kaimingStd(tensor, options), drawing(options))
}

/** Fill normally; values outside [low, high] are redrawn. */
export function truncNormal_(tensor: Tensor, mean = 0, std = 1, low = -2, high = 2, options: InitOptions = {}): Tensor {
  const { generator } = initOptions(options)
  requireNumbers('truncNormal_', { mean, std, low, high })
  if (!(std > 0 && low < high)) {
    throw new ConfigError(`truncNormal_: expected std > 0 and low < high, got std ${std}, low ${low}, high ${high}`, {
      std,
      low,
      high,
    })
  }
  return fill(tensor, (t) => {
    if (t.device === 'meta' || t.numel() === 0) return
    const inside = normalCdf((high - mean) / std) - normalCdf((low - mean) / std)
    if (inside > 0.3) redrawNormal(t, mean, std, [low, high], generator)
    else rejectUniform(t, mean, std, [low, high], generator)
  })
}

/** Fill with a (semi-)orthogonal matrix; the trailing dimensions are flattened (Saxe et al. 2013). */
export function orthogonal_(tensor: Tensor, gain = 1, options: InitOptions = {}): Tensor {
  const { generator } = initOptions(options)
  requireTensors('orthogonal_', tensor)
  if (tensor.ndim < 2) {
    throw new ShapeError(`orthogonal_: expected a tensor of at least two dimensions, got [${tensor.shape}]`, {
      shape: tensor.shape,
    })
  }
  return fill(tensor, (t) => {
    if (t.device === 'meta' || t.numel() === 0) return
    const rows = t.size(0)
    const wide = rows < t.numel() / rows
    const random = t.newEmpty([rows, t.numel() / rows]).normal_(0, 1, { generator })
    const { Q, R } = ops.linalgQr(wide ? random.t() : random)
    const signed = Q.mul(R.diagonal().sign())
    t.copy_((wide ? signed.t() : signed).reshape(t.shape)).mul_(gain)
  })
}

/** Fill a matrix with the identity: ones on its diagonal, and zeros elsewhere. */
export function eye_(tensor: Tensor): Tensor {
  requireRank('eye_', tensor, [2])
  return fill(tensor, (t) => t.copy_(makeEye(t.size(0), t.size(1), { dtype: t.dtype, device: t.device })))
}

/**
 * Fill the weight [out, in, ...kernel] of a convolution so that it preserves as many channels as possible: ones at the kernel's
 * center, and zeros elsewhere.
 * @param groups groups of the convolution, each of which preserves its channels
 */
export function dirac_(tensor: Tensor, groups = 1): Tensor {
  requireRank('dirac_', tensor, [3, 4, 5])
  const [outputs, inputs, ...kernel] = tensor.shape as [number, number, ...number[]]
  if (!Number.isSafeInteger(groups) || groups < 1 || outputs % groups !== 0) {
    throw new ConfigError(`dirac_: expected groups to divide the ${outputs} output channels, got ${shown(groups)}`, {})
  }
  const perGroup = outputs / groups
  const center = kernel.map((size) => Math.floor(size / 2))
  return fill(tensor, (t) => {
    t.zero_()
    if (t.device === 'meta' || kernel.includes(0)) return
    for (let group = 0; group < groups; group++) {
      for (let i = 0; i < Math.min(perGroup, inputs); i++) t.setAt([group * perGroup + i, i, ...center], 1)
    }
  })
}

/**
 * Fill a matrix normally with deviation `std`, and set the fraction `sparsity` of each column to 0, at random (Martens 2010).
 * The zeros are drawn by the default generator, as in PyTorch.
 */
export function sparse_(tensor: Tensor, sparsity: number, std = 0.01, options: InitOptions = {}): Tensor {
  const { generator } = initOptions(options)
  requireRank('sparse_', tensor, [2])
  requireNumbers('sparse_', { sparsity, std })
  if (!(sparsity >= 0 && sparsity <= 1)) {
    throw new ConfigError(`sparse_: expected sparsity from 0 to 1, got ${sparsity}`, { sparsity })
  }
  return fill(tensor, (t) => {
    t.normal_(0, std, { generator })
    if (t.device === 'meta') return
    const [rows, columns] = t.shape as [number, number]
    const zeros = Math.ceil(sparsity * rows)
    for (let column = 0; column < columns; column++) {
      const chosen = randperm(rows, { device: 'cpu' }).narrow(0, 0, zeros).to({ device: t.device })
      t.select(1, column).indexFill_(0, chosen, 0)
    }
  })
}

function requireRank(where: string, tensor: Tensor, ranks: number[]): void {
  const wrong = otherRank(
    `init.${where}`,
    tensor,
    ranks,
    `of ${ranks.join(', ').replace(/, (\d)$/, ' or $1')} dimensions`,
  )
  if (wrong) throw wrong
}

const drawing = ({ generator }: InitOptions): InitOptions => ({ generator })

function xavierStd(tensor: Tensor, gain: number): number {
  requireNumbers('xavier', { gain })
  const { fanIn, fanOut } = calculateFans(tensor)
  return gain * Math.sqrt(2 / (fanIn + fanOut))
}

function kaimingStd(tensor: Tensor, options: KaimingOptions): number {
  requireOptions('init.kaiming', options, ['a', 'mode', 'nonlinearity', 'generator'])
  const { a = 0, mode = 'fanIn', nonlinearity = 'leakyRelu' } = options
  if (mode !== 'fanIn' && mode !== 'fanOut')
    throw new ConfigError(`kaiming: expected mode to be 'fanIn' or 'fanOut', got ${shown(mode)}`)
  return calculateGain(nonlinearity, a) / Math.sqrt(calculateFans(tensor)[mode])
}

function normalCdf(x: number): number {
  return scope(
    () =>
      (1 +
        Number(
          makeTensor([x / Math.SQRT2], { dtype: 'float64' })
            .erf()
            .item(),
        )) /
      2,
  )
}

type Bounds = [low: number, high: number]

function redrawNormal(t: Tensor, mean: number, std: number, bounds: Bounds, generator: Generator | undefined): void {
  // Round the bounds to the tensor's dtype, or a rounded value could always be out of bounds.
  const [low, high] = makeTensor(bounds, { dtype: t.dtype }).toArray() as Bounds
  let result = t.normal_(mean, std, { generator })
  for (;;) {
    const outside = result.lt(low).logicalOr(result.gt(high))
    if (!outside.any().item()) break
    result = result.emptyLike().normal_(mean, std, { generator }).where(outside, result)
  }
  t.copy_(result)
}

/** Sample for bounds far from the mean: uniform proposals, accepted in proportion to the density. */
function rejectUniform(t: Tensor, mean: number, std: number, bounds: Bounds, generator: Generator | undefined): void {
  const peak = Math.max(bounds[0], Math.min(mean, bounds[1]))
  // Farther out no proposal is accepted: the density is below e^-40 of its peak.
  const reach = Math.min(9 * std, (40 * std ** 2) / Math.abs(peak - mean))
  const [low, high] = [Math.max(bounds[0], peak - reach), Math.min(bounds[1], peak + reach)]
  const logPeak = -0.5 * ((peak - mean) / std) ** 2
  const candidates = t.emptyLike()
  const draw = t.emptyLike()
  const rejected = () => {
    candidates.sub_(mean).div_(std).pow_(2).mul_(-0.5).sub_(logPeak)
    return draw.uniform_(0, 1, { generator }).log_().gt(candidates)
  }
  t.uniform_(low, high, { generator })
  candidates.copy_(t)
  let pending = rejected()
  while (pending.any().item()) {
    candidates.uniform_(low, high, { generator })
    t.copy_(candidates.where(pending, t))
    pending = pending.logicalAnd(rejected())
  }
}
