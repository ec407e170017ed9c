import { isAbsolute, join } from 'node:path'
import { openClip } from '../../../audio/clip.js'
import { melSpectrogram } from '../../../audio/features.js'
import { misuse, requireObject, requireOptions, requireString, requireWhole } from '../../../base/check.js'
import { DataError } from '../../../base/errors.js'
import { requireForm } from '../../../base/form.js'
import type { Dataset } from '../../../data/dataset.js'
import { Random } from '../../../data/random.js'
import { BIGVGAN_MEL } from '../../../models/bigvgan/config.js'
import { MEL } from '../../../models/unit-voicebox/config.js'
import { Generator, noGrad, ops, randn, scope, type Tensor, tensor } from '../../../tensor/index.js'
import { frameUnits } from '../data/frames.js'
import type { VoiceboxRecord } from './filelist.js'
import { type VoiceboxRecipe, voiceboxRecipe } from './recipe.js'

/** A stretch of a clip of F frames as it is learnt this time. */
export interface VoiceboxSample {
  /** For each frame its unit; `nTokens` stands for none. */
  units: Int32Array
  /** Normalised log-mel spectrogram [bands, F], row by row. */
  mel: Float32Array
  bands: number
  /** The frames that the network sees: from the first to before the second. */
  visible: [number, number]
  /** Where on its path from noise (0) to speech (1) it is. */
  time: number
  /** Of the noise. */
  noiseSeed: number
}

/** B clips, of which the longest has F frames: what `UnitVoicebox.loss` takes. */
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
  /** How many frames there is a loss of. */
  asked: number
}

/** What of a recipe the samples depend on. */
export type VoiceboxDraws = Pick<
  VoiceboxRecipe,
  'windowFrames' | 'dropShare' | 'contextShare' | 'leastMasked' | 'mostMasked' | 'seed'
>

export interface VoiceboxDatasetOptions {
  /** Of the Voicebox. Default 10000. */
  nTokens?: number
  /** Bands of the mel spectrogram. Default 80. */
  nFeats?: number
  /** Folder that relative paths begin in. Default: the working directory. */
  audioRoot?: string
  /** Of the recipe, what is drawn. Default: as published. */
  draws?: Partial<VoiceboxDraws>
}

/** Samples by which clip and units may differ: a second. More, and the units are another clip's. */
const MOST_APART = 22_050

/**
 * Records as samples. Clips are read when a batch needs them: at 22.05 kHz, silence behind them or cut to as many frames as their
 * units have. What is drawn depends on seed, epoch and index alone, so that a training that goes on sees what it would have seen.
 */
export class VoiceboxDataset implements Dataset<VoiceboxSample> {
  readonly #records: Dataset<VoiceboxRecord>
  readonly #options: Required<Omit<VoiceboxDatasetOptions, 'draws' | 'audioRoot'>> & { audioRoot: string | undefined }
  readonly #draws: VoiceboxDraws

  constructor(records: Dataset<VoiceboxRecord>, options: VoiceboxDatasetOptions = {}) {
    const where = 'VoiceboxDataset'
    requireObject(where, 'records', records)
    requireOptions(where, options, ['nTokens', 'nFeats', 'audioRoot', 'draws'])
    const { nTokens = 10_000, nFeats = 80, audioRoot, draws = {} } = options
    requireWhole(where, 'nTokens', nTokens, 1)
    requireWhole(where, 'nFeats', nFeats, 1)
    if (audioRoot !== undefined) requireString(where, 'audioRoot', audioRoot)
    this.#records = records
    this.#options = { nTokens, nFeats, audioRoot }
    this.#draws = voiceboxRecipe(draws)
  }

  get length(): number {
    return this.#records.length
  }

  /** @throws DataError naming line and file of a clip that cannot be read, or that its units do not belong to */
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

