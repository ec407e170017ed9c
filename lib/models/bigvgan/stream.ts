import { argumentError, requireOptions, requireSignal, requireWhole } from '../../base/check.js'
import { ShapeError } from '../../base/errors.js'
import { noGrad, ops, scope, Tensor } from '../../tensor/index.js'

export interface VocoderStreamOptions {
  /** Frames per chunk; the last one may be shorter. Default 32. */
  chunkFrames?: number
  /** Stops the stream before its next chunk, which throws the signal's reason. */
  signal?: AbortSignal
}

/** A function from mel spectrogram to samples, and the context that it needs. */
export interface Renderer {
  where: string
  bands: number
  margin: number
  samplesPerFrame: number
  render(mel: Tensor): Promise<Tensor>
}

/**
 * Yield chunks of samples, each computed with `margin` frames of context on both sides, so that all chunks together equal the samples of
 * the whole.
 */
export async function* renderInChunks(
  renderer: Renderer,
  mel: Tensor | Iterable<Tensor> | AsyncIterable<Tensor>,
  options: VocoderStreamOptions,
): AsyncGenerator<Tensor, void, undefined> {
  const { where, margin, samplesPerFrame } = renderer
  requireOptions(where, options, ['chunkFrames', 'signal'])
  const { chunkFrames = 32, signal } = options
  requireWhole(where, 'chunkFrames', chunkFrames, 1)
  requireSignal(where, signal)
  const pieces = mel instanceof Tensor ? [mel] : mel
  if (pieces === null || typeof pieces !== 'object' || !(Symbol.iterator in pieces || Symbol.asyncIterator in pieces)) {
    throw argumentError(where, 'mel', 'a tensor or tensors in order', mel)
  }

  // Frames [begin, begin + held.size(1)). Those before `done` are only context.
  let held: Tensor | undefined
  let begin = 0
  let done = 0
  const next = async (count: number): Promise<Tensor> => {
    signal?.throwIfAborted()
    const all = held as Tensor
    const chunk = await scope(() =>
      noGrad(async () => {
        const from = Math.max(done - margin, begin)
        const to = Math.min(done + count + margin, begin + all.size(1))
        const samples = await renderer.render(all.narrow(1, from - begin, to - from).unsqueeze(0))
        return samples
          .flatten()
          .narrow(0, (done - from) * samplesPerFrame, count * samplesPerFrame)
          .clone()
      }),
    )
    done += count
    return chunk
  }
  try {
    for await (const piece of pieces) {
      held = joined(renderer, held, piece, Math.max(done - margin, begin) - begin)
      begin = Math.max(done - margin, begin)
      while (begin + held.size(1) - done >= chunkFrames + margin) yield await next(chunkFrames)
    }
    while (held && begin + held.size(1) > done) yield await next(Math.min(chunkFrames, begin + held.size(1) - done))
  } finally {
    held?.dispose()
  }
}

/** Drop the first frames of the held ones, and append the next piece. */
function joined({ where, bands }: Renderer, held: Tensor | undefined, piece: unknown, drop: number): Tensor {
  if (!(piece instanceof Tensor)) throw argumentError(where, 'mel', 'a tensor or tensors in order', piece)
  const row = piece.ndim === 3 && piece.size(0) === 1 ? piece.select(0, 0) : piece
  if (row.ndim !== 2 || row.size(0) !== bands) {
    throw new ShapeError(`${where}: mel: expected [${bands}, frames] of one clip, got [${piece.shape}]`)
  }
  return scope(() => {
    const all = held ? ops.cat([held.narrow(1, drop, held.size(1) - drop), row], 1) : row.clone()
    held?.dispose()
    return all
  })
}
