import { isAbsolute, join } from 'node:path'
import { openClip } from '../../../audio/clip.js'
import { melSpectrogram } from '../../../audio/features.js'
import { argumentError, requireObject, requireWhole } from '../../../base/check.js'
import { DataError } from '../../../base/errors.js'
import { requireForm } from '../../../base/form.js'
import { type ChangesOf, settings, unchecked, type ValuesOf } from '../../../base/settings.js'
import type { Dataset } from '../../../data/dataset.js'
import { Random } from '../../../data/random.js'
import { BIGVGAN_MEL } from '../../../models/bigvgan/config.js'
import { MEL } from '../../../models/unit-voicebox/config.js'
import { Generator, noGrad, ops, randn, scope, type Tensor, tensor } from '../../../tensor/index.js'
import { frameUnits } from '../data/frames.js'
import type { VoiceboxRecord } from './filelist.js'
import { type VoiceboxRecipe, voiceboxRecipe } from './recipe.js'

/** A window of a clip, with F frames and the random draws of this epoch. */
export interface VoiceboxSample {
  /** Unit of each frame; `nTokens` is the null unit. */
  units: Int32Array
  /** Normalized log-mel spectrogram [bands, F], row-major. */
  mel: Float32Array
  bands: number
  /** Frames that the network sees: from the first to before the second. */
  visible: [number, number]
  /** Flow time, from 0 (noise) to 1 (speech). */
  time: number
  /** Seed of the noise. */
  noiseSeed: number
}

/** Inputs of `UnitVoicebox.loss`: B clips, the longest with F frames. */
export interface VoiceboxBatch {
  /** int64 [B, F] */
  units: Tensor
  /** float32 [B, bands, F], both. */
  mel: Tensor
  noise: Tensor
  /** bool [B, F] */
  visible: Tensor
  /** float32 [B] */
  time: Tensor
  lengths: number[]
  /** Number of frames that contribute to the loss. */
  asked: number
}

/** Recipe entries that the samples depend on. */
export type VoiceboxDraws = Pick<
  VoiceboxRecipe,
  'windowFrames' | 'dropShare' | 'contextShare' | 'leastMasked' | 'mostMasked' | 'seed'
>

const SETTINGS = settings({
  /** Number of the Voicebox's units. Default 10000. */
  nTokens: { type: 'integer', min: 1, default: 10_000 },
  /** Bands of the mel spectrogram. Default 80. */
  nFeats: { type: 'integer', min: 1, default: 80 },
  /** Folder that relative paths are relative to. Default: the working directory. */
  audioRoot: { type: 'string' },
  /** Changes to the published recipe. Default: none. */
  draws: { type: unchecked<Partial<VoiceboxDraws>>() },
})

/** Options of a {@link VoiceboxDataset}. @interface */
export type VoiceboxDatasetOptions = ChangesOf<typeof SETTINGS.table>

/** Maximum difference in samples between a clip and its units: one second. With more, the units are those of another clip. */
const MAX_DIFFERENCE = 22_050

/**
 * Samples of file list records. Clips are read when a batch needs them: at 22.05 kHz, padded with silence or cut to the length of their
 * units. Random draws depend only on seed, epoch and index, so a resumed training gets the same samples.
 */
export class VoiceboxDataset implements Dataset<VoiceboxSample> {
  readonly #records: Dataset<VoiceboxRecord>
  readonly #options: ValuesOf<typeof SETTINGS.table>
  readonly #draws: VoiceboxDraws

  constructor(records: Dataset<VoiceboxRecord>, options: VoiceboxDatasetOptions = {}) {
    const where = 'VoiceboxDataset'
    requireObject(where, 'records', records)
    this.#records = records
    this.#options = SETTINGS.read(where, options)
    this.#draws = voiceboxRecipe(this.#options.draws)
  }

  get length(): number {
    return this.#records.length
  }

  /** @throws DataError naming line and file of a clip that cannot be read, or does not match its units */
  async get(index: number, epoch = 0): Promise<VoiceboxSample> {
    const record = await this.#records.get(index, epoch)
    requireObject('VoiceboxDataset', 'a record', record)
    const { nTokens, nFeats: bands } = this.#options
    const all = frameUnits(record.units)
    const whole = await this.#melOf(record, all)
    const { from, count, dropped, ...drawn } = drawSample(this.#draws, all.length, index, epoch)
    const mel = new Float32Array(bands * count)
    for (let band = 0; band < bands; band++) {
      const start = band * all.length + from
      mel.set(whole.subarray(start, start + count), band * count)
    }
    const units = dropped ? new Int32Array(count).fill(nTokens) : all.slice(from, from + count)
    return { units, mel, bands, ...drawn }
  }

  /** Return the normalized spectrogram, [bands, frames of the units], row-major. */
  #melOf({ audio, units, place }: VoiceboxRecord, frames: Int32Array): Promise<Float32Array> {
    const { nTokens, nFeats, audioRoot } = this.#options
    const path = audioRoot === undefined || isAbsolute(audio) ? audio : join(audioRoot, audio)
    const subject = place === undefined ? path : `${place}: ${path}`
    const fail = (what: string, fields: object = {}) =>
      new DataError(`${subject}: expected ${what}`, { file: path, ...fields })
    if (frames.length === 0) throw fail('units, got none')
    const wrong = units.find((unit) => unit >= nTokens || unit < 0)
    if (wrong !== undefined) {
      throw fail(`units from 0 to ${nTokens - 1}, those of the Voicebox, got ${wrong}`, { unit: wrong })
    }
    const { sampleRate, hopLength } = BIGVGAN_MEL
    return noGrad(() =>
      scope(async () => {
        const samples = await clipOf(path, subject)
        const targetSamples = hopLength * frames.length
        const lacks = targetSamples - samples.size(0)
        if (Math.abs(lacks) > MAX_DIFFERENCE) {
          const seconds = (count: number) => (count / sampleRate).toFixed(1)
          throw fail(
            `a clip of about ${seconds(targetSamples)} s, the length of its units, got ${seconds(samples.size(0))} s`,
          )
        }
        const fitted = lacks > 0 ? ops.constantPadNd(samples, [0, lacks]) : samples.narrow(0, 0, targetSamples)
        const { sampleRate: _, ...recipe } = BIGVGAN_MEL
        const mel = await melSpectrogram(fitted.contiguous(), sampleRate, { ...recipe, nMels: nFeats })
        return (await mel.sub(MEL.mean).div(MEL.std).flatten().data()) as Float32Array
      }),
    )
  }
}

