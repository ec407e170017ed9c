import { requireOptions } from '../base/check.js'
import { ConfigError } from '../base/errors.js'
import type { Tensor } from '../tensor/index.js'
import { attend, type MultiheadAttentionCallOptions, type MultiheadAttentionResult } from './attention-functions.js'
import { layerOptions, requireProbability, requireSizes, requireTensors } from './check.js'
import { xavierNormal_, xavierUniform_, zeros_ } from './init.js'
import { Linear } from './linear.js'
import { Module } from './module.js'
import { type FactoryOptions, type Parameter, parameter } from './parameter.js'

export interface MultiheadAttentionOptions extends FactoryOptions {
  /** Dropout probability of the attention weights in training. Default: 0. */
  dropout?: number
  /** Whether the projections have a bias. Default: true. */
  bias?: boolean
  /** Number of features of the keys. Default: embedDim. */
  kdim?: number
  /** Number of features of the values. Default: embedDim. */
  vdim?: number
  /** Append a learned key and value: `bias_k` and `bias_v`. Default: false. */
  addBiasKv?: boolean
  /** Append a key and value of zeros, so that attention can be on nothing. Default: false. */
  addZeroAttn?: boolean
  /** Tensors are [batch, time, ...] instead of [time, batch, ...]. Default: false. */
  batchFirst?: boolean
}

const CALL_OPTIONS = ['keyPaddingMask', 'attnMask', 'isCausal', 'needWeights', 'averageAttnWeights']

/** Multi-head attention (Vaswani et al. 2017). */
export class MultiheadAttention extends Module {
  readonly embedDim: number
  readonly numHeads: number
  readonly dropout: number
  readonly batchFirst: boolean
  readonly addZeroAttn: boolean
  /** Replaces in_proj_weight if kdim or vdim differs from embedDim. */
  q_proj_weight: Parameter | null = null
  k_proj_weight: Parameter | null = null
  v_proj_weight: Parameter | null = null
  /** Query, key and value projections stacked, [3 · embedDim, embedDim]. */
  in_proj_weight: Parameter | null = null
  in_proj_bias: Parameter | null
  bias_k: Parameter | null = null
  bias_v: Parameter | null = null
  out_proj: Linear

  constructor(embedDim: number, numHeads: number, options: MultiheadAttentionOptions = {}) {
    super()
    const {
      dropout = 0,
      bias = true,
      kdim = embedDim,
      vdim = embedDim,
      batchFirst = false,
      addBiasKv = false,
      addZeroAttn = false,
      ...factory
    } = layerOptions(
      'MultiheadAttention',
      options,
      'dropout',
      'bias',
      'kdim',
      'vdim',
      'batchFirst',
      'addBiasKv',
      'addZeroAttn',
    )
    requireSizes('MultiheadAttention', { embedDim, numHeads, kdim, vdim })
    requireProbability('MultiheadAttention', dropout)
    if (embedDim % numHeads !== 0) {
      throw new ConfigError(
        `MultiheadAttention: expected embedDim to be a multiple of numHeads ${numHeads}, got ${embedDim}`,
        {
          embedDim,
          numHeads,
        },
      )
    }
    this.embedDim = embedDim
    this.numHeads = numHeads
    this.dropout = dropout
    this.batchFirst = batchFirst
    this.addZeroAttn = addZeroAttn
    if (kdim === embedDim && vdim === embedDim) {
      this.in_proj_weight = parameter([3 * embedDim, embedDim], factory)
    } else {
      this.q_proj_weight = parameter([embedDim, embedDim], factory)
      this.k_proj_weight = parameter([embedDim, kdim], factory)
      this.v_proj_weight = parameter([embedDim, vdim], factory)
    }
    this.in_proj_bias = bias ? parameter([3 * embedDim], factory) : null
    if (addBiasKv) {
      this.bias_k = parameter([1, 1, embedDim], factory)
      this.bias_v = parameter([1, 1, embedDim], factory)
    }
    this.out_proj = new Linear(embedDim, embedDim, { bias, ...factory })
    this.resetParameters()
  }

  resetParameters(): void {
    for (const weight of [this.in_proj_weight, this.q_proj_weight, this.k_proj_weight, this.v_proj_weight]) {
      if (weight) xavierUniform_(weight)
    }
    if (this.in_proj_bias) zeros_(this.in_proj_bias)
    if (this.out_proj.bias) zeros_(this.out_proj.bias)
    if (this.bias_k) xavierNormal_(this.bias_k)
    if (this.bias_v) xavierNormal_(this.bias_v)
  }

  /**
   * @param query [target, batch, embedDim]; with `batchFirst` [batch, target, embedDim]; or [target, embedDim]
   * @param key [source, batch, kdim], with the same layouts. For self-attention pass the same tensor three times: it is projected once.
   * @param value [source, batch, vdim]
   */
  override forward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    options: MultiheadAttentionCallOptions = {},
  ): MultiheadAttentionResult {
    requireTensors('MultiheadAttention', query, key, value)
    requireOptions('MultiheadAttention.forward', options, CALL_OPTIONS)
    const { attnMask, keyPaddingMask } = options
    requireTensors(
      'MultiheadAttention',
      ...[attnMask, keyPaddingMask].filter((mask) => mask !== null && mask !== undefined),
    )
    const { numHeads, addZeroAttn, batchFirst } = this
    const { in_proj_weight, q_proj_weight, k_proj_weight, v_proj_weight, in_proj_bias, bias_k, bias_v } = this
    return attend(query, key, value, {
      ...{ where: 'MultiheadAttention', numHeads, addZeroAttn, batchFirst },
      inProjWeights: in_proj_weight ?? [q_proj_weight!, k_proj_weight!, v_proj_weight!],
      inProjBias: in_proj_bias,
      biasK: bias_k,
      biasV: bias_v,
      dropout: this.training ? this.dropout : 0,
      project: (heads) => this.out_proj.forward(heads),
      ...options,
    })
  }
}
