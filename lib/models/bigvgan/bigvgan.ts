import { misuse, requireOptions } from '../../base/check.js'
import { ConfigError } from '../../base/errors.js'
import { opAsync } from '../../native/call.js'
import { withActiveAdapters } from '../../nn/native-module.js'
import { noGrad, scope, Tensor } from '../../tensor/index.js'
import { networkClass } from '../network.js'
import { type BigVGANConfig, receptiveFrames, samplesPerFrame } from './config.js'
import { bigVGANLayout, convert, type LoadBigVGANOptions, loadBigVGAN } from './files.js'
import { renderInChunks, type VocoderStreamOptions } from './stream.js'

export interface BigVGANInputs {
  /**
   * Log-mel spectrogram [batch, numMels, frames], natural logarithms: for the one of 22 kHz and 80 bands what `melSpectrogram`
   * gives with {@link BIGVGAN_MEL}.
   */
  mel: Tensor
}

export interface BigVGANOutput {
  /** [batch, frames · samplesPerFrame], from -1 to 1. */
  waveform: Tensor
}

const forward = opAsync(bigVGANLayout.forward)

/**
 * BigVGAN (Lee et al. 2022, https://arxiv.org/abs/2206.04658; https://github.com/NVIDIA/BigVGAN), a vocoder: mel spectrograms
 * → samples. Runs in native code. Versions 1 and 2 are one network with different configurations.
 *
 * ```ts
 * const vocoder = await BigVGAN.fromPretrained('nvidia/bigvgan_22khz_80band', { weightNorm: false })
 * const { waveform } = await vocoder.forward({ mel })
 * ```
 *
 * Published sizes: `'bigvgan_22khz_80band'`, `'bigvgan_v2_22khz_80band_256x'`.
 */
export class BigVGAN extends networkClass<BigVGAN, BigVGANConfig, BigVGANInputs, BigVGANOutput>(bigVGANLayout) {
  /**
   * NVIDIA's folder, repository or generator file (with its config.json beside it), or what `save` wrote; in evaluation mode.
   * @throws CheckpointError for a file that is none, and with missing, unexpected and mis-shaped names
   */
  static override fromPretrained(from: string, options: LoadBigVGANOptions = {}): Promise<BigVGAN> {
    return loadBigVGAN(from, options, (config, factory) => new this(config, factory))
  }

  /** Samples that one frame becomes: 256 at 22 kHz. */
  get samplesPerFrame(): number {
    return samplesPerFrame(this.config)
  }

  /** How many frames before and behind it a frame's samples depend on. */
  get receptiveFrames(): number {
    return receptiveFrames(this.config)
  }

  /** In Hz. */
  get sampleRate(): number {
    return this.config.samplingRate ?? 22050
  }

  /**
   * Runs on the executor.
   * @throws ShapeError for another number of bands, or no frames
   */
  override async forward(inputs: BigVGANInputs): Promise<BigVGANOutput> {
    requireOptions('BigVGAN.forward', inputs, ['mel'])
    const { mel } = inputs
    if (!(mel instanceof Tensor)) throw misuse('BigVGAN.forward', 'mel', 'a tensor', mel)
    return { waveform: (await forward(withActiveAdapters(this), mel)) as Tensor }
  }

  /**
   * The same network with weight norm folded into the weights, which is quicker and cannot be trained on as before: NVIDIA's
   * `remove_weight_norm`, as a new network. Parameters are copies.
   * @throws ConfigError where it has no weight norm
   */
  folded(): BigVGAN {
    if (this.config.weightNorm === false) throw new ConfigError('BigVGAN.folded: weight norm is folded already', {})
    const some = this.parameters()[0] as Tensor
    const { device, dtype } = some
    const made = new BigVGAN({ ...this.config, weightNorm: false }, { device, dtype, initialize: false })
    scope(() =>
      noGrad(() => {
        const state = new Map(Object.entries(this.stateDict()))
        convert(state, false)
        made.loadStateDict(Object.fromEntries(state))
      }),
    )
    return made.train(this.training)
  }

  /**
   * Samples [n] of one clip as they come, from its whole mel spectrogram [numMels, frames] or from pieces of it in order. Each
   * chunk is rendered with `receptiveFrames` frames around it, so that together they are what `forward` gives for the whole;
   * a chunk is there once so many frames behind it are, or the last has come. The tensors are the caller's.
   * @throws ShapeError for another number of bands; the reason of `signal` where it is aborted
   */
  stream(
    mel: Tensor | Iterable<Tensor> | AsyncIterable<Tensor>,
    options: VocoderStreamOptions = {},
  ): AsyncGenerator<Tensor, void, undefined> {
    const renderer = {
      where: 'BigVGAN.stream',
      bands: this.config.numMels ?? 80,
      margin: this.receptiveFrames,
      samplesPerFrame: this.samplesPerFrame,
      render: async (piece: Tensor) => (await this.forward({ mel: piece })).waveform,
    }
    return renderInChunks(renderer, mel, options)
  }
}
