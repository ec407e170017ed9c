export { type PreferenceMetrics, type TrainDpoOptions, type TrainDpoResults, trainDpo } from './dpo.js'
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
export type { PreferenceRecord } from './pairs.js'
export type { PreferenceLoss } from './settings.js'
