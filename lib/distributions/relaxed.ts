import { ConfigError } from '../base/errors.js'
import { full, ops, rand, Tensor } from '../tensor/index.js'
import { type DistributionOptions, requireValue, type Value, withProbsOrLogits } from './arguments.js'
import { type Constraint, positive, simplex, unitInterval } from './constraints.js'
import { clampProbs, inOpenInterval, logAndRest } from './math.js'
import { Binary, Classes, classArguments, type ProbsOrLogits } from './probs-or-logits.js'

/**
 * Continuous relaxation of a Bernoulli distribution (Maddison et al. 2016): numbers in (0, 1), near 0 and 1 for a low
 * `temperature`, with gradients.
 */
export class RelaxedBernoulli extends Binary {
  static {
    RelaxedBernoulli.define({ support: unitInterval, hasRsample: true })
  }

  constructor(temperature: Value, probs: Value, options?: DistributionOptions)
  constructor(temperature: Value, probs: null, logits: Value, options?: DistributionOptions)
  constructor(temperature: Value, named: ProbsOrLogits & DistributionOptions)
  constructor(named: { temperature: Value } & ProbsOrLogits & DistributionOptions)
  constructor(...args: unknown[]) {
    super(...withProbsOrLogits('RelaxedBernoulli', ['temperature', 'probs', 'logits'], args))
  }

  get temperature(): Tensor {
    return this.parameter('temperature')
  }

  override get argConstraints(): Record<string, Constraint> {
    return { ...super.argConstraints, temperature: positive }
  }

  protected override computeRsample(shape: number[]): Tensor {
    const probs = clampProbs(this.probs.expand(shape))
    const u = clampProbs(rand(shape, this.factory))
    const noise = u.log().sub(u.neg().log1p()).add(probs.log()).sub(probs.neg().log1p())
    return inOpenInterval(noise.div(this.temperature).sigmoid())
  }

  protected override computeLogProb(value: Tensor): Tensor {
    const [log, logRest] = logAndRest(value)
    const { temperature } = this
    const z = this.logits.sub(log.sub(logRest).mul(temperature))
    return temperature.log().add(z).sub(ops.softplus(z).mul(2)).sub(log).sub(logRest)
  }
}

/**
 * Continuous relaxation of a one-hot categorical distribution, "Gumbel-softmax" (Jang et al. 2016, Maddison et al. 2016):
 * vectors of k numbers with sum 1, near a one-hot vector for a low `temperature`, with gradients.
 */
export class RelaxedOneHotCategorical extends Classes {
  static {
    RelaxedOneHotCategorical.define({ support: simplex, hasRsample: true })
  }

  constructor(temperature: Value, probs: Tensor, options?: DistributionOptions)
  constructor(temperature: Value, probs: null, logits: Tensor, options?: DistributionOptions)
  constructor(temperature: Value, named: ProbsOrLogits<Tensor> & DistributionOptions)
  constructor(named: { temperature: Value } & ProbsOrLogits<Tensor> & DistributionOptions)
  constructor(...args: unknown[]) {
    const where = 'RelaxedOneHotCategorical'
    const { batchShape, classes, setup, found } = classArguments(where, args, ['temperature'])
    const temperature = requireValue(where, 'temperature', found.temperature)
    if (temperature instanceof Tensor && temperature.numel() !== 1) {
      throw new ConfigError(`${where}: expected temperature to be a number, got a tensor [${temperature.shape}]`, {
        argument: 'temperature',
      })
    }
    super(batchShape, [classes], { ...setup, parameters: { ...setup.parameters, temperature } } as DistributionOptions)
  }

  get temperature(): Tensor {
    const { temperature } = this.parameters
    return temperature instanceof Tensor ? temperature.reshape([]) : full([], temperature!, this.factory)
  }

  override get argConstraints(): Record<string, Constraint> {
    return { ...super.argConstraints, temperature: positive }
  }

  protected override computeRsample(shape: number[]): Tensor {
    const gumbel = clampProbs(rand(shape, this.factory)).log().neg().log().neg()
    const scores = this.logits.add(gumbel).div(this.temperature)
    return scores.sub(scores.logsumexp(-1, true)).exp()
  }

  protected override computeLogProb(value: Tensor): Tensor {
    const { temperature, classes } = this
    const log = value.log()
    const scores = this.logits.sub(log.mul(temperature))
    const normalizer = temperature
      .log()
      .mul(classes - 1)
      .add(full([], classes, this.factory).lgamma())
    return scores.sub(scores.logsumexp(-1, true)).sum(-1).add(normalizer).sub(log.sum(-1))
  }
}
