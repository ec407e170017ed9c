import { padTokens } from '../kit/pad.js'
import { AudioLM } from '../models/audio-lm/audio-lm.js'
import { ops, scope, type Tensor, tensor } from '../tensor/index.js'
import { type AudioBatch, audioBatch, audioEmbeds, audioIdOf, type TuningModel } from './audio.js'
import type { AnswerTokens, PreferencePair } from './pairs.js'
import type { PreferenceLoss } from './settings.js'

/** Rows of prompts with answers, padded on the right. */
export interface AnswerBatch {
  /** int64 [rows, time]. */
  inputIds: Tensor
  attentionMask: Tensor
  /** Tokens whose log-probabilities are computed, -100 elsewhere, int64 [rows, time]. */
  targets: Tensor
  /** 1 for the tokens of the answer, float32 [rows, time]. */
  answerMask: Tensor
  /** Audio of the prompts; undefined without. */
  audio?: AudioBatch
}

/** Batch of pairs: the rows of the chosen answers, then those of the rejected ones. */
export interface PairBatch {
  /** Indices of the pairs, int64 [pairs]. */
  pairs: Tensor
  /** Numbers of chosen and of rejected answers. They differ for records with a label. */
  counts: [chosen: number, rejected: number]
  answers: AnswerBatch
  attentionMask: Tensor
  kl?: AnswerBatch
  /** Log-probabilities of the rows under the reference model, float32 [rows]. */
  reference?: Tensor
  klReference?: Tensor
}

/** Return a function that combines pairs into a batch. */
export const pairCollate =
  (loss: PreferenceLoss, model: TuningModel) =>
  (pairs: PreferencePair[]): Promise<PairBatch> =>
    scope(async () => {
      const [chosen, rejected] = [pairs.filter((pair) => pair.chosen), pairs.filter((pair) => pair.rejected)]
      const rows = <T>(of: (pair: PreferencePair, isChosen: boolean) => T | undefined) =>
        [...chosen.map((pair) => of(pair, true)), ...rejected.map((pair) => of(pair, false))] as T[]
      const known = pairs.every(({ reference }) => reference !== undefined)
      const numbers = (of: (pair: PreferencePair, isChosen: boolean) => number | undefined) =>
        tensor(rows(of), { dtype: 'float32' })
      const answers = await collateAnswers(
        model,
        rows((pair, isChosen) => (isChosen ? pair.chosen : pair.rejected)),
        // ORPO's supervised loss is over whole conversations.
        loss === 'orpo' ? chosen.length : 0,
      )
      return {
        pairs: tensor(pairs.map(({ index }) => index)),
        counts: [chosen.length, rejected.length],
        // For the Trainer's count of tokens.
        ...{ answers, attentionMask: answers.attentionMask },
        ...(loss === 'kto' && {
          kl: await collateAnswers(
            model,
            rows((pair, isChosen) => (isChosen ? pair.klChosen : pair.klRejected)),
            0,
          ),
        }),
        ...(known && {
          reference: numbers(({ reference }, isChosen) => reference?.[isChosen ? 'chosen' : 'rejected']),
        }),
        ...(known &&
          loss === 'kto' && {
            klReference: numbers(({ reference }, isChosen) => reference?.[isChosen ? 'klChosen' : 'klRejected']),
          }),
      } satisfies PairBatch
    })

/** Pad answers to a batch. @param complete number of rows, from the first, whose prompts are targets too */
export async function collateAnswers(
  model: TuningModel,
  answers: readonly AnswerTokens[],
  complete: number,
): Promise<AnswerBatch> {
  const ones = ({ ids }: AnswerTokens) => ids.map(() => 1)
  const marks = ({ ids, start }: AnswerTokens) => ids.map((_, i) => (i >= start ? 1 : 0))
  // The model does not predict audio.
  const audioId = complete > 0 ? audioIdOf(model) : null
  const isTarget = (id: number, at: number, start: number, i: number) => at >= start || (i < complete && id !== audioId)
  const targets = answers.map(({ ids, start }, i) => ids.map((id, at) => (isTarget(id, at, start, i) ? id : -100)))
  const audio = await audioBatch(
    model,
    answers.map((one) => one.audio),
  )
  return {
    ...(audio && { audio }),
    inputIds: padTokens(answers.map(({ ids }) => ids)),
    attentionMask: padTokens(answers.map(ones)),
    targets: padTokens(targets, { value: -100 }),
    answerMask: padTokens(answers.map(marks)).to('float32'),
  }
}

/** Log-probabilities of rows. */
export interface AnswerLogps {
  /** Sums over the tokens of each answer, [rows]. */
  sums: Tensor
  /** Number of tokens of each answer, float32 [rows]. */
  lengths: Tensor
  /** Log-probability of each target, 0 elsewhere, [rows, time - 1]. */
  tokens: Tensor
}

/**
 * Compute the log-probabilities of answers with the fused linear layer and cross-entropy, so that the logits of the vocabulary never
 * exist as a whole.
 */
export async function answerLogps(model: TuningModel, batch: AnswerBatch, lossTemperature = 1): Promise<AnswerLogps> {
  const { inputIds, attentionMask, targets, answerMask, audio } = batch
  return scope(async () => {
    const inputs = { inputIds, attentionMask, labels: targets, reduction: 'none', lossTemperature } as const
    const media = audio && model instanceof AudioLM && { audioEmbeds: await audioEmbeds(model, audio) }
    const { loss } = await model.forward({ ...inputs, ...media })
    const tokens = (loss as Tensor).neg()
    const mask = answerMask.slice(-1, 1)
    return { sums: ops.where(mask.gt(0), tokens, 0).sum(1), lengths: mask.sum(1), tokens }
  })
}
