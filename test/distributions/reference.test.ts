// Against torch.distributions: test/reference/distributions.py.
import { describe, expect, it } from 'vitest'
import { autograd, distributions, scope, type Tensor, tensor } from '../../lib/index.js'
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
  // The base of families of the reader has a test of its own.
  expect(classes.filter((name) => !tested.has(name))).toEqual(['ExponentialFamily'])
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

describe('ExponentialFamily', async () => {
  const { ExponentialFamily } = distributions
  type Family = distributions.ExponentialFamily & { bregman(other: unknown): Tensor }
  // The general rule, which most classes override with a formula.
  const { computeEntropy } = ExponentialFamily.prototype as unknown as { computeEntropy(): Tensor }
  const members = cases.flatMap((one) =>
    /^(Normal|Exponential|Gamma|Chi2|InverseGamma|Beta|Dirichlet|Bernoulli|ContinuousBernoulli|Wishart)\b/.test(
      one.name,
    )
      ? [one]
      : [],
  )
  const file = await fixture<{ name: string; p: string; q: string }>('distributions/kl')
  const pairs = file.cases.filter(({ p, q }) => p === q && members.some(({ type }) => type === p))

  it.each(members)('has the entropy of $name, with its gradients', ({ file, name, constants }) =>
    scope(async () => {
      const parameters = inDType(tensorsOf(file, name, 'param'), 'float64', true)
      const made = build(name, parameters, constants)
      expect(made).toBeInstanceOf(ExponentialFamily)
      const result = computeEntropy.call(made)
      expectClose(result.detach(), tensorsOf(file, name, 'out').entropy!, 1e-5)
      const gradients = Object.entries(tensorsOf(file, name, 'grad')).filter(([key]) => key.startsWith('entropy.'))
      expect(gradients.length).toBeGreaterThan(0)
      const inputs = gradients.map(([key]) => parameters[key.slice('entropy.'.length)]!)
      const found = await autograd.grad(weighted(result), inputs)
      for (const [i, [key, expected]] of gradients.entries()) {
        // The general rule has a gradient above the diagonal too, which no lower triangular factor can follow.
        const gradient = key.endsWith('scaleTril') ? found[i]!.tril() : found[i]!
        expectClose(gradient, expected, 1e-5, key)
      }
    }),
  )

  it.each(pairs)('has the divergence of $name', ({ name, p }) =>
    scope(() => {
      const parameters = tensorsOf(file, name, 'param')
      const [first, second] = ['p.', 'q.'].map((role) => {
        const own = Object.entries(parameters).filter(([key]) => key.startsWith(role))
        return build(p, Object.fromEntries(own.map(([key, value]) => [key.slice(2), value.double()])))
      }) as [Family, Family]
      const result = first.bregman(second)
      expect(result.requiresGrad).toBe(false)
      expectClose(result, tensorsOf(file, name, 'out').kl!, 1e-5)
    }),
  )

  it('serves a family of the reader: Rayleigh', async () => {
    const EULER = 0.5772156649015329
    class Rayleigh extends ExponentialFamily {
      constructor(readonly scale: Tensor) {
        super(scale.shape)
      }
      override get meanCarrierMeasure(): Tensor {
        return this.scale.log().add((Math.LN2 - EULER) / 2)
      }
      protected override computeNaturalParams(): Tensor[] {
        return [this.scale.square().mul(-2).reciprocal()]
      }
      protected override computeLogNormalizer(x: Tensor): Tensor {
        return x.mul(-2).log().neg()
      }
    }
    class Other extends Rayleigh {}
    await scope(async () => {
      const [a, b] = [tensor([0.5, 2], { dtype: 'float64', requiresGrad: true }), tensor([1, 3], { dtype: 'float64' })]
      const [p, q] = [new Rayleigh(a), new Rayleigh(b)]
      const entropy = p.entropy()
      expectClose(
        entropy,
        a
          .div(Math.SQRT2)
          .log()
          .add(1 + EULER / 2),
        1e-12,
      )
      const [slope] = await autograd.grad([entropy.sum()], [a])
      expectClose(slope!, a.reciprocal(), 1e-12)
      const divergence = distributions.klDivergence(p, q)
      expectClose(divergence, b.div(a).log().mul(2).add(a.div(b).square()).sub(1), 1e-12)
      expect([divergence.requiresGrad, q.entropy().requiresGrad]).toEqual([true, false])
      expect(() => distributions.klDivergence(p, new Other(b))).toThrow(/got Rayleigh and Other/)
      expect(() => new distributions.Poisson(2).entropy()).toThrow(/Poisson has no entropy/)
    })
  })
})
