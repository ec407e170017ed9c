import { shown } from '../../base/arguments.js'
import {
  argumentError,
  requireObject,
  requireOneOf,
  requireOptions,
  requireString,
  requireWhole,
} from '../../base/check.js'
import { ConfigError, DataError } from '../../base/errors.js'
import type { Tokenizer } from '../../text/index.js'

/** Chat template, by its published name. */
export type InternVLTemplate = 'hermes2' | 'internlm2' | 'internvl2_5' | 'phi3'

interface Template {
  system: readonly [before: string, after: string]
  user: readonly [before: string, after: string]
  /** End of an answer, which stops generation. */
  end: string
  /** Text between the end of an answer and the next question. */
  between: string
  /** Text after an image's tokens. */
  afterImage: string
  defaultSystem: string
}

/** Default system prompt of InternVL2. */
export const INTERNVL_SYSTEM =
  '你是由上海人工智能实验室联合商汤科技开发的书生多模态大模型，英文名叫InternVL, 是一个有用无害的人工智能助手。'

/** Fields of InternVL2's templates, which have no line break after an end and one after an image. */
const INTERNVL2 = { between: '', afterImage: '\n', defaultSystem: INTERNVL_SYSTEM } as const
const CHATML: Template = {
  ...INTERNVL2,
  system: ['<|im_start|>system\n', '<|im_end|>'],
  user: ['<|im_start|>user\n', '<|im_end|><|im_start|>assistant\n'],
  end: '<|im_end|>',
}
/** Chat templates. */
export const INTERNVL_TEMPLATES: Readonly<Record<InternVLTemplate, Template>> = {
  hermes2: CHATML,
  internlm2: CHATML,
  internvl2_5: {
    system: ['<|im_start|>system\n', '<|im_end|>\n'],
    user: ['<|im_start|>user\n', '<|im_end|>\n<|im_start|>assistant\n'],
    end: '<|im_end|>',
    between: '\n',
    afterImage: '',
    defaultSystem:
      '你是书生·万象，英文名是InternVL，是由上海人工智能实验室、清华大学及多家合作单位联合开发的多模态大语言模型。',
  },
  phi3: {
    ...INTERNVL2,
    system: ['<|system|>\n', '<|end|>'],
    user: ['<|user|>\n', '<|end|><|assistant|>\n'],
    end: '<|end|>',
  },
}
/** Templates by the value of `template` in a published config.json. */
const NAMES: Readonly<Record<string, InternVLTemplate>> = {
  'Hermes-2': 'hermes2',
  'internlm2-chat': 'internlm2',
  internvl2_5: 'internvl2_5',
  'phi3-chat': 'phi3',
}

/**
 * Return a chat template in Jinja. Content is a text or a list of parts; an image part becomes `<image>`, on a line of its own with the text of
 * `afterImage`. Conversations without a system message get the default one.
 */
export function internVLChatTemplate(name: InternVLTemplate): string {
  const { system, user, end, between, afterImage, defaultSystem } = INTERNVL_TEMPLATES[name]
  const text = (value: string) => `'${value.replaceAll('\n', '\\n')}'`
  const answerAt = user[1].lastIndexOf('<|', user[1].indexOf('assistant'))
  const answer = text(user[1].slice(answerAt))
  const image = text(afterImage === '' ? '<image>\n' : '<image>')
  return `{%- if tools -%}{{- raise_exception('expected no tools, which the template of InternVL does not have') -}}{%- endif -%}
{%- if messages and messages[0]['role'] != 'system' -%}{{- ${text(system[0] + defaultSystem + system[1])} -}}{%- endif -%}
{%- for message in messages -%}
  {%- if message['role'] == 'system' -%}{{- ${text(system[0])} -}}
  {%- elif message['role'] == 'assistant' -%}{{- ${answer} -}}
  {%- elif message['role'] == 'user' -%}{{- ${text(user[0])} -}}
  {%- else -%}{{- raise_exception('expected a role of system, user or assistant') -}}
  {%- endif -%}
  {%- if message['tool_calls'] -%}{{- raise_exception('expected no tool_calls, which the template of InternVL does not have') -}}{%- endif -%}
  {%- if message['content'] is string -%}{{- message['content'] -}}
  {%- elif not message['content'] -%}{{- raise_exception('expected content, got none') -}}
  {%- else -%}
    {%- for part in message['content'] -%}
      {%- if part['type'] == 'image' -%}{{- ${image} -}}{%- else -%}{{- part['text'] -}}{%- endif -%}
    {%- endfor -%}
  {%- endif -%}
  {%- if message['role'] == 'system' -%}{{- ${text(system[1])} -}}
  {%- elif message['role'] == 'user' -%}{{- ${text(user[1].slice(0, answerAt))} -}}
  {%- else -%}{{- ${text(end)} -}}{%- if not loop.last -%}{{- ${text(between)} -}}{%- endif -%}
  {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- ${answer} -}}{%- endif -%}`
}

