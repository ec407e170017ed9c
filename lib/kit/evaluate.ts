import { setImmediate as macrotask } from 'node:timers/promises'
import { shown } from '../base/check.js'
import { ConfigError } from '../base/errors.js'
import type { Dataset } from '../data/dataset.js'
import { type Module, withEvalMode } from '../nn/index.js'
import { noGrad, scope } from '../tensor/index.js'

/** Samples, or a function that reads them on demand. */
export type Batch<S> = readonly S[] | (() => Promise<readonly S[]>)

/** Yield the samples of a dataset in batches, in order; with `indices` only those. */
export function* batchesOf<S>(
  data: Dataset<S>,
  batchSize: number,
  indices: readonly number[] = Array.from({ length: data.length }, (_, i) => i),
): Generator<() => Promise<S[]>, void, void> {
  for (let first = 0; first < indices.length; first += batchSize) {
    yield () => Promise.all(indices.slice(first, first + batchSize).map((index) => data.get(index, 0)))
  }
}

/**
 * Run a function on each batch, with the model in evaluation mode and without gradients. Tensors of a batch are freed after it, and
 * the model's mode is restored at the end. Other tasks of the event loop run between batches.
 * @returns the results in the order of the batches
 */
export const evaluateBatches = <S, R>(
  model: Module,
  batches: Iterable<Batch<S>>,
  run: (samples: readonly S[]) => Promise<R>,
): Promise<R[]> =>
  withEvalMode(model, async () => {
    const results: R[] = []
    for (const batch of batches) {
      await macrotask()
      const work = async () => run(typeof batch === 'function' ? await batch() : batch)
      results.push(await noGrad(() => scope(work)))
    }
    return results
  })

export interface EvaluateOptions<S, P, M> {
  /** Return one prediction per sample of a batch. */
  predict(samples: readonly S[]): Promise<readonly P[]>
  /** Compute metrics of all predictions. */
  metrics?: (predictions: readonly P[]) => M
  /** Callback with the number of samples done so far. */
  onBatch?: ((done: number) => void) | undefined
}

/**
 * Evaluate a model on batches, as {@link evaluateBatches}.
 * @returns predictions in the order of the samples, and their metrics
 * @throws ConfigError if the number of predictions differs from that of samples
 */
export async function evaluate<S, P, M = undefined>(
  model: Module,
  batches: Iterable<Batch<S>>,
  { predict, metrics, onBatch }: EvaluateOptions<S, P, M>,
): Promise<{ predictions: P[]; metrics: M }> {
  let done = 0
  const parts = await evaluateBatches(model, batches, async (samples: readonly S[]) => {
    const some = await predict(samples)
    if (!Array.isArray(some) || some.length !== samples.length) {
      const found = Array.isArray(some) ? `${some.length}` : shown(some)
      throw new ConfigError(
        `${model.constructor.name}: expected ${samples.length} predictions, one per sample, got ${found}. Check \`predict\`.`,
        {
          argument: 'model',
        },
      )
    }
    done += samples.length
    onBatch?.(done)
    return some as readonly P[]
  })
  const predictions = parts.flat() as P[]
  return { predictions, metrics: metrics?.(predictions) as M }
}
