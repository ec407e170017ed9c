import { argumentError, requireNumber, requireObject, requireString } from '../../../base/check.js'
import { ConfigError } from '../../../base/errors.js'
import { didYouMean, shortened } from '../../../base/words.js'
import { EMOTION_LABELS, SENTIMENT_LABELS } from '../published/wording.js'

/** Thresholds that select labels and causes by probability. */
export interface LabelThresholds {
  /** Minimum probability by label; labels that are not listed have none. Default: no minimum. */
  thresholds?: Readonly<Record<string, number>>
  /** Answer if no label reaches its threshold; required with `thresholds`. */
  fallback?: string
  /** Minimum probability of a cause. The most likely one always counts. Default: only the most likely. */
  causeThreshold?: number
}

const LABELS = [...new Set([...SENTIMENT_LABELS, ...EMOTION_LABELS.meld, ...EMOTION_LABELS.mosei])]

/** @throws ConfigError for thresholds of an unknown label, outside 0 … 1 or without a fallback, and for a fallback without thresholds */
export function requireThresholds(where: string, { thresholds, fallback, causeThreshold }: LabelThresholds): void {
  if (causeThreshold !== undefined) requireProbability(where, 'causeThreshold', causeThreshold)
  if (fallback !== undefined) requireString(where, 'fallback', fallback)
  if ((thresholds === undefined) !== (fallback === undefined)) {
    const [has, lacks] = thresholds === undefined ? ['fallback', 'thresholds'] : ['thresholds', 'fallback']
    throw new ConfigError(`${where}.${lacks}: expected a value together with ${has}, got none. Set both, or neither.`, {
      argument: lacks,
    })
  }
  if (thresholds === undefined) return
  requireObject(where, 'thresholds', thresholds)
  for (const [label, least] of Object.entries(thresholds)) {
    if (!LABELS.includes(label)) {
      throw new ConfigError(
        `${where}.thresholds: expected a label of EmoVerse, got '${shortened(label)}'${didYouMean(label, LABELS)}`,
        {
          argument: 'thresholds',
          label,
        },
      )
    }
    requireProbability(where, `thresholds['${label}']`, least)
  }
}

function requireProbability(where: string, argument: string, least: number): void {
  requireNumber(where, argument, least, { least: 0 })
  if (least > 1) throw argumentError(where, argument, 'a probability', least)
}

/** Return the most likely label that reaches its threshold, or the fallback. */
export function selectLabel(
  probabilities: Readonly<Record<string, number>>,
  { thresholds = {}, fallback = '' }: LabelThresholds = {},
): string {
  const enough = Object.entries(probabilities).filter(([label, probability]) => probability >= (thresholds[label] ?? 0))
  const [best] = enough.sort(([, a], [, b]) => b - a)
  return best?.[0] ?? fallback
}

/** Return the pairs of target and cause that reach the threshold, in the order of the conversation. */
export function selectCauses(
  probabilities: Readonly<Record<string, number>>,
  { causeThreshold = Infinity }: LabelThresholds = {},
): string {
  const pairs = Object.entries(probabilities)
  const most = Math.max(...pairs.map(([, probability]) => probability))
  const first = pairs.findIndex(([, probability]) => probability === most)
  return pairs
    .flatMap(([pair, probability], i) => (i === first || probability >= causeThreshold ? [pair] : []))
    .join(';')
}
