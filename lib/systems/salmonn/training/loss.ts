import { ConfigError } from '../../../base/errors.js'
import { requireForm } from '../../../base/form.js'
import type { Module } from '../../../nn/index.js'
import { noGrad, scope, Tensor, tensor } from '../../../tensor/index.js'
import type { EvalPrediction } from '../../../train/trainer/evaluate.js'
import type { LossOutput } from '../../../train/trainer/loss.js'
import type { SalmonnBatch } from '../data/collate.js'

/** What a model says of a batch with targets: the mean loss over their tokens, and how many of these it would have said. */
export interface SalmonnForward {
  loss: Tensor | null
  correct?: number
  total?: number
}

export interface SalmonnLossOptions {
  /** Factor on the gradients, but not on the loss. Default 1. */
  gradientFactor?: number
  /** Hears of a loss that is NaN or infinite. */
  onNonFinite?: (loss: number) => void
}

/**
 * The loss of `model.forward(batch)` for the Trainer. While it trains, a loss that is not finite counts as 0 and makes the
 * gradients infinite: an optimiser or gradient scaler that leaves out such steps does so, in all processes alike, and the
 * logged mean stays a number. While it evaluates, `logits` is [1, 2]: right tokens, and all.
 */
export async function salmonnLoss<M extends Module>(
  model: M,
  batch: SalmonnBatch,
  options: SalmonnLossOptions = {},
): Promise<LossOutput> {
  requireForm('salmonnLoss', 'model', model, { forward: 'function' })
  requireForm('salmonnLoss', 'options', options, { 'gradientFactor?': 'number', 'onNonFinite?': 'function' })
  const { gradientFactor = 1, onNonFinite } = options
  const forward = model.forward as unknown as (batch: SalmonnBatch) => unknown
  const output = (await forward.call(model, batch)) as SalmonnForward | null
  const loss = output?.loss
  if (!(loss instanceof Tensor)) {
    throw new ConfigError(`${model.constructor.name}.forward() gave no loss for a batch with targets`, {
      argument: 'model',
    })
  }
  if (!model.training) {
    const counts = [[output?.correct ?? 0, output?.total ?? 0]]
    return { loss, logits: noGrad(() => tensor(counts, { dtype: 'float64' })) }
  }
  if (onNonFinite) {
    // Not item(), for which the event loop would wait.
    const read = await scope(() => noGrad(() => loss.detach().to({ dtype: 'float64' }).data()))
    if (!Number.isFinite(Number(read[0]))) onNonFinite(Number(read[0]))
  }
  return {
    loss: scope(() => {
      const guarded = zeroWhereNotFinite(loss, model)
      return gradientFactor === 1 ? guarded : scaledGradient(guarded, gradientFactor)
    }),
  }
}

/** Token accuracy under teacher forcing, over all of the data. */
export function salmonnTokenAccuracy({ predictions }: EvalPrediction): Record<string, number> {
  const [correct, total] = scope(() => Array.from(predictions.sum([0]).dataSync() as Float64Array)) as [number, number]
  return total > 0 ? { accuracy: correct / total } : {}
}

/**
 * The loss where it is finite; else 0 with an infinite gradient, that of a root at 0. It is chosen where the loss is: nobody
 * waits for it.
 */
function zeroWhereNotFinite(loss: Tensor, model: Module): Tensor {
  const parameter = model.parameters().find(({ requiresGrad }) => requiresGrad)
  if (!parameter) throw new ConfigError(`Nothing of ${model.constructor.name} trains`, { argument: 'model' })
  const finite = loss.isfinite()
  const zero = parameter.flatten().select(0, 0).to({ device: loss.device, dtype: 'float32' })
  // Where it is not chosen it is the root of 1, whose gradient times 0 is 0.
  const steep = zero
    .sub(zero.detach())
    .add(finite.to({ dtype: 'float32' }))
    .sqrt()
  return loss.where(finite, steep.to({ dtype: loss.dtype }).reshape(loss.shape))
}

/** The same value with another gradient. */
const scaledGradient = (loss: Tensor, factor: number): Tensor => {
  const scaled = loss.mul(factor)
  return scaled.add(loss.detach().sub(scaled.detach()))
}
