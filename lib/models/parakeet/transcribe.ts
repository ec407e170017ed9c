import { type AudioClip, openClip } from '../../audio/clip.js'
import { defined, requireOneOf, requireOptions, requireSignal } from '../../base/check.js'
import { DataError } from '../../base/errors.js'
import { noGrad, scope, type Tensor, tensor } from '../../tensor/index.js'
import type { Tokenizer } from '../../text/tokenizer.js'
import { computePieces, type PieceOptions, type TimedText } from '../encoders/pieces.js'
import { requireTokenizer } from '../require-tokenizer.js'
import { subsamplingOf } from './encoder.js'
import type { ParakeetBeamOptions, ParakeetHypothesis, ParakeetModel } from './head.js'

export interface ParakeetTranscribeOptions extends PieceOptions, ParakeetBeamOptions {
  /** Whether to return times of words; also of segments, or of tokens as `chars`. Default false. */
  timestamps?: false | 'word' | 'segment' | 'char'
}

export interface ParakeetTranscription {
  text: string
  /** Words with times, with `timestamps`. */
  words?: TimedText[]
  /** Words up to one that ends in `.`, `?` or `!`, with `timestamps: 'segment'`. */
  segments?: TimedText[]
  /** Tokens with times, with `timestamps: 'char'`. */
  chars?: TimedText[]
}

export const PARAKEET_TRANSCRIBE_KEYS = [
  'timestamps',
  'chunkSeconds',
  'strideSeconds',
  'signal',
  'numBeams',
  'lengthPenalty',
]

/** Implement `transcribe` of the Parakeet models. */
export async function transcribeParakeet(
  model: ParakeetModel,
  audio: AudioClip,
  options: ParakeetTranscribeOptions,
): Promise<ParakeetTranscription> {
  const where = `${model.constructor.name}.transcribe`
  requireOptions(where, options, PARAKEET_TRANSCRIBE_KEYS)
  const { timestamps = false, signal, numBeams, lengthPenalty } = options
  const beam = model.beamOptions(where, defined({ numBeams, lengthPenalty }))
  if (timestamps !== false) requireOneOf(where, 'timestamps', timestamps, ['word', 'segment', 'char'])
  requireSignal(where, signal)
  const tokenizer = requireTokenizer(where, model.tokenizer)
  signal?.throwIfAborted()
  return noGrad(() =>
    scope(async () => {
      const { samplingRate: sampleRate } = model.features
      const { samples } = await openClip({ where }, audio, {
        sampleRate,
        allowEmpty: true,
        signal: signal ?? undefined,
      })
      const states = await statesOfPieces(where, model, samples, options)
      signal?.throwIfAborted()
      const [found] = await model.decodeStates(states.unsqueeze(0), tensor([BigInt(states.size(0))]), beam)
      const hypothesis = found as ParakeetHypothesis
      const text = tokenizer.decode(hypothesis.tokens, { skipSpecialTokens: true }).trim()
      if (timestamps === false) return { text }
      const chars = timedTokens(tokenizer, hypothesis, {
        frameSeconds: stepOf(model) / sampleRate,
        movesPunctuation: kindOf(model) === 'tdt',
      })
      const words = wordsOf(chars)
      return defined({
        text,
        words,
        segments: timestamps === 'segment' ? segmentsOf(words) : undefined,
        chars: timestamps === 'char' ? chars : undefined,
      })
    }),
  )
}

const kindOf = (model: ParakeetModel): string => (model.constructor as typeof ParakeetModel).kind

/** Return the number of samples between frames of the encoder. */
const stepOf = (model: ParakeetModel): number => model.features.hopLength * subsamplingOf(model.encoder.config)

/** Compute the encoder's valid states of samples [n], [frames, hiddenSize]. */
async function statesOfPieces(
  where: string,
  model: ParakeetModel,
  samples: Tensor,
  options: ParakeetTranscribeOptions,
): Promise<Tensor> {
  const count = samples.size(0)
  const { hopLength, samplingRate: sampleRate } = model.features
  // A rest too short for features of its own belongs to the last piece.
  const leastRest = 2 * hopLength
  if (count < leastRest) {
    throw new DataError(`${where}: expected at least ${leastRest} samples, got ${count}. Use a longer clip.`, {
      samples: count,
    })
  }
  const layout = { where, sampleRate, step: stepOf(model), leastStride: 1, leastRest }
  return computePieces(samples, layout, options, (piece) => statesOf(model, piece))
}

async function statesOf(model: ParakeetModel, samples: Tensor): Promise<Tensor> {
  const { device } = model.parameters()[0] as Tensor
  const { inputFeatures, attentionMask } = await model.extractFeatures([samples.to({ device })])
  const { lastHiddenState } = await model.encoder.forward({ inputFeatures, attentionMask })
  const [frames] = model.featureLengths([Math.floor(samples.size(0) / model.features.hopLength)])
  return lastHiddenState.select(0, 0).narrow(0, 0, frames as number)
}

/** Punctuation that transformers and NeMo time as the end of the token before it, for TDT. */
const PUNCTUATION = new Set(['?', "'", '¡', '¿', '-', ':', ',', '%', '/', '.', '!'])

/** Return the text of each token with its times, as transformers' ParakeetProcessor does. A token without text is left out. @internal */
export function timedTokens(
  tokenizer: Tokenizer,
  { tokens, starts, durations }: ParakeetHypothesis,
  { frameSeconds, movesPunctuation }: { frameSeconds: number; movesPunctuation: boolean },
): TimedText[] {
  const stream = tokenizer.decodeStream({ skipSpecialTokens: true })
  const timed: TimedText[] = []
  for (const [i, token] of tokens.entries()) {
    const text = stream.push(token)
    if (text === '') continue
    const first = starts[i] as number
    const stretch = { text, start: first * frameSeconds, end: (first + (durations[i] as number)) * frameSeconds }
    const before = timed.at(-1)
    if (movesPunctuation && before && PUNCTUATION.has(text)) {
      stretch.start = before.end
      stretch.end = before.end
    }
    timed.push(stretch)
  }
  return timed
}

/** Join tokens to words: one begins at each token that begins with a space. @internal */
export function wordsOf(tokens: readonly TimedText[]): TimedText[] {
  const words: TimedText[] = []
  for (const { text, start, end } of tokens) {
    const last = words.at(-1)
    if (last === undefined || /^\s/.test(text)) words.push({ text: text.trim(), start, end })
    else {
      last.text += text
      last.end = end
    }
  }
  return words.filter(({ text }) => text !== '')
}

/** Join words to segments: one ends after a word that ends in `.`, `?` or `!`, as in NeMo, or before a pause. @internal */
export function segmentsOf(words: readonly TimedText[], pauseSeconds = Number.POSITIVE_INFINITY): TimedText[] {
  const segments: TimedText[] = []
  let isOpen = false
  for (const { text, start, end } of words) {
    const last = segments.at(-1)
    if (isOpen && last && start - last.end < pauseSeconds) {
      last.text += ` ${text}`
      last.end = end
    } else segments.push({ text, start, end })
    isOpen = !/[.?!]$/.test(text)
  }
  return segments
}
