// Parts that preference training and GRPO share.
import { ConfigError } from '../base/errors.js'
import type { Module } from '../nn/index.js'
import { type PeftModel, peftModelOf } from '../peft/model.js'
import { AdamW } from '../train/adam.js'
import type { TrainingArguments } from '../train/trainer/arguments.js'
import { resolveArguments } from '../train/trainer/resolve-arguments.js'
import { createLoraplusOptimizer } from './lora-plus.js'

/** Return the arguments of the Trainer: those of the settings, overridden by `args`. */
export function tuningArguments(
  where: string,
  own: Partial<TrainingArguments>,
  settings: { loraplusLrRatio: number | null; saveSteps?: number },
  run: { outputDir: string; evaluates: boolean; args: Partial<TrainingArguments> | undefined },
): TrainingArguments {
  const { outputDir, evaluates, args = {} } = run
  if (args.outputDir !== undefined && args.outputDir !== outputDir) {
    throw new ConfigError(`${where}: args.outputDir: expected none, got ${args.outputDir}. Pass outputDir instead.`, {
      argument: 'args',
    })
  }
  const optim = args.optim ?? 'adamw_torch'
  if (settings.loraplusLrRatio !== null && !optim.startsWith('adamw_torch')) {
    throw new ConfigError(`${where}: loraplusLrRatio: expected optim 'adamw_torch' with it, got '${optim}'.`, {
      argument: 'loraplusLrRatio',
    })
  }
  return {
    ...{ outputDir, evalStrategy: evaluates ? 'epoch' : 'no', saveStrategy: settings.saveSteps ? 'steps' : 'epoch' },
    ...own,
    ...args,
  }
}

/** Return the adapters of a model. @throws ConfigError for a model without */
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

/** Return the optimizer of LoRA+; undefined without. */
export function loraplusOptimizer(
  model: Module,
  loraplusLrRatio: number | null,
  training: TrainingArguments,
): AdamW | undefined {
  if (loraplusLrRatio === null) return undefined
  const { learningRate, weightDecay, adamBeta1, adamBeta2, adamEpsilon, masterWeights } = resolveArguments(training)
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
