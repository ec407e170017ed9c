import { type AudioClip, openClip } from '../../../audio/clip.js'
import { DataError } from '../../../base/errors.js'
import { noGrad, scope, type Tensor } from '../../../tensor/index.js'

/**
 * Speech of a turn: the path of an audio file; a part of one, in seconds; the bytes of one; samples with their rate, such as `readAudio`
 * returns; or samples [samples] at 16 kHz alone. null for a turn without speech.
 */
export type SpectraTurnAudio = AudioClip | null

/**
 * Return the samples at 16 kHz, float32 [samples] on the CPU; null for no speech.
 * @param most maximum number of samples; longer clips are an error
 * @param what description of the clip, for messages
 * @throws ConfigError for a value that is not audio; DataError for files that cannot be read, empty clips, NaN and infinities
 */
export async function samplesOfTurn(
  where: string,
  audio: SpectraTurnAudio | undefined,
  { most, what = 'the audio' }: { most?: number | undefined; what?: string } = {},
): Promise<Tensor | null> {
  if (audio === null || audio === undefined) return null
  return noGrad(() =>
    scope(async () => {
      const limit = most === undefined ? {} : ({ mostSamples: most, longAudio: 'error' } as const)
      const subject = typeof audio === 'string' ? `${where}: ${audio}` : `${where}: ${what}`
      const { samples } = await openClip({ where, subject }, audio, { allowEmpty: true, ...limit })
      if (samples.size(0) === 0) {
        throw new DataError(`${subject}: expected at least one sample, got none. Use null for a turn without speech.`)
      }
      return samples.detach().to({ device: 'cpu' })
    }),
  )
}
