import { DataError } from '../../../base/errors.js'
import type { ImageInput } from '../../../vision/index.js'
import type { EmoVerseAudio, EmoVerseVideo } from './media.js'

/** The kinds of media a record can name, by their keys, and the marker that stands for one in a text. */
export const MEDIA_MARKERS = { images: '<image>', videos: '<video>', audios: '<audio>' } as const
export type MediaKey = keyof typeof MEDIA_MARKERS
export const MEDIA_KEYS = Object.keys(MEDIA_MARKERS) as readonly MediaKey[]

/**
 * A record of an instruction file, as ms-swift reads it (https://github.com/modelscope/ms-swift, 2.6): what is asked, what is
 * answered, and the media that markers in the text stand for.
 */
export interface SwiftRecord {
  query: string
  /** Null where the answer is not known, in data that is only asked. */
  response: string | null
  /** What was asked and answered before, each a question and its answer. */
  history?: [query: string, response: string][]
  /** In place of the system text of the settings. */
  system?: string
  /** Paths, each of which a marker `<image>`, `<video>` or `<audio>` stands for. */
  images?: string[]
  videos?: string[]
  audios?: string[]
}

/** What an EmoVerse is asked: a record of a file, or the same with media in memory. */
export interface EmoVerseQuestion {
  query: string
  /** What it is to learn; not looked at where an answer is wanted. */
  response?: string | null
  /** What was asked and answered before; markers may stand in any question. */
  history?: readonly (readonly [query: string, response: string])[]
  /** In place of the system text of the model; '' for none. */
  system?: string
  /** For each `<image>` of the questions, in order: a file, the bytes of one, raw pixels or a tensor. */
  images?: readonly ImageInput[]
  /** For each `<video>`. */
  videos?: readonly EmoVerseVideo[]
  /** For each `<audio>`: a sound file, the bytes of one, or samples. */
  audios?: readonly EmoVerseAudio[]
}

/** Why a record cannot be used. */
export type SwiftCause = 'json' | 'encoding' | 'form' | 'response' | 'markers' | 'media' | 'length'

const fault = (reason: SwiftCause, what: string): DataError => new DataError(`it ${what}`, { reason })

const KNOWN = ['query', 'response', 'history', 'system', 'messages', 'conversations', ...MEDIA_KEYS]
/** What changes the meaning of a record, and is not understood here: to pass over it would train on something else. */
const REFUSED: Readonly<Record<string, string>> = {
  tools: 'tools',
  objects: 'boxes in pictures',
  query_role: 'another role than the user’s',
  history_roles: 'other roles than those of user and assistant',
  rejected_response: 'a rejected answer',
}

const isFilled = (value: unknown): boolean =>
  value !== null && value !== undefined && value !== '' && !(Array.isArray(value) && value.length === 0)

export interface ParsedEntry {
  record: SwiftRecord
  /** Keys that nobody reads. */
  unread: string[]
}

/**
 * A value of a file as a record: `query` and `response` with `history`, or `messages` (role, content), or the older
 * `conversations` (from, value). Media may be a path or a list of them; `<img>PATH</img>` in a text is a picture too.
 *
 * @param requireResponse whether a record without an answer is of no use
 * @throws DataError with `reason`, where it is no such record
 */
export function parseSwiftEntry(value: unknown, requireResponse: boolean): ParsedEntry {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw fault('form', 'is no object')
  const entry = value as Record<string, unknown>
  for (const [key, what] of Object.entries(REFUSED)) {
    if (isFilled(entry[key])) throw fault('form', `has ${key}: ${what}, which are not understood`)
  }
  const turns = turnsOf(entry)
  if (requireResponse && turns.response === null) throw fault('response', 'has no response')
  const record: SwiftRecord = { ...turns, ...mediaOf(entry) }
  if (record.history?.length === 0) delete record.history
  inlineMedia(record)
  return { record, unread: Object.keys(entry).filter((key) => !KNOWN.includes(key) && !Object.hasOwn(REFUSED, key)) }
}

type Turns = Pick<SwiftRecord, 'query' | 'response' | 'history' | 'system'>

function turnsOf(entry: Record<string, unknown>): Turns {
  const system = entry.system === undefined || entry.system === null ? undefined : entry.system
  if (system !== undefined && typeof system !== 'string') throw fault('form', 'has a system that is no text')
  const own = system === undefined || system === '' ? {} : { system: system as string }
  if ('response' in entry || 'query' in entry) {
    const { query, response = null } = entry
    if (query !== undefined && query !== null && typeof query !== 'string')
      throw fault('form', 'has a query that is no text')
    if (response !== null && typeof response !== 'string') throw fault('form', 'has a response that is no text')
    return { query: (query as string | null | undefined) ?? '', response, history: historyOf(entry.history), ...own }
  }
  if (entry.messages !== undefined) return { ...conversation(entry.messages, 'messages', 'role', 'content'), ...own }
  if (entry.conversations !== undefined) {
    return { ...conversation(entry.conversations, 'conversations', 'from', 'value'), ...own }
  }
  throw fault('form', 'has no query with a response, no messages and no conversations')
}

