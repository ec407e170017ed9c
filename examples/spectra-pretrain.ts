/**
 * Pre-trains SPECTRA (https://arxiv.org/abs/2305.11579) on dialogs whose words have times.
 *
 * `npx tsx examples/spectra-pretrain.ts --data DATA --tokenizer DIR [--out DIR] [--config tiny|base|FILE.json] …`
 *
 * DATA is one of: a JSONL file, one turn a line: {"dialog","turn","speaker","wav","words":[{"word","start","end"}]}; a folder
 * of clips with transcripts but no word times (LibriSpeech's *.trans.txt, or a labels.csv with file, text, speaker), whose
 * times are then set uniformly; a folder of Spotify transcripts (`--spotify`, the audio in `--audio`); the original's
 * transForV4.pkl (`--audio` is what its paths are relative to); a folder that was prepared before.
 *
 * Stopped and started again, it goes on. `tiny` is a network to see that all losses fall: `--steps 30` is enough for that.
 */
import { existsSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import * as vt from 'voxtorch'

const { values: options } = parseArgs({
  options: {
    data: { type: 'string' },
    tokenizer: { type: 'string' },
    out: { type: 'string', default: 'spectra-pretraining' },
    config: { type: 'string', default: 'tiny' },
    model: { type: 'string' }, // a checkpoint to start from
    audio: { type: 'string' },
    spotify: { type: 'boolean', default: false },
    epochs: { type: 'string' },
    steps: { type: 'string' },
    'batch-size': { type: 'string' },
    accumulate: { type: 'string' },
    'learning-rate': { type: 'string' },
    bf16: { type: 'boolean', default: false },
    device: { type: 'string', default: 'cpu' },
    seed: { type: 'string', default: '42' },
  },
})
const { data, tokenizer: vocabulary, config: size } = options
if (data === undefined || vocabulary === undefined)
  throw new Error('say where dialogs and tokenizer are: --data DATA --tokenizer DIR')
const tokenizer = await vt.Tokenizer.fromPretrained(vocabulary)

/** The folder of the training form, prepared when it is not there yet. */
async function prepared(given: string): Promise<string> {
  if (existsSync(join(given, 'entries.jsonl'))) return given
  const output = join(options.out, 'data')
  if (existsSync(join(output, 'entries.jsonl'))) return output
  if (given.endsWith('.pkl')) {
    const { entries, skipped } = await vt.importPublishedSpectraPretraining(given, output, options.audio ?? '.')
    console.log(`${entries} published entries; left out: ${JSON.stringify(skipped)}`)
    return output
  }
  const clips = !options.spotify && statSync(given).isDirectory()
  const turns = options.spotify ? vt.spotifyTurns(given) : clips ? vt.clipTurns(given) : given
  const summary = await vt.prepareSpectraPretraining(turns, {
    output,
    tokenizer,
    ...(clips && { audioRoot: given, wordTimes: vt.UNIFORM_WORD_TIMES }),
    ...(options.audio !== undefined && { audioRoot: options.audio }),
  })
  console.log(`${summary.turns} turns of ${summary.dialogs} dialogs, ${(summary.hours * 60).toFixed(1)} minutes:`)
  console.log(`  ${summary.entries} slices, of which ${summary.examples} have a turn before them and are examples`)
  console.log(`  word times: ${summary.wordTimes}`)
  console.log(`  left out: ${JSON.stringify(summary.skipped)}`)
  return output
}

vt.manualSeed(Number(options.seed))
const folder = await prepared(data)
const model = options.model
  ? await vt.SpectraForPreTraining.fromPretrained(options.model)
  : vt.SpectraForPreTraining.fromConfig(await vt.readSpectraConfig(size, tokenizer))
if (options.device !== 'cpu') model.to({ device: options.device as 'cuda' })
const parameters = model.parameters().reduce((sum, parameter) => sum + parameter.numel(), 0)
console.log(`${size}: ${parameters.toLocaleString('en')} parameters`)

const tiny = size === 'tiny'
const number = (given: string | undefined, otherwise: number) => (given === undefined ? otherwise : Number(given))
const recipe = vt.SPECTRA_PRETRAINING_ARGUMENTS
const { trainingLoss, globalStep } = await vt.pretrainSpectra({
  model,
  data: folder,
  mlm: { vocabSize: tokenizer.vocabSize, maskId: tokenizer.maskTokenId ?? 50264 },
  args: {
    outputDir: options.out,
    perDeviceTrainBatchSize: number(options['batch-size'], tiny ? 4 : recipe.perDeviceTrainBatchSize),
    gradientAccumulationSteps: number(options.accumulate, tiny ? 1 : recipe.gradientAccumulationSteps),
    numTrainEpochs: number(options.epochs, recipe.numTrainEpochs),
    maxSteps: number(options.steps, -1),
    learningRate: number(options['learning-rate'], tiny ? 1e-3 : recipe.learningRate),
    loggingSteps: tiny ? 10 : 100,
    saveTotalLimit: 2,
    seed: Number(options.seed),
    bf16: options.bf16,
  },
  onLosses: ({ step, mlmLoss, mamLoss, crsLoss, tppLoss }) => {
    const all = { mlm: mlmLoss, mam: mamLoss, crs: crsLoss, tpp: tppLoss }
    console.log(
      `step ${step}: ${Object.entries(all)
        .map(([name, value]) => `${name} ${value?.toFixed(4)}`)
        .join('  ')}`,
    )
  },
})
await model.save(join(options.out, 'model'))
console.log(`${globalStep} steps, mean loss ${trainingLoss.toFixed(4)}; the model is in ${join(options.out, 'model')}/`)
