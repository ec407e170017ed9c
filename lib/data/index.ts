export { type CollateField, type CollateValue, type PaddedBatch, padCollate } from './collate.js'
export {
  type AnyDataset,
  BadRecord,
  type Dataset,
  type DatasetExport,
  type DatasetModule,
  type IterableDataset,
  type StreamContext,
} from './dataset.js'
export {
  ConcatDataset,
  MixtureDataset,
  type MixtureOptions,
  type MixturePart,
  mapDataset,
  mixtureStream,
  randomSplit,
  type Samples,
  Subset,
} from './datasets.js'
export {
  type JsonlDataset,
  type JsonlDatasetOptions,
  type JsonlIndex,
  type JsonlStream,
  jsonlDataset,
  jsonlStream,
} from './jsonl-dataset.js'
export { DataLoader, type DataLoaderOptions } from './loader.js'
export type { DataLoaderState } from './loader-state.js'
export {
  blockDiagonalMask,
  type PackedBatch,
  type PackedBatchOptions,
  PackedBatchSampler,
  type PackOptions,
  packBins,
  packSequences,
} from './pack.js'
export type { EpochBatchSampler, EpochSampler, LengthBuckets, PlanOptions, Sampler, Shard } from './plan.js'
export { ProgressBar, type ProgressBarOptions, type ProgressFields, type ProgressStream } from './progress.js'
export { Random } from './random.js'
export {
  BatchSampler,
  RandomSampler,
  type RandomSamplerOptions,
  SequentialSampler,
  type Sized,
  type TokenBatchOptions,
  TokenBatchSampler,
  WeightedRandomSampler,
  type WeightedRandomSamplerOptions,
} from './sampler.js'
