import { requireOptions } from '../base/check.js'
import { ConfigError, ShapeError } from '../base/errors.js'
import { cat, ones, ops, scope, type Tensor } from '../tensor/index.js'
import { layerOptions, otherRank, requireProbability, requireSizes, requireTensors } from './check.js'
import { linear } from './functional.js'
import { xavierNormal_, xavierUniform_, zeros_ } from './init.js'
import { Linear } from './linear.js'
import { Module } from './module.js'
import { type FactoryOptions, type Parameter, parameter } from './parameter.js'
import { sameShape } from './text.js'

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

export interface MultiheadAttentionCallOptions {
  /** [batch, source]: true (or a number that is added, such as -Infinity) where a key is padding. */
  keyPaddingMask?: Tensor | null
  /** [target, source] or [batch · heads, target, source]: true where attention is forbidden, or added numbers. */
  attnMask?: Tensor | null
  /**
   * Each target position attends only to sources up to its own position. Unlike PyTorch's hint, this alone is enough. Default:
   * false.
   */
  isCausal?: boolean
  /** Return the attention weights; without them the fused kernel runs. Default: true, as in PyTorch. */
  needWeights?: boolean
  /** Return the mean of the heads' weights instead of each head's. Default: true. */
  averageAttnWeights?: boolean
}

