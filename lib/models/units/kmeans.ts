import { argumentError, requireOptions, requireString, requireWhole } from '../../base/check.js'
import { ConfigError, DataError } from '../../base/errors.js'
import { Random } from '../../data/random.js'
import { readNpy, saveNpy } from '../../files/npy/npy.js'
import { opAsync } from '../../native/call.js'
import { type Device, noGrad, scope, Tensor, tensor, zeros } from '../../tensor/index.js'
import { keepForever } from '../../tensor/scope.js'

export interface FitKMeansOptions {
  /** Number of centroids. */
  clusters: number
  /** Frames per mini-batch. Default 10,000. */
  batchFrames?: number
  /** Passes over the frames. Default 10. */
  epochs?: number
  /** Random seed of the initial centroids and of the order of frames. Default 0. */
  seed?: number
  /** Stops between two batches. */
  signal?: AbortSignal
}

/** Maximum number of distances in memory: 32 MB. */
const BLOCK = 1 << 23

const addmm = opAsync('aten::addmm')
const argmin = opAsync('aten::argmin')

/**
 * Centroids that quantize the states of an encoder to units. Owns its tensors until `dispose()`.
 */
export class KMeans {
  /** float32 [clusters, dim] */
  readonly centroids: Tensor
  /** |C|², [clusters] */
  readonly #squares: Tensor

  /**
   * @param centroids floating point [clusters, dim]; they are copied as float32
   * @throws ConfigError for another shape; DataError for NaN and infinities
   */
  constructor(centroids: Tensor) {
    if (!(centroids instanceof Tensor))
      throw argumentError('KMeans', 'centroids', 'a tensor [clusters, dim]', centroids)
    const [clusters = 0, dim = 0] = centroids.shape
    if (centroids.ndim !== 2 || clusters === 0 || dim === 0 || !/^b?float/.test(centroids.dtype)) {
      const found = `${centroids.dtype} [${centroids.shape.join(', ')}]`
      throw argumentError('KMeans', 'centroids', 'floating point [clusters, dim]', found)
    }
    const tensors = noGrad(() =>
      scope(() => {
        const own = centroids.detach().to({ dtype: 'float32' }).clone().contiguous()
        if (!own.isfinite().all().item<boolean>()) {
          throw new DataError('KMeans: centroids: expected finite values, got NaN or infinities')
        }
        return [keepForever(own), keepForever(own.mul(own).sum([1]))] as const
      }),
    )
    this.centroids = tensors[0]
    this.#squares = tensors[1]
  }

  /**
   * Load centroids [clusters, dim] from a `.npy` file of float32 or float64, such as `kmeans_10k.npy` of SeamlessM4T.
   * @throws DataError naming the file, for one that is malformed or has another shape or dtype
   */
  static async fromFile(path: string, options: { device?: Device } = {}): Promise<KMeans> {
    requireString('KMeans.fromFile', 'path', path)
    requireOptions('KMeans.fromFile', options, ['device'])
    return scope(async () => {
      const value = await readNpy(path, options)
      if (!(value instanceof Tensor) || value.ndim !== 2 || !/^float(16|32|64)$/.test(value.dtype)) {
        const found = value instanceof Tensor ? `${value.dtype} [${value.shape.join(', ')}]` : 'strings'
        throw new DataError(`${path}: expected centroids, floating point [clusters, dim], got ${found}`, { file: path })
      }
      try {
        return new KMeans(value)
      } catch (cause) {
        throw new DataError(`${path}: ${(cause as Error).message}`, { file: path, cause })
      }
    })
  }

  get clusters(): number {
    return this.centroids.size(0)
  }

  /** Size of a frame. */
  get dim(): number {
    return this.centroids.size(1)
  }

