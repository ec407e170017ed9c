// Apart from the schedules, so that reading a command line does not load libtorch.

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
