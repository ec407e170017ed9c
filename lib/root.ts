// What `voxtorch` is: tensors, layers, networks, data, training, generation, audio and text. What belongs to one system, to
// serving or to reading files has a subpath of its own.
export * from './audio/index.js'
export * from './base/errors.js'
export * from './data/index.js'
export * from './distributed/index.js'
export * as distributions from './distributions/index.js'
export {
  load,
  loadSafetensors,
  loadTorch,
  type ReadJsonlOptions,
  readGguf,
  readJson,
  readJsonl,
  readPickle,
  save,
  saveSafetensors,
  type WriteJsonOptions,
  writeJson,
  writeJsonl,
} from './files/index.js'
export * as func from './func/index.js'
export * from './generation/index.js'
export * from './hub/index.js'
export * from './models/index.js'
export * from './nn/index.js'
export * from './peft/index.js'
export * from './pipeline/index.js'
export { Salmonn } from './systems/salmonn/index.js'
export { Spectra } from './systems/spectra/index.js'
export * from './tensor/index.js'
export * from './text/index.js'
export * from './train/index.js'
export * from './vision/index.js'
