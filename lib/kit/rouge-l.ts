import { requireString } from '../base/check.js'
import { commonSubsequence, type RougeScore, score } from '../train/metrics/rouge.js'

/**
 * Compute ROUGE-L of a prediction, for any script. Tokens are runs of letters and digits in lower case, and single Chinese or
 * Japanese characters. For English the result equals that of `rouge`.
 */
export function rougeL(prediction: string, reference: string): RougeScore {
  requireString('rougeL', 'prediction', prediction)
  requireString('rougeL', 'reference', reference)
  const [guess, truth] = [words(prediction), words(reference)]
  return score(commonSubsequence(guess, truth), guess.length, truth.length)
}

const words = (text: string): string[] =>
  text
    .toLowerCase()
    .match(
      /[\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}]|(?:(?![\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}])[\p{L}\p{M}\p{N}])+/gu,
    ) ?? []
