import { ShapeError } from '../base/errors.js'
import { ops, scope, type Tensor } from '../tensor/index.js'
import { Bernoulli } from './bernoulli.js'
import { Beta } from './beta.js'
import { Binomial } from './binomial.js'
import { Categorical } from './categorical.js'
import { Cauchy, HalfCauchy } from './cauchy.js'
import { ContinuousBernoulli } from './continuous-bernoulli.js'
import { Dirichlet } from './dirichlet.js'
import type { Distribution } from './distribution.js'
import { Exponential } from './exponential.js'
import { ExponentialFamily } from './exponential-family.js'
import { Gamma } from './gamma.js'
import { Geometric } from './geometric.js'
import { Gumbel } from './gumbel.js'
import { Independent } from './independent.js'
import { klDivergence, missingKl, registerKl } from './kl.js'
import { Laplace } from './laplace.js'
import { choose, EULER, sumLast } from './math.js'
import { GaussianVector } from './multivariate-normal.js'
import { HalfNormal, LogNormal, Normal } from './normal.js'
import { OneHotCategorical } from './one-hot-categorical.js'
import { Pareto } from './pareto.js'
import { Poisson } from './poisson.js'
import { TransformedDistribution } from './transformed.js'
import { sameTransforms } from './transforms.js'
import { Uniform } from './uniform.js'
import { Wishart } from './wishart.js'

// Divergences within one family.

/** Return x where no probability of q is 0 that p has, ∞ where one is; 0 where p's probability is 0. */
const guarded = (term: Tensor, p: Tensor, q: Tensor): Tensor =>
  choose(p.eq(0).logicalNot(), choose(q.ne(0), term, Infinity), 0)

registerKl(Bernoulli, Bernoulli, (p, q) => {
  const [pp, qp, pl, ql] = [p.probs, q.probs, p.logits, q.logits]
  const yes = pp.mul(ops.softplus(ql.neg()).sub(ops.softplus(pl.neg())))
  const no = pp.rsub(1).mul(ops.softplus(ql).sub(ops.softplus(pl)))
  return guarded(yes, pp, qp).add(guarded(no, pp.rsub(1), qp.rsub(1)))
})

registerKl(Categorical, Categorical, (p, q) => categoricalKl(p.probs, p.logits, q.probs, q.logits))
registerKl(OneHotCategorical, OneHotCategorical, (p, q) => categoricalKl(p.probs, p.logits, q.probs, q.logits))

const categoricalKl = (pProbs: Tensor, pLogits: Tensor, qProbs: Tensor, qLogits: Tensor): Tensor =>
  guarded(pProbs.mul(pLogits.sub(qLogits)), pProbs, qProbs).sum(-1)

registerKl(Binomial, Binomial, (p, q) => {
  const [n, m] = [p.totalCount, q.totalCount]
  const isSmaller = scope(() => n.lt(m).any().item<boolean>())
  if (isSmaller) throw missingKl(p, q, ' with a larger totalCount of the latter')
  const [pp, qp] = [p.probs, q.probs]
  const one = pp.mul(p.logits.sub(q.logits)).add(pp.neg().log1p()).sub(qp.neg().log1p())
  return choose(n.gt(m).logicalNot(), n.mul(one), Infinity)
})

registerKl(Poisson, Poisson, (p, q) => p.rate.mul(p.rate.log().sub(q.rate.log())).sub(p.rate.sub(q.rate)))

registerKl(Geometric, Geometric, (p, q) => p.entropy().neg().sub(q.probs.neg().log1p().div(p.probs)).sub(q.logits))

registerKl(Beta, Beta, (p, q) => {
  const [a, b, c, d] = [p.concentration1, p.concentration0, q.concentration1, q.concentration0]
  const [total, other] = [a.add(b), c.add(d)]
  const constants = c.lgamma().add(d.lgamma()).sub(other.lgamma()).sub(a.lgamma()).sub(b.lgamma()).add(total.lgamma())
  return constants
    .add(a.sub(c).mul(a.digamma()))
    .add(b.sub(d).mul(b.digamma()))
    .add(other.sub(total).mul(total.digamma()))
})

registerKl(Dirichlet, Dirichlet, (p, q) => {
  const [a, b] = [p.concentration, q.concentration]
  const [total, other] = [a.sum(-1), b.sum(-1)]
  const expected = a.digamma().sub(total.digamma().unsqueeze(-1))
  return total.lgamma().sub(other.lgamma()).sub(a.lgamma().sub(b.lgamma()).sum(-1)).add(a.sub(b).mul(expected).sum(-1))
})

registerKl(Gamma, Gamma, (p, q) => {
  const [a, b] = [p.concentration, q.concentration]
  return b
    .mul(p.rate.div(q.rate).log())
    .add(b.lgamma().sub(a.lgamma()))
    .add(a.sub(b).mul(a.digamma()))
    .add(q.rate.sub(p.rate).mul(a.div(p.rate)))
})

