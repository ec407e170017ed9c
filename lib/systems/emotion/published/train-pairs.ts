import { defined } from '../../../base/check.js'
import { ConfigError } from '../../../base/errors.js'
import { type ChangesOf, unchecked, type ValuesOf } from '../../../base/settings.js'
import type { EmotionCause, EmotionDialog } from '../../../kit/emotion/dialog.js'
import { type EcfPairScores, scoreCauses } from '../../../kit/emotion/ecf-score.js'
import { wholeSpan } from '../../../kit/emotion/span.js'
import { evaluateBatches } from '../../../kit/evaluate.js'
import type { RecipeResults } from '../../../kit/recipe.js'
import { cat, manualSeed, scope, type Tensor, tensor } from '../../../tensor/index.js'
import { f1Score } from '../../../train/metrics/classification.js'
import { batchOn, type EmotionBatch, type EmotionSample, emotionCollate } from '../data/collate.js'
import { requireSamples, trainHead } from '../training/head.js'
import { HEAD_SETTINGS, PUBLISHED_HEAD_RECIPE } from '../training/recipe.js'
import { prepareEncoders, TRAINING_SETTINGS } from '../training/samples.js'
import { pairLoss } from './heads.js'
import { EmotionPairClassifier } from './pair-network.js'
import { publishedPairs } from './pairs.js'

const PAIR_SETTINGS = HEAD_SETTINGS.extend({
  /** Metric that selects the best epoch. */
  keyMetric: { type: ['causeF1', 'emotionF1', 'loss'], default: 'causeF1' },
})

/** Hyperparameters of experiments 9 and 10; batches contain pairs. */
export type PairRecipe = ValuesOf<typeof PAIR_SETTINGS.table>

/** The published hyperparameters: 4 × 4 pairs, and the epoch with the best F1 of causes. */
export const PAIR_RECIPE: Readonly<PairRecipe> = { ...PUBLISHED_HEAD_RECIPE, accumulation: 4, keyMetric: 'causeF1' }

const SETTINGS = TRAINING_SETTINGS.extend({ recipe: { type: unchecked<Partial<PairRecipe>>() } })

/** Options of `trainPairs`. @interface */
export type TrainPairsOptions = ChangesOf<typeof SETTINGS.table>

export interface PairResults extends RecipeResults<Record<string, number>> {
  labels: readonly string[]
  keyMetric: string
  trainable: number
  parameters: number
  /** Number of pairs in each part. */
  pairs: Record<'train' | 'valid' | 'test', number>
  /** Official metrics of the pairs predicted on the test dialogs, from all ordered pairs; null without causes in them. */
  official: EcfPairScores | null
  /** Number of clips that could not be read, by reason; with `onBadRecord: 'skip'`. */
  badClips: Readonly<Record<string, number>>
  notes: string[]
}

/** A pair as a dialog of two utterances, with its label. */
interface PairSample extends EmotionSample {
  cause: 0 | 1
}

interface PairBatch extends EmotionBatch {
  /** int64 [pairs, 2]: class of the emotion, and 1 for a cause. */
  labels: Tensor
}

/**
 * Train on pairs as in experiments 9 and 10: the true pairs of each dialog and as many false ones (`publishedPairs`), with the sum of
 * both cross-entropies. Feature cache, best epoch and resuming work as in `trainEmotion`.
 * @throws DataError if no dialog of the training data has causes; otherwise as `trainEmotion`
 */
export async function trainPairs(given: TrainPairsOptions): Promise<{
  results: PairResults
  model: EmotionPairClassifier
  samples: Record<'train' | 'valid' | 'test', EmotionSample[]>
}> {
  const where = 'trainPairs'
  const options = SETTINGS.read(where, given)
  const { data } = options
  const recipe = PAIR_SETTINGS.read(`${where}: recipe`, options.recipe, PAIR_RECIPE)
  const { live, frozen, sizes, device, report, ...prepared } = prepareEncoders(where, options)
  for (const { modality, recipe: reading } of Object.values(live)) {
    // In a pair, the first utterance would be read as history of the second.
    if (!reading.history) continue
    throw new ConfigError(
      `${where}: expected a ${modality} encoder without history, got history ${reading.history}. Set its \`history\` to 0.`,
      {
        ...{ argument: 'encoders', modality },
      },
    )
  }
  const samples = await prepared.samples()
  const { seed } = recipe
  const pairs = {
    train: pairSamples(samples.train, seed),
    valid: pairSamples(samples.valid, seed),
    test: pairSamples(samples.test, seed),
  }
  requireSamples(where, pairs.train, 'a dialog with causes in the training data', samples.train)
  const known = samples.test.filter(({ dialog }) => dialog.causes !== undefined)
  const truth = known.map(({ dialog }) => dialog)
  // Score the truth against itself, so that data which the scorer refuses fail before the training and not after it.
  scoreCauses(truth, truth, data.labels)
  manualSeed(seed)
  const model = new EmotionPairClassifier({ labels: data.labels, sizes }, { encoders: live, ...defined({ device }) })
  let official: EcfPairScores | null = null
  const results = await trainHead<EmotionPairClassifier, PairSample, PairBatch, PairResults>({
    ...{ model, recipe, options, data: pairs },
    collate: pairCollate(model),
    collateAhead: Object.keys(live).length > 0,
    computeLoss: async (network, { labels, known: _, ...inputs }) => {
      const { emotion, cause } = await network.forward(inputs)
      return scope(() => {
        const logits = { emotion: emotion.to({ dtype: 'float32' }), cause: cause.to({ dtype: 'float32' }) }
        return {
          loss: pairLoss(logits, labels.select(1, 0), labels.select(1, 1)),
          logits: cat([logits.emotion, logits.cause], 1),
        }
      })
    },
    computeMetrics: ({ predictions, labels }) => pairMetrics(predictions, labels as Tensor, data.labels.length),
    countItems: ({ labels }) => labels.size(0),
    save: (folder) => model.save(folder, frozen),
    async measure(part, evaluate) {
      if (part === pairs.test && known.length > 0) {
        official = scoreCauses(truth, await findPairs(model, known), data.labels)
      }
      return evaluate()
    },
    more: (counts) => ({
      ...{ labels: data.labels, keyMetric: recipe.keyMetric, ...counts, official, ...report() },
      pairs: { train: pairs.train.length, valid: pairs.valid.length, test: pairs.test.length },
    }),
  })
  return { results, model, samples }
}

