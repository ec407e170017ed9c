import { join } from 'node:path'
import { writeEcfSubmission } from '../../../kit/emotion/ecf-score.js'
import type { EmotionSample } from '../data/collate.js'
import { emotionVectors, FeatureCache } from '../data/features.js'
import type { EmotionClassifier } from '../network/network.js'
import type { TrainedEmotion } from '../training/train.js'
import { findCauses, trainCauses } from './train.js'

/** Samples with the vectors of towers that trained with the classifier, as they are now. */
export async function withOwnVectors<T extends TrainedEmotion['samples']>(
  model: EmotionClassifier,
  samples: T,
  cache: string,
): Promise<T> {
  const towers = Object.values(model.ownTowers)
  const missing = towers.filter(({ modality }) =>
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

/**
 * Learns causes with a classifier that was trained just now, writes the submission of its test data, and says what came out.
 * Spans of subtask 1 are whole utterances.
 */
export async function trainCausesOf(
  { model, samples: given }: TrainedEmotion,
  options: { outputDir: string; seed?: number },
): Promise<string> {
  const outputDir = join(options.outputDir, 'causes')
  const samples = await withOwnVectors(model, given, join(outputDir, 'features'))
  const recipe = options.seed === undefined ? {} : { seed: options.seed }
  const { results, scorer, threshold } = await trainCauses({ classifier: model, samples, outputDir, recipe })
  const { valid, test } = results.official
  const shown = (value: number | undefined) => value?.toFixed(4) ?? 'nothing'
  const lines = [
    `causes: weighted F1 of pairs ${shown(valid?.weightedF1)} on validation, ${shown(test?.weightedF1)} on the test data`,
  ]
  const found = samples.test.length > 0 ? await findCauses(model, { scorer, threshold }, samples.test) : []
  if (found.length > 0 && found.every(({ id }) => /^\d+$/.test(id))) {
    const zip = join(outputDir, 'submission.zip')
    await writeEcfSubmission(zip, { subtask1: found, subtask2: found })
    lines.push(zip)
  }
  return lines.join('\n')
}
