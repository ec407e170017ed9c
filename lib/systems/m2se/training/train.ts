import { existsSync } from 'node:fs'
import { join } from 'node:path'
import {
  defined,
  misuse,
  requireObject,
  requireOneOf,
  requireOptions,
  requireString,
  requireWhole,
} from '../../../base/check.js'
import { CheckpointError, ConfigError } from '../../../base/errors.js'
import { requireForm } from '../../../base/form.js'
import { isMainProcess } from '../../../distributed/index.js'
import { readJson } from '../../../files/json/json.js'
import { writeJsonl } from '../../../files/json/jsonl.js'
import { bestEpochBy, type RecipeResults, runRecipe } from '../../../kit/recipe.js'
import type { Module } from '../../../nn/index.js'
import type { LoraConfig } from '../../../peft/config.js'
import { peftModelOf } from '../../../peft/model.js'
import type { Device } from '../../../tensor/index.js'
import { withSeed } from '../../../tensor/random.js'
import type { TrainingArguments } from '../../../train/trainer/arguments.js'
import type { TrainerCallback } from '../../../train/trainer/callbacks.js'
import { writeFolder } from '../../../train/trainer/folders.js'
import type { Logger } from '../../../train/trainer/logger.js'
import { Trainer } from '../../../train/trainer/trainer.js'
import { type EmoVerseBatch, type EmoVerseSampleTokens, emoverseCollate } from '../data/collate.js'
import { keyOf } from '../data/media.js'
import type { EmoVerseRecords } from '../data/open.js'
import { taskOf } from '../data/prompt.js'
import { addStage, baseHash, isPacked, saveEmoVerse, saveSpeechStage } from '../network/files.js'
import { EmoVerse } from '../network/network.js'
import { withVisionCache } from '../network/vision-cache.js'
import {
  beginStage,
  endStage,
  PROJECTOR_TRAINING,
  type ProjectorTraining,
  SPEECH_TRAINING,
  type SpeechTraining,
  saveStage,
  stageAdapter,
} from './adapter.js'
import { type EncodedRecords, openStage } from './data.js'
import { emoverseLoss } from './loss.js'
import { type EmoVerseRecipe, emoverseRecipe } from './recipe.js'
import { claimFolder, dataHash, isMadeOf, type NamedSettings, runFolder, saysMadeOf } from './run.js'
import { numbersOf, type TaskNumbers, TaskTally } from './tally.js'

/** One stage of a training: its data, and what differs from the defaults. */
export interface EmoVerseStageOptions {
  /** The folder of its results. Default `stage-1`, `stage-2`, … */
  name?: string
  data: EmoVerseRecords
  /** Default: a share of `data`, see the recipe's `validationShare`. */
  valid?: EmoVerseRecords
  /** Changes to {@link EMOVERSE_RECIPE}. */
  recipe?: Partial<EmoVerseRecipe>
  /** Changes to the adapter: rank 8, alpha 32, dropout 0.05, all linear layers of language model and projection but the head. */
  lora?: Partial<LoraConfig>
  /**
   * How an InternVL's projection trains: with an adapter as the language model (default, as the scripts do), as a whole (as the
   * paper's figure shows it), or not at all. The vision part never trains.
   */
  projector?: ProjectorTraining
  /**
   * Whether the speech branch trains, whose encoder never does: 'whole' beside the adapter, 'alone' without one. Default 'frozen'.
   */
  speech?: SpeechTraining
}

