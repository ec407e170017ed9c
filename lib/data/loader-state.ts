import { requireObject, shown } from '../base/check.js'
import { ConfigError } from '../base/errors.js'
import type { StreamOrder } from './dataset.js'
import type { PlanOptions } from './plan.js'
import type { StreamPosition } from './stream-batches.js'

/** Position of a `DataLoader`: plain data for a checkpoint. */
export interface DataLoaderState {
  /** Epoch of the next batch, and number of its batches that were returned. */
  epoch: number
  position: number
  /** Position in a stream: number of its samples that were drawn, and its length if its end was read. */
  records?: StreamPosition
  /** Number of samples left out so far. */
  badRecords: number
  /** Options that determine the order: a loader with other options rejects the state. */
  order: Record<string, number | boolean | string>
  /** State of the sampler when the epoch began. */
  sampler?: unknown
}

/**
 * Return the options, and the values of a stream, that determine which samples come in which batch. The number of workers is not
 * among them.
 */
export function orderOf(
  options: PlanOptions & { shuffleBuffer?: number },
  length: number | null | undefined,
  stream?: StreamOrder,
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
    ...Object.fromEntries(Object.entries(stream ?? {}).map(([name, value]) => [DATASET + name, value])),
  }
}

/** Prefix of the values that a stream states. */
const DATASET = 'dataset.'

export function refuseOtherOrder(saved: DataLoaderState['order'], mine: DataLoaderState['order']): void {
  requireObject('DataLoader.loadState', 'state.order', saved)
  const isLoaded = saved.samples !== undefined && mine.samples !== undefined
  const others = Object.keys(saved).filter((key) => key.startsWith(DATASET))
  for (const key of new Set([...Object.keys(mine), ...others])) {
    // A dataset given as a URL is unknown before it is loaded.
    if ((key === 'samples' || key.startsWith(DATASET)) && !isLoaded) continue
    const value = mine[key]
    if (saved[key] === value) continue
    throw new ConfigError(
      `DataLoader.loadState: expected a state with ${key} ${shown(value)}, as in this loader, got ${shown(saved[key])}: ` +
        'its batches would differ',
      { argument: key },
    )
  }
}
