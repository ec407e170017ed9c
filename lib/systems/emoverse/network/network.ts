import { createHash } from 'node:crypto'
import { argumentError, requireOptions } from '../../../base/check.js'
import { ConfigError, ShapeError } from '../../../base/errors.js'
import { type ChangesOf, checkedBy, instanceOf, SIGNAL, settings, unchecked } from '../../../base/settings.js'
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
import { MODEL_SETTINGS } from '../configuration/settings.js'
import type { EmoVerseBatch, EmoVerseSampleTokens } from '../data/collate.js'
import type { SwiftLength } from '../data/dataset.js'
import { type EmoVerseQuestion, insertMarkers, MEDIA_KEYS, MEDIA_MARKERS } from '../data/entry.js'
import type { EmoVerseLook } from '../data/media.js'
import { type EncodeRecordOptions, encodeRecord, encodeRecordAsync, taskOf, templateOf } from '../data/prompt.js'
import { EMOVERSE_SYSTEM } from '../published/wording.js'
import {
  type EmoVerseAnswer,
  type EmoVerseGenerateOptions,
  type EmoVersePiece,
  type EmoVerseStreamOptions,
  generateAnswers,
  streamAnswer,
} from './answers.js'
import {
  type EmoVerseStages,
  type LoadEmoVerseOptions,
  loadEmoVerse,
  type NewEmoVerseOptions,
  newEmoVerse,
  saveEmoVerse,
} from './files.js'
import { PROMPT_LIMITS } from './limits.js'
import { PrefixCaches } from './prefix-caches.js'
import { causeProbabilities, type EmoVerseScoreOptions, labelProbabilities } from './probabilities.js'
import { type EmoVerseSpeech, SpeechBranch } from './speech.js'
import { type EmoVerseImage, EmoVerseVision, type EmoVerseVisionOptions } from './vision.js'

const PARTS = MODEL_SETTINGS.extend({
  /** InternVL for images and videos, or a text-only language model. */
  model: {
    type: checkedBy<DecoderLM | InternVL>((where, name, value) => {
      if (value instanceof DecoderLM || value instanceof InternVL) return
      throw argumentError(where, name, 'an InternVL or a DecoderLM', value)
    }),
    required: true,
  },
  tokenizer: { type: instanceOf(Tokenizer), required: true },
  vision: { type: unchecked<EmoVerseVisionOptions>() },
  /** Audio encoder, which the EmoVerse then owns. Default: none. */
  speech: { type: instanceOf(SpeechBranch), nullable: true, default: null },
})

/** Parts of an EmoVerse. @interface */
export type EmoVerseParts = ChangesOf<typeof PARTS.table>

/** Number of conversations whose keys and values stay cached. */
const CONVERSATIONS = 4

const PLACE = settings({
  /** Base folder of relative paths. Default: the working directory. */
  mediaRoot: { type: 'string' },
  signal: { type: SIGNAL },
})
const LENGTHS = PLACE.extend({
  /** Whether to put the features of all images and videos into the store. Default false. */
  remember: { type: 'boolean', default: false },
})
const ENCODE = PLACE.extend({
  /** Whether to append the answer, with labels for training; otherwise the prompt ends where the answer begins. Default true. */
  answer: { type: 'boolean', default: true },
})

/** Options of `EmoVerse.lengthsOf`. @interface */
export type EmoVerseLengthOptions = ChangesOf<typeof LENGTHS.table>

/** Options of `EmoVerse.encode`. @interface */
export type EncodeEmoVerseOptions = ChangesOf<typeof ENCODE.table>

