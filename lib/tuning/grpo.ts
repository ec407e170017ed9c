import { createHash } from 'node:crypto'
import { argumentError, defined, requireString } from '../base/check.js'
import { ConfigError } from '../base/errors.js'
import { type ChangesOf, checkedBy, instanceOf } from '../base/settings.js'
import { Random } from '../data/random.js'
import { plainMetrics, type RecipeResults, runRecipe } from '../kit/recipe.js'
import { BadRecords } from '../kit/records.js'
import { withEvalMode } from '../nn/eval-mode.js'
import { type PeftModel, peftModelOf } from '../peft/model.js'
import { noGrad, scope, type Tensor, tensor } from '../tensor/index.js'
import { Tokenizer } from '../text/tokenizer.js'
import { joinRanks, Ranks } from '../train/trainer/distributed.js'
import { type LossOutput, onDevice } from '../train/trainer/loss.js'
import { resolveArguments } from '../train/trainer/resolve-arguments.js'
import { warn } from '../train/trainer/rng.js'
import { Trainer } from '../train/trainer/trainer.js'
import { type AnswerBatch, answerLogps, collateAnswers } from './answers.js'
import { type TuningModel, tuningModel } from './audio.js'
import { deviationOf, grpoAdvantages, grpoLoss, meanOf, weightedSum } from './grpo-loss.js'
import { GRPO_SETTINGS, type GrpoSettings } from './grpo-settings.js'
import type { AnswerTokens } from './pairs.js'
import { PromptBatch, PromptBatches } from './prompt-batches.js'
import { type Prompt, type PromptRecord, promptsOf } from './prompts.js'
import { noRecords, RECORDS, type Records } from './records.js'
import { type NamedRewards, namedRewards, type RewardFunction, rewardsOf } from './rewards.js'
import { type SampledAnswer, sampleAnswers } from './sample.js'
import {
  type BadRecordCounts,
  epochStrategies,
  loraplusOptimizer,
  ownWeight,
  refuseOwned,
  requireAdapters,
  TRAINER_OPTIONS,
  trainingArguments,
} from './training.js'

const WHERE = 'trainGrpo'

const OPTIONS = GRPO_SETTINGS.extend({
  /** Tokenizer of the model, with its chat template. */
  tokenizer: { type: instanceOf<Tokenizer>(Tokenizer as never), required: true },
  /** Reward function, or several, whose weighted sum is the reward. */
  rewards: {
    type: checkedBy<RewardFunction | readonly RewardFunction[]>((where, _, value) => {
      namedRewards(where, value)
    }),
    required: true,
  },
  /** Held-out prompts: the mean reward of their greedy answers is computed at the end of each epoch. */
  evalRecords: { type: RECORDS<PromptRecord>() },
  ...TRAINER_OPTIONS,
})

/** Options of `trainGrpo`. @interface */
export type TrainGrpoOptions = ChangesOf<typeof OPTIONS.table>

/** Metrics of greedy answers: `reward`, `rewards/<name>` of each function, and `loss`, which is minus the reward. */
export type GrpoMetrics = Record<string, number>

/** Results of GRPO, as in `results.json` in its folder. */
export interface TrainGrpoResults extends RecipeResults<GrpoMetrics> {
  /** Mean of the losses of all steps. */
  trainingLoss: number
  badRecords: BadRecordCounts
  /** Rewards that were left out since the start of this process; the reasons are reward functions. */
  badRewards: BadRecordCounts
}

