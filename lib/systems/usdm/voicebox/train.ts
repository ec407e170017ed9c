import { type ChangesOf, instanceOf, settings, unchecked } from '../../../base/settings.js'
import { isMainProcess } from '../../../distributed/index.js'
import { finiteOrNull, type RecipeResults, runRecipe } from '../../../kit/recipe.js'
import { TRAINER_OPTIONS } from '../../../kit/training-settings.js'
import { UnitVoicebox } from '../../../models/unit-voicebox/unit-voicebox.js'
import type { TrainingArguments } from '../../../train/trainer/arguments.js'
import { Trainer } from '../../../train/trainer/trainer.js'
import { openRows } from '../data/dataset.js'
import { type VoiceboxBatch, VoiceboxDataset, type VoiceboxSample, voiceboxCollate } from './dataset.js'
import { parseVoiceboxLine, type VoiceboxRecord, type VoiceboxRecords } from './filelist.js'
import { VOICEBOX_SETTINGS, type VoiceboxRecipe, voiceboxRecipe } from './recipe.js'

const SETTINGS = settings({
  /** Trained in place. */
  model: { type: instanceOf(UnitVoicebox), required: true },
  /** File lists as `prepareVoicebox` or the original writes them, or records. */
  train: { type: unchecked<VoiceboxRecords>(), required: true },
  /** Evaluated each epoch, with fixed random draws; the best weights are kept. */
  valid: { type: unchecked<VoiceboxRecords>() },
  /** Folder for checkpoints, logs, the trained model (`model/`) and `results.json`. */
  outputDir: { type: 'string', required: true },
  /** Changes to {@link VOICEBOX_RECIPE}. */
  recipe: { type: unchecked<Partial<VoiceboxRecipe>>() },
  /** Folder that paths in file lists are relative to. Default: the working directory. */
  audioRoot: { type: 'string' },
  ...TRAINER_OPTIONS,
})

/** Options of `trainUnitVoicebox`. @interface */
export type TrainUnitVoiceboxOptions = ChangesOf<typeof SETTINGS.table>

/** Results of a training, as in `results.json`. */
export interface UnitVoiceboxResults extends RecipeResults<{ loss: number | null }> {
  /** Mean loss over all steps. */
  trainingLoss: number
}

/**
 * Train a Voicebox to predict mel spectrograms from units (flow matching; see `UnitVoicebox.loss`). Each clip gives a window of at most
 * 16 seconds, of which the network sees a part or nothing. The random draws of a clip depend only on seed, epoch and its index. The same
 * call on the same folder resumes an interrupted run, bit for bit on the CPU; after the end it returns the saved results. In several
 * processes (`npx voxtorch launch`) each processes a part of every batch. All masked frames of a step have equal weight, whichever batch
 * they are in.
 *
 * ```ts
 * const extractor = await UnitExtractor.fromPretrained({ encoder: 'xlsr2_1b_v2.pt', kmeans: 'kmeans_10k.npy', layer: 35 })
 * const { file } = await prepareVoicebox({ extractor, data: 'LibriTTS/dev-clean', name: 'libritts', split: 'train' })
 * const model = UnitVoicebox.fromConfig('xlsr-token-voicebox', { seed: 0 })
 * await trainUnitVoicebox({ model, train: file, outputDir: 'run', args: { maxSteps: 100000 } })
 * ```
 * @throws DataError with `file` and `line` for a malformed line, and naming a clip that cannot be read or does not match its units; else
 * as the Trainer
 */
export async function trainUnitVoicebox(options: TrainUnitVoiceboxOptions): Promise<UnitVoiceboxResults> {
  const where = 'trainUnitVoicebox'
  const values = SETTINGS.read(where, options)
  const { model, outputDir, audioRoot, args, callbacks, loggers } = values
  const recipe = voiceboxRecipe(values.recipe)
  const { windowFrames, dropShare, contextShare, leastMasked, mostMasked, seed } = recipe
  const { nTokens = 10_000, nFeats = 80 } = model.config
  const open = async (name: 'train' | 'valid', records: VoiceboxRecords) =>
    new VoiceboxDataset(await openRows<VoiceboxRecord>(where, name, records, parseVoiceboxLine), {
      ...{ nTokens, nFeats, draws: { windowFrames, dropShare, contextShare, leastMasked, mostMasked, seed } },
      ...(audioRoot !== undefined && { audioRoot }),
    })
  const train = await open('train', options.train)
  const valid = options.valid === undefined ? undefined : await open('valid', options.valid)
  const trainer = new Trainer<UnitVoicebox, VoiceboxSample, VoiceboxBatch>({
    model,
    trainDataset: train,
    ...(valid && { evalDataset: valid }),
    collate: voiceboxCollate(nTokens) as never,
    computeLoss: async (network, { asked: _, ...batch }) => network.loss(batch),
    countItems: ({ asked }) => asked,
    ...{ callbacks, loggers },
    args: { ...trainingArguments(recipe, model, outputDir, valid !== undefined), ...args },
  })
  return runRecipe<
    { loss: number | null },
    UnitVoiceboxResults,
    VoiceboxDataset,
    Awaited<ReturnType<Trainer<UnitVoicebox>['train']>>
  >({
    ...{ trainer, outputDir, best: 'model', data: { train, ...(valid && { valid }) } },
    measure: async (data) => ({ loss: finiteOrNull((await trainer.evaluate(data)).evalLoss) }),
    async save(folder) {
      if (isMainProcess()) await model.save(folder)
    },
    more: ({ trainingLoss }) => ({ trainingLoss }),
    dispose: () => trainer.dispose(),
  })
}

function trainingArguments(
  recipe: VoiceboxRecipe,
  model: UnitVoicebox,
  outputDir: string,
  evaluates: boolean,
): TrainingArguments {
  const onCuda = model.parameters()[0]?.device.startsWith('cuda') === true
  const { precision = onCuda ? 'fp16' : 'float32', saveSteps } = recipe
  const each = saveSteps === undefined ? 'epoch' : 'steps'
  return {
    ...VOICEBOX_SETTINGS.trainingArguments(recipe),
    outputDir,
    lrSchedulerType: 'constant',
    fp16: precision === 'fp16',
    bf16: precision === 'bf16',
    saveStrategy: each,
    ...(evaluates && saveSteps !== undefined && { evalSteps: saveSteps }),
    ...(evaluates && {
      evalStrategy: each,
      loadBestModelAtEnd: true,
      metricForBestModel: 'loss',
      greaterIsBetter: false,
    }),
  }
}
