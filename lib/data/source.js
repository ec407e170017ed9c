// @ts-check
// This file and worker.js are plain JavaScript: a worker thread loads them as they are, from the sources as from the
// build, whatever compiles the rest on the fly in the main thread.

/** @typedef {import('./dataset.js').Dataset<unknown>} Dataset */

/** Why a sample could not be read, and which. */
export class ReadFailure {
  /**
   * @param {number} index
   * @param {unknown} error
   */
  constructor(index, error) {
    this.index = index
    this.error = error
  }
}

/**
 * @param {unknown} value a dataset, or an array of samples
 * @param {string} where for the error
 * @returns {Dataset}
 */
export function asDataset(value, where) {
  if (Array.isArray(value)) return { length: value.length, get: (index) => value[index] }
  const dataset = /** @type {Partial<Dataset> | null | undefined} */ (value)
  const length = dataset?.length
  if (typeof dataset?.get !== 'function' || !Number.isSafeInteger(length) || Number(length) < 0) {
    throw new TypeError(`${where} is no dataset: expected an array, or an object with length and get(index).`)
  }
  return /** @type {Dataset} */ (dataset)
}

/**
 * Loads the module at `href` and makes its dataset.
 * @param {string} href
 * @param {unknown} workerData
 */
export async function openDataset(href, workerData) {
  const module = await import(/* @vite-ignore */ href)
  const exported = module.dataset ?? module.default
  const value = typeof exported === 'function' ? await exported(workerData) : exported
  return asDataset(value, `The export "dataset" (or default) of ${href}`)
}

/**
 * Reads one batch. All asynchronous reads of a batch are under way together; of several failures the first by place is
 * reported, so that the error does not depend on timing.
 * @param {Dataset} dataset
 * @param {number[]} indices
 * @param {number} epoch
 * @returns {Promise<unknown[]>}
 */
export async function readSamples(dataset, indices, epoch) {
  const samples = await Promise.all(
    indices.map(async (index) => {
      try {
        return await dataset.get(index, epoch)
      } catch (error) {
        return new ReadFailure(index, error)
      }
    }),
  )
  for (const sample of samples) if (sample instanceof ReadFailure) throw sample
  return samples
}
