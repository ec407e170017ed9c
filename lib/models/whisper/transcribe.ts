import { deflateSync } from 'node:zlib'
import type { Segment } from '../../audio/silence.js'
import { SPEECH_RATE } from '../../audio/speech.js'
import type { GenerationConfig } from '../../generation/config.js'
import { KvCache } from '../../generation/kv-cache.js'
import { noGrad, ops, scope, type Tensor, tensor } from '../../tensor/index.js'
import type { TokenTimestamp } from './alignment.js'
import { positionsOf, windowOf } from './config.js'
import { detectLanguages } from './language.js'
import {
  SECONDS_PER_STEP,
  type Settings,
  samplesOf,
  settingsOf,
  spectrogramOf,
  type TranscribeOptions,
  type WhisperAudio,
  type WhisperSegment,
  type WhisperSkipped,
  type WhisperTranscription,
} from './options.js'
import { endOfSpeech, type SpokenSegment, type TimedPiece, withoutPauses } from './pauses.js'
import { segmentsOf, type TimedTokens } from './segments.js'
import { audibleParts, speechPieces } from './speech-pieces.js'
import { languageCode, type TokenKinds, tokenKinds } from './tokens.js'
import type { Whisper } from './whisper.js'
import { type Piece, piecesOf, wordsOf } from './words.js'

/** Text and statistics of a window. */
interface Window {
  /** Without the end-of-text token. */
  tokens: number[]
  /** Time of each token and of the end of the text, with `timestamps: 'word'` and where the text is short; else empty. */
  times: TokenTimestamp[]
  avgLogprob: number
  compressionRatio: number
  noSpeechProb: number
  temperature: number
}

/** A window's text before its words are timed; `written` includes the end-of-text token, if it was generated. */
type Written = Omit<Window, 'times'> & { written: number[] }

/** A transcribed window, split into segments. */
interface Heard {
  window: Window
  parts: TimedTokens[]
  /** Start of the window, and the end of its audio, in seconds. */
  offset: number
  until: number
}

/** A part of the recording in batched mode, in samples, and its number of finished spectrogram steps. */
interface Stretch {
  from: number
  to: number
  seek: number
  heard: Heard[]
  isDone: boolean
}

/** Minimum seconds of speech for which the rest of a stretch is transcribed: less is the end of a word. */
const LEAST_REST = 0.1
/** Minimum seconds of speech without text that are transcribed again, and of a part that is reported. */
const LEAST_UNWRITTEN = 1
/** Text tokens per second of audio above which a window is not searched for parts without text. */
const DENSE = 3
/** Maximum duration of a token in seconds: earlier audio does not belong to it. */
const LONGEST_TOKEN = 1
/** Minimum seconds of audio in a part that a text passes over. */
const LEAST_PASSED_OVER = 0.5

/** Return the seconds of speech within a part of the recording. */
const secondsOf = (speech: readonly Segment[], start: number, end: number): number =>
  speech.reduce((sum, [begin, stop]) => sum + Math.max(0, Math.min(stop, end) - Math.max(begin, start)), 0)

/** See `Whisper.transcribe`. Method: Radford et al. 2022, https://arxiv.org/abs/2212.04356, section 4.5. */
export async function* transcribeSegments(
  model: Whisper,
  audio: WhisperAudio,
  options: TranscribeOptions,
): AsyncGenerator<WhisperSegment, WhisperTranscription, void> {
  const settings = settingsOf(model, options)
  settings.signal?.throwIfAborted()
  const samples = await scope(() => samplesOf(model, audio, settings.resampling))
  const run = new Run(model, settings, samples.size(0) / SPEECH_RATE)
  const segments: WhisperSegment[] = []
  try {
    for await (const made of settings.batchSize === undefined ? run.windows(samples) : run.pieces(samples)) {
      for (const segment of made) {
        segments.push(segment)
        yield segment
      }
    }
  } finally {
    samples.dispose()
  }
  const text = segments.map((segment) => segment.text).join('')
  const { language, languageProbability, skipped } = run
  return { text: text.trim(), language, languageProbability, segments, skipped }
}

