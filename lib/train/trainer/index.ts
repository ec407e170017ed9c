export type {
  IntervalStrategy,
  ReportTarget,
  ResolvedArguments,
  TrainingArguments,
} from './arguments.js'
export type { CallbackContext, TrainerCallback, TrainerControl, TrainerEvents } from './callbacks.js'
export type { Stateful } from './checkpoint.js'
export type { BatchSource, LengthOf, TrainerData } from './data-source.js'
export type { EvalPrediction } from './evaluate.js'
export { type LoggedRun, type Logger, type Outcome, WandbLogger, type WandbRun } from './logger.js'
export type { ComputeLoss, LossOutput } from './loss.js'
export type { TrainerOptimizer, TrainerOptimizers, TrainerScaler, TrainerScheduler } from './optimizing.js'
export { ProgressLogger } from './progress-logger.js'
export { loadTrainingArguments } from './resolve-arguments.js'
export type { SeededGenerators } from './rng.js'
export type { Speed } from './run-files.js'
export type { LogEntry, TrainerState } from './state.js'
export { type PredictionOutput, Trainer, type TrainerOptions, type TrainOutput } from './trainer.js'
