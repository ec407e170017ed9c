import { energyVad, padSegments, type Segment, splitOnSilence, type VoiceActivity } from '../../audio/silence.js'
import { SPEECH_RATE } from '../../audio/speech.js'
import { publishedWeights } from '../../hub/weights.js'
import type { Tensor } from '../../tensor/index.js'
import { SileroVad } from '../silero-vad.js'

const SILERO = 'silero-vad'
/** Seconds of padding around the speech of the default detectors, since the first and last phones of a word are soft. */
const PADDING = 0.3

/**
 * Return the pieces of samples [n] at 16 kHz for batched mode, each of at most `maxSeconds`, and the speech in them, both in seconds.
 * @param vad speech detector; default SileroVad if its published weights are stored, else `energyVad`
 */
export async function speechPieces(
  samples: Tensor,
  maxSeconds: number,
  vad?: VoiceActivity,
): Promise<{ pieces: Segment[]; speech: Segment[] }> {
  const speech = await (vad ?? findSpeech)(samples, SPEECH_RATE)
  const segments = vad ? speech : padSegments(speech, samples.size(0) / SPEECH_RATE, PADDING)
  return { pieces: await splitOnSilence(samples, SPEECH_RATE, { maxSeconds, vad: async () => segments }), speech }
}

/** Return the parts of samples [n] that are not silent, in seconds, including short and soft ones. */
export const audibleParts: VoiceActivity = (samples, sampleRate) =>
  energyVad(samples, sampleRate, { floorDb: -85, minSpeech: 0.05, padding: 0 })

const findSpeech: VoiceActivity = async (samples, sampleRate) => {
  const published = publishedWeights().find(({ name }) => name === SILERO)
  if (!published?.present) return audibleParts(samples, sampleRate)
  const silero = await SileroVad.fromPretrained(published.folder)
  try {
    return await silero.segments(samples, sampleRate, { minSilence: 0.16, minSpeech: 0.05, padding: 0 })
  } finally {
    silero.dispose()
  }
}
