import { describe, expect, it } from 'vitest'
import {
  autocast,
  autograd,
  functional,
  gradcheck,
  IndexError,
  manualSeed,
  memoryStats,
  noGrad,
  randint,
  randn,
  scope,
  type Tensor,
  tensor,
  zeros,
} from '../../lib/index.js'
import { expectAsExact, here, settledTensors } from '../helpers.js'

/** max|a − b| / max|b| */
const difference = (a: Tensor, b: Tensor) =>
  (a.sub(b).abs().max().item() as number) / Math.max(b.abs().max().item() as number, 1e-30)

type Options = NonNullable<Parameters<typeof functional.linearCrossEntropy>[3]>

/** The same in the plain way. */
function plain(hidden: Tensor, weight: Tensor, labels: Tensor, options: Options): Tensor {
  const { bias = null, zLoss = 0, reduction = 'mean', ...rest } = options
  const logits = functional.linear(hidden, weight, bias).flatten(0, -2)
  const flat = labels.flatten()
  const losses = functional.crossEntropy(logits, flat, { ...rest, reduction: 'none' })
  const counts = flat.ne(rest.ignoreIndex ?? -100)
  const all = losses.add(logits.logsumexp([1]).pow(2).mul(counts).mul(zLoss))
  if (reduction === 'none') return all.view(labels.shape)
  return reduction === 'sum' ? all.sum() : all.sum().div(counts.sum())
}

function example(tokens: number, dim: number, classes: number, dtype: 'float32' | 'float64' = 'float32') {
  const hidden = randn([3, tokens, dim], { dtype }).requiresGrad_()
  const weight = randn([classes, dim], { dtype }).mul(0.3).detach().requiresGrad_()
  const bias = randn([classes], { dtype }).requiresGrad_()
  const labels = randint(0, classes, [3, tokens])
  return { hidden, weight, bias, labels }
}

const CASES: [name: string, options: Options, withBias: boolean, ignored: boolean][] = [
  ['mean', {}, true, false],
  ['mean, ignored labels', {}, true, true],
  ['mean, no bias', {}, false, true],
  ['sum, smoothing', { reduction: 'sum', labelSmoothing: 0.1 }, true, true],
  ['mean, z-loss', { zLoss: 1e-2 }, true, true],
  ['mean, all at once', { labelSmoothing: 0.2, zLoss: 1e-3, ignoreIndex: 4 }, true, true],
  ['none', { reduction: 'none' }, true, false],
  ['none, all at once', { reduction: 'none', labelSmoothing: 0.2, zLoss: 1e-3 }, true, true],
]

