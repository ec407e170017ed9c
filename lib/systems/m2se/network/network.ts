import { createHash } from 'node:crypto'
import { misuse, requireOneOf, requireOptions, requireSignal, requireString } from '../../../base/check.js'
import { ConfigError, ShapeError } from '../../../base/errors.js'
import type { DecoderLMConfig } from '../../../models/decoder/config.js'
import { DecoderLM } from '../../../models/decoder/decoder-lm.js'
import type { InternVLConfig } from '../../../models/internvl/config.js'
import { InternVL } from '../../../models/internvl/internvl.js'
import {
  AUDIO_PLACE,
  INTERNVL_TEMPLATES,
  type InternVLTemplate,
  internVLTemplate,
} from '../../../models/internvl/prompt.js'
import { Module } from '../../../nn/index.js'
import { cat, ops, scope, type Tensor, tensor } from '../../../tensor/index.js'
import { Tokenizer } from '../../../text/index.js'
import type { EmoVerseBatch, EmoVerseSampleTokens } from '../data/collate.js'
import type { SwiftLength } from '../data/dataset.js'
import { type EmoVerseQuestion, insertMarkers, MEDIA_KEYS, MEDIA_MARKERS } from '../data/entry.js'
import type { EmoVerseLook, MediaPlace } from '../data/media.js'
import { encodeRecord, encodeRecordAsync, taskOf, templateOf } from '../data/prompt.js'
import { EMOVERSE_SYSTEM } from '../published/wording.js'
import {
  type EmoVerseAnswer,
  type EmoVerseGenerateOptions,
  type EmoVersePiece,
  type EmoVerseStreamOptions,
  generateAnswers,
  streamAnswer,
} from './answers.js'
import { Beginnings } from './beginnings.js'
import {
  type EmoVerseStages,
  type LoadEmoVerseOptions,
  loadEmoVerse,
  type NewEmoVerseOptions,
  newEmoVerse,
  saveEmoVerse,
} from './files.js'
import { PROMPT_LIMITS } from './limits.js'
import { causeShares, type EmoVerseScoreOptions, labelShares } from './shares.js'
import { SpeechBranch } from './speech.js'
import { EmoVerseVision, type EmoVerseVisionOptions } from './vision.js'

/** What an EmoVerse is made of. */
export interface EmoVerseParts {
  /** An InternVL sees; a language model by itself reads. */
  model: DecoderLM | InternVL
  tokenizer: Tokenizer
  /** How turns are written. Default: the one that an InternVL's configuration names, else by the tokenizer's tokens. */
  template?: InternVLTemplate
  /** Where a record has none. Default {@link EMOVERSE_SYSTEM}; null for none at all. */
  system?: string | null
  /** 'ignore': markers and media of records are left out, and the words alone are read. Default 'read'. */
  media?: 'read' | 'ignore'
  vision?: EmoVerseVisionOptions
  /** Ears, which belong to it then. Default: none. */
  speech?: SpeechBranch | null
  /** 'ignore': sounds of records and their markers are left out, as by a model without ears. Default 'read'. */
  sounds?: 'read' | 'ignore'
}

const PARTS: readonly (keyof EmoVerseParts)[] = [
  ...(['model', 'tokenizer', 'template', 'system', 'media', 'vision', 'speech', 'sounds'] as const),
]

/** Conversations that are gone on with. */
const CONVERSATIONS = 4

export interface EmoVerseLengthOptions extends MediaPlace {
  /** Whether the store of features has all pictures and films afterwards. Default false. */
  remember?: boolean
  signal?: AbortSignal
}

export interface EncodeEmoVerseOptions extends MediaPlace {
  /** Whether it ends with the answer, and answers are labels; else where the answer begins. Default true. */
  answer?: boolean
  signal?: AbortSignal
}

/**
 * EmoVerse (Li et al. 2024, https://arxiv.org/abs/2412.08049): an InternVL that was taught tasks of sentiment and emotion by
 * instructions. A language model without eyes can be taught them too, by the words alone (`media: 'ignore'`).
 *
 * ```ts
 * using model = await EmoVerse.fromPretrained('./InternVL2-2B')
 * const question = { query: 'The person says: "Oh." <emotion> Please determine …', images: ['face.jpg'] }
 * const [{ text }] = await model.generate([question], { maxNewTokens: 16 })
 * const { 'Joy.': joy } = await model.scoreLabels(question, EMOTION_LABELS.meld)
 * ```
 */
