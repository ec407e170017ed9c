import { type AudioClip, openClip, SPEECH_RATE } from '../../audio/clip.js'
import { kaldiFbank } from '../../audio/features.js'
import { misuse, requireNumber, requireOneOf, requireOptions, requireWhole } from '../../base/check.js'
import { Random } from '../../data/random.js'
import { cat, noGrad, scope, stack, type Tensor } from '../../tensor/index.js'
import { filmSound } from '../../vision/film-sound.js'
import type { LanguageBindVisionConfig } from './config.js'

/** A sound file, or a film (see `filmSound`), the bytes of a sound file, or samples. */
export type LanguageBindSound = AudioClip

/** What of a sound becomes what, as a checkpoint's configuration says it. */
export interface AudioFrontEnd {
  /** Bands: 112 (LanguageBind_Audio_FT, default) or 126 (LanguageBind_Audio). */
  nMels?: number
  /** Frames of 10 ms. Default 1036. */
  targetLength?: number
  mean?: number
  std?: number
}

export interface LanguageBindAudioOptions extends AudioFrontEnd {
  /**
   * Where the three parts of a sound begin that is longer than `targetLength`: at the first place of each third (`'first'`,
   * default), which gives the same every time; or at any (`'random'`), as published, in training and in evaluation.
   */
  crop?: 'first' | 'random'
  /** Where `crop: 'random'` takes its numbers from. Default: a new one of seed 0. */
  random?: Random
  /** Ends the reading of a file. */
  signal?: AbortSignal
}

/** 25 ms, and 10 ms from one frame to the next. */
const WINDOW = 0.025

/**
 * Sounds as LanguageBind's audio tower reads them: [sounds, 3, nMels, targetLength], float32. Kaldi's filter bank features of
 * the first channel at 16 kHz; what is shorter than `targetLength` frames is repeated, and of what is longer the three
 * channels are three parts.
 *
 * ```ts
 * const audio = await languageBindAudio(['dog.wav', 'rain.mp3'])
 * ```
 * @throws ConfigError for what is no clip; DataError naming the file for one that cannot be read or has no samples
 */
export async function languageBindAudio(
  sounds: LanguageBindSound | readonly LanguageBindSound[],
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
    throw misuse(where, 'random', 'a Random', options.random)
  }
  const random = crop === 'random' ? (options.random ?? new Random(0)) : undefined
  const list = Array.isArray(sounds) ? (sounds as readonly LanguageBindSound[]) : [sounds as LanguageBindSound]
  if (list.length === 0) throw misuse(where, 'sounds', 'a sound or a list of at least one', sounds)
  return noGrad(() =>
    scope(async () => {
      const features: Tensor[] = []
      for (const [i, sound] of list.entries()) {
        features.push(
          await scope(async () => {
            const reading = { channels: 0, ...(signal && { signal }), leastSamples: WINDOW * SPEECH_RATE }
            const heard = await filmSound(sound, { signal })
            const { samples } = await openClip({ where, argument: `sounds[${i}]` }, heard, reading)
            // The original takes the mean over all channels; each frame loses what is left of it.
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

/** Frames [time, bands] as [3, bands, targetLength]: repeated, or in three parts. @internal */
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

/** The first frames of the three parts of a sound of so many. */
function cropsOf(frames: number, targetLength: number, random?: Random): number[] {
  const places = frames - targetLength + 1
  let first = 0
  return [0, 1, 2].map((part) => {
    // The first thirds are one longer where the places do not come out even.
    const size = Math.floor(places / 3) + (part < places % 3 ? 1 : 0)
    const start = size === 0 ? 0 : first + (random?.below(size) ?? 0)
    first += size
    return start
  })
}

/** As the configuration of an audio tower has it. */
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
