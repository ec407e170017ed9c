import { openClip } from '../../../audio/clip.js'
import { normalizeWav2Vec2 } from '../../../audio/normalize.js'
import { argumentError, requireWhole } from '../../../base/check.js'
import { requireForm } from '../../../base/form.js'
import type { Dataset } from '../../../data/dataset.js'
import { noGrad, scope, type Tensor } from '../../../tensor/index.js'
import type { DstAudio } from './dialog.js'
import type { DstFeatures } from './features.js'

/** A turn with its clips: normalized samples at 16 kHz, empty without speech. */
export interface DstSample {
  features: DstFeatures
  userSamples: Float32Array
  systemSamples: Float32Array
}

/**
 * Read the samples of an utterance at 16 kHz, float32, normalized to mean 0 and variance 1 over the clip, as in the training of
 * SpokenWOZ's networks. Empty for `null`, and for times outside of the recording.
 * @throws DataError for a file that cannot be read, or contains samples that are not finite
 */
export function readDstAudio(audio: DstAudio | null): Promise<Float32Array> {
  return scope(async () => ((await dstSamples(audio))?.data() ?? new Float32Array(0)) as Promise<Float32Array>)
}

/** Read the samples as a tensor [samples]; null if there are none. */
export async function dstSamples(audio: DstAudio | null): Promise<Tensor | null> {
  if (audio === null) return null
  requireForm('readDstAudio', 'audio', audio, { path: 'string', 'start?': 'number', 'end?': 'number' })
  const { path, start = 0, end } = audio
  if (end !== undefined && end <= start) return null
  return noGrad(() =>
    scope(async () => {
      const { samples } = await openClip({ where: 'readDstAudio' }, { path, start, end }, { allowEmpty: true })
      return samples.size(0) === 0 ? null : normalizeWav2Vec2(samples)
    }),
  )
}

export interface DstDatasetOptions {
  /** Return an utterance's samples. Default {@link readDstAudio}. */
  readAudio?: (audio: DstAudio | null) => Promise<Float32Array> | Float32Array
  /** Maximum samples of a clip; the end of longer ones is cut. Default: no limit. */
  maxAudioLength?: number
  /** Ignore all speech. Default false. */
  noAudio?: boolean
}

/** Turns with their clips, which are read on access. Counts the clips without samples. */
export class DstDataset implements Dataset<DstSample> {
  /** Utterances read so far whose times in the recording have no samples. */
  readonly emptyAudio = new Set<string>()
  readonly #features: readonly DstFeatures[]
  readonly #options: DstDatasetOptions

  constructor(features: readonly DstFeatures[], options: DstDatasetOptions = {}) {
    if (!Array.isArray(features)) throw argumentError('DstDataset', 'features', 'an array of features', features)
    if (options.maxAudioLength !== undefined) requireWhole('DstDataset', 'maxAudioLength', options.maxAudioLength, 1)
    this.#features = features
    this.#options = options
  }

  get length(): number {
    return this.#features.length
  }

  async get(index: number): Promise<DstSample> {
    const features = this.#features[index] as DstFeatures
    const [userSamples, systemSamples] = await Promise.all([
      this.#samples(features.userAudio, `${features.dialog}-${features.turn}-user`),
      this.#samples(features.systemAudio, `${features.dialog}-${features.turn}-system`),
    ])
    return { features, userSamples, systemSamples }
  }

  async #samples(audio: DstAudio | null, name: string): Promise<Float32Array> {
    const { readAudio: read = readDstAudio, maxAudioLength, noAudio = false } = this.#options
    if (noAudio) return new Float32Array(0)
    const samples = await read(audio)
    if (audio !== null && samples.length === 0) this.emptyAudio.add(name)
    return maxAudioLength === undefined ? samples : samples.subarray(0, maxAudioLength)
  }
}
