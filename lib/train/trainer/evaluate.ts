import { setImmediate as macrotask } from 'node:timers/promises'
import { ConfigError } from '../../base/errors.js'
import { type Module, withEvalMode } from '../../nn/index.js'
import { cat, keepAlive, noGrad, ops, scope, Tensor } from '../../tensor/index.js'
import type { Ranks } from './distributed.js'
import { isEmpty, type LossOutput, labelsOf, onDevice } from './loss.js'

/** Argument of `computeMetrics`: predictions on all of the data, in its order, on the CPU. */
export interface EvalPrediction {
  /** The model's `logits`, or the result of `preprocessLogits`: [samples, ...]. */
  predictions: Tensor
  /** The batches' `labels`, [samples, ...]; null if they have none. */
  labels: Tensor | null
}

/** Output of a model for a batch without labels. */
export interface UnlabeledOutput {
  loss: null
  logits?: Tensor
}

export interface EvalOptions<M extends Module, B> {
  model: M
  batches: AsyncIterable<B>
  device: string
  /** Run the model and return its loss, or null if the data has no labels. */
  forward: (batch: B) => Promise<LossOutput | UnlabeledOutput>
  countItems: (batch: B) => number
  countRows: (batch: B) => number
  preprocessLogits?: ((logits: Tensor, labels: Tensor | null) => Tensor) | undefined
  /** Whether to collect predictions. */
  collect: boolean
  /** Each rank evaluates its own batches; the result covers all. */
  ranks: Ranks
}

export interface Evaluated {
  /** Mean over all items; null without labels. */
  loss: number | null
  samples: number
  /** Tensors in the caller's scope. */
  predictions: Tensor | null
  labels: Tensor | null
}

/** Run a model over data, without gradients and in evaluation mode; restores the mode afterwards. */
export async function runEvaluation<M extends Module, B>(options: EvalOptions<M, B>): Promise<Evaluated> {
  const { model, batches, device, collect, ranks } = options
  return withEvalMode(model, () =>
    scope(() =>
      noGrad(async () => {
        const predictions: Tensor[] = []
        const labels: Tensor[] = []
        let [lossSum, items, samples] = [0, 0, 0]
        for await (const given of batches) {
          await macrotask()
          if (isEmpty(given)) continue
          await scope(async () => {
            const count = options.countItems(given)
            samples += options.countRows(given)
            const batch = await onDevice(given, device)
            const output = await options.forward(batch)
            if (output.loss) {
              lossSum += Number((await output.loss.to('float64').data())[0]) * count
              items += count
            }
            if (!collect) return
            const localLabels = labelsOf(batch) ?? null
            const logits = logitsOf(output, options.preprocessLogits, localLabels)
            predictions.push(keepAlive(logits.to({ device: 'cpu', copy: true })))
            if (localLabels) labels.push(keepAlive(localLabels.to({ device: 'cpu', copy: true })))
          })
        }
        const [losses, weights, rows] = (await ranks.sum([lossSum, items, samples])) as [number, number, number]
        return {
          loss: weights > 0 ? losses / weights : null,
          samples: rows,
          predictions: collect ? await ranks.rows(predictions.length > 0 ? joined(predictions) : null) : null,
          labels: collect ? await ranks.rows(labels.length > 0 ? joined(labels) : null) : null,
        }
      }),
    ),
  )
}

function logitsOf(
  output: { logits?: Tensor },
  preprocess: ((logits: Tensor, labels: Tensor | null) => Tensor) | undefined,
  labels: Tensor | null,
): Tensor {
  const { logits } = output
  if (!(logits instanceof Tensor)) {
    throw new ConfigError(
      'Trainer: expected logits for predictions, got none. Return { loss, logits } from computeLoss or from the model',
      {
        argument: 'computeMetrics',
      },
    )
  }
  return preprocess ? preprocess(logits.detach(), labels) : logits.detach()
}

/** Concatenate all batches; shorter rows are padded with -100, as in transformers. */
function joined(parts: Tensor[]): Tensor {
  if ((parts[0] as Tensor).ndim < 2) return cat(parts, 0)
  const longest = Math.max(...parts.map((part) => part.size(1)))
  const filled = parts.map((part) => {
    const missing = longest - part.size(1)
    if (missing === 0) return part
    // `pad` takes pairs of sizes, starting with the last dimension; [samples, length, ...] grows at the end of its second.
    const sizes = [...Array.from({ length: 2 * (part.ndim - 2) }, () => 0), 0, missing]
    return ops.constantPadNd(part, sizes, -100)
  })
  return cat(filled, 0)
}
