import './kl-families.js'
import './kl-mixed.js'

export type { DistributionOptions, Value } from './arguments.js'
export { Bernoulli } from './bernoulli.js'
export { Beta } from './beta.js'
export { bijectTo, transformTo } from './bijections.js'
export { Binomial } from './binomial.js'
export { Categorical } from './categorical.js'
export { Cauchy, HalfCauchy } from './cauchy.js'
export type { Constraint } from './constraints.js'
export * as constraints from './constraints.js'
export { ContinuousBernoulli, type ContinuousBernoulliOptions } from './continuous-bernoulli.js'
export { Dirichlet } from './dirichlet.js'
export { Distribution } from './distribution.js'
export { Exponential } from './exponential.js'
export { ExponentialFamily } from './exponential-family.js'
export { FisherSnedecor } from './fisher-snedecor.js'
export { Chi2, Gamma, InverseGamma } from './gamma.js'
export { GeneralizedPareto } from './generalized-pareto.js'
export { Geometric } from './geometric.js'
export { Gumbel } from './gumbel.js'
export { Independent } from './independent.js'
export { klDivergence, registerKl } from './kl.js'
export { Kumaraswamy } from './kumaraswamy.js'
export { Laplace } from './laplace.js'
export { LKJCholesky } from './lkj-cholesky.js'
export { MixtureSameFamily } from './mixture.js'
export { Multinomial } from './multinomial.js'
export { LowRankMultivariateNormal, MultivariateNormal } from './multivariate-normal.js'
export { NegativeBinomial } from './negative-binomial.js'
export { HalfNormal, LogNormal, Normal } from './normal.js'
export { OneHotCategorical, OneHotCategoricalStraightThrough } from './one-hot-categorical.js'
export { Pareto } from './pareto.js'
export { Poisson } from './poisson.js'
export type { ProbsOrLogits } from './probs-or-logits.js'
export { RelaxedBernoulli, RelaxedOneHotCategorical } from './relaxed.js'
export { StudentT } from './student-t.js'
export { LogisticNormal, TransformedDistribution } from './transformed.js'
export {
  AbsTransform,
  AffineTransform,
  ComposeTransform,
  ExpTransform,
  IndependentTransform,
  LowerCholeskyTransform,
  PositiveDefiniteTransform,
  PowerTransform,
  SigmoidTransform,
  SoftmaxTransform,
  SoftplusTransform,
  StickBreakingTransform,
  TanhTransform,
  Transform,
} from './transforms.js'
export { Uniform } from './uniform.js'
export { VonMises } from './von-mises.js'
export { Weibull } from './weibull.js'
export { Wishart } from './wishart.js'
