export {
  type ReadSwiftDatasetOptions,
  readSwiftDataset,
  SwiftDataset,
  type SwiftLength,
} from './data/dataset.js'
export {
  EMOVERSE_WEIGHTS,
  type EmoVerseData,
  type EmoVerseDataOptions,
  type EmoVerseInputs,
  type EmoVerseReport,
  type EmoVerseStage,
  emoverseData,
} from './data/emoverse.js'
export { insertMarkers, type SwiftCause, type SwiftRecord } from './data/entry.js'
export {
  ACTION_UNITS,
  type FaceExpressions,
  type FaceTables,
  type ReadFaceOptions,
  readFaceExpressions,
} from './data/faces.js'
export { type MoseiData, type ReadMoseiOptions, readMosei } from './data/mosei.js'
export type { EmoVerseSource, MoseiSample } from './data/samples.js'
export { type WriteSwiftDatasetOptions, writeSwiftDataset } from './data/write.js'
export {
  ECPE_WORDING,
  type EcpeWording,
  EMOTION_LABELS,
  EMOVERSE_SYSTEM,
  EMOVERSE_TASKS,
  type EmotionNames,
  type EmoVerseTask,
  ecpeWordingOf,
  SENTIMENT_LABELS,
} from './published/wording.js'
