import { requireOneOf, requireOptions, requireString, shown } from '../../base/check.js'
import { DataError } from '../../base/errors.js'
import { readJson } from '../../files/json/json.js'
import { BadRecords } from '../records.js'
import { clipFinder, type FindClip } from './clips.js'
import {
  checkReadOptions,
  EMOTIONS,
  type EmotionCause,
  type EmotionData,
  type EmotionDialog,
  type EmotionUtterance,
  emotionData,
  knownEmotion,
  type ReadDialogsOptions,
} from './dialog.js'
import { cleanSpan, spanPosition } from './span.js'

/** Subtask of SemEval-2024 Task 3. 1: causes are spans of text; 2: causes are utterances. */
export type EcfSubtask = 1 | 2

/** A conversation in a file of ECF 2.0 (SemEval-2024 Task 3, https://github.com/NUSTM/SemEval-2024_ECAC). */
export interface EcfConversation {
  conversation_ID: number
  conversation: EcfUtterance[]
  /** In subtask 1 `['3_surprise', '1_the words']`, as prediction `['3_surprise', '1_0_4']`; in subtask 2 `['3_surprise', '1']`. */
  'emotion-cause_pairs'?: [string, string][]
}

export interface EcfUtterance {
  /** Number in the conversation, from 1. */
  utterance_ID: number
  text: string
  speaker: string
  /** Absent in files of predictions. */
  emotion?: string
  video_name?: string
  /** Season and episode, begin and end: `['S01E01', '00:07:40.335', '00:07:44.880']`. */
  video_source?: [string, string, string]
}

export interface ReadEcfOptions extends ReadDialogsOptions {
  /** Subtask of the pairs. Default: by their form. */
  subtask?: EcfSubtask
}

/**
 * Read a file of ECF 2.0 (Wang et al. 2023, https://arxiv.org/abs/2110.08020) of either subtask, with or without emotions and pairs,
 * and with or without `U` before numbers. Clips are searched by `video_name`, or as `dia{conversation}utt{utterance}`, both from 1.
 *
 * @throws DataError for a file that is not a list of conversations; for a bad conversation, emotion or pair, with file, conversation
 * and reason, unless it is skipped
 */
export async function readEcf(file: string, options: ReadEcfOptions = {}): Promise<EmotionData> {
  const where = 'readEcf'
  requireString(where, 'file', file)
  checkReadOptions(where, options, ['subtask'])
  const { onBadRecord = 'stop', clips, emotions = EMOTIONS, subtask } = options
  requireOneOf(where, 'onBadRecord', onBadRecord, ['stop', 'skip'])
  if (subtask !== undefined) requireSubtask(where, subtask)
  const bad = new BadRecords(onBadRecord)
  const find = clips === undefined ? undefined : clipFinder(where, clips, 'ecf')
  const known = new Set<number>()
  const dialogs = (await conversationsOf(file)).flatMap((value, place) => {
    const dialog = dialogOf(value, { file, place, emotions, subtask, bad, find, known })
    return dialog ? [dialog] : []
  })
  if (dialogs.length === 0)
    throw new DataError(
      `${file}: expected at least one usable conversation, got none (${bad.count} bad records). Check the file.`,
      { file, badRecords: bad.count },
    )
  return emotionData(dialogs, bad, clips)
}

/** Check a subtask. @throws ConfigError unless it is 1 or 2 */
export function requireSubtask(where: string, subtask: unknown): asserts subtask is EcfSubtask {
  requireOneOf(where, 'subtask', String(subtask), ['1', '2'])
}

/** Return the conversations of a file, unchecked. @throws DataError if it is not a list */
export async function conversationsOf(file: string): Promise<unknown[]> {
  const value = await readJson(file)
  if (Array.isArray(value)) return value
  throw new DataError(`${file}: expected a list of conversations, as in ECF, got ${shown(value)}. Check the file.`, {
    file,
  })
}

interface Reading {
  file: string
  /** Index in the file, from 0. */
  place: number
  emotions: readonly string[]
  subtask: EcfSubtask | undefined
  bad: BadRecords
  find: FindClip | undefined
  known: Set<number>
}

