export type Summary = { median: number; low: number; high: number; min: number; max: number; samples: number[] }

function inOrder(values: number[]): number[] {
  return [...values].sort((a, b) => a - b)
}

function quantile(sorted: number[], q: number): number {
  const position = (sorted.length - 1) * q
  const below = sorted[Math.floor(position)]
  const above = sorted[Math.ceil(position)]
  return below + (above - below) * (position - Math.floor(position))
}

export function median(values: number[]): number {
  return quantile(inOrder(values), 0.5)
}

/** `low` and `high` are the quartiles: half of the samples lie between them. */
export function summarise(samples: number[]): Summary {
  const sorted = inOrder(samples)
  return {
    median: quantile(sorted, 0.5),
    low: quantile(sorted, 0.25),
    high: quantile(sorted, 0.75),
    min: sorted[0],
    max: sorted[sorted.length - 1],
    samples,
  }
}

/** Medians of both sides and of the ratios of neighboring blocks, which a slow drift of the machine cannot shift. */
export function compare(ours: number[], theirs: number[]) {
  const pairs = ours.map((value, i) => value / theirs[i])
  return { ratio: median(ours) / median(theirs), pairRatio: median(pairs) }
}
