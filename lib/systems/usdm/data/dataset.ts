import { argumentError } from '../../../base/check.js'
import { DataError } from '../../../base/errors.js'
import type { Dataset } from '../../../data/dataset.js'
import { ConcatDataset } from '../../../data/datasets.js'
import { lineDataset } from '../../../data/jsonl-dataset.js'
import { parseExample } from './examples.js'
import type { UsdmExample } from './prompt.js'

/** Training examples: one or more paths of files that `preprocessDailyTalk` or the original wrote, or the examples. */
export type UsdmExamples = string | readonly string[] | readonly UsdmExample[] | Dataset<UsdmExample>

/**
 * Return examples by index. Each file is scanned once for the offsets of its lines, and each line is read on access, so memory does
 * not grow with the files.
 * @param vocabSize all ids must be below it
 * @throws DataError for an empty file; on access, with `file` and `line`, for a malformed example
 */
export async function usdmDataset(
  where: string,
  name: string,
  source: UsdmExamples,
  vocabSize: number,
): Promise<Dataset<UsdmExample>> {
  return openRows(where, name, source, (text, file, line) => {
    const example = parseExample(text, file, line)
    requireIds(example.inputIds, vocabSize, `${file}, line ${line}`, { file, line })
    return example
  })
}

/** Return the lines of files as samples, or the samples themselves. */
export async function openRows<T>(
  where: string,
  name: string,
  source: string | readonly string[] | readonly T[] | Dataset<T>,
  parse: (text: string, file: string, line: number) => T,
): Promise<Dataset<T>> {
  const files = typeof source === 'string' ? [source] : source
  if (Array.isArray(files) && files.length > 0 && files.every((file) => typeof file === 'string')) {
    const parts: Dataset<T>[] = []
    for (const file of files as string[]) {
      const part = await lineDataset(file, parse)
      if (part.length === 0) {
        throw new DataError(`${file}: expected at least one line of training data, got none.`, { file })
      }
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
  throw argumentError(where, name, 'a file, a list of files or of samples, or a dataset', source)
}

/** @throws DataError with the location of an id that is outside of the vocabulary */
export function requireIds(
  ids: readonly number[],
  vocabSize: number,
  location: string,
  fields: Readonly<Record<string, unknown>>,
): void {
  const outside = ids.findIndex((id) => id >= vocabSize)
  if (outside < 0) return
  throw new DataError(
    `${location}: expected ids below ${vocabSize}, the tokenizer's vocabulary size, got ${ids[outside]} (number ${outside + 1}). Use the tokenizer that the data was made with.`,
    { ...fields, id: ids[outside], vocabSize },
  )
}
