/** A word, when it is spoken in seconds, and how much the model agrees with itself (see `alignWords`), 0 to 1. */
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

/** Seconds amiss at which confidence is a half; and the shortest word, the step of the training's times. */
const [HALF, SHORTEST] = [0.2, 0.1]

/**
 * One time for each word from what one or several views of the same clip say: their mean, cut to the clip, in order.
 * Training lets a word end a tenth of a second into the next one, so that much of a move does not count as amiss.
 * @param views for each view the words' times
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
    const said = views.map((view) => view[i] as TimedSpan)
    const moved = Math.max(distance(said, 'start', start), distance(said, 'end', end)) - SHORTEST / 2
    const apart = Math.max(spread(said, 'start'), spread(said, 'end'))
    const short = SHORTEST - mean(said.map((span) => span.end - span.start))
    const amiss = Math.max(0, moved, apart, short)
    return { start, end, confidence: Number.isFinite(amiss) ? 2 ** (-amiss / HALF) : 0 }
  })
}

/** NaN lies nowhere: at the begin, with no confidence. */
const cut = (value: number, most: number): number => (value > 0 ? Math.min(value, most) : 0)

const mean = (values: readonly number[]): number => values.reduce((sum, value) => sum + value, 0) / values.length

/** How far what was said lies, on average, from what it became. */
const distance = (said: readonly TimedSpan[], key: keyof TimedSpan, at: number): number =>
  Math.abs(mean(said.map((span) => span[key])) - at)

const spread = (said: readonly TimedSpan[], key: keyof TimedSpan): number => {
  const values = said.map((span) => span[key])
  return Math.max(...values) - Math.min(...values)
}

/** The nearest sequence, by squares, that never falls (pool adjacent violators; Ayer et al. 1955). */
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
