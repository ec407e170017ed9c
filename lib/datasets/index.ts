export {
  decodeAudio,
  decodeImage,
  type MediaFeature,
  type MediaFeatures,
  type MediaFile,
} from './features.js'
export { type LoadDatasetOptions, loadDataset } from './load-dataset.js'
export { StreamingDataset, type StreamingOptions } from './streaming-dataset.js'
