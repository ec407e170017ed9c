import { listOf } from '../../../base/check.js'
import { requireForm } from '../../../base/form.js'
import { rougeL } from '../../../kit/rouge-l.js'
import { wer } from '../../../train/metrics/error-rate.js'
import { METEOR_VARIANT, meteor } from '../../../train/metrics/meteor.js'
import type { UsdmPrediction } from './predictions.js'

/** Scores of predictions. A score is null if its number of samples is 0. */
export interface UsdmScores {
  predictions: number
  /** Word error rate of the transcripts of the user's speech. */
  sttWer: number | null
  sttSamples: number
  /** Word error rate of the judge's transcripts of the normalizedWords replies, against the replies' texts. */
  ttsWer: number | null
  ttsSamples: number
  /** METEOR of the replies against the agent's texts in the data, mean over the replies, 0 … 1. */
  meteor: number | null
  /** Word matching of METEOR. Scores of different variants are not comparable. */
  meteorVariant: typeof METEOR_VARIANT
  /** ROUGE-L F1 of the replies, mean over the replies, 0 … 1. */
  rougeL: number | null
  replySamples: number
}

/**
 * Return word error rates, METEOR and ROUGE-L of predictions. For the error rates, texts are lowercased, and words are runs of letters
 * and digits with inner apostrophes: punctuation does not count, and numbers are not spelled out.
 */
export function usdmScores(predictions: readonly UsdmPrediction[]): UsdmScores {
  const list = listOf<UsdmPrediction>('usdmScores', 'predictions', predictions, 'predictions')
  const texts = {
    'user?': 'string',
    'agent?': 'string',
    'transcript?': 'string',
    'reply?': 'string',
    'heard?': 'string',
  } as const
  requireForm('usdmScores', 'predictions', list, [{ id: 'string', ...texts }])
  const pairs = (truth: keyof UsdmPrediction, guess: keyof UsdmPrediction) =>
    list.flatMap((one) => {
      const [a, b] = [one[truth], one[guess]]
      return a == null || b == null ? [] : [[a, b] as const]
    })
  const rate = (found: readonly (readonly [string, string])[]) =>
    found.length === 0
      ? null
      : wer(
          found.map(([truth]) => normalizedWords(truth)),
          found.map(([, guess]) => normalizedWords(guess)),
        )
  const [stt, tts, replies] = [pairs('user', 'transcript'), pairs('reply', 'heard'), pairs('agent', 'reply')]
  const [truths, guesses] = [replies.map(([truth]) => truth), replies.map(([, guess]) => guess)]
  const f1 = replies.map(([truth, guess]) => rougeL(guess, truth).f1)
  return {
    predictions: list.length,
    ...{ sttWer: rate(stt), sttSamples: stt.length, ttsWer: rate(tts), ttsSamples: tts.length },
    meteor: replies.length === 0 ? null : meteor(guesses, truths).meteor,
    meteorVariant: METEOR_VARIANT,
    rougeL: replies.length === 0 ? null : f1.reduce((sum, one) => sum + one, 0) / f1.length,
    replySamples: replies.length,
  }
}

const normalizedWords = (text: string): string =>
  (
    text
      .toLowerCase()
      .replaceAll('’', "'")
      .match(/[\p{L}\p{M}\p{N}]+(?:'[\p{L}\p{M}\p{N}]+)*/gu) ?? []
  ).join(' ')