/**
 * Train a language model with GRPO (Shao et al. 2024, https://arxiv.org/abs/2402.03300): sample `numGenerations` answers of each prompt, score
 * them with reward functions, and make answers above the mean of their group more likely. Answers are sampled by continuous
 * batching from the network in training. With `beta`, the reference model is the same network with its adapters off.
 *
 * ```ts
 * const peft = getPeftModel(model, { r: 16, targetModules: 'all-linear' })
 * const brief = ({ completion }: RewardAnswer) => -completion.length
 * await trainGrpo(peft, 'prompts.jsonl', { tokenizer, rewards: brief, outputDir: 'runs/grpo', learningRate: 1e-5 })
 * ```
 * Writes the adapter to `outputDir/adapter`, or the model to `outputDir/model`, and `results.json`. On the CPU, a seed gives the same weights bit
 * for bit, and the same call continues a run that was killed, if the reward functions return the same numbers.
 * If the windows of prompts differ from the checkpoint's, as with another number of processes, it samples new answers, with a warning.
 * @param records prompts, or the source of `loadDataset`: a JSON Lines or Parquet file, a folder, a dataset of the Hub. Prompts of an AudioLM
 *   may have audio clips
 * @throws ConfigError for a wrong option; DataError, with file and line or index, for a record that cannot be used (see `onBadRecord`), and for
 *   a reward that is not a number (see `onBadReward`), with the name of its function
 */
export async function trainGrpo(
  model: TuningModel | PeftModel<TuningModel>,
  records: Records<PromptRecord>,
  options: TrainGrpoOptions,
): Promise<TrainGrpoResults> {
  const network = tuningModel(WHERE, model)
  const { tokenizer, outputDir, evalRecords, args, callbacks, loggers, rewards } = OPTIONS.read(WHERE, options)
  requireString(WHERE, 'outputDir', outputDir)
  RECORDS()(WHERE, 'records', records)
  const settings = GRPO_SETTINGS.read(WHERE, GRPO_SETTINGS.changesIn(options))
  refuseOwned(WHERE, args)
  const own = GRPO_SETTINGS.trainingArguments(settings)
  const training = trainingArguments(WHERE, outputDir, { ...epochStrategies(settings, evalRecords), ...own }, args)
  const run = new GrpoRun(network, tokenizer, namedRewards(WHERE, rewards), settings)
  const ranks = await joinRanks(network.parameters()[0]?.device ?? 'cpu', resolveArguments(training))
  run.ranks = ranks
  using optimizer = loraplusOptimizer(WHERE, network, settings.loraplusLrRatio, training)
  const bad = new BadRecords(settings.onBadRecord)
  const read = async (from: Records<PromptRecord>, name: string) => {
    const prompts = await promptsOf(network, tokenizer, from, settings.maxLength, bad, name)
    if (prompts.length > 0) return prompts
    throw noRecords(WHERE, 'prompt', name, bad)
  }
  const train = await read(records, 'records')
  const valid = evalRecords === undefined ? undefined : await read(evalRecords, 'evalRecords')
  const trainer = new Trainer<TuningModel, Prompt, PromptBatch>({
    ...{
      model: network,
      args: training,
      trainDataset: new PromptBatches(train, settings, { rank: ranks.rank, worldSize: ranks.size }),
    },
    collate: (prompts) => new PromptBatch(prompts, prompts, -1, 0, false),
    computeLoss: (_, batch) => run.lossOf(batch),
    // Batches of training have the same number of prompts.
    countItems: ({ prompts }) => prompts.length,
    countTokens: (batch) => run.tokensOf(batch),
    computeMetrics: ({ predictions }) => run.metricsOf(predictions),
    logMetrics: () => run.tally.take(),
    extraState: { rollouts: run },
    ...defined({ callbacks, loggers }),
    ...(valid && { evalDataset: valid }),
    ...(optimizer && { optimizers: { optimizer } }),
  })
  // Awaited here, so that the optimizer is disposed of after the training.
  return await runRecipe<GrpoMetrics, TrainGrpoResults, Prompt[], Awaited<ReturnType<typeof trainer.train>>>({
    ...{ trainer, outputDir, best: peftModelOf(network) ? 'adapter' : 'model' },
    data: { train, ...(valid && { valid }) },
    save: (path) => trainer.saveModel(path),
    measure: async (prompts) => plainMetrics(await trainer.evaluate(prompts)),
    more: async ({ trainingLoss }) => ({
      trainingLoss,
      badRecords: counts(bad),
      badRewards: await run.allBadRewards(),
    }),
    dispose: () => trainer.dispose(),
  })
}

const counts = ({ count, reasons }: BadRecords) => ({ count, reasons })

