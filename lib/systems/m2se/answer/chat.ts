import { defined, misuse, requireOneOf, requireOptions, requireString, requireWhole } from '../../../base/check.js'
import { ConfigError, DataError } from '../../../base/errors.js'
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
import { EmoVerse } from '../network/network.js'
import type { EcpeWording, EmotionNames, EmoVerseTask } from '../published/wording.js'
import { type AskedTask, askedTask, CHAT_TASKS } from './chat-tasks.js'

export interface EmoVerseChatSettings {
  /** As in `/v1/models`. Default 'emoverse'. */
  name?: string
  /** Which data set's words and labels its tasks have. Default 'meld'. */
  names?: EmotionNames
  /** Of a question about causes. Default: our own. */
  wording?: EcpeWording
  /** Answers at once. Default 2. */
  concurrent?: number
}

const SETTINGS: readonly (keyof EmoVerseChatSettings)[] = ['name', 'names', 'wording', 'concurrent']

/**
 * EmoVerse in conversation, for `serve`: texts, pictures and films in, and sounds where it has ears, the answer as it is written; its
 * five tasks, how likely each of their labels is, and the tiles and frames that it looked at. Each call has the whole conversation; what was seen and read of it in
 * earlier turns is not seen and read again.
 *
 * ```ts
 * using model = await EmoVerse.fromPretrained('runs/emoverse/model')
 * await serve(new EmoVerseChat(model), { port: 8080 })
 * ```
 *
 * What is kept of conversations is the EmoVerse's, which is not disposed with it.
 * @throws ConfigError for an unknown setting
 */
export class EmoVerseChat implements ChatModel {
  readonly model: EmoVerse
  readonly name: string
  readonly inputModalities: readonly ChatModality[]
  readonly tasks: readonly ChatTask[] = CHAT_TASKS
  readonly extras: readonly ('label_scores' | 'views')[]
  /** Frames of a film that it looks at. */
  readonly videoFrames: number
  /** Answers at once. */
  readonly concurrent: number
  readonly #names: EmotionNames
  readonly #wording: EcpeWording | undefined

  constructor(model: EmoVerse, settings: EmoVerseChatSettings = {}) {
    const where = 'EmoVerseChat'
    if (!(model instanceof EmoVerse)) throw misuse(where, 'model', 'an EmoVerse', model)
    requireOptions(where, settings, SETTINGS)
    const { name = 'emoverse', names = 'meld', wording, concurrent = 2 } = settings
    requireString(where, 'name', name)
    requireOneOf(where, 'names', names, ['meld', 'mosei'])
    requireWhole(where, 'concurrent', concurrent, 1)
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
   * The answer to the last message. Leaving the loop, or the signal, ends it.
   * @throws ConfigError for messages that are no conversation, for media that the model does not take, for one that leaves no room for an
   * answer, and for beams; DataError for media and texts that cannot be used
   */
  async *stream(messages: readonly ChatTurn[], options: ChatAnswerOptions): AsyncGenerator<ChatDelta, void, void> {
    const { maxNewTokens, temperature, topP, topK, numBeams = 1, seed, task, signal } = options
    if (numBeams > 1) throw new ConfigError(`${this.name} takes no beams`, { argument: 'numBeams' })
    this.#requireMessages(messages)
    await requireRoom(this.name, this.model.tokenizer, this.model.llm.config.maxPositionEmbeddings, messages, signal)
    // What is asked about causes is a conversation, which is checked line by line.
    if (task !== undefined && task !== 'ECPE') this.#requireSubject(task, messages)
    const asked = task === undefined ? undefined : await this.#asked(task as EmoVerseTask, messages, signal)
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
          const what = `${name} spells ${marker}, which stands for a picture, a film or a sound: send it as a part`
          throw new ConfigError(`${this.name}: ${what}`, { argument: name, marker })
        }
      }
      const isText = content.every(({ type }) => type === 'text')
      // A task has words of its own, and an empty message may be what it is about.
      return { isEmpty: content.length === 0, isText }
    })
  }

  /** @throws DataError for a task about a conversation in which the user has said and shown nothing */
  #requireSubject(task: string, messages: readonly ChatTurn[]): void {
    const isThere = (part: ChatPart) => part.type !== 'text' || part.text.trim() !== ''
    if (messages.some(({ role, content }) => role === 'user' && content.some(isThere))) return
    const title = CHAT_TASKS.find(({ id }) => id === task)?.title ?? task
    const media = this.inputModalities.map(
      (one) => ({ text: 'words', audio: 'a sound', image: 'a picture', video: 'a film' })[one],
    )
    throw new DataError(
      `${this.name}: the task ${title}: expected ${media.join(' or ')} that it is about, got an empty message. Write what the person says, or show it.`,
      { argument: 'messages', task },
    )
  }

  #asked(task: EmoVerseTask, messages: readonly ChatTurn[], signal: AbortSignal): Promise<AskedTask> {
    const likeliest = async (query: string, labels: readonly string[]) => {
      const shares = await this.model.scoreLabels({ query }, labels, { signal })
      return labels.reduce((best, label) => ((shares[label] ?? 0) > (shares[best] ?? 0) ? label : best))
    }
    const settings = { names: this.#names, likeliest, ...(this.#wording && { wording: this.#wording }) }
    return askedTask(task, textOf(messages.at(-1) as ChatTurn), settings)
  }

  /** How many tokens the question has, pictures counted. */
  async #requireRoom(question: EmoVerseQuestion, maxNewTokens: number, signal: AbortSignal): Promise<number> {
    const { length } = (await this.model.encode(question, { answer: false, signal })).inputIds
    const { maxPositionEmbeddings: room } = this.model.llm.config
    if (room === undefined || length + maxNewTokens <= room) return length
    throw new ConfigError(
      `${this.name}: the conversation has ${length} tokens, which leaves ${Math.max(0, room - length)} of ${room} for the answer, not ${maxNewTokens}`,
      { tokens: length, maxNewTokens, maxPositionEmbeddings: room },
    )
  }

  /** What is looked at of the last message's media, in their order. */
  async #views(
    messages: readonly ChatTurn[],
    question: EmoVerseQuestion,
    signal: AbortSignal,
  ): Promise<readonly ChatView[]> {
    const { images, videos } = mediaOf(messages.slice(-1))
    if (images.length + videos.length === 0) return []
    // A film anywhere in the conversation changes how pictures are cut.
    const film = videos.length === 0 ? (question.videos ?? []).slice(0, 1) : []
    const looks = await this.model.look({ images, videos: [...videos, ...film] }, { signal })
    const seen = { image: looks.slice(0, images.length), video: looks.slice(images.length) }
    return (messages.at(-1) as ChatTurn).content.flatMap(({ type }) =>
      type === 'image' || type === 'video' ? [seen[type].shift() as ChatView] : [],
    )
  }
}

/** The conversation as EmoVerse is asked it: media at the places of their parts. */
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

/** A message with markers for its media; what is asked stands where its first text stood, in place of all of them. */
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
