import { shown } from '../../base/arguments.js'
import { misuse, requireObject, requireOneOf, requireOptions, requireString, requireWhole } from '../../base/check.js'
import { ConfigError, DataError } from '../../base/errors.js'
import type { Tokenizer } from '../../text/index.js'

/** How turns are written: by the published name of a template. */
export type InternVLTemplate = 'hermes2' | 'internlm2' | 'phi3'

interface Template {
  system: readonly [before: string, behind: string]
  user: readonly [before: string, behind: string]
  /** Ends an answer, and the text that stops one. */
  end: string
}

const CHATML: Template = {
  system: ['<|im_start|>system\n', '<|im_end|>'],
  user: ['<|im_start|>user\n', '<|im_end|><|im_start|>assistant\n'],
  end: '<|im_end|>',
}
/** No line break stands behind an end: that came with InternVL 2.5. */
export const INTERNVL_TEMPLATES: Readonly<Record<InternVLTemplate, Template>> = {
  hermes2: CHATML,
  internlm2: CHATML,
  phi3: {
    system: ['<|system|>\n', '<|end|>'],
    user: ['<|user|>\n', '<|end|><|assistant|>\n'],
    end: '<|end|>',
  },
}
/** What `template` of a published config.json calls them. */
const NAMES: Readonly<Record<string, InternVLTemplate>> = {
  'Hermes-2': 'hermes2',
  'internlm2-chat': 'internlm2',
  'phi3-chat': 'phi3',
}

/** What InternVL2 is told of itself where nobody says anything else. */
export const INTERNVL_SYSTEM =
  '你是由上海人工智能实验室联合商汤科技开发的书生多模态大模型，英文名叫InternVL, 是一个有用无害的人工智能助手。'

const [IMAGE, VIDEO, AUDIO, CONTEXT] = ['<image>', '<video>', '<audio>', '<IMG_CONTEXT>']

/** Stands where the embedding of a sound does; no token has this id. */
export const AUDIO_PLACE = -1

/** The template that a configuration names. @throws ConfigError for one that is not known */
export function internVLTemplate(name: unknown): InternVLTemplate {
  if (typeof name === 'string' && Object.hasOwn(NAMES, name)) return NAMES[name] as InternVLTemplate
  if (typeof name === 'string' && Object.hasOwn(INTERNVL_TEMPLATES, name)) return name as InternVLTemplate
  throw new ConfigError(`InternVL has no template ${shown(name)}; it has ${Object.keys(NAMES).join(', ')}`, {
    template: name,
  })
}

/** A conversation with pictures at its markers. */
export interface InternVLConversation {
  /** Questions and answers, in order; null where an answer is to be written, in the last turn alone. */
  turns: readonly (readonly [query: string, response: string | null])[]
  /** Default: what InternVL2 is told of itself; null for none. */
  system?: string | null
  /** For each `<image>` of the questions, in order: its tiles, the thumbnail counted. */
  images?: readonly number[]
  /** For each `<video>`: its frames, of one tile each. */
  videos?: readonly number[]
  /** For each `<audio>`: tokens of its embeddings, where the language model is given ears. */
  audios?: readonly number[]
}

export interface InternVLPromptOptions {
  template: InternVLTemplate
  /** Tokens of a tile. Default 256. */
  tileTokens?: number
  /** Default: the tokenizer's `<IMG_CONTEXT>`. */
  imgContextTokenId?: number
}

export interface InternVLPrompt {
  /** Token ids; -1 at places of sounds, where no token is. */
  inputIds: number[]
  /** What is learnt: each answer with what ends it; -100 for all else. */
  labels: number[]
  /** How many tiles stand in the text, in the order of their places: an image by its marker, frames by theirs. */
  tiles: number
}

/** Tokens of all pictures: a hundred times what the networks know positions for. */
const MOST = 1 << 22

type Piece = { text: string | number[]; learnt: boolean }

/**
 * A conversation as token ids, as ms-swift 2.6 writes it for InternVL2: pieces of text that are learnt alike are made tokens
 * together, and pictures part them. The token that begins a text stands in front where the tokenizer puts one there.
 *
 * ```ts
 * const { inputIds } = internVLPrompt(tokenizer, { turns: [['<image>\nWhat is it?', null]], images: [7] }, { template: 'hermes2' })
 * ```
 * @throws DataError where there are not as many markers as pictures, naming both numbers, where a text holds `<IMG_CONTEXT>`, and
 * for a turn without an answer before the last; ConfigError for a tokenizer that lacks the template's tokens
 */
