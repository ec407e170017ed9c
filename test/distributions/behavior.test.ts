import { afterEach, describe, expect, it } from 'vitest'
import {
  autograd,
  distributions,
  eye,
  keepAlive,
  Module,
  manualSeed,
  memoryStats,
  Parameter,
  randn,
  scope,
  type Tensor,
  tensor,
  zeros,
} from '../../lib/index.js'
import { expectClose } from '../helpers.js'

const {
  AffineTransform,
  Bernoulli,
  Beta,
  Binomial,
  Categorical,
  ComposeTransform,
  Cauchy,
  Dirichlet,
  Distribution,
  ExpTransform,
  Exponential,
  Gamma,
  Geometric,
  Independent,
  IndependentTransform,
  klDivergence,
  LowerCholeskyTransform,
  MixtureSameFamily,
  Multinomial,
  MultivariateNormal,
  Normal,
  OneHotCategorical,
  PowerTransform,
  registerKl,
  RelaxedOneHotCategorical,
  SigmoidTransform,
  SoftmaxTransform,
  SoftplusTransform,
  StickBreakingTransform,
  StudentT,
  TanhTransform,
  TransformedDistribution,
  Uniform,
  VonMises,
} = distributions

/** Code and message of the error that a function throws. */
function errorOf(run: () => unknown): [string, string] {
  try {
    scope(run)
  } catch (error) {
    const { code, message } = error as Error & { code: string }
    return [code, message]
  }
  throw new Error('nothing was thrown')
}

