import { createHash } from 'node:crypto'
import { type AudioClip, openClip } from '../../../audio/clip.js'
import {
  abortable,
  defined,
  isArrayLike,
  misuse,
  requireNumber,
  requireOptions,
  requireSignal,
  requireWhole,
} from '../../../base/check.js'
import { ConfigError, DataError } from '../../../base/errors.js'
import { requireForm } from '../../../base/form.js'
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
  PIECES,
  REFERENCE_SECONDS,
  RESPOND,
  STREAM,
  type UsdmEvent,
  type UsdmParts,
  type UsdmQuestion,
  type UsdmReply,
  type UsdmRespondOptions,
  type UsdmStreamOptions,
  type UsdmVoiceOptions,
} from './options.js'
import { mostUnits, pronounced, replied, transcribed, type UsdmFinish, type Writing } from './passes.js'
import { Residence } from './residence.js'
import {
  type Speaking,
  spokenAsTheyCome,
  spokenWhole,
  type UsdmVocoder,
  UsdmVoice,
  type UsdmVoicebox,
  voiceOf,
} from './speech.js'

/**
 * USDM (Kim et al. 2024, https://arxiv.org/abs/2402.05706): speech in, speech out. A question becomes units; a language model
 * writes what was said, what to reply, and the reply's units; a Voicebox and a vocoder make sound of them.
 *
 * ```ts
 * using usdm = await Usdm.fromPretrained('./usdm')
 * const { transcript, text, wav } = await usdm.respond('question.wav', { reference: 'voice.wav', seed: 1 })
 * ```
 * Owns what `fromPretrained` loaded: `dispose()` it, or declare it with `using`.
 */
export class Usdm {
  readonly llm: DecoderLM
  readonly tokenizer: UsdmTokenizer
  readonly units: UnitExtractor
  readonly voicebox: UsdmVoicebox | null
  readonly vocoder: UsdmVocoder | null
  readonly #rooms: Record<'hearing' | 'writing' | 'speaking', Residence>
  #own: { dispose(): void }[] = []

