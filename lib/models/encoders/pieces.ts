import { requireNumber, shown } from '../../base/check.js'
import { ConfigError } from '../../base/errors.js'
import { ops, type Tensor } from '../../tensor/index.js'

/** Options of `transcribe` for long recordings. */
export interface PieceOptions {
  /** Length of the pieces that the encoder reads of a long recording, in seconds; null: one piece. Default null. */
  chunkSeconds?: number | null
  /** Overlap of a piece with each neighbor, in seconds. Default `chunkSeconds` / 6. */
  strideSeconds?: number
  /** Signal that cancels the transcription after the current piece. */
  signal?: AbortSignal
}

/** A token, character, word or segment with its begin and end in seconds. */
export interface TimedText {
  text: string
  start: number
  end: number
}

interface PieceLayout {
  where: string
  sampleRate: number
  /** Number of samples between frames. */
  step: number
  /** Minimum overlap in frames. */
  leastStride: number
  /** A piece is the last one if fewer samples follow it. */
  leastRest: number
}

/**
 * Compute the frames of samples [n] in overlapping pieces, [frames, ...].
 * @param compute returns the frames of samples, [frames, ...]
 */
export async function computePieces(
  samples: Tensor,
  { where, sampleRate, step, leastStride, leastRest }: PieceLayout,
  { chunkSeconds = null, strideSeconds, signal }: PieceOptions,
  compute: (samples: Tensor) => Promise<Tensor>,
): Promise<Tensor> {
  if (chunkSeconds === null) {
    if (strideSeconds === undefined) return compute(samples)
    throw new ConfigError(
      `${where}: strideSeconds: expected undefined without chunkSeconds, got ${shown(strideSeconds)}. Set chunkSeconds.`,
      { strideSeconds },
    )
  }
  requireNumber(where, 'chunkSeconds', chunkSeconds, { least: 0 })
  requireNumber(where, 'strideSeconds', strideSeconds ?? 0, { least: 0 })
  const frames = (seconds: number) => Math.round((seconds * sampleRate) / step)
  const chunk = frames(chunkSeconds)
  const stride = frames(strideSeconds ?? chunkSeconds / 6)
  if (stride < leastStride || 2 * stride >= chunk) {
    throw new ConfigError(
      `${where}: strideSeconds: expected at least ${leastStride} ${leastStride === 1 ? 'frame' : 'frames'} and less than half of chunkSeconds (${chunk} frames), got ${stride} frames. Change one.`,
      { chunkSeconds, strideSeconds },
    )
  }
  const count = samples.size(0)
  const parts: Tensor[] = []
  for (let from = 0; ; from += chunk - 2 * stride) {
    signal?.throwIfAborted()
    const left = from === 0 ? 0 : stride
    const isLast = count - (from + chunk) * step < leastRest
    const piece = await compute(samples.narrow(0, from * step, isLast ? count - from * step : chunk * step))
    const to = isLast ? piece.size(0) : chunk - stride
    if (to > left) parts.push(piece.narrow(0, left, to - left))
    if (isLast) return ops.cat(parts)
  }
}
