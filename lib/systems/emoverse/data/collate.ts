import { requireForm } from '../../../base/form.js'
import { packSequences } from '../../../data/pack.js'
import { AUDIO_PLACE } from '../../../models/internvl/prompt.js'
import type { Tensor } from '../../../tensor/index.js'
import type { EmoVerseSpeech } from '../network/speech.js'
import type { EmoVerseImage } from '../network/vision.js'
import type { EmoVerseTask } from '../published/wording.js'
import type { EncodedText } from './prompt.js'

/** A record as token ids, with media, for training. */
export interface EmoVerseSampleTokens extends EncodedText {
  task: EmoVerseTask | 'other'
  /** Images and videos, in the order of their positions in the text. */
  imageInputs: readonly EmoVerseImage[]
  /** Positions of their tokens in `inputIds`. */
  imagePlaces: readonly number[]
  /** Audio clips in the same order; `inputIds` has placeholders at the positions of their tokens. */
  audioInputs: readonly EmoVerseSpeech[]
}

/** Records packed into one row, without attention between them. */
export interface EmoVerseBatch {
  /** int64 [1, total] */
  inputIds: Tensor
  /** int64 [1, total]; -100 for tokens that do not contribute to the loss, and for the first token of each record. */
  labels: Tensor
  sequenceLengths: number[]
  /** The task of each record. */
  tasks: (EmoVerseTask | 'other')[]
  /** Tokens that contribute to the loss: positions in the row, token ids, and index of the record of each. */
  targets: { places: number[]; ids: number[]; records: number[] }
  /** Images and videos of all records, in the order of the row, with the positions of their tokens. */
  imageInputs: readonly EmoVerseImage[]
  imagePlaces: readonly number[]
  /** Audio clips of all records, with the positions of their tokens, where `inputIds` has 0. */
  audioInputs: readonly EmoVerseSpeech[]
  audioPlaces: readonly number[]
}

const SAMPLE = {
  inputIds: ['number'],
  labels: ['number'],
  task: 'string',
  imageInputs: 'list',
  imagePlaces: ['number'],
  audioInputs: 'list',
} as const

const pack = packSequences(['inputIds', 'labels'])

/**
 * Pack records into one row.
 * @throws ConfigError naming the sample and its field, for samples that `EmoVerse.encode` did not return
 */
export function emoverseCollate(samples: readonly EmoVerseSampleTokens[]): EmoVerseBatch {
  requireForm('emoverseCollate', 'samples', samples, [SAMPLE])
  const audioPlaces = audioPlacesOf(samples.flatMap(({ inputIds }) => inputIds))
  const words = samples.map(({ inputIds, labels }) => ({ inputIds: withoutPlaces(inputIds), labels }))
  const { inputIds, labels, sequenceLengths } = pack(words)
  const targets: EmoVerseBatch['targets'] = { places: [], ids: [], records: [] }
  const imagePlaces: number[] = []
  let start = 0
  for (const [record, sample] of samples.entries()) {
    for (const [i, id] of sample.labels.entries()) {
      if (i === 0 || id < 0) continue
      targets.places.push(start + i)
      targets.ids.push(id)
      targets.records.push(record)
    }
    for (const place of sample.imagePlaces) imagePlaces.push(start + place)
    start += sample.labels.length
  }
  const imageInputs = samples.flatMap((sample) => sample.imageInputs)
  const audioInputs = samples.flatMap((sample) => sample.audioInputs)
  const tasks = samples.map(({ task }) => task)
  return { inputIds, labels, sequenceLengths, tasks, targets, imageInputs, imagePlaces, audioInputs, audioPlaces }
}

/** Return the positions of audio tokens in a row. */
export const audioPlacesOf = (ids: readonly number[]): number[] =>
  ids.flatMap((id, place) => (id === AUDIO_PLACE ? [place] : []))

/** Return ids with 0 in place of audio placeholders, so that each is a valid token id. */
export const withoutPlaces = (ids: number[]): number[] =>
  ids.includes(AUDIO_PLACE) ? ids.map((id) => (id === AUDIO_PLACE ? 0 : id)) : ids