describe('arguments', () => {
  it('are positional or named, and numbers or tensors', () =>
    scope(() => {
      const value = tensor([0.2, 0.7])
      const [loc, scale] = [tensor([0.5, 1.5]), tensor([2, 3], { dtype: 'float32' })]
      const expected = new Normal(loc, scale).logProb(value)
      expectClose(new Normal({ loc, scale }).logProb(value), expected, 0)
      expectClose(new Normal(loc, scale, { validateArgs: false }).logProb(value), expected, 0)
      expect(new Normal(0, 1).batchShape).toEqual([])
      expect(new Normal(tensor([0.5], { dtype: 'float64' }), 1).sample().dtype).toBe('float64')
      expect(new Bernoulli({ logits: 0 }).mean.item()).toBe(0.5)
      expect(new Bernoulli(null, 0).mean.item()).toBe(0.5)
      expect(new StudentT(3).loc.item()).toBe(0)
      expect(new StudentT(3, { scale: 2 }).scale.item()).toBe(2)
      expect(new Binomial({ probs: 0.5 }).totalCount.item()).toBe(1)
      expect(new Binomial(tensor([3, 4]), { probs: tensor([0.5, 0.25]) }).mean.toArray()).toEqual([1.5, 1])
    }))

  it.each<[string, () => unknown, string, string]>([
    ['a text', () => new Normal('0' as never, 1), 'ERR_CONFIG', 'Normal: expected loc to be a tensor, got "0"'],
    ['none', () => new (Normal as unknown as new () => unknown)(), 'ERR_CONFIG', 'Normal: expected loc to be a tensor'],
    ['too many', () => new (Normal as never as new (...a: number[]) => unknown)(0, 1, 2), 'ERR_CONFIG', 'at most 2'],
    ['unknown', () => new Normal({ loc: 0, scales: 1 } as never), 'ERR_CONFIG', "did you mean 'scale'"],
    ['twice', () => new Normal(0, 1, { scale: 2 } as never), 'ERR_CONFIG', 'Normal: expected scale once'],
    ['integers', () => new Normal(tensor([0]), 1), 'ERR_DTYPE', 'Normal: expected loc to be a floating-point tensor'],
    ['a flag', () => new Normal(0, 1, { validateArgs: 1 as never }), 'ERR_CONFIG', 'validateArgs'],
    ['shapes', () => new Normal(zeros([2]), randn([3]).exp()), 'ERR_SHAPE', 'loc [2], scale [3]'],
    [
      'no base of a constraint',
      () => distributions.constraints.independent(3 as never, 1),
      'ERR_CONFIG',
      'constraints.independent: expected base to be a constraint, got 3',
    ],
    [
      'a bound of a text',
      () => distributions.constraints.interval(0, 'x' as never),
      'ERR_CONFIG',
      'constraints.interval: expected high to be a tensor, got "x"',
    ],
    [
      'half a count of a constraint',
      () => distributions.constraints.multinomial(0.5),
      'ERR_CONFIG',
      'constraints.multinomial: expected totalCount',
    ],
    [
      'a check of a number',
      () => distributions.constraints.positive.check(3 as never),
      'ERR_CONFIG',
      'constraint (> 0): expected value to be a tensor, got 3',
    ],
    [
      'no base of a transform',
      () => new distributions.IndependentTransform(3 as never, 1),
      'ERR_CONFIG',
      'IndependentTransform: expected baseTransform to be a transform, got 3',
    ],
    [
      'too few degrees of freedom',
      () => new distributions.Wishart(1.5, eye(3)),
      'ERR_CONFIG',
      'Wishart: expected df to satisfy its constraint (> 2)',
    ],
    [
      'a Wishart of a vector',
      () => new distributions.Wishart(4, zeros([3])),
      'ERR_SHAPE',
      'Wishart: expected covarianceMatrix to have at least 2',
    ],
    [
      'a Wishart of no square',
      () => new distributions.Wishart(4, { scaleTril: zeros([3, 2]) }),
      'ERR_SHAPE',
      'Wishart: expected scaleTril [..., n, n], got [3,2]',
    ],
    [
      'a Wishart of two matrices',
      () => new distributions.Wishart(4, eye(3), eye(3)),
      'ERR_CONFIG',
      'expected exactly one of',
    ],
    ['a scale of 0', () => new Normal(0, 0), 'ERR_CONFIG', 'Normal: expected scale to satisfy its constraint (> 0)'],
    [
      'NaN',
      () => new Normal(Number.NaN, 1),
      'ERR_CONFIG',
      'expected loc to satisfy its constraint (real), got 1 invalid',
    ],
    ['low above high', () => new Uniform(2, 1), 'ERR_CONFIG', 'Uniform: expected low'],
    ['a probability', () => new Bernoulli(1.5), 'ERR_CONFIG', 'in [0, 1]'],
    ['both', () => new Bernoulli({ probs: 0.5, logits: 0 } as never), 'ERR_CONFIG', 'got probs and logits'],
    ['neither', () => new Categorical({} as never), 'ERR_CONFIG', 'expected exactly one of probs, logits, got none'],
    ['a scalar of classes', () => new Categorical(tensor(0.5)), 'ERR_SHAPE', 'at least 1 dimensions'],
    ['no class', () => new Categorical(zeros([2, 0])), 'ERR_SHAPE', 'at least one class'],
    ['negative classes', () => new Categorical(tensor([-0.5, 1.5])), 'ERR_CONFIG', 'simplex'],
    ['impossible success', () => new Geometric(0), 'ERR_CONFIG', 'probs above 0'],
    ['one row', () => new distributions.LKJCholesky(1), 'ERR_CONFIG', 'LKJCholesky: expected dim'],
    ['half a draw', () => new Multinomial(1.5, tensor([0.5, 0.5])), 'ERR_CONFIG', 'totalCount'],
    ['half a count', () => new Binomial(1.5, 0.5), 'ERR_CONFIG', 'totalCount'],
    [
      'no matrix',
      () => new MultivariateNormal(zeros([2]), {} as never),
      'ERR_CONFIG',
      'covarianceMatrix, precisionMatrix',
    ],
    [
      'a wrong matrix',
      () => new MultivariateNormal(zeros([2]), randn([3, 3])),
      'ERR_SHAPE',
      'covarianceMatrix [..., 2, 2]',
    ],
    [
      'a matrix that is not positive definite',
      () =>
        new MultivariateNormal(
          zeros([2]),
          tensor([
            [1.5, 2],
            [2, 1.5],
          ]),
        ),
      'ERR_CONFIG',
      'positive definite',
    ],
    [
      'an asymmetric matrix',
      () =>
        new MultivariateNormal(
          zeros([2]),
          tensor([
            [1.0, 0.5],
            [0.0, 1.0],
          ]),
        ),
      'ERR_CONFIG',
      'positive definite',
    ],
    [
      'temperatures',
      () => new RelaxedOneHotCategorical(zeros([2]).add(1), tensor([0.5, 0.5])),
      'ERR_CONFIG',
      'temperature',
    ],
    ['no distribution', () => new Independent(3 as never, 1), 'ERR_CONFIG', 'Independent: expected baseDistribution'],
    ['too many dimensions', () => new Independent(new Normal(0, 1), 1), 'ERR_CONFIG', 'from 0 to 0'],
    ['no transform', () => new TransformedDistribution(new Normal(0, 1), [1] as never), 'ERR_CONFIG', 'transforms'],
    [
      'numbers for vectors',
      () => new TransformedDistribution(new Normal(0, 1), new StickBreakingTransform()),
      'ERR_SHAPE',
      'at least 1 dimensions',
    ],
    [
      'no mixture',
      () => new MixtureSameFamily(new Normal(0, 1) as never, new Normal(0, 1)),
      'ERR_CONFIG',
      'a Categorical',
    ],
    [
      'another number of components',
      () => new MixtureSameFamily(new Categorical(tensor([0.5, 0.5])), new Normal(zeros([3]), 1)),
      'ERR_SHAPE',
      '2 classes',
    ],
    ['a batch shape', () => new Distribution([-1]), 'ERR_CONFIG', 'batchShape'],
  ])('reject %s', (_, run, code, text) => {
    expect(errorOf(run)).toEqual([code, expect.stringContaining(text)])
  })

  it('are not checked with validateArgs false', () =>
    scope(() => {
      const broken = new Normal(0, -1, { validateArgs: false })
      expect(broken.scale.item()).toBe(-1)
      expect(new Bernoulli(0.5, { validateArgs: false }).logProb(tensor(0.3)).item()).toBeCloseTo(Math.log(0.5))
    }))

  describe('setDefaultValidateArgs', () => {
    afterEach(() => Distribution.setDefaultValidateArgs(true))

    it('changes the default', () => {
      Distribution.setDefaultValidateArgs(false)
      expect(new Normal(0, -1).validateArgs).toBe(false)
      expect(errorOf(() => new Normal(0, -1, { validateArgs: true }))[0]).toBe('ERR_CONFIG')
      expect(errorOf(() => Distribution.setDefaultValidateArgs(1 as never))[0]).toBe('ERR_CONFIG')
    })
  })
})

