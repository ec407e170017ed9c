import { existsSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { defined } from '../../../base/check.js'
import { ConfigError } from '../../../base/errors.js'
import { commandRule } from '../../../kit/command.js'
import type { OptionsOf } from '../../../kit/options.js'
import type { RecipeResults } from '../../../kit/recipe.js'
import type { Device } from '../../../tensor/index.js'
import type { Tokenizer } from '../../../text/index.js'
import type { TrainOutput } from '../../../train/index.js'
import type { SpectraPretrainingSource } from '../pretraining/open.js'

interface PretrainingResults extends RecipeResults {
  trainingLoss: number
}

const ROBERTA_MASK = 50264

const OPTIONS = {
  data: { kind: 'text', help: 'dialogs, in one of the forms above', value: 'path', aliases: ['data_path'] },
  tokenizer: { kind: 'text', help: "RoBERTa's", value: 'dir' },
  output: {
    kind: 'text',
    help: 'checkpoints, prepared data and the network go here',
    value: 'dir',
    preset: 'spectra-pretraining',
    aliases: ['out', 'model_save_path'],
  },
  config: { kind: 'text', help: 'a new network: base, tiny, or a JSON file', value: 'size', preset: 'tiny' },
  model: {
    kind: 'text',
    help: 'a network to go on from, in place of a new one',
    value: 'dir',
    aliases: ['model_path'],
  },
  audioRoot: { kind: 'text', help: 'what paths of clips are relative to', value: 'dir', aliases: ['audio'] },
  onBadRecord: {
    kind: ['stop', 'skip'],
    help: 'what turns, words and slices do that cannot be used',
    preset: 'skip',
  },
  spotify: { kind: 'flag', help: "the data are Spotify's transcripts" },
  epochs: { kind: 'number', help: 'passes over the data' },
  maxSteps: { kind: 'whole', help: 'steps, in place of epochs', aliases: ['steps'] },
  batchSize: { kind: 'whole', help: 'examples of a batch' },
  accumulation: { kind: 'whole', help: 'batches of a step', aliases: ['accumulate', 'grad_acc'] },
  learningRate: { kind: 'number', help: 'the highest', value: 'rate', aliases: ['lr'] },
  bf16: { kind: 'flag', help: 'computes in bfloat16' },
  device: { kind: 'text', help: 'such as cpu or cuda:0', preset: 'cpu' },
  seed: { kind: 'whole', help: 'of weights, order and masks', preset: 42 },
} as const

export const pretrain = commandRule({
  name: 'pretrain',
  summary: 'Pre-trains SPECTRA (https://arxiv.org/abs/2305.11579) on dialogs whose words have times.',
  details: `  voxtorch spectra pretrain --data turns.jsonl --tokenizer DIR --config tiny --max-steps 30

The data are one of: a JSONL file, one turn a line: {"dialog","turn","speaker","wav","words":[{"word","start","end"}]}; a
folder of clips with transcripts but no word times (LibriSpeech's *.trans.txt, or a labels.csv with file, text, speaker),
whose times are then set uniformly; a folder of Spotify's transcripts (--spotify); the original's transForV4.pkl; a folder
that was prepared before. Stopped and started again, it goes on. 'tiny' is a network to see that all losses fall.`,
  options: OPTIONS,
  async run(options) {
    const { config: size = 'tiny', data, device = 'cpu', output = 'spectra-pretraining', seed = 42 } = options
    if (data === undefined || options.tokenizer === undefined) {
      throw new ConfigError('Say where dialogs and tokenizer are: --data PATH --tokenizer DIR', { argument: 'data' })
    }
    const { manualSeed } = await import('../../../tensor/index.js')
    const { Tokenizer } = await import('../../../text/index.js')
    const { isMainProcess } = await import('../../../distributed/index.js')
    const { runRecipe } = await import('../../../kit/recipe.js')
    const { openSpectraPretraining } = await import('../pretraining/open.js')
    const { pretrainSpectra, SPECTRA_PRETRAINING_ARGUMENTS: recipe } = await import('../pretraining/train.js')
    const { SpectraForPreTraining } = await import('../network/network.js')
    const { readSpectraConfig } = await import('../network/config.js')
    const tokenizer = await Tokenizer.fromPretrained(options.tokenizer)
    manualSeed(seed)
    const folder = await prepared(data, output, tokenizer, options)
    const model =
      options.model === undefined
        ? SpectraForPreTraining.fromConfig(await readSpectraConfig(size, tokenizer))
        : await SpectraForPreTraining.fromPretrained(options.model)
    if (device !== 'cpu') model.to({ device: device as Device })
    const parameters = model.parameters().reduce((sum, parameter) => sum + parameter.numel(), 0)
    console.log(`${options.model ?? size}: ${parameters.toLocaleString('en')} parameters`)
    const tiny = options.model === undefined && size === 'tiny'
    const source = await openSpectraPretraining(folder)
    const train = () =>
      pretrainSpectra({
        model,
        data: source,
        mlm: { vocabSize: tokenizer.vocabSize, maskId: maskIdOf(tokenizer) },
        args: {
          outputDir: output,
          perDeviceTrainBatchSize: options.batchSize ?? (tiny ? 4 : recipe.perDeviceTrainBatchSize),
          gradientAccumulationSteps: options.accumulation ?? (tiny ? 1 : recipe.gradientAccumulationSteps),
          numTrainEpochs: options.epochs ?? recipe.numTrainEpochs,
          maxSteps: options.maxSteps ?? -1,
          learningRate: options.learningRate ?? (tiny ? 1e-3 : recipe.learningRate),
          loggingSteps: tiny ? 10 : 100,
          saveTotalLimit: 2,
          seed,
          bf16: options.bf16 ?? false,
        },
        onLosses({ step, mlmLoss, mamLoss, crsLoss, tppLoss }) {
          const all = { mlm: mlmLoss, mam: mamLoss, crs: crsLoss, tpp: tppLoss }
          const losses = Object.entries(all).map(([name, value]) => `${name} ${value?.toFixed(4)}`)
          console.log(`step ${step}: ${losses.join('  ')}`)
        },
      })
    const results = await runRecipe<object, PretrainingResults, SpectraPretrainingSource, TrainOutput>({
      ...{ trainer: { train }, outputDir: output, data: { train: source }, best: 'model' },
      async save(folder) {
        if (isMainProcess()) await model.save(folder)
      },
      more: ({ trainingLoss }) => ({ trainingLoss }),
    })
    const { globalStep, trainingLoss } = results
    console.log(`${globalStep} steps, mean loss ${trainingLoss.toFixed(4)}; the model is in ${join(output, 'model')}/`)
    return 0
  },
})

/** RoBERTa's, where the tokenizer does not say which of so many tokens it is. */
function maskIdOf({ maskTokenId, vocabSize }: Tokenizer): number {
  if (maskTokenId !== null) return maskTokenId
  if (vocabSize > ROBERTA_MASK) return ROBERTA_MASK
  throw new ConfigError(
    'The tokenizer has no mask token, which pre-training needs: say mask_token in its configuration',
    {
      argument: 'tokenizer',
    },
  )
}

/** The folder of the training form, prepared when it is not there yet. */
async function prepared(
  given: string,
  out: string,
  tokenizer: Tokenizer,
  { audioRoot, onBadRecord, spotify = false }: OptionsOf<typeof OPTIONS>,
): Promise<string> {
  const done = (folder: string) => existsSync(join(folder, 'entries.jsonl'))
  const output = join(out, 'data')
  if (done(given)) return given
  if (done(output)) return output
  if (given.endsWith('.pkl')) {
    const { importPublishedSpectraPretraining } = await import('../pretraining/published.js')
    const { entries, skipped } = await importPublishedSpectraPretraining(
      ...([given, output, audioRoot ?? '.', defined({ onBadRecord })] as const),
    )
    console.log(`${entries} published entries; left out: ${JSON.stringify(skipped)}`)
    return output
  }
  const { clipTurns, spotifyTurns, UNIFORM_WORD_TIMES } = await import('../pretraining/dialog-sources.js')
  const { prepareSpectraPretraining } = await import('../pretraining/prepare.js')
  const clips = !spotify && statSync(given, { throwIfNoEntry: false })?.isDirectory()
  const summary = await prepareSpectraPretraining(spotify ? spotifyTurns(given) : clips ? clipTurns(given) : given, {
    output,
    tokenizer,
    ...(clips && { audioRoot: given, wordTimes: UNIFORM_WORD_TIMES }),
    ...defined({ audioRoot, onBadRecord }),
  })
  console.log(`${summary.turns} turns of ${summary.dialogs} dialogs, ${(summary.hours * 60).toFixed(1)} minutes:`)
  console.log(`  ${summary.entries} slices, of which ${summary.examples} have a turn before them and are examples`)
  console.log(`  word times: ${summary.wordTimes}`)
  console.log(`  left out: ${JSON.stringify(summary.skipped)}`)
  return output
}
