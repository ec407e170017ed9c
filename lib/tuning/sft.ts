import { join } from 'node:path'
import { argumentError, defined, requireString } from '../base/check.js'
import { ConfigError } from '../base/errors.js'
import { type ChangesOf, instanceOf } from '../base/settings.js'
import { DataLoader } from '../data/loader.js'
import { PackedBatchSampler, packSequences } from '../data/pack.js'
import { isMainProcess } from '../distributed/index.js'
import { plainMetrics, type RecipeResults, runRecipe } from '../kit/recipe.js'
import { BadRecords } from '../kit/records.js'
import { AudioLM } from '../models/audio-lm/audio-lm.js'
import { DecoderLM } from '../models/decoder/decoder-lm.js'
import { InternVL } from '../models/internvl/internvl.js'
import type { Module } from '../nn/module.js'
import { isBlocks, quantizationOf } from '../nn/quantized-weight.js'
import { PeftModel, peftModelOf } from '../peft/model.js'
import { dequantizeLayer } from '../peft/packed-layer.js'
import type { Tensor } from '../tensor/index.js'
import { Tokenizer } from '../text/tokenizer.js'
import type { TrainingArguments } from '../train/trainer/arguments.js'
import { joinRanks, type Ranks } from '../train/trainer/distributed.js'
import { writeFolder } from '../train/trainer/folders.js'
import { ask, type LossOutput } from '../train/trainer/loss.js'
import { resolveArguments } from '../train/trainer/resolve-arguments.js'
import { Trainer } from '../train/trainer/trainer.js'
import { answerMetrics, generateAnswers } from './answer-metrics.js'
import { examplesOf, type RecordReader, type SftExample, type SftRecord, type Truncated } from './examples.js'
import { audioMedia, type ConversationMedia, imageMedia } from './media.js'
import { normalizeEnglish, normalizeText, readSpellings } from './normalize-text.js'
import { noRecords, RECORDS, type Records } from './records.js'
import { SFT_SETTINGS, type SftSettings } from './settings.js'
import {
  type BadRecordCounts,
  loraplusOptimizer,
  refuseOwned,
  requireAdapters,
  TRAINER_OPTIONS,
  trainingArguments,
} from './training.js'

const WHERE = 'trainSft'

const OPTIONS = SFT_SETTINGS.extend({
  /** Tokenizer of the model, with its chat template. Default: that of an `AudioLM`. */
  tokenizer: { type: instanceOf<Tokenizer>(Tokenizer as never) },
  /** Held-out records: their loss and `metrics` are computed at each checkpoint, and the best one is kept. */
  evalRecords: { type: RECORDS<SftRecord>() },
  ...TRAINER_OPTIONS,
})

/** Options of `trainSft`. @interface */
export type TrainSftOptions = ChangesOf<typeof OPTIONS.table>

/** Results of a supervised fine-tuning, as in `results.json` in its folder. `valid` has the `loss` and the `metrics`. */
export interface TrainSftResults extends RecipeResults<Record<string, number>> {
  /** Mean of the losses of all steps. */
  trainingLoss: number
  /** Records of both data sets that were left out. */
  badRecords: BadRecordCounts
  /** Records of both data sets that were truncated and still have an answer. */
  truncated: Truncated
}

/** Model for supervised fine-tuning. */
export type SftModel = DecoderLM | AudioLM | InternVL

/** A batch without padding: all records in one row. */
interface SftBatch {
  /** int64 [1, time]. */
  inputIds: Tensor
  labels: Tensor
  sequenceLengths: number[]
  /** Audio features or tiles of images, by their names in `forward`. */
  [media: string]: unknown
}

/**
 * Fine-tune a language model, a speech language model or a vision-language model on conversations: only the answers of the assistant contribute to the loss.
 * Records of a batch are concatenated in one row, without padding.
 *
 * ```ts
 * const model = await AudioLM.fromPretrained('Qwen/Qwen2-Audio-7B-Instruct')
 * const peft = model.trainParts({ connector: 'full', decoder: 'lora' }, { r: 16, loraAlpha: 32 })
 * await trainSft(peft, 'train.jsonl', { outputDir: 'runs/sft', evalRecords: 'held-out.jsonl', metrics: ['wer'], keyMetric: 'wer' })
 * ```
 * Writes the adapter to `outputDir/adapter`, or the model to `outputDir/model`, and `results.json`. With `evalRecords`, these are the best
 * checkpoint's. The same call continues a run that was killed, bit for bit; without adapters, load the original weights before it.
 * `merge` and `gguf` convert quantized layers of the network to floating point, after the training.
 * @param records conversations, or the source of `loadDataset`: a JSON Lines or Parquet file, a folder, a dataset of the Hub
 * @throws ConfigError for a wrong option; DataError, with file and line or index, for a record that cannot be used, see `onBadRecord`
 */
