import { requireBoolean } from '../base/check.js'
import { ConfigError, ShapeError } from '../base/errors.js'
import { cat, ones, ops, scope, type Tensor } from '../tensor/index.js'
import { byPosition } from './by-position.js'
import { otherRank, requireNumbers, requireTensors } from './check.js'
import { linear } from './functional.js'
import { sameShape } from './text.js'

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

/** Weights, masks and options of {@link attend}. */
interface Attention extends MultiheadAttentionCallOptions {
  /** Caller, for errors. */
  where: string
  numHeads: number
  /** Projections of query, key and value: stacked, [3 · embedDim, embedDim], or one each. */
  inProjWeights: Tensor | readonly Tensor[]
  /** [3 · embedDim] */
  inProjBias: Tensor | null
  /** Key and value that are appended, [1, 1, embedDim]. */
  biasK: Tensor | null
  biasV: Tensor | null
  addZeroAttn: boolean
  /** Dropout probability of the attention weights. */
  dropout: number
  /** Inputs are [batch, time, features] instead of [time, batch, features]. */
  batchFirst: boolean
  /** Keys instead of the projected ones, [batch · heads, source, headDim]. */
  staticK?: Tensor | null
  /** Values instead of the projected ones, [batch · heads, source, headDim]. */
  staticV?: Tensor | null
  /** Output projection of [target, batch, embedDim]. */
  project(heads: Tensor): Tensor
}

/** Compute multi-head attention (Vaswani et al. 2017) of inputs with or without a batch, in the layout of `batchFirst`. */
export function attend(query: Tensor, key: Tensor, value: Tensor, settings: Attention): MultiheadAttentionResult {
  const layout = settings.batchFirst ? '[batch, time, features]' : '[time, batch, features]'
  for (const input of [query, key, value]) {
    const wrong = otherRank(settings.where, input, [query.ndim === 2 ? 2 : 3], `${layout} or all [time, features]`)
    if (wrong) throw wrong
  }
  return scope(() => {
    if (query.ndim === 2) {
      const [q, k, v] = eachOnce(query, key, value, (input) => input.unsqueeze(0))
      const keyPaddingMask = settings.keyPaddingMask?.unsqueeze(0) ?? null
      const { output, weights } = attendBatch(q, k, v, { ...settings, keyPaddingMask })
      return { output: output.squeeze(1), weights: weights?.squeeze(0) ?? null }
    }
    if (settings.batchFirst) {
      const { output, weights } = attendBatch(query, key, value, settings)
      return { output: output.transpose(0, 1), weights }
    }
    const [q, k, v] = eachOnce(query, key, value, (input) => input.transpose(0, 1))
    return attendBatch(q, k, v, settings)
  })
}

/** Change query, key and value; the same tensor stays one, which is projected once. */
function eachOnce(
  query: Tensor,
  key: Tensor,
  value: Tensor,
  change: (input: Tensor) => Tensor,
): [Tensor, Tensor, Tensor] {
  const q = change(query)
  const k = key === query ? q : change(key)
  return [q, k, value === query ? q : value === key ? k : change(value)]
}

/**
 * Attend with batch-first inputs and a time-first output: PyTorch's memory layout, and the order in which later dropout draws.
 */
function attendBatch(query: Tensor, key: Tensor, value: Tensor, settings: Attention): MultiheadAttentionResult {
  const { needWeights = true, averageAttnWeights = true, isCausal = false, numHeads, dropout } = settings
  const [batch, target] = query.shape as [number, number, number]
  const split = (x: Tensor) => x.unflatten(-1, [numHeads, -1]).transpose(1, 2) // [batch, heads, time, headDim]
  const [q, plainKeys, plainValues] = projected(query, key, value, settings)
  const { biasK, biasV, staticK, staticV } = settings
  const keys = staticK ? staticHeads('staticK', staticK, batch, settings) : split(appended(plainKeys, biasK))
  const values = staticV ? staticHeads('staticV', staticV, batch, settings) : split(appended(plainValues, biasV))
  const [k, v] = [keys, values].map((x) => (settings.addZeroAttn ? ops.pad(x, [0, 0, 0, 1]) : x)) as [Tensor, Tensor]
  const more = (settings.addZeroAttn ? 1 : 0) + (biasK && biasV ? 1 : 0)
  const plainCausal = isCausal && more === 0 && !needWeights && !settings.attnMask && !settings.keyPaddingMask
  const mask = plainCausal ? null : widened(maskOf(query, batch, target, k.size(2) - more, settings), more)
  const heads = split(q)

  let weights: Tensor | null = null
  let attended: Tensor
  if (needWeights) {
    const scores = heads.mul(Math.sqrt(1 / heads.size(-1))).matmul(k.transpose(-2, -1)) // [batch, heads, target, source]
    weights = (mask ? scores.add(mask) : scores).softmax(-1)
    if (dropout > 0) weights = ops.dropout(weights, dropout, true)
    attended = weights.matmul(v)
    if (averageAttnWeights) weights = weights.mean([1])
  } else {
    attended = ops.scaledDotProductAttention(heads, k, v, mask, dropout, plainCausal)
  }
  return { output: settings.project(attended.permute([2, 0, 1, 3]).flatten(2)), weights }
}