/**
 * EmoVerse (Li et al. 2024, https://arxiv.org/abs/2412.08049): an InternVL, instruction-tuned for sentiment and emotion tasks. With
 * `media: 'ignore'` a text-only language model can be tuned for them as well.
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
  /** Vision encoder, or null. */
  readonly vision: EmoVerseVision | null
  /** Audio encoder, or null. */
  readonly speech: SpeechBranch | null
  readonly audio: 'read' | 'ignore'
  /** Network, together with the audio encoder if there is one. @internal */
  readonly whole: Module
  /** Cached keys and values of recent prompts. @internal */
  readonly prefixCaches: PrefixCaches

  /** Create an EmoVerse, which owns its networks. Call `dispose()` to free them. */
  constructor(parts: EmoVerseParts) {
    const where = 'EmoVerse'
    const {
      model,
      tokenizer,
      template,
      system = EMOVERSE_SYSTEM,
      media,
      audio,
      vision,
      speech,
    } = PARTS.read(where, parts)
    if (vision !== undefined && !(model instanceof InternVL)) {
      throw new ConfigError(
        `${where}.vision: expected no vision options for a text-only DecoderLM, got some. Leave them out, or use an InternVL.`,
        { argument: 'vision' },
      )
    }
    this.model = model
    this.tokenizer = tokenizer
    this.template = template ?? ownTemplate(model) ?? templateOf(tokenizer)
    this.system = system
    this.media = media
    this.vision = model instanceof InternVL && media === 'read' ? new EmoVerseVision(model, tokenizer, vision) : null
    this.speech = speech
    this.audio = audio
    this.whole = speech === null ? model : new NetworkWithSpeech(model, speech)
    const { hiddenSize = 4096 } = this.llm.config
    if (speech !== null && speech.config.hiddenSize !== hiddenSize) {
      throw new ConfigError(
        `${where}.speech: expected hiddenSize ${hiddenSize} of the language model, got ${speech.config.hiddenSize}. Use the speech branch of this model.`,
        { argument: 'speech' },
      )
    }
    this.prefixCaches = new PrefixCaches(model, this.whole, CONVERSATIONS)
  }

  /**
   * Load a whole model, or a base with the adapters of its stages. Adapters are merged into the weights one after the other; with quantized
   * weights they stay separate. The base is an InternVL or any language model. Blocks of a GGUF file are dequantized unless `quantize`
   * says otherwise.
   *
   * ```ts
   * using model = await EmoVerse.fromPretrained({ base: './InternVL2-2B', adapters: ['run/stage-1/adapter', 'run/stage-2/adapter'] })
   * ```
   * @throws CheckpointError for an adapter that does not fit; otherwise as `InternVL.fromPretrained` and `DecoderLM.fromPretrained`
   */
  static async fromPretrained(from: string | EmoVerseStages, options: LoadEmoVerseOptions = {}): Promise<EmoVerse> {
    return new EmoVerse(await loadEmoVerse(from, options))
  }

  /** Create one with random weights: an InternVL if the configuration has `llmConfig` or is the name of an InternVL size. */
  static fromConfig(config: InternVLConfig | DecoderLMConfig | string, options: NewEmoVerseOptions): EmoVerse {
    return new EmoVerse(newEmoVerse(config, options))
  }

  /** The language model. */
  get llm(): DecoderLM {
    return this.model instanceof InternVL ? this.model.language_model : this.model
  }

  /** Whether images and videos reach the network; otherwise only the text of a record does. */
  get seesMedia(): boolean {
    return this.vision !== null
  }

  /** Whether audio reaches the network. */
  get hearsMedia(): boolean {
    return this.speech !== null && this.media === 'read' && this.audio === 'read'
  }

  /**
   * Encode a record as tokens, each piece separately as ms-swift does, with its images and videos as tiles.
   * @throws DataError for a record without a required answer, for unreadable media, and for more markers than media; ConfigError for media
   * that the model has no encoder for, unless `media` is 'ignore'
   */
  async encode(record: EmoVerseQuestion, options: EncodeEmoVerseOptions = {}): Promise<EmoVerseSampleTokens> {
    const { answer, signal, mediaRoot } = ENCODE.read('EmoVerse.encode', options)
    const { tokenizer, vision } = this
    const marked = this.#readable(record)
    const place = { mediaRoot, ...(signal && { signal }) }
    const audioInputs = marked.audios?.length && this.speech ? await this.speech.read(marked.audios, place) : []
    const count = (marked.images?.length ?? 0) + (marked.videos?.length ?? 0)
    const imageInputs = vision === null || count === 0 ? [] : await vision.read(marked, place)
    const prompt = this.#promptOptions(answer, imageInputs, audioInputs)
    const encoded = await encodeRecordAsync(tokenizer, marked, prompt, signal)
    const imagePlaces =
      count === 0 ? [] : encoded.inputIds.flatMap((id, place) => (id === vision?.contextTokenId ? [place] : []))
    return { ...encoded, task: taskOf(record), imageInputs, imagePlaces, audioInputs }
  }

  /** Return the options that encode a record with these media. */
  #promptOptions(
    answer: boolean,
    imageInputs: readonly Pick<EmoVerseImage, 'kind' | 'tiles'>[],
    audioInputs: readonly EmoVerseSpeech[],
  ): EncodeRecordOptions {
    const { template, system, vision } = this
    const tilesOf = (kind: string) => imageInputs.flatMap((one) => (one.kind === kind ? [one.tiles] : []))
    return {
      ...{ template, system, answer, images: tilesOf('image'), videos: tilesOf('video') },
      audios: audioInputs.map(({ tokens }) => tokens),
      ...(vision && { tileTokens: vision.tileTokens, imgContextTokenId: vision.contextTokenId }),
    }
  }

  /** Return the number of tokens of a record as data limits count them: each of its media is one, as in ms-swift. */
  lengthOf = (record: EmoVerseQuestion): number => {
    const media = MEDIA_KEYS.reduce((sum, key) => sum + (record[key]?.length ?? 0), 0)
    const { template, system, tokenizer } = this
    const answer = record.response != null
    if (this.media === 'read') this.#readable(record)
    return encodeRecord(tokenizer, withoutMarkers(record), { template, system, answer }).inputIds.length + media
  }

  /**
   * Return the number of tokens of a record with each of its media as one, as {@link lengthOf} does, and with all tokens of its media,
   * whose files it opens.
   * @throws DataError for unreadable media; otherwise as `encode`
   */
  async lengthsOf(record: EmoVerseQuestion, options: EmoVerseLengthOptions = {}): Promise<SwiftLength> {
    const { signal, mediaRoot, remember } = LENGTHS.read('EmoVerse.lengthsOf', options)
    const { tokenizer, vision } = this
    const marked = this.#readable(record)
    const place = { mediaRoot, ...(signal && { signal }) }
    const audioInputs = marked.audios?.length && this.speech ? await this.speech.read(marked.audios, place) : []
    const imageInputs = vision === null ? [] : await vision.tilesOf(marked, { ...place, remember })
    const prompt = this.#promptOptions(record.response != null, imageInputs, audioInputs)
    const { inputIds } = encodeRecord(tokenizer, marked, prompt)
    return { text: this.lengthOf(record), expanded: inputIds.length }
  }

  /** Return the record with a marker for each of its media, or without any. */
  #readable<R extends EmoVerseQuestion>(given: R): R {
    if (this.media === 'ignore') return withoutMarkers(given)
    const record = this.audio === 'ignore' ? withoutAudio(given) : given
    const unsupported = MEDIA_KEYS.find(
      (key) => record[key]?.length && !(key === 'audios' ? this.hearsMedia : this.seesMedia),
    )
    if (unsupported !== undefined) {
      const encoder = unsupported === 'audios' ? 'an audio' : 'a vision'
      throw new ConfigError(
        `${unsupported}: expected a model with ${encoder} encoder, got one without. Set media: 'ignore' to use only the text.`,
        { argument: 'media', key: unsupported },
      )
    }
    return insertMarkers(record)
  }

  /**
   * Return embeddings of token ids [1, time] with those of images and audio at their positions; undefined without media.
   * @internal
   */
  async embed(
    inputIds: Tensor,
    { imageInputs, imagePlaces, audioInputs, audioPlaces }: MediaPlaces,
  ): Promise<Tensor | undefined> {
    if (imageInputs.length + audioInputs.length === 0) return undefined
    return scope(async () => {
      let embeddings = this.llm.embed(inputIds)
      if (imageInputs.length > 0) {
        const vision = this.vision as EmoVerseVision
        const imageEmbeddings = await vision.network.projectImages(await vision.features(imageInputs))
        embeddings = put(embeddings, imagePlaces, imageEmbeddings.flatten(0, 1), 'images')
      }
      if (audioInputs.length === 0) return embeddings
      return put(embeddings, audioPlaces, cat(await (this.speech as SpeechBranch).encode(audioInputs), 0), 'audio')
    })
  }

  /** Return what identifies a prompt: token ids, and at image and audio tokens a negative hash of the media. @internal */
  marksOf({ inputIds, imageInputs, audioInputs }: EmoVerseSampleTokens): readonly number[] {
    if (imageInputs.length + audioInputs.length === 0) return inputIds
    const { tileTokens = 0, contextTokenId } = this.vision ?? {}
    const marks = (key: string, tokens: number) => new Array<number>(tokens).fill(markOf(key))
    const ofImages = imageInputs.flatMap(({ key, tiles }) => marks(key, tiles * tileTokens)).values()
    const ofAudio = audioInputs.flatMap(({ key, tokens }) => marks(key, tokens)).values()
    return inputIds.map((id) => {
      if (id === AUDIO_PLACE) return ofAudio.next().value as number
      return imageInputs.length > 0 && id === contextTokenId ? (ofImages.next().value as number) : id
    })
  }

  /** Return the images and audio clips with tokens after the first `from` tokens. @internal */
  mediaFrom({ inputIds, imageInputs, audioInputs }: EmoVerseSampleTokens, from: number) {
    const { contextTokenId, tileTokens = 0 } = this.vision ?? {}
    const count = (place: number | undefined) => inputIds.slice(0, from).filter((id) => id === place).length
    return {
      imageInputs:
        imageInputs.length === 0
          ? []
          : mediaAfter(imageInputs, count(contextTokenId), ({ tiles }) => tiles * tileTokens),
      audioInputs: audioInputs.length === 0 ? [] : mediaAfter(audioInputs, count(AUDIO_PLACE), ({ tokens }) => tokens),
    }
  }

  /**
   * Answer records, greedily unless options say otherwise. Prompts with a common prefix share its keys and values.
   * @throws DataError naming the record for a prompt that is too long, unless `compat` is 'published'; otherwise as `encode`
   */
  generate(records: readonly EmoVerseQuestion[], options: EmoVerseGenerateOptions = {}): Promise<EmoVerseAnswer[]> {
    return generateAnswers(this, records, options)
  }

  /**
   * Stream an answer piece by piece, without its end token. Leaving the loop, or aborting the signal, ends the generation. The next turn of
   * a conversation, or another question about the same images, computes only its new tokens.
   * @throws DataError for a prompt that is too long; ConfigError for beams; otherwise as `encode`
   */
  stream(record: EmoVerseQuestion, options: EmoVerseStreamOptions = {}): AsyncGenerator<EmoVersePiece, void, void> {
    return streamAnswer(this, record, options)
  }

  /**
   * Return the probability of each allowed answer, its end token included, normalized over the allowed answers. Every result is a valid
   * answer, and the probabilities allow thresholds. The prompt is encoded once.
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
    return labelProbabilities(this, record, labels, options)
  }

  /**
   * Return the probability of each pair of the target and an utterance of the dialog, over the answers that the question allows. Unlikely
   * answers are pruned. The sum exceeds 1 if several causes are likely.
   *
   * ```ts
   * const { '3_joy,2': before } = await model.scoreCauses(record)
   * ```
   * @throws DataError for a question that is not about causes
   */
  async scoreCauses(record: EmoVerseQuestion, options: EmoVerseScoreOptions = {}): Promise<Record<string, number>> {
    requireOptions('EmoVerse.scoreCauses', options, ['signal', 'mediaRoot', ...PROMPT_LIMITS])
    return causeProbabilities(this, record, options)
  }

  /**
   * Return the tiles and frames that the network receives for images, then videos.
   * @throws ConfigError without a vision encoder; DataError for unreadable media
   */
  async look(
    { images = [], videos = [] }: Pick<EmoVerseQuestion, 'images' | 'videos'>,
    { signal }: { signal?: AbortSignal } = {},
  ): Promise<EmoVerseLook[]> {
    if (this.vision) return this.vision.look({ query: '', images, videos }, signal)
    throw new ConfigError(
      'EmoVerse.look: expected a model with a vision encoder, got one without. Load an InternVL, with media: "read".',
      { argument: 'model' },
    )
  }

  /**
   * Decode an answer's tokens, without an end-of-sequence token and the template's end token. Other special tokens stay, as in ms-swift.
   */
  textOf(tokens: readonly number[]): string {
    const { end } = INTERNVL_TEMPLATES[this.template]
    const ids = tokens.at(-1) === this.tokenizer.eosTokenId ? tokens.slice(0, -1) : tokens
    const text = this.tokenizer.decode(ids, { skipSpecialTokens: false })
    return text.endsWith(end) ? text.slice(0, -end.length) : text
  }

  /** Write a folder that {@link EmoVerse.fromPretrained} and transformers read. */
  save(folder: string): Promise<void> {
    return saveEmoVerse(folder, this)
  }

  /** Free the networks and caches. */
  dispose(): void {
    this.prefixCaches.dispose()
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

/** Network and audio encoder as one module for training and evaluation. */
class NetworkWithSpeech extends Module {
  constructor(
    readonly network: DecoderLM | InternVL,
    readonly speech: SpeechBranch,
  ) {
    super()
  }
}

/** Images and audio clips, with the positions of their tokens in a row. */
type MediaPlaces = Pick<EmoVerseBatch, 'imageInputs' | 'imagePlaces' | 'audioInputs' | 'audioPlaces'>

/**
 * Return embeddings [1, time, dim] with rows [places, dim] at the given positions. The positions are known on the host, so no device
 * synchronization is needed.
 * @throws ShapeError with both numbers if they differ
 */
function put(embeddings: Tensor, places: readonly number[], rows: Tensor, what: string): Tensor {
  if (rows.size(0) !== places.length) {
    throw new ShapeError(
      `EmoVerse.embed: expected ${places.length} tokens of ${what}, as the text has positions, got ${rows.size(0)}.`,
      {
        places: places.length,
        tokens: rows.size(0),
      },
    )
  }
  const { device, dtype } = embeddings
  const index = tensor([...places], { dtype: 'int64', device })
  return ops.indexCopy(embeddings.select(0, 0), 0, index, rows.to({ device, dtype })).unsqueeze(0)
}

/** Hash a media key to a number below that of audio placeholders. */
function markOf(key: string): number {
  return -2 - Number.parseInt(createHash('sha256').update(key).digest('hex').slice(0, 12), 16)
}

/** Return the media that have tokens after the first `before` media tokens. */
function mediaAfter<T>(media: readonly T[], before: number, tokensOf: (one: T) => number): T[] {
  let left = before
  return media.filter((one) => {
    left -= tokensOf(one)
    return left < 0
  })
}

/** Remove all media markers from the texts of a record. */
function withoutMarkers<R extends EmoVerseQuestion>(record: R): R {
  return withTexts(record, Object.values(MEDIA_MARKERS))
}

function withoutAudio<R extends EmoVerseQuestion>({ audios: _, ...record }: R): R {
  return withTexts(record as R, [MEDIA_MARKERS.audios])
}

function withTexts<R extends EmoVerseQuestion>(record: R, markers: readonly string[]): R {
  const without = (text: string) => markers.reduce((rest, marker) => rest.replaceAll(marker, ''), text)
  const { history, query, response } = record
  return {
    ...record,
    query: without(query),
    ...(typeof response === 'string' && { response: without(response) }),
    ...(history && {
      history: history.map(([question, answer]) => [without(question), without(answer)] as [string, string]),
    }),
  }
}