export interface MultiheadAttentionResult {
  /** [target, batch, embedDim] (or batch first) */
  output: Tensor
  /** [batch, target, source], or with `averageAttnWeights: false` [batch, heads, target, source]; null without `needWeights`. */
  weights: Tensor | null
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
    const layout = this.batchFirst ? '[batch, time, features]' : '[time, batch, features]'
    requireTensors('MultiheadAttention', query, key, value)
    requireOptions('MultiheadAttention.forward', options, CALL_OPTIONS)
    const { attnMask, keyPaddingMask } = options
    requireTensors(
      'MultiheadAttention',
      ...[attnMask, keyPaddingMask].filter((mask) => mask !== null && mask !== undefined),
    )
    for (const input of [query, key, value]) {
      const wrong = otherRank(
        'MultiheadAttention',
        input,
        [query.ndim === 2 ? 2 : 3],
        `${layout} or all [time, features]`,
      )
      if (wrong) throw wrong
    }
    return scope(() => {
      if (query.ndim === 2) return this.#unbatched(query, key, value, options)
      if (this.batchFirst) {
        const { output, weights } = this.#attend(query, key, value, options)
        return { output: output.transpose(0, 1), weights }
      }
      const q = query.transpose(0, 1)
      const k = key === query ? q : key.transpose(0, 1)
      const v = value === query ? q : value === key ? k : value.transpose(0, 1)
      return this.#attend(q, k, v, options)
    })
  }

  #unbatched(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    options: MultiheadAttentionCallOptions,
  ): MultiheadAttentionResult {
    const q = query.unsqueeze(0)
    const k = key === query ? q : key.unsqueeze(0)
    const v = value === query ? q : value === key ? k : value.unsqueeze(0)
    const keyPaddingMask = options.keyPaddingMask?.unsqueeze(0) ?? null
    const { output, weights } = this.#attend(q, k, v, { ...options, keyPaddingMask })
    return { output: output.squeeze(1), weights: weights?.squeeze(0) ?? null }
  }

  /**
   * Attend with batch-first inputs and a time-first output: PyTorch's memory layout, and the order in which later dropout
   * draws.
   */
  #attend(query: Tensor, key: Tensor, value: Tensor, options: MultiheadAttentionCallOptions): MultiheadAttentionResult {
    const { needWeights = true, averageAttnWeights = true, isCausal = false } = options
    const [batch, target] = query.shape as [number, number, number]
    const split = (x: Tensor) => x.unflatten(-1, [this.numHeads, -1]).transpose(1, 2) // [batch, heads, time, headDim]
    const projected = this.#project(query, key, value) as [Tensor, Tensor, Tensor]
    const source = projected[1].size(1)
    const [q, k, v] = this.#extended(projected).map(split) as [Tensor, Tensor, Tensor]
    const more = k.size(2) - source
    const plainCausal = isCausal && more === 0 && !needWeights && !options.attnMask && !options.keyPaddingMask
    const mask = plainCausal ? null : widened(this.#mask(query, batch, target, source, options), more)
    const dropout = this.training ? this.dropout : 0

    let weights: Tensor | null = null
    let heads: Tensor
    if (needWeights) {
      const scores = q.mul(Math.sqrt(1 / q.size(-1))).matmul(k.transpose(-2, -1)) // [batch, heads, target, source]
      weights = (mask ? scores.add(mask) : scores).softmax(-1)
      if (dropout > 0) weights = ops.dropout(weights, dropout, true)
      heads = weights.matmul(v)
      if (averageAttnWeights) weights = weights.mean([1])
    } else {
      heads = ops.scaledDotProductAttention(q, k, v, mask, dropout, plainCausal)
    }
    return { output: this.out_proj.forward(heads.permute([2, 0, 1, 3]).flatten(2)), weights }
  }

  /** Return keys and values with the appended ones, to which every position may attend. */
  #extended([q, k, v]: [Tensor, Tensor, Tensor]): Tensor[] {
    const { bias_k, bias_v } = this
    const at = (end: Tensor, x: Tensor) => cat([x, end.expand([x.size(0), 1, -1])], 1)
    const [keys, values] = bias_k && bias_v ? [at(bias_k, k), at(bias_v, v)] : [k, v]
    if (!this.addZeroAttn) return [q, keys, values]
    return [q, at(keys.newZeros([1, 1, keys.size(2)]), keys), at(values.newZeros([1, 1, values.size(2)]), values)]
  }

  #project(query: Tensor, key: Tensor, value: Tensor): Tensor[] {
    const bias = this.in_proj_bias
    if (this.in_proj_weight && query === key && key === value) {
      return linear(query, this.in_proj_weight, bias).chunk(3, -1)
    }
    const weights = this.in_proj_weight?.chunk(3) ?? [this.q_proj_weight, this.k_proj_weight, this.v_proj_weight]
    const biases = bias?.chunk(3) ?? []
    return [query, key, value].map((input, i) => linear(input, weights[i]!, biases[i] ?? null))
  }

  /** Return the sum of all masks in floating point, broadcastable to [batch, heads, target, source]; null without masks. */
  #mask(
    query: Tensor,
    batch: number,
    target: number,
    source: number,
    { keyPaddingMask, attnMask, isCausal }: MultiheadAttentionCallOptions,
  ): Tensor | null {
    const additive = (mask: Tensor) => {
      if (mask.dtype !== 'bool') return mask.to({ dtype: query.dtype })
      const zero = mask.zerosLike({ dtype: query.dtype })
      return zero.maskedFill_(mask, Number.NEGATIVE_INFINITY)
    }
    const masks: Tensor[] = []
    if (attnMask) {
      const shape = attnMask.shape
      const whole = attnMask.ndim === 3
      requireShape('attnMask', shape, whole ? [batch * this.numHeads, target, source] : [target, source])
      masks.push(additive(whole ? attnMask.view([batch, this.numHeads, target, source]) : attnMask))
    }
    if (keyPaddingMask) {
      requireShape('keyPaddingMask', keyPaddingMask.shape, [batch, source])
      masks.push(additive(keyPaddingMask.view([batch, 1, 1, source])))
    }
    if (isCausal) {
      masks.push(additive(ones([target, source], { dtype: 'bool', device: query.device }).triu(1)))
    }
    return masks.length > 0 ? masks.reduce((sum, mask) => sum.add(mask)) : null
  }
}

/** Extend a mask to allow `more` keys at the end. */
const widened = (mask: Tensor | null, more: number): Tensor | null =>
  mask && more > 0 ? ops.pad(mask, [0, more]) : mask

function requireShape(name: string, actual: number[], expected: number[]): void {
  if (!sameShape(actual, expected)) {
    throw new ShapeError(`MultiheadAttention: expected ${name} to be [${expected}], got [${actual}]`, {
      shape: actual,
      expected,
    })
  }
}