export async function trainSft(
  model: SftModel | PeftModel<SftModel> | PeftModel<DecoderLM> | PeftModel<AudioLM> | PeftModel<InternVL>,
  records: Records<SftRecord>,
  options: TrainSftOptions,
): Promise<TrainSftResults> {
  const network = model instanceof PeftModel ? model.model : model
  if (!(network instanceof DecoderLM || network instanceof AudioLM || network instanceof InternVL)) {
    throw argumentError(WHERE, 'model', 'a DecoderLM, an AudioLM, an InternVL, or a PeftModel of one', model)
  }
  const { evalRecords, args, callbacks, loggers, ...given } = OPTIONS.read(WHERE, options)
  const { outputDir } = given
  requireString(WHERE, 'outputDir', outputDir)
  RECORDS()(WHERE, 'records', records)
  const settings = SFT_SETTINGS.read(WHERE, SFT_SETTINGS.changesIn(options))
  requireFitting(network, settings, evalRecords !== undefined, options.longAudio)
  if (settings.packing) refuseOwned(WHERE, args)
  const tokenizer = given.tokenizer ?? (network instanceof AudioLM ? network.tokenizer : null)
  if (tokenizer == null) throw argumentError(WHERE, 'tokenizer', 'the tokenizer of the model', tokenizer)
  const training = trainingArguments(WHERE, outputDir, ownArguments(settings, evalRecords !== undefined), args)
  using optimizer = loraplusOptimizer(WHERE, network, settings.loraplusLrRatio, training)
  const media = mediaIn(network, tokenizer, settings)
  const normalize = await normalizerOf(settings)
  const reader: RecordReader = { tokenizer, media, settings }
  const bad = new BadRecords(settings.onBadRecord)
  const needsMedia = !languageModel(network)
    .parameters()
    .some(({ requiresGrad }) => requiresGrad)
  const train = await examplesOf({ ...reader, needsMedia: media !== null && needsMedia }, records, bad, 'records')
  if (train.examples.length === 0) throw noRecords(WHERE, 'record', 'records', bad)
  const { metrics } = settings
  const withAnswers = metrics.length > 0
  const valid =
    evalRecords === undefined ? undefined : await examplesOf(reader, evalRecords, bad, 'evalRecords', withAnswers)
  if (valid?.examples.length === 0) throw noRecords(WHERE, 'record', 'evalRecords', bad)

  const ranks = await joinRanks(network.parameters()[0]?.device ?? 'cpu', resolveArguments(training))
  const collate = collateOf(media)
  const answers = valid?.examples.flatMap(({ answer }) => answer ?? []) ?? []
  // Report a reference that is too long to normalize before the training.
  if (metrics.includes('wer') || metrics.includes('cer')) for (const { reference } of answers) normalize(reference)
  const trainer = new Trainer<SftModel, SftExample, SftBatch>({
    ...{ model: network, args: training, collate, collateAhead: media !== null },
    trainDataset: settings.packing ? packed(train.examples, collate, settings, ranks) : train.examples,
    ...defined({ callbacks, loggers }),
    ...(valid && { evalDataset: valid.examples }),
    ...(optimizer && { optimizers: { optimizer } }),
    ...(answers.length > 0 && {
      // The answers are generated apart from the pass that computes the loss.
      computeLoss: async (one, batch) => withLogits(await ask(one, batch, training.labelSmoothingFactor ?? 0)),
      computeMetrics: async () => {
        const texts = await generateAnswers(network, reader, answers, settings)
        return answerMetrics(
          metrics,
          texts,
          answers.map(({ reference }) => reference),
          normalize,
        )
      },
    }),
  })
  const peft = peftModelOf(network)
  const results = await runRecipe<
    Record<string, number>,
    TrainSftResults,
    SftExample[],
    Awaited<ReturnType<typeof trainer.train>>
  >({
    ...{ trainer, outputDir, best: peft ? 'adapter' : 'model' },
    data: { train: train.examples, ...(valid && { valid: valid.examples }) },
    save: (path) => (peft ? trainer.saveModel(path) : saveFolder(path, trainer, tokenizer)),
    measure: async () => plainMetrics(await trainer.evaluate()),
    more: ({ trainingLoss }) => ({
      trainingLoss,
      badRecords: { count: bad.count, reasons: bad.reasons },
      truncated: sum(train.truncated, valid?.truncated),
    }),
    dispose: () => trainer.dispose(),
  })
  await saveMerged(network, tokenizer, outputDir, settings)
  return results
}

