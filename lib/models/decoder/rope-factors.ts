import type { RopeParameters } from './config.js'

/** The factors by which LLaMA 3.1's scaling divides the frequency of each pair of a head. */
export function llama3Factors(scaling: RopeParameters, theta: number, dim: number): number[] {
  const { factor = 8, lowFreqFactor = 1, highFreqFactor = 4, originalMaxPositionEmbeddings: length = 8192 } = scaling
  return turns(theta, dim).map((perToken) => {
    const cycles = length * perToken
    if (cycles > highFreqFactor) return 1
    if (cycles < lowFreqFactor) return factor
    const share = (cycles - lowFreqFactor) / (highFreqFactor - lowFreqFactor)
    return 1 / ((1 - share) / factor + share)
  })
}

/**
 * The scaling that has these factors, which is all that a GGUF file keeps of it; null where they are no such scaling's.
 * Lengths and both limits can be multiplied by one number without a difference: the lower limit is 1, as published.
 */
export function llama3Scaling(factors: ArrayLike<number>, theta: number, dim: number): RopeParameters | null {
  const given = Array.from(factors)
  if (given.length !== dim / 2) return null
  const factor = Math.max(...given)
  // Between the limits the share falls on a line over the cycles.
  const between = turns(theta, dim).flatMap((perToken, i) => {
    const one = given[i] as number
    return one > 1.0001 && one < factor * 0.9999 ? [{ perToken, share: (1 / one - 1 / factor) / (1 - 1 / factor) }] : []
  })
  const [first, last] = [between[0], between.at(-1)]
  if (!(factor > 1) || !first || !last || first === last) return null
  const slope = (first.share - last.share) / (first.perToken - last.perToken)
  const low = slope * first.perToken - first.share
  const scaling: RopeParameters = {
    ropeType: 'llama3',
    factor: rounded(factor),
    lowFreqFactor: 1,
    highFreqFactor: rounded(1 + 1 / low),
    originalMaxPositionEmbeddings: Math.round(slope / low),
  }
  const again = llama3Factors(scaling, theta, dim)
  return again.every((one, i) => Math.abs(one - (given[i] as number)) <= 1e-3 * one) ? scaling : null
}

const rounded = (value: number): number => Math.round(value * 1e3) / 1e3

/** Turns of each pair in one token. */
function turns(theta: number, dim: number): number[] {
  return Array.from({ length: dim / 2 }, (_, i) => theta ** ((-2 * i) / dim) / (2 * Math.PI))
}
