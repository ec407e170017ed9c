import { argumentError } from '../base/check.js'
import { isOptions } from '../native/encode.js'
import { rand, scope, type Tensor } from '../tensor/index.js'
import { type DistributionOptions, type Value, withProbsOrLogits } from './arguments.js'
import { crossEntropy } from './bernoulli.js'
import { unitInterval } from './constraints.js'
import { choose, clampProbs } from './math.js'
import { BinaryFamily, type ProbsOrLogits } from './probs-or-logits.js'

export interface ContinuousBernoulliOptions extends DistributionOptions {
  /** Interval of `probs` around 0.5 in which Taylor polynomials replace the formulas. Default [0.499, 0.501]. */
  lims?: readonly [number, number]
}

/** Continuous Bernoulli distribution over [0, 1] (Loaiza-Ganem and Cunningham 2019), for pixels of a variational autoencoder. */
export class ContinuousBernoulli extends BinaryFamily {
  static {
    ContinuousBernoulli.define({ support: unitInterval, hasRsample: true })
  }

  /** Interval of `probs` in which Taylor polynomials are used. */
  readonly lims: readonly [number, number]

  constructor(probs: Value, options?: ContinuousBernoulliOptions)
  constructor(probs: null, logits: Value, options?: ContinuousBernoulliOptions)
  constructor(named: ProbsOrLogits & ContinuousBernoulliOptions)
  constructor(...args: unknown[]) {
    const last = args.at(-1)
    let lims: unknown = [0.499, 0.501]
    let rest = args
    if (isOptions(last)) {
      const { lims: own = lims, ...others } = last
      lims = own
      rest = [...args.slice(0, -1), others]
    }
    super(...withProbsOrLogits('ContinuousBernoulli', ['probs', 'logits'], rest))
    if (!Array.isArray(lims) || lims.length !== 2 || !(lims[0] < 0.5 && lims[1] > 0.5))
      throw argumentError('ContinuousBernoulli', 'lims', 'two numbers around 0.5', lims)
    this.lims = [lims[0], lims[1]]
  }

  /** Probabilities, clamped to (0, 1). */
  override get probs(): Tensor {
    return scope(() => clampProbs(super.probs))
  }

  /** Whether the formulas are stable: `probs` is far enough from 0.5. */
  private get stable(): Tensor {
    const { probs } = this
    return probs.le(this.lims[0]).logicalOr(probs.gt(this.lims[1]))
  }

  /** Apply a formula to `probs` outside `lims`, and a polynomial of probs - 0.5 inside. */
  private byRegion(formula: (probs: Tensor) => Tensor, polynomial: (x: Tensor) => Tensor): Tensor {
    const { probs, stable } = this
    // Both branches are computed; a fixed number in place of those near 0.5 keeps the gradient finite.
    return choose(stable, formula(choose(stable, probs, this.lims[0])), polynomial(probs.sub(0.5)))
  }

  /** Logarithm of the constant that normalizes the density. */
  get logConstant(): Tensor {
    return scope(() =>
      this.byRegion(
        (p) => logOddsOf(p).abs().log().sub(p.mul(-2).add(1).abs().log()),
        (x) =>
          x
            .square()
            .mul(104 / 45)
            .add(4 / 3)
            .mul(x.square())
            .add(Math.LN2),
      ),
    )
  }

  protected override computeMean(): Tensor {
    return this.byRegion(
      (p) => p.div(p.mul(2).sub(1)).sub(logOddsOf(p).reciprocal()),
      (x) =>
        x
          .square()
          .mul(16 / 45)
          .add(1 / 3)
          .mul(x)
          .add(0.5),
    )
  }

  protected override computeVariance(): Tensor {
    return this.byRegion(
      (p) => p.mul(p.sub(1)).div(p.mul(-2).add(1).square()).add(logOddsOf(p).square().reciprocal()),
      (x) =>
        x
          .square()
          .mul(128 / 945)
          .sub(1 / 15)
          .mul(x.square())
          .add(1 / 12),
    )
  }

  protected override computeRsample(shape: number[]): Tensor {
    return this.computeIcdf(rand(shape, this.factory))
  }

  protected override computeLogProb(value: Tensor): Tensor {
    return crossEntropy(this.logits, value).neg().add(this.logConstant)
  }

  protected override computeCdf(value: Tensor): Tensor {
    const { stable, probs } = this
    const p = choose(stable, probs, this.lims[0])
    const above = p
      .pow(value)
      .mul(p.rsub(1).pow(value.rsub(1)))
      .add(p)
      .sub(1)
    return choose(stable, above.div(p.mul(2).sub(1)), value).clamp(0, 1)
  }

  protected override computeIcdf(value: Tensor): Tensor {
    const { stable, probs } = this
    const p = choose(stable, probs, this.lims[0])
    const rest = p.neg()
    const above = rest
      .add(value.mul(p.mul(2).sub(1)))
      .log1p()
      .sub(rest.log1p())
    return choose(stable, above.div(p.log().sub(rest.log1p())), value)
  }

  protected override computeEntropy(): Tensor {
    const { probs } = this
    return this.mean.mul(logOddsOf(probs)).neg().sub(this.logConstant).sub(probs.neg().log1p())
  }

  override get meanCarrierMeasure(): number {
    return 0
  }

  protected override computeNaturalParams(): Tensor[] {
    return [this.logits]
  }

  /** log((exp(x) - 1) / x), by its Taylor polynomial near 0. */
  protected override computeLogNormalizer(logits: Tensor): Tensor {
    const [low, high] = this.lims.map((end) => end - 0.5) as [number, number]
    const stable = logits.le(low).logicalOr(logits.gt(high))
    const x = choose(stable, logits, low)
    const square = logits.square()
    const near = logits.div(2).add(square.div(24)).sub(square.square().div(2880))
    return choose(stable, x.expm1().abs().log().sub(x.abs().log()), near)
  }
}

const logOddsOf = (probs: Tensor): Tensor => probs.log().sub(probs.neg().log1p())
