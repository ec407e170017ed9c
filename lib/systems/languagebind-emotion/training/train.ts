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
import { EmotionClassifier } from '../network/network.js'
import type { EmotionTower } from '../network/towers.js'
import { emotionLoss, inverseFrequencies, weightsTensor } from './loss.js'
import { emotionOptimizer } from './optimizer.js'
import { type EmotionRecipe, emotionRecipe, PUBLISHED_EMOTION_RECIPE } from './recipe.js'
import { readingTowers, samplesOf, splitTowers, towersDevice } from './samples.js'

/** Adapters for the towers; what is not said is peft's default. */
export interface EmotionLora extends Partial<Omit<LoraConfig, 'modulesToSave'>> {
  /** Default: query, key, value and their like in every tower. */
  targetModules?: string[] | string
}

export interface TrainEmotionOptions {
  data: EmotionParts
  /** What makes vectors of utterances; one for each modality at most. */
  towers: readonly EmotionTower[]
  /** Checkpoints, the best classifier (`best/`) and `results.json` go here. */
  outputDir: string
  /** Changes to the classifier's configuration. */
  config?: Omit<EmotionClassifierConfig, 'labels' | 'sizes' | 'steps'>
  recipe?: Partial<EmotionRecipe>
  /** What trains beside fusion, context and head: nothing ('head', the default), the towers, or adapters in them. */
  tune?: 'head' | 'full' | EmotionLora
  /**
   * What a clip does that cannot be read: the film without sound, the file that is damaged or not there. 'stop' (default)
   * throws; 'skip' takes the modality for missing, and counts by reason.
   */
  onBadRecord?: OnBadRecord
  /** Where what trains beside the towers lies. Default: where they lie; without networks among them the default device. */
  device?: Device
  /** Where vectors of frozen towers are kept. Default: `features` in the output folder. */
  cache?: string
  /**
   * 'published': the recipe of the original, and with adapters its head that never trains, all biases that do. By default
   * the head trains with them.
   */
  compat?: 'published'
  /** For the Trainer, over what is said above. */
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
  /** With `onBadRecord: 'skip'`: clips that could not be read, by reason. */
  badClips: Readonly<Record<string, number>>
  notes: string[]
}

export interface TrainedEmotion {
  results: EmotionResults
  /** The best one, in evaluation mode, with the towers that trained with it. */
  model: EmotionClassifier
  /** Samples with their vectors, for those who go on with them. */
  samples: Record<'train' | 'valid' | 'test', EmotionSample[]>
}

const OPTIONS: readonly (keyof TrainEmotionOptions)[] = [
  ...([
    'data',
    'towers',
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
 * Trains an emotion classifier: frozen towers run once for each utterance (see `FeatureCache`), each epoch is evaluated, the
 * best by `keyMetric` is kept, its temperature is found on the validation data, and only then is it measured on the test
 * data. The same call on the same folder goes on where a killed run was, bit for bit on the CPU.
 *
 * ```ts
 * const towers = [await TextTower.fromPretrained('minilm')]
 * const data = await openEmotionData('meld')
 * const { results } = await trainEmotion({ data, towers, outputDir: 'run', config: { context: {} } })
 * ```
 * @throws DataError where no utterance has an emotion; else as the Trainer
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
  const towers = readingTowers(where, options.towers, bad)
  const recipe = emotionRecipe(options.recipe, compat === 'published' ? PUBLISHED_EMOTION_RECIPE : undefined)
  const { live, frozen } = splitTowers(where, towers, tune !== 'head')
  const samples = await samplesOf(data, frozen, options)
  const sizes = Object.fromEntries(towers.map(({ modality, size }) => [modality, size]))
  const steps = Object.fromEntries(
    towers.flatMap(({ modality, steps: own }) => (own ? [[modality, own] as const] : [])),
  )
  manualSeed(recipe.seed)
  const model = new EmotionClassifier(
    { ...config, labels: data.labels, sizes, steps },
    { towers: live, ...defined({ device: towersDevice(where, live, frozen, options.device) }) },
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
  if (train.length === 0) throw new DataError(`${where}: no utterance of the training data has an emotion`, {})
  const classWeights = weightsOf(train, data.labels.length, recipe)
  const trainer = new Trainer<EmotionClassifier, EmotionSample, EmotionBatch>({
    model: peft ?? model,
    trainDataset: train,
    evalDataset: known(samples.valid),
    collate,
    // Towers that train read their clips for each batch.
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
  // Where the run had ended before, its checkpoint has the weights, but not what was found behind them.
  merge()
  model.config.temperature = results.temperature
  return { results, model: model.eval(), samples }
}

/** Every projection of attention, by the names of BERT, RoBERTa, WavLM, Whisper and CLIP. */
const ATTENTION = ['query', 'key', 'value', 'q_proj', 'k_proj', 'v_proj', 'out_proj']

/** Adapters in the `towers` of a network with a `head`. As published the head then never trains, and all biases do. */
export function withAdapters<M extends Module>(
  model: M,
  lora: EmotionLora,
  compat: 'published' | undefined,
): PeftModel<M> {
  const { targetModules, ...rest } = lora
  // By their whole path, so that no projection of the head is one.
  const endings = Array.isArray(targetModules) ? targetModules : targetModules === undefined ? ATTENTION : undefined
  const pattern =
    endings === undefined
      ? (targetModules as string)
      : `towers\\..*\\.(${endings.map((name) => name.replace(/[^\w.]/g, '')).join('|')})`
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