/** Draw the window of a clip, whether its units are dropped, and its visible frames. @internal */
export function drawSample(draws: VoiceboxDraws, frames: number, index: number, epoch: number) {
  const { windowFrames, dropShare, contextShare, leastMasked, mostMasked, seed } = draws
  const random = new Random(seed, epoch * 2 ** 32 + index)
  const count = Math.min(frames, windowFrames)
  const from = frames > count ? random.below(frames - count) : 0
  const dropped = random.float() < dropShare
  let visible: [number, number] = [0, 0]
  if (!dropped && random.float() < contextShare) {
    const masked = leastMasked + (mostMasked - leastMasked) * random.float()
    const visibleCount = Math.min(count - 1, Math.floor(count * (1 - masked)))
    const first = random.below(count - visibleCount + 1)
    visible = [first, first + visibleCount]
  }
  const time = random.float()
  return { from, count, dropped, visible, time, noiseSeed: random.uint32() * 2 ** 20 + (random.uint32() >>> 12) }
}

/** Read a clip. @throws DataError naming the record of the clip */
async function clipOf(path: string, subject: string): Promise<Tensor> {
  try {
    const { sampleRate } = BIGVGAN_MEL
    return (await openClip({ where: 'VoiceboxDataset', subject }, path, { sampleRate })).samples
  } catch (cause) {
    if (!(cause instanceof DataError) || cause.message.startsWith(subject)) throw cause
    throw new DataError(`${subject}: ${cause.message.replace(`${path}: `, '')}`, { file: path, cause })
  }
}

const SAMPLE = {
  units: Int32Array,
  mel: Float32Array,
  bands: 'number',
  visible: ['number'],
  time: 'number',
  noiseSeed: 'number',
} as const

/** Return a function that collates samples, padded to the longest. Padding has no effect on the loss. */
export function voiceboxCollate(nTokens: number): (samples: readonly VoiceboxSample[]) => VoiceboxBatch {
  const where = 'voiceboxCollate'
  requireWhole(where, 'nTokens', nTokens, 1)
  return (samples) => {
    requireForm(where, 'samples', samples, [SAMPLE])
    for (const [i, { units, mel, bands, visible }] of samples.entries()) {
      const [from, to] = visible
      const fits = bands === samples[0]?.bands && mel.length === bands * units.length
      if (fits && 0 <= from && from <= to && to <= units.length) continue
      throw argumentError(where, `samples[${i}]`, 'a sample of a VoiceboxDataset', samples[i])
    }
    const lengths = samples.map(({ units }) => units.length)
    const [count, frames, bands] = [samples.length, Math.max(...lengths), samples[0]?.bands ?? 0]
    const units = new BigInt64Array(count * frames).fill(BigInt(nTokens))
    const mel = new Float32Array(count * bands * frames)
    const visible = new Uint8Array(count * frames)
    let maskedFrames = 0
    for (const [row, sample] of samples.entries()) {
      const frameCount = lengths[row] as number
      for (let i = 0; i < frameCount; i++) units[row * frames + i] = BigInt(sample.units[i] as number)
      for (let band = 0; band < bands; band++) {
        mel.set(sample.mel.subarray(band * frameCount, (band + 1) * frameCount), (row * bands + band) * frames)
      }
      visible.fill(1, row * frames + sample.visible[0], row * frames + sample.visible[1])
      maskedFrames += frameCount - (sample.visible[1] - sample.visible[0])
    }
    const shape = [count, bands, frames]
    const unitTensor = tensor(units, { shape: [count, frames] })
    return {
      units: unitTensor,
      mel: tensor(mel, { shape }),
      // Drawn per clip, so that it does not depend on the batch, and on the CPU, so that it is the same on all devices.
      noise: scope(() => {
        const drawn = samples.map(({ noiseSeed }, row) => {
          const generator = new Generator({ seed: noiseSeed })
          const clipNoise = randn([bands, lengths[row] as number], { generator, device: 'cpu' })
          generator.dispose()
          return ops.constantPadNd(clipNoise, [0, frames - (lengths[row] as number)])
        })
        return ops.stack(drawn).to(unitTensor.device)
      }),
      visible: tensor(visible, { shape: [count, frames], dtype: 'bool' }),
      time: tensor(Float32Array.from(samples, ({ time }) => time)),
      lengths,
      asked: maskedFrames,
    }
  }
}
