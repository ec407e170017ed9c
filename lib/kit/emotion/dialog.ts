import { argumentError, requireOptions } from '../../base/check.js'
import type { DataError } from '../../base/errors.js'
import type { BadRecords, OnBadRecord } from '../records.js'
import type { Part } from '../split.js'
import type { EmotionClip, EmotionClips } from './clips.js'

/** The emotions of ECF and MELD, in the order of the outputs of the published LanguageBind classifiers. */
export const EMOTIONS = ['surprise', 'fear', 'sadness', 'neutral', 'joy', 'anger', 'disgust'] as const
export type Emotion = (typeof EMOTIONS)[number]

/** An utterance of a dialog, with its emotion. */
export interface EmotionUtterance {
  /** Number in the data: from 1 in ECF and in JSONL files, from 0 in MELD. Records that were left out, and MELD itself, leave gaps. */
  readonly id: number
  readonly text: string
  readonly speaker: string
  /** Undefined if the data do not tell. */
  readonly emotion?: string
  /** 'positive', 'negative' or 'neutral'; only in MELD. */
  readonly sentiment?: string
  /** Clip name in the data, without extension: `dia1utt1` (ECF), `dia0_utt0` (MELD). */
  readonly clipName?: string
  /** Files of the clip, if clips were requested and found. */
  readonly clip?: EmotionClip
  /** TV episode, such as `S01E01`, and begin and end in it in seconds. */
  readonly broadcast?: { readonly episode: string; readonly start: number; readonly end: number }
}

/** A cause of an emotion: another utterance, or the same one. */
export interface EmotionCause {
  /** Index of the utterance with the emotion, from 0. */
  readonly effect: number
  /** Index of the utterance that is the cause, from 0; it may come later. */
  readonly cause: number
  readonly emotion: string
  /** Span of the cause in whitespace-separated words of its text, [start, end); in ECF's subtask 1. */
  readonly span?: readonly [start: number, end: number]
  /** Text of the span, if the data have it. */
  readonly spanText?: string
}

export interface EmotionDialog {
  /** Number in ECF or MELD as text, or name in a JSONL file. */
  readonly id: string
  readonly utterances: readonly EmotionUtterance[]
  /** Undefined if the data have no causes; [] if this dialog has none. */
  readonly causes?: readonly EmotionCause[]
  /** Part of the data set, if the data name it. */
  readonly part?: Part
  /** Origin, for messages. */
  readonly source: string
}

/** Dialogs, with counts of what was left out. */
export interface EmotionData {
  dialogs: EmotionDialog[]
  /** Number of utterances, and of causes. */
  utterances: number
  causes: number
  /** With `onBadRecord: 'skip'`: number of dialogs, emotions or causes that were left out, and the first hundred errors. */
  badRecords: number
  badRecordErrors: DataError[]
  /** Number of bad records by reason. */
  reasons: Record<string, number>
  /** Number of utterances without a clip, if clips were requested; it includes MELD's unusable clips. */
  missingClips: number
}

export interface ReadDialogsOptions {
  /**
   * Action for a record that cannot be used: 'stop' (default) throws; 'skip' leaves out as little as possible and counts it by
   * reason. An unknown emotion is removed from its utterance, a cause outside the dialog is removed from the dialog.
   */
  onBadRecord?: OnBadRecord
  /** Clips of the utterances. Default: none are searched. */
  clips?: EmotionClips
  /** Names of the emotions. Default {@link EMOTIONS}. */
  emotions?: readonly string[]
}

/** Check the options of a reader. @throws ConfigError for an unknown or invalid option */
export function checkReadOptions(where: string, options: ReadDialogsOptions, more: readonly string[] = []): void {
  requireOptions(where, options, ['onBadRecord', 'clips', 'emotions', ...more])
  const { emotions = EMOTIONS } = options
  const good = Array.isArray(emotions) && emotions.length > 1 && emotions.every((name) => typeof name === 'string')
  if (!good || new Set(emotions).size < emotions.length) {
    throw argumentError(where, 'emotions', 'a list of at least two different names', emotions)
  }
}

/** Return the result of a reader, with its counts. */
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

/** Return a valid emotion; otherwise report a bad record and return undefined. */
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
  bad.note('unknown emotion', `${at}: emotion: expected one of ${list}, got ${JSON.stringify(name)}. Correct it.`, {
    ...fields,
    emotion: name,
  })
  return undefined
}
