export { type PreferenceMetrics, type TrainDpoOptions, type TrainDpoResults, trainDpo } from './dpo.js'
export type { SftRecord, Truncated } from './examples.js'
export { type GrpoMetrics, type TrainGrpoOptions, type TrainGrpoResults, trainGrpo } from './grpo.js'
export {
  type GrpoAdvantageOptions,
  type GrpoLossInputs,
  type GrpoLossOptions,
  type GrpoLossOutput,
  grpoAdvantages,
  grpoLoss,
} from './grpo-loss.js'
export type { GrpoLossType } from './grpo-settings.js'
export { createLoraplusOptimizer, type LoraplusGroup, type LoraplusOptions } from './lora-plus.js'
export {
  type DpoLossOptions,
  dpoLoss,
  type IpoLossOptions,
  ipoLoss,
  type KtoLossOptions,
  ktoLoss,
  type OrpoLossOptions,
  orpoLoss,
  type PairLogps,
  type PreferenceLossOutput,
  type ReferencedLogps,
  type SimpoLossOptions,
  simpoLoss,
} from './losses.js'
export type { LabeledRecord, PreferenceRecord } from './pairs.js'
export type { PromptRecord } from './prompts.js'
export type { Records } from './records.js'
export { type RewardAnswer, type RewardFunction, werReward } from './rewards.js'
export type { AnswerMetric, PreferenceLoss } from './settings.js'
export { type SftModel, type TrainSftOptions, type TrainSftResults, trainSft } from './sft.js'
export type { BadRecordCounts } from './training.js'
