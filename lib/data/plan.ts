import {
  argumentError,
  fieldOf,
  listOf,
  requireFunction,
  requireObject,
  requireOptions,
  requireWhole,
  shown,
} from '../base/check.js'
import { ConfigError, DataError } from '../base/errors.js'
import { indicesBelow, Random } from './random.js'

/** Sampler whose order depends on the epoch. */
export interface EpochSampler {
  /** Number of indices in an epoch, if known. */
  readonly length?: number | undefined
  indices(epoch: number): Iterable<number>
  /** Return the sampler's state besides the epoch as plain data; called before `indices`. */
  state?(): unknown
  loadState?(state: never): void
}

/**
 * Order of the indices: a list, a function that returns the indices of one epoch, or an object that does. On an iterable with
 * `setEpoch`, like PyTorch's samplers, `setEpoch` is called first.
 */
export type Sampler =
  | (Iterable<number> & { setEpoch?(epoch: number): void })
  | ((epoch: number) => Iterable<number>)
  | EpochSampler

/** Sampler of batches of one epoch, as lists of indices. */
export interface EpochBatchSampler {
  readonly length?: number | undefined
  batches(epoch: number): Iterable<readonly number[]>
  state?(): unknown
  loadState?(state: never): void
}

/** Groups samples of similar length into batches, to reduce padding. */
export interface LengthBuckets {
  /** Length of a sample in any unit, by index: an array, or a cheap function. */
  lengthOf: ArrayLike<number> | ((index: number) => number)
  /**
   * Number of samples sorted together; a multiple of `batchSize`. Larger values pad less, smaller ones mix better. Default 50
   * batches.
   */
  bucketSize?: number
}

export interface PlanOptions {
  /** Number of samples in a batch. Default 1. */
  batchSize?: number
  /** Shuffle in a new order each epoch. Default false. */
  shuffle?: boolean
  /** Seed of the order of every epoch. Default 0. */
  seed?: number
  /** Drop a last batch that is not full. Default false. */
  dropLast?: boolean
  lengthBuckets?: LengthBuckets
  /** Order of the samples, instead of `shuffle`; indices may repeat or be left out. */
  sampler?: Sampler
  /** Sampler of batches, instead of `batchSize`, `shuffle`, `sampler`, `dropLast` and `lengthBuckets`. */
  batchSampler?: EpochBatchSampler
  /** Return only one rank's part of each batch. Default: all of it. */
  shard?: Shard
}

/**
 * Rank of one of several processes that divide each batch: it gets the samples `rank`, `rank + worldSize`, … of it. Batches,
 * and `batchSize`, are those of a single process, so no sample is repeated or left out. If a batch has fewer samples than
 * ranks, some ranks get an empty array instead of the result of `collate`, so that all ranks have equally many batches.
 */
export interface Shard {
  rank: number
  worldSize: number
}

export function checkPlan(options: PlanOptions): void {
  const { batchSize = 1, seed = 0, lengthBuckets, sampler, shuffle, batchSampler } = options
  requireWhole(WHERE, 'batchSize', batchSize, 1)
  requireWhole(WHERE, 'seed', seed)
  if (sampler !== undefined) requireSampler(WHERE, sampler)
  if (batchSampler !== undefined) {
    requireObject(WHERE, 'batchSampler', batchSampler)
    requireFunction(WHERE, 'batchSampler.batches', batchSampler.batches)
    const other = (['batchSize', 'shuffle', 'sampler', 'dropLast', 'lengthBuckets'] as const).find(
      (key) => options[key],
    )
    if (other) throw new ConfigError(`DataLoader: expected batchSampler or ${other}, got both`, { argument: other })
  }
  if (options.shard !== undefined) checkShard(options.shard, batchSampler ? undefined : batchSize)
  if (sampler && shuffle) {
    throw new ConfigError('DataLoader: expected sampler or shuffle, got both. Shuffle inside the sampler', {})
  }
  if (lengthBuckets === undefined) return
  requireObject(WHERE, 'lengthBuckets', lengthBuckets)
  requireOptions('DataLoader.lengthBuckets', lengthBuckets, ['lengthOf', 'bucketSize'])
  const { lengthOf, bucketSize = batchSize } = lengthBuckets
  if (typeof lengthOf !== 'function' && typeof fieldOf(lengthOf, 'length') !== 'number') {
    throw argumentError(WHERE, 'lengthBuckets.lengthOf', 'a function or an array', lengthOf)
  }
  requireWhole(WHERE, 'lengthBuckets.bucketSize', bucketSize, 1)
  if (bucketSize % batchSize !== 0) {
    throw argumentError(WHERE, 'lengthBuckets.bucketSize', `a multiple of batchSize ${batchSize}`, bucketSize)
  }
}

function checkShard(shard: Shard, batchSize: number | undefined): void {
  requireObject(WHERE, 'shard', shard)
  requireOptions('DataLoader.shard', shard, ['rank', 'worldSize'])
  const { rank, worldSize } = shard
  requireWhole(WHERE, 'shard.worldSize', worldSize, 1)
  requireWhole(WHERE, 'shard.rank', rank)
  if (rank >= worldSize) throw argumentError(WHERE, 'shard.rank', `below its worldSize ${worldSize}`, rank)
  if (batchSize !== undefined && batchSize % worldSize !== 0) {
    throw argumentError(
      WHERE,
      'batchSize',
      `a multiple of shard.worldSize ${worldSize}, since it counts the samples of all ranks`,
      batchSize,
    )
  }
}

