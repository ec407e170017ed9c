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
  wordsSaid,
} from '../published/wording.js'

/** The five tasks, as a conversation offers them. */
export const CHAT_TASKS: readonly (ChatTask & { id: EmoVerseTask })[] = [
  { id: 'MSA', title: 'Sentiment', hint: 'Whether what is shown and said is positive or negative.' },
  { id: 'MER', title: 'Emotion', hint: 'Which of seven emotions the person has.' },
  { id: 'FER', title: 'Expression', hint: 'What the face does.' },
  { id: 'ERI', title: 'Reason', hint: 'What the person feels, and why.' },
  {
    id: 'ECPE',
    title: 'Cause',
    hint: 'Which utterances cause the emotion of the last: a line for each, as in “Anna (anger): You lied!”. An emotion that is left out is guessed first.',
  },
]

export interface AskedTask {
  /** What is asked, in the words that the network was taught. */
  text: string
  /** The answers that are allowed, where there are some. */
  labels?: readonly string[]
}

export interface AskTaskOptions {
  names: EmotionNames
  /** Of a question about causes. */
  wording?: Readonly<EcpeWording>
  /** The likeliest label of a question, for utterances whose emotion is not told. */
  likeliest(query: string, labels: readonly string[]): Promise<string>
}

/**
 * A task about what was said, which may be nothing but for causes.
 * @throws DataError for a conversation that cannot be read, naming the line
 */
export async function askedTask(task: EmoVerseTask, said: string, options: AskTaskOptions): Promise<AskedTask> {
  const { names } = options
  const words = said.trim()
  if (task === 'ECPE') return { text: await aboutCauses(words, options) }
  const text = `${words === '' ? '' : wordsSaid(words, names)}${questionOf(task, names)}`
  if (task === 'MSA') return { text, labels: SENTIMENT_LABELS }
  return task === 'MER' ? { text, labels: EMOTION_LABELS[names] } : { text }
}

/** Lines of a conversation: the network reads each for its emotion where none is told. */
const MOST_LINES = 1000
/** Letters of a speaker's name. */
const LONGEST_NAME = 80

interface WrittenLine {
  speaker: string
  emotion: string | undefined
  text: string
}

/** Read `Anna: You lied to me!` or `Anna (anger): You lied to me!`; undefined where it is neither. */
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

async function aboutCauses(said: string, { names, wording = ECPE_WORDING, likeliest }: AskTaskOptions) {
  const written = said.split('\n').filter((line) => line.trim() !== '')
  if (written.length < 2) {
    throw new DataError(
      'A question about causes needs the conversation, a line for each utterance: “Anna: You lied!”',
      {
        lines: written.length,
      },
    )
  }
  if (written.length > MOST_LINES) {
    throw new DataError(`A conversation has at most ${MOST_LINES} lines, not ${written.length}: send its end alone`, {
      lines: written.length,
    })
  }
  // All of them before the first is guessed, which takes a while.
  const read = written.map((line, i) => lineOf(line.trim(), i + 1, names))
  const lines: EcpeLine[] = []
  for (const { emotion, ...line } of read) {
    const known = emotion ?? wordOf(await likeliest(`${wordsSaid(line.text, names)}${questionOf('MER', names)}`, EMOTION_LABELS[names])) // biome-ignore format: one line
    lines.push({ ...line, emotion: known })
  }
  return ecpeQuestion(lines, lines.at(-1) as EcpeLine, lines.slice(0, -1), wording)
}

function lineOf(line: string, number: number, names: EmotionNames) {
  const written = writtenLine(line)
  if (written === undefined) {
    throw new DataError(`Line ${number} of the conversation has no speaker: it should be like “Anna: You lied!”`, {
      line: number,
    })
  }
  const { speaker, emotion, text } = written
  const label = emotion === undefined ? undefined : emotionLabel(emotion.toLowerCase(), names)
  if (emotion !== undefined && label === undefined) {
    const known = EMOTION_LABELS[names].map(wordOf).join(', ')
    throw new DataError(
      `Line ${number} of the conversation has the emotion “${shortened(emotion)}”, which is none of ${known}`,
      {
        line: number,
        emotion,
      },
    )
  }
  return { number, speaker, text, emotion: label && wordOf(label) }
}

/** `Joy.` as it stands in a conversation. */
const wordOf = (label: string): string => label.toLowerCase().replace('.', '')
