import { ConfigError } from '../../base/errors.js'
import type { ResolvedArguments } from './arguments.js'
import type { TrainerControl } from './callbacks.js'
import { type TrainerState, wholeSteps } from './state.js'

/** Set what the strategies require after a step: log, evaluate, save or stop. */
export function afterStep(args: ResolvedArguments, state: TrainerState, control: TrainerControl): void {
  const { globalStep, maxSteps } = state
  const due = (strategy: string, interval: number) =>
    strategy === 'steps' && globalStep % wholeSteps(interval, maxSteps) === 0
  if (globalStep === 1 && args.loggingFirstStep) control.shouldLog = true
  if (due(args.loggingStrategy, args.loggingSteps)) control.shouldLog = true
  if (due(args.evalStrategy, args.evalSteps)) control.shouldEvaluate = true
  if (due(args.saveStrategy, args.saveSteps)) control.shouldSave = true
  if (globalStep < maxSteps) return
  control.shouldStop = true
  if (args.saveStrategy === 'steps') control.shouldSave = true
}

/** Set what the strategies require after an epoch. */
export function afterEpoch(args: ResolvedArguments, control: TrainerControl): void {
  if (args.loggingStrategy === 'epoch') control.shouldLog = true
  if (args.evalStrategy === 'epoch') control.shouldEvaluate = true
  if (args.saveStrategy === 'epoch') control.shouldSave = true
}

/** Record whether an evaluation is the best so far, and request a stop when patience is exhausted. */
export function judge(
  args: ResolvedArguments,
  state: TrainerState,
  control: TrainerControl,
  metrics: Record<string, number>,
): void {
  if (args.metricForBestModel === null) return
  const name = evalName(args.metricForBestModel)
  const metric = metrics[name]
  if (metric === undefined) {
    throw new ConfigError(
      `TrainingArguments.metricForBestModel: expected one of ${Object.keys(metrics).join(', ')}, got '${args.metricForBestModel}'`,
      {
        argument: 'metricForBestModel',
      },
    )
  }
  // Every comparison with a best value of NaN would be false.
  const gain = Number.isNaN(metric)
    ? Number.NEGATIVE_INFINITY
    : state.bestMetric === null
      ? Number.POSITIVE_INFINITY
      : (metric - state.bestMetric) * (args.greaterIsBetter ? 1 : -1)
  // Patience requires an improvement above the threshold, the best model any improvement.
  if (gain > args.earlyStoppingThreshold) state.evaluationsSinceBest = 0
  else state.evaluationsSinceBest++
  if (gain > 0) {
    state.bestMetric = metric
    state.bestStep = state.globalStep
    state.bestCheckpoint = null
    if (args.saveStrategy === 'best') control.shouldSave = true
  }
  if (args.earlyStoppingPatience !== null && state.evaluationsSinceBest >= args.earlyStoppingPatience) {
    control.shouldStop = true
  }
}

/** Normalize the name of an evaluation metric: `loss` and `evalLoss` both give `evalLoss`. */
export const evalName = (name: string): string =>
  /^eval[A-Z]/.test(name) ? name : `eval${name.charAt(0).toUpperCase()}${name.slice(1)}`
