import { openClip } from '../../../audio/clip.js'
import { normalizeWav2Vec2 } from '../../../audio/normalize.js'
import { misuse, requireOptions, requireWhole } from '../../../base/check.js'
import { requireForm } from '../../../base/form.js'
import type { Dataset } from '../../../data/dataset.js'
import { lengthMask, lengthsTensor, padClips, padTokens } from '../../../kit/pad.js'
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

/**
 * The samples of an utterance at 16 kHz, float32 with mean 0 and variance 1 over the clip, as SpokenWOZ's networks were
 * trained. Empty for `null`, and where the times lie outside the recording.
 * @throws DataError for a file that cannot be read, or has samples that are no finite numbers
 */
export function readDstAudio(audio: DstAudio | null): Promise<Float32Array> {
  return scope(async () => ((await dstSamples(audio))?.data() ?? new Float32Array(0)) as Promise<Float32Array>)
}

/** The same as a tensor [samples]; null where there is nothing. */
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

/** A turn whose clips may be tensors, which are then copied into the batch and nowhere else. */
export interface DstTurnSample {
  features: DstFeatures
  userSamples: Float32Array | Tensor | null
  systemSamples: Float32Array | Tensor | null
}

const LISTS = ['inputIds', 'classIds', 'startPositions', 'endPositions', 'referIds']
const SAMPLE = {
  features: { ...Object.fromEntries(LISTS.map((name) => [name, ['number'] as const])), userLength: 'number' },
} as const

function requireSamples(sample: DstTurnSample, index: number): void {
  for (const name of ['userSamples', 'systemSamples'] as const) {
    const clip = sample[name]
    if (clip === null || clip instanceof Float32Array || (clip instanceof Tensor && clip.ndim === 1)) continue
    throw misuse('dstCollate', `samples[${index}].${name}`, 'a Float32Array, or a tensor [samples]', clip)
  }
}

/** Makes batches of turns, padded at their ends. */
export function dstCollate(options: DstCollateOptions = {}): (samples: readonly DstTurnSample[]) => DstBatch {
  requireForm('dstCollate', 'options', options, { 'padId?': 'number', 'textLength?': 'number' })
  requireOptions('dstCollate', options, ['padId', 'textLength'])
  const { padId = 1, textLength } = options
  if (textLength !== undefined) requireWhole('dstCollate', 'textLength', textLength, 1)
  if (textLength !== undefined && textLength > MOST_TOKENS) {
    throw misuse('dstCollate', 'textLength', `at most ${MOST_TOKENS}`, textLength)
  }
  return (samples) => {
    requireForm('dstCollate', 'samples', samples, [SAMPLE])
    for (const [i, sample] of samples.entries()) requireSamples(sample, i)
    if (samples.length === 0) throw misuse('dstCollate', 'samples', 'at least one', samples)
    const turns = samples.map((sample) => sample.features)
    const longest = Math.max(...turns.map(({ inputIds }) => inputIds.length))
    const width = textLength ?? longest
    if (longest > width) throw misuse('dstCollate', 'textLength', `at least ${longest}`, textLength)
    const clips = samples.flatMap(({ userSamples, systemSamples }) => [userSamples, systemSamples])
    const perSlot = (name: 'classIds' | 'startPositions' | 'endPositions' | 'referIds') =>
      tensor(
        turns.map((turn) => turn[name]),
        { dtype: 'int64' },
      )
    const { inputValues, lengths } = padClips(clips, { leastLength: LEAST })
    return scope(() => ({
      inputIds: padTokens(
        turns.map(({ inputIds }) => inputIds),
        { value: padId, length: width },
      ),
      attentionMask: lengthMask(
        turns.map(({ inputIds }) => inputIds.length),
        width,
      ),
      tokenTypeIds: lengthMask(
        turns.map(({ userLength }) => userLength),
        width,
      )
        .logicalNot()
        .to({ dtype: 'int64' }),
      inputValues,
      audioLengths: lengthsTensor(lengths),
      audiosPerText: 2,
      classIds: perSlot('classIds'),
      startPositions: perSlot('startPositions'),
      endPositions: perSlot('endPositions'),
      referIds: perSlot('referIds'),
    }))
  }
}

/** One frame of the encoder: batches without any speech are as wide. */
const LEAST = 400
