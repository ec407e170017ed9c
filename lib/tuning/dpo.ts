import { argumentError, defined, requireString } from '../base/check.js'
import { ConfigError, DataError } from '../base/errors.js'
import { type ChangesOf, instanceOf } from '../base/settings.js'
import { plainMetrics, type RecipeResults, runRecipe } from '../kit/recipe.js'
import { BadRecords } from '../kit/records.js'
import { DecoderLM } from '../models/decoder/decoder-lm.js'
import { withEvalMode } from '../nn/eval-mode.js'
import { PeftModel, peftModelOf } from '../peft/model.js'
import { autocast, noGrad, scope, stack, type Tensor } from '../tensor/index.js'
import { Tokenizer } from '../text/tokenizer.js'
import type { TrainingArguments } from '../train/trainer/arguments.js'
import { type LossOutput, onDevice } from '../train/trainer/loss.js'
import { resolveArguments } from '../train/trainer/resolve-arguments.js'
import { Trainer } from '../train/trainer/trainer.js'
import { type AnswerBatch, type AnswerLogps, answerLogps, type PairBatch, pairCollate } from './answers.js'
import { dpoLoss, ipoLoss, ktoLoss, orpoLoss, type PreferenceLossOutput, simpoLoss } from './losses.js'
import { type PreferencePair, type PreferenceRecord, pairsOf } from './pairs.js'
import { noRecords, RECORDS, type Records } from './records.js'
import { hasReference, PREFERENCE_SETTINGS, type PreferenceSettings, preferenceSettings } from './settings.js'
import {
  type BadRecordCounts,
  loraplusOptimizer,
  requireAdapters,
  TRAINER_OPTIONS,
  trainingArguments,
} from './training.js'

const WHERE = 'trainDpo'

const OPTIONS = PREFERENCE_SETTINGS.extend({
  /** Tokenizer of the model, with its chat template. */
  tokenizer: { type: instanceOf<Tokenizer>(Tokenizer as never), required: true },
  /** Held-out records: their loss, preference accuracy and margins are computed at the end of each epoch. */
  evalRecords: { type: RECORDS<PreferenceRecord>() },
  ...TRAINER_OPTIONS,
})

/** Options of `trainDpo`. @interface */
export type TrainDpoOptions = ChangesOf<typeof OPTIONS.table>

/** Metrics of pairs: `loss`, `rewardsAccuracies`, `rewardsMargins`, `rewardsChosen` and `rewardsRejected`. */
export type PreferenceMetrics = Record<string, number>

/** Results of a preference training, as in `results.json` in its folder. */
export interface TrainDpoResults extends RecipeResults<PreferenceMetrics> {
  /** Mean of the losses of all steps. */
  trainingLoss: number
  badRecords: BadRecordCounts
}

/**
 * Train a language model on pairs of a better and a worse answer: DPO, IPO, KTO, ORPO or SimPO. With adapters, the reference model is
 * the same network with its adapters off; without, it is the network as it is now. There is no second copy. The logits of the whole
 * vocabulary are never kept.
 *
 * ```ts
 * const peft = getPeftModel(model, { r: 16, targetModules: 'all-linear' })
 * await trainDpo(peft, 'pairs.jsonl', { tokenizer, outputDir: 'runs/dpo', evalRecords: 'held-out.jsonl', learningRate: 1e-5 })
 * ```
 * Writes the adapter to `outputDir/adapter`, or the model to `outputDir/model`, and `results.json`. The same call continues a run that was
 * killed, bit for bit; without adapters, load the original weights before it.
 * @param records pairs, or the source of `loadDataset`: a JSON Lines or Parquet file, a folder, a dataset of the Hub
 * @throws ConfigError for a wrong option; DataError, with file and line or index, for a record that cannot be used, see `onBadRecord`
 */
