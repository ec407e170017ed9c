// Against torch.distributions: test/reference/distributions.py.
import { describe, expect, it } from 'vitest'
import { autograd, distributions, scope, type Tensor } from '../../lib/index.js'
import { expectClose, fixture, tensorsOf } from '../helpers.js'
import { build, weighted } from './build.js'

interface Case {
  name: string
  type: string
  constants: Record<string, number>
  batchShape: number[]
  eventShape: number[]
  hasRsample: boolean
  hasEnumerateSupport: boolean
  /** Errors of PyTorch in float32, by output, where they are above 2.5e-6: differences of nearly equal numbers. */
  errors: Record<string, number>
  missing: string[]
}

const files = await Promise.all(
  ['continuous', 'discrete', 'vectors'].map((name) => fixture<Case>(`distributions/${name}`)),
)
const cases = files.flatMap((file) => file.cases.map((one) => ({ ...one, file })))

/** The result of a method or property of a distribution. */
function resultOf(made: distributions.Distribution, name: string, given: Record<string, Tensor>): Tensor {
  switch (name) {
    case 'logProb':
      return made.logProb(given.value!)
    case 'cdf':
      return made.cdf(given.value!)
    case 'icdf':
      return made.icdf(given.levels!)
    case 'entropy':
      return made.entropy()
    case 'enumerateSupport':
      return made.enumerateSupport()
    default:
      return made[name as 'mean']
  }
}

const inDType = (tensors: Record<string, Tensor>, dtype: 'float32' | 'float64', requiresGrad = false) =>
  Object.fromEntries(
    Object.entries(tensors).map(([key, value]) => {
      const copy = value.to({ dtype, copy: true })
      return [key, requiresGrad ? copy.requiresGrad_() : copy]
    }),
  )

describe.each(['float32', 'float64'] as const)('in %s, as PyTorch', (dtype) => {
  it.each(cases)('$name', ({ file, ...one }) =>
    scope(async () => {
      const parameters = inDType(tensorsOf(file, one.name, 'param'), dtype, true)
      const given = inDType(tensorsOf(file, one.name, 'in'), dtype)
      const made = build(one.name, parameters, one.constants)
      expect([made.batchShape, made.eventShape]).toEqual([one.batchShape, one.eventShape])
      expect([made.hasRsample, made.hasEnumerateSupport]).toEqual([one.hasRsample, one.hasEnumerateSupport])
      const expected = tensorsOf(file, one.name, 'out')
      const gradients = tensorsOf(file, one.name, 'grad')
      expect(Object.keys(expected)).toContain('logProb')
      const tolerance = (name: string) => (dtype === 'float32' ? Math.max(1e-5, 4 * (one.errors[name] ?? 0)) : 1e-6)
      for (const [name, value] of Object.entries(expected)) {
        const result = resultOf(made, name, given)
        const isIndex = result.dtype === 'int64'
        expect(result.dtype === dtype || isIndex, `${name} is ${result.dtype}`).toBe(true)
        expectClose(result, value, tolerance(name), name)
        const ours = Object.keys(gradients).filter((key) => key.startsWith(`${name}.`))
        if (ours.length === 0) continue
        const names = ours.map((key) => key.slice(name.length + 1))
        const found = await autograd.grad(
          weighted(result),
          names.map((key) => parameters[key]!),
          { allowUnused: true },
        )
        for (const [i, gradient] of found.entries())
          expectClose(gradient!, gradients[ours[i]!]!, tolerance(ours[i]!), ours[i])
      }
    }),
  )
})

it('each exported distribution has a case', () => {
  const classes = Object.entries(distributions)
    .filter(([, value]) => typeof value === 'function' && value.prototype instanceof distributions.Distribution)
    .map(([name]) => name)
  expect(classes.length).toBeGreaterThanOrEqual(36)
  const tested = new Set(cases.map(({ type }) => type))
  expect(classes.filter((name) => !tested.has(name))).toEqual([])
})

it('what PyTorch does not have is an error that names it, or is computed', () => {
  const more: string[] = []
  for (const { file, ...one } of cases) {
    scope(() => {
      const made = build(one.name, tensorsOf(file, one.name, 'param'), one.constants)
      const value = tensorsOf(file, one.name, 'in')
      for (const name of one.missing) {
        try {
          resultOf(made, name, value)
          more.push(`${made.constructor.name}.${name}`)
        } catch (error) {
          const { message, code } = error as Error & { code: string }
          const asked = name === 'stddev' ? 'variance' : name
          expect([code, message]).toEqual(['ERR_NOT_IMPLEMENTED', expect.stringContaining(`.${asked}: `)])
        }
      }
    })
  }
  expect([...new Set(more)].sort()).toEqual(['Kumaraswamy.mode'])
})

describe('klDivergence', async () => {
  const file = await fixture<{ name: string; p: string; q: string }>('distributions/kl')

  it.each(file.cases)('$name', ({ name, p, q }) =>
    scope(async () => {
      const expected = tensorsOf(file, name, 'out').kl!
      const gradients = tensorsOf(file, name, 'grad')
      for (const dtype of ['float32', 'float64'] as const) {
        const parameters = inDType(tensorsOf(file, name, 'param'), dtype, true)
        const [first, second] = [p, q].map((type, i) => {
          const role = i === 0 ? 'p.' : 'q.'
          const own = Object.entries(parameters).filter(([key]) => key.startsWith(role))
          return build(type, Object.fromEntries(own.map(([key, value]) => [key.slice(2), value])))
        }) as [distributions.Distribution, distributions.Distribution]
        const result = distributions.klDivergence(first, second)
        expectClose(result, expected, 1e-5, dtype)
        const names = Object.keys(gradients)
        if (names.length === 0) continue
        const inputs = names.map((key) => parameters[key]!)
        const found = await autograd.grad(weighted(result), inputs, { allowUnused: true })
        for (const [i, gradient] of found.entries())
          expectClose(gradient ?? inputs[i]!.mul(0), gradients[names[i]!]!, 1e-5, `${dtype} ${names[i]}`)
      }
    }),
  )
})
