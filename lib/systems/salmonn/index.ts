export { SalmonnFrames } from '../../kit/audio-encoding/frames.js'
export type { OnBadRecord, OnBadRecord as OnBadItem } from '../../kit/records.js'
export { rougeL } from '../../kit/rouge-l.js'
export {
  type SalmonnAnswerShown,
  type SalmonnAnswersReport,
  salmonnAnswersPage,
} from './answer/answers-page.js'
export { type SalmonnAnswerOptions, SalmonnChat, type SalmonnChatSettings } from './answer/chat.js'
export { type ChatLine, parseChatLine } from './answer/chat-line.js'
export {
  type SalmonnChatMessage,
  type SalmonnChatOptions,
  type SalmonnChatPart,
  salmonnChatPrompt,
} from './answer/chat-prompt.js'
export {
  type PredictTrajectoryOptions,
  /** @deprecated Now `PredictTrajectoryOptions`. */
  type PredictTrajectoryOptions as TellTrajectoryOptions,
  predictTrajectory,
  /** @deprecated Now `predictTrajectory`. */
  predictTrajectory as tellTrajectory,
} from './answer/trajectory.js'
export {
  dialogOfClips,
  type ReadTrajectoryDialogsOptions,
  readTrajectoryDialogs,
  type TrajectoryDialog,
  type TrajectoryDialogs,
} from './answer/trajectory-dialogs.js'
export { trajectorySvg } from './answer/trajectory-figure.js'
export { trajectoryPage } from './answer/trajectory-page.js'
export { type EmotionalTrajectory, type TrajectoryTurn, trajectoryText } from './answer/trajectory-report.js'
export { salmonnOfConfiguration } from './configuration/apply.js'
export { configurationOfArguments, parseSalmonnArguments, type SalmonnArguments } from './configuration/arguments.js'
export type {
  SalmonnConfiguration,
  SalmonnDataSettings,
  SalmonnModelSettings,
} from './configuration/configuration.js'
export { readSalmonnConfiguration, salmonnConfiguration } from './configuration/read.js'
export { type SalmonnAudioOptions, SalmonnAudioReader, type SalmonnCuts } from './data/audio.js'
export { parseAudioInput } from './data/audio-input.js'
export {
  type FitClipOptions,
  fitClip,
  type JoinClipsOptions,
  joinClips,
  SALMONN_WINDOW,
} from './data/clips.js'
export { type SalmonnBatch, type SalmonnClip, type SalmonnPrompt, salmonnCollate } from './data/collate.js'
export { SalmonnDataset, type SalmonnDatasetOptions, type SalmonnSample } from './data/dataset.js'
export { type EmotionLanguage, parseEmotionSuffix, splitEmotions, writeEmotionSuffix } from './data/emotion-suffix.js'
export type { SalmonnEntry } from './data/entry.js'
export {
  type DialogTextOptions as SalmonnDialogTextOptions,
  type SalmonnLanguage,
  trajectoryRequest,
} from './data/history.js'
export { type OpenSalmonnDataOptions, openSalmonnData, type SalmonnData, salmonnDatasetOptions } from './data/open.js'
export {
  type BuildSalmonnPromptOptions,
  buildSalmonnPrompt,
  SALMONN_TEMPLATE,
  SPEECH_BLOCK,
  salmonnQuestion,
  salmonnTemplate,
} from './data/prompt.js'
export { SalmonnPrompts, type SalmonnPromptTable } from './data/prompt-table.js'
export { type SalmonnSplit, type SplitSalmonnOptions, sharedDialogs, splitSalmonn } from './data/split.js'
export {
  type MeasuredSalmonn,
  measureSalmonn,
  SALMONN_GENERATION,
  type ScoredSalmonn,
  type ScoreSalmonnOptions,
  scoreSalmonn,
} from './evaluation/evaluate.js'
export {
  JUDGE_CRITERIA,
  type JudgeInput,
  type JudgeScore,
  type JudgeSummary,
  type JudgeTask,
  judgeInput,
  judgePrompt,
  judgeScore,
  judgeSummary,
  parseJudgeReply,
} from './evaluation/judge.js'
export { JUDGE_GENERATION, judgePrompts, readJudgeReplies } from './evaluation/judge-files.js'
export {
  type EmotionScore,
  type TrajectoryPair,
  type TrajectoryScores,
  trajectoryScores,
} from './evaluation/metrics.js'
export {
  pairTrajectories,
  readTrajectoryPredictions,
  type TrajectoryPrediction,
  type TrajectoryPredictions,
} from './evaluation/predictions.js'
export { checkSalmonnAdapter, type SalmonnPart, salmonnPart } from './network/adapter.js'
export { SalmonnCache } from './network/cache.js'
export { SALMONN_LEAST_SAMPLES, SALMONN_RATE, type SalmonnAudio } from './network/clips.js'
export { type SalmonnConfig, type SalmonnLoraConfig, salmonnWindowFrames } from './network/config.js'
export type { LoadSalmonnOptions, SalmonnPartsFrom } from './network/files.js'
export type { SalmonnAnswers, SalmonnGenerateOptions, SalmonnStep } from './network/generate.js'
export { type SalmonnMemory, type SalmonnMemoryOptions, salmonnMemory } from './network/memory.js'
export {
  Salmonn,
  type SalmonnInputs,
  type SalmonnOptions,
  type SalmonnOutput,
  type SalmonnParts,
  type SalmonnQuestion,
} from './network/network.js'
export { SPEECH_MARKER } from './network/prompt.js'
export type { SalmonnConflict } from './network/saved-config.js'
export {
  publishedCheckpointNames,
  type SalmonnAdapterSizes,
  salmonnAdapterTensors,
  trainedNames,
} from './published/adapter-file.js'
export {
  type ReadSalmonnAnnotationsOptions,
  readSalmonnAnnotations,
  type SalmonnAnnotations,
} from './published/annotations.js'
export {
  type Conversion,
  type ConvertedDialog,
  type ConvertHumDialFileOptions,
  type ConvertHumDialOptions,
  convertHumDial,
  convertHumDialFile,
} from './published/convert.js'
export { type HumDialData, type HumDialDialog, type HumDialTurn, readHumDial } from './published/humdial.js'
export { SALMONN_TEST_PROMPTS, SALMONN_TRAIN_PROMPTS } from './published/prompts.js'
export { type SalmonnForward, type SalmonnLossOptions, salmonnLoss } from './training/loss.js'
export { FiniteAdamW, salmonnOptimizer, salmonnParameterGroups } from './training/optimizer.js'
export {
  keepFrozenInEval,
  SALMONN_STAGES,
  type SalmonnStage,
  trainSalmonnParts,
} from './training/parts.js'
export { SALMONN_RECIPE, type SalmonnRecipe, type SalmonnRecipeChanges, salmonnRecipe } from './training/recipe.js'
export { type SalmonnScheduleOptions, salmonnLearningRate, salmonnScheduler } from './training/schedule.js'
export {
  type SalmonnMeasured,
  type SalmonnResults,
  salmonnTrainer,
  type TrainSalmonnOptions,
  trainSalmonn,
} from './training/train.js'
