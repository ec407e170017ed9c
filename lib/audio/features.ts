import { requireNumber, requireOptions, requireWhole } from '../base/check.js'
import { op, opAsync } from '../native/call.js'
import type { Generator, Tensor } from '../tensor/index.js'
import { requireSamples } from './resample.js'

/**
 * Spectral features. All take samples [..., n], clips of one length at once, and compute on the samples' device: CUDA keeps
 * windows and filters after the first call, and nothing waits for it. They run on the executor and are differentiable.
 * float32 samples on the CPU that need no gradient are computed in float64 inside, in one pass over the clip; everything
 * else in the samples' dtype, also under autocast.
 */

export type WindowName = 'hann' | 'hamming' | 'povey' | 'blackman' | 'rectangular'

export interface MelFilterBankOptions {
  /** Where the lowest filter begins, in Hz. Default 0. */
  fMin?: number
  /** Where the highest filter ends, in Hz. Default half the sample rate. */
  fMax?: number
  /** Slaney's scale is linear below 1 kHz (librosa, Whisper); HTK's is 2595 log10(1 + f / 700). Default `'slaney'`. */
  melScale?: 'slaney' | 'htk'
  /** `'slaney'`: each filter has area 2 / width; `'none'`: each has peak 1. Default `'slaney'`. */
  norm?: 'slaney' | 'none'
}

const melFilterBankOp = op('voxtorch::mel_filter_bank')

/**
 * Triangular filters over the bins of a spectrum: float32 [nMels, nFft / 2 + 1], computed in float64. Equal to
 * librosa.filters.mel, and with `(400, 80, 16000)` to the filters that Whisper was published with.
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
  requireOptions('melFilterBank', options, MEL_FILTERS)
  const { fMin, fMax, melScale, norm } = options
  return melFilterBankOp(nFft, nMels, sampleRate, { fMin, fMax, melScale, norm })
}

export interface LogMelSpectrogramOptions {
  /** Bands: 80 for Whisper up to large-v2, 128 for large-v3. Default 80. */
  nMels?: number
  /** Samples that the clip is cut or padded with zeros to; null leaves it as it is. Default 480000, 30 seconds. */
  length?: number | null
}

const whisperLogMelOp = opAsync('voxtorch::whisper_log_mel')

/**
 * Whisper's input: samples [..., n] at 16 kHz become [..., nMels, frames], 3000 frames for 30 seconds. A Hann window of
 * 25 ms each 10 ms with reflected ends, the power in Slaney mel bands, log10 of at least 1e-10, not more than 8 below the
 * clip's maximum, (x + 4) / 4. Equal to transformers' WhisperFeatureExtractor.
 *
 * Paper: Radford et al., "Robust Speech Recognition via Large-Scale Weak Supervision", 2022.
 *
 * @throws OperatorError for fewer than 400 samples
 */
export async function logMelSpectrogram(samples: Tensor, options: LogMelSpectrogramOptions = {}): Promise<Tensor> {
  requireSamples('logMelSpectrogram', samples)
  requireOptions('logMelSpectrogram', options, ['nMels', 'length'])
  const { nMels, length } = options
  return whisperLogMelOp(samples, { nMels, length })
}

export interface SpectrogramOptions {
  /** Size of the transform. Default 400. */
  nFft?: number
  /** Samples from one frame to the next. Default 160. */
  hopLength?: number
  /** Length of the window, which stands in the middle of the transform. Default nFft. */
  winLength?: number
  /** A periodic window. Default `'hann'`. */
  window?: WindowName
  /** Samples added at each end. Default nFft / 2, which centres frame i on sample i · hopLength. */
  padding?: number
  /** What is added. Default `'reflect'`. */
  padMode?: 'reflect' | 'constant' | 'replicate'
  /** True: |X|². False: sqrt(|X|² + magnitudeEpsilon). Default true. */
  power?: boolean
  /** Default 0. */
  magnitudeEpsilon?: number
  /** The logarithm that is taken of at least `floor`. Default `'none'`. */
  log?: 'none' | 'ln' | 'log10'
  /** Default 1e-10. */
  floor?: number
}

export interface MelSpectrogramOptions extends SpectrogramOptions, MelFilterBankOptions {
  /** Default 80. */
  nMels?: number
}

const SPECTROGRAM: readonly (keyof SpectrogramOptions)[] = [
  'nFft',
  'hopLength',
  'winLength',
  'window',
  'padding',
  'padMode',
  'power',
  'magnitudeEpsilon',
  'log',
  'floor',
]
const MEL_FILTERS: readonly (keyof MelFilterBankOptions)[] = ['fMin', 'fMax', 'melScale', 'norm']

const melSpectrogramOp = opAsync('voxtorch::mel_spectrogram')

/** Energies of the bins of a short-time Fourier transform: [..., n] becomes [..., nFft / 2 + 1, frames]. */
export async function spectrogram(samples: Tensor, options: SpectrogramOptions = {}): Promise<Tensor> {
  requireSamples('spectrogram', samples)
  requireOptions('spectrogram', options, SPECTROGRAM)
  return melSpectrogramOp(samples, 1, spectrumSettings(options))
}

