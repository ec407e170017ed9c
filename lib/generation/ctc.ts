import { argumentError, isArrayLike, requireOptions, requireWhole } from '../base/check.js'
import { opAsync } from '../native/call.js'
import { Tensor } from '../tensor/index.js'

export interface CtcBeamOptions {
  /** Id of the blank token. Default 0. */
  blank?: number
  /** Number of hypotheses that are kept after each frame. Default 100. */
  beamWidth?: number
  /** Number of hypotheses that are returned. Default 1. */
  nBest?: number
}

/** A token sequence, and the log of the summed probabilities of all its paths through the frames. */
export interface CtcHypothesis {
  tokens: number[]
  score: number
}

/** Most likely path of a token sequence through the frames, and its log probability. */
export interface CtcAlignment {
  /** Token of the text, or blank, for each frame. */
  path: number[]
  score: number
}

const search = opAsync('voxtorch::ctc_beam_search')
const align = opAsync('voxtorch::ctc_align')

/**
 * Decode the frames of a CTC network by prefix beam search (Hannun et al. 2014, https://arxiv.org/abs/1408.2873). Returns the best
 * hypotheses first. Scores are exact if the beam is as wide as the number of hypotheses; one that was dropped and came back has a lower
 * score.
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
 * Align the tokens of a text with the frames of a CTC network.
 * @param logProbs floating point [frames, vocabSize], log probabilities
 * @throws ConfigError if there are too few frames for the text
 */
export async function ctcAlign(
  logProbs: Tensor,
  tokens: ArrayLike<number>,
  options: Pick<CtcBeamOptions, 'blank'> = {},
): Promise<CtcAlignment> {
  const where = 'ctcAlign'
  requireFrames(where, logProbs)
  if (!isArrayLike(tokens)) throw argumentError(where, 'tokens', 'a list of ids', tokens)
  requireOptions(where, options, ['blank'])
  const { blank = 0 } = options
  requireWhole(where, 'blank', blank)
  const ids = Array.from(tokens)
  for (const id of ids) requireWhole(where, 'tokens', id)
  return (await align(logProbs, ids, { blank })) as CtcAlignment
}

function requireFrames(where: string, logProbs: unknown): void {
  if (!(logProbs instanceof Tensor)) throw argumentError(where, 'logProbs', 'a tensor', logProbs)
}
