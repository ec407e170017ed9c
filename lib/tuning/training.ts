import { ConfigError } from '../base/errors.js'
import type { SettingTable } from '../base/settings.js'
import { TRAINER_OPTIONS as ALL_OPTIONS } from '../kit/training-settings.js'
import type { Module } from '../nn/module.js'
import { type PeftModel, peftModelOf } from '../peft/model.js'
import { AdamW } from '../train/adam.js'
import type { TrainingArguments } from '../train/trainer/arguments.js'
import { resolveArguments } from '../train/trainer/resolve-arguments.js'
import { createLoraplusOptimizer } from './lora-plus.js'

/** Options that `trainSft`, `trainDpo` and `trainGrpo` pass to the Trainer. */
export const TRAINER_OPTIONS = {
  /** Folder of checkpoints, logs, report and result. */
  outputDir: { type: 'string', required: true },
  ...ALL_OPTIONS,
} as const satisfies SettingTable

/** Count of records that were left out, in the results of a training. */
export interface BadRecordCounts {
  count: number
  /** Numbers by reason. */
  reasons: Record<string, number>
}

/** Return the Trainer's arguments. @param own those that follow from the settings @param args those of the caller, which override */
export function trainingArguments(
  where: string,
  outputDir: string,
  own: Omit<TrainingArguments, 'outputDir'>,
  args: Partial<TrainingArguments> = {},
): TrainingArguments {
  if (args.outputDir !== undefined && args.outputDir !== outputDir) {
    throw new ConfigError(`${where}: args.outputDir: expected none, got ${args.outputDir}. Pass outputDir instead.`, {
      argument: 'args',
    })
  }
  return { outputDir, ...own, ...args }
}

/** Arguments of the Trainer that follow from settings which more than the Trainer reads. */
const OWNED = {
  gradientAccumulationSteps: 'accumulation',
  perDeviceTrainBatchSize: 'batchSize',
  seed: 'seed',
} as const satisfies Partial<Record<keyof TrainingArguments, string>>

/** Refuse arguments of the Trainer whose settings other parts of a run read too. */
export function refuseOwned(where: string, args: Partial<TrainingArguments> = {}): void {
  for (const [name, setting] of Object.entries(OWNED)) {
    const value = args[name as keyof typeof OWNED]
    if (value === undefined) continue
    throw new ConfigError(`${where}: args.${name}: expected none, got ${value}. Pass ${setting} instead.`, {
      argument: 'args',
    })
  }
}

/** Return the arguments of a run that evaluates at the end of each epoch. */
export const epochStrategies = (
  { saveSteps }: { saveSteps?: number },
  evalRecords: unknown,
): Pick<TrainingArguments, 'evalStrategy' | 'saveStrategy'> => ({
  evalStrategy: evalRecords === undefined ? 'no' : 'epoch',
  saveStrategy: saveSteps ? 'steps' : 'epoch',
})

/** Return the adapters of a model. @throws ConfigError for a model without, which does not have the option */
export function requireAdapters(
  where: string,
  model: Module,
  argument: string,
  expected = 'a model with adapters',
): PeftModel {
  const peft = peftModelOf(model)
  if (peft !== undefined) return peft
  throw new ConfigError(
    `${where}: ${argument}: expected ${expected}, got a model without adapters. Call getPeftModel first, or leave ${argument} out.`,
    { argument },
  )
}

/** Return the optimizer of LoRA+; undefined without a ratio. */
export function loraplusOptimizer(
  where: string,
  model: Module,
  loraplusLrRatio: number | null,
  training: TrainingArguments,
): AdamW | undefined {
  if (loraplusLrRatio === null) return undefined
  requireAdapters(where, model, 'loraplusLrRatio')
  const resolved = resolveArguments(training)
  if (!resolved.optim.startsWith('adamw_torch')) {
    throw new ConfigError(
      `${where}: loraplusLrRatio: expected optim 'adamw_torch' with it, got '${resolved.optim}'. Leave one of them out.`,
      { argument: 'loraplusLrRatio' },
    )
  }
  const { learningRate, weightDecay, adamBeta1, adamBeta2, adamEpsilon, masterWeights } = resolved
  return createLoraplusOptimizer(model, AdamW, {
    ...{ lr: learningRate, loraplusLrRatio, loraplusWeightDecay: weightDecay },
    ...{ betas: [adamBeta1, adamBeta2] as [number, number], eps: adamEpsilon, masterWeights },
  })
}

/** Return the name of a weight that trains in place, such as a bias: with the adapters off it is still the trained one. */
export function ownWeight(model: Module, peft: PeftModel): string | undefined {
  const saved = new Set(Object.values(peft.peftConfig).flatMap(({ modulesToSave }) => modulesToSave ?? []))
  const isSaved = (name: string) => {
    const parts = name.split('.')
    return parts.some((_, i) => [...saved].some((one) => `.${parts.slice(0, i).join('.')}`.endsWith(`.${one}`)))
  }
  const found = model
    .namedParameters()
    .find(([name, { requiresGrad }]) => requiresGrad && !name.includes('.lora_') && !isSaved(name))
  return found?.[0]
}
