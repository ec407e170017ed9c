import { argumentError, requireNumber, requireOneOf, requireOptions, requireWhole } from '../base/check.js'
import { ConfigError } from '../base/errors.js'
import { cat, noGrad, ops, scope, stack, type Tensor } from '../tensor/index.js'
import type { ResolvedLoraConfig } from './config.js'
import type { Lora, LoraLayer } from './layer.js'

const types = [
  'svd',
  'linear',
  'cat',
  'ties',
  'ties_svd',
  'dare_ties',
  'dare_linear',
  'dare_ties_svd',
  'dare_linear_svd',
  'magnitude_prune',
  'magnitude_prune_svd',
] as const

/**
 * Methods of combining adapters:
 * - 'cat': concatenation, exactly their weighted sum; the rank is the sum of theirs.
 * - 'linear': A and B are summed separately with the square roots of the weights; all ranks must be equal.
 * - 'svd': the weighted sum of the products BA, truncated to a rank by singular values.
 * - 'ties' (https://arxiv.org/abs/2306.01708): only the largest values, and of those the ones with the majority sign.
 * - 'dare_linear', 'dare_ties' (https://arxiv.org/abs/2311.03099): random values, rescaled for those that are dropped.
 * - 'magnitude_prune': 'linear' of the largest values.
 *
 * With `_svd` the method is applied to the products BA, which are then truncated to a rank.
 */
export type CombinationType = (typeof types)[number]

export interface WeightedAdapterOptions {
  /** Method. Default 'svd'. */
  combinationType?: CombinationType
  /** Rank of the new adapter, for 'svd' and `…_svd`. Default: the largest of the given ranks. */
  svdRank?: number | null
  /** Quantile from 0 to 1 of all values of A and B to clamp them to, for 'svd' and `…_svd`. Default: none. */
  svdClamp?: number | null
  /** Fraction of the values to keep, above 0 and up to 1: for 'ties', 'dare_…' and 'magnitude_prune…'. */
  density?: number | null
  /** Majority sign, for 'ties' and 'dare_ties': the sign of the sum of values ('total', the default), or of most values. */
  majoritySignMethod?: 'total' | 'frequency'
}

export interface Combination extends Required<WeightedAdapterOptions> {
  adapters: readonly string[]
  weights: readonly number[]
  rank: number
}

/** Check the arguments of `addWeightedAdapter`, and determine the new adapter's rank. */
export function checkedCombination(
  adapters: readonly string[],
  weights: readonly number[],
  configs: readonly ResolvedLoraConfig[],
  options: WeightedAdapterOptions,
): Combination {
  const where = 'addWeightedAdapter'
  requireOptions(where, options, ['combinationType', 'svdRank', 'svdClamp', 'density', 'majoritySignMethod'])
  const {
    combinationType = 'svd',
    svdRank = null,
    svdClamp = null,
    density = null,
    majoritySignMethod = 'total',
  } = options
  const known = ['combinationType', 'svdRank', 'svdClamp', 'density', 'majoritySignMethod']
  const other = Object.keys(options).find((key) => !known.includes(key))
  if (other !== undefined)
    throw new ConfigError(`${where}: expected one of the options ${known.join(', ')}, got '${other}'`, {})
  if (adapters.length === 0) throw argumentError(where, 'adapters', 'names of adapters', adapters)
  if (!Array.isArray(weights) || weights.length !== adapters.length) {
    throw argumentError(where, 'weights', `a list of ${adapters.length} numbers, one for each adapter`, weights)
  }
  for (const weight of weights) requireNumber(where, 'weights', weight)
  requireOneOf(where, 'combinationType', combinationType, types)
  requireOneOf(where, 'majoritySignMethod', majoritySignMethod, ['total', 'frequency'])
  if (svdRank !== null) requireWhole(where, 'svdRank', svdRank, 1)
  if (svdClamp !== null) requireNumber(where, 'svdClamp', svdClamp, { least: 0 })
  if (svdClamp !== null && svdClamp > 1) throw argumentError(where, 'svdClamp', 'a quantile from 0 to 1', svdClamp)
  const prunes = /ties|dare|magnitude/.test(combinationType)
  if (prunes && (typeof density !== 'number' || !(density > 0 && density <= 1))) {
    throw argumentError(where, 'density', `a number above 0 and up to 1, which '${combinationType}' needs`, density)
  }
  const dora = configs.findIndex(({ useDora }) => useDora)
  if (dora >= 0)
    throw new ConfigError(
      `${where}: expected adapters without DoRA, whose magnitudes cannot be combined, got '${adapters[dora]}'`,
      {},
    )
  const tokens = configs.findIndex(({ trainableTokenIndices }) => trainableTokenIndices !== null)
  if (tokens >= 0) {
    throw new ConfigError(
      `${where}: expected adapters without trainableTokenIndices, whose rows cannot be combined, got '${adapters[tokens]}'`,
      {},
    )
  }
  const ranks = configs.map(({ r, rankPattern }) => Math.max(r, ...Object.values(rankPattern)))
  const settings = { combinationType, svdRank, svdClamp, density, majoritySignMethod }
  if (combinationType === 'cat') return { ...settings, adapters, weights, rank: ranks.reduce((sum, r) => sum + r, 0) }
  if (/svd/.test(combinationType)) return { ...settings, adapters, weights, rank: svdRank ?? Math.max(...ranks) }
  if (ranks.some((r) => r !== ranks[0])) {
    throw new ConfigError(
      `${where}: expected adapters of equal rank for '${combinationType}', got ${ranks.join(', ')}. Use 'cat' or 'svd'`,
      { ranks },
    )
  }
  return { ...settings, adapters, weights, rank: ranks[0] as number }
}

