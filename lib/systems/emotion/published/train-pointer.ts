import { defined, requireObject } from '../../../base/check.js'
import { ConfigError } from '../../../base/errors.js'
import { type ChangesOf, checkedBy, settings, unchecked } from '../../../base/settings.js'
import type { RecipeResults } from '../../../kit/recipe.js'
import { savePretrained } from '../../../models/own-module.js'
import { functional } from '../../../nn/index.js'
import { cat, manualSeed, ops, scope, type Tensor, tensor } from '../../../tensor/index.js'
import { f1Score } from '../../../train/metrics/classification.js'
import type { EmotionSample } from '../data/collate.js'
import { requireSamples, trainHead } from '../training/head.js'
import { type HeadKind, loadHead } from '../training/head-files.js'
import { HEAD_SETTINGS } from '../training/recipe.js'
import { prepareEncoders, TRAINING_SETTINGS } from '../training/samples.js'
import { PointerHead, type PointerHeadOptions, pointerLabel } from './heads.js'
import { publishedPairs } from './pairs.js'
import { PAIR_RECIPE } from './train-pairs.js'

const POINTER: HeadKind = { modelType: 'emotion-pointer', savedBy: 'trainPointer', loadedBy: 'loadPointer' }

const POINTER_SETTINGS = HEAD_SETTINGS.extend({
  /** Metric that selects the best epoch. */
  keyMetric: { type: ['causeF1', 'accuracy', 'loss'], default: 'causeF1' },
})

const { tune: _, compat: __, ...TRAINING } = TRAINING_SETTINGS.table
const SETTINGS = settings({
  ...TRAINING,
  /** Configuration of the pointer; its size is that of the vectors. */
  config: { type: checkedBy<Omit<PointerHeadOptions, 'size'>>(requireObject) },
  /** Hyperparameters. Encoders do not train. */
  recipe: { type: unchecked<Omit<ChangesOf<typeof POINTER_SETTINGS.table>, 'encoderLearningRate'>>() },
})

/** Options of `trainPointer`. @interface */
export type TrainPointerOptions = ChangesOf<typeof SETTINGS.table>

export interface PointerResults extends RecipeResults<Record<string, number>> {
  keyMetric: string
  parameters: number
  /** Number of pairs in each part. */
  pairs: Record<'train' | 'valid' | 'test', number>
  /** Number of clips that could not be read, by reason; with `onBadRecord: 'skip'`. */
  badClips: Readonly<Record<string, number>>
  notes: string[]
}

/** A pair of utterances in its dialog, with its label. */
interface PointerSample {
  /** [utterances · size] */
  video: Float32Array
  text: Float32Array
  pair: readonly [target: number, candidate: number]
  cause: 0 | 1
}

interface PointerBatch {
  dialogs: { video: Tensor; text: Tensor; pair: readonly [number, number] }[]
  /** int64 [pairs, 2]: the target position, and the position of the candidate. */
  labels: Tensor
}

/** Logit of positions that a shorter dialog does not have. */
const NOWHERE = -1e9

/**
 * Train the pointer of experiment 11 on the pairs of experiments 9 and 10, on frozen vectors of video and text of the whole
 * dialog, with cross-entropy over the positions of the sequence. The authors report that it failed; it is here for comparison.
 * @throws ConfigError unless there is one video and one text encoder with vectors of one size; otherwise as `trainPairs`
 */
