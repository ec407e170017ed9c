import { argumentError } from '../../base/check.js'
import { ConfigError } from '../../base/errors.js'
import type { Dataset } from '../../data/dataset.js'
import { DataLoader, type DataLoaderOptions } from '../../data/loader.js'
import type { ResolvedArguments } from './arguments.js'
import { type Ranks, requireSharded } from './distributed.js'

/**
 * Batches in an order that the caller defines: a `DataLoader` or an object like it. `setEpoch` sets the epoch of the next
 * iteration and the batch at which it begins. The same epoch must yield the same batches.
 */
export interface BatchSource<B> extends AsyncIterable<B> {
  /** Batches in an epoch; absent, or throws ConfigError, if unknown before iterating. */
  readonly length?: number
  setEpoch(epoch: number, firstBatch?: number): void
}

/** Training data: samples, which the Trainer batches, or batches. */
export type TrainerData<T, B> = readonly T[] | Dataset<T> | URL | BatchSource<B>

/** Length of a sample in any unit. Default: the length of its `inputIds`. */
export type LengthOf<T> = (sample: T) => number

/** Options that turn samples into batches. */
export type Collating<T, B> = Pick<DataLoaderOptions<T, B>, 'collate' | 'collateAhead'>

export interface OpenedData<B> {
  source: BatchSource<B>
  /** Undefined if unknown before iterating. */
  length: number | undefined
  close(): Promise<void>
}

/** Open the training data: its batches, or this rank's part of each. A batch belongs to the scope in which it is requested. */
export function openTraining<T, B>(
  data: TrainerData<T, B>,
  args: ResolvedArguments,
  collating: Collating<T, B>,
  lengthOf: LengthOf<T> | undefined,
  ranks: Ranks,
): Promise<OpenedData<B>> {
  if (ranks.size > 1) requireSharded('trainDataset', data)
  return open(data, {
    ...shared(ranks, args.perDeviceTrainBatchSize),
    shuffle: true,
    seed: args.dataSeed ?? 0,
    dropLast: args.dataloaderDropLast,
    freeBatches: false,
    lengthBuckets: args.groupByLength ? { lengthOf: lengths(data, lengthOf) } : undefined,
    ...workers(args, collating),
  })
}

/** Open the evaluation data: its batches in order, or this rank's part of each. */
export function openEvaluation<T, B>(
  data: TrainerData<T, B>,
  args: ResolvedArguments,
  collating: Collating<T, B>,
  ranks: Ranks,
): Promise<OpenedData<B>> {
  if (ranks.size > 1) requireSharded('evalDataset', data)
  return open(data, { ...shared(ranks, args.perDeviceEvalBatchSize), ...workers(args, collating) })
}

/** Return batches as large as those of one process with `size` times the batch size; each rank reads its part. */
const shared = ({ rank, size }: Ranks, batchSize: number) =>
  size === 1 ? { batchSize } : { batchSize: batchSize * size, shard: { rank, worldSize: size } }

function workers<T, B>(args: ResolvedArguments, collating: Collating<T, B>): DataLoaderOptions<T, B> {
  const { dataloaderNumWorkers: count, dataloaderPrefetchFactor: prefetch } = args
  return { ...collating, ...(count > 0 && { workers: count, prefetch, persistentWorkers: true }) }
}

async function open<T, B>(data: TrainerData<T, B>, options: DataLoaderOptions<T, B>): Promise<OpenedData<B>> {
  if (isSource<B>(data)) return { source: data, length: lengthIfKnown(data), close: async () => {} }
  const loader = new DataLoader<T, B>(data, data instanceof URL ? options : { ...options, workers: 0 })
  await loader.ready()
  return { source: loader, length: lengthIfKnown(loader), close: () => loader.close() }
}

const isSource = <B>(data: unknown): data is BatchSource<B> =>
  typeof (data as BatchSource<B> | null)?.setEpoch === 'function' && Symbol.asyncIterator in (data as object)

function lengthIfKnown(source: BatchSource<unknown>): number | undefined {
  try {
    return source.length
  } catch (error) {
    if (error instanceof ConfigError) return undefined
    throw error
  }
}

function lengths<T, B>(data: TrainerData<T, B>, lengthOf: LengthOf<T> = lengthOfIds): (index: number) => number {
  if (Array.isArray(data)) return (index) => lengthOf(data[index] as T)
  const sized = data as { lengthOf?: (index: number) => number }
  if (typeof sized?.lengthOf === 'function') return (index) => sized.lengthOf?.(index) as number
  throw argumentError(
    'Trainer',
    'trainDataset',
    'an array, a dataset with lengthOf(index), or a DataLoader with lengthBuckets (groupByLength is set)',
    data,
  )
}

function lengthOfIds(sample: unknown): number {
  const ids = (sample as { inputIds?: ArrayLike<number> } | null)?.inputIds
  if (typeof ids?.length === 'number') return ids.length
  throw new ConfigError(
    'TrainingArguments.groupByLength: expected samples with inputIds. Pass lengthOf, which returns the length of a sample',
    {
      argument: 'lengthOf',
    },
  )
}
