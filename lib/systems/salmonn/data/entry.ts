import { settings } from '../../../base/settings.js'

export const BAD_ITEM_SETTINGS = settings({
  /** Action for an invalid item: 'stop' throws; 'skip' leaves it out and counts it. */
  onBadItem: { type: ['stop', 'skip'], default: 'stop' },
})

/** A training example or question, before its audio is read. */
export interface SalmonnEntry {
  id: string
  task: string
  /** Paths of the clips, in order. */
  audio: readonly string[]
  /** Answer; '' if there is none. */
  target: string
  /** Text for `{}` in the prompt: `Q`, or the dialog so far (`input_text`). */
  question: string
  /** User's emotion in each turn, in lower case. */
  emotions: readonly string[] | undefined
  /** Dialog id. Entries of one dialog stay together in a split. */
  dialog: string
  speaker: string | undefined
  /** Whether silence follows the last clip: true in the challenge's dialogs, false for `expand_wav`. */
  trailingGap: boolean
  /** Place in the data, for messages. */
  source: string
}
