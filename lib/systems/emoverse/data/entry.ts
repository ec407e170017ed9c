import { shown } from '../../../base/check.js'
import { DataError } from '../../../base/errors.js'
import type { ImageInput } from '../../../vision/index.js'
import type { EmoVerseAudio, EmoVerseVideo } from './media.js'

/** Keys of a record's media, and the marker of each in a text. */
export const MEDIA_MARKERS = { images: '<image>', videos: '<video>', audios: '<audio>' } as const
export type MediaKey = keyof typeof MEDIA_MARKERS
export const MEDIA_KEYS = Object.keys(MEDIA_MARKERS) as readonly MediaKey[]

/**
 * A record of an instruction file, as ms-swift reads it (https://github.com/modelscope/ms-swift, 2.6): question, answer, and the media that
 * markers in the text refer to.
 */
export interface SwiftRecord {
  query: string
  /** Answer; null in data without answers. */
  response: string | null
  /** Earlier turns, each a question and its answer. */
  history?: [query: string, response: string][]
  /** System prompt in place of that of the settings. */
  system?: string
  /** Paths in the order of the markers `<image>`, `<video>` and `<audio>`. */
  images?: string[]
  videos?: string[]
  audios?: string[]
}

/** Question to an EmoVerse: a record of a file, or the same with media in memory. */
export interface EmoVerseQuestion {
  query: string
  /** Target answer for training; ignored in generation. */
  response?: string | null
  /** Earlier turns; any question may have media markers. */
  history?: readonly (readonly [query: string, response: string])[]
  /** System prompt in place of the model's; '' for none. */
  system?: string
  /** One for each `<image>` of the questions, in order: a path, the bytes of a file, raw pixels or a tensor. */
  images?: readonly ImageInput[]
  /** One for each `<video>`. */
  videos?: readonly EmoVerseVideo[]
  /** One for each `<audio>`: a path, the bytes of an audio file, or samples. */
  audios?: readonly EmoVerseAudio[]
}

/** Reason why a record cannot be used. */
export type SwiftCause = 'json' | 'encoding' | 'form' | 'response' | 'markers' | 'media' | 'length'

const fault = (reason: SwiftCause, what: string): DataError => new DataError(`${what}.`, { reason })

const KNOWN = ['query', 'response', 'history', 'system', 'messages', 'conversations', ...MEDIA_KEYS]
/** Unsupported keys that change the meaning of a record. Ignoring them would train on something else. */
const REFUSED: Readonly<Record<string, string>> = {
  tools: 'tools',
  objects: 'boxes in images',
  query_role: 'a role other than the user’s',
  history_roles: 'roles other than user and assistant',
  rejected_response: 'a rejected answer',
}

const isFilled = (value: unknown): boolean =>
  value !== null && value !== undefined && value !== '' && !(Array.isArray(value) && value.length === 0)

export interface ParsedEntry {
  record: SwiftRecord
  /** Keys that are ignored. */
  unread: string[]
}

/**
 * Parse a JSON value as a record: `query` and `response` with `history`, or `messages` (role, content), or the older `conversations`
 * (from, value). Media are a path or a list of paths; `<img>PATH</img>` in a text is an image too.
 *
 * @param requireResponse whether a record needs an answer
 * @throws DataError with `reason` for any other value
 */
export function parseSwiftEntry(value: unknown, requireResponse: boolean): ParsedEntry {
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw fault('form', `expected a JSON object, got ${shown(value)}`)
  const entry = value as Record<string, unknown>
  for (const [key, what] of Object.entries(REFUSED)) {
    if (isFilled(entry[key]))
      throw fault('form', `${key} (${what}): expected none, since they are unsupported, got ${shown(entry[key])}`)
  }
  const turns = turnsOf(entry)
  if (requireResponse && turns.response === null) throw fault('response', 'response: expected a string, got none')
  const record: SwiftRecord = { ...turns, ...mediaOf(entry) }
  if (record.history?.length === 0) delete record.history
  inlineMedia(record)
  return { record, unread: Object.keys(entry).filter((key) => !KNOWN.includes(key) && !Object.hasOwn(REFUSED, key)) }
}

type Turns = Pick<SwiftRecord, 'query' | 'response' | 'history' | 'system'>

