import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { requireString, shown } from '../../../base/check.js'
import { DataError } from '../../../base/errors.js'
import { requireForm } from '../../../base/form.js'
import { readJson } from '../../../files/json/json.js'
import { checkDstConfig, type DstConfig } from './config.js'
import { type DstAudio, type DstDialog, type DstTurn, exists, type SlotValues, slotValues } from './dialog.js'
import { type DstLabelOptions, normalizeDstLabel } from './text.js'

/** Test dialogs whose published word times are outside of their recordings (issue 87 of the original's repository). */
export const SPOKENWOZ_MISLABELLED: readonly string[] = [
  ...['SNG0601', 'SNG0646', 'SNG0653', 'SNG0877', 'SNG0885', 'SNG0890', 'SNG0897', 'SNG0901', 'SNG0903'],
]

export interface ReadSpokenWozOptions extends DstLabelOptions {
  config: DstConfig
  /** Folder of recordings, `<dialog>/speech.wav` or `<dialog>.wav`. Default: no speech. */
  audio?: string
  /** Dialogs to read, in this order, such as a result of {@link readSpokenWozList}. Default: all of the file. */
  dialogs?: readonly string[]
}

export interface SpokenWozReport {
  dialogs: number
  turns: number
  /** Utterances without words, or whose words have no duration: they have no speech. */
  withoutAudio: number
  /** Dialogs truncated where user and system do not alternate. */
  cutShort: string[]
  /** Dialogs of {@link SPOKENWOZ_MISLABELLED}. Speech outside of the recording is missing. */
  mislabeled: string[] // language: public field
  /** Dialogs without a recording in the folder. */
  noRecording: string[]
}

/** Read the names of the dialogs of a split: `trainListFile.json` is a JSON array, the other lists have one name per line. */
export async function readSpokenWozList(path: string): Promise<string[]> {
  requireString('readSpokenWozList', 'path', path)
  let text: string
  try {
    text = await readFile(path, 'utf8')
  } catch (cause) {
    throw new DataError(`${path}: expected a readable list of dialogs: ${(cause as Error).message}`, {
      file: path,
      cause,
    })
  }
  if (!text.trimStart().startsWith('[')) return text.split(/\s+/).filter((name) => name !== '')
  const names = await readJson(path)
  if (Array.isArray(names) && names.every((name) => typeof name === 'string')) return names
  throw new DataError(`${path}: expected an array of names, got ${shown(names)}`, { file: path })
}

/**
 * Read SpokenWOZ's `data.json`: dialogs with turns of user and system, the state in the metadata of system turns, and word times in
 * milliseconds.
 * @throws DataError naming the file, the dialog and the turn
 */
export async function readSpokenWoz(
  path: string,
  options: ReadSpokenWozOptions,
): Promise<{ dialogs: DstDialog[]; report: SpokenWozReport }> {
  requireForm('readSpokenWoz', 'path', path, 'string')
  requireForm('readSpokenWoz', 'options', options, 'object')
  checkDstConfig(options.config)
  const data = (await readJson(path)) as Record<string, unknown> | null
  if (typeof data !== 'object' || data === null || Array.isArray(data))
    throw new DataError(`${path}: expected an object of dialogs, got ${shown(data)}`, { file: path })
  const names = options.dialogs ?? Object.keys(data)
  const report: SpokenWozReport = {
    ...{ dialogs: 0, turns: 0, withoutAudio: 0 },
    ...{ cutShort: [], mislabeled: [], noRecording: [] },
  }
  const dialogs: DstDialog[] = []
  for (const name of names) {
    if (!Object.hasOwn(data, name))
      throw new DataError(`${path}: expected the dialog '${name}', got a file without it`, { file: path, dialog: name })
    const reader = new DialogReader(path, name, options, report, await recording(name, options, report))
    dialogs.push(reader.read(data[name]))
  }
  return { dialogs, report }
}

async function recording(
  name: string,
  { audio }: ReadSpokenWozOptions,
  report: SpokenWozReport,
): Promise<string | undefined> {
  if (audio === undefined) return undefined
  for (const path of [join(audio, name, 'speech.wav'), join(audio, `${name}.wav`)]) if (await exists(path)) return path
  report.noRecording.push(name)
  return undefined
}

interface Utterance {
  text: string
  words: { begin: number; end: number }[]
  metadata: Record<string, { book?: Record<string, unknown>; semi?: Record<string, unknown> }>
  acts: Record<string, unknown>
}

class DialogReader {
  private readonly labels: SlotValues = slotValues()

  constructor(
    private readonly file: string,
    private readonly id: string,
    private readonly options: ReadSpokenWozOptions,
    private readonly report: SpokenWozReport,
    private readonly audio: string | undefined,
  ) {}

