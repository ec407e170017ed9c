import { logMelSpectrogram } from '../../audio/features.js'
import { normalizeWav2Vec2 } from '../../audio/normalize.js'
import { misuse, requireWhole } from '../../base/check.js'
import { ConfigError, DataError } from '../../base/errors.js'
import type { NativeModule } from '../../nn/native-module.js'
import { noGrad, ones, ops, scope, type Tensor, zeros } from '../../tensor/index.js'
import { keepForever } from '../../tensor/scope.js'
import { convolutionsOf, framesOf, type SpeechEncoder, type SpeechEncoderConfig } from '../encoders/speech-encoder.js'
import { Wav2Vec2 } from '../encoders/wav2vec2.js'
import { WavLM } from '../encoders/wavlm.js'
import { melBinsOf, windowOf } from '../whisper/config.js'
import { Whisper, WhisperEncoder } from '../whisper/whisper.js'

/** A network whose states become units. */
export type UnitNetwork = Wav2Vec2 | WavLM | Whisper | WhisperEncoder

/** How clips of another rate come to 16 kHz: librosa's default, soxr's HQ recipe. Other resamplers make other units. @internal */
export const UNIT_RESAMPLING = 'high'

/** torch's layer_norm over the clip, as fairseq2 has it; transformers adds 1e-7. */
const EPSILON = 1e-5
/** Samples from one frame of Whisper's encoder to the next. */
const WHISPER_STEP = 320
const MEL_STEP = 160

/** Windows of Whisper's that it hears in one pass. */
const WINDOWS_AT_ONCE = 8

/** A clip as an encoder reads it; of XLS-R's recipe with the sample that makes it even. @internal */
export interface PreparedClip {
  /** float32 [n] */
  wave: Tensor
  /** Its samples without that one. */
  length: number
}

/** What a layer of an encoder makes of clips, to be assigned to units. */
export class UnitEncoder {
  readonly network: UnitNetwork
  readonly layer: number
  readonly #block: NativeModule
  #passes: Promise<void> = Promise.resolve()

  /**
   * @param layer whose states are taken: 1 is the first layer's output. It is the sum that the next layer reads, before any
   * norm behind the last
   * @throws ConfigError for a layer that the network has not
   */
  constructor(network: UnitNetwork, layer: number) {
    requireWhole('UnitEncoder', 'layer', layer, 1)
    if (![Wav2Vec2, WavLM, Whisper, WhisperEncoder].some((Network) => network instanceof Network)) {
      throw misuse('UnitEncoder', 'encoder', 'a folder, a file, a name, or a Wav2Vec2, WavLM, Whisper or WhisperEncoder', network) // biome-ignore format: one line
    }
    this.network = network
    this.layer = layer
    const path = network instanceof Whisper ? 'model.encoder.layers' : isWhisper(network) ? 'layers' : 'encoder.layers'
    const layers = network.get<NativeModule>(path).namedChildren()
    const found = layers[layer - 1]?.[1]
    if (!found) {
      throw new ConfigError(`UnitEncoder: layer ${layer} of ${layers.length} of the encoder`, {
        layer,
        layers: layers.length,
      })
    }
    this.#block = found as NativeModule
  }

  /** Values of a frame. */
  get dim(): number {
    const { config } = this.network
    return Number(isWhisper(this.network) ? (config.dModel ?? 384) : (config.hiddenSize ?? 768))
  }

  /** Whether clips of unlike length can stand in one batch and give what each gives alone. */
  get takesPadding(): boolean {
    return isWhisper(this.network) || this.#speech.featExtractNorm === 'layer'
  }

  /** The fewest samples that give a unit. */
  get leastSamples(): number {
    let low = 1
    while (this.unitsOf(low) === 0) low += 1
    return low
  }

  /** How many units so many samples at 16 kHz become. */
  unitsOf(samples: number): number {
    if (isWhisper(this.network)) return Math.floor(samples / WHISPER_STEP)
    return framesOf(this.#speech, samples + (this.#evens ? samples % 2 : 0))
  }

  /** Samples from one unit to the next, and how many one is made of. @internal */
  get step(): { hop: number; width: number } {
    if (isWhisper(this.network)) return { hop: WHISPER_STEP, width: WHISPER_STEP }
    const convolutions = convolutionsOf(this.#speech)
    let [hop, width] = [1, 1]
    for (const { kernel, stride } of convolutions) {
      width += (kernel - 1) * hop
      hop *= stride
    }
    return { hop, width }
  }

  /** Whether it hears windows of its own in any case. */
  get hasWindows(): boolean {
    return isWhisper(this.network)
  }

  get #speech(): SpeechEncoderConfig {
    return this.network.config as SpeechEncoderConfig
  }

  /** fairseq2 fills odd clips up to an even length, for XLS-R's recipe. */
  get #evens(): boolean {
    return this.network instanceof Wav2Vec2 && this.#speech.featExtractNorm === 'layer'
  }

  /**
   * The states of clips, each float32 [n] of 16 kHz, as one batch: each float [units, dim] on the network's device, in a
   * scope of the caller's.
   * @throws DataError for a clip too short for a unit
   */
  async states(clips: readonly Tensor[]): Promise<Tensor[]> {
    for (const clip of clips) {
      if (this.unitsOf(clip.size(0)) > 0) continue
      throw new DataError(
        `a clip of ${clip.size(0)} samples is too short for a unit, which takes ${this.leastSamples}`,
        {
          samples: clip.size(0),
        },
      )
    }
    return noGrad(() => scope(async () => this.statesOf(await Promise.all(clips.map((clip) => this.prepared(clip))))))
  }

