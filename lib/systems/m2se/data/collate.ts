import { requireForm } from '../../../base/form.js'
import { packSequences } from '../../../data/pack.js'
import { AUDIO_PLACE } from '../../../models/internvl/prompt.js'
import type { Tensor } from '../../../tensor/index.js'
import type { EmoVerseSound } from '../network/speech.js'
import type { EmoVersePicture } from '../network/vision.js'
import type { EmoVerseTask } from '../published/wording.js'
import type { EncodedText } from './prompt.js'

/** A record as a network learns it. */
export interface EmoVerseSampleTokens extends EncodedText {
  task: EmoVerseTask | 'other'
  /** Its pictures and films, in the order of their places in the text. */
  pictures: readonly EmoVersePicture[]
  /** Where in the text their tokens stand. */
  picturePlaces: readonly number[]
  /** Its sounds, likewise; at the places of their tokens `inputIds` has none. */
  sounds: readonly EmoVerseSound[]
}

/** Records behind each other in one row, none of which sees another. */
export interface EmoVerseBatch {
  /** int64 [1, total] */
  inputIds: Tensor
  /** int64 [1, total]; -100 for what is not learnt, and for the first token of each record. */
  labels: Tensor
  sequenceLengths: number[]
  /** The task of each record. */
  tasks: (EmoVerseTask | 'other')[]
  /** Where the tokens that are learnt stand in the row, what they are, and which record each is of. */
  targets: { places: number[]; ids: number[]; records: number[] }
  /** Of all records, in the order of their places in the row, and where these are. */
  pictures: readonly EmoVersePicture[]
  picturePlaces: readonly number[]
  /** Likewise, and where in the row their tokens stand; `inputIds` has 0 there. */
  sounds: readonly EmoVerseSound[]
  soundPlaces: readonly number[]
}

const SAMPLE = {
  inputIds: ['number'],
  labels: ['number'],
  task: 'string',
  pictures: 'list',
  picturePlaces: ['number'],
  sounds: 'list',
} as const

const pack = packSequences(['inputIds', 'labels'])

/**
 * Put records behind each other in one row.
 * @throws ConfigError naming the sample and its field, for what `EmoVerse.encode` does not give
 */
export function emoverseCollate(samples: readonly EmoVerseSampleTokens[]): EmoVerseBatch {
  requireForm('emoverseCollate', 'samples', samples, [SAMPLE])
  const soundPlaces = soundPlacesOf(samples.flatMap(({ inputIds }) => inputIds))
  const words = samples.map(({ inputIds, labels }) => ({ inputIds: withoutPlaces(inputIds), labels }))
  const { inputIds, labels, sequenceLengths } = pack(words)
  const targets: EmoVerseBatch['targets'] = { places: [], ids: [], records: [] }
  const picturePlaces: number[] = []
  let start = 0
  for (const [record, sample] of samples.entries()) {
    for (const [i, id] of sample.labels.entries()) {
      if (i === 0 || id < 0) continue
      targets.places.push(start + i)
      targets.ids.push(id)
      targets.records.push(record)
    }
    for (const place of sample.picturePlaces) picturePlaces.push(start + place)
    start += sample.labels.length
  }
  const pictures = samples.flatMap((sample) => sample.pictures)
  const sounds = samples.flatMap((sample) => sample.sounds)
  const tasks = samples.map(({ task }) => task)
  return { inputIds, labels, sequenceLengths, tasks, targets, pictures, picturePlaces, sounds, soundPlaces }
}

/** Where in a row the tokens of sounds stand. */
export const soundPlacesOf = (ids: readonly number[]): number[] =>
  ids.flatMap((id, place) => (id === AUDIO_PLACE ? [place] : []))

/** Ids that each are a token. */
export const withoutPlaces = (ids: number[]): number[] =>
  ids.includes(AUDIO_PLACE) ? ids.map((id) => (id === AUDIO_PLACE ? 0 : id)) : ids
