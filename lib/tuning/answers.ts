import { padTokens } from '../kit/pad.js'
import type { DecoderLM } from '../models/decoder/decoder-lm.js'
import { ops, scope, type Tensor, tensor } from '../tensor/index.js'
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
}

/** Batch of pairs: the rows of the chosen answers, then those of the rejected ones. */
export interface PairBatch {
  /** Indices of the pairs, int64 [pairs]. */
  pairs: Tensor
  answers: AnswerBatch
  attentionMask: Tensor
  kl?: AnswerBatch
  /** Log-probabilities of the rows under the reference model, float32 [rows]. */
  reference?: Tensor
  klReference?: Tensor
}

/** Return a function that combines pairs into a batch. */
export const pairCollate =
  (loss: PreferenceLoss) =>
  (pairs: PreferencePair[]): PairBatch =>
    scope(() => {
      const rows = (of: (pair: PreferencePair, name: 'chosen' | 'rejected') => number | undefined) =>
        tensor([...pairs.map((pair) => of(pair, 'chosen')), ...pairs.map((pair) => of(pair, 'rejected'))] as number[], {
          dtype: 'float32',
        })
      const answers = collateAnswers(
        [...pairs.map(({ chosen }) => chosen), ...pairs.map(({ rejected }) => rejected)],
        // ORPO's supervised loss is over whole conversations.
        loss === 'orpo' ? pairs.length : 0,
      )
      const known = pairs.every(({ reference }) => reference !== undefined)
      return {
        pairs: tensor(pairs.map(({ index }) => index)),
        // For the Trainer's count of tokens.
        ...{ answers, attentionMask: answers.attentionMask },
        ...(loss === 'kto' && {
          kl: collateAnswers(
            [...pairs.map((pair) => pair.klChosen), ...pairs.map((pair) => pair.klRejected)] as AnswerTokens[],
            0,
          ),
        }),
        ...(known && { reference: rows(({ reference }, name) => reference?.[name]) }),
        ...(known &&
          loss === 'kto' && {
            klReference: rows(({ reference }, name) => reference?.[name === 'chosen' ? 'klChosen' : 'klRejected']),
          }),
      }
    })

/** @param complete number of rows, from the first, whose prompts are targets too */
function collateAnswers(answers: readonly AnswerTokens[], complete: number): AnswerBatch {
  const ones = ({ ids }: AnswerTokens) => ids.map(() => 1)
  const marks = ({ ids, start }: AnswerTokens) => ids.map((_, i) => (i >= start ? 1 : 0))
  const targets = answers.map(({ ids, start }, i) => ids.map((id, at) => (i < complete || at >= start ? id : -100)))
  return {
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
export async function answerLogps(model: DecoderLM, batch: AnswerBatch): Promise<AnswerLogps> {
  const { inputIds, attentionMask, targets, answerMask } = batch
  return scope(async () => {
    const { loss } = await model.forward({ inputIds, attentionMask, labels: targets, reduction: 'none' })
    const tokens = (loss as Tensor).neg()
    const mask = answerMask.slice(-1, 1)
    return { sums: ops.where(mask.gt(0), tokens, 0).sum(1), lengths: mask.sum(1), tokens }
  })
}
