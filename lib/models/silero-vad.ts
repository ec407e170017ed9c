import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { requireSamples, resample } from '../audio/resample.js'
import { padSegments, type Segment } from '../audio/silence.js'
import { SPEECH_RATE } from '../audio/speech.js'
import { defined, requireNumber, requireOptions, requireWhole } from '../base/check.js'
import { CheckpointError, ConfigError } from '../base/errors.js'
import { readCheckpointJson } from '../files/json/json.js'
import { loadSafetensors } from '../files/safetensors/safetensors.js'
import { type ResolveModelOptions, resolveModel } from '../hub/resolve.js'
import { Conv1d } from '../nn/conv.js'
import { Module } from '../nn/module.js'
import { LSTMCell } from '../nn/rnn-cells.js'
import { noGrad, ops, scope, type Tensor, zeros } from '../tensor/index.js'
import { savePretrained } from './own-module.js'

/** The sizes of a {@link SileroVad}; what is left out has the value of the published network. */
export interface SileroVadConfig {
  /** Samples that one probability is about. Default 512, 32 ms. */
  frame?: number
  /** Samples before a frame that it sees too. Default 64. */
  context?: number
  /** Samples of a Fourier window; a whole number of halves make a frame. Default 256. */
  nFft?: number
  /** Channels of the four convolutions, of which the second and third halve the time. Default 128, 64, 64, 128. */
  channels?: [number, number, number, number]
  /** Of the LSTM. Default 128. */
  hiddenSize?: number
}

export interface SpeechSegmentOptions {
  /** Speech begins in a frame of at least this probability. Default 0.5. */
  threshold?: number
  /** It ends in one below this. Default 0.15 less than `threshold`, 0.01 at least. */
  endThreshold?: number
  /** Shorter pauses do not end a segment, in seconds. Default 0.1. */
  minSilence?: number
  /** Shorter sounds are no segment, in seconds. Default 0.25. */
  minSpeech?: number
  /** What is kept before and after a segment, in seconds; two segments share a shorter pause between them. Default 0.03. */
  padding?: number
}

const CONFIG: readonly (keyof SileroVadConfig)[] = ['frame', 'context', 'nFft', 'channels', 'hiddenSize']
const SEGMENTS: readonly (keyof SpeechSegmentOptions)[] = [
  'threshold',
  'endThreshold',
  'minSilence',
  'minSpeech',
  'padding',
]
/** What the published package calls it, and what `save` does. */
const FILES = ['model.safetensors', 'silero_vad_16k.safetensors']
/** Frames that go through the convolutions at once: about a minute. */
const PIECE = 2048

