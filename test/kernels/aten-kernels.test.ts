import { describe, expect, it } from 'vitest'
import * as vt from '../../lib/index.js'
import { op } from '../../lib/native/call.js'
import { foreach, type Job, queuedOps, started } from '../../lib/train/foreach.js'
import { numbers, ROUNDING, relativeError } from '../helpers.js'

// Every fused or multi-tensor kernel of ATen that lib calls, in each dtype against itself in float64: a kernel may be wrong in
// one dtype, and where a tensor fills a vector register. (In PyTorch 2.13 `_fused_sgd_` is, and the product of `_foreach_mul_`
// with a number rounds the number.) The optimizers made of them: test/train/precision-reference.test.ts.

type Tensor = vt.Tensor
type Kernel = (...inputs: Tensor[]) => Tensor | Promise<Tensor>
const { functional: F, ops } = vt
const DTYPES = ['float64', 'float32', 'bfloat16', 'float16'] as const
/** Less than a register, some registers and a rest, many registers. */
const SIZES = [1, 7, 67, 1000]

/** Numbers of either sign, in the same order of magnitude, that bfloat16 holds. */
const made = (shape: readonly number[], seed: number, isPositive = false): Tensor => {
  const random = new vt.Random(seed)
  const count = shape.reduce((product, size) => product * size, 1)
  const values = Array.from(
    { length: count },
    () => (0.25 + 1.75 * random.float()) * (isPositive || random.float() < 0.5 ? 1 : -1),
  )
  return vt.tensor(Float64Array.from(values), { shape, dtype: 'bfloat16' }).to({ dtype: 'float64' })
}

/** A kernel of the optimizers' that changes the first input. */
const listed =
  (name: keyof ReturnType<typeof foreach>, ...rest: unknown[]): Kernel =>
  async (self, ...others) => {
    const jobs: Job[] = []
    const changed = self.clone()
    foreach(jobs)[name]([changed], ...others.map((one) => [one]), ...rest)
    await Promise.all(started(jobs))
    return changed
  }
const single =
  (name: string, ...rest: unknown[]): Kernel =>
  async (self) => {
    const jobs: Job[] = []
    const changed = self.clone()
    queuedOps(jobs)(name, changed, ...rest)
    await Promise.all(started(jobs))
    return changed
  }
const norm =
  (order: number): Kernel =>
  (x) =>
    (op('aten::_foreach_norm')([x], order) as Tensor[])[0] as Tensor
const unscaled: Kernel = (x) => {
  const changed = x.clone()
  const scale = vt.full([1], 0.3, { dtype: 'float32', device: x.device })
  op('aten::_amp_foreach_non_finite_check_and_unscale_')([changed], vt.zeros([1], { device: x.device }), scale)
  return changed
}

/** The kernel, its inputs for a size, and how many numbers a sum of it has. */
const LISTS: Record<string, [Kernel, inputs: number, isPositive?: boolean]> = {
  abs: [listed('abs'), 1],
  neg: [listed('neg'), 1],
  sign: [listed('sign'), 1],
  zero: [listed('zero'), 1],
  sqrt: [listed('sqrt'), 1, true],
  reciprocal: [listed('reciprocal'), 1],
  'add of lists': [listed('add', { alpha: -0.01 }), 2],
  'add of a number': [listed('add', 0.3), 1],
  'sub of lists': [listed('sub'), 2],
  'mul of lists': [listed('mul'), 2],
  'mul of a number': [listed('mul', 0.9), 1],
  'mul of numbers': [listed('mul', [0.9]), 1],
  'div of lists': [listed('div'), 2],
  'div of a number': [listed('div', 0.3), 1],
  lerp: [listed('lerp', 0.1), 2],
  maximum: [listed('maximum'), 2],
  copy: [listed('copy'), 2],
  clamp_min: [listed('clamp_min', 0.3), 1],
  clamp_max: [listed('clamp_max', 0.3), 1],
  'addcmul of a number': [listed('addcmul', 0.3), 3],
  'addcmul of numbers': [listed('addcmul', [0.3]), 3],
  'addcdiv of a number': [listed('addcdiv', 0.3), 3],
  'addcdiv of numbers': [listed('addcdiv', [0.3]), 3],
  'mul_ of a number': [single('mul_', 0.9), 1],
  'add_ of a number': [single('add_', 0.3), 1],
  rsqrt_: [single('rsqrt_'), 1, true],
  'norm of order 1': [norm(1), 1],
  'norm of order 2': [norm(2), 1],
  'norm of order infinity': [norm(Number.POSITIVE_INFINITY), 1],
}

