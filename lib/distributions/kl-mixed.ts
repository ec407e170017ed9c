import { ops, type Tensor } from '../tensor/index.js'
import { Bernoulli } from './bernoulli.js'
import { Beta } from './beta.js'
import { Binomial } from './binomial.js'
import { ContinuousBernoulli } from './continuous-bernoulli.js'
import type { Distribution } from './distribution.js'
import { Exponential } from './exponential.js'
import { Gamma } from './gamma.js'
import { Gumbel } from './gumbel.js'
import { registerKl } from './kl.js'
import { Laplace } from './laplace.js'
import { choose, EULER, xLogX } from './math.js'
import { Normal } from './normal.js'
import { Pareto } from './pareto.js'
import { Poisson } from './poisson.js'
import { Uniform } from './uniform.js'

// Divergences between two families of distributions over numbers: KL(p ‖ q) = H(p, q) - H(p), where the cross-entropy H(p, q) is
// a sum of expectations under p. Where p has values outside q's support, the divergence is infinite.

// biome-ignore lint/suspicious/noExplicitAny: constructors of distributions have different arguments.
type Family<D extends Distribution = Distribution> = abstract new (...args: any[]) => D

/** Support of a family: [0, 1], above 0, all numbers, above its `scale`, or from `low` to `high`. */
type Place = 'unit' | 'positive' | 'real' | 'aboveScale' | 'interval'

/** Expectations under p; absent where there is no formula. */
interface Source<D extends Distribution> {
  family: Family<D>
  place: Place
  /** E[log x] */
  log?: (p: D) => Tensor
  /** E[log(1 - x)] */
  logRest?: (p: D) => Tensor
  /** E[exp(-x / scale)] · exp(loc / scale) for a Gumbel distribution q */
  gumbel?: (p: D, q: Gumbel) => Tensor
}

type Need = 'log' | 'logRest' | 'gumbel'

/** The cross-entropy with q. */
interface Target<Q extends Distribution> {
  family: Family<Q>
  place: Place
  needs: readonly Need[]
  crossEntropy: (p: Distribution, q: Q, expectation: (need: Need) => Tensor) => Tensor
}

const source = <D extends Distribution>(entry: Source<D>): Source<Distribution> => entry as never
const target = <Q extends Distribution>(entry: Target<Q>): Target<Distribution> => entry as never

/** Return E[log x] of a uniform distribution from `low` to `high`. */
const meanLog = (low: Tensor, high: Tensor): Tensor => xLogX(high).sub(xLogX(low)).div(high.sub(low)).sub(1)

const sources = [
  source<Beta>({
    family: Beta,
    place: 'unit',
    log: ({ concentration1: a, concentration0: b }) => a.digamma().sub(a.add(b).digamma()),
    logRest: ({ concentration1: a, concentration0: b }) => b.digamma().sub(a.add(b).digamma()),
  }),
  source<ContinuousBernoulli>({ family: ContinuousBernoulli, place: 'unit' }),
  source<Exponential>({
    family: Exponential,
    place: 'positive',
    log: (p) => p.rate.log().add(EULER).neg(),
    gumbel: (p, { loc, scale }) => loc.div(scale).exp().div(p.rate.mul(scale).reciprocal().add(1)),
  }),
  source<Gamma>({
    family: Gamma,
    place: 'positive',
    log: (p) => p.concentration.digamma().sub(p.rate.log()),
    gumbel: (p, { loc, scale }) =>
      loc
        .div(scale)
        .sub(p.concentration.mul(p.rate.mul(scale).reciprocal().log1p()))
        .exp(),
  }),
  source<Gumbel>({ family: Gumbel, place: 'real' }),
  source<Laplace>({ family: Laplace, place: 'real' }),
  source<Normal>({
    family: Normal,
    place: 'real',
    gumbel: (p, { loc, scale }) => loc.sub(p.loc).div(scale).add(p.scale.div(scale).square().mul(0.5)).exp(),
  }),
  source<Pareto>({
    family: Pareto,
    place: 'aboveScale',
    log: (p) => p.scale.log().add(p.alpha.reciprocal()),
  }),
  source<Uniform>({
    family: Uniform,
    place: 'interval',
    log: (p) => meanLog(p.low, p.high),
    logRest: (p) => meanLog(p.high.rsub(1), p.low.rsub(1)),
    gumbel: (p, { loc, scale }) => {
      const [low, high] = [loc.sub(p.low).div(scale).exp(), loc.sub(p.high).div(scale).exp()]
      return low.sub(high).mul(scale).div(p.high.sub(p.low))
    },
  }),
]