  /** @throws ConfigError for parts that do not fit each other */
  constructor(parts: UsdmParts) {
    requireOptions('Usdm', parts, ['llm', 'tokenizer', 'units', 'voicebox', 'vocoder', 'offload'])
    const { llm, tokenizer, units, voicebox = null, vocoder = null, offload } = parts
    if (!(llm instanceof DecoderLM)) throw misuse('Usdm', 'llm', 'a DecoderLM', llm)
    if (!(tokenizer instanceof UsdmTokenizer)) throw misuse('Usdm', 'tokenizer', 'a UsdmTokenizer', tokenizer)
    if (!(units instanceof UnitExtractor)) throw misuse('Usdm', 'units', 'a UnitExtractor', units)
    if (voicebox !== null) requireForm('Usdm', 'voicebox', voicebox, VOICEBOX)
    if (vocoder !== null) requireForm('Usdm', 'vocoder', vocoder, VOCODER)
    checkParts({ llm, tokenizer, units, voicebox, vocoder })
    this.llm = llm
    this.tokenizer = tokenizer
    this.units = units
    this.voicebox = voicebox
    this.vocoder = vocoder
    this.#rooms = {
      hearing: new Residence([units.encoder.network], offload),
      writing: new Residence([llm], offload),
      speaking: new Residence([voicebox, vocoder], offload),
    }
  }

  /**
   * The published parts, each in its own layout; or a folder that `save` wrote; or the original's model cache, a folder with
   * `xlsr2_1b_v2.pt` and `kmeans_10k.npy` to which the repositories of the rest are fetched.
   * @throws ConfigError for parts that do not fit each other; CheckpointError, DataError, HubError for files that cannot be had
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

  /** Writes all parts into a folder, which `fromPretrained` reads: `llm`, `encoder`, `kmeans.npy`, `voicebox`, `vocoder`. */
  save(directory: string): Promise<void> {
    return saveUsdm(directory, this)
  }

  /** A text that another network, other centroids or another tokenizer change. Reads all weights once. */
  async fingerprint(): Promise<string> {
    const hash = createHash('sha256')
    hash.update(`${await this.units.fingerprint()} ${JSON.stringify(this.tokenizer.ids)} ${this.tokenizer.vocabSize}`)
    for (const [name, part] of Object.entries({ llm: this.llm, voicebox: this.voicebox, vocoder: this.vocoder })) {
      const [config, weights] = part instanceof Module ? [configurations(part), await weightsHash(part)] : [part?.constructor.name, ''] // biome-ignore format: one line
      hash.update(`\n${name} ${config} ${weights}`)
    }
    return hash.digest('hex')
  }

  /** In Hz, of what it says. */
  get sampleRate(): number {
    return this.vocoder?.sampleRate ?? 22_050
  }

  /** Whether it has what speech is made with. */
  get speaks(): boolean {
    return this.voicebox !== null && this.vocoder !== null
  }

  /**
   * The answer to what was said: heard, written down, answered, spoken; the whole reply as one sound.
   * @throws DataError for a clip that is too short, holds NaN or cannot be read, for a conversation that is too long, and for a
   * reply without units where sound was asked for; ConfigError for wrong options; the reason of `signal`
   */
  async respond(question: UsdmQuestion, options: UsdmRespondOptions = {}): Promise<UsdmReply> {
    requireOptions('Usdm.respond', options, RESPOND)
    for await (const event of this.#answer('Usdm.respond', question, options, null)) {
      if (event.type === 'reply') return event.reply
    }
    throw new DataError('Usdm.respond: the reply did not end', {})
  }

  /**
   * The same as it comes: texts as they are written, and sound in pieces while units are still written. Pieces are made one after
   * the other, each going on from the one before, where `respond` makes all at once: the sound is another, and the text is not.
   * A vocoder without `stream`, such as Griffin-Lim, gives one piece. Leaving the loop ends it.
   * @throws as `respond`
   */
  async *stream(question: UsdmQuestion, options: UsdmStreamOptions = {}): AsyncGenerator<UsdmEvent, void, undefined> {
    requireOptions('Usdm.stream', options, STREAM)
    const { firstUnits = PIECES.firstUnits, chunkUnits = PIECES.chunkUnits, ...rest } = options
    requireWhole('Usdm.stream', 'firstUnits', firstUnits, 1)
    requireWhole('Usdm.stream', 'chunkUnits', chunkUnits, 1)
    yield* this.#answer('Usdm.stream', question, rest, { firstUnits, chunkUnits })
  }

  /**
   * A voice for several replies, of a clip: what `reference` takes. A few seconds of one speaker; longer ones make each reply
   * slower.
   * @throws ConfigError without a Voicebox; DataError as `respond`, and for a clip of more than `maxSeconds`, before it is heard
   */
  async voice(clip: AudioClip, options: UsdmVoiceOptions = {}): Promise<UsdmVoice> {
    const where = 'Usdm.voice'
    requireOptions(where, options, ['maxSeconds', 'signal'])
    const { maxSeconds = REFERENCE_SECONDS, signal } = options
    requireNumber(where, 'maxSeconds', maxSeconds, { least: 0 })
    requireSignal(where, signal)
    const { voicebox } = this
    if (!voicebox) throw new ConfigError(`${where}: there is no Voicebox`, { argument: 'voicebox' })
    return scope(async () => {
      const place = { where, argument: 'reference' }
      // Samples alone are those of speech. A little more than allowed tells that there is more.
      const limits = { sampleRate: null, maxSeconds: maxSeconds + 0.1, ...defined({ signal }) }
      const { samples: given, sampleRate } = await openClip(place, clip, limits)
      if (given.size(0) > maxSeconds * sampleRate) {
        throw new DataError(
          `${where}: the clip whose voice is wanted lasts more than ${maxSeconds} s; take a part of it, or set maxSeconds of Usdm.voice`,
          { ...(typeof clip === 'string' && { file: clip }), maxSeconds },
        )
      }
      const heard = { samples: given, sampleRate }
      const units = await this.#heard(heard, signal)
      const { samples } = await openClip(place, heard, { sampleRate: this.sampleRate })
      using _room = this.#rooms.speaking.enter()
      return await voiceOf(voicebox, samples, units)
    })
  }

  /** The units of what was said, with which several questions about it are asked. @throws DataError as `respond` */
  async hear(clip: AudioClip, options: { signal?: AbortSignal } = {}): Promise<Int32Array> {
    requireOptions('Usdm.hear', options, ['signal'])
    requireSignal('Usdm.hear', options.signal)
    return this.#heard(clip, options.signal, mostUnits(this.llm, this.tokenizer, []))
  }

  /** @param maxUnits longer clips are refused before the encoder, whose time grows with the square, hears them */
  async #heard(question: UsdmQuestion, signal: AbortSignal | undefined, maxUnits?: number): Promise<Int32Array> {
    signal?.throwIfAborted()
    if (typeof question === 'object' && question !== null && 'units' in question) {
      const { units } = question
      if (!isArrayLike(units)) throw misuse('Usdm', 'the units of the question', 'a list of units', units)
      for (const unit of Array.from(units)) this.tokenizer.unitId(unit as number)
      return Int32Array.from(units as ArrayLike<number>)
    }
    const room = this.#rooms.hearing.enter()
    // A pass of the encoder is not interrupted, and needs its weights where they are.
    const units = this.units.extract(question, defined({ maxUnits })).finally(() => room[Symbol.dispose]())
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
    const made: { dispose(): void }[] = options.cache ? [] : [cache]
    cache.begin()
    const rooms: Disposable[] = []
    try {
      const units = await this.#heard(question, signal, mostUnits(llm, tokenizer, history))
      yield { type: 'question', units }
      const speaking = audio ? await this.#speaking(options, made) : undefined
      const generator = seed === undefined ? undefined : new Generator({ seed })
      if (generator) made.push(generator)
      const writing: Writing = {
        ...{ llm, tokenizer, cache, sampling, strict, maxUnits, maxTextTokens },
        ...{ generator, batching, signal },
      }
      const writes = this.#rooms.writing.enter()
      rooms.push(writes)
      const known = (text: string | undefined) => text !== undefined && { text, finish: 'stop' as const }
      const transcript = known(options.transcript) || (yield* transcribed(writing, { units, history }))
      // What the model wrote goes on as it is; what the caller wrote as the training data is written.
      const spelled = (who: 'user' | 'agent', own: string | undefined, text: string) =>
        own === undefined ? text : templateText(who, own)
      const input = { units, history, transcript: spelled('user', options.transcript, transcript.text) }
      const text = known(options.reply) || (yield* replied(writing, input))
      const pass = pronounced(writing, { ...input, reply: spelled('agent', options.reply, text.text) })
      const said: number[] = []
      const heard: Float32Array[] = []
      let end: UsdmFinish = 'stop'
      const source = (async function* () {
        end = yield* watched(pass, said)
      })()
      let told = 0
      const event = (samples: Float32Array | null): UsdmEvent => {
        const units = said.slice(told)
        told = said.length
        if (samples) heard.push(samples)
        return { type: 'speech', units, samples }
      }
      if (speaking && pieces) {
        rooms.push(this.#rooms.speaking.enter())
        for await (const samples of spokenAsTheyCome(speaking, source, pieces)) yield event(samples)
      } else {
        for await (const _ of source) yield event(null)
        writes[Symbol.dispose]()
        if (speaking && said.length > 0) {
          rooms.push(this.#rooms.speaking.enter())
          yield event(await spokenWhole(speaking, said))
        }
      }
      if (speaking && said.length === 0) {
        const message = `${where}: the reply ${JSON.stringify(text.text)} has no units, so there is nothing to be heard`
        throw new DataError(message, { transcript: transcript.text, text: text.text })
      }
      const user = { text: transcript.text, units }
      const reply: UsdmReply = {
        transcript: transcript.text,
        text: text.text,
        units: said,
        wav: speaking ? { samples: joined(heard), sampleRate: vocoder?.sampleRate ?? sampleRate } : null,
        finish: { transcript: transcript.finish, text: text.finish, units: end },
        turn: { user, agent: { text: text.text, units: said } },
      }
      yield { type: 'reply', reply }
    } finally {
      for (const room of rooms) room[Symbol.dispose]()
      cache.end()
      for (const one of made) one.dispose()
    }
  }

  /** What a reply is spoken with; a voice that is made for it is put to what is freed with it. */
  async #speaking(options: UsdmRespondOptions, made: { dispose(): void }[]): Promise<Speaking> {
    const { reference, steps, solver, guidance, seed, signal } = options
    let voice = reference instanceof UsdmVoice ? reference : undefined
    if (reference !== undefined && voice === undefined) {
      voice = await this.voice(reference as AudioClip, defined({ signal }))
      made.push(voice)
    }
    return {
      ...{ voicebox: this.voicebox as UsdmVoicebox, vocoder: this.vocoder as UsdmVocoder },
      ...{ steps, solver, guidance, signal, voice, seed },
    }
  }

  /** Frees what `fromPretrained` loaded; parts that were given stay. */
  dispose(): void {
    for (const one of this.#own.splice(0)) one.dispose()
  }

  [Symbol.dispose](): void {
    this.dispose()
  }
}

const VOICEBOX = { config: 'object', generate: 'function', normalize: 'function', denormalize: 'function' } as const
const VOCODER = { sampleRate: 'number', samplesPerFrame: 'number', forward: 'function', 'stream?': 'function' } as const

/** What a generator gives, written down beside. */
async function* watched<T, R>(source: AsyncGenerator<T, R>, list: T[]): AsyncGenerator<T, R> {
  try {
    for (;;) {
      const { value, done } = await source.next()
      if (done) return value
      list.push(value)
      yield value
    }
  } finally {
    await source.return(undefined as R)
  }
}

function joined(parts: readonly Float32Array[]): Float32Array {
  const whole = new Float32Array(parts.reduce((sum, { length }) => sum + length, 0))
  let at = 0
  for (const part of parts) {
    whole.set(part, at)
    at += part.length
  }
  return whole
}
