export { Adadelta, type AdadeltaOptions } from './adadelta.js'
export { Adafactor, type AdafactorOptions } from './adafactor.js'
export { Adagrad, type AdagradOptions } from './adagrad.js'
export { Adam, type AdamOptions, AdamW } from './adam.js'
export { Adamax, type AdamaxOptions } from './adamax.js'
export { AdamW8bit, type AdamW8bitOptions } from './adamw-8bit.js'
export { ASGD, type ASGDOptions } from './asgd.js'
export { type ClipOptions, clipGradNorm, clipGradValue } from './clip.js'
export { ChainedScheduler, SequentialLR } from './combined-schedulers.js'
export {
  CosineAnnealingWarmRestarts,
  CyclicLR,
  OneCycleLR,
} from './cyclic-schedulers.js'
export {
  ConstantLR,
  CosineAnnealingLR,
  ExponentialLR,
  LambdaLR,
  LinearLR,
  MultiplicativeLR,
  MultiStepLR,
  PolynomialLR,
  StepLR,
} from './decay-schedulers.js'
export { type EmaOptions, ExponentialMovingAverage } from './ema.js'
export { GradScaler, type GradScalerOptions } from './grad-scaler.js'
export { type Closure, LBFGS, type LBFGSOptions } from './lbfgs.js'
export { Lion, type LionOptions } from './lion.js'
export * from './metrics/index.js'
export { Muon, type MuonOptions } from './muon.js'
export { NAdam, type NAdamOptions } from './nadam.js'
export { Optimizer, type ParamsOrGroups } from './optimizer.js'
export { type ParameterGroupOptions, parameterGroups } from './parameter-groups.js'
export { ReduceLROnPlateau } from './plateau.js'
export { RAdam, type RAdamOptions } from './radam.js'
export { RMSprop, type RMSpropOptions } from './rmsprop.js'
export { Rprop, type RpropOptions } from './rprop.js'

export {
  getCosineWithHardRestartsScheduleWithWarmup,
  getCosineWithMinLrScheduleWithWarmup,
  getCosineWithMinLrScheduleWithWarmupLrRate,
  getInverseSqrtSchedule,
  getPolynomialDecayScheduleWithWarmup,
  getScheduler,
  getWsdSchedule,
  type SchedulerType,
} from './scheduler.js'
export {
  getConstantSchedule,
  getConstantScheduleWithWarmup,
  getCosineScheduleWithWarmup,
  getLinearScheduleWithWarmup,
  LRScheduler,
} from './schedules.js'
export { SGD, type SGDOptions } from './sgd.js'
export { SparseAdam, type SparseAdamOptions } from './sparse-adam.js'
export { SteppedLR } from './stepped-lr.js'
export { SummaryWriter } from './tensorboard.js'
export * from './trainer/index.js'
export { TransformersAdafactor, type TransformersAdafactorOptions } from './transformers-adafactor.js'
