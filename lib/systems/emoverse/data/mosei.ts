import { requireOneOf, requireOptions, requireString, shown } from '../../../base/check.js'
import { DataError } from '../../../base/errors.js'
import { readCsvStream } from '../../../files/csv/csv.js'
import { readPickle } from '../../../files/pickle/read-pickle.js'
import { LazyTensor } from '../../../files/pickle/tensors.js'
import type { Part } from '../../../kit/split.js'
import { Tensor } from '../../../tensor/index.js'
import type { MoseiSample } from './samples.js'

export interface ReadMoseiOptions {
  /** Split. Default 'train'. */
  part?: Part
  /**
   * Table of emotions, which MMSA's files lack: `id` (`VIDEO/CLIP`, or MMSA's `VIDEO$_$CLIP`) and the intensities `happy`, `sad`, `anger`,
   * `surprise`, `disgust` and `fear`. The strongest is the clip's emotion (the first, if several are equal); if all are 0 it is neutral.
   */
  emotions?: string
}

/** Clips of a file, and ids without a match. */
export interface MoseiData {
  samples: MoseiSample[]
  /** Clips without a row in the table of emotions, and rows without a clip. */
  unmatched: { withoutEmotions: string[]; withoutClip: string[] }
}

/**
 * Read MOSEI's labels and transcripts from a file of MMSA (`unaligned_50.pkl`, `aligned_50.pkl`; https://github.com/thuiar/MMSA): a pickle
 * with `train`, `valid` and `test`, each with `id`, `raw_text` and `regression_labels`. Its features are not loaded.
 * @throws DataError naming the file and the field
 */
export async function readMosei(file: string, options: ReadMoseiOptions = {}): Promise<MoseiData> {
  const where = 'readMosei'
  requireString(where, 'file', file)
  requireOptions(where, options, ['part', 'emotions'])
  const { part = 'train', emotions } = options
  requireOneOf(where, 'part', part, ['train', 'valid', 'test'])
  if (emotions !== undefined) requireString(where, 'emotions', emotions)
  const root = await readPickle<Record<string, Record<string, unknown> | undefined>>(file, { arrays: 'lazy' })
  const split = root?.[part]
  const fail = (what: string): never => {
    throw new DataError(`${file}: ${what}. Use a file of MMSA.`, { file, part })
  }
  if (typeof split !== 'object' || split === null)
    return fail(`expected the split ${part}, got ${Object.keys(root ?? {}).join(', ') || 'nothing'}`)
  const texts = (name: string): string[] => {
    const value = split[name]
    if (Array.isArray(value) && value.every((item) => typeof item === 'string')) return value as string[]
    return fail(`expected ${part}.${name} to be a list of strings, got ${shown(value)}`)
  }
  const [ids, words] = [texts('id').map(idOf), texts('raw_text')]
  const labels = await numbersOf(split.regression_labels)
  if (!labels) return fail(`expected ${part}.regression_labels to be numbers, got ${shown(split.regression_labels)}`)
  if (ids.length !== words.length || ids.length !== labels.length) {
    return fail(
      `expected as many id as raw_text and regression_labels in ${part}, got ${ids.length}, ${words.length} and ${labels.length}`,
    )
  }
  const table = emotions === undefined ? undefined : await emotionsOf(emotions)
  const samples = ids.map((id, i): MoseiSample => {
    const emotion = table?.get(id)
    return { id, text: words[i] as string, sentiment: labels[i] as number, ...(emotion !== undefined && { emotion }) }
  })
  const known = new Set(ids)
  const withoutEmotions = table ? ids.filter((id) => !table.has(id)) : []
  return {
    samples,
    unmatched: { withoutEmotions, withoutClip: [...(table?.keys() ?? [])].filter((id) => !known.has(id)) },
  }
}

/** Convert `128258$_$9` to `128258/9`, as in the name of its image. */
const idOf = (id: string): string => id.replace('$_$', '/')

async function numbersOf(value: unknown): Promise<number[] | undefined> {
  if (Array.isArray(value) && value.every((item) => typeof item === 'number')) return value as number[]
  if (!(value instanceof LazyTensor) && !(value instanceof Tensor)) return undefined
  const tensor = value instanceof Tensor ? value : await value.read()
  const numbers = (tensor.to({ dtype: 'float64' }).flatten().toArray() as number[]).map(Number)
  return numbers
}

const INTENSITIES = ['happy', 'sad', 'anger', 'surprise', 'disgust', 'fear'] as const

async function emotionsOf(file: string): Promise<Map<string, string>> {
  const found = new Map<string, string>()
  let number = 0
  for await (const row of readCsvStream(file)) {
    number += 1
    const strengths = INTENSITIES.map((name) => Number(row[name]))
    if (strengths.some((value) => !(value >= 0))) {
      throw new DataError(`${file}, row ${number}: expected intensities of at least 0, got ${strengths.join(', ')}.`, {
        file,
        row: number,
      })
    }
    const most = Math.max(...strengths)
    const strongest = INTENSITIES[strengths.indexOf(most)] as string
    found.set(idOf(row.id as string), most === 0 ? 'neutral' : strongest === 'sad' ? 'sadness' : strongest)
  }
  return found
}
