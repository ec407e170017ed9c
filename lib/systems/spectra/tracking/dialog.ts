import { access } from 'node:fs/promises'
import { dirname, isAbsolute, join } from 'node:path'
import { defined, requireString } from '../../../base/check.js'
import { DataError } from '../../../base/errors.js'
import { nearest } from '../../../base/words.js'
import { readJsonl } from '../../../files/json/jsonl.js'
import { checkDstConfig, type DstConfig } from './config.js'
import { type DstLabelOptions, normalizeDstLabel } from './text.js'

/** Values by slot; a slot that is not there has the value 'none'. */
export type SlotValues = Record<string, string>

/** A record whose names are slots: without what every object inherits. */
export const slotValues = <T = string>(entries: Iterable<readonly [string, T]> = []): Record<string, T> => {
  const values: Record<string, T> = Object.create(null)
  for (const [slot, value] of entries) values[slot] = value
  return values
}

/** Where an utterance's speech is: a file, or a part of it in seconds. `.npy` files hold float samples at 16 kHz. */
export interface DstAudio {
  path: string
  start?: number
  end?: number
}

export interface DstUtterance {
  text: string
  /** null where nothing was recorded. */
  audio: DstAudio | null
}

/** What the user says and what the system answers. */
export interface DstTurn {
  user: DstUtterance
  system: DstUtterance
  /** New values of the slots whose label changed with this turn. */
  changes: SlotValues
  /** Values that the system's answer told the user. They can be taken in this turn and in the next. */
  informed: SlotValues
}

export interface DstDialog {
  id: string
  turns: DstTurn[]
}

export interface ReadDstDialogsOptions extends DstLabelOptions {
  config: DstConfig
}

/**
 * Reads dialogs of your own, one JSON object a line:
 *
 * ```json
 * {"dialog": "d1", "audio": "d1.wav", "turns": [
 *   {"user":   {"text": "a cheap room please", "start": 0.4, "end": 2.1},
 *    "system": {"text": "the Ashley is cheap", "start": 2.9, "end": 5.0},
 *    "informed": {"hotel-name": "ashley"}, "state": {"hotel-pricerange": "cheap"}}]}
 * ```
 *
 * - `audio` of a dialog or of an utterance is a path from the file's folder; `start` and `end` are seconds in it. Without
 *   audio there is no speech. `system` may be left out, as an empty answer.
 * - `state` is the whole state after the turn, left-out slots having no value. A value once given can be replaced, never
 *   taken back: the networks have no class for that. Without any `state` the dialog has no labels, to be tracked only.
 * - `informed` is what the system's answer told.
 *
 * @throws DataError naming file, line and entry
 */
export async function readDstDialogs(path: string, options: ReadDstDialogsOptions): Promise<DstDialog[]> {
  requireString('readDstDialogs', 'path', path)
  checkDstConfig(options.config)
  const dialogs: DstDialog[] = []
  const seen = new Set<string>()
  let line = 0
  for await (const row of readJsonl(path)) {
    line += 1
    const entry = new Entry(path, line, options)
    const dialog = entry.dialog(row)
    if (seen.has(dialog.id)) throw entry.error('dialog', `'${dialog.id}' stands twice`)
    seen.add(dialog.id)
    dialogs.push(dialog)
  }
  return dialogs
}

/** One line of the file. */
class Entry {
  constructor(
    private readonly file: string,
    private readonly line: number,
    private readonly options: ReadDstDialogsOptions,
  ) {}

  error(where: string, what: string): DataError {
    return new DataError(`${this.file} line ${this.line}: ${where}: ${what}`, {
      file: this.file,
      line: this.line,
      where,
    })
  }

  dialog(row: unknown): DstDialog {
    const { dialog: id, audio, turns } = this.object('dialog', row, ['dialog', 'audio', 'turns'])
    if (typeof id !== 'string' || id === '') throw this.error('dialog', 'it must be a name')
    if (!Array.isArray(turns)) throw this.error('turns', 'it must be an array')
    let state = slotValues()
    return {
      id,
      turns: turns.map((value, i) => {
        const where = `turns[${i}]`
        const turn = this.object(where, value, ['user', 'system', 'state', 'informed'])
        const after = turn.state === undefined ? state : this.values(`${where}.state`, turn.state)
        const changes = slotValues(
          this.options.config.slots.flatMap((slot) => {
            const [now, before] = [after[slot] ?? 'none', state[slot] ?? 'none']
            return now === before ? [] : [[slot, now] as const]
          }),
        )
        state = after
        return {
          user: this.utterance(`${where}.user`, turn.user, audio),
          system: this.utterance(`${where}.system`, turn.system ?? { text: '' }, audio),
          changes,
          informed: this.values(`${where}.informed`, turn.informed ?? {}),
        }
      }),
    }
  }

  private utterance(where: string, value: unknown, whole: unknown): DstUtterance {
    const { text, audio = whole, start, end } = this.object(where, value, ['text', 'audio', 'start', 'end'])
    if (typeof text !== 'string') throw this.error(`${where}.text`, 'it must be a string')
    for (const [name, time] of [['start', start] as const, ['end', end] as const]) {
      if (time !== undefined && !(typeof time === 'number' && time >= 0 && Number.isFinite(time)))
        throw this.error(`${where}.${name}`, 'it must be seconds from the beginning of the audio')
    }
    if (audio === undefined || audio === null) return { text, audio: null }
    if (typeof audio !== 'string') throw this.error(`${where}.audio`, "it must be a file's path")
    // A whole dialog's recording without times says nothing about this utterance.
    if (value !== undefined && audio === whole && (value as { audio?: unknown }).audio === undefined) {
      if (start === undefined || end === undefined) {
        if (text === '') return { text, audio: null }
        throw this.error(where, "start and end must say where in the dialog's audio it is")
      }
    }
    const path = isAbsolute(audio) ? audio : join(dirname(this.file), audio)
    return {
      text,
      audio: { path, ...defined({ start, end }) } as DstAudio,
    }
  }

  private values(where: string, value: unknown): SlotValues {
    const { slots } = this.options.config
    const entries = Object.entries(this.object(where, value, slots))
    return slotValues(
      entries.flatMap(([slot, label]) => {
        if (typeof label !== 'string') throw this.error(`${where}['${slot}']`, 'it must be a string')
        const normal = normalizeDstLabel(slot, label, { compat: this.options.compat })
        return normal === 'none' ? [] : [[slot, normal] as const]
      }),
    )
  }

  private object(where: string, value: unknown, names: readonly string[]): Record<string, unknown> {
    if (typeof value !== 'object' || value === null || Array.isArray(value))
      throw this.error(where, 'it must be an object')
    for (const name of Object.keys(value)) {
      if (names.includes(name)) continue
      const near = nearest(name, names)
      throw this.error(where, `unknown name '${name}'${near === undefined ? '' : `, did you mean '${near}'?`}`)
    }
    return value as Record<string, unknown>
  }
}

export const exists = (path: string): Promise<boolean> =>
  access(path).then(
    () => true,
    () => false,
  )
