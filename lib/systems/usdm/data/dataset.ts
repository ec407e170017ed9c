import { misuse } from '../../../base/check.js'
import { DataError } from '../../../base/errors.js'
import type { Dataset } from '../../../data/dataset.js'
import { ConcatDataset } from '../../../data/datasets.js'
import { lineDataset } from '../../../data/jsonl-dataset.js'
import { parseExample } from './examples.js'
import type { UsdmExample } from './prompt.js'

/** Examples to train on: the path of a file that `preprocessDailyTalk` or the original wrote, several of them, or examples. */
export type UsdmExamples = string | readonly string[] | readonly UsdmExample[] | Dataset<UsdmExample>

/**
 * Examples by index. Files are gone through once for where their lines are, and each line is read when it is its turn, so
 * that memory does not grow with them.
 * @param vocabSize ids have to be below it
 * @throws DataError for a file without a line, and when it is read with `file` and `line` for one that is no example
 */
export async function usdmDataset(
  where: string,
  name: string,
  given: UsdmExamples,
  vocabSize: number,
): Promise<Dataset<UsdmExample>> {
  return openRows(where, name, given, (text, file, line) => {
    const example = parseExample(text, file, line)
    requireIds(example.inputIds, vocabSize, `${file}, line ${line}`, { file, line })
    return example
  })
}

/** Lines of files as samples, or samples that are there. */
export async function openRows<T>(
  where: string,
  name: string,
  given: string | readonly string[] | readonly T[] | Dataset<T>,
  parse: (text: string, file: string, line: number) => T,
): Promise<Dataset<T>> {
  const files = typeof given === 'string' ? [given] : given
  if (Array.isArray(files) && files.length > 0 && files.every((file) => typeof file === 'string')) {
    const parts: Dataset<T>[] = []
    for (const file of files as string[]) {
      const part = await lineDataset(file, parse)
      if (part.length === 0) throw new DataError(`${file} holds no line to train on`, { file })
      parts.push(part)
    }
    return parts.length === 1 ? (parts[0] as Dataset<T>) : new ConcatDataset(parts)
  }
  if (Array.isArray(files) && files.length > 0) {
    const samples = files as readonly T[]
    return { length: samples.length, get: (i) => samples[i] as T }
  }
  const { length, get } = (files ?? {}) as Partial<Dataset<T>>
  if (Number.isSafeInteger(length) && typeof get === 'function') return files as Dataset<T>
  throw misuse(where, name, 'a file, a list of files or of samples, or a dataset', given)
}

/** @throws DataError naming the place of an id that the model has no row for */
export function requireIds(
  ids: readonly number[],
  vocabSize: number,
  place: string,
  fields: Readonly<Record<string, unknown>>,
): void {
  const wrong = ids.findIndex((id) => id >= vocabSize)
  if (wrong < 0) return
  throw new DataError(
    `${place}: id ${ids[wrong]} (number ${wrong + 1}) is beyond the ${vocabSize} of the tokenizer: was it made with another?`,
    { ...fields, id: ids[wrong], vocabSize },
  )
}
