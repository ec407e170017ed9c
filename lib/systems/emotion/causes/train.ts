import { shown } from '../../../base/check.js'
import { ConfigError } from '../../../base/errors.js'
import { type ChangesOf, settings, unchecked, type ValuesOf } from '../../../base/settings.js'
import type { EmotionCause, EmotionDialog } from '../../../kit/emotion/dialog.js'
import { type EcfPairScores, scoreCauses } from '../../../kit/emotion/ecf-score.js'
import { wholeSpan } from '../../../kit/emotion/span.js'
import { evaluateBatches } from '../../../kit/evaluate.js'
import type { RecipeResults } from '../../../kit/recipe.js'
import { TRAINER_OPTIONS } from '../../../kit/training-settings.js'
import { savePretrained } from '../../../models/own-module.js'
import { functional } from '../../../nn/index.js'
import { manualSeed, scope, type Tensor } from '../../../tensor/index.js'
import { onDevice } from '../../../train/trainer/loss.js'
import type { EmotionSample } from '../data/collate.js'
import { emotionAnswers, inBatches } from '../evaluation/evaluate.js'
import type { EmotionClassifier } from '../network/network.js'
import { requireSamples, trainHead } from '../training/head.js'
import { type HeadKind, loadHead } from '../training/head-files.js'
import { EMOTION_RECIPE, HEAD_SETTINGS } from '../training/recipe.js'
import { type CauseBatch, type CauseSample, causeCollate, completeVectors, joinedVectors } from './data.js'
import { CauseScorer, type CauseScorerConfig } from './network.js'

const CAUSES: HeadKind = { modelType: 'emotion-causes', savedBy: 'trainCauses', loadedBy: 'loadCauses' }

/** Label of the emotion that has no causes. */
const NEUTRAL = 'neutral'

const { weightDecay, patience, seed } = HEAD_SETTINGS.table
const CAUSE_SETTINGS = settings({
  ...{ weightDecay, patience, seed },
  epochs: { type: 'number', default: 15 },
  batchSize: { type: 'integer', min: 1, default: 16 },
  learningRate: { type: 'number', default: 1e-3 },
  /** Weight of a true pair in the loss, relative to other pairs. */
  positiveWeight: { type: 'number', default: 2 },
})

export type CauseRecipe = ValuesOf<typeof CAUSE_SETTINGS.table>

export const CAUSE_RECIPE: Readonly<CauseRecipe> = CAUSE_SETTINGS.defaults

const SETTINGS = settings({
  /** A trained classifier, which predicts the emotions. */
  classifier: { type: unchecked<EmotionClassifier>(), required: true },
  /**
   * Samples as `trainEmotion` returns them; those without causes are left out. A modality without vectors, because its encoder
   * trained with the classifier, is encoded by that encoder.
   */
  samples: {
    type: unchecked<Readonly<Record<'train' | 'valid' | 'test', readonly EmotionSample[]>>>(),
    required: true,
  },
  /** Folder for the scorer (`best/`) and `results.json`. */
  outputDir: { type: 'string', required: true },
  config: { type: unchecked<Omit<CauseScorerConfig, 'size' | 'emotions'>>() },
  recipe: { type: unchecked<Partial<CauseRecipe>>() },
  ...TRAINER_OPTIONS,
})

/** Options of `trainCauses`. @interface */
export type TrainCausesOptions = ChangesOf<typeof SETTINGS.table>

/** Decision thresholds, fitted on validation data. */
export interface CauseThreshold {
  /** Minimum probability of a cause. */
  probability: number
  /** Value that is subtracted from the logit of neutral, to trade missed emotions for false ones. */
  neutral: number
}

export interface CauseResults extends RecipeResults<Record<string, number>> {
  threshold: CauseThreshold
  /** Official metrics of subtask 2 with predicted emotions; null without data of ECF's emotions. */
  official: { valid: EcfPairScores | null; test: EcfPairScores | null }
}

/**
 * Train the cause scorer on true emotions, and fit its thresholds on validation data with predicted emotions. Resuming, the best
 * epoch and `results.json` work as in `trainEmotion`.
 * @throws ConfigError if samples lack a modality for which the classifier has no encoder; DataError if no dialog has causes
 */
