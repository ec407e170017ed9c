import { argumentError, listOf, requireOptions } from '../../base/check.js'
import { ShapeError } from '../../base/errors.js'
import { opAsync } from '../../native/call.js'
import { withActiveAdapters } from '../../nn/native-module.js'
import { arange, ops, scope, Tensor, tensor } from '../../tensor/index.js'
import { networkClass } from '../network.js'
import { MEL, type UnitVoiceboxConfig, unitVoiceboxKeys, unitVoiceboxSizes } from './config.js'
import { generate, type UnitVoiceboxGenerateInputs } from './sampling.js'

export interface UnitVoiceboxInputs {
  /** int64 [batch, frames], from 0 to nTokens; nTokens is the null unit. */
  units: Tensor
  /** The noisy mel spectrogram, normalized, [batch, nFeats, frames]. */
  noisy: Tensor
  /** The known part of the mel spectrogram, zeros elsewhere, [batch, nFeats, frames]. */
  condition: Tensor
  /** Flow time, from 0 (noise) to 1, floating point [batch]. */
  time: Tensor
  /** Number of frames of each row; outputs at padding are 0. Default: all. */
  lengths?: readonly number[]
}

export interface UnitVoiceboxOutput {
  /** [batch, nFeats, frames] */
  velocity: Tensor
}

export interface UnitVoiceboxLossInputs {
  /** int64 [batch, frames]; nTokens is the null unit. */
  units: Tensor
  /** The mel spectrogram, normalized, [batch, nFeats, frames]. */
  mel: Tensor
  /** Frames that the network sees, bool [batch, frames]; the loss is over the others. Default: none. */
  visible?: Tensor
  /** Number of frames of each row. Default: all. */
  lengths?: readonly number[]
  /** Flow time of each row, [batch], from 0 to 1. Default: drawn uniformly. */
  time?: Tensor
  /** Initial noise, [batch, nFeats, frames]. Default: drawn from the normal distribution. */
  noise?: Tensor
}

const forward = opAsync('voxtorch::unit_voicebox_forward')

/**
 * USDM's token-Voicebox (Kim et al. 2024, https://arxiv.org/abs/2402.05706; Voicebox: Le et al. 2023, https://arxiv.org/abs/2306.15687).
 * It predicts mel spectrograms from units of speech by flow matching, in the voice of a prompt. Runs in native code. Parameters have the
 * names of the published checkpoint (https://huggingface.co/naver-ai/xlsr-token-Voicebox).
 *
 * Published size: `'xlsr-token-voicebox'`.
 */
export class UnitVoicebox extends networkClass<
  UnitVoicebox,
  UnitVoiceboxConfig,
  UnitVoiceboxInputs,
  UnitVoiceboxOutput
