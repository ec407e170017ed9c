import { normalizeWav2Vec2 } from '../../../audio/normalize.js'
import { readAudio } from '../../../audio/read.js'
import { misuse, requireOptions, requireWhole } from '../../../base/check.js'
import { DataError } from '../../../base/errors.js'
import { requireForm } from '../../../base/form.js'
import type { Dataset } from '../../../data/dataset.js'
import { readNpy } from '../../../files/npy/npy.js'
import { noGrad, scope, Tensor, tensor } from '../../../tensor/index.js'
import type { DstAudio } from './dialog.js'
import type { DstFeatures } from './features.js'
import type { DstLabels } from './heads.js'
import type { DstEncoderInputs } from './model.js'

/** A turn with its clips: normalised samples at 16 kHz, none where there is no speech. */
export interface DstSample {
  features: DstFeatures
  userSamples: Float32Array
  systemSamples: Float32Array
}

export type DstBatch = DstEncoderInputs & DstLabels

const RATE = 16000

/**
 * The samples of an utterance at 16 kHz, float32 with mean 0 and variance 1 over the clip, as SpokenWOZ's networks were
 * trained. Empty for `null`, and where the times lie outside the recording.
 * @throws DataError for a file that cannot be read, or has samples that are no finite numbers
 */
export async function readDstAudio(audio: DstAudio | null): Promise<Float32Array> {
  if (audio === null) return new Float32Array(0)
  requireForm('readDstAudio', 'audio', audio, { path: 'string', 'start?': 'number', 'end?': 'number' })
  const { path, start = 0, end } = audio
  if (end !== undefined && end <= start) return new Float32Array(0)
  return noGrad(() =>
    scope(async () => {
      const samples = /\.npy$/i.test(path)
        ? await arrayOf(path, start, end)
        : (
            await readAudio(path, {
              sampleRate: RATE,
              start,
              ...(end !== undefined && { duration: end - start }),
            })
          ).samples
      if (samples.numel() === 0) return new Float32Array(0)
      const normal = await normalizeWav2Vec2(samples)
      const numbers = (await normal.data()) as Float32Array
      if (!numbers.every(Number.isFinite))
        throw new DataError(`${path}: it has samples that are no finite numbers`, { file: path })
      return Float32Array.from(numbers)
    }),
  )
}

async function arrayOf(path: string, start: number, end: number | undefined): Promise<Tensor> {
  const value = await readNpy(path)
  if (!(value instanceof Tensor) || value.ndim !== 1)
    throw new DataError(`${path}: it must be an array of samples`, { file: path })
  const first = Math.min(value.size(0), Math.round(start * RATE))
  const last = end === undefined ? value.size(0) : Math.min(value.size(0), Math.round(end * RATE))
  return value.to({ dtype: 'float32' }).narrow(0, first, Math.max(0, last - first))
}

export interface DstDatasetOptions {
  /** Reads an utterance's samples. Default {@link readDstAudio}. */
  readAudio?: (audio: DstAudio | null) => Promise<Float32Array> | Float32Array
  /** Longest clip in samples; what is longer loses its end. Default: as long as it is. */
  maxAudioLength?: number
  /** Leaves all speech out. Default false. */
  noAudio?: boolean
}

/** Turns with their clips, which are read when they are asked for. It counts the clips that had no samples. */
export class DstDataset implements Dataset<DstSample> {
  /** Utterances with a place in a recording that has nothing there, of those read so far. */
  readonly emptyAudio = new Set<string>()
  readonly #features: readonly DstFeatures[]
  readonly #options: DstDatasetOptions

  constructor(features: readonly DstFeatures[], options: DstDatasetOptions = {}) {
    if (!Array.isArray(features)) throw misuse('DstDataset', 'features', 'an array of features', features)
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

export interface DstCollateOptions {
  /** Default 1. */
  padId?: number
  /** Pads every text to this length. Default: to the longest of the batch; the original pads to 512. */
  textLength?: number
}

/** Far above what any of its networks reads: a slip must not fill the memory with padding. */
const MOST_TOKENS = 65_536

const LISTS = ['inputIds', 'classIds', 'startPositions', 'endPositions', 'referIds']
const SAMPLE = {
  features: { ...Object.fromEntries(LISTS.map((name) => [name, ['number'] as const])), userLength: 'number' },
  userSamples: Float32Array,
  systemSamples: Float32Array,
} as const

/** Makes batches of turns, padded at their ends. */
export function dstCollate(options: DstCollateOptions = {}): (samples: readonly DstSample[]) => DstBatch {
  requireForm('dstCollate', 'options', options, { 'padId?': 'number', 'textLength?': 'number' })
  requireOptions('dstCollate', options, ['padId', 'textLength'])
  const { padId = 1, textLength } = options
  if (textLength !== undefined) requireWhole('dstCollate', 'textLength', textLength, 1)
  if (textLength !== undefined && textLength > MOST_TOKENS) {
    throw misuse('dstCollate', 'textLength', `at most ${MOST_TOKENS}`, textLength)
  }
  return (samples) => {
    requireForm('dstCollate', 'samples', samples, [SAMPLE])
    if (samples.length === 0) throw misuse('dstCollate', 'samples', 'at least one', samples)
    const turns = samples.map((sample) => sample.features)
    const longest = Math.max(...turns.map(({ inputIds }) => inputIds.length))
    const width = textLength ?? longest
    if (longest > width) throw misuse('dstCollate', 'textLength', `at least ${longest}`, textLength)
    const rows = <T>(make: (turn: DstFeatures, position: number) => T) =>
      turns.map((turn) => Array.from({ length: width }, (_, position) => make(turn, position)))
    const clips = samples.flatMap(({ userSamples, systemSamples }) => [userSamples, systemSamples])
    const perSlot = (name: 'classIds' | 'startPositions' | 'endPositions' | 'referIds') =>
      tensor(
        turns.map((turn) => turn[name]),
        { dtype: 'int64' },
      )
    return {
      inputIds: tensor(
        rows(({ inputIds }, i) => inputIds[i] ?? padId),
        { dtype: 'int64' },
      ),
      attentionMask: tensor(rows(({ inputIds }, i) => i < inputIds.length)),
      tokenTypeIds: tensor(
        rows(({ userLength }, i) => (i < userLength ? 0 : 1)),
        { dtype: 'int64' },
      ),
      inputValues: padded(clips),
      audioLengths: tensor(
        clips.map((clip) => clip.length),
        { dtype: 'int64' },
      ),
      audiosPerText: 2,
      classIds: perSlot('classIds'),
      startPositions: perSlot('startPositions'),
      endPositions: perSlot('endPositions'),
      referIds: perSlot('referIds'),
    }
  }
}

/** One frame of the encoder: batches without any speech are as wide. */
const LEAST = 400

function padded(clips: readonly Float32Array[]): Tensor {
  const width = Math.max(LEAST, ...clips.map((clip) => clip.length))
  const flat = new Float32Array(clips.length * width)
  clips.forEach((clip, row) => {
    flat.set(clip, row * width)
  })
  return tensor(flat, { shape: [clips.length, width] })
}
