import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { argumentError, defined, requireObject } from '../../../base/check.js'
import { CheckpointError, ConfigError } from '../../../base/errors.js'
import { type ChangesOf, checkedBy, functionOf, unchecked, type ValuesOf } from '../../../base/settings.js'
import { isMainProcess } from '../../../distributed/index.js'
import { readJson } from '../../../files/json/json.js'
import { writeJsonl } from '../../../files/json/jsonl.js'
import { bestEpochBy, finiteOrNull, type RecipeResults, runRecipe } from '../../../kit/recipe.js'
import { TRAINER_OPTIONS } from '../../../kit/training-settings.js'
import type { Module } from '../../../nn/index.js'
import type { LoraConfig } from '../../../peft/config.js'
import { peftModelOf } from '../../../peft/model.js'
import type { Device } from '../../../tensor/index.js'
import { withSeed } from '../../../tensor/random.js'
import type { TrainingArguments } from '../../../train/trainer/arguments.js'
import type { TrainerCallback } from '../../../train/trainer/callbacks.js'
import { writeFolder } from '../../../train/trainer/folders.js'
import { Trainer } from '../../../train/trainer/trainer.js'
import { STAGE_SETTINGS, TRAINING_SETTINGS } from '../configuration/settings.js'
import { type EmoVerseBatch, type EmoVerseSampleTokens, emoverseCollate } from '../data/collate.js'
import { keyOf } from '../data/media.js'
import type { EmoVerseRecords } from '../data/open.js'
import { taskOf } from '../data/prompt.js'
import { addStage, baseHash, isPacked, saveEmoVerse, saveSpeechStage } from '../network/files.js'
import { EmoVerse } from '../network/network.js'
import { withVisionCache } from '../network/vision-cache.js'
import { beginStage, endStage, saveStage, stageAdapter } from './adapter.js'
import { type EncodedRecords, openStage } from './data.js'
import { emoverseLoss } from './loss.js'
import { EMOVERSE_SETTINGS, type EmoVerseRecipe, emoverseRecipe } from './recipe.js'
import { claimFolder, dataHash, isMadeOf, type NamedSettings, runFolder, writeStages } from './run.js'
import { numbersOf, type TaskNumbers, TaskTally } from './tally.js'

const STAGE = STAGE_SETTINGS.extend({
  /** Training data. */
  data: { type: unchecked<EmoVerseRecords>(), required: true },
  /** Validation data. Default: a part of `data`, see the recipe's `validationShare`. */
  valid: { type: unchecked<EmoVerseRecords>() },
})

/** One stage of a training: its data, and changes to the defaults. @interface */
export type EmoVerseStageOptions = ChangesOf<typeof STAGE.table>

const SETTINGS = TRAINING_SETTINGS.extend({
  /** Stages in order. Each trains a new adapter on the network with the adapters of the stages before. */
  stages: {
    type: checkedBy<readonly EmoVerseStageOptions[]>((where, name, value) => {
      if (!Array.isArray(value) || value.length === 0) throw argumentError(where, name, 'a list of stages', value)
    }),
    required: true,
  },
  /** Output folder. Each stage has a subfolder for checkpoints, adapter, logs and `results.json`; the trained model goes to `model/`. */
  outputDir: { type: 'string', required: true },
  /**
   * Whether to use a subfolder if `outputDir` holds another training: the first of `v1`, `v2`, … that is free or holds this training, which
   * is reported. Default false: an error.
   */
  versions: { type: 'boolean', default: false },
  /**
   * Whether to write the whole model, with all stages merged in, to `model/`. Default true; false with quantized weights, which cannot be
   * merged: the trained model is then the base with its adapters.
   */
  saveModel: { type: 'boolean' },
  ...TRAINER_OPTIONS,
  /** Called with a sentence about data that was left out. Default: none. */
  onNote: { type: functionOf<(note: string) => void>() },
})

type Options = ValuesOf<typeof SETTINGS.table>

/** Options of `trainEmoVerse`. @interface */
export type TrainEmoVerseOptions = ChangesOf<typeof SETTINGS.table>