export function internVLPrompt(
  tokenizer: Tokenizer,
  conversation: InternVLConversation,
  options: InternVLPromptOptions,
): InternVLPrompt {
  return encoded(tokenizer, piecesOf(tokenizer, conversation, options))
}

/** The same, while other work of the process runs. @internal */
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
  /** What ends an answer. */
  end: string
  tiles: number
}

function piecesOf(
  tokenizer: Tokenizer,
  conversation: InternVLConversation,
  options: InternVLPromptOptions,
): PromptPieces {
  const where = 'internVLPrompt'
  if (typeof tokenizer?.encode !== 'function') throw misuse(where, 'tokenizer', 'a Tokenizer', tokenizer)
  requireObject(where, 'conversation', conversation)
  requireOptions(where, conversation, ['turns', 'system', 'images', 'videos', 'audios'])
  requireOptions(where, options, ['template', 'tileTokens', 'imgContextTokenId'])
  requireOneOf(where, 'template', options.template, Object.keys(INTERNVL_TEMPLATES))
  const { tileTokens = 256, imgContextTokenId = tokenizer.tokenToId(CONTEXT) } = options
  requireWhole(where, 'tileTokens', tileTokens, 1)
  const { turns, system = INTERNVL_SYSTEM, images = [], videos = [], audios = [] } = conversation
  requireTurns(where, turns)
  if (system !== null) requireString(where, 'system', system)
  const template = INTERNVL_TEMPLATES[options.template]
  for (const text of [system ?? '', ...turns.flat()]) {
    if (text?.includes(CONTEXT))
      throw new DataError(`${where}: a text holds ${CONTEXT}, whose places are those of pictures`, {})
  }
  for (const [name, list] of Object.entries({ images, videos, audios })) {
    if (!Array.isArray(list)) throw misuse(where, name, 'a list of numbers', list)
    for (const count of list) requireWhole(where, name, count, 1)
  }
  const sum = (counts: readonly number[]) => counts.reduce((all, count) => all + count, 0)
  const places = sum([...images, ...videos]) * tileTokens + sum(audios)
  if (places > MOST)
    throw new DataError(`${where}: pictures and sounds have ${places} tokens, more than ${MOST}`, { places })
  const media = new Media(where, { images, videos, audios }, (tiles) => {
    if (imgContextTokenId !== undefined) return new Array<number>(tiles * tileTokens).fill(imgContextTokenId)
    throw new ConfigError(`${where}: the tokenizer has no ${CONTEXT}; say its imgContextTokenId`, {})
  })
  const pieces: Piece[] = []
  const say = (text: string) => pieces.push(...media.split(text))
  if (system !== null) say(`${template.system[0]}${system}${template.system[1]}`)
  for (const [i, [query, response]] of turns.entries()) {
    say(`${template.user[0]}${query}${template.user[1]}`)
    if (response === null) break
    pieces.push({ text: response, learnt: true })
    pieces.push({ text: template.end, learnt: i === turns.length - 1 })
  }
  media.finish()
  return { pieces, end: template.end, tiles: media.tiles }
}

function requireTurns(where: string, turns: unknown): asserts turns is InternVLConversation['turns'] {
  const wrong = () => misuse(where, 'turns', 'a list of [question, answer or null]', turns)
  if (!Array.isArray(turns) || turns.length === 0) throw wrong()
  for (const [i, turn] of turns.entries()) {
    if (!Array.isArray(turn) || turn.length !== 2 || typeof turn[0] !== 'string') throw wrong()
    if (turn[1] === null && i < turns.length - 1)
      throw new DataError(`${where}: turn ${i + 1} has no answer`, { turn: i })
    if (turn[1] !== null && typeof turn[1] !== 'string') throw wrong()
  }
}

/** Pictures, frames and sounds at their markers. */
class Media {
  tiles = 0
  #images = 0
  #videos = 0
  #audios = 0

