import assert from 'node:assert'
import { spawnSync } from 'node:child_process'
import { isDeepStrictEqual } from 'node:util'
import { describe, expect, test } from 'vitest'
import { type Complex, Generator, memoryStats, ones, ops, rand, scope, tensor, zeros } from '../../lib/index.js'
import { settledTensors } from '../helpers.js'

describe('deep comparison', () => {
  test('finds equal tensors equal', () =>
    scope(() => {
      const x = tensor([1, 2])
      expect(x).toEqual(tensor([1, 2]))
      expect({ a: [x] }).toStrictEqual({ a: [tensor([1, 2])] })
      assert.deepStrictEqual(x, tensor([1, 2]))
      expect(tensor([Number.NaN, 0])).toEqual(tensor([Number.NaN, 0]))
      // By elements, not by how they lie in memory.
      expect(ones([2, 3]).t().contiguous()).toEqual(ones([2, 3]).t())
      expect(tensor([{ re: 1, im: -2 }]).conj()).toEqual(tensor([{ re: 1, im: 2 }]))
      expect(tensor([1.5], { dtype: 'bfloat16' })).toEqual(tensor([1.5], { dtype: 'bfloat16' }))
    }))

  test.each([
    ['elements', () => tensor([1, 3])],
    ['shape', () => tensor([[1, 2]])],
    ['dtype', () => tensor([1, 2], { dtype: 'float32' })],
    ['length', () => tensor([1, 2, 0])],
    ['the object', () => [1, 2]],
  ])('tells another %s', (_, make) =>
    scope(() => {
      const x = tensor([1, 2])
      const other = make()
      expect(x).not.toEqual(other)
      expect(() => expect(x).toEqual(other)).toThrow(/expected/)
      expect({ a: [x] }).not.toStrictEqual({ a: [other] })
      expect(isDeepStrictEqual(x, other)).toBe(false)
      expect(() => assert.deepStrictEqual({ x }, { x: other })).toThrow(assert.AssertionError)
    }),
  )

  test('never finds what cannot be read equal', () =>
    scope(() => {
      const gone = [tensor([1]), tensor([1])]
      for (const one of gone) one.dispose()
      expect(gone[0]).not.toEqual(gone[1])
      expect(zeros([2], { device: 'meta' })).not.toEqual(zeros([2], { device: 'meta' }))
      expect(gone[0]).toEqual(gone[0])
    }))

  test('leaves no temporaries', () => {
    const x = tensor([1.5, 2], { dtype: 'float16' })
    const before = memoryStats().liveTensors
    expect(isDeepStrictEqual(x, x.clone())).toBe(true)
    expect(JSON.stringify(x)).toBe('[1.5,2]')
    expect(memoryStats().liveTensors).toBe(before + 1)
  })
})

test('JSON holds the elements', () =>
  scope(() => {
    expect(JSON.stringify({ loss: tensor(0.5), ids: tensor([[1, 2]]), on: tensor([true]) })).toBe(
      '{"loss":0.5,"ids":[[1,2]],"on":[true]}',
    )
  }))

test('a structured clone is refused', () =>
  scope(() => {
    for (const value of [tensor([1]), { deep: [tensor([1])] }, new Generator()]) {
      expect(() => structuredClone(value)).toThrow(expect.objectContaining({ name: 'DataCloneError' }))
    }
    expect(() => structuredClone(tensor([1]))).toThrow(/send await tensor\.data\(\)/)
  }))

test('item() adds up without a cast, and can be told what it is', () =>
  scope(() => {
    let total = 0
    total += tensor(1.5).item()
    const flag: boolean = tensor(true).item<boolean>()
    const { im } = tensor({ re: 1, im: 2 }).item<Complex>()
    const long = tensor(2n ** 60n).item<number | bigint>()
    expect([total, flag, im, long]).toEqual([1.5, true, 2, 2n ** 60n])
  }))

test('x.at() is a view of all, as x[()]', () =>
  scope(() => {
    const x = tensor([1, 2])
    x.at().setAt([], 7)
    expect(x.toArray()).toEqual([7, 7])
    expect(tensor(3).at().item()).toBe(3)
  }))

test('a generator from a number has that seed, and lives', async () => {
  const generator = new Generator(5)
  expect(generator.seed).toBe(5)
  expect(new Generator(2n ** 60n).seed).toBe(2n ** 60n)
  for (const wrong of [1.5, '1', null]) {
    expect(() => new Generator(wrong as never)).toThrow(expect.objectContaining({ code: 'ERR_CONFIG' }))
  }
  await settledTensors()
  scope(() => {
    const other = new Generator({ seed: 5 })
    expect(rand([3], { generator })).toEqual(rand([3], { generator: other }))
  })
})

describe('a loop without a scope', () => {
  const run = (body: string) => {
    const script = `import { ones, scope } from 'voxtorch'
      process.on('warning', ({ name, code }) => console.log(name, code))
      const x = ones([1])
      ${body}`
    const { stdout, stderr } = spawnSync(process.execPath, ['--input-type=module', '--eval', script], {
      encoding: 'utf8',
    })
    return { warnings: stdout.trim(), stderr }
  }

  test('warns once', () => {
    const { warnings, stderr } = run('for (let step = 0; step < 20000; step++) x.add(x)')
    expect(warnings).toBe('VoxtorchWarning VOXTORCH_NO_SCOPE')
    expect(stderr).toContain('scope(() => ...)')
  })

  test('and one with a scope does not', () => {
    expect(run('for (let step = 0; step < 20000; step++) scope(() => x.add(x).mul(x))').warnings).toBe('')
  })
})

test('a deep comparison sees what a view shows', () =>
  scope(() => {
    const z = ops.complex(tensor([1.5]), tensor([2.5]))
    expect(ops.imag(z.conj())).toEqual(tensor([-2.5]))
  }))
