import { DataError } from '../../../base/errors.js'
import type { EmotionDialog } from '../../../kit/emotion/dialog.js'
import type { Part } from '../../../kit/split.js'
import {
  ECPE_WORDING,
  type EcpeLine,
  type EcpeWording,
  type EmotionNames,
  type EmoVerseTask,
  ecpeAnswer,
  ecpeQuestion,
  emotionLabel,
  questionOf,
  wordsSaid,
} from '../published/wording.js'
import type { SwiftRecord } from './entry.js'

export const EMOVERSE_SOURCES = ['mosei', 'meld', 'ecf'] as const
export type EmoVerseSource = (typeof EMOVERSE_SOURCES)[number]

/** What can be asked about one clip: a record for each task that it has an answer for, made when it is wanted. */
export interface EmoVerseSample {
  source: EmoVerseSource
  /** Names it in reports: `128258/9`, `dia0_utt0`, `dia1375utt5`. */
  id: string
  tasks: Partial<Record<EmoVerseTask, () => SwiftRecord>>
}

/** A clip of MOSEI, or of other data with its labels. */
export interface MoseiSample {
  /** The video and the clip in it: `128258/9`. */
  id: string
  text: string
  /** From -3 to 3; 0 is neutral. */
  sentiment?: number
  /** One of the seven, as `happy` or `joy`. */
  emotion?: string
  /** What its face does, a phrase each. */
  expressions?: readonly string[]
  /** Why the person feels so, in words. */
  reason?: string
  /** Paths of pictures of it. */
  images?: readonly string[]
}

export interface SampleOptions {
  /** Of a question about causes. */
  wording: Readonly<EcpeWording>
  /** How many utterances before stand in a question about an emotion. */
  context: number
  /** Which utterances can be causes. */
  candidates: 'before' | 'all'
  /** Sentiment in words, or as a number from -3 to 3. */
  sentiment: 'words' | 'number'
  /** The emotions that a question about causes shows, in place of the true ones. */
  predicted: ((dialog: EmotionDialog, place: number) => string) | undefined
  /** Why somebody feels so, by the id of a sample. */
  reasons: ReadonlyMap<string, string>
  part: Part
}

export const SAMPLE_OPTIONS: SampleOptions = {
  wording: ECPE_WORDING,
  context: 0,
  candidates: 'before',
  sentiment: 'words',
  predicted: undefined,
  reasons: new Map(),
  part: 'train',
}

/** Where the clips of a part are, as the data sets call it. */
const FOLDERS = {
  meld: {
    train: 'MELD/train_splits',
    valid: 'MELD/dev_splits_complete',
    test: 'MELD/output_repeated_splits_test',
  },
  ecf: { train: 'ECF2/subtask2_train', valid: 'ECF2/subtask2_train', test: 'ECF2/subtask2_test' },
} as const

/** MELD's utterances: emotion, and sentiment where it is not neutral. */
export function meldSamples(dialogs: readonly EmotionDialog[], options: SampleOptions): EmoVerseSample[] {
  return dialogs.flatMap((dialog) =>
    dialog.utterances.map((utterance, place): EmoVerseSample => {
      const name = utterance.clipName ?? `dia${dialog.id}_utt${utterance.id}`
      const videos = [`${FOLDERS.meld[dialog.part ?? options.part]}/${name}.mp4`]
      const { text, emotion, sentiment } = utterance
      const tasks: EmoVerseSample['tasks'] = {}
      const ask = (task: 'MSA' | 'MER' | 'ERI', response: string, before = '') =>
        asked(`${before}${wordsSaid(text, 'meld')}${questionOf(task, 'meld')}`, response, { videos })
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
  throw new DataError(`${id} has the emotion ${JSON.stringify(emotion)}, which has no answer`, { id, emotion })
}

/** Neutral is no answer. */
function polarityOf(id: string, sentiment: string | undefined): string | undefined {
  if (sentiment === undefined || sentiment === 'neutral') return undefined
  if (sentiment === 'positive') return 'Positive.'
  if (sentiment === 'negative') return 'Negative.'
  throw new DataError(`${id} has the sentiment ${JSON.stringify(sentiment)}, which has no answer`, { id, sentiment })
}

/** What was said before, a line each. */
function contextOf({ utterances }: EmotionDialog, place: number, count: number): string {
  const before = utterances.slice(Math.max(0, place - count), place)
  if (before.length === 0 || count === 0) return ''
  return `Before it was said:\n${before.map(({ speaker, text }) => `${speaker}: ${text}`).join('\n')}\n`
}

/** ECF's utterances that are not neutral: what causes their emotion. */
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
      // Of subtask 1 several words of one utterance can be a cause each.
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

/** MOSEI's clips, or others with their labels. */
export const moseiSamples = (samples: readonly MoseiSample[], options: SampleOptions): EmoVerseSample[] =>
  samples.map(({ id, text, sentiment, emotion, expressions, reason: own, images }): EmoVerseSample => {
    const media = { images: [...(images ?? [`${id}.png`])] }
    const tasks: EmoVerseSample['tasks'] = {}
    const ask = (task: 'MSA' | 'MER' | 'FER' | 'ERI', response: string) =>
      asked(`${wordsSaid(text, 'mosei')}${questionOf(task, 'mosei')}`, response, media)
    if (sentiment !== undefined && options.sentiment === 'number') {
      tasks.MSA = () => asked(`${wordsSaid(text, 'mosei')}${NUMBER}`, scoreText(sentiment), media)
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