  /**
   * Return the index of the nearest centroid of each frame; of equal distances, the lowest. Frames are compared in blocks on the executor, so
   * memory use does not grow with their number. If two distances differ only by rounding, another processor may return the other index.
   * @param frames floating point [n, dim]
   * @throws ConfigError for another shape
   */
  async assign(frames: Tensor): Promise<Int32Array> {
    return Int32Array.from((await this.#assigned(frames, false)).units)
  }

  /** Return the indices, and the sum of the squared distances. */
  async #assigned(frames: Tensor, measures: boolean): Promise<{ units: number[]; distance: number }> {
    if (!(frames instanceof Tensor) || frames.ndim !== 2 || frames.size(1) !== this.dim) {
      const found = frames instanceof Tensor ? `${frames.dtype} [${frames.shape.join(', ')}]` : frames
      throw argumentError('KMeans.assign', 'frames', `floating point [n, ${this.dim}], like the centroids`, found)
    }
    const rows = Math.max(1, Math.floor(BLOCK / this.clusters))
    const units: number[] = []
    let distance = 0
    for (let from = 0; from < frames.size(0); from += rows) {
      const size = Math.min(rows, frames.size(0) - from)
      await noGrad(() =>
        scope(async () => {
          const x = frames.narrow(0, from, size).to({ dtype: 'float32', device: this.centroids.device })
          // |x|² is the same for all centroids.
          const distances = (await addmm(this.#squares, x, this.centroids.t(), { alpha: -2 })) as Tensor // [size, clusters]
          const nearest = (await argmin(distances, 1)) as Tensor
          for (const one of nearest.toArray() as (number | bigint)[]) units.push(Number(one))
          if (!measures) return
          const least = distances.gather(1, nearest.unsqueeze(1)).sum().item() as number
          distance += least + (x.mul(x).sum().item() as number)
        }),
      )
    }
    return { units, distance }
  }

  /** Return the mean squared distance of frames [n, dim] from their centroids. */
  async distortion(frames: Tensor): Promise<number> {
    const { distance } = await this.#assigned(frames, true)
    return distance / Math.max(1, frames.size(0))
  }

  /** Save the centroids as a float32 `.npy` file, for `fromFile` and numpy. @throws DataError if the file cannot be written */
  async save(path: string): Promise<void> {
    await saveNpy(path, this.centroids)
  }

  dispose(): void {
    this.centroids.dispose()
    this.#squares.dispose()
  }

  [Symbol.dispose](): void {
    this.dispose()
  }
}

/**
 * Cluster frames by mini-batch k-means (Sculley 2010, https://doi.org/10.1145/1772690.1772862): each batch moves the centroids toward the
 * means of their frames, with a step that decreases with the number of frames so far. Centroids are initialized by k-means++ (Arthur and
 * Vassilvitskii 2007). A centroid without frames in an epoch restarts at a random frame. The result is deterministic for a seed and a number
 * of threads.
 * @param frames floating point [n, dim]
 * @throws ConfigError for fewer frames than clusters
 */
export async function fitKMeans(frames: Tensor, options: FitKMeansOptions): Promise<KMeans> {
  const where = 'fitKMeans'
  requireOptions(where, options, ['clusters', 'batchFrames', 'epochs', 'seed', 'signal'])
  const { clusters, batchFrames = 10_000, epochs = 10, seed = 0, signal } = options
  for (const [name, value] of Object.entries({ clusters, batchFrames, epochs })) requireWhole(where, name, value, 1)
  if (!(frames instanceof Tensor) || frames.ndim !== 2)
    throw argumentError(where, 'frames', 'a tensor [n, dim]', frames)
  const count = frames.size(0)
  if (count < clusters) {
    throw new ConfigError(`${where}: frames: expected at least ${clusters}, one per cluster, got ${count}`, {
      frames: count,
      clusters,
    })
  }
  const random = new Random(seed)
  return noGrad(() =>
    scope(async () => {
      const data = frames.to({ dtype: 'float32' })
      let centroids = await firstCentroids(data, clusters, random, signal)
      const totalCounts = new Float64Array(clusters)
      for (let epoch = 0; epoch < epochs; epoch++) {
        const order = random.shuffle(Array.from({ length: count }, (_, i) => i))
        const own = new Float64Array(clusters)
        for (let from = 0; from < count; from += batchFrames) {
          signal?.throwIfAborted()
          const next = await scope(async () => {
            const batch = data.indexSelect(0, indices(order.slice(from, from + batchFrames), data))
            return updatedCentroids(batch, centroids, totalCounts, own)
          })
          centroids.dispose()
          centroids = next
        }
        for (const [cluster, frames] of own.entries()) {
          if (frames > 0 || epoch === epochs - 1) continue
          centroids.select(0, cluster).copy_(data.select(0, random.below(count)))
          totalCounts[cluster] = 0
        }
      }
      return new KMeans(centroids)
    }),
  )
}

const indices = (list: readonly number[], { device }: Tensor): Tensor =>
  tensor(BigInt64Array.from(list, BigInt), { dtype: 'int64', device })

/** Return the centroids after a batch. `totalCounts` counts all their frames, `own` those of this epoch. */
async function updatedCentroids(
  batch: Tensor,
  centroids: Tensor,
  totalCounts: Float64Array,
  own: Float64Array,
): Promise<Tensor> {
  using model = new KMeans(centroids)
  const units = await model.assign(batch)
  const counts = new Float64Array(totalCounts.length)
  for (const unit of units) counts[unit] = (counts[unit] as number) + 1
  const sums = zeros(centroids.shape, { device: centroids.device }).indexAdd(0, indices([...units], batch), batch)
  // c + (mean − c) · n / (all so far) = c + (sum − n c) / all
  const rates = new Float32Array(totalCounts.length)
  for (const [cluster, frames] of counts.entries()) {
    totalCounts[cluster] = (totalCounts[cluster] as number) + frames
    own[cluster] = (own[cluster] as number) + frames
    rates[cluster] = frames === 0 ? 0 : 1 / (totalCounts[cluster] as number)
  }
  const column = (values: Float32Array) => tensor(values, { device: centroids.device }).unsqueeze(1)
  const number = column(Float32Array.from(counts))
  return centroids.add(sums.sub(centroids.mul(number)).mul(column(rates)))
}

/** Draw initial centroids: each with a probability proportional to its squared distance from those before. */
async function firstCentroids(data: Tensor, clusters: number, random: Random, signal?: AbortSignal): Promise<Tensor> {
  // With more frames than these, a random sample is used.
  const some = Math.min(data.size(0), Math.max(4096, 4 * clusters))
  const places = random.shuffle(Array.from({ length: data.size(0) }, (_, i) => i)).slice(0, some)
  return scope(async () => {
    const sample = data.indexSelect(0, indices(places, data))
    const squares = sample.mul(sample).sum([1])
    const nearest = new Float64Array(some).fill(Number.POSITIVE_INFINITY)
    const chosen: number[] = []
    for (let next = random.below(some); ; ) {
      signal?.throwIfAborted()
      chosen.push(next)
      if (chosen.length === clusters) break
      const distances = await scope(async () => {
        const one = sample.select(0, next)
        const product = (await addmm(squares.unsqueeze(1), sample, one.unsqueeze(1), { alpha: -2 })) as Tensor
        return product.squeeze(1).add(squares.select(0, next)).to({ device: 'cpu' })
      })
      const far = (await distances.data()) as Float32Array
      distances.dispose()
      let sum = 0
      for (const [i, distance] of far.entries()) {
        nearest[i] = Math.min(nearest[i] as number, Math.max(0, distance))
        sum += nearest[i] as number
      }
      for (const one of chosen) {
        sum -= nearest[one] as number
        nearest[one] = 0
      }
      next = drawn(nearest, sum, random, chosen)
    }
    return sample.indexSelect(0, indices(chosen, data))
  })
}

function drawn(weights: Float64Array, sum: number, random: Random, chosen: readonly number[]): number {
  let left = random.float() * sum
  for (const [i, weight] of weights.entries()) {
    left -= weight
    if (weight > 0 && left <= 0) return i
  }
  // All frames equal a chosen one: draw any other.
  const taken = new Set(chosen)
  const others = Array.from(weights.keys()).filter((i) => !taken.has(i))
  return others[random.below(others.length)] as number
}
