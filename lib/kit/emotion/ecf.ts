import { requireOneOf, requireOptions, requireString } from '../../base/check.js'
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

/** 1: causes are words of a text; 2: causes are utterances. */
export type EcfSubtask = 1 | 2

/** A conversation as a file of ECF 2.0 has it (SemEval-2024 Task 3, https://github.com/NUSTM/SemEval-2024_ECAC). */
export interface EcfConversation {
  conversation_ID: number
  conversation: EcfUtterance[]
  /** Of subtask 1 `['3_surprise', '1_the words']`, predicted `['3_surprise', '1_0_4']`; of subtask 2 `['3_surprise', '1']`. */
  'emotion-cause_pairs'?: [string, string][]
}

export interface EcfUtterance {
  /** From 1. */
  utterance_ID: number
  text: string
  speaker: string
  /** Files of predictions have none. */
  emotion?: string
  video_name?: string
  /** Season and episode, begin and end: `['S01E01', '00:07:40.335', '00:07:44.880']`. */
  video_source?: [string, string, string]
}

export interface ReadEcfOptions extends ReadDialogsOptions {
  /** Whose pairs these are. Default: as they look; a file without pairs has none of either. */
  subtask?: EcfSubtask
}

/**
 * Reads a file of ECF 2.0 (Wang et al. 2023, https://arxiv.org/abs/2110.08020) of either subtask: with emotions or without,
 * with pairs of emotion and cause or without, `U` before a number or not. Clips are looked for under `video_name`, or
 * `dia{conversation}utt{utterance}`, both from 1.
 *
 * @throws DataError for a file that is no list of conversations; for a bad conversation, emotion or pair, naming file,
 * conversation and reason, unless it is skipped
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
  if (dialogs.length === 0) throw new DataError(`${file} holds no usable conversation`, { file, badRecords: bad.count })
  return emotionData(dialogs, bad, clips)
}

/** @throws ConfigError for another than 1 or 2 */
export function requireSubtask(where: string, subtask: unknown): asserts subtask is EcfSubtask {
  requireOneOf(where, 'subtask', String(subtask), ['1', '2'])
}

/** What a file has as conversations, unchecked. @throws DataError where it is no list */
export async function conversationsOf(file: string): Promise<unknown[]> {
  const value = await readJson(file)
  if (Array.isArray(value)) return value
  throw new DataError(`${file} is no list of conversations, as files of ECF are`, { file })
}

interface Reading {
  file: string
  /** In the file, from 0. */
  place: number
  emotions: readonly string[]
  subtask: EcfSubtask | undefined
  bad: BadRecords
  find: FindClip | undefined
  known: Set<number>
}

