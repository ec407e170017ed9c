import { requireObject, shown } from '../../../base/check.js'
import { ConfigError, DataError } from '../../../base/errors.js'
import { type ChangesOf, functionOf, settings, unchecked, type ValuesOf } from '../../../base/settings.js'
import type { Dataset } from '../../../data/dataset.js'
import { Random } from '../../../data/random.js'
import { BadRecords } from '../../../kit/records.js'
import { SPECTRA_SAMPLES, type SpectraEntry, type SpectraWord, withUsableWords } from './entry.js'
import { type MaskFramesOptions, type MaskTokensOptions, maskFrames, maskTokens } from './masking.js'
import { examplesOf, type SpectraPretrainingSource } from './open.js'

/** Return the convolution frames of a clip: `spectra.frameCounts` for one clip. */
export type FramesOf = (samples: number) => number

const DATASET_SETTINGS = settings({
  frames: { type: functionOf<FramesOf>(), required: true },
  seed: { type: 'integer', default: 0 },
  /** Maximum number of turns in the text, including previous and current. */
  numTurns: { type: 'integer', min: 2, default: 8 },
  /** Maximum samples of a clip; longer audio is truncated. */
  maxSamples: { type: 'integer', min: 1, default: SPECTRA_SAMPLES },
  mlm: { type: unchecked<MaskTokensOptions>() },
  mam: { type: unchecked<MaskFramesOptions>() },
})

/** @interface */
export type SpectraPretrainingOptions = ChangesOf<typeof DATASET_SETTINGS.table>

/** Ids after masking, and labels: the original ids of target tokens, else -100. */
export interface SpectraMaskedText {
  inputIds: number[]
  labels: number[]
}

/** A clip, and the masking of its frames: see `maskFrames`. */
export interface SpectraMaskedClip {
  samples: Float32Array
  mask: Int8Array
  source: Int32Array
}

/** One training example. Each text starts with `<s>`; an empty history is only `<s>`. */
export interface SpectraPretrainingSample {
  history: SpectraMaskedText
  previous: SpectraMaskedText
  current: SpectraMaskedText
  negative: SpectraMaskedText
  previousWords: readonly SpectraWord[]
  currentWords: readonly SpectraWord[]
  /** Clips of the previous turn, the current turn, and a negative. */
  clips: readonly [previous: SpectraMaskedClip, current: SpectraMaskedClip, negative: SpectraMaskedClip]
}

/**
 * Pre-training examples: each turn that has a previous one, earlier turns as history (up to `numTurns`), and two random turns as
 * negatives, one for the text and one for the audio. Random draws depend only on seed, epoch and index, so training can resume, and does
 * not depend on the number of workers.
 *
 * Words that start after the end of the audio lose their labels, and are counted in `skippedWords`.
 *
 * `get` throws DataError if the current turn or the negative has no audio.
 */
export class SpectraPretrainingDataset implements Dataset<SpectraPretrainingSample> {
  /** Number of words beyond the end of their audio, in all samples so far. */
  get skippedWords(): number {
    return this.#bad.count
  }
  readonly #source: SpectraPretrainingSource
  readonly #options: ValuesOf<typeof DATASET_SETTINGS.table>
  readonly #examples: Uint32Array
  readonly #bad = new BadRecords('skip')

  /** @throws ConfigError if no entry has a previous turn, or there are fewer than three entries */
  constructor(source: SpectraPretrainingSource, options: SpectraPretrainingOptions) {
    const where = 'SpectraPretrainingDataset'
    requireObject(where, 'source', source)
    this.#options = DATASET_SETTINGS.read(where, options)
    if (!(source.previous instanceof Int32Array) || source.previous.length !== source.length) {
      throw new ConfigError(`${where}: source: expected a result of openSpectraPretraining(), got ${shown(source)}`, {
        argument: 'source',
      })
    }
    this.#source = source
    this.#examples = examplesOf(source)
  }

  get length(): number {
    return this.#examples.length
  }

  async get(index: number, epoch = 0): Promise<SpectraPretrainingSample> {
    const at = this.#examples[index]
    if (at === undefined) {
      throw new DataError(`SpectraPretrainingDataset.get: expected an index below ${this.length}, got ${index}`, {
        index,
      })
    }
    const { seed, mlm } = this.#options
    const random = new Random(seed, epoch * this.length + index)
    const before = this.#source.previous[at] as number
    const [falseText, falseAudio] = [this.#other(at, before, random), this.#other(at, before, random)]
    const numbers = [before, at, falseText, falseAudio]
    const [previous, current, text, audio] = (await Promise.all(numbers.map((i) => this.#source.get(i)))) as [
      SpectraEntry,
      SpectraEntry,
      SpectraEntry,
      SpectraEntry,
    ]
    const history = await this.#history(before)
    const [first, second, third] = (await Promise.all(
      [previous, current, audio].map((entry) => this.#samples(entry)),
    )) as [Float32Array, Float32Array, Float32Array]
    for (const [samples, i] of [
      [second, at],
      [third, falseAudio],
    ] as const) {
      if (samples.length > 0) continue
      throw new DataError(`entry ${i}: expected audio, got none. Remove it from the data.`, { entry: i })
    }
    const masked = (ids: readonly number[]) => maskTokens(ids, random, mlm)
    return {
      history: masked(history),
      previous: masked(previous.inputIds),
      current: masked(current.inputIds),
      negative: masked(text.inputIds),
      previousWords: withUsableWords(previous, first.length, `entry ${before}`, this.#bad).words,
      currentWords: withUsableWords(current, second.length, `entry ${at}`, this.#bad).words,
      clips: [this.#masked(first, random), this.#masked(second, random), this.#masked(third, random)],
    }
  }

  /** Draw any entry except the two turns. */
  #other(current: number, previous: number, random: Random): number {
    const drawn = random.below(this.#source.length - 2)
    const [low, high] = current < previous ? [current, previous] : [previous, current]
    const past = drawn >= low ? drawn + 1 : drawn
    return past >= high ? past + 1 : past
  }

  /** Return `<s>` and the turns before the previous one, the oldest first, each with its `</s>`. */
  async #history(previous: number): Promise<number[]> {
    const turns: number[] = []
    let at = this.#source.previous[previous] as number
    while (at >= 0 && turns.length < this.#options.numTurns - 2) {
      turns.unshift(at)
      at = this.#source.previous[at] as number
    }
    const entries = await Promise.all(turns.map((i) => this.#source.get(i)))
    return [0, ...entries.flatMap((entry) => entry.inputIds.slice(1))]
  }

  async #samples(entry: SpectraEntry): Promise<Float32Array> {
    const samples = await this.#source.audio(entry)
    return samples.length > this.#options.maxSamples ? samples.slice(0, this.#options.maxSamples) : samples
  }

  #masked(samples: Float32Array, random: Random): SpectraMaskedClip {
    const { frames, mam } = this.#options
    return { samples, ...maskFrames(frames(samples.length), random, mam) }
  }
}
