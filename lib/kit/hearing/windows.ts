import { clipWindows } from '../../audio/clip.js'

/** A stretch of a clip that the encoders hear at once, and which of its tokens are taken. */
export interface ClipWindow {
  /** In samples; the end is not included. */
  from: number
  to: number
  /** In windows of the Q-Former, counted from `from`; the end is not included, null: to the last. */
  first: number
  end: number | null
}

export interface WindowSizes {
  /** Samples that the encoders hear at once. */
  most: number
  /** Samples that neighbours share at least. */
  overlap: number
  /** Samples that a token sums up, and from one token's beginning to the next one's. */
  window: number
  stride: number
  /** Samples of a patch of BEATs. */
  patch: number
}

/**
 * Divides a clip that is longer than the encoders hear into windows that overlap, such that its tokens are those of a
 * single window of its length, each once.
 *
 * Windows begin where a token and, if that leaves room, a patch of BEATs begins, so that both are cut as they would be
 * without division. Of two windows that share a stretch, the earlier gives the tokens whose middle lies before the middle of
 * the stretch, the later the others: each token is heard with as much sound on both sides as there is. Every window but the
 * last is of full length. Where a token is so long that no window can begin with another, windows stand side by side.
 */
export function overlappingWindows(samples: number, sizes: WindowSizes): ClipWindow[] {
  const { most, window, stride, patch } = sizes
  if (samples <= most) return [{ from: 0, to: samples, first: 0, end: null }]
  // A token that ends beyond its window must begin within the next.
  const room = most - Math.max(sizes.overlap, window - stride)
  const both = leastCommonMultiple(stride, patch)
  const grid = both <= room ? both : stride
  const step = Math.floor(room / grid) * grid
  if (window > most || step < stride) return equalWindows(samples, most)
  const count = 1 + Math.ceil((samples - most) / step)
  const begin = (i: number) => i * step
  // The first token, counted from the clip's beginning, that window i gives.
  const firstOf = (i: number) => {
    const ends = begin(i - 1) + most
    const middle = (begin(i) + ends) / 2
    const completeBefore = Math.floor((ends - window) / stride) + 1
    const behindMiddle = Math.ceil((middle - window / 2) / stride)
    return i === 0 ? 0 : Math.max(begin(i) / stride, Math.min(behindMiddle, completeBefore))
  }
  return Array.from({ length: count }, (_, i) => ({
    from: begin(i),
    to: Math.min(samples, begin(i) + most),
    first: firstOf(i) - begin(i) / stride,
    end: i === count - 1 ? null : firstOf(i + 1) - begin(i) / stride,
  }))
}

/** Windows of the same length, but for a sample, that stand side by side. */
export const equalWindows = (samples: number, most: number): ClipWindow[] =>
  clipWindows(samples, most).map((window) => ({ ...window, first: 0, end: null }))

const leastCommonMultiple = (a: number, b: number): number => (a / commonFactor(a, b)) * b
const commonFactor = (a: number, b: number): number => (b === 0 ? a : commonFactor(b, a % b))
