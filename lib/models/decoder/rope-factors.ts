import type { RopeParameters } from './config.js'

/** Return the divisors of the frequency of each pair of dimensions in LLaMA 3.1's RoPE scaling. */
export function llama3Factors(scaling: RopeParameters, theta: number, dim: number): number[] {
  const { factor = 8, lowFreqFactor = 1, highFreqFactor = 4, originalMaxPositionEmbeddings: length = 8192 } = scaling
  return cyclesPerToken(theta, dim).map((perToken) => {
    const cycles = length * perToken
    if (cycles > highFreqFactor) return 1
    if (cycles < lowFreqFactor) return factor
    const weight = (cycles - lowFreqFactor) / (highFreqFactor - lowFreqFactor)
    return 1 / ((1 - weight) / factor + weight)
  })
}

/**
 * Return the scaling with these factors, the only part that a GGUF file contains; null for factors of another scaling. Lengths and both limits
 * can be multiplied by one number without an effect: the lower limit is 1, as published.
 */
export function llama3Scaling(factors: ArrayLike<number>, theta: number, dim: number): RopeParameters | null {
  const values = Array.from(factors)
  if (values.length !== dim / 2) return null
  const factor = Math.max(...values)
  // Between the limits, the interpolation weight is linear in the cycles.
  const between = cyclesPerToken(theta, dim).flatMap((perToken, i) => {
    const one = values[i] as number
    return one > 1.0001 && one < factor * 0.9999
      ? [{ perToken, weight: (1 / one - 1 / factor) / (1 - 1 / factor) }]
      : []
  })
  const [first, last] = [between[0], between.at(-1)]
  if (!(factor > 1) || !first || !last || first === last) return null
  const slope = (first.weight - last.weight) / (first.perToken - last.perToken)
  const low = slope * first.perToken - first.weight
  const scaling: RopeParameters = {
    ropeType: 'llama3',
    factor: rounded(factor),
    lowFreqFactor: 1,
    highFreqFactor: rounded(1 + 1 / low),
    originalMaxPositionEmbeddings: Math.round(slope / low),
  }
  const again = llama3Factors(scaling, theta, dim)
  return again.every((one, i) => Math.abs(one - (values[i] as number)) <= 1e-3 * one) ? scaling : null
}

const rounded = (value: number): number => Math.round(value * 1e3) / 1e3

/** Return the cycles of each pair of dimensions per token. */
function cyclesPerToken(theta: number, dim: number): number[] {
  return Array.from({ length: dim / 2 }, (_, i) => theta ** ((-2 * i) / dim) / (2 * Math.PI))
}