export interface TrainEmoVerseOptions {
  /** One after the other: each trains a fresh adapter on what those before it made of the network. */
  stages: readonly EmoVerseStageOptions[]
  /** Checkpoints, adapters, logs and `results.json` of each stage go into a folder of its own in it; the trained model into `model/`. */
  outputDir: string
  /**
   * Where `outputDir` holds another training, this one goes into the first of `v1`, `v2`, … in it that is free, or its own, and says
   * so. Default false: an error.
   */
  versions?: boolean
  /**
   * The stage that is trained first, from 1; those before it are not looked at: the model is what they made already. Default 1.
   */
  startAt?: number
  /**
   * Writes the whole model at the end, with all stages in it, into `model/`. Default true; false where its weights are packed, which
   * cannot take the stages in: it is then the base with their adapters.
   */
  saveModel?: boolean
  /** What paths of media are relative to. Default: the working directory. */
  mediaRoot?: string
  /**
   * A folder that keeps what the vision part makes of each picture and frame, so that it is computed once: for all epochs, stages and
   * runs. Before a stage begins it has all of them.
   */
  visionCache?: string
  /**
   * What a record that cannot be used, or whose media cannot be read, does: 'skip' (default) leaves it out and counts it by cause,
   * 'stop' throws before the stage begins.
   */
  onBadRecord?: 'skip' | 'stop'
  /**
   * 'published': as ms-swift 2.6 trains this family: a record that cannot be used gives way to another one drawn at random, and
   * batches of a step count alike, whatever each has to learn. By default such records are left out and counted, and all tokens
   * of a step count alike; all media are looked at before a stage begins.
   */
  compat?: 'published'
  /** For the Trainer of each stage, over what is said above. */
  args?: Partial<TrainingArguments>
  callbacks?: readonly TrainerCallback[]
  loggers?: readonly Logger[]
  /** Hears of what was left out of the data. Default: nobody. */
  onNote?: (note: string) => void
}

/** What a stage measured on its validation data. */
export interface EmoVerseMeasured {
  loss: number | null
  /** The share of records of which every token is the likeliest, the true ones before it given. */
  accuracy: number | null
  tasks: Record<string, Omit<TaskNumbers, 'seconds'>>
}

/** What a stage came to; `results.json` in its folder holds the same. */
export interface EmoVerseStageResults extends RecipeResults<EmoVerseMeasured> {
  name: string
  /** Where its adapter is. */
  adapter: string
  /** Parameters that were trained. */
  trained: number
  seconds: number
  /** What it was trained with, which a call that goes on has to say too. */
  settings: object
}

export interface EmoVerseResults {
  stages: EmoVerseStageResults[]
  /** Where the trained model is; null where it was not to be written. */
  model: string | null
}

const ADAPTER = 'adapter'
const OPTIONS = [
  'stages',
  'outputDir',
  'versions',
  'startAt',
  'saveModel',
  'mediaRoot',
  'visionCache',
  'onBadRecord',
  'compat',
  'args',
  'callbacks',
  'loggers',
  'onNote',
] as const

/**
 * Trains an EmoVerse in stages: each with a fresh low-rank adapter, which is then added to the weights; where these are packed it
 * stays beside them, frozen. The same call on the same
 * folder goes on where a killed run was, within a stage, between two or while the model is written, and on the CPU ends with the
 * same weights bit for bit; after the end it gives the results that it finds, and the model has all stages in it. What is the same is
 * told by the weights that it begins with, the data's bytes and the settings of each stage.
 *
 * ```ts
 * using model = await EmoVerse.fromPretrained('smollm2-135m-instruct')
 * await trainEmoVerse(model, {
 *   stages: [{ data: 'emt_data_first.json' }, { data: 'emt_data_second.json' }],
 *   outputDir: 'runs/emoverse',
 * })
 * ```
 * @throws ConfigError where a stage in the folder was trained on another model, on other data or with other settings; DataError with
 * `onBadRecord: 'stop'` for a record that cannot be used; else as the Trainer
 */
