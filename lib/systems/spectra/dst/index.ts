export { type DstArguments, parseDstArguments } from './arguments.js'
export {
  type DstBatch,
  type DstCollateOptions,
  DstDataset,
  type DstDatasetOptions,
  type DstSample,
  type DstTurnSample,
  dstCollate,
  readDstAudio,
} from './batch.js'
export {
  DST_CLASS_TYPES,
  type DstClassType,
  type DstConfig,
  readDstConfig,
  SPOKENWOZ_SLOTS,
  spokenWozConfig,
} from './config.js'
export { type DstSplit, type LoadDstSplitOptions, loadDstSplit } from './data.js'
export {
  type DstAudio,
  type DstDialog,
  type DstTurn,
  type DstUtterance,
  type ReadDstDialogsOptions,
  readDstDialogs,
  type SlotValues,
} from './dialog.js'
export { type DstFeatureOptions, type DstFeatures, DstFeaturizer, type DstTokenizer } from './features.js'
export { DstHeads, type DstHeadsOptions, type DstHeadsOutput, type DstLabels, type DstLogits } from './heads.js'
export { type DstExample, type DstExampleOptions, dstExamples } from './labels.js'
export { type DstJudged, type DstScores, dstPredictionRecords, dstScores, dstValueMatches } from './metrics.js'
export { type DstEncoder, type DstEncoderInputs, type DstFusedStates, type DstInputs, SpectraForDst } from './model.js'
export { type ReadDstPickleOptions, readDstExamples, readDstFeatures } from './pickles.js'
export { type DstResult, decodeDst, type TrackDstOptions, trackDst } from './predict.js'
export { DST_TRAINING } from './recipe.js'
export {
  type ReadSpokenWozOptions,
  readSpokenWoz,
  readSpokenWozList,
  SPOKENWOZ_MISLABELLED,
  type SpokenWozReport,
} from './spokenwoz.js'
export { type DstLabelOptions, dstWords, normalizeDstLabel, normalizeDstText, normalizeDstTime } from './text.js'
export { type DstDecodeOptions, type DstPrediction, nextDstState } from './track.js'
export { DstTracker, type DstTrackerOptions, type DstTrackerTurn } from './tracker.js'
export { type DstTrainerOptions, dstTrainer } from './train.js'
export { type TrippyClassScores, type TrippyScores, type TrippySlotScores, trippyScores } from './trippy-metrics.js'