describe('linearCrossEntropy, float32', () => {
  it.each(CASES)(
    '%s: loss and gradients are as near to float64 as the plain way',
    async (_, options, withBias, ignored) => {
      manualSeed(7)
      const { hidden, weight, bias, labels } = example(23, 48, 301)
      const masked = ignored ? labels.where(labels.remainder(3).ne(0), tensor(options.ignoreIndex ?? -100)) : labels
      const inputs = withBias ? [hidden, weight, bias] : [hidden, weight]
      const wide = inputs.map((input) => input.detach().double().requiresGrad_())
      const [h, w, b] = wide as [Tensor, Tensor, Tensor]
      const given = withBias ? { ...options, bias } : options
      const theirs = plain(hidden, weight, masked, given)
      const exact = plain(h, w, masked, withBias ? { ...options, bias: b } : options)
      const cotangent = randn(theirs.shape)
      const expected = await autograd.grad(theirs, inputs, { gradOutputs: [cotangent] })
      const exactly = await autograd.grad(exact, wide, { gradOutputs: [cotangent.double()] })
      // 69 tokens in blocks that divide them and that do not, one larger than all, and the chosen one.
      for (const chunkSize of [1, 23, 32, 100, 0]) {
        const ours = functional.linearCrossEntropy(hidden, weight, masked, { ...given, chunkSize })
        expectAsExact(ours, theirs, exact, 301, 'loss')
        const found = await autograd.grad(ours, inputs, { gradOutputs: [cotangent] })
        inputs.forEach((_, i) => {
          expectAsExact(found[i] as Tensor, expected[i] as Tensor, exactly[i] as Tensor, 301, `input ${i}`)
        })
        const quick = noGrad(() => functional.linearCrossEntropy(hidden, weight, masked, given))
        expectAsExact(quick, theirs, exact, 301, 'without a graph')
      }
    },
  )

  it('is right at the size of a vocabulary', async () => {
    manualSeed(8)
    const { hidden, weight, labels } = example(40, 64, 32000)
    const wide = [hidden, weight].map((input) => input.detach().double().requiresGrad_()) as [Tensor, Tensor]
    const losses = [
      functional.linearCrossEntropy(hidden, weight, labels, { chunkSize: 50 }),
      plain(hidden, weight, labels, {}),
      plain(...wide, labels, {}),
    ] as const
    expectAsExact(...losses, 32000, 'loss')
    const [a, b, c] = await Promise.all(losses.map((loss, i) => autograd.grad(loss, i === 2 ? wide : [hidden, weight])))
    for (const i of [0, 1]) expectAsExact(a?.[i] as Tensor, b?.[i] as Tensor, c?.[i] as Tensor, 32000, `input ${i}`)
  })

  it('stays finite where exp of a logit is not', async () => {
    const hidden = tensor([[300]], { dtype: 'float32' }).requiresGrad_()
    const weight = tensor([[1], [-1], [0.5]], { dtype: 'float32' })
    const loss = functional.linearCrossEntropy(hidden, weight, tensor([1]))
    expect(loss.item()).toBe(600)
    const [grad] = await autograd.grad(loss, [hidden])
    expect(grad?.item()).toBe(2)
  })

  it('computes only the gradients that are asked for', async () => {
    manualSeed(9)
    const { hidden, weight, bias, labels } = example(5, 8, 11)
    const frozen = functional.linearCrossEntropy(hidden, weight.detach(), labels, { bias: bias.detach() })
    const [grad] = await autograd.grad(frozen, [hidden])
    const [expected] = await autograd.grad(plain(hidden, weight, labels, { bias }), [hidden])
    expect(difference(grad as Tensor, expected as Tensor)).toBeLessThan(1e-6)
    expect(functional.linearCrossEntropy(hidden.detach(), weight.detach(), labels).requiresGrad).toBe(false)
  })

  it('goes backward twice where the graph is kept, and not otherwise', async () => {
    manualSeed(10)
    const { hidden, weight, labels } = example(5, 8, 11)
    const loss = functional.linearCrossEntropy(hidden, weight, labels)
    const [first] = await autograd.grad(loss, [weight], { retainGraph: true })
    const before = first?.clone() as Tensor
    first?.mul_(0)
    await loss.backward({ retainGraph: true })
    await loss.backward({ retainGraph: true })
    expect(weight.grad?.equal(before.mul(2))).toBe(true)
    await loss.backward()
    expect(weight.grad?.allclose(before.mul(3))).toBe(true)
    await expect(loss.backward()).rejects.toThrow(/second time/)
  })

  it('refuses a second derivative instead of giving a wrong one', async () => {
    const { hidden, weight, labels } = example(2, 3, 4)
    for (const reduction of ['mean', 'none'] as const) {
      const loss = functional.linearCrossEntropy(hidden, weight, labels, { reduction }).sum()
      await expect(autograd.grad(loss, [hidden], { createGraph: true })).rejects.toThrow(/no second derivative/)
    }
  })

  it('passes gradcheck in float64', async () => {
    manualSeed(11)
    const { hidden, weight, bias, labels } = example(4, 3, 7, 'float64')
    for (const reduction of ['mean', 'none'] as const) {
      const options = { reduction, labelSmoothing: 0.1, zLoss: 0.02, ignoreIndex: 2, chunkSize: 5 }
      const f = (h: Tensor, w: Tensor, b: Tensor) =>
        functional.linearCrossEntropy(h, w, labels, { ...options, bias: b })
      expect(await gradcheck(f, [hidden, weight, bias])).toBe(true)
    }
  })

  it('gives NaN and no gradient where nothing counts, as the plain way', async () => {
    const { hidden, weight } = example(2, 3, 4)
    const labels = zeros([3, 2], { dtype: 'int64' }).fill_(-100)
    const loss = functional.linearCrossEntropy(hidden, weight, labels)
    expect(loss.item()).toBeNaN()
    const [h, w] = await autograd.grad(loss, [hidden, weight])
    expect([h?.abs().sum().item(), w?.abs().sum().item()]).toEqual([0, 0])
    expect(functional.linearCrossEntropy(hidden, weight, labels, { reduction: 'sum' }).item()).toBe(0)
  })
})

