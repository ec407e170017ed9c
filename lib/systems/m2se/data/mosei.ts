import { requireOneOf, requireOptions, requireString } from '../../../base/check.js'
import { DataError } from '../../../base/errors.js'
import { readCsvStream } from '../../../files/csv/csv.js'
import { readPickle } from '../../../files/pickle/read-pickle.js'
import { LazyTensor } from '../../../files/pickle/tensors.js'
import type { Part } from '../../../kit/split.js'
import { Tensor } from '../../../tensor/index.js'
import type { MoseiSample } from './samples.js'

export interface ReadMoseiOptions {
  /** Default 'train'. */
  part?: Part
  /**
   * A table of emotions, since MMSA's files have none: `id` (`VIDEO/CLIP`, or MMSA's `VIDEO$_$CLIP`) and the intensities `happy`,
   * `sad`, `anger`, `surprise`, `disgust` and `fear`. The strongest names the clip, the first of several as strong; where all
   * are 0 it is neutral.
   */
  emotions?: string
}

/** Clips of a file, and what did not match. */
export interface MoseiData {
  samples: MoseiSample[]
  /** Clips without a row in the table of emotions, and rows without a clip. */
  unmatched: { withoutEmotions: string[]; withoutClip: string[] }
}

/**
 * Reads MOSEI's labels and words out of a file of MMSA (`unaligned_50.pkl`, `aligned_50.pkl`;
 * https://github.com/thuiar/MMSA): a pickle with `train`, `valid` and `test`, each with `id`, `raw_text` and `regression_labels`.
 * Its features stay in the file.
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
    throw new DataError(`${file} is no file of MMSA: ${what}`, { file, part })
  }
  if (typeof split !== 'object' || split === null) return fail(`it has no ${part}`)
  const texts = (name: string): string[] => {
    const value = split[name]
    if (Array.isArray(value) && value.every((item) => typeof item === 'string')) return value as string[]
    return fail(`${part}.${name} is no list of texts`)
  }
  const [ids, words] = [texts('id').map(idOf), texts('raw_text')]
  const labels = await numbersOf(split.regression_labels)
  if (!labels) return fail(`${part}.regression_labels are no numbers`)
  if (ids.length !== words.length || ids.length !== labels.length) {
    return fail(`${part} has ${ids.length} id, ${words.length} raw_text and ${labels.length} regression_labels`)
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

/** `128258$_$9` as `128258/9`, as its picture is called. */
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
      throw new DataError(`${file}, row ${number}: an intensity is no number of at least 0`, { file, row: number })
    }
    const most = Math.max(...strengths)
    const strongest = INTENSITIES[strengths.indexOf(most)] as string
    found.set(idOf(row.id as string), most === 0 ? 'neutral' : strongest === 'sad' ? 'sadness' : strongest)
  }
  return found
}
