import { DataError } from '../../../base/errors.js'
import type { Dataset } from '../../../data/dataset.js'
import { Random } from '../../../data/random.js'

/** Attempts per record, including the record itself. */
const ATTEMPTS = 20

/**
 * Wrap data so that an unusable record is replaced by a random one, drawn by seed, epoch and index, as in ms-swift 2.6 for models with a
 * vision encoder.
 * @param onBad called for each record that cannot be used
 */
export const replacing = <T>(data: Dataset<T>, seed: number, onBad: (error: DataError) => void): Dataset<T> => ({
  length: data.length,
  async get(index, epoch) {
    const random = new Random(seed, epoch * data.length + index)
    const most = Math.min(ATTEMPTS, data.length)
    let last: DataError | undefined
    for (let attempt = 0; attempt < most; attempt++) {
      try {
        return await data.get(attempt === 0 ? index : random.below(data.length), epoch)
      } catch (error) {
        if (!(error instanceof DataError)) throw error
        onBad(error)
        last = error
      }
    }
    throw new DataError(
      `data: expected a usable record within ${most} draws, got only unusable ones. The last: ${last?.message}`,
      { cause: last },
    )
  },
})
