import { createHash } from 'node:crypto'
import { type AudioClip, openClip, SPEECH_RATE } from '../../audio/clip.js'
import {
  argumentError,
  requireFunction,
  requireNumber,
  requireObject,
  requireOptions,
  requireSignal,
  requireWhole,
} from '../../base/check.js'
import { ConfigError, DataError } from '../../base/errors.js'
import { noGrad, scope, Tensor } from '../../tensor/index.js'
import type { Wav2Vec2Config } from '../encoders/wav2vec2.js'
import type { LoadNetworkOptions } from '../pretrained.js'
import { type PreparedClip, UNIT_RESAMPLING, UnitEncoder, type UnitNetwork } from './encoder.js'
import { loadUnitEncoder } from './files.js'
import { KMeans } from './kmeans.js'

export interface UnitExtractorSource extends LoadNetworkOptions {
  /**
   * A folder, a Hub repository or the name of published weights of Wav2Vec2 (XLS-R), WavLM or Whisper; a `.pt` of fairseq or fairseq2; or a
   * network.
   */
  encoder: string | UnitNetwork
  /** A `.npy` file of centroids [clusters, dim], a tensor of this shape, or a {@link KMeans}. */
  kmeans: string | Tensor | KMeans
  /** Layer whose output is quantized, from 1. USDM uses layer 35 of XLS-R's 48. */
  layer: number
  /** For a `.pt` file: settings that its weights do not contain, `numAttentionHeads` and `convStride`. */
  config?: Wav2Vec2Config
  /**
   * Split longer clips into windows of this many seconds. This changes some units, since attention is limited to the window. Memory use is
   * linear in the length of a clip with and without windows; without them, the time is quadratic. Default: clips are encoded in one piece, and
   * units are exact. Not for Whisper, which always uses windows of 30 seconds.
   */
  windowSeconds?: number
  /** Overlap of neighboring windows in seconds; each window provides half of it. Default 2. */
  overlapSeconds?: number
}

/** Report of a clip that was encoded in windows. */
export interface AudioFramesInWindows {
  /** Index of the clip. */
  clip: number
  windows: number
  units: number
  /** Number of units in overlaps, and how many of them differ between the two windows: the effect of splitting the clip. */
  compared: number
  different: number
}

export interface ExtractOptions {
  /** Maximum seconds of audio per batch, padding included. Default 16. */
  batchSeconds?: number
  /** Clips with more units are an error, before they are encoded. Default: no limit. */
  maxUnits?: number
  /** Called for each clip that was longer than a window. */
  onWindows?: (heard: AudioFramesInWindows) => void
  /** Called with the units of each clip after its batch, so that finished work can be saved. `clip` is its index. */
  onUnits?: (units: Int32Array, clip: number) => void
  /** Stops between two batches. */
  signal?: AbortSignal
}

/** Larger batches are not faster, since their activations exceed the caches. @internal */
export const BATCH_SECONDS = 16
const OVERLAP_SECONDS = 2

/**
 * Encodes speech as discrete units: the index of the nearest centroid for each frame of an encoder layer (50 per second). Repeated units are
 * not merged.
 *
 * ```ts
 * const extractor = await UnitExtractor.fromPretrained({ encoder: 'xlsr2_1b_v2.pt', kmeans: 'kmeans_10k.npy', layer: 35 })
 * const units = await extractor.extract('turn.wav') // Int32Array(149) for three seconds
 * ```
 *
 * For XLS-R this is the recipe of USDM and SeamlessM4T: the whole clip is normalized to mean 0 and variance 1 (with 1e-5 added to the
 * variance), after one sample of value 1 was appended to a clip of odd length, which attention masks. Whisper processes windows of 30 seconds,
 * padded with silence. Layers after the requested one are not computed, and `fromPretrained` does not load them.
 *
 * Clips at other rates are resampled to 16 kHz by soxr's HQ recipe, librosa's default: units depend on the resampler.
 *
 * Units do not depend on the batch, except where two centroids are equally near up to rounding. For encoders whose first norm is over time
 * (`featExtractNorm: 'group'`), a batch only has clips of one length.
 */
export class UnitExtractor {
  readonly encoder: UnitEncoder
  readonly kmeans: KMeans
  /** Parts that are disposed with the extractor. */
  readonly #own: { dispose(): void }[]
  readonly #windows: Windows | null
  #fingerprint: Promise<string> | undefined

