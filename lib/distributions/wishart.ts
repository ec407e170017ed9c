import { ShapeError } from '../base/errors.js'
import { arange, ops, randn, scope, type Tensor, tensor, zeros } from '../tensor/index.js'
import {
  broadcastShapes,
  type DistributionOptions,
  exactlyOne,
  namedArguments,
  requireMatrix,
  requireValue,
  type Value,
} from './arguments.js'
import { type Constraint, greaterThan, lowerCholesky, positiveDefinite } from './constraints.js'
import { ExponentialFamily } from './exponential-family.js'
import { Chi2 } from './gamma.js'
import { choose, floatLimits } from './math.js'
import { choleskyOf } from './multivariate-normal.js'

const FORMS = ['covarianceMatrix', 'precisionMatrix', 'scaleTril'] as const

/** Draws of a sample that is not positive definite in the parameters' dtype. */
const MOST_DRAWS = 10

/**
 * Wishart distribution over symmetric positive definite matrices of n rows: that of X Xᵀ for an X of `df` columns, each from a normal
 * distribution with mean 0 and the covariance. `df` is above n - 1; below n samples are often singular. One of
 * `covarianceMatrix`, `precisionMatrix` and `scaleTril` [..., n, n], the lower triangular Cholesky factor of the covariance,
 * is required; `scaleTril` is the fastest.
 */
export class Wishart extends ExponentialFamily {
  static {
    Wishart.define({ support: positiveDefinite, hasRsample: true })
  }

  constructor(df: Value, covarianceMatrix: Tensor, options?: DistributionOptions)
  constructor(
    df: Value,
    named: ({ covarianceMatrix: Tensor } | { precisionMatrix: Tensor } | { scaleTril: Tensor }) & DistributionOptions,
  )
  constructor(
    df: Value,
    covarianceMatrix: Tensor | null,
    precisionMatrix: Tensor | null,
    scaleTril?: Tensor | null,
    options?: DistributionOptions,
  )
  constructor(
    named: { df: Value } & ({ covarianceMatrix: Tensor } | { precisionMatrix: Tensor } | { scaleTril: Tensor }) &
      DistributionOptions,
  )
  constructor(...args: unknown[]) {
    const where = 'Wishart'
    const { validateArgs, ...found } = namedArguments(where, ['df', ...FORMS], args)
    const df = requireValue(where, 'df', found.df)
    const form = exactlyOne(where, FORMS, found)
    const matrix = requireMatrix(where, form, found[form], 2)
    const [rows, columns] = matrix.shape.slice(-2) as [number, number]
    if (rows !== columns || rows === 0) {
      throw new ShapeError(`${where}: expected ${form} [..., n, n], got [${matrix.shape}]`, { shape: matrix.shape })
    }
    const batchShape = broadcastShapes(where, {
      df: typeof df === 'number' ? [] : df.shape,
      [`the batch of ${form}`]: matrix.shape.slice(0, -2),
    })
    // The matrix decides the dtype, also of a df that is a number.
    super(batchShape, [rows, rows], { validateArgs, parameters: { [form]: matrix, df } } as DistributionOptions)
  }

  get df(): Tensor {
    return this.parameter('df')
  }

  /** Lower triangular factor of the covariance, [...batchShape, n, n]. */
  get scaleTril(): Tensor {
    return scope(() => this.inBatch(this.factor))
  }

  /** [...batchShape, n, n] */
  get covarianceMatrix(): Tensor {
    if (this.parameters.covarianceMatrix !== undefined) return this.parameter('covarianceMatrix', 2)
    return scope(() => {
      const { factor } = this
      return this.inBatch(factor.matmul(factor.mT))
    })
  }

  /** Inverse of the covariance, [...batchShape, n, n]. */
  get precisionMatrix(): Tensor {
    if (this.parameters.precisionMatrix !== undefined) return this.parameter('precisionMatrix', 2)
    return scope(() => this.inBatch(ops.choleskyInverse(this.factor)))
  }

  override get argConstraints(): Record<string, Constraint> {
    return {
      covarianceMatrix: positiveDefinite,
      precisionMatrix: positiveDefinite,
      scaleTril: lowerCholesky,
      df: greaterThan(this.size - 1),
    }
  }

  override get meanCarrierMeasure(): number {
    return 0
  }

  private get size(): number {
    return this.eventShape[0]!
  }

  /** The Cholesky factor of the covariance, without the dimensions that only `df` has. */
  private get factor(): Tensor {
    return choleskyOf(this.parameters)
  }

  private inBatch(matrix: Tensor): Tensor {
    return matrix.expand([...this.batchShape, ...this.eventShape])
  }

  /** `df` as [...batchShape, 1, 1]. */
  private get perMatrix(): Tensor {
    return this.df.unsqueeze(-1).unsqueeze(-1)
  }

  /** 0, 1, … n - 1 */
  private get places(): Tensor {
    return arange(0, this.size, this.factory)
  }

