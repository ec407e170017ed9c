import { createReadStream, existsSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { defined } from '../../../base/check.js'
import { ConfigError } from '../../../base/errors.js'
import { commandRule } from '../../../kit/command.js'
import type { RecipeResults } from '../../../kit/recipe.js'
import type { Device } from '../../../tensor/index.js'
import type { Tokenizer } from '../../../text/index.js'
import { DST_OPTIONS, DST_ORIGINAL_OPTIONS, type DstArguments, dstArguments } from '../tracking/arguments.js'
import type { DstConfig } from '../tracking/config.js'
import type { DstDataset } from '../tracking/dataset.js'
import type { SpectraForDst } from '../tracking/network.js'
import { HEADS_SETTINGS } from '../tracking/recipe.js'
import type { DstTrackerTurn } from '../tracking/tracker.js'

export const track = commandRule({
  name: 'track',
  summary: "Track dialog states in spoken dialogs: SPECTRA with TripPy's heads, on SpokenWOZ or your own dialogs.",
  details: `  voxtorch spectra track --data DIR --config DIR/config.json --model SPECTRA --output OUT             trains
  voxtorch spectra track --data DIR --config DIR/config.json --model SPECTRA --output OUT --evaluate  scores --split
  voxtorch spectra track --model SPECTRA --output OUT --track turns.jsonl                             prints states

DIR has SpokenWOZ's data.json, its published pickles, or train.jsonl, val.jsonl and test.jsonl in the format of
readDstDialogs. An interrupted training resumes. Turns to track are lines of
{"user": {"text": …, "audio": {"path": …}}, "system": {"text": …}}, with an empty line before a new dialog. The flags of the
original's run_dst.py work too.`,
  options: DST_OPTIONS,
  originalOptions: DST_ORIGINAL_OPTIONS,
  async run(args) {
    const options = dstArguments(args)
    const { readDstConfig, spokenWozConfig } = await import('../tracking/config.js')
    const { Tokenizer } = await import('../../../text/index.js')
    const config = options.config === undefined ? spokenWozConfig() : await readDstConfig(options.config)
    const tokenizer = await Tokenizer.fromPretrained(options.modelDir)
    const run = { options, config, tokenizer, model: await network(options, config) }
    if (options.mode === 'track') await printStates(run)
    else console.log(figures(options.mode === 'evaluate' ? await score(run, options.split) : await train(run)))
    return 0
  },
})

interface Run {
  options: DstArguments
  config: DstConfig
  tokenizer: Tokenizer
  model: SpectraForDst
}

/** Return the trained tracker, a checkpoint of it, or a new one on a pre-trained SPECTRA. */
async function network(options: DstArguments, config: DstConfig): Promise<SpectraForDst> {
  const { manualSeed } = await import('../../../tensor/index.js')
  const { Spectra } = await import('../network/network.js')
  const { SpectraForDst } = await import('../tracking/network.js')
  const { checkpoint, compat, mode, output } = options
  const device = (options.device ?? 'cpu') as Device
  if (mode !== 'train' && checkpoint === undefined && existsSync(join(output, 'config.json'))) {
    return SpectraForDst.load(output, (of) => Spectra.fromConfig(of as never, { device }), { device })
  }
  manualSeed(options.training.seed ?? 3407)
  const encoder = await Spectra.fromPretrained(options.modelDir, { device, config: compat ? { compat } : {} })
  const hiddenSize = encoder.config.textConfig.hiddenSize ?? 768
  const heads = { config, hiddenSize, ...HEADS_SETTINGS.changesIn({ ...options }), compat, device }
  const model = new SpectraForDst(encoder, heads)
  if (mode === 'train') return model
  if (checkpoint === undefined) {
    throw new ConfigError(`${output}: expected a trained tracker, got none. Train one, or name a --checkpoint.`, {
      argument: 'output',
    })
  }
  const { loadSafetensors } = await import('../../../files/safetensors/safetensors.js')
  const { tensors } = await loadSafetensors(join(output, checkpoint, 'model.safetensors'))
  model.loadStateDict(tensors)
  for (const tensor of Object.values(tensors)) tensor.dispose()
  return model
}

async function read({ options, config, tokenizer }: Run, split: string) {
  const { DstDataset } = await import('../tracking/dataset.js')
  const { loadDstSplit } = await import('../tracking/open.js')
  const { audio, compat, maxLength, noAudio } = options
  const from = { config, tokenizer, maxLength, compat, ...defined({ audio }) }
  const { features, source, truncated, lostSpans, report } = await loadDstSplit(options.data, split, from)
  const cut = truncated > 0 ? `, ${truncated} too long (${lostSpans} labels lost)` : ''
  console.log(`${split}: ${features.length} turns of ${source}${cut}`)
  if (report) console.log(report)
  return { features, dataset: new DstDataset(features, { noAudio }) }
}

/** Scores of a tracker on a split. */
interface TrackScores {
  jointGoalAccuracy: number
  jointGoalAccuracyWithoutProfile: number
  trippyJointGoalAccuracy: number
  slotAccuracy: number
}

/** Train, and return the scores on the validation data, as in `results.json`. */
async function train(run: Run): Promise<TrackScores> {
  const { runRecipe } = await import('../../../kit/recipe.js')
  const { dstTrainer } = await import('../tracking/train.js')
  const { config, model, options, tokenizer } = run
  const { compat, maxLength, training } = options
  const { dataset: trainDataset } = await read(run, 'train')
  const evalDataset = await read(run, 'val')
  const trainer = dstTrainer({
    ...{ config, tokenizer, compat, model, trainDataset, evalDataset },
    ...(compat && { textLength: maxLength }),
    args: { evalStrategy: 'epoch', ...training },
  })
  const { valid } = await runRecipe<TrackScores, RecipeResults<TrackScores>, DstDataset>({
    ...{ trainer, outputDir: options.output, data: { train: trainDataset, valid: evalDataset.dataset } },
    best: 'model.safetensors',
    save: () => trainer.saveModel(),
    measure: () => score(run, 'val', evalDataset),
    more: () => ({}),
    dispose: () => trainer.dispose(),
  })
  return valid as TrackScores
}

async function score(run: Run, split: string, loaded?: Awaited<ReturnType<typeof read>>): Promise<TrackScores> {
  const { ProgressBar } = await import('../../../data/progress.js')
  const { writeJson } = await import('../../../files/json/json.js')
  const { dstPredictionRecords, dstScores } = await import('../tracking/metrics.js')
  const { trackDst } = await import('../tracking/evaluate.js')
  const { trippyScores } = await import('../tracking/published-metrics.js')
  const { config, model, options, tokenizer } = run
  const { features, dataset } = loaded ?? (await read(run, split))
  using bar = new ProgressBar({ total: features.length, label: split, unit: 'turns' })
  let done = 0
  const results = await trackDst(model, dataset, {
    ...{ config, tokenizer, compat: options.compat, padId: tokenizer.padTokenId ?? 1 },
    batchSize: options.training.perDeviceEvalBatchSize ?? 24,
    onBatch(turns) {
      for (; done < turns; done++) bar.tick()
    },
  })
  const { jointGoalAccuracy, jointGoalAccuracyWithoutProfile, slotAccuracy } = dstScores(results, config)
  const trippy = trippyScores(results, config)
  await writeJson(join(options.output, `${split}-predictions.json`), dstPredictionRecords(results, config))
  if (dataset.emptyAudio.size > 0) console.log(`${dataset.emptyAudio.size} utterances have an empty clip`)
  const { jointGoalAccuracy: trippyJointGoalAccuracy } = trippy
  return { jointGoalAccuracy, jointGoalAccuracyWithoutProfile, trippyJointGoalAccuracy, slotAccuracy }
}

const figures = (reached: TrackScores): string => `
joint goal accuracy        ${reached.jointGoalAccuracy.toFixed(4)}
  without profile slots    ${reached.jointGoalAccuracyWithoutProfile.toFixed(4)}
  as TripPy's script       ${reached.trippyJointGoalAccuracy.toFixed(4)}
slot accuracy              ${reached.slotAccuracy.toFixed(4)}`

async function printStates({ options, config, tokenizer, model }: Run): Promise<void> {
  const { DstTracker } = await import('../tracking/tracker.js')
  const { compat, maxLength, track } = options
  const tracker = new DstTracker({ config, tokenizer, compat, model, maxLength })
  const input = track === '-' ? process.stdin : createReadStream(track as string)
  for await (const line of createInterface({ input })) {
    if (line.trim() === '') tracker.reset()
    else console.log(JSON.stringify((await tracker.next(JSON.parse(line) as DstTrackerTurn)).state))
  }
}