export async function trainCauses(
  given: TrainCausesOptions,
): Promise<{ results: CauseResults; scorer: CauseScorer; threshold: CauseThreshold }> {
  const where = 'trainCauses'
  const options = SETTINGS.read(where, given)
  const { classifier, config = {} } = options
  const recipe = CAUSE_SETTINGS.read(`${where}: recipe`, options.recipe)
  const { labels } = classifier.config
  const complete = (part: readonly EmotionSample[]) => completeVectors(where, classifier, withCauses(part))
  const samples = {
    train: await complete(options.samples.train),
    valid: await complete(options.samples.valid),
    test: await complete(options.samples.test),
  }
  const of = (part: readonly EmotionSample[]) => part.flatMap((sample) => causeSampleOf(sample, classifier) ?? [])
  const parts = { train: of(samples.train), valid: of(samples.valid), test: of(samples.test) }
  for (const part of ['train', 'valid'] as const)
    requireSamples(`${where}: samples.${part}`, parts[part], 'a dialog with causes', options.samples[part])
  // Score the truth against itself, so that data which the scorer refuses fail before the training and not after it.
  for (const part of [samples.valid, samples.test]) {
    const truth = part.map(({ dialog }) => dialog)
    scoreCauses(truth, truth, labels)
  }
  manualSeed(recipe.seed)
  const size = ((parts.train[0] as CauseSample).vectors[0] as Float32Array).length
  // The scorer goes to the device of the classifier's own weights.
  const { device } = classifier.head.parameters()[0] as Tensor
  const scorer = new CauseScorer({ ...config, size, emotions: labels.length }).to({ device })
  const { positiveWeight, learningRate, ...rest } = recipe
  let threshold: CauseThreshold | undefined
  const official = { valid: null as EcfPairScores | null, test: null as EcfPairScores | null }
  const results = await trainHead<CauseScorer, CauseSample, CauseBatch, CauseResults>({
    ...{ model: scorer, options, data: parts },
    recipe: { ...EMOTION_RECIPE, ...rest, headLearningRate: learningRate, keyMetric: 'f1' },
    collate: causeCollate,
    computeLoss: (network, { labels: truth, candidates, ...inputs }) => {
      const logits = network.forward(inputs).reshape([-1]).indexSelect(0, candidates)
      return scope(() => {
        const weight = truth.mul(positiveWeight - 1).add(1)
        return {
          loss: functional.binaryCrossEntropyWithLogits(logits.to({ dtype: 'float32' }), truth, { weight }),
          logits,
        }
      })
    },
    countItems: ({ labels: truth }) => truth.size(0),
    computeMetrics: ({ predictions, labels: truth }) => ({
      f1: bestF1(predictions.toArray() as number[], (truth as Tensor).toArray() as number[]),
    }),
    async calibrate() {
      const scored = await scoredDialogs(classifier, scorer, samples.valid)
      threshold = bestThreshold(scored, labels)
      official.valid = officialOf(scored, labels, threshold)
    },
    save: (folder) => savePretrained(folder, scorer, { modelType: CAUSES.modelType, ...scorer.config, threshold }),
    async measure(part, evaluate) {
      if (part === parts.test && threshold) {
        official.test = officialOf(await scoredDialogs(classifier, scorer, samples.test), labels, threshold)
      }
      return evaluate()
    },
    more: () => ({ threshold: threshold as CauseThreshold, official }),
  })
  return { results, scorer, threshold: results.threshold }
}

const withCauses = (samples: readonly EmotionSample[]) => samples.filter(({ dialog }) => dialog.causes !== undefined)

/** Make a sample for the cause scorer; undefined if the causes of the dialog are unknown. */
export function causeSampleOf(
  sample: EmotionSample,
  { config }: EmotionClassifier,
  emotions = sample.labels,
): CauseSample | undefined {
  const { dialog } = sample
  if (dialog.causes === undefined) return undefined
  return {
    ...{ dialog, vectors: joinedVectors(sample, config.sizes as Record<string, number>) },
    emotions: emotions.map((label, place) => (label >= 0 ? label : emotionOfCause(dialog, place, config.labels))),
    neutral: config.labels.indexOf(NEUTRAL),
    pairs: new Set(dialog.causes.map(({ effect, cause }) => `${effect},${cause}`)),
  }
}

/** Return the class of an utterance's emotion as its causes name it; -1 if they do not. */
const emotionOfCause = ({ causes = [] }: EmotionDialog, place: number, labels: readonly string[]): number =>
  labels.indexOf(causes.find(({ effect }) => effect === place)?.emotion ?? '')

/** Return the best F1 over all thresholds. */
export function bestF1(scores: readonly number[], truth: readonly number[]): number {
  const order = scores.map((score, i) => ({ score, is: truth[i] as number })).sort((a, b) => b.score - a.score)
  const all = truth.reduce((sum, value) => sum + value, 0)
  let [right, best] = [0, 0]
  for (const [i, { is }] of order.entries()) {
    right += is
    best = Math.max(best, (2 * right) / (i + 1 + all))
  }
  return best
}

/** A dialog with emotion logits, and the probability of each pair. */
export interface ScoredDialog {
  dialog: EmotionDialog
  logits: number[][]
  /** [effects][causes] */
  causes: number[][]
}

