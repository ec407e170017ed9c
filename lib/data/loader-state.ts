import { requireObject, shown } from '../base/check.js'
import { ConfigError } from '../base/errors.js'
import type { PlanOptions } from './plan.js'

/** Where a `DataLoader` is: plain data for a checkpoint. */
export interface DataLoaderState {
  /** The epoch of the next batch, and how many of its batches were given. */
  epoch: number
  position: number
  /** Samples left out so far. */
  badRecords: number
  /** The options that the order hangs on: a loader with others refuses the state. */
  order: Record<string, number | boolean | string>
  /** What the sampler gave as its state when the epoch began. */
  sampler?: unknown
}

/** The options that decide which samples come in which batch. The number of workers is not among them. */
export function orderOf(
  options: PlanOptions & { shuffleBuffer?: number },
  length: number | null | undefined,
): DataLoaderState['order'] {
  const { batchSize = 1, shuffle = false, seed = 0, dropLast = false, shuffleBuffer = 0 } = options
  const { lengthBuckets, sampler, batchSampler } = options
  return {
    ...(length !== undefined && { samples: length ?? 'stream' }),
    batchSize,
    shuffle,
    seed,
    dropLast,
    shuffleBuffer,
    lengthBuckets: lengthBuckets ? (lengthBuckets.bucketSize ?? 50 * batchSize) : 'none',
    sampler: batchSampler ? 'batches' : sampler ? 'indices' : 'none',
  }
}

export function refuseOtherOrder(saved: DataLoaderState['order'], mine: DataLoaderState['order']): void {
  requireObject('DataLoader.loadState', 'state.order', saved)
  for (const [key, value] of Object.entries(mine)) {
    // A dataset given as a URL has no number of samples before it is loaded.
    if (key === 'samples' && saved[key] === undefined) continue
    if (saved[key] === value) continue
    throw new ConfigError(
      `DataLoader.loadState: the state is of a loader with ${key} ${shown(saved[key])}, this one has ${shown(value)}: ` +
        'its batches would be others',
      { argument: key },
    )
  }
}