describe('values', () => {
  it.each<[string, () => unknown, string, string]>([
    [
      'a number',
      () => new Normal(0, 1).logProb(1 as never),
      'ERR_CONFIG',
      'Normal.logProb: expected value to be a tensor',
    ],
    [
      'NaN',
      () => new Normal(0, 1).logProb(tensor([0.1, Number.NaN])),
      'ERR_CONFIG',
      'the support (real), got 1 outside',
    ],
    ['below 0', () => new Exponential(1).logProb(tensor(-1.5)), 'ERR_CONFIG', '>= 0'],
    [
      'a class too many',
      () => new Categorical(tensor([0.5, 0.5])).logProb(tensor([0, 2])),
      'ERR_CONFIG',
      'integer in [0, 1]',
    ],
    ['half a class', () => new Categorical(tensor([0.5, 0.5])).logProb(tensor(0.5)), 'ERR_CONFIG', 'integer in'],
    ['not one-hot', () => new OneHotCategorical(tensor([0.5, 0.5])).logProb(tensor([1, 1])), 'ERR_CONFIG', 'one-hot'],
    ['counts', () => new Multinomial(3, tensor([0.5, 0.5])).logProb(tensor([1, 1])), 'ERR_CONFIG', 'counts with sum 3'],
    ['off the simplex', () => new Dirichlet(tensor([1.5, 2.5])).logProb(tensor([0.5, 0.6])), 'ERR_CONFIG', 'simplex'],
    ['another batch', () => new Normal(zeros([2]), 1).logProb(zeros([3])), 'ERR_SHAPE', 'value [3]'],
    [
      'another event',
      () => new Dirichlet(tensor([1.5, 2.5])).logProb(tensor([0.2, 0.3, 0.5])),
      'ERR_SHAPE',
      '[2], got shape [3]',
    ],
    ['no event', () => new Dirichlet(tensor([1.5, 2.5])).logProb(tensor(0.5)), 'ERR_SHAPE', 'got shape []'],
    ['a sample shape', () => new Normal(0, 1).sample(3 as never), 'ERR_CONFIG', 'Normal.sample: expected shape'],
    ['a negative size', () => new Normal(0, 1).rsample([-1]), 'ERR_CONFIG', 'Normal.rsample: expected shape'],
    [
      'no rsample',
      () => new Bernoulli(0.5).rsample(),
      'ERR_NOT_IMPLEMENTED',
      'Bernoulli.rsample: Bernoulli has no rsample',
    ],
    ['no cdf', () => new VonMises(0, 1).cdf(tensor(0.5)), 'ERR_NOT_IMPLEMENTED', 'VonMises.cdf'],
    ['counts of each', () => new Binomial(tensor([1, 2]), 0.5).entropy(), 'ERR_NOT_IMPLEMENTED', 'one totalCount'],
  ])('reject %s', (_, run, code, text) => {
    expect(errorOf(run)).toEqual([code, expect.stringContaining(text)])
  })

  it('of integers are converted: actions, counts and one-hot vectors', () =>
    scope(() => {
      const made = new Bernoulli(0.25)
      expect(
        made
          .logProb(tensor([0, 1]))
          .exp()
          .toArray(),
      ).toEqual([0.75, 0.25])
      expect(
        made
          .logProb(tensor([true]))
          .exp()
          .item(),
      ).toBe(0.25)
      expect(
        new OneHotCategorical(tensor([0.25, 0.75]))
          .logProb(tensor([0, 1]))
          .exp()
          .item(),
      ).toBeCloseTo(0.75, 6)
    }))

  it('at the ends of the support', () =>
    scope(() => {
      expect(new Bernoulli(tensor([0, 1], { dtype: 'float32' })).entropy().abs().max().item()).toBeLessThan(1e-5)
      expect(new Geometric(1).logProb(tensor(0)).item()).toBe(0)
      expect(new Uniform(0, 1).logProb(tensor([0, 1], { dtype: 'float32' })).toArray()).toEqual([0, -Infinity])
      const impossible = new Categorical({ logits: tensor([0, -Infinity]) })
      expect([impossible.entropy().item(), impossible.logProb(tensor(1)).item()]).toEqual([-0, -Infinity])
      const counts = new Multinomial(2, { logits: tensor([0, -Infinity]) })
      expect(counts.logProb(tensor([2, 0])).item()).toBeCloseTo(0)
    }))
})

