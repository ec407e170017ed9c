// What `voxtorch` is: tensors, layers, networks, data, training, generation, audio and text. What belongs to one system, to
// serving or to reading files has a subpath of its own.
export * from './audio/index.js'
export * from './base/errors.js'
export * from './data/index.js'
export * from './distributed/index.js'
export {
  type CsvRow,
  GgufFile,
  LazyTensor,
  type LoadGgufOptions,
  type LoadSafetensorsOptions,
  type LoadTorchOptions,
  loadSafetensors,
  loadTorch,
  type PickleValue,
  type ReadCsvOptions,
  type ReadJsonlOptions,
  type ReadPickleOptions,
  readCsv,
  readGguf,
  readJson,
  readJsonl,
  readPickle,
  type SafetensorsFile,
  type SaveGgufOptions,
  saveGguf,
  saveSafetensors,
  type WriteJsonOptions,
  writeJson,
  writeJsonl,
} from './files/index.js'
export * from './generation/index.js'
export * from './hub/index.js'
export * from './models/index.js'
export * from './nn/index.js'
export * from './peft/index.js'
export * from './pipeline/index.js'
export { Salmonn, type SalmonnConfig } from './systems/salmonn/index.js'
export {
  Spectra,
  type SpectraConfig,
  SpectraForDst,
  SpectraForPreTraining,
  SpectraForSequenceClassification,
} from './systems/spectra/index.js'
export * from './tensor/index.js'
export * from './text/index.js'
export * from './train/index.js'
export * from './vision/index.js'
