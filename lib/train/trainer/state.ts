import type { ResolvedArguments } from './arguments.js'

/** One line of the log: `step`, `epoch`, and what was measured then (`loss`, `gradNorm`, `learningRate`, `evalLoss`, …). */
export interface LogEntry {
  step: number
  epoch: number
  [name: string]: number
}

/** Where a training stands. Written to `trainer_state.json` of each checkpoint. */
export interface TrainerState {
  /** Optimiser steps done. */
  globalStep: number
  /** Optimiser steps in all. */
  maxSteps: number
  /** Passes over the data so far, with the fraction of the one under way. */
  epoch: number
  /** The pass under way, from 0, and the batches of it that are done: where the data goes on. */
  epochIndex: number
  batchInEpoch: number
  /** Batches in a pass, null where only running tells. */
  batchesPerEpoch: number | null
  /** What was trained on so far. */
  samplesSeen: number
  tokensSeen: number
  /** Sum of the losses of the steps since the last log, their number, and the sum of all before. */
  lossSum: number
  lossSteps: number
  lossBefore: number
  /** The gradients' norm before clipping and the learning rate, of the last step. */
  gradNorm: number | null
  learningRate: number
  /** The best evaluation: its metric, its step, and the name of its checkpoint's folder. */
  bestMetric: number | null
  bestStep: number | null
  bestCheckpoint: string | null
  /** Evaluations since the best one. */
  evaluationsSinceBest: number
  /** Training was ended before `maxSteps`, by early stopping or a callback. */
  stopped: boolean
  /** Seconds of training, those before a resume included. */
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

/** Optimiser steps of the whole training. */
export function totalSteps(args: ResolvedArguments, batchesPerEpoch: number): number {
  if (args.maxSteps > 0) return args.maxSteps
  const stepsPerEpoch = Math.max(1, Math.ceil(batchesPerEpoch / args.gradientAccumulationSteps))
  return Math.ceil(args.numTrainEpochs * stepsPerEpoch)
}

/** Whole steps of an interval that may be a share of all. */
export const wholeSteps = (interval: number, maxSteps: number): number =>
  interval < 1 ? Math.max(1, Math.ceil(interval * maxSteps)) : interval