export async function trainEmoVerse(model: EmoVerse, options: TrainEmoVerseOptions): Promise<EmoVerseResults> {
  const where = 'trainEmoVerse'
  if (!(model instanceof EmoVerse)) throw misuse(where, 'model', 'an EmoVerse', model)
  requireOptions(where, options, OPTIONS)
  const { stages, outputDir: given, versions = false, startAt = 1, compat, mediaRoot, visionCache, onNote } = options
  const { onBadRecord = 'skip' } = options
  const packed = isPacked(model.model)
  const { saveModel = !packed } = options
  requireString(where, 'outputDir', given)
  for (const [name, path] of Object.entries(defined({ mediaRoot, visionCache }))) requireString(where, name, path)
  requireWhole(where, 'startAt', startAt, 1)
  requireForm(where, 'options', { saveModel, versions }, { saveModel: 'boolean', versions: 'boolean' })
  if (compat !== undefined) requireOneOf(where, 'compat', compat, ['published'])
  requireOneOf(where, 'onBadRecord', onBadRecord, ['skip', 'stop'])
  if (compat === 'published' && onBadRecord === 'stop') {
    throw new ConfigError(`${where}: with compat 'published' a record that cannot be used gives way to another one`, {
      argument: 'onBadRecord',
    })
  }
  if (!Array.isArray(stages) || stages.length === 0) throw misuse(where, 'stages', 'a list of stages', stages)
  if (startAt > stages.length) throw misuse(where, 'startAt', `at most ${stages.length}, the number of stages`, startAt)
  const names = stages.map((stage, i) => checkStage(where, stage, i))
  if (new Set(names).size < names.length) throw misuse(where, 'stages', 'a different name for each', names)
  if (packed && saveModel) {
    throw new ConfigError(`${where}: packed weights cannot take adapters in: the trained model is the base with them`, {
      argument: 'saveModel',
    })
  }
  if (peftModelOf(model.model) && !packed) {
    throw new ConfigError(`${where}: the model has adapters already: merge them first`, { argument: 'model' })
  }
  const planned = await plannedStages(model, options, names)
  const outputDir = await runFolder(given, planned, versions)
  if (outputDir !== given) onNote?.(`${given} holds another training: this one goes to ${outputDir}`)
  const results: EmoVerseStageResults[] = []
  await withVisionCache(model, visionCache, async () => {
    for (const stage of planned) results.push(await trainStage(model, stage, { outputDir, options }))
  })
  const folder = join(outputDir, 'model')
  const made = planned.map(({ name, settings }) => ({ name, settings }))
  if (saveModel && isMainProcess() && !(await isMadeOf(folder, made))) {
    await saveEmoVerse(folder, model, (temporary) => saysMadeOf(temporary, made))
  }
  return { stages: results, model: saveModel ? folder : null }
}

interface PlannedStage extends NamedSettings {
  index: number
  stage: EmoVerseStageOptions
  recipe: EmoVerseRecipe
  /** Null where the ears train alone. */
  lora: LoraConfig | null
}

/** The stages that are to be trained, each with what tells it from another: the model that it begins with too. */
async function plannedStages(
  model: EmoVerse,
  { stages, startAt = 1, compat, args = {} }: TrainEmoVerseOptions,
  names: readonly string[],
): Promise<PlannedStage[]> {
  const planned: PlannedStage[] = []
  let base = await baseHash(model)
  // How it is shown changes nothing.
  const { progress: _, ...own } = args
  for (const [index, stage] of stages.entries()) {
    if (index + 1 < startAt) continue
    const name = names[index] as string
    const { speech = 'frozen', data, valid } = stage
    if (speech !== 'frozen' && !model.hearsMedia) {
      throw new ConfigError(`trainEmoVerse: ${name} trains a speech branch, and the model hears nothing`, {
        argument: 'speech',
      })
    }
    const recipe = emoverseRecipe(stage.recipe)
    const lora = speech === 'alone' ? null : stageAdapter(model, stage.lora ?? {}, stage.projector)
    const settings = {
      ...{ recipe, lora, compat: compat ?? null, args: own, base, data: await dataHash(data) },
      ...(valid !== undefined && { valid: await dataHash(valid) }),
      ...(speech !== 'frozen' && { speech }),
    }
    planned.push({ name, settings, index, stage, recipe, lora })
    base = keyOf(base, JSON.stringify(settings))
  }
  return planned
}

