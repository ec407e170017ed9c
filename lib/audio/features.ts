import { requireNumber, requireWhole } from '../base/check.js'
import { type ChangesOf, settings, unchecked } from '../base/settings.js'
import { op, opAsync } from '../native/call.js'
import { type Generator, scope, type Tensor } from '../tensor/index.js'
import { requireSamples } from './resample.js'

/**
 * Spectral features. All functions take samples [..., n], batches of clips of one length, and compute on their device. On CUDA,
 * windows and filters are cached after the first call, and calls are asynchronous. They run on the executor and are
 * differentiable. float32 samples on the CPU without gradient are computed internally in float64; everything else in the
 * samples' dtype, also under autocast.
 */

export type WindowName = 'hann' | 'hamming' | 'povey' | 'blackman' | 'rectangular'

// The operators check the values and have the defaults.
const NUMBER = { type: unchecked<number>() } as const
const BOOLEAN = { type: unchecked<boolean>() } as const

export const MEL_FILTERS = settings({
  /** Lowest frequency, in Hz. Default 0. */
  fMin: NUMBER,
  /** Highest frequency, in Hz. Default half the sample rate. */
  fMax: NUMBER,
  /** Mel scale. Slaney's is linear below 1 kHz (librosa, Whisper); HTK's is 2595 log10(1 + f / 700). Default `'slaney'`. */
  melScale: { type: unchecked<'slaney' | 'htk'>() },
  /** Normalization. `'slaney'`: filters have peak 2 / width; `'none'`: peak 1. Default `'slaney'`. */
  norm: { type: unchecked<'slaney' | 'none'>() },
})

/** Options of {@link melFilterBank}. @interface */
export type MelFilterBankOptions = ChangesOf<typeof MEL_FILTERS.table>

const melFilterBankOp = op('voxtorch::mel_filter_bank')

/**
 * Return triangular mel filters over the bins of a spectrum: float32 [nMels, nFft / 2 + 1], computed in float64. Equal to
 * librosa.filters.mel, and with `(400, 80, 16000)` to the filters published with Whisper.
 * @throws ConfigError, OperatorError for a band outside 0 to half the sample rate
 */
export function melFilterBank(
  nFft: number,
  nMels: number,
  sampleRate: number,
  options: MelFilterBankOptions = {},
): Tensor {
  requireWhole('melFilterBank', 'nFft', nFft, 2)
  requireWhole('melFilterBank', 'nMels', nMels, 1)
  requireNumber('melFilterBank', 'sampleRate', sampleRate)
  return melFilterBankOp(nFft, nMels, sampleRate, MEL_FILTERS.read('melFilterBank', options))
}

const WHISPER = settings({
  /** Number of mel bands: 80 for Whisper up to large-v2, 128 for large-v3. Default 80. */
  nMels: NUMBER,
  /** Number of samples to cut or zero-pad the clip to; null keeps its length. Default 480000, 30 seconds. */
  length: { type: unchecked<number | null>() },
})

/** Options of {@link logMelSpectrogram}. @interface */
export type LogMelSpectrogramOptions = ChangesOf<typeof WHISPER.table>

const whisperLogMelOp = opAsync('voxtorch::whisper_log_mel')

/**
 * Compute Whisper's input from samples [..., n] at 16 kHz: [..., nMels, frames], 3000 frames for 30 seconds. Steps: Hann windows of
 * 25 ms every 10 ms with reflection padding, power in Slaney mel bands, log10 clamped to at least 1e-10 and to at most 8 below the
 * clip's maximum, (x + 4) / 4. Equal to transformers' WhisperFeatureExtractor.
 *
 * Paper: Radford et al., "Robust Speech Recognition via Large-Scale Weak Supervision", 2022.
 *
 * @throws OperatorError for fewer than 400 samples
 */
export async function logMelSpectrogram(samples: Tensor, options: LogMelSpectrogramOptions = {}): Promise<Tensor> {
  requireSamples('logMelSpectrogram', samples)
  return whisperLogMelOp(samples, WHISPER.read('logMelSpectrogram', options))
}

const SPECTROGRAM = settings({
  /** FFT size. Default 400. */
  nFft: NUMBER,
  /** Hop between frames, in samples. Default 160. */
  hopLength: NUMBER,
  /** Window length, centered in the FFT. Default nFft. */
  winLength: NUMBER,
  /** Periodic window. Default `'hann'`. */
  window: { type: unchecked<WindowName>() },
  /** Padding at each end, in samples. Default nFft / 2, which centers frame i on sample i · hopLength. */
  padding: NUMBER,
  /** Padding mode. Default `'reflect'`. */
  padMode: { type: unchecked<'reflect' | 'constant' | 'replicate'>() },
  /** True: |X|². False: sqrt(|X|² + magnitudeEpsilon). Default true. */
  power: BOOLEAN,
  /** Added to |X|² before the square root. Default 0. */
  magnitudeEpsilon: NUMBER,
  /** Logarithm, of values of at least `floor`. Default `'none'`. */
  log: { type: unchecked<'none' | 'ln' | 'log10'>() },
  /** Lower bound on values before the logarithm. Default 1e-10. */
  floor: NUMBER,
})

