import { misuse, requireFunction, requireOptions } from '../../../base/check.js'
import { DataError } from '../../../base/errors.js'
import { requireForm } from '../../../base/form.js'
import { Whisper } from '../../../models/whisper/whisper.js'
import { scope } from '../../../tensor/index.js'
import { type UsdmScores, usdmScores } from './metrics.js'
import type { UsdmPrediction } from './predictions.js'

export interface ScoreUsdmOptions {
  /**
   * Hears the spoken replies: a Whisper with a tokenizer, or anything that gives the text of a sound file. Without one only
   * what predictions bring as `heard` is scored.
   */
  judge?: Whisper | ((wav: string) => Promise<string>)
  /** What Whisper is told of the language; null: it finds out. Default 'en', where it knows others. */
  language?: string | null
  /** Called with the number of replies heard so far. */
  onHeard?: (done: number) => void
}

export interface ScoredUsdm {
  scores: UsdmScores
  /** The predictions, with what the judge heard. */
  predictions: UsdmPrediction[]
}

/**
 * Scores what USDM understood, answered and said: word error rates of the transcripts and of the spoken replies, with Whisper
 * as the judge, METEOR and ROUGE-L of the replies. A reply that was heard before is not heard again.
 * @throws DataError naming the prediction whose sound file cannot be heard
 */
export async function scoreUsdm(
  predictions: readonly UsdmPrediction[],
  options: ScoreUsdmOptions = {},
): Promise<ScoredUsdm> {
  const where = 'scoreUsdm'
  requireOptions(where, options, ['judge', 'language', 'onHeard'])
  const { judge, onHeard } = options
  requireForm(where, 'predictions', predictions, [{ id: 'string', 'wav?': 'string' }])
  if (judge !== undefined && typeof judge !== 'function' && !(judge instanceof Whisper)) {
    throw misuse(where, 'judge', 'a Whisper, or a function that gives the text of a sound file', judge)
  }
  if (onHeard !== undefined) requireFunction(where, 'onHeard', onHeard)
  const hear = judge instanceof Whisper ? hearing(judge, options.language) : judge
  const heard: UsdmPrediction[] = []
  let done = 0
  for (const prediction of predictions) {
    const { id, wav } = prediction
    if (hear === undefined || wav === undefined || prediction.heard !== undefined) {
      heard.push(prediction)
      continue
    }
    const text = await scope(() => hear(wav)).catch((cause: Error) => {
      throw new DataError(`${id}: ${wav} cannot be heard: ${cause.message}`, { id, file: wav, cause })
    })
    if (typeof text !== 'string') throw misuse(where, `what the judge gives for ${id}`, 'a text', text)
    heard.push({ ...prediction, heard: text.trim() })
    onHeard?.((done += 1))
  }
  return { scores: usdmScores(heard), predictions: heard }
}

function hearing(judge: Whisper, given: string | null | undefined): (wav: string) => Promise<string> {
  const knowsOthers = Object.keys(judge.tokens.languages).length > 0
  const language = given === undefined ? (knowsOthers ? 'en' : null) : given
  return async (wav) => (await judge.transcribe(wav, { language })).text
}