export async function trainPointer(
  given: TrainPointerOptions,
): Promise<{ results: PointerResults; model: PointerHead }> {
  const where = 'trainPointer'
  const options = SETTINGS.read(where, given)
  const recipe = POINTER_SETTINGS.read(`${where}: recipe`, options.recipe, { ...PAIR_RECIPE, keyMetric: 'causeF1' })
  const { frozen, sizes, device, report, ...prepared } = prepareEncoders(where, options)
  const { video: size, text } = sizes
  if (frozen.length !== 2 || size === undefined || size !== text) {
    const got = Object.entries(sizes).map(([name, length]) => `${name} (${length})`)
    throw new ConfigError(
      `${where}: expected one video and one text encoder with vectors of one size, got ${got.join(', ')}. Change the list of encoders.`,
      {
        sizes,
      },
    )
  }
  const samples = await prepared.samples()
  const { seed } = recipe
  const pairs = {
    train: pointerSamples(samples.train, size, seed),
    valid: pointerSamples(samples.valid, size, seed),
    test: pointerSamples(samples.test, size, seed),
  }
  requireSamples(where, pairs.train, 'a dialog with causes in the training data', samples.train)
  manualSeed(seed)
  const model = new PointerHead({ size, ...options.config }, defined({ device }))
  const width = 2 * model.config.maxUtterances + 8
  const results = await trainHead<PointerHead, PointerSample, PointerBatch, PointerResults>({
    ...{ model, recipe, options, data: pairs },
    collate: (some) => pointerCollate(some, size),
    computeLoss: (network, { dialogs, labels }) => {
      const rows = dialogs.map((one) => network.forward(one.video, one.text, [one.pair]))
      return scope(() => {
        const wide = (row: Tensor) => ops.constantPadNd(row.to({ dtype: 'float32' }), [0, width - row.size(1)], NOWHERE)
        const logits = cat(rows.map(wide), 0) // [pairs, width]
        return { loss: functional.crossEntropy(logits, labels.select(1, 0)), logits }
      })
    },
    computeMetrics: ({ predictions, labels }) => pointerMetrics(predictions, labels as Tensor),
    countItems: ({ labels }) => labels.size(0),
    save: (folder) => savePretrained(folder, model, { modelType: POINTER.modelType, ...model.config }),
    more: ({ parameters }) => ({
      ...{ keyMetric: recipe.keyMetric, parameters, ...report() },
      pairs: { train: pairs.train.length, valid: pairs.valid.length, test: pairs.test.length },
    }),
  })
  return { results, model }
}

/** Make the pairs of dialogs whose causes are known, with the vectors of the whole dialog, 0 for missing modalities. */
function pointerSamples(samples: readonly EmotionSample[], size: number, seed: number): PointerSample[] {
  const known = samples.filter(({ dialog }) => dialog.causes !== undefined)
  const rows = new Map(
    known.map(({ dialog, vectors }) => {
      const flat = (name: 'video' | 'text') => {
        const all = new Float32Array(dialog.utterances.length * size)
        for (const [place, row] of (vectors[name] ?? []).entries()) if (row) all.set(row, place * size)
        return all
      }
      return [dialog, { video: flat('video'), text: flat('text') }]
    }),
  )
  return publishedPairs([...rows.keys()], { seed }).map(({ dialog, initial, causal, cause }) => ({
    ...(rows.get(dialog) as { video: Float32Array; text: Float32Array }),
    ...{ pair: [initial, causal] as const, cause },
  }))
}

function pointerCollate(samples: readonly PointerSample[], size: number): PointerBatch {
  return scope(() => {
    const table = (flat: Float32Array) => tensor(flat, { shape: [flat.length / size, size], device: 'cpu' })
    const places = samples.flatMap(({ pair, cause }) => [
      BigInt(pointerLabel(pair[1], cause === 1)),
      BigInt(pointerLabel(pair[1], true)),
    ])
    return {
      dialogs: samples.map(({ video, text, pair }) => ({ video: table(video), text: table(text), pair })),
      labels: tensor(BigInt64Array.from(places), { shape: [samples.length, 2], device: 'cpu' }),
    }
  })
}

/** Compute the accuracy of the position, and the mean F1 of cause and not-cause; the candidate is a cause if it is the position. */
function pointerMetrics(logits: Tensor, labels: Tensor): Record<string, number> {
  const predicted = scope(() => logits.argmax(-1).toArray()) as number[]
  const truth = labels.toArray() as [number, number][]
  const right = truth.filter(([place], i) => predicted[i] === place).length
  const isCause = truth.map(([place]) => Number(place !== 0))
  return {
    accuracy: right / truth.length,
    causeF1: f1Score(isCause, truth.map(([, candidate], i) => Number(predicted[i] === candidate))), // biome-ignore format: one line
  }
}

/** Load a pointer that `trainPointer` saved. @throws CheckpointError for a folder of another kind */
export const loadPointer = (folder: string): Promise<PointerHead> =>
  loadHead(POINTER, folder, (config: PointerHeadOptions) => new PointerHead(config))
