import { DataError } from '../base/errors.js'
import type { Source, Unread } from './pool.js'
import { indicesBelow, type Random } from './random.js'

/**
 * Yield the samples of a stream in its own order for any number of lanes: lane l has the samples l, l + lanes, …, so taking one
 * of each lane in turn restores the order. A lane that has ended is skipped.
 * @param size number of samples in a request to a lane
 * @param ahead minimum number of requests in progress
 * @param skip number of samples at the beginning to pass over
 */
export async function* streamSamples(
  source: Source,
  epoch: number,
  size: number,
  ahead: number,
  skip = 0,
): AsyncGenerator<unknown | Unread, void, void> {
  const ended = Array<boolean>(source.lanes).fill(false)
  const rounds = Math.max(1, Math.ceil(ahead / source.lanes))
  let requested = 0
  const request = () => {
    for (let lane = 0; lane < source.lanes; lane++) source.request(requested++, size, epoch, skip)
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
    // The lane of the first sample begins.
    parts.push(...parts.splice(0, skip % source.lanes))
    for (let i = 0; i < size; i++) for (const part of parts) if (i < part.length) yield part[i]
    if (all) {
      // Requests beyond the end return nothing; take them, since the next loop counts from 0 again.
      for (let rest = (round + 1) * source.lanes; rest < requested; rest++) await source.take(rest)
      return
    }
    if (rounds === 1) request()
  }
}

/** Position in a stream: how many of its samples were drawn, and how many it has, once its end was read. */
export interface StreamPosition {
  drawn: number
  length?: number
}

/**
 * Yield samples in order from the position on, and count them in it.
 * @throws DataError if the stream ends before the position
 */
export async function* inOrder(
  read: (skip: number) => AsyncIterable<unknown>,
  position: StreamPosition,
): AsyncGenerator<unknown, void, void> {
  const { drawn } = position
  // The sample before the position is read again: without it the stream is another one.
  const start = Math.max(0, drawn - 1)
  let number = start
  for await (const sample of read(start)) {
    if (number++ < drawn) continue
    position.drawn++
    yield sample
  }
  if (number < drawn) throw otherStream(`one that ends before sample ${drawn}`)
}

/**
 * Shuffle a stream approximately: each sample enters a buffer and leaves it at a random time. Continues from a position: the draws
 * before it are repeated with the numbers of the samples, so that only those that were in the buffer are read again.
 * @param read returns the samples from a number on
 */
export async function* shuffled(
  read: (skip: number) => AsyncIterable<unknown>,
  size: number,
  random: Random,
  position: StreamPosition,
): AsyncGenerator<unknown, void, void> {
  const { held, next, isEnd } = replayed(size, random, position)
  const places = new Map(held.map((number, place) => [number, place]))
  const buffer = Array<unknown>(held.length)
  let number = held.reduce((least, one) => Math.min(least, one), next)
  let filled = 0
  if (!isEnd || held.length > 0) {
    for await (const sample of read(number)) {
      const own = number++
      if (own < next) {
        const place = places.get(own)
        if (place === undefined) continue
        buffer[place] = sample
        filled++
        // No early end here: requests to workers that are in progress would be answered in the next epoch.
      } else if (isEnd) {
        throw otherStream(`one of more than ${next} samples`)
      } else if (buffer.length < size) {
        buffer.push(sample)
        filled++
      } else {
        const place = random.below(size)
        position.drawn++
        const drawn = buffer[place]
        buffer[place] = sample
        yield drawn
      }
    }
  }
  if (filled < buffer.length) {
    throw otherStream(`one of ${number} samples`)
  }
  position.length ??= number
  for (const sample of isEnd ? buffer : random.shuffle(buffer)) {
    position.drawn++
    yield sample
  }
}

const otherStream = (what: string): DataError =>
  new DataError(
    `DataLoader: expected the stream that the state belongs to, got ${what}. Remove the state to start over`,
  )

/** Repeat the draws before a position: return the numbers in the buffer, and that of the next sample to read. */
function replayed(size: number, random: Random, { drawn, length }: StreamPosition) {
  if (drawn === 0) return { held: [], next: 0, isEnd: false }
  const held = indicesBelow('DataLoader', length === undefined ? size : Math.min(size, length))
  const moves = length === undefined ? drawn : Math.min(drawn, length - held.length)
  // Numbers of samples may have more than 32 bits.
  const numbers = Array.from(held)
  for (let i = 0; i < moves; i++) numbers[random.below(size)] = size + i
  const next = numbers.length + moves
  // The length is known only after the end was read; what was left in the buffer was then shuffled.
  return length === undefined
    ? { held: numbers, next, isEnd: false }
    : { held: random.shuffle(numbers).slice(drawn - moves), next, isEnd: true }
}
