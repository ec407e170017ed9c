import { logMelSpectrogram } from '../../audio/features.js'
import { DataError } from '../../base/errors.js'
import { opAsync } from '../../native/call.js'
import { makeNative, NativeModule, withActiveAdapters } from '../../nn/native-module.js'
import { freezeConstant, type MakeOptions } from '../../nn/parameter.js'
import { arange, ops, scope, type Tensor, tensor } from '../../tensor/index.js'
import { upload } from '../../tensor/upload.js'
import type { ConfigKeys } from '../config-keys.js'
import { spectrogramKeys, whisperExtractor } from '../feature-extractor.js'
import type { NetworkConfig } from '../network.js'
import type { AudioEncoder, AudioFeatureSettings } from './family.js'

const encode = opAsync('voxtorch::whisper_encoder_forward')

/** Samples of a step of Whisper's spectrogram. */
const HOP = 160
/** Fewest samples of a spectrogram. */
const LEAST = 400

/** Names of the same settings in transformers' two spellings, and in Whisper's configuration. */
const SPELLINGS: readonly [hidden: string, model: string, initial: number][] = [
  ['hiddenSize', 'dModel', 1280],
  ['numHiddenLayers', 'encoderLayers', 32],
  ['numAttentionHeads', 'encoderAttentionHeads', 20],
  ['intermediateSize', 'encoderFfnDim', 5120],
  ['layerdrop', 'encoderLayerdrop', 0],
]

/** Return the keys of an encoder's configuration, in the spelling of `hiddenSize` or that of `dModel`. */
export const whisperTowerKeys = (spelling: 'hiddenSize' | 'dModel'): ConfigKeys => ({
  defaults: {
    ...Object.fromEntries(SPELLINGS.map(([hidden, model, value]) => [spelling === 'dModel' ? model : hidden, value])),
    numMelBins: 128,
    maxSourcePositions: 1500,
    activationFunction: 'gelu',
    dropout: 0,
    attentionDropout: 0,
    activationDropout: 0,
    initializerRange: 0.02,
  },
  // transformers ignores these in the encoder.
  unused: ['scaleEmbedding', 'vocabSize', 'initStd', 'numKeyValueHeads', 'headDim', 'rmsNormEps', 'ropeTheta'],
})

/** Other names of the keys, for the same spelling. */
export const whisperTowerAliases = (spelling: 'hiddenSize' | 'dModel'): Readonly<Record<string, string>> =>
  Object.fromEntries(SPELLINGS.map(([hidden, model]) => (spelling === 'dModel' ? [hidden, model] : [model, hidden])))

const settingOf = (config: NetworkConfig, key: string): number => {
  const [hidden, model] = SPELLINGS.find(([hidden]) => hidden === key) as (typeof SPELLINGS)[number]
  return Number(config[hidden] ?? config[model])
}

/** Width of the states of an encoder. */
export const towerWidth = (config: NetworkConfig): number => settingOf(config, 'hiddenSize')
/** Width of the feed-forward layers. */
export const towerIntermediate = (config: NetworkConfig): number => settingOf(config, 'intermediateSize')
/** Number of steps of a window. */
export const towerSteps = (config: NetworkConfig): number => 2 * Number(config.maxSourcePositions)

/**
 * Whisper's encoder as part of a speech language model: it takes whole windows, attends to their audio, and may pool neighboring frames.
 * Unlike {@link WhisperEncoder}, convolutions see the padding of a window as it is, as in transformers.
 */
export class WhisperTower extends NativeModule implements AudioEncoder {
  /** @param pooling number of frames whose mean is one frame, before the last norm */
  constructor(config: NetworkConfig, pooling: number, options: MakeOptions) {
    const { numMelBins, maxSourcePositions, activationFunction, dropout, attentionDropout, activationDropout } = config
    const named = Object.fromEntries(SPELLINGS.map(([hidden, model]) => [model, config[hidden] ?? config[model]]))
    const native = { numMelBins, maxSourcePositions, activationFunction, dropout, attentionDropout, activationDropout }
    const more = { initStd: config.initializerRange, encoderPooling: pooling, silencesPadding: false }
    super(makeNative('whisper_encoder', { ...native, ...named, ...more }, options))
    this.freezeConstants()
  }

