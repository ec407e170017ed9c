import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { requireSamples, resample } from '../audio/resample.js'
import { padSegments, type Segment } from '../audio/silence.js'
import { SPEECH_RATE } from '../audio/speech.js'
import { requireNumber, requireOptions, requireWhole, shown, withDefaults } from '../base/check.js'
import { CheckpointError, ConfigError } from '../base/errors.js'
import { readCheckpointJson } from '../files/json/json.js'
import { loadSafetensors } from '../files/safetensors/safetensors.js'
import { type ResolveModelOptions, resolveModel } from '../hub/resolve.js'
import { requireWeightsOf } from '../hub/weights.js'
import { Conv1d } from '../nn/conv.js'
import { Module } from '../nn/module.js'
import { LSTMCell } from '../nn/rnn-cells.js'
import { noGrad, ops, scope, type Tensor, zeros } from '../tensor/index.js'
import { savePretrained } from './own-module.js'

/** Sizes of a {@link SileroVad}. Defaults are those of the published network. */
export interface SileroVadConfig {
  /** Samples per probability. Default 512, 32 ms. */
  frame?: number
  /** Samples before a frame that are input too. Default 64. */
  context?: number
  /** Samples of a Fourier window, half of a frame. Default 256. */
  nFft?: number
  /** Channels of the four convolutions; the second and third halve the time. Default 128, 64, 64, 128. */
  channels?: [number, number, number, number]
  /** Size of the LSTM. Default 128. */
  hiddenSize?: number
}

export interface SpeechSegmentOptions {
  /** Minimum probability of the first frame of a segment. Default 0.5. */
  threshold?: number
  /** A frame below this probability may end a segment. Default: `threshold` - 0.15, at least 0.01. */
  endThreshold?: number
  /** Minimum pause that ends a segment, in seconds. Default 0.1. */
  minSilence?: number
  /** Minimum length of a segment, in seconds. Default 0.25. */
  minSpeech?: number
  /** Padding before and after a segment, in seconds; neighboring segments share a shorter pause. Default 0.03. */
  padding?: number
}

const CONFIG: readonly (keyof SileroVadConfig)[] = ['frame', 'context', 'nFft', 'channels', 'hiddenSize']
/** File names of `save` and of the published package. */
const FILES = ['model.safetensors', 'silero_vad_16k.safetensors']
/** Number of frames that go through the convolutions at once: about a minute. */
const PIECE = 2048

/**
 * Voice activity detection with a small network, Silero VAD (https://github.com/snakers4/silero-vad, MIT): a Fourier transform, four
 * convolutions and an LSTM over frames of 32 ms at 16 kHz. It detects speech in noise and music, where `energyVad` detects any
 * audio above a level.
 *
 * ```ts
 * const vad = await SileroVad.fromPretrained('silero-vad')
 * const { text } = await whisper.transcribe('talk.mp3', { batchSize: 8, vad: vad.segments })
 * ```
 */
export class SileroVad extends Module {
  readonly config: Required<SileroVadConfig>
  readonly stft_conv: Conv1d
  readonly conv1: Conv1d
  readonly conv2: Conv1d
  readonly conv3: Conv1d
  readonly conv4: Conv1d
  readonly lstm_cell: LSTMCell
  readonly final_conv: Conv1d