/** @param longAudio the option as given, undefined for its default */
function requireFitting(
  network: SftModel,
  settings: SftSettings,
  evaluates: boolean,
  longAudio: TrainSftOptions['longAudio'],
): void {
  const { metrics, keyMetric, earlyStoppingPatience, merge, gguf, packing, groupByLength } = settings
  const refuse = (argument: string, message: string): never => {
    throw new ConfigError(`${WHERE}: ${argument}: expected ${message}`, { argument })
  }
  if (!evaluates) {
    const unread = {
      metrics: metrics.length > 0,
      keyMetric: keyMetric !== 'loss',
      earlyStoppingPatience: earlyStoppingPatience !== null,
    }
    for (const [name, isSet] of Object.entries(unread)) {
      if (isSet) refuse(name, 'evalRecords with it, got none. Pass evalRecords.')
    }
  }
  if (keyMetric !== 'loss' && !metrics.includes(keyMetric)) {
    refuse('keyMetric', `'loss' or one of metrics, got '${keyMetric}'. Add it to metrics.`)
  }
  if (settings.normalizer !== 'basic' && !metrics.some((one) => one === 'wer' || one === 'cer')) {
    refuse('normalizer', `it with the metric wer or cer, got '${settings.normalizer}' with none. Leave it out.`)
  }
  if (settings.spellings !== null && settings.normalizer !== 'english') {
    refuse('spellings', `it with normalizer 'english', got '${settings.normalizer}'. Leave it out.`)
  }
  if (packing && groupByLength)
    refuse('groupByLength', 'it without packing, which fills batches, got both. Leave one of them out.')
  if (merge) requireAdapters(WHERE, network, 'merge')
  const kind = network.constructor.name
  const packed = !(network instanceof DecoderLM) && network.namedModules().find(([, module]) => quantizationOf(module))
  if (merge && packed) {
    refuse(
      'merge',
      `a model without quantization, since ${kind} is saved without, got '${packed[0]}' quantized. Leave it out.`,
    )
  }
  if (longAudio !== undefined && !(network instanceof AudioLM)) {
    refuse('longAudio', `it for an AudioLM only, got '${longAudio}' for ${kind}. Leave it out.`)
  }
  if (gguf !== null && !(network instanceof DecoderLM)) {
    refuse('gguf', `none for ${kind}, got '${gguf}'. Leave it out.`)
  }
}

/** Return the Trainer's arguments that follow from the settings. */
function ownArguments(settings: SftSettings, evaluates: boolean): Omit<TrainingArguments, 'outputDir'> {
  const strategy = settings.saveSteps ? 'steps' : 'epoch'
  const { keyMetric, saveSteps } = settings
  return {
    ...{ saveStrategy: strategy, saveTotalLimit: 2 },
    ...(evaluates && {
      ...{
        evalStrategy: strategy,
        loadBestModelAtEnd: true,
        metricForBestModel: keyMetric,
        ...defined({ evalSteps: saveSteps }),
      },
      greaterIsBetter: keyMetric === 'exactMatch' || keyMetric === 'rougeL',
    }),
    ...SFT_SETTINGS.trainingArguments(settings),
  }
}