function dialogOf(value: unknown, reading: Reading): EmotionDialog | undefined {
  const { file, place, bad, known } = reading
  const given = value as Partial<EcfConversation> | null
  const id = wholeNumber(given?.conversation_ID)
  const at = id === undefined ? `${file}, entry ${place + 1}` : `${file}, conversation ${id}`
  const refuse = (reason: string, what: string) => {
    bad.note(reason, `${at}: ${what}`, { file, ...(id !== undefined && { conversation: id }) })
    return undefined
  }
  if (id === undefined) return refuse('conversation', 'its conversation_ID is no whole number')
  if (known.has(id)) return refuse('conversation', 'another one has this number')
  const list = given?.conversation
  if (!Array.isArray(list) || list.length === 0)
    return refuse('conversation', 'its conversation is no list of utterances')
  const places = new Map<number, number>()
  for (const [i, utterance] of list.entries()) {
    const number = numberOf(utterance?.utterance_ID)
    if (number === undefined) return refuse('utterance', `utterance_ID of its utterance ${i + 1} is no whole number`)
    if (places.has(number)) return refuse('utterance', `two utterances have the number ${number}`)
    if (typeof utterance.text !== 'string') return refuse('utterance', `utterance ${number} has no text`)
    if (typeof utterance.speaker !== 'string') return refuse('utterance', `utterance ${number} has no speaker`)
    places.set(number, i)
  }
  known.add(id)
  const utterances = list.map((utterance) => utteranceOf(utterance, String(id), at, reading))
  const pairs: unknown = given?.['emotion-cause_pairs']
  if (pairs !== undefined && pairs !== null && !Array.isArray(pairs))
    refuse('pair', 'its emotion-cause_pairs are no list')
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

/** Seconds of `00:07:40.335` or `0:07:40,335`. */
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
  const refuse = (reason: string, what: string) => {
    bad.note(reason, `${at}: the pair ${JSON.stringify(pair)} ${what}`, { file, pair })
    return undefined
  }
  if (!Array.isArray(pair) || pair.length !== 2 || pair.some((text) => typeof text !== 'string')) {
    return refuse('pair', 'is no list of two texts')
  }
  const [shown, said] = pair as [string, string]
  const [, first, emotion] = /^U?(\d+)_([^_]+)$/.exec(shown) ?? []
  if (first === undefined || emotion === undefined) return refuse('pair', "does not begin like '3_surprise'")
  if (!emotions.includes(emotion))
    return refuse('unknown emotion', `has an emotion that is none of ${emotions.join(', ')}`)
  const [, second, , words] = /^U?(\d+)(_([\s\S]*))?$/.exec(said) ?? []
  if (second === undefined) return refuse('pair', 'does not name an utterance as its cause')
  if (subtask === 1 && words === undefined) return refuse('pair', 'has no span: it is one of subtask 2')
  if (subtask === 2 && words !== undefined) return refuse('pair', 'has a span: it is one of subtask 1')
  const [effect, cause] = [places.get(Number(first)), places.get(Number(second))]
  if (effect === undefined) return refuse('outside', `names utterance ${first}, which the conversation has not`)
  if (cause === undefined) return refuse('outside', `names utterance ${second}, which the conversation has not`)
  if (words === undefined) return { effect, cause, emotion }
  const predicted = /^(\d+)_(\d+)$/.exec(words)
  if (predicted) return { effect, cause, emotion, span: [Number(predicted[1]), Number(predicted[2])] }
  try {
    const span = spanPosition(cleanSpan(words), (utterances[cause] as EmotionUtterance).text)
    return { effect, cause, emotion, span, spanText: words }
  } catch {
    return refuse('span', 'has a span of punctuation only')
  }
}

/** A whole number of at least 0, or its digits. */
const wholeNumber = (value: unknown): number | undefined => {
  const number = typeof value === 'string' && /^\d+$/.test(value) ? Number(value) : value
  return Number.isSafeInteger(number) && (number as number) >= 0 ? (number as number) : undefined
}

/** The same, perhaps with U before it. */
const numberOf = (value: unknown): number | undefined =>
  wholeNumber(typeof value === 'string' ? value.replace(/^U/, '') : value)

/**
 * Dialogs with their causes as ECF's files of predictions have them: spans as numbers, `['3_surprise', '1_0_4']`, for subtask
 * 1; utterances alone, each pair once, for subtask 2.
 * @throws DataError for a dialog whose id is no whole number, or a cause without a span for subtask 1
 */
export function ecfConversations(
  dialogs: readonly EmotionDialog[],
  options: { subtask: EcfSubtask },
): EcfConversation[] {
  requireOptions('ecfConversations', options, ['subtask'])
  const { subtask } = options
  requireSubtask('ecfConversations', subtask)
  return dialogs.map(({ id, utterances, causes = [], source }) => {
    const number = wholeNumber(id)
    if (number === undefined) throw new DataError(`${source}: ECF's conversations have numbers, not '${id}'`, { id })
    const pairs = causes.map(({ effect, cause, emotion, span }): [string, string] => {
      const [shown, said] = [utterances[effect]?.id, utterances[cause]?.id]
      if (shown === undefined || said === undefined)
        throw new DataError(`${source}: a cause is outside the dialog`, { id })
      if (subtask === 2) return [`${shown}_${emotion}`, `${said}`]
      if (span === undefined) throw new DataError(`${source}: a cause has no span, which subtask 1 needs`, { id })
      return [`${shown}_${emotion}`, `${said}_${span[0]}_${span[1]}`]
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
