export type { AskedClip, EmotionClip, EmotionClips } from '../../kit/emotion/clips.js'
export {
  EMOTIONS,
  type Emotion,
  type EmotionCause,
  type EmotionData,
  type EmotionDialog,
  type EmotionUtterance,
  type ReadDialogsOptions,
} from '../../kit/emotion/dialog.js'
export {
  type EcfConversation,
  type EcfSubtask,
  type EcfUtterance,
  ecfConversations,
  type ReadEcfOptions,
  readEcf,
} from '../../kit/emotion/ecf.js'
export {
  type EcfPairScores,
  type EcfSource,
  type EcfSpanScores,
  ecfScoreLines,
  type ScoreEcfOptions,
  scoreEcf,
  writeEcfSubmission,
} from '../../kit/emotion/ecf-score.js'
export { type EmotionJsonlRecord, readEmotionJsonl } from '../../kit/emotion/jsonl.js'
export { MELD_BAD_CLIPS, type ReadMeldOptions, readMeld } from '../../kit/emotion/meld.js'
export type { OnBadRecord } from '../../kit/records.js'
export {
  type LabeledDialog,
  type LabeledUtterance,
  type LabelOptions,
  labelDialogs,
  type TurnsOptions,
  turnsOf,
} from './answer/label.js'
export { type EmotionReportOptions, emotionReport } from './answer/report.js'
export { emotionStrip, type StripMedia } from './answer/strip.js'
export { CauseScorer, type CauseScorerConfig } from './causes/network.js'
export {
  findSpans,
  loadSpans,
  type SpanResults,
  SpanTagger,
  type TrainSpansOptions,
  trainSpans,
  type WordReader,
} from './causes/spans.js'
export {
  CAUSE_RECIPE,
  type CauseRecipe,
  type CauseResults,
  type CauseThreshold,
  findCauses,
  loadCauses,
  type TrainCausesOptions,
  trainCauses,
} from './causes/train.js'
export {
  emotionDataOfArguments,
  emotionText,
  emotionTrainingOfArguments,
  encodersOfArguments,
  pairText,
  pairTrainingOfArguments,
  pointerText,
  pointerTrainingOfArguments,
  readEmotionArguments,
} from './configuration/apply.js'
export type { EmotionArguments } from './configuration/arguments.js'
export { type BadClipReason, BadClips } from './data/bad-clips.js'
export {
  type EmotionBatch,
  type EmotionCollator,
  type EmotionSample,
  emotionCollate,
  emotionSamples,
} from './data/collate.js'
export { FeatureCache, type FeatureCacheOptions } from './data/features.js'
export {
  type EmotionFormat,
  type EmotionParts,
  type OpenEmotionOptions,
  openEmotionData,
  readDialogs,
} from './data/open.js'
export { type SpeakerNormOptions, speakerNormalized } from './data/speaker-norm.js'
export { type AnswerOptions, type DialogAnswer, emotionAnswers } from './evaluation/evaluate.js'
export { type ClassScores, classScores, type EmotionMetrics, emotionMetrics } from './evaluation/metrics.js'
export type {
  EmotionClassifierConfig,
  EmotionContextConfig,
  EmotionFusion,
  EmotionModality,
} from './network/config.js'
export type { EmotionEncoder } from './network/encoders.js'
export { type LoadEmotionOptions, openEncoder } from './network/files.js'
export {
  LanguageBindEmotionEncoder,
  type LanguageBindEmotionEncoderOptions,
  LanguageBindPart,
  languageBindEncoders,
} from './network/languagebind-encoders.js'
export {
  EmotionClassifier,
  type EmotionInputs,
  type EmotionOutput,
  type MakeEmotionOptions,
} from './network/network.js'
export { EmotionTextEncoder, type EmotionTextEncoderOptions, type TextInput } from './network/text-encoder.js'
export {
  EmotionFbankEncoder,
  type EmotionFbankEncoderOptions,
  EmotionVoiceEncoder,
  type EmotionVoiceEncoderOptions,
} from './network/voice-encoder.js'
export { loadPublishedEmotion, type PublishedEmotionOptions } from './published/checkpoint.js'
export {
  FrameHead,
  type FrameHeadOptions,
  PairHead,
  PointerHead,
  type PointerHeadOptions,
  pairLoss,
  pointerLabel,
} from './published/heads.js'
export { EmotionPairClassifier, type EmotionPairConfig } from './published/pair-network.js'
export { type EmotionPair, publishedPairs } from './published/pairs.js'
export {
  findPairs,
  PAIR_RECIPE,
  type PairRecipe,
  type PairResults,
  type TrainPairsOptions,
  trainPairs,
} from './published/train-pairs.js'
export {
  loadPointer,
  type PointerResults,
  type TrainPointerOptions,
  trainPointer,
} from './published/train-pointer.js'
export { EMOTION_RECIPE, type EmotionRecipe, PUBLISHED_EMOTION_RECIPE } from './training/recipe.js'
export {
  type EmotionLora,
  type EmotionResults,
  type TrainEmotionOptions,
  type TrainedEmotion,
  trainEmotion,
} from './training/train.js'