/** A transcription in progress. */
class Run {
  language: string | null = null
  languageProbability: number | null = null
  readonly #model: Whisper
  readonly #settings: Settings
  readonly #kinds: TokenKinds
  /** Length of the recording, in seconds. */
  readonly #duration: number
  /** The tokens of `initialPrompt`. */
  readonly #prompt: number[] = []
  /** The tokens that condition the next window. */
  #history: number[] = []
  /** With `trimPauses`: the end of the last word so far, in seconds. */
  #spokenUntil = 0
  readonly #skipped: WhisperSkipped[] = []
  /** Parts with audio above the noise, in seconds. A speech detector may miss all of a soft clip. */
  #sounds: readonly Segment[] = []
  /** Parts with speech, in seconds: by `vad` in batched mode, else all parts with audio. */
  #speech: readonly Segment[] = []

  constructor(model: Whisper, settings: Settings, duration: number) {
    this.#model = model
    this.#settings = settings
    this.#duration = duration
    this.#kinds = tokenKinds(model)
    const { language, prompt, carryInitialPrompt } = settings
    if (language != null) this.language = languageCode(model.tokens, language)
    this.#prompt = prompt
    if (!carryInitialPrompt) this.#history = [...prompt]
  }

  /** Parts without a transcript, in order; neighbors with the same reason are merged. */
  get skipped(): WhisperSkipped[] {
    const merged: WhisperSkipped[] = []
    for (const one of [...this.#skipped].sort((a, b) => a.start - b.start)) {
      const last = merged.at(-1)
      if (last?.reason === one.reason && one.start <= last.end + SECONDS_PER_STEP)
        last.end = Math.max(last.end, one.end)
      else merged.push({ ...one })
    }
    return merged
  }

  #skip(start: number, end: number, reason: WhisperSkipped['reason']): void {
    const until = Math.min(end, this.#duration)
    if (until - start > SECONDS_PER_STEP) this.#skipped.push({ start, end: until, reason })
  }

  get #tokenizer() {
    return this.#model.tokenizer as NonNullable<Whisper['tokenizer']>
  }

