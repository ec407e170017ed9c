import { DataError } from '../../../base/errors.js'
import { shortened } from '../../../base/words.js'
import type { ChatTask } from '../../../serve/chat-model.js'
import {
  ECPE_WORDING,
  type EcpeLine,
  type EcpeWording,
  EMOTION_LABELS,
  type EmotionNames,
  type EmoVerseTask,
  ecpeQuestion,
  emotionLabel,
  questionOf,
  SENTIMENT_LABELS,
  utterancePrompt,
} from '../published/wording.js'

/** The five tasks, as the chat page lists them. */
export const CHAT_TASKS: readonly (ChatTask & { id: EmoVerseTask })[] = [
  { id: 'MSA', title: 'Sentiment', hint: 'Whether the person is positive or negative.' },
  { id: 'MER', title: 'Emotion', hint: 'Which of seven emotions the person shows.' },
  { id: 'FER', title: 'Expression', hint: 'Description of the facial expression.' },
  { id: 'ERI', title: 'Reason', hint: "The person's emotion, and the reason for it." },
  {
    id: 'ECPE',
    title: 'Cause',
    hint: 'Which utterances cause the emotion of the last one. Write a line for each, as in “Anna (anger): You lied!”. Emotions that you leave out are predicted first.',
  },
]

export interface TaskQuestion {
  /** Question, in the wording that the network was trained with. */
  text: string
  /** Allowed answers, for a task that has a fixed set of labels. */
  labels?: readonly string[]
}

export interface TaskQuestionOptions {
  names: EmotionNames
  /** Texts of a question about causes. */
  wording?: Readonly<EcpeWording>
  /** Return the most likely label of a question, for utterances without a stated emotion. */
  mostLikelyLabel(query: string, labels: readonly string[]): Promise<string>
}

/**
 * Return the question of a task about an utterance. The utterance may be empty, except in a question about causes.
 * @throws DataError for a conversation that does not parse, naming the line
 */
export async function taskQuestion(
  task: EmoVerseTask,
  said: string,
  options: TaskQuestionOptions,
): Promise<TaskQuestion> {
  const { names } = options
  const words = said.trim()
  if (task === 'ECPE') return { text: await aboutCauses(words, options) }
  const text = `${words === '' ? '' : utterancePrompt(words, names)}${questionOf(task, names)}`
  if (task === 'MSA') return { text, labels: SENTIMENT_LABELS }
  return task === 'MER' ? { text, labels: EMOTION_LABELS[names] } : { text }
}

/** Maximum number of lines. Each line without a stated emotion costs one prediction. */
const MOST_LINES = 1000
/** Maximum number of characters of a speaker's name. */
const LONGEST_NAME = 80

interface WrittenLine {
  speaker: string
  emotion: string | undefined
  text: string
}

/** Read `Anna: You lied to me!` or `Anna (anger): You lied to me!`; return undefined for any other line. */
function writtenLine(line: string): WrittenLine | undefined {
  const colon = line.indexOf(':')
  if (colon < 0) return undefined
  const head = line.slice(0, colon).trim()
  const text = line.slice(colon + 1).trim()
  const open = head.endsWith(')') ? head.lastIndexOf('(') : head.length
  const speaker = head.slice(0, Math.max(0, open)).trimEnd()
  const emotion = head.endsWith(')') ? head.slice(open + 1, -1).trim() : undefined
  const isGood = speaker.length > 0 && speaker.length <= LONGEST_NAME && !/[()]/.test(speaker) && text !== ''
  if (!isGood || (emotion !== undefined && !/^\p{L}+$/u.test(emotion))) return undefined
  return { speaker, emotion, text }
}

async function aboutCauses(said: string, { names, wording = ECPE_WORDING, mostLikelyLabel }: TaskQuestionOptions) {
  const written = said.split('\n').filter((line) => line.trim() !== '')
  if (written.length < 2) {
    throw new DataError(
      `messages: expected a conversation of at least 2 lines, got ${written.length}. Write a line for each utterance, such as “Anna: You lied!”.`,
      { lines: written.length },
    )
  }
  if (written.length > MOST_LINES) {
    throw new DataError(
      `messages: expected a conversation of at most ${MOST_LINES} lines, got ${written.length}. Send only its end.`,
      { lines: written.length },
    )
  }
  // Parse every line before the first prediction, which is slow.
  const read = written.map((line, i) => lineOf(line.trim(), i + 1, names))
  const lines: EcpeLine[] = []
  for (const { emotion, ...line } of read) {
    const known = emotion ?? wordOf(await mostLikelyLabel(`${utterancePrompt(line.text, names)}${questionOf('MER', names)}`, EMOTION_LABELS[names])) // biome-ignore format: one line
    lines.push({ ...line, emotion: known })
  }
  return ecpeQuestion(lines, lines.at(-1) as EcpeLine, lines.slice(0, -1), wording)
}

function lineOf(line: string, number: number, names: EmotionNames) {
  const written = writtenLine(line)
  if (written === undefined) {
    throw new DataError(
      `messages, line ${number}: expected a speaker and a text, got ${JSON.stringify(shortened(line, 80))}. Write it like “Anna: You lied!”.`,
      { line: number },
    )
  }
  const { speaker, emotion, text } = written
  const label = emotion === undefined ? undefined : emotionLabel(emotion.toLowerCase(), names)
  if (emotion !== undefined && label === undefined) {
    const known = EMOTION_LABELS[names].map(wordOf).join(', ')
    throw new DataError(
      `messages, line ${number}: expected one of the emotions ${known}, got “${shortened(emotion)}”. Use one of these, or leave it out.`,
      { line: number, emotion },
    )
  }
  return { number, speaker, text, emotion: label && wordOf(label) }
}

/** Convert the label `Joy.` to its form in a conversation, `joy`. */
const wordOf = (label: string): string => label.toLowerCase().replace('.', '')