export class EmoVerse {
  readonly model: DecoderLM | InternVL
  readonly tokenizer: Tokenizer
  readonly template: InternVLTemplate
  readonly system: string | null
  readonly media: 'read' | 'ignore'
  /** Null where it sees nothing. */
  readonly vision: EmoVerseVision | null
  /** Null where it has no ears. */
  readonly speech: SpeechBranch | null
  readonly sounds: 'read' | 'ignore'
  /** The network, with the ears where it has some. @internal */
  readonly whole: Module
  /** What was read last, for the next question about it. @internal */
  readonly beginnings: Beginnings

  /** It owns the network: `dispose()` it. */
  constructor(parts: EmoVerseParts) {
    const where = 'EmoVerse'
    requireOptions(where, parts ?? {}, PARTS)
    const { model, tokenizer, template, system = EMOVERSE_SYSTEM, media = 'read', vision } = parts ?? {}
    const { speech = null, sounds = 'read' } = parts ?? {}
    if (!(model instanceof DecoderLM || model instanceof InternVL)) {
      throw misuse(where, 'model', 'an InternVL or a DecoderLM', model)
    }
    if (!(tokenizer instanceof Tokenizer)) throw misuse(where, 'tokenizer', 'a Tokenizer', tokenizer)
    if (template !== undefined) requireOneOf(where, 'template', template, Object.keys(INTERNVL_TEMPLATES))
    if (system !== null) requireString(where, 'system', system)
    requireOneOf(where, 'media', media, ['read', 'ignore'])
    requireOneOf(where, 'sounds', sounds, ['read', 'ignore'])
    if (speech !== null && !(speech instanceof SpeechBranch)) throw misuse(where, 'speech', 'a SpeechBranch', speech)
    if (vision !== undefined && !(model instanceof InternVL)) {
      throw new ConfigError(`${where}: vision is of an InternVL, and a DecoderLM sees nothing`, { argument: 'vision' })
    }
    this.model = model
    this.tokenizer = tokenizer
    this.template = template ?? ownTemplate(model) ?? templateOf(tokenizer)
    this.system = system
    this.media = media
    this.vision = model instanceof InternVL && media === 'read' ? new EmoVerseVision(model, tokenizer, vision) : null
    this.speech = speech
    this.sounds = sounds
    this.whole = speech === null ? model : new Hearing(model, speech)
    const { hiddenSize = 4096 } = this.llm.config
    if (speech !== null && speech.config.hiddenSize !== hiddenSize) {
      throw new ConfigError(
        `${where}: the speech branch gives ${speech.config.hiddenSize} dimensions, and the language model has ${hiddenSize}`,
        { argument: 'speech' },
      )
    }
    this.beginnings = new Beginnings(model, this.whole, CONVERSATIONS)
  }

  /**
   * Reads a whole model, or a base with the adapters of its stages, which are added to its weights one after the other; where these
   * are packed the adapters stand beside them. The base is an InternVL, or any language model. Blocks of a GGUF file become
   * numbers unless `quantize` says otherwise.
   *
   * ```ts
   * using model = await EmoVerse.fromPretrained({ base: './InternVL2-2B', adapters: ['run/stage-1/adapter', 'run/stage-2/adapter'] })
   * ```
   * @throws CheckpointError for an adapter that does not fit; else as `InternVL.fromPretrained` and `DecoderLM.fromPretrained`
   */
  static async fromPretrained(from: string | EmoVerseStages, options: LoadEmoVerseOptions = {}): Promise<EmoVerse> {
    return new EmoVerse(await loadEmoVerse(from, options))
  }

  /** One with random weights: an InternVL where the configuration has an `llmConfig`, or is the name of one's size. */
  static fromConfig(config: InternVLConfig | DecoderLMConfig | string, options: NewEmoVerseOptions): EmoVerse {
    return new EmoVerse(newEmoVerse(config, options))
  }

  /** The language model. */
  get llm(): DecoderLM {
    return this.model instanceof InternVL ? this.model.language_model : this.model
  }

  /** Whether pictures and films reach the network; else only the words of a record do. */
  get seesMedia(): boolean {
    return this.vision !== null
  }

  /** Whether sounds reach the network. */
  get hearsMedia(): boolean {
    return this.speech !== null && this.media === 'read' && this.sounds === 'read'
  }

