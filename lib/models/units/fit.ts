import { type AudioClip, openClip } from '../../audio/clip.js'
import { argumentError, defined, listOf, requireOptions, requireWhole } from '../../base/check.js'
import { ConfigError } from '../../base/errors.js'
import { Random } from '../../data/random.js'
import { type Device, type DType, empty, noGrad, scope, type Tensor, tensor } from '../../tensor/index.js'
import { UNIT_RESAMPLING, UnitEncoder, type UnitNetwork } from './encoder.js'
import { loadUnitEncoder } from './files.js'
import { type FitKMeansOptions, fitKMeans, type KMeans } from './kmeans.js'

export interface FitUnitsOptions extends FitKMeansOptions {
  /** Encoder, as in `UnitExtractor.fromPretrained`. */
  encoder: string | UnitNetwork
  /** Layer whose output is clustered, from 1. */
  layer: number
  /** Device and dtype of an encoder that is loaded here. Default: 'cpu', and the dtype of its files. */
  device?: Device
  dtype?: DType
  /** Clips to cluster: paths, or clips of any kind. */
  clips: Iterable<AudioClip>
  /** Maximum number of frames; of more, a uniform random sample is used. Default 200,000. */
  maxFrames?: number
  /** Called after each clip. */
  onClip?: (heard: { clips: number; frames: number }) => void
}

/**
 * Fit the centroids of units for any encoder and layer: encode the clips once, keep a sample of the frames, and cluster it with
 * {@link fitKMeans}.
 *
 * ```ts
 * const kmeans = await fitUnits({ encoder: 'whisper-base', layer: 4, clips: paths, clusters: 500 })
 * await kmeans.save('kmeans_500.npy')
 * ```
 * @throws ConfigError for clips with fewer frames than clusters; the errors of `UnitExtractor` for clips
 */
export async function fitUnits(options: FitUnitsOptions): Promise<KMeans> {
  const where = 'fitUnits'
  requireOptions(where, options, [
    ...['encoder', 'layer', 'device', 'dtype', 'clips', 'maxFrames', 'onClip'],
    ...['clusters', 'batchFrames', 'epochs', 'seed', 'signal'],
  ])
  const { encoder, layer, device, dtype, clips, maxFrames = 200_000, onClip, ...fit } = options
  requireWhole(where, 'layer', layer, 1)
  requireWhole(where, 'clusters', fit.clusters, 1)
  requireWhole(where, 'maxFrames', maxFrames, fit.clusters)
  if (onClip !== undefined && typeof onClip !== 'function') throw argumentError(where, 'onClip', 'a function', onClip)
  const list = listOf(where, 'clips', clips, 'clips')
  const place = defined({ device, dtype })
  const unread = Object.keys(place)[0]
  if (typeof encoder !== 'string' && unread !== undefined) {
    throw new ConfigError(
      `${where}: ${unread}: expected it only with an encoder that is loaded here, got a network. Leave it out.`,
      { option: unread },
    )
  }
  const source =
    typeof encoder === 'string' ? await loadUnitEncoder(encoder, { layer, ...place }) : new UnitEncoder(encoder, layer)
  try {
    return await noGrad(() =>
      scope(async () => {
        const kept = new Reservoir(maxFrames, source.dim, fit.seed ?? 0)
        for (const [i, clip] of list.entries()) {
          fit.signal?.throwIfAborted()
          await scope(async () => {
            const { samples } = await openClip({ where }, clip, { quality: UNIT_RESAMPLING })
            const [states] = await source.states([samples])
            kept.add(states as Tensor)
          })
          onClip?.({ clips: i + 1, frames: kept.heard })
        }
        if (kept.count < fit.clusters) {
          throw new ConfigError(
            `${where}: clips: expected at least ${fit.clusters} frames, one per cluster, got ${kept.count}`,
            { frames: kept.count, clusters: fit.clusters },
          )
        }
        return fitKMeans(kept.frames.narrow(0, 0, kept.count), fit)
      }),
    )
  } finally {
    if (typeof encoder === 'string') source.dispose()
  }
}

/** A uniform random sample of a stream of rows (Vitter 1985, algorithm R). */
class Reservoir {
  readonly frames: Tensor
  heard = 0
  readonly #room: number
  readonly #random: Random

  constructor(room: number, dim: number, seed: number) {
    this.#room = room
    this.frames = empty([room, dim], { dtype: 'float32', device: 'cpu' })
    this.#random = new Random(seed, 1)
  }

  get count(): number {
    return Math.min(this.heard, this.#room)
  }

  /** Add rows [n, dim]. */
  add(rows: Tensor): void {
    const places = new Map<number, number>()
    for (let row = 0; row < rows.size(0); row++) {
      const place = this.heard < this.#room ? this.heard : this.#random.below(this.heard + 1)
      this.heard += 1
      if (place < this.#room) places.set(place, row)
    }
    if (places.size === 0) return
    const index = (list: Iterable<number>) =>
      tensor(BigInt64Array.from([...list], BigInt), { dtype: 'int64', device: 'cpu' })
    const chosen = rows.to({ device: 'cpu', dtype: 'float32' }).indexSelect(0, index(places.values()))
    this.frames.indexCopy_(0, index(places.keys()), chosen)
  }
}