const [IMAGE, VIDEO, AUDIO, CONTEXT] = ['<image>', '<video>', '<audio>', '<IMG_CONTEXT>']

/** Placeholder of an audio embedding; no token has this id. */
export const AUDIO_PLACE = -1

/** Return the template that a configuration names. @throws ConfigError for an unknown one */
export function internVLTemplate(name: unknown): InternVLTemplate {
  if (typeof name === 'string' && Object.hasOwn(NAMES, name)) return NAMES[name] as InternVLTemplate
  if (typeof name === 'string' && Object.hasOwn(INTERNVL_TEMPLATES, name)) return name as InternVLTemplate
  throw new ConfigError(`InternVL: template: expected one of ${Object.keys(NAMES).join(', ')}, got ${shown(name)}.`, {
    template: name,
  })
}

/** A conversation with media markers. */
export interface InternVLConversation {
  /** Questions and answers, in order; null for an answer to generate, only in the last turn. */
  turns: readonly (readonly [query: string, response: string | null])[]
  /** System prompt. Default: the template's published one; null for none. */
  system?: string | null
  /** Number of tiles of each `<image>` of the questions, in order, thumbnail included. */
  images?: readonly number[]
  /** Number of frames of each `<video>`, of one tile each. */
  videos?: readonly number[]
  /** Number of tokens of each `<audio>`, for a model with an added audio encoder. */
  audios?: readonly number[]
}

export interface InternVLPromptOptions {
  template: InternVLTemplate
  /** Number of tokens of a tile. Default 256. */
  tileTokens?: number
  /** Id of `<IMG_CONTEXT>`. Default: the tokenizer's. */
  imgContextTokenId?: number
}

export interface InternVLPrompt {
  /** Token ids; -1 at the positions of audio embeddings. */
  inputIds: number[]
  /** Labels: each answer with its end token; -100 for all other tokens. */
  labels: number[]
  /** Total number of tiles in the text, video frames included. */
  tiles: number
}

/** Maximum number of media tokens: far above the number of positions of these networks. */
const MOST = 1 << 22

type Piece = { text: string | number[]; isTarget: boolean }

/**
 * Encode a conversation as token ids, as ms-swift 2.6 does for InternVL2: neighboring texts with the same role in the loss are tokenized
 * together, and images separate them. The begin-of-sequence token is added if the tokenizer adds one. The template `internvl2_5`, of
 * InternVL 2.5 and 3, is that of the published code (https://github.com/OpenGVLab/InternVL), without the line break that ms-swift adds
 * after each image.
 *
 * ```ts
 * const { inputIds } = internVLPrompt(tokenizer, { turns: [['<image>\nWhat is it?', null]], images: [7] }, { template: 'hermes2' })
 * ```
 * @throws DataError if the numbers of markers and media differ, naming both, for a text with `<IMG_CONTEXT>`, and for a turn without an
 * answer before the last; ConfigError for a tokenizer without the template's tokens
 */
export function internVLPrompt(
  tokenizer: Tokenizer,
  conversation: InternVLConversation,
  options: InternVLPromptOptions,
): InternVLPrompt {
  return encoded(tokenizer, piecesOf(tokenizer, conversation, options))
}

/** Do the same as {@link internVLPrompt} without blocking the event loop. @internal */
export async function internVLPromptAsync(
  tokenizer: Tokenizer,
  conversation: InternVLConversation,
  options: InternVLPromptOptions,
  signal?: AbortSignal,
): Promise<InternVLPrompt> {
  const parts = piecesOf(tokenizer, conversation, options)
  const known = new Map<string, readonly number[]>()
  for (const { text } of joined(parts.pieces)) {
    if (typeof text !== 'string') continue
    const { inputIds } = await tokenizer.encodeAsync(text, { addSpecialTokens: false, ...(signal && { signal }) })
    known.set(text, inputIds)
  }
  return encoded(tokenizer, parts, known)
}