  /**
   * A record as tokens, each piece made tokens by itself as ms-swift does, with its pictures and films as tiles.
   * @throws DataError for a record without an answer where it is wanted, for media that cannot be read, and where there are more
   * markers than media; ConfigError for media where there are no eyes, unless `media` is 'ignore'
   */
  async encode(record: EmoVerseQuestion, options: EncodeEmoVerseOptions = {}): Promise<EmoVerseSampleTokens> {
    const where = 'EmoVerse.encode'
    requireOptions(where, options, ['answer', 'signal', 'mediaRoot'])
    const { answer = true, signal, mediaRoot } = options
    requireSignal(where, signal)
    const { template, system, tokenizer, vision } = this
    const marked = this.#readable(record)
    const settings = { template, system, answer }
    const task = taskOf(record)
    const place = { mediaRoot, ...(signal && { signal }) }
    const sounds = marked.audios?.length && this.speech ? await this.speech.read(marked.audios, place) : []
    const audios = sounds.map(({ tokens }) => tokens)
    const count = (marked.images?.length ?? 0) + (marked.videos?.length ?? 0)
    if (vision === null || count === 0) {
      return {
        ...(await encodeRecordAsync(tokenizer, marked, { ...settings, audios }, signal)),
        task,
        pictures: [],
        picturePlaces: [],
        sounds,
      }
    }
    const pictures = await vision.read(marked, place)
    const tilesOf = (kind: string) => pictures.flatMap((picture) => (picture.kind === kind ? [picture.tiles] : []))
    const media = {
      ...{ ...settings, audios, images: tilesOf('image'), videos: tilesOf('video') },
      tileTokens: vision.tileTokens,
      imgContextTokenId: vision.contextTokenId,
    }
    const encoded = await encodeRecordAsync(tokenizer, marked, media, signal)
    const picturePlaces = encoded.inputIds.flatMap((id, place) => (id === vision.contextTokenId ? [place] : []))
    return { ...encoded, task, pictures, picturePlaces, sounds }
  }

  /** Tokens of a record, as limits of data count them: each of its media is one, as in ms-swift. */
  lengthOf = (record: EmoVerseQuestion): number => {
    const media = MEDIA_KEYS.reduce((sum, key) => sum + (record[key]?.length ?? 0), 0)
    const { template, system, tokenizer } = this
    const answer = record.response != null
    if (this.media === 'read') this.#readable(record)
    return encodeRecord(tokenizer, withoutMarkers(record), { template, system, answer }).inputIds.length + media
  }

  /**
   * Tokens of a record with each of its media as one, as {@link lengthOf} counts them, and with all that media become, whose files
   * are looked at for it.
   * @throws DataError for media that cannot be read; else as `encode`
   */
  async lengthsOf(record: EmoVerseQuestion, options: EmoVerseLengthOptions = {}): Promise<SwiftLength> {
    const where = 'EmoVerse.lengthsOf'
    requireOptions(where, options, ['signal', 'mediaRoot', 'remember'])
    const { signal, mediaRoot, remember = false } = options
    requireSignal(where, signal)
    const { template, system, tokenizer, vision } = this
    const marked = this.#readable(record)
    const place = { mediaRoot, ...(signal && { signal }) }
    const sounds = marked.audios?.length && this.speech ? await this.speech.read(marked.audios, place) : []
    const pictures = vision === null ? [] : await vision.tilesOf(marked, { ...place, remember })
    const tilesOf = (kind: string) => pictures.flatMap((picture) => (picture.kind === kind ? [picture.tiles] : []))
    const { inputIds } = encodeRecord(tokenizer, marked, {
      ...{ template, system, answer: record.response != null },
      ...{ audios: sounds.map(({ tokens }) => tokens), images: tilesOf('image'), videos: tilesOf('video') },
      ...(vision && { tileTokens: vision.tileTokens, imgContextTokenId: vision.contextTokenId }),
    })
    return { text: this.lengthOf(record), expanded: inputIds.length }
  }