describe('expand', () => {
  const made: [string, () => distributions.Distribution][] = [
    ['Normal', () => new Normal(zeros([2]), 1)],
    ['Categorical', () => new Categorical({ logits: zeros([2, 3]) })],
    [
      'Multinomial',
      () =>
        new Multinomial(3, {
          probs: tensor([
            [0.5, 0.5],
            [0.25, 0.75],
          ]),
        }),
    ],
    [
      'MultivariateNormal',
      () =>
        new MultivariateNormal(zeros([2, 2]), {
          scaleTril: tensor([
            [1.0, 0],
            [0.5, 2],
          ]),
        }),
    ],
    ['Independent', () => new Independent(new Normal(zeros([2, 3]), 1), 1)],
    [
      'MixtureSameFamily',
      () => new MixtureSameFamily(new Categorical(tensor([0.5, 0.5])), new Normal(zeros([2, 2]), 1)),
    ],
    ['LogisticNormal', () => new distributions.LogisticNormal(zeros([2, 3]), 1)],
    ['Gumbel', () => new distributions.Gumbel(zeros([2]), 1)],
    ['LKJCholesky', () => new distributions.LKJCholesky(3, tensor([0.5, 2]))],
  ]

  it.each(made)('%s', (_, make) =>
    scope(() => {
      const small = make()
      const large = small.expand([3, 2])
      expect([large.constructor, large.batchShape, large.eventShape]).toEqual([
        small.constructor,
        [3, 2],
        small.eventShape,
      ])
      expect(small.batchShape).toEqual([2])
      manualSeed(1)
      const sample = large.sample([4])
      expect(sample.shape).toEqual([4, 3, 2, ...small.eventShape])
      expectClose(large.logProb(sample), small.logProb(sample), 1e-6)
      expect(large.logProb(sample).shape).toEqual([4, 3, 2])
      expect(errorOf(() => small.expand([3]))).toEqual(['ERR_SHAPE', expect.stringContaining('[2] broadcasts to')])
    }),
  )
})

