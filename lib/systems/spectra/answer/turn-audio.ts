import { type AudioClip, openClip } from '../../../audio/clip.js'
import { DataError } from '../../../base/errors.js'
import { noGrad, scope, type Tensor } from '../../../tensor/index.js'

/**
 * Speech, as users have it: the path of a sound file; a part of one, in seconds; the bytes of one; samples with their rate,
 * such as `readAudio` gives; or samples [samples] at 16 kHz alone. null where nobody speaks.
 */
export type SpectraTurnAudio = AudioClip | null

/**
 * The samples at 16 kHz, float32 [samples] on the CPU; null for no speech.
 * @param most what is longer is refused
 * @param what the clip is, for messages
 * @throws ConfigError for what is no audio; DataError for files that cannot be read, empty clips, NaN and infinities
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
      if (samples.size(0) === 0) throw new DataError(`${subject} is empty; give null where nobody speaks`)
      return samples.detach().to({ device: 'cpu' })
    }),
  )
}
