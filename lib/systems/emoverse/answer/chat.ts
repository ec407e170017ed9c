import { argumentError, defined } from '../../../base/check.js'
import { ConfigError, DataError } from '../../../base/errors.js'
import { type ChangesOf, settings, unchecked } from '../../../base/settings.js'
import { requireConversation, requireParts, requireRoom } from '../../../kit/chat.js'
import type {
  ChatAnswerOptions,
  ChatDelta,
  ChatModality,
  ChatModel,
  ChatPart,
  ChatTask,
  ChatTurn,
  ChatView,
} from '../../../serve/chat-model.js'
import { Generator } from '../../../tensor/index.js'
import type { ImageInput } from '../../../vision/index.js'
import { type EmoVerseQuestion, MEDIA_MARKERS } from '../data/entry.js'
import type { EmoVerseAudio, EmoVerseVideo } from '../data/media.js'
import { encodedQuestions } from '../network/limits.js'
import { EmoVerse } from '../network/network.js'
import type { EcpeWording, EmotionNames, EmoVerseTask } from '../published/wording.js'
import { CHAT_TASKS, type TaskQuestion, taskQuestion } from './chat-tasks.js'

const SETTINGS = settings({
  /** Model name in `/v1/models`. Default 'emoverse'. */
  name: { type: 'string', default: 'emoverse' },
  /** Data set whose wording and labels the tasks use. Default 'meld'. */
  names: { type: ['meld', 'mosei'], default: 'meld' },
  /** Texts of a question about causes. Default: {@link ECPE_WORDING}. */
  wording: { type: unchecked<EcpeWording>() },
  /** Number of answers that are generated concurrently. Default 2. */
  concurrent: { type: 'integer', min: 1, default: 2 },
})

/** Settings of an {@link EmoVerseChat}. @interface */
export type EmoVerseChatSettings = ChangesOf<typeof SETTINGS.table>

/**
 * EmoVerse as a chat model for `serve`. It takes texts, images and videos, and audio if it has an audio encoder, and streams the answer.
 * It also offers its five tasks, the probabilities of their labels, and the image tiles and video frames that it used. Each call receives
 * the whole conversation; keys, values and image features of earlier turns are reused.
 *
 * ```ts
 * using model = await EmoVerse.fromPretrained('runs/emoverse/model')
 * await serve(new EmoVerseChat(model), { port: 8080 })
 * ```
 *
 * The conversation cache belongs to the EmoVerse. Disposing this object does not dispose the EmoVerse.
 * @throws ConfigError for an unknown setting
 */
export class EmoVerseChat implements ChatModel {
  readonly model: EmoVerse
  readonly name: string
  readonly inputModalities: readonly ChatModality[]
  readonly tasks: readonly ChatTask[] = CHAT_TASKS
  readonly extras: readonly ('label_scores' | 'views')[]
  /** Number of frames that are sampled from a video. */
  readonly videoFrames: number
  /** Number of answers that are generated concurrently. */
  readonly concurrent: number
  readonly #names: EmotionNames
  readonly #wording: EcpeWording | undefined

  constructor(model: EmoVerse, options: EmoVerseChatSettings = {}) {
    const where = 'EmoVerseChat'
    if (!(model instanceof EmoVerse)) throw argumentError(where, 'model', 'an EmoVerse', model)
    const { name, names, wording, concurrent } = SETTINGS.read(where, options)
    this.model = model
    this.name = name
    this.inputModalities = [
      'text',
      ...(model.hearsMedia ? (['audio'] as const) : []),
      ...(model.seesMedia ? (['image', 'video'] as const) : []),
    ]
    this.extras = model.seesMedia ? ['label_scores', 'views'] : ['label_scores']
    this.videoFrames = model.vision?.recipe.frames ?? 8
    this.concurrent = concurrent
    this.#names = names
    this.#wording = wording
  }