describe('memory', () => {
  it('a distribution of numbers or parameters is usable in every scope, and leaves no tensor', () => {
    class Prior extends Module {
      loc = new Parameter(zeros([3]))
      prior = new Normal(this.loc, 1)
      posterior = new Normal(0, 2)
    }
    const model = scope(() => new Prior())
    const before = memoryStats().liveTensors
    for (let i = 0; i < 3; i += 1) {
      scope(() => {
        const sample = model.prior.rsample([2])
        model.prior.logProb(sample).sum()
        klDivergence(model.prior, model.posterior)
      })
    }
    expect(memoryStats().liveTensors).toBe(before)
    scope(() => expect(model.posterior.entropy().item()).toBeCloseTo(0.5 + 0.5 * Math.log(2 * Math.PI * 4)))
    model.dispose()
  })

  it('methods leave only their result', () =>
    scope(() => {
      const made = [
        new Gamma(tensor([1.5, 2.5]), 1),
        new MultivariateNormal(
          zeros([2]),
          tensor([
            [2.0, 0.5],
            [0.5, 1.0],
          ]),
        ),
        new RelaxedOneHotCategorical(0.5, tensor([0.5, 0.5])),
        new TransformedDistribution(new Normal(zeros([2]), 1), [new ExpTransform(), new AffineTransform(0, 2)]),
      ]
      for (const one of made) {
        const before = memoryStats().liveTensors
        const sample = one.sample([3])
        const logProb = one.logProb(sample)
        expect(memoryStats().liveTensors - before, String(one)).toBe(2)
        sample.dispose()
        logProb.dispose()
      }
    }))

  it('returned from a scope, or kept alive, it survives with the tensors that it holds', () => {
    const returned = scope(() => new Independent(new Normal(zeros([2]), tensor([1.5, 2.5])), 1))
    let kept: distributions.Normal | undefined
    scope(() => {
      kept = keepAlive(new Normal(zeros([2]), 1))
      return undefined
    })
    scope(() => {
      expect(returned.sample().shape).toEqual([2])
      expect(kept!.sample().shape).toEqual([2])
    })
  })

  it('results are fresh tensors, which may be changed', () =>
    scope(() => {
      const loc = tensor([1.5])
      const made = new Normal(loc, 1)
      made.mean.dispose()
      made.loc.dispose()
      expect(loc.disposed).toBe(false)
    }))
})

