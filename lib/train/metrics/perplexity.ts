import { argumentError } from '../../base/check.js'
import { addCounts, Metric } from './metric.js'

interface Likelihood {
  negativeLogLikelihood: number
  tokens: number
}

/**
 * Return the perplexity of a language model on a text: exp(negative log-likelihood / tokens).
 *
 * @param negativeLogLikelihood in nats, summed over the tokens (a mean loss times its tokens)
 * @param tokens number of predicted tokens: those whose label is not -100
 * @returns NaN without tokens
 */
export function perplexity(negativeLogLikelihood: number, tokens: number): number {
  return value(likelihood('perplexity', negativeLogLikelihood, tokens))
}

/** `perplexity`, accumulated batch by batch: `update(summed negative log-likelihood, tokens)`. */
export class PerplexityMetric extends Metric<number, number, Likelihood, number> {
  constructor() {
    super({
      name: 'perplexity',
      empty: () => ({ negativeLogLikelihood: 0, tokens: 0 }),
      measure: (sum, tokens) => likelihood('PerplexityMetric', sum, tokens),
      merge: addCounts,
      compute: value,
    })
  }
}

function likelihood(where: string, negativeLogLikelihood: number, tokens: number): Likelihood {
  // A diverged model gives NaN and infinity; they are passed on.
  if (typeof negativeLogLikelihood !== 'number') {
    throw argumentError(where, 'negativeLogLikelihood', 'a number', negativeLogLikelihood)
  }
  if (!Number.isSafeInteger(tokens) || tokens < 0) throw argumentError(where, 'tokens', 'a count', tokens)
  return { negativeLogLikelihood, tokens }
}

const value = ({ negativeLogLikelihood, tokens }: Likelihood): number => Math.exp(negativeLogLikelihood / tokens)