/** Return the function that normalizes texts for error rates. */
async function normalizerOf({ normalizer, spellings }: SftSettings): Promise<(text: string) => string> {
  if (normalizer === 'basic') return normalizeText
  const table = spellings === null ? undefined : await readSpellings(spellings)
  if (table !== undefined || spellings === null) return (text) => normalizeEnglish(text, table)
  throw new ConfigError(`${WHERE}: spellings: expected normalizer.json or its folder, got ${spellings}.`, {
    argument: 'spellings',
  })
}

const pack = packSequences(['inputIds', 'labels'])

/** Return a function that concatenates records, and computes the features of their clips or images. */
const collateOf =
  (media: ConversationMedia | null) =>
  async (examples: SftExample[]): Promise<SftBatch> => {
    const { inputIds, labels, sequenceLengths } = pack(examples)
    const clips = examples.flatMap((example) => example.clips)
    const inputs = media !== null && clips.length > 0 ? await media.inputsOf(clips) : {}
    return { inputIds, labels, sequenceLengths, ...inputs }
  }

function mediaIn(network: SftModel, tokenizer: Tokenizer, settings: SftSettings): ConversationMedia | null {
  if (network instanceof AudioLM) return audioMedia(network, tokenizer, settings)
  return network instanceof InternVL ? imageMedia(WHERE, network, tokenizer) : null
}

const languageModel = (network: SftModel): DecoderLM =>
  network instanceof DecoderLM ? network : network.language_model

function packed(
  examples: readonly SftExample[],
  collate: (examples: SftExample[]) => Promise<SftBatch>,
  { batchSize, maxLength, seed }: SftSettings,
  { rank, size }: Ranks,
): DataLoader<SftExample, SftBatch> {
  const lengths = examples.map(({ inputIds }) => inputIds.length)
  const rows = new PackedBatchSampler({ lengths, maxLength: batchSize * maxLength, shuffle: true, seed })
  // Each process gets the next row of a batch; at the end some may get none.
  const batchSampler = {
    length: Math.ceil(rows.length / size),
    *batches(epoch: number) {
      const all = [...rows.batches(epoch)]
      for (let at = 0; at < all.length; at += size) yield all[at + rank] ?? []
    },
  }
  return new DataLoader<SftExample, SftBatch>(examples, {
    ...{ batchSampler, collate, freeBatches: false, shard: { rank: 0, worldSize: 1 } },
    collateAhead: examples.some(({ clips }) => clips.length > 0),
  })
}

/** Return the loss, with itself in place of logits, which the Trainer expects for metrics. */
function withLogits(output: unknown): LossOutput {
  const { loss } = output as LossOutput
  return { loss, logits: loss.detach().reshape([1]) }
}

const sum = (one: Truncated, other: Truncated = { records: 0, turns: 0, tokens: 0 }): Truncated => ({
  records: one.records + other.records,
  turns: one.turns + other.turns,
  tokens: one.tokens + other.tokens,
})

/** Save a model with its tokenizer, in the main process. */
async function saveFolder(
  path: string,
  model: Pick<Trainer<SftModel>, 'saveModel'>,
  tokenizer: Tokenizer,
): Promise<void> {
  if (!isMainProcess()) return
  await writeFolder(path, async (folder) => {
    await model.saveModel(folder)
    tokenizer.saveTo(folder)
  })
}

/** Whether a layer is quantized in a way that GGUF files do not have. */
function isPacked(layer: Module): boolean {
  const scheme = quantizationOf(layer)?.scheme
  return scheme !== undefined && !isBlocks(scheme)
}

/** Save the model with its adapters merged, and its GGUF file, if the settings say so. */
async function saveMerged(network: SftModel, tokenizer: Tokenizer, outputDir: string, { merge, gguf }: SftSettings) {
  if (!merge && gguf === null) return
  const peft = peftModelOf(network)
  peft?.mergeAdapter(peft.activeAdapters, { dequantize: true })
  try {
    const saved = { saveModel: (folder: string) => network.save(folder, { withoutAdapters: true }) } as never
    if (merge) await saveFolder(join(outputDir, 'model'), saved, tokenizer)
    if (gguf !== null && network instanceof DecoderLM && isMainProcess()) {
      for (const layer of network.modules()) if (isPacked(layer)) dequantizeLayer(layer)
      await network.saveGguf(join(outputDir, 'model.gguf'), { tokenizer, type: gguf, withoutAdapters: true })
    }
  } finally {
    peft?.unmergeAdapter()
  }
}