/**
 * The same in mel bands: [..., nMels, frames]. With `{ nFft: 1024, hopLength: 256, padding: 384, power: false,
 * magnitudeEpsilon: 1e-9, fMax: 8000, log: 'ln', floor: 1e-5 }` at 22050 Hz it is what HiFi-GAN and BigVGAN vocoders read.
 */
export async function melSpectrogram(
  samples: Tensor,
  sampleRate: number,
  options: MelSpectrogramOptions = {},
): Promise<Tensor> {
  requireSamples('melSpectrogram', samples)
  requireNumber('melSpectrogram', 'sampleRate', sampleRate)
  requireOptions('melSpectrogram', options, ['nMels', ...SPECTROGRAM, ...MEL_FILTERS])
  const { nMels = 80, fMin, fMax, melScale, norm } = options
  return melSpectrogramOp(samples, sampleRate, { ...spectrumSettings(options), nMels, fMin, fMax, melScale, norm })
}

function spectrumSettings(options: SpectrogramOptions) {
  const { nFft, hopLength, winLength, window, padding, padMode, power, magnitudeEpsilon, log, floor } = options
  return { nFft, hopLength, winLength, window, padding, padMode, power, magnitudeEpsilon, log, floor }
}

export interface KaldiFbankOptions {
  /** In Hz. Default 16000. */
  sampleRate?: number
  /** Default 23, Kaldi's; BEATs reads 128. */
  nMels?: number
  /** In milliseconds. Default 25. */
  frameLength?: number
  /** In milliseconds. Default 10. */
  frameShift?: number
  /** A symmetric window. Default `'povey'`, a Hann window to the power of 0.85. */
  window?: WindowName
  /** Of the `'blackman'` window. Default 0.42. */
  blackmanCoefficient?: number
  /** x[i] - preemphasis · x[i - 1] within each frame. Default 0.97. */
  preemphasis?: number
  /** Subtract each frame's mean. Default true. */
  removeDc?: boolean
  /** True: only frames that fit. False: one for each shift, with mirrored ends. Default true. */
  snipEdges?: boolean
  /** Fill frames with zeros to a power of two. Default true. */
  roundToPowerOfTwo?: boolean
  /** In Hz. Default 20. */
  fMin?: number
  /** In Hz; zero or less counts from half the sample rate. Default 0. */
  fMax?: number
  /** Standard deviation of the noise that is added to each sample of each frame. Default 0. */
  dither?: number
  /** Source of that noise. Default: the global one of the samples' device. The same seed of the CPU's gives the same noise
   * on every device. */
  generator?: Generator
  /** One more column, the log of each frame's energy: the first, or with `htkCompat` the last. Default false. */
  useEnergy?: boolean
  /** Measure it before pre-emphasis and window. Default true. */
  rawEnergy?: boolean
  /** The least energy. Default 1; 0 for none. */
  energyFloor?: number
  htkCompat?: boolean
  /** The natural logarithm of at least 1.19e-7. Default true. */
  log?: boolean
  /** True: |X|². False: |X|. Default true. */
  power?: boolean
  /** Subtract each column's mean over the clip. Default false. */
  subtractMean?: boolean
  /** Vocal tract length normalisation: the bend points in Hz and the factor. Default 100, -500 (from the top), 1. */
  vtlnLow?: number
  vtlnHigh?: number
  vtlnWarp?: number
  /** A clip that is shorter, in seconds, gives no frames. Default 0. */
  minDuration?: number
}

const kaldiFbankOp = opAsync('voxtorch::kaldi_fbank')

/**
 * Kaldi's filter bank features: samples [..., n] become [..., frames, nMels]. Every option and default of
 * torchaudio.compliance.kaldi.fbank, and its numbers. Kaldi's full scale is 32768: multiply samples within -1 and 1 by it
 * where a model was trained so (BEATs), and leave them where it was not (LanguageBind).
 *
 * Paper: Povey et al., "The Kaldi Speech Recognition Toolkit", 2011.
 *
 * @throws OperatorError for a clip shorter than a frame
 */
export async function kaldiFbank(samples: Tensor, options: KaldiFbankOptions = {}): Promise<Tensor> {
  requireSamples('kaldiFbank', samples)
  requireOptions('kaldiFbank', options, [
    'sampleRate',
    'nMels',
    'frameLength',
    'frameShift',
    'window',
    'blackmanCoefficient',
    'preemphasis',
    'removeDc',
    'snipEdges',
    'roundToPowerOfTwo',
    'fMin',
    'fMax',
    'dither',
    'generator',
    'useEnergy',
    'rawEnergy',
    'energyFloor',
    'htkCompat',
    'log',
    'power',
    'subtractMean',
    'vtlnLow',
    'vtlnHigh',
    'vtlnWarp',
    'minDuration',
  ])
  return kaldiFbankOp(samples, { ...options })
}