/** Other kernels that do the work of several operators, with the shapes of their inputs for a size. */
const FUSED: Record<string, [Kernel, ...shapes: ((n: number) => number[])[]]> = {
  'cross_entropy_loss': [(x) => F.crossEntropy(x, vt.tensor([0, 0, 0], { device: x.device })), (n) => [3, n]],
  'cross_entropy_loss, smoothed': [(x) => F.crossEntropy(x, vt.tensor([0, 0, 0], { device: x.device }), { labelSmoothing: 0.1 }), (n) => [3, n]],
  'linear_cross_entropy': [(x, w) => F.linearCrossEntropy(x, w, vt.tensor([0, 4, 2], { device: x.device })), (n) => [3, n], (n) => [5, n]],
  'mse_loss': [(x, y) => F.mseLoss(x, y), (n) => [n], (n) => [n]],
  'smooth_l1_loss': [(x, y) => F.smoothL1Loss(x, y), (n) => [n], (n) => [n]],
  'huber_loss': [(x, y) => F.huberLoss(x, y), (n) => [n], (n) => [n]],
  'binary_cross_entropy_with_logits': [(x, y) => F.binaryCrossEntropyWithLogits(x, y), (n) => [n], (n) => [n]],
  softmax: [(x) => F.softmax(x, -1), (n) => [3, n]],
  'log_softmax': [(x) => F.logSoftmax(x, -1), (n) => [3, n]],
  'layer_norm': [(x, w, b) => F.layerNorm(x, [x.size(-1)], { weight: w, bias: b }), (n) => [3, n + 1], (n) => [n + 1], (n) => [n + 1]],
  'rms_norm': [(x, w) => F.rmsNorm(x, [x.size(-1)], { weight: w, eps: 1e-5 }), (n) => [3, n], (n) => [n]],
  'group_norm': [(x) => ops.groupNorm(x, 2), (n) => [2, 4, n + 1]],
  '_weight_norm': [(v, g) => op('aten::_weight_norm')(v, g, 0) as Tensor, (n) => [4, n], () => [4, 1]],
  gelu: [(x) => F.gelu(x), (n) => [n]],
  'gelu, tanh': [(x) => F.gelu(x, { approximate: 'tanh' }), (n) => [n]],
  silu: [(x) => F.silu(x), (n) => [n]],
  'scaled_dot_product_attention': [(q, k, v) => F.scaledDotProductAttention(q, k, v), (n) => [1, 2, n, 16], (n) => [1, 2, n, 16], (n) => [1, 2, n, 16]],
  'scaled_dot_product_attention, causal': [(q, k, v) => F.scaledDotProductAttention(q, k, v, { isCausal: true }), (n) => [1, 2, n, 16], (n) => [1, 2, n, 16], (n) => [1, 2, n, 16]],
  linear: [(x, w, b) => F.linear(x, w, b), (n) => [3, n], (n) => [5, n], () => [5]],
  'embedding_bag': [(w) => F.embeddingBag(vt.tensor([[0, 2, 1]], { device: w.device }), w, { mode: 'mean' }), (n) => [3, n]],
} // biome-ignore format: a table

async function compare(kernel: Kernel, inputs: readonly Tensor[], dtype: vt.DType, terms: number): Promise<void> {
  const exact = await kernel(...inputs)
  const found = await kernel(...inputs.map((one) => one.to({ dtype })))
  const once = ROUNDING[dtype as keyof typeof ROUNDING]
  const within =
    4 * Math.max(once, Math.sqrt(terms) * Math.max(ROUNDING.float32 * Number(dtype !== 'float64'), ROUNDING.float64))
  expect(relativeError(numbers(found.double()), numbers(exact))).toBeLessThanOrEqual(within)
}

describe.each(DTYPES)('in %s', (dtype) => {
  it.each(Object.entries(LISTS))('%s', async (_, [kernel, count, isPositive]) => {
    for (const size of SIZES) {
      const inputs = Array.from({ length: count }, (_, i) => made([size], 10 * size + i, isPositive))
      await compare(kernel, inputs, dtype, size)
    }
  })

  // It takes no float64 or bfloat16 scale; gradients in float16 are refused by GradScaler.
  it.skipIf(dtype === 'float16')('_amp_foreach_non_finite_check_and_unscale_', async () => {
    for (const size of SIZES) {
      // The factor is a float32.
      const x = made([size], size)
      const found = await unscaled(x.to({ dtype }))
      const once = Math.max(ROUNDING[dtype], ROUNDING.float32)
      expect(relativeError(numbers(found.double()), numbers(x.mul(0.3)))).toBeLessThanOrEqual(4 * once)
    }
  })

  it.each(Object.entries(FUSED))('%s', async (_, [kernel, ...shapes]) => {
    for (const size of SIZES.slice(1, 3)) {
      const inputs = shapes.map((shape, i) => made(shape(size), 100 * size + i))
      await compare(kernel, inputs, dtype, 16 * size)
    }
  })
})
