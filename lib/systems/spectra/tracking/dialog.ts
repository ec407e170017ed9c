import { access } from 'node:fs/promises'
import { dirname, isAbsolute, join } from 'node:path'
import { defined, requireString, shown } from '../../../base/check.js'
import { DataError } from '../../../base/errors.js'
import { nearest } from '../../../base/words.js'
import { readJsonl } from '../../../files/json/jsonl.js'
import { checkDstConfig, type DstConfig } from './config.js'
import { type DstLabelOptions, normalizeDstLabel } from './text.js'

/** Values by slot; a missing slot has the value 'none'. */
export type SlotValues = Record<string, string>

/** Return a record of slots without a prototype, so that it has no inherited names. */
export const slotValues = <T = string>(entries: Iterable<readonly [string, T]> = []): Record<string, T> => {
  const values: Record<string, T> = Object.create(null)
  for (const [slot, value] of entries) values[slot] = value
  return values
}

/** Speech of an utterance: a file, or a part of it in seconds. `.npy` files contain float samples at 16 kHz. */
export interface DstAudio {
  path: string
  start?: number
  end?: number
}

export interface DstUtterance {
  text: string
  /** null without a recording. */
  audio: DstAudio | null
}

/** A user utterance and the system's response. */
export interface DstTurn {
  user: DstUtterance
  system: DstUtterance
  /** New values of the slots whose label changed with this turn. */
  changes: SlotValues
  /** Values that the system's response mentions. They can be copied in this turn and in the next. */
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
 * Read your own dialogs, one JSON object per line:
 *
 * ```json
 * {"dialog": "d1", "audio": "d1.wav", "turns": [
 *   {"user":   {"text": "a cheap room please", "start": 0.4, "end": 2.1},
 *    "system": {"text": "the Ashley is cheap", "start": 2.9, "end": 5.0},
 *    "informed": {"hotel-name": "ashley"}, "state": {"hotel-pricerange": "cheap"}}]}
 * ```
 *
 * - `audio` of a dialog or of an utterance is a path relative to the file's folder; `start` and `end` are seconds in it. Without audio
 *   there is no speech. `system` is optional; default: an empty response.
 * - `state` is the whole state after the turn; missing slots have no value. A value can be replaced but not removed, since the networks
 *   have no class for that. A dialog without any `state` has no labels, and can only be tracked.
 * - `informed` has the values that the system's response mentions.
 *
 * @throws DataError naming file, line and entry
 */
export async function readDstDialogs(path: string, options: ReadDstDialogsOptions): Promise<DstDialog[]> {
  requireString('readDstDialogs', 'path', path)
  checkDstConfig(options.config)
  const dialogs: DstDialog[] = []
  const ids = new Set<string>()
  let line = 0
  for await (const row of readJsonl(path)) {
    line += 1
    const entry = new Entry(path, line, options)
    const dialog = entry.dialog(row)
    if (ids.has(dialog.id)) throw entry.error('dialog', `expected unique names, got '${dialog.id}' twice`)
    ids.add(dialog.id)
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
    if (typeof id !== 'string' || id === '') throw this.error('dialog', `expected a non-empty string, got ${shown(id)}`)
    if (!Array.isArray(turns)) throw this.error('turns', `expected an array, got ${shown(turns)}`)
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
    if (typeof text !== 'string') throw this.error(`${where}.text`, `expected a string, got ${shown(text)}`)
    for (const [name, time] of [['start', start] as const, ['end', end] as const]) {
      if (time !== undefined && !(typeof time === 'number' && time >= 0 && Number.isFinite(time)))
        throw this.error(`${where}.${name}`, `expected seconds of at least 0, got ${shown(time)}`)
    }
    if (audio === undefined || audio === null) return { text, audio: null }
    if (typeof audio !== 'string') {
      throw this.error(`${where}.audio`, `expected the path of a file, got ${shown(audio)}`)
    }
    // The recording of the whole dialog needs times to locate this utterance.
    if (value !== undefined && audio === whole && (value as { audio?: unknown }).audio === undefined) {
      if (start === undefined || end === undefined) {
        if (text === '') return { text, audio: null }
        throw this.error(where, "expected start and end in the dialog's audio, got only one or neither")
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
        if (typeof label !== 'string') throw this.error(`${where}['${slot}']`, `expected a string, got ${shown(label)}`)
        const normal = normalizeDstLabel(slot, label, { compat: this.options.compat })
        return normal === 'none' ? [] : [[slot, normal] as const]
      }),
    )
  }

  private object(where: string, value: unknown, names: readonly string[]): Record<string, unknown> {
    if (typeof value !== 'object' || value === null || Array.isArray(value))
      throw this.error(where, `expected an object, got ${shown(value)}`)
    for (const name of Object.keys(value)) {
      if (names.includes(name)) continue
      const near = nearest(name, names)
      throw this.error(
        where,
        `expected known names, got '${name}'${near === undefined ? '' : `, did you mean '${near}'?`}`,
      )
    }
    return value as Record<string, unknown>
  }
}

export const exists = (path: string): Promise<boolean> =>
  access(path).then(
    () => true,
    () => false,
  )
