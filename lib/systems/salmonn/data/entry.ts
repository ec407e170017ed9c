/** One thing to learn or to ask, before its audio is read. */
export interface SalmonnEntry {
  id: string
  task: string
  /** Paths of its clips, in order. */
  audio: readonly string[]
  /** The answer; '' where there is none. */
  target: string
  /** Goes where the prompt has `{}`: `Q`, or the dialog so far (`input_text`). */
  question: string
  /** The user's emotion in each turn, in lower case. */
  emotions: readonly string[] | undefined
  /** What must not be divided between training and validation. */
  dialog: string
  speaker: string | undefined
  /** Whether silence follows the last clip too: it does in the challenge's dialogs, not after `expand_wav`. */
  trailingGap: boolean
  /** Where it stands, for messages. */
  source: string
}
