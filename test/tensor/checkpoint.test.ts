import { describe, expect, it } from 'vitest'
import {
  AutogradFunction,
  autocast,
  autograd,
  ConfigError,
  checkpoint,
  Dropout,
  type FunctionContext,
  getRngState,
  Linear,
  manualSeed,
  memoryStats,
  noGrad,
  randn,
  scope,
  type Tensor,
} from '../../lib/index.js'
import { settledTensors } from '../helpers.js'

function example() {
  manualSeed(3)
  const [first, second] = [new Linear(6, 8), new Linear(8, 6)]
  const dropout = new Dropout(0.5)
  const x = randn([4, 6]).requiresGrad_()
  const scale = randn([6]).requiresGrad_()
  const layer = (input: Tensor, factor: Tensor) =>
    second
      .forward(dropout.forward(first.forward(input).gelu()))
      .mul(factor)
      .add(input)
  const parameters = [...first.parameters(), ...second.parameters()]
  return { layer, x, scale, inputs: [x, scale, ...parameters] }
}

const bits = (tensors: readonly (Tensor | null)[]) => tensors.map((one) => one?.toArray())

describe('checkpoint', () => {
  it('gives the bits of the plain way, dropout and captured parameters too', async () => {
    const { layer, x, scale, inputs } = example()
    const result = async (run: typeof layer) => {
      manualSeed(5)
      const y = run(run(x.mul(2), scale), scale)
      const state = getRngState()
      const grads = await autograd.grad(y.pow(2).sum(), inputs)
      // Going backward takes nothing from the random numbers that come next.
      expect(getRngState().equal(state)).toBe(true)
      return [y.toArray(), bits(grads), state.toArray()]
    }
    const plain = await result(layer)
    expect(await result((a, b) => checkpoint(layer, a, b))).toEqual(plain)
  })

  it('accumulates into grad, with hooks, as the plain way', async () => {
    const { layer, x, scale, inputs } = example()
    let seen = 0
    inputs[2]?.registerHook(() => {
      seen += 1
    })
    manualSeed(6)
    await layer(x, scale).sum().backward()
    const plain = bits(inputs.map((one) => one.grad))
    for (const one of inputs) one.grad = null
    manualSeed(6)
    await checkpoint(layer, x, scale).sum().backward()
    expect(bits(inputs.map((one) => one.grad))).toEqual(plain)
    expect(seen).toBe(2)
  })

  it('runs the function again in backward, and only there', async () => {
    const { layer, x, scale } = example()
    let saved = 0
    class Watch extends AutogradFunction {
      static override forward(ctx: FunctionContext, input: Tensor) {
        ctx.saveForBackward(input)
        return input.mul(2)
      }
      static override backward(ctx: FunctionContext, grad: Tensor) {
        saved = ctx.savedTensors[0]?.shape.length ?? 0
        return grad.mul(2)
      }
    }
    let runs = 0
    const y = checkpoint((input: Tensor) => {
      runs += 1
      return Watch.apply(layer(input, scale))
    }, x)
    expect(runs).toBe(1)
    expect(y.gradFn).toMatch(/JavaScriptFunction/)
    await y.sum().backward()
    expect([runs, saved]).toEqual([2, 2])
  })

  it('nests, and takes several outputs and other arguments', async () => {
    const { layer, x, scale, inputs } = example()
    const two = (input: Tensor, times: number, factor: Tensor): Tensor[] => {
      let y = input
      for (let i = 0; i < times; i++) y = checkpoint(layer, y, factor)
      return [y, y.detach(), input.mul(factor)]
    }
    const plain = (input: Tensor, factor: Tensor) => {
      const y = layer(layer(input, factor), factor)
      return y.sum().add(input.mul(factor).sum())
    }
    manualSeed(7)
    const expected = await autograd.grad(plain(x, scale), inputs)
    manualSeed(7)
    const [a, b, c] = checkpoint(two, x, 2, scale) as [Tensor, Tensor, Tensor]
    const found = await autograd.grad(a.sum().add(b.sum().mul(0)).add(c.sum()), inputs)
    // x has two uses here.
    found.forEach((grad, i) => {
      expect(grad?.allclose(expected[i] as Tensor, 1e-6, 1e-6)).toBe(true)
    })
  })

  it('computes again under the same autocast', async () => {
    const { layer, x, scale, inputs } = example()
    const grads = async (run: typeof layer) => {
      manualSeed(8)
      const y = autocast({ dtype: 'bfloat16' }, () => run(x, scale))
      return bits(await autograd.grad(y.sum(), inputs))
    }
    expect(await grads((a, b) => checkpoint(layer, a, b))).toEqual(await grads(layer))
  })

  it('survives the scope that it was called in', async () => {
    const { layer, scale } = example()
    const x = randn([4, 6]).requiresGrad_()
    const y = scope(() => checkpoint(layer, x.mul(2), scale.mul(1).detach()))
    const before = await settledTensors()
    await scope(() => y.sum().backward())
    x.grad = null
    expect(memoryStats().liveTensors).toBeLessThanOrEqual(before)
  })

  it('only calls the function where nothing is recorded', () => {
    const { layer, x, scale } = example()
    expect(noGrad(() => checkpoint(layer, x, scale)).requiresGrad).toBe(false)
  })

  it('says what is wrong', async () => {
    const { layer, x, scale } = example()
    const wrong = checkpoint as (...args: unknown[]) => unknown
    expect(() => wrong(3, x)).toThrow(ConfigError)
    expect(() => wrong(() => 3, x)).toThrow(/a function that returns a Tensor/)
    expect(() => wrong(async () => x, x)).toThrow(/synchronous/)
    expect(() =>
      wrong(() => {
        throw new RangeError('mine')
      }, x),
    ).toThrow('mine')
    const y = checkpoint(layer, x, scale)
    await expect(autograd.grad(y.sum(), [x], { createGraph: true })).rejects.toThrow(/no second derivative/)
  })
})
