export type { TrainingArguments } from './arguments.js'
export type { CallbackContext, TrainerCallback, TrainerControl, TrainerEvents } from './callbacks.js'

export type { TrainerData } from './data-source.js'
export type { EvalPrediction } from './evaluate.js'
export { type Logger, WandbLogger } from './logger.js'
export type { ComputeLoss } from './loss.js'

export { ProgressLogger } from './progress-logger.js'
export { loadTrainingArguments } from './resolve-arguments.js'

export type { LogEntry, TrainerState } from './state.js'
export { type PredictionOutput, Trainer, type TrainerOptions, type TrainOutput } from './trainer.js'
