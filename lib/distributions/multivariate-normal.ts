import { ShapeError } from '../base/errors.js'
import { eye, ops, randn, scope, type Tensor } from '../tensor/index.js'
import {
  broadcastShapes,
  type DistributionOptions,
  exactlyOne,
  namedArguments,
  requireMatrix,
  type Value,
} from './arguments.js'
import {
  type Constraint,
  independent,
  lowerCholesky,
  positive,
  positiveDefinite,
  real,
  realVector,
} from './constraints.js'
import { Distribution } from './distribution.js'

/** A multivariate normal distribution in any parametrization: what densities and KL divergences need of it. */
export abstract class GaussianVector extends Distribution {
  static {
    GaussianVector.define({ support: realVector, hasRsample: true })
  }

  get loc(): Tensor {
    return this.parameter('loc', 1)
  }

  /** Lower triangular factor of the covariance, [...batchShape, n, n]. */
  get scaleTril(): Tensor {
    return scope(() => this.computeScaleTril())
  }

  /** [...batchShape, n, n] */
  get covarianceMatrix(): Tensor {
    return scope(() => this.computeCovarianceMatrix())
  }

  /** Inverse of the covariance, [...batchShape, n, n]. */
  get precisionMatrix(): Tensor {
    return scope(() => this.computePrecisionMatrix())
  }

  protected abstract computeScaleTril(): Tensor
  protected abstract computeCovarianceMatrix(): Tensor
  protected abstract computePrecisionMatrix(): Tensor

  /** Return xᵀ Σ⁻¹ x of each row x of [..., ...batchShape, m, n], as [..., ...batchShape, m]. @internal */
  abstract mahalanobis(rows: Tensor): Tensor
  /** Return the logarithm of the determinant of the covariance, `batchShape`. @internal */
  abstract logDet(): Tensor
  /** Return matrices [..., n, m] whose products with their transposes add up to the covariance. @internal */
  abstract factors(): Tensor[]

  protected override computeMean(): Tensor {
    return this.loc
  }

  protected override computeMode(): Tensor {
    return this.loc
  }

  protected override computeLogProb(value: Tensor): Tensor {
    const distance = this.mahalanobis(value.sub(this.loc).unsqueeze(-2)).squeeze(-1)
    const constant = this.eventShape[0]! * Math.log(2 * Math.PI)
    return distance.add(this.logDet()).add(constant).mul(-0.5)
  }

  protected override computeEntropy(): Tensor {
    const constant = this.eventShape[0]! * (1 + Math.log(2 * Math.PI))
    return this.logDet().add(constant).mul(0.5).expand(this.batchShape)
  }

  /** Expand a matrix or vector of the covariance to the batch shape. */
  protected inBatch(value: Tensor, eventDims: number): Tensor {
    const { shape } = value
    return value.expand([...this.batchShape, ...shape.slice(shape.length - eventDims)])
  }
}

/** Return the Cholesky factor of a covariance that is given as one of three matrices. */
export function choleskyOf(parameters: Readonly<Record<string, Value>>): Tensor {
  const { scaleTril, covarianceMatrix, precisionMatrix } = parameters as Record<string, Tensor | undefined>
  if (scaleTril !== undefined) return scaleTril
  if (covarianceMatrix !== undefined) return ops.linalgCholesky(covarianceMatrix)
  // P = U Uᵀ with an upper triangular U, so that the covariance is U⁻ᵀ U⁻¹.
  const upper = ops.linalgCholesky(precisionMatrix!.flip([-2, -1])).flip([-2, -1])
  const identity = eye(upper.size(-1), { dtype: upper.dtype, device: upper.device })
  return ops.linalgSolveTriangular(upper.mT, identity, { upper: false })
}

const FORMS = ['covarianceMatrix', 'precisionMatrix', 'scaleTril'] as const

/**
 * Multivariate normal distribution over vectors of n numbers, with mean `loc` [..., n] and one of `covarianceMatrix`,
 * `precisionMatrix` and `scaleTril` [..., n, n], the lower triangular Cholesky factor of the covariance. `scaleTril` is the
 * fastest: the others are factorized in each call.
 */
