export {
  type ReadSwiftDatasetOptions,
  readSwiftDataset,
  SwiftDataset,
  type SwiftLength,
} from './data/dataset.js'
export { insertMarkers, type SwiftCause, type SwiftRecord } from './data/entry.js'
export { type WriteSwiftDatasetOptions, writeSwiftDataset } from './data/write.js'
