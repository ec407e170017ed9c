import { native } from '../native/addon.js'
import { callNative } from '../native/call.js'
import { putAll } from '../native/encode.js'
import { enableGrad, isGradEnabled, scope, type Tensor } from '../tensor/index.js'
import { Distribution } from './distribution.js'
import { sumLast } from './math.js'

/**
 * A distribution with the density exp(⟨t(x), θ⟩ - F(θ) + k(x)): θ are its natural parameters, t(x) the sufficient statistics, F the
 * log normalizer and k the carrier measure. For a family of your own, override `logProb`, `naturalParams`, `logNormalizer` and
 * `meanCarrierMeasure`: the entropy, and the divergence of two distributions of the class, follow from the gradient of F (Nielsen
 * and Nock 2010, https://arxiv.org/abs/0911.4863). Like `torch.distributions.ExponentialFamily`.
 */
export abstract class ExponentialFamily extends Distribution {
  /** Natural parameters θ, each [...batchShape, ...rest]. */
  get naturalParams(): Tensor[] {
    return scope(() => this.computeNaturalParams())
  }

  /** Return the log normalizer F of natural parameters, `batchShape`. */
  logNormalizer(...naturalParams: Tensor[]): Tensor {
    return scope(() => this.computeLogNormalizer(...naturalParams))
  }

  /** Expectation of the carrier measure k(x). */
  get meanCarrierMeasure(): Tensor | number {
    throw this.missing('entropy')
  }

  protected computeNaturalParams(): Tensor[] {
    throw this.missing('naturalParams')
  }

  protected computeLogNormalizer(..._naturalParams: Tensor[]): Tensor {
    throw this.missing('logNormalizer')
  }

  /** Return F(θ) - ⟨θ, ∇F(θ)⟩ - E[k(x)]. */
  protected override computeEntropy(): Tensor {
    const carrier = this.meanCarrierMeasure
    return this.withGradients([], (params, value, gradients) =>
      value.sub(this.inner(params, gradients)).sub(carrier as number),
    )
  }

  /** Return the Kullback–Leibler divergence to a distribution of the same class, the Bregman divergence of F. @internal */
  bregman(other: ExponentialFamily): Tensor {
    const others = other.naturalParams
    return this.withGradients(others, (params, value, gradients) => {
      const steps = others.map((param, i) => param.sub(params[i] as Tensor))
      return other
        .logNormalizer(...others)
        .sub(value)
        .sub(this.inner(steps, gradients))
    })
  }

  /** Compute of the natural parameters, F of them, and its gradients. The result is recorded if a parameter or one of `others` is. */
  private withGradients(
    others: readonly Tensor[],
    compute: (params: Tensor[], value: Tensor, gradients: Tensor[]) => Tensor,
  ): Tensor {
    const own = this.naturalParams
    const isRecorded = isGradEnabled() && [...own, ...others].some((param) => param.requiresGrad)
    const result = enableGrad(() => {
      const params = own.map((param) => (param.requiresGrad ? param : param.detach().requiresGrad_(true)))
      const value = this.logNormalizer(...params)
      const write = () => putAll([value.sum()], params, [])
      const gradients = callNative(native.gradientsHere, write, true) as Tensor[]
      return compute(params, value, gradients)
    })
    return isRecorded ? result : result.detach()
  }

  /** Return the sum of the inner products of parameters and gradients, `batchShape`. */
  private inner(params: readonly Tensor[], gradients: readonly Tensor[]): Tensor {
    const products = params.map((param, i) => {
      const product = param.mul(gradients[i] as Tensor)
      return sumLast(product, product.ndim - this.batchShape.length)
    })
    return products.reduce((sum, product) => sum.add(product))
  }
}
