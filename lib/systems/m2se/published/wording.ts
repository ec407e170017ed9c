import { DataError } from '../../../base/errors.js'
import { requireForm } from '../../../base/form.js'
import type { SwiftRecord } from '../data/entry.js'

// What https://github.com/liaolea/EmoVerse asks and answers, which models trained with it expect.

/** The system text of its scripts, as it is spelled there. */
export const EMOVERSE_SYSTEM = 'You are an sentiment and emotion analysis expert.'

/** Sentiment, emotion, facial expression, the reason of an emotion, and pairs of emotion and cause. */
export const EMOVERSE_TASKS = ['MSA', 'MER', 'FER', 'ERI', 'ECPE'] as const
export type EmoVerseTask = (typeof EMOVERSE_TASKS)[number]

/** Which of the two lists of emotions a label is of: they differ in one word. */
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

/** The instruction of a task behind the words. */
export const questionOf = (task: 'MSA' | 'MER' | 'FER' | 'ERI', names: EmotionNames): string =>
  task === 'MER' ? QUESTIONS.MER[names] : QUESTIONS[task]

/** What is asked of words that somebody says; MELD's stand in single quotes, MOSEI's in double ones, and nothing in them is escaped. */
export const wordsSaid = (text: string, names: EmotionNames): string =>
  `The person says: ${names === 'meld' ? `'${text}'` : `"${text}"`} `

/** Answers of the tasks with labels, in the order of the published evaluation. */
export const SENTIMENT_LABELS = ['Positive.', 'Negative.'] as const
export const EMOTION_LABELS: Readonly<Record<EmotionNames, readonly string[]>> = {
  meld: ['Anger.', 'Sadness.', 'Surprise.', 'Disgust.', 'Joy.', 'Neutral.', 'Fear.'],
  mosei: ['Happy.', 'Sadness.', 'Surprise.', 'Disgust.', 'Anger.', 'Fear.', 'Neutral.'],
}

/** The answers that a question about sentiment or emotion allows; undefined for other questions. */
export function labelsAllowed(query: string): readonly string[] | undefined {
  if (query.includes('<sentiment>')) return query.includes(QUESTIONS.MSA) ? SENTIMENT_LABELS : undefined
  if (!query.includes('<emotion>')) return undefined
  return /\bhappy\b/.test(query.slice(query.indexOf('<emotion>'))) ? EMOTION_LABELS.mosei : EMOTION_LABELS.meld
}

/** The answers that a question about causes may list: its target with each utterance of the conversation; none of other questions. */
export function pairsAllowed(query: string): string[] {
  const [begin, end] = [query.indexOf(CONVERSATION), query.indexOf(`\n${CANDIDATES}`)]
  const [, target] = /^Target utterance:(\d+_[a-z]+)\. /m.exec(query) ?? []
  if (begin < 0 || end < begin || target === undefined) return []
  const lines = query.slice(begin + CONVERSATION.length, end).matchAll(/^(\d+)_[a-z]+\. /gm)
  return [...new Set(Array.from(lines, ([, number]) => `${target},${number}`))]
}

/** The answer that names an emotion of the data: `joy` is `Joy.` of MELD and `Happy.` of MOSEI, `sad` is `Sadness.` of both. */
export function emotionLabel(emotion: string, names: EmotionNames): string | undefined {
  const happy = emotion === 'joy' || emotion === 'happy'
  const word = happy ? (names === 'meld' ? 'joy' : 'happy') : emotion === 'sad' ? 'sadness' : emotion
  const label = `${word.charAt(0).toUpperCase()}${word.slice(1)}.`
  return EMOTION_LABELS[names].includes(label) ? label : undefined
}

/** The texts around the conversation in a question about causes. */
export interface EcpeWording {
  /** What is to be done; ends with a line break. */
  statement: string
  /** How to answer, without a line break at its end. */
  answer: string
  /** The last line. */
  cue: string
}

const [CONVERSATION, CANDIDATES, TARGET] = ['Input conversation:', 'Candidate utterances:', 'Target utterance:']

/**
 * Our own, in the published order of blocks. A model that was trained with the published texts wants those: take them from a
 * record by {@link ecpeWordingOf}.
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
  /** From 1. */
  number: number
  emotion: string
  speaker: string
  text: string
}

const lineOf = ({ number, emotion, speaker, text }: EcpeLine): string => `${number}_${emotion}. ${speaker}: ${text}`

/** The question about the causes of what somebody feels in an utterance. */
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
 * The texts of a published question about causes; they are the same in all records of a file.
 * @throws DataError where it has not the blocks of one
 */
export function ecpeWordingOf(record: Pick<SwiftRecord, 'query'>): EcpeWording {
  requireForm('ecpeWordingOf', 'record', record, { query: 'string' })
  const { query } = record
  const [begin, end] = [query.indexOf(CONVERSATION), query.lastIndexOf(`\n${TARGET}`)]
  const rest = end < 0 ? [] : query.slice(end + 1).split('\n')
  const cue = rest.at(-1)
  if (begin < 0 || rest.length < 3 || cue === undefined) {
    throw new DataError(`The record asks for no causes: it lacks "${CONVERSATION}" or "${TARGET}" with lines behind it`)
  }
  return { statement: query.slice(0, begin), answer: rest.slice(1, -1).join('\n'), cue }
}

/** The answer: the target with its emotion, and each cause by its number. */
export const ecpeAnswer = (target: Pick<EcpeLine, 'number' | 'emotion'>, causes: readonly number[]): string =>
  causes.map((cause) => `${target.number}_${target.emotion},${cause}`).join(';')
