import { shown } from '../base/arguments.js'
import { ConfigError } from '../base/errors.js'
import { binaryCrossEntropyWithLogits, crossEntropy, mseLoss } from '../nn/losses.js'
import type { Tensor } from '../tensor/index.js'
import type { NetworkConfig } from './network.js'

/** What a classifier's configuration says about its classes. */
export interface LabelConfig {
  /** Classes; default as many as `id2label` names, else 2. */
  numLabels?: number
  /** Names of the classes by number, as files have them. */
  id2label?: Record<string, string>
  label2id?: Record<string, number>
  /** What `labels` are; default by their number and dtype: one quantity, one class of several, or each class or not. */
  problemType?: ProblemType | null
}

const problems = ['regression', 'single_label_classification', 'multi_label_classification'] as const
export type ProblemType = (typeof problems)[number]

const MOST_LABELS = 2 ** 24

/** The number of classes. @throws ConfigError where `numLabels` and `id2label` contradict each other */
export function labelCount(where: string, config: LabelConfig & NetworkConfig): number {
  const { numLabels, id2label, problemType } = config
  const named = id2label === undefined || id2label === null ? undefined : Object.keys(id2label).length
  const count = numLabels ?? named ?? 2
  if (!Number.isSafeInteger(count) || count < 1 || count > MOST_LABELS) {
    throw new ConfigError(`${where}: numLabels must be a whole number from 1 to ${MOST_LABELS}, not ${shown(count)}`, {
      numLabels: count,
    })
  }
  if (named !== undefined && named !== count) {
    throw new ConfigError(`${where}: numLabels is ${count}, but id2label names ${named} classes`, {
      numLabels,
      id2label,
    })
  }
  if (problemType != null && !problems.includes(problemType)) {
    const words = problems.join(', ')
    throw new ConfigError(`${where}: problemType must be one of ${words}, not ${shown(problemType)}`, { problemType })
  }
  return count
}

/** The configuration as a file has it: classes have names there, and their number follows from those. */
export function withLabelNames(where: string, config: LabelConfig & NetworkConfig): NetworkConfig {
  const { numLabels: _, ...rest } = config
  const count = labelCount(where, config)
  const names = config.id2label ?? Object.fromEntries(Array.from({ length: count }, (_, i) => [i, `LABEL_${i}`]))
  const ids = config.label2id ?? Object.fromEntries(Object.entries(names).map(([id, name]) => [name, Number(id)]))
  return { ...rest, id2label: names, label2id: ids }
}

/** As transformers computes it for `problemType`: logits [batch, numLabels], labels [batch] or [batch, numLabels]. */
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
