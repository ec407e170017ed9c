import { SPEECH_RATE } from '../../../audio/clip.js'
import {
  misuse,
  requireFunction,
  requireNumber,
  requireObject,
  requireOptions,
  requireString,
  requireWhole,
  shown,
} from '../../../base/check.js'
import { ConfigError, DataError } from '../../../base/errors.js'
import { lengthsTensor, padTokens } from '../../../kit/pad.js'
import { evaluating, Module } from '../../../nn/index.js'
import { noGrad, ones, scope, Tensor, zeros } from '../../../tensor/index.js'
import type { Tokenizer } from '../../../text/index.js'
import { requireTrained } from '../network/untrained.js'
import { SPECTRA_SAMPLES } from '../pretraining/entry.js'
import { type EncodeWord, encoderOf } from '../pretraining/prepare.js'
import { type AlignedWord, repaired, type TimedSpan } from './align-repair.js'
import { type SpectraTurnAudio, samplesOfTurn } from './turn-audio.js'

/**
 * What the temporal heads are asked: each row a clip and its words, after a turn without words or sound, so that they
 * stand where the current turn stood in pre-training. V rows.
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
  /** What the heads say of each token, in units of ten seconds: floating point [V, L]. */
  predict(inputs: WordTimesInputs): Promise<{ starts: Tensor; ends: Tensor }>
  readonly tokenizer?: Tokenizer
}

export interface AlignWordsInput {
  /** Of any length. */
  audio: NonNullable<SpectraTurnAudio>
  /** What is said, words between blanks. */
  text: string
  /** Default: the model's. */
  tokenizer?: Tokenizer | EncodeWord
}

export interface AlignWordsOptions {
  /** How much later the clip is heard in the second view, in seconds. Default 0.5; 0 takes one view only. */
  delay?: number
  /** Tokens in a row at most, `<s>` and `</s>` among them. Default 512. */
  maxLength?: number
}

export interface WordAlignment {
  /** Every word of the text, in order, as it was written. */
  words: AlignedWord[]
  /** Length of the audio in seconds. */
  duration: number
  /** What was heard at once, in seconds, and which words were taken from there. */
  windows: { start: number; end: number; firstWord: number; endWord: number }[]
}

/**
 * When each word of a known text is spoken, out of SPECTRA's temporal heads.
 *
 * The heads give a start and an end for each word. They are cut to the clip, and moved by the least squares until no word
 * starts before the last one ends. The network hears the clip twice, the second time after `delay` seconds of silence, and
 * should find each word later by just that; the mean of both is taken.
 *
 * **`confidence`** says how much the model agrees with itself, and is no probability: 2^(-d / 0.2 s), where d is the
 * largest of: how far the two views are apart, how far start or end had to be moved (less 0.05 s, as training lets a word end
 * in the next), and how much the word is shorter than a tenth of a second, the step of the training's times. So it is 1 where
 * all agree, and a half where 0.2 s are amiss.
 *
 * Audio of more than ten seconds is heard in windows. Which words a window has is estimated from the letters that are left
 * for the time that is left; those that end in its first three quarters are taken, and the next window begins where the last
 * of them ends.
 *
 * Words are read in lower case, each alone, as in pre-training. A word without a sub-word has confidence 0 and no length.
 *
 * @throws ConfigError for wrong arguments, and for a model whose temporal heads hold random numbers; DataError for empty
 * audio, NaN, or a word that alone is too long
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
  requireOptions(where, options, ['delay', 'maxLength'])
  const { delay = 0.5, maxLength = 512 } = options
  requireNumber(where, 'delay', delay, { least: 0, below: 5 })
  requireWhole(where, 'maxLength', maxLength, 3)
  const tokenizer = input.tokenizer ?? model.tokenizer
  if (tokenizer === undefined) throw misuse(where, 'tokenizer', 'a Tokenizer, as the model has none', tokenizer)
  const encode = encoderOf(where, tokenizer)
  return scope(async () => {
    const audio = await samplesOfTurn(where, input.audio)
    if (audio === null) throw misuse(where, 'audio', 'a path or samples', input.audio)
    const words = input.text.split(/\s+/).filter(Boolean)
    const spoken = words.map((word) => ({ word, ids: encode(word.toLowerCase()) }))
    const run = () => new Aligner(model, audio, spoken, delay, maxLength).run()
    return model instanceof Module ? evaluating(model, run) : run()
  })
}

interface EncodedWord {
  word: string
  ids: readonly number[]
}

/** The share of a window that has enough sound after it, and how many more words than estimated it is asked for. */
const [KEPT, MORE] = [0.75, 1.15]

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
      // At least one word, so that it always goes on.
      const whole = last && at + count === this.words.length
      const kept = whole ? count : Math.max(1, found.filter((word) => word.end <= limit).length)
      this.#words.push(...found.slice(0, kept))
      this.#windows.push({ start: begin, end: window.end / SPEECH_RATE, firstWord: at, endWord: at + kept })
      at += kept
      const end = Math.round((this.#words.at(-1) as AlignedWord).end * SPEECH_RATE)
      // What is at the end stays heard whole: a window of a few samples would tell nothing.
      start = Math.max(start, Math.min(end, this.#samples - SPEECH_RATE))
    }
    return { words: this.#words, duration, windows: this.#windows }
  }

  #windowFrom(start: number): { end: number } {
    const left = this.#samples - start
    const room = SPECTRA_SAMPLES - Math.round(this.delay * SPEECH_RATE)
    return { end: left <= SPECTRA_SAMPLES ? this.#samples : start + room }
  }

  /** Words that a window is asked for: by their letters and the time left, and as many as its row has room for. */
  #countFor(at: number, start: number, end: number, last: boolean): number {
    const left = this.words.slice(at)
    const letters = left.reduce((sum, { word }) => sum + word.length + 1, 0)
    const share = last ? Number.POSITIVE_INFINITY : (MORE * letters * (end - start)) / (this.#samples - start)
    let [count, seen, tokens] = [0, 0, 2]
    for (const { word, ids } of left) {
      if (count > 0 && (seen >= share || tokens + ids.length > this.maxLength)) break
      if (tokens + ids.length > this.maxLength) {
        throw new DataError(`alignWords: a word of ${ids.length} tokens is longer than a text may be`, { word })
      }
      seen += word.length + 1
      tokens += ids.length
      count++
    }
    return count
  }

  /** The words in a window, in seconds of the whole audio. */
  async #alignWindow(at: number, count: number, start: number, end: number): Promise<AlignedWord[]> {
    const words = this.words.slice(at, at + count)
    const samples = end - start
    const delay = Math.min(Math.round(this.delay * SPEECH_RATE), SPECTRA_SAMPLES - samples)
    // A shift that is lost in the labels' own steps would only look like agreement.
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

  /** What the heads say of each word in each view, in seconds of the clip: at its first sub-word and at its last. */
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
  throw new ConfigError(`alignWords: model.predict() gave ${found} as times, expected [${rows}, ${length}]`, {
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
