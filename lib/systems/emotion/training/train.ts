import { defined } from '../../../base/check.js'
import { type ChangesOf, unchecked } from '../../../base/settings.js'
import type { RecipeResults } from '../../../kit/recipe.js'
import { manualSeed, scope, type Tensor } from '../../../tensor/index.js'
import { type EmotionBatch, type EmotionSample, emotionCollate } from '../data/collate.js'
import type { FeatureCacheOptions } from '../data/features.js'
import { calibrate, emotionAnswers, measureAnswers } from '../evaluation/evaluate.js'
import { emotionMetrics } from '../evaluation/metrics.js'
import type { EmotionClassifierConfig } from '../network/config.js'
import { EmotionClassifier } from '../network/network.js'
import { requireSamples, trainHead } from './head.js'
import { emotionLoss, inverseFrequencies, weightsTensor } from './loss.js'
import { type EmotionRecipe, emotionRecipe, PUBLISHED_EMOTION_RECIPE } from './recipe.js'
import { prepareEncoders, TRAINING_SETTINGS } from './samples.js'

export { type EmotionLora, withAdapters } from './head.js'

const SETTINGS = TRAINING_SETTINGS.extend({
  /** Changes to the classifier's configuration. */
  config: { type: unchecked<Omit<EmotionClassifierConfig, 'labels' | 'sizes' | 'steps'>>() },
  recipe: { type: unchecked<Partial<EmotionRecipe>>() },
  onFeatures: { type: unchecked<NonNullable<FeatureCacheOptions['onProgress']>>() },
})

/** Options of `trainEmotion`. @interface */
export type TrainEmotionOptions = ChangesOf<typeof SETTINGS.table>

export interface EmotionResults extends RecipeResults<Record<string, number>> {
  labels: readonly string[]
  keyMetric: string
  temperature: number
  trainable: number
  parameters: number
  /** Number of clips that could not be read, by reason; with `onBadRecord: 'skip'`. */
  badClips: Readonly<Record<string, number>>
  notes: string[]
}

export interface TrainedEmotion {
  results: EmotionResults
  /** The best classifier, in evaluation mode, with the encoders that trained with it. */
  model: EmotionClassifier
  /** Samples with their vectors, for further use, such as `trainCauses`. */
  samples: Record<'train' | 'valid' | 'test', EmotionSample[]>
}

/**
 * Train an emotion classifier. Frozen encoders run once per utterance (see `FeatureCache`). Each epoch is evaluated, and the best
 * one by `keyMetric` is kept. Its temperature is fitted on the validation data, then it is measured on the test data. The same
 * call on the same folder resumes an interrupted run, bit for bit on the CPU.
 *
 * ```ts
 * const encoders = [await EmotionTextEncoder.fromPretrained('minilm')]
 * const data = await openEmotionData('meld')
 * const { results } = await trainEmotion({ data, encoders, outputDir: 'run', config: { context: {} } })
 * ```
 * @throws DataError if no utterance of the training data has an emotion; otherwise as the Trainer
 */
export async function trainEmotion(given: TrainEmotionOptions): Promise<TrainedEmotion> {
  const where = 'trainEmotion'
  const options = SETTINGS.read(where, given)
  const { data, config = {}, compat } = options
  const recipe = emotionRecipe(options.recipe, compat === 'published' ? PUBLISHED_EMOTION_RECIPE : undefined)
  const { encoders, live, frozen, sizes, device, report, ...prepared } = prepareEncoders(where, options)
  const samples = await prepared.samples()
  const steps = Object.fromEntries(
    encoders.flatMap(({ modality, steps: count }) => (count ? [[modality, count] as const] : [])),
  )
  manualSeed(recipe.seed)
  const model = new EmotionClassifier(
    { ...config, labels: data.labels, sizes, steps },
    { encoders: live, ...defined({ device }) },
  )
  const known = (part: readonly EmotionSample[]) => part.filter(({ labels }) => labels.some((label) => label >= 0))
  const [train, valid] = [known(samples.train), known(samples.valid)]
  requireSamples(
    where,
    train,
    'an utterance with an emotion in the training data',
    samples.train,
    'Add emotions to it.',
  )
  const classWeights = weightsOf(train, data.labels.length, recipe)
  const results = await trainHead<EmotionClassifier, EmotionSample, EmotionBatch, EmotionResults>({
    ...{ model, recipe, options, data: { ...samples, train }, evalDataset: valid },
    collate: emotionCollate(model.config.sizes, live),
    // Encoders that train read their clips for each batch.
    collateAhead: Object.keys(live).length > 0,
    computeLoss: async (network, { labels, known: places, ...inputs }) => {
      const { logits } = await network.forward(inputs)
      return scope(() => {
        const rows = logits.reshape([-1, data.labels.length]).indexSelect(0, places)
        const weights = classWeights?.to({ device: rows.device }) ?? null
        const { focalGamma, labelSmoothing } = recipe
        return { loss: emotionLoss(rows, labels, { classWeights: weights, focalGamma, labelSmoothing }), logits: rows }
      })
    },
    computeMetrics: ({ predictions, labels }) =>
      emotionMetrics(
        (labels as Tensor).toArray() as number[],
        scope(() => predictions.argmax(-1).toArray()) as number[],
      ),
    lengthOf: ({ dialog }) => dialog.utterances.length,
    calibrate: async () => {
      if (valid.length > 0) await calibrate(model, valid)
    },
    save: (folder) => model.save(folder, frozen),
    measure: async (part) =>
      measureAnswers(await emotionAnswers(model, part), data.labels, model.config.temperature) as Record<
        string,
        number
      >,
    more: (counts) => {
      const { temperature } = model.config
      return { labels: data.labels, keyMetric: recipe.keyMetric, temperature, ...counts, ...report() }
    },
    dispose: () => classWeights?.dispose(),
  })
  // A run that ended before has the weights in its checkpoint, but not the temperature that was fitted after training.
  model.config.temperature = results.temperature
  return { results, model, samples }
}

function weightsOf(
  train: readonly EmotionSample[],
  classes: number,
  { classWeights }: EmotionRecipe,
): Tensor | undefined {
  if (classWeights === 'none') return undefined
  const labels = train.flatMap((sample) => [...sample.labels])
  return weightsTensor(inverseFrequencies(labels, classes, classWeights === 'root' ? 0.5 : 1))
}