function checkStage(where: string, stage: EmoVerseStageOptions, index: number): string {
  requireObject(where, `stages[${index}]`, stage)
  requireOptions(where, stage, ['name', 'data', 'valid', 'recipe', 'lora', 'projector', 'speech'])
  const { name = `stage-${index + 1}`, lora = {}, projector, speech } = stage
  if (speech !== undefined) requireOneOf(where, `stages[${index}].speech`, speech, SPEECH_TRAINING)
  if (speech === 'alone' && (stage.lora ?? projector) !== undefined) {
    throw new ConfigError(`${where}: stages[${index}] trains the speech branch alone: lora and projector do nothing`, {
      argument: 'speech',
    })
  }
  if (projector !== undefined) requireOneOf(where, `stages[${index}].projector`, projector, PROJECTOR_TRAINING)
  requireString(where, `stages[${index}].name`, name)
  if (!/^[\w.-]+$/.test(name) || /^v\d+$/.test(name) || name === ADAPTER || name === 'model') {
    throw misuse(where, `stages[${index}].name`, 'a name that a folder can have', name)
  }
  requireObject(where, `stages[${index}].lora`, lora)
  emoverseRecipe(stage.recipe)
  return name
}

async function trainStage(
  model: EmoVerse,
  { stage, index, name, settings, recipe, lora }: PlannedStage,
  { outputDir, options }: { outputDir: string; options: TrainEmoVerseOptions },
): Promise<EmoVerseStageResults> {
  const { compat, onNote, mediaRoot, visionCache, onBadRecord } = options
  const folder = join(outputDir, name)
  const { speech = 'frozen' } = stage
  const before = await finished(folder)
  if (before) {
    await addStage(model, join(folder, ADAPTER))
    return before
  }
  const places = defined({ mediaRoot, remembers: visionCache !== undefined && model.seesMedia })
  const { train, valid, notes } = await openStage(model, stage, recipe, {
    ...places,
    ...defined({ compat, onNote, onBadRecord, groupByLength: options.args?.groupByLength }),
  })
  for (const note of notes) onNote?.(note)
  if (isMainProcess()) await claimFolder(folder, settings)
  const { device } = model.llm.parameters()[0] as { device: Device }
  model.speech?.trains(speech !== 'frozen')
  const peft = lora && withSeed(recipe.seed + index, () => beginStage(model, lora), device)
  if (peft === null) model.model.freeze()
  const tally = new TaskTally()
  const trainer = stageTrainer(model, { train, valid, recipe, folder, tally, options, hears: speech !== 'frozen' })
  const began = performance.now()
  const results = await runRecipe<EmoVerseMeasured, EmoVerseStageResults, EncodedRecords>({
    trainer,
    outputDir: folder,
    best: ADAPTER,
    data: { train, ...(valid && { valid }) },
    measure: (data) => measured(trainer, data),
    async save(path) {
      if (!isMainProcess()) return
      await writeFolder(path, async (temporary) => {
        if (peft) await saveStage(peft, temporary)
        if (speech !== 'frozen' && model.speech) await saveSpeechStage(model.speech, temporary)
      })
    },
    more: () => ({
      name,
      adapter: join(folder, ADAPTER),
      trained: trainer.model.parameters().reduce((sum, one) => sum + (one.requiresGrad ? one.numel() : 0), 0),
      seconds: (performance.now() - began) / 1000,
      settings,
    }),
    dispose: () => trainer.dispose(),
  })
  if (peft) await endStage(model, peft, join(folder, ADAPTER))
  model.speech?.trains(false)
  return results
}

/** What a stage came to that has ended. @throws CheckpointError where its adapter is gone */
async function finished(folder: string): Promise<EmoVerseStageResults | undefined> {
  const file = join(folder, 'results.json')
  if (!existsSync(file)) return undefined
  if (existsSync(join(folder, ADAPTER))) return (await readJson(file)) as EmoVerseStageResults
  throw new CheckpointError(`${folder} has results and no ${ADAPTER}/: take the results away to train again`, { file })
}

interface StageTraining {
  train: EncodedRecords
  valid: EncodedRecords | undefined
  recipe: EmoVerseRecipe
  folder: string
  tally: TaskTally
  options: TrainEmoVerseOptions
  /** Whether the ears train too. */
  hears: boolean
}

