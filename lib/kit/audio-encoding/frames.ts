import { createHash } from 'node:crypto'
import { requireNumber } from '../../base/check.js'
import { LruCache } from '../../base/lru-cache.js'
import type { Tensor } from '../../tensor/index.js'
import { keepForever } from '../../tensor/scope.js'

/** Output of one encoder for a batch of windows. */
export interface EncoderFrames {
  /** [windows, frames, size] */
  states: Tensor
  /** Number of frames of each window. */
  lengths: number[]
}

/** Outputs of both encoders; `audio` is null without BEATs. */
export interface AudioFrames {
  speech: EncoderFrames
  audio: EncoderFrames | null
}

/**
 * Cache of the frozen encoders' outputs, by samples: a training that reads its clips in each epoch encodes them once. Clips are
 * encoded one at a time, so that an entry does not depend on the batch, and a training that resumes with an empty cache computes
 * the same bits.
 *
 * One second has 50 frames of `dModel` numbers: 6 MB per minute for Whisper base in float32. The least recently used clip is
 * removed first.
 */
export class SalmonnFrames {
  /** Maximum size in bytes. */
  readonly limit: number
  /** Number of clips found in the cache, and of clips that were encoded. */
  hits = 0
  misses = 0
  readonly #kept: LruCache<AudioFrames>

  /** @param limit maximum size in bytes. Default 2 GiB. */
  constructor(limit = 2 ** 31) {
    requireNumber('SalmonnFrames', 'limit', limit, { least: 0 })
    this.limit = limit
    this.#kept = new LruCache(limit, bytesOf, (frames) => {
      for (const states of tensorsOf(frames)) states.dispose()
    })
  }

  /** Current size in bytes. */
  get bytes(): number {
    return this.#kept.size
  }

  /** Number of cached windows; a clip longer than the encoder's window has several. */
  get length(): number {
    return this.#kept.length
  }

  /** @internal */
  get(key: string): AudioFrames | undefined {
    const found = this.#kept.get(key)
    if (found) this.hits += 1
    else this.misses += 1
    return found
  }

  /** Cache frames beyond the current scope, if they fit, and return them. @internal */
  keep(key: string, frames: AudioFrames): AudioFrames {
    // Another call may have encoded the same clip meanwhile.
    const found = this.#kept.get(key)
    if (found || bytesOf(frames) > this.limit) return found ?? frames
    const kept = { speech: copied(frames.speech), audio: frames.audio && copied(frames.audio) }
    this.#kept.put(key, kept)
    return kept
  }

  /** Free all entries. */
  clear(): void {
    this.#kept.clear()
  }
}

const tensorsOf = ({ speech, audio }: AudioFrames): Tensor[] => [speech.states, ...(audio ? [audio.states] : [])]
const BYTES: Record<string, number> = { float64: 8, float32: 4 }
const bytesOf = (frames: AudioFrames): number =>
  tensorsOf(frames).reduce((sum, states) => sum + states.numel() * (BYTES[states.dtype] ?? 2), 0)
const copied = ({ states, lengths }: EncoderFrames): EncoderFrames => ({
  states: keepForever(states.detach().clone()),
  lengths,
})

/** Return a hash of samples. */
export async function clipKey(samples: Tensor): Promise<string> {
  const { buffer, byteOffset, byteLength } = await samples.data()
  return createHash('sha256')
    .update(new Uint8Array(buffer, byteOffset, byteLength))
    .digest('base64')
}