const targets = [
  target<Beta>({
    family: Beta,
    place: 'unit',
    needs: ['log', 'logRest'],
    crossEntropy: (_, { concentration1: a, concentration0: b }, expectation) =>
      a
        .lgamma()
        .add(b.lgamma())
        .sub(a.add(b).lgamma())
        .sub(a.sub(1).mul(expectation('log')))
        .sub(b.sub(1).mul(expectation('logRest'))),
  }),
  target<ContinuousBernoulli>({
    family: ContinuousBernoulli,
    place: 'unit',
    needs: [],
    crossEntropy: (p, q) => p.mean.mul(q.logits).add(q.probs.neg().log1p()).add(q.logConstant).neg(),
  }),
  target<Exponential>({
    family: Exponential,
    place: 'positive',
    needs: [],
    crossEntropy: (p, q) => q.rate.mul(p.mean).sub(q.rate.log()),
  }),
  target<Gamma>({
    family: Gamma,
    place: 'positive',
    needs: ['log'],
    crossEntropy: (p, { concentration: a, rate }, expectation) =>
      a
        .lgamma()
        .sub(a.mul(rate.log()))
        .sub(a.sub(1).mul(expectation('log')))
        .add(rate.mul(p.mean)),
  }),
  target<Gumbel>({
    family: Gumbel,
    place: 'real',
    needs: ['gumbel'],
    crossEntropy: (p, q, expectation) => p.mean.sub(q.loc).div(q.scale).add(q.scale.log()).add(expectation('gumbel')),
  }),
  target<Normal>({
    family: Normal,
    place: 'real',
    needs: [],
    crossEntropy: (p, q) =>
      p.variance
        .add(p.mean.sub(q.loc).square())
        .div(q.scale.square().mul(2))
        .add(q.scale.log())
        .add(0.5 * Math.log(2 * Math.PI)),
  }),
  target<Pareto>({
    family: Pareto,
    place: 'aboveScale',
    needs: ['log'],
    crossEntropy: (_, { alpha, scale }, expectation) =>
      alpha.add(1).mul(expectation('log')).sub(alpha.log()).sub(alpha.mul(scale.log())),
  }),
  target<Uniform>({
    family: Uniform,
    place: 'interval',
    needs: [],
    crossEntropy: (_, q) => q.high.sub(q.low).log(),
  }),
]

/** Return where p's support is inside q's: always, never, or depending on the parameters. */
function inside(from: Place, to: Place): 'always' | 'never' | ((p: Distribution, q: Distribution) => Tensor) {
  if (to === 'real' || to === from) return 'always'
  if (from === 'interval') {
    return (p, q) => {
      const { low, high } = p as Uniform
      if (to === 'unit') return low.ge(0).logicalAnd(high.le(1))
      return to === 'positive' ? low.ge(0) : low.ge((q as Pareto).scale)
    }
  }
  if (to === 'interval' && from === 'unit') {
    return (_, q) => (q as Uniform).low.le(0).logicalAnd((q as Uniform).high.ge(1))
  }
  return to === 'positive' && from !== 'real' ? 'always' : 'never'
}

for (const from of sources) {
  for (const to of targets) {
    // Pairs within a family are in kl-families.ts.
    if (from.family === to.family) continue
    const where = inside(from.place, to.place)
    if (where === 'never') {
      registerKl(from.family, to.family, infinite)
      continue
    }
    if (to.needs.some((need) => from[need] === undefined)) continue
    registerKl(from.family, to.family, (p, q) => {
      const expectation = (need: Need) => from[need]!(p, q as Gumbel)
      const divergence = to.crossEntropy(p, q, expectation).sub(p.entropy())
      return where === 'always' ? divergence : choose(where(p, q), divergence, Infinity)
    })
  }
}

/** Return ∞ in the batch shape of both. */
function infinite(p: Distribution, q: Distribution): Tensor {
  const { mean: a } = p
  const [shape] = ops.broadcastTensors([a, q.mean])
  return ops.fullLike(shape!, Infinity)
}

registerKl(Normal, Laplace, (p, q) => {
  const shift = p.loc.sub(q.loc)
  const z = shift.div(p.scale)
  // E|x - loc|, the mean of a folded normal distribution.
  const distance = p.scale
    .mul(Math.sqrt(2 / Math.PI))
    .mul(z.square().mul(-0.5).exp())
    .add(shift.mul(z.mul(Math.SQRT1_2).erf()))
  return q.scale.mul(2).log().add(distance.div(q.scale)).sub(p.entropy())
})

registerKl(Bernoulli, Poisson, (p, q) => q.rate.sub(p.probs.mul(q.rate.log())).sub(p.entropy()))
registerKl(Poisson, Bernoulli, infinite)
registerKl(Poisson, Binomial, infinite)
