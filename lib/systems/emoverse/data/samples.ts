import { DataError } from '../../../base/errors.js'
import type { EmotionDialog } from '../../../kit/emotion/dialog.js'
import type { Part } from '../../../kit/split.js'
import {
  type EcpeLine,
  type EcpeWording,
  type EmotionNames,
  type EmoVerseTask,
  ecpeAnswer,
  ecpeQuestion,
  emotionLabel,
  questionOf,
  utterancePrompt,
} from '../published/wording.js'
import type { SwiftRecord } from './entry.js'

export const EMOVERSE_SOURCES = ['mosei', 'meld', 'ecf'] as const
export type EmoVerseSource = (typeof EMOVERSE_SOURCES)[number]

/** A clip with a function for each task that it has an answer for, which returns the record. */
export interface EmoVerseSample {
  source: EmoVerseSource
  /** Id in reports: `128258/9`, `dia0_utt0`, `dia1375utt5`. */
  id: string
  tasks: Partial<Record<EmoVerseTask, () => SwiftRecord>>
}

/** A clip of MOSEI, or of other data with the same labels. */
export interface MoseiSample {
  /** Video and clip: `128258/9`. */
  id: string
  text: string
  /** Sentiment from -3 to 3; 0 is neutral. */
  sentiment?: number
  /** One of the seven emotions, such as `happy` or `joy`. */
  emotion?: string
  /** Phrases of the facial expression. */
  expressions?: readonly string[]
  /** Reason for the emotion, as a text. */
  reason?: string
  /** Paths of images of the clip. */
  images?: readonly string[]
}

export interface SampleOptions {
  /** Texts of a question about causes. */
  wording: Readonly<EcpeWording>
  /** Number of preceding utterances in a question about an emotion. */
  context: number
  /** Candidate causes. */
  candidates: 'before' | 'all'
  /** Format of sentiment: a word, or a number from -3 to 3. */
  sentiment: 'words' | 'number'
  /** Emotions that a question about causes shows in place of the true ones. */
  predicted: ((dialog: EmotionDialog, place: number) => string) | undefined
  /** Reasons for emotions, by sample id. */
  reasons: ReadonlyMap<string, string>
  part: Part
}

/** Folders of the clips of each split, as in the data sets. */
const FOLDERS = {
  meld: {
    train: 'MELD/train_splits',
    valid: 'MELD/dev_splits_complete',
    test: 'MELD/output_repeated_splits_test',
  },
  ecf: { train: 'ECF2/subtask2_train', valid: 'ECF2/subtask2_train', test: 'ECF2/subtask2_test' },
} as const

/** Convert MELD's utterances to samples: emotion, and sentiment unless it is neutral. */
export function meldSamples(dialogs: readonly EmotionDialog[], options: SampleOptions): EmoVerseSample[] {
  return dialogs.flatMap((dialog) =>
    dialog.utterances.map((utterance, place): EmoVerseSample => {
      const name = utterance.clipName ?? `dia${dialog.id}_utt${utterance.id}`
      const videos = [`${FOLDERS.meld[dialog.part ?? options.part]}/${name}.mp4`]
      const { text, emotion, sentiment } = utterance
      const tasks: EmoVerseSample['tasks'] = {}
      const ask = (task: 'MSA' | 'MER' | 'ERI', response: string, before = '') =>
        asked(`${before}${utterancePrompt(text, 'meld')}${questionOf(task, 'meld')}`, response, { videos })
      const label = labelOf(name, emotion, 'meld')
      if (label !== undefined) tasks.MER = () => ask('MER', label, contextOf(dialog, place, options.context))
      const polarity = polarityOf(name, sentiment)
      if (polarity !== undefined) tasks.MSA = () => ask('MSA', polarity)
      const reason = options.reasons.get(name)
      if (reason !== undefined) tasks.ERI = () => ask('ERI', reason)
      return { source: 'meld', id: name, tasks }
    }),
  )
}

function labelOf(id: string, emotion: string | undefined, names: EmotionNames): string | undefined {
  if (emotion === undefined) return undefined
  const label = emotionLabel(emotion, names)
  if (label !== undefined) return label
  throw new DataError(`${id}: expected one of the seven emotions of ${names}, got ${JSON.stringify(emotion)}.`, {
    id,
    emotion,
  })
}