/** Return the configuration of the combination; other settings are those of the first adapter. */
export function configOfCombination(
  configs: readonly ResolvedLoraConfig[],
  { rank }: Combination,
  targetModules: string[],
  modulesToSave: string[],
): ResolvedLoraConfig {
  return {
    ...(configs[0] as ResolvedLoraConfig),
    r: rank,
    loraAlpha: rank,
    useRslora: false,
    initLoraWeights: true,
    targetModules,
    excludeModules: null,
    layersToTransform: null,
    rankPattern: {},
    alphaPattern: {},
    modulesToSave: modulesToSave.length > 0 ? modulesToSave : null,
  }
}

/** Fill the new adapter of a layer, whose scaling is 1, with the combination of the given ones. */
export function combine(layer: LoraLayer, name: string, combination: Combination): void {
  const target = layer.adapters.get(name) as Lora
  const given = combination.adapters.flatMap((adapter, i) => {
    const lora = layer.adapters.get(adapter)
    return lora ? [{ lora, weight: combination.weights[i] as number }] : []
  })
  noGrad(() =>
    scope(() => {
      target.A.zero_()
      target.B.zero_()
      // One path may be the end of another, whose layer has none of these adapters.
      if (given.length === 0) return
      const { A, B } = made(given, combination)
      place(target.A, A)
      place(target.B.transpose(0, 1), B.transpose(0, 1))
    }),
  )
}

interface Pair {
  A: Tensor
  B: Tensor
}

/** Copy values along the rank, the first dimension; the remaining rows stay zero. */
function place(target: Tensor, values: Tensor): void {
  target.narrow(0, 0, values.shape[0] as number).copy_(values)
}

function made(given: { lora: Lora; weight: number }[], combination: Combination): Pair {
  const { combinationType: type } = combination
  if (type === 'cat') {
    return {
      A: cat(
        given.map(({ lora, weight }) => lora.A.mul(weight * lora.scaling)),
        0,
      ),
      B: cat(
        given.map(({ lora }) => lora.B),
        1,
      ),
    }
  }
  const first = given[0]?.lora as Lora
  if (type === 'svd' || type.endsWith('_svd')) {
    const products = given.map(({ lora }) => ops.mm(lora.B.flatten(1), lora.A.flatten(1)).mul(lora.scaling))
    const sum = merged(
      products,
      given.map(({ weight }) => weight),
      combination,
    )
    return cut(sum, first, combination)
  }
  // Apply the sign of a weight to one factor only, or the product would lose it.
  const roots = given.map(({ lora, weight }) => Math.sqrt(Math.abs(weight * lora.scaling)))
  const signed = roots.map(
    (root, i) => root * (Math.sign((given[i]?.weight ?? 0) * (given[i]?.lora.scaling ?? 0)) || 1),
  )
  return {
    A: merged(
      given.map(({ lora }) => lora.A),
      signed,
      combination,
    ),
    B: merged(
      given.map(({ lora }) => lora.B),
      roots,
      combination,
    ),
  }
}

function cut(sum: Tensor, like: Lora, { rank, svdClamp }: Combination): Pair {
  const { U, S, Vh } = ops.linalgSvd(sum, false) as unknown as { U: Tensor; S: Tensor; Vh: Tensor }
  const kept = Math.min(rank, S.shape[0] as number)
  let B = U.narrow(1, 0, kept).mul(S.narrow(0, 0, kept))
  let A = Vh.narrow(0, 0, kept)
  if (svdClamp !== null) {
    const bound = ops.quantile(cat([B.flatten(), A.flatten()]), svdClamp).item() as number
    B = B.clamp(-bound, bound)
    A = A.clamp(-bound, bound)
  }
  return {
    A: A.reshape([kept, ...like.A.shape.slice(1)]),
    B: B.reshape([like.B.shape[0] as number, kept, ...like.B.shape.slice(2)]),
  }
}

/** Return the weighted sum of the values that the method keeps of each adapter. */
function merged(tensors: Tensor[], weights: number[], combination: Combination): Tensor {
  const { combinationType: type, density, majoritySignMethod } = combination
  const left = tensors.map((tensor) => {
    if (density === null || density >= 1 || type === 'svd' || type === 'linear') return tensor
    return type.startsWith('dare') ? randomly(tensor, density) : largest(tensor, density)
  })
  const weighted = left.map((tensor, i) => tensor.mul(weights[i] as number))
  const sum = (all: Tensor[]) => all.reduce((total, tensor) => total.add(tensor))
  if (!type.includes('ties')) return sum(weighted)
  const all = stack(left)
  const votes = (majoritySignMethod === 'total' ? all : all.sign()).sum([0])
  const majority = votes.ge(0).to({ dtype: votes.dtype }).mul(2).sub(1)
  const agrees = all.sign().eq(majority).to({ dtype: votes.dtype })
  return stack(weighted)
    .mul(agrees)
    .sum([0])
    .div(agrees.sum([0]).clamp(1))
}

function largest(tensor: Tensor, density: number): Tensor {
  const flat = tensor.flatten()
  const { indices } = ops.topk(flat.abs(), Math.trunc(density * tensor.numel())) as unknown as { indices: Tensor }
  const mask = flat.mul(0).indexFill(0, indices, 1)
  return flat.mul(mask).reshape(tensor.shape)
}

function randomly(tensor: Tensor, density: number): Tensor {
  return tensor.mul(ops.bernoulli(tensor.mul(0).add(density))).div(density)
}