export async function trainDpo(
  model: DecoderLM | PeftModel<DecoderLM>,
  records: Records<PreferenceRecord>,
  options: TrainDpoOptions,
): Promise<TrainDpoResults> {
  const network = model instanceof PeftModel ? model.model : model
  if (!(network instanceof DecoderLM)) throw argumentError(WHERE, 'model', 'a DecoderLM, or a PeftModel of one', model)
  const { tokenizer, outputDir, evalRecords, args, callbacks, loggers } = OPTIONS.read(WHERE, options)
  requireString(WHERE, 'outputDir', outputDir)
  RECORDS()(WHERE, 'records', records)
  const settings = preferenceSettings(WHERE, PREFERENCE_SETTINGS.changesIn(options))
  const run = new PreferenceRun(network, settings)
  const own = PREFERENCE_SETTINGS.trainingArguments(settings)
  const saveStrategy = settings.saveSteps ? 'steps' : 'epoch'
  const evalStrategy = evalRecords === undefined ? 'no' : 'epoch'
  const training = trainingArguments(WHERE, outputDir, { evalStrategy, saveStrategy, ...own }, args)
  using optimizer = loraplusOptimizer(WHERE, network, settings.loraplusLrRatio, training)
  const bad = new BadRecords(settings.onBadRecord)
  const train = await pairsOf(tokenizer, records, settings, bad, 'records')
  if (train.length === 0) throw noRecords(WHERE, 'pair', 'records', bad)
  const valid =
    evalRecords === undefined ? undefined : await pairsOf(tokenizer, evalRecords, settings, bad, 'evalRecords')
  if (valid?.length === 0) throw noRecords(WHERE, 'pair', 'evalRecords', bad)
  for (const pairs of [train, valid ?? []]) {
    if (settings.loss !== 'kto' || pairs.length !== 1) continue
    throw new DataError(
      `${WHERE}: expected at least two pairs, since KTO pairs prompts with other answers, got one.`,
      {},
    )
  }
  if (run.precomputes) await run.precompute([...train, ...(valid ?? [])], training)
  const trainer = new Trainer<DecoderLM, PreferencePair, PairBatch>({
    ...{ model: network, args: training, trainDataset: train, collate: pairCollate(settings.loss) },
    ...{ computeLoss: (_, batch) => run.lossOf(batch), countItems: ({ pairs }) => pairs.size(0) },
    ...{ computeMetrics: ({ predictions }) => metricsOf(predictions), ...defined({ callbacks, loggers }) },
    ...(valid && { evalDataset: valid }),
    ...(optimizer && { optimizers: { optimizer } }),
  })
  // Awaited here, so that the optimizer is disposed of after the training.
  return await runRecipe<
    PreferenceMetrics,
    TrainDpoResults,
    PreferencePair[],
    Awaited<ReturnType<typeof trainer.train>>
  >({
    ...{ trainer, outputDir, best: run.peft ? 'adapter' : 'model' },
    data: { train, ...(valid && { valid }) },
    save: (path) => trainer.saveModel(path),
    measure: async (pairs) => plainMetrics(await trainer.evaluate(pairs)),
    more: ({ trainingLoss }) => ({ trainingLoss, badRecords: { count: bad.count, reasons: bad.reasons } }),
    dispose: () => trainer.dispose(),
  })
}

/** State that the steps of a run share: model, adapters and settings. */
class PreferenceRun {
  readonly peft: PeftModel | undefined
  /** Whether the reference's log-probabilities are computed before training. */
  readonly precomputes: boolean

  constructor(
    readonly model: DecoderLM,
    readonly settings: PreferenceSettings,
  ) {
    this.peft = peftModelOf(model)
    const { loss, precomputeRefLogProbs } = settings
    const own = this.peft && ownWeight(model, this.peft)
    this.precomputes = hasReference(loss) && (precomputeRefLogProbs ?? (this.peft === undefined || own !== undefined))
    if (!hasReference(loss) || this.precomputes) return
    requireAdapters(WHERE, model, 'precomputeRefLogProbs', 'true without adapters')
    if (own === undefined) return
    throw new ConfigError(
      `${WHERE}: precomputeRefLogProbs: expected true where weights besides adapters train, got false with '${own}', whose values are not those of the reference after a step. Leave it out.`,
      { argument: 'precomputeRefLogProbs', path: own },
    )
  }

  /** Compute the log-probabilities of all pairs under the reference model. */
  async precompute(pairs: readonly PreferencePair[], training: TrainingArguments): Promise<void> {
    const { loss, evalBatchSize } = this.settings
    const { bf16, fp16 } = resolveArguments(training)
    const device = this.model.parameters()[0]?.device ?? 'cpu'
    const collate = pairCollate(loss)
    for (let at = 0; at < pairs.length; at += evalBatchSize) {
      const some = pairs.slice(at, at + evalBatchSize)
      await scope(async () => {
        const batch = await onDevice(collate(some), device)
        const compute = async () => {
          const of = async (answers: AnswerBatch) =>
            (await (await this.reference(answers)).to('float64').data()) as Float64Array
          return [await of(batch.answers), batch.kl ? await of(batch.kl) : undefined] as const
        }
        const dtype = bf16 ? 'bfloat16' : 'float16'
        const [answers, kl] =
          bf16 || fp16 ? await autocast({ device: device === 'cpu' ? 'cpu' : 'cuda', dtype }, compute) : await compute()
        for (const [i, pair] of some.entries()) {
          const two = (values: Float64Array | undefined) => [values?.[i] ?? 0, values?.[i + some.length] ?? 0] as const
          const [chosen, rejected] = two(answers)
          const [klChosen, klRejected] = two(kl)
          pair.reference = { chosen, rejected, klChosen, klRejected }
        }
      })
    }
  }

