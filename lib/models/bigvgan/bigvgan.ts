import { argumentError, requireOptions } from '../../base/check.js'
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
   * Log-mel spectrogram [batch, numMels, frames], natural logarithm. For 22 kHz and 80 bands, use `melSpectrogram` with
   * {@link BIGVGAN_MEL}.
   */
  mel: Tensor
}

export interface BigVGANOutput {
  /** [batch, frames · samplesPerFrame], from -1 to 1. */
  waveform: Tensor
}

const forward = opAsync(bigVGANLayout.forward)

/**
 * BigVGAN (Lee et al. 2022, https://arxiv.org/abs/2206.04658; https://github.com/NVIDIA/BigVGAN), a vocoder from mel spectrograms to
 * samples. Runs in native code. Versions 1 and 2 are one network with different configurations.
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
   * Load NVIDIA's folder, repository or generator file (with its config.json in the same folder), or a folder that `save` wrote; in
   * evaluation mode.
   * @throws CheckpointError for another file, and for missing, unexpected and mis-shaped names
   */
  static override fromPretrained(from: string, options: LoadBigVGANOptions = {}): Promise<BigVGAN> {
    return loadBigVGAN(from, options, (config, factory) => new this(config, factory))
  }

  /** Samples per frame: 256 at 22 kHz. */
  get samplesPerFrame(): number {
    return samplesPerFrame(this.config)
  }

  /** Number of frames before and after a frame that its samples depend on. */
  get receptiveFrames(): number {
    return receptiveFrames(this.config)
  }

  /** Sample rate in Hz. */
  get sampleRate(): number {
    return this.config.samplingRate ?? 22050
  }

  /**
   * Generate samples. Runs on the executor.
   * @throws ShapeError for another number of bands, or no frames
   */
  override async forward(inputs: BigVGANInputs): Promise<BigVGANOutput> {
    requireOptions('BigVGAN.forward', inputs, ['mel'])
    const { mel } = inputs
    if (!(mel instanceof Tensor)) throw argumentError('BigVGAN.forward', 'mel', 'a tensor', mel)
    return { waveform: (await forward(withActiveAdapters(this), mel)) as Tensor }
  }

  /**
   * Return a copy of the network with weight norm folded into the weights, like NVIDIA's `remove_weight_norm`. It is faster, and cannot be
   * trained with weight norm.
   * @throws ConfigError if it has no weight norm
   */
  folded(): BigVGAN {
    if (this.config.weightNorm === false) {
      throw new ConfigError('BigVGAN.folded: expected a network with weight norm, got one without.')
    }
    const some = this.parameters()[0] as Tensor
    const { device, dtype } = some
    const folded = new BigVGAN({ ...this.config, weightNorm: false }, { device, dtype, initialize: false })
    scope(() =>
      noGrad(() => {
        const state = new Map(Object.entries(this.stateDict()))
        convert(state, false)
        folded.loadStateDict(Object.fromEntries(state))
      }),
    )
    return folded.train(this.training)
  }

  /**
   * Stream the samples [n] of one clip, from its mel spectrogram [numMels, frames] or from pieces of it in order. Each chunk is computed
   * with `receptiveFrames` frames of context, so all chunks together equal `forward` on the whole. A chunk is available once the frames
   * after it are. The caller disposes the tensors.
   * @throws ShapeError for another number of bands; the reason of `signal` if it is aborted
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