interface PromptPieces {
  pieces: readonly Piece[]
  /** End of an answer. */
  end: string
  tiles: number
}

function piecesOf(
  tokenizer: Tokenizer,
  conversation: InternVLConversation,
  options: InternVLPromptOptions,
): PromptPieces {
  const where = 'internVLPrompt'
  if (typeof tokenizer?.encode !== 'function') throw argumentError(where, 'tokenizer', 'a Tokenizer', tokenizer)
  requireObject(where, 'conversation', conversation)
  requireOptions(where, conversation, ['turns', 'system', 'images', 'videos', 'audios'])
  requireOptions(where, options, ['template', 'tileTokens', 'imgContextTokenId'])
  requireOneOf(where, 'template', options.template, Object.keys(INTERNVL_TEMPLATES))
  const { tileTokens = 256, imgContextTokenId = tokenizer.tokenToId(CONTEXT) } = options
  requireWhole(where, 'tileTokens', tileTokens, 1)
  const template = INTERNVL_TEMPLATES[options.template]
  const { turns, system = template.defaultSystem, images = [], videos = [], audios = [] } = conversation
  requireTurns(where, turns)
  if (system !== null) requireString(where, 'system', system)
  for (const text of [system ?? '', ...turns.flat()]) {
    if (text?.includes(CONTEXT))
      throw new DataError(
        `${where}: expected texts without ${CONTEXT}, which marks image tokens, got one with it. Remove it.`,
        {},
      )
  }
  for (const [name, list] of Object.entries({ images, videos, audios })) {
    if (!Array.isArray(list)) throw argumentError(where, name, 'a list of numbers', list)
    for (const count of list) requireWhole(where, name, count, 1)
  }
  const sum = (counts: readonly number[]) => counts.reduce((all, count) => all + count, 0)
  const places = sum([...images, ...videos]) * tileTokens + sum(audios)
  if (places > MOST)
    throw new DataError(`${where}: expected at most ${MOST} tokens of images and audio, got ${places}.`, { places })
  const media = new Media(where, { images, videos, audios }, template.afterImage, (tiles) => {
    if (imgContextTokenId !== undefined) return new Array<number>(tiles * tileTokens).fill(imgContextTokenId)
    throw new ConfigError(
      `${where}.imgContextTokenId: expected an id, since the tokenizer lacks ${CONTEXT}, got none. Set it.`,
      {},
    )
  })
  const pieces: Piece[] = []
  const addText = (text: string) => pieces.push(...media.split(text))
  if (system !== null) addText(`${template.system[0]}${system}${template.system[1]}`)
  for (const [i, [query, response]] of turns.entries()) {
    addText(`${i > 0 ? template.between : ''}${template.user[0]}${query}${template.user[1]}`)
    if (response === null) break
    pieces.push({ text: response, isTarget: true })
    pieces.push({ text: template.end, isTarget: i === turns.length - 1 })
  }
  media.finish()
  return { pieces, end: template.end, tiles: media.tiles }
}

function requireTurns(where: string, turns: unknown): asserts turns is InternVLConversation['turns'] {
  const wrong = () => argumentError(where, 'turns', 'a list of [question, answer or null]', turns)
  if (!Array.isArray(turns) || turns.length === 0) throw wrong()
  for (const [i, turn] of turns.entries()) {
    if (!Array.isArray(turn) || turn.length !== 2 || typeof turn[0] !== 'string') throw wrong()
    if (turn[1] === null && i < turns.length - 1)
      throw new DataError(`${where}: turn ${i + 1}: expected an answer in every turn except the last, got null.`, {
        turn: i,
      })
    if (turn[1] !== null && typeof turn[1] !== 'string') throw wrong()
  }
}

/** Inserter of media tokens at their markers. */
class Media {
  tiles = 0
  #images = 0
  #videos = 0
  #audios = 0

  constructor(
    private readonly where: string,
    private readonly given: { images: readonly number[]; videos: readonly number[]; audios: readonly number[] },
    private readonly afterImage: string,
    private readonly places: (tiles: number) => number[],
  ) {}

