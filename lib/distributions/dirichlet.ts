import { op } from '../native/call.js'
import { AutogradFunction, type FunctionContext, ops, scope, type Tensor } from '../tensor/index.js'
import { type DistributionOptions, namedArguments, requireMatrix } from './arguments.js'
import { independent, positive, simplex } from './constraints.js'
import { ExponentialFamily } from './exponential-family.js'
import { choose } from './math.js'

const draw = op('aten::_sample_dirichlet') as (concentration: Tensor) => Tensor
const gradientOf = op('aten::_dirichlet_grad') as (sample: Tensor, concentration: Tensor, total: Tensor) => Tensor

/** Draw from Dirichlet distributions; ATen's operator has no gradient of its own. */
class Draw extends AutogradFunction {
  static override forward(context: FunctionContext, concentration: Tensor): Tensor {
    const sample = draw(concentration)
    context.saveForBackward(sample, concentration)
    return sample
  }

  static override backward(context: FunctionContext, gradient: Tensor): [Tensor] {
    const [sample, concentration] = context.savedTensors as [Tensor, Tensor]
    const total = concentration.sum(-1, true).expand(concentration.shape)
    const centered = gradient.sub(sample.mul(gradient).sum(-1, true))
    return [gradientOf(sample, concentration.contiguous(), total.contiguous()).mul(centered)]
  }
}

/** Draw with gradients from Dirichlet distributions of concentrations [..., k]. */
export const drawDirichlet = (concentration: Tensor): Tensor =>
  concentration.requiresGrad ? (Draw.apply(concentration) as Tensor) : draw(concentration)

/** Dirichlet distribution over vectors of k probabilities. `concentration`: [..., k]. */
export class Dirichlet extends ExponentialFamily {
  static {
    Dirichlet.define({ support: simplex, hasRsample: true }, { concentration: independent(positive, 1) })
  }

  constructor(concentration: Tensor, options?: DistributionOptions)
  constructor(named: { concentration: Tensor } & DistributionOptions)
  constructor(...args: unknown[]) {
    const { validateArgs, ...found } = namedArguments('Dirichlet', ['concentration'], args)
    const concentration = requireMatrix('Dirichlet', 'concentration', found.concentration, 1)
    const { shape } = concentration
    super(shape.slice(0, -1), shape.slice(-1), { validateArgs, parameters: { concentration } } as DistributionOptions)
  }

  get concentration(): Tensor {
    return this.parameter('concentration', 1)
  }

  protected override computeMean(): Tensor {
    const a = this.concentration
    return a.div(a.sum(-1, true))
  }

  /** The corner of the largest concentration where all are below 1: there the density is infinite. */
  protected override computeMode(): Tensor {
    const a = this.concentration
    const inner = a.sub(1).clamp(0)
    const corner = ops.oneHot(a.argmax(-1), a.size(-1)).to(a.dtype)
    return choose(a.lt(1).all(-1, true), corner, inner.div(inner.sum(-1, true)))
  }

  protected override computeVariance(): Tensor {
    const a = this.concentration
    const total = a.sum(-1, true)
    return a.mul(total.sub(a)).div(total.square().mul(total.add(1)))
  }

  protected override computeRsample(shape: number[]): Tensor {
    return drawDirichlet(this.concentration.expand(shape))
  }

  protected override computeLogProb(value: Tensor): Tensor {
    const a = this.concentration
    return a.sub(1).xlogy(value).sum(-1).add(a.sum(-1).lgamma()).sub(a.lgamma().sum(-1))
  }

  protected override computeEntropy(): Tensor {
    const a = this.concentration
    const total = a.sum(-1)
    return a
      .lgamma()
      .sum(-1)
      .sub(total.lgamma())
      .add(total.sub(a.size(-1)).mul(total.digamma()))
      .sub(a.sub(1).mul(a.digamma()).sum(-1))
  }

  /** Expectation of the sum of -log(x). */
  override get meanCarrierMeasure(): Tensor {
    return scope(() => {
      const a = this.concentration
      return a.sum(-1).digamma().mul(a.size(-1)).sub(a.digamma().sum(-1))
    })
  }

  protected override computeNaturalParams(): Tensor[] {
    return [this.concentration]
  }

  protected override computeLogNormalizer(a: Tensor): Tensor {
    return a.lgamma().sum(-1).sub(a.sum(-1).lgamma())
  }
}
