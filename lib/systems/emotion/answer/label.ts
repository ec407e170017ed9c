import { defined, requireOptions, requireString } from '../../../base/check.js'
import { DataError } from '../../../base/errors.js'
import type { EmotionCause, EmotionDialog } from '../../../kit/emotion/dialog.js'
import type { Whisper } from '../../../models/whisper/whisper.js'
import { isVideoFile } from '../../../vision/video-audio.js'
import { completeVectors } from '../causes/data.js'
import type { CauseScorer } from '../causes/network.js'
import { type CauseThreshold, findCauses } from '../causes/train.js'
import type { BadClips } from '../data/bad-clips.js'
import { emotionSamples } from '../data/collate.js'
import { type DialogAnswer, emotionAnswers } from '../evaluation/evaluate.js'
import { softmaxOf } from '../evaluation/metrics.js'
import type { EmotionClassifier } from '../network/network.js'

/** The predicted emotion of one utterance. */
export interface LabeledUtterance {
  emotion: string
  /** Probability of each emotion, in the order of the labels; calibrated if the classifier is. */
  probabilities: number[]
}

/** A dialog with the predictions of its utterances, in their order. */
export interface LabeledDialog {
  dialog: EmotionDialog
  labels: readonly string[]
  utterances: LabeledUtterance[]
  /** Predicted causes, if a cause scorer was used. */
  causes?: readonly EmotionCause[]
}

/** Convert logits to probabilities and label names. */
export const labeledOf = (
  answers: readonly DialogAnswer[],
  { labels, temperature }: Pick<EmotionClassifier['config'], 'labels' | 'temperature'>,
): LabeledDialog[] =>
  answers.map(({ dialog, logits }) => ({
    ...{ dialog, labels },
    utterances: logits.map((row) => ({
      emotion: labels[row.indexOf(Math.max(...row))] as string,
      probabilities: softmaxOf(row, temperature),
    })),
  }))

/** Add the causes that `findCauses` returned for the same dialogs, in the same order. */
export const withArrows = (labeled: readonly LabeledDialog[], found: readonly EmotionDialog[]): LabeledDialog[] =>
  labeled.map((one, i) => ({ ...one, ...defined({ causes: found[i]?.causes }) }))

export interface LabelOptions {
  /** Dialogs per batch. Default 8. */
  batchSize?: number
  /** Cause scorer and threshold, from `trainCauses` or `loadCauses`. Default: causes are not predicted. */
  causes?: { scorer: CauseScorer; threshold: CauseThreshold }
  /** `new BadClips('skip')` treats clips that cannot be read as missing and counts them. Default: such a clip is an error. */
  badClips?: BadClips
}

/** Predict the emotions of dialogs with a classifier that has its encoders. Emotions that the dialogs already have are ignored. */
export async function labelDialogs(
  model: EmotionClassifier,
  dialogs: readonly EmotionDialog[],
  options: LabelOptions = {},
): Promise<LabeledDialog[]> {
  requireOptions('labelDialogs', options, ['batchSize', 'causes', 'badClips'])
  const { causes, badClips, ...rest } = options
  const bare = dialogs.map((dialog) => ({
    ...dialog,
    utterances: dialog.utterances.map(({ emotion: _, ...utterance }) => utterance),
  }))
  const open = emotionSamples(bare, model.config.labels)
  // The cause scorer needs the vectors a second time.
  const samples = causes || badClips ? await completeVectors('labelDialogs', model, open, badClips) : open
  const answers = await emotionAnswers(model, samples, rest)
  const labeled = labeledOf(
    answers.map((answer, i) => ({ ...answer, dialog: dialogs[i] as EmotionDialog })),
    model.config,
  )
  return causes ? withArrows(labeled, await findCauses(model, causes, samples)) : labeled
}

export interface TurnsOptions {
  /** Language code or English name. Default: detected. */
  language?: string
  /** Seconds of silence that end a turn. Default 0.8. A turn also ends with a sentence. */
  pause?: number
  signal?: AbortSignal
}

/**
 * Transcribe a recording with Whisper and split it into turns, by its word timestamps: a turn ends at a pause or at the end of a
 * sentence. Speakers are unknown. Turns of a video refer to its frames too.
 * @throws DataError if Whisper finds no speech in the file
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
  if (spoken.length === 0)
    throw new DataError(`${file}: expected a recording with speech, got one without. Check the file.`, { file })
  const utterances = spoken.map(({ text, start, end }, i) => ({
    ...{ id: i + 1, text: text.trim(), speaker: '' },
    clip: { audio: file, ...(isVideoFile(file) && { video: file }), start, end },
  }))
  return { id: file, utterances, source: file }
}
