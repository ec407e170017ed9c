export { type DstArguments, parseDstArguments } from './arguments.js'
export { type DstBatch, type DstCollateOptions, type DstTurnSample, dstCollate } from './collate.js'
export {
  DST_CLASS_TYPES,
  type DstClassType,
  type DstConfig,
  readDstConfig,
  SPOKENWOZ_SLOTS,
  spokenWozConfig,
} from './config.js'
export { DstDataset, type DstDatasetOptions, type DstSample, readDstAudio } from './dataset.js'
export {
  type DstAudio,
  type DstDialog,
  type DstTurn,
  type DstUtterance,
  type ReadDstDialogsOptions,
  readDstDialogs,
  type SlotValues,
} from './dialog.js'
export { type DstResult, decodeDst, type TrackDstOptions, trackDst } from './evaluate.js'
export { type DstFeatureOptions, type DstFeatures, DstFeaturizer, type DstTokenizer } from './features.js'
export { DstHeads, type DstHeadsOptions, type DstHeadsOutput, type DstLabels, type DstLogits } from './heads.js'
export { type DstExample, type DstExampleOptions, dstExamples } from './labels.js'
export { type DstJudged, type DstScores, dstPredictionRecords, dstScores, dstValueMatches } from './metrics.js'
export {
  type DstEncoder,
  type DstEncoderInputs,
  type DstFusedStates,
  type DstInputs,
  SpectraForDst,
} from './network.js'
export { type DstSplit, type LoadDstSplitOptions, loadDstSplit } from './open.js'
export { type TrippyClassScores, type TrippyScores, type TrippySlotScores, trippyScores } from './published-metrics.js'
export { type ReadDstPickleOptions, readDstExamples, readDstFeatures } from './published-pickles.js'
export {
  type ReadSpokenWozOptions,
  readSpokenWoz,
  readSpokenWozList,
  SPOKENWOZ_MISLABELLED,
  type SpokenWozReport,
} from './published-spokenwoz.js'
export { DST_TRAINING } from './recipe.js'
export { type DstDecodeOptions, type DstPrediction, nextDstState } from './state.js'
export { type DstLabelOptions, dstWords, normalizeDstLabel, normalizeDstText, normalizeDstTime } from './text.js'
export { DstTracker, type DstTrackerOptions, type DstTrackerTurn } from './tracker.js'
export { type DstTrainerOptions, dstTrainer } from './train.js'
