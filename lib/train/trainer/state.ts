import type { ResolvedArguments } from './arguments.js'

/** Log entry: `step`, `epoch` and the values measured (`loss`, `gradNorm`, `learningRate`, `evalLoss`, …). */
export interface LogEntry {
  step: number
  epoch: number
  [name: string]: number
}

/** State of a training. Written to `trainer_state.json` of each checkpoint. */
export interface TrainerState {
  /** Optimizer steps done. */
  globalStep: number
  /** Optimizer steps of the whole training. */
  maxSteps: number
  /** Epochs so far, with the fraction of the current one. */
  epoch: number
  /** Index of the current epoch, and its number of finished batches: the position in the data. */
  epochIndex: number
  batchInEpoch: number
  /** Batches in an epoch; null if unknown before iterating. */
  batchesPerEpoch: number | null
  /** Number of samples trained on so far. */
  samplesSeen: number
  tokensSeen: number
  /** Sum of the losses of the steps since the last log, their number, and the sum before that. */
  lossSum: number
  lossSteps: number
  lossBefore: number
  /** Gradient norm before clipping and learning rate of the last step. */
  gradNorm: number | null
  learningRate: number
  /** Best evaluation: its metric, its step, and the name of its checkpoint's folder. */
  bestMetric: number | null
  bestStep: number | null
  bestCheckpoint: string | null
  /** Evaluations since the best one. */
  evaluationsSinceBest: number
  /** Whether training was ended before `maxSteps`, by early stopping or a callback. */
  stopped: boolean
  /** Seconds of training, including those before a resume. */
  seconds: number
  logHistory: LogEntry[]
}

export const newState = (): TrainerState => ({
  globalStep: 0,
  maxSteps: 0,
  epoch: 0,
  epochIndex: 0,
  batchInEpoch: 0,
  batchesPerEpoch: null,
  samplesSeen: 0,
  tokensSeen: 0,
  lossSum: 0,
  lossSteps: 0,
  lossBefore: 0,
  gradNorm: null,
  learningRate: 0,
  bestMetric: null,
  bestStep: null,
  bestCheckpoint: null,
  evaluationsSinceBest: 0,
  stopped: false,
  seconds: 0,
  logHistory: [],
})

/** Return the optimizer steps of the whole training. */
export function totalSteps(args: ResolvedArguments, batchesPerEpoch: number): number {
  if (args.maxSteps > 0) return args.maxSteps
  const stepsPerEpoch = Math.max(1, Math.ceil(batchesPerEpoch / args.gradientAccumulationSteps))
  return Math.ceil(args.numTrainEpochs * stepsPerEpoch)
}

/** Return the number of steps of an interval that may be a fraction of all steps. */
export const wholeSteps = (interval: number, maxSteps: number): number =>
  interval < 1 ? Math.max(1, Math.ceil(interval * maxSteps)) : interval
