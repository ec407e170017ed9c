import { describe, expect, test } from 'vitest'
import {
  AutogradFunction,
  autograd,
  type FunctionContext,
  GradientError,
  gradcheck,
  isGradEnabled,
  memoryStats,
  noGrad,
  ones,
  randn,
  scope,
  type Tensor,
  tensor,
  zeros,
} from '../../lib/index.js'
import { counts } from './counts.js'

const leaf = (...values: number[]) => tensor(values, { requiresGrad: true })
const tick = () => new Promise((resolve) => setImmediate(resolve))

class Square extends AutogradFunction {
  static override forward(ctx: FunctionContext, x: Tensor): Tensor {
    ctx.saveForBackward(x)
    return x.mul(x)
  }
  static override backward(ctx: FunctionContext, gradient: Tensor): Tensor {
    return gradient.mul(ctx.savedTensors[0]!).mul(2)
  }
}

describe('AutogradFunction', () => {
  test('forward and backward', () =>
    scope(async () => {
      const x = leaf(3, -4)
      const y = Square.apply(x)
      expect(y.toArray()).toEqual([9, 16])
      expect([y.requiresGrad, y.isLeaf, x.requiresGrad]).toEqual([true, false, true])
      await y.sum().backward()
      expect(x.grad!.toArray()).toEqual([6, -8])
      expect(await gradcheck((a) => Square.apply(a), [randn([3], { dtype: 'float64', requiresGrad: true })])).toBe(true)
      expect(noGrad(() => Square.apply(x)).requiresGrad).toBe(false)
      expect(Square.apply(ones([1])).requiresGrad).toBe(false)
    }))

  test('is not recorded inside forward, its own operators are not differentiated', () =>
    scope(async () => {
      const modes: boolean[] = []
      class Half extends AutogradFunction {
        static override forward(_: FunctionContext, x: Tensor): Tensor {
          const y = x.mul(100)
          modes.push(isGradEnabled(), y.requiresGrad)
          return y
        }
        static override backward(_: FunctionContext, gradient: Tensor): Tensor {
          modes.push(isGradEnabled())
          return gradient.mul(0.5)
        }
      }
      const x = leaf(1)
      await Half.apply(x).sum().backward()
      expect(x.grad!.toArray()).toEqual([0.5])
      expect(modes).toEqual([false, false, false])
    }))

  test('several inputs, outputs, values that are no tensors', () =>
    scope(async () => {
      class Mix extends AutogradFunction {
        static override forward(
          ctx: FunctionContext,
          a: Tensor,
          scale: number,
          b: Tensor,
          label: { name: string },
        ): Tensor[] {
          ctx.scale = scale
          ctx.label = label
          ctx.saveForBackward(a, null, b)
          return [a.mul(scale), a.mul(b)]
        }
        static override backward(ctx: FunctionContext, first: Tensor, second: Tensor) {
          const [a, nothing, b] = ctx.savedTensors
          expect(nothing).toBeNull()
          expect(ctx.label.name).toBe('x')
          expect(ctx.needsInputGrad).toEqual([true, false, true, false])
          return [first.mul(ctx.scale).add(second.mul(b!)), null, second.mul(a!), null]
        }
      }
      const [a, b] = [leaf(2), leaf(5)]
      const [p, q] = Mix.apply(a, 3, b, { name: 'x' })
      await p!.add(q!).sum().backward()
      expect([a.grad!.item(), b.grad!.item()]).toEqual([8, 2])
      // An output that nothing uses has a gradient of zeros.
      a.grad = null
      await Mix.apply(a, 3, b, { name: 'x' })[0]!.sum().backward()
      expect(a.grad!.item()).toBe(3)
    }))

  test('gradients that are null or left out', () =>
    scope(async () => {
      class First extends AutogradFunction {
        static override forward(_: FunctionContext, a: Tensor, b: Tensor): Tensor {
          return a.add(b)
        }
        static override backward(_: FunctionContext, gradient: Tensor) {
          return [gradient, null]
        }
      }
      const [a, b] = [leaf(1), leaf(1)]
      await First.apply(a, b).sum().backward()
      expect(a.grad!.item()).toBe(1)
      expect(b.grad).toBeNull()
    }))

  test('setMaterializeGrads(false) gives null for what has no gradient', () =>
    scope(async () => {
      const seen: unknown[] = []
      class Two extends AutogradFunction {
        static override forward(ctx: FunctionContext, x: Tensor): Tensor[] {
          ctx.setMaterializeGrads(false)
          return [x.mul(1), x.mul(2)]
        }
        static override backward(_: FunctionContext, first: Tensor | null, second: Tensor | null) {
          seen.push(first, second?.toArray())
          return second!.mul(2)
        }
      }
      const x = leaf(1)
      await Two.apply(x)[1]!.sum().backward()
      expect(seen).toEqual([null, [1]])
    }))

  test('markNonDifferentiable', () =>
    scope(async () => {
      class Sort extends AutogradFunction {
        static override forward(ctx: FunctionContext, x: Tensor): Tensor[] {
          const { values, indices } = x.sort()
          const copy = values.clone()
          ctx.markNonDifferentiable(indices, copy)
          ctx.saveForBackward(indices)
          return [values, indices, copy]
        }
        static override backward(ctx: FunctionContext, gradient: Tensor) {
          return zeros(gradient.shape).scatter(0, ctx.savedTensors[0]!, gradient)
        }
      }
      const x = leaf(3, 1, 2)
      const [values, indices, copy] = Sort.apply(x)
      expect([values!.requiresGrad, indices!.requiresGrad, copy!.requiresGrad]).toEqual([true, false, false])
      await values!
        .mul(tensor([1, 10, 100]))
        .sum()
        .backward()
      expect(x.grad!.toArray()).toEqual([100, 1, 10])
    }))

  test('markDirty: forward in place', () =>
    scope(async () => {
      class Double extends AutogradFunction {
        static override forward(ctx: FunctionContext, x: Tensor): Tensor {
          ctx.markDirty(x)
          return x.mul_(2)
        }
        static override backward(_: FunctionContext, gradient: Tensor): Tensor {
          return gradient.mul(2)
        }
      }
      const x = leaf(3)
      const y = x.mul(1)
      const z = Double.apply(y)
      expect(y.toArray()).toEqual([6])
      expect(y.gradFn).toBe(z.gradFn)
      await y.sum().backward()
      expect(x.grad!.item()).toBe(2)
      expect(() => Double.apply(leaf(1))).toThrow(GradientError)
    }))

  test('returns an input as it is', () =>
    scope(async () => {
      class Same extends AutogradFunction {
        static override forward(_: FunctionContext, x: Tensor): Tensor {
          return x
        }
        static override backward(_: FunctionContext, gradient: Tensor): Tensor {
          return gradient.mul(7)
        }
      }
      const x = leaf(1)
      const y = Same.apply(x)
      await y.sum().backward()
      expect(x.grad!.item()).toBe(7)
      expect(x.isLeaf).toBe(true)
    }))

  test('a saved tensor changed in place is an error', () =>
    scope(async () => {
      const x = leaf(3)
      const inner = x.mul(1)
      const y = Square.apply(inner)
      noGrad(() => inner.add_(1))
      await expect(y.sum().backward()).rejects.toThrow(
        expect.objectContaining({ name: 'GradientError', message: expect.stringMatching(/inplace/) }),
      )
      // So is an output that was saved.
      class Exp extends AutogradFunction {
        static override forward(ctx: FunctionContext, a: Tensor): Tensor {
          const out = a.exp()
          ctx.saveForBackward(out)
          return out
        }
        static override backward(ctx: FunctionContext, gradient: Tensor): Tensor {
          return gradient.mul(ctx.savedTensors[0]!)
        }
      }
      const z = Exp.apply(x)
      await Exp.apply(x).sum().backward()
      expect(x.grad!.item()).toBeCloseTo(Math.exp(3), 4)
      noGrad(() => z.add_(1))
      await expect(z.sum().backward()).rejects.toThrow(/inplace/)
    }))

  test('a second pass needs retainGraph', () =>
    scope(async () => {
      const x = leaf(3)
      const y = Square.apply(x).sum()
      await y.backward({ retainGraph: true })
      await y.backward()
      expect(x.grad!.item()).toBe(12)
      await expect(y.backward()).rejects.toThrow(GradientError)
    }))

  test('higher orders through backward’s own operators', () =>
    scope(async () => {
      const x = leaf(3)
      const [d1] = await autograd.grad(Square.apply(Square.apply(x)), x, { createGraph: true })
      expect(d1!.item()).toBe(108)
      const [d2] = await autograd.grad(d1!, x, { createGraph: true })
      expect(d2!.item()).toBe(108)
      const [d3] = await autograd.grad(d2!, x)
      expect(d3!.item()).toBe(72)
    }))

  test('nested: a function applied in another’s backward', () =>
    scope(async () => {
      const order: string[] = []
      class Inner extends AutogradFunction {
        static override forward(ctx: FunctionContext, x: Tensor): Tensor {
          order.push('inner forward')
          ctx.saveForBackward(x)
          return x.mul(x)
        }
        static override backward(ctx: FunctionContext, gradient: Tensor): Tensor {
          order.push('inner backward')
          return gradient.mul(ctx.savedTensors[0]!).mul(2)
        }
      }
      // The cube, whose gradient is 3 * Inner(x).
      class Cube extends AutogradFunction {
        static override forward(ctx: FunctionContext, x: Tensor): Tensor {
          order.push('cube forward')
          ctx.saveForBackward(x)
          return x.pow(3)
        }
        static override backward(ctx: FunctionContext, gradient: Tensor): Tensor {
          order.push('cube backward')
          return gradient.mul(Inner.apply(ctx.savedTensors[0]!)).mul(3)
        }
      }
      const x = leaf(2)
      const [d1] = await autograd.grad(Cube.apply(x), x, { createGraph: true })
      expect(d1!.item()).toBe(12)
      const [d2] = await autograd.grad(d1!, x)
      expect(d2!.item()).toBe(12)
      expect(order).toEqual(['cube forward', 'cube backward', 'inner forward', 'inner backward'])
    }))

  test('nested: a function applied in another’s forward', () =>
    scope(async () => {
      class Outer extends AutogradFunction {
        static override forward(ctx: FunctionContext, x: Tensor, factor: Tensor): Tensor {
          const inner = Square.apply(x)
          ctx.saveForBackward(x, factor, inner)
          return inner.mul(factor)
        }
        static override backward(ctx: FunctionContext, gradient: Tensor) {
          const [x, factor, inner] = ctx.savedTensors
          return [gradient.mul(x!).mul(2).mul(factor!), gradient.mul(inner!)]
        }
      }
      const [x, factor] = [leaf(3), leaf(5)]
      const y = Outer.apply(x, factor)
      expect(y.item()).toBe(45)
      await y.sum().backward()
      expect([x.grad!.item(), factor.grad!.item()]).toEqual([30, 9])
    }))

  test('what forward throws is thrown by apply', () => {
    const before = counts()
    class Bad extends AutogradFunction {
      static override forward(_: FunctionContext, x: Tensor): Tensor {
        x.mul(2)
        throw new RangeError('forward failed')
      }
    }
    scope(() => {
      const x = leaf(1)
      expect(() => Bad.apply(x)).toThrow(RangeError)
      expect(() => Bad.apply(x)).toThrow('forward failed')
    })
    expect(counts()).toEqual(before)
  })

  test('what backward throws rejects the pass, with its stack', () =>
    scope(async () => {
      class Mine extends Error {
        readonly extra = 42
      }
      class Bad extends AutogradFunction {
        static override forward(_: FunctionContext, x: Tensor): Tensor {
          return x.mul(2)
        }
        static override backward(): Tensor {
          return deepInside()
        }
      }
      function deepInside(): Tensor {
        throw new Mine('backward failed')
      }
      const x = leaf(1)
      const error = await Bad.apply(x)
        .sum()
        .backward()
        .then(
          () => null,
          (reason) => reason,
        )
      expect(error).toBeInstanceOf(Mine)
      expect(error.extra).toBe(42)
      expect(error.stack).toMatch(/deepInside[\s\S]*functions\.test/)
      // An operator's error inside backward keeps its class.
      class Shapes extends Bad {
        static override backward(): Tensor {
          return ones([2]).add(ones([3]))
        }
      }
      await expect(Shapes.apply(x).sum().backward()).rejects.toThrow(expect.objectContaining({ name: 'ShapeError' }))
      // The executor goes on.
      await x.sum().backward()
      expect(x.grad!.item()).toBe(1)
    }))

  test.each<[string, unknown, RegExp]>([
    ['a promise', Promise.resolve(1), /synchronous/],
    ['an array with a promise', [Promise.resolve(1)], /./],
    ['too many gradients', [ones([1]), null, null], /gradients \(or null\), one per argument of forward, got 3/],
    ['a number', 3, /./],
    ['a gradient of another shape', ones([3]), /shape/],
  ])('backward returns %s', (_, value, pattern) =>
    scope(async () => {
      class Bad extends AutogradFunction {
        static override forward(_: FunctionContext, x: Tensor): Tensor {
          return x.mul(2)
        }
        static override backward(): Tensor {
          return value as Tensor
        }
      }
      const failing = Bad.apply(leaf(1, 2)).sum().backward()
      await expect(failing).rejects.toThrow(
        expect.objectContaining({ code: expect.stringMatching(/^ERR_/), message: expect.stringMatching(pattern) }),
      )
    }),
  )

  test('an async forward or backward is refused', () =>
    scope(async () => {
      class Async extends AutogradFunction {
        static override forward(_: FunctionContext, x: Tensor): Tensor {
          return Promise.resolve(x) as never
        }
      }
      expect(() => Async.apply(leaf(1))).toThrow(/forward to be synchronous/)
      class AsyncBackward extends AutogradFunction {
        static override forward(_: FunctionContext, x: Tensor): Tensor {
          return x.mul(1)
        }
        static override backward = (async () => null) as never
      }
      await expect(AsyncBackward.apply(leaf(1)).sum().backward()).rejects.toThrow(/backward to be synchronous/)
    }))

  test('without the methods', () =>
    scope(async () => {
      class Nothing extends AutogradFunction {}
      expect(() => (Nothing.apply as (x: Tensor) => unknown)(leaf(1))).toThrow(
        expect.objectContaining({ code: 'ERR_CONFIG' }),
      )
      class OnlyForward extends AutogradFunction {
        static override forward(_: FunctionContext, x: Tensor): Tensor {
          return x.mul(1)
        }
      }
      await expect(OnlyForward.apply(leaf(1)).sum().backward()).rejects.toThrow(/static backward/)
      class NoTensor extends AutogradFunction {
        static override forward(_: FunctionContext): Tensor {
          return 3 as never
        }
      }
      expect(() => NoTensor.apply()).toThrow(/expected a Tensor or an array of Tensors as result/)
    }))

  test('savedTensors are there during backward only', () =>
    scope(async () => {
      let kept: FunctionContext | undefined
      let saved: Tensor | null | undefined
      class Keep extends Square {
        static override backward(ctx: FunctionContext, gradient: Tensor): Tensor {
          kept = ctx
          saved = ctx.savedTensors[0]
          return gradient
        }
      }
      await Keep.apply(leaf(1)).sum().backward()
      expect(kept!.savedTensors).toEqual([])
      expect(saved!.disposed).toBe(true)
    }))

  test('a tensor kept on the context outlives forward’s scope', () =>
    scope(async () => {
      class Keep extends AutogradFunction {
        static override forward(ctx: FunctionContext, x: Tensor): Tensor {
          ctx.factor = x.detach().add(4)
          return x.mul(1)
        }
        static override backward(ctx: FunctionContext, gradient: Tensor): Tensor {
          return gradient.mul(ctx.factor)
        }
      }
      const x = leaf(1)
      await Keep.apply(x).sum().backward()
      expect(x.grad!.item()).toBe(5)
    }))

  test('backward of one graph and forward of another interleave', () =>
    scope(async () => {
      const results = await Promise.all(
        [1, 2, 3, 4].map(async (value) => {
          const x = leaf(value)
          const y = Square.apply(x)
          await tick()
          await y.sum().backward()
          return x.grad!.item()
        }),
      )
      expect(results).toEqual([2, 4, 6, 8])
    }))

  test('counts: what forward and backward make is freed', async () => {
    const before = counts()
    const x = leaf(3)
    const y = Square.apply(x)
    expect(memoryStats().liveTensors - before.liveTensors).toBe(2)
    await scope(() => y.sum().backward())
    expect(memoryStats().liveTensors - before.liveTensors).toBe(2)
    x.dispose()
    y.dispose()
    expect(counts()).toEqual(before)
  })
})
