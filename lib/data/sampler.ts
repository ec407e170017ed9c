import { argumentError, elementsOf, isArrayLike, requireOptions, requireWhole } from '../base/check.js'
import { ConfigError } from '../base/errors.js'
import { type ChangesOf, settings, unchecked, type ValuesOf } from '../base/settings.js'
import { type EpochBatchSampler, type EpochSampler, indicesOf, requireSampler, type Sampler } from './plan.js'
import { indicesBelow, Random } from './random.js'

/** Number of samples, or an object with a length. */
export type Sized = number | { readonly length: number }

function sizeOf(where: string, sized: Sized): number {
  const length = typeof sized === 'number' ? sized : (sized as { length?: number } | null | undefined)?.length
  requireWhole(where, 'the number of samples', length)
  return length as number
}

/** Sampler of 0, 1, 2, … */
export class SequentialSampler implements EpochSampler {
  readonly length: number

  constructor(dataset: Sized) {
    this.length = sizeOf('SequentialSampler', dataset)
  }

  *indices(): Generator<number> {
    for (let i = 0; i < this.length; i++) yield i
  }
}

const RANDOM = settings({
  /** Draw with replacement. Default false: a new permutation each epoch. */
  replacement: { type: 'boolean', default: false },
  /** Number of indices in an epoch. Default: the number of samples; without replacement, permutations follow each other. */
  numSamples: { type: 'integer' },
  /** Seed of the order. Default 0. */
  seed: { type: 'integer', default: 0 },
})

/** Options of a {@link RandomSampler}. @interface */
export type RandomSamplerOptions = ChangesOf<typeof RANDOM.table>

/** Maximum length of a permutation, which is stored with 32 bits per index. */
const MAX_SHUFFLED = 2 ** 32 - 1

/** Sampler of random indices; the same seed and epoch give the same order. */
export class RandomSampler implements EpochSampler {
  readonly length: number
  readonly #size: number
  readonly #replacement: boolean
  readonly #seed: number

