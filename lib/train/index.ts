export { Adagrad, type AdagradOptions } from './adagrad.js'
export { Adam, type AdamOptions, AdamW } from './adam.js'
export { AdamW8bit, type AdamW8bitOptions } from './adamw-8bit.js'
export { type ClipOptions, clipGradNorm, clipGradValue } from './clip.js'
export { type EmaOptions, type EmaState, ExponentialMovingAverage } from './ema.js'
export { GradScaler, type GradScalerOptions, type GradScalerState, type ScaledOptimizer } from './grad-scaler.js'
export { Lion, type LionOptions } from './lion.js'
export * from './metrics/index.js'
export { type GroupOptions, Optimizer, type OptimizerState, type ParamGroup, type ParamsOrGroups } from './optimizer.js'
export { type DecayGroup, NO_DECAY, type ParameterGroupOptions, parameterGroups } from './parameter-groups.js'
export {
  cosineWarmupWithMinLrSchedule,
  cosineWithHardRestartsScheduleWithWarmup,
  cosineWithMinLrScheduleWithWarmup,
  type InverseSqrtOptions,
  inverseSqrtSchedule,
  type MinimumOptions,
  type PolynomialOptions,
  perEpoch,
  polynomialDecayScheduleWithWarmup,
  type Ramp,
  type RestartOptions,
  type StableOptions,
  type WarmupMinimumOptions,
  warmupStableDecaySchedule,
} from './schedule-shapes.js'
export {
  getScheduler,
  SCHEDULER_TYPES,
  type SchedulerOptions,
  type SchedulerSpecificOptions,
  type SchedulerType,
} from './scheduler.js'
export {
  type CosineOptions,
  constantSchedule,
  constantScheduleWithWarmup,
  cosineScheduleWithWarmup,
  type DecayOptions,
  getConstantSchedule,
  getConstantScheduleWithWarmup,
  getCosineScheduleWithWarmup,
  getLinearScheduleWithWarmup,
  LRScheduler,
  type LRSchedulerState,
  linearScheduleWithWarmup,
  type Schedule,
  type Scheduled,
  type WarmupOptions,
} from './schedules.js'
export { SGD, type SGDOptions } from './sgd.js'
export { SummaryWriter } from './tensorboard.js'
export * from './trainer/index.js'