describe('linearCrossEntropy in half precision', () => {
  it.each(['bfloat16', 'float16'] as const)(
    '%s: float32 loss, as near to the exact one as its inputs',
    async (dtype) => {
      manualSeed(12)
      const exact = example(40, 64, 500)
      const half = [exact.hidden, exact.weight].map((one) => one.detach().to(dtype).requiresGrad_()) as [Tensor, Tensor]
      const wide = half.map((one) => one.detach().float().requiresGrad_()) as [Tensor, Tensor]
      const loss = functional.linearCrossEntropy(...half, exact.labels, { chunkSize: 32 })
      expect(loss.dtype).toBe('float32')
      const reference = plain(...wide, exact.labels, {})
      const step = dtype === 'bfloat16' ? 2 ** -8 : 2 ** -11
      expect(difference(loss, reference)).toBeLessThan(step)
      const expected = await autograd.grad(reference, wide)
      const found = await autograd.grad(loss, half)
      found.forEach((grad, i) => {
        expect(grad?.dtype).toBe(dtype)
        expect(difference((grad as Tensor).float(), expected[i] as Tensor)).toBeLessThan(3 * step)
      })
    },
  )

  it('loses no small float16 gradient to a scale that comes after it', async () => {
    manualSeed(13)
    const { hidden, weight, labels } = example(1000, 8, 2000)
    const half = [hidden, weight].map((one) => one.detach().to('float16').requiresGrad_()) as [Tensor, Tensor]
    const loss = functional.linearCrossEntropy(...half, labels)
    const scaled = await autograd.grad(loss.mul(65536), half)
    const wide = half.map((one) => one.detach().float().requiresGrad_()) as [Tensor, Tensor]
    const expected = await autograd.grad(plain(...wide, labels, {}), wide)
    scaled.forEach((grad, i) => {
      expect(difference((grad as Tensor).float().div(65536), expected[i] as Tensor)).toBeLessThan(5e-3)
    })
  })

  it('follows autocast, with gradients in the parameters own dtype', async () => {
    manualSeed(14)
    const { hidden, weight, bias, labels } = example(20, 16, 60)
    const loss = autocast({ device: here(), dtype: 'bfloat16' }, () =>
      functional.linearCrossEntropy(hidden, weight, labels, { bias }),
    )
    expect(loss.dtype).toBe('float32')
    const exact = plain(hidden, weight, labels, { bias })
    expect(difference(loss, exact)).toBeLessThan(2 ** -8)
    expect(loss.item()).not.toBe(exact.item())
    const [grad] = await autograd.grad(loss, [weight])
    expect(grad?.dtype).toBe('float32')
  })
})

describe('linearCrossEntropy', () => {
  it('says what is wrong', () => {
    const { hidden, weight, bias, labels } = example(2, 3, 4)
    const f = functional.linearCrossEntropy as (...args: unknown[]) => Tensor
    expect(() => f(hidden, weight, labels.add(3))).toThrow(IndexError)
    expect(() => f(hidden, weight, labels.sub(200))).toThrow(/outside the 4 classes/)
    expect(() => f(hidden, weight.t(), labels)).toThrow(/weight \[classes, dim\]/)
    expect(() => f(hidden, weight, labels.flatten())).toThrow(/labels must have the shape/)
    expect(() => f(hidden, weight, labels.float())).toThrow(/int64/)
    expect(() => f(hidden, weight.double(), labels)).toThrow(/dtype/)
    expect(() => f(hidden, weight, labels, { bias: bias.at(0) })).toThrow(/bias/)
    expect(() => f(hidden, weight, labels, { labelSmoothing: 2 })).toThrow(/label_smoothing/)
    expect(() => f(hidden, weight, labels, { zLoss: -1 })).toThrow(/z_loss/)
    expect(() => f(hidden, weight, labels, { chunkSize: -1 })).toThrow(/chunkSize/)
    expect(() => f(hidden, weight, labels, { reduction: 'max' })).toThrow(/reduction/)
    expect(() => f(hidden, null, labels)).toThrow(/linearCrossEntropy: expected a tensor, got null/)
    expect(() => f(hidden.to('complex64'), weight, labels)).toThrow(/hidden must be/)
  })

  it('refuses the first label after the last class', () => {
    const { hidden, weight } = example(2, 3, 4)
    const past = tensor([0, 4])
    expect(() => functional.linearCrossEntropy(hidden.at(0), weight, past)).toThrow(/label 4 is outside the 4 classes/)
  })

  it('has the gradient of every class beyond 8192, in half precision', async () => {
    const { hidden, weight } = example(2, 3, 8200)
    const [x, w] = [hidden.at(0), weight].map((one) => one.detach().bfloat16().requiresGrad_()) as [Tensor, Tensor]
    await functional.linearCrossEntropy(x, w, tensor([8199, 1])).backward()
    const plain = w.detach().float().requiresGrad_()
    const logits = functional.linear(x.detach().float(), plain)
    await functional.crossEntropy(logits, tensor([8199, 1])).backward()
    const [own, exact] = [w.grad, plain.grad].map((one) => (one as Tensor).float().narrow(0, 8192, 8)) as [
      Tensor,
      Tensor,
    ]
    // Logits and the gradient are rounded to bfloat16, to eight bits.
    expect(own.sub(exact).abs().max().item()).toBeLessThan((exact.abs().max().item() as number) / 32)
  })

  it('leaves nothing behind, on the executor too', async () => {
    const { hidden, weight, labels } = example(2, 3, 4)
    // What earlier tests left to the collector goes at its own time.
    globalThis.gc?.()
    await new Promise((resolve) => setTimeout(resolve, 20))
    const before = await settledTensors()
    await scope(async () => {
      const [now, later] = [
        functional.linearCrossEntropy(hidden, weight, labels),
        await functional.linearCrossEntropyAsync(hidden, weight, labels),
      ]
      expect(later.equal(now)).toBe(true)
      await later.backward()
    })
    hidden.grad = null
    weight.grad = null
    expect(memoryStats().liveTensors).toBeLessThanOrEqual(before)
  })
})