/** Options of {@link spectrogram}. @interface */
export type SpectrogramOptions = ChangesOf<typeof SPECTROGRAM.table>

const MEL_SPECTROGRAM = settings({
  /** Number of mel bands. Default 80. */
  nMels: { type: unchecked<number>(), default: 80 },
  ...SPECTROGRAM.table,
  ...MEL_FILTERS.table,
})

/** Options of {@link melSpectrogram}. @interface */
export type MelSpectrogramOptions = ChangesOf<typeof MEL_SPECTROGRAM.table>

const melSpectrogramOp = opAsync('voxtorch::mel_spectrogram')

/** Compute the spectrogram of samples [..., n] by short-time Fourier transform: [..., nFft / 2 + 1, frames]. */
export async function spectrogram(samples: Tensor, options: SpectrogramOptions = {}): Promise<Tensor> {
  requireSamples('spectrogram', samples)
  return melSpectrogramOp(samples, 1, SPECTROGRAM.read('spectrogram', options))
}

/**
 * Compute the mel spectrogram of samples [..., n]: [..., nMels, frames]. With `{ nFft: 1024, hopLength: 256, padding: 384, power:
 * false, magnitudeEpsilon: 1e-9, fMax: 8000, log: 'ln', floor: 1e-5 }` at 22050 Hz it is the input of HiFi-GAN and BigVGAN vocoders.
 */
export async function melSpectrogram(
  samples: Tensor,
  sampleRate: number,
  options: MelSpectrogramOptions = {},
): Promise<Tensor> {
  requireSamples('melSpectrogram', samples)
  requireNumber('melSpectrogram', 'sampleRate', sampleRate)
  return melSpectrogramOp(samples, sampleRate, MEL_SPECTROGRAM.read('melSpectrogram', options))
}

const KALDI = settings({
  /** Sample rate in Hz. Default 16000. */
  sampleRate: NUMBER,
  /** Number of mel bands. Default 23, as in Kaldi; BEATs uses 128. */
  nMels: NUMBER,
  /** Frame length in milliseconds. Default 25. */
  frameLength: NUMBER,
  /** Hop between frames in milliseconds. Default 10. */
  frameShift: NUMBER,
  /** Symmetric window. Default `'povey'`, a Hann window to the power of 0.85. */
  window: { type: unchecked<WindowName>() },
  /** Coefficient of the `'blackman'` window. Default 0.42. */
  blackmanCoefficient: NUMBER,
  /** Pre-emphasis within each frame: x[i] - preemphasis · x[i - 1]. Default 0.97. */
  preemphasis: NUMBER,
  /** Subtract each frame's mean. Default true. */
  removeDc: BOOLEAN,
  /** True: only complete frames. False: one frame per shift, with reflected ends. Default true. */
  snipEdges: BOOLEAN,
  /** Zero-pad frames to a power of two. Default true. */
  roundToPowerOfTwo: BOOLEAN,
  /** Lowest frequency in Hz. Default 20. */
  fMin: NUMBER,
  /** Highest frequency in Hz; values up to 0 are relative to half the sample rate. Default 0. */
  fMax: NUMBER,
  /** Standard deviation of the noise added to each sample of each frame. Default 0. */
  dither: NUMBER,
  /**
   * Generator of that noise. Default: the global generator of the samples' device. A CPU generator with the same seed gives the
   * same noise on every device.
   */
  generator: { type: unchecked<Generator>() },
  /** Add a column with the log energy of each frame: the first, or with `htkCompat` the last. Default false. */
  useEnergy: BOOLEAN,
  /** Compute the energy before pre-emphasis and windowing. Default true. */
  rawEnergy: BOOLEAN,
  /** Lower bound on the energy; 0 for none. Default 1. */
  energyFloor: NUMBER,
  /** Put the energy into the last column, as HTK. Default false. */
  htkCompat: BOOLEAN,
  /** Take the natural logarithm, of values of at least 1.19e-7. Default true. */
  log: BOOLEAN,
  /** True: |X|². False: |X|. Default true. */
  power: BOOLEAN,
  /** Subtract each column's mean over the clip. Default false. */
  subtractMean: BOOLEAN,
  /** Vocal tract length normalization: cutoff frequencies in Hz and warp factor. Default 100, -500 (from the top), 1. */
  vtlnLow: NUMBER,
  vtlnHigh: NUMBER,
  vtlnWarp: NUMBER,
  /** Clips shorter than this, in seconds, give no frames. Default 0. */
  minDuration: NUMBER,
})