  /**
   * Stream the answer to the last message. Leaving the loop, or aborting the signal, ends the generation.
   * @throws ConfigError for messages that do not form a conversation, for media that the model does not take, for a conversation that
   * leaves too few positions for an answer, and for beams; DataError for media and texts that cannot be used
   */
  async *stream(messages: readonly ChatTurn[], options: ChatAnswerOptions): AsyncGenerator<ChatDelta, void, void> {
    const { maxNewTokens, temperature, topP, topK, numBeams = 1, seed, task, signal } = options
    if (numBeams > 1)
      throw new ConfigError(`${this.name}: expected numBeams 1, got ${numBeams}. Streaming supports no beam search.`, {
        argument: 'numBeams',
      })
    this.#requireMessages(messages)
    await requireRoom(this.name, this.model.tokenizer, this.model.llm.config.maxPositionEmbeddings, messages, signal)
    // A question about causes contains a conversation, which aboutCauses checks line by line.
    if (task !== undefined && task !== 'ECPE') this.#requireSubject(task, messages)
    const asked = task === undefined ? undefined : await this.#taskQuestion(task as EmoVerseTask, messages, signal)
    const question = questionOf(messages, asked?.text)
    const promptTokens = await this.#requireRoom(question, maxNewTokens, signal)
    yield { text: '', tokens: 0, promptTokens, ...(asked && { asked: asked.text }) }
    const views = options.views === true ? await this.#views(messages, question, signal) : []
    if (views.length > 0) yield { text: '', tokens: 0, views }
    const labels = options.labels ?? asked?.labels
    if (labels) yield { text: '', tokens: 0, labelScores: await this.model.scoreLabels(question, labels, { signal }) }
    const generator = seed === undefined ? undefined : new Generator({ seed })
    const doSample = temperature !== undefined && temperature > 0
    try {
      const settings = defined({ maxNewTokens, topP, topK, temperature: doSample ? temperature : undefined, generator })
      for await (const piece of this.model.stream(question, { ...settings, doSample, signal })) {
        const { text, tokens, finishReason } = piece
        yield { text, tokens, ...(finishReason !== null && { finishReason }) }
      }
    } finally {
      generator?.dispose()
    }
  }