  /** Freeze the sinusoidal positions. */
  freezeConstants(): void {
    const { embed_positions } = this as unknown as { embed_positions: { weight: Tensor } }
    freezeConstant(embed_positions.weight)
  }

  /**
   * Only the longest audio of the windows is encoded, with the two steps after it that the convolutions reach.
   * @param features [windows, mels, steps]
   * @returns [windows, frames, width]
   */
  override forward(features: Tensor, lengths: readonly number[] | null): Promise<Tensor> {
    return scope(async () => {
      const most = lengths === null ? features.size(2) : Math.min(features.size(2), Math.max(...lengths) + 2)
      const inputFeatures = most === features.size(2) ? features : features.narrow(2, 0, most)
      const attentionMask = lengths === null ? null : stepMask(lengths, most, features)
      const output = await encode(withActiveAdapters(this), { inputFeatures, attentionMask })
      return (output as { lastHiddenState: Tensor }).lastHiddenState
    })
  }
}

/** Return bool [windows, steps], true for audio. */
function stepMask(lengths: readonly number[], steps: number, { device }: Tensor): Tensor {
  const ends = tensor([...lengths], { dtype: 'int64', device: 'cpu' }).unsqueeze(1)
  return upload(arange(steps, { device: 'cpu' }).unsqueeze(0).lt(ends), device)
}

export interface WhisperFeatureOptions {
  /** True for one spectrogram of the whole clip, padded to whole windows; false (default) for one of each window. */
  wholeClip?: boolean
  /** True for one spectrogram of the whole clip, cut into windows, of which a lone one is as long as the clip. */
  asLongAsClip?: boolean
  /** Whether a clip that is longer than a window is cut to one, and not into several. Default false. */
  oneWindow?: boolean
  /** Most windows of a clip; the rest is cut. Default: any number. */
  mostWindows?: number
}

/** Whisper's log-mel spectrogram of windows. */
export function whisperFeatures(config: NetworkConfig, options: WhisperFeatureOptions): AudioFeatureSettings {
  const { wholeClip = false, asLongAsClip = false, oneWindow = false, mostWindows } = options
  const [nMels, steps] = [Number(config.numMelBins), towerSteps(config)]
  const window = steps * HOP
  const most = oneWindow ? 1 : (mostWindows ?? Number.POSITIVE_INFINITY)
  return {
    keys: spectrogramKeys(nMels, steps),
    saved: { ...whisperExtractor(nMels, steps), return_attention_mask: true },
    mostSamples: most * window,
    compute: (samples) =>
      scope(async () => {
        const count = samples.size(0)
        if (count < 1 || window < LEAST) {
          throw new DataError(`AudioLM.features: expected audio, got a clip of ${count} samples.`, { samples: count })
        }
        const windows = Math.max(1, Math.ceil(count / window))
        const whole = ops.constantPadNd(samples, [0, windows * window - count])
        const lengths = Array.from({ length: windows }, (_, i) => Math.ceil(Math.min(window, count - i * window) / HOP))
        if (asLongAsClip) {
          const length = Math.max(Math.ceil(count / HOP), Math.ceil(LEAST / HOP))
          const clip = ops.constantPadNd(samples, [0, length * HOP - count])
          const mels = await logMelSpectrogram(clip.unsqueeze(0), { nMels, length: null })
          if (length <= steps) return { features: mels, lengths: [length] }
          const features = ops.constantPadNd(mels, [0, windows * steps - length]).reshape([nMels, windows, steps])
          return { features: features.transpose(0, 1).contiguous(), lengths }
        }
        if (wholeClip) {
          const mels = await logMelSpectrogram(whole, { nMels, length: null })
          const features = mels.reshape([nMels, windows, steps]).transpose(0, 1).contiguous()
          return { features, lengths }
        }
        return { features: await logMelSpectrogram(whole.reshape([windows, window]), { nMels, length: null }), lengths }
      }),
  }
}