/** Metrics of a stage on its validation data. */
export interface EmoVerseMeasured {
  loss: number | null
  /** Fraction of records whose every label token is the most likely one, with the true tokens as context. */
  accuracy: number | null
  tasks: Record<string, Omit<TaskNumbers, 'seconds'>>
}

/** Results of a stage, as in `results.json` of its folder. */
export interface EmoVerseStageResults extends RecipeResults<EmoVerseMeasured> {
  name: string
  /** Folder of its adapter. */
  adapter: string
  /** Number of trained parameters. */
  trained: number
  seconds: number
  /** Settings of the training. A call that continues it must have the same. */
  settings: object
}

export interface EmoVerseResults {
  stages: EmoVerseStageResults[]
  /** Folder of the trained model; null if `saveModel` is false. */
  model: string | null
}

const ADAPTER = 'adapter'
/**
 * Train an EmoVerse in stages, each with a new LoRA adapter that is then merged into the weights. With quantized weights the adapter stays
 * separate, frozen.
 *
 * The same call on the same folder continues a killed run: within a stage, between stages or while the model is written. On the CPU the
 * final weights are bit for bit the same. After the end it returns the stored results, and the model has all stages. Runs are compared by
 * the initial weights, the bytes of the data and the settings of each stage.
 *
 * ```ts
 * using model = await EmoVerse.fromPretrained('smollm2-135m-instruct')
 * await trainEmoVerse(model, {
 *   stages: [{ data: 'emt_data_first.json' }, { data: 'emt_data_second.json' }],
 *   outputDir: 'runs/emoverse',
 * })
 * ```
 * @throws ConfigError if a stage in the folder was trained from another model, on other data or with other settings; DataError with
 * `onBadRecord: 'stop'` for a record that cannot be used; otherwise as the Trainer
 */
export async function trainEmoVerse(model: EmoVerse, changes: TrainEmoVerseOptions): Promise<EmoVerseResults> {
  const where = 'trainEmoVerse'
  if (!(model instanceof EmoVerse)) throw argumentError(where, 'model', 'an EmoVerse', model)
  const options = SETTINGS.read(where, changes)
  const { stages, outputDir: given, versions, startAt, compat, visionCache, onBadRecord, onNote } = options
  const packed = isPacked(model.model)
  const { saveModel = !packed } = options
  if (compat === 'published' && onBadRecord === 'stop') {
    throw new ConfigError(
      `${where}.onBadRecord: expected 'skip' with compat 'published', which replaces unusable records, got 'stop'.`,
      {
        argument: 'onBadRecord',
      },
    )
  }
  if (startAt > stages.length)
    throw argumentError(where, 'startAt', `at most ${stages.length}, the number of stages`, startAt)
  const names = stages.map((stage, i) => checkStage(where, stage, i))
  if (new Set(names).size < names.length) throw argumentError(where, 'stages', 'a different name for each', names)
  if (packed && saveModel) {
    throw new ConfigError(
      `${where}.saveModel: expected false with quantized weights, got true: adapters cannot be merged into them.`,
      {
        argument: 'saveModel',
      },
    )
  }
  if (peftModelOf(model.model) && !packed) {
    throw new ConfigError(
      `${where}.model: expected a model without adapters, got one with adapters. Merge them first.`,
      { argument: 'model' },
    )
  }
  const planned = await plannedStages(model, options, names)
  const outputDir = await runFolder(given, planned, versions)
  if (outputDir !== given) onNote?.(`${given} holds another training: this one is written to ${outputDir}`)
  const results: EmoVerseStageResults[] = []
  await withVisionCache(model, visionCache, async () => {
    for (const stage of planned) results.push(await trainStage(model, stage, { outputDir, options }))
  })
  const folder = join(outputDir, 'model')
  const trained = planned.map(({ name, settings }) => ({ name, settings }))
  if (saveModel && isMainProcess() && !(await isMadeOf(folder, trained))) {
    await saveEmoVerse(folder, model, (temporary) => writeStages(temporary, trained))
  }
  return { stages: results, model: saveModel ? folder : null }
}