function dialogOf(value: unknown, reading: Reading): EmotionDialog | undefined {
  const { file, place, bad, known } = reading
  const conversation = value as Partial<EcfConversation> | null
  const id = integerOf(conversation?.conversation_ID)
  const at = id === undefined ? `${file}, entry ${place + 1}` : `${file}, conversation ${id}`
  const refuse = (reason: string, what: string) => {
    bad.note(reason, `${at}: ${what}`, { file, ...(id !== undefined && { conversation: id }) })
    return undefined
  }
  if (id === undefined)
    return refuse('conversation', `conversation_ID: expected an integer, got ${shown(conversation?.conversation_ID)}`)
  if (known.has(id)) return refuse('conversation', 'conversation_ID: expected a unique number, got a repeated one')
  const list = conversation?.conversation
  if (!Array.isArray(list) || list.length === 0)
    return refuse('conversation', `conversation: expected a list of utterances, got ${shown(list)}`)
  const places = new Map<number, number>()
  for (const [i, utterance] of list.entries()) {
    const number = numberOf(utterance?.utterance_ID)
    if (number === undefined)
      return refuse(
        'utterance',
        `utterance_ID of entry ${i + 1}: expected an integer, got ${shown(utterance?.utterance_ID)}`,
      )
    if (places.has(number)) return refuse('utterance', `utterance_ID: expected unique numbers, got ${number} twice`)
    if (typeof utterance.text !== 'string')
      return refuse('utterance', `utterance ${number}: text: expected a string, got ${shown(utterance.text)}`)
    if (typeof utterance.speaker !== 'string')
      return refuse('utterance', `utterance ${number}: speaker: expected a string, got ${shown(utterance.speaker)}`)
    places.set(number, i)
  }
  known.add(id)
  const utterances = list.map((utterance) => utteranceOf(utterance, String(id), at, reading))
  const pairs: unknown = conversation?.['emotion-cause_pairs']
  if (pairs !== undefined && pairs !== null && !Array.isArray(pairs))
    refuse('pair', `emotion-cause_pairs: expected a list, got ${shown(pairs)}`)
  const dialog = { id: String(id), utterances, source: at }
  if (!Array.isArray(pairs)) return dialog
  return { ...dialog, causes: pairs.flatMap((pair) => causeOf(pair, utterances, places, at, reading) ?? []) }
}

function utteranceOf(given: EcfUtterance, dialog: string, at: string, reading: Reading): EmotionUtterance {
  const id = numberOf(given.utterance_ID) as number
  const emotion = knownEmotion(given.emotion, reading.emotions, `${at}, utterance ${id}`, reading.bad)
  const clipName =
    typeof given.video_name === 'string' ? given.video_name.replace(/\.[A-Za-z0-9]+$/, '') : `dia${dialog}utt${id}`
  const clip = reading.find?.({ dialog, utterance: id, name: clipName })
  const broadcast = broadcastOf(given.video_source)
  return {
    ...{ id, text: given.text, speaker: given.speaker, clipName },
    ...(emotion !== undefined && { emotion }),
    ...(clip && { clip }),
    ...(broadcast && { broadcast }),
  }
}

function broadcastOf(source: unknown): EmotionUtterance['broadcast'] | undefined {
  if (!Array.isArray(source) || typeof source[0] !== 'string') return undefined
  const [start, end] = [clockSeconds(source[1]), clockSeconds(source[2])]
  return start === undefined || end === undefined ? undefined : { episode: source[0], start, end }
}

/** Convert `00:07:40.335` or `0:07:40,335` to seconds; undefined for other text. */
export function clockSeconds(time: unknown): number | undefined {
  const parts = typeof time === 'string' ? /^\s*(\d+):(\d+):(\d+(?:[.,]\d+)?)\s*$/.exec(time) : null
  if (!parts) return undefined
  return Number(parts[1]) * 3600 + Number(parts[2]) * 60 + Number((parts[3] as string).replace(',', '.'))
}

