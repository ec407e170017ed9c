export type { OnBadRecord } from '../../kit/records.js'
export { UsdmChat, type UsdmChatSettings } from './answer/chat.js'
export { type PreviewPart, previewPage, previewParts, previewText } from './answer/preview.js'
export { type UsdmArguments, unitExtractorOfArguments, usdmTokenizerOfArguments } from './configuration/apply.js'
export type { UsdmExamples } from './data/dataset.js'
export type { UsdmDialog, UsdmDialogs, UsdmSpokenTurn } from './data/dialogs.js'
export { readUsdmExamples, writeUsdmExamples } from './data/examples.js'
export { type FrameUnitsOptions, frameUnits, unitFrames } from './data/frames.js'
export {
  type PreprocessDailyTalkOptions,
  type PreprocessedFile,
  type PreprocessUsdmJsonlOptions,
  preprocessDailyTalk,
  preprocessUsdmJsonl,
  type UnitSource,
  type UsdmExampleOptions,
  type UsdmExampleReport,
  usdmExamples,
} from './data/preprocess.js'
export {
  USDM_INSTRUCTION,
  type UsdmExample,
  type UsdmPromptInput,
  type UsdmTurn,
  type UsdmUtterance,
  usdmExample,
  usdmLabels,
  usdmPrompt,
} from './data/prompt.js'
export { type ReadUsdmJsonlOptions, readUsdmJsonl, type UsdmJsonlDialogs, type UsdmRecord } from './data/record.js'
export {
  USDM_MAX_LENGTH,
  USDM_UNITS,
  type UsdmIds,
  type UsdmPiece,
  UsdmTokenizer,
  type UsdmTokenizerOptions,
} from './data/text.js'
export { type ScoredUsdm, type ScoreUsdmOptions, scoreUsdm } from './evaluation/evaluate.js'
export { type UsdmLosses, usdmLosses } from './evaluation/losses.js'
export { type UsdmScores, usdmScores } from './evaluation/metrics.js'
export { type AnswersSpeech, type PredictUsdmOptions, predictUsdm } from './evaluation/predict.js'
export {
  readUsdmPredictions,
  type UsdmPrediction,
  type UsdmPredictions,
  writeUsdmPredictions,
} from './evaluation/predictions.js'
export { UsdmCache } from './network/cache.js'
export type { LoadUsdmOptions, UsdmSource } from './network/files.js'
export { Usdm } from './network/network.js'
export type {
  UsdmEvent,
  UsdmParts,
  UsdmQuestion,
  UsdmReply,
  UsdmRespondOptions,
  UsdmStreamOptions,
  UsdmVoiceOptions,
} from './network/options.js'
export type { UsdmFinish, UsdmSampling } from './network/passes.js'
export {
  GriffinLimVocoder,
  type UsdmSpeaking,
  type UsdmVocoder,
  UsdmVoice,
  type UsdmVoicebox,
} from './network/speech.js'
export { type AlignedUstm, type AlignUstmOptions, alignUstm } from './pretraining/align.js'
export {
  type Draws,
  type SegmentOptions,
  type UstmSegment,
  ustmPacks,
  ustmSegments,
  ustmSequence,
} from './pretraining/interleave.js'
export {
  type PreparedUstm,
  type PrepareUstmOptions,
  packUstm,
  prepareUstm,
  readUstmRows,
  type UstmReport,
  type UstmSequenceOptions,
  type UstmUtterance,
  ustmSequences,
} from './pretraining/prepare.js'
export { type PretrainUsdmOptions, pretrainUsdm, type UstmRows } from './pretraining/train.js'
export { writeUstmTranscripts } from './pretraining/transcripts.js'
export {
  type AlignedWord,
  type UnitWord,
  unitWords,
  ustmTranscript,
  wordsOfTextGrid,
  wordsOfTimes,
} from './pretraining/words.js'
export { type DailyTalk, type ReadDailyTalkOptions, readDailyTalk } from './published/dailytalk.js'
export { USDM_RECIPE, USTM_RECIPE, type UsdmRecipe, usdmRecipe } from './training/recipe.js'
export { type FinetuneUsdmOptions, finetuneUsdm } from './training/train.js'
export type { UsdmMeasured, UsdmResults, UsdmTrainingOptions } from './training/trainer.js'
export {
  type VoiceboxBatch,
  VoiceboxDataset,
  type VoiceboxDatasetOptions,
  type VoiceboxDraws,
  type VoiceboxSample,
  voiceboxCollate,
} from './voicebox/dataset.js'
export {
  parseVoiceboxLine,
  type VoiceboxRecord,
  type VoiceboxRecords,
  writeVoiceboxFilelist,
} from './voicebox/filelist.js'
export { type PreparedVoicebox, type PrepareVoiceboxOptions, prepareVoicebox } from './voicebox/prepare.js'
export { VOICEBOX_RECIPE, type VoiceboxRecipe, voiceboxRecipe } from './voicebox/recipe.js'
export { type TrainUnitVoiceboxOptions, trainUnitVoicebox, type UnitVoiceboxResults } from './voicebox/train.js'
