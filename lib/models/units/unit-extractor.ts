import { createHash } from 'node:crypto'
import { type AudioClip, openClip, SPEECH_RATE } from '../../audio/clip.js'
import {
  misuse,
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
   * A folder, a repository of the hub or the name of published weights of Wav2Vec2 (XLS-R), WavLM or Whisper; a `.pt` of fairseq
   * or fairseq2; or a network.
   */
  encoder: string | UnitNetwork
  /** A `.npy` file of centroids [clusters, dim], a tensor of that form, or a {@link KMeans}. */
  kmeans: string | Tensor | KMeans
  /** Whose output becomes units, from 1. USDM's is 35, of XLS-R's 48. */
  layer: number
  /** Of a `.pt` file, what its weights do not tell: `numAttentionHeads`, `convStride`. */
  config?: Wav2Vec2Config
  /**
   * Longer clips are heard in windows of so many seconds, which changes some of their units: attention sees a window, and not the
   * clip. Memory grows with the length of a clip either way, not with its square; the time grows with the square without windows.
   * Default: a clip is heard as a whole, and its units are exact. Not for Whisper, which hears windows of 30 seconds anyway.
   */
  windowSeconds?: number
  /** How far a window reaches into the next; of that each gives half. Default 2. */
  overlapSeconds?: number
}

/** What hearing a clip in windows did to it. */
export interface HeardInWindows {
  /** Which of the clips, from 0. */
  clip: number
  windows: number
  units: number
  /** Units that two windows gave, and of how many of them they gave another: what cutting the clip changes. */
  compared: number
  different: number
}

export interface ExtractOptions {
  /** The most seconds of audio in a batch, padding included. Default 16. */
  batchSeconds?: number
  /** Clips that would give more are refused before they are heard. Default: none is. */
  maxUnits?: number
  /** Told of each clip that was longer than a window. */
  onWindows?: (heard: HeardInWindows) => void
  /** Given each clip's units with its batch, so that what is done is not lost with the rest. `clip`: which, from 0. */
  onUnits?: (units: Int32Array, clip: number) => void
  /** Gives up between two batches. */
  signal?: AbortSignal
}

/** More is no quicker: a batch's activations no longer fit caches. @internal */
export const BATCH_SECONDS = 16
const OVERLAP_SECONDS = 2

/**
 * Makes units of speech: what the frames of an encoder's layer are nearest to among centroids. One for each frame (50 a second),
 * without joining those that repeat.
 *
 * ```ts
 * const extractor = await UnitExtractor.fromPretrained({ encoder: 'xlsr2_1b_v2.pt', kmeans: 'kmeans_10k.npy', layer: 35 })
 * const units = await extractor.extract('turn.wav') // Int32Array(149) for three seconds
 * ```
 *
 * For XLS-R this is USDM's and SeamlessM4T's recipe: the whole clip has mean 0 and variance 1 (1e-5 added to the variance), after
 * one sample of value 1 was put behind a clip of odd length, which attention does not see. Whisper hears windows of 30 seconds,
 * each filled up with silence. Layers behind the one that is asked for are not computed, nor loaded by `fromPretrained`.
 *
 * Clips of another rate come to 16 kHz by soxr's HQ recipe, which is librosa's: units tell resamplers apart.
 *
 * What stands beside a clip in a batch does not change its units but where two centroids are as near up to rounding. Encoders
 * whose first norm is over time (`featExtractNorm: 'group'`) get clips of one length together only.
 */