registerKl(Exponential, Exponential, (p, q) => {
  const ratio = q.rate.div(p.rate)
  return ratio.sub(ratio.log()).sub(1)
})

registerKl(ContinuousBernoulli, ContinuousBernoulli, (p, q) =>
  p.mean
    .mul(p.logits.sub(q.logits))
    .add(p.logConstant)
    .add(p.probs.neg().log1p())
    .sub(q.logConstant)
    .sub(q.probs.neg().log1p()),
)

const normalKl = (ratio: Tensor, shift: Tensor): Tensor => {
  const variance = ratio.square()
  return variance.add(shift.square()).sub(1).sub(variance.log()).mul(0.5)
}

registerKl(Normal, Normal, (p, q) => normalKl(p.scale.div(q.scale), p.loc.sub(q.loc).div(q.scale)))
// A bijection of both leaves the divergence as it is, and so does |x| of two symmetric distributions.
registerKl(LogNormal, LogNormal, (p, q) => klDivergence(p.baseDist, q.baseDist))
registerKl(HalfNormal, HalfNormal, (p, q) => klDivergence(p.baseDist, q.baseDist))
registerKl(HalfCauchy, HalfCauchy, (p, q) => klDivergence(p.baseDist, q.baseDist))

registerKl(Cauchy, Cauchy, (p, q) => {
  const above = p.scale.add(q.scale).square().add(p.loc.sub(q.loc).square())
  return above.log().sub(p.scale.mul(q.scale).mul(4).log())
})

registerKl(Laplace, Laplace, (p, q) => {
  const ratio = p.scale.div(q.scale)
  const distance = p.loc.sub(q.loc).abs()
  return distance
    .div(q.scale)
    .sub(ratio.log())
    .add(ratio.mul(distance.div(p.scale).neg().exp()))
    .sub(1)
})

registerKl(Gumbel, Gumbel, (p, q) => {
  const ratio = p.scale.div(q.scale)
  const shift = p.loc.sub(q.loc).div(q.scale)
  const tail = ratio.add(1).lgamma().sub(shift).exp()
  return shift
    .sub(ratio.log())
    .add(ratio.mul(EULER))
    .add(tail)
    .sub(1 + EULER)
})

registerKl(Pareto, Pareto, (p, q) => {
  const ratio = q.alpha.div(p.alpha)
  const divergence = q.alpha.mul(p.scale.div(q.scale).log()).sub(ratio.log()).add(ratio).sub(1)
  return choose(p.scale.ge(q.scale), divergence, Infinity)
})

registerKl(Uniform, Uniform, (p, q) => {
  const inside = p.low.ge(q.low).logicalAnd(p.high.le(q.high))
  return choose(inside, q.high.sub(q.low).div(p.high.sub(p.low)).log(), Infinity)
})

registerKl(GaussianVector, GaussianVector, (p, q) => {
  requireSameEvent(p, q)
  const distance = q.mahalanobis(q.loc.sub(p.loc).unsqueeze(-2)).squeeze(-1)
  const trace = p
    .factors()
    .map((factor) => q.mahalanobis(factor.mT).sum(-1))
    .reduce((a, b) => a.add(b))
  return q.logDet().sub(p.logDet()).add(distance).add(trace).sub(p.eventShape[0]!).mul(0.5)
})

registerKl(Independent, Independent, (p, q) => {
  const dims = p.reinterpretedBatchNdims
  if (dims !== q.reinterpretedBatchNdims) throw missingKl(p, q, ' with another reinterpretedBatchNdims')
  return sumLast(klDivergence(p.baseDist, q.baseDist), dims)
})

registerKl(TransformedDistribution, TransformedDistribution, (p, q) => {
  if (!sameTransforms(p.transforms, q.transforms)) throw missingKl(p, q, ' with other transforms')
  requireSameEvent(p, q)
  return klDivergence(p.baseDist, q.baseDist)
})

function requireSameEvent(p: Distribution, q: Distribution): void {
  const [a, b] = [p.eventShape, q.eventShape]
  if (a.length === b.length && a.every((size, i) => size === b[i])) return
  throw new ShapeError(`klDivergence: expected distributions of the same event shape, got [${a}] and [${b}]`, {
    shape: a,
    expected: b,
  })
}

registerKl(Wishart, Wishart, (p, q) => {
  if (p.eventShape[0] !== q.eventShape[0]) {
    throw new ShapeError(
      `klDivergence: expected matrices of the same size, got event shapes [${p.eventShape}] and [${q.eventShape}]`,
      { shape: p.eventShape, expected: q.eventShape },
    )
  }
  return p.divergence(q)
})

registerKl(ExponentialFamily, ExponentialFamily, (p, q) => {
  if (p.constructor !== q.constructor) throw missingKl(p, q)
  return p.bregman(q)
})
