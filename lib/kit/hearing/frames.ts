import { createHash } from 'node:crypto'
import { requireNumber } from '../../base/check.js'
import type { Tensor } from '../../tensor/index.js'
import { keepForever } from '../../tensor/scope.js'

/** What an encoder gives for a batch of windows. */
export interface EncoderFrames {
  /** [windows, frames, size] */
  states: Tensor
  /** Frames of each. */
  lengths: number[]
}

/** Both encoders' frames; `audio` is null without BEATs. */
export interface HeardFrames {
  speech: EncoderFrames
  audio: EncoderFrames | null
}

/**
 * What the frozen encoders gave, by the samples that they heard: a training that hears its clips again and again computes
 * them once. Each clip is then heard by itself, so what is kept depends on no other clip of its batch, and a training that
 * goes on with an empty cache computes the same bits.
 *
 * 50 frames of `dModel` numbers a second: for Whisper base in float32, 6 MB a minute. The clip that was not heard for the
 * longest time goes first.
 */
export class SalmonnFrames {
  /** Bytes that are kept at most. */
  readonly limit: number
  /** Clips that were there, and that had to be heard. */
  hits = 0
  misses = 0
  #bytes = 0
  readonly #kept = new Map<string, HeardFrames>()

  /** @param limit in bytes. Default 2 GiB. */
  constructor(limit = 2 ** 31) {
    requireNumber('SalmonnFrames', 'limit', limit, { least: 0 })
    this.limit = limit
  }

  /** Bytes of what is kept. */
  get bytes(): number {
    return this.#bytes
  }

  /** Clips that are kept; those of more than the encoder's window count as several. */
  get length(): number {
    return this.#kept.size
  }

  /** @internal */
  get(key: string): HeardFrames | undefined {
    const found = this.#kept.get(key)
    if (!found) {
      this.misses += 1
      return undefined
    }
    this.hits += 1
    // A Map remembers the order in which keys came.
    this.#kept.delete(key)
    this.#kept.set(key, found)
    return found
  }

  /** Keeps frames beyond the scope in which they were made, if there is room, and gives them. @internal */
  keep(key: string, frames: HeardFrames): HeardFrames {
    const size = bytesOf(frames)
    if (size > this.limit) return frames
    for (const [oldest, old] of this.#kept) {
      if (this.#bytes + size <= this.limit) break
      this.#forget(oldest, old)
    }
    const kept = { speech: copied(frames.speech), audio: frames.audio && copied(frames.audio) }
    this.#kept.set(key, kept)
    this.#bytes += size
    return kept
  }

  /** Frees everything that is kept. */
  clear(): void {
    for (const [key, frames] of this.#kept) this.#forget(key, frames)
  }

  #forget(key: string, frames: HeardFrames): void {
    this.#kept.delete(key)
    this.#bytes -= bytesOf(frames)
    for (const states of tensorsOf(frames)) states.dispose()
  }
}

const tensorsOf = ({ speech, audio }: HeardFrames): Tensor[] => [speech.states, ...(audio ? [audio.states] : [])]
const BYTES: Record<string, number> = { float64: 8, float32: 4 }
const bytesOf = (frames: HeardFrames): number =>
  tensorsOf(frames).reduce((sum, states) => sum + states.numel() * (BYTES[states.dtype] ?? 2), 0)
const copied = ({ states, lengths }: EncoderFrames): EncoderFrames => ({
  states: keepForever(states.detach().clone()),
  lengths,
})

/** Names a sound by its samples. */
export async function clipKey(samples: Tensor): Promise<string> {
  const { buffer, byteOffset, byteLength } = await samples.data()
  return createHash('sha256')
    .update(new Uint8Array(buffer, byteOffset, byteLength))
    .digest('base64')
}
