/**
 * Follows what a user wants through a spoken dialog: SPECTRA with TripPy's heads on SpokenWOZ, or on dialogs of your own.
 *
 * `npx tsx examples/spectra-dst.ts --data DIR --config DIR/config.json --model-dir SPECTRA --output OUT` trains; started
 * again it goes on. `--evaluate` scores the split `--split test`. `--track FILE` (or `-`, for lines that you type) prints
 * the state after each turn: one `{"user": {"text": …, "audio": {"path": …}}, "system": {"text": …}}` a line, an empty line
 * for a new dialog. DIR has SpokenWOZ's `data.json`, its published pickles, or `train.jsonl`, `val.jsonl` and `test.jsonl` in
 * the form that `readDstDialogs` describes. The flags of the original's run_dst.py work too.
 */
import { createReadStream, existsSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import * as vt from 'voxtorch'

const options = vt.parseDstArguments(process.argv.slice(2))
const { compat, data, device = vt.cuda.isAvailable() ? 'cuda' : 'cpu', output } = options
const config = options.config === undefined ? vt.spokenWozConfig() : await vt.readDstConfig(options.config)
const tokenizer = await vt.Tokenizer.fromPretrained(options.modelDir)
const decoding = { config, tokenizer, compat }

const saved = (path: string) => existsSync(join(path, 'config.json'))
async function build(): Promise<vt.SpectraForDst> {
  if (options.mode !== 'train' && options.checkpoint === undefined && saved(output)) {
    return vt.SpectraForDst.load(output, (of) => vt.Spectra.fromConfig(of as vt.SpectraConfig, { device }), { device })
  }
  vt.manualSeed(options.training.seed ?? 3407)
  const encoder = await vt.Spectra.fromPretrained(options.modelDir, { device, config: compat ? { compat } : {} })
  const hiddenSize = encoder.config.textConfig.hiddenSize ?? 768
  const { dropout, headsDropout, classLossRatio } = options
  const model = new vt.SpectraForDst(encoder, {
    config,
    hiddenSize,
    dropout,
    headsDropout,
    classLossRatio,
    compat,
    device,
  })
  if (options.mode !== 'train') {
    if (options.checkpoint === undefined)
      throw new Error(`${output} has no trained tracker: train one, or name a --checkpoint`)
    const { tensors } = await vt.loadSafetensors(join(output, options.checkpoint, 'model.safetensors'))
    model.loadStateDict(tensors)
  }
  return model
}

async function read(split: string) {
  const { audio, maxLength } = options
  const from = { config, tokenizer, maxLength, compat, ...(audio !== undefined && { audio }) }
  const { features, source, truncated, lostSpans, report } = await vt.loadDstSplit(data, split, from)
  const cut = truncated > 0 ? `, ${truncated} too long (${lostSpans} labels lost)` : ''
  console.log(`${split}: ${features.length} turns of ${source}${cut}`)
  if (report) console.log(report)
  return { features, dataset: new vt.DstDataset(features, { noAudio: options.noAudio }) }
}

async function score(model: vt.SpectraForDst, split: string): Promise<void> {
  const { features, dataset } = await read(split)
  using bar = new vt.ProgressBar({ total: features.length, label: split, unit: 'turns' })
  let done = 0
  const batchSize = options.training.perDeviceEvalBatchSize ?? 24
  const results = await vt.trackDst(model, dataset, {
    ...{ ...decoding, batchSize, padId: tokenizer.padTokenId ?? 1 },
    onBatch(turns) {
      for (; done < turns; done++) bar.tick()
    },
  })
  const { jointGoalAccuracy, jointGoalAccuracyWithoutProfile, slotAccuracy } = vt.dstScores(results, config)
  const trippy = vt.trippyScores(results, config)
  await vt.writeJson(join(output, `${split}-predictions.json`), vt.dstPredictionRecords(results, config))
  console.log(`\njoint goal accuracy        ${jointGoalAccuracy.toFixed(4)}`)
  console.log(`  without profile slots    ${jointGoalAccuracyWithoutProfile.toFixed(4)}`)
  console.log(`  as TripPy's script       ${trippy.jointGoalAccuracy.toFixed(4)}`)
  console.log(`slot accuracy              ${slotAccuracy.toFixed(4)}`)
  if (dataset.emptyAudio.size > 0) console.log(`${dataset.emptyAudio.size} utterances had no speech where it should be`)
}

const model = await build()
if (options.mode === 'track') {
  const tracker = new vt.DstTracker({ ...decoding, model, maxLength: options.maxLength })
  const input = options.track === '-' ? process.stdin : createReadStream(options.track as string)
  for await (const line of createInterface({ input })) {
    if (line.trim() === '') tracker.reset()
    else console.log(JSON.stringify((await tracker.next(JSON.parse(line) as vt.DstTrackerTurn)).state))
  }
} else if (options.mode === 'evaluate') {
  await score(model, options.split)
} else {
  const train = await read('train')
  const val = await read('val')
  const textLength = compat && options.maxLength
  const trainer = vt.dstTrainer({
    ...{ ...decoding, model, trainDataset: train.dataset, evalDataset: val },
    ...(textLength !== undefined && { textLength }),
    args: { evalStrategy: 'epoch', ...options.training },
  })
  await trainer.train()
  await trainer.saveModel()
  await score(model, 'val')
}