  /** @throws ConfigError for an inconsistent configuration */
  constructor(config: SileroVadConfig = {}) {
    super()
    requireOptions('SileroVad', config, CONFIG)
    const { frame = 512, context = 64, nFft = 256, channels = [128, 64, 64, 128], hiddenSize = 128 } = config
    for (const [name, value] of Object.entries({ frame, nFft, hiddenSize })) requireWhole('SileroVad', name, value, 1)
    requireWhole('SileroVad', 'context', context)
    if (!Array.isArray(channels) || channels.length !== 4) {
      throw new ConfigError(
        `SileroVad: channels: expected a list of four integers, got ${shown(channels)}. Correct it.`,
        {
          option: 'channels',
        },
      )
    }
    for (const one of channels) requireWhole('SileroVad', 'channels', one, 1)
    // The two strides of 2 must reduce four steps to one.
    if (nFft % 4 !== 0 || frame !== 2 * nFft || context !== nFft / 4) {
      throw new ConfigError(
        `SileroVad: expected frame = 2 nFft and context = nFft / 4, got frame ${frame}, context ${context} and nFft ${nFft}. Correct them.`,
        { frame, context, nFft },
      )
    }
    this.config = { frame, context, nFft, channels: [...channels], hiddenSize }
    const [first, second, third, fourth] = channels
    this.stft_conv = new Conv1d(1, nFft + 2, nFft, { stride: nFft / 2, bias: false })
    this.conv1 = new Conv1d(nFft / 2 + 1, first, 3, { padding: 1 })
    this.conv2 = new Conv1d(first, second, 3, { stride: 2, padding: 1 })
    this.conv3 = new Conv1d(second, third, 3, { stride: 2, padding: 1 })
    this.conv4 = new Conv1d(third, fourth, 3, { padding: 1 })
    this.lstm_cell = new LSTMCell(fourth, hiddenSize)
    this.final_conv = new Conv1d(hiddenSize, 1, 1)
  }

  /**
   * Load the network from a folder that `save` wrote, from that of PyPI's package `silero-vad`, or download it with `'silero-vad'`.
   * @throws CheckpointError with the file if one is missing or damaged
   */
  static async fromPretrained(from: string, options: Omit<ResolveModelOptions, 'files'> = {}): Promise<SileroVad> {
    if (typeof from === 'string') requireWeightsOf('SileroVad.fromPretrained', from, 'SileroVad')
    const directory = await resolveModel(from, options)
    const name = FILES.find((one) => existsSync(join(directory, one)))
    if (name === undefined) {
      throw new CheckpointError(
        `${directory}: expected weights in ${FILES.join(' or ')}, got neither. Check the folder.`,
        {
          directory,
        },
      )
    }
    const place = join(directory, 'config.json')
    const config = existsSync(place) ? ((await readCheckpointJson(place)) as SileroVadConfig) : {}
    const file = join(directory, name)
    const { tensors } = await loadSafetensors(file)
    try {
      const network = new SileroVad(config)
      network.loadStateDict(tensors)
      return network.eval()
    } catch (error) {
      if (!(error instanceof CheckpointError)) throw error
      throw new CheckpointError(`${file}: ${error.message}`, { file, cause: error })
    } finally {
      for (const tensor of Object.values(tensors)) tensor.dispose()
    }
  }

  /** Write config.json and model.safetensors. */
  save(directory: string): Promise<void> {
    return savePretrained(directory, this, this.config)
  }

  /**
   * Return the probability that each frame of 32 ms contains speech: samples [n] at 16 kHz → float32 [⌈n / frame⌉]. The last frame is
   * padded with silence.
   */
  override async forward(samples: Tensor): Promise<Tensor> {
    requireSamples('SileroVad', samples)
    if (samples.ndim !== 1) {
      throw new ConfigError(
        `SileroVad: samples: expected one signal [n], got [${samples.shape}]. Pass one channel.`,
        {},
      )
    }
    return scope(async () => {
      const { frame, context, hiddenSize } = this.config
      const weight = this.final_conv.weight as Tensor
      const signal = samples.to({ dtype: weight.dtype, device: weight.device })
      const count = Math.ceil(signal.size(0) / frame)
      if (count === 0) return zeros([0])
      const padded = ops.constantPadNd(signal, [context, count * frame - signal.size(0)])
      const state = [1, 2].map(() => zeros([1, 1, hiddenSize], { dtype: weight.dtype, device: weight.device }))
      const likely: Tensor[] = []
      for (let at = 0; at < count; at += PIECE) {
        const frames = padded
          .narrow(0, at * frame, context + Math.min(PIECE, count - at) * frame)
          .unfold(0, context + frame, frame)
        const [output, hidden, cell] = await ops.async.lstm(
          await this.#seen(frames),
          state,
          this.#memory(),
          true,
          1,
          0,
          false,
          false,
          false,
        )
        state.splice(0, 2, hidden, cell)
        const rows = output.relu().permute([1, 2, 0]) // [1, hiddenSize, frames]
        likely.push(this.final_conv.forward(rows).sigmoid().flatten())
      }
      return ops.cat(likely).to('float32')
    })
  }