/** Means of values since the last log. */
class Tally {
  #sums: Record<string, { sum: number; count: number }> = {}

  add(values: Readonly<Record<string, number>>): void {
    for (const [name, value] of Object.entries(values)) {
      if (Number.isNaN(value)) continue
      const { sum, count } = this.#sums[name] ?? { sum: 0, count: 0 }
      this.#sums[name] = { sum: sum + value, count: count + 1 }
    }
  }

  take(): Record<string, number> {
    const means = Object.entries(this.#sums).map(([name, { sum, count }]) => [name, sum / count] as const)
    this.#sums = {}
    return Object.fromEntries(means)
  }

  stateDict() {
    return this.#sums
  }

  loadStateDict(sums: Record<string, { sum: number; count: number }>): void {
    this.#sums = sums
  }
}

/** Answers of a window, with what the steps need of them. */
interface Rollouts {
  key: number
  /** Digest of the prompts and the settings that the answers depend on. */
  digest: string
  answers: SampledAnswer[]
  advantages: number[]
  /** Log-probabilities of the answers' tokens when they were sampled, and under the reference model; empty until they are computed. */
  old: number[][]
  reference: number[][]
}

/** State that the steps of a run share. */
class GrpoRun {
  readonly tally = new Tally()
  readonly badRewards: BadRecords
  ranks = new Ranks()
  readonly #peft: PeftModel | undefined
  #rollouts: Rollouts | null = null
  /** First error of this process in an evaluation. */
  #failure: { error: unknown } | undefined

