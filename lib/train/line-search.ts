import type { Tensor } from '../tensor/index.js'

/** Point on the line: step length, loss, gradient, and slope along the line. */
export interface LinePoint {
  t: number
  loss: number
  gradient: Tensor
  slope: number
}

export interface LineSearch {
  /** Chosen point; the gradients of all others except the start are freed. */
  point: LinePoint
  evaluations: number
}

const [SUFFICIENT, CURVATURE] = [1e-4, 0.9]

/**
 * Return a step length that fulfills the strong Wolfe conditions (Nocedal and Wright, Numerical Optimization, algorithms 3.5
 * and 3.6), with the safeguards of minFunc, as in `torch.optim.LBFGS`: first find a bracket, then shrink it.
 * @param size largest element of the direction: the search ends when the bracket moves no weight by `toleranceChange`
 */
export async function strongWolfe(
  evaluate: (t: number) => Promise<LinePoint>,
  start: LinePoint,
  first: number,
  size: number,
  toleranceChange: number,
  mostEvaluations: number,
): Promise<LineSearch> {
  const evaluated: LinePoint[] = []
  const look = async (t: number) => {
    const point = await evaluate(t)
    evaluated.push(point)
    return point
  }
  const tooHigh = (point: LinePoint) => point.loss > start.loss + SUFFICIENT * point.t * start.slope
  const flat = (point: LinePoint) => Math.abs(point.slope) <= -CURVATURE * start.slope

  let previous = start
  let point = await look(first)
  let rounds = 0
  let bracket: [LinePoint, LinePoint] | undefined
  let chosen: LinePoint | undefined
  for (; rounds < mostEvaluations; rounds++) {
    if (tooHigh(point) || (rounds > 1 && point.loss >= previous.loss) || (!flat(point) && point.slope >= 0)) {
      bracket = [previous, point]
      break
    }
    if (flat(point)) {
      chosen = point
      break
    }
    const t = cubicMinimum(previous, point, point.t + 0.01 * (point.t - previous.t), point.t * 10)
    previous = point
    point = await look(t)
  }
  const result = (best: LinePoint): LineSearch => {
    for (const one of evaluated) if (one !== best) one.gradient.dispose()
    return { point: best, evaluations: evaluated.length }
  }
  if (chosen) return result(chosen)
  if (!bracket) return result(start.loss <= point.loss ? start : point)

  const ends = bracket
  const lower = (): 0 | 1 => (ends[0].loss <= ends[1].loss ? 0 : 1)
  let low = lower()
  let stuck = false
  while (rounds < mostEvaluations && Math.abs(ends[1].t - ends[0].t) * size >= toleranceChange) {
    const [least, most] = [Math.min(ends[0].t, ends[1].t), Math.max(ends[0].t, ends[1].t)]
    let t = cubicMinimum(ends[0], ends[1], least, most)
    const margin = 0.1 * (most - least)
    // If twice in a row near an end of the bracket, or at it, move a tenth of the bracket away from the end.
    if (Math.min(most - t, t - least) >= margin) stuck = false
    else if (stuck || t >= most || t <= least) {
      t = Math.abs(t - most) < Math.abs(t - least) ? most - margin : least + margin
      stuck = false
    } else stuck = true
    const next = await look(t)
    rounds++
    const high = (1 - low) as 0 | 1
    if (tooHigh(next) || next.loss >= ends[low].loss) {
      ends[high] = next
      low = lower()
      continue
    }
    const done = flat(next)
    if (!done && next.slope * (ends[high].t - ends[low].t) >= 0) ends[high] = ends[low]
    ends[low] = next
    if (done) break
  }
  return result(ends[low])
}

/** Return the minimum within bounds of the cubic through two points with their slopes. */
function cubicMinimum(a: LinePoint, b: LinePoint, least: number, most: number): number {
  const [p, q] = a.t <= b.t ? [a, b] : [b, a]
  const d1 = a.slope + b.slope - (3 * (a.loss - b.loss)) / (a.t - b.t)
  const square = d1 * d1 - a.slope * b.slope
  if (!(square >= 0)) return (least + most) / 2
  const d2 = Math.sqrt(square)
  const place = q.t - (q.t - p.t) * ((q.slope + d2 - d1) / (q.slope - p.slope + 2 * d2))
  return Math.min(Math.max(place, least), most)
}
