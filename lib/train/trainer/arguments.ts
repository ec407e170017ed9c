import type { SchedulerSpecificOptions } from '../scheduler.js'
import type { OptimizerName, SchedulerType } from '../training-names.js'

export type { OptimizerName }

/** Interval at which something happens: never, every n steps, or at the end of each epoch. */
export type IntervalStrategy = 'no' | 'steps' | 'epoch'

/**
 * Arguments of a `Trainer`. Names and defaults are those of transformers' `TrainingArguments`, in camelCase; a different
 * default is marked. Steps are optimizer steps. A number of steps between 0 and 1 is a fraction of all steps.
 */
export interface TrainingArguments {
  /** Folder of checkpoints, logs and the report. Created if it does not exist. */
  outputDir: string
  /** Name of the run in logs and reports. Default: the last part of `outputDir`. */
  runName?: string

  /** Batch size of training in each process. Default 8. */
  perDeviceTrainBatchSize?: number
  /** Batch size of evaluation in each process. Default 8. */
  perDeviceEvalBatchSize?: number
  /** Batches whose gradients are accumulated for one optimizer step. Default 1. */
  gradientAccumulationSteps?: number
  /** Number of epochs; 2.5 ends in the middle of the third. Default 3. */
  numTrainEpochs?: number
  /** Total number of optimizer steps; overrides `numTrainEpochs`. Default -1: not used. */
  maxSteps?: number

  /**
   * Optimizer, by transformers' name: `'adamw_8bit'` keeps 2 bytes of state per parameter, `'lion_32bit'` uses `adamBeta1` and
   * `adamBeta2` too, `'sgd'` and `'rmsprop'` have no momentum, `'adafactor'` is transformers' Adafactor without relative steps. `'muon'`, which
   * transformers does not have, is `Muon` with `adjustLrFn: 'match_rms_adamw'` for the matrices of linear layers and their adapters, and
   * AdamW for embeddings, a language model's output layer, biases, norms and everything else. Default 'adamw_torch'.
   */
  optim?: OptimizerName
  /** Peak learning rate. Default 5e-5. */
  learningRate?: number
  /** Update bfloat16 and float16 weights through float32 copies. Default true. Not in transformers. */
  masterWeights?: boolean
  /** Decoupled weight decay of all weights except biases and normalization weights. Default 0. */
  weightDecay?: number
  /**
   * Apply weight decay to biases and normalization weights too, as DeepSpeed does with one group. Default false. Not in
   * transformers.
   */
  decayAll?: boolean
  adamBeta1?: number
  adamBeta2?: number
  adamEpsilon?: number
  /** Maximum gradient norm for clipping; 0 disables it. Default 1. */
  maxGradNorm?: number
  /**
   * Action for a step whose loss or gradients are NaN or infinite, and before such weights are saved. 'stop', the default,
   * throws `NonFiniteError` with step and tensor before the step changes a weight or a file is written. 'warn' emits a
   * `TrainerWarning` and continues, as transformers does without a warning. Under `fp16` the scaler still skips steps with
   * overflown gradients; they count here once the scale has fallen to 1. Not in transformers.
   */
  onNonFinite?: 'stop' | 'warn'
  /** Learning rate schedule. Default 'linear': decays to 0 at the last step. */
  lrSchedulerType?: SchedulerType
  /** Options of the named schedule, such as `{ numCycles: 2 }`. */
  lrSchedulerKwargs?: SchedulerSpecificOptions
  /** Fraction of all steps used for warm-up. Default 0. */
  warmupRatio?: number
  /** Steps of warm-up; overrides `warmupRatio`. Default 0. */
  warmupSteps?: number

  /** When to log. Default 'steps'. */
  loggingStrategy?: IntervalStrategy
  /** Steps between logs. Default 500. */
  loggingSteps?: number
  /** Log the first step too. Default false. */
  loggingFirstStep?: boolean
  /** When to evaluate. Default 'no'. */
  evalStrategy?: IntervalStrategy
  /** Alias of `evalStrategy`. */
  evaluationStrategy?: IntervalStrategy
  /** Steps between evaluations. Default: `loggingSteps`. */
  evalSteps?: number
  /**
   * When to save; 'best' saves after each evaluation that is better than all before. The last step is saved unless 'no'.
   * Default 'steps'.
   */
  saveStrategy?: IntervalStrategy | 'best'
  /** Steps between checkpoints. Default 500. */
  saveSteps?: number
  /** Maximum number of checkpoints to keep: the newest, and in addition the best. Default: all. */
  saveTotalLimit?: number | null