  /** Yield the segments of each window. A window starts at the end of the last complete segment. */
  async *windows(samples: Tensor): AsyncGenerator<WhisperSegment[]> {
    const { mel, steps } = await noGrad(() => scope(() => spectrogramOf(this.#model, samples)))
    const size = windowOf(this.#model.config)
    const written: WhisperSegment[] = []
    try {
      this.#sounds = await noGrad(() => scope(() => audibleParts(samples, SPEECH_RATE)))
      this.#speech = this.#sounds
      const starts = Array.from({ length: Math.ceil(steps / size) }, (_, i) => i * size)
      await this.#detectLanguage(starts, async (start) => this.#windowOf(mel, start))
      for (let seek = 0; seek < steps; ) {
        this.#settings.signal?.throwIfAborted()
        const count = Math.min(size, steps - seek)
        const [window] = (await noGrad(() =>
          scope(() => this.#decode(this.#windowOf(mel, seek).unsqueeze(0), [count], [seek * SECONDS_PER_STEP])),
        )) as [Window]
        const { heard, done } = this.#cut(window, count, seek * SECONDS_PER_STEP, this.#duration)
        seek += done
        if (heard === undefined) continue
        this.#skipPassedOver(heard, seek * SECONDS_PER_STEP)
        this.#remember(heard)
        const made = this.#made(heard)
        written.push(...made)
        yield made
      }
    } finally {
      mel.dispose()
    }
    this.#skipUnwritten(0, this.#duration, written)
  }

  /** Yield the segments of each stretch of speech. `batchSize` windows are transcribed at a time. */
  async *pieces(samples: Tensor): AsyncGenerator<WhisperSegment[]> {
    const { batchSize = 1, vad, signal } = this.#settings
    const { pieces, speech } = await noGrad(() =>
      scope(() => speechPieces(samples, windowOf(this.#model.config) * SECONDS_PER_STEP, vad)),
    )
    this.#speech = speech
    this.#sounds = await noGrad(() => scope(() => audibleParts(samples, SPEECH_RATE)))
    const stretches: Stretch[] = pieces.map(([start, end]) => ({
      from: Math.round(start * SPEECH_RATE),
      to: Math.min(Math.round(end * SPEECH_RATE), samples.size(0)),
      seek: 0,
      heard: [],
      isDone: false,
    }))
    this.#skipBetween(stretches)
    await this.#detectLanguage(stretches, async (one) => (await this.#melOf(samples, one)).window)
    for (let next = 0; next < stretches.length; ) {
      signal?.throwIfAborted()
      const batch: Stretch[] = []
      for (let i = next; i < stretches.length && batch.length < batchSize; i += 1) {
        const one = stretches[i] as Stretch
        if (!one.isDone) batch.push(one)
      }
      const decoded = await noGrad(() => scope(() => this.#decodeStretches(samples, batch)))
      for (const [i, stretch] of batch.entries()) {
        const { window, steps } = decoded[i] as { window: Window; steps: number }
        const offset = stretch.from / SPEECH_RATE + stretch.seek * SECONDS_PER_STEP
        const { heard, done } = this.#cut(window, steps, offset, stretch.to / SPEECH_RATE)
        if (heard !== undefined) stretch.heard.push(heard)
        const { seek } = stretch
        stretch.seek += done
        if (done < steps) stretch.isDone = !this.#hasRest(stretch)
        else {
          // A text that ends with a single timestamp covers the whole window, unless speech continues after it.
          const last = this.#settings.timestamps ? 2 * (heard?.parts.at(-1)?.end ?? 0) : 0
          const goesOn =
            last > 0 && last < steps && secondsOf(speech, offset + last * SECONDS_PER_STEP, stretch.to / SPEECH_RATE)
          stretch.isDone = goesOn === false || goesOn < LEAST_UNWRITTEN
          if (!stretch.isDone) stretch.seek = seek + last
        }
        if (heard) this.#skipPassedOver(heard, stretch.from / SPEECH_RATE + stretch.seek * SECONDS_PER_STEP)
      }
      // Results are in order, even if a later stretch finishes first.
      for (; stretches[next]?.isDone; next += 1) {
        const stretch = stretches[next] as Stretch
        const made = stretch.heard.flatMap((heard) => this.#made(heard))
        this.#skipUnwritten(stretch.from / SPEECH_RATE, stretch.to / SPEECH_RATE, made)
        yield made
      }
    }
  }

  #skipBetween(stretches: readonly Stretch[]): void {
    let done = 0
    for (const { from, to } of stretches) {
      this.#skip(done, from / SPEECH_RATE, 'vad')
      done = to / SPEECH_RATE
    }
    this.#skip(done, this.#duration, 'vad')
  }

  /**
   * Report the parts of the recording from `start` to `end` seconds that have no segment and are not reported yet: the timestamps of
   * the network may leap, and a text may end long before its window. A detector may find little of soft speech, so a trace counts.
   */
  #skipUnwritten(start: number, end: number, made: readonly WhisperSegment[]): void {
    const known = [...made, ...this.#skipped, { start: end, end }].sort((a, b) => a.start - b.start)
    let done = start
    for (const one of known) {
      const next = Math.min(one.start, end)
      if (next - done >= LEAST_UNWRITTEN) {
        this.#skip(done, next, secondsOf(this.#speech, done, next) >= LEAST_REST ? 'noText' : 'vad')
      }
      done = Math.max(done, one.end)
    }
  }

  /**
   * Report audio that a window's text passes over, up to `end` seconds: the network may transcribe one of two speakers, in a
   * segment over both. The alignment shows it.
   */
  #skipPassedOver({ window, offset }: Heard, end: number): void {
    if (window.times.length === 0) return
    let done = offset
    const pass = (until: number): void => {
      const next = Math.min(until, end)
      const isLong = next - done >= LEAST_UNWRITTEN
      if (isLong && secondsOf(this.#sounds, done, next) >= LEAST_PASSED_OVER) this.#skip(done, next, 'noText')
    }
    for (const { time } of window.times) {
      pass(offset + time - LONGEST_TOKEN)
      done = Math.max(done, offset + time)
    }
    pass(end)
  }

  /** Return whether the rest of a stretch has speech; otherwise report it as skipped. */
  #hasRest({ from, to, seek }: Stretch): boolean {
    const [start, end] = [from / SPEECH_RATE + seek * SECONDS_PER_STEP, to / SPEECH_RATE]
    if (secondsOf(this.#speech, start, end) >= LEAST_REST) return true
    this.#skip(start, end, 'vad')
    return false
  }

  /** Return the next window of a stretch, [numMelBins, steps], and its number of steps with audio. */
  async #melOf(samples: Tensor, { from, to, seek }: Stretch): Promise<{ window: Tensor; steps: number }> {
    const { mel, steps } = await spectrogramOf(this.#model, samples.narrow(0, from, to - from))
    return { window: this.#windowOf(mel, seek), steps: steps - seek }
  }

  async #decodeStretches(samples: Tensor, batch: readonly Stretch[]) {
    const heard: { window: Tensor; steps: number }[] = []
    for (const stretch of batch) heard.push(await this.#melOf(samples, stretch))
    const steps = heard.map((one) => one.steps)
    const offsets = batch.map(({ from, seek }) => from / SPEECH_RATE + seek * SECONDS_PER_STEP)
    const windows = await this.#decode(ops.stack(heard.map(({ window }) => window)), steps, offsets)
    return windows.map((window, i) => ({ window, steps: steps[i] as number }))
  }

  /** Split a window into segments, unless it is silent, and return the number of finished spectrogram steps. */
  #cut(window: Window, steps: number, offset: number, until: number): { heard: Heard | undefined; done: number } {
    if (this.#isSilent(window)) {
      this.#skip(offset, offset + steps * SECONDS_PER_STEP, 'noSpeech')
      return { heard: undefined, done: steps }
    }
    const { tokens } = window
    const first = this.#model.tokens.noTimestamps + 1
    const { parts, done } = this.#settings.timestamps
      ? segmentsOf(tokens, first, steps, this.#kinds.isTime)
      : { parts: [{ start: 0, end: Math.floor(steps / 2), tokens }], done: steps }
    // A pair of timestamps at the very start of the window would cause an infinite loop.
    return { heard: { window, parts, offset, until }, done: done > 0 ? Math.min(done, steps) : steps }
  }

  /** Keep a window's text for the next one. */
  #remember({ window, parts }: Heard): void {
    // Sampled text may be wrong, so the next window is not conditioned on it.
    if (!this.#settings.conditionOnPrevious || window.temperature >= 0.5) {
      this.#history = []
      return
    }
    for (const { tokens } of parts) {
      const closed = tokens.length > 2 && this.#kinds.isTime(tokens.at(-2) as number)
      this.#history.push(...(closed ? tokens.slice(0, -1) : tokens))
    }
  }

  #isSilent({ avgLogprob, noSpeechProb }: Window): boolean {
    const { logprobThreshold, noSpeechThreshold } = this.#settings
    const unlikely = logprobThreshold === null || avgLogprob < logprobThreshold
    return noSpeechThreshold !== null && noSpeechProb > noSpeechThreshold && unlikely
  }

  #made({ window, parts, offset, until }: Heard): WhisperSegment[] {
    const { tokens: _, times, ...statistics } = window
    // Timestamps may reach into the silence that pads the window.
    const segments = parts.map(({ start, end, tokens }) => ({
      start: Math.min(until, offset + start * 2 * SECONDS_PER_STEP),
      end: Math.min(until, offset + end * 2 * SECONDS_PER_STEP),
      tokens,
    }))
    const complete = this.#settings.timestamps === 'word' ? this.#withWords(segments, times, offset) : segments
    const made = complete.map((segment) => ({ ...segment, text: this.#textOf(segment.tokens), ...statistics }))
    return made.filter(({ text }) => text.trim() !== '')
  }

  /** Add the words of each segment; `times` are those of the window's tokens, and the window starts at `offset` seconds. */
  #withWords(segments: TimedTokens[], times: TokenTimestamp[], offset: number): (TimedTokens & SpokenSegment)[] {
    const { trimPauses } = this.#settings
    let next = 0
    const aligned = segments.map((segment) => {
      const from = next
      next += segment.tokens.length
      const texts = segment.tokens.flatMap((id, i) => (this.#kinds.isText(id) ? [i] : []))
      const ids = texts.map((i) => segment.tokens[i] as number)
      const pieces = (trimPauses ? piecesOf : wordsOf)(this.#tokenizer, ids, this.language)
      const places = texts.map((i) => from + i)
      return { ...segment, pieces: pieces.map((piece) => timed(piece, places, times, offset)) }
    })
    if (!trimPauses) {
      return aligned.map(({ pieces, ...segment }) => ({
        ...segment,
        words: pieces.map(({ places: _, ...word }) => word),
      }))
    }
    const spoken = withoutPauses(aligned, this.#spokenUntil)
    this.#spokenUntil = endOfSpeech(spoken) ?? this.#spokenUntil
    return spoken.map((segment, i) => ({ ...segment, tokens: (segments[i] as TimedTokens).tokens }))
  }

  #textOf(tokens: number[]): string {
    return this.#tokenizer.decode(tokens.filter((id) => this.#kinds.isText(id)))
  }

  /** Return a window of a spectrogram from a step on, [numMelBins, steps of a window], padded with zeros. */
  #windowOf(mel: Tensor, seek: number): Tensor {
    const size = windowOf(this.#model.config)
    const there = Math.min(size, (mel.shape[1] as number) - seek)
    const window = mel.narrow(1, seek, there)
    return there < size ? ops.constantPadNd(window, [0, size - there]) : window
  }

  /** Transcribe spectrograms [batch, numMelBins, steps of a window] with `steps` steps of audio each, from `offsets` seconds on. */
  async #decode(inputFeatures: Tensor, steps: number[], offsets: number[]): Promise<Window[]> {
    const model = this.#model
    const { lastHiddenState: encoderHiddenStates } = await model.encode({ inputFeatures })
    const encoderCache = new KvCache()
    try {
      if (this.#detectsLanguage) this.#setLanguage(await this.#languageOf(encoderHiddenStates, encoderCache))
      const beginning = this.#beginning()
      const written = await this.#write(beginning, encoderHiddenStates, encoderCache)
      const times: TokenTimestamp[][] = written.map(() => [])
      const isAligned = ({ tokens }: Written, i: number): boolean => {
        if (tokens.length === 0 || this.#settings.timestamps === 'word') return tokens.length > 0
        const [start, count] = [offsets[i] as number, steps[i] as number]
        const spoken = secondsOf(this.#sounds, start, start + count * SECONDS_PER_STEP)
        const texts = tokens.filter((id) => this.#kinds.isText(id)).length
        return spoken >= LEAST_UNWRITTEN && texts < DENSE * spoken
      }
      if (written.some(isAligned)) {
        const frames = steps.map((count) => Math.floor(count / 2))
        const tokens = written.map((one) => one.written)
        times.splice(
          0,
          times.length,
          ...(await model.tokenTimestamps({ encoderCache, prompt: beginning, tokens, frames })),
        )
      }
      return written.map(({ written: _, ...text }, i) => ({ ...text, times: times[i] as TokenTimestamp[] }))
    } finally {
      encoderCache.dispose()
    }
  }

  /** Return the prompt: the previous text, then language, task and timestamp tokens. */
  #beginning(): number[] {
    const { tokens, config } = this.#model
    const { task, timestamps, carryInitialPrompt } = this.#settings
    const start = [tokens.startOfTranscript]
    if (this.language !== null) start.push(tokens.languages[this.language] as number, tokens[task as 'transcribe'])
    if (!timestamps) start.push(tokens.noTimestamps)
    const most = Math.floor(positionsOf(config) / 2) - 1
    const prompt = carryInitialPrompt ? this.#prompt.slice(-most) : []
    const room = most - prompt.length
    const before = [...prompt, ...(room > 0 ? this.#history.slice(-room) : [])]
    return before.length === 0 ? start : [tokens.startOfPrevious, ...before, ...start]
  }

  get #detectsLanguage(): boolean {
    return this.language === null && Object.keys(this.#model.tokens.languages).length > 0
  }

  #setLanguage([code, probability]: readonly [string, number]): void {
    this.language = code
    this.languageProbability = probability
  }

  /**
   * Detect the language in several windows, as faster-whisper does: the first that is certain enough decides, else the most frequent
   * language. With one window, the language is detected when it is transcribed, which saves an encoder pass.
   */
  async #detectLanguage<T>(places: readonly T[], windowAt: (place: T) => Promise<Tensor>): Promise<void> {
    const { languageDetectionSegments, languageDetectionThreshold, signal } = this.#settings
    if (!this.#detectsLanguage || languageDetectionSegments === 1 || places.length < 2) return
    const found: Record<string, number[]> = {}
    for (const place of places.slice(0, languageDetectionSegments)) {
      signal?.throwIfAborted()
      const [code, probability] = await noGrad(() =>
        scope(async () => {
          const inputFeatures = (await windowAt(place)).unsqueeze(0)
          const { lastHiddenState } = await this.#model.encode({ inputFeatures })
          return this.#languageOf(lastHiddenState)
        }),
      )
      if (probability > languageDetectionThreshold) return this.#setLanguage([code, probability])
      found[code] = [...(found[code] ?? []), probability]
    }
    const [code, all] = Object.entries(found).reduce((best, one) => (one[1].length > best[1].length ? one : best))
    this.#setLanguage([code, Math.max(...all)])
  }

  /** Return the language of the first clip, and its probability among all languages. */
  async #languageOf(encoderHiddenStates: Tensor, encoderCache?: KvCache): Promise<[string, number]> {
    const found = await detectLanguages(this.#model, encoderHiddenStates, encoderCache && { encoderCache })
    return found[0] as [string, number]
  }

  #rows(ids: number[], count: number): Tensor {
    const { device } = this.#model.parameters()[0] as Tensor
    return tensor(Array.from({ length: count }, () => ids.map(BigInt))).to(device)
  }

  async #write(beginning: number[], encoderHiddenStates: Tensor, encoderCache: KvCache): Promise<Written[]> {
    const [first, ...warmer] = [this.#settings.temperature].flat() as [number, ...number[]]
    const start = beginning.lastIndexOf(this.#model.tokens.startOfTranscript)
    const count = encoderHiddenStates.size(0)
    const inputIds = this.#rows(beginning, count)
    const written = await scope(() => this.#try(first, { inputIds, encoderHiddenStates, encoderCache }, start))
    for (const [i, one] of written.entries()) {
      if (warmer.length === 0 || !this.#isDoubtful(one)) continue
      const own = count === 1 ? encoderCache : new KvCache()
      const inputs = {
        inputIds: inputIds.narrow(0, i, 1),
        encoderHiddenStates: encoderHiddenStates.narrow(0, i, 1),
        encoderCache: own,
      }
      try {
        for (const temperature of warmer) {
          written[i] = (await scope(() => this.#try(temperature, inputs, start)))[0] as Written
          if (!this.#isDoubtful(written[i])) break
        }
      } finally {
        if (own !== encoderCache) own.dispose()
      }
    }
    return written
  }

  #isDoubtful({ avgLogprob, compressionRatio, noSpeechProb }: Written): boolean {
    const { compressionRatioThreshold, logprobThreshold, noSpeechThreshold } = this.#settings
    const unlikely = logprobThreshold !== null && avgLogprob < logprobThreshold
    const repeats = compressionRatioThreshold !== null && compressionRatio > compressionRatioThreshold
    const silent = noSpeechThreshold !== null && noSpeechProb > noSpeechThreshold
    return (unlikely || repeats) && !(silent && unlikely)
  }

  async #try(
    temperature: number,
    inputs: { inputIds: Tensor; encoderHiddenStates: Tensor; encoderCache: KvCache },
    start: number,
  ): Promise<Written[]> {
    const { beams, lengthPenalty, timestamps, generation, generator, signal, maxNewTokens } = this.#settings
    const { tokens: special, config, generationConfig } = this.#model
    const room = positionsOf(config) - (inputs.inputIds.shape[1] as number)
    const draws = temperature > 0
    const numBeams = draws ? 1 : beams
    // The first id is the end-of-text token, which bounds the text tokens.
    const ends = [...new Set([special.endOfText, ...[generationConfig.eosTokenId ?? []].flat()])]
    const topK = generation?.topK ?? generationConfig.topK ?? 0
    const choice: GenerationConfig = draws
      ? { doSample: true, temperature, topK, outputScores: true }
      : { doSample: false, outputLogprobs: true, lengthPenalty }
    const output = await this.#model.generate(
      inputs,
      {
        ...generation,
        ...choice,
        numBeams,
        numReturnSequences: 1,
        maxNewTokens: Math.min(room, maxNewTokens ?? room),
        returnTimestamps: timestamps !== false,
        noTimestampsTokenId: special.noTimestamps,
        ...(timestamps && { lastTimestampTokenId: this.#kinds.last }),
        eosTokenId: ends,
      },
      { generator, signal, promptLogitsAt: start },
    )
    return output.tokens.map((written, row) => {
      const tokens = ends.includes(written.at(-1) as number) ? written.slice(0, -1) : written
      return {
        written,
        tokens,
        temperature,
        avgLogprob: meanLogprob(output, temperature, row),
        noSpeechProb: probabilityOf(special.noSpeech, (output.promptLogits as Tensor).narrow(0, row, 1)),
        compressionRatio: ratioOf(this.#textOf(tokens)),
      }
    })
  }
}

/** Return the times of a piece. `places` are the positions of the window's tokens that the piece counts. */
export function timed(piece: Piece, places: number[], times: TokenTimestamp[], offset: number): TimedPiece {
  const own = piece.places.map((i) => places[i] as number)
  const endOf = (place: number): number => offset + (times[place]?.time ?? 0)
  const sum = own.reduce((sum, place) => sum + (times[place]?.probability ?? 0), 0)
  const [start, end] = [endOf((own[0] as number) - 1), endOf(own.at(-1) as number)]
  return { ...piece, start, end, probability: sum / own.length }
}

/** Return the probability of a token from logits [1, vocabSize]; 0 for a token outside of the vocabulary. */
const probabilityOf = (id: number, logits: Tensor): number =>
  id >= 0 && id < logits.size(1) ? (logits.softmax(-1).select(1, id).item() as number) : 0

/** Return the mean log probability of a row's tokens, end of text included, at temperature 1; with beams, their score. */
function meanLogprob(output: Awaited<ReturnType<Whisper['generate']>>, temperature: number, row: number): number {
  const { sequencesScores, logprobs, scores } = output
  const written = output.tokens[row] as number[]
  if (sequencesScores) return sequencesScores.select(0, row).item() as number
  if (logprobs) return (logprobs.select(0, row).sum().item() as number) / written.length
  const each = (scores as Tensor).select(1, row).narrow(0, 0, written.length).mul(temperature).logSoftmax(-1)
  return each
    .gather(
      1,
      tensor(
        written.map((id) => [BigInt(id)]),
        { device: each.device },
      ),
    )
    .mean()
    .item() as number
}

function ratioOf(text: string): number {
  const bytes = Buffer.from(text)
  return bytes.length / deflateSync(bytes).length
}
