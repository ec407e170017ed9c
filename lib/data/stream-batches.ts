import type { Source, Unread } from './pool.js'
import type { Random } from './random.js'

/**
 * Yield the samples of a stream in its own order for any number of lanes: lane l has the samples l, l + lanes, …, so taking one
 * of each lane in turn restores the order. A lane that has ended is skipped.
 * @param size number of samples in a request to a lane
 * @param ahead minimum number of requests in progress
 */
export async function* streamSamples(
  source: Source,
  epoch: number,
  size: number,
  ahead: number,
): AsyncGenerator<unknown | Unread, void, void> {
  const ended = Array<boolean>(source.lanes).fill(false)
  const rounds = Math.max(1, Math.ceil(ahead / source.lanes))
  let requested = 0
  const request = () => {
    for (let lane = 0; lane < source.lanes; lane++) source.request(requested++, size, epoch)
  }
  for (let i = 0; i < rounds; i++) request()
  for (let round = 0; ; round++) {
    const parts: unknown[][] = []
    for (let lane = 0; lane < source.lanes; lane++) {
      const { samples, done } = await source.take(round * source.lanes + lane)
      parts.push(ended[lane] ? [] : samples)
      ended[lane] ||= done
    }
    const all = ended.every(Boolean)
    if (!all && rounds > 1) request()
    for (let i = 0; i < size; i++) for (const part of parts) if (i < part.length) yield part[i]
    if (all) {
      // Requests beyond the end return nothing; take them, since the next loop counts from 0 again.
      for (let rest = (round + 1) * source.lanes; rest < requested; rest++) await source.take(rest)
      return
    }
    if (rounds === 1) request()
  }
}

/** Shuffle a stream approximately: each sample enters a buffer and leaves it at a random time. */
export async function* shuffled(
  samples: AsyncIterable<unknown>,
  size: number,
  random: Random,
): AsyncGenerator<unknown, void, void> {
  const buffer: unknown[] = []
  for await (const sample of samples) {
    if (buffer.length < size) {
      buffer.push(sample)
      continue
    }
    const place = random.below(size)
    yield buffer[place]
    buffer[place] = sample
  }
  yield* random.shuffle(buffer)
}
