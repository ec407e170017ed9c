import { type AudioClip, openClip, SPEECH_RATE } from '../../audio/clip.js'
import { kaldiFbank } from '../../audio/features.js'
import { argumentError, requireNumber, requireOneOf, requireOptions, requireWhole } from '../../base/check.js'
import { Random } from '../../data/random.js'
import { cat, noGrad, scope, stack, type Tensor } from '../../tensor/index.js'
import { videoAudio } from '../../vision/video-audio.js'
import type { LanguageBindVisionConfig } from './config.js'

/** An audio or video file (see `videoAudio`), the bytes of an audio file, or samples. */ // language: name of a function
export type LanguageBindAudioInput = AudioClip

/** Parameters of the audio features, as in a checkpoint's configuration. */
export interface AudioFrontEnd {
  /** Number of mel bands: 112 (LanguageBind_Audio_FT, default) or 126 (LanguageBind_Audio). */
  nMels?: number
  /** Number of 10 ms frames. Default 1036. */
  targetLength?: number
  mean?: number
  std?: number
}

export interface LanguageBindAudioOptions extends AudioFrontEnd {
  /**
   * Begin of the three crops of a clip longer than `targetLength`: the first position of each third (`'first'`, default), which is
   * deterministic; or a random one (`'random'`), as published, in training and in evaluation.
   */
  crop?: 'first' | 'random'
  /** Random numbers for `crop: 'random'`. Default: a new generator with seed 0. */
  random?: Random
  /** Signal that cancels the reading of a file. */
  signal?: AbortSignal
}

/** Length of a frame in seconds; frames begin every 10 ms. */
const WINDOW = 0.025

/**
 * Compute the features that LanguageBind's audio encoder reads: [clips, 3, nMels, targetLength], float32. They are Kaldi's filter
 * bank features of the first channel at 16 kHz. A clip shorter than `targetLength` frames is repeated; of a longer one the three
 * channels are three crops.
 *
 * ```ts
 * const audio = await languageBindAudio(['dog.wav', 'rain.mp3'])
 * ```
 * @throws ConfigError for a value that is not a clip; DataError with the file for one that cannot be read or has no samples
 */
export async function languageBindAudio(
  audios: LanguageBindAudioInput | readonly LanguageBindAudioInput[],
  options: LanguageBindAudioOptions = {},
): Promise<Tensor> {
  const where = 'languageBindAudio'
  requireOptions(where, options, ['nMels', 'targetLength', 'mean', 'std', 'crop', 'random', 'signal'])
  const { nMels = 112, targetLength = 1036, mean = -4.2677393, std = 4.5689974, crop = 'first', signal } = options
  requireWhole(where, 'nMels', nMels, 1)
  requireWhole(where, 'targetLength', targetLength, 1)
  requireNumber(where, 'mean', mean)
  requireNumber(where, 'std', std)
  requireOneOf(where, 'crop', crop, ['first', 'random'])
  if (options.random !== undefined && !(options.random instanceof Random)) {
    throw argumentError(where, 'random', 'a Random', options.random)
  }
  const random = crop === 'random' ? (options.random ?? new Random(0)) : undefined
  const list = Array.isArray(audios)
    ? (audios as readonly LanguageBindAudioInput[])
    : [audios as LanguageBindAudioInput]
  if (list.length === 0) throw argumentError(where, 'audios', 'an audio clip or a list of at least one', audios)
  return noGrad(() =>
    scope(async () => {
      const features: Tensor[] = []
      for (const [i, audio] of list.entries()) {
        features.push(
          await scope(async () => {
            const reading = { channels: 0, ...(signal && { signal }), leastSamples: WINDOW * SPEECH_RATE }
            const source = await videoAudio(audio, { signal })
            const { samples } = await openClip({ where, argument: `sounds[${i}]` }, source, reading)
            // The original takes the mean over all channels; Kaldi removes the remaining offset of each frame.
            const frames = await kaldiFbank(samples.sub(samples.mean()), { nMels, window: 'hann', htkCompat: true })
            return fitFrames(frames, targetLength, random)
              .sub(mean)
              .div(2 * std)
          }),
        )
      }
      return stack(features)
    }),
  )
}

/** Convert frames [time, bands] to [3, bands, targetLength], by repetition or by three crops. @internal */
export function fitFrames(frames: Tensor, targetLength: number, random?: Random): Tensor {
  const time = frames.shape[0] as number
  if (time > targetLength) {
    return stack(cropsOf(time, targetLength, random).map((start) => frames.narrow(0, start, targetLength).t()))
  }
  const times = time === targetLength ? 1 : Math.floor(targetLength / time) + 1
  const whole = times === 1 ? frames : cat(Array<Tensor>(times).fill(frames), 0).narrow(0, 0, targetLength)
  const channel = whole.t()
  return stack([channel, channel, channel])
}

/** Return the first frame of each of the three crops. */
function cropsOf(frames: number, targetLength: number, random?: Random): number[] {
  const places = frames - targetLength + 1
  let first = 0
  return [0, 1, 2].map((part) => {
    // If the positions do not divide by three, the first thirds have one more.
    const size = Math.floor(places / 3) + (part < places % 3 ? 1 : 0)
    const start = size === 0 ? 0 : first + (random?.below(size) ?? 0)
    first += size
    return start
  })
}

/** Return the audio features of an audio encoder's configuration. */
export const audioFrontEnd = ({
  numMelBins,
  targetLength,
  audioMean,
  audioStd,
}: LanguageBindVisionConfig): AudioFrontEnd => ({
  ...(numMelBins && { nMels: numMelBins }),
  ...(targetLength && { targetLength }),
  ...(audioMean !== undefined && { mean: audioMean }),
  ...(audioStd !== undefined && { std: audioStd }),
})
