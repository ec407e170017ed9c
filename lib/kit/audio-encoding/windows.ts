import { clipWindows } from '../../audio/clip.js'

/** A window of a clip, and the range of its tokens that are used. */
export interface ClipWindow {
  /** Range in samples; the end is exclusive. */
  from: number
  to: number
  /** Range in windows of the Q-Former, relative to `from`; the end is exclusive, null means up to the last. */
  first: number
  end: number | null
}

export interface WindowSizes {
  /** Maximum number of samples per window. */
  most: number
  /** Minimum number of samples that neighbors share. */
  overlap: number
  /** Samples per token, and samples from one token's begin to the next. */
  window: number
  stride: number
  /** Samples per patch of BEATs. */
  patch: number
}

/**
 * Split a clip that is longer than the encoder's window into overlapping windows, whose tokens together are those of a single
 * window of the clip's length.
 *
 * Windows begin where a token begins and, if possible, a patch of BEATs, so that both have the same boundaries as without the split.
 * In an overlap, tokens with their center in the first half come from the earlier window, the others from the later one: each token
 * has as much context on both sides as possible. All windows except the last have full length. If no window can begin at another
 * token, because tokens are too long, windows do not overlap.
 */
export function overlappingWindows(samples: number, sizes: WindowSizes): ClipWindow[] {
  const { most, window, stride, patch } = sizes
  if (samples <= most) return [{ from: 0, to: samples, first: 0, end: null }]
  // A token that extends beyond its window must begin within the next one.
  const span = most - Math.max(sizes.overlap, window - stride)
  const both = leastCommonMultiple(stride, patch)
  const grid = both <= span ? both : stride
  const step = Math.floor(span / grid) * grid
  if (window > most || step < stride) return equalWindows(samples, most)
  const count = 1 + Math.ceil((samples - most) / step)
  const begin = (i: number) => i * step
  // The first token, counted from the begin of the clip, that window i provides.
  const firstOf = (i: number) => {
    const ends = begin(i - 1) + most
    const middle = (begin(i) + ends) / 2
    const completeBefore = Math.floor((ends - window) / stride) + 1
    const afterMiddle = Math.ceil((middle - window / 2) / stride)
    return i === 0 ? 0 : Math.max(begin(i) / stride, Math.min(afterMiddle, completeBefore))
  }
  return Array.from({ length: count }, (_, i) => ({
    from: begin(i),
    to: Math.min(samples, begin(i) + most),
    first: firstOf(i) - begin(i) / stride,
    end: i === count - 1 ? null : firstOf(i + 1) - begin(i) / stride,
  }))
}

/** Split samples into windows of equal length (within one sample) without overlap. */
export const equalWindows = (samples: number, most: number): ClipWindow[] =>
  clipWindows(samples, most).map((window) => ({ ...window, first: 0, end: null }))

const leastCommonMultiple = (a: number, b: number): number => (a / commonFactor(a, b)) * b
const commonFactor = (a: number, b: number): number => (b === 0 ? a : commonFactor(b, a % b))
