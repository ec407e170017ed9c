import { deflateSync } from 'node:zlib'
import { splitOnSilence } from '../../audio/silence.js'
import { SPEECH_RATE } from '../../audio/speech.js'
import type { GenerationConfig } from '../../generation/config.js'
import { KvCache } from '../../generation/kv-cache.js'
import { noGrad, ops, scope, type Tensor, tensor } from '../../tensor/index.js'
import type { TokenTimestamp } from './alignment.js'
import { positionsOf, windowOf } from './config.js'
import {
  SECONDS_PER_STEP,
  type Settings,
  samplesOf,
  settingsOf,
  spectrogramOf,
  type TranscribeOptions,
  type WhisperAudio,
  type WhisperSegment,
  type WhisperTranscription,
} from './options.js'
import { endOfSpeech, type SpokenSegment, type TimedPiece, withoutPauses } from './pauses.js'
import { allSegmentsOf, segmentsOf, type TimedTokens } from './segments.js'
import { languageCode } from './tokens.js'
import type { Whisper } from './whisper.js'
import { type Piece, piecesOf, wordsOf } from './words.js'

/** What a window's text is, and how sure it is. */
interface Window {
  /** Without the end of the text. */
  tokens: number[]
  /** Of each token, where words are asked for. */
  times: TokenTimestamp[]
  avgLogprob: number
  compressionRatio: number
  noSpeechProb: number
  temperature: number
}

/** A window's text before its words are known; `written` ends with the end of the text, where it came. */
type Written = Omit<Window, 'times'> & { written: number[] }

/** See `Whisper.transcribe`. Method: Radford et al. 2022, https://arxiv.org/abs/2212.04356, section 4.5. */
export async function* transcribeSegments(
  model: Whisper,
  audio: WhisperAudio,
  options: TranscribeOptions,
): AsyncGenerator<WhisperSegment, WhisperTranscription, void> {
  const settings = settingsOf(model, options)
  settings.signal?.throwIfAborted()
  const samples = await scope(() => samplesOf(model, audio))
  const run = new Run(model, settings)
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
  return { text: text.trim(), language: run.language, segments }
}

/** One transcription under way. */
class Run {
  language: string | null = null
  readonly #model: Whisper
  readonly #settings: Settings
  /** The tokens that the next window goes on from. */
  #history: number[] = []
  /** In seconds: where the last word so far ends, with `trimPauses`. */
  #spokenUntil = 0

  constructor(model: Whisper, settings: Settings) {
    this.#model = model
    this.#settings = settings
    const { language, initialPrompt } = settings
    if (language != null) this.language = languageCode(model.tokens, language)
    if (initialPrompt !== undefined && initialPrompt.trim() !== '') {
      this.#history = this.#tokenizer.encode(` ${initialPrompt.trim()}`, { addSpecialTokens: false }).inputIds
    }
  }

