// Apart from schedules and optimizers, so that reading a command line does not load libtorch.

/** Names of schedules in transformers (`SchedulerType`). */
export const SCHEDULER_TYPES = [
  'linear',
  'cosine',
  'cosine_with_restarts',
  'polynomial',
  'constant',
  'constant_with_warmup',
  'inverse_sqrt',
  'cosine_with_min_lr',
  'cosine_warmup_with_min_lr',
  'warmup_stable_decay',
] as const
export type SchedulerType = (typeof SCHEDULER_TYPES)[number]

/** Names of optimizers in transformers (`OptimizerNames`), and 'muon'. */
export const OPTIMIZER_NAMES = [
  'adamw_torch',
  'adamw_torch_fused',
  'adamw_8bit',
  'adamw_bnb_8bit',
  'lion_32bit',
  'sgd',
  'adagrad',
  'rmsprop',
  'adafactor',
  'muon',
] as const
export type OptimizerName = (typeof OPTIMIZER_NAMES)[number]
