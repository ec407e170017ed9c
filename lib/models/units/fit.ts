import { type AudioClip, openClip } from '../../audio/clip.js'
import { defined, listOf, misuse, requireOptions, requireWhole } from '../../base/check.js'
import { ConfigError } from '../../base/errors.js'
import { Random } from '../../data/random.js'
import { type Device, type DType, empty, noGrad, scope, type Tensor, tensor } from '../../tensor/index.js'
import { UNIT_RESAMPLING, UnitEncoder, type UnitNetwork } from './encoder.js'
import { loadUnitEncoder } from './files.js'
import { type FitKMeansOptions, fitKMeans, type KMeans } from './kmeans.js'

export interface FitUnitsOptions extends FitKMeansOptions {
  /** As `UnitExtractor.fromPretrained` has it. */
  encoder: string | UnitNetwork
  /** Whose output becomes units, from 1. */
  layer: number
  /** Where an encoder that is loaded works, and in which type. Default: 'cpu', and that of its files. */
  device?: Device
  dtype?: DType
  /** What is heard: paths, or clips of any form. */
  clips: Iterable<AudioClip>
  /** How many frames are kept; of more, a sample that is drawn evenly. Default 200,000. */
  maxFrames?: number
  /** Told after each clip. */
  onClip?: (heard: { clips: number; frames: number }) => void
}

/**
 * Centroids for units of any encoder and layer: hears clips once, keeps a sample of the frames, and clusters them by
 * {@link fitKMeans}.
 *
 * ```ts
 * const kmeans = await fitUnits({ encoder: 'whisper-base', layer: 4, clips: paths, clusters: 500 })
 * await kmeans.save('kmeans_500.npy')
 * ```
 * @throws ConfigError where the clips have fewer frames than clusters are wanted; what `UnitExtractor` throws for clips
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
  if (onClip !== undefined && typeof onClip !== 'function') throw misuse(where, 'onClip', 'a function', onClip)
  const list = listOf(where, 'clips', clips, 'clips')
  const place = defined({ device, dtype })
  const unread = Object.keys(place)[0]
  if (typeof encoder !== 'string' && unread !== undefined) {
    throw new ConfigError(`${where}: ${unread} is for an encoder that is loaded, and a network was given`, {
      option: unread,
    })
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
          throw new ConfigError(`${where}: ${kept.count} frames are too few for ${fit.clusters} clusters`, {
            frames: kept.count,
            clusters: fit.clusters,
          })
        }
        return fitKMeans(kept.frames.narrow(0, 0, kept.count), fit)
      }),
    )
  } finally {
    if (typeof encoder === 'string') source.dispose()
  }
}

/** An even sample of rows that come one after the other (Vitter 1985, algorithm R). */
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

  /** [n, dim] */
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