  /** Compute the LSTM's input [n, 1, channels] of frames [n, context + frame]. */
  async #seen(frames: Tensor): Promise<Tensor> {
    const { nFft, context } = this.config
    const half = nFft / 2 + 1
    const waves = await this.#convolved(this.stft_conv, ops.reflectionPad1d(frames.unsqueeze(1), [0, context]))
    const squares = waves
      .narrow(1, 0, half)
      .square()
      .add(waves.narrow(1, half, half).square())
    let x = squares.sqrt()
    for (const layer of [this.conv1, this.conv2, this.conv3, this.conv4]) x = (await this.#convolved(layer, x)).relu()
    return x.transpose(1, 2) // one step remains
  }

  /** Compute a convolution off the JavaScript thread. */
  #convolved({ weight, bias, stride, padding }: Conv1d, input: Tensor): Promise<Tensor> {
    return ops.async.conv1d(input, weight as Tensor, bias as Tensor | null, stride as number[], padding as number[])
  }

  #memory(): Tensor[] {
    const { weight_ih, weight_hh, bias_ih, bias_hh } = this.lstm_cell
    return [weight_ih, weight_hh, bias_ih, bias_hh] as Tensor[]
  }

  /**
   * Return the segments with speech of a clip [n], in order and without overlap; a clip with another sample rate is resampled. The
   * function is bound to the network: `splitOnSilence(samples, rate, { vad: vad.segments })`.
   * @throws ConfigError for invalid options
   */
  readonly segments = async (
    samples: Tensor,
    sampleRate: number,
    options: SpeechSegmentOptions = {},
  ): Promise<Segment[]> => {
    const settings = settingsOf(options)
    requireSamples('SileroVad.segments', samples)
    requireNumber('SileroVad.segments', 'sampleRate', sampleRate, { least: 1, below: Number.POSITIVE_INFINITY })
    const likely = await noGrad(() =>
      scope(async () => {
        const signal = samples.detach()
        const resampled = sampleRate === SPEECH_RATE ? signal : await resample(signal, sampleRate, SPEECH_RATE)
        return (await this.forward(resampled)).data()
      }),
    )
    const duration = samples.size(0) / sampleRate
    const frameSeconds = this.config.frame / SPEECH_RATE
    return padSegments(spoken(likely as Float32Array, frameSeconds, duration, settings), duration, settings.padding)
  }
}

function settingsOf(options: SpeechSegmentOptions): Required<SpeechSegmentOptions> {
  const where = 'SileroVad.segments'
  const defaults = { threshold: 0.5, endThreshold: undefined, minSilence: 0.1, minSpeech: 0.25, padding: 0.03 }
  const { threshold, minSilence, minSpeech, padding, ...rest } = withDefaults(where, options, defaults)
  const { endThreshold = Math.max(threshold - 0.15, 0.01) } = rest
  for (const [name, value] of Object.entries({ threshold, endThreshold, minSilence, minSpeech, padding })) {
    requireNumber(where, name, value, { least: 0 })
  }
  if (endThreshold > threshold) {
    throw new ConfigError(
      `${where}: endThreshold: expected at most threshold (${threshold}), got ${endThreshold}. Lower it.`,
      { endThreshold },
    )
  }
  return { threshold, endThreshold, minSilence, minSpeech, padding }
}

/** Return segments that begin above one threshold and end where a pause below the other is long enough. */
function spoken(
  likely: Float32Array,
  frameSeconds: number,
  duration: number,
  { threshold, endThreshold, minSilence, minSpeech }: Required<SpeechSegmentOptions>,
): Segment[] {
  const found: Segment[] = []
  let begin: number | undefined
  let pause: number | undefined
  for (const [i, probability] of likely.entries()) {
    const now = i * frameSeconds
    if (probability >= threshold) {
      begin ??= now
      pause = undefined
    } else if (probability < endThreshold && begin !== undefined) {
      pause ??= now
      if (now - pause < minSilence) continue
      if (pause - begin > minSpeech) found.push([begin, pause])
      begin = pause = undefined
    }
  }
  if (begin !== undefined && duration - begin > minSpeech) found.push([begin, duration])
  return found
}
