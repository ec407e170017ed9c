import { misuse, requireNumber, requireOneOf, requireOptions, requireWhole } from '../base/check.js'
import { ConfigError, ShapeError } from '../base/errors.js'
import { Generator, noGrad, ops, rand, scope, Tensor } from '../tensor/index.js'
import { type MelFilterBankOptions, melFilterBank } from './features.js'

/**
 * Sound from spectrograms without a trained vocoder, so that what was trained can be heard at once. Not for good sound:
 * voices come out as from a tin.
 */

export interface GriffinLimOptions {
  /** Size of the transform. Default 2 · (bins - 1). */
  nFft?: number
  /** Samples from one frame to the next. Default a quarter of nFft. */
  hopLength?: number
  /** Length of the Hann window, which stands in the middle of the transform. Default nFft. */
  winLength?: number
  /** Samples that `spectrogram` added at each end. Default nFft / 2. */
  padding?: number
  /** What it added. Default `'reflect'`. */
  padMode?: 'reflect' | 'constant' | 'replicate'
  /** Default 32. */
  iterations?: number
  /** Of the fast form of the algorithm, from 0 (the first one) to below 1. Default 0.99. */
  momentum?: number
  /** Phases of the beginning, each 0 or each drawn. Default `'random'`. */
  init?: 'zero' | 'random'
  /** Of what is drawn. Default: the default generator goes on. */
  seed?: number | bigint
}

const GRIFFIN_LIM: readonly (keyof GriffinLimOptions)[] = [
  'nFft',
  'hopLength',
  'winLength',
  'padding',
  'padMode',
  'iterations',
  'momentum',
  'init',
  'seed',
]

/**
 * Samples whose spectrogram has these magnitudes, as nearly as `iterations` find them: [..., bins, frames] → [..., n], with
 * the options that `spectrogram(samples, { power: false })` was made with. Computed in float32, float64 for float64.
 *
 * Griffin and Lim, "Signal estimation from modified short-time Fourier transform", 1984; the momentum is that of Perraudin et
 * al., "A fast Griffin-Lim algorithm", 2013. Equal to librosa.griffinlim for the same beginning.
 *
 * ```ts
 * const magnitudes = await inverseMelSpectrogram(mel, 22050, { nFft: 1024, fMax: 8000, log: 'ln' })
 * const samples = await griffinLim(magnitudes, { hopLength: 256, padding: 384 })
 * ```
 * @throws ShapeError for a number of bins that is not nFft / 2 + 1; ConfigError where frames leave samples uncovered
 */
export async function griffinLim(magnitudes: Tensor, options: GriffinLimOptions = {}): Promise<Tensor> {
  const where = 'griffinLim'
  requireSpectrum(where, 'magnitudes', magnitudes)
  requireOptions(where, options, GRIFFIN_LIM)
  const bins = magnitudes.size(-2)
  const {
    nFft = 2 * (bins - 1),
    iterations = 32,
    momentum = 0.99,
    init = 'random',
    padMode = 'reflect',
    seed,
  } = options
  requireWhole(where, 'nFft', nFft, 2)
  const { hopLength = Math.max(1, Math.floor(nFft / 4)), winLength = nFft } = options
  const { padding = Math.floor(nFft / 2) } = options
  requireWhole(where, 'hopLength', hopLength, 1)
  requireWhole(where, 'winLength', winLength, 1)
  requireWhole(where, 'padding', padding)
  requireWhole(where, 'iterations', iterations)
  requireNumber(where, 'iterations', iterations, MOST)
  requireNumber(where, 'momentum', momentum, { least: 0, below: 1 })
  requireOneOf(where, 'init', init, ['zero', 'random'])
  requireOneOf(where, 'padMode', padMode, ['reflect', 'constant', 'replicate'])
  if (bins !== Math.floor(nFft / 2) + 1) {
    throw new ShapeError(
      `${where}: magnitudes has ${bins} bins, but nFft ${nFft} makes ${Math.floor(nFft / 2) + 1}`,
      {},
    )
  }
  if (winLength > nFft || hopLength > winLength) {
    throw new ConfigError(
      `${where}: hopLength ${hopLength} must be at most winLength ${winLength}, and that nFft ${nFft}`,
      {
        hopLength,
        winLength,
        nFft,
      },
    )
  }
  const frames = magnitudes.size(-1)
  const length = (frames - 1) * hopLength + nFft - 2 * padding
  if (length < 1) {
    throw new ShapeError(`${where}: ${frames} frames leave no samples between ${padding} of padding at each end`, {})
  }
  return scope(() =>
    noGrad(async () => {
      const dtype = magnitudes.dtype === 'float64' ? 'float64' : 'float32'
      const wanted = magnitudes.detach().to({ dtype }).reshape([-1, bins, frames])
      const place = { device: wanted.device, dtype } as const
      const window = centred(ops.hannWindow(winLength, true, place), nFft)
      const envelope = overlapped(window.square().reshape([1, nFft, 1]).expand([1, nFft, frames]), hopLength)
      const covered = envelope.narrow(1, padding, length)
      if ((covered.min().item() as number) < 1e-8) {
        throw new ConfigError(
          `${where}: the windows leave samples uncovered; take a smaller hopLength or a larger padding than ${padding}`,
          { hopLength, padding },
        )
      }
      const heard = async (spectrum: Tensor): Promise<Tensor> => {
        const parts = (await ops.async.fftIrfft(spectrum, nFft, 1)).mul(window.unsqueeze(1))
        return overlapped(parts, hopLength).narrow(1, padding, length).div(covered)
      }
      const seen = (samples: Tensor): Promise<Tensor> => {
        const padded = ops.pad(samples.unsqueeze(1), [padding, padding], padMode).squeeze(1)
        return ops.async.stft(padded, nFft, { hopLength, window, center: false, onesided: true, returnComplex: true })
      }

      let phases = firstPhases(wanted, init, seed)
      let before: Tensor | undefined
      for (let i = 0; i < iterations; i += 1) {
        const [next, rebuilt] = await scope(async () => {
          const now = await seen(await heard(wanted.mul(phases)))
          const ahead = before ? now.sub(before.mul(momentum / (1 + momentum))) : now
          return [ahead.div(ahead.abs().add(TINY)), now] as const
        })
        phases.dispose()
        before?.dispose()
        phases = next
        before = rebuilt
      }
      const samples = await heard(wanted.mul(phases))
      return samples.reshape([...magnitudes.shape.slice(0, -2), length])
    }),
  )
}

