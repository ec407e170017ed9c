import { SPEECH_RATE } from '../../../audio/clip.js'
import { argumentError, requireFunction, requireObject, requireString, shown } from '../../../base/check.js'
import { ConfigError, DataError } from '../../../base/errors.js'
import { type ChangesOf, settings } from '../../../base/settings.js'
import { lengthsTensor, padTokens } from '../../../kit/pad.js'
import { Module, withEvalMode } from '../../../nn/index.js'
import { noGrad, ones, scope, Tensor, zeros } from '../../../tensor/index.js'
import type { Tokenizer } from '../../../text/index.js'
import { requireTrained } from '../network/untrained.js'
import { SPECTRA_SAMPLES } from '../pretraining/entry.js'
import { type EncodeWord, encoderOf } from '../pretraining/prepare.js'
import { type AlignedWord, repaired, type TimedSpan } from './align-repair.js'
import { type SpectraTurnAudio, samplesOfTurn } from './turn-audio.js'

/**
 * Inputs of the temporal heads. Each of the V rows has a clip and its words after an empty turn, so that they are at the position of the
 * current turn in pre-training.
 */
export interface WordTimesInputs {
  /** int64 [V, L]; bool [V, L]; int64 [V, L] */
  inputIds: Tensor
  attentionMask: Tensor
  tokenTypeIds: Tensor
  /** float32 [2V, S]: an empty clip, then the clip, for each row. */
  inputValues: Tensor
  /** int64 [2V]: 0, then the clip's samples. */
  audioLengths: Tensor
  audiosPerText: 2
}

/** A network with SPECTRA's temporal heads: `SpectraForPreTraining`. */
export interface WordTimesModel {
  /** Predict the start and end of each token, in units of ten seconds: floating point [V, L]. */
  predict(inputs: WordTimesInputs): Promise<{ starts: Tensor; ends: Tensor }>
  readonly tokenizer?: Tokenizer
}

export interface AlignWordsInput {
  /** Speech of any length. */
  audio: NonNullable<SpectraTurnAudio>
  /** The words of the speech, separated by spaces. */
  text: string
  /** Default: the model's. */
  tokenizer?: Tokenizer | EncodeWord
}

const ALIGN_SETTINGS = settings({
  /** Delay of the clip in the second view, in seconds; 0 for one view only. */
  delay: { type: 'number', below: 5, default: 0.5 },
  /** Maximum tokens per row, with `<s>` and `</s>`. */
  maxLength: { type: 'integer', min: 3, default: 512 },
})

/** @interface */
export type AlignWordsOptions = ChangesOf<typeof ALIGN_SETTINGS.table>

export interface WordAlignment {
  /** Every word of the text, in order, with its original spelling. */
  words: AlignedWord[]
  /** Length of the audio in seconds. */
  duration: number
  /** Windows of the audio, in seconds, and the range of words taken from each. */
  windows: { start: number; end: number; firstWord: number; endWord: number }[]
}

/**
 * Find the start and end of each word of a known text, with SPECTRA's temporal heads.
 *
 * The heads predict a start and an end for each word. Times are clipped to the clip, and moved by least squares until no word starts
 * before the previous one ends. The network processes the clip twice, the second time after `delay` seconds of silence, which should
 * shift the predictions by exactly that. The result is the mean of both.
 *
 * **`confidence`** measures the consistency of the predictions; it is not a probability. It is 2^(-d / 0.2 s), where d is the largest of:
 * the difference of the two views; the distance that start or end were moved (less 0.05 s, as words may overlap a little in training);
 * and the amount by which the word is shorter than 0.1 s, the time step of the training labels. So it is 1 for consistent predictions,
 * and 0.5 for an error of 0.2 s.
 *
 * Audio longer than ten seconds is processed in windows. The words of a window are estimated from the remaining letters and the remaining
 * time. Words that end in the first three quarters of a window are kept, and the next window starts at the end of the last one.
 *
 * Each word is encoded alone, in lower case, as in pre-training. A word without tokens has confidence 0 and no duration.
 *
 * @throws ConfigError for wrong arguments, and for a model with untrained temporal heads; DataError for empty audio, NaN, or a word with
 * too many tokens
 */