/** Append a learned key or value, to which every position may attend. */
const appended = (x: Tensor, end: Tensor | null): Tensor => (end ? cat([x, end.expand([x.size(0), 1, -1])], 1) : x)

/** Return static keys or values as [batch, heads, source, headDim]. */
function staticHeads(name: string, heads: Tensor, batch: number, { where, numHeads }: Attention): Tensor {
  const wrong = otherRank(`${where}: ${name}`, heads, [3], '[batch · heads, source, headDim]')
  if (wrong) throw wrong
  requireShape(where, name, heads.shape, [batch * numHeads, heads.size(1), heads.size(2)])
  return heads.unflatten(0, [batch, numHeads])
}

function projected(query: Tensor, key: Tensor, value: Tensor, settings: Attention): [Tensor, Tensor, Tensor] {
  const { inProjWeights, inProjBias } = settings
  const stacked = Array.isArray(inProjWeights) ? null : (inProjWeights as Tensor)
  if (stacked && query === key && key === value) {
    return linear(query, stacked, inProjBias).chunk(3, -1) as [Tensor, Tensor, Tensor]
  }
  const weights = stacked?.chunk(3) ?? (inProjWeights as readonly Tensor[])
  const biases = inProjBias?.chunk(3) ?? []
  return [query, key, value].map((input, i) => linear(input, weights[i]!, biases[i] ?? null)) as [
    Tensor,
    Tensor,
    Tensor,
  ]
}

/** Return the sum of all masks in floating point, broadcastable to [batch, heads, target, source]; null without masks. */
function maskOf(query: Tensor, batch: number, target: number, source: number, settings: Attention): Tensor | null {
  const { where, keyPaddingMask, attnMask, isCausal, numHeads } = settings
  const additive = (mask: Tensor) => {
    if (mask.dtype !== 'bool') return mask.to({ dtype: query.dtype })
    const zero = mask.zerosLike({ dtype: query.dtype })
    return zero.maskedFill_(mask, Number.NEGATIVE_INFINITY)
  }
  const masks: Tensor[] = []
  if (attnMask) {
    const shape = attnMask.shape
    const whole = attnMask.ndim === 3
    requireShape(where, 'attnMask', shape, whole ? [batch * numHeads, target, source] : [target, source])
    masks.push(additive(whole ? attnMask.view([batch, numHeads, target, source]) : attnMask))
  }
  if (keyPaddingMask) {
    requireShape(where, 'keyPaddingMask', keyPaddingMask.shape, [batch, source])
    masks.push(additive(keyPaddingMask.view([batch, 1, 1, source])))
  }
  if (isCausal) {
    masks.push(additive(ones([target, source], { dtype: 'bool', device: query.device }).triu(1)))
  }
  return masks.length > 0 ? masks.reduce((sum, mask) => sum.add(mask)) : null
}

/** Extend a mask to allow `more` keys at the end. */
const widened = (mask: Tensor | null, more: number): Tensor | null =>
  mask && more > 0 ? ops.pad(mask, [0, more]) : mask

function requireShape(where: string, name: string, actual: number[], expected: number[]): void {
  if (!sameShape(actual, expected)) {
    throw new ShapeError(`${where}: expected ${name} to be [${expected}], got [${actual}]`, {
      shape: actual,
      expected,
    })
  }
}