/** Options of {@link kaldiFbank}. @interface */
export type KaldiFbankOptions = ChangesOf<typeof KALDI.table>

const kaldiFbankOp = opAsync('voxtorch::kaldi_fbank')

/**
 * Compute Kaldi's filter bank features of samples [..., n]: [..., frames, nMels], with the options, defaults and values of
 * torchaudio.compliance.kaldi.fbank. Kaldi's full scale is 32768: multiply samples from -1 to 1 by it for models that were trained
 * that way (BEATs), and leave them unchanged for others (LanguageBind).
 *
 * Paper: Povey et al., "The Kaldi Speech Recognition Toolkit", 2011.
 *
 * @throws OperatorError for a clip shorter than a frame
 */
export async function kaldiFbank(samples: Tensor, options: KaldiFbankOptions = {}): Promise<Tensor> {
  requireSamples('kaldiFbank', samples)
  return kaldiFbankOp(samples, KALDI.read('kaldiFbank', options))
}

const NEMO = settings({
  /** Sample rate in Hz. Default 16000. */
  sampleRate: NUMBER,
  /** Number of mel bands: 80 for the first Parakeet models, 128 for parakeet-tdt-0.6b-v2 and v3. Default 80. */
  nMels: NUMBER,
  /** FFT size. Default 512. */
  nFft: NUMBER,
  /** Hop between frames, in samples. Default 160. */
  hopLength: NUMBER,
  /** Window length in samples, centered in the FFT. Default 400. */
  winLength: NUMBER,
  /** Pre-emphasis of the clip: x[i] - preemphasis · x[i - 1]. Default 0.97. */
  preemphasis: NUMBER,
  /** Number of valid samples of each clip, int64 [...]. Default: all. */
  lengths: { type: unchecked<Tensor | null>() },
})

/** Options of {@link nemoLogMel}. @interface */
export type NemoLogMelOptions = ChangesOf<typeof NEMO.table>

export interface NemoLogMel {
  /** [..., frames, nMels], 0 where the mask is false. */
  inputFeatures: Tensor
  /** bool [..., frames], true for valid frames: one for each complete hop. The last frame is not valid. */
  attentionMask: Tensor
}

const nemoLogMelOp = opAsync('voxtorch::nemo_log_mel')

/**
 * Compute the input of Parakeet and of NeMo's other FastConformer models from samples [..., n]: pre-emphasis, symmetric Hann windows
 * centered on each hop with zeros around the clip, power in Slaney mel bands, ln(x + 2⁻²⁴), and each band normalized to mean 0 and
 * variance 1 over the valid frames. Equal to transformers' ParakeetFeatureExtractor.
 *
 * @throws OperatorError for a clip shorter than two hops
 */
export async function nemoLogMel(samples: Tensor, options: NemoLogMelOptions = {}): Promise<NemoLogMel> {
  requireSamples('nemoLogMel', samples)
  const { lengths = null, ...rest } = NEMO.read('nemoLogMel', options)
  return nemoLogMelOp(samples, lengths, rest) as Promise<NemoLogMel>
}

const SEAMLESS = settings({
  /** Number of mel bands. Default 80. */
  nMels: NUMBER,
})

/** Options of {@link seamlessFeatures}. @interface */
export type SeamlessFeaturesOptions = ChangesOf<typeof SEAMLESS.table>

/**
 * Compute the input of w2v-BERT 2.0 from samples [..., n] at 16 kHz: [..., time, 2 nMels], a vector every 20 ms. Steps: Kaldi's filter
 * banks of samples times 32768, each band normalized over the clip to mean 0 and variance 1, two steps of 10 ms in one vector; an odd
 * step at the end is left out. Equal to transformers' SeamlessM4TFeatureExtractor.
 *
 * Paper: Barrault et al., "Seamless: Multilingual Expressive and Streaming Speech Translation", 2023.
 *
 * @throws OperatorError for a clip shorter than 560 samples
 */
export async function seamlessFeatures(samples: Tensor, options: SeamlessFeaturesOptions = {}): Promise<Tensor> {
  requireSamples('seamlessFeatures', samples)
  const { nMels = 80 } = SEAMLESS.read('seamlessFeatures', options)
  requireWhole('seamlessFeatures', 'nMels', nMels, 1)
  return scope(async () => {
    const bands = await kaldiFbank(samples.mul(32768), { nMels })
    const [mean, variance] = [bands.mean([-2], true), bands.var([-2], { correction: 1, keepdim: true })]
    const steps = bands.sub(mean).div(variance.add(1e-7).sqrt())
    const pairs = Math.floor(steps.size(-2) / 2)
    return steps.narrow(-2, 0, 2 * pairs).reshape([...steps.shape.slice(0, -2), pairs, 2 * nMels])
  })
}