export async function alignWords(
  model: WordTimesModel,
  input: AlignWordsInput,
  options: AlignWordsOptions = {},
): Promise<WordAlignment> {
  const where = 'alignWords'
  requireObject(where, 'model', model)
  requireFunction(where, 'model.predict', model.predict)
  requireTrained(where, model, ['start_prediction_head', 'end_prediction_head'])
  requireObject(where, 'input', input)
  requireString(where, 'text', input.text)
  const { delay, maxLength } = ALIGN_SETTINGS.read(where, options)
  const tokenizer = input.tokenizer ?? model.tokenizer
  if (tokenizer === undefined) {
    throw argumentError(where, 'tokenizer', 'a Tokenizer, since the model does not have one', tokenizer)
  }
  const encode = encoderOf(where, tokenizer)
  return scope(async () => {
    const audio = await samplesOfTurn(where, input.audio)
    if (audio === null) throw argumentError(where, 'audio', 'a path or samples', input.audio)
    const words = input.text.split(/\s+/).filter(Boolean)
    const spoken = words.map((word) => ({ word, ids: encode(word.toLowerCase()) }))
    const run = () => new Aligner(model, audio, spoken, delay, maxLength).run()
    return model instanceof Module ? withEvalMode(model, run) : run()
  })
}

interface EncodedWord {
  word: string
  ids: readonly number[]
}

/** Fraction of a window whose words have enough audio after them, and the factor on the estimated number of words. */
const [KEPT, MARGIN] = [0.75, 1.15]

class Aligner {
  readonly #words: AlignedWord[] = []
  readonly #windows: WordAlignment['windows'] = []
  readonly #samples: number

  constructor(
    readonly model: WordTimesModel,
    readonly audio: Tensor,
    readonly words: readonly EncodedWord[],
    readonly delay: number,
    readonly maxLength: number,
  ) {
    this.#samples = audio.size(0)
  }

