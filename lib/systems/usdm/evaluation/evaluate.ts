import { argumentError, requireFunction, requireOptions } from '../../../base/check.js'
import { DataError } from '../../../base/errors.js'
import { requireForm } from '../../../base/form.js'
import { Whisper } from '../../../models/whisper/whisper.js'
import { scope } from '../../../tensor/index.js'
import { type UsdmScores, usdmScores } from './metrics.js'
import type { UsdmPrediction } from './predictions.js'

export interface ScoreUsdmOptions {
  /**
   * Transcribes the spoken replies: a Whisper with a tokenizer, or a function from an audio file to its text. Without a judge, only
   * existing transcripts (`heard`) are scored.
   */
  judge?: Whisper | ((wav: string) => Promise<string>)
  /** Language for Whisper; null: detected. Default 'en' for a multilingual model. */
  language?: string | null
  /** Called with the number of replies transcribed so far. */
  onHeard?: (done: number) => void
}

export interface ScoredUsdm {
  scores: UsdmScores
  /** The predictions, with the judge's transcripts in `heard`. */
  predictions: UsdmPrediction[]
}

/**
 * Score USDM's transcripts, replies and spoken replies: word error rate of the transcripts and of the spoken replies, with Whisper as
 * the judge; METEOR and ROUGE-L of the replies. Predictions with a `heard` are not transcribed again.
 * @throws DataError naming the prediction whose audio file cannot be transcribed
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
    throw argumentError(where, 'judge', 'a Whisper, or a function that returns the text of an audio file', judge)
  }
  if (onHeard !== undefined) requireFunction(where, 'onHeard', onHeard)
  const transcribe = judge instanceof Whisper ? transcriberOf(judge, options.language) : judge
  const scored: UsdmPrediction[] = []
  let done = 0
  for (const prediction of predictions) {
    const { id, wav } = prediction
    if (transcribe === undefined || wav === undefined || prediction.heard !== undefined) {
      scored.push(prediction)
      continue
    }
    const text = await scope(() => transcribe(wav)).catch((cause: Error) => {
      throw new DataError(
        `prediction ${id}: expected an audio file that can be transcribed, got ${wav}: ${cause.message}`,
        { id, file: wav, cause },
      )
    })
    if (typeof text !== 'string') throw argumentError(where, `the judge's result for ${id}`, 'a string', text)
    scored.push({ ...prediction, heard: text.trim() })
    onHeard?.((done += 1))
  }
  return { scores: usdmScores(scored), predictions: scored }
}

function transcriberOf(judge: Whisper, requested: string | null | undefined): (wav: string) => Promise<string> {
  const isMultilingual = Object.keys(judge.tokens.languages).length > 0
  const language = requested === undefined ? (isMultilingual ? 'en' : null) : requested
  return async (wav) => (await judge.transcribe(wav, { language })).text
}
