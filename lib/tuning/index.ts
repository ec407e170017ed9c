export { type PreferenceMetrics, type TrainDpoOptions, type TrainDpoResults, trainDpo } from './dpo.js'
export type { SftRecord, Truncated } from './examples.js'
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
export type { PreferenceRecord } from './pairs.js'
export type { Records } from './records.js'
export type { AnswerMetric, PreferenceLoss } from './settings.js'
export { type SftModel, type TrainSftOptions, type TrainSftResults, trainSft } from './sft.js'
export type { BadRecordCounts } from './training.js'
