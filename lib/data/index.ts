export { readArchive } from './archive.js'
export { type CollateField, type CollateValue, type PaddedBatch, padCollate } from './collate.js'
export { readConfig } from './config.js'
export { type CsvRow, type ReadCsvOptions, readCsv, readCsvStream } from './csv.js'
export type { CsvEncoding } from './csv-text.js'
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
export { readJson, type WriteJsonOptions, writeJson } from './json.js'
export { type ReadJsonlOptions, readJsonl, writeJsonl } from './jsonl.js'
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
export { type NpyTexts, type NpyValue, type ReadNpyOptions, readNpy, readNpz, saveNpy, saveNpz } from './npy.js'
export {
  blockDiagonalMask,
  type PackedBatch,
  type PackedBatchOptions,
  PackedBatchSampler,
  type PackOptions,
  packBins,
  packSequences,
} from './pack.js'
export type { PickleEncoding } from './pickle/machine.js'
export { type ReadPickleOptions, readPickle } from './pickle/read-pickle.js'
export type { PickleValue } from './pickle/result.js'
export { LazyTensor } from './pickle/tensors.js'
export type { EpochBatchSampler, EpochSampler, LengthBuckets, PlanOptions, Sampler, Shard } from './plan.js'
export { ProgressBar, type ProgressBarOptions, type ProgressFields, type ProgressStream } from './progress.js'
export { Random } from './random.js'
export { loadSafetensors, readSafetensorsHeader, saveSafetensors } from './safetensors.js'
export { type SaveShardedOptions, saveSafetensorsSharded } from './safetensors-sharded.js'
export type {
  LoadSafetensorsOptions,
  SafetensorsEntry,
  SafetensorsFile,
  SafetensorsHeader,
} from './safetensors-types.js'
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
export type { ArchiveEntry } from './tar.js'
export { type LoadTorchOptions, loadTorch } from './torch-file.js'
export { type ReadYamlOptions, readYaml } from './yaml.js'
