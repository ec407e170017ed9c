export {
  type AlignWordsInput,
  type AlignWordsOptions,
  alignWords,
  type WordAlignment,
  type WordTimesInputs,
  type WordTimesModel,
} from './alignment/align.js'
export { type AlignmentPicture, alignmentPage, alignmentSvg } from './alignment/picture.js'
export type { AlignedWord } from './alignment/repair.js'
export * from './dst/index.js'
export { type ParsedSpectraArguments, parseSpectraArguments, type SpectraArguments } from './finetuning/arguments.js'
export {
  SPECTRA_AUDIO_LENGTH,
  SPECTRA_TEXT_LENGTH,
  type SpectraBatch,
  type SpectraCollateOptions,
  type SpectraCollator,
  type SpectraCuts,
  spectraCollate,
} from './finetuning/collate.js'
export {
  dataOfArguments,
  finetuneOfArguments,
  SPECTRA_SIZES,
  spectraReport,
  spectraSize,
  taskOfArguments,
} from './finetuning/command.js'
export { type OpenSpectraDataOptions, openSpectraData, type SpectraData } from './finetuning/data.js'
export {
  DialogText,
  type DialogTextOptions,
  type EncodedDialog,
  type EncodedWords,
  type TurnText,
} from './finetuning/dialog-text.js'
export { SpectraEarlyStopping } from './finetuning/early-stopping.js'
export {
  type FinetuneSpectraOptions,
  finetuneSpectra,
  type SpectraResults,
  spectraLoss,
  spectraTrainer,
} from './finetuning/finetune.js'
export {
  AdamWWithoutCorrection,
  type SpectraOptimizerMode,
  spectraOptimizer,
  spectraParameterGroups,
  spectraSchedule,
  spectraSteps,
} from './finetuning/optimizer.js'
export { type OwnData, type OwnSample, type ReadSpectraJsonlOptions, readSpectraJsonl } from './finetuning/own-data.js'
export type { HeldOutSpeakers, OwnRecord } from './finetuning/own-records.js'
export { SPECTRA_LAYOUTS, type SpectraLayout } from './finetuning/published-layouts.js'
export {
  type ReadSpectraPicklesOptions,
  readSpectraPickles,
  SPECTRA_SPLITS,
  type SpectraPickles,
  type SpectraSplit,
} from './finetuning/published-pickles.js'
export type { SpectraAudio, SpectraSample } from './finetuning/sample.js'
export {
  type EmotionMetrics,
  emotionMetrics,
  type IntentMetrics,
  intentMetrics,
  type SentimentMetrics,
  sentimentMetrics,
  spectraMetrics,
  spectraMetricsOf,
} from './finetuning/task-metrics.js'
export {
  type OwnTaskOptions,
  ownTask,
  presetOf,
  publishedTask,
  SPECTRA_TASKS,
  type SpectraPreset,
  type SpectraTask,
  type SpectraTaskName,
} from './finetuning/tasks.js'
export {
  type SpectraPretrainingBatch,
  type SpectraPretrainingCollateOptions,
  spectraPretrainingCollate,
} from './pretraining/collate.js'
export {
  type FramesOf,
  type MaskedClip,
  type MaskedText,
  SpectraPretrainingDataset,
  type SpectraPretrainingOptions,
  type SpectraPretrainingSample,
} from './pretraining/dataset.js'
export { type ClipTurnsOptions, clipTurns, spotifyTurns, UNIFORM_WORD_TIMES } from './pretraining/dialog-sources.js'
export type { OnProblem, SpectraEntry, SpectraWord } from './pretraining/entry.js'
export { MAM, type MaskFramesOptions, type MaskTokensOptions, maskFrames, maskTokens } from './pretraining/masking.js'
export {
  type EncodeWord,
  type PrepareSpectraOptions,
  prepareSpectraPretraining,
  type SpectraDialogTurn,
  type SpectraPreparation,
} from './pretraining/prepare.js'
export {
  type PretrainSpectraOptions,
  pretrainSpectra,
  SPECTRA_PRETRAINING_ARGUMENTS,
  type SpectraLosses,
  type SpectraPretrainingModel,
} from './pretraining/pretrain.js'
export {
  importPublishedSpectraPretraining,
  type PublishedSpectra,
  type PublishedSpectraOptions,
  readPublishedSpectraPretraining,
} from './pretraining/published.js'
export type { SpokenWord } from './pretraining/slices.js'
export {
  openSpectraPretraining,
  type SpectraPretrainingSource,
  spectraPretrainingSource,
} from './pretraining/source.js'
