import type { Module } from '../../nn/index.js'
import type { Tensor } from '../../tensor/index.js'
import { AdamW } from '../adam.js'
import { parameterGroups } from '../parameter-groups.js'
import { getScheduler } from '../scheduler.js'
import type { LRScheduler } from '../schedules.js'
import type { ResolvedArguments } from './arguments.js'

/** What the Trainer needs of an optimiser: those of this library have it. */
export interface TrainerOptimizer {
  readonly groups: { params: Tensor[]; lr: number; initialLr?: number }[]
  step(): Promise<void>
  zeroGrad(): void
  stateDict(): object
  loadStateDict(state: never): void
  dispose(): void
}

/** What the Trainer needs of a schedule: `step()` after each optimiser step. */
export interface TrainerScheduler {
  step(): void
  stateDict(): object
  loadStateDict(state: never): void
}

/** What the Trainer needs of a gradient scaler, for `fp16`. */
export interface TrainerScaler {
  /** The loss times the scale. */
  scale(loss: Tensor): Tensor
  /** Divides the optimiser's gradients by the scale. */
  unscale(optimizer: never): unknown
  /** The optimiser's step, or none where a gradient is not finite: then it gives false. */
  step(optimizer: never): boolean | Promise<boolean>
  /** Sets the scale for the next step. */
  update(): void
  stateDict(): object
  loadStateDict(state: never): void
}

export interface TrainerOptimizers {
  /** Default: an AdamW made from the arguments. */
  optimizer?: TrainerOptimizer
  /** Default: what `lrSchedulerType` and the warm-up arguments say. */
  scheduler?: TrainerScheduler
  /** For `fp16`. Default: a GradScaler. */
  scaler?: TrainerScaler
}

/** AdamW over what is trained; biases and weights of norms do not decay. */
export function makeOptimizer(model: Module, args: ResolvedArguments): AdamW {
  const { learningRate: lr, adamBeta1, adamBeta2, adamEpsilon: eps, weightDecay } = args
  return new AdamW(parameterGroups(model, { weightDecay }), { lr, betas: [adamBeta1, adamBeta2], eps, weightDecay })
}

export function makeScheduler(
  optimizer: TrainerOptimizer,
  args: ResolvedArguments,
  numTrainingSteps: number,
): LRScheduler {
  const numWarmupSteps = args.warmupSteps > 0 ? args.warmupSteps : Math.ceil(args.warmupRatio * numTrainingSteps)
  const schedulerSpecificOptions = args.lrSchedulerKwargs
  return getScheduler(args.lrSchedulerType, optimizer, { numWarmupSteps, numTrainingSteps, schedulerSpecificOptions })
}
