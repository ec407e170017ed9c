import { listOf, misuse, requireOptions } from '../../base/check.js'
import { ShapeError } from '../../base/errors.js'
import { opAsync } from '../../native/call.js'
import { withActiveAdapters } from '../../nn/native-module.js'
import { arange, ops, scope, Tensor, tensor } from '../../tensor/index.js'
import { networkClass } from '../network.js'
import { MEL, type UnitVoiceboxConfig, unitVoiceboxKeys, unitVoiceboxSizes } from './config.js'
import { generate, type UnitVoiceboxGenerateInputs } from './sampling.js'

export interface UnitVoiceboxInputs {
  /** int64 [batch, frames], from 0 to nTokens; nTokens stands for none. */
  units: Tensor
  /** The mel spectrogram on its way from noise, normalised, [batch, nFeats, frames]. */
  noisy: Tensor
  /** What of the mel spectrogram is known, zeros elsewhere, [batch, nFeats, frames]. */
  condition: Tensor
  /** From 0 (noise) to 1, floating point [batch]. */
  time: Tensor
  /** How many frames each row has, the rest being padding, whose outputs are 0. Default: all. */
  lengths?: readonly number[]
}

export interface UnitVoiceboxOutput {
  /** [batch, nFeats, frames] */
  velocity: Tensor
}

export interface UnitVoiceboxLossInputs {
  /** int64 [batch, frames]; nTokens stands for no unit. */
  units: Tensor
  /** The mel spectrogram, normalised, [batch, nFeats, frames]. */
  mel: Tensor
  /** What of it the network sees, bool [batch, frames]; the loss is that of the rest. Default: nothing. */
  visible?: Tensor
  /** How many frames each row has. Default: all. */
  lengths?: readonly number[]
  /** Where on their paths the rows are, [batch], from 0 to 1. Default: drawn evenly. */
  time?: Tensor
  /** Where the paths begin, [batch, nFeats, frames]. Default: drawn from the normal distribution. */
  noise?: Tensor
}

const forward = opAsync('voxtorch::unit_voicebox_forward')

