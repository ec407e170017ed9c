import { describe, expect, test } from 'vitest'
import { autograd, GradientError, isGradEnabled, ones, scope, type Tensor, tensor } from '../../lib/index.js'
import { counts } from './counts.js'

const leaf = (...values: number[]) => tensor(values, { requiresGrad: true })
const _tick = () => new Promise((resolve) => setImmediate(resolve))

describe('hooks', () => {
  test('see the gradient and may replace it', () =>
    scope(async () => {
      const x = leaf(1, 2)
      const seen: unknown[] = []
      x.registerHook((gradient) => {
        seen.push(gradient.toArray())
      })
      x.registerHook((gradient) => gradient.mul(10))
      x.registerHook((gradient) => {
        seen.push(gradient.toArray())
      })
      await x.mul(3).sum().backward()
      expect(seen).toEqual([
        [3, 3],
        [30, 30],
      ])
      expect(x.grad!.toArray()).toEqual([30, 30])
    }))

  test('of inner tensors, and through autograd.grad', () =>
    scope(async () => {
      const x = leaf(2)
      const y = x.mul(x)
      y.registerHook((gradient) => gradient.mul(0))
      const [d] = await autograd.grad(y.mul(5), x)
      expect(d!.item()).toBe(0)
    }))

  test('are removed, also twice and from inside', () =>
    scope(async () => {
      const x = leaf(1)
      let calls = 0
      const remove = x.registerHook(() => {
        calls += 1
      })
      await x.sum().backward()
      remove()
      remove()
      await x.sum().backward()
      expect(calls).toBe(1)
      const again = x.registerHook(() => {
        calls += 1
        again()
      })
      await x.sum().backward()
      await x.sum().backward()
      expect(calls).toBe(2)
    }))

  test('outlive the handle they were made with; removing them then is harmless', () =>
    scope(async () => {
      let calls = 0
      const x = leaf(1)
      const y = x.mul(2)
      const remove = y.registerHook(() => {
        calls += 1
      })
      const loss = y.sum()
      y.dispose()
      await loss.backward()
      expect(calls).toBe(1)
      remove()
    }))

  test('that throw reject backward with their own error', () =>
    scope(async () => {
      const x = leaf(1)
      class Mine extends Error {}
      let thrown: unknown
      const remove = x.registerHook(function failingHook() {
        thrown = new Mine('from a hook')
        throw thrown
      })
      const error = await x
        .sum()
        .backward()
        .then(
          () => null,
          (reason) => reason,
        )
      expect(error).toBe(thrown)
      expect(error.stack).toContain('failingHook')
      remove()
      // What is thrown need not be an error.
      const other = x.registerHook(() => {
        throw 'a text'
      })
      await expect(x.sum().backward()).rejects.toThrow(/a text/)
      other()
      await x.sum().backward()
      expect(x.grad!.toArray()).toEqual([1])
    }))

  test('that return a promise, or no tensor, or a wrong one', () =>
    scope(async () => {
      const x = leaf(1, 2)
      const returning = async (value: unknown) => {
        const remove = x.registerHook(() => value as Tensor)
        await x.sum().backward().finally(remove)
      }
      await expect(returning(Promise.resolve())).rejects.toThrow(/synchronous/)
      await expect(returning(3)).rejects.toThrow(expect.objectContaining({ code: expect.stringMatching(/^ERR_/) }))
      await expect(returning(ones([3]))).rejects.toThrow(
        expect.objectContaining({ code: expect.stringMatching(/^ERR_/) }),
      )
      await expect(returning(ones([2], { dtype: 'float64' }))).rejects.toThrow(/changed the type/)
      await expect(returning(undefined)).resolves.toBeUndefined()
      await expect(returning(null)).resolves.toBeUndefined()
    }))

  test('need a tensor with a gradient, and a function', () => {
    scope(() => {
      expect(() => ones([1]).registerHook(() => {})).toThrow(GradientError)
      expect(() => leaf(1).registerHook(undefined as never)).toThrow(expect.objectContaining({ code: 'ERR_CONFIG' }))
    })
  })

  test('run without grad mode, and tensors made in them are freed', async () => {
    const x = leaf(1)
    let inside: Tensor | null = null
    const modes: boolean[] = []
    const remove = x.registerHook((gradient) => {
      inside = gradient.mul(2)
      modes.push(isGradEnabled(), inside.requiresGrad)
      return inside
    })
    const before = counts()
    await scope(() => x.sum().backward())
    expect(modes).toEqual([false, false])
    expect((inside as unknown as Tensor).disposed).toBe(true)
    expect(counts()).toEqual(before)
    remove()
    x.dispose()
  })

  test('may use other tensors, scopes and operators, but not wait for the executor', () =>
    scope(async () => {
      const [x, weight] = [leaf(1, 2), tensor([3, 4])]
      let inner: Promise<unknown> | undefined
      x.registerHook((gradient) => {
        // Queued behind the pass that waits for this hook: it must not be awaited here, and must not hang either.
        inner = weight.data()
        return scope(() => gradient.add(weight.mul(2)))
      })
      await x.sum().backward()
      expect(x.grad!.toArray()).toEqual([7, 9])
      expect(await inner).toEqual(BigInt64Array.of(3n, 4n))
    }))
})
