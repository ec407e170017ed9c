import { escaped } from '../../base/words.js'
/** A curve: its name, and its points as [step, value]. */
export interface Series {
  name: string
  points: [number, number][]
}

const COLORS = ['#0f6b66', '#b4632a', '#5b6b86', '#8a3b6e']
const [WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM] = [760, 260, 64, 120, 12, 36]

/**
 * Draw curves over steps as an SVG without scripts. Axes carry `data-axis` and curves `data-series`, so that a check can read
 * them back.
 */
export function chart(title: string, series: readonly Series[]): string {
  const all = series.flatMap(({ points }) => points)
  const steps = ticks(
    all.map(([step]) => step),
    8,
    true,
  )
  const values = ticks(
    all.map(([, value]) => value),
    6,
    false,
  )
  const x = scale(steps, LEFT, WIDTH - RIGHT)
  const y = scale(values, HEIGHT - BOTTOM, TOP)
  const grid = values.map(
    (value) => `<line x1="${LEFT}" x2="${WIDTH - RIGHT}" y1="${y(value)}" y2="${y(value)}"/>
<text data-axis="y" x="${LEFT - 8}" y="${y(value)}" text-anchor="end" dominant-baseline="central">${plain(value)}</text>`,
  )
  const below = steps.map(
    (step) =>
      `<text data-axis="x" x="${x(step)}" y="${HEIGHT - BOTTOM + 18}" text-anchor="middle">${plain(step)}</text>`,
  )
  const ends = apart(series.map(({ points }) => y((points.at(-1) as [number, number])[1])))
  const lines = series.map(({ name, points }, i) => {
    const color = COLORS[i % COLORS.length]
    const drawn = points.map(([step, value]) => [x(step).toFixed(2), y(value).toFixed(2)] as const)
    // Dots would hide a curve of many points.
    const dots =
      points.length > 40 ? [] : drawn.map(([px, py]) => `<circle cx="${px}" cy="${py}" r="3" fill="${color}"/>`)
    return `<polyline data-series="${escaped(name)}" points="${drawn.map((point) => point.join()).join(' ')}" stroke="${color}"/>${dots.join('')}
<text x="${WIDTH - RIGHT + 8}" y="${ends[i]}" style="fill:${color}" class="name" dominant-baseline="central">${escaped(name)}</text>`
  })
  return `<figure data-chart="${escaped(title)}"><svg viewBox="0 0 ${WIDTH} ${HEIGHT}" role="img" aria-label="${escaped(title)} by step">
<g class="grid">${grid.join('')}${below.join('')}</g>${lines.join('')}
<text x="${(LEFT + WIDTH - RIGHT) / 2}" y="${HEIGHT - 2}" text-anchor="middle">step</text></svg></figure>`
}

/** Return round numbers that enclose the values, at most `most` + 2 of them. */
function ticks(values: number[], most: number, whole: boolean): number[] {
  let low = Number.POSITIVE_INFINITY
  let high = Number.NEGATIVE_INFINITY
  for (const value of values) {
    low = Math.min(low, value)
    high = Math.max(high, value)
  }
  const span = high - low || Math.abs(high) || 1
  const power = 10 ** Math.floor(Math.log10(span / most))
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => span / size <= most) as number
  const size = whole ? Math.max(1, step) : step
  const first = Math.floor(low / size)
  const last = Math.max(first + 1, Math.ceil(high / size))
  // Multiplying avoids the rounding errors of repeated addition.
  return Array.from({ length: last - first + 1 }, (_, i) => Number(((first + i) * size).toPrecision(12)))
}

function scale(marks: number[], from: number, to: number): (value: number) => number {
  const [low, high] = [marks[0] as number, marks.at(-1) as number]
  return (value) => from + ((to - from) * (value - low)) / (high - low)
}

const plain = (value: number): string => {
  const size = Math.abs(value)
  return value !== 0 && (size < 1e-3 || size >= 1e6) ? value.toExponential() : String(value)
}

/** Move the labels at the ends of lines down where they would overlap. */
function apart(places: number[]): number[] {
  const moved = [...places]
  const order = places.map((_, i) => i).sort((a, b) => (places[a] as number) - (places[b] as number))
  order.forEach((i, rank) => {
    if (rank > 0) moved[i] = Math.max(moved[i] as number, (moved[order[rank - 1] as number] as number) + 16)
  })
  return moved
}
