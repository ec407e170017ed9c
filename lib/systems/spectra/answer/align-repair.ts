/** A word with its start and end in seconds, and its confidence (see `alignWords`), from 0 to 1. */
export interface AlignedWord {
  word: string
  start: number
  end: number
  confidence: number
}

/** In seconds. */
export interface TimedSpan {
  start: number
  end: number
}

/** Error in seconds at which the confidence is 0.5; and the shortest word, the time step of the training labels. */
const [HALF, SHORTEST] = [0.2, 0.1]

/**
 * Return one start and end per word from the predictions of one or several views of a clip: the mean, clipped to the clip, in order.
 * In training a word may end 0.1 s into the next one, so moves of up to half of that do not lower the confidence.
 * @param views the words' times in each view
 */
export function repaired(views: readonly (readonly TimedSpan[])[], duration: number): Omit<AlignedWord, 'word'>[] {
  const count = views[0]?.length ?? 0
  const clipped = views.map((view) => view.map(({ start, end }) => [cut(start, duration), cut(end, duration)] as const))
  const means = Array.from({ length: 2 * count }, (_, i) => {
    const values = clipped.map((view) => view[i >> 1]?.[i % 2] as number)
    return values.reduce((sum, value) => sum + value, 0) / values.length
  })
  const ordered = isotonic(means)
  return Array.from({ length: count }, (_, i) => {
    const [start, end] = [ordered[2 * i] as number, ordered[2 * i + 1] as number]
    const predicted = views.map((view) => view[i] as TimedSpan)
    const shift = Math.max(distance(predicted, 'start', start), distance(predicted, 'end', end)) - SHORTEST / 2
    const disagreement = Math.max(spread(predicted, 'start'), spread(predicted, 'end'))
    const short = SHORTEST - mean(predicted.map((span) => span.end - span.start))
    const error = Math.max(0, shift, disagreement, short)
    return { start, end, confidence: Number.isFinite(error) ? 2 ** (-error / HALF) : 0 }
  })
}

/** Clip a time to 0 … most. NaN becomes 0; its confidence is 0. */
const cut = (value: number, most: number): number => (value > 0 ? Math.min(value, most) : 0)

const mean = (values: readonly number[]): number => values.reduce((sum, value) => sum + value, 0) / values.length

/** Return the distance between the mean prediction and the final time. */
const distance = (predicted: readonly TimedSpan[], key: keyof TimedSpan, at: number): number =>
  Math.abs(mean(predicted.map((span) => span[key])) - at)

const spread = (predicted: readonly TimedSpan[], key: keyof TimedSpan): number => {
  const values = predicted.map((span) => span[key])
  return Math.max(...values) - Math.min(...values)
}

/** Return the nearest non-decreasing sequence by least squares (pool adjacent violators; Ayer et al. 1955). */
export function isotonic(values: readonly number[]): number[] {
  const blocks: { mean: number; size: number }[] = []
  for (const value of values) {
    let block = { mean: value, size: 1 }
    for (let before = blocks.at(-1); before && before.mean > block.mean; before = blocks.at(-1)) {
      blocks.pop()
      const size = before.size + block.size
      block = { mean: (before.mean * before.size + block.mean * block.size) / size, size }
    }
    blocks.push(block)
  }
  return blocks.flatMap(({ mean: value, size }) => new Array<number>(size).fill(value))
}