export class UnitExtractor {
  readonly encoder: UnitEncoder
  readonly kmeans: KMeans
  /** What is freed with the extractor. */
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
   * @throws ConfigError for a layer that the encoder has not, and for centroids of another width than its states; DataError,
   * CheckpointError for files that cannot be read
   */
  static async fromPretrained(source: UnitExtractorSource): Promise<UnitExtractor> {
    const where = 'UnitExtractor.fromPretrained'
    requireObject(where, 'source', source)
    const { encoder, kmeans, layer, config, windowSeconds, overlapSeconds, ...load } = source
    requireWhole(where, 'layer', layer, 1)
    const unread = Object.keys({ ...load, ...(config && { config }) })[0]
    if (typeof encoder !== 'string' && unread !== undefined) {
      throw new ConfigError(`${where}: ${unread} is for an encoder that is loaded, and a network was given`, {
        option: unread,
      })
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
          `${where}: ${file} has centroids of ${centroids.dim} values, and the encoder's states have ${network.dim}${centroids.clusters === network.dim ? ': they are transposed' : ''}`,
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

  /** How many units there are. */
  get units(): number {
    return this.kmeans.clusters
  }

  /** Whose output becomes units. */
  get layer(): number {
    return this.encoder.layer
  }

  /** How many units so many samples at 16 kHz become. */
  unitCount(samples: number): number {
    requireWhole('UnitExtractor.unitCount', 'samples', samples)
    return this.encoder.unitsOf(samples)
  }

  /**
   * The units of a clip.
   * @throws DataError for a clip that is too short for a unit (XLS-R: below 400 samples at 16 kHz) or gives more than `maxUnits`,
   * cannot be read, or holds NaN or infinities
   */
  async extract(audio: AudioClip, options: Omit<ExtractOptions, 'batchSeconds' | 'onUnits'> = {}): Promise<Int32Array> {
    requireOptions('UnitExtractor.extract', options, ['maxUnits', 'onWindows', 'signal'])
    const [units] = await this.extractBatch([audio], options)
    return units as Int32Array
  }

  /** The units of clips, each as `extract` gives it, in batches of clips of like length. @throws as that */
  async extractBatch(clips: readonly AudioClip[], options: ExtractOptions = {}): Promise<Int32Array[]> {
    const where = 'UnitExtractor.extractBatch'
    if (!Array.isArray(clips)) throw misuse(where, 'clips', 'a list of clips', clips)
    requireOptions(where, options, ['batchSeconds', 'maxUnits', 'onWindows', 'onUnits', 'signal'])
    const { batchSeconds = BATCH_SECONDS, maxUnits, onWindows, onUnits, signal } = options
    if (maxUnits !== undefined) requireWhole(where, 'maxUnits', maxUnits)
    if (onWindows !== undefined) requireFunction(where, 'onWindows', onWindows)
    if (onUnits !== undefined) requireFunction(where, 'onUnits', onUnits)
    if (typeof batchSeconds !== 'number' || !(batchSeconds > 0))
      throw misuse(where, 'batchSeconds', 'above 0', batchSeconds)
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
            throw new DataError(`${name} lasts ${seconds} s, which are ${units} units; there is room for ${maxUnits}`, {
              units,
              most: maxUnits,
            })
          }
          throw new DataError(
            `${name} has ${samples.size(0)} samples at 16 kHz, too few for a unit: ${this.encoder.leastSamples}`,
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

  /** The units of a clip that is longer than a window, and how often two windows differ where both have heard. */
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
          // The last reaches to the end, wherever that is; it may be as short as its overlap and a unit.
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
            // Each gives the half of what both have heard that lies deeper in it.
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
   * A text that is the same for the same encoder, layer, centroids and resampler: two extractors that share it make the same units. Reads all
   * weights once.
   */
  fingerprint(): Promise<string> {
    this.#fingerprint ??= (async () => {
      const hash = createHash('sha256')
      const { network, layer } = this.encoder
      const later = /(^|\.)layers\.(\d+)\./
      for (const [name, parameter] of network.namedParameters()) {
        // What is not computed makes no difference.
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

  /** Frees what `fromPretrained` loaded; a network or centroids that were given to it stay. */
  dispose(): void {
    for (const one of this.#own) one.dispose()
  }

  [Symbol.dispose](): void {
    this.dispose()
  }
}

/** In units. */
interface Windows {
  units: number
  overlap: number
}

function windowsOf(where: string, encoder: UnitEncoder, seconds?: number, overlapSeconds?: number): Windows | null {
  if (seconds === undefined) {
    if (overlapSeconds === undefined) return null
    throw new ConfigError(`${where}: overlapSeconds is for windowSeconds`, { option: 'overlapSeconds' })
  }
  requireNumber(where, 'windowSeconds', seconds, { least: 0 })
  if (encoder.hasWindows) {
    throw new ConfigError(`${where}: windowSeconds is not for Whisper, which hears windows of its own`, {
      option: 'windowSeconds',
    })
  }
  const over = overlapSeconds ?? Math.min(OVERLAP_SECONDS, seconds / 4)
  requireNumber(where, 'overlapSeconds', over, { least: 0 })
  const { hop } = encoder.step
  const [units, overlap] = [seconds, over].map((value) => Math.round((value * SPEECH_RATE) / hop)) as [number, number]
  if (units >= 1 && overlap <= units / 2) return { units, overlap }
  throw misuse(where, 'overlapSeconds', `at most half of windowSeconds, which is ${seconds}`, over)
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
  throw misuse(where, 'kmeans', 'a .npy file, a tensor [clusters, dim] or a KMeans', kmeans)
}
