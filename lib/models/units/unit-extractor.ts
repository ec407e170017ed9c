import { createHash } from 'node:crypto'
import { type AudioClip, openClip, SPEECH_RATE } from '../../audio/clip.js'
import { misuse, requireObject, requireOptions, requireSignal, requireWhole } from '../../base/check.js'
import { ConfigError, DataError } from '../../base/errors.js'
import { noGrad, scope, Tensor } from '../../tensor/index.js'
import { Wav2Vec2, type Wav2Vec2Config } from '../encoders/wav2vec2.js'
import { WavLM } from '../encoders/wavlm.js'
import type { LoadNetworkOptions } from '../pretrained.js'
import { Whisper, WhisperEncoder } from '../whisper/whisper.js'
import { UnitEncoder, type UnitNetwork } from './encoder.js'
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
}

export interface ExtractOptions {
  /** The most seconds of audio in a batch, padding included. Default 60. */
  batchSeconds?: number
  /** Gives up between two batches. */
  signal?: AbortSignal
}

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
 * What stands beside a clip in a batch does not change its units but where two centroids are as near up to rounding. Encoders
 * whose first norm is over time (`featExtractNorm: 'group'`) get clips of one length together only.
 */
export class UnitExtractor {
  readonly encoder: UnitEncoder
  readonly kmeans: KMeans
  /** What is freed with the extractor. */
  readonly #own: { dispose(): void }[]
  #fingerprint: Promise<string> | undefined

  private constructor(encoder: UnitEncoder, kmeans: KMeans, own: { dispose(): void }[]) {
    this.encoder = encoder
    this.kmeans = kmeans
    this.#own = own
  }

  /**
   * @throws ConfigError for a layer that the encoder has not, and for centroids of another width than its states; DataError,
   * CheckpointError for files that cannot be read
   */
  static async fromPretrained(source: UnitExtractorSource): Promise<UnitExtractor> {
    const where = 'UnitExtractor.fromPretrained'
    requireObject(where, 'source', source)
    const { encoder, kmeans, layer, config, ...load } = source
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
          : new UnitEncoder(networkOf(where, encoder), layer)
      if (typeof encoder === 'string') own.push(network)
      if (centroids.dim !== network.dim) {
        const file = typeof kmeans === 'string' ? kmeans : 'kmeans'
        throw new ConfigError(
          `${where}: ${file} has centroids of ${centroids.dim} values, and the encoder's states have ${network.dim}${centroids.clusters === network.dim ? ': they are transposed' : ''}`,
          { shape: centroids.centroids.shape, dim: network.dim },
        )
      }
      return new UnitExtractor(network, centroids, own)
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
   * @throws DataError for a clip that is too short for a unit (XLS-R: below 400 samples at 16 kHz), cannot be read, or holds NaN
   * or infinities
   */
  async extract(audio: AudioClip): Promise<Int32Array> {
    const [units] = await this.extractBatch([audio])
    return units as Int32Array
  }

  /** The units of clips, each as `extract` gives it, in batches of clips of like length. @throws as that */
  async extractBatch(clips: readonly AudioClip[], options: ExtractOptions = {}): Promise<Int32Array[]> {
    const where = 'UnitExtractor.extractBatch'
    if (!Array.isArray(clips)) throw misuse(where, 'clips', 'a list of clips', clips)
    requireOptions(where, options, ['batchSeconds', 'signal'])
    const { batchSeconds = 60, signal } = options
    if (!(batchSeconds > 0)) throw misuse(where, 'batchSeconds', 'above 0', batchSeconds)
    requireSignal(where, signal)
    const result = new Array<Int32Array>(clips.length)
    return noGrad(() =>
      scope(async () => {
        const read = await Promise.all(
          clips.map(async (clip, i) => ({
            i,
            samples: (await openClip({ where: 'UnitExtractor' }, clip, {})).samples,
          })),
        )
        for (const { i, samples } of read) {
          if (this.encoder.unitsOf(samples.size(0)) > 0) continue
          const name = typeof clips[i] === 'string' ? clips[i] : clips.length > 1 ? `clip ${i + 1}` : 'the clip'
          throw new DataError(
            `${name} has ${samples.size(0)} samples at 16 kHz, too few for a unit: ${this.encoder.leastSamples}`,
            { samples: samples.size(0), least: this.encoder.leastSamples },
          )
        }
        for (const batch of this.#batches(read, batchSeconds)) {
          signal?.throwIfAborted()
          await scope(async () => {
            const states = await this.encoder.states(batch.map(({ samples }) => samples))
            for (const [k, { i }] of batch.entries()) result[i] = await this.kmeans.assign(states[k] as Tensor)
          })
        }
        return result
      }),
    )
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
   * A text that is the same for the same encoder, layer and centroids: two extractors that share it make the same units. Reads all
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

function networkOf(where: string, network: unknown): UnitNetwork {
  const isOne = [Wav2Vec2, WavLM, Whisper, WhisperEncoder].some((Network) => network instanceof Network)
  if (isOne) return network as UnitNetwork
  throw misuse(where, 'encoder', 'a folder, a file, a name, or a Wav2Vec2, WavLM, Whisper or WhisperEncoder', network)
}
