import type { SchedulerSpecificOptions, SchedulerType } from '../scheduler.js'

/** When something is done: never, each so many steps, at the end of each epoch. */
export type IntervalStrategy = 'no' | 'steps' | 'epoch'

/**
 * How a `Trainer` trains. Names and defaults are those of transformers' `TrainingArguments`, in camelCase; where a default
 * is another one, its line says so. Steps are optimiser steps. Where `0 < steps < 1`, it is a share of the whole training.
 */
export interface TrainingArguments {
  /** The folder of checkpoints, logs and the report; made if need be. */
  outputDir: string
  /** What the run is called in logs and reports. Default: the last part of `outputDir`. */
  runName?: string

  /** Samples in a batch of training, in each process. Default 8. */
  perDeviceTrainBatchSize?: number
  /** Samples in a batch of evaluation, in each process. Default 8. */
  perDeviceEvalBatchSize?: number
  /** Batches whose gradients make one optimiser step. Default 1. */
  gradientAccumulationSteps?: number
  /** Passes over the data; 2.5 ends in the middle of the third. Default 3. */
  numTrainEpochs?: number
  /** Optimiser steps in all, whatever `numTrainEpochs` says. Default -1: not used. */
  maxSteps?: number

  /**
   * The optimiser that the Trainer makes, by transformers' name: `'adamw_8bit'` keeps its state in 2 bytes a parameter,
   * `'lion_32bit'` takes `adamBeta1` and `adamBeta2` too, `'sgd'` and `'rmsprop'` have no momentum, `'adafactor'` is
   * transformers' with a rate of its own. Default 'adamw_torch'.
   */
  optim?: OptimizerName
  /** Its highest rate. Default 5e-5. */
  learningRate?: number
  /** Weights that are bfloat16 or float16 themselves step in float32 copies. Default true. Not in transformers. */
  masterWeights?: boolean
  /** Decoupled decay of all weights but biases and those of norms. Default 0. */
  weightDecay?: number
  /** Biases and the weights of norms decay too, as under DeepSpeed with one group. Default false. Not in transformers. */
  decayAll?: boolean
  adamBeta1?: number
  adamBeta2?: number
  adamEpsilon?: number
  /** Gradients are clipped to this norm; 0 leaves them as they are. Default 1. */
  maxGradNorm?: number
  /**
   * What happens at a step whose loss or gradients are NaN or infinite, and before weights are saved that are: 'stop', the
   * default, throws `NonFiniteError` with step and tensor before the step changes a weight or a file is written; 'warn'
   * emits a `TrainerWarning` and goes on, as transformers does without one. Under `fp16` the scaler leaves out steps with
   * overflown gradients as before; they count here once the scale has fallen to 1. Not in transformers.
   */
  onNonFinite?: 'stop' | 'warn'
  /** Default 'linear': down to 0 at the last step. */
  lrSchedulerType?: SchedulerType
  /** What the named schedule takes beside steps, such as `{ numCycles: 2 }`. */
  lrSchedulerKwargs?: SchedulerSpecificOptions
  /** Share of all steps over which the rate climbs. Default 0. */
  warmupRatio?: number
  /** Steps over which the rate climbs; counts before `warmupRatio`. Default 0. */
  warmupSteps?: number

  /** Default 'steps'. */
  loggingStrategy?: IntervalStrategy
  /** Default 500. */
  loggingSteps?: number
  /** Logs the first step too. Default false. */
  loggingFirstStep?: boolean
  /** Default 'no'. */
  evalStrategy?: IntervalStrategy
  /** The same as `evalStrategy`. */
  evaluationStrategy?: IntervalStrategy
  /** Default: `loggingSteps`. */
  evalSteps?: number
  /** Default 'steps'; 'best' saves after each evaluation that is better than all before. The last step is saved unless 'no'. */
  saveStrategy?: IntervalStrategy | 'best'
  /** Default 500. */
  saveSteps?: number
  /** Checkpoints that stay: the newest, and the best beside them. Default: all. */
  saveTotalLimit?: number | null

