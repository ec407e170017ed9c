/** Write the results of salmonn-small.ts: numbers, and a page with clips to play. */
import * as vt from 'voxtorch'
import * as salmonn from 'voxtorch/salmonn'
import { normalText, wordErrorRate } from './salmonn-small-words.js'

export interface Answer {
  id: string
  task: string
  prompt: string
  prediction: string
  reference: string
  speaker: string
  audio: string
}

/** Accuracy with the right audio, with other audio, and of the most frequent answer; from 0 to 1. */
export interface Measured {
  heard: number
  others: number
  /** Null for words: there, whoever says nothing has an error rate of 1. */
  mostFrequent: number | null
  count: number
}

export interface Figures {
  asteriskWords: Measured
  librispeechWords: Measured
  emotion: Measured
  sex: Measured
  steps: number
}

const isOf = (set: string) => (answer: Answer) => answer.id.startsWith(`${set}/`)
const isTask = (task: string) => (answer: Answer) => answer.task === task
const isRight = ({ prediction, reference }: Answer) => normalText(prediction) === normalText(reference)

export function measured(
  heard: readonly Answer[],
  others: readonly Answer[],
  training: readonly salmonn.SalmonnEntry[],
): Omit<Figures, 'steps'> {
  const words = (set: string): Measured => {
    const rate = (answers: readonly Answer[]) =>
      wordErrorRate(
        answers
          .filter(isTask('asr'))
          .filter(isOf(set))
          .map(({ prediction, reference }) => ({ said: prediction, right: reference })),
      )
    const count = heard.filter(isTask('asr')).filter(isOf(set)).length
    return { heard: rate(heard), others: rate(others), mostFrequent: null, count }
  }
  const choice = (task: string): Measured => {
    const share = (answers: readonly Answer[]) => {
      const own = answers.filter(isTask(task))
      return own.filter(isRight).length / own.length
    }
    const counts = new Map<string, number>()
    for (const { target } of training.filter((entry) => entry.task === task))
      counts.set(target, (counts.get(target) ?? 0) + 1)
    const [usual = ''] = [...counts].sort((a, b) => b[1] - a[1])[0] ?? []
    const always = heard.map((answer) => ({ ...answer, prediction: usual }))
    return {
      heard: share(heard),
      others: share(others),
      mostFrequent: share(always),
      count: heard.filter(isTask(task)).length,
    }
  }
  return {
    asteriskWords: words('asterisk'),
    librispeechWords: words('librispeech'),
    emotion: choice('emotion_recognition'),
    sex: choice('gender_recognition'),
  }
}

const EACH = 6
const percent = (value: number | null) => (value === null ? '–' : `${(100 * value).toFixed(1)} %`)

/** @param metrics lines of the training's metrics.jsonl */
export async function reportOf(
  figures: Figures,
  heard: readonly Answer[],
  others: readonly Answer[],
  metrics: readonly Record<string, unknown>[],
): Promise<string> {
  const points = (name: string) =>
    metrics.flatMap((line) =>
      typeof line[name] === 'number' ? [[line.step as number, line[name] as number] as const] : [],
    )
  const { asteriskWords, librispeechWords, emotion, sex } = figures
  const row = (name: string, { heard, others, mostFrequent, count }: Measured) => [
    ...[name, percent(heard), percent(others), percent(mostFrequent), String(count)],
  ]
  // The first of each kind, not the best ones.
  const kinds: ((answer: Answer) => boolean)[] = [
    (answer) => isTask('asr')(answer) && isOf('asterisk')(answer),
    (answer) => isTask('asr')(answer) && isOf('librispeech')(answer),
    isTask('emotion_recognition'),
    isTask('gender_recognition'),
  ]
  const chosen = kinds.flatMap((kind) =>
    [...heard.keys()].filter((i) => kind(heard[i]!)).filter((_, i, all) => i % Math.ceil(all.length / EACH) === 0),
  )
  const answers: salmonn.SalmonnAnswerShown[] = []
  for (const i of chosen) {
    const { id, speaker, prompt, reference, prediction, audio } = heard[i]!
    const question = prompt.replace(/<\|im_start\|>|<\|im_end\|>|<SpeechHere>|^user|assistant\s*$/gm, '').trim()
    answers.push({
      id: `${id}, speaker ${speaker}`,
      ...{ question, right: reference, said: prediction, otherwise: others[i]!.prediction },
      isRight: isRight(heard[i]!),
      wav: await wavOf(audio),
    })
  }
  return salmonn.salmonnAnswersPage({
    title: 'A small SALMONN of published parts',
    lead: 'Whisper base encodes the audio, a Q-Former reads windows of it, and SmolLM2-135M-Instruct with LoRA answers. No prompt, reader or actor of the test set is in the training data.',
    figures: {
      head: ['', 'right audio', 'other audio', 'most frequent answer', 'questions'],
      rows: [
        row('word errors, prompts of asterisk (lower is better)', asteriskWords),
        row('word errors, readers of LibriSpeech (lower is better)', librispeechWords),
        row('emotion right, actors of Emo-DB', emotion),
        row('man or woman right, actors of Emo-DB', sex),
      ],
    },
    notes: [
      `The weights are those of the last of ${figures.steps} steps.`,
      'The prompts of asterisk have one speaker, in training and test, with different texts. The labels of LibriSpeech are transcripts of Whisper base, including its errors. Readings are cut into phrases of a few words; short readings are also used as a whole.',
      'An empty answer has a word error rate of 100 %.',
    ],
    curves: [
      { name: 'training loss', points: points('loss') },
      { name: 'validation loss', points: points('evalLoss') },
    ],
    answers,
  })
}

/** Convert a clip to a WAV file. */
async function wavOf(path: string): Promise<Uint8Array> {
  const { mkdtempSync, readFileSync, rmSync } = await import('node:fs')
  const { tmpdir } = await import('node:os')
  const { join } = await import('node:path')
  const folder = mkdtempSync(join(tmpdir(), 'salmonn-small-'))
  try {
    await vt.scope(async () => {
      const { samples, sampleRate } = await vt.readAudio(path)
      await vt.writeWav(join(folder, 'clip.wav'), samples, { sampleRate })
    })
    return new Uint8Array(readFileSync(join(folder, 'clip.wav')))
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}