/** Iterations; more than a few hundred change nothing. */
const MOST = { least: 0, below: 10_001 }
/** Below which a number has no phase. */
const TINY = 1.1754943508222875e-38

function firstPhases(magnitudes: Tensor, init: 'zero' | 'random', seed: number | bigint | undefined): Tensor {
  const { device, dtype } = magnitudes
  if (init === 'zero') return ops.complex(ops.onesLike(magnitudes), ops.zerosLike(magnitudes))
  const generator = seed === undefined ? undefined : new Generator({ seed, device })
  const angles = rand(magnitudes.shape, { device, dtype, ...(generator && { generator }) }).mul(2 * Math.PI)
  generator?.dispose()
  return ops.complex(angles.cos(), angles.sin())
}

/** With zeros on both sides. */
function centred(window: Tensor, size: number): Tensor {
  const before = Math.floor((size - window.size(0)) / 2)
  return ops.constantPadNd(window, [before, size - window.size(0) - before])
}

/** Sums of frames [batch, n, frames] that begin `hop` samples after each other: [batch, samples]. */
function overlapped(frames: Tensor, hop: number): Tensor {
  const [, n, count] = frames.shape as [number, number, number]
  const length = (count - 1) * hop + n
  return ops.col2im(frames, [1, length], [1, n], [1, 1], [0, 0], [1, hop]).flatten(1)
}

export interface InverseMelOptions extends MelFilterBankOptions {
  /** Size of the transform. */
  nFft: number
  /** What `melSpectrogram` took the logarithm of: `'ln'`, `'log10'` or `'none'`. Default `'none'`. */
  log?: 'none' | 'ln' | 'log10'
  /** Whether the mel bands are sums of |X|². Default false: of magnitudes, as vocoders read them. */
  power?: boolean
  /** Default 200. */
  iterations?: number
}

const INVERSE_MEL: readonly (keyof InverseMelOptions)[] = [
  'nFft',
  'log',
  'power',
  'iterations',
  'fMin',
  'fMax',
  'melScale',
  'norm',
]

/**
 * Magnitudes, none below 0, whose mel bands come near to `mel`: [..., nMels, frames] → [..., nFft / 2 + 1, frames], with the
 * options that `melSpectrogram` was given. Each iteration lowers the square of what is left (Lee and Seung, "Algorithms for
 * Non-negative Matrix Factorization", 2000).
 */
export async function inverseMelSpectrogram(
  mel: Tensor,
  sampleRate: number,
  options: InverseMelOptions,
): Promise<Tensor> {
  const where = 'inverseMelSpectrogram'
  requireSpectrum(where, 'mel', mel)
  requireNumber(where, 'sampleRate', sampleRate)
  requireOptions(where, options, INVERSE_MEL)
  const { nFft, log = 'none', power = false, iterations = 200, fMin, fMax, melScale, norm } = options
  requireWhole(where, 'nFft', nFft, 2)
  requireWhole(where, 'iterations', iterations, 1)
  requireNumber(where, 'iterations', iterations, MOST)
  requireOneOf(where, 'log', log, ['none', 'ln', 'log10'])
  const given = { fMin, fMax, melScale, norm }
  const filterOptions = Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined))
  return scope(() =>
    noGrad(async () => {
      const dtype = mel.dtype === 'float64' ? 'float64' : 'float32'
      const bands = mel.size(-2)
      const filters = melFilterBank(nFft, bands, sampleRate, filterOptions).to({ device: mel.device, dtype }) // [bands, bins]
      let energies = mel.detach().to({ dtype })
      if (log !== 'none') energies = log === 'ln' ? energies.exp() : ops.pow(ops.fullLike(energies, 10), energies)
      const pulled = await ops.async.matmul(filters.t(), energies)
      // Each band's energy spread over its filter, to begin with.
      let found = pulled.div(filters.sum([0]).clamp(TINY).unsqueeze(1))
      for (let i = 0; i < iterations; i += 1) {
        const next = await scope(async () => {
          const bandsNow = await ops.async.matmul(filters, found)
          const pushed = await ops.async.matmul(filters.t(), bandsNow)
          return found.mul(pulled).div(pushed.clamp(1e-30))
        })
        found.dispose()
        found = next
      }
      return power ? found.sqrt() : found
    }),
  )
}

function requireSpectrum(where: string, name: string, value: unknown): void {
  if (!(value instanceof Tensor)) throw misuse(where, name, 'a tensor', value)
  if (value.ndim < 2 || value.size(-1) === 0 || value.size(-2) === 0 || !value.isFloatingPoint()) {
    throw new ShapeError(
      `${where}: ${name} must be floating-point numbers [..., ${name === 'mel' ? 'bands' : 'bins'}, frames], not ${value.dtype} [${value.shape}]`,
      {},
    )
  }
}
