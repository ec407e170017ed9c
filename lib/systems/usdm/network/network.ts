import { createHash } from 'node:crypto'
import { type AudioClip, openClip } from '../../../audio/clip.js'
import { abortable, argumentError, defined, isArrayLike, requireOptions, requireSignal } from '../../../base/check.js'
import { ConfigError, DataError } from '../../../base/errors.js'
import { requireForm } from '../../../base/form.js'
import { mapped } from '../../../generation/generators.js'
import { configurations, weightsHash } from '../../../kit/fingerprint.js'
import { DecoderLM } from '../../../models/decoder/decoder-lm.js'
import { UnitExtractor } from '../../../models/units/unit-extractor.js'
import { Module } from '../../../nn/index.js'
import { Generator, scope } from '../../../tensor/index.js'
import { templateText } from '../data/prompt.js'
import { UsdmTokenizer } from '../data/text.js'
import { UsdmCache } from './cache.js'
import { type LoadUsdmOptions, loadUsdm, saveUsdm, type UsdmSource } from './files.js'
import {
  checkParts,
  checkRespond,
  RESPOND,
  STREAM,
  type UsdmEvent,
  type UsdmParts,
  type UsdmQuestion,
  type UsdmReply,
  type UsdmRespondOptions,
  type UsdmStreamOptions,
  type UsdmVoiceOptions,
  VOICE,
} from './options.js'
import { mostUnits, pronounced, replied, transcribed, type UsdmFinish, type Writing } from './passes.js'
import { Residence } from './residence.js'
import {
  type Speaking,
  speakAtOnce,
  speakInPieces,
  type UsdmVocoder,
  UsdmVoice,
  type UsdmVoicebox,
  voiceOf,
} from './speech.js'

/**
 * USDM (Kim et al. 2024, https://arxiv.org/abs/2402.05706): speech in, speech out. A question is encoded as units. A language model
 * generates its transcript, the reply's text and the reply's units. A Voicebox and a vocoder turn the units into audio.
 *
 * ```ts
 * using usdm = await Usdm.fromPretrained('./usdm')
 * const { transcript, text, wav } = await usdm.respond('question.wav', { reference: 'voice.wav', seed: 1 })
 * ```
 * `dispose()` frees what `fromPretrained` loaded; or declare it with `using`.
 */
export class Usdm {
  readonly llm: DecoderLM
  readonly tokenizer: UsdmTokenizer
  readonly units: UnitExtractor
  readonly voicebox: UsdmVoicebox | null
  readonly vocoder: UsdmVocoder | null
  readonly #residences: Record<'encoding' | 'generation' | 'speech', Residence>
  #own: { dispose(): void }[] = []

