import { defined, requireOptions, requireString } from '../../../base/check.js'
import { DataError } from '../../../base/errors.js'
import type { EmotionCause, EmotionDialog } from '../../../kit/emotion/dialog.js'
import type { Whisper } from '../../../models/whisper/whisper.js'
import { isFilm } from '../../../vision/film-sound.js'
import { completeVectors } from '../causes/data.js'
import type { CauseScorer } from '../causes/network.js'
import { type CauseThreshold, findCauses } from '../causes/train.js'
import type { BadClips } from '../data/bad-clips.js'
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

/** Labelled dialogs with the causes that were found in them, as `findCauses` gives them in the same order. */
export const withArrows = (labelled: readonly LabelledDialog[], found: readonly EmotionDialog[]): LabelledDialog[] =>
  labelled.map((one, i) => ({ ...one, ...defined({ causes: found[i]?.causes }) }))

export interface LabelOptions {
  /** Dialogs at once [8]. */
  batchSize?: number
  /** Looks for causes too, with what `trainCauses` gives or `loadCauses` reads. */
  causes?: { scorer: CauseScorer; threshold: CauseThreshold }
  /** Of clips that cannot be read: `new BadClips('skip')` takes them for missing and counts them. Default: they are errors. */
  badClips?: BadClips
}

/** Says what is felt in dialogs, with a classifier that has its towers. Emotions that the dialogs have are not looked at. */
export async function labelDialogs(
  model: EmotionClassifier,
  dialogs: readonly EmotionDialog[],
  options: LabelOptions = {},
): Promise<LabelledDialog[]> {
  requireOptions('labelDialogs', options, ['batchSize', 'causes', 'badClips'])
  const { causes, badClips, ...rest } = options
  const bare = dialogs.map((dialog) => ({
    ...dialog,
    utterances: dialog.utterances.map(({ emotion: _, ...utterance }) => utterance),
  }))
  const open = emotionSamples(bare, model.config.labels)
  // With causes, vectors are needed twice.
  const samples = causes || badClips ? await completeVectors('labelDialogs', model, open, badClips) : open
  const answers = await emotionAnswers(model, samples, rest)
  const labelled = labelledOf(
    answers.map((answer, i) => ({ ...answer, dialog: dialogs[i] as EmotionDialog })),
    model.config,
  )
  return causes ? withArrows(labelled, await findCauses(model, causes, samples)) : labelled
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