  async run(): Promise<WordAlignment> {
    const duration = this.#samples / SPEECH_RATE
    let [at, start] = [0, 0]
    while (at < this.words.length) {
      const window = this.#windowFrom(start)
      const last = window.end >= this.#samples
      const count = this.#countFor(at, start, window.end, last)
      const found = await this.#alignWindow(at, count, start, window.end)
      const begin = start / SPEECH_RATE
      const limit = begin + (KEPT * (window.end - start)) / SPEECH_RATE
      // At least one word, so that the loop advances.
      const whole = last && at + count === this.words.length
      const kept = whole ? count : Math.max(1, found.filter((word) => word.end <= limit).length)
      this.#words.push(...found.slice(0, kept))
      this.#windows.push({ start: begin, end: window.end / SPEECH_RATE, firstWord: at, endWord: at + kept })
      at += kept
      const end = Math.round((this.#words.at(-1) as AlignedWord).end * SPEECH_RATE)
      // The last second is always in the window: a few samples alone would give no useful prediction.
      start = Math.max(start, Math.min(end, this.#samples - SPEECH_RATE))
    }
    return { words: this.#words, duration, windows: this.#windows }
  }

  #windowFrom(start: number): { end: number } {
    const left = this.#samples - start
    const room = SPECTRA_SAMPLES - Math.round(this.delay * SPEECH_RATE)
    return { end: left <= SPECTRA_SAMPLES ? this.#samples : start + room }
  }

  /** Return the number of words for a window: estimated from their letters and the remaining time, limited by the tokens of a row. */
  #countFor(at: number, start: number, end: number, last: boolean): number {
    const left = this.words.slice(at)
    const letters = left.reduce((sum, { word }) => sum + word.length + 1, 0)
    const letterLimit = last ? Number.POSITIVE_INFINITY : (MARGIN * letters * (end - start)) / (this.#samples - start)
    let [count, letterCount, tokens] = [0, 0, 2]
    for (const { word, ids } of left) {
      if (count > 0 && (letterCount >= letterLimit || tokens + ids.length > this.maxLength)) break
      if (tokens + ids.length > this.maxLength) {
        throw new DataError(
          `alignWords: expected words of at most ${this.maxLength - 2} tokens, got ${ids.length} for ${shown(word)}`,
          { word },
        )
      }
      letterCount += word.length + 1
      tokens += ids.length
      count++
    }
    return count
  }

  /** Align the words of a window. Times are seconds of the whole audio. */
  async #alignWindow(at: number, count: number, start: number, end: number): Promise<AlignedWord[]> {
    const words = this.words.slice(at, at + count)
    const samples = end - start
    const delay = Math.min(Math.round(this.delay * SPEECH_RATE), SPECTRA_SAMPLES - samples)
    // A shift below the time step of the labels would only look like agreement.
    const delays = delay >= 0.1 * SPEECH_RATE ? [0, delay] : [0]
    const spoken = words.filter(({ ids }) => ids.length > 0)
    const views = spoken.length === 0 ? [] : await this.#views(spoken, start, samples, delays)
    const times = repaired(views, samples / SPEECH_RATE)
    const begin = start / SPEECH_RATE
    let [next, previous] = [0, this.#words.at(-1)?.end ?? 0]
    return words.map(({ word, ids }) => {
      if (ids.length === 0) return { word, start: previous, end: previous, confidence: 0 }
      const time = times[next++] as Omit<AlignedWord, 'word'>
      const found = { word, ...time, start: Math.max(previous, begin + time.start), end: 0 }
      found.end = Math.max(found.start, begin + time.end)
      previous = found.end
      return found
    })
  }

  /** Return the predicted times of each word in each view, in seconds of the clip: the start of its first token, the end of its last. */
  async #views(
    words: readonly EncodedWord[],
    from: number,
    samples: number,
    delays: readonly number[],
  ): Promise<TimedSpan[][]> {
    const ids = [0, ...words.flatMap((word) => word.ids), 2]
    const [starts, ends] = await scope(async () => {
      const clip = this.audio.narrow(0, from, samples)
      const predicted = await noGrad(() => this.model.predict(inputsOf(ids, clip, delays)))
      return [
        await timesOf(predicted?.starts, delays.length, ids.length),
        await timesOf(predicted?.ends, delays.length, ids.length),
      ]
    })
    return delays.map((delay, v) => {
      const seconds = (times: Float32Array | undefined, token: number) =>
        (times?.[v * ids.length + token] ?? Number.NaN) * 10 - delay / SPEECH_RATE
      let next = 1
      return words.map((word) => {
        const first = next
        next += word.ids.length
        return { start: seconds(starts, first), end: seconds(ends, next - 1) }
      })
    })
  }
}

async function timesOf(times: unknown, rows: number, length: number): Promise<Float32Array> {
  if (times instanceof Tensor && times.ndim === 2 && times.shape[0] === rows && times.shape[1] === length) {
    return (await times.to({ dtype: 'float32', device: 'cpu' }).data()) as Float32Array
  }
  const found = times instanceof Tensor ? `[${times.shape}]` : shown(times)
  throw new ConfigError(`alignWords: expected times [${rows}, ${length}] from model.predict(), got ${found}`, {
    argument: 'model',
  })
}

function inputsOf(ids: readonly number[], clip: Tensor, delays: readonly number[]): WordTimesInputs {
  const samples = clip.size(0)
  const inputValues = zeros([2 * delays.length, samples + Math.max(...delays)])
  for (const [v, delay] of delays.entries()) {
    inputValues
      .select(0, 2 * v + 1)
      .narrow(0, delay, samples)
      .copy_(clip)
  }
  const tokenTypeIds = ids.map((_, i) => (i === 0 ? 0 : 1))
  return {
    inputIds: padTokens(delays.map(() => ids)),
    attentionMask: ones([delays.length, ids.length], { dtype: 'bool' }),
    tokenTypeIds: padTokens(delays.map(() => tokenTypeIds)),
    inputValues,
    audioLengths: lengthsTensor(delays.flatMap((delay) => [0, samples + delay])),
    audiosPerText: 2,
  }
}
