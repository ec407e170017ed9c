// The face of `voxtorch/files`, which also has what is built on the readers.
export {
  decodeAudio,
  decodeImage,
  type LoadDatasetOptions,
  loadDataset,
  type MediaFeature,
  type MediaFeatures,
  type MediaFile,
  type StreamingDataset,
  type StreamingOptions,
} from '../datasets/index.js'
export { readArchive } from './archive.js'
export { type CsvRow, type ReadCsvOptions, readCsv, readCsvStream } from './csv/csv.js'
export type { CsvEncoding } from './csv/text.js'
export {
  CTranslate2File,
  type CTranslate2Variable,
  type LoadCTranslate2Options,
  readCTranslate2,
} from './ctranslate2/ctranslate2.js'
export { GgufFile, type LoadGgufOptions, readGguf } from './gguf/gguf.js'
export type { GgufSaveType, GgufTensor, GgufType, GgufValue, GgufValueType } from './gguf/types.js'
export { type GgufBlocks, type SaveGgufOptions, saveGguf } from './gguf/write.js'
export { readJson, type WriteJsonOptions, writeJson } from './json/json.js'
export { type ReadJsonlOptions, readJsonl, writeJsonl } from './json/jsonl.js'
export { type NpyTexts, type NpyValue, type ReadNpyOptions, readNpy, readNpz, saveNpy, saveNpz } from './npy/npy.js'
export {
  type ParquetHeader,
  type ReadParquetOptions,
  readParquet,
  readParquetHeader,
} from './parquet/parquet.js'
export type { PickleEncoding } from './pickle/machine.js'
export { type ReadPickleOptions, readPickle } from './pickle/read-pickle.js'
export type {
  PickleExtensionResolver,
  PickleNameResolver,
  PicklePersistentResolver,
} from './pickle/resolvers.js'
export type { PickleValue } from './pickle/result.js'
export { LazyTensor } from './pickle/tensors.js'
export { loadSafetensors, readSafetensorsHeader, saveSafetensors } from './safetensors/safetensors.js'
export { type SaveShardedOptions, saveSafetensorsSharded } from './safetensors/sharded.js'
export type {
  LoadSafetensorsOptions,
  SafetensorsEntry,
  SafetensorsFile,
  SafetensorsHeader,
} from './safetensors/types.js'
export type { ArchiveEntry } from './tar.js'
export {
  type ReadTextGridOptions,
  readTextGrid,
  type TextGrid,
  type TextGridInterval,
  type TextGridPoint,
  type TextGridTier,
  writeTextGrid,
} from './textgrid.js'
export { type LoadTorchOptions, loadTorch, loadTorch as load } from './torch/torch.js'
export { save, type TorchValue } from './torch/write.js'
export { type ReadYamlOptions, readConfig, readYaml } from './yaml/yaml.js'