  /** The record as it is read: with a marker for each medium, or without any. */
  #readable<R extends EmoVerseQuestion>(given: R): R {
    if (this.media === 'ignore') return withoutMarkers(given)
    const record = this.sounds === 'ignore' ? withoutSounds(given) : given
    const blind = MEDIA_KEYS.find(
      (key) => record[key]?.length && !(key === 'audios' ? this.hearsMedia : this.seesMedia),
    )
    if (blind !== undefined) {
      const what = blind === 'audios' ? 'hears no sound' : 'sees neither pictures nor films'
      throw new ConfigError(`The model ${what}, and the record has ${blind}: media 'ignore' reads the words alone`, {
        argument: 'media',
        key: blind,
      })
    }
    return insertMarkers(record)
  }

  /**
   * Embeddings of token ids [1, time] with pictures and sounds at their places; undefined where there are none.
   * @internal
   */
  async embed(
    inputIds: Tensor,
    { pictures, picturePlaces, sounds, soundPlaces }: MediaPlaces,
  ): Promise<Tensor | undefined> {
    if (pictures.length + sounds.length === 0) return undefined
    return scope(async () => {
      let words = this.llm.embed(inputIds)
      if (pictures.length > 0) {
        const vision = this.vision as EmoVerseVision
        const seen = await vision.network.projectImages(await vision.features(pictures))
        words = put(words, picturePlaces, seen.flatten(0, 1), 'pictures')
      }
      if (sounds.length === 0) return words
      return put(words, soundPlaces, cat(await (this.speech as SpeechBranch).encode(sounds), 0), 'sounds')
    })
  }

  /** What tells a prompt from others: its ids, and at pictures and sounds a number of each below 0. @internal */
  marksOf({ inputIds, pictures, sounds }: EmoVerseSampleTokens): readonly number[] {
    if (pictures.length + sounds.length === 0) return inputIds
    const tileTokens = this.vision?.tileTokens ?? 0
    const left = [
      pictures.map(({ key, tiles }) => ({ mark: markOf(key), left: tiles * tileTokens })),
      sounds.map(({ key, tokens }) => ({ mark: markOf(key), left: tokens })),
    ] as const
    return inputIds.map((id) => {
      const isSound = id === AUDIO_PLACE
      if (!isSound && (pictures.length === 0 || id !== this.vision?.contextTokenId)) return id
      const numbers = left[isSound ? 1 : 0]
      if (numbers[0]?.left === 0) numbers.shift()
      const first = numbers[0] as { mark: number; left: number }
      first.left -= 1
      return first.mark
    })
  }

  /** The pictures and sounds whose places are behind the first `from` tokens. @internal */
  mediaFrom({ inputIds, pictures, sounds }: EmoVerseSampleTokens, from: number) {
    const { contextTokenId, tileTokens = 0 } = this.vision ?? {}
    const count = (place: number | undefined) => inputIds.slice(0, from).filter((id) => id === place).length
    return {
      pictures: pictures.length === 0 ? [] : behind(pictures, count(contextTokenId), ({ tiles }) => tiles * tileTokens),
      sounds: sounds.length === 0 ? [] : behind(sounds, count(AUDIO_PLACE), ({ tokens }) => tokens),
    }
  }

  /**
   * Answers records: greedily, or as the options say. Texts that begin alike share what was read of it.
   * @throws DataError naming the record for a prompt that is too long, unless `compat` is 'published'; else as `encode`
   */
  generate(records: readonly EmoVerseQuestion[], options: EmoVerseGenerateOptions = {}): Promise<EmoVerseAnswer[]> {
    return generateAnswers(this, records, options)
  }

  /**
   * An answer piece by piece, without what ends it; leaving the loop, or the signal, gives it up. The next turn of a conversation,
   * and another question about the same pictures, read only what is new.
   * @throws DataError for a prompt that is too long; ConfigError with beams; else as `encode`
   */
  stream(record: EmoVerseQuestion, options: EmoVerseStreamOptions = {}): AsyncGenerator<EmoVersePiece, void, void> {
    return streamAnswer(this, record, options)
  }

  /**
   * How likely each of the answers is that are allowed, their end counted, as shares of all: no answer that cannot be read, and
   * probabilities to set thresholds for. The question is read once.
   *
   * ```ts
   * const { 'Joy.': joy } = await model.scoreLabels(record, EMOTION_LABELS.meld)
   * ```
   */
  async scoreLabels(
    record: EmoVerseQuestion,
    labels: readonly string[],
    options: EmoVerseScoreOptions = {},
  ): Promise<Record<string, number>> {
    requireOptions('EmoVerse.scoreLabels', options, ['signal', 'mediaRoot', ...PROMPT_LIMITS])
    return labelShares(this, record, labels, options)
  }

  /**
   * How likely an answer to a question about causes names each pair of the target and an utterance that there is, by pair: of all
   * answers that the question allows, those that are likely are read. Together they are more than 1 where several causes are likely.
   *
   * ```ts
   * const { '3_joy,2': before } = await model.scoreCauses(record)
   * ```
   * @throws DataError for a question that asks for no causes
   */
  async scoreCauses(record: EmoVerseQuestion, options: EmoVerseScoreOptions = {}): Promise<Record<string, number>> {
    requireOptions('EmoVerse.scoreCauses', options, ['signal', 'mediaRoot', ...PROMPT_LIMITS])
    return causeShares(this, record, options)
  }

  /**
   * What the network looks at of pictures and films, in this order: their tiles and frames.
   * @throws ConfigError where it has no eyes; DataError for media that cannot be read
   */
  async look(
    { images = [], videos = [] }: Pick<EmoVerseQuestion, 'images' | 'videos'>,
    { signal }: { signal?: AbortSignal } = {},
  ): Promise<EmoVerseLook[]> {
    if (this.vision) return this.vision.look({ query: '', images, videos }, signal)
    throw new ConfigError('EmoVerse.look: the model sees neither pictures nor films', { argument: 'model' })
  }

  /**
   * The text of an answer's tokens: without one token that ends a text at its end, and without what ends an answer. Other special
   * tokens stay, as in ms-swift.
   */
  textOf(tokens: readonly number[]): string {
    const { end } = INTERNVL_TEMPLATES[this.template]
    const ids = tokens.at(-1) === this.tokenizer.eosTokenId ? tokens.slice(0, -1) : tokens
    const text = this.tokenizer.decode(ids, { skipSpecialTokens: false })
    return text.endsWith(end) ? text.slice(0, -end.length) : text
  }

  /** Writes a folder that {@link EmoVerse.fromPretrained} reads, and transformers. */
  save(folder: string): Promise<void> {
    return saveEmoVerse(folder, this)
  }

  /** Frees the network. */
  dispose(): void {
    this.beginnings.dispose()
    this.speech?.dispose()
    this.model.dispose()
  }

  [Symbol.dispose](): void {
    this.dispose()
  }
}

