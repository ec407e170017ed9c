import { type AudioClip, openClip, SPEECH_RATE } from '../../audio/clip.js'
import { defined, requireOptions, requireWhole, shown } from '../../base/check.js'
import { ConfigError, DataError } from '../../base/errors.js'
import { type CtcHypothesis, ctcAlign, ctcBeamSearch } from '../../generation/ctc.js'
import { noGrad, scope, type Tensor } from '../../tensor/index.js'
import type { CtcOffset, CtcTokenizer } from '../../text/ctc-tokenizer.js'
import { requireTokenizer } from '../require-tokenizer.js'
import { computePieces, type PieceOptions, type TimedText } from './pieces.js'
import type { SpeechForCTC } from './speech-ctc.js'
import { convolutionsOf, framesOf } from './speech-encoder.js'
import { inputLengthOf, samplesPerInput, speechInputsOf } from './speech-inputs.js'

export interface CtcTranscribeOptions extends PieceOptions {
  /** Hypotheses kept after each frame; 1 takes the most likely token of each frame. Default 1. */
  beamWidth?: number
  /** Number of `hypotheses`, with beams. Default 1. */
  nBest?: number
  /** Whether to return times of words, or also of characters. Default false. */
  timestamps?: false | 'word' | 'char'
  /** Whether to leave `<s>`, `</s>` and `<unk>` out of the text. Default false. */
  skipSpecialTokens?: boolean
}

export interface CtcTranscription {
  text: string
  /** Words with times, with `timestamps`. */
  words?: TimedText[]
  /** Characters with times, with `timestamps: 'char'`. */
  chars?: TimedText[]
  /** Hypotheses of the beam search, best first; `score` is the log-probability of the text. */
  hypotheses?: (CtcHypothesis & { text: string })[]
}

/** Options of `transcribe` of a CTC network. */
export const CTC_TRANSCRIBE_KEYS = [
  'beamWidth',
  'nBest',
  'timestamps',
  'chunkSeconds',
  'strideSeconds',
  'skipSpecialTokens',
  'signal',
]

/** Implement `Wav2Vec2ForCTC.transcribe`. */
export async function transcribeCtc(
  model: SpeechForCTC,
  audio: AudioClip,
  options: CtcTranscribeOptions,
): Promise<CtcTranscription> {
  const where = `${model.constructor.name}.transcribe`
  requireOptions(where, options, CTC_TRANSCRIBE_KEYS)
  const { beamWidth = 1, nBest = 1, timestamps = false, skipSpecialTokens = false, signal } = options
  requireWhole(where, 'beamWidth', beamWidth, 1)
  requireWhole(where, 'nBest', nBest, 1)
  if (nBest > beamWidth) {
    throw new ConfigError(
      `${where}: nBest: expected at most beamWidth (${beamWidth}), got ${nBest}. Raise beamWidth.`,
      {
        ...{ nBest, beamWidth },
      },
    )
  }
  if (timestamps !== false && timestamps !== 'word' && timestamps !== 'char') {
    throw new ConfigError(
      `${where}: timestamps: expected false, 'word' or 'char', got ${shown(timestamps)}. Correct it.`,
      {
        timestamps,
      },
    )
  }
  const tokenizer = requireTokenizer(where, model.tokenizer, 'CtcTokenizer')
  signal?.throwIfAborted()
  return noGrad(() =>
    scope(async () => {
      const { samples } = await openClip({ where }, audio, { allowEmpty: true, signal: signal ?? undefined })
      const logits = await logitsOfPieces(where, model, samples, options)
      signal?.throwIfAborted()
      const skip = { skipSpecialTokens }
      const beams = beamWidth === 1 ? null : await searched(model, logits, beamWidth, nBest)
      const frames = beams ? await aligned(model, logits, beams[0]?.tokens ?? []) : best(logits)
      const { text, words, chars } = tokenizer.decodeWithOffsets(frames, skip)
      const timed = (offsets: CtcOffset[]) => offsets.map((offset) => inSeconds(model, offset))
      return defined({
        text,
        words: timestamps ? timed(words) : undefined,
        chars: timestamps === 'char' ? timed(chars) : undefined,
        hypotheses: beams?.map((beam) => ({ text: textOf(tokenizer, beam, skip), ...beam })),
      })
    }),
  )
}

const best = (logits: Tensor): number[] => (logits.argmax(-1).toArray() as (number | bigint)[]).map(Number)

const searched = (model: SpeechForCTC, logits: Tensor, beamWidth: number, nBest: number): Promise<CtcHypothesis[]> =>
  ctcBeamSearch(logits.logSoftmax(-1), { blank: model.config.padTokenId ?? 0, beamWidth, nBest })

async function aligned(model: SpeechForCTC, logits: Tensor, tokens: number[]): Promise<number[]> {
  const { path } = await ctcAlign(logits.logSoftmax(-1), tokens, { blank: model.config.padTokenId ?? 0 })
  return path
}

const textOf = (tokenizer: CtcTokenizer, { tokens }: CtcHypothesis, skip: { skipSpecialTokens: boolean }): string =>
  tokenizer.decode(tokens, { groupTokens: false, ...skip })

function inSeconds(model: SpeechForCTC, { text, start, end }: CtcOffset): TimedText {
  const seconds = (frame: number) => (frame * stepOf(model)) / SPEECH_RATE
  return { text, start: seconds(start), end: seconds(end) }
}

/** Return the number of samples between frames. */
const stepOf = (model: SpeechForCTC): number =>
  convolutionsOf(model.config).reduce((product, { stride }) => product * stride, samplesPerInput(model.config))

/** Compute logits of samples [n]: float32 [frames, vocabSize], on the CPU. */
async function logitsOfPieces(
  where: string,
  model: SpeechForCTC,
  samples: Tensor,
  options: CtcTranscribeOptions,
): Promise<Tensor> {
  const count = samples.size(0)
  if (framesOf(model.config, inputLengthOf(model.config, count)) === 0)
    throw new DataError(`${where}: expected enough samples for one frame, got ${count}. Use a longer clip.`, {
      samples: count,
    })
  // The last frames of a piece need samples after it, so the overlap must cover them.
  const layout = { where, sampleRate: SPEECH_RATE, step: stepOf(model), leastStride: 2, leastRest: 1 }
  return computePieces(samples, layout, options, (piece) => logitsOf(model, piece))
}

async function logitsOf(model: SpeechForCTC, samples: Tensor): Promise<Tensor> {
  const { device } = model.lm_head.weight
  const { logits } = await model.forward(
    await speechInputsOf(model.config, samples.to({ device }), model.normalizesAudio),
  )
  return logits.select(0, 0).to({ device: 'cpu', dtype: 'float32' })
}
