import { DataError } from '../../../base/errors.js'
import { requireForm } from '../../../base/form.js'
import { shortened } from '../../../base/words.js'
import type { SwiftRecord } from '../data/entry.js'

// Prompts and answers of https://github.com/liaolea/EmoVerse, which models trained with it expect.

/** System prompt of its scripts, with their spelling. */
export const EMOVERSE_SYSTEM = 'You are an sentiment and emotion analysis expert.'

/** Tasks: sentiment analysis, emotion recognition, facial expression recognition, emotion reason inference, emotion-cause pair extraction. */
export const EMOVERSE_TASKS = ['MSA', 'MER', 'FER', 'ERI', 'ECPE'] as const
export type EmoVerseTask = (typeof EMOVERSE_TASKS)[number]

/** Data set of a list of emotion labels; the lists differ in one word and in order. */
export type EmotionNames = 'meld' | 'mosei'

const QUESTIONS = {
  MSA: '<sentiment> Please determine which sentiment label in the video represents: positive or negative.',
  MER: {
    meld: '<emotion> Please determine which emotion label in the video represents: anger, sadness, surprise, disgust, joy, neutral or fear.',
    mosei:
      '<emotion> Please determine which emotion label in the video represents: anger, sad, surprise, disgust, happy, neutral or fear.',
  },
  FER: '<expression> Detail the facial expressions used in the image.',
  ERI: '<reason> What is the emotional state of the person in the video? Please tell me the reason.',
} as const

/** Return a task's instruction, which follows the utterance. */
export const questionOf = (task: 'MSA' | 'MER' | 'FER' | 'ERI', names: EmotionNames): string =>
  task === 'MER' ? QUESTIONS.MER[names] : QUESTIONS[task]

/** Return the prompt of an utterance, in single quotes for MELD and double quotes for MOSEI, without escaping. */
export const utterancePrompt = (text: string, names: EmotionNames): string =>
  `The person says: ${names === 'meld' ? `'${text}'` : `"${text}"`} `

/** Labels of the classification tasks, in the order of the published evaluation. */
export const SENTIMENT_LABELS = ['Positive.', 'Negative.'] as const
export const EMOTION_LABELS: Readonly<Record<EmotionNames, readonly string[]>> = {
  meld: ['Anger.', 'Sadness.', 'Surprise.', 'Disgust.', 'Joy.', 'Neutral.', 'Fear.'],
  mosei: ['Happy.', 'Sadness.', 'Surprise.', 'Disgust.', 'Anger.', 'Fear.', 'Neutral.'],
}

/** Return the labels that a question about sentiment or emotion allows; undefined for other questions. */
export function allowedLabels(query: string): readonly string[] | undefined {
  if (query.includes('<sentiment>')) return query.includes(QUESTIONS.MSA) ? SENTIMENT_LABELS : undefined
  if (!query.includes('<emotion>')) return undefined
  return /\bhappy\b/.test(query.slice(query.indexOf('<emotion>'))) ? EMOTION_LABELS.mosei : EMOTION_LABELS.meld
}

/** Return the pairs that a question about causes allows: its target with each utterance; [] for other questions. */
export function allowedPairs(query: string): string[] {
  const [begin, end] = [query.indexOf(CONVERSATION), query.indexOf(`\n${CANDIDATES}`)]
  const [, target] = /^Target utterance:(\d+_[a-z]+)\. /m.exec(query) ?? []
  if (begin < 0 || end < begin || target === undefined) return []
  const lines = query.slice(begin + CONVERSATION.length, end).matchAll(/^(\d+)_[a-z]+\. /gm)
  return [...new Set(Array.from(lines, ([, number]) => `${target},${number}`))]
}

/** Return the label of an emotion in the data: `joy` is `Joy.` of MELD and `Happy.` of MOSEI, `sad` is `Sadness.` of both. */
export function emotionLabel(emotion: string, names: EmotionNames): string | undefined {
  const happy = emotion === 'joy' || emotion === 'happy'
  const word = happy ? (names === 'meld' ? 'joy' : 'happy') : emotion === 'sad' ? 'sadness' : emotion
  const label = `${word.charAt(0).toUpperCase()}${word.slice(1)}.`
  return EMOTION_LABELS[names].includes(label) ? label : undefined
}

/** Texts around the conversation in a question about causes. */
export interface EcpeWording {
  /** Task description; ends with a line break. */
  statement: string
  /** Answer format, without a line break at its end. */
  answer: string
  /** Last line. */
  cue: string
}

const [CONVERSATION, CANDIDATES, TARGET] = ['Input conversation:', 'Candidate utterances:', 'Target utterance:']

/**
 * voxtorch's own texts, in the published order of blocks. A model that was trained with the published texts needs those: read them from a
 * record with {@link ecpeWordingOf}.
 */
export const ECPE_WORDING: Readonly<EcpeWording> = {
  statement:
    'This is a conversation, with the emotion of each utterance.\nSay which utterances are the cause of the emotion in the target utterance.\n',
  answer:
    'Answer with the number and emotion of the target and the number of the cause, such as "3_surprise,1". Separate several causes by ";".',
  cue: 'The causes are:',
}

/** One line of a conversation. */
export interface EcpeLine {
  /** Number of the utterance, from 1. */
  number: number
  emotion: string
  speaker: string
  text: string
}

const lineOf = ({ number, emotion, speaker, text }: EcpeLine): string => `${number}_${emotion}. ${speaker}: ${text}`

/** Return the question about the causes of the emotion in an utterance. */
export function ecpeQuestion(
  conversation: readonly EcpeLine[],
  target: EcpeLine,
  candidates: readonly EcpeLine[],
  { statement, answer, cue }: Readonly<EcpeWording>,
): string {
  const block = (name: string, lines: readonly EcpeLine[]) => `${name}${lines.map(lineOf).join('\n')}\n`
  return `${statement}${block(CONVERSATION, conversation)}${block(CANDIDATES, candidates)}${block(TARGET, [target])}${answer}\n${cue}`
}

/**
 * Extract the texts of a published question about causes. They are the same in all records of a file.
 * @throws DataError for a question without its blocks
 */
export function ecpeWordingOf(record: Pick<SwiftRecord, 'query'>): EcpeWording {
  requireForm('ecpeWordingOf', 'record', record, { query: 'string' })
  const { query } = record
  const [begin, end] = [query.indexOf(CONVERSATION), query.lastIndexOf(`\n${TARGET}`)]
  const rest = end < 0 ? [] : query.slice(end + 1).split('\n')
  const cue = rest.at(-1)
  if (begin < 0 || rest.length < 3 || cue === undefined) {
    throw new DataError(
      `ecpeWordingOf.query: expected a question about causes with "${CONVERSATION}" and "${TARGET}", got ${JSON.stringify(shortened(query, 80))}.`,
    )
  }
  return { statement: query.slice(0, begin), answer: rest.slice(1, -1).join('\n'), cue }
}

/** Return the answer: the target with its emotion, and the number of each cause. */
export const ecpeAnswer = (target: Pick<EcpeLine, 'number' | 'emotion'>, causes: readonly number[]): string =>
  causes.map((cause) => `${target.number}_${target.emotion},${cause}`).join(';')