  /** @throws ConfigError for parts that do not match each other */
  constructor(parts: UsdmParts) {
    requireOptions('Usdm', parts, ['llm', 'tokenizer', 'units', 'voicebox', 'vocoder', 'offload'])
    const { llm, tokenizer, units, voicebox = null, vocoder = null, offload } = parts
    if (!(llm instanceof DecoderLM)) throw argumentError('Usdm', 'llm', 'a DecoderLM', llm)
    if (!(tokenizer instanceof UsdmTokenizer)) throw argumentError('Usdm', 'tokenizer', 'a UsdmTokenizer', tokenizer)
    if (!(units instanceof UnitExtractor)) throw argumentError('Usdm', 'units', 'a UnitExtractor', units)
    if (voicebox !== null) requireForm('Usdm', 'voicebox', voicebox, VOICEBOX)
    if (vocoder !== null) requireForm('Usdm', 'vocoder', vocoder, VOCODER)
    checkParts({ llm, tokenizer, units, voicebox, vocoder })
    this.llm = llm
    this.tokenizer = tokenizer
    this.units = units
    this.voicebox = voicebox
    this.vocoder = vocoder
    this.#residences = {
      encoding: new Residence([units.encoder.network], offload),
      generation: new Residence([llm], offload),
      speech: new Residence([voicebox, vocoder], offload),
    }
  }

  /**
   * Load the published parts, each in its own layout; or a folder that `save` wrote; or the original's model cache, a folder with
   * `xlsr2_1b_v2.pt` and `kmeans_10k.npy`, to which the other repositories are downloaded.
   * @throws ConfigError for parts that do not match each other; CheckpointError, DataError, HubError for files that cannot be loaded
   */
  static async fromPretrained(source: string | UsdmSource, options: LoadUsdmOptions = {}): Promise<Usdm> {
    const { parts, own } = await loadUsdm(source, options)
    try {
      const usdm = new Usdm(parts)
      usdm.#own = own
      return usdm
    } catch (error) {
      for (const one of own) one.dispose()
      throw error
    }
  }

  /** Save all parts into a folder that `fromPretrained` reads: `llm`, `encoder`, `kmeans.npy`, `voicebox`, `vocoder`. */
  save(directory: string): Promise<void> {
    return saveUsdm(directory, this)
  }

  /** Return a hash of the networks, the centroids and the tokenizer. Reads all weights. */
  async fingerprint(): Promise<string> {
    const hash = createHash('sha256')
    hash.update(`${await this.units.fingerprint()} ${JSON.stringify(this.tokenizer.ids)} ${this.tokenizer.vocabSize}`)
    for (const [name, part] of Object.entries({ llm: this.llm, voicebox: this.voicebox, vocoder: this.vocoder })) {
      const [config, weights] =
        part instanceof Module ? [configurations(part), await weightsHash(part)] : [part?.constructor.name, '']
      hash.update(`\n${name} ${config} ${weights}`)
    }
    return hash.digest('hex')
  }

  /** Sample rate of the spoken replies, in Hz. */
  get sampleRate(): number {
    return this.vocoder?.sampleRate ?? 22_050
  }

  /** Whether there are a Voicebox and a vocoder. */
  get speaks(): boolean {
    return this.voicebox !== null && this.vocoder !== null
  }

  /**
   * Reply to a spoken question: transcribe it, generate the reply's text, and speak it in one piece.
   * @throws DataError for a clip that is too short, contains NaN or cannot be read, for a conversation that is too long, and for a
   * reply without units if audio was requested; ConfigError for wrong options; the reason of `signal`
   */
  async respond(question: UsdmQuestion, options: UsdmRespondOptions = {}): Promise<UsdmReply> {
    const values = RESPOND.read('Usdm.respond', options)
    for await (const event of this.#answer('Usdm.respond', question, values, null)) {
      if (event.type === 'reply') return event.reply
    }
    throw new DataError('Usdm.respond: expected a reply, got a stream that ended without one')
  }

  /**
   * Stream a reply: texts as they are generated, and audio in pieces while units are still generated. Each piece is conditioned on the
   * one before, where `respond` generates all audio at once, so the audio differs; the text is the same. A vocoder without `stream`,
   * such as Griffin-Lim, gives one piece. Leaving the loop stops generation.
   * @throws as `respond`
   */
  async *stream(question: UsdmQuestion, options: UsdmStreamOptions = {}): AsyncGenerator<UsdmEvent, void, undefined> {
    const { firstUnits, chunkUnits, ...rest } = STREAM.read('Usdm.stream', options)
    yield* this.#answer('Usdm.stream', question, rest, { firstUnits, chunkUnits })
  }

  /**
   * Return the voice of a clip, for `reference` of several replies. Use a few seconds of one speaker; longer clips make each reply
   * slower.
   * @throws ConfigError without a Voicebox; DataError as `respond`, and for a clip longer than `maxSeconds`, before it is encoded
   */
  async voice(clip: AudioClip, options: UsdmVoiceOptions = {}): Promise<UsdmVoice> {
    const where = 'Usdm.voice'
    const { maxSeconds, signal } = VOICE.read(where, options)
    const { voicebox } = this
    if (!voicebox) {
      throw new ConfigError(`${where}: expected a Usdm with a Voicebox, got one without.`, { argument: 'voicebox' })
    }
    return scope(async () => {
      const place = { where, argument: 'reference' }
      // Samples without a rate are taken as speech at the default rate. A little more than allowed is read, to detect longer clips.
      const limits = { sampleRate: null, maxSeconds: maxSeconds + 0.1, ...defined({ signal }) }
      const { samples: original, sampleRate } = await openClip(place, clip, limits)
      if (original.size(0) > maxSeconds * sampleRate) {
        throw new DataError(
          `${where}: expected a reference clip of at most ${maxSeconds} s, got a longer one. Shorten it, or set maxSeconds of Usdm.voice.`,
          { ...(typeof clip === 'string' && { file: clip }), maxSeconds },
        )
      }
      const reference = { samples: original, sampleRate }
      const units = await this.#encode(reference, signal)
      const { samples } = await openClip(place, reference, { sampleRate: this.sampleRate })
      using _lease = this.#residences.speech.enter()
      return await voiceOf(voicebox, samples, units)
    })
  }

  /** Encode a clip as units, which several questions can share. @throws DataError as `respond` */
  async hear(clip: AudioClip, options: { signal?: AbortSignal } = {}): Promise<Int32Array> {
    requireOptions('Usdm.hear', options, ['signal'])
    requireSignal('Usdm.hear', options.signal)
    return this.#encode(clip, options.signal, mostUnits(this.llm, this.tokenizer, []))
  }

  /** @param maxUnits longer clips are refused before encoding, whose time grows with the square of the length */
  async #encode(question: UsdmQuestion, signal: AbortSignal | undefined, maxUnits?: number): Promise<Int32Array> {
    signal?.throwIfAborted()
    if (typeof question === 'object' && question !== null && 'units' in question) {
      const { units } = question
      if (!isArrayLike(units)) throw argumentError('Usdm', 'the units of the question', 'a list of units', units)
      for (const unit of Array.from(units)) this.tokenizer.unitId(unit as number)
      return Int32Array.from(units as ArrayLike<number>)
    }
    const lease = this.#residences.encoding.enter()
    // A pass of the encoder is not interrupted, and needs its weights on the device until it ends.
    const units = this.units.extract(question, defined({ maxUnits })).finally(() => lease[Symbol.dispose]())
    return abortable(signal, units)
  }

  async *#answer(
    where: string,
    question: UsdmQuestion,
    options: UsdmRespondOptions,
    pieces: { firstUnits: number; chunkUnits: number } | null,
  ): AsyncGenerator<UsdmEvent, void, undefined> {
    checkRespond(where, this, options)
    const { history = [], sampling = {}, maxUnits, maxTextTokens, strict = false, seed, batching, signal } = options
    const { audio = this.speaks, cache = new UsdmCache() } = options
    const { llm, tokenizer, vocoder, sampleRate } = this
    const disposables: { dispose(): void }[] = options.cache ? [] : [cache]
    cache.begin()
    const leases: Disposable[] = []
    try {
      const units = await this.#encode(question, signal, mostUnits(llm, tokenizer, history))
      yield { type: 'question', units }
      const speaking = audio ? await this.#speaking(options, disposables) : undefined
      const generator = seed === undefined ? undefined : new Generator({ seed })
      if (generator) disposables.push(generator)
      const writing: Writing = {
        ...{ llm, tokenizer, cache, sampling, strict, maxUnits, maxTextTokens },
        ...{ generator, batching, signal },
      }
      const writes = this.#residences.generation.enter()
      leases.push(writes)
      const known = (text: string | undefined) => text !== undefined && { text, finish: 'stop' as const }
      const transcript = known(options.transcript) || (yield* transcribed(writing, { units, history }))
      // The model's output is inserted unchanged; the caller's texts are formatted like the training data.
      const spelled = (who: 'user' | 'agent', own: string | undefined, text: string) =>
        own === undefined ? text : templateText(who, own)
      const input = { units, history, transcript: spelled('user', options.transcript, transcript.text) }
      const text = known(options.reply) || (yield* replied(writing, input))
      const pass = pronounced(writing, { ...input, reply: spelled('agent', options.reply, text.text) })
      const unitsSoFar: number[] = []
      const audioPieces: Float32Array[] = []
      let end: UsdmFinish = 'stop'
      const source = (async function* () {
        end = yield* mapped(pass, (unit) => {
          unitsSoFar.push(unit)
          return unit
        })
      })()
      let reported = 0
      const event = (samples: Float32Array | null): UsdmEvent => {
        const units = unitsSoFar.slice(reported)
        reported = unitsSoFar.length
        if (samples) audioPieces.push(samples)
        return { type: 'speech', units, samples }
      }
      if (speaking && pieces) {
        leases.push(this.#residences.speech.enter())
        for await (const samples of speakInPieces(speaking, source, pieces)) yield event(samples)
      } else {
        for await (const _ of source) yield event(null)
        writes[Symbol.dispose]()
        if (speaking && unitsSoFar.length > 0) {
          leases.push(this.#residences.speech.enter())
          yield event(await speakAtOnce(speaking, unitsSoFar))
        }
      }
      if (speaking && unitsSoFar.length === 0) {
        const message = `${where}: expected a reply with units, got none for ${JSON.stringify(text.text)}, so there is no audio`
        throw new DataError(message, { transcript: transcript.text, text: text.text })
      }
      const user = { text: transcript.text, units }
      const reply: UsdmReply = {
        transcript: transcript.text,
        text: text.text,
        units: unitsSoFar,
        wav: speaking ? { samples: joined(audioPieces), sampleRate: vocoder?.sampleRate ?? sampleRate } : null,
        finish: { transcript: transcript.finish, text: text.finish, units: end },
        turn: { user, agent: { text: text.text, units: unitsSoFar } },
      }
      yield { type: 'reply', reply }
    } finally {
      for (const lease of leases) lease[Symbol.dispose]()
      cache.end()
      for (const one of disposables) one.dispose()
    }
  }

  /** Return the settings for speaking a reply. A voice that is disposables here is added to `disposables`, which the caller disposes. */
  async #speaking(options: UsdmRespondOptions, disposables: { dispose(): void }[]): Promise<Speaking> {
    const { reference, steps, solver, guidance, seed, signal } = options
    let voice = reference instanceof UsdmVoice ? reference : undefined
    if (reference !== undefined && voice === undefined) {
      voice = await this.voice(reference as AudioClip, defined({ signal }))
      disposables.push(voice)
    }
    return {
      ...{ voicebox: this.voicebox as UsdmVoicebox, vocoder: this.vocoder as UsdmVocoder },
      ...{ steps, solver, guidance, signal, voice, seed },
    }
  }

  /** Free the parts that `fromPretrained` loaded. Parts passed to the constructor are kept. */
  dispose(): void {
    for (const one of this.#own.splice(0)) one.dispose()
  }

  [Symbol.dispose](): void {
    this.dispose()
  }
}

const VOICEBOX = { config: 'object', generate: 'function', normalize: 'function', denormalize: 'function' } as const
const VOCODER = { sampleRate: 'number', samplesPerFrame: 'number', forward: 'function', 'stream?': 'function' } as const

function joined(parts: readonly Float32Array[]): Float32Array {
  const whole = new Float32Array(parts.reduce((sum, { length }) => sum + length, 0))
  let at = 0
  for (const part of parts) {
    whole.set(part, at)
    at += part.length
  }
  return whole
}
