import * as vt from 'voxtorch'
import { type Clips, LABELS, labelOf } from './clips.js'

/** demo.json. */
export interface Outcome {
  /** Held-out accuracy and weighted F1, the fused model first. */
  rows: { input: string; accuracy: number; f1: number }[]
  /** The classes. */
  labels: string[]
  /** confusion[i][j]: test clips of class i that the fused model took for class j. */
  confusion: number[][]
  /** Mean training loss of each epoch, for each model. */
  loss: Record<string, number[]>
  clips: { train: number; test: number }
  sentences: { train: number; test: number }
  voices: { train: number; test: number }
  parameters: number
  epochs: number
  seed: number
  seconds: { speaking: number; reading: number; training: number; all: number }
  /** Test clips and what each model says, as numbers of classes. */
  examples: { text: string; voice: string; truth: number; guesses: Record<string, number> }[]
}

/** Input of `outcomeOf`, with the predicted class of each test clip for each model. */
interface Findings extends Pick<Outcome, 'loss' | 'parameters' | 'epochs' | 'seed' | 'seconds'> {
  clips: Clips
  guesses: Record<string, number[]>
}

/** The scores, the fused model's first, and the files of the examples. */
export function outcomeOf({ clips, guesses, loss, ...rest }: Findings): { outcome: Outcome; files: string[] } {
  const truth = clips.test.map(labelOf)
  const distinct = (what: 'file' | 'text' | 'voice') => ({
    train: new Set(clips.train.map((clip) => clip[what])).size,
    test: new Set(clips.test.map((clip) => clip[what])).size,
  })
  const rows = Object.entries({ ...guesses, 'majority class': truth.map(() => mostFrequent(clips.train.map(labelOf))) })
  const fused = Object.values(guesses)[0]!
  // The first two sentences of each kind, each in both tones.
  const shown = [1, 0].flatMap((words) =>
    clips.test.flatMap((clip, i) => (clip.words === words ? [i] : [])).slice(0, 4),
  )
  const outcome = {
    rows: rows.map(([input, guess]) => ({
      input,
      accuracy: vt.accuracy(truth, guess),
      f1: vt.f1Score(truth, guess, { average: 'weighted' }),
    })),
    labels: LABELS,
    confusion: vt.confusionMatrix(truth, fused, { labels: [...LABELS.keys()] }).matrix,
    clips: distinct('file'),
    sentences: distinct('text'),
    voices: distinct('voice'),
    ...rest,
    loss,
    examples: shown.map((i) => ({
      text: clips.test[i]!.text,
      voice: clips.test[i]!.voice,
      truth: truth[i]!,
      guesses: Object.fromEntries(Object.entries(guesses).map(([name, guess]) => [name, guess[i]!])),
    })),
  }
  return { outcome, files: shown.map((i) => clips.test[i]!.file) }
}

function mostFrequent(labels: number[]): number {
  const counts = LABELS.map((_, label) => labels.filter((other) => other === label).length)
  return counts.indexOf(Math.max(...counts))
}

/** For the terminal. */
export function table(outcome: Outcome): string {
  const lines = outcome.rows.map(({ input, accuracy, f1 }) => `${input.padEnd(16)}${percent(accuracy)}${percent(f1)}`)
  return [`${'held out'.padEnd(16)}${'accuracy'.padStart(13)}${'weighted F1'.padStart(13)}`, ...lines].join('\n')
}

const percent = (share: number) => `${(100 * share).toFixed(1)} %`.padStart(13)
