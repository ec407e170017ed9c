import { argumentError, requireObject } from '../../../base/check.js'
import { type ChangesOf, instanceOf, settings } from '../../../base/settings.js'
import { Tokenizer } from '../../../text/tokenizer.js'
import { type SpectraTurnText, TEXT_SETTINGS } from '../data/text.js'
import { SpectraForPreTraining } from '../network/network.js'
import { requireTrained } from '../network/untrained.js'
import { readingOf, rowsOf } from './embed.js'
import type { SpectraTurnAudio } from './turn-audio.js'
import { readTurns, type SpectraTurn, TURN_SETTINGS } from './turns.js'

/** Previous turns, and candidate responses to the last one. */
export interface RankResponsesInput {
  /** Texts of all previous turns, oldest first, at least one. */
  history: readonly SpectraTurnText[]
  /** The speech of the last of them. */
  historyAudio?: SpectraTurnAudio
  responses: readonly { text: SpectraTurnText; audio?: SpectraTurnAudio }[]
}

const RANK_SETTINGS = settings({
  tokenizer: { type: instanceOf(Tokenizer), required: true },
  batchSize: TURN_SETTINGS.table.batchSize,
  /** For audio longer than 10 s: use the first 10 s, as in pre-training, or throw an error. */
  longAudio: { type: ['cut', 'error'], default: 'cut' },
  ...TEXT_SETTINGS.table,
})

/** @interface */
export type RankResponsesOptions = ChangesOf<typeof RANK_SETTINGS.table>

export interface RankedResponse {
  /** Index in `responses`. */
  index: number
  /** Probability that both its text and its speech match the history. */
  probability: number
  /** Probabilities of the four classes of pre-training: text and speech match; only the text; only the speech; neither. The sum is 1. */
  probabilities: { both: number; onlyText: number; onlySpeech: number; neither: number }
}

/**
 * Rank responses to a dialog with the response selection head of pre-training, the best first. Responses without speech are ranked too,
 * but did not occur in pre-training.
 * @throws ConfigError for wrong arguments, and for an untrained head; DataError for audio that cannot be read
 */
export async function rankResponses(
  model: SpectraForPreTraining,
  input: RankResponsesInput,
  options: RankResponsesOptions,
): Promise<RankedResponse[]> {
  const where = 'rankResponses'
  if (!(model instanceof SpectraForPreTraining)) throw argumentError(where, 'model', 'a SpectraForPreTraining', model)
  requireTrained(where, model, ['selection_head'])
  requireObject(where, 'input', input)
  const read = RANK_SETTINGS.read(where, options)
  const { history, historyAudio = null, responses } = input
  if (!Array.isArray(history) || history.length === 0) throw argumentError(where, 'history', 'a list of turns', history)
  if (!Array.isArray(responses)) throw argumentError(where, 'responses', 'a list of responses', responses)
  const turns = responses.map(({ text, audio = null }): SpectraTurn => ({ text, audio, history, historyAudio }))
  const results = await readTurns(
    where,
    model,
    turns,
    readingOf(model, read),
    TURN_SETTINGS.changesIn(read),
    async (batch) => rowsOf((await model.predict(batch)).crsLogits.softmax(-1)),
  )
  return results
    .map(([first], index) => {
      const [both, onlyText, onlySpeech, neither] = first!.said as unknown as [number, number, number, number]
      return { index, probability: both, probabilities: { both, onlyText, onlySpeech, neither } }
    })
    .sort((a, b) => b.probability - a.probability || a.index - b.index)
}