interface PlannedStage extends NamedSettings {
  index: number
  stage: EmoVerseStageOptions
  recipe: EmoVerseRecipe
  /** Null if only the audio encoder trains. */
  lora: LoraConfig | null
}

/** Return the stages to train, each with the settings that identify it, its initial model included. */
async function plannedStages(
  model: EmoVerse,
  { stages, startAt, compat, args }: Options,
  names: readonly string[],
): Promise<PlannedStage[]> {
  const planned: PlannedStage[] = []
  let base = await baseHash(model)
  // The progress display does not change the result.
  const { progress: _, ...own } = args
  for (const [index, stage] of stages.entries()) {
    if (index + 1 < startAt) continue
    const name = names[index] as string
    const { speech = 'frozen', data, valid } = stage
    if (speech !== 'frozen' && !model.hearsMedia) {
      throw new ConfigError(
        `trainEmoVerse: ${name}.speech: expected a model with a speech branch, got one without. Load it with \`speech\`.`,
        {
          argument: 'speech',
        },
      )
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
  const { name = `stage-${index + 1}`, lora, projector, speech } = STAGE.read(`${where}: stages[${index}]`, stage)
  if (speech === 'alone' && (lora ?? projector) !== undefined) {
    throw new ConfigError(
      `${where}: stages[${index}]: expected no lora and projector with speech 'alone', got some. Leave them out.`,
      {
        argument: 'speech',
      },
    )
  }
  if (!/^[\w.-]+$/.test(name) || /^v\d+$/.test(name) || name === ADAPTER || name === 'model') {
    throw argumentError(where, `stages[${index}].name`, 'a name that a folder can have', name)
  }
  return name
}

async function trainStage(
  model: EmoVerse,
  { stage, index, name, settings, recipe, lora }: PlannedStage,
  { outputDir, options }: { outputDir: string; options: Options },
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

/** Return the results of a finished stage, or undefined. @throws CheckpointError if its adapter is missing */
async function finished(folder: string): Promise<EmoVerseStageResults | undefined> {
  const file = join(folder, 'results.json')
  if (!existsSync(file)) return undefined
  if (existsSync(join(folder, ADAPTER))) return (await readJson(file)) as EmoVerseStageResults
  throw new CheckpointError(
    `${folder}: expected ${ADAPTER}/ next to results.json, got none. Delete results.json to train the stage again.`,
    { file },
  )
}

interface StageTraining {
  train: EncodedRecords
  valid: EncodedRecords | undefined
  recipe: EmoVerseRecipe
  folder: string
  tally: TaskTally
  options: Options
  /** Whether the audio encoder trains. */
  hears: boolean
}

function stageTrainer(model: EmoVerse, { train, valid, recipe, folder, tally, options, hears }: StageTraining) {
  const { compat, args, callbacks, loggers } = options
  const logged = async (step: number) => {
    const history = tally.log(step)
    if (isMainProcess()) await writeJsonl(join(folder, 'tasks.jsonl'), history)
  }
  const byTask: TrainerCallback = {
    onStepBegin: () => tally.beginStep(),
    onStepEnd: () => tally.endStep(),
    onLog: ({ logs }) => (logs.loss === undefined ? undefined : logged(logs.step)),
    // Write the steps after the last log.
    onTrainEnd: ({ state }) => logged(state.globalStep),
  }
  return new Trainer<Module, EmoVerseSampleTokens, EmoVerseBatch>({
    // A frozen audio encoder is not part of the trained module.
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
  ...EMOVERSE_SETTINGS.trainingArguments(recipe),
  outputDir,
  evalStrategy: evaluates ? 'steps' : 'no',
  saveStrategy: 'steps',
  ...(recipe.loadBest && evaluates && { ...bestEpochBy('loss'), saveTotalLimit: recipe.saveTotalLimit }),
  progress: true,
})

/** Measure loss and accuracy on validation data, in total and by task. */
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
  return {
    loss: finiteOrNull(metrics.evalLoss),
    accuracy: finiteOrNull(metrics.evalAccuracy),
    tasks: Object.fromEntries(tasks),
  }
}
