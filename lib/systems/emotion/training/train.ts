import { defined, requireObject, requireOneOf, requireOptions, requireString } from '../../../base/check.js'
import { DataError } from '../../../base/errors.js'
import { isMainProcess } from '../../../distributed/index.js'
import { bestEpochBy, type RecipeResults, runRecipe } from '../../../kit/recipe.js'
import type { OnBadRecord } from '../../../kit/records.js'
import type { Module } from '../../../nn/index.js'
import { getPeftModel, type LoraConfig, type PeftModel } from '../../../peft/index.js'
import { type Device, manualSeed, scope, type Tensor } from '../../../tensor/index.js'
import type { TrainingArguments } from '../../../train/trainer/arguments.js'
import type { TrainerCallback } from '../../../train/trainer/callbacks.js'
import type { Logger } from '../../../train/trainer/logger.js'
import { Trainer } from '../../../train/trainer/trainer.js'
import { BadClips } from '../data/bad-clips.js'
import { type EmotionBatch, type EmotionSample, emotionCollate } from '../data/collate.js'
import type { FeatureCacheOptions } from '../data/features.js'
import type { EmotionParts } from '../data/open.js'
import { calibrate, emotionAnswers, measureAnswers } from '../evaluation/evaluate.js'
import { emotionMetrics } from '../evaluation/metrics.js'
import type { EmotionClassifierConfig } from '../network/config.js'
import type { EmotionEncoder } from '../network/encoders.js'
import { EmotionClassifier } from '../network/network.js'
import { emotionLoss, inverseFrequencies, weightsTensor } from './loss.js'
import { emotionOptimizer } from './optimizer.js'
import { type EmotionRecipe, emotionRecipe, PUBLISHED_EMOTION_RECIPE } from './recipe.js'
import { encodersDevice, readingEncoders, samplesOf, splitEncoders } from './samples.js'

/** LoRA configuration of the encoders' adapters. Defaults are PEFT's, except r 16 and loraAlpha 16. */
export interface EmotionLora extends Partial<Omit<LoraConfig, 'modulesToSave'>> {
  /** Names of the adapted layers, or a pattern. Default: the attention projections (query, key, value, output) of each encoder. */
  targetModules?: string[] | string
}

export interface TrainEmotionOptions {
  data: EmotionParts
  /** Encoders of utterances, at most one per modality. */
  encoders: readonly EmotionEncoder[]
  /** Folder for checkpoints, the best classifier (`best/`) and `results.json`. */
  outputDir: string
  /** Changes to the classifier's configuration. */
  config?: Omit<EmotionClassifierConfig, 'labels' | 'sizes' | 'steps'>
  recipe?: Partial<EmotionRecipe>
  /** Training of the encoders: frozen ('head', default), all weights ('full'), or LoRA adapters. Fusion, context and head always train. */
  tune?: 'head' | 'full' | EmotionLora
  /**
   * Action for a clip that cannot be read: a missing or damaged file, or a video without audio. 'stop' (default) throws; 'skip'
   * treats the modality as missing and counts such clips by reason.
   */
  onBadRecord?: OnBadRecord
  /** Device of fusion, context and head. Default: the encoders' device, or the default device if they have no network. */
  device?: Device
  /** Folder for vectors of frozen encoders. Default: `features` in the output folder. */
  cache?: string
  /**
   * 'published': the recipe of the original. With adapters, the head then stays frozen and all biases train. By default the head
   * trains together with the adapters.
   */
  compat?: 'published'
  /** TrainingArguments, which take precedence over `recipe`. */
  args?: Partial<TrainingArguments>
  callbacks?: readonly TrainerCallback[]
  loggers?: readonly Logger[]
  onFeatures?: FeatureCacheOptions['onProgress']
}

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