  private constructor(encoder: UnitEncoder, kmeans: KMeans, windows: Windows | null, own: { dispose(): void }[]) {
    this.encoder = encoder
    this.kmeans = kmeans
    this.#windows = windows
    this.#own = own
  }

  /**
   * Load an extractor.
   * @throws ConfigError for a layer that the encoder does not have, and for centroids of another size than its states; DataError,
   * CheckpointError for files that cannot be read
   */
  static async fromPretrained(source: UnitExtractorSource): Promise<UnitExtractor> {
    const where = 'UnitExtractor.fromPretrained'
    requireObject(where, 'source', source)
    const { encoder, kmeans, layer, config, windowSeconds, overlapSeconds, ...load } = source
    requireWhole(where, 'layer', layer, 1)
    const unread = Object.keys({ ...load, ...(config && { config }) })[0]
    if (typeof encoder !== 'string' && unread !== undefined) {
      throw new ConfigError(
        `${where}: ${unread}: expected it only with an encoder that is loaded here, got a network. Leave it out.`,
        { option: unread },
      )
    }
    const own: { dispose(): void }[] = []
    try {
      const centroids = await centroidsOf(where, kmeans)
      if (centroids !== kmeans) own.push(centroids)
      const network =
        typeof encoder === 'string'
          ? await loadUnitEncoder(encoder, { ...load, layer, ...(config && { config }) })
          : new UnitEncoder(encoder, layer)
      if (typeof encoder === 'string') own.push(network)
      if (centroids.dim !== network.dim) {
        const file = typeof kmeans === 'string' ? kmeans : 'kmeans'
        throw new ConfigError(
          `${where}: ${file}: expected centroids [clusters, ${network.dim}], like the encoder's states, got [${centroids.centroids.shape}]${centroids.clusters === network.dim ? '. Transpose them.' : ''}`,
          { shape: centroids.centroids.shape, dim: network.dim },
        )
      }
      const windows = windowsOf(where, network, windowSeconds, overlapSeconds)
      return new UnitExtractor(network, centroids, windows, own)
    } catch (error) {
      for (const one of own) one.dispose()
      throw error
    }
  }

  /** Number of units. */
  get units(): number {
    return this.kmeans.clusters
  }

  /** Number of the layer whose output is quantized. */
  get layer(): number {
    return this.encoder.layer
  }

  /** Return the number of units of a number of samples at 16 kHz. */
  unitCount(samples: number): number {
    requireWhole('UnitExtractor.unitCount', 'samples', samples)
    return this.encoder.unitsOf(samples)
  }

  /**
   * Return the units of a clip.
   * @throws DataError for a clip that is too short for a unit (XLS-R: below 400 samples at 16 kHz), has more than `maxUnits`, cannot be read,
   * or contains NaN or infinities
   */
  async extract(audio: AudioClip, options: Omit<ExtractOptions, 'batchSeconds' | 'onUnits'> = {}): Promise<Int32Array> {
    requireOptions('UnitExtractor.extract', options, ['maxUnits', 'onWindows', 'signal'])
    const [units] = await this.extractBatch([audio], options)
    return units as Int32Array
  }

