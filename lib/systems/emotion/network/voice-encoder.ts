import { existsSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { readClip, SPEECH_RATE } from '../../../audio/clip.js'
import { kaldiFbank, logMelSpectrogram } from '../../../audio/features.js'
import { writeFolderAtomically } from '../../../base/atomic-folder.js'
import { defined } from '../../../base/check.js'
import { CheckpointError, ConfigError } from '../../../base/errors.js'
import { type ChangesOf, settings, type ValuesOf } from '../../../base/settings.js'
import { writeJson } from '../../../files/json/json.js'
import { resolveModel } from '../../../hub/index.js'
import type { EmotionDialog } from '../../../kit/emotion/dialog.js'
import { lengthMask, padClips } from '../../../kit/pad.js'
import { WavLM } from '../../../models/encoders/wavlm.js'
import { readConfig } from '../../../models/pretrained.js'
import { WhisperEncoder } from '../../../models/whisper/whisper.js'
import { cat, type Device, type DType, ops, scope, type Tensor } from '../../../tensor/index.js'
import { videoAudio } from '../../../vision/video-audio.js'
import { audioOf, clipSource, type EmotionEncoder } from './encoders.js'

const VOICE = settings({
  /** Maximum length of a clip in seconds; the rest is cut. Default 30, which is Whisper's maximum. */
  maxSeconds: { type: 'number', min: 0.1, default: 30 },
  /** Mean over time, or mean and standard deviation concatenated. Default 'mean-std'. */
  pooling: { type: ['mean', 'mean-std'], default: 'mean-std' },
  /** States of the last layer, or the mean over all layers. Default 'mean'. */
  layers: { type: ['last', 'mean'], default: 'mean' },
})

/** Options of an {@link EmotionVoiceEncoder}. @interface */
export type EmotionVoiceEncoderOptions = ChangesOf<typeof VOICE.table>

abstract class Voice {
  readonly modality = 'audio'

  constructor(protected readonly maxSeconds: number) {}

  async source(dialog: EmotionDialog, place: number): Promise<string | undefined> {
    const found = audioOf(dialog.utterances[place] as EmotionDialog['utterances'][number])
    return found && clipSource(found.path, found.clip)
  }

  /** Return the audio as float32 [samples] at 16 kHz. */
  async read(dialog: EmotionDialog, place: number): Promise<Tensor | undefined> {
    const found = audioOf(dialog.utterances[place] as EmotionDialog['utterances'][number])
    if (found === undefined) return undefined
    const { start, end } = found.clip
    const maxSamples = Math.round(this.maxSeconds * SPEECH_RATE)
    const maxSeconds = this.maxSeconds + 0.1
    return scope(async () =>
      readClip(await videoAudio({ path: found.path, ...defined({ start, end }) }, { maxSeconds }), {
        ...{ longAudio: 'cut', mostSamples: maxSamples, leastSamples: LEAST, maxSeconds },
      }),
    )
  }
}

/** Minimum length of a clip in samples, 0.1 s: WavLM returns no frames for shorter ones. */
const LEAST = SPEECH_RATE / 10

/** Speech encoder with WavLM or Whisper's encoder. */
export class EmotionVoiceEncoder extends Voice implements EmotionEncoder<Tensor> {
  readonly #options: ValuesOf<typeof VOICE.table>
  #from: string | undefined

  constructor(
    readonly network: WavLM | WhisperEncoder,
    options: EmotionVoiceEncoderOptions = {},
  ) {
    const where = 'EmotionVoiceEncoder'
    const values = VOICE.read(where, options)
    const { maxSeconds } = values
    super(maxSeconds)
    this.#options = values
    if (network instanceof WhisperEncoder && maxSeconds > 30) {
      throw new ConfigError(
        `${where}: maxSeconds: expected at most 30 for a Whisper encoder, got ${maxSeconds}. Lower it, or use WavLM.`,
        { argument: 'maxSeconds' },
      )
    }
  }

  /** Load a WavLM or a Whisper encoder. @param from a folder, a repository of the hub, or a name that `voxtorch weights` lists */
  static async fromPretrained(
    from: string,
    options: EmotionVoiceEncoderOptions & { device?: Device; dtype?: DType } = {},
  ): Promise<EmotionVoiceEncoder> {
    const { device, dtype = 'float32', ...rest } = options
    const folder = await resolveModel(from, {})
    const saved = existsSync(join(folder, 'encoder.json')) ? await readConfig(folder, 'encoder.json') : {}
    const factory = defined({ device, dtype })
    const { modelType } = (existsSync(join(folder, 'config.json')) ? await readConfig(folder) : {}) as {
      modelType?: string
    }
    const network =
      modelType === 'wavlm'
        ? await WavLM.fromPretrained(folder, factory)
        : await WhisperEncoder.fromPretrained(folder, factory)
    const encoder = new EmotionVoiceEncoder(network, { ...VOICE.changesIn(saved), ...rest })
    encoder.#from = existsSync(from) ? resolve(from) : from
    return encoder
  }

  get reference() {
    return this.#from === undefined ? undefined : { encoder: 'voice', from: this.#from, ...this.#options }
  }

  get size(): number {
    const { hiddenSize, dModel } = this.network.config as { hiddenSize?: number; dModel?: number }
    const size = this.network instanceof WavLM ? (hiddenSize ?? 768) : (dModel ?? 512)
    return this.#options.pooling === 'mean' ? size : 2 * size
  }

  get recipe() {
    return { encoder: 'voice', network: this.network.constructor.name, ...this.#options }
  }

  async encode(clips: readonly Tensor[]): Promise<Tensor> {
    return scope(async () => {
      const { states, mask } = await this.#states(clips)
      return pooled(states, mask, this.#options.pooling)
    })
  }

  /** Return states [clips, frames, size] and their mask, bool [clips, frames]. */
  async #states(clips: readonly Tensor[]): Promise<{ states: Tensor; mask: Tensor }> {
    const { network } = this
    const { device, dtype } = network.parameters()[0] as Tensor
    const lengths = clips.map((clip) => clip.size(0))
    const outputHiddenStates = this.#options.layers === 'mean'
    if (network instanceof WavLM) {
      const { inputValues } = padClips(clips, { device })
      const attentionMask = lengthMask(lengths, inputValues.size(1), device)
      const output = await network.forward({
        ...{
          inputValues: inputValues.to({ dtype }),
          attentionMask: attentionMask.to({ dtype: 'int64' }),
          outputHiddenStates,
        },
      })
      const frames = output.lastHiddenState.size(1)
      const own = lengths.map((length) => Math.max(1, Math.floor((frames * length) / inputValues.size(1))))
      return { states: layersOf(output), mask: lengthMask(own, frames, device) }
    }
    const { numMelBins = 80 } = network.config as { numMelBins?: number }
    const steps = lengths.map((length) => Math.max(2, Math.floor(length / 160)))
    // Whisper's convolution halves the number of frames, so the width must be even.
    const width = 2 * Math.ceil(Math.max(...steps) / 2)
    // Compute each spectrogram with its own trailing silence; otherwise its last frames depend on the padding of the batch.
    const rows = await Promise.all(
      clips.map(async (clip, i) => {
        const own = steps[i] as number
        const length = 160 * (own + 4)
        const mel = await logMelSpectrogram(clip.to({ device: 'cpu' }), { nMels: numMelBins, length })
        return ops.constantPadNd(mel.narrow(1, 0, own), [0, width - own])
      }),
    )
    const inputFeatures = ops.stack(rows).to({ device, dtype })
    const attentionMask = lengthMask(steps, width, device)
    const output = await network.forward({
      ...{ inputFeatures, attentionMask: attentionMask.to({ dtype: 'int64' }), outputHiddenStates },
    })
    const states = layersOf(output)
    const mask =
      output.attentionMask ??
      lengthMask(
        lengths.map(() => states.size(1)),
        states.size(1),
        device,
      )
    return { states, mask }
  }

  async save(folder: string): Promise<void> {
    await writeFolderAtomically(folder, CheckpointError, async (temporary) => {
      await this.network.save(temporary)
      await writeJson(join(temporary, 'encoder.json'), { encoder: 'voice', ...this.#options })
    })
  }
}

const layersOf = ({
  lastHiddenState,
  hiddenStates,
}: {
  lastHiddenState: Tensor
  hiddenStates: readonly Tensor[]
}): Tensor => (hiddenStates.length === 0 ? lastHiddenState : ops.stack([...hiddenStates]).mean([0]))

/** Pool states over the frames that are not masked: [clips, frames, size] → [clips, size or 2 size]. */
function pooled(states: Tensor, mask: Tensor, pooling: 'mean' | 'mean-std'): Tensor {
  const weights = mask.to({ dtype: states.dtype }).unsqueeze(2)
  const count = weights.sum([1]).clampMin(1)
  const mean = states.mul(weights).sum([1]).div(count)
  if (pooling === 'mean') return mean
  const centered = states.sub(mean.unsqueeze(1)).mul(weights)
  return cat([mean, centered.square().sum([1]).div(count).add(1e-6).sqrt()], 1)
}

const FBANK = settings({
  /** Number of mel bands. Default 64. */
  nMels: { type: 'integer', min: 1, default: 64 },
  /** Maximum length of a clip in seconds. Default 10. */
  maxSeconds: { type: 'number', default: 10 },
})

/** Options of an {@link EmotionFbankEncoder}. @interface */
export type EmotionFbankEncoderOptions = ChangesOf<typeof FBANK.table>

/**
 * Audio features without a network. For each of Kaldi's log-mel bands and its differences between frames: mean, standard
 * deviation, and the distances of the 10th and 90th percentiles from the mean. Size 8 · nMels.
 */
export class EmotionFbankEncoder extends Voice implements EmotionEncoder<Tensor> {
  readonly network = null
  readonly #options: ValuesOf<typeof FBANK.table>

  constructor(options: EmotionFbankEncoderOptions = {}) {
    const values = FBANK.read('EmotionFbankEncoder', options)
    super(values.maxSeconds)
    this.#options = values
  }

  get reference() {
    return { encoder: 'fbank', ...this.#options }
  }

  get size(): number {
    return 8 * this.#options.nMels
  }

  get recipe() {
    return { encoder: 'fbank', ...this.#options }
  }

  async encode(clips: readonly Tensor[]): Promise<Tensor> {
    return scope(async () => ops.stack(await Promise.all(clips.map((clip) => this.#one(clip)))))
  }

  async #one(clip: Tensor): Promise<Tensor> {
    const { nMels } = this.#options
    const bands = await kaldiFbank(clip.to({ device: 'cpu' }), { nMels, window: 'hann' })
    const change = bands.slice(0, 1).sub(bands.slice(0, 0, -1))
    const facts = [bands, change].flatMap((rows) => {
      const mean = rows.mean([0])
      const sorted = rows.sort(0).values
      const at = (fraction: number) => sorted.select(0, Math.floor(fraction * (rows.size(0) - 1))).sub(mean)
      return [mean, rows.sub(mean).square().mean([0]).add(1e-6).sqrt(), at(0.1), at(0.9)]
    })
    return cat(facts, 0)
  }

  async save(folder: string): Promise<void> {
    await writeJson(join(folder, 'encoder.json'), { encoder: 'fbank', ...this.#options })
  }
}
