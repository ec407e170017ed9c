import { shown } from '../../../base/check.js'
import { ConfigError } from '../../../base/errors.js'
import { requireForm } from '../../../base/form.js'
import type { Module } from '../../../nn/index.js'
import { noGrad, scope, Tensor, tensor } from '../../../tensor/index.js'
import type { EvalPrediction } from '../../../train/trainer/evaluate.js'
import type { LossOutput } from '../../../train/trainer/loss.js'
import type { SalmonnBatch } from '../data/collate.js'

/** Output of a model for a batch with targets: mean loss over their tokens, and numbers of correct and all tokens. */
export interface SalmonnForward {
  loss: Tensor | null
  correct?: number
  total?: number
}

export interface SalmonnLossOptions {
  /** Factor of the gradients, not of the loss. Default 1. */
  gradientFactor?: number
  /** Called with a loss that is NaN or infinite. */
  onNonFinite?: (loss: number) => void
}

/**
 * Compute the loss of `model.forward(batch)` for the Trainer. In training a loss that is not finite becomes 0 with infinite gradients: an
 * optimizer or gradient scaler that skips such steps does so in all processes, and the logged mean stays finite. In evaluation `logits` is
 * [1, 2]: the numbers of correct and of all tokens.
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
    throw new ConfigError(
      `${model.constructor.name}.forward: expected { loss } with a Tensor for a batch with targets, got ${shown(loss)}.`,
      {
        argument: 'model',
      },
    )
  }
  if (!model.training) {
    const counts = [[output?.correct ?? 0, output?.total ?? 0]]
    return { loss, logits: noGrad(() => tensor(counts, { dtype: 'float64' })) }
  }
  if (onNonFinite) {
    // item() would block the event loop.
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

/** Compute token accuracy under teacher forcing, over all of the data. */
export function salmonnTokenAccuracy({ predictions }: EvalPrediction): Record<string, number> {
  const [correct, total] = scope(() => Array.from(predictions.sum([0]).dataSync() as Float64Array)) as [number, number]
  return total > 0 ? { accuracy: correct / total } : {}
}

/**
 * Return the loss if it is finite, otherwise 0 with an infinite gradient: that of a square root at 0. The selection runs on the device,
 * without synchronization.
 */
function zeroWhereNotFinite(loss: Tensor, model: Module): Tensor {
  const parameter = model.parameters().find(({ requiresGrad }) => requiresGrad)
  if (!parameter)
    throw new ConfigError(
      `salmonnLoss.model: expected at least one trainable parameter, got none in ${model.constructor.name}.`,
      { argument: 'model' },
    )
  const finite = loss.isfinite()
  const zero = parameter.flatten().select(0, 0).to({ device: loss.device, dtype: 'float32' })
  // If the loss is finite this is the square root of 1, whose gradient times 0 is 0.
  const steep = zero
    .sub(zero.detach())
    .add(finite.to({ dtype: 'float32' }))
    .sqrt()
  return loss.where(finite, steep.to({ dtype: loss.dtype }).reshape(loss.shape))
}

/** Return the same value with a scaled gradient. */
const scaledGradient = (loss: Tensor, factor: number): Tensor => {
  const scaled = loss.mul(factor)
  return scaled.add(loss.detach().sub(scaled.detach()))
}
