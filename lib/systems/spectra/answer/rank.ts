import { misuse, requireObject, requireOneOf, requireOptions } from '../../../base/check.js'
import type { Tokenizer } from '../../../text/tokenizer.js'
import type { SpectraDialogTextOptions, SpectraTurnText } from '../data/text.js'
import { SpectraForPreTraining } from '../network/network.js'
import { requireTrained } from '../network/untrained.js'
import { readingOf, rowsOf } from './embed.js'
import type { SpectraTurnAudio } from './turn-audio.js'
import { readTurns, type SpectraTurn } from './turns.js'

/** Turns that were said, and answers to the last one. */
export interface RankResponsesInput {
  /** The texts of all turns so far, oldest first, at least one. */
  history: readonly SpectraTurnText[]
  /** The speech of the last of them. */
  historyAudio?: SpectraTurnAudio
  responses: readonly { text: SpectraTurnText; audio?: SpectraTurnAudio }[]
}

export interface RankResponsesOptions extends SpectraDialogTextOptions {
  tokenizer: Tokenizer
  /** Default 8. */
  batchSize?: number
  /** Audio of more than 10 s: its beginning is heard (default), as in pre-training, or it is an error. */
  longAudio?: 'cut' | 'error'
}

export interface RankedResponse {
  /** Its place in `responses`. */
  index: number
  /** That both its text and its speech belong to what was said. */
  probability: number
  /**
   * Of the four cases of pre-training: text and speech belong to it; only the text; only the speech; neither. Their sum
   * is 1.
   */
  probabilities: { both: number; onlyText: number; onlySpeech: number; neither: number }
}

/**
 * Orders answers by how well they go on from what was said, by the head of pre-training that selects responses, the best
 * first. An answer without speech is judged too, but pre-training has never seen one.
 * @throws ConfigError for wrong arguments, and for a model whose head holds random numbers; DataError for audio that cannot
 * be read
 */
export async function rankResponses(
  model: SpectraForPreTraining,
  input: RankResponsesInput,
  options: RankResponsesOptions,
): Promise<RankedResponse[]> {
  const where = 'rankResponses'
  if (!(model instanceof SpectraForPreTraining)) throw misuse(where, 'model', 'a SpectraForPreTraining', model)
  requireTrained(where, model, ['selection_head'])
  requireObject(where, 'input', input)
  requireOptions(where, options, ['tokenizer', 'batchSize', 'longAudio', 'lowercase', 'maxContext'])
  const { history, historyAudio = null, responses } = input
  if (!Array.isArray(history) || history.length === 0) throw misuse(where, 'history', 'a list of turns', history)
  if (!Array.isArray(responses)) throw misuse(where, 'responses', 'a list of answers', responses)
  const { longAudio = 'cut', batchSize = 8, ...text } = options
  requireOneOf(where, 'longAudio', longAudio, ['cut', 'error'])
  const turns = responses.map(({ text, audio = null }): SpectraTurn => ({ text, audio, history, historyAudio }))
  const results = await readTurns(
    where,
    model,
    turns,
    readingOf(model, text),
    { longAudio, batchSize },
    async (batch) => rowsOf((await model.predict(batch)).crsLogits.softmax(-1)),
  )
  return results
    .map(([first], index) => {
      const [both, onlyText, onlySpeech, neither] = first!.said as unknown as [number, number, number, number]
      return { index, probability: both, probabilities: { both, onlyText, onlySpeech, neither } }
    })
    .sort((a, b) => b.probability - a.probability || a.index - b.index)
}
