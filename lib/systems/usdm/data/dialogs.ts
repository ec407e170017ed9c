import { DataError } from '../../../base/errors.js'
import type { RecordClip } from '../../../kit/clip.js'
import type { BadRecords } from '../../../kit/records.js'

/** What one speaker says in a dialog, with the clip of it. */
export interface UsdmSpokenTurn {
  dialog: string
  /** From 0. */
  turn: number
  speaker: string
  text: string
  audio: RecordClip
  /** What the clip is called in a folder of units. */
  clip: string
  /** Where it was read. */
  file: string
  line: number
}

export interface UsdmDialog {
  dialog: string
  /** In order, and by turns of two speakers at least. */
  turns: UsdmSpokenTurn[]
}

/** Dialogs, and those that were left out because someone speaks twice in a row. */
export interface UsdmDialogs {
  /** In the order of their first lines. */
  dialogs: UsdmDialog[]
  /** How many turns were read. */
  turns: number
  /** Their names. */
  dropped: string[]
}

/**
 * Turns as dialogs. A dialog in which two turns that follow each other have one speaker is left out whole, as in the original.
 * @throws DataError with `file` and `line` where a turn is missing or stands there twice, unless `bad` counts such dialogs
 */
export function groupDialogs(turns: readonly UsdmSpokenTurn[], bad: BadRecords): UsdmDialogs {
  const groups = new Map<string, UsdmSpokenTurn[]>()
  for (const turn of turns) {
    const group = groups.get(turn.dialog)
    if (group) group.push(turn)
    else groups.set(turn.dialog, [turn])
  }
  const result: UsdmDialogs = { dialogs: [], turns: turns.length, dropped: [] }
  for (const [dialog, group] of groups) {
    const sorted = [...group].sort((a, b) => a.turn - b.turn)
    const wrong = faultOf(dialog, sorted)
    if (wrong) bad.add(wrong)
    else if (sorted.some((turn, i) => i > 0 && turn.speaker === sorted[i - 1]?.speaker)) result.dropped.push(dialog)
    else result.dialogs.push({ dialog, turns: sorted })
  }
  return result
}

function faultOf(dialog: string, sorted: readonly UsdmSpokenTurn[]): DataError | undefined {
  for (const [i, { turn, file, line }] of sorted.entries()) {
    if (turn === i) continue
    const before = sorted[i - 1]
    const what =
      turn === before?.turn
        ? `turn ${turn} stands there twice, first in line ${before.line}`
        : `turn ${i} is missing: what follows is turn ${turn}`
    return new DataError(`${file}, line ${line}: of dialog ${dialog} ${what}`, { file, line, dialog, turn })
  }
  return undefined
}

/**
 * Which turns of a dialog are examples together. Of single turns those that follow each other, from the first on and then from
 * the second: (0, 1), (2, 3) …, (1, 2), (3, 4) …, so that both speakers are user and agent; of whole dialogs one list from each
 * of the two beginnings. A turn that is left over has no answer.
 */
export function pairsOf(turns: number, template: 'single' | 'multi'): [user: number, agent: number][][] {
  const from = (start: number) =>
    Array.from({ length: Math.floor((turns - start) / 2) }, (_, i): [number, number] => {
      const user = start + 2 * i
      return [user, user + 1]
    })
  const both = [from(0), from(1)]
  return template === 'single' ? both.flat().map((pair) => [pair]) : both.filter((pairs) => pairs.length > 0)
}