  /** Return the units of each clip, as `extract` does, in batches of clips of similar length. @throws as `extract` */
  async extractBatch(clips: readonly AudioClip[], options: ExtractOptions = {}): Promise<Int32Array[]> {
    const where = 'UnitExtractor.extractBatch'
    if (!Array.isArray(clips)) throw argumentError(where, 'clips', 'a list of clips', clips)
    requireOptions(where, options, ['batchSeconds', 'maxUnits', 'onWindows', 'onUnits', 'signal'])
    const { batchSeconds = BATCH_SECONDS, maxUnits, onWindows, onUnits, signal } = options
    if (maxUnits !== undefined) requireWhole(where, 'maxUnits', maxUnits)
    if (onWindows !== undefined) requireFunction(where, 'onWindows', onWindows)
    if (onUnits !== undefined) requireFunction(where, 'onUnits', onUnits)
    if (typeof batchSeconds !== 'number' || !(batchSeconds > 0))
      throw argumentError(where, 'batchSeconds', 'a number above 0', batchSeconds)
    requireSignal(where, signal)
    const result = new Array<Int32Array>(clips.length)
    return noGrad(() =>
      scope(async () => {
        const read = await Promise.all(
          clips.map(async (clip, i) => ({
            i,
            samples: (await openClip({ where: 'UnitExtractor' }, clip, { quality: UNIT_RESAMPLING })).samples,
          })),
        )
        for (const { i, samples } of read) {
          const units = this.encoder.unitsOf(samples.size(0))
          if (units > 0 && units <= (maxUnits ?? units)) continue
          const name = typeof clips[i] === 'string' ? clips[i] : clips.length > 1 ? `clip ${i + 1}` : 'the clip'
          if (units > 0) {
            const seconds = (samples.size(0) / SPEECH_RATE).toFixed(1)
            throw new DataError(
              `${name}: expected at most ${maxUnits} units, got ${units}, from ${seconds} s of audio. Shorten the clip.`,
              { units, most: maxUnits },
            )
          }
          throw new DataError(
            `${name}: expected at least ${this.encoder.leastSamples} samples at 16 kHz, one unit, got ${samples.size(0)}`,
            { samples: samples.size(0), least: this.encoder.leastSamples },
          )
        }
        const windows = this.#windows
        const isLong = ({ samples }: { samples: Tensor }) =>
          windows !== null && this.encoder.unitsOf(samples.size(0)) > windows.units
        for (const { i, samples } of windows ? read.filter(isLong) : []) {
          const { units, ...heard } = await this.#inWindows(samples, windows as Windows, batchSeconds, signal)
          result[i] = units
          onWindows?.({ clip: i, ...heard, units: units.length })
          onUnits?.(units, i)
        }
        const whole = read.filter((one) => !isLong(one))
        for (const batch of this.#batches(whole, batchSeconds)) {
          signal?.throwIfAborted()
          await scope(async () => {
            const states = await this.encoder.states(batch.map(({ samples }) => samples))
            for (const [k, { i }] of batch.entries()) result[i] = await this.kmeans.assign(states[k] as Tensor)
          })
          for (const { i } of batch) onUnits?.(result[i] as Int32Array, i)
        }
        return result
      }),
    )
  }

