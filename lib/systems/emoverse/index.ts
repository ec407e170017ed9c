export { type FindCausesOptions, type FoundCauses, findCauses } from './answer/causes.js'
export { EmoVerseChat, type EmoVerseChatSettings } from './answer/chat.js'
export { type InferEmoVerseOptions, type InferredEmoVerse, inferEmoVerse } from './answer/infer.js'
export { readEmoVerseStage } from './configuration/apply.js'
export { type EmoVerseBatch, type EmoVerseSampleTokens, emoverseCollate } from './data/collate.js'
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
export { type EmoVerseQuestion, insertMarkers, type SwiftCause, type SwiftRecord } from './data/entry.js'
export {
  ACTION_UNITS,
  type FaceExpressions,
  type FaceTables,
  type ReadFaceOptions,
  readFaceExpressions,
} from './data/faces.js'
export type { EmoVerseAudio, EmoVerseLook, EmoVerseVideo, MediaPlace } from './data/media.js'
export { type MoseiData, type ReadMoseiOptions, readMosei } from './data/mosei.js'
export type { EmoVerseRecords } from './data/open.js'
export { taskOf } from './data/prompt.js'
export type { EmoVerseSource, MoseiSample } from './data/samples.js'
export { type WriteSwiftDatasetOptions, writeSwiftDataset } from './data/write.js'
export { type MosiMetrics, mosiMetrics } from './evaluation/metrics.js'
export { emoverseScoresPage } from './evaluation/page.js'
export { type EmoVerseResult, readResults } from './evaluation/results.js'
export type { CauseScores, ClassScores, LabelScores } from './evaluation/robust.js'
export {
  type EmoVerseScores,
  type NumberScores,
  type RobustTaskScores,
  type ScoredTask,
  type ScoreEmoVerseOptions,
  type StrictTable,
  scoreEmoVerse,
} from './evaluation/score.js'
export type { PythonFault, StrictScores, StrictVariant } from './evaluation/strict.js'
export type { LabelThresholds } from './evaluation/thresholds.js'
export type {
  EmoVerseAnswer,
  EmoVerseGenerateOptions,
  EmoVersePiece,
  EmoVerseStreamOptions,
} from './network/answers.js'
export type { EmoVerseStages, LoadEmoVerseOptions, NewEmoVerseOptions } from './network/files.js'
export type { PromptLimits } from './network/limits.js'
export {
  EmoVerse,
  type EmoVerseLengthOptions,
  type EmoVerseParts,
  type EncodeEmoVerseOptions,
} from './network/network.js'
export type { EmoVerseScoreOptions } from './network/probabilities.js'
export { type EmoVerseSpeech, type NewSpeechBranch, SpeechBranch } from './network/speech.js'
export type { EmoVerseImage, EmoVerseVisionOptions } from './network/vision.js'
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
export type { ProjectorTraining, SpeechTraining } from './training/adapter.js'
export { emoverseLoss } from './training/loss.js'
export { EMOVERSE_RECIPE, type EmoVerseRecipe, emoverseRecipe } from './training/recipe.js'
export type { TaskLogEntry, TaskNumbers } from './training/tally.js'
export {
  type EmoVerseMeasured,
  type EmoVerseResults,
  type EmoVerseStageOptions,
  type EmoVerseStageResults,
  type TrainEmoVerseOptions,
  trainEmoVerse,
} from './training/train.js'