  /** Normalised, [bands, frames of the units] row by row. */
  #melOf({ audio, units, place }: VoiceboxRecord, frames: Int32Array): Promise<Float32Array> {
    const { nTokens, nFeats, audioRoot } = this.#options
    const path = audioRoot === undefined || isAbsolute(audio) ? audio : join(audioRoot, audio)
    const subject = place === undefined ? path : `${place}: ${path}`
    const fail = (what: string, fields: object = {}) => new DataError(`${subject} ${what}`, { file: path, ...fields })
    if (frames.length === 0) throw fail('has no units')
    const wrong = units.find((unit) => unit >= nTokens || unit < 0)
    if (wrong !== undefined) throw fail(`has the unit ${wrong}, and the Voicebox has ${nTokens}`, { unit: wrong })
    const { sampleRate, hopLength } = BIGVGAN_MEL
    return noGrad(() =>
      scope(async () => {
        const samples = await clipOf(path, subject)
        const wanted = hopLength * frames.length
        const lacks = wanted - samples.size(0)
        if (Math.abs(lacks) > MOST_APART) {
          const seconds = (count: number) => (count / sampleRate).toFixed(1)
          throw fail(`lasts ${seconds(samples.size(0))} s, and its units ${seconds(wanted)}: they are another clip's`)
        }
        const fitted = lacks > 0 ? ops.constantPadNd(samples, [0, lacks]) : samples.narrow(0, 0, wanted)
        const { sampleRate: _, ...recipe } = BIGVGAN_MEL
        const mel = await melSpectrogram(fitted.contiguous(), sampleRate, { ...recipe, nMels: nFeats })
        return (await mel.sub(MEL.mean).div(MEL.std).flatten().data()) as Float32Array
      }),
    )
  }
}

/** What is drawn for a clip of so many frames: which of them, whether without units, what of them is seen. @internal */
export function drawSample(draws: VoiceboxDraws, frames: number, index: number, epoch: number) {
  const { windowFrames, dropShare, contextShare, leastMasked, mostMasked, seed } = draws
  const random = new Random(seed, epoch * 2 ** 32 + index)
  const count = Math.min(frames, windowFrames)
  const from = frames > count ? random.below(frames - count) : 0
  const dropped = random.float() < dropShare
  let visible: [number, number] = [0, 0]
  if (!dropped && random.float() < contextShare) {
    const masked = leastMasked + (mostMasked - leastMasked) * random.float()
    const seen = Math.min(count - 1, Math.floor(count * (1 - masked)))
    const first = random.below(count - seen + 1)
    visible = [first, first + seen]
  }
  const time = random.float()
  return { from, count, dropped, visible, time, noiseSeed: random.uint32() * 2 ** 20 + (random.uint32() >>> 12) }
}

/** @throws DataError that says where the clip is asked for */
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

/** Samples as a batch, as long as its longest: what is padded has no part in anything. */
export function voiceboxCollate(nTokens: number): (samples: readonly VoiceboxSample[]) => VoiceboxBatch {
  const where = 'voiceboxCollate'
  requireWhole(where, 'nTokens', nTokens, 1)
  return (samples) => {
    requireForm(where, 'samples', samples, [SAMPLE])
    for (const [i, { units, mel, bands, visible }] of samples.entries()) {
      const [from, to] = visible
      const fits = bands === samples[0]?.bands && mel.length === bands * units.length
      if (fits && 0 <= from && from <= to && to <= units.length) continue
      throw misuse(where, `samples[${i}]`, 'what VoiceboxDataset gives', samples[i])
    }
    const lengths = samples.map(({ units }) => units.length)
    const [count, frames, bands] = [samples.length, Math.max(...lengths), samples[0]?.bands ?? 0]
    const units = new BigInt64Array(count * frames).fill(BigInt(nTokens))
    const mel = new Float32Array(count * bands * frames)
    const visible = new Uint8Array(count * frames)
    let asked = 0
    for (const [row, sample] of samples.entries()) {
      const own = lengths[row] as number
      for (let i = 0; i < own; i++) units[row * frames + i] = BigInt(sample.units[i] as number)
      for (let band = 0; band < bands; band++) {
        mel.set(sample.mel.subarray(band * own, (band + 1) * own), (row * bands + band) * frames)
      }
      visible.fill(1, row * frames + sample.visible[0], row * frames + sample.visible[1])
      asked += own - (sample.visible[1] - sample.visible[0])
    }
    const shape = [count, bands, frames]
    const words = tensor(units, { shape: [count, frames] })
    return {
      units: words,
      mel: tensor(mel, { shape }),
      // Of each clip alone, so that it does not depend on what stands beside it, and drawn on the CPU, so that it is the same everywhere.
      noise: scope(() => {
        const drawn = samples.map(({ noiseSeed }, row) => {
          const generator = new Generator({ seed: noiseSeed })
          const own = randn([bands, lengths[row] as number], { generator, device: 'cpu' })
          generator.dispose()
          return ops.constantPadNd(own, [0, frames - (lengths[row] as number)])
        })
        return ops.stack(drawn).to(words.device)
      }),
      visible: tensor(visible, { shape: [count, frames], dtype: 'bool' }),
      time: tensor(Float32Array.from(samples, ({ time }) => time)),
      lengths,
      asked,
    }
  }
}
