import { shown } from '../../base/check.js'
import { ConfigError } from '../../base/errors.js'
import { ctcLoss } from '../../nn/losses.js'
import { Tensor } from '../../tensor/index.js'

export const CTC_REDUCTIONS = ['sum', 'mean', 'none'] as const
export type CtcReduction = (typeof CTC_REDUCTIONS)[number]

/** @throws ConfigError for another value of `ctcLossReduction` */
export function requireCtcReduction(ctcLossReduction: unknown): void {
  if ((CTC_REDUCTIONS as readonly unknown[]).includes(ctcLossReduction)) return
  throw new ConfigError(
    `ctcLossReduction: expected ${CTC_REDUCTIONS.join(', ')}, got ${shown(ctcLossReduction)}. Correct it.`,
    { ctcLossReduction },
  )
}

/** Check labels int64 [batch, length]. @throws ConfigError for another value */
export function requireLabels(labels: unknown, batch: number): asserts labels is Tensor {
  if (labels instanceof Tensor && labels.ndim === 2 && labels.size(0) === batch) return
  const value = labels instanceof Tensor ? `[${labels.shape}]` : shown(labels)
  throw new ConfigError(
    `labels: expected int64 [${batch}, length], with -100 for padding, got ${value}. Pad the rows.`,
    {},
  )
}

/** @throws ConfigError if a label that counts is outside the vocabulary */
export function requireInVocabulary(labels: Tensor, real: Tensor, vocabSize: number): void {
  const outside = labels.lt(0).logicalOr(labels.ge(vocabSize))
  if (!real.logicalAnd(outside).any().item()) return
  throw new ConfigError(
    `labels: expected token ids below ${vocabSize}, or -100 for padding, got others. Use the tokenizer of this network.`,
    { vocabSize },
  )
}

/**
 * Compute transformers' CTC loss of a network: float32 (float64 for float64).
 * @param logits [batch, frames, vocabSize]
 * @param labels int64 [batch, length]; -100 and the blank are padding
 * @param lengths int64 [batch], number of valid frames; null: all
 */
export function ctcLossOf(
  logits: Tensor,
  labels: Tensor,
  lengths: Tensor | null,
  { blank, reduction, zeroInfinity }: { blank: number; reduction: CtcReduction; zeroInfinity: boolean },
): Tensor {
  const [batch, frames, vocabSize] = logits.shape as [number, number, number]
  requireLabels(labels, batch)
  // As in transformers, the blank is padding too.
  const real = labels.ne(-100).logicalAnd(labels.ne(blank))
  requireInVocabulary(labels, real, vocabSize)
  const targets = labels.to('int64').maskedSelect(real)
  const exact = logits.dtype === 'float64' ? 'float64' : 'float32'
  const logProbs = logits.logSoftmax(-1, { dtype: exact }).transpose(0, 1)
  const valid = lengths ?? logits.newFull([batch], frames, { dtype: 'int64' })
  return ctcLoss(logProbs, targets, valid.to({ device: logits.device }), real.sum([-1]), {
    blank,
    reduction,
    zeroInfinity,
  })
}