  #requireMessages(messages: readonly ChatTurn[]): void {
    requireConversation<ChatPart>(this.name, messages, (message, name) => {
      requireParts(this.name, message, name, this.inputModalities)
      const { content } = message
      for (const part of content) {
        const marker = part.type === 'text' && Object.values(MEDIA_MARKERS).find((one) => part.text.includes(one))
        if (marker) {
          const what = `${name}: expected text without media markers, got ${marker}. Send the image, video or audio as a part.`
          throw new ConfigError(`${this.name}: ${what}`, { argument: name, marker })
        }
      }
      const isText = content.every(({ type }) => type === 'text')
      // A task adds its own question, so an empty message is valid.
      return { isEmpty: content.length === 0, isText }
    })
  }

  /** @throws DataError for a task about a conversation in which the user sent neither text nor media */
  #requireSubject(task: string, messages: readonly ChatTurn[]): void {
    const isThere = (part: ChatPart) => part.type !== 'text' || part.text.trim() !== ''
    if (messages.some(({ role, content }) => role === 'user' && content.some(isThere))) return
    const title = CHAT_TASKS.find(({ id }) => id === task)?.title ?? task
    const media = this.inputModalities.map(
      (one) => ({ text: 'text', audio: 'audio', image: 'an image', video: 'a video' })[one],
    )
    throw new DataError(
      `${this.name}: the task ${title}: expected ${media.join(' or ')}, got an empty message. Write or attach the utterance that the task is about.`,
      { argument: 'messages', task },
    )
  }

  #taskQuestion(task: EmoVerseTask, messages: readonly ChatTurn[], signal: AbortSignal): Promise<TaskQuestion> {
    const mostLikelyLabel = async (query: string, labels: readonly string[]) => {
      const probabilities = await this.model.scoreLabels({ query }, labels, { signal })
      return labels.reduce((best, label) => ((probabilities[label] ?? 0) > (probabilities[best] ?? 0) ? label : best))
    }
    const settings = { names: this.#names, mostLikelyLabel, ...(this.#wording && { wording: this.#wording }) }
    return taskQuestion(task, textOf(messages.at(-1) as ChatTurn), settings)
  }

  /** Return the number of tokens of the question, image tokens included. */
  async #requireRoom(question: EmoVerseQuestion, maxNewTokens: number, signal: AbortSignal): Promise<number> {
    const encoded = await this.model.encode(question, { answer: false, signal })
    encodedQuestions.set(question, encoded)
    const { length } = encoded.inputIds
    const { maxPositionEmbeddings: room } = this.model.llm.config
    if (room === undefined || length + maxNewTokens <= room) return length
    throw new ConfigError(
      `${this.name}: expected at most ${Math.max(0, room - length)} of ${room} tokens for the answer to a conversation of ${length}, got maxNewTokens ${maxNewTokens}. Lower it, or shorten the conversation.`,
      { tokens: length, maxNewTokens, maxPositionEmbeddings: room },
    )
  }

  /** Return the tiles and frames of the last message's media, in their order. */
  async #views(
    messages: readonly ChatTurn[],
    question: EmoVerseQuestion,
    signal: AbortSignal,
  ): Promise<readonly ChatView[]> {
    const { images, videos } = mediaOf(messages.slice(-1))
    if (images.length + videos.length === 0) return []
    // A video anywhere in the conversation changes how images are cut into tiles.
    const firstVideo = videos.length === 0 ? (question.videos ?? []).slice(0, 1) : []
    const looks = await this.model.look({ images, videos: [...videos, ...firstVideo] }, { signal })
    const seen = { image: looks.slice(0, images.length), video: looks.slice(images.length) }
    return (messages.at(-1) as ChatTurn).content.flatMap(({ type }) =>
      type === 'image' || type === 'video' ? [seen[type].shift() as ChatView] : [],
    )
  }
}

/** Convert the conversation to an EmoVerse question, with media markers at the positions of the media parts. */
function questionOf(messages: readonly ChatTurn[], asked: string | undefined): EmoVerseQuestion {
  const system = messages[0]?.role === 'system' ? textOf(messages[0]) : undefined
  const said = messages.filter(({ role }) => role !== 'system')
  const texts = said.map((message, i) => markedText(message, i === said.length - 1 ? asked : undefined))
  const history: [string, string][] = []
  for (let i = 0; i + 1 < texts.length; i += 2) history.push([texts[i] as string, texts[i + 1] as string])
  return {
    query: texts.at(-1) as string,
    ...(system !== undefined && { system }),
    ...(history.length > 0 && { history }),
    ...mediaOf(said),
  }
}

function mediaOf(messages: readonly ChatTurn[]) {
  const [images, videos, audios]: [ImageInput[], EmoVerseVideo[], EmoVerseAudio[]] = [[], [], []]
  for (const part of messages.flatMap(({ content }) => content)) {
    if (part.type === 'image') images.push(part.image)
    if (part.type === 'video') videos.push(part.frames)
    if (part.type === 'audio') audios.push(part.samples)
  }
  return { images, videos, ...(audios.length > 0 && { audios }) }
}

/** Return a message's text with markers for its media. A task's question replaces all texts, at the position of the first. */
function markedText({ content }: ChatTurn, asked: string | undefined): string {
  let rest = asked
  const texts = content.map((part) => {
    if (part.type === 'image') return MEDIA_MARKERS.images
    if (part.type === 'video') return MEDIA_MARKERS.videos
    if (part.type === 'audio') return MEDIA_MARKERS.audios
    const text = asked === undefined ? (part as { text: string }).text : (rest ?? '')
    rest = undefined
    return text
  })
  return texts.join('') + (rest ?? '')
}

const textOf = ({ content }: ChatTurn): string =>
  content.map((part) => (part.type === 'text' ? part.text : '')).join('')