describe('a distribution of your own', () => {
  class Triangle extends Distribution {
    override get support() {
      return distributions.constraints.unitInterval
    }
    override logProb(value: Tensor): Tensor {
      return scope(() => value.mul(2).log())
    }
    protected override computeSample(shape: number[]): Tensor {
      return zeros(shape).uniform_().sqrt()
    }
    protected override computeMean(): Tensor {
      return this.filled(2 / 3)
    }
  }

  it('works in Independent, with klDivergence and for missing methods', () =>
    scope(() => {
      const own = new Triangle([4])
      const whole = new Independent(own, 1)
      expect(whole.logProb(whole.sample([3])).shape).toEqual([3])
      expectClose(whole.mean, zeros([4]).add(2 / 3), 1e-6)
      expect(errorOf(() => own.entropy())).toEqual(['ERR_NOT_IMPLEMENTED', 'Triangle.entropy: Triangle has no entropy'])
      expect(errorOf(() => klDivergence(own, new Normal(0, 1)))).toEqual([
        'ERR_NOT_IMPLEMENTED',
        expect.stringContaining('got Triangle and Normal'),
      ])
      registerKl(Triangle, Normal, (p, q) => p.mean.sub(q.loc))
      expectClose(klDivergence(own, new Normal(0, 1)), zeros([4]).add(2 / 3), 1e-6)
      registerKl(Triangle, Normal, () => tensor(7.5))
      expect(klDivergence(own, new Normal(0, 1)).item()).toBe(7.5)
    }))
})

describe('klDivergence', () => {
  it('of subclasses is that of their base', () =>
    scope(() => {
      const [chi2, gamma] = [new distributions.Chi2(3), new Gamma(1.5, 0.5)]
      expect(Math.abs(klDivergence(chi2, gamma).item())).toBeLessThan(1e-6)
      const straight = new distributions.OneHotCategoricalStraightThrough(tensor([0.5, 0.5]))
      expect(klDivergence(straight, new OneHotCategorical(tensor([0.25, 0.75]))).item()).toBeGreaterThan(0)
    }))

  it('of a distribution and one around it is finite, as its definition says, where PyTorch returns infinity', () =>
    scope(() => {
      const pixel = new distributions.ContinuousBernoulli(0.3)
      expectClose(klDivergence(pixel, new Uniform(0, 1)), pixel.entropy().neg(), 1e-6)
      expect(klDivergence(new Uniform(0, 1), pixel).item()).toBeGreaterThan(0)
      expect(klDivergence(new Uniform(0, 2), pixel).item()).toBe(Infinity)
    }))

  it('infinite where q cannot have what p can', () =>
    scope(() => {
      const sure = new Categorical(tensor([1, 0], { dtype: 'float32' }))
      expect(klDivergence(new Categorical(tensor([0.5, 0.5])), sure).item()).toBe(Infinity)
      expect(klDivergence(sure, new Categorical(tensor([0.5, 0.5]))).item()).toBeCloseTo(Math.LN2)
      expect(klDivergence(new Bernoulli(0.5), new Bernoulli(1)).item()).toBe(Infinity)
    }))

  it('of independent and transformed distributions', () =>
    scope(() => {
      const [p, q] = [new Normal(zeros([2, 3]), 1), new Normal(zeros([3]).add(1), 2)]
      const one = klDivergence(p, q)
      expectClose(klDivergence(new Independent(p, 1), new Independent(q.expand([2, 3]), 1)), one.sum(-1), 1e-6)
      const squash = () => [new TanhTransform(), new AffineTransform(1, 2)]
      const [left, right] = [new TransformedDistribution(p, squash()), new TransformedDistribution(q, squash())]
      expectClose(klDivergence(left, right), one, 1e-6)
      const other = new TransformedDistribution(q, new TanhTransform())
      expect(errorOf(() => klDivergence(left, other))[1]).toContain('with other transforms')
      expect(errorOf(() => klDivergence(new Independent(p, 1), new Independent(p, 2)))[1]).toContain(
        'reinterpretedBatchNdims',
      )
    }))

  it.each<[string, () => unknown, string, string]>([
    [
      'an unknown pair',
      () => klDivergence(new Cauchy(0, 1), new Beta(1, 1)),
      'ERR_NOT_IMPLEMENTED',
      'got Cauchy and Beta',
    ],
    ['no distribution', () => klDivergence(3 as never, new Normal(0, 1)), 'ERR_CONFIG', 'klDivergence: expected p'],
    ['no class', () => registerKl(3 as never, Normal, () => zeros([])), 'ERR_CONFIG', 'registerKl: expected typeP'],
    ['another class', () => registerKl(Normal, Module as never, () => zeros([])), 'ERR_CONFIG', 'expected typeQ'],
    ['no function', () => registerKl(Normal, Normal, 3 as never), 'ERR_CONFIG', 'divergence'],
    [
      'counts',
      () => klDivergence(new Binomial(2, 0.5), new Binomial(3, 0.5)),
      'ERR_NOT_IMPLEMENTED',
      'with a larger totalCount of the latter',
    ],
    [
      'vectors of other sizes',
      () =>
        klDivergence(
          new MultivariateNormal(zeros([1]), zeros([1, 1]).add(1)),
          new MultivariateNormal(
            zeros([2]),
            zeros([2, 2]).add(
              tensor([
                [1.0, 0],
                [0, 1],
              ]),
            ),
          ),
        ),
      'ERR_SHAPE',
      'event shape, got [1] and [2]',
    ],
  ])('rejects %s', (_, run, code, text) => {
    expect(errorOf(run)).toEqual([code, expect.stringContaining(text)])
  })
})