const OPTIONS: readonly (keyof TrainEmotionOptions)[] = [
  ...([
    'data',
    'encoders',
    'outputDir',
    'config',
    'recipe',
    'tune',
    'cache',
    'compat',
    'args',
    'callbacks',
    'loggers',
    'onBadRecord',
    'device',
  ] as const),
  'onFeatures',
]

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
export async function trainEmotion(options: TrainEmotionOptions): Promise<TrainedEmotion> {
  const where = 'trainEmotion'
  requireOptions(where, options, OPTIONS)
  const {
    data,
    outputDir,
    config = {},
    tune = 'head',
    compat,
    onBadRecord = 'stop',
    args = {},
    callbacks = [],
    loggers = [],
  } = options
  requireObject(where, 'data', data)
  requireString(where, 'outputDir', outputDir)
  if (compat !== undefined) requireOneOf(where, 'compat', compat, ['published'])
  if (typeof tune === 'string') requireOneOf(where, 'tune', tune, ['head', 'full'])
  else requireObject(where, 'tune', tune)
  requireOneOf(where, 'onBadRecord', onBadRecord, ['stop', 'skip'])
  const bad = new BadClips(onBadRecord)
  const encoders = readingEncoders(where, options.encoders, bad)
  const recipe = emotionRecipe(options.recipe, compat === 'published' ? PUBLISHED_EMOTION_RECIPE : undefined)
  const { live, frozen } = splitEncoders(where, encoders, tune !== 'head')
  const samples = await samplesOf(data, frozen, options)
  const sizes = Object.fromEntries(encoders.map(({ modality, size }) => [modality, size]))
  const steps = Object.fromEntries(
    encoders.flatMap(({ modality, steps: own }) => (own ? [[modality, own] as const] : [])),
  )
  manualSeed(recipe.seed)
  const model = new EmotionClassifier(
    { ...config, labels: data.labels, sizes, steps },
    { encoders: live, ...defined({ device: encodersDevice(where, live, frozen, options.device) }) },
  )
  const peft = typeof tune === 'string' ? undefined : withAdapters(model, tune, compat)
  let isMerged = false
  const merge = () => {
    if (!isMerged) peft?.mergeAndUnload()
    isMerged = true
  }
  const collate = emotionCollate(model.config.sizes, live)
  const optimizer = args.zero ? undefined : emotionOptimizer(model, recipe)
  const known = (part: readonly EmotionSample[]) => part.filter(({ labels }) => labels.some((label) => label >= 0))
  const train = known(samples.train)
  if (train.length === 0)
    throw new DataError(
      `${where}: expected an utterance with an emotion in the training data, got none. Check the emotions of ${samples.train.length} dialogs.`,
      {},
    )
  const classWeights = weightsOf(train, data.labels.length, recipe)
  const trainer = new Trainer<EmotionClassifier, EmotionSample, EmotionBatch>({
    model: peft ?? model,
    trainDataset: train,
    evalDataset: known(samples.valid),
    collate,
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
    ...(optimizer && { optimizers: { optimizer } }),
    ...{ callbacks, loggers },
    lengthOf: ({ dialog }) => dialog.utterances.length,
    args: trainingArguments(outputDir, recipe, samples.valid.length > 0, args),
  })
  const parameters = model.namedParameters().map(([, parameter]) => parameter)
  const count = (some: readonly Tensor[]) => some.reduce((sum, parameter) => sum + parameter.numel(), 0)
  const counts = { trainable: count(parameters.filter((one) => one.requiresGrad)), parameters: count(parameters) }
  const results = await runRecipe<Record<string, number>, EmotionResults, EmotionSample[]>({
    ...{ trainer, outputDir, data: { ...samples, train } },
    async save(folder) {
      merge()
      model.eval()
      if (known(samples.valid).length > 0) await calibrate(model, known(samples.valid))
      if (isMainProcess()) await model.save(folder, frozen)
    },
    measure: async (part) =>
      measureAnswers(await emotionAnswers(model, part), data.labels, model.config.temperature) as Record<
        string,
        number
      >,
    more: () => {
      const { temperature } = model.config
      const notes = [...data.notes, ...(bad.count > 0 ? [bad.note] : [])]
      const { keyMetric } = recipe
      return { labels: data.labels, keyMetric, temperature, ...counts, badClips: { ...bad.reasons }, notes }
    },
    dispose: () => {
      trainer.dispose()
      optimizer?.dispose()
      classWeights?.dispose()
    },
  })
  // A run that ended before has the weights in its checkpoint, but not the temperature that was fitted after training.
  merge()
  model.config.temperature = results.temperature
  return { results, model: model.eval(), samples }
}

/** Attention projections, as BERT, RoBERTa, WavLM, Whisper and CLIP name them. */
const ATTENTION = ['query', 'key', 'value', 'q_proj', 'k_proj', 'v_proj', 'out_proj']

/** Add LoRA adapters to the `encoders` of a network with a `head`. With 'published' the head is frozen and all biases train. */
export function withAdapters<M extends Module>(
  model: M,
  lora: EmotionLora,
  compat: 'published' | undefined,
): PeftModel<M> {
  const { targetModules, ...rest } = lora
  // The pattern covers the whole path, so that no projection of the head matches.
  const endings = Array.isArray(targetModules) ? targetModules : targetModules === undefined ? ATTENTION : undefined
  const pattern =
    endings === undefined
      ? (targetModules as string)
      : `encoders\\..*\\.(${endings.map((name) => name.replace(/[^\w.]/g, '')).join('|')})`
  const published = { r: 16, loraAlpha: 16, loraDropout: 0.1, bias: 'all' as const }
  return getPeftModel(model, {
    ...(compat === 'published' ? published : { r: 16, loraAlpha: 16, modulesToSave: ['head'] }),
    ...rest,
    targetModules: pattern,
  })
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

function trainingArguments(
  outputDir: string,
  recipe: EmotionRecipe,
  evaluates: boolean,
  args: Partial<TrainingArguments>,
): TrainingArguments {
  const { epochs, batchSize, accumulation, headLearningRate, warmup, maxGradNorm, seed, bf16, patience, keyMetric } =
    recipe
  return {
    outputDir,
    numTrainEpochs: epochs,
    perDeviceTrainBatchSize: batchSize,
    perDeviceEvalBatchSize: batchSize,
    gradientAccumulationSteps: accumulation,
    learningRate: headLearningRate,
    lrSchedulerType: 'linear',
    warmupRatio: warmup,
    ...{ maxGradNorm, seed, bf16 },
    loggingSteps: 10,
    ...(evaluates ? bestEpochBy(keyMetric) : { saveStrategy: 'epoch' as const, saveTotalLimit: 1 }),
    ...(evaluates && patience > 0 && { earlyStoppingPatience: patience }),
    ...args,
  }
}