/** Run a classifier and a cause scorer on dialogs. */
export async function scoredDialogs(
  classifier: EmotionClassifier,
  scorer: CauseScorer,
  given: readonly EmotionSample[],
): Promise<ScoredDialog[]> {
  const samples = await completeVectors('findCauses', classifier, given)
  const answers = await emotionAnswers(classifier, samples)
  const causeSamples = samples.map((sample, i): CauseSample => {
    const rows = (answers[i] as (typeof answers)[number]).logits
    // The predicted emotion. Effects are decided later, with thresholds, so every utterance is a candidate.
    const emotions = rows.map((row) => row.indexOf(Math.max(...row)))
    const causeSample = causeSampleOf(
      { ...sample, dialog: { ...sample.dialog, causes: [] } },
      classifier,
      emotions,
    ) as CauseSample
    return { ...causeSample, neutral: -1 }
  })
  const { device } = scorer.parameters()[0] as Tensor
  const scores = await evaluateBatches(scorer, inBatches(causeSamples, 16), async (some) => {
    const { labels: _, candidates: __, ...inputs } = causeCollate(some)
    return scorer
      .forward(await onDevice(inputs, device))
      .sigmoid()
      .toArray() as number[][][]
  })
  return scores.flat().map((rows, i) => {
    const { dialog } = samples[i] as EmotionSample
    const count = dialog.utterances.length
    const { logits } = answers[i] as (typeof answers)[number]
    return { dialog, logits, causes: rows.slice(0, count).map((row) => row.slice(0, count)) }
  })
}

/** Return a dialog with predicted emotions and causes. */
export function withFoundCauses(
  { dialog, logits, causes }: ScoredDialog,
  labels: readonly string[],
  { probability, neutral }: CauseThreshold,
): EmotionDialog {
  const place = labels.indexOf(NEUTRAL)
  const predictedClasses = logits.map((row) => {
    const shifted = row.map((value, i) => (i === place ? value - neutral : value))
    return shifted.indexOf(Math.max(...shifted))
  })
  const found = causes.flatMap((row, effect): EmotionCause[] => {
    if (predictedClasses[effect] === place) return []
    return row.flatMap((score, cause) => {
      if (score < probability) return []
      const emotion = labels[predictedClasses[effect] as number] as string
      return [{ effect, cause, emotion, span: wholeSpan(dialog.utterances[cause]?.text ?? '') }]
    })
  })
  const utterances = dialog.utterances.map((utterance, i) => ({
    ...utterance,
    emotion: labels[predictedClasses[i] as number] as string,
  }))
  return { ...dialog, utterances, causes: found }
}

const officialOf = (scored: readonly ScoredDialog[], labels: readonly string[], threshold: CauseThreshold) =>
  scoreCauses(
    scored.map(({ dialog }) => dialog),
    scored.map((one) => withFoundCauses(one, labels, threshold)),
    labels,
  )

function bestThreshold(scored: readonly ScoredDialog[], labels: readonly string[]): CauseThreshold {
  let best: { threshold: CauseThreshold; f1: number } | undefined
  for (const neutral of [-1, -0.5, 0, 0.5, 1]) {
    for (let step = 2; step <= 18; step += 1) {
      const threshold = { probability: step / 20, neutral }
      const { weightedF1 } = officialOf(scored, labels, threshold)
      if (best === undefined || weightedF1 > best.f1) best = { threshold, f1: weightedF1 }
    }
  }
  return (best as NonNullable<typeof best>).threshold
}

/** Load a scorer that `trainCauses` saved. @throws CheckpointError for a folder of another kind */
export async function loadCauses(folder: string): Promise<{ scorer: CauseScorer; threshold: CauseThreshold }> {
  let threshold: CauseThreshold | undefined
  const scorer = await loadHead(CAUSES, folder, (config: CauseScorerConfig & { threshold: CauseThreshold }) => {
    const { threshold: saved, ...rest } = config
    threshold = saved
    return new CauseScorer(rest)
  })
  return { scorer, threshold: threshold as CauseThreshold }
}

/**
 * Predict emotions and causes of dialogs. Vectors that samples lack are computed by the classifier's own encoders.
 * @throws ConfigError if samples lack a modality for which the classifier has no encoder
 */
export async function findCauses(
  classifier: EmotionClassifier,
  { scorer, threshold }: { scorer: CauseScorer; threshold: CauseThreshold },
  samples: readonly EmotionSample[],
): Promise<EmotionDialog[]> {
  if (!(scorer instanceof CauseScorer))
    throw new ConfigError(
      `findCauses: scorer: expected a CauseScorer, got ${shown(scorer)}. Load one with \`loadCauses\`.`,
      {
        argument: 'scorer',
      },
    )
  const scored = await scoredDialogs(classifier, scorer, samples)
  return scored.map((one) => withFoundCauses(one, classifier.config.labels, threshold))
}
