import { requireOptions } from '../base/check.js'
import type { Tensor } from '../tensor/index.js'
import { requireSettings, setOptions } from './check.js'
import { cosineSimilarity, pairwiseDistance } from './functional.js'
import { Module } from './module.js'

/** Cosine of the angle between two inputs along `dim`. */
export class CosineSimilarity extends Module {
  declare readonly dim: number
  declare readonly eps: number

  /** @param options `dim` (default 1), and `eps` (default 1e-8), the minimum product of the norms */
  constructor(options: { dim?: number; eps?: number } = {}) {
    super()
    setOptions(this, options, { dim: 1, eps: 1e-8 })
  }

  override forward(x1: Tensor, x2: Tensor): Tensor {
    return cosineSimilarity(x1, x2, this.dim, this.eps)
  }
}

export interface PairwiseDistanceOptions {
  /** Order of the norm. Default: 2. */
  p?: number
  /** Added to the difference. Default: 1e-6. */
  eps?: number
  /** Keep the last dimension with size 1. Default: false. */
  keepdim?: boolean
}

/** Norm of the difference between rows: [batch, dim] and [batch, dim] → [batch] */
export class PairwiseDistance extends Module {
  readonly norm: number
  readonly eps: number
  readonly keepdim: boolean

  constructor(options: PairwiseDistanceOptions = {}) {
    super()
    requireOptions('PairwiseDistance', options, ['p', 'eps', 'keepdim'])
    const { p = 2, eps = 1e-6, keepdim = false } = options
    requireSettings('PairwiseDistance', { p, eps })
    this.norm = p
    this.eps = eps
    this.keepdim = keepdim
  }

  override forward(x1: Tensor, x2: Tensor): Tensor {
    return pairwiseDistance(x1, x2, this.norm, this.eps, this.keepdim)
  }
}