  /** Split a text at its media markers. Without images and videos, or audio, their markers are plain text. */
  split(text: string): Piece[] {
    const { images, videos, audios } = this.given
    const visualMarkers = images.length + videos.length > 0 ? [IMAGE, VIDEO] : []
    const markers = audios.length > 0 ? [...visualMarkers, AUDIO] : visualMarkers
    if (markers.length === 0) return [{ text, isTarget: false }]
    return text.split(new RegExp(`(${markers.join('|')})`)).flatMap((part): Piece[] => {
      if (part === IMAGE && visualMarkers.length > 0) return this.#image(images[this.#images++] ?? 0)
      if (part === VIDEO && visualMarkers.length > 0) return this.#frames(videos[this.#videos++] ?? 0)
      if (part === AUDIO && audios.length > 0) return this.#audio(audios[this.#audios++] ?? 0)
      return part === '' ? [] : [{ text: part, isTarget: false }]
    })
  }

  /** Return the tokens of an audio clip, marked as in SALMONN. */
  #audio(tokens: number): Piece[] {
    return [
      { text: '<Speech>', isTarget: false },
      { text: new Array<number>(tokens).fill(AUDIO_PLACE), isTarget: false },
      { text: '</Speech>\n', isTarget: false },
    ]
  }

  #image(tiles: number, after = this.afterImage): Piece[] {
    this.tiles += tiles
    return [
      { text: '<img>', isTarget: false },
      { text: this.places(tiles), isTarget: false },
      { text: `</img>${after}`, isTarget: false },
    ]
  }

  #frames(count: number): Piece[] {
    return Array.from({ length: count }, (_, i) => [
      { text: `Frame${i + 1}: `, isTarget: false },
      ...this.#image(1, '\n'),
    ]).flat()
  }

  finish(): void {
    for (const [marker, found, given] of [
      [IMAGE, this.#images, this.given.images.length],
      [VIDEO, this.#videos, this.given.videos.length],
      [AUDIO, this.#audios, this.given.audios.length],
    ] as const) {
      if (found === given) continue
      throw new DataError(
        `${this.where}: expected ${found} for ${found} markers ${marker} in the questions, got ${given}.`,
        {
          marker,
          markers: found,
          given,
        },
      )
    }
  }
}

const IGNORED = -100

function encoded(
  tokenizer: Tokenizer,
  { pieces, end, tiles }: PromptPieces,
  known?: ReadonlyMap<string, readonly number[]>,
): InternVLPrompt {
  const idsOf = (text: string) => known?.get(text) ?? tokenizer.encode(text, { addSpecialTokens: false }).inputIds
  const begin = tokenizer.bosTokenId
  const begins = begin !== null && tokenizer.encode('').inputIds.includes(begin)
  const inputIds = begins ? [begin as number] : []
  const labels = inputIds.map(() => IGNORED)
  for (const { text, isTarget } of joined(pieces)) {
    const ids = typeof text === 'string' ? idsOf(text) : text
    for (const id of ids) {
      inputIds.push(id)
      labels.push(isTarget ? id : IGNORED)
    }
  }
  return { inputIds, labels: withEnds(labels, idsOf(end)), tiles }
}

/** Join neighboring texts with the same role in the loss. */
function joined(pieces: readonly Piece[]): Piece[] {
  const result: Piece[] = []
  for (const piece of pieces) {
    const before = result.at(-1)
    if (
      before &&
      typeof before.text === 'string' &&
      typeof piece.text === 'string' &&
      before.isTarget === piece.isTarget
    ) {
      result[result.length - 1] = { ...before, text: before.text + piece.text }
    } else {
      result.push(piece)
    }
  }
  return result
}

/** Label the end of each earlier answer, which is tokenized together with the next question. */
function withEnds(labels: number[], end: readonly number[]): number[] {
  let start = 0
  for (let i = 1; i < labels.length; i++) {
    const [before, here] = [labels[i - 1] as number, labels[i] as number]
    if (before >= 0 && here === IGNORED) start = i
    if (start > 0 && before === IGNORED && here >= 0 && i - start >= end.length) {
      for (const [k, id] of end.entries()) labels[start + k] = id
    }
  }
  return labels
}
