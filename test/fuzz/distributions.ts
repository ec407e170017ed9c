/** Right calls of `distributions`: each class is built, sampled, and asked for what it computes. */
import { distributions, scope, type Tensor } from '../../lib/index.js'
import { type Args, add, type Loose, lib, of, options } from './define.js'
import { dense as f, list, made, type Spec } from './values.js'

const classes = distributions as unknown as Record<string, new (...args: Loose[]) => distributions.Distribution>

// Distributions do not free the tensors that they are made of.
const ones = lib.ones([3])
const loose = { validateArgs: false }
const positive = f([3], 'unit')
const matrix = made('eye(3)', () => lib.eye(3))
const either: Args[] = [
  of(f([3], 'unit')),
  of(options({ logits: f([2, 3]) })),
  of(options({ probs: f([3], 'unit'), validateArgs: false })),
]
const withLogits = (...first: unknown[]): Args[] => [
  of(...first, f([3], 'unit')),
  of(...first, options({ logits: f([3]) })),
]
const locScale: Args[] = [of(0, 1), of(f([2, 3]), positive), of(options({ loc: f([3]), scale: positive, ...loose }))]
const twoPositive: Args[] = [of(0.5, 2), of(positive, positive), of(positive, 1, options(loose))]

const right: Record<string, Args[]> = {
  Bernoulli: either,
  Beta: twoPositive,
  Binomial: withLogits(3),
  Categorical: either,
  Cauchy: locScale,
  Chi2: [of(3), of(positive)],
  ContinuousBernoulli: either,
  Dirichlet: [of(positive), of(f([2, 3], 'unit'))],
  Exponential: [of(0.5), of(positive)],
  FisherSnedecor: twoPositive,
  Gamma: twoPositive,
  GeneralizedPareto: [of(0, 1, 0.5), of(f([3]), positive, positive)],
  Geometric: [of(0.5), of(options({ logits: f([3]) }))],
  Gumbel: locScale,
  HalfCauchy: [of(1), of(positive)],
  HalfNormal: [of(1), of(positive)],
  InverseGamma: twoPositive,
  Kumaraswamy: twoPositive,
  LKJCholesky: [of(3), of(3, positive)],
  Laplace: locScale,
  LogNormal: locScale,
  LogisticNormal: [of(f([3]), positive)],
  LowRankMultivariateNormal: [of(f([3]), f([3, 2]), positive)],
  Multinomial: withLogits(4),
  MultivariateNormal: [
    of(f([3]), matrix),
    of(f([2, 3]), options({ scaleTril: matrix })),
    of(f([3]), options({ precisionMatrix: matrix })),
  ],
  NegativeBinomial: withLogits(4),
  Normal: locScale,
  OneHotCategorical: either,
  OneHotCategoricalStraightThrough: either,
  Pareto: twoPositive,
  Poisson: [of(2), of(positive)],
  RelaxedBernoulli: withLogits(0.5),
  RelaxedOneHotCategorical: withLogits(0.5),
  StudentT: [of(3), of(positive, 0, 2)],
  Uniform: [of(0, 1), of(f([3], 'zeros'), f([3], 'ones'))],
  VonMises: locScale,
  Weibull: twoPositive,
  Wishart: [of(4, matrix), of(f([2], 'ones'), options({ scaleTril: matrix, ...loose }))],
  Independent: [of(normal([2, 3]), 1)],
  MixtureSameFamily: [
    of(
      made('new Categorical(ones([3]))', () => new distributions.Categorical(ones)),
      normal([3]),
    ),
  ],
  TransformedDistribution: [
    of(
      normal([3]),
      made('[new ExpTransform()]', () => [new distributions.ExpTransform()]),
    ),
  ],
}

function normal(shape: number[]): Spec {
  return made(`new Normal(0, 1).expand([${shape}])`, () => new distributions.Normal(0, 1).expand(shape))
}

const PARTS = ['mean', 'mode', 'variance', 'stddev', 'support', 'argConstraints', 'hasRsample'] as const

/** Return what a distribution computes. Parts that its class lacks are typed errors, like those of wrong parameters. */
function computed(dist: distributions.Distribution): unknown[] {
  const attempt = (run: () => unknown): unknown => {
    try {
      return run()
    } catch (error) {
      if (error instanceof lib.NotImplementedError) return undefined
      throw error
    }
  }
  return scope(() => {
    const sample = dist.sample([2])
    return [
      sample,
      dist.logProb(sample),
      String(dist),
      attempt(() => dist.rsample()),
      attempt(() => dist.entropy()),
      attempt(() => dist.cdf(sample)),
      attempt(() => dist.enumerateSupport()),
      ...PARTS.map((part) => attempt(() => dist[part])),
      attempt(() => dist.expand([2, ...dist.batchShape]).sample()),
    ].filter((one) => one instanceof lib.Tensor)
  })
}

