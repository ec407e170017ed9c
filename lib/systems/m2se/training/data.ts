import { defined } from '../../../base/check.js'
import { ConfigError, DataError } from '../../../base/errors.js'
import type { Dataset } from '../../../data/dataset.js'
import { Subset } from '../../../data/datasets.js'
import { evaluating } from '../../../nn/index.js'
import type { EmoVerseSampleTokens } from '../data/collate.js'
import { MEDIA_KEYS, type SwiftRecord } from '../data/entry.js'
import { openRecords, splitRecords } from '../data/open.js'
import { replacing } from '../data/replace.js'
import type { EmoVerse } from '../network/network.js'
import type { EmoVerseRecipe } from './recipe.js'
import type { EmoVerseStageOptions } from './train.js'

/** Records as tokens, each made when it is its turn. */
export interface EncodedRecords extends Dataset<EmoVerseSampleTokens> {
  readonly records: Dataset<SwiftRecord>
}

interface StageData {
  compat?: 'published'
  mediaRoot?: string
  /** Looks at all media beforehand, and leaves out records whose media cannot be read. */
  looksAhead?: boolean
  onNote?: (note: string) => void
}

/** The data of a stage as samples, and notes of what was left out. */
export async function openStage(
  model: EmoVerse,
  { data, valid }: EmoVerseStageOptions,
  { seed, validationShare, maxLength }: EmoVerseRecipe,
  { compat, mediaRoot, looksAhead = false, onNote }: StageData,
): Promise<{ train: EncodedRecords; valid: EncodedRecords | undefined; notes: string[] }> {
  // Files have to be there where somebody looks at them.
  const root = model.seesMedia || model.hearsMedia ? (mediaRoot ?? '.') : undefined
  const limits = { lengthOf: model.lengthOf, maxLength, seed, ...defined({ compat, mediaRoot: root }) }
  const notes: string[] = []
  const open = async (given: typeof data) => {
    const opened = await openRecords(given, limits)
    notes.push(...opened.notes)
    if (!looksAhead || compat === 'published') return opened.records
    const { records, note } = await readable(model, opened.records, mediaRoot)
    if (note) notes.push(note)
    return records
  }
  const [own, other] = [await open(data), valid === undefined ? undefined : await open(valid)]
  const parts = other ? { train: own, valid: other } : splitRecords(own, { share: validationShare, seed })
  if (parts.train.length === 0) throw new ConfigError('There is no record to train on', { argument: 'data' })
  if (!model.seesMedia && !model.hearsMedia && (await namesMedia(parts.train))) {
    notes.push('the model sees neither pictures nor films: it is trained on the words alone')
  }
  let isKnown = false
  const replaced = ({ message }: DataError) => {
    if (!isKnown) onNote?.(`records whose media cannot be read give way to others, the first: ${message}`)
    isKnown = true
  }
  const encoded = (records: Dataset<SwiftRecord>): EncodedRecords => {
    const samples: Dataset<EmoVerseSampleTokens> = {
      length: records.length,
      get: async (i, epoch) => model.encode(await records.get(i, epoch), defined({ mediaRoot })),
    }
    return { records, ...(compat === 'published' ? replacing(samples, seed, replaced) : samples) }
  }
  return { train: encoded(parts.train), valid: parts.valid && encoded(parts.valid), notes }
}

async function namesMedia(records: Dataset<SwiftRecord>): Promise<boolean> {
  const record = await records.get(0, 0)
  return MEDIA_KEYS.some((key) => (record[key]?.length ?? 0) > 0)
}

/** Those records whose media can be read, all of which the model's store has then. */
async function readable(model: EmoVerse, records: Dataset<SwiftRecord>, mediaRoot: string | undefined) {
  const { vision } = model
  const good: number[] = []
  const errors: DataError[] = []
  await evaluating(model.model, async () => {
    for (let i = 0; i < records.length; i++) {
      try {
        await vision?.remember(await records.get(i, 0), defined({ mediaRoot }))
        good.push(i)
      } catch (error) {
        if (!(error instanceof DataError)) throw error
        errors.push(error)
      }
    }
  })
  if (errors.length === 0) return { records }
  const note = `${errors.length} records were left out whose media cannot be read, the first: ${errors[0]?.message}`
  return { records: new Subset(records, good), note }
}