export interface MultiHeadAttentionForwardArguments extends MultiheadAttentionCallOptions {
  /** Number of features of the query. */
  embedDimToCheck: number
  numHeads: number
  /** Query, key and value projections stacked, [3 · embedDim, embedDim]; null with `useSeparateProjWeight`. */
  inProjWeight: Tensor | null
  /** [3 · embedDim] */
  inProjBias: Tensor | null
  /** Key that is appended, [1, 1, embedDim]. */
  biasK: Tensor | null
  /** Value that is appended, [1, 1, embedDim]. */
  biasV: Tensor | null
  /** Append a key and value of zeros. */
  addZeroAttn: boolean
  /** Dropout probability of the attention weights. */
  dropoutP: number
  /** Output projection, [embedDim, embedDim]. */
  outProjWeight: Tensor
  /** [embedDim] */
  outProjBias: Tensor | null
  /** Whether dropout applies. Default: true. */
  training?: boolean
  /** Project by `qProjWeight`, `kProjWeight` and `vProjWeight`. Default: false. */
  useSeparateProjWeight?: boolean
  qProjWeight?: Tensor | null
  kProjWeight?: Tensor | null
  vProjWeight?: Tensor | null
  /** Keys instead of the projected ones, [batch · heads, source, headDim]. */
  staticK?: Tensor | null
  /** Values instead of the projected ones, [batch · heads, source, headDim]. */
  staticV?: Tensor | null
}

/**
 * Compute multi-head attention of query [target, batch, embedDim], key and value [source, batch, ...], or without the batch, with
 * the parameters of `MultiheadAttention`. Returns the output and the attention weights, null without `needWeights`.
 */
export const multiHeadAttentionForward = byPosition(
  'multiHeadAttentionForward',
  [
    ...(['embedDimToCheck', 'numHeads', 'inProjWeight', 'inProjBias', 'biasK', 'biasV', 'addZeroAttn'] as const),
    ...(['dropoutP', 'outProjWeight', 'outProjBias', 'training', 'keyPaddingMask', 'needWeights'] as const),
    ...(['attnMask', 'useSeparateProjWeight', 'qProjWeight', 'kProjWeight', 'vProjWeight'] as const),
    ...(['staticK', 'staticV', 'averageAttnWeights', 'isCausal'] as const),
  ],
  (
    query: Tensor,
    key: Tensor,
    value: Tensor,
    options: MultiHeadAttentionForwardArguments,
  ): [output: Tensor, weights: Tensor | null] => {
    const where = 'multiHeadAttentionForward'
    const { embedDimToCheck, numHeads, training = true, useSeparateProjWeight = false, ...rest } = options
    const { inProjWeight, qProjWeight, kProjWeight, vProjWeight, outProjWeight, outProjBias, ...settings } = rest
    const { dropoutP, biasK, biasV } = settings
    requireTensors(where, query, key, value, outProjWeight)
    requireNumbers(where, { embedDimToCheck, numHeads, dropoutP })
    for (const [name, flag] of Object.entries({ training, useSeparateProjWeight })) requireBoolean(where, name, flag)
    if (query.size(-1) !== embedDimToCheck || embedDimToCheck % numHeads !== 0) {
      throw new ShapeError(
        `${where}: expected a query of ${embedDimToCheck} features, a multiple of ${numHeads} heads, got shape [${query.shape}]`,
        { shape: query.shape },
      )
    }
    if ((biasK === null) !== (biasV === null) || (biasK && (settings.staticK || settings.staticV))) {
      throw new ConfigError(`${where}: expected biasK and biasV together, and not with staticK or staticV`, {})
    }
    const inProjWeights = useSeparateProjWeight ? [qProjWeight, kProjWeight, vProjWeight] : inProjWeight
    requireTensors(where, ...(Array.isArray(inProjWeights) ? inProjWeights : [inProjWeights]))
    const { output, weights } = attend(query, key, value, {
      ...{ ...settings, where, numHeads, batchFirst: false, dropout: training ? dropoutP : 0 },
      inProjWeights: inProjWeights as Tensor | Tensor[],
      project: (heads) => linear(heads, outProjWeight, outProjBias),
    })
    return [output, weights]
  },
)