for (const [name, calls] of Object.entries(right)) {
  add(`distributions.${name}`, (...args) => computed(new classes[name]!(...args)), ...calls)
}

/** Call a method of a distribution of numbers. */
function method(
  name: 'sample' | 'rsample' | 'logProb' | 'cdf' | 'icdf' | 'expand' | 'enumerateSupport',
  ...calls: Args[]
): void {
  add(
    `Distribution.${name}`,
    (...args) => {
      const made = name === 'enumerateSupport' ? new distributions.Bernoulli(0.5) : new distributions.Normal(0, 1)
      const result = (made as Loose)[name](...args)
      return result instanceof distributions.Distribution ? result.batchShape : result
    },
    ...calls,
  )
}
for (const name of ['sample', 'rsample', 'expand'] as const) method(name, of([2, 3]), of([]))
for (const name of ['logProb', 'cdf', 'icdf'] as const) method(name, of(f([3], 'unit')), of(f([], 'unit')))
method('enumerateSupport', of(), of(false))

const transforms: Record<string, Args> = {
  AbsTransform: of(),
  AffineTransform: of(f([3]), 2),
  ExpTransform: of(),
  LowerCholeskyTransform: of(),
  PositiveDefiniteTransform: of(),
  PowerTransform: of(2),
  SigmoidTransform: of(),
  SoftmaxTransform: of(),
  SoftplusTransform: of(),
  StickBreakingTransform: of(),
  TanhTransform: of(),
}
for (const [name, args] of Object.entries(transforms)) {
  const matrices = /Cholesky|Definite/.test(name)
  add(
    `distributions.${name}`,
    (input, ...settings) =>
      scope(() => {
        const transform = new (classes as Loose)[name](...settings)
        const output = transform.forward(input) as Tensor
        const results: unknown[] = [output, transform.inv.forward(output)]
        if (transform.bijective && !/Softmax/.test(name)) results.push(transform.logAbsDetJacobian(input, output))
        return results
      }),
    of(f(matrices ? [3, 3] : [2, 3], 'unit'), ...args),
  )
}
add(
  'distributions.ComposeTransform',
  (parts) => scope(() => new distributions.ComposeTransform(parts).forward(lib.ones([2]))),
  of(made('[exp, tanh]', () => [new distributions.ExpTransform(), new distributions.TanhTransform()])),
)
add(
  'distributions.IndependentTransform',
  (base, dims) => scope(() => new distributions.IndependentTransform(base, dims).forward(lib.ones([2]))),
  of(
    made('exp', () => new distributions.ExpTransform()),
    1,
  ),
)
for (const name of ['bijectTo', 'transformTo'])
  add(
    `distributions.${name}`,
    (constraint) => scope(() => (distributions as Loose)[name](constraint).forward(lib.ones([2, 2]))),
    of(made('constraints.positive', () => distributions.constraints.positive)),
    of(made('constraints.interval(0, 1)', () => distributions.constraints.interval(0, 1))),
  )
add('distributions.klDivergence', (p, q) => distributions.klDivergence(p, q), of(normal([2]), normal([2])))
add(
  'distributions.registerKl',
  (p, q, formula) => distributions.registerKl(p, q, formula),
  of(
    made('class A', () => class extends distributions.Distribution {}),
    made('class B', () => class extends distributions.Distribution {}),
    made('() => 0', () => () => lib.zeros([])),
  ),
)
add(
  'Distribution.setDefaultValidateArgs',
  (on) => {
    distributions.Distribution.setDefaultValidateArgs(on)
    distributions.Distribution.setDefaultValidateArgs(true)
  },
  of(true),
  of(false),
)

for (const [name, args] of Object.entries({
  greaterThan: [0],
  greaterThanEq: [0],
  lessThan: [1],
  interval: [0, 1],
  halfOpenInterval: [0, 1],
  integerInterval: [0, 3],
  multinomial: [3],
}))
  add(
    `constraints.${name}`,
    (value, ...bounds) => (distributions.constraints as Loose)[name](...bounds).check(value),
    of(f([2, 3], 'unit'), ...args),
  )
add(
  'constraints.independent',
  (base, dims) => scope(() => distributions.constraints.independent(base, dims).check(lib.ones([2, 2]))),
  of(
    made('constraints.real', () => distributions.constraints.real),
    1,
  ),
)
add(
  'constraints.check',
  (names, value) =>
    (Array.isArray(names) ? names : []).map((name) =>
      ((distributions.constraints as Loose)[name]?.check ?? (() => undefined))(value),
    ),
  of(
    list(['boolean', 'simplex', 'positiveDefinite', 'corrCholesky', 'lowerCholesky', 'oneHot', 'square', 'symmetric']),
    f([3, 3]),
  ),
)
