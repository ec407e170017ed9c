import { ConfigError } from '../../base/errors.js'
import { ZeroRedundancyOptimizer } from '../../distributed/index.js'
import type { Module } from '../../nn/index.js'
import type { Tensor } from '../../tensor/index.js'
import { Adagrad } from '../adagrad.js'
import { AdamW } from '../adam.js'
import { AdamW8bit } from '../adamw-8bit.js'
import { Lion } from '../lion.js'
import type { GroupOptions, Optimizer } from '../optimizer.js'
import { parameterGroups } from '../parameter-groups.js'
import { RMSprop } from '../rmsprop.js'
import { getScheduler } from '../scheduler.js'
import type { LRScheduler } from '../schedules.js'
import { SGD } from '../sgd.js'
import { TransformersAdafactor } from '../transformers-adafactor.js'
import type { OptimizerName, ResolvedArguments } from './arguments.js'
import type { Ranks } from './distributed.js'
import { MuonWithAdamW } from './muon-adamw.js'
import { warn } from './rng.js'

/** Interface that the Trainer needs of an optimizer; those of this library implement it. */
export interface TrainerOptimizer {
  readonly groups: { params: Tensor[]; lr: number; initialLr?: number }[]
  step(): Promise<void>
  zeroGrad(): void
  stateDict?(): object
  /** Replaces `stateDict` if each rank has a part of the state: all ranks call it, and one gets the full state. */
  consolidateStateDict?(options: { to: number }): Promise<object | null>
  loadStateDict(state: never): void
  dispose(): void
}

/** Interface that the Trainer needs of a schedule: `step()` after each optimizer step. */
export interface TrainerScheduler {
  step(): void
  stateDict(): object
  loadStateDict(state: never): void
}

/** Interface that the Trainer needs of a gradient scaler, for `fp16`. */
export interface TrainerScaler {
  /** Return the loss times the scale. */
  scale(loss: Tensor): Tensor
  /** Divide the optimizer's gradients by the scale. */
  unscale(optimizer: never): unknown
  /** Take the optimizer's step and return true; if a gradient is not finite, skip it and return false. */
  step(optimizer: never): boolean | Promise<boolean>
  /** Set the scale for the next step. */
  update(): void
  /** Return the current scale. At a scale of 1 or less, overflowing gradients are not caused by the scale: see `onNonFinite`. */
  getScale?(): number
  stateDict(): object
  loadStateDict(state: never): void
}

export interface TrainerOptimizers {
  /** Default: the optimizer that the arguments name. */
  optimizer?: TrainerOptimizer
  /** Default: the schedule of `lrSchedulerType` and the warm-up arguments. */
  scheduler?: TrainerScheduler
  /** For `fp16`. Default: a GradScaler. */
  scaler?: TrainerScaler
}

type Groups = ReturnType<typeof parameterGroups>

const adamw = (groups: Groups, args: ResolvedArguments) => new AdamW(groups, adamOptions(args))
const adamw8bit = (groups: Groups, args: ResolvedArguments) => new AdamW8bit(groups, adamOptions(args))

/** Optimizers that `optim` can name. */
export const OPTIMIZERS = {
  adamw_torch: adamw,
  adamw_torch_fused: adamw,
  adamw_8bit: adamw8bit,
  adamw_bnb_8bit: adamw8bit,
  lion_32bit: (groups: Groups, args: ResolvedArguments) => {
    const { eps: _, ...options } = adamOptions(args)
    return new Lion(groups, options)
  },
  sgd: (groups: Groups, args: ResolvedArguments) => new SGD(groups, plainOptions(args)),
  adagrad: (groups: Groups, args: ResolvedArguments) => new Adagrad(groups, plainOptions(args)),
  rmsprop: (groups: Groups, args: ResolvedArguments) => new RMSprop(groups, plainOptions(args)),
  adafactor: (groups: Groups, args: ResolvedArguments) =>
    new TransformersAdafactor(groups, { ...plainOptions(args), scaleParameter: false, relativeStep: false }),
  muon: (groups: Groups, args: ResolvedArguments, model: Module) => new MuonWithAdamW(model, groups, adamOptions(args)),
} satisfies Record<OptimizerName, (groups: Groups, args: ResolvedArguments, model: Module) => TrainerOptimizer>

function plainOptions({ learningRate: lr, weightDecay, masterWeights }: ResolvedArguments) {
  return { lr, weightDecay, masterWeights }
}

function adamOptions(args: ResolvedArguments) {
  const betas: [number, number] = [args.adamBeta1, args.adamBeta2]
  return { ...plainOptions(args), betas, eps: args.adamEpsilon }
}

/**
 * Create the optimizer for the trainable parameters, sharded over the ranks with `zero`. Without `decayAll` biases and norms do
 * not decay.
 */
export function makeOptimizer(model: Module, args: ResolvedArguments, ranks: Ranks): TrainerOptimizer {
  const { weightDecay, decayAll } = args
  const halves = [...model.namedParameters()].filter(([, one]) => one.requiresGrad && one.dtype === 'float16')
  if (halves.length > 0) {
    warn(
      `Trainer: ${halves.length} trainable parameters are float16, such as ${halves[0]?.[0]}. Small gradients and updates are ` +
        "lost. Load the model with dtype: 'float32', and train with bf16 or fp16 for speed.",
    )
  }
  const groups = parameterGroups(model, { weightDecay, ...(decayAll && { noDecay: () => false }) })
  const make = OPTIMIZERS[args.optim] as (groups: Groups, args: ResolvedArguments, model: Module) => TrainerOptimizer
  if (args.zero === 0 || ranks.size === 1) return make(groups, args, model)
  if (args.optim === 'muon') {
    throw new ConfigError(
      "TrainingArguments.zero: expected 0 with optim 'muon', which consists of two optimizers, got 1. Leave it out.",
      { argument: 'zero' },
    )
  }
  return new ZeroRedundancyOptimizer<GroupOptions>(
    groups,
    (params) => make(params as Groups, args, model) as Optimizer<GroupOptions>,
  )
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