  constructor(
    private readonly where: string,
    private readonly given: { images: readonly number[]; videos: readonly number[]; audios: readonly number[] },
    private readonly places: (tiles: number) => number[],
  ) {}

  /** Without any pictures, or sounds, their markers are words like others. */
  split(text: string): Piece[] {
    const { images, videos, audios } = this.given
    const seen = images.length + videos.length > 0 ? [IMAGE, VIDEO] : []
    const markers = audios.length > 0 ? [...seen, AUDIO] : seen
    if (markers.length === 0) return [{ text, learnt: false }]
    return text.split(new RegExp(`(${markers.join('|')})`)).flatMap((part): Piece[] => {
      if (part === IMAGE && seen.length > 0) return this.#picture(images[this.#images++] ?? 0)
      if (part === VIDEO && seen.length > 0) return this.#frames(videos[this.#videos++] ?? 0)
      if (part === AUDIO && audios.length > 0) return this.#sound(audios[this.#audios++] ?? 0)
      return part === '' ? [] : [{ text: part, learnt: false }]
    })
  }

  /** As SALMONN marks it. */
  #sound(tokens: number): Piece[] {
    return [
      { text: '<Speech>', learnt: false },
      { text: new Array<number>(tokens).fill(AUDIO_PLACE), learnt: false },
      { text: '</Speech>\n', learnt: false },
    ]
  }

  #picture(tiles: number): Piece[] {
    this.tiles += tiles
    return [
      { text: '<img>', learnt: false },
      { text: this.places(tiles), learnt: false },
      { text: '</img>\n', learnt: false },
    ]
  }

  #frames(count: number): Piece[] {
    return Array.from({ length: count }, (_, i) => [
      { text: `Frame${i + 1}: `, learnt: false },
      ...this.#picture(1),
    ]).flat()
  }

  finish(): void {
    for (const [marker, found, given] of [
      [IMAGE, this.#images, this.given.images.length],
      [VIDEO, this.#videos, this.given.videos.length],
      [AUDIO, this.#audios, this.given.audios.length],
    ] as const) {
      if (found === given) continue
      throw new DataError(`${this.where}: the questions have ${marker} ${found} times, and there are ${given}`, {
        marker,
        markers: found,
        given,
      })
    }
  }
}

const NOT_LEARNT = -100

function encoded(
  tokenizer: Tokenizer,
  { pieces, end, tiles }: PromptPieces,
  known?: ReadonlyMap<string, readonly number[]>,
): InternVLPrompt {
  const idsOf = (text: string) => known?.get(text) ?? tokenizer.encode(text, { addSpecialTokens: false }).inputIds
  const begin = tokenizer.bosTokenId
  const begins = begin !== null && tokenizer.encode('').inputIds.includes(begin)
  const inputIds = begins ? [begin as number] : []
  const labels = inputIds.map(() => NOT_LEARNT)
  for (const { text, learnt } of joined(pieces)) {
    const ids = typeof text === 'string' ? idsOf(text) : text
    for (const id of ids) {
      inputIds.push(id)
      labels.push(learnt ? id : NOT_LEARNT)
    }
  }
  return { inputIds, labels: withEnds(labels, idsOf(end)), tiles }
}

/** Texts that stand beside each other and are learnt alike, in one. */
function joined(pieces: readonly Piece[]): Piece[] {
  const result: Piece[] = []
  for (const piece of pieces) {
    const before = result.at(-1)
    if (before && typeof before.text === 'string' && typeof piece.text === 'string' && before.learnt === piece.learnt) {
      result[result.length - 1] = { ...before, text: before.text + piece.text }
    } else {
      result.push(piece)
    }
  }
  return result
}

/** What ends an answer of an earlier turn is made tokens with the question behind it, and learnt all the same. */
function withEnds(labels: number[], end: readonly number[]): number[] {
  let start = 0
  for (let i = 1; i < labels.length; i++) {
    const [before, here] = [labels[i - 1] as number, labels[i] as number]
    if (before >= 0 && here === NOT_LEARNT) start = i
    if (start > 0 && before === NOT_LEARNT && here >= 0 && i - start >= end.length) {
      for (const [k, id] of end.entries()) labels[start + k] = id
    }
  }
  return labels
}