describe('transforms', () => {
  const elementwise: [string, distributions.Transform, number[]][] = [
    ['exp', new ExpTransform(), [-1.5, 0.25, 2]],
    ['sigmoid', new SigmoidTransform(), [-1.5, 0.25, 2]],
    ['tanh', new TanhTransform(), [-1.5, 0.25, 2]],
    ['softplus', new SoftplusTransform(), [-1.5, 0.25, 2]],
    ['affine', new AffineTransform(1.5, -2), [-1.5, 0.25, 2]],
    ['power', new PowerTransform(3), [0.5, 1.5, 2]],
    ['power of a tensor', new PowerTransform(tensor([-1.5, 0.5, 2])), [0.5, 1.5, 2]],
    ['inverse', new ExpTransform().inv, [0.5, 1.5, 2]],
    [
      'composed',
      new ComposeTransform([new TanhTransform(), new AffineTransform(1, 2), new ExpTransform()]),
      [-0.5, 0.25, 1],
    ],
    ['inverse of composed', new ComposeTransform([new ExpTransform(), new AffineTransform(1, 2)]).inv, [1.5, 2, 3]],
  ]

  it.each(elementwise)('%s: inverse and derivative', (_, transform, values) =>
    scope(async () => {
      const x = tensor(values, { dtype: 'float64', requiresGrad: true })
      const y = transform.forward(x)
      expectClose(transform.inverse(y), x, 1e-5)
      const [slope] = await autograd.grad(y.sum(), [x], { retainGraph: true })
      expectClose(transform.logAbsDetJacobian(x, y), slope!.abs().log(), 1e-6)
      const { sign } = transform
      expectClose(typeof sign === 'number' ? slope!.sign().mul(0).add(sign) : sign.double(), slope!.sign(), 0)
      expect(transform.codomain.check(y).all().item()).toBe(true)
      expect(transform.bijective).toBe(true)
      expect([transform.equals(transform), transform.inv.inv.equals(transform)]).toEqual([true, true])
      expect(transform.equals(new AffineTransform(0, 7))).toBe(false)
    }),
  )

  it('of vectors and matrices', () =>
    scope(async () => {
      const x = randn([4, 3], { dtype: 'float64', requiresGrad: true })
      const stick = new StickBreakingTransform()
      const y = stick.forward(x)
      expect([y.shape, stick.forwardShape([4, 3]), stick.inverseShape([4, 4])]).toEqual([
        [4, 4],
        [4, 4],
        [4, 3],
      ])
      expect(distributions.constraints.simplex.check(y).all().item()).toBe(true)
      expectClose(stick.inverse(y), x, 1e-9)
      // The Jacobian of the first three coordinates is triangular.
      let slopes = zeros([4], { dtype: 'float64' })
      for (let i = 0; i < 3; i += 1) {
        const [row] = await autograd.grad(y.narrow(-1, i, 1).sum(), [x], { retainGraph: true })
        slopes = slopes.add(row!.select(-1, i).log())
      }
      expectClose(stick.logAbsDetJacobian(x, y), slopes, 1e-9)
      expectClose(new SoftmaxTransform().forward(x), x.softmax(-1), 1e-12)
      const matrix = randn([2, 3, 3])
      const lower = new LowerCholeskyTransform()
      expect(distributions.constraints.lowerCholesky.check(lower.forward(matrix)).all().item()).toBe(true)
      expectClose(lower.inverse(lower.forward(matrix)), matrix.tril(), 1e-5)
      const whole = new IndependentTransform(new ExpTransform(), 1)
      expectClose(whole.logAbsDetJacobian(x, x.exp()), x.sum(-1), 1e-12)
      expect([whole.domain.eventDim, whole.forward(x).shape]).toEqual([1, [4, 3]])
    }))

  it('reject wrong arguments', () => {
    expect(errorOf(() => new ComposeTransform([1] as never))[1]).toContain('ComposeTransform: expected parts')
    expect(errorOf(() => new AffineTransform(0, 1, { eventDim: -1 }))[1]).toContain('eventDim')
    expect(errorOf(() => new IndependentTransform(new ExpTransform(), 0.5))[1]).toContain('reinterpretedBatchNdims')
    expect(errorOf(() => new SoftmaxTransform().logAbsDetJacobian(zeros([1]), zeros([1])))[0]).toBe(
      'ERR_NOT_IMPLEMENTED',
    )
    expect(errorOf(() => new distributions.AbsTransform().sign)[0]).toBe('ERR_NOT_IMPLEMENTED')
  })
})

