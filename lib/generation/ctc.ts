import { isArrayLike, misuse, requireOptions, requireWhole } from '../base/check.js'
import { opAsync } from '../native/call.js'
import { Tensor } from '../tensor/index.js'

export interface CtcBeamOptions {
  /** The token that is no token. Default 0. */
  blank?: number
  /** Texts that are kept after each frame. Default 100. */
  beamWidth?: number
  /** Texts that are returned. Default 1. */
  nBest?: number
}

/** A text, and the log of the sum of the probabilities of all its ways through the frames. */
export interface CtcHypothesis {
  tokens: number[]
  score: number
}

/** The likeliest way of a text through the frames, and its log probability. */
export interface CtcAlignment {
  /** For each frame a token of the text, or blank. */
  path: number[]
  score: number
}

const search = opAsync('voxtorch::ctc_beam_search')
const align = opAsync('voxtorch::ctc_align')

/**
 * The likeliest texts of a CTC network's frames, by prefix beam search (Hannun et al. 2014,
 * https://arxiv.org/abs/1408.2873), the best first. With a beam as wide as there are texts its scores are exact; a text
 * that was left out and came back has less than its due.
 * @param logProbs floating point [frames, vocabSize], log probabilities
 */
export async function ctcBeamSearch(logProbs: Tensor, options: CtcBeamOptions = {}): Promise<CtcHypothesis[]> {
  const where = 'ctcBeamSearch'
  requireFrames(where, logProbs)
  requireOptions(where, options, ['blank', 'beamWidth', 'nBest'])
  const { blank = 0, beamWidth = 100, nBest = 1 } = options
  requireWhole(where, 'blank', blank)
  requireWhole(where, 'beamWidth', beamWidth, 1)
  requireWhole(where, 'nBest', nBest, 1)
  const found = (await search(logProbs, { blank, beamWidth, nBest })) as Record<
    'tokens' | 'counts' | 'scores',
    number[]
  >
  let at = 0
  return found.counts.map((count, i) => {
    at += count
    return { tokens: found.tokens.slice(at - count, at), score: found.scores[i] as number }
  })
}

/**
 * Where the tokens of a text stand in a CTC network's frames.
 * @param logProbs floating point [frames, vocabSize], log probabilities
 * @throws ConfigError where there are too few frames for the text
 */
export async function ctcAlign(
  logProbs: Tensor,
  tokens: ArrayLike<number>,
  options: Pick<CtcBeamOptions, 'blank'> = {},
): Promise<CtcAlignment> {
  const where = 'ctcAlign'
  requireFrames(where, logProbs)
  if (!isArrayLike(tokens)) throw misuse(where, 'tokens', 'a list of ids', tokens)
  requireOptions(where, options, ['blank'])
  const { blank = 0 } = options
  requireWhole(where, 'blank', blank)
  const ids = Array.from(tokens)
  for (const id of ids) requireWhole(where, 'tokens', id)
  return (await align(logProbs, ids, { blank })) as CtcAlignment
}

function requireFrames(where: string, logProbs: unknown): void {
  if (!(logProbs instanceof Tensor)) throw misuse(where, 'logProbs', 'a tensor', logProbs)
}