function stageTrainer(model: EmoVerse, { train, valid, recipe, folder, tally, options, hears }: StageTraining) {
  const { compat, args = {}, callbacks = [], loggers = [] } = options
  const logged = async (step: number) => {
    const history = tally.log(step)
    if (isMainProcess()) await writeJsonl(join(folder, 'tasks.jsonl'), history)
  }
  const byTask: TrainerCallback = {
    onStepBegin: () => tally.beginStep(),
    onStepEnd: () => tally.endStep(),
    onLog: ({ logs }) => (logs.loss === undefined ? undefined : logged(logs.step)),
    // The steps behind the last log.
    onTrainEnd: ({ state }) => logged(state.globalStep),
  }
  return new Trainer<Module, EmoVerseSampleTokens, EmoVerseBatch>({
    // Frozen ears are none of the training's business.
    model: hears ? model.whole : model.model,
    trainDataset: train,
    ...(valid && { evalDataset: valid }),
    collate: emoverseCollate,
    computeLoss: (network, batch) => emoverseLoss(model, batch, network.training ? tally : undefined),
    countItems: ({ targets }) => (compat === 'published' ? 1 : targets.ids.length),
    computeMetrics: ({ predictions }) => {
      const rows = predictions.toArray() as [number, number, number][]
      return { accuracy: rows.filter(([, tokens, right]) => tokens === right).length / rows.length }
    },
    extraState: { tasks: tally },
    callbacks: [byTask, ...callbacks],
    loggers,
    args: {
      ...trainingArguments(recipe, folder, valid !== undefined),
      ...(hears && { saveOnlyTrained: true }),
      ...args,
    },
  })
}

const trainingArguments = (recipe: EmoVerseRecipe, outputDir: string, evaluates: boolean): TrainingArguments => ({
  outputDir,
  perDeviceTrainBatchSize: recipe.batchSize,
  perDeviceEvalBatchSize: recipe.evalBatchSize,
  gradientAccumulationSteps: recipe.accumulation,
  numTrainEpochs: recipe.epochs,
  learningRate: recipe.learningRate,
  lrSchedulerType: recipe.schedule,
  warmupRatio: recipe.warmupRatio,
  adamBeta1: recipe.betas[0],
  adamBeta2: recipe.betas[1],
  adamEpsilon: recipe.eps,
  weightDecay: recipe.weightDecay,
  maxGradNorm: recipe.maxGradNorm,
  gradientCheckpointing: recipe.gradientCheckpointing,
  seed: recipe.seed,
  loggingSteps: recipe.logSteps,
  evalStrategy: evaluates ? 'steps' : 'no',
  evalSteps: recipe.evalSteps,
  saveStrategy: 'steps',
  saveSteps: recipe.saveSteps,
  ...(recipe.loadBest && evaluates && bestEpochBy('loss')),
  saveTotalLimit: recipe.saveTotalLimit,
  progress: true,
})

/** Loss and accuracy on validation data, in all and by task. */
async function measured(
  trainer: Trainer<Module, EmoVerseSampleTokens, EmoVerseBatch>,
  data: EncodedRecords,
): Promise<EmoVerseMeasured> {
  const { predictions, metrics } = await trainer.predict(data)
  const rows = predictions.toArray() as [number, number, number][]
  predictions.dispose()
  const sums: Record<string, Parameters<typeof numbersOf>[0]> = {}
  for (const [i, [loss, tokens, right]] of rows.entries()) {
    const task = taskOf(await data.records.get(i, 0))
    const own = sums[task] ?? { records: 0, whole: 0, loss: 0, tokens: 0, right: 0, seconds: 0 }
    sums[task] = own
    own.records += 1
    own.whole += tokens === right ? 1 : 0
    own.loss += loss
    own.tokens += tokens
    own.right += right
  }
  const tasks = Object.entries(sums).map(([task, own]) => {
    const { seconds: _, ...numbers } = numbersOf(own)
    return [task, numbers]
  })
  const finite = (value: number | undefined) => (value !== undefined && Number.isFinite(value) ? value : null)
  return { loss: finite(metrics.evalLoss), accuracy: finite(metrics.evalAccuracy), tasks: Object.fromEntries(tasks) }
}
