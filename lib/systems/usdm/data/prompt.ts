import { isArrayLike, misuse, requireObject, requireString } from '../../../base/check.js'
import { DataError } from '../../../base/errors.js'
import { requireForm } from '../../../base/form.js'
import { type UsdmIds, type UsdmPiece, UsdmTokenizer } from './text.js'

/** What every conversation begins with. */
export const USDM_INSTRUCTION =
  "Below is a conversation between the user and the agent. Each turn includes the user's speech and its corresponding transcript, along with the agent's response text and the corresponding speech."

/** What one speaker says: the words, and the units of the speech. */
export interface UsdmUtterance {
  text: string
  units: ArrayLike<number>
}

/** What the user says and what the agent answers. */
export interface UsdmTurn {
  user: UsdmUtterance
  agent: UsdmUtterance
}

/** An example that is trained on; both lists have the same length. */
export interface UsdmExample {
  inputIds: number[]
  /** The id where it is learnt, and -100 elsewhere. */
  labels: number[]
}

/** Where nothing is learnt. */
export const IGNORED = -100

const UTTERANCE = { text: 'string', units: 'object' } as const

/** A conversation as text and units, in the original's template, whatever the number of turns. */
export function usdmPieces(turns: readonly UsdmTurn[]): UsdmPiece[] {
  requireForm('USDM', 'turns', turns, [{ user: UTTERANCE, agent: UTTERANCE }])
  const pieces = turns.flatMap(({ user, agent }) => [
    ...asked(user.units),
    ...heard(templateText('user', user.text)),
    ...answered(agent),
  ])
  return [USDM_INSTRUCTION, '\n', ...pieces, { token: 'eos' }]
}

const asked = (units: ArrayLike<number>): UsdmPiece[] => [
  '\n',
  '### User',
  '\n',
  { units: spoken('user', units) },
  { token: 'correspond' },
]
const heard = (transcript: string): UsdmPiece[] => [transcript, '\n', '### Agent', '\n']
const replied = (reply: string): UsdmPiece[] => [reply, { token: 'correspond' }]
const answered = ({ text, units }: UsdmUtterance): UsdmPiece[] => [
  ...replied(templateText('agent', text)),
  { units: spoken('agent', units) },
  '\n',
]

/** Return a text as the template of the training data has it: in lower case, on one line. */
export function templateText(who: 'user' | 'agent', text: string): string {
  requireForm('USDM', `the text of the ${who}`, text, 'string')
  if (!/[\n\r\u2028\u2029]/.test(text)) return text.toLowerCase()
  const lines = text.toLowerCase().split(/[\n\r\u2028\u2029]+/)
  return lines
    .map((line) => line.trim())
    .filter((line) => line !== '')
    .join(' ')
}

function spoken(who: string, units: ArrayLike<number>): ArrayLike<number> {
  if (!isArrayLike(units)) throw misuse('USDM', `the units of the ${who}`, 'a list of units', units)
  if (units.length === 0) throw new DataError(`the speech of the ${who} has no units`, { speaker: who })
  return units
}

/**
 * A conversation as an example for fine-tuning: the instruction, and for each turn the user's units with their transcript,
 * the agent's text with its units, and the end of the text. Texts become lower case and stand on one line.
 * @throws DataError for units that are none, and for an utterance without any
 */
export function usdmExample(tokenizer: UsdmTokenizer, turns: readonly UsdmTurn[]): UsdmExample {
  if (!(tokenizer instanceof UsdmTokenizer)) throw misuse('usdmExample', 'tokenizer', 'a UsdmTokenizer', tokenizer)
  if (!Array.isArray(turns) || turns.length === 0) throw misuse('usdmExample', 'turns', 'a list of turns', turns)
  const inputIds = tokenizer.encode(usdmPieces(turns))
  return { inputIds, labels: usdmLabels(inputIds, tokenizer.ids) }
}

/**
 * What is learnt of a conversation's ids: of each turn the transcript with the line break behind it, and the reply: its text,
 * `<|correspond|>`, its units and what speech ends with. Everything else is -100: the instruction, the headers, the user's
 * units, the last line break and the end of the text.
 * @throws DataError for ids that are no such conversation
 */
export function usdmLabels(inputIds: readonly number[], ids: UsdmIds): number[] {
  if (!Array.isArray(inputIds)) throw misuse('usdmLabels', 'inputIds', 'a list of ids', inputIds)
  requireForm('usdmLabels', 'ids', ids, { newline: 'number', correspond: 'number', endOfSpeech: 'number' })
  const at = (id: number) => inputIds.flatMap((one, place) => (one === id ? [place] : []))
  const [lines, turns] = [at(ids.newline), at(ids.correspond)]
  const count = turns.length / 2
  if (count === 0 || !Number.isInteger(count) || lines.length !== 5 * count + 1) {
    throw new DataError(
      `a conversation has 2 <|correspond|> and 5 line breaks for each turn, and one more; here are ${turns.length} and ${lines.length}`,
      { correspond: turns.length, newlines: lines.length },
    )
  }
  const labels = inputIds.map(() => IGNORED)
  const learn = (from: number, to: number) => {
    for (let place = from; place < to; place++) labels[place] = inputIds[place] as number
  }
  for (let turn = 0; turn < count; turn++) {
    const line = (i: number) => lines[5 * turn + i] as number
    learn((turns[2 * turn] as number) + 1, line(3) + 1)
    // Speech that ends with the line break itself has to learn it.
    learn(line(4) + 1, line(5) + (ids.endOfSpeech === ids.newline ? 1 : 0))
  }
  return labels
}

/** What the model goes on from: as far as the turn has come. */
export interface UsdmPromptInput {
  /** The user's units. */
  units: ArrayLike<number>
  /** Once they are transcribed: the text of the first pass, which goes into the prompt as it is. */
  transcript?: string
  /** Once there is a text to speak, that of the second pass, likewise; needs the transcript. */
  reply?: string
  /** Turns before this one. Default none. */
  history?: readonly UsdmTurn[]
}

/**
 * The ids that a pass goes on from: with units alone the first, which transcribes them; with `transcript` the second, which
 * answers; with `reply` too the third, which speaks. Texts of this turn go in as they are, as the original passes on what the model
 * wrote; those of `history` as {@link usdmExample} writes them. So each prompt begins the example of a turn in lower case.
 * @throws DataError as that does
 */
export function usdmPrompt(tokenizer: UsdmTokenizer, input: UsdmPromptInput): number[] {
  requireObject('usdmPrompt', 'input', input)
  const { units, transcript, reply, history = [] } = input
  if (!(tokenizer instanceof UsdmTokenizer)) throw misuse('usdmPrompt', 'tokenizer', 'a UsdmTokenizer', tokenizer)
  if (reply !== undefined && transcript === undefined) {
    throw misuse('usdmPrompt', 'transcript', 'given with a reply', transcript)
  }
  for (const [name, text] of Object.entries({ transcript, reply })) {
    if (text !== undefined) requireString('usdmPrompt', name, text)
  }
  if (!Array.isArray(history)) throw misuse('usdmPrompt', 'history', 'a list of turns', history)
  const before = history.length === 0 ? [USDM_INSTRUCTION, '\n'] : usdmPieces(history).slice(0, -1)
  return tokenizer.encode([
    ...before,
    ...asked(units),
    ...(transcript === undefined ? [] : heard(transcript)),
    ...(reply === undefined ? [] : replied(reply)),
  ])
}