function turnsOf(entry: Record<string, unknown>): Turns {
  const system = entry.system === undefined || entry.system === null ? undefined : entry.system
  if (system !== undefined && typeof system !== 'string')
    throw fault('form', `system: expected a string, got ${shown(system)}`)
  const own = system === undefined || system === '' ? {} : { system: system as string }
  if ('response' in entry || 'query' in entry) {
    const { query, response = null } = entry
    if (query !== undefined && query !== null && typeof query !== 'string')
      throw fault('form', `query: expected a string, got ${shown(query)}`)
    if (response !== null && typeof response !== 'string')
      throw fault('form', `response: expected a string, got ${shown(response)}`)
    return { query: (query as string | null | undefined) ?? '', response, history: historyOf(entry.history), ...own }
  }
  if (entry.messages !== undefined) return { ...conversation(entry.messages, 'messages', 'role', 'content'), ...own }
  if (entry.conversations !== undefined) {
    return { ...conversation(entry.conversations, 'conversations', 'from', 'value'), ...own }
  }
  throw fault('form', 'expected query and response, messages or conversations, got none of them')
}

function historyOf(value: unknown): [string, string][] {
  if (value === undefined || value === null) return []
  const good =
    Array.isArray(value) &&
    value.every((turn) => Array.isArray(turn) && turn.length === 2 && turn.every((text) => typeof text === 'string'))
  if (!good) throw fault('form', `history: expected a list of [query, response], got ${shown(value)}`)
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
  if (!Array.isArray(value) || value.length === 0)
    throw fault('form', `${key}: expected a list of messages, got ${shown(value)}`)
  const messages = value.map((message, i) => {
    const { [role]: name, [content]: text } = (message ?? {}) as Record<string, unknown>
    const who = typeof name === 'string' && Object.hasOwn(ROLES, name) ? ROLES[name] : undefined
    if (who === undefined)
      throw fault(
        'form',
        `${key}[${i}].${role}: expected one of ${Object.keys(ROLES).join(', ')}, got ${shown(name ?? null)}`,
      )
    if (text === null && i === value.length - 1 && who === 'assistant') return { who, text: null }
    if (typeof text !== 'string') throw fault('form', `${key}[${i}].${content}: expected a string, got ${shown(text)}`)
    return { who, text }
  })
  const system = messages[0]?.who === 'system' ? (messages.shift()?.text as string) : undefined
  const wrong = messages.findIndex(({ who }, i) => who !== (i % 2 === 0 ? 'user' : 'assistant'))
  if (wrong >= 0)
    throw fault(
      'form',
      `${key}: expected turns of user and assistant in alternation, got ${messages[wrong]?.who} as turn ${wrong + 1}`,
    )
  if (messages.length === 0) throw fault('form', `${key}: expected a message of the user, got only a system message`)
  const open = messages.length % 2 === 1
  const last = open ? messages.length - 1 : messages.length - 2
  const history: [string, string][] = []
  for (let i = 0; i < last; i += 2) history.push([messages[i]?.text as string, messages[i + 1]?.text as string])
  return {
    query: messages[last]?.text as string,
    response: open ? null : ((messages[last + 1]?.text ?? null) as string | null),
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
    if (!list.every((path) => typeof path === 'string'))
      throw fault('form', `${key}: expected a path or a list of paths, got ${shown(value)}`)
    if (list.length > 0) found[key] = list as string[]
  }
  return found
}

/** Return the texts between pairs of tags on one line, and the text with a marker in place of each pair. */
function betweenTags(text: string, tag: string, marker: string): { text: string; paths: string[] } {
  const [begin, end] = [`<${tag}>`, `</${tag}>`]
  const paths: string[] = []
  const lines = text.split('\n').map((line) => {
    let marked = ''
    let from = 0
    for (;;) {
      const at = line.indexOf(begin, from)
      // The +1 leaves out pairs with nothing between them.
      const to = at < 0 ? -1 : line.indexOf(end, at + begin.length + 1)
      if (to < 0) return marked + line.slice(from)
      paths.push(line.slice(at + begin.length, to))
      marked += line.slice(from, at) + marker
      from = to + end.length
    }
  })
  return { text: lines.join('\n'), paths }
}

/** Replace media paths between tags in the texts by markers, in order. */
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
    if (record[key]) throw fault('markers', `${key}: expected paths either in the texts or in the key ${key}, got both`)
    Object.assign(record, { query, response, [key]: paths }, history && { history })
  }
}

/**
 * Return a record whose texts have a marker for each of its media. Missing markers are put in front of the first question, in ms-swift's
 * order (`<audio>` before `<image>` before `<video>`).
 * @throws DataError with both numbers if there are more markers than media
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
      throw new DataError(`${key}: expected ${markers} for ${markers} markers ${marker}, got ${media}.`, {
        reason: 'markers',
        markers,
        media,
      })
    }
    const added = marker.repeat(media - markers)
    if (history[0]) history[0][0] = added + history[0][0]
    else query = added + query
  }
  return { ...record, query, ...(history.length > 0 && { history }) }
}
