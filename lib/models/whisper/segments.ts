/** A part of a window's tokens with its times, for `segmentsOf` in steps of 20 ms from the start of the window. */
export interface TimedTokens {
  start: number
  end: number
  tokens: number[]
}

/**
 * Split the text of a window into segments at each pair of timestamps, and return the number of finished spectrogram steps (10 ms): up to the
 * last pair, as the text after it was cut off; or the whole window, if the text ends with a single timestamp or has no pair. The next window,
 * also of a piece in batched mode, starts there, as in openai/whisper and transformers.
 *
 * @param tokens without the end-of-text token
 * @param first the id of the timestamp 0.00
 * @param steps number of spectrogram steps with audio in this window
 */
export function segmentsOf(
  tokens: number[],
  first: number,
  steps: number,
  isTimestamp = (id: number): boolean => id >= first,
): { parts: TimedTokens[]; done: number } {
  const isTime = (at: number): boolean => at >= 0 && isTimestamp(tokens[at] as number)
  const timeAt = (at: number): number => (tokens[at] as number) - first
  const last = tokens.length - 1
  const endsWithOne = last >= 1 && isTime(last) && !isTime(last - 1)
  const ends = tokens.flatMap((_, i) => (i < last && isTime(i) && isTime(i + 1) ? [i + 1] : []))

  if (ends.length === 0) {
    const times = tokens.flatMap((_, i) => (isTime(i) ? [i] : []))
    const latest = times.at(-1)
    const end = latest !== undefined && timeAt(latest) > 0 ? timeAt(latest) : Math.floor(steps / 2)
    return { parts: [{ start: 0, end, tokens }], done: steps }
  }
  if (endsWithOne) ends.push(tokens.length)
  // The second timestamp of the last pair stays with the last segment, to mark the pair as complete.
  else ends[ends.length - 1] = (ends.at(-1) as number) + 1
  let from = 0
  const parts = ends.map((to, i) => {
    const closing = i === ends.length - 1 && !endsWithOne ? to - 2 : to - 1
    const part = { start: timeAt(from), end: timeAt(closing), tokens: tokens.slice(from, to) }
    from = to
    return part
  })
  return { parts, done: endsWithOne ? steps : 2 * timeAt(from - 2) }
}
