import { clipWindows, LONG_AUDIO, type LongAudio, SPEECH_RATE } from '../../../audio/clip.js'
import { argumentError, requireObject } from '../../../base/check.js'
import { type ChangesOf, settings } from '../../../base/settings.js'
import { evaluate } from '../../../kit/evaluate.js'
import type { Module } from '../../../nn/index.js'
import { scope, type Tensor } from '../../../tensor/index.js'
import { type SpectraBatch, spectraCollate } from '../data/collate.js'
import type { SpectraSample } from '../data/sample.js'
import type { SpectraDialogText, SpectraTurnText } from '../data/text.js'
import { type SpectraTurnAudio, samplesOfTurn } from './turn-audio.js'

/** A turn of a dialog: its text and speech, and the previous turns. */
export interface SpectraTurn {
  /** A text with words separated by spaces, or a list of words. */
  text: SpectraTurnText
  /** Speech of the turn; left out or null without speech. */
  audio?: SpectraTurnAudio
  /** Texts of the previous turns, oldest first. */
  history?: readonly SpectraTurnText[]
  /** Speech of the previous turn. */
  historyAudio?: SpectraTurnAudio
}

export const TURN_SETTINGS = settings({
  /** Turns, or windows of long ones, per batch; they are grouped by length. */
  batchSize: { type: 'integer', min: 1, default: 8 },
  /**
   * For audio longer than 10 s, the network's limit: `'windows'` processes windows, which overlap by at least half, each with the whole
   * text, and averages the results; `'cut'` uses the beginning, as in training; `'error'` throws an error. Of the previous turn's audio,
   * only the beginning is used.
   */
  longAudio: { type: LONG_AUDIO, default: 'windows' },
})

/** @interface */
export type SpectraTurnOptions = ChangesOf<typeof TURN_SETTINGS.table>

/** Settings for reading turns, from the network's training. */
export interface TurnReading {
  text: SpectraDialogText
  /** Whether texts are encoded as dialogs with previous turns; undefined: depends on each turn. */
  history: boolean | undefined
  historyAudio: boolean | undefined
  turnIds: boolean
  maxAudioLength: number
  maxTextLength: number
  compat: 'published' | undefined
}

/** A window of a clip, in seconds. */
export interface SpectraWindow {
  start: number
  end: number
}

/** One row of a batch. */
export interface TurnRow {
  turn: number
  window: SpectraWindow
  /** Length of the whole clip. */
  seconds: number
  /** Samples of the previous turn's clip. */
  historySamples: number
  inputIds: readonly number[]
  turnIds: readonly number[] | undefined
}

interface ClipRow extends TurnRow {
  clip: Tensor | null
  historyClip: Tensor | null | undefined
}

/** Encode turns and run a network on them, in batches of similar length. Returns the results of each row, grouped by turn. */
export async function readTurns<T>(
  where: string,
  model: Module,
  turns: readonly SpectraTurn[],
  reading: TurnReading,
  options: SpectraTurnOptions,
  run: (batch: Omit<SpectraBatch, 'labels'>, rows: readonly TurnRow[]) => Promise<T[]>,
): Promise<{ row: TurnRow; said: T }[][]> {
  if (!Array.isArray(turns)) throw argumentError(where, 'turns', 'a list of turns', turns)
  const { batchSize, longAudio } = TURN_SETTINGS.read(where, options)
  return scope(async () => {
    const rows = (await Promise.all(turns.map((turn, i) => rowsOf(where, turn, i, reading, longAudio)))).flat()
    const results: { row: TurnRow; said: T }[][] = turns.map(() => [])
    const batches = [...batchesOf(rows, batchSize)]
    const { predictions } = await evaluate(model, batches, {
      predict: async (batch: readonly ClipRow[]) => run(await collated(model, batch, reading), batch),
    })
    const said = new Map(batches.flat().map((row, i) => [row, predictions[i] as T]))
    // The clips' tensors are freed with the scope.
    for (const withClips of rows) {
      const { clip: _, historyClip: __, ...row } = withClips
      results[row.turn]!.push({ row, said: said.get(withClips) as T })
    }
    return results
  })
}

