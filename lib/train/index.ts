export { Adam, type AdamOptions, AdamW } from './adam.js'
export { type ClipOptions, clipGradNorm, clipGradValue } from './clip.js'
export * from './metrics/index.js'
export { type GroupOptions, Optimizer, type OptimizerState, type ParamGroup, type ParamsOrGroups } from './optimizer.js'
export { ProgressBar, type ProgressBarOptions, type ProgressFields, type ProgressStream } from './progress.js'
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