function causeOf(
  pair: unknown,
  utterances: readonly EmotionUtterance[],
  places: ReadonlyMap<number, number>,
  at: string,
  { file, emotions, subtask, bad }: Reading,
): EmotionCause | undefined {
  const refuse = (reason: string, expected: string) => {
    bad.note(reason, `${at}: emotion-cause_pairs: expected ${expected}, got ${JSON.stringify(pair)}`, { file, pair })
    return undefined
  }
  if (!Array.isArray(pair) || pair.length !== 2 || pair.some((text) => typeof text !== 'string')) {
    return refuse('pair', 'a list of two strings')
  }
  const [effectText, causeText] = pair as [string, string]
  const [, first, emotion] = /^U?(\d+)_([^_]+)$/.exec(effectText) ?? []
  if (first === undefined || emotion === undefined) return refuse('pair', "an effect such as '3_surprise'")
  if (!emotions.includes(emotion)) return refuse('unknown emotion', `an emotion of ${emotions.join(', ')}`)
  const [, second, , words] = /^U?(\d+)(_([\s\S]*))?$/.exec(causeText) ?? []
  if (second === undefined) return refuse('pair', "a cause such as '1' or '1_the words'")
  if (subtask === 1 && words === undefined) return refuse('pair', 'a cause with a span (subtask 1)')
  if (subtask === 2 && words !== undefined) return refuse('pair', 'a cause without a span (subtask 2)')
  const [effect, cause] = [places.get(Number(first)), places.get(Number(second))]
  if (effect === undefined) return refuse('outside', `an utterance of the conversation, which has no number ${first}`)
  if (cause === undefined) return refuse('outside', `an utterance of the conversation, which has no number ${second}`)
  if (words === undefined) return { effect, cause, emotion }
  const predicted = /^(\d+)_(\d+)$/.exec(words)
  if (predicted) return { effect, cause, emotion, span: [Number(predicted[1]), Number(predicted[2])] }
  try {
    const span = spanPosition(cleanSpan(words), (utterances[cause] as EmotionUtterance).text)
    return { effect, cause, emotion, span, spanText: words }
  } catch {
    return refuse('span', 'a span with words, not only punctuation')
  }
}

/** Convert an integer of at least 0, or its digits; undefined for other values. */
const integerOf = (value: unknown): number | undefined => {
  const number = typeof value === 'string' && /^\d+$/.test(value) ? Number(value) : value
  return Number.isSafeInteger(number) && (number as number) >= 0 ? (number as number) : undefined
}

/** Convert an integer, or its digits after an optional `U`. */
const numberOf = (value: unknown): number | undefined =>
  integerOf(typeof value === 'string' ? value.replace(/^U/, '') : value)

/**
 * Convert dialogs with causes to the format of ECF's prediction files: spans as numbers, `['3_surprise', '1_0_4']`, for subtask 1;
 * pairs of utterances, each once, for subtask 2.
 * @throws DataError for a dialog whose id is not an integer, and for a cause without a span in subtask 1
 */
export function ecfConversations(
  dialogs: readonly EmotionDialog[],
  options: { subtask: EcfSubtask },
): EcfConversation[] {
  requireOptions('ecfConversations', options, ['subtask'])
  const { subtask } = options
  requireSubtask('ecfConversations', subtask)
  return dialogs.map(({ id, utterances, causes = [], source }) => {
    const number = integerOf(id)
    if (number === undefined)
      throw new DataError(`${source}: id: expected an integer, as in ECF, got ${shown(id)}. Number the dialogs.`, {
        id,
      })
    const pairs = causes.map(({ effect, cause, emotion, span }): [string, string] => {
      const [effectId, causeId] = [utterances[effect]?.id, utterances[cause]?.id]
      if (effectId === undefined || causeId === undefined)
        throw new DataError(
          `${source}: causes: expected indices below ${utterances.length}, got ${effect} and ${cause}. Correct the cause.`,
          { id },
        )
      if (subtask === 2) return [`${effectId}_${emotion}`, `${causeId}`]
      if (span === undefined)
        throw new DataError(
          `${source}: causes: expected spans for subtask 1, got a cause without. Add spans, or use subtask 2.`,
          { id },
        )
      return [`${effectId}_${emotion}`, `${causeId}_${span[0]}_${span[1]}`]
    })
    const once = new Map(pairs.map((pair) => [pair.join(), pair]))
    return {
      conversation_ID: number,
      conversation: utterances.map(({ id: utterance_ID, text, speaker, clipName }) => ({
        ...{ utterance_ID, text, speaker },
        ...(subtask === 2 && { video_name: `${clipName ?? `dia${number}utt${utterance_ID}`}.mp4` }),
      })),
      'emotion-cause_pairs': [...once.values()],
    }
  })
}