function historyOf(value: unknown): [string, string][] {
  if (value === undefined || value === null) return []
  const good =
    Array.isArray(value) &&
    value.every((turn) => Array.isArray(turn) && turn.length === 2 && turn.every((text) => typeof text === 'string'))
  if (!good) throw fault('form', 'has a history that is no list of [query, response]')
  return value as [string, string][]
}

const ROLES: Readonly<Record<string, 'system' | 'user' | 'assistant'>> = {
  system: 'system',
  user: 'user',
  human: 'user',
  assistant: 'assistant',
  gpt: 'assistant',
}

function conversation(value: unknown, key: string, role: string, content: string): Turns {
  if (!Array.isArray(value) || value.length === 0) throw fault('form', `has ${key} that are no list`)
  const said = value.map((message, i) => {
    const { [role]: name, [content]: text } = (message ?? {}) as Record<string, unknown>
    const who = typeof name === 'string' && Object.hasOwn(ROLES, name) ? ROLES[name] : undefined
    if (who === undefined) throw fault('form', `has ${key}[${i}] with the ${role} ${JSON.stringify(name ?? null)}`)
    if (text === null && i === value.length - 1 && who === 'assistant') return { who, text: null }
    if (typeof text !== 'string') throw fault('form', `has ${key}[${i}] whose ${content} is no text`)
    return { who, text }
  })
  const system = said[0]?.who === 'system' ? (said.shift()?.text as string) : undefined
  const wrong = said.findIndex(({ who }, i) => who !== (i % 2 === 0 ? 'user' : 'assistant'))
  if (wrong >= 0) throw fault('form', `has ${key} in which user and assistant do not take turns`)
  if (said.length === 0) throw fault('form', `has ${key} in which nobody asks`)
  const open = said.length % 2 === 1
  const last = open ? said.length - 1 : said.length - 2
  const history: [string, string][] = []
  for (let i = 0; i < last; i += 2) history.push([said[i]?.text as string, said[i + 1]?.text as string])
  return {
    query: said[last]?.text as string,
    response: open ? null : ((said[last + 1]?.text ?? null) as string | null),
    history,
    ...(system !== undefined && system !== '' && { system }),
  }
}

function mediaOf(entry: Record<string, unknown>): Pick<SwiftRecord, MediaKey> {
  const found: Pick<SwiftRecord, MediaKey> = {}
  for (const key of MEDIA_KEYS) {
    const value = entry[key]
    if (value === undefined || value === null) continue
    const list = (Array.isArray(value) ? value : [value]).filter(isFilled)
    if (!list.every((path) => typeof path === 'string')) throw fault('form', `has ${key} that are no paths`)
    if (list.length > 0) found[key] = list as string[]
  }
  return found
}

/** What stands between two tags on one line, and the text with a marker in place of each. */
function betweenTags(text: string, tag: string, marker: string): { text: string; paths: string[] } {
  const [begin, end] = [`<${tag}>`, `</${tag}>`]
  const paths: string[] = []
  const lines = text.split('\n').map((line) => {
    let marked = ''
    let from = 0
    for (;;) {
      const at = line.indexOf(begin, from)
      // Something stands between them.
      const to = at < 0 ? -1 : line.indexOf(end, at + begin.length + 1)
      if (to < 0) return marked + line.slice(from)
      paths.push(line.slice(at + begin.length, to))
      marked += line.slice(from, at) + marker
      from = to + end.length
    }
  })
  return { text: lines.join('\n'), paths }
}

/** Media that the texts name between tags become markers, in order. */
function inlineMedia(record: SwiftRecord): void {
  const tags = [
    ['images', 'img'],
    ['audios', 'audio'],
    ['videos', 'video'],
  ] as const
  for (const [key, tag] of tags) {
    const paths: string[] = []
    const replaced = (text: string) => {
      const found = betweenTags(text, tag, MEDIA_MARKERS[key])
      paths.push(...found.paths)
      return found.text
    }
    const history = record.history?.map(
      ([query, response]) => [replaced(query), replaced(response)] as [string, string],
    )
    const query = replaced(record.query)
    const response = record.response === null ? null : replaced(record.response)
    if (paths.length === 0) continue
    if (record[key]) throw fault('markers', `names ${key} in its texts and beside them`)
    Object.assign(record, { query, response, [key]: paths }, history && { history })
  }
}

/**
 * A record whose texts have a marker for each of its media: those that are missing stand in front of the first question,
 * as ms-swift puts them (`<audio>` before `<image>` before `<video>`).
 * @throws DataError with both numbers, where there are more markers than media
 */
export function insertMarkers<R extends EmoVerseQuestion>(record: R): R {
  const history = (record.history ?? []).map((turn) => [...turn] as [string, string])
  let { query } = record
  const texts = () => [...history.flat(), query, record.response ?? '']
  for (const key of ['videos', 'images', 'audios'] as const) {
    const marker = MEDIA_MARKERS[key]
    const media = record[key]?.length ?? 0
    const markers = texts().reduce((sum, text) => sum + text.split(marker).length - 1, 0)
    if (markers > media) {
      throw new DataError(`it has ${markers} ${marker} and ${media} ${key}`, { reason: 'markers', markers, media })
    }
    const added = marker.repeat(media - markers)
    if (history[0]) history[0][0] = added + history[0][0]
    else query = added + query
  }
  return { ...record, query, ...(history.length > 0 && { history }) }
}
