import { logMelSpectrogram } from '../../audio/features.js'
import { normalizeWav2Vec2 } from '../../audio/normalize.js'
import { argumentError, requireWhole } from '../../base/check.js'
import { ConfigError, DataError } from '../../base/errors.js'
import type { NativeModule } from '../../nn/native-module.js'
import { noGrad, ones, ops, scope, type Tensor, zeros } from '../../tensor/index.js'
import { keepForever } from '../../tensor/scope.js'
import { convolutionsOf, framesOf, type SpeechEncoder, type SpeechEncoderConfig } from '../encoders/speech-encoder.js'
import { Wav2Vec2 } from '../encoders/wav2vec2.js'
import { WavLM } from '../encoders/wavlm.js'
import { melBinsOf, windowOf } from '../whisper/config.js'
import { Whisper, WhisperEncoder } from '../whisper/whisper.js'

/** A network whose hidden states are quantized to units. */
export type UnitNetwork = Wav2Vec2 | WavLM | Whisper | WhisperEncoder

/** Resampling of clips to 16 kHz: librosa's default, soxr's HQ recipe. Units depend on the resampler. @internal */
export const UNIT_RESAMPLING = 'high'

/** Epsilon of torch's layer_norm over the clip, as in fairseq2; transformers uses 1e-7. */
const EPSILON = 1e-5
/** Samples per frame of Whisper's encoder. */
const WHISPER_STEP = 320
const MEL_STEP = 160

/** Whisper windows per batch. */
const WINDOWS_AT_ONCE = 8

/** A clip after preprocessing. In XLS-R's recipe, a clip of odd length has one more sample. @internal */
export interface PreparedClip {
  /** float32 [n] */
  wave: Tensor
  /** Number of its samples without the added one. */
  length: number
}

/** Computes the states of an encoder layer for clips, to be quantized to units. */
export class UnitEncoder {
  readonly network: UnitNetwork
  readonly layer: number
  readonly #block: NativeModule
  #passes: Promise<void> = Promise.resolve()

  /**
   * @param layer number of the layer whose output is used, from 1. It is the residual sum that the next layer reads, before any norm after
   * the last layer
   * @throws ConfigError for a layer that the network does not have
   */
  constructor(network: UnitNetwork, layer: number) {
    requireWhole('UnitEncoder', 'layer', layer, 1)
    if (![Wav2Vec2, WavLM, Whisper, WhisperEncoder].some((Network) => network instanceof Network)) {
      throw argumentError(
        'UnitEncoder',
        'encoder',
        'a folder, a file, a name, or a Wav2Vec2, WavLM, Whisper or WhisperEncoder',
        network,
      )
    }
    this.network = network
    this.layer = layer
    const path = network instanceof Whisper ? 'model.encoder.layers' : isWhisper(network) ? 'layers' : 'encoder.layers'
    const layers = network.get<NativeModule>(path).namedChildren()
    const found = layers[layer - 1]?.[1]
    if (!found) {
      throw new ConfigError(`UnitEncoder: layer: expected 1 to ${layers.length}, the number of layers, got ${layer}`, {
        layer,
        layers: layers.length,
      })
    }
    this.#block = found as NativeModule
  }

  /** Size of a state. */
  get dim(): number {
    const { config } = this.network
    return Number(isWhisper(this.network) ? (config.dModel ?? 384) : (config.hiddenSize ?? 768))
  }

  /** Whether clips of different lengths can share a batch without changing the results. */
  get takesPadding(): boolean {
    return isWhisper(this.network) || this.#speech.featExtractNorm === 'layer'
  }

  /** Minimum number of samples for one unit. */
  get leastSamples(): number {
    let low = 1
    while (this.unitsOf(low) === 0) low += 1
    return low
  }

  /** Return the number of units of a number of samples at 16 kHz. */
  unitsOf(samples: number): number {
    if (isWhisper(this.network)) return Math.floor(samples / WHISPER_STEP)
    return framesOf(this.#speech, samples + (this.#padsToEven ? samples % 2 : 0))
  }

  /** Samples between neighboring units, and samples that one unit depends on. @internal */
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

  /** Whether the network always processes windows. */
  get hasWindows(): boolean {
    return isWhisper(this.network)
  }

  get #speech(): SpeechEncoderConfig {
    return this.network.config as SpeechEncoderConfig
  }

  /** Whether odd clips are padded to an even length, as fairseq2 does in XLS-R's recipe. */
  get #padsToEven(): boolean {
    return this.network instanceof Wav2Vec2 && this.#speech.featExtractNorm === 'layer'
  }

  /**
   * Return the states of a batch of clips, each float32 [n] at 16 kHz: each floating point [units, dim] on the network's device, in the
   * caller's scope.
   * @throws DataError for a clip too short for a unit
   */
  async states(clips: readonly Tensor[]): Promise<Tensor[]> {
    for (const clip of clips) {
      if (this.unitsOf(clip.size(0)) > 0) continue
      throw new DataError(`expected a clip of at least ${this.leastSamples} samples, one unit, got ${clip.size(0)}`, {
        samples: clip.size(0),
      })
    }
    return noGrad(() => scope(async () => this.statesOf(await Promise.all(clips.map((clip) => this.prepared(clip))))))
  }

  /** Preprocess a clip: for XLS-R, pad it to an even length, and normalize it to mean 0 and variance 1. Uses the caller's scope. @internal */
  async prepared(clip: Tensor): Promise<PreparedClip> {
    const length = clip.size(0)
    if (isWhisper(this.network)) return { wave: clip, length }
    const even = this.#padsToEven && length % 2 === 1 ? ops.cat([clip, ones([1], { device: clip.device })]) : clip
    const wide = this.#speech.featExtractNorm === 'layer'
    return { wave: wide ? await normalizeWav2Vec2(even, { epsilon: EPSILON }) : even, length }
  }

  /** Return the states of preprocessed clips, or of windows of them. @internal */
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
      throw new ConfigError(
        'UnitEncoder.states: expected clips of the same length for this encoder, got different lengths',
      )
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

  /** Return Whisper's states, in windows of 30 seconds padded with silence. */
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
      const clipStates = (windows[i] as Tensor[]).map((_, part) =>
        states.select(0, row++).narrow(0, 0, Math.min(per, left - part * per)),
      )
      return ops.cat(clipStates)
    })
  }

  /** Return the layer's output in a pass, float32 [batch, frames, dim]. Passes run one after another, as they share the hook. */
  #run(pass: () => Promise<unknown>): Promise<Tensor> {
    const run = this.#passes.then(() => this.#captured(pass))
    this.#passes = run.then(
      () => {},
      () => {},
    )
    return run
  }

  async #captured(pass: () => Promise<unknown>): Promise<Tensor> {
    let captured: Tensor | undefined
    const remove = this.#block.registerForwardHook((_, __, output) => {
      captured = keepForever((output as Tensor).detach())
    })
    try {
      await pass()
    } finally {
      remove()
    }
    const states = (captured as unknown as Tensor).to({ dtype: 'float32' }).clone()
    ;(captured as unknown as Tensor).dispose()
    return states
  }

  dispose(): void {
    this.network.dispose()
  }
}

const isWhisper = (network: UnitNetwork): network is Whisper | WhisperEncoder =>
  network instanceof Whisper || network instanceof WhisperEncoder