/**
 * USDM's token-Voicebox (Kim et al. 2024, https://arxiv.org/abs/2402.05706; Voicebox: Le et al. 2023,
 * https://arxiv.org/abs/2306.15687), which makes mel spectrograms of units of speech by flow matching, in the voice of a
 * prompt. Runs in native code. Names are those of the published checkpoint
 * (https://huggingface.co/naver-ai/xlsr-token-Voicebox).
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
   * The velocity of the flow at one point of its path. Runs on the executor.
   * @throws ShapeError for shapes that do not fit; IndexError for a unit beyond nTokens
   */
  override async forward(inputs: UnitVoiceboxInputs): Promise<UnitVoiceboxOutput> {
    requireOptions('UnitVoicebox.forward', inputs, ['units', 'noisy', 'condition', 'time', 'lengths'])
    const { units, noisy, condition, time, lengths } = inputs
    for (const [name, value] of Object.entries({ units, noisy, condition, time })) {
      if (!(value instanceof Tensor)) throw misuse('UnitVoicebox.forward', name, 'a tensor', value)
    }
    const ends = lengths === undefined ? null : listOf('UnitVoicebox.forward', 'lengths', lengths, 'whole numbers')
    return { velocity: (await forward(withActiveAdapters(this), units, noisy, condition, time, ends)) as Tensor }
  }

  /**
   * The flow matching loss: the mean square of velocity less target over the frames that are neither padding nor visible, of
   * paths (1 - (1 - sigmaMin) t) · noise + t · mel; 0 where no frame is asked for.
   * @throws ShapeError for shapes that do not fit
   */
  async loss(inputs: UnitVoiceboxLossInputs): Promise<{ loss: Tensor }> {
    const where = 'UnitVoicebox.loss'
    requireOptions(where, inputs, ['units', 'mel', 'visible', 'lengths', 'time', 'noise'])
    const { units, mel, visible, lengths } = inputs
    for (const [name, value] of Object.entries({ units, mel, visible, time: inputs.time, noise: inputs.noise })) {
      const left = value === undefined && name !== 'units' && name !== 'mel'
      if (!left && !(value instanceof Tensor)) throw misuse(where, name, 'a tensor', value)
    }
    if (lengths !== undefined) listOf(where, 'lengths', lengths, 'whole numbers')
    if (mel.ndim !== 3 || units.ndim !== 2) {
      throw new ShapeError(
        `${where}: mel must be [batch, nFeats, frames] and units [batch, frames], not [${mel.shape}] and [${units.shape}]`,
        {},
      )
    }
    const [batch, , frames] = mel.shape as [number, number, number]
    if (visible !== undefined && visible.shape.join() !== `${batch},${frames}`) {
      throw new ShapeError(`${where}: visible must be [${batch}, ${frames}], not [${visible.shape}]`, {})
    }
    return scope(async () => {
      const { time = ops.rand([batch], { device: mel.device, dtype: mel.dtype }), noise = ops.randnLike(mel) } = inputs
      const t = time.to(mel.dtype).reshape([-1, 1, 1])
      const rate = 1 - (this.config.sigmaMin ?? 1e-4)
      const shown = visible?.unsqueeze(1).to(mel.dtype) // [batch, 1, frames]
      const { velocity } = await this.forward({
        units,
        noisy: t.mul(-rate).add(1).mul(noise).add(t.mul(mel)),
        condition: shown ? mel.mul(shown) : ops.zerosLike(mel),
        time,
        ...(lengths && { lengths }),
      })
      const asked = this.#asked(mel, shown, lengths)
      const off = velocity.sub(mel.sub(noise.mul(rate))).mul(asked)
      const count = asked.sum().mul(mel.size(1)).clamp(1)
      return { loss: off.square().sum().div(count) }
    })
  }

  /** Of which frames there is a loss, [batch, 1, frames]. */
  #asked(mel: Tensor, shown: Tensor | undefined, lengths: readonly number[] | undefined): Tensor {
    const { device, dtype } = mel
    const [batch, , frames] = mel.shape as [number, number, number]
    const ends = tensor([...(lengths ?? new Array<number>(batch).fill(frames))], { dtype: 'int64', device })
    const inside = arange(frames, { device }).lt(ends.unsqueeze(1)).unsqueeze(1).to(dtype)
    return shown ? inside.mul(shown.neg().add(1)) : inside
  }

  /**
   * A mel spectrogram for units, [batch, nFeats, frames], normalised: with the prompt's frames, if one was given, in their
   * places. `denormalize` makes of it what BigVGAN reads. In evaluation mode and without gradients.
   *
   * ```ts
   * const mel = await voicebox.generate({ units, prompt: voicebox.normalize(reference), seed: 1 })
   * const { waveform } = await vocoder.forward({ mel: voicebox.denormalize(mel) })
   * ```
   * @throws ShapeError for shapes that do not fit; ConfigError for wrong options; the reason of `signal` where it is aborted
   */
  generate(inputs: UnitVoiceboxGenerateInputs): Promise<Tensor> {
    return generate(this, inputs)
  }

  /** A log-mel spectrogram as BigVGAN reads it, as the published model was trained on it: (mel + 5.5419) / 2.1575. */
  normalize(mel: Tensor): Tensor {
    if (!(mel instanceof Tensor)) throw misuse('UnitVoicebox.normalize', 'mel', 'a tensor', mel)
    return scope(() => mel.sub(MEL.mean).div(MEL.std))
  }

  /** The way back. */
  denormalize(mel: Tensor): Tensor {
    if (!(mel instanceof Tensor)) throw misuse('UnitVoicebox.denormalize', 'mel', 'a tensor', mel)
    return scope(() => mel.mul(MEL.std).add(MEL.mean))
  }
}
