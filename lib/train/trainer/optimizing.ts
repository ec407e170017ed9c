import type { Module } from '../../nn/index.js'
import type { Tensor } from '../../tensor/index.js'
import { AdamW } from '../adam.js'
import {
  constantSchedule,
  constantScheduleWithWarmup,
  cosineScheduleWithWarmup,
  type DecayOptions,
  LRScheduler,
  linearScheduleWithWarmup,
  type Schedule,
} from '../schedules.js'
import type { ResolvedArguments, SchedulerName } from './arguments.js'

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
  /** For `fp16`. */
  scaler?: TrainerScaler
}

export const SCHEDULES: Record<SchedulerName, (options: DecayOptions) => Schedule> = {
  linear: linearScheduleWithWarmup,
  cosine: cosineScheduleWithWarmup,
  constant: () => constantSchedule,
  constant_with_warmup: constantScheduleWithWarmup,
}

/** AdamW over what is trained; biases and weights of norms do not decay. */
export function makeOptimizer(model: Module, args: ResolvedArguments): AdamW {
  const { learningRate: lr, adamBeta1, adamBeta2, adamEpsilon: eps, weightDecay } = args
  const decayed: Tensor[] = []
  const others: Tensor[] = []
  for (const [name, parameter] of model.namedParameters()) {
    if (!parameter.requiresGrad) continue
    if (decays(name, parameter)) decayed.push(parameter)
    else others.push(parameter)
  }
  const groups = [
    { params: decayed, weightDecay },
    { params: others, weightDecay: 0 },
  ].filter(({ params }) => params.length > 0)
  return new AdamW(groups, { lr, betas: [adamBeta1, adamBeta2], eps, weightDecay })
}

/** Norms have no matrix, whatever they are called; neither have biases. */
const decays = (name: string, parameter: Tensor): boolean =>
  parameter.ndim > 1 && !/(^|\.)bias$|(^|[._])(layer_?norm|rms_?norm|norm)([._]|$)/i.test(name)

export function makeScheduler(
  optimizer: TrainerOptimizer,
  args: ResolvedArguments,
  numTrainingSteps: number,
): LRScheduler {
  const numWarmupSteps = args.warmupSteps > 0 ? args.warmupSteps : Math.ceil(args.warmupRatio * numTrainingSteps)
  return new LRScheduler(optimizer, SCHEDULES[args.lrSchedulerType]({ numWarmupSteps, numTrainingSteps }))
}