function ownTemplate(model: DecoderLM | InternVL): InternVLTemplate | undefined {
  const { template } = model.config as InternVLConfig
  return model instanceof InternVL && template != null ? internVLTemplate(template) : undefined
}

/** The network with its ears: what is trained, and evaluated, as one. */
class Hearing extends Module {
  constructor(
    readonly network: DecoderLM | InternVL,
    readonly speech: SpeechBranch,
  ) {
    super()
  }
}

/** Pictures and sounds, and where in a row of tokens they stand. */
type MediaPlaces = Pick<EmoVerseBatch, 'pictures' | 'picturePlaces' | 'sounds' | 'soundPlaces'>

/**
 * Embeddings [1, time, dim] with rows [places, dim] at their places, which the host knows: nobody waits for a device to count them.
 * @throws ShapeError with both numbers where there are not as many
 */
function put(words: Tensor, places: readonly number[], rows: Tensor, what: string): Tensor {
  if (rows.size(0) !== places.length) {
    throw new ShapeError(`the text has ${places.length} places of ${what}, which have ${rows.size(0)} tokens`, {
      places: places.length,
      tokens: rows.size(0),
    })
  }
  const { device, dtype } = words
  const index = tensor([...places], { dtype: 'int64', device })
  return ops.indexCopy(words.select(0, 0), 0, index, rows.to({ device, dtype })).unsqueeze(0)
}

/** A number below those of places. */
function markOf(key: string): number {
  return -2 - Number.parseInt(createHash('sha256').update(key).digest('hex').slice(0, 12), 16)
}

/** Those of media that come behind so many of their tokens. */
function behind<T>(media: readonly T[], before: number, tokensOf: (one: T) => number): T[] {
  let left = before
  return media.filter((one) => {
    left -= tokensOf(one)
    return left < 0
  })
}

/** The texts of a record for a network that sees and hears nothing. */
function withoutMarkers<R extends EmoVerseQuestion>(record: R): R {
  return withTexts(record, Object.values(MEDIA_MARKERS))
}

function withoutSounds<R extends EmoVerseQuestion>({ audios: _, ...record }: R): R {
  return withTexts(record as R, [MEDIA_MARKERS.audios])
}

function withTexts<R extends EmoVerseQuestion>(record: R, markers: readonly string[]): R {
  const without = (text: string) => markers.reduce((rest, marker) => rest.replaceAll(marker, ''), text)
  const { history, query, response } = record
  return {
    ...record,
    query: without(query),
    ...(typeof response === 'string' && { response: without(response) }),
    ...(history && { history: history.map(([asked, said]) => [without(asked), without(said)] as [string, string]) }),
  }
}
