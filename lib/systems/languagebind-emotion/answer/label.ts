import { defined, requireOptions, requireString } from '../../../base/check.js'
import { DataError } from '../../../base/errors.js'
import { isFilm } from '../../../kit/emotion/clips.js'
import type { EmotionCause, EmotionDialog } from '../../../kit/emotion/dialog.js'
import type { Whisper } from '../../../models/whisper/whisper.js'
import { emotionSamples } from '../data/collate.js'
import { type DialogAnswer, emotionAnswers } from '../evaluation/evaluate.js'
import { softmaxOf } from '../evaluation/metrics.js'
import type { EmotionClassifier } from '../network/network.js'

/** What is felt in an utterance. */
export interface LabelledUtterance {
  emotion: string
  /** Of each emotion, in the order of the labels; calibrated where the classifier was. */
  probabilities: number[]
}

/** A dialog with what a classifier says of its utterances, in their order. */
export interface LabelledDialog {
  dialog: EmotionDialog
  labels: readonly string[]
  utterances: LabelledUtterance[]
  /** Where causes were looked for. */
  causes?: readonly EmotionCause[]
}

/** Logits as probabilities and names. */
export const labelledOf = (
  answers: readonly DialogAnswer[],
  { labels, temperature }: Pick<EmotionClassifier['config'], 'labels' | 'temperature'>,
): LabelledDialog[] =>
  answers.map(({ dialog, logits }) => ({
    ...{ dialog, labels },
    utterances: logits.map((row) => ({
      emotion: labels[row.indexOf(Math.max(...row))] as string,
      probabilities: softmaxOf(row, temperature),
    })),
  }))

/** Says what is felt in dialogs, with a classifier that has its towers. Emotions that the dialogs have are not looked at. */
export async function labelDialogs(
  model: EmotionClassifier,
  dialogs: readonly EmotionDialog[],
  options: { batchSize?: number } = {},
): Promise<LabelledDialog[]> {
  requireOptions('labelDialogs', options, ['batchSize'])
  const bare = dialogs.map((dialog) => ({
    ...dialog,
    utterances: dialog.utterances.map(({ emotion: _, ...utterance }) => utterance),
  }))
  const answers = await emotionAnswers(model, emotionSamples(bare, model.config.labels), options)
  return labelledOf(
    answers.map((answer, i) => ({ ...answer, dialog: dialogs[i] as EmotionDialog })),
    model.config,
  )
}

export interface TurnsOptions {
  /** A code or an English name; else it is detected. */
  language?: string
  /** Turns end at pauses of so many seconds [0.8], and where a sentence does. */
  pause?: number
  signal?: AbortSignal
}

/**
 * The turns of a recording by Whisper's times of words: a new one begins behind a pause, or behind the end of a sentence. Who
 * speaks is not known. Of a film the pictures are part of the turns.
 * @throws DataError where nothing is said in it
 */
export async function turnsOf(whisper: Whisper, file: string, options: TurnsOptions = {}): Promise<EmotionDialog> {
  requireString('turnsOf', 'file', file)
  requireOptions('turnsOf', options, ['language', 'pause', 'signal'])
  const { language, pause = 0.8, signal } = options
  const { segments } = await whisper.transcribe(file, { timestamps: 'word', ...defined({ language, signal }) })
  const words = segments.flatMap((segment) => segment.words ?? [])
  const turns: { text: string; start: number; end: number }[] = []
  for (const { text, start, end } of words) {
    const last = turns.at(-1)
    const isNew = last === undefined || start - last.end >= pause || /[.!?…。！？]["”’»]?$/.test(last.text)
    if (isNew) turns.push({ text: text.trimStart(), start, end })
    else {
      last.text += text
      last.end = end
    }
  }
  const spoken = turns.filter(({ text, start, end }) => text.trim() !== '' && end > start)
  if (spoken.length === 0) throw new DataError(`${file}: nobody says anything in it`, { file })
  const utterances = spoken.map(({ text, start, end }, i) => ({
    ...{ id: i + 1, text: text.trim(), speaker: '' },
    clip: { audio: file, ...(isFilm(file) && { video: file }), start, end },
  }))
  return { id: file, utterances, source: file }
}