  get #tokenizer() {
    return this.#model.tokenizer as NonNullable<Whisper['tokenizer']>
  }

  /** The segments of one window after the other, each beginning where the last whole segment ended. */
  async *windows(samples: Tensor): AsyncGenerator<WhisperSegment[]> {
    const { mel, steps } = await noGrad(() => scope(() => spectrogramOf(this.#model, samples)))
    try {
      for (let seek = 0; seek < steps; ) {
        this.#settings.signal?.throwIfAborted()
        const { made, done } = await this.#window(mel, seek, Math.min(windowOf(this.#model.config), steps - seek))
        seek += done
        yield made
      }
    } finally {
      mel.dispose()
    }
  }

  /** The segments of one piece after the other, which are written `batchSize` at a time. */
  async *pieces(samples: Tensor): AsyncGenerator<WhisperSegment[]> {
    const { batchSize = 1, vad, signal } = this.#settings
    const split = { maxSeconds: windowOf(this.#model.config) * SECONDS_PER_STEP, ...(vad && { vad }) }
    const pieces = await noGrad(() => scope(() => splitOnSilence(samples, SPEECH_RATE, split)))
    for (let at = 0; at < pieces.length; at += batchSize) {
      signal?.throwIfAborted()
      const places = pieces.slice(at, at + batchSize).map(([start, end]) => {
        const from = Math.round(start * SPEECH_RATE)
        return { from, length: Math.min(Math.round(end * SPEECH_RATE), samples.size(0)) - from }
      })
      const decoded = await noGrad(() => scope(() => this.#decodePieces(samples, places)))
      for (const [i, { window, steps }] of decoded.entries()) {
        const first = this.#model.tokens.noTimestamps + 1
        const parts = this.#settings.timestamps
          ? allSegmentsOf(window.tokens, first, steps)
          : [{ start: 0, end: Math.floor(steps / 2), tokens: window.tokens }]
        const offset = (places[i] as { from: number }).from / SPEECH_RATE
        yield this.#isSilent(window) ? [] : this.#made(window, parts, offset)
      }
    }
  }

  async #decodePieces(samples: Tensor, places: { from: number; length: number }[]) {
    const heard: { mel: Tensor; steps: number }[] = []
    for (const { from, length } of places) {
      heard.push(await spectrogramOf(this.#model, samples.narrow(0, from, length)))
    }
    const steps = heard.map((one) => one.steps)
    const windows = await this.#decode(
      ops.stack(heard.map(({ mel }) => mel.narrow(1, 0, windowOf(this.#model.config)))),
      steps,
    )
    return windows.map((window, i) => ({ window, steps: steps[i] as number }))
  }

  /** The segments that begin at a step of the spectrogram, and how many steps are done with them. */
  async #window(mel: Tensor, seek: number, steps: number): Promise<{ made: WhisperSegment[]; done: number }> {
    const { timestamps, conditionOnPrevious } = this.#settings
    const [window] = (await noGrad(() => scope(() => this.#decodeWindow(mel, seek, steps)))) as [Window]
    if (this.#isSilent(window)) return { made: [], done: steps }
    const { tokens, temperature } = window
    const first = this.#model.tokens.noTimestamps + 1
    const { parts, done } = timestamps
      ? segmentsOf(tokens, first, steps)
      : { parts: [{ start: 0, end: Math.floor(steps / 2), tokens }], done: steps }
    // What was drawn may be nonsense, which the next window had better not go on from.
    if (!conditionOnPrevious || temperature >= 0.5) this.#history = []
    else {
      for (const part of parts) {
        const closed = part.tokens.length > 2 && (part.tokens.at(-2) as number) >= first
        this.#history.push(...(closed ? part.tokens.slice(0, -1) : part.tokens))
      }
    }
    // A pair of timestamps at the window's very beginning would be read again for ever.
    return { made: this.#made(window, parts, seek * SECONDS_PER_STEP), done: done > 0 ? done : steps }
  }

  #isSilent({ avgLogprob, noSpeechProb }: Window): boolean {
    const { logprobThreshold, noSpeechThreshold } = this.#settings
    const unlikely = logprobThreshold === null || avgLogprob < logprobThreshold
    return noSpeechThreshold !== null && noSpeechProb > noSpeechThreshold && unlikely
  }

  /** `offset`: where the window begins, in seconds. */
  #made(window: Window, parts: TimedTokens[], offset: number): WhisperSegment[] {
    const { tokens: _, times, ...statistics } = window
    const segments = parts.map(({ start, end, tokens }) => ({
      start: offset + start * 2 * SECONDS_PER_STEP,
      end: offset + end * 2 * SECONDS_PER_STEP,
      tokens,
    }))
    const complete = this.#settings.timestamps === 'word' ? this.#withWords(segments, times, offset) : segments
    const made = complete.map((segment) => ({ ...segment, text: this.#textOf(segment.tokens), ...statistics }))
    return made.filter(({ text }) => text.trim() !== '')
  }

  /** With the words of each segment; `times` are those of the window's tokens, which begins at `offset` seconds. */
  #withWords(segments: TimedTokens[], times: TokenTimestamp[], offset: number): (TimedTokens & SpokenSegment)[] {
    const { trimPauses } = this.#settings
    let next = 0
    const aligned = segments.map((segment) => {
      const from = next
      next += segment.tokens.length
      const texts = segment.tokens.flatMap((id, i) => (id < this.#model.tokens.endOfText ? [i] : []))
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
    return this.#tokenizer.decode(tokens.filter((id) => id < this.#model.tokens.endOfText))
  }

  #decodeWindow(mel: Tensor, seek: number, steps: number): Promise<Window[]> {
    const size = windowOf(this.#model.config)
    const there = Math.min(size, (mel.shape[1] as number) - seek)
    let window = mel.narrow(1, seek, there)
    if (there < size) window = ops.constantPadNd(window, [0, size - there])
    return this.#decode(window.unsqueeze(0), [steps])
  }

  /** Of each of the spectrograms [batch, numMelBins, steps of a window], of which `steps` are audio. */
  async #decode(inputFeatures: Tensor, steps: number[]): Promise<Window[]> {
    const model = this.#model
    const { lastHiddenState: encoderHiddenStates } = await model.encode({ inputFeatures })
    const encoderCache = new KvCache()
    try {
      if (this.language === null && Object.keys(model.tokens.languages).length > 0) {
        this.language = await this.#languageOf(encoderHiddenStates, encoderCache)
      }
      const beginning = this.#beginning()
      const written = await this.#write(beginning, encoderHiddenStates, encoderCache)
      const times: TokenTimestamp[][] = written.map(() => [])
      if (this.#settings.timestamps === 'word' && written.some(({ tokens }) => tokens.length > 0)) {
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

  /** What came before, then what kind of text is to come. */
  #beginning(): number[] {
    const { tokens, config } = this.#model
    const { task, timestamps } = this.#settings
    const start = [tokens.startOfTranscript]
    if (this.language !== null) start.push(tokens.languages[this.language] as number, tokens[task as 'transcribe'])
    if (!timestamps) start.push(tokens.noTimestamps)
    if (this.#history.length === 0) return start
    const kept = this.#history.slice(-(Math.floor(positionsOf(config) / 2) - 1))
    return [tokens.startOfPrevious, ...kept, ...start]
  }

  /** By the first clip. */
  async #languageOf(encoderHiddenStates: Tensor, encoderCache: KvCache): Promise<string> {
    const { languages, startOfTranscript } = this.#model.tokens
    const decoderInputIds = this.#rows([startOfTranscript], encoderHiddenStates.size(0))
    const { logits } = await this.#model.forward({ decoderInputIds, encoderHiddenStates, encoderCache })
    const scores = (logits as Tensor).select(0, 0).to('float32').flatten().toArray() as number[]
    const score = (code: string): number => scores[languages[code] as number] as number
    return Object.keys(languages).reduce((best, code) => (score(code) > score(best) ? code : best))
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
    const { tokens: special, config } = this.#model
    const room = positionsOf(config) - (inputs.inputIds.shape[1] as number)
    const draws = temperature > 0
    const numBeams = draws ? 1 : beams
    const choice: GenerationConfig = draws
      ? { doSample: true, temperature, topK: 0, outputScores: true }
      : { doSample: false, outputLogprobs: true, lengthPenalty }
    const output = await this.#model.generate(
      inputs,
      {
        ...generation,
        ...choice,
        numBeams,
        maxNewTokens: Math.min(room, maxNewTokens ?? room),
        returnTimestamps: timestamps !== false,
        noTimestampsTokenId: special.noTimestamps,
        eosTokenId: special.endOfText,
      },
      { generator, signal, promptLogitsAt: start },
    )
    return output.tokens.map((written, row) => {
      const tokens = written.at(-1) === special.endOfText ? written.slice(0, -1) : written
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

/** `places`: where the tokens that a piece counts stand in the window. */
export function timed(piece: Piece, places: number[], times: TokenTimestamp[], offset: number): TimedPiece {
  const own = piece.places.map((i) => places[i] as number)
  const endOf = (place: number): number => offset + (times[place]?.time ?? 0)
  const sum = own.reduce((sum, place) => sum + (times[place]?.probability ?? 0), 0)
  const [start, end] = [endOf((own[0] as number) - 1), endOf(own.at(-1) as number)]
  return { ...piece, start, end, probability: sum / own.length }
}

/** Of a token, by logits [1, vocabSize]; 0 where the vocabulary has no such token. */
const probabilityOf = (id: number, logits: Tensor): number =>
  id >= 0 && id < logits.size(1) ? (logits.softmax(-1).select(1, id).item() as number) : 0

/** Of all tokens of a row, the end of the text too, as they are at temperature 1; with beams it is their score. */
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
