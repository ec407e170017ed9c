export {
  type AlignWordsInput,
  type AlignWordsOptions,
  alignWords,
  type WordAlignment,
  type WordTimesInputs,
  type WordTimesModel,
} from './answer/align.js'
export { type AlignmentFigure, alignmentPage, alignmentSvg } from './answer/align-figure.js'
export type { AlignedWord } from './answer/align-repair.js'
export {
  type SpectraAnswer,
  type SpectraAttention,
  type SpectraClassAnswer,
  SpectraClassifier,
  type SpectraClassifierOptions,
  type SpectraClassifyOptions,
  type SpectraValueAnswer,
} from './answer/classifier.js'
export { type EmbedTurnsOptions, embedTurns } from './answer/embed.js'
export {
  type RankedResponse,
  type RankResponsesInput,
  type RankResponsesOptions,
  rankResponses,
} from './answer/rank.js'
export type { SpectraTurnAudio } from './answer/turn-audio.js'
export type { SpectraTurn, SpectraTurnOptions, SpectraWindow } from './answer/turns.js'
export {
  spectraDataOfArguments,
  spectraFinetuningOfArguments,
  spectraOfArguments,
  spectraReport,
  spectraTaskOfArguments,
  unusedSpectraArguments,
} from './configuration/apply.js'
export { type ParsedSpectraArguments, parseSpectraArguments, type SpectraArguments } from './configuration/arguments.js'
export {
  SPECTRA_AUDIO_LENGTH,
  SPECTRA_TEXT_LENGTH,
  type SpectraBatch,
  type SpectraCollateOptions,
  type SpectraCollator,
  type SpectraCuts,
  spectraCollate,
} from './data/collate.js'
export {
  type ReadSpectraJsonlOptions,
  readSpectraJsonl,
  type SpectraJsonlData,
  type SpectraJsonlSample,
} from './data/jsonl.js'
export { type OpenSpectraDataOptions, openSpectraData, type SpectraData } from './data/open.js'
export type { SpectraHeldOutSpeakers, SpectraJsonlRecord } from './data/record.js'
export type { SpectraAudio, SpectraSample } from './data/sample.js'
export {
  SpectraDialogText,
  type SpectraDialogTextOptions,
  type SpectraEncodedDialog,
  type SpectraEncodedWords,
  type SpectraTurnText,
} from './data/text.js'
export {
  type SpectraEmotionMetrics,
  type SpectraIntentMetrics,
  type SpectraSentimentMetrics,
  spectraEmotionMetrics,
  spectraIntentMetrics,
  spectraMetrics,
  spectraMetricsOf,
  spectraSentimentMetrics,
} from './evaluation/metrics.js'
export {
  publishedSpectraTask,
  SPECTRA_TASKS,
  type SpectraTask,
  type SpectraTaskName,
  type SpectraTaskOptions,
  spectraPreset,
  spectraTask,
} from './evaluation/task.js'
export { readSpectraConfig, type SpectraConfig, type SpectraOptions } from './network/config.js'
export type { LoadSpectraOptions, SpectraEncoders, SpectraLoadReport } from './network/files.js'
export {
  Spectra,
  type SpectraClassificationInputs,
  type SpectraClassificationOutput,
  SpectraForPreTraining,
  SpectraForSequenceClassification,
  type SpectraInputs,
  type SpectraOutput,
  type SpectraPrediction,
  type SpectraPretrainingInputs,
  type SpectraPretrainingOutput,
} from './network/network.js'
export {
  type SpectraPretrainingBatch,
  type SpectraPretrainingCollateOptions,
  spectraPretrainingCollate,
} from './pretraining/collate.js'
export {
  type SpectraMaskedClip,
  type SpectraMaskedText,
  SpectraPretrainingDataset,
  type SpectraPretrainingOptions,
  type SpectraPretrainingSample,
} from './pretraining/dataset.js'
export { type ClipTurnsOptions, clipTurns, spotifyTurns, UNIFORM_WORD_TIMES } from './pretraining/dialog-sources.js'
export type { SpectraEntry, SpectraWord } from './pretraining/entry.js'
export {
  type MaskFramesOptions,
  type MaskTokensOptions,
  maskFrames,
  maskTokens,
  SPECTRA_FRAME_FATES,
} from './pretraining/masking.js'
export {
  openSpectraPretraining,
  type SpectraPretrainingSource,
  spectraPretrainingSource,
} from './pretraining/open.js'
export {
  type PrepareSpectraOptions,
  prepareSpectraPretraining,
  type SpectraDialogTurn,
  type SpectraPreparation,
} from './pretraining/prepare.js'
export {
  importPublishedSpectraPretraining,
  type PublishedSpectra,
  type PublishedSpectraOptions,
  readPublishedSpectraPretraining,
} from './pretraining/published.js'
export { SPECTRA_PRETRAINING_ARGUMENTS } from './pretraining/recipe.js'
export type { SpectraSpokenWord } from './pretraining/slices.js'
export {
  type PretrainSpectraOptions,
  pretrainSpectra,
  type SpectraLosses,
  type SpectraPretrainingModel,
} from './pretraining/train.js'
export { SPECTRA_LAYOUTS, type SpectraLayout } from './published/layouts.js'
export {
  type ReadSpectraPicklesOptions,
  readSpectraPickles,
  SPECTRA_SPLITS,
  type SpectraPickles,
  type SpectraSplit,
} from './published/pickles.js'
export * from './tracking/index.js'
export { SpectraEarlyStopping } from './training/early-stopping.js'
export {
  SpectraAdamW,
  type SpectraOptimizerMode,
  spectraOptimizer,
  spectraParameterGroups,
  spectraSchedule,
  spectraSteps,
} from './training/optimizer.js'
export type { SpectraPreset } from './training/recipe.js'
export {
  type FinetuneSpectraOptions,
  finetuneSpectra,
  type SpectraResults,
  spectraLoss,
  spectraTrainer,
} from './training/train.js'
