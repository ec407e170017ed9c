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
  spectraDataOfArguments,
  spectraFinetuningOfArguments,
  spectraOfArguments,
  spectraReport,
  spectraTaskOfArguments,
  unusedSpectraArguments,
} from './finetuning/command.js'
export { type OpenSpectraDataOptions, openSpectraData, type SpectraData } from './finetuning/data.js'
export {
  SpectraDialogText,
  type SpectraDialogTextOptions,
  type SpectraEncodedDialog,
  type SpectraEncodedWords,
  type SpectraTurnText,
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
  SpectraAdamW,
  type SpectraOptimizerMode,
  spectraOptimizer,
  spectraParameterGroups,
  spectraSchedule,
  spectraSteps,
} from './finetuning/optimizer.js'
export {
  type ReadSpectraJsonlOptions,
  readSpectraJsonl,
  type SpectraJsonlData,
  type SpectraJsonlSample,
} from './finetuning/own-data.js'
export type { SpectraHeldOutSpeakers, SpectraJsonlRecord } from './finetuning/own-records.js'
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
  type SpectraEmotionMetrics,
  type SpectraIntentMetrics,
  type SpectraSentimentMetrics,
  spectraEmotionMetrics,
  spectraIntentMetrics,
  spectraMetrics,
  spectraMetricsOf,
  spectraSentimentMetrics,
} from './finetuning/task-metrics.js'
export {
  publishedSpectraTask,
  SPECTRA_TASKS,
  type SpectraPreset,
  type SpectraTask,
  type SpectraTaskName,
  type SpectraTaskOptions,
  spectraPreset,
  spectraTask,
} from './finetuning/tasks.js'
export {
  type SpectraAnswer,
  type SpectraAttention,
  type SpectraClassAnswer,
  SpectraClassifier,
  type SpectraClassifierOptions,
  type SpectraClassifyOptions,
  type SpectraValueAnswer,
} from './inference/classifier.js'
export { type EmbedTurnsOptions, embedTurns } from './inference/embed.js'
export {
  type RankedResponse,
  type RankResponsesInput,
  type RankResponsesOptions,
  rankResponses,
} from './inference/rank.js'
export type { SpectraTurnAudio } from './inference/turn-audio.js'
export type { SpectraTurn, SpectraTurnOptions, SpectraWindow } from './inference/turns.js'
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
export type { SpectraSpokenWord } from './pretraining/slices.js'
export {
  openSpectraPretraining,
  type SpectraPretrainingSource,
  spectraPretrainingSource,
} from './pretraining/source.js'
