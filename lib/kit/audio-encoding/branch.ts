import { ConfigError } from '../../base/errors.js'
import type { Beats } from '../../models/beats/beats.js'
import type { WhisperEncoder } from '../../models/whisper/whisper.js'
import { Module } from '../../nn/module.js'
import { LayerNorm } from '../../nn/normalization.js'
import type { MakeOptions } from '../../nn/parameter.js'
import type { Device, Tensor } from '../../tensor/index.js'
import type { AudioEncoderParts } from './encode.js'
import type { SalmonnFrames } from './frames.js'

/**
 * Base class of networks with SALMONN's audio branch (Tang et al. 2024, https://arxiv.org/abs/2310.13289): Whisper's frozen encoder, alone or
 * with BEATs, a norm for each, a window-level Q-Former and a projection. The subclass has the last two, under its own names.
 */
export abstract class AudioBranch extends Module {
  speech_encoder: WhisperEncoder | null
  beats: Beats | null
  readonly ln_speech: LayerNorm
  /** Null without BEATs. */
  readonly ln_audio: LayerNorm | null
  /** Cache of the frozen encoders' outputs, which is freed with the model. Default null: no cache. */
  frames: SalmonnFrames | null = null

  constructor(whisper: WhisperEncoder, beats: Beats | null, { device, dtype }: MakeOptions) {
    super()
    const factory = { device: device ?? ((whisper.parameters()[0] as Tensor).device as Device), dtype }
    this.speech_encoder = whisper
    this.beats = beats
    this.ln_speech = new LayerNorm(whisper.config.dModel as number, factory)
    this.ln_audio = beats && new LayerNorm(beats.config.encoderEmbedDim as number, factory)
    for (const encoder of [whisper, beats]) encoder?.freeze()
  }

  protected abstract get connector(): Pick<AudioEncoderParts, 'qformer' | 'projection'>

  /** Set training mode. Frozen encoders stay in evaluation mode, without layer drop. */
  override train(mode = true): this {
    super.train(mode)
    for (const part of [this.speech_encoder, this.beats]) {
      if (part?.parameters().every(({ requiresGrad }) => !requiresGrad)) part.eval()
    }
    return this
  }

  /** Return the networks of `encodeClips`. @throws ConfigError if the encoders were freed */
  protected get encoders(): AudioEncoderParts {
    const { speech_encoder: whisper, beats, ln_audio: lnAudio, ln_speech: lnSpeech, frames } = this
    if (!whisper || (lnAudio && !beats)) {
      throw new ConfigError(
        `${this.constructor.name}: clips: expected outputs of encodeAudio(), since the encoders were freed, got audio.`,
        {},
      )
    }
    return { whisper, audio: beats && lnAudio && { beats, lnAudio }, lnSpeech, frames, ...this.connector }
  }

  protected override freeNative(): void {
    this.frames?.clear()
  }
}
