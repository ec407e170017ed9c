import { createHash } from 'node:crypto'
import type { Tensor } from '../../tensor/index.js'
import { TensorCache } from '../../tensor/tensor-cache.js'

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
export class SalmonnFrames extends TensorCache<AudioFrames> {
  /** @param limit maximum size in bytes. Default 2 GiB. */
  constructor(limit = 2 ** 31) {
    super('SalmonnFrames', 'limit', limit)
  }

  protected tensorsOf({ speech, audio }: AudioFrames): Tensor[] {
    return [speech.states, ...(audio ? [audio.states] : [])]
  }

  protected copied({ speech, audio }: AudioFrames, copy: (tensor: Tensor) => Tensor): AudioFrames {
    const copied = ({ states, lengths }: EncoderFrames): EncoderFrames => ({ states: copy(states), lengths })
    return { speech: copied(speech), audio: audio && copied(audio) }
  }
}

/** Return a hash of samples. */
export async function clipKey(samples: Tensor): Promise<string> {
  const { buffer, byteOffset, byteLength } = await samples.data()
  return createHash('sha256')
    .update(new Uint8Array(buffer, byteOffset, byteLength))
    .digest('base64')
}
