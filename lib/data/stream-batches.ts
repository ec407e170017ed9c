import type { Source, Unread } from './pool.js'
import type { Random } from './random.js'

/**
 * The samples of a stream in its own order, however many lanes read it: lane l has the samples l, l + lanes, …, so one of
 * each lane in turn restores the order. A lane that has ended is passed over.
 *
 * @param size samples that a lane is asked for at once
 * @param ahead such requests that are under way at least
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
      // What was asked for beyond the end is empty; the next loop counts from 0 again.
      for (let rest = (round + 1) * source.lanes; rest < requested; rest++) await source.take(rest)
      return
    }
    if (rounds === 1) request()
  }
}

/** Each sample waits in a buffer and leaves it at a random time: an approximate shuffle of what is too much to hold. */
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