export class MultivariateNormal extends GaussianVector {
  constructor(loc: Tensor, covarianceMatrix: Tensor, options?: DistributionOptions)
  constructor(
    loc: Tensor,
    named: ({ covarianceMatrix: Tensor } | { precisionMatrix: Tensor } | { scaleTril: Tensor }) & DistributionOptions,
  )
  constructor(
    loc: Tensor,
    covarianceMatrix: Tensor | null,
    precisionMatrix: Tensor | null,
    scaleTril?: Tensor | null,
    options?: DistributionOptions,
  )
  constructor(
    named: { loc: Tensor } & ({ covarianceMatrix: Tensor } | { precisionMatrix: Tensor } | { scaleTril: Tensor }) &
      DistributionOptions,
  )
  constructor(...args: unknown[]) {
    const where = 'MultivariateNormal'
    const { validateArgs, ...found } = namedArguments(where, ['loc', ...FORMS], args)
    const loc = requireMatrix(where, 'loc', found.loc, 1)
    const form = exactlyOne(where, FORMS, found)
    const matrix = requireMatrix(where, form, found[form], 2)
    const n = loc.size(-1)
    if (matrix.size(-1) !== n || matrix.size(-2) !== n) {
      throw new ShapeError(
        `${where}: expected ${form} [..., ${n}, ${n}] for loc [${loc.shape}], got [${matrix.shape}]`,
        {
          shape: matrix.shape,
        },
      )
    }
    const batchShape = broadcastShapes(where, {
      'the batch of loc': loc.shape.slice(0, -1),
      [`the batch of ${form}`]: matrix.shape.slice(0, -2),
    })
    super(batchShape, [n], { validateArgs, parameters: { loc, [form]: matrix } } as DistributionOptions)
  }

  override get argConstraints(): Record<string, Constraint> {
    return {
      loc: realVector,
      covarianceMatrix: positiveDefinite,
      precisionMatrix: positiveDefinite,
      scaleTril: lowerCholesky,
    }
  }

  /** The Cholesky factor of the covariance, without the dimensions that only `loc` has. */
  private get factor(): Tensor {
    return choleskyOf(this.parameters)
  }

  protected override computeScaleTril(): Tensor {
    return this.inBatch(this.factor, 2)
  }

  protected override computeCovarianceMatrix(): Tensor {
    if (this.parameters.covarianceMatrix !== undefined) return this.parameter('covarianceMatrix', 2)
    const { factor } = this
    return this.inBatch(factor.matmul(factor.mT), 2)
  }

  protected override computePrecisionMatrix(): Tensor {
    if (this.parameters.precisionMatrix !== undefined) return this.parameter('precisionMatrix', 2)
    return this.inBatch(ops.choleskyInverse(this.factor), 2)
  }

  override mahalanobis(rows: Tensor): Tensor {
    const { factor } = this
    if (factor.ndim > 2) return lengths(factor, rows)
    // One solve for all rows: broadcasting would copy the factor for each.
    const n = factor.size(-1)
    return lengths(factor, rows.reshape([-1, n])).reshape(rows.shape.slice(0, -1))
  }

  override logDet(): Tensor {
    return this.factor.diagonal(0, -2, -1).log().sum(-1).mul(2)
  }

  override factors(): Tensor[] {
    return [this.factor]
  }

  protected override computeVariance(): Tensor {
    return this.inBatch(this.factor.square().sum(-1), 1)
  }

  protected override computeRsample(shape: number[]): Tensor {
    const noise = randn(shape, this.factory).unsqueeze(-1)
    return this.factor.matmul(noise).squeeze(-1).add(this.loc)
  }
}

/** Return the squared lengths of L⁻¹ x of the rows x of [..., m, n]. */
const lengths = (factor: Tensor, rows: Tensor): Tensor =>
  ops.linalgSolveTriangular(factor, rows.mT, { upper: false }).square().sum(-2)

/**
 * Multivariate normal distribution whose covariance is `covFactor` · `covFactor`ᵀ + diag(`covDiag`), for a `covFactor`
 * [..., n, r] of low rank r: time and memory grow with n · r² instead of n³. `loc` and `covDiag`: [..., n].
 */
