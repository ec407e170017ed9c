import { defined } from '../../../base/check.js'
import { ConfigError, DataError } from '../../../base/errors.js'
import type { Dataset } from '../../../data/dataset.js'
import { Subset } from '../../../data/datasets.js'
import { withEvalMode } from '../../../nn/index.js'
import type { EmoVerseSampleTokens } from '../data/collate.js'
import { requireExpanded, type SwiftLength, withRecordIndex } from '../data/dataset.js'
import { MEDIA_KEYS, type SwiftRecord } from '../data/entry.js'
import { LeftOut, openRecords, splitRecords } from '../data/open.js'
import { replacing } from '../data/replace.js'
import type { EmoVerse } from '../network/network.js'
import type { EmoVerseRecipe } from './recipe.js'
import type { EmoVerseStageOptions } from './train.js'

/** Records as tokens, encoded on access. */
export interface EncodedRecords extends Dataset<EmoVerseSampleTokens> {
  readonly records: Dataset<SwiftRecord>
  /** Number of tokens of a sample, if the trainer needs it. */
  lengthOf?: (index: number) => number
}

interface StageData {
  compat?: 'published'
  mediaRoot?: string
  onBadRecord?: 'skip' | 'stop'
  /** Whether to cache the features of all images and videos before training. */
  remembers?: boolean
  /** Whether the trainer needs the lengths of samples, which requires reading all media before training. */
  groupByLength?: boolean
  onNote?: (note: string) => void
}

/** Open the data of a stage as samples, with notes about records that were left out. */
export async function openStage(
  model: EmoVerse,
  { data, valid }: EmoVerseStageOptions,
  { seed, validationShare, maxLength, maxExpandedLength }: EmoVerseRecipe,
  { compat, mediaRoot, onBadRecord, remembers = false, groupByLength = false, onNote }: StageData,
): Promise<{ train: EncodedRecords; valid: EncodedRecords | undefined; notes: string[] }> {
  // Media files must exist only if the model reads them.
  const root = model.seesMedia || model.hearsMedia ? (mediaRoot ?? '.') : undefined
  const most = maxExpandedLength ?? undefined
  const limits = {
    ...{ lengthOf: model.lengthOf, maxLength, seed },
    // Without media both lengths are equal.
    ...defined({ compat, onBadRecord, mediaRoot: root, maxExpandedLength: root === undefined ? most : undefined }),
  }
  const notes: string[] = []
  const open = async (given: typeof data) => {
    const { records, name, notes: left, longest } = await openRecords(given, limits)
    notes.push(...left)
    // Unusable records are replaced on access.
    if (compat === 'published') return records
    const looked =
      root === undefined
        ? { records, notes: [], longest }
        : await withReadableMedia(model, records, { name, mediaRoot, remembers, most, stops: onBadRecord === 'stop' })
    notes.push(...looked.notes)
    all.text = Math.max(all.text, looked.longest.text)
    all.expanded = Math.max(all.expanded, looked.longest.expanded)
    return looked.records
  }
  const all: SwiftLength = { text: 0, expanded: 0 }
  const [own, other] = [await open(data), valid === undefined ? undefined : await open(valid)]
  const parts = other ? { train: own, valid: other } : splitRecords(own, { share: validationShare, seed })
  if (parts.train.length === 0) {
    throw new ConfigError(
      `trainEmoVerse.data: expected at least one record to train on, got none. ${notes.join('; ')}`,
      { argument: 'data', notes },
    )
  }
  if (all.text > 0) {
    const media = all.expanded > all.text ? `; the longest has ${all.expanded} with all tokens of its media` : ''
    notes.push(`the longest record has ${all.text} tokens, with each of its media counted as one${media}`)
  }
  if (!model.seesMedia && !model.hearsMedia && (await namesMedia(parts.train))) {
    notes.push('the model has no vision or audio encoder: it is trained on the texts only')
  }
  let isKnown = false
  const replaced = ({ message }: DataError) => {
    if (!isKnown) onNote?.(`records with unreadable media are replaced by others, the first: ${message}`)
    isKnown = true
  }
  const encoded = (records: Dataset<SwiftRecord>): EncodedRecords => {
    const samples: Dataset<EmoVerseSampleTokens> = {
      length: records.length,
      async get(i, epoch) {
        const sample = await model.encode(await records.get(i, epoch), defined({ mediaRoot }))
        requireExpanded(sample.inputIds.length, most)
        return sample
      },
    }
    return { records, ...(compat === 'published' ? replacing(samples, seed, replaced) : samples) }
  }
  const train = encoded(parts.train)
  if (groupByLength) {
    const lengths: number[] = []
    for (let i = 0; i < train.length; i++) {
      const record = await parts.train.get(i, 0)
      try {
        lengths.push((await model.lengthsOf(record, defined({ mediaRoot: root }))).expanded)
      } catch (error) {
        // With compat it is replaced by another record, whose length matters only for its own batch.
        if (compat !== 'published' || !(error instanceof DataError)) throw error
        lengths.push(model.lengthOf(record))
      }
    }
    train.lengthOf = (i) => lengths[i] as number
  }
  return { train, valid: parts.valid && encoded(parts.valid), notes }
}

async function namesMedia(records: Dataset<SwiftRecord>): Promise<boolean> {
  const record = await records.get(0, 0)
  return MEDIA_KEYS.some((key) => (record[key]?.length ?? 0) > 0)
}

interface MediaCheck {
  /** Name of the data in messages. */
  name: string
  /** Whether an unusable record is an error. */
  stops: boolean
  mediaRoot: string | undefined
  remembers: boolean
  /** Maximum length in tokens, media included. */
  most: number | undefined
}

/** Read the media of all records in advance. Return records with readable media of acceptable length, and notes about the others. */
async function withReadableMedia(
  model: EmoVerse,
  records: Dataset<SwiftRecord>,
  { name, stops, mediaRoot, remembers, most }: MediaCheck,
) {
  const good: number[] = []
  const left = new LeftOut()
  const longest: SwiftLength = { text: 0, expanded: 0 }
  await withEvalMode(model.model, async () => {
    for (let i = 0; i < records.length; i++) {
      try {
        const lengths = await model.lengthsOf(await records.get(i, 0), {
          ...defined({ mediaRoot }),
          remember: remembers,
        })
        requireExpanded(lengths.expanded, most)
        longest.text = Math.max(longest.text, lengths.text)
        longest.expanded = Math.max(longest.expanded, lengths.expanded)
        good.push(i)
      } catch (error) {
        if (!(error instanceof DataError)) throw error
        if (stops) throw withRecordIndex(error, name, i)
        const { reason } = error as DataError & { reason?: string }
        const why = reason === 'length' ? 'that are too long with all of their media' : 'whose media cannot be read'
        left.add(why, `record ${i + 1}: ${error.message}`)
      }
    }
  })
  return { records: good.length === records.length ? records : new Subset(records, good), notes: left.notes(), longest }
}
