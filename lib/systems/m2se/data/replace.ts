import { DataError } from '../../../base/errors.js'
import type { Dataset } from '../../../data/dataset.js'
import { Random } from '../../../data/random.js'

/** Attempts for a record, the record itself among them. */
const ATTEMPTS = 20

/**
 * Data of which what cannot be used gives way to another, drawn by seed, epoch and place: ms-swift 2.6 does so for models with
 * pictures.
 * @param onBad hears of each that cannot be used
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
    throw new DataError(`${most} records that were drawn cannot be used, the last: ${last?.message}`, { cause: last })
  },
})
