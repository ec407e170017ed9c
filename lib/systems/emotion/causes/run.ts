import { existsSync } from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import type { EmotionDialog } from '../../../kit/emotion/dialog.js'
import { areOfficial, writeEcfSubmission } from '../../../kit/emotion/ecf-score.js'
import type { EmotionSample } from '../data/collate.js'
import { emotionVectors, FeatureCache } from '../data/features.js'
import type { EmotionEncoder } from '../network/encoders.js'
import type { EmotionClassifier } from '../network/network.js'
import { EmotionTextEncoder } from '../network/text-encoder.js'
import type { TrainedEmotion } from '../training/train.js'
import { findSpans, trainSpans } from './spans.js'
import { findCauses, loadCauses, trainCauses } from './train.js'

/** Add the vectors of encoders that trained with the classifier, with their current weights. */
export async function withOwnVectors<T extends TrainedEmotion['samples']>(
  model: EmotionClassifier,
  samples: T,
  cache: string,
): Promise<T> {
  const encoders = Object.values(model.ownEncoders)
  const missing = encoders.filter(({ modality }) =>
    Object.values(samples)
      .flat()
      .some(({ vectors }) => !vectors[modality]),
  )
  if (missing.length === 0) return samples
  const opened = FeatureCache.open(cache)
  try {
    const all = Object.values(samples).flatMap((part) => part.map(({ dialog }) => dialog))
    const found = await emotionVectors(missing, all, opened)
    const grown = (part: readonly EmotionSample[]) =>
      part.map((sample) => ({ ...sample, vectors: { ...sample.vectors, ...found(sample.dialog) } }))
    return Object.fromEntries(Object.entries(samples).map(([name, part]) => [name, grown(part)])) as unknown as T
  } finally {
    await opened.close()
  }
}

/** Return the part that a report shows: the test data, else the validation data, else the training data. */
export const shownPart = ({ train, valid, test }: TrainedEmotion['samples']): EmotionSample[] =>
  test.length > 0 ? test : valid.length > 0 ? valid : train

export interface CausesOfTraining {
  /** Summary of the results, one line each. */
  text: string
  /** Dialogs of {@link shownPart} with predicted emotions and causes. */
  found: EmotionDialog[]
}

/**
 * Train a cause scorer for a classifier that was just trained, and a span tagger if the data have spans and a `EmotionTextEncoder` encodes
 * the text; otherwise spans are whole utterances. Write the submission for the test data, and return a summary.
 */
export async function trainCausesOf(
  { model, samples: given }: TrainedEmotion,
  options: { outputDir: string; encoders: readonly EmotionEncoder[]; seed?: number },
): Promise<CausesOfTraining> {
  const outputDir = join(options.outputDir, 'causes')
  const samples = await withOwnVectors(model, given, join(outputDir, 'features'))
  const recipe = options.seed === undefined ? {} : { seed: options.seed }
  const { results, scorer, threshold } = await trainCauses({ classifier: model, samples, outputDir, recipe })
  const { valid, test } = results.official
  const shown = (value: number | undefined) => value?.toFixed(4) ?? 'not measured'
  const lines = [
    `causes: weighted F1 of pairs ${shown(valid?.weightedF1)} on validation data, ${shown(test?.weightedF1)} on test data`,
  ]
  const found = await findCauses(model, { scorer, threshold }, shownPart(samples))
  const reader = options.encoders.find(
    (encoder): encoder is EmotionEncoder & EmotionTextEncoder => encoder instanceof EmotionTextEncoder,
  )
  const dialogs = (part: readonly EmotionSample[]) => part.map(({ dialog }) => dialog)
  const [train, held] = [dialogs(samples.train), dialogs(samples.valid)]
  const { labels } = model.config
  let spoken = found
  if (
    reader &&
    [train, held].every((part) => part.some(({ causes }) => causes?.some(({ span }) => span !== undefined)))
  ) {
    const spans = await trainSpans({ reader, train, valid: held, labels, outputDir: join(outputDir, 'spans'), recipe })
    const { exact, floor } = spans.results
    lines.push(`cause spans: exact match ${shown(exact)} on validation data, ${shown(floor)} with whole utterances`)
    spoken = await findSpans(spans, reader, found, labels)
  }
  if (samples.test.length > 0 && areOfficial(labels) && found.every(({ id }) => /^\d+$/.test(id))) {
    const zip = join(outputDir, 'submission.zip')
    await writeEcfSubmission(zip, { subtask1: spoken, subtask2: found })
    lines.push(zip)
  }
  return { text: lines.join('\n'), found }
}

/** Load the cause scorer that `trainCausesOf` saved next to the classifier in `folder`; undefined if there is none. */
export async function causesNextTo(folder: string): Promise<Awaited<ReturnType<typeof loadCauses>> | undefined> {
  const places = [folder, dirname(resolve(folder))].map((place) => join(place, 'causes/best'))
  const found = places.find((place) => existsSync(join(place, 'config.json')))
  return found === undefined ? undefined : loadCauses(found)
}
