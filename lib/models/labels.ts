import { shown } from '../base/arguments.js'
import { ConfigError } from '../base/errors.js'
import { binaryCrossEntropyWithLogits, crossEntropy, mseLoss } from '../nn/losses.js'
import type { Tensor } from '../tensor/index.js'
import type { NetworkConfig } from './network.js'

/** Keys of a classifier's configuration about its classes. */
export interface LabelConfig {
  /** Number of classes. Default: the number of names in `id2label`, else 2. */
  numLabels?: number
  /** Class names by index, as in config.json. */
  id2label?: Record<string, string>
  label2id?: Record<string, number>
  /** Kind of the labels: a quantity, one class, or any subset of the classes. Default: by the number and dtype of the labels. */
  problemType?: ProblemType | null
}

const problems = ['regression', 'single_label_classification', 'multi_label_classification'] as const
export type ProblemType = (typeof problems)[number]

const MOST_LABELS = 2 ** 24

/** Return the number of classes. @throws ConfigError if `numLabels` and `id2label` differ */
export function labelCount(where: string, config: LabelConfig & NetworkConfig): number {
  const { numLabels, id2label, problemType } = config
  const named = id2label === undefined || id2label === null ? undefined : Object.keys(id2label).length
  const count = numLabels ?? named ?? 2
  if (!Number.isSafeInteger(count) || count < 1 || count > MOST_LABELS) {
    throw new ConfigError(
      `${where}: numLabels: expected an integer from 1 to ${MOST_LABELS}, got ${shown(count)}. Correct it.`,
      {
        numLabels: count,
      },
    )
  }
  if (named !== undefined && named !== count) {
    throw new ConfigError(
      `${where}: numLabels: expected ${named}, the number of names in id2label, got ${count}. Change one.`,
      {
        numLabels,
        id2label,
      },
    )
  }
  if (problemType != null && !problems.includes(problemType)) {
    throw new ConfigError(
      `${where}: problemType: expected ${problems.join(', ')}, got ${shown(problemType)}. Leave it out for the default.`,
      { problemType },
    )
  }
  return count
}

/** Return the configuration for config.json, with class names, whose number replaces `numLabels`. */
export function withLabelNames(where: string, config: LabelConfig & NetworkConfig): NetworkConfig {
  const { numLabels: _, ...rest } = config
  const count = labelCount(where, config)
  const names = config.id2label ?? Object.fromEntries(Array.from({ length: count }, (_, i) => [i, `LABEL_${i}`]))
  const ids = config.label2id ?? Object.fromEntries(Object.entries(names).map(([id, name]) => [name, Number(id)]))
  return { ...rest, id2label: names, label2id: ids }
}

/** Compute transformers' loss for `problemType`: logits [batch, numLabels], labels [batch] or [batch, numLabels]. */
export function classificationLoss(config: LabelConfig, logits: Tensor, labels: Tensor): Tensor {
  const count = logits.size(-1)
  const isWhole = /^u?int/.test(labels.dtype)
  const usual = count === 1 ? 'regression' : isWhole ? 'single_label_classification' : 'multi_label_classification'
  switch (config.problemType ?? usual) {
    case 'regression':
      return mseLoss(
        count === 1 ? logits.flatten() : logits,
        (count === 1 ? labels.flatten() : labels).to(logits.dtype),
      )
    case 'single_label_classification':
      return crossEntropy(logits.view([-1, count]), labels.flatten().to('int64'))
    default:
      return binaryCrossEntropyWithLogits(logits, labels.to(logits.dtype))
  }
}