async function rowsOf(
  where: string,
  turn: SpectraTurn,
  index: number,
  reading: TurnReading,
  longAudio: LongAudio,
): Promise<ClipRow[]> {
  const place = `${where}: turn ${index}`
  requireObject(where, `turns[${index}]`, turn)
  const { text, audio, history, historyAudio } = turn
  if (history !== undefined && !Array.isArray(history))
    throw argumentError(where, `turns[${index}].history`, 'a list', history)
  if (reading.history === false && history !== undefined && history.length > 0) {
    throw argumentError(
      where,
      `turns[${index}].history`,
      'left out, as the network was trained without history',
      history,
    )
  }
  if (reading.historyAudio === false && historyAudio) {
    throw argumentError(
      where,
      `turns[${index}].historyAudio`,
      'left out, as the network was trained without it',
      historyAudio,
    )
  }
  const dialog = reading.history ?? (history !== undefined || historyAudio !== undefined)
  const hears = reading.historyAudio ?? dialog
  const encoded = dialog ? reading.text.dialog(history ?? [], text) : reading.text.utterance(text)
  const longest = reading.maxAudioLength
  const most = longAudio === 'error' ? longest : undefined
  const [clip, before] = await Promise.all([
    samplesOfTurn(place, audio, { most, what: 'its audio' }),
    samplesOfTurn(place, historyAudio, { most, what: 'its history audio' }),
  ])
  const samples = clip?.size(0) ?? 0
  const windows = clipWindows(samples, longest, 'half').slice(0, longAudio === 'windows' ? undefined : 1)
  return windows.map(({ from, to }) => ({
    turn: index,
    seconds: samples / SPEECH_RATE,
    historySamples: hears ? (before?.size(0) ?? 0) : 0,
    window: { start: from / SPEECH_RATE, end: to / SPEECH_RATE },
    inputIds: encoded.inputIds,
    turnIds: 'turnIds' in encoded ? encoded.turnIds : undefined,
    clip: clip === null ? null : clip.narrow(0, from, to - from),
    historyClip: hears ? before : undefined,
  }))
}

/** Group rows with the same number of clips into batches, sorted by length. */
function* batchesOf(rows: readonly ClipRow[], size: number): Generator<ClipRow[]> {
  const kind = (row: ClipRow) => Number(row.historyClip !== undefined) + 2 * Number(row.turnIds !== undefined)
  const length = (row: ClipRow) => Math.max(row.clip?.size(0) ?? 0, row.historySamples)
  const sorted = [...rows].sort(
    (a, b) => kind(a) - kind(b) || length(a) - length(b) || a.inputIds.length - b.inputIds.length,
  )
  for (let i = 0; i < sorted.length; ) {
    const like = sorted.slice(i, i + size).filter((row) => kind(row) === kind(sorted[i]!))
    yield like
    i += like.length
  }
}

async function collated(
  model: Module,
  rows: readonly ClipRow[],
  { turnIds, maxAudioLength, maxTextLength, compat }: TurnReading,
): Promise<Omit<SpectraBatch, 'labels'>> {
  const samples = rows.map((row): SpectraSample => {
    return {
      audio: row.clip,
      inputIds: row.inputIds,
      ...(row.turnIds && { turnIds: row.turnIds }),
      ...(row.historyClip !== undefined && { historyAudio: row.historyClip }),
      label: 0,
      source: `turn ${row.turn}`,
    }
  })
  const limits = { maxAudioLength, maxTextLength, turnIds, emptyAudio: 'allow', ...(compat && { compat }) } as const
  const { labels: _, audiosPerText, ...tensors } = await spectraCollate({ kind: 'classification' }, limits)(samples)
  const device = model.parameters()[0]?.device ?? 'cpu'
  const moved = Object.entries(tensors).map(([name, value]: [string, Tensor]) => [name, value.to({ device })])
  return { ...(Object.fromEntries(moved) as typeof tensors), audiosPerText }
}
