export { type PaddedBatch, padCollate } from './collate.js'
export { BadRecord, type Dataset, type IterableDataset } from './dataset.js'
export {
  ConcatDataset,
  MixtureDataset,
  type MixtureOptions,
  mapDataset,
  mixtureStream,
  randomSplit,
  Subset,
} from './datasets.js'
export { type JsonlDataset, type JsonlDatasetOptions, jsonlDataset, jsonlStream } from './jsonl-dataset.js'
export { DataLoader, type DataLoaderOptions } from './loader.js'
export type { DataLoaderState } from './loader-state.js'
export { blockDiagonalMask, type PackedBatch, PackedBatchSampler, packSequences } from './pack.js'
export type { Sampler } from './plan.js'
export { ProgressBar } from './progress.js'
export { Random } from './random.js'
export {
  BatchSampler,
  RandomSampler,
  type RandomSamplerOptions,
  SequentialSampler,
  type TokenBatchOptions,
  TokenBatchSampler,
  WeightedRandomSampler,
  type WeightedRandomSamplerOptions,
} from './sampler.js'