/** Return a shard's part of a batch. */
export const shareOf = <T>(batch: T[], { rank, worldSize }: Shard = { rank: 0, worldSize: 1 }): T[] =>
  worldSize === 1 ? batch : batch.filter((_, i) => i % worldSize === rank)

const WHERE = 'DataLoader'

/** Maximum number of indices in one batch. A longer list would make V8 end the process. */
const MOST_AT_ONCE = 2 ** 26

const isIterable = (value: unknown): value is Iterable<number> => typeof fieldOf(value, Symbol.iterator) === 'function'

/** Return the number of batches in an epoch, or undefined if it is unknown before running the sampler. */
export function countBatches(length: number, options: PlanOptions): number | undefined {
  const { batchSize = 1, dropLast = false, sampler, batchSampler } = options
  if (batchSampler) return typeof batchSampler.length === 'number' ? batchSampler.length : undefined
  const known = sampler as { length?: unknown; size?: unknown } | undefined
  const samples = !known ? length : typeof known === 'function' ? undefined : (known.length ?? known.size)
  if (typeof samples !== 'number') return undefined
  return dropLast ? Math.floor(samples / batchSize) : Math.ceil(samples / batchSize)
}

/** Yield the batches of one epoch as lists of indices. They depend only on (length, options, epoch). */
export function* planBatches(length: number, options: PlanOptions, epoch: number): Generator<number[]> {
  for (const batch of wholeBatches(length, options, epoch)) yield shareOf(batch, options.shard)
}

function* wholeBatches(length: number, options: PlanOptions, epoch: number): Generator<number[]> {
  const { batchSize = 1, dropLast = false, shuffle = false, seed = 0, lengthBuckets, sampler, batchSampler } = options
  if (batchSampler) {
    for (const batch of batchSampler.batches(epoch)) {
      yield checked(listOf(WHERE, "the batchSampler's batch", batch, 'indices'), length)
    }
    return
  }
  if (Math.min(batchSize, length) > MOST_AT_ONCE)
    throw argumentError(WHERE, 'batchSize', `at most ${MOST_AT_ONCE}`, batchSize)
  if (!sampler && !shuffle && !lengthBuckets) {
    // Do not build a list of all indices: a computed dataset may have any length.
    for (let at = 0; at < length; at += batchSize) {
      const size = Math.min(batchSize, length - at)
      if (size < batchSize && dropLast) return
      yield Array.from({ length: size }, (_, i) => at + i)
    }
    return
  }
  const random = new Random(seed, epoch)
  let order = sampler ? sampled(sampler, length, epoch) : indicesBelow(WHERE, length)
  if (shuffle) random.shuffle(order)
  if (lengthBuckets) order = bucketed(order, lengthBuckets, batchSize)
  const count = dropLast ? Math.floor(order.length / batchSize) : Math.ceil(order.length / batchSize)
  const batches = Uint32Array.from({ length: count }, (_, i) => i)
  // Each bucket ends with its short batches, so shuffle the batches again.
  if (shuffle && lengthBuckets) random.shuffle(batches)
  for (const batch of batches) yield [...order.subarray(batch * batchSize, (batch + 1) * batchSize)]
}

function sampled(sampler: Sampler, length: number, epoch: number): Uint32Array {
  return Uint32Array.from(checked(indicesOf(WHERE, sampler, epoch), length))
}

export function requireSampler(where: string, sampler: Sampler): void {
  const known = isIterable(sampler) || typeof fieldOf(sampler, 'indices') === 'function'
  if (typeof sampler === 'string' || !known) requireFunction(where, 'sampler', sampler)
}

/** Return a sampler's indices for an epoch. */
export function indicesOf(where: string, sampler: Sampler, epoch: number): number[] {
  if (typeof sampler !== 'function' && 'setEpoch' in sampler) sampler.setEpoch?.(epoch)
  const given = typeof sampler === 'function' ? sampler(epoch) : isIterable(sampler) ? sampler : sampler.indices(epoch)
  return listOf(where, "the sampler's result", given, 'indices')
}

function checked(indices: number[], length: number): number[] {
  for (const index of indices) {
    if (!Number.isInteger(index) || index < 0 || index >= length) {
      throw new DataError(
        `DataLoader: expected indices from 0 to ${length - 1} from the sampler, got ${shown(index)}`,
        {
          index,
          length,
        },
      )
    }
  }
  return indices
}

function bucketed(order: Uint32Array, { lengthOf, bucketSize }: LengthBuckets, batchSize: number): Uint32Array {
  const size = bucketSize ?? 50 * batchSize
  const result = new Uint32Array(order.length)
  for (let start = 0; start < order.length; start += size) {
    const bucket = [...order.subarray(start, start + size)].map((index) => ({
      index,
      length: lengthAt(lengthOf, index),
    }))
    // The sort is stable: samples of equal length keep their shuffled order.
    bucket.sort((a, b) => a.length - b.length)
    result.set(
      bucket.map(({ index }) => index),
      start,
    )
  }
  return result
}

function lengthAt(lengthOf: LengthBuckets['lengthOf'], index: number): number {
  const length = typeof lengthOf === 'function' ? lengthOf(index) : lengthOf[index]
  if (typeof length !== 'number' || Number.isNaN(length)) {
    throw new DataError(
      `DataLoader.lengthBuckets.lengthOf: expected a number for sample ${index}, got ${shown(length)}`,
      {
        index,
      },
    )
  }
  return length
}