  read(value: unknown): DstDialog {
    const { report, id } = this
    const log = (value as { log?: unknown } | null)?.log
    if (!Array.isArray(log)) throw this.error('log', `expected an array of turns, got ${shown(log)}`)
    const utterances = log.map((entry, i) => this.utterance(entry, i))
    const turns: DstTurn[] = []
    let i = 0
    for (; i + 1 < utterances.length; i += 2) {
      const [user, system] = utterances.slice(i, i + 2) as [Utterance, Utterance]
      if (isSystem(user) || !isSystem(system)) break
      turns.push({
        user: { text: user.text, audio: this.slice(user) },
        system: { text: system.text, audio: this.slice(system) },
        changes: this.changes(system),
        informed: this.informed(system),
      })
    }
    // A final user utterance without a response is not a turn; any other remaining utterance is out of order.
    if (i < utterances.length - 1 || (i < utterances.length && isSystem(utterances[i]!))) report.cutShort.push(id)
    report.dialogs += 1
    report.turns += turns.length
    if (SPOKENWOZ_MISLABELLED.includes(id)) report.mislabeled.push(id)
    return { id, turns }
  }

  private error(where: string, what: string): DataError {
    const { file, id: dialog } = this
    return new DataError(`${file}: dialog ${dialog}: ${where}: ${what}`, { file, dialog, where })
  }

  private utterance(entry: unknown, i: number): Utterance {
    const where = `log[${i}]`
    const { text, words = [], metadata = {}, dialog_act: acts = {} } = this.object(where, entry)
    if (typeof text !== 'string') throw this.error(`${where}.text`, `expected a string, got ${shown(text)}`)
    if (!Array.isArray(words)) throw this.error(`${where}.words`, `expected an array, got ${shown(words)}`)
    return {
      text,
      words: words.map((word, j) => {
        const at = `${where}.words[${j}]`
        const { BeginTime: begin, EndTime: end } = this.object(at, word)
        if (typeof begin !== 'number' || typeof end !== 'number')
          throw this.error(at, `expected milliseconds as BeginTime and EndTime, got ${shown(begin)} and ${shown(end)}`)
        return { begin, end }
      }),
      metadata: this.object(`${where}.metadata`, metadata) as Utterance['metadata'],
      acts: this.object(`${where}.dialog_act`, acts),
    }
  }

  private object(where: string, value: unknown): Record<string, unknown> {
    if (typeof value !== 'object' || value === null || Array.isArray(value))
      throw this.error(where, `expected an object, got ${shown(value)}`)
    return value as Record<string, unknown>
  }

  private slice({ words }: Utterance): DstAudio | null {
    const [first, last] = [words[0], words.at(-1)]
    const spoken = first !== undefined && last !== undefined && last.end > first.begin && first.begin >= 0
    if (!spoken) this.report.withoutAudio += 1
    if (!spoken || this.audio === undefined) return null
    return { path: this.audio, start: first.begin / 1000, end: last.end / 1000 }
  }

  /** Return the slots whose label in the metadata changed since the last turn. Bookings are first, and a booked value has priority. */
  private changes({ metadata }: Utterance): SlotValues {
    const { config } = this.options
    const changes = slotValues()
    for (const [domain, { book = {}, semi = {} }] of Object.entries(metadata)) {
      const first = Array.isArray(book.booked) ? (book.booked[0] as Record<string, unknown> | undefined) : undefined
      const booked = slotValues(
        Object.entries(first ?? {}).map(
          ([name, value]) =>
            [name, normalizeDstLabel(`${domain}-${name}`, value, { compat: this.options.compat })] as const,
        ),
      )
      for (const [category, entries] of [['book ', book] as const, ['', semi] as const]) {
        for (const [name, value] of Object.entries(entries)) {
          const slot = `${domain}-${category}${name}`
          if (!config.slots.includes(slot)) continue
          const label = booked[name] ?? normalizeDstLabel(slot, value, { compat: this.options.compat })
          if (label === (this.labels[slot] ?? 'none')) continue
          this.labels[slot] = label
          changes[slot] = label
        }
      }
    }
    return changes
  }

  private informed({ acts }: Utterance): SlotValues {
    const { slots } = this.options.config
    const values = slotValues()
    for (const [act, pairs] of Object.entries(acts)) {
      const [domain, kind] = act.toLowerCase().split('-')
      if (kind === undefined || !INFORMING_ACTS.has(kind) || !Array.isArray(pairs)) continue
      for (const pair of pairs) {
        if (!Array.isArray(pair) || typeof pair[0] !== 'string' || typeof pair[1] !== 'string') continue
        const [name, value] = [pair[0].toLowerCase(), pair[1].toLowerCase().trim()]
        if (name === 'none' || value === '?' || value === 'none') continue
        const slot = slotOfAct(`${domain}-${name}`)
        if (slots.includes(slot)) values[slot] = normalizeDstLabel(slot, value, { compat: this.options.compat })
      }
    }
    return values
  }
}

const isSystem = ({ metadata }: Utterance): boolean => Object.keys(metadata).length > 0

/** Acts that mention a value to the user. */
const INFORMING_ACTS = new Set(['inform', 'recommend', 'select', 'book'])

/** Convert an act's name to a slot: 'hotel-bookday' is 'hotel-book day'; 'train-bookday' is 'train-day'. */
const slotOfAct = (name: string): string =>
  name === 'train-bookday' ? 'train-day' : name.replace(/-book(day|people|time|stay)$/, '-book $1')
