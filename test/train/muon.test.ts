import { describe, expect, test } from 'vitest'
import {
  ConfigError,
  Embedding,
  GradientError,
  Muon,
  ones,
  Parameter,
  SparseAdam,
  scope,
  type Tensor,
  zeros,
} from '../../lib/index.js'
import { expectClose, fixture, tensorsOf } from '../helpers.js'

interface Case {
  name: string
  options: Record<string, unknown>
  group: Record<string, unknown>
  error: number
}

const camel = (options: Record<string, unknown>) =>
  Object.fromEntries(
    Object.entries(options).map(([key, v]) => [key.replace(/_(.)/g, (_, c: string) => c.toUpperCase()), v]),
  )

function expectState(optimizer: Muon | SparseAdam, expected: Record<string, Tensor>, tolerance: number): void {
  const state = Object.entries(optimizer.stateDict().state).flatMap(([i, values]) =>
    Object.entries(values).map(([key, value]) => [`${i}.${key}`, value as Tensor] as const),
  )
  expect(state.map(([key]) => key).sort()).toEqual(Object.keys(expected).sort())
  for (const [key, value] of state) expectClose(value, expected[key]!, tolerance, key)
}

describe('Muon', async () => {
  const file = await fixture<Case>('train/muon')
  const given = tensorsOf(file, 'given', 'param')
  const gradients = tensorsOf(file, 'given', 'in')
  const keys = ['wide', 'tall', 'square']

  test.each(file.cases.slice(1))('20 steps as in PyTorch: $name', async ({ name, options, group, error }) => {
    const params = Object.fromEntries(keys.map((key) => [key, new Parameter(given[key]!.clone())]))
    using optimizer = new Muon(Object.values(params), camel(options))
    for (let step = 0; step < 20; step++) {
      await scope(async () => {
        for (const key of keys) params[key]!.grad = gradients[key]!.at(step).clone()
        await optimizer.step()
      })
    }
    // Products in bfloat16 round differently on other processors: no further than bfloat16 itself is from float32.
    for (const [key, value] of Object.entries(tensorsOf(file, name, 'out'))) {
      expectClose(params[key]!.detach(), value, error, key)
    }
    expectState(optimizer, tensorsOf(file, name, 'state'), 1e-6)
    const { params: _, ...saved } = optimizer.stateDict().param_groups[0]!
    expect(saved).toEqual({ ...group, maximize: false })
    for (const param of Object.values(params)) param.dispose()
  })

  test('a saved state resumes bit for bit', async () => {
    const run = async (resumeAt: number | null) => {
      const params = keys.map((key) => new Parameter(given[key]!.clone()))
      let optimizer = new Muon(params)
      for (let step = 0; step < 6; step++) {
        if (step === resumeAt) {
          const state = optimizer.stateDict()
          const resumed = new Muon(params, { lr: 1 })
          resumed.loadStateDict(state)
          optimizer.dispose()
          optimizer = resumed
        }
        await scope(async () => {
          for (const [i, key] of keys.entries()) params[i]!.grad = gradients[key]!.at(step).clone()
          await optimizer.step()
        })
      }
      optimizer.dispose()
      return params.map((param) => param.detach().toArray())
    }
    expect(await run(3)).toEqual(await run(null))
  })

  test('takes matrices only, and checks its options', () => {
    const params = [new Parameter(ones([2, 3]))]
    expect(() => new Muon([new Parameter(ones([3]))])).toThrow(
      /^Muon: expected matrices, got a parameter of shape \[3\]/,
    )
    for (const options of [{ nsSteps: 100 }, { adjustLrFn: 'other' }, { nsCoefficients: [1, 2] }, { lr: -1 }]) {
      expect(() => new Muon(params, options as never)).toThrow(ConfigError)
    }
  })

  test('maximizes', () =>
    scope(async () => {
      const [up, down] = [new Parameter(zeros([2, 3])), new Parameter(zeros([2, 3]))]
      for (const [param, maximize] of [
        [up, true],
        [down, false],
      ] as const) {
        using optimizer = new Muon([param], { maximize })
        param.grad = ones([2, 3])
        await optimizer.step()
      }
      expectClose(up.detach(), down.detach().neg())
      expect(up.sum().item()).toBeGreaterThan(0)
    }))
})

describe('SparseAdam', async () => {
  const file = await fixture<Case>('train/sparse-adam')
  const indices = tensorsOf(file, 'given', 'in').indices!

  test.each(file.cases.slice(1))('as in PyTorch: $name', async ({ name, options }) => {
    const layer = new Embedding(7, 3, { sparse: true })
    layer.loadStateDict({ weight: tensorsOf(file, 'given', 'param').table! })
    using optimizer = new SparseAdam(layer.parameters(), camel(options))
    for (let step = 0; step < indices.size(0); step++) {
      await scope(async () => {
        optimizer.zeroGrad()
        await layer.forward(indices.at(step)).sin().sum().backward()
        await optimizer.step()
      })
    }
    expectClose(layer.weight.detach(), tensorsOf(file, name, 'out').table!)
    expectState(optimizer, tensorsOf(file, name, 'state'), 1e-5)
    layer.dispose()
  })

  test('refuses a dense gradient by name', async () => {
    const param = new Parameter(ones([2, 3]))
    using optimizer = new SparseAdam([param])
    param.grad = ones([2, 3])
    await expect(optimizer.step()).rejects.toThrow(GradientError)
    await expect(optimizer.step()).rejects.toThrow(/^SparseAdam: expected a sparse gradient/)
  })
})
