import { DataError } from '../../../base/errors.js'
import type { RecordClip } from '../../../kit/clip.js'
import type { BadRecords } from '../../../kit/records.js'

/** A turn of a dialog: speaker, text and clip. */
export interface UsdmSpokenTurn {
  dialog: string
  /** From 0. */
  turn: number
  speaker: string
  text: string
  audio: RecordClip
  /** Name of the clip in a folder of units. */
  clip: string
  /** File and line that the turn was read from. */
  file: string
  line: number
}

export interface UsdmDialog {
  dialog: string
  /** Turns in order. Two neighboring turns have different speakers. */
  turns: UsdmSpokenTurn[]
}

/** Dialogs, and the names of those that were dropped because a speaker has two turns in a row. */
export interface UsdmDialogs {
  /** In the order of their first lines. */
  dialogs: UsdmDialog[]
  /** Number of turns read. */
  turns: number
  /** Names of the dropped dialogs. */
  dropped: string[]
}

/**
 * Group turns into dialogs. A dialog in which two neighboring turns have the same speaker is dropped, as in the original.
 * @throws DataError with `file` and `line` if a turn is missing or occurs twice, unless `bad` counts such dialogs
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
    const what = turn === before?.turn ? `got turn ${turn} twice, first in line ${before.line}.` : `got turn ${turn}.`
    return new DataError(
      `${file}, line ${line}: dialog ${dialog}: expected turn ${i}, ${what} Number turns from 0 without gaps.`,
      { file, line, dialog, turn },
    )
  }
  return undefined
}

/**
 * Return the pairs of turns that form each example. With 'single', each example is one pair of neighboring turns, first those from
 * turn 0 and then those from turn 1: (0, 1), (2, 3) …, (1, 2), (3, 4) …, so that each speaker is user and agent. With 'multi', there
 * is one list of pairs from turn 0 and one from turn 1. A last turn without a reply is left out.
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