  /**
   * Save only trainable parameters and running statistics in checkpoints. For a small trainable part of a large frozen network,
   * whose frozen weights must be loaded again to resume. Default false. Not in transformers.
   */
  saveOnlyTrained?: boolean

  /** Load the best checkpoint when training ends. Evaluation and saving must happen at the same steps. Default false. */
  loadBestModelAtEnd?: boolean
  /** Metric that selects the best model, with or without the `eval` prefix. Default 'loss' where one is needed. */
  metricForBestModel?: string | null
  /** Whether a higher metric is better. Default: true, unless the metric's name ends in `loss`. */
  greaterIsBetter?: boolean | null
  /** Stop after this number of consecutive evaluations without improvement. Default: never. */
  earlyStoppingPatience?: number | null
  /** Minimum improvement that counts for early stopping. Default 0. */
  earlyStoppingThreshold?: number

  /** Run the model under autocast to bfloat16. Default false. */
  bf16?: boolean
  /** Run the model under autocast to float16, with a gradient scaler. Default false. */
  fp16?: boolean
  /** Recompute the activations of layers in the backward pass: less memory, more time. Default false. */
  gradientCheckpointing?: boolean
  /**
   * Label smoothing of the default loss: the fraction of each target that is spread over all classes. For DecoderLM and Salmonn
   * it is their own `labelSmoothing`. For other models the loss is computed from `logits`, shifted against the labels if the
   * model's `shiftsLabels` is true. Default 0.
   */
  labelSmoothingFactor?: number
  /**
   * NEFTune (Jain et al. 2023, https://arxiv.org/abs/2310.05914): add uniform noise of at most this value / √(time · dim) to the
   * token embeddings in training, such as 5. Default null: no noise.
   */
  neftuneNoiseAlpha?: number | null

  /** Seed of all default generators when training begins; null leaves them unchanged. Default 42. */
  seed?: number | null
  /** Seed of the order of the data. Default: `seed`. */
  dataSeed?: number | null
  /**
   * Resume from the last complete checkpoint if there is one, or from the folder of a given checkpoint. Default true, unlike
   * transformers.
   */
  resumeFromCheckpoint?: boolean | string
  /**
   * If the newest checkpoint cannot be read, resume from the newest older one that can, with a warning. Default false: throw an
   * error that names the damaged file. Not in transformers.
   */
  skipDamagedCheckpoints?: boolean

  /**
   * Logs to write next to the checkpoints: `metrics.jsonl`, TensorBoard events, `report.html`. Default all, unlike
   * transformers.
   */
  reportTo?: readonly ReportTarget[] | 'all' | 'none'
  /** Show a progress bar on standard error. Default: true if that is a terminal. */
  progress?: boolean
  /** Inverse of `progress`. */
  disableTqdm?: boolean

  /** Number of threads that read samples; needs a dataset given as a URL. Default 0. */
  dataloaderNumWorkers?: number
  /** Batches that each worker prefetches. Default 2. */
  dataloaderPrefetchFactor?: number
  /** Drop the last training batch if it is not full. Default false. */
  dataloaderDropLast?: boolean
  /** Group samples of similar length into batches: see the Trainer's `lengthOf`. Default false. */
  groupByLength?: boolean

  /** With several processes, 1 shards the optimizer's state across them (ZeRO stage 1). Default 0. Not in transformers. */
  zero?: 0 | 1
  /** Seconds that a process waits for the others, if the Trainer opens the process group. Default 1800. */
  ddpTimeout?: number
  /** With several processes, whether parameters may be unused by a loss. Default true, always; false is a little faster. */
  ddpFindUnusedParameters?: boolean
}

export type ReportTarget = 'jsonl' | 'tensorboard' | 'html'

/** All arguments with defaults filled in and aliases resolved. */
export type ResolvedArguments = Required<Omit<TrainingArguments, 'evaluationStrategy' | 'disableTqdm' | 'reportTo'>> & {
  reportTo: readonly ReportTarget[]
}