/**
 * Voice activity detection by a small network, as Silero VAD (https://github.com/snakers4/silero-vad, MIT): a Fourier
 * transform, four convolutions and an LSTM over frames of 32 ms at 16 kHz. Hears speech in noise and music, where
 * `energyVad` hears any sound.
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

  /** @throws ConfigError where the configuration contradicts itself */
  constructor(config: SileroVadConfig = {}) {
    super()
    requireOptions('SileroVad', config, CONFIG)
    const { frame = 512, context = 64, nFft = 256, channels = [128, 64, 64, 128], hiddenSize = 128 } = config
    for (const [name, value] of Object.entries({ frame, nFft, hiddenSize })) requireWhole('SileroVad', name, value, 1)
    requireWhole('SileroVad', 'context', context)
    if (!Array.isArray(channels) || channels.length !== 4) {
      throw new ConfigError('SileroVad: channels must be four whole numbers', { option: 'channels' })
    }
    for (const one of channels) requireWhole('SileroVad', 'channels', one, 1)
    // Two strides of 2 leave one step of the four.
    if (nFft % 4 !== 0 || frame !== 2 * nFft || context !== nFft / 4) {
      throw new ConfigError(
        `SileroVad: frame must be twice nFft, and context a quarter of it, so that four steps become one; got ${frame}, ${context} and nFft ${nFft}`,
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
   * From a folder that `save` wrote, that of the package `silero-vad` of PyPI, or `'silero-vad'`, which is fetched.
   * @throws CheckpointError naming the file where one is missing or broken
   */
  static async fromPretrained(from: string, options: Omit<ResolveModelOptions, 'files'> = {}): Promise<SileroVad> {
    const directory = await resolveModel(from, options)
    const name = FILES.find((one) => existsSync(join(directory, one)))
    if (name === undefined) {
      throw new CheckpointError(`${directory} has no weights of SileroVad: neither ${FILES.join(' nor ')}`, {
        directory,
      })
    }
    const place = join(directory, 'config.json')
    const config = existsSync(place) ? ((await readCheckpointJson(place)) as SileroVadConfig) : {}
    const file = join(directory, name)
    const { tensors } = await loadSafetensors(file)
    try {
      const made = new SileroVad(config)
      made.loadStateDict(tensors)
      return made.eval()
    } catch (error) {
      if (!(error instanceof CheckpointError)) throw error
      throw new CheckpointError(`${file}: ${error.message}`, { file, cause: error })
    } finally {
      for (const tensor of Object.values(tensors)) tensor.dispose()
    }
  }

  /** Writes config.json and model.safetensors. */
  save(directory: string): Promise<void> {
    return savePretrained(directory, this, this.config)
  }

  /**
   * Samples [n] at 16 kHz → how likely each frame of 32 ms holds speech, float32 [⌈n / frame⌉]. What lacks of the last
   * frame is silence.
   */
  override async forward(samples: Tensor): Promise<Tensor> {
    requireSamples('SileroVad', samples)
    if (samples.ndim !== 1) {
      throw new ConfigError(`SileroVad: samples must be one signal [n], not [${samples.shape}]`, {})
    }
    return scope(async () => {
      const { frame, context, hiddenSize } = this.config
      const weight = this.final_conv.weight as Tensor
      const sound = samples.to({ dtype: weight.dtype, device: weight.device })
      const count = Math.ceil(sound.size(0) / frame)
      if (count === 0) return zeros([0])
      const padded = ops.constantPadNd(sound, [context, count * frame - sound.size(0)])
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

  /** Frames [n, context + frame] → what the LSTM reads, [n, 1, channels]. */
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
    return x.transpose(1, 2) // one step is left
  }

  /** Off the JavaScript thread. */
  #convolved({ weight, bias, stride, padding }: Conv1d, input: Tensor): Promise<Tensor> {
    return ops.async.conv1d(input, weight as Tensor, bias as Tensor | null, stride as number[], padding as number[])
  }

  #memory(): Tensor[] {
    const { weight_ih, weight_hh, bias_ih, bias_hh } = this.lstm_cell
    return [weight_ih, weight_hh, bias_ih, bias_hh] as Tensor[]
  }

  /**
   * Where somebody speaks in a clip [n], in order and without overlap; a clip at another rate is resampled. Bound to the
   * network, so that it can be handed on: `splitOnSilence(samples, rate, { vad: vad.segments })`.
   * @throws ConfigError
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
        const sound = samples.detach()
        const heard = sampleRate === SPEECH_RATE ? sound : await resample(sound, sampleRate, SPEECH_RATE)
        return (await this.forward(heard)).data()
      }),
    )
    const duration = samples.size(0) / sampleRate
    const frameSeconds = this.config.frame / SPEECH_RATE
    return padSegments(spoken(likely as Float32Array, frameSeconds, duration, settings), duration, settings.padding)
  }
}

function settingsOf(options: SpeechSegmentOptions): Required<SpeechSegmentOptions> {
  const where = 'SileroVad.segments'
  requireOptions(where, options, SEGMENTS)
  const { threshold = 0.5, minSilence = 0.1, minSpeech = 0.25, padding = 0.03 } = defined(options)
  const { endThreshold = Math.max(threshold - 0.15, 0.01) } = defined(options)
  for (const [name, value] of Object.entries({ threshold, endThreshold, minSilence, minSpeech, padding })) {
    requireNumber(where, name, value, { least: 0 })
  }
  if (endThreshold > threshold) {
    throw new ConfigError(`${where}: endThreshold ${endThreshold} is above threshold ${threshold}`, { endThreshold })
  }
  return { threshold, endThreshold, minSilence, minSpeech, padding }
}

/** Speech begins above one threshold and ends where a pause below another is long enough. */
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
