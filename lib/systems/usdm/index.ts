export type { OnBadRecord } from '../../kit/records.js'
export { UsdmCache } from './answer/cache.js'
export { UsdmChat, type UsdmChatSettings } from './answer/chat.js'
export type { LoadUsdmOptions, UsdmSource } from './answer/files.js'
export type {
  UsdmEvent,
  UsdmParts,
  UsdmQuestion,
  UsdmReply,
  UsdmRespondOptions,
  UsdmStreamOptions,
} from './answer/options.js'
export type { UsdmFinish, UsdmSampling } from './answer/passes.js'
export { type PreviewPart, previewPage, previewParts, previewText } from './answer/preview.js'
export {
  GriffinLimVocoder,
  type UsdmSpeaking,
  type UsdmVocoder,
  UsdmVoice,
  type UsdmVoicebox,
} from './answer/speech.js'
export { Usdm } from './answer/usdm.js'
export { type UsdmArguments, unitExtractorOfArguments, usdmTokenizerOfArguments } from './configuration/apply.js'
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
export {
  type AlignedWord,
  type UnitWord,
  unitWords,
  ustmTranscript,
  wordsOfTextGrid,
  wordsOfTimes,
} from './pretraining/words.js'
export { type DailyTalk, type ReadDailyTalkOptions, readDailyTalk } from './published/dailytalk.js'