  constructor(
    readonly model: TuningModel,
    readonly tokenizer: Tokenizer,
    readonly rewards: NamedRewards,
    readonly settings: GrpoSettings,
  ) {
    const { beta, rewardWeights, onBadReward } = settings
    this.badRewards = new BadRecords(onBadReward)
    if (rewardWeights !== undefined && rewardWeights.length !== rewards.length) {
      throw new ConfigError(
        `${WHERE}: rewardWeights: expected a weight for each of ${rewards.length} reward functions, got ${rewardWeights.length}.`,
        { argument: 'rewardWeights' },
      )
    }
    if (!(settings.temperature > 0)) {
      throw argumentError(WHERE, 'temperature', 'a number above 0', settings.temperature)
    }
    if (beta === 0) return
    this.#peft = requireAdapters(WHERE, model, 'beta', '0 without adapters')
    const own = ownWeight(model, this.#peft)
    if (own === undefined) return
    throw new ConfigError(
      `${WHERE}: beta: expected 0 where weights besides adapters train, got ${beta} with '${own}', whose values are not those of the reference after a step.`,
      { argument: 'beta', path: own },
    )
  }

  stateDict() {
    // A later step reads the answers only with several iterations.
    const rollouts = this.settings.numIterations > 1 ? this.#rollouts : null
    return { rollouts, tally: this.tally.stateDict() }
  }

  loadStateDict(state: { rollouts: Rollouts | null; tally: Record<string, { sum: number; count: number }> }): void {
    this.#rollouts = state.rollouts
    this.tally.loadStateDict(state.tally)
  }

  /** Return the loss of a batch; in evaluation minus the mean reward of greedy answers, with the rewards [prompts, 1 + functions]. */
  async lossOf(batch: PromptBatch): Promise<LossOutput> {
    if (this.model.training) return { loss: await this.#loss(batch) }
    const rows = await this.#evaluated(batch.prompts)
    const mean = meanOf(rows.map(([reward]) => reward as number))
    return {
      loss: tensor(Number.isNaN(mean) ? 0 : -mean, { dtype: 'float32' }),
      logits: tensor(rows, { dtype: 'float64' }),
    }
  }

  /**
   * Return the rewards of greedy answers and their sums, [prompts, 1 + functions]. Processes may have different numbers of batches, so
   * `metricsOf` reports an error, where all of them meet; with several processes, the rewards are NaN from the error on.
   */
  async #evaluated(prompts: readonly Prompt[]): Promise<number[][]> {
    if (this.#failure === undefined) {
      try {
        const rewards = await this.#score(prompts, await this.#sample(prompts, 1))
        return rewards.map((row, i) => [this.#sum(row, i), ...row.map((reward) => reward ?? Number.NaN)])
      } catch (error) {
        if (this.ranks.size === 1) throw error
        this.#failure = { error }
      }
    }
    return prompts.map(() => new Array<number>(1 + this.rewards.length).fill(Number.NaN))
  }

  /** Return the metrics of rewards [prompts, 1 + functions]. @throws the error of `lossOf`, of any process */
  async metricsOf(rewards: Tensor): Promise<GrpoMetrics> {
    const failure = this.#failure
    this.#failure = undefined
    await this.ranks.each(WHERE, async () => {
      if (failure !== undefined) throw failure.error
    })
    const rows = rewards.toArray() as number[][]
    const names = ['reward', ...this.rewards.map(([name]) => `rewards/${name}`)]
    const means = names.map((name, at) => [name, meanOf(rows.map((row) => row[at] as number))] as const)
    return Object.fromEntries(means.filter(([, mean]) => !Number.isNaN(mean)))
  }

  async #loss(batch: PromptBatch): Promise<Tensor> {
    const { settings } = this
    const { numGenerations, numIterations, accumulation, beta, maskTruncatedCompletions } = settings
    const rollouts = await this.#rolloutsOf(batch)
    const first = batch.first * numGenerations
    const rows = Array.from({ length: batch.prompts.length * numGenerations }, (_, i) => first + i)
    const counts = (row: number) => !(maskTruncatedCompletions && rollouts.answers[row]?.isTruncated)
    return scope(async () => {
      const tokens = rows.map((row, i): AnswerTokens => {
        const { ids, audio } = batch.prompts[Math.floor(i / numGenerations)] as Prompt
        const answer = rollouts.answers[row] as SampledAnswer
        return { ids: [...ids, ...answer.ids], start: ids.length, ...(audio && { audio }) }
      })
      const { device } = this.model.parameters()[0] as Tensor
      const answers = await onDevice(await collateAnswers(this.model, tokens, 0), device)
      const reference = beta > 0 ? await this.#reference(rollouts, rows, tokens, answers) : null
      const { tokens: logps } = await answerLogps(this.model, answers, settings.temperature)
      // Present in a repeated step, unless the answers were sampled anew after a resume.
      const hasOld = rollouts.old[first] !== undefined
      if (numIterations > 1 && !hasOld) await this.#keep(rollouts.old, rows, tokens, logps)
      const placed = (values: number[][]) => this.#placed(values, rows, tokens, logps)
      const kept = rows.map((row) => (counts(row) ? 1 : 0))
      const like = { dtype: 'float32', device: device as 'cpu' } as const
      const found = grpoLoss(
        {
          logps,
          oldLogps: hasOld ? placed(rollouts.old) : null,
          refLogps: reference,
          mask: answers.answerMask.slice(-1, 1).mul(tensor(kept, like).unsqueeze(1)),
          advantages: tensor(
            rows.map((row) => rollouts.advantages[row] as number),
            like,
          ),
        },
        {
          ...{ beta, epsilon: settings.epsilon, epsilonHigh: settings.epsilonHigh, lossType: settings.lossType },
          ...{ useBiasCorrectionKl: settings.useBiasCorrectionKl, maxCompletionLength: settings.maxCompletionLength },
          // The Trainer takes the mean over the batches of a step, of all processes.
          numItems: Math.max(1, this.#items(rollouts, counts)) / (accumulation * this.ranks.size),
        },
      )
      const own = { clipRatio: Number(found.clipRatio.item()), ...(found.kl && { kl: Number(found.kl.item()) }) }
      for (const one of await this.ranks.all(own)) this.tally.add(one)
      return found.loss
    })
  }

  /** Return the number of tokens of a window's answers that contribute to the loss. */
  #items({ answers }: Rollouts, counts: (row: number) => boolean): number {
    return answers.reduce((sum, { ids }, row) => sum + (counts(row) ? ids.length : 0), 0)
  }

  /** Return the digest of a window: answers of other prompts, or of other settings, do not fit it. */
  #digestOf(window: readonly Prompt[]): string {
    const { numGenerations, temperature } = this.settings
    const prompts = window.map(({ index, ids }) => [index, ids])
    return createHash('sha256')
      .update(JSON.stringify([numGenerations, temperature, prompts]))
      .digest('hex')
  }

  /** Return the answers of a batch's window, sampled before its first step. */
  async #rolloutsOf({ key, window, isRepeated }: PromptBatch): Promise<Rollouts> {
    const digest = this.#digestOf(window)
    if (this.#rollouts?.key === key && this.#rollouts.digest === digest) return this.#rollouts
    if (isRepeated && this.ranks.isMain) {
      warn(
        `${WHERE}: expected a checkpoint with answers to the prompts of this step, got none or answers to other prompts, as after a change ` +
          'of the number of processes, batchSize, accumulation, numGenerations, numIterations, temperature or the records. Training samples new answers.',
      )
    }
    const { numGenerations, rewardWeights, scaleRewards } = this.settings
    const { answers, rewards } = await this.#scored(window, numGenerations, key)
    const advantages = grpoAdvantages(rewards, {
      numGenerations,
      scaleRewards,
      ...(rewardWeights && { rewardWeights }),
    })
    const sums = rewards.map((row, i) => this.#sum(row, i))
    const groups = window.map((_, i) => sums.slice(i * numGenerations, (i + 1) * numGenerations))
    const lengths = answers.map(({ ids }) => ids.length)
    this.tally.add({
      reward: meanOf(sums),
      rewardStd: meanOf(groups.map(deviationOf)),
      fracRewardZeroStd: meanOf(groups.map((group) => (deviationOf(group) < 1e-8 ? 1 : 0))),
      ...Object.fromEntries(
        this.rewards.map(([name], at) => [`rewards/${name}`, meanOf(rewards.map((row) => row[at] ?? Number.NaN))]),
      ),
      completionLength: meanOf(lengths),
      clippedCompletions: meanOf(answers.map(({ isTruncated }) => (isTruncated ? 1 : 0))),
    })
    this.#rollouts = { key, digest, answers, advantages, old: [], reference: [] }
    return this.#rollouts
  }

  /** Sample and score the answers of a window. Each process does so for its own prompts; all get all. */
  async #scored(window: readonly Prompt[], count: number, key: number) {
    const { rank, size } = this.ranks
    const { batchSize } = this.settings
    const places = window.map((_, i) => i).filter((i) => Math.floor(i / batchSize) % size === rank)
    const prompts = places.map((place) => window[place] as Prompt)
    const parts = await this.ranks.each(WHERE, async () => {
      const answers = await this.#sample(prompts, count, { key, places, of: window.length })
      return { places, answers, rewards: await this.#score(prompts, answers) }
    })
    const all = { answers: [] as SampledAnswer[], rewards: [] as (number | null)[][] }
    for (const part of parts) {
      for (const [i, place] of part.places.entries()) {
        for (let j = 0; j < count; j++) {
          all.answers[place * count + j] = part.answers[i * count + j] as SampledAnswer
          all.rewards[place * count + j] = part.rewards[i * count + j] as (number | null)[]
        }
      }
    }
    return all
  }

  /** Return the number of tokens that a batch of training has had, prompts and answers. */
  tokensOf({ key, prompts, first }: PromptBatch): number {
    const { numGenerations: count } = this.settings
    if (this.#rollouts?.key !== key) return 0
    const answers = this.#rollouts.answers.slice(first * count, (first + prompts.length) * count)
    const ofPrompts = prompts.reduce((sum, { ids }) => sum + ids.length * count, 0)
    return answers.reduce((sum, { ids }) => sum + ids.length, ofPrompts)
  }

  /** Return the counts of bad rewards of all processes. */
  async allBadRewards(): Promise<BadRecordCounts> {
    const total: BadRecordCounts = { count: 0, reasons: {} }
    for (const { count, reasons } of await this.ranks.all(counts(this.badRewards))) {
      total.count += count
      for (const [name, one] of Object.entries(reasons)) total.reasons[name] = (total.reasons[name] ?? 0) + one
    }
    return total
  }

  /** Sample answers of prompts, in training with random numbers by their places in the window. */
  #sample(
    prompts: readonly Prompt[],
    count: number,
    window?: { key: number; places: readonly number[]; of: number },
  ): Promise<SampledAnswer[]> {
    const { seed, maxCompletionLength, maxNumSeqs, temperature, topK, topP } = this.settings
    const ends = [this.model.generationConfig.eosTokenId, this.tokenizer.eosTokenId].flat()
    const eosTokenId = [...new Set(ends.filter((id) => id !== null && id !== undefined))]
    const settings = { eosTokenId, maxCompletionLength, maxNumSeqs, temperature, topK, topP }
    if (window === undefined) return sampleAnswers(this.model, prompts, count, settings)
    // Streams that no order of prompts uses.
    const first = 2 ** 32 + window.key * window.of * count
    const placeOf = (answer: number) => (window.places[Math.floor(answer / count)] as number) * count + (answer % count)
    return sampleAnswers(this.model, prompts, count, settings, (answer) => new Random(seed, first + placeOf(answer)))
  }

  #score(prompts: readonly Prompt[], answers: readonly SampledAnswer[]): Promise<(number | null)[][]> {
    const count = answers.length / prompts.length
    return rewardsOf(
      WHERE,
      this.rewards,
      answers.map(({ ids }, i) => {
        const { record, place, fields } = prompts[Math.floor(i / count)] as Prompt
        const completion = this.tokenizer.decode(ids, { skipSpecialTokens: true })
        return { answer: { prompt: record.prompt, completion, completionIds: ids, record }, place, fields }
      }),
      this.badRewards,
    )
  }

  #sum(rewards: readonly (number | null)[], answer: number): number {
    return weightedSum(WHERE, rewards, this.settings.rewardWeights, answer)
  }