/** Return the answer for a sentiment; undefined for neutral, which has none. */
function polarityOf(id: string, sentiment: string | undefined): string | undefined {
  if (sentiment === undefined || sentiment === 'neutral') return undefined
  if (sentiment === 'positive') return 'Positive.'
  if (sentiment === 'negative') return 'Negative.'
  throw new DataError(
    `${id}: expected the sentiment positive, negative or neutral, got ${JSON.stringify(sentiment)}.`,
    { id, sentiment },
  )
}

/** Return the preceding utterances, one per line. */
function contextOf({ utterances }: EmotionDialog, place: number, count: number): string {
  const before = utterances.slice(Math.max(0, place - count), place)
  if (before.length === 0 || count === 0) return ''
  return `Before it was said:\n${before.map(({ speaker, text }) => `${speaker}: ${text}`).join('\n')}\n`
}

/** Convert ECF's utterances that are not neutral to samples of emotion causes. */
export function ecfSamples(dialogs: readonly EmotionDialog[], options: SampleOptions): EmoVerseSample[] {
  return dialogs.flatMap((dialog) => {
    const { causes, utterances } = dialog
    const lines = utterances.map(({ id, speaker, text, emotion = 'neutral' }, place): EcpeLine => {
      return { number: id, emotion: options.predicted?.(dialog, place) ?? emotion, speaker, text }
    })
    return lines.flatMap((line, place): EmoVerseSample[] => {
      if (line.emotion === 'neutral') return []
      const name = utterances[place]?.clipName ?? `dia${dialog.id}utt${line.number}`
      const videos = [`${FOLDERS.ecf[dialog.part ?? options.part]}/${name}.mp4`]
      const own = (causes ?? []).filter(({ effect }) => effect === place)
      // In subtask 1 several spans of one utterance can each be a cause.
      const numbers = [...new Set(own.map(({ cause }) => lines[cause]?.number as number))]
      const answer = ecpeAnswer({ number: line.number, emotion: utterances[place]?.emotion ?? line.emotion }, numbers)
      const candidates = options.candidates === 'all' ? lines : lines.slice(0, place)
      const make = (): SwiftRecord => ({
        videos,
        query: ecpeQuestion(lines, line, candidates, options.wording),
        response: answer,
      })
      return [{ source: 'ecf', id: name, tasks: causes === undefined ? {} : { ECPE: make } }]
    })
  })
}

/** Convert clips of MOSEI, or others with the same labels, to samples. */
export const moseiSamples = (samples: readonly MoseiSample[], options: SampleOptions): EmoVerseSample[] =>
  samples.map(({ id, text, sentiment, emotion, expressions, reason: own, images }): EmoVerseSample => {
    const media = { images: [...(images ?? [`${id}.png`])] }
    const tasks: EmoVerseSample['tasks'] = {}
    const ask = (task: 'MSA' | 'MER' | 'FER' | 'ERI', response: string) =>
      asked(`${utterancePrompt(text, 'mosei')}${questionOf(task, 'mosei')}`, response, media)
    if (sentiment !== undefined && options.sentiment === 'number') {
      tasks.MSA = () => asked(`${utterancePrompt(text, 'mosei')}${NUMBER}`, scoreText(sentiment), media)
    } else if (sentiment !== undefined && sentiment !== 0) {
      tasks.MSA = () => ask('MSA', sentiment > 0 ? 'Positive.' : 'Negative.')
    }
    const label = labelOf(id, emotion, 'mosei')
    if (label !== undefined) tasks.MER = () => ask('MER', label)
    if (expressions !== undefined && expressions.length > 0) tasks.FER = () => ask('FER', expressions.join('; '))
    const reason = own ?? options.reasons.get(id)
    if (reason !== undefined) tasks.ERI = () => ask('ERI', reason)
    return { source: 'mosei', id, tasks }
  })

const NUMBER = '<sentiment> Say as a number how positive it is, from -3 (very negative) to 3 (very positive).'
const scoreText = (score: number): string => String(Math.round(score * 100) / 100)

const asked = (query: string, response: string, media: { images?: string[]; videos?: string[] }): SwiftRecord => ({
  query,
  response,
  ...media,
})