  /** Return the units of a clip longer than a window, and the number of differing units in overlaps. */
  async #inWindows(
    samples: Tensor,
    { units: size, overlap }: Windows,
    batchSeconds: number,
    signal: AbortSignal | undefined,
  ): Promise<{ units: Int32Array; windows: number; compared: number; different: number }> {
    const { encoder } = this
    const { hop, width } = encoder.step
    const total = encoder.unitsOf(samples.size(0))
    const count = Math.ceil((total - overlap) / (size - overlap))
    const atOnce = Math.max(1, Math.floor((batchSeconds * SPEECH_RATE) / (size * hop)))
    const units = new Int32Array(total)
    let [compared, different] = [0, 0]
    await scope(async () => {
      const clip = await encoder.prepared(samples)
      for (let first = 0; first < count; first += atOnce) {
        signal?.throwIfAborted()
        await scope(async () => {
          const numbers = Array.from({ length: Math.min(atOnce, count - first) }, (_, k) => first + k)
          // The last window reaches to the end of the clip; it may be as short as the overlap plus one unit.
          const windows = numbers.map((number): PreparedClip => {
            const from = number * (size - overlap) * hop
            const most = number === count - 1 ? Number.POSITIVE_INFINITY : (size - 1) * hop + width
            const length = Math.min(most, clip.length - from)
            const whole = Math.min(most, clip.wave.size(0) - from)
            return { wave: clip.wave.narrow(0, from, whole), length }
          })
          const states = encoder.takesPadding
            ? await encoder.statesOf(windows)
            : (await Promise.all(windows.map((window) => encoder.statesOf([window])))).flat()
          for (const [k, number] of numbers.entries()) {
            const own = await this.kmeans.assign(states[k] as Tensor)
            const from = number * (size - overlap)
            const shared = number === 0 ? 0 : Math.min(overlap, own.length)
            for (let i = 0; i < shared; i++) different += own[i] === units[from + i] ? 0 : 1
            compared += shared
            // Each window provides the half of the overlap that is farther from its edge.
            const begin = Math.ceil(shared / 2)
            units.set(own.subarray(begin), from + begin)
          }
        })
      }
    })
    return { units, windows: count, compared, different }
  }

  #batches<C extends { samples: Tensor }>(clips: readonly C[], batchSeconds: number): C[][] {
    const most = batchSeconds * SPEECH_RATE
    const sorted = [...clips].sort((a, b) => a.samples.size(0) - b.samples.size(0))
    const batches: C[][] = []
    for (const clip of sorted) {
      const last = batches.at(-1)
      const length = clip.samples.size(0)
      const fits =
        last !== undefined &&
        (last.length + 1) * length <= most &&
        (this.encoder.takesPadding || last[0]?.samples.size(0) === length)
      if (fits) last.push(clip)
      else batches.push([clip])
    }
    return batches
  }

  /**
   * Return a hash of encoder, layer, centroids and resampler: extractors with the same hash give the same units. Reads all weights.
   */
  fingerprint(): Promise<string> {
    this.#fingerprint ??= (async () => {
      const hash = createHash('sha256')
      const { network, layer } = this.encoder
      const later = /(^|\.)layers\.(\d+)\./
      for (const [name, parameter] of network.namedParameters()) {
        // Weights that are not used are ignored.
        if (/(^|\.)(decoder|adapter)\.|masked_spec_embed|encoder\.layer_norm|^layer_norm\./.test(name)) continue
        if (Number(later.exec(name)?.[2] ?? -1) >= layer) continue
        hash.update(`${name.replace(/^model\.encoder\./, '')} ${parameter.dtype} ${parameter.shape.join()}\n`)
        hash.update(await bytesOf(parameter))
      }
      if (this.#windows) hash.update(`windows of ${this.#windows.units}, ${this.#windows.overlap} in both\n`)
      hash.update(`resampled: ${UNIT_RESAMPLING}\n`)
      hash.update(`layer ${layer} of ${this.kmeans.clusters}\n`).update(await bytesOf(this.kmeans.centroids))
      return hash.digest('hex')
    })()
    return this.#fingerprint
  }

  /** Free what `fromPretrained` loaded. A network or centroids that the caller passed are kept. */
  dispose(): void {
    for (const one of this.#own) one.dispose()
  }

  [Symbol.dispose](): void {
    this.dispose()
  }
}

/** Sizes of windows in units. */
interface Windows {
  units: number
  overlap: number
}

function windowsOf(where: string, encoder: UnitEncoder, seconds?: number, overlapSeconds?: number): Windows | null {
  if (seconds === undefined) {
    if (overlapSeconds === undefined) return null
    throw new ConfigError(`${where}: overlapSeconds: expected windowSeconds with it, got none`, {
      option: 'overlapSeconds',
    })
  }
  requireNumber(where, 'windowSeconds', seconds, { least: 0 })
  if (encoder.hasWindows) {
    throw new ConfigError(
      `${where}: windowSeconds: expected an encoder other than Whisper, which always uses windows of 30 seconds. Leave it out.`,
      { option: 'windowSeconds' },
    )
  }
  const over = overlapSeconds ?? Math.min(OVERLAP_SECONDS, seconds / 4)
  requireNumber(where, 'overlapSeconds', over, { least: 0 })
  const { hop } = encoder.step
  const [units, overlap] = [seconds, over].map((value) => Math.round((value * SPEECH_RATE) / hop)) as [number, number]
  if (units >= 1 && overlap <= units / 2) return { units, overlap }
  throw argumentError(where, 'overlapSeconds', `a number of at most half of windowSeconds, ${seconds}`, over)
}

async function bytesOf(value: Tensor): Promise<Uint8Array> {
  return scope(async () => {
    const floats = await noGrad(() => value.detach().to({ device: 'cpu', dtype: 'float32' }).contiguous()).data()
    return new Uint8Array(floats.buffer, floats.byteOffset, floats.byteLength)
  })
}

async function centroidsOf(where: string, kmeans: string | Tensor | KMeans): Promise<KMeans> {
  if (kmeans instanceof KMeans) return kmeans
  if (kmeans instanceof Tensor) return new KMeans(kmeans)
  if (typeof kmeans === 'string') return KMeans.fromFile(kmeans)
  throw argumentError(where, 'kmeans', 'a .npy file, a tensor [clusters, dim] or a KMeans', kmeans)
}
