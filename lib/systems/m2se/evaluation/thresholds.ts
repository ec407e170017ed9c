import { misuse, requireNumber, requireObject, requireString } from '../../../base/check.js'
import { ConfigError } from '../../../base/errors.js'
import { didYouMean, shortened } from '../../../base/words.js'
import { EMOTION_LABELS, SENTIMENT_LABELS } from '../published/wording.js'

/** Which label is named by probabilities. */
export interface LabelThresholds {
  /** A label is named only where it is at least so likely; those that are not mentioned need not be. Default: none is. */
  thresholds?: Readonly<Record<string, number>>
  /** What is said where no label is likely enough; thresholds need one. */
  fallback?: string
  /** Causes are named that are at least so likely, and the likeliest in any case. Default: that one alone. */
  causeThreshold?: number
}

const LABELS = [...new Set([...SENTIMENT_LABELS, ...EMOTION_LABELS.meld, ...EMOTION_LABELS.mosei])]

/** @throws ConfigError for thresholds of no label, outside 0 to 1 or without a fallback, and for a fallback without them */
export function requireThresholds(where: string, { thresholds, fallback, causeThreshold }: LabelThresholds): void {
  if (causeThreshold !== undefined) requireShare(where, 'causeThreshold', causeThreshold)
  if (fallback !== undefined) requireString(where, 'fallback', fallback)
  if ((thresholds === undefined) !== (fallback === undefined)) {
    const [has, lacks] = thresholds === undefined ? ['fallback', 'thresholds'] : ['thresholds', 'fallback']
    throw new ConfigError(`${where}: ${has} needs ${lacks} beside it`, { argument: lacks })
  }
  if (thresholds === undefined) return
  requireObject(where, 'thresholds', thresholds)
  for (const [label, least] of Object.entries(thresholds)) {
    if (!LABELS.includes(label)) {
      throw new ConfigError(`${where}: thresholds has no label '${shortened(label)}'${didYouMean(label, LABELS)}`, {
        argument: 'thresholds',
        label,
      })
    }
    requireShare(where, `thresholds['${label}']`, least)
  }
}

function requireShare(where: string, argument: string, least: number): void {
  requireNumber(where, argument, least, { least: 0 })
  if (least > 1) throw misuse(where, argument, 'a probability', least)
}

/** The likeliest of the labels that are likely enough, else the fallback. */
export function labelBy(
  probabilities: Readonly<Record<string, number>>,
  { thresholds = {}, fallback = '' }: LabelThresholds = {},
): string {
  const enough = Object.entries(probabilities).filter(([label, share]) => share >= (thresholds[label] ?? 0))
  const [best] = enough.sort(([, a], [, b]) => b - a)
  return best?.[0] ?? fallback
}

/** Pairs of target and cause that are likely enough, in the order of the conversation. */
export function causesBy(
  probabilities: Readonly<Record<string, number>>,
  { causeThreshold = Infinity }: LabelThresholds = {},
): string {
  const pairs = Object.entries(probabilities)
  const most = Math.max(...pairs.map(([, share]) => share))
  const first = pairs.findIndex(([, share]) => share === most)
  return pairs.flatMap(([pair, share], i) => (i === first || share >= causeThreshold ? [pair] : [])).join(';')
}