  protected override computeMean(): Tensor {
    return this.perMatrix.mul(this.covarianceMatrix)
  }

  /** NaN for a `df` of at most n + 1. */
  protected override computeMode(): Tensor {
    const factor = this.perMatrix.sub(this.size + 1)
    return choose(factor.gt(0), factor, Number.NaN).mul(this.covarianceMatrix)
  }

  protected override computeVariance(): Tensor {
    const covariance = this.covarianceMatrix
    const diagonal = covariance.diagonal(0, -2, -1)
    const products = diagonal.unsqueeze(-1).mul(diagonal.unsqueeze(-2))
    return this.perMatrix.mul(covariance.square().add(products))
  }

  protected override computeRsample(shape: number[]): Tensor {
    let sample = this.drawn(shape)
    for (let i = 0; i < MOST_DRAWS; i += 1) {
      const regular = positiveDefinite.check(sample)
      if (regular.all().item<boolean>()) return sample
      sample = choose(regular.unsqueeze(-1).unsqueeze(-1), sample, this.drawn(shape))
    }
    if (!positiveDefinite.check(sample).all().item<boolean>()) {
      process.emitWarning(
        `Wishart: expected positive definite samples, got singular ones in ${MOST_DRAWS} draws. Use a larger df`,
        'DistributionWarning',
      )
    }
    return sample
  }

  /** Draw by Bartlett's decomposition: L A Aᵀ Lᵀ for A of normal numbers below a diagonal of roots of chi-squared ones. */
  private drawn(shape: number[]): Tensor {
    const n = this.size
    const rows = shape.slice(0, -1)
    const chi2 = new Chi2(this.df.unsqueeze(-1).sub(this.places), { validateArgs: false })
    const diagonal = chi2.rsample(this.sampleShapeOf(shape)).sqrt().clamp(floatLimits(this.factory.dtype).eps)
    const normals = randn([...rows.slice(0, -1), (n * (n - 1)) / 2], this.factory)
    const below = Array.from({ length: n }, (_, row) => Array.from({ length: row }, (_, column) => row * n + column))
    const places = tensor(below.flat(), { dtype: 'int64', device: normals.device })
    const lower = zeros([...rows.slice(0, -1), n * n], this.factory)
      .scatter(-1, places.expand(normals.shape), normals)
      .unflatten(-1, [n, n])
    const root = this.factor.matmul(lower.add(diagonal.diagEmbed()))
    return root.matmul(root.mT)
  }

  /** log |L| for the covariance L Lᵀ, plus n/2 · log 2. */
  private logScale(): Tensor {
    return this.factor
      .diagonal(0, -2, -1)
      .log()
      .sum(-1)
      .add((this.size * Math.LN2) / 2)
  }

  protected override computeLogProb(value: Tensor): Tensor {
    const [df, n] = [this.df, this.size]
    const trace = ops.choleskySolve(value, this.factor).diagonal(0, -2, -1).sum(-1)
    return ops
      .linalgSlogdet(value)
      .logabsdet.mul(df.sub(n + 1).div(2))
      .sub(trace.div(2))
      .sub(df.mul(this.logScale()))
      .sub(ops.mvlgamma(df.div(2), n))
  }

  protected override computeEntropy(): Tensor {
    const [df, n] = [this.df, this.size]
    return this.logScale()
      .mul(n + 1)
      .add(ops.mvlgamma(df.div(2), n))
      .sub(
        df
          .sub(n + 1)
          .div(2)
          .mul(this.multivariateDigamma()),
      )
      .add(df.mul(n / 2))
  }

  /** The derivative of the logarithm of the multivariate gamma function at df/2. */
  private multivariateDigamma(): Tensor {
    return this.df.unsqueeze(-1).sub(this.places).div(2).digamma().sum(-1)
  }

  protected override computeNaturalParams(): Tensor[] {
    return [this.precisionMatrix.div(-2), this.df.sub(this.size + 1).div(2)]
  }

  protected override computeLogNormalizer(x: Tensor, y: Tensor): Tensor {
    const half = y.add((this.size + 1) / 2)
    const logDet = ops.linalgSlogdet(x.mul(-2)).logabsdet
    return half.mul(logDet.rsub(this.size * Math.LN2)).add(ops.mvlgamma(half, this.size))
  }

  /** Return KL(this ‖ other), `batchShape`. @internal */
  divergence(other: Wishart): Tensor {
    const [df, n] = [this.df, this.size]
    const ratio = ops.linalgSolveTriangular(other.inBatch(other.factor), this.inBatch(this.factor), { upper: false })
    const trace = ratio.square().sum([-1, -2])
    return other.df
      .mul(other.logScale().sub(this.logScale()))
      .add(df.div(2).mul(trace.sub(n)))
      .add(ops.mvlgamma(other.df.div(2), n))
      .sub(ops.mvlgamma(df.div(2), n))
      .add(df.sub(other.df).div(2).mul(this.multivariateDigamma()))
  }
}
