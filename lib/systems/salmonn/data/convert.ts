import { writeJson } from '../../../data/json.js'
import type { DataError } from '../../../native/errors.js'
import type { OnBadItem } from './entry.js'
import { type DialogTextOptions, trajectoryRequest } from './history.js'
import { type HumDialDialog, readHumDial } from './humdial.js'

/** An item of the fine-tuning data, under the published names. */
export interface ConvertedDialog {
  dialogue_id: string
  task: string
  input_text: string
  target_text: string
  audio_files: string[]
  /** Left out where a turn's emotion is not told. */
  emotion_sequence?: string[]
  speaker?: string
}

export interface ConvertHumDialOptions extends DialogTextOptions {
  /** Default 'task1_emotional_trajectory'. */
  task?: string
}

export interface Conversion {
  dialogs: number
  /** Dialogs whose last turn has no reply, so that they can be asked but not learnt from. */
  withoutTarget: number
  withoutEmotions: number
  badItems: number
  badItemErrors: DataError[]
}

/** A dialog of the challenge as an item to fine-tune with: its words, its clips in order, the last reply as the answer. */
export function convertHumDial(dialog: HumDialDialog, options: ConvertHumDialOptions = {}): ConvertedDialog {
  const { task = 'task1_emotional_trajectory', ...text } = options
  const { id, turns, speaker } = dialog
  const emotions = turns.map(({ emotion }) => emotion)
  return {
    dialogue_id: id,
    task,
    input_text: trajectoryRequest(dialog, text),
    target_text: turns.at(-1)?.reply ?? '',
    audio_files: turns.map(({ audio }) => audio),
    ...(emotions.every((emotion) => emotion !== '') && { emotion_sequence: emotions }),
    ...(speaker !== undefined && { speaker }),
  }
}

/**
 * The `convert` step: the challenge's JSON Lines into a JSON list that `readSalmonnAnnotations` reads. The file appears whole
 * or not at all. Audio paths stay as they are: write the result beside the input, or give the reader an `audioRoot`.
 *
 * @throws DataError naming the line, unless `onBadItem` is 'skip'
 */
export async function convertHumDialFile(
  input: string,
  output: string,
  options: ConvertHumDialOptions & { onBadItem?: OnBadItem } = {},
): Promise<Conversion> {
  const { onBadItem = 'stop', ...rest } = options
  const { dialogs, badItems, badItemErrors } = await readHumDial(input, { onBadItem })
  const items = dialogs.map((dialog) => convertHumDial(dialog, rest))
  await writeJson(output, items)
  return {
    dialogs: items.length,
    withoutTarget: items.filter((item) => item.target_text === '').length,
    withoutEmotions: items.filter((item) => item.emotion_sequence === undefined).length,
    badItems,
    badItemErrors,
  }
}
