import { argumentError, requireFunction } from '../base/check.js'
import { ConfigError } from '../base/errors.js'
import { Module } from '../nn/index.js'
import { NativeModule, nativeKind } from '../nn/native-module.js'
import { LayerNorm } from '../nn/normalization.js'
import { PeftModel, peftModelOf } from '../peft/model.js'
import type { Tensor } from '../tensor/index.js'
import type { GroupOptions } from '../train/optimizer.js'
import { LORA_PLUS } from './settings.js'

/** Options of LoRA+, by the names of PEFT's `create_loraplus_optimizer`. */
export interface LoraplusOptions {
  /** Learning rate of the matrices A, and of weights that train in full. */
  lr: number
  /** Learning rate of the matrices B, biases and magnitudes, as a multiple of `lr`: at least 1, for example 16. */
  loraplusLrRatio: number
  /** Learning rate of adapters of embeddings. Default 1e-6. */
  loraplusLrEmbedding?: number
  /** Weight decay, which biases and layer norms do not have. Default 0. */
  loraplusWeightDecay?: number
}

/** Group of parameters of a LoRA+ optimizer. */
export interface LoraplusGroup {
  params: Tensor[]
  lr: number
  weightDecay: number
}

/** Class of an optimizer with weight decay. */
export type OptimizerClass<O, T> = new (groups: LoraplusGroup[], options?: O) => T

/**
 * Create an optimizer with LoRA+'s learning rates (Hayou et al. 2024, https://arxiv.org/abs/2402.12354): the matrices B of the
 * adapters learn faster than the matrices A. Groups, rates and weight decay are those of PEFT's `create_loraplus_optimizer`; a group
 * without parameters is left out.
 *
 * ```ts
 * const optimizer = createLoraplusOptimizer(peft, AdamW, { lr: 5e-5, loraplusLrRatio: 16 })
 * ```
 * @param options LoRA+'s options, and others of the optimizer, such as `betas`
 * @throws ConfigError for a model without adapters, and for a wrong option
 */
export function createLoraplusOptimizer<O extends Partial<GroupOptions>, T>(
  model: PeftModel | Module,
  Optimizer: OptimizerClass<O, T>,
  options: LoraplusOptions & Omit<O, 'lr' | 'weightDecay'>,
): T {
  requireFunction('createLoraplusOptimizer', 'Optimizer', Optimizer)
  const { loraplusLrRatio, loraplusLrEmbedding, loraplusWeightDecay, ...rest } = options ?? {}
  const groups = loraplusGroups(model, {
    lr: rest.lr,
    loraplusLrRatio,
    ...(loraplusLrEmbedding !== undefined && { loraplusLrEmbedding }),
    ...(loraplusWeightDecay !== undefined && { loraplusWeightDecay }),
  })
  return new Optimizer(groups, rest as unknown as O)
}

/** Return the groups of a LoRA+ optimizer: matrices A, embeddings, matrices B with weight decay, and without. */
export function loraplusGroups(model: PeftModel | Module, options: LoraplusOptions): LoraplusGroup[] {
  const { lr, loraplusLrRatio, loraplusLrEmbedding, loraplusWeightDecay } = LORA_PLUS.read(
    'createLoraplusOptimizer',
    options,
  )
  const network = model instanceof PeftModel ? model.model : model
  if (!(network instanceof Module)) throw argumentError('createLoraplusOptimizer', 'model', 'a PeftModel', model)
  if (peftModelOf(network) === undefined) {
    throw new ConfigError(
      'createLoraplusOptimizer: expected a model with adapters, got none. Call getPeftModel first.',
      {
        argument: 'model',
      },
    )
  }
  const fast = lr * loraplusLrRatio
  const groups = {
    A: { params: [] as Tensor[], lr, weightDecay: loraplusWeightDecay },
    embedding: { params: [] as Tensor[], lr: loraplusLrEmbedding, weightDecay: loraplusWeightDecay },
    B: { params: [] as Tensor[], lr: fast, weightDecay: loraplusWeightDecay },
    noDecay: { params: [] as Tensor[], lr: fast, weightDecay: 0 },
  }
  const norms = [...network.namedModules()].filter(([, module]) => isLayerNorm(module)).map(([name]) => `${name}.`)
  for (const [name, param] of network.namedParameters()) {
    if (!param.requiresGrad) continue
    const isNorm = norms.some((norm) => name.startsWith(norm))
    if (/\blora_embedding_/.test(name)) groups.embedding.params.push(param)
    else if (!name.includes('lora_B') && param.ndim !== 1) groups.A.params.push(param)
    else groups[isNorm || name.includes('bias') ? 'noDecay' : 'B'].params.push(param)
  }
  return Object.values(groups).filter(({ params }) => params.length > 0)
}

const isLayerNorm = (module: Module): boolean =>
  module instanceof NativeModule ? nativeKind(module) === 'LayerNorm' : module instanceof LayerNorm