>({
  kind: 'unit_voicebox',
  forward: 'voxtorch::unit_voicebox_forward',
  modelType: 'unit_voicebox',
  architecture: 'Voicebox',
  prefix: '',
  ignored: [],
  sizes: unitVoiceboxSizes,
  keys: unitVoiceboxKeys,
}) {
  /**
   * Return the velocity of the flow at one time. Runs on the executor.
   * @throws ShapeError for inputs whose shapes do not match; IndexError for a unit above nTokens
   */
  override async forward(inputs: UnitVoiceboxInputs): Promise<UnitVoiceboxOutput> {
    requireOptions('UnitVoicebox.forward', inputs, ['units', 'noisy', 'condition', 'time', 'lengths'])
    const { units, noisy, condition, time, lengths } = inputs
    for (const [name, value] of Object.entries({ units, noisy, condition, time })) {
      if (!(value instanceof Tensor)) throw argumentError('UnitVoicebox.forward', name, 'a tensor', value)
    }
    const ends = lengths === undefined ? null : listOf('UnitVoicebox.forward', 'lengths', lengths, 'integers')
    return { velocity: (await forward(withActiveAdapters(this), units, noisy, condition, time, ends)) as Tensor }
  }

  /**
   * Return the flow matching loss: the mean squared error of the velocity over the frames that are neither padding nor visible, for paths
   * (1 - (1 - sigmaMin) t) · noise + t · mel; 0 without such frames.
   * @throws ShapeError for inputs whose shapes do not match
   */
  async loss(inputs: UnitVoiceboxLossInputs): Promise<{ loss: Tensor }> {
    const where = 'UnitVoicebox.loss'
    requireOptions(where, inputs, ['units', 'mel', 'visible', 'lengths', 'time', 'noise'])
    const { units, mel, visible, lengths } = inputs
    for (const [name, value] of Object.entries({ units, mel, visible, time: inputs.time, noise: inputs.noise })) {
      const left = value === undefined && name !== 'units' && name !== 'mel'
      if (!left && !(value instanceof Tensor)) throw argumentError(where, name, 'a tensor', value)
    }
    if (lengths !== undefined) listOf(where, 'lengths', lengths, 'integers')
    if (mel.ndim !== 3 || units.ndim !== 2) {
      throw new ShapeError(
        `${where}: mel, units: expected [batch, nFeats, frames] and [batch, frames], got [${mel.shape}] and [${units.shape}]`,
      )
    }
    const [batch, , frames] = mel.shape as [number, number, number]
    if (visible !== undefined && visible.shape.join() !== `${batch},${frames}`) {
      throw new ShapeError(`${where}: visible: expected [${batch}, ${frames}], got [${visible.shape}]`)
    }
    return scope(async () => {
      const { time = ops.rand([batch], { device: mel.device, dtype: mel.dtype }), noise = ops.randnLike(mel) } = inputs
      const t = time.to(mel.dtype).reshape([-1, 1, 1])
      const rate = 1 - (this.config.sigmaMin ?? 1e-4)
      const visibleMask = visible?.unsqueeze(1).to(mel.dtype) // [batch, 1, frames]
      const { velocity } = await this.forward({
        units,
        noisy: t.mul(-rate).add(1).mul(noise).add(t.mul(mel)),
        condition: visibleMask ? mel.mul(visibleMask) : ops.zerosLike(mel),
        time,
        ...(lengths && { lengths }),
      })
      const lossMask = this.#lossMask(mel, visibleMask, lengths)
      const error = velocity.sub(mel.sub(noise.mul(rate))).mul(lossMask)
      const count = lossMask.sum().mul(mel.size(1)).clamp(1)
      return { loss: error.square().sum().div(count) }
    })
  }

  /** Return the mask of frames that contribute to the loss, [batch, 1, frames]. */
  #lossMask(mel: Tensor, visibleMask: Tensor | undefined, lengths: readonly number[] | undefined): Tensor {
    const { device, dtype } = mel
    const [batch, , frames] = mel.shape as [number, number, number]
    const ends = tensor([...(lengths ?? new Array<number>(batch).fill(frames))], { dtype: 'int64', device })
    const inside = arange(frames, { device }).lt(ends.unsqueeze(1)).unsqueeze(1).to(dtype)
    return visibleMask ? inside.mul(visibleMask.neg().add(1)) : inside
  }

  /**
   * Generate a mel spectrogram from units, [batch, nFeats, frames], normalized. It includes the prompt's frames. `denormalize` converts it
   * to the input of BigVGAN. Runs in evaluation mode and without gradients.
   *
   * ```ts
   * const mel = await voicebox.generate({ units, prompt: voicebox.normalize(reference), seed: 1 })
   * const { waveform } = await vocoder.forward({ mel: voicebox.denormalize(mel) })
   * ```
   * @throws ShapeError for inputs whose shapes do not match; ConfigError for wrong options; the reason of `signal` if it is aborted
   */
  generate(inputs: UnitVoiceboxGenerateInputs): Promise<Tensor> {
    return generate(this, inputs)
  }

  /** Normalize a log-mel spectrogram of BigVGAN like the training data of the published model: (mel + 5.5419) / 2.1575. */
  normalize(mel: Tensor): Tensor {
    if (!(mel instanceof Tensor)) throw argumentError('UnitVoicebox.normalize', 'mel', 'a tensor', mel)
    return scope(() => mel.sub(MEL.mean).div(MEL.std))
  }

  /** Undo `normalize`. */
  denormalize(mel: Tensor): Tensor {
    if (!(mel instanceof Tensor)) throw argumentError('UnitVoicebox.denormalize', 'mel', 'a tensor', mel)
    return scope(() => mel.mul(MEL.std).add(MEL.mean))
  }
}