  /**
   * Checkpoints hold only parameters that train, and running means: for a small part of a large frozen network, which whoever
   * goes on makes again. Default false. Not in transformers.
   */
  saveOnlyTrained?: boolean

  /** Puts the best checkpoint's weights back when training ends. Evaluates and saves at the same steps. Default false. */
  loadBestModelAtEnd?: boolean
  /** A metric of evaluation, with or without the `eval` in front. Default 'loss' where one is needed. */
  metricForBestModel?: string | null
  /** Default: true, unless the metric's name ends in `loss`. */
  greaterIsBetter?: boolean | null
  /** Stops after so many evaluations in a row that were not better. Default: never. */
  earlyStoppingPatience?: number | null
  /** By how much an evaluation has to be better. Default 0. */
  earlyStoppingThreshold?: number

  /** Runs the model under autocast to bfloat16. Default false. */
  bf16?: boolean
  /** Runs the model under autocast to float16, with a gradient scaler. Default false. */
  fp16?: boolean
  /** Layers forget what is between them and compute it again in backward: less memory, more time. Default false. */
  gradientCheckpointing?: boolean
  /**
   * Share of each target that the default loss spreads over all classes. Of DecoderLM and Salmonn it is their own
   * `labelSmoothing`; of others the loss is made from `logits`, which are shifted against the labels where the model says
   * `shiftsLabels`. Default 0.
   */
  labelSmoothingFactor?: number

  /** Seeds all default generators when training begins; null leaves them as they are. Default 42. */
  seed?: number | null
  /** The order of the data. Default: `seed`. */
  dataSeed?: number | null
  /** Default true, unlike transformers': goes on from the last whole checkpoint, if there is one. Or a checkpoint's folder. */
  resumeFromCheckpoint?: boolean | string
  /**
   * Where the newest checkpoint cannot be read, goes on from the newest before it that can, with a warning. Default false: an
   * error says which file it is. Not in transformers.
   */
  skipDamagedCheckpoints?: boolean

  /** Files beside the checkpoints. Default all, unlike transformers': `metrics.jsonl`, TensorBoard events, `report.html`. */
  reportTo?: readonly ReportTarget[] | 'all' | 'none'
  /** A progress bar on the standard error. Default: where that is a terminal. */
  progress?: boolean
  /** The reverse of `progress`. */
  disableTqdm?: boolean

  /** Threads that read samples; needs a dataset given as a URL. Default 0. */
  dataloaderNumWorkers?: number
  /** Batches that each worker reads ahead. Default 2. */
  dataloaderPrefetchFactor?: number
  /** Leaves out a last batch of training that is not full. Default false. */
  dataloaderDropLast?: boolean
  /** Puts samples of like length into one batch: see the Trainer's `lengthOf`. Default false. */
  groupByLength?: boolean

  /** In several processes, 1 divides the optimiser's state over them (ZeRO stage 1). Default 0. Not in transformers. */
  zero?: 0 | 1
  /** Seconds that a process waits for the others, where the Trainer opens the process group. Default 1800. */
  ddpTimeout?: number
  /** In several processes, whether parameters may take no part in a loss. Default true, always; false is a little faster. */
  ddpFindUnusedParameters?: boolean
}

export type OptimizerName =
  | 'adamw_torch'
  | 'adamw_torch_fused'
  | 'adamw_8bit'
  | 'adamw_bnb_8bit'
  | 'lion_32bit'
  | 'sgd'
  | 'adagrad'
  | 'rmsprop'
  | 'adafactor'

export type ReportTarget = 'jsonl' | 'tensorboard' | 'html'

/** All arguments, with defaults filled in and both spellings of one thing made one. */
export type ResolvedArguments = Required<Omit<TrainingArguments, 'evaluationStrategy' | 'disableTqdm' | 'reportTo'>> & {
  reportTo: readonly ReportTarget[]
}
