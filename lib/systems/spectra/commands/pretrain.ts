import { existsSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { defined } from '../../../base/check.js'
import { ConfigError } from '../../../base/errors.js'
import { commandRule } from '../../../kit/command.js'
import type { OptionsOf, OptionTable } from '../../../kit/options.js'
import type { RecipeResults } from '../../../kit/recipe.js'
import type { Device } from '../../../tensor/index.js'
import type { Tokenizer } from '../../../text/index.js'
import type { TrainOutput } from '../../../train/index.js'
import type { SpectraPretrainingSource } from '../pretraining/open.js'
import { PRETRAINING_SETTINGS, TINY_PRETRAINING } from '../pretraining/recipe.js'

interface PretrainingResults extends RecipeResults {
  trainingLoss: number
}

const ROBERTA_MASK = 50264

const OPTIONS = {
  data: { type: 'string', help: 'dialogs, in one of the formats above', placeholder: 'path', aliases: ['data_path'] },
  tokenizer: { type: 'string', help: 'folder of the RoBERTa tokenizer', placeholder: 'dir' },
  output: {
    type: 'string',
    help: 'folder for checkpoints, prepared data and the network',
    placeholder: 'dir',
    default: 'spectra-pretraining',
    aliases: ['out', 'model_save_path'],
  },
  config: {
    type: 'string',
    help: 'size of a new network: base, tiny, or a JSON file',
    placeholder: 'size',
    default: 'tiny',
  },
  model: {
    type: 'string',
    help: 'network to continue training, instead of a new one',
    placeholder: 'dir',
    aliases: ['model_path'],
  },
  audioRoot: { type: 'string', help: 'folder that clip paths are relative to', placeholder: 'dir', aliases: ['audio'] },
  onBadRecord: {
    type: ['stop', 'skip'],
    help: 'action for turns, words and slices that cannot be used',
    default: 'skip',
  },
  spotify: { type: 'boolean', help: "the data are Spotify's transcripts" },
  ...PRETRAINING_SETTINGS.options,
  device: { type: 'string', help: 'device: cpu, cuda or cuda:0', default: 'cpu' },
  seed: { type: 'integer', help: 'random seed', default: 42 },
} as const satisfies OptionTable

export const pretrain = commandRule({
  name: 'pretrain',
  summary: 'Pre-train SPECTRA (https://arxiv.org/abs/2305.11579) on dialogs with word times.',
  details: `  voxtorch spectra pretrain --data turns.jsonl --tokenizer DIR --config tiny --max-steps 30

The data are one of: a JSONL file, one turn per line: {"dialog","turn","speaker","wav","words":[{"word","start","end"}]}; a
folder of clips with transcripts but without word times (LibriSpeech's *.trans.txt, or a labels.csv with file, text, speaker),
which get uniform word times; a folder of Spotify's transcripts (--spotify); the original's transForV4.pkl; or a prepared
folder. An interrupted run resumes. 'tiny' is a small network for testing the set-up.`,
  options: OPTIONS,
  async run(options) {
    const { config: size = 'tiny', data, device = 'cpu', output = 'spectra-pretraining', seed = 42 } = options
    if (data === undefined || options.tokenizer === undefined) {
      throw new ConfigError('pretrain: expected --data PATH and --tokenizer DIR, got only one or neither.', {
        argument: 'data',
      })
    }
    const { manualSeed } = await import('../../../tensor/index.js')
    const { Tokenizer } = await import('../../../text/index.js')
    const { isMainProcess } = await import('../../../distributed/index.js')
    const { runRecipe } = await import('../../../kit/recipe.js')
    const { openSpectraPretraining } = await import('../pretraining/open.js')
    const { pretrainSpectra } = await import('../pretraining/train.js')
    const { SpectraForPreTraining } = await import('../network/network.js')
    const { readSpectraConfig } = await import('../network/config.js')
    const tokenizer = await Tokenizer.fromPretrained(options.tokenizer)
    manualSeed(seed)
    const folder = await prepared(data, output, tokenizer, options)
    const model =
      options.model === undefined
        ? SpectraForPreTraining.fromConfig(await readSpectraConfig(size, tokenizer))
        : await SpectraForPreTraining.fromPretrained(options.model, { dtype: 'float32' })
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
          ...PRETRAINING_SETTINGS.trainingArguments({
            ...(tiny && TINY_PRETRAINING),
            ...PRETRAINING_SETTINGS.changesIn(options),
          }),
          loggingSteps: tiny ? 10 : 100,
          saveTotalLimit: 2,
          seed,
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

/** Return the tokenizer's mask token, or RoBERTa's if the tokenizer does not name one. */
function maskIdOf({ maskTokenId, vocabSize }: Tokenizer): number {
  if (maskTokenId !== null) return maskTokenId
  if (vocabSize > ROBERTA_MASK) return ROBERTA_MASK
  throw new ConfigError(
    'pretrain: expected a tokenizer with a mask token, got one without. Set mask_token in its configuration.',
    { argument: 'tokenizer' },
  )
}

/** Return the folder with the prepared training data, after preparing it if needed. */
async function prepared(
  source: string,
  out: string,
  tokenizer: Tokenizer,
  { audioRoot, onBadRecord, spotify = false }: OptionsOf<typeof OPTIONS>,
): Promise<string> {
  const done = (folder: string) => existsSync(join(folder, 'entries.jsonl'))
  const output = join(out, 'data')
  if (done(source)) return source
  if (done(output)) return output
  if (source.endsWith('.pkl')) {
    const { importPublishedSpectraPretraining } = await import('../pretraining/published.js')
    const { entries, skipped } = await importPublishedSpectraPretraining(
      ...([source, output, audioRoot ?? '.', defined({ onBadRecord })] as const),
    )
    console.log(`${entries} published entries; dropped: ${JSON.stringify(skipped)}`)
    return output
  }
  const { clipTurns, spotifyTurns, UNIFORM_WORD_TIMES } = await import('../pretraining/dialog-sources.js')
  const { prepareSpectraPretraining } = await import('../pretraining/prepare.js')
  const clips = !spotify && statSync(source, { throwIfNoEntry: false })?.isDirectory()
  const summary = await prepareSpectraPretraining(spotify ? spotifyTurns(source) : clips ? clipTurns(source) : source, {
    output,
    tokenizer,
    ...(clips && { audioRoot: source, wordTimes: UNIFORM_WORD_TIMES }),
    ...defined({ audioRoot, onBadRecord }),
  })
  console.log(`${summary.turns} turns of ${summary.dialogs} dialogs, ${(summary.hours * 60).toFixed(1)} minutes:`)
  console.log(`  ${summary.entries} slices, of which ${summary.examples} have a previous turn and are examples`)
  console.log(`  word times: ${summary.wordTimes}`)
  console.log(`  dropped: ${JSON.stringify(summary.skipped)}`)
  return output
}