  /** A clip as it is read: of XLS-R even, and with mean 0 and variance 1 as a whole. In a scope of the caller's. @internal */
  async prepared(clip: Tensor): Promise<PreparedClip> {
    const length = clip.size(0)
    if (isWhisper(this.network)) return { wave: clip, length }
    const even = this.#evens && length % 2 === 1 ? ops.cat([clip, ones([1], { device: clip.device })]) : clip
    const wide = this.#speech.featExtractNorm === 'layer'
    return { wave: wide ? await normalizeWav2Vec2(even, { epsilon: EPSILON }) : even, length }
  }

  /** The states of clips that are prepared, or of windows that were cut out of such. @internal */
  async statesOf(clips: readonly PreparedClip[]): Promise<Tensor[]> {
    const { network } = this
    return noGrad(() =>
      scope(() =>
        isWhisper(network)
          ? this.#whisperStates(
              network,
              clips.map(({ wave }) => wave),
            )
          : this.#speechStates(network, clips),
      ),
    )
  }

  async #speechStates(network: Wav2Vec2 | WavLM, clips: readonly PreparedClip[]): Promise<Tensor[]> {
    const device = (network.parameters()[0] as Tensor).device
    const width = Math.max(...clips.map(({ wave }) => wave.size(0)))
    if (!this.takesPadding && clips.some(({ wave }) => wave.size(0) !== width)) {
      throw new ConfigError('UnitEncoder.states: this encoder takes clips of one length together', {})
    }
    const inputValues = zeros([clips.length, width], { dtype: 'float32', device: 'cpu' })
    const lengths = clips.map(({ length }) => length)
    const attentionMask = lengths.every((length) => length === width)
      ? null
      : zeros([clips.length, width], { dtype: 'bool', device: 'cpu' })
    for (const [i, { wave, length }] of clips.entries()) {
      inputValues.select(0, i).narrow(0, 0, wave.size(0)).copy_(wave)
      attentionMask?.select(0, i).narrow(0, 0, length).fill_(1)
    }
    const states = await this.#run(() =>
      (network as SpeechEncoder<SpeechEncoderConfig>).forward({
        inputValues: inputValues.to({ device }),
        attentionMask,
      }),
    )
    return lengths.map((length, i) => states.select(0, i).narrow(0, 0, this.unitsOf(length)).clone())
  }

  /** In windows of 30 seconds, each with silence behind it where it is shorter, as Whisper hears. */
  async #whisperStates(network: Whisper | WhisperEncoder, clips: readonly Tensor[]): Promise<Tensor[]> {
    const window = windowOf(network.config) * MEL_STEP
    const device = (network.parameters()[0] as Tensor).device
    const windows = clips.map((clip) =>
      Array.from({ length: Math.max(1, Math.ceil(clip.size(0) / window)) }, (_, i) =>
        clip.narrow(0, i * window, Math.min(window, clip.size(0) - i * window)),
      ).filter((part, i) => i === 0 || part.size(0) >= WHISPER_STEP),
    )
    const all = windows.flat()
    const parts: Tensor[] = []
    for (let from = 0; from < all.length; from += WINDOWS_AT_ONCE) {
      const part = await scope(async () => {
        const features = await Promise.all(
          all.slice(from, from + WINDOWS_AT_ONCE).map((part) => {
            const silence = window - part.size(0)
            const whole = silence === 0 ? part : ops.cat([part, part.newZeros([silence])])
            return logMelSpectrogram(whole, { nMels: melBinsOf(network.config), length: null })
          }),
        )
        const inputFeatures = ops.stack(features).to({ device })
        return this.#run(() =>
          network instanceof Whisper ? network.encode({ inputFeatures }) : network.forward({ inputFeatures }),
        )
      })
      parts.push(part)
    }
    const states = parts.length === 1 ? (parts[0] as Tensor) : ops.cat(parts)
    let row = 0
    return clips.map((clip, i) => {
      const left = this.unitsOf(clip.size(0))
      const per = window / WHISPER_STEP
      const own = (windows[i] as Tensor[]).map((_, part) =>
        states.select(0, row++).narrow(0, 0, Math.min(per, left - part * per)),
      )
      return ops.cat(own)
    })
  }

  /** What the layer makes in a pass, float32 [batch, frames, dim]. Passes wait for each other: the hook is of one. */
  #run(pass: () => Promise<unknown>): Promise<Tensor> {
    const run = this.#passes.then(() => this.#watched(pass))
    this.#passes = run.then(
      () => {},
      () => {},
    )
    return run
  }

  async #watched(pass: () => Promise<unknown>): Promise<Tensor> {
    let seen: Tensor | undefined
    const remove = this.#block.registerForwardHook((_, __, output) => {
      seen = keepForever((output as Tensor).detach())
    })
    try {
      await pass()
    } finally {
      remove()
    }
    const states = (seen as unknown as Tensor).to({ dtype: 'float32' }).clone()
    ;(seen as unknown as Tensor).dispose()
    return states
  }

  dispose(): void {
    this.network.dispose()
  }
}

const isWhisper = (network: UnitNetwork): network is Whisper | WhisperEncoder =>
  network instanceof Whisper || network instanceof WhisperEncoder
