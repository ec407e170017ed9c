import { ZeroRedundancyOptimizer } from '../../distributed/index.js'
import type { Module } from '../../nn/index.js'
import type { Tensor } from '../../tensor/index.js'
import { AdamW } from '../adam.js'
import { parameterGroups } from '../parameter-groups.js'
import { getScheduler } from '../scheduler.js'
import type { LRScheduler } from '../schedules.js'
import type { ResolvedArguments } from './arguments.js'
import type { Ranks } from './distributed.js'

/** What the Trainer needs of an optimiser: those of this library have it. */
export interface TrainerOptimizer {
  readonly groups: { params: Tensor[]; lr: number; initialLr?: number }[]
  step(): Promise<void>
  zeroGrad(): void
  stateDict?(): object
  /** In place of `stateDict` where each rank has a part of the state: all ranks call it, one gets the whole. */
  consolidateStateDict?(options: { to: number }): Promise<object | null>
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

/** AdamW over what is trained, divided over the ranks with `zero`; biases and weights of norms do not decay. */
export function makeOptimizer(model: Module, args: ResolvedArguments, ranks: Ranks): TrainerOptimizer {
  const { learningRate: lr, adamBeta1, adamBeta2, adamEpsilon: eps, weightDecay } = args
  const groups = parameterGroups(model, { weightDecay })
  const options = { lr, betas: [adamBeta1, adamBeta2] as [number, number], eps, weightDecay }
  if (args.zero === 0 || ranks.size === 1) return new AdamW(groups, options)
  return new ZeroRedundancyOptimizer(groups, (params) => new AdamW(params, options))
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