  constructor(dataset: Sized, options: RandomSamplerOptions = {}) {
    const values = RANDOM.read('RandomSampler', options)
    this.#size = sizeOf('RandomSampler', dataset)
    const { replacement, numSamples = this.#size, seed } = values
    if (this.#size === 0 && numSamples > 0) {
      throw argumentError('RandomSampler', 'numSamples', '0 without samples', numSamples)
    }
    if (!replacement && this.#size > MAX_SHUFFLED) {
      throw argumentError(
        'RandomSampler',
        'the number of samples',
        `at most ${MAX_SHUFFLED} without replacement`,
        this.#size,
      )
    }
    this.length = numSamples
    this.#replacement = replacement
    this.#seed = seed
  }

  *indices(epoch: number): Generator<number> {
    const random = new Random(this.#seed, epoch)
    if (this.#replacement) {
      for (let i = 0; i < this.length; i++) yield random.below(this.#size)
      return
    }
    for (let given = 0; given < this.length; given += this.#size) {
      const order = random.shuffle(indicesBelow('RandomSampler', this.#size))
      yield* order.subarray(0, this.length - given)
    }
  }
}

export interface WeightedRandomSamplerOptions {
  /** Draw with replacement. Default true; without it no index repeats. */
  replacement?: boolean
  /** Seed of the order. Default 0. */
  seed?: number
}

/**
 * Sampler of indices with probabilities proportional to `weights`: with weights 1 / (samples of the class), rare classes come
 * as often as frequent ones. Without replacement each draw is proportional to the remaining weights (Efraimidis and Spirakis
 * 2006), and an index of weight 0 never comes.
 */
export class WeightedRandomSampler implements EpochSampler {
  readonly length: number
  readonly #weights: Float64Array
  readonly #replacement: boolean
  readonly #seed: number

  constructor(weights: ArrayLike<number>, numSamples: number, options: WeightedRandomSamplerOptions = {}) {
    const where = 'WeightedRandomSampler'
    requireOptions(where, options, ['replacement', 'seed'])
    const { replacement = true, seed = 0 } = options
    if (!isArrayLike(weights)) throw argumentError(where, 'weights', 'a list of numbers', weights)
    requireWhole(where, 'numSamples', numSamples)
    requireWhole(where, 'seed', seed)
    if (typeof replacement !== 'boolean') throw argumentError(where, 'replacement', 'a boolean', replacement)
    const list = elementsOf(where, 'weights', weights, (weight, i) => {
      if (typeof weight === 'number' && weight >= 0 && weight < Infinity) return weight
      throw argumentError(where, `weights[${i}]`, 'a finite number of at least 0', weight)
    })
    this.#weights = Float64Array.from(list)
    const possible = this.#weights.reduce((count, weight) => count + Number(weight > 0), 0)
    const sum = this.#weights.reduce((total, weight) => total + weight, 0)
    if (numSamples > 0 && (possible === 0 || sum === Number.POSITIVE_INFINITY)) {
      throw new ConfigError(`${where}: expected a finite sum of the weights above 0, got ${sum}`, { sum })
    }
    if (!replacement && numSamples > possible) {
      throw argumentError(
        where,
        'numSamples',
        `at most the ${possible} weights above 0, without replacement`,
        numSamples,
      )
    }
    this.length = numSamples
    this.#replacement = replacement
    this.#seed = seed
  }

  *indices(epoch: number): Generator<number> {
    const random = new Random(this.#seed, epoch)
    const weights = this.#weights
    if (!this.#replacement) {
      // Each index gets an exponentially distributed time with its weight as the rate; the earliest ones are drawn.
      const times = weights.map((weight) => (weight > 0 ? -Math.log(1 - fine(random)) / weight : Infinity))
      const order = Uint32Array.from(weights, (_, i) => i).sort((a, b) => (times[a]! < times[b]! ? -1 : 1))
      yield* order.subarray(0, this.length)
      return
    }
    const sums = new Float64Array(weights.length)
    let sum = 0
    let last = 0
    weights.forEach((weight, i) => {
      sum += weight
      sums[i] = sum
      if (weight > 0) last = i
    })
    for (let i = 0; i < this.length; i++) yield Math.min(firstAbove(sums, fine(random) * sum), last)
  }
}

/** Return a uniform number in [0, 1) with 53 random bits. */
const fine = (random: Random): number => ((random.uint32() >>> 5) * 2 ** 26 + (random.uint32() >>> 6)) / 2 ** 53

/** Return the first index whose value is above `value`, in an ascending array. */
function firstAbove(values: Float64Array, value: number): number {
  let low = 0
  let high = values.length
  while (low < high) {
    const middle = (low + high) >>> 1
    if (values[middle]! > value) high = middle
    else low = middle + 1
  }
  return low
}

/** Groups a sampler's indices into batches of `batchSize`: for a loader's `batchSampler`, or as a part of one. */
export class BatchSampler implements EpochBatchSampler {
  readonly #sampler: Sampler
  readonly #batchSize: number
  readonly #dropLast: boolean

  constructor(sampler: Sampler, options: { batchSize: number; dropLast?: boolean }) {
    requireOptions('BatchSampler', options, ['batchSize', 'dropLast'])
    const { batchSize, dropLast = false } = options
    requireWhole('BatchSampler', 'batchSize', batchSize, 1)
    requireSampler('BatchSampler', sampler)
    if (typeof dropLast !== 'boolean') throw argumentError('BatchSampler', 'dropLast', 'a boolean', dropLast)
    this.#sampler = sampler
    this.#batchSize = batchSize
    this.#dropLast = dropLast
  }

  get length(): number | undefined {
    if (typeof this.#sampler === 'function') return undefined
    const { length } = this.#sampler as { length?: unknown }
    if (typeof length !== 'number') return undefined
    return this.#dropLast ? Math.floor(length / this.#batchSize) : Math.ceil(length / this.#batchSize)
  }

  *batches(epoch: number): Generator<number[]> {
    let batch: number[] = []
    for (const index of indicesOf('BatchSampler', this.#sampler, epoch)) {
      batch.push(index)
      if (batch.length < this.#batchSize) continue
      yield batch
      batch = []
    }
    if (batch.length > 0 && !this.#dropLast) yield batch
  }
}

const TOKENS = settings({
  /** Length of every sample, in tokens or frames. */
  lengths: { type: unchecked<ArrayLike<number>>(), required: true },
  /** Maximum padded size of a batch: its longest sample times its number of samples. */
  maxTokens: { type: 'integer', min: 1, required: true },
  /** Maximum number of samples in a batch. Default: unlimited. */
  maxSamples: { type: 'integer', min: 1, default: Number.MAX_SAFE_INTEGER },
  /**
   * Shuffle samples of equal length, and the order of the batches, each epoch. Default false: from the shortest to the longest.
   */
  shuffle: { type: 'boolean', default: false },
  /** Seed of the order. Default 0. */
  seed: { type: 'integer', default: 0 },
})

/** Options of a {@link TokenBatchSampler}. @interface */
export type TokenBatchOptions = ChangesOf<typeof TOKENS.table>

/**
 * Sampler of batches of similar length, as many samples as fit into `maxTokens` with padding. The number of batches is the same
 * each epoch.
 * @throws ConfigError if a single sample is longer than `maxTokens`
 */
export class TokenBatchSampler implements EpochBatchSampler {
  readonly #lengths: readonly number[]
  readonly #options: ValuesOf<typeof TOKENS.table>

  constructor(options: TokenBatchOptions) {
    const where = 'TokenBatchSampler'
    this.#options = TOKENS.read(where, options)
    const { lengths, maxTokens } = this.#options
    this.#lengths = checkedLengths(where, lengths, maxTokens, 'maxTokens')
  }

  get length(): number {
    return this.#cuts(this.#order(0)).length
  }

  *batches(epoch: number): Generator<number[]> {
    const order = this.#order(epoch)
    const cuts = this.#cuts(order)
    const places = Uint32Array.from(cuts, (_, i) => i)
    if (this.#options.shuffle) new Random(this.#options.seed, epoch).shuffle(places)
    for (const place of places) yield [...order.subarray(place === 0 ? 0 : cuts[place - 1], cuts[place])]
  }

  /** Return the order from the shortest to the longest sample; with `shuffle`, samples of equal length in random order. */
  #order(epoch: number): Uint32Array {
    const order = Uint32Array.from(this.#lengths, (_, i) => i)
    if (this.#options.shuffle) new Random(this.#options.seed, epoch).shuffle(order)
    return order.sort((a, b) => this.#lengths[a]! - this.#lengths[b]!)
  }

  /** Return the ends of the batches. */
  #cuts(order: Uint32Array): number[] {
    const { maxTokens, maxSamples } = this.#options
    const cuts: number[] = []
    let start = 0
    order.forEach((index, i) => {
      const count = i - start + 1
      if (count === 1 || (count <= maxSamples && this.#lengths[index]! * count <= maxTokens)) return
      cuts.push(i)
      start = i
    })
    if (order.length > 0) cuts.push(order.length)
    return cuts
  }
}

/** Check lengths: integers of at least 1 and at most `most`. */
export function checkedLengths(where: string, lengths: ArrayLike<number>, most: number, name: string): number[] {
  if (!isArrayLike(lengths)) throw argumentError(where, 'lengths', 'a list of numbers', lengths)
  const list = elementsOf(where, 'lengths', lengths, (length, i) => {
    requireWhole(where, `lengths[${i}]`, length)
    return length as number
  })
  const long = list.findIndex((length) => length > most)
  if (long >= 0) {
    throw new ConfigError(
      `${where}: expected lengths of at most ${most} (${name}), got ${list[long]} for sample ${long}. Leave it out or truncate it`,
      { index: long, length: list[long] },
    )
  }
  return list
}