  /** Return the log-probabilities of the tokens under the reference model, computed once for each window. */
  async #reference(rollouts: Rollouts, rows: readonly number[], tokens: readonly AnswerTokens[], answers: AnswerBatch) {
    const [row] = rows as [number]
    if (rollouts.reference[row] === undefined) {
      const compute = async () => (await answerLogps(this.model, answers, this.settings.temperature)).tokens
      const peft = this.#peft as PeftModel
      const logps = await noGrad(() => withEvalMode(this.model, () => peft.disableAdapter(compute)))
      if (this.settings.numIterations === 1) return logps
      await this.#keep(rollouts.reference, rows, tokens, logps)
    }
    return this.#placed(rollouts.reference, rows, tokens, answers.answerMask.slice(-1, 1))
  }

  /** Keep the values of the answers' tokens of all processes as numbers, which a checkpoint saves. */
  async #keep(
    into: number[][],
    rows: readonly number[],
    tokens: readonly AnswerTokens[],
    logps: Tensor,
  ): Promise<void> {
    const values = (await logps.detach().to('float64').data()) as Float64Array
    const time = logps.size(1)
    const own = rows.map((row, i) => {
      const { ids, start } = tokens[i] as AnswerTokens
      // The value at index t is that of token t + 1.
      return [row, Array.from(values.subarray(i * time + start - 1, i * time + ids.length - 1))] as const
    })
    for (const [row, kept] of (await this.ranks.all(own)).flat()) into[row] = kept
  }

  /** Return kept values at the places of their tokens, [rows, time]. */
  #placed(values: readonly number[][], rows: readonly number[], tokens: readonly AnswerTokens[], like: Tensor): Tensor {
    const time = like.size(1)
    const placed = new Float64Array(rows.length * time)
    for (const [i, row] of rows.entries()) {
      placed.set(values[row] as number[], i * time + (tokens[i] as AnswerTokens).start - 1)
    }
    return tensor(placed, { shape: [rows.length, time], dtype: like.dtype as 'float32', device: like.device as 'cpu' })
  }
}
