import { requireOptions, requireSignal, requireString } from '../../base/check.js'
import { DataError } from '../../base/errors.js'
import { noGrad, scope } from '../../tensor/index.js'
import { requireTokenizer } from '../require-tokenizer.js'
import { positionsOf, windowOf } from './config.js'
import { SECONDS_PER_STEP, samplesOf, spectrogramOf, type WhisperAudio } from './options.js'
import { languageCode, tokenKinds } from './tokens.js'
import { timed } from './transcribe.js'
import type { Whisper } from './whisper.js'
import { type WhisperWord, wordsOf } from './words.js'

export interface AlignTextOptions {
  /** A code or an English name. Default 'en' for a multilingual model. */
  language?: string
  /** Stops before the forward pass. */
  signal?: AbortSignal
}

/** See `Whisper.alignText`. */
export async function alignText(
  model: Whisper,
  audio: WhisperAudio,
  text: string,
  options: AlignTextOptions = {},
): Promise<WhisperWord[]> {
  const where = 'Whisper.alignText'
  requireString(where, 'text', text)
  requireOptions(where, options, ['language', 'signal'])
  const { language, signal } = options
  requireSignal(where, signal)
  const { tokens, config } = model
  const tokenizer = requireTokenizer(where, model.tokenizer)
  const knowsOthers = Object.keys(tokens.languages).length > 0
  const code = language === undefined ? (knowsOthers ? 'en' : null) : languageCode(tokens, language)
  const said = text.trim()
  if (said === '') throw new DataError(`${where}: text: expected words, got none`, { text })
  const ids = tokenizer.encode(` ${said}`, { addSpecialTokens: false }).inputIds
  const start = [tokens.startOfTranscript]
  if (code !== null) start.push(tokens.languages[code] as number, tokens.transcribe)
  const prompt = [...start, tokens.noTimestamps]
  const room = positionsOf(config) - prompt.length - 1
  const { isText } = tokenKinds(model)
  if (!ids.every(isText) || ids.length > room) {
    const what = ids.length > room ? `at most ${room} tokens, got ${ids.length}` : 'no special tokens, got some'
    throw new DataError(`${where}: text: expected ${what}`, { tokens: ids.length, most: room })
  }
  signal?.throwIfAborted()
  return noGrad(() =>
    scope(async () => {
      const { mel, steps } = await spectrogramOf(model, await samplesOf(model, audio))
      const window = windowOf(config)
      if (steps > window) {
        const seconds = (count: number) => count * SECONDS_PER_STEP
        throw new DataError(
          `${where}: audio: expected a clip of at most ${seconds(window)} s, got ${seconds(steps).toFixed(2)} s. Split it.`,
          { seconds: seconds(steps) },
        )
      }
      const [times = []] = await model.tokenTimestamps({
        inputFeatures: mel.narrow(1, 0, window).unsqueeze(0),
        prompt,
        // The end-of-text token takes the attention of the end of the text.
        tokens: [[...ids, tokens.endOfText]],
        frames: [Math.floor(steps / 2)],
      })
      const places = ids.map((_, i) => i)
      return wordsOf(tokenizer, ids, code).map((piece) => {
        const { places: _, ...word } = timed(piece, places, times, 0)
        return word
      })
    }),
  )
}
