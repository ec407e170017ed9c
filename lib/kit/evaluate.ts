import { setImmediate as macrotask } from 'node:timers/promises'
import { ConfigError } from '../base/errors.js'
import type { Dataset } from '../data/dataset.js'
import { evaluating, type Module } from '../nn/index.js'
import { noGrad, scope } from '../tensor/index.js'

/** Samples, or what reads them when it is their turn. */
export type Batch<S> = readonly S[] | (() => Promise<readonly S[]>)

/** The samples of a dataset in batches, in order; of `indices` where they are given. */
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
 * Runs something on each batch with a model in evaluation mode, without gradients, and frees its tensors and those of
 * samples that are read for it; the model's mode is put back. Between batches other work goes on.
 * @returns what it gives for each batch
 */
export const evaluateBatches = <S, R>(
  model: Module,
  batches: Iterable<Batch<S>>,
  run: (samples: readonly S[]) => Promise<R>,
): Promise<R[]> =>
  evaluating(model, async () => {
    const results: R[] = []
    for (const batch of batches) {
      await macrotask()
      const work = async () => run(typeof batch === 'function' ? await batch() : batch)
      results.push(await noGrad(() => scope(work)))
    }
    return results
  })

export interface EvaluateOptions<S, P, M> {
  /** What the model says of each sample of a batch. */
  predict(samples: readonly S[]): Promise<readonly P[]>
  /** What all of that comes to. */
  metrics?: (predictions: readonly P[]) => M
  /** Called with the number of samples done so far. */
  onBatch?: ((done: number) => void) | undefined
}

/**
 * Runs a model over data, as {@link evaluateBatches} does.
 * @returns what it says of each sample, in their order, and what that comes to
 * @throws ConfigError where it does not say one thing of each sample
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
      const found = Array.isArray(some) ? some.length : 'no'
      throw new ConfigError(`${model.constructor.name} gave ${found} answers to ${samples.length} samples`, {
        argument: 'model',
      })
    }
    done += samples.length
    onBatch?.(done)
    return some as readonly P[]
  })
  const predictions = parts.flat() as P[]
  return { predictions, metrics: metrics?.(predictions) as M }
}