/** Make the pairs of dialogs whose causes are known, except those whose first utterance has no emotion. */
function pairSamples(samples: readonly EmotionSample[], seed: number): PairSample[] {
  const known = samples.filter(({ dialog }) => dialog.causes !== undefined)
  const byDialog = new Map(known.map((sample) => [sample.dialog, sample]))
  const found = publishedPairs([...byDialog.keys()], { seed })
  return found.flatMap(({ dialog, initial, causal, cause }): PairSample[] => {
    const { labels, vectors } = byDialog.get(dialog) as EmotionSample
    const [emotionClass, other] = [labels[initial] as number, labels[causal] as number]
    if (emotionClass < 0) return []
    const both = [initial, causal]
    const utterances = both.map((place) => dialog.utterances[place] as EmotionDialog['utterances'][number])
    const own = Object.entries(vectors).map(([name, rows]) => [name, both.map((place) => rows?.[place])])
    return [
      { dialog: { ...dialog, utterances }, labels: [emotionClass, other], vectors: Object.fromEntries(own), cause },
    ]
  })
}

function pairCollate(model: EmotionPairClassifier) {
  const collate = emotionCollate(model.config.sizes, model.ownEncoders)
  return async (samples: readonly PairSample[]): Promise<PairBatch> => {
    const batch = await collate(samples)
    batch.labels.dispose()
    const labels = samples.flatMap(({ labels: [emotionClass], cause }) => [
      BigInt(emotionClass as number),
      BigInt(cause),
    ])
    const values = BigInt64Array.from(labels)
    return { ...batch, labels: tensor(values, { shape: [samples.length, 2], device: 'cpu' }) }
  }
}

/** Compute the original's metrics: mean F1 over the emotions, and mean F1 of cause and not-cause. */
function pairMetrics(logits: Tensor, labels: Tensor, classes: number): Record<string, number> {
  const best = (from: number, count: number) =>
    scope(() => logits.narrow(1, from, count).argmax(-1).toArray()) as number[]
  const truth = labels.toArray() as number[][]
  const column = (which: number) => truth.map((row) => row[which] as number)
  return { emotionF1: f1Score(column(0), best(0, classes)), causeF1: f1Score(column(1), best(classes, 2)) }
}

/**
 * Predict on all ordered pairs of each dialog, as the original's prediction script. A pair is a cause if its second utterance is
 * classified as one and the emotion of its first utterance, predicted for this pair, is not neutral.
 */
export async function findPairs(
  model: EmotionPairClassifier,
  samples: readonly EmotionSample[],
): Promise<EmotionDialog[]> {
  const { labels, sizes } = model.config
  const neutral = labels.indexOf('neutral')
  const collate = emotionCollate(sizes, model.ownEncoders)
  const device = (model.head.parameters()[0] as Tensor).device
  const single = samples.map((sample) => [sample])
  return evaluateBatches(model, single, async (some) => {
    const { labels: _, known: __, ...inputs } = batchOn(await collate(some), device)
    const rows = (await model.encode(inputs)).select(0, 0) // [utterances, size]
    const count = rows.size(0)
    const shape = [count, count, rows.size(1)]
    const both = cat([rows.unsqueeze(1).expand(shape), rows.unsqueeze(0).expand(shape)], 2)
    const logits = model.head.forward(both.reshape([count * count, -1]))
    const [emotionClass, is] = [logits.emotion.argmax(-1).toArray(), logits.cause.argmax(-1).toArray()] as number[][]
    const { dialog } = some[0] as EmotionSample
    const causes = Array.from({ length: count * count }, (_, pair) => pair).flatMap((pair): EmotionCause[] => {
      if (emotionClass?.[pair] === neutral || is?.[pair] !== 1) return []
      const [effect, cause] = [Math.floor(pair / count), pair % count]
      const span = wholeSpan(dialog.utterances[cause]?.text ?? '')
      return [{ effect, cause, emotion: labels[emotionClass?.[pair] as number] as string, span }]
    })
    return { ...dialog, causes }
  })
}
