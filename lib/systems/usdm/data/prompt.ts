import { argumentError, isArrayLike, requireObject, requireString } from '../../../base/check.js'
import { DataError } from '../../../base/errors.js'
import { requireForm } from '../../../base/form.js'
import { type UsdmIds, type UsdmPiece, UsdmTokenizer } from './text.js'

/** The instruction at the start of every conversation. */
export const USDM_INSTRUCTION =
  "Below is a conversation between the user and the agent. Each turn includes the user's speech and its corresponding transcript, along with the agent's response text and the corresponding speech."

/** An utterance: its text, and the units of its speech. */
export interface UsdmUtterance {
  text: string
  units: ArrayLike<number>
}

/** A user utterance and the agent's reply. */
export interface UsdmTurn {
  user: UsdmUtterance
  agent: UsdmUtterance
}

/** A training example. Both lists have the same length. */
export interface UsdmExample {
  inputIds: number[]
  /** The id for tokens that contribute to the loss, and -100 for others. */
  labels: number[]
}

/** Label of tokens that do not contribute to the loss. */
export const IGNORED = -100

const UTTERANCE = { text: 'string', units: 'object' } as const

/** Return a conversation as text and units, in the original's template, for any number of turns. */
export function usdmPieces(turns: readonly UsdmTurn[]): UsdmPiece[] {
  requireForm('USDM', 'turns', turns, [{ user: UTTERANCE, agent: UTTERANCE }])
  const pieces = turns.flatMap(({ user, agent }) => [
    ...questionPieces(user.units),
    ...transcriptPieces(templateText('user', user.text)),
    ...answerPieces(agent),
  ])
  return [USDM_INSTRUCTION, '\n', ...pieces, { token: 'eos' }]
}

const questionPieces = (units: ArrayLike<number>): UsdmPiece[] => [
  '\n',
  '### User',
  '\n',
  { units: spoken('user', units) },
  { token: 'correspond' },
]
const transcriptPieces = (transcript: string): UsdmPiece[] => [transcript, '\n', '### Agent', '\n']
const replyPieces = (reply: string): UsdmPiece[] => [reply, { token: 'correspond' }]
const answerPieces = ({ text, units }: UsdmUtterance): UsdmPiece[] => [
  ...replyPieces(templateText('agent', text)),
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
  if (!isArrayLike(units)) throw argumentError('USDM', `the units of the ${who}`, 'a list of units', units)
  if (units.length === 0) throw new DataError(`expected units of speech for the ${who}, got none`, { speaker: who })
  return units
}

/**
 * Return a conversation as an example for fine-tuning: the instruction, then for each turn the user's units with their transcript
 * and the agent's text with its units, then the end of the text. Texts are lowercased and put on one line.
 * @throws DataError for values that are not units of the tokenizer, and for an utterance without units
 */
export function usdmExample(tokenizer: UsdmTokenizer, turns: readonly UsdmTurn[]): UsdmExample {
  if (!(tokenizer instanceof UsdmTokenizer))
    throw argumentError('usdmExample', 'tokenizer', 'a UsdmTokenizer', tokenizer)
  if (!Array.isArray(turns) || turns.length === 0) throw argumentError('usdmExample', 'turns', 'a list of turns', turns)
  const inputIds = tokenizer.encode(usdmPieces(turns))
  return { inputIds, labels: usdmLabels(inputIds, tokenizer.ids) }
}

/**
 * Return the labels of a conversation's ids. The transcript of each turn with the line break after it contributes to the loss, and the
 * reply: its text, `<|correspond|>`, its units and the end of speech. Everything else is -100: the instruction, the headers, the
 * user's units, the last line break and the end of the text.
 * @throws DataError for ids that do not follow the template
 */
export function usdmLabels(inputIds: readonly number[], ids: UsdmIds): number[] {
  if (!Array.isArray(inputIds)) throw argumentError('usdmLabels', 'inputIds', 'a list of ids', inputIds)
  requireForm('usdmLabels', 'ids', ids, { newline: 'number', correspond: 'number', endOfSpeech: 'number' })
  const at = (id: number) => inputIds.flatMap((one, place) => (one === id ? [place] : []))
  const [lines, turns] = [at(ids.newline), at(ids.correspond)]
  const count = turns.length / 2
  if (count === 0 || !Number.isInteger(count) || lines.length !== 5 * count + 1) {
    throw new DataError(
      `usdmLabels: expected 2 <|correspond|> and 5 line breaks for each turn, and one more line break, got ${turns.length} and ${lines.length}`,
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
    // If speech ends with the line break itself, that line break contributes to the loss.
    learn(line(4) + 1, line(5) + (ids.endOfSpeech === ids.newline ? 1 : 0))
  }
  return labels
}

/** The conversation so far, which a pass continues. */
export interface UsdmPromptInput {
  /** The user's units. */
  units: ArrayLike<number>
  /** Text of the first pass, inserted unchanged. */
  transcript?: string
  /** Text of the second pass, inserted unchanged; needs `transcript`. */
  reply?: string
  /** Turns before this one. Default none. */
  history?: readonly UsdmTurn[]
}

/**
 * Return the prompt ids of a pass. With `units` alone it is the prompt of the first pass, which transcribes; with `transcript`, of the
 * second, which replies; with `reply` too, of the third, which speaks. `transcript` and `reply` are inserted unchanged, as the
 * original does with the model's output; texts of `history` are formatted as in {@link usdmExample}. So each prompt of a lowercase
 * turn is a prefix of its example.
 * @throws the errors of {@link usdmExample}
 */
export function usdmPrompt(tokenizer: UsdmTokenizer, input: UsdmPromptInput): number[] {
  requireObject('usdmPrompt', 'input', input)
  const { units, transcript, reply, history = [] } = input
  if (!(tokenizer instanceof UsdmTokenizer))
    throw argumentError('usdmPrompt', 'tokenizer', 'a UsdmTokenizer', tokenizer)
  if (reply !== undefined && transcript === undefined) {
    throw argumentError('usdmPrompt', 'transcript', 'a text, since there is a reply', transcript)
  }
  for (const [name, text] of Object.entries({ transcript, reply })) {
    if (text !== undefined) requireString('usdmPrompt', name, text)
  }
  if (!Array.isArray(history)) throw argumentError('usdmPrompt', 'history', 'a list of turns', history)
  const before = history.length === 0 ? [USDM_INSTRUCTION, '\n'] : usdmPieces(history).slice(0, -1)
  return tokenizer.encode([
    ...before,
    ...questionPieces(units),
    ...(transcript === undefined ? [] : transcriptPieces(transcript)),
    ...(reply === undefined ? [] : replyPieces(reply)),
  ])
}
