import { misuse, requireOptions } from '../../base/check.js'
import type { DataError } from '../../base/errors.js'
import type { BadRecords, OnBadRecord } from '../records.js'
import type { Part } from '../split.js'
import type { EmotionClip, EmotionClips } from './clips.js'

/** The emotions of ECF and MELD, in the order of the outputs of the published LanguageBind classifiers. */
export const EMOTIONS = ['surprise', 'fear', 'sadness', 'neutral', 'joy', 'anger', 'disgust'] as const
export type Emotion = (typeof EMOTIONS)[number]

/** What somebody says in a dialog, and what they feel. */
export interface EmotionUtterance {
  /** Its number as the data counts: from 1 in ECF and in one's own files, from 0 and with gaps in MELD. Lines that were left out leave gaps. */
  readonly id: number
  readonly text: string
  readonly speaker: string
  /** Left out where nobody said. */
  readonly emotion?: string
  /** 'positive', 'negative' or 'neutral'; MELD's. */
  readonly sentiment?: string
  /** What the data calls its clip, without an ending: `dia1utt1` (ECF), `dia0_utt0` (MELD). */
  readonly clipName?: string
  /** Its files, where clips were asked for and found. */
  readonly clip?: EmotionClip
  /** The episode, such as `S01E01`, and seconds in it. */
  readonly broadcast?: { readonly episode: string; readonly start: number; readonly end: number }
}

/** Why somebody feels something: what was said in another utterance, or in the same. */
export interface EmotionCause {
  /** The place of the utterance that shows the emotion, from 0. */
  readonly effect: number
  /** The place of the utterance that is its cause, from 0; it may come later. */
  readonly cause: number
  readonly emotion: string
  /** The words of the cause that say it, [start, end) in its text between blanks; ECF's subtask 1. */
  readonly span?: readonly [start: number, end: number]
  /** The same words, where the data gives words. */
  readonly spanText?: string
}

export interface EmotionDialog {
  /** The number of ECF or MELD as text, or what one's own file calls it. */
  readonly id: string
  readonly utterances: readonly EmotionUtterance[]
  /** Left out where the data says nothing of causes; empty where there are none. */
  readonly causes?: readonly EmotionCause[]
  /** The part of the data, where it says it. */
  readonly part?: Part
  /** Where it comes from, for messages. */
  readonly source: string
}

/** Dialogs, and what was not as it should be. */
export interface EmotionData {
  dialogs: EmotionDialog[]
  /** How many utterances and causes there are. */
  utterances: number
  causes: number
  /** What was left out by `onBadRecord: 'skip'`: dialogs, emotions or causes; the errors of the first hundred. */
  badRecords: number
  badRecordErrors: DataError[]
  /** How many of each reason. */
  reasons: Record<string, number>
  /** Utterances without a clip, where clips were asked for; bad ones of MELD count. */
  missingClips: number
}

export interface ReadDialogsOptions {
  /**
   * What a record does that cannot be used: 'stop' (default) throws; 'skip' leaves out as little as it can, and counts it by
   * reason. An unknown emotion leaves an utterance without one, a cause outside the dialog leaves that cause out.
   */
  onBadRecord?: OnBadRecord
  /** Where the clips are. Default: nobody looks for any. */
  clips?: EmotionClips
  /** The emotions that there are. Default {@link EMOTIONS}. */
  emotions?: readonly string[]
}

/** @throws ConfigError for options that are none */
export function checkReadOptions(where: string, options: ReadDialogsOptions, more: readonly string[] = []): void {
  requireOptions(where, options, ['onBadRecord', 'clips', 'emotions', ...more])
  const { emotions = EMOTIONS } = options
  const good = Array.isArray(emotions) && emotions.length > 1 && emotions.every((name) => typeof name === 'string')
  if (!good || new Set(emotions).size < emotions.length) {
    throw misuse(where, 'emotions', 'a list of at least two different names', emotions)
  }
}

/** What a reader found, counted. */
export function emotionData(dialogs: EmotionDialog[], bad: BadRecords, clips: EmotionClips | undefined): EmotionData {
  const utterances = dialogs.flatMap((dialog) => dialog.utterances)
  return {
    dialogs,
    utterances: utterances.length,
    causes: dialogs.reduce((sum, dialog) => sum + (dialog.causes?.length ?? 0), 0),
    badRecords: bad.count,
    badRecordErrors: bad.errors,
    reasons: { ...bad.reasons },
    missingClips: clips === undefined ? 0 : utterances.filter(({ clip }) => clip === undefined).length,
  }
}

/** What a file says of an emotion: one that there is, or undefined and a bad record. */
export function knownEmotion(
  name: unknown,
  emotions: readonly string[],
  at: string,
  bad: BadRecords,
  fields: Readonly<Record<string, unknown>> = {},
): string | undefined {
  if (name === undefined || name === null || name === '') return undefined
  if (typeof name === 'string' && emotions.includes(name)) return name
  const list = emotions.join(', ')
  bad.note('unknown emotion', `${at}: its emotion is ${JSON.stringify(name)}, none of ${list}`, {
    ...fields,
    emotion: name,
  })
  return undefined
}