export class LowRankMultivariateNormal extends GaussianVector {
  constructor(loc: Tensor, covFactor: Tensor, covDiag: Tensor, options?: DistributionOptions)
  constructor(named: { loc: Tensor; covFactor: Tensor; covDiag: Tensor } & DistributionOptions)
  constructor(...args: unknown[]) {
    const where = 'LowRankMultivariateNormal'
    const { validateArgs, ...found } = namedArguments(where, ['loc', 'covFactor', 'covDiag'], args)
    const loc = requireMatrix(where, 'loc', found.loc, 1)
    const covFactor = requireMatrix(where, 'covFactor', found.covFactor, 2)
    const covDiag = requireMatrix(where, 'covDiag', found.covDiag, 1)
    const n = loc.size(-1)
    if (covFactor.size(-2) !== n || covDiag.size(-1) !== n) {
      throw new ShapeError(
        `${where}: expected covFactor [..., ${n}, r] and covDiag [..., ${n}] for loc [${loc.shape}], ` +
          `got [${covFactor.shape}] and [${covDiag.shape}]`,
        { shape: covFactor.shape },
      )
    }
    const batchShape = broadcastShapes(where, {
      'the batch of loc': loc.shape.slice(0, -1),
      'the batch of covFactor': covFactor.shape.slice(0, -2),
      'the batch of covDiag': covDiag.shape.slice(0, -1),
    })
    super(batchShape, [n], { validateArgs, parameters: { loc, covFactor, covDiag } } as DistributionOptions)
  }

  override get argConstraints(): Record<string, Constraint> {
    return { loc: realVector, covFactor: independent(real, 2), covDiag: independent(positive, 1) }
  }

  get covFactor(): Tensor {
    return this.parameter('covFactor', 2)
  }

  get covDiag(): Tensor {
    return this.parameter('covDiag', 1)
  }

  /** The parameters as passed: no expanded copies in products. */
  private get narrow(): { factor: Tensor; diagonal: Tensor } {
    const { covFactor, covDiag } = this.parameters as Record<string, Tensor>
    return { factor: covFactor!, diagonal: covDiag! }
  }

  /** Return Wᵀ D⁻¹ [..., r, n] and the Cholesky factor of I + Wᵀ D⁻¹ W [..., r, r]. */
  private capacitance(): [Tensor, Tensor] {
    const { factor, diagonal } = this.narrow
    const weighted = factor.mT.div(diagonal.unsqueeze(-2))
    const identity = eye(factor.size(-1), this.factory)
    return [weighted, ops.linalgCholesky(weighted.matmul(factor).add(identity))]
  }

  protected override computeScaleTril(): Tensor {
    const { factor, diagonal } = this.narrow
    const root = diagonal.sqrt().unsqueeze(-1)
    const scaled = factor.div(root)
    const inner = scaled.matmul(scaled.mT).add(eye(this.eventShape[0]!, this.factory))
    return this.inBatch(root.mul(ops.linalgCholesky(inner)), 2)
  }

  protected override computeCovarianceMatrix(): Tensor {
    const { factor, diagonal } = this.narrow
    return this.inBatch(factor.matmul(factor.mT).add(diagonal.diagEmbed()), 2)
  }

  protected override computePrecisionMatrix(): Tensor {
    const [weighted, tril] = this.capacitance()
    const a = ops.linalgSolveTriangular(tril, weighted, { upper: false })
    return this.inBatch(this.narrow.diagonal.reciprocal().diagEmbed().sub(a.mT.matmul(a)), 2)
  }

  override mahalanobis(rows: Tensor): Tensor {
    // By Woodbury's identity.
    const [weighted, tril] = this.capacitance()
    const whole = rows.square().div(this.narrow.diagonal.unsqueeze(-2)).sum(-1)
    return whole.sub(lengths(tril, rows.matmul(weighted.mT)))
  }

  override logDet(): Tensor {
    const [, tril] = this.capacitance()
    return tril.diagonal(0, -2, -1).log().sum(-1).mul(2).add(this.narrow.diagonal.log().sum(-1))
  }

  override factors(): Tensor[] {
    const { factor, diagonal } = this.narrow
    return [factor, diagonal.sqrt().diagEmbed()]
  }

  protected override computeVariance(): Tensor {
    const { factor, diagonal } = this.narrow
    return this.inBatch(factor.square().sum(-1).add(diagonal), 1)
  }

  protected override computeRsample(shape: number[]): Tensor {
    const { factor, diagonal } = this.narrow
    const noise = randn([...shape.slice(0, -1), factor.size(-1)], this.factory).unsqueeze(-1)
    const rest = randn(shape, this.factory)
    return factor.matmul(noise).squeeze(-1).add(this.loc).add(diagonal.sqrt().mul(rest))
  }
}