describe('transformTo and bijectTo', () => {
  const { bijectTo, constraints, transformTo } = distributions
  const cases: [string, distributions.Constraint, number[]][] = [
    ['real', constraints.real, [4]],
    ['realVector', constraints.realVector, [2, 4]],
    ['positive', constraints.positive, [4]],
    ['nonnegative', constraints.nonnegative, [4]],
    ['greaterThan', constraints.greaterThan(2), [4]],
    ['lessThan', constraints.lessThan(-1), [4]],
    ['unitInterval', constraints.unitInterval, [4]],
    ['interval', constraints.interval(-3, 5), [4]],
    ['halfOpenInterval', constraints.halfOpenInterval(1, 2), [4]],
    ['independent', constraints.independent(constraints.positive, 2), [3, 2, 2]],
    ['simplex', constraints.simplex, [3, 4]],
    ['lowerCholesky', constraints.lowerCholesky, [2, 3, 3]],
    ['positiveDefinite', constraints.positiveDefinite, [2, 3, 3]],
  ]

  it.each(cases)('%s', (_, constraint, shape) =>
    scope(() => {
      manualSeed(5)
      for (const make of [transformTo, bijectTo]) {
        const transform = make(constraint)
        const x = randn(shape, { dtype: 'float64' })
        const y = transform.forward(x)
        expect(constraint.check(y).all().item(), make.name).toBe(true)
        expect(transform.forwardShape(shape)).toEqual(y.shape)
        expectClose(transform.forward(transform.inverse(y)), y, 1e-9)
        expect(transform.codomain.eventDim).toBe(constraint.eventDim)
      }
    }),
  )

  it('of a support that tensors bound, and errors', () =>
    scope(() => {
      const { support } = new Uniform(tensor([-1.5, 2]), 3)
      const y = bijectTo(support).forward(randn([4, 2]))
      expect(support.check(y).all().item()).toBe(true)
      expect(errorOf(() => bijectTo(constraints.boolean))).toEqual([
        'ERR_NOT_IMPLEMENTED',
        expect.stringContaining('boolean'),
      ])
      expect(errorOf(() => transformTo(3 as never))).toEqual([
        'ERR_CONFIG',
        expect.stringContaining('transformTo: expected constraint'),
      ])
    }))
})

it('prints its parameters', () =>
  scope(() => {
    expect(String(new Normal(zeros([3]), 1))).toBe('Normal(loc: [3], scale: 1)')
    expect(String(new Independent(new Normal(zeros([3]), 1), 1))).toBe('Independent(Normal(loc: [3], scale: 1), 1)')
  }))