  /** Return the sums of the answers' log-probabilities under the reference model, without dropout and noise. */
  async reference(answers: AnswerBatch): Promise<Tensor> {
    const compute = async () => (await answerLogps(this.model, answers)).sums
    return scope(() => noGrad(() => withEvalMode(this.model, () => this.peft?.disableAdapter(compute) ?? compute())))
  }

  async lossOf(batch: PairBatch): Promise<LossOutput> {
    return scope(async () => {
      const found = await this.#loss(batch)
      // The rewards are what `computeMetrics` gets.
      const { chosenRewards, rejectedRewards } = found
      return { loss: found.loss, logits: stack([chosenRewards, rejectedRewards], 1) }
    })
  }

  async #loss(batch: PairBatch): Promise<PreferenceLossOutput> {
    const { model, settings } = this
    const { loss, beta, labelSmoothing, simpoGamma, desirableWeight, undesirableWeight } = settings
    if (!hasReference(loss)) {
      const logps = await answerLogps(model, batch.answers)
      const [chosenLogps, rejectedLogps] = halves(logps.sums.div(logps.lengths))
      if (loss === 'simpo') return simpoLoss({ chosenLogps, rejectedLogps }, { beta, labelSmoothing, simpoGamma })
      return orpoLoss({ chosenLogps, rejectedLogps, nllLoss: supervised(logps, batch) }, { beta })
    }
    const reference = batch.reference ?? (await this.reference(batch.answers))
    const kl = batch.kl && (await this.#kl(batch.kl, batch.klReference))
    const { sums, lengths } = await answerLogps(model, batch.answers)
    const [chosenLogps, rejectedLogps] = halves(sums)
    const [refChosenLogps, refRejectedLogps] = halves(reference)
    const logps = { chosenLogps, rejectedLogps, refChosenLogps, refRejectedLogps }
    if (loss === 'sigmoid') return dpoLoss(logps, { beta, labelSmoothing })
    if (loss === 'kto') return ktoLoss({ ...logps, ...kl }, { beta, desirableWeight, undesirableWeight })
    const [chosenLengths, rejectedLengths] = halves(lengths)
    return ipoLoss({ ...logps, chosenLengths, rejectedLengths }, { beta })
  }

  /** Return the log-probabilities of answers to other prompts, which have no gradient. */
  async #kl(answers: AnswerBatch, known: Tensor | undefined) {
    const refKlLogps = known ?? (await this.reference(answers))
    const klLogps = await noGrad(() =>
      withEvalMode(this.model, async () => (await answerLogps(this.model, answers)).sums),
    )
    return { klLogps, refKlLogps }
  }
}

/** Return the name of a weight that trains in place, such as a bias: with the adapters off it is still the trained one. */
function ownWeight(model: DecoderLM, peft: PeftModel): string | undefined {
  const saved = new Set(Object.values(peft.peftConfig).flatMap(({ modulesToSave }) => modulesToSave ?? []))
  const isSaved = (name: string) => {
    const parts = name.split('.')
    return parts.some((_, i) => [...saved].some((one) => `.${parts.slice(0, i).join('.')}`.endsWith(`.${one}`)))
  }
  const found = model
    .namedParameters()
    .find(([name, { requiresGrad }]) => requiresGrad && !name.includes('.lora_') && !isSaved(name))
  return found?.[0]
}

const halves = (rows: Tensor): [Tensor, Tensor] => rows.chunk(2) as [Tensor, Tensor]

/** Return the mean cross-entropy of the chosen conversations, prompts included. */
function supervised({ tokens }: AnswerLogps, { answers }: PairBatch): Tensor {
  const [chosen] = halves(tokens)
  const [mask] = halves(answers.attentionMask.slice(-1, 1))
  return chosen.sum().div(mask.sum()).neg()
}

/** Return the metrics of rewards [pairs, 2]. */
function metricsOf(rewards: Tensor): PreferenceMetrics {
  return scope(() => {
    const [chosen, rejected] = rewards.to('float64').unbind(1) as [Tensor, Tensor]
    const mean = (values: Tensor) => Number(values.mean().item())
    return {
      rewardsAccuracies: mean(chosen.gt(rejected).to('float64')),
      rewardsMargins: mean(chosen.sub(rejected)),
      rewardsChosen: mean(chosen),
      rewardsRejected: mean(rejected),
    }
  })
}
