import { argumentError, requireNumber, requireWhole } from '../base/check.js'
import { ConfigError, ShapeError } from '../base/errors.js'
import { type ChangesOf, settings, unchecked } from '../base/settings.js'
import { Generator, noGrad, ops, rand, scope, Tensor } from '../tensor/index.js'
import { MEL_FILTERS, melFilterBank } from './features.js'

/**
 * Audio from spectrograms without a trained vocoder, for a quick check by listening. The quality is low: voices have a metallic timbre.
 */

/** Exclusive upper bound of `iterations`; more than a few hundred do not improve the result. */
const MOST = 10_001

const GRIFFIN_LIM = settings({
  /** FFT size. Default 2 · (bins - 1). */
  nFft: { type: 'integer', min: 2 },
  /** Hop between frames, in samples. Default a quarter of nFft. */
  hopLength: { type: 'integer', min: 1 },
  /** Length of the Hann window, centered in the FFT. Default nFft. */
  winLength: { type: 'integer', min: 1 },
  /** Padding of `spectrogram` at each end, in samples. Default nFft / 2. */
  padding: { type: 'integer' },
  /** Padding mode of `spectrogram`. Default `'reflect'`. */
  padMode: { type: ['reflect', 'constant', 'replicate'], default: 'reflect' },
  /** Number of iterations. Default 32. */
  iterations: { type: 'integer', below: MOST, default: 32 },
  /** Momentum of the fast algorithm, in [0, 1); 0 is the original algorithm. Default 0.99. */
  momentum: { type: 'fraction', default: 0.99 },
  /** Initial phases: zeros or random. Default `'random'`. */
  init: { type: ['zero', 'random'], default: 'random' },
  /** Seed of the random phases. Default: the global generator. */
  seed: { type: unchecked<number | bigint>() },
})

/** Options of {@link griffinLim}. @interface */
export type GriffinLimOptions = ChangesOf<typeof GRIFFIN_LIM.table>

/**
 * Estimate samples from the magnitudes of a spectrogram: [..., bins, frames] → [..., n]. Pass the options that
 * `spectrogram(samples, { power: false })` was called with. Computed in float32, or float64 for float64.
 *
 * Griffin and Lim, "Signal estimation from modified short-time Fourier transform", 1984; the momentum is that of Perraudin et
 * al., "A fast Griffin-Lim algorithm", 2013. Equal to librosa.griffinlim for the same initial phases.
 *
 * ```ts
 * const magnitudes = await inverseMelSpectrogram(mel, 22050, { nFft: 1024, fMax: 8000, log: 'ln' })
 * const samples = await griffinLim(magnitudes, { hopLength: 256, padding: 384 })
 * ```
 * @throws ShapeError if the number of bins is not nFft / 2 + 1; ConfigError if the windows do not cover all samples
 */
export async function griffinLim(magnitudes: Tensor, options: GriffinLimOptions = {}): Promise<Tensor> {
  const where = 'griffinLim'
  requireSpectrum(where, 'magnitudes', magnitudes)
  const bins = magnitudes.size(-2)
  const values = GRIFFIN_LIM.read(where, options)
  const { nFft = 2 * (bins - 1), iterations, momentum, init, padMode, seed } = values
  requireWhole(where, 'nFft', nFft, 2)
  const { hopLength = Math.max(1, Math.floor(nFft / 4)), winLength = nFft, padding = Math.floor(nFft / 2) } = values
  if (bins !== Math.floor(nFft / 2) + 1) {
    throw new ShapeError(
      `${where}: magnitudes: expected ${Math.floor(nFft / 2) + 1} bins for nFft ${nFft}, got ${bins}`,
      {},
    )
  }
  if (winLength > nFft || hopLength > winLength) {
    throw new ConfigError(
      `${where}: expected hopLength <= winLength <= nFft, got ${hopLength}, ${winLength} and ${nFft}`,
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
    throw new ShapeError(
      `${where}: magnitudes: expected more frames than the padding of ${padding} at each end takes, got ${frames}`,
      {},
    )
  }
  return scope(() =>
    noGrad(async () => {
      const dtype = magnitudes.dtype === 'float64' ? 'float64' : 'float32'
      const wanted = magnitudes.detach().to({ dtype }).reshape([-1, bins, frames])
      const place = { device: wanted.device, dtype } as const
      const window = centered(ops.hannWindow(winLength, true, place), nFft)
      const envelope = overlapped(window.square().reshape([1, nFft, 1]).expand([1, nFft, frames]), hopLength)
      const covered = envelope.narrow(1, padding, length)
      if ((covered.min().item() as number) < 1e-8) {
        throw new ConfigError(
          `${where}: expected windows that cover all samples. Use a hopLength below ${hopLength} or a padding above ${padding}.`,
          { hopLength, padding },
        )
      }
      const synthesize = async (spectrum: Tensor): Promise<Tensor> => {
        const parts = (await ops.async.fftIrfft(spectrum, nFft, 1)).mul(window.unsqueeze(1))
        return overlapped(parts, hopLength).narrow(1, padding, length).div(covered)
      }
      const analyze = (samples: Tensor): Promise<Tensor> => {
        const padded = ops.pad(samples.unsqueeze(1), [padding, padding], padMode).squeeze(1)
        return ops.async.stft(padded, nFft, { hopLength, window, center: false, onesided: true, returnComplex: true })
      }

      let phases = firstPhases(wanted, init, seed)
      let before: Tensor | undefined
      for (let i = 0; i < iterations; i += 1) {
        const [next, rebuilt] = await scope(async () => {
          const now = await analyze(await synthesize(wanted.mul(phases)))
          const ahead = before ? now.sub(before.mul(momentum / (1 + momentum))) : now
          return [ahead.div(ahead.abs().add(TINY)), now] as const
        })
        phases.dispose()
        before?.dispose()
        phases = next
        before = rebuilt
      }
      const samples = await synthesize(wanted.mul(phases))
      return samples.reshape([...magnitudes.shape.slice(0, -2), length])
    }),
  )
}

/** Smallest normal float32, added to magnitudes before division. */
const TINY = 1.1754943508222875e-38

function firstPhases(magnitudes: Tensor, init: 'zero' | 'random', seed: number | bigint | undefined): Tensor {
  const { device, dtype } = magnitudes
  if (init === 'zero') return ops.complex(ops.onesLike(magnitudes), ops.zerosLike(magnitudes))
  const generator = seed === undefined ? undefined : new Generator({ seed, device })
  const angles = rand(magnitudes.shape, { device, dtype, ...(generator && { generator }) }).mul(2 * Math.PI)
  generator?.dispose()
  return ops.complex(angles.cos(), angles.sin())
}

/** Zero-pad a window on both sides. */
function centered(window: Tensor, size: number): Tensor {
  const before = Math.floor((size - window.size(0)) / 2)
  return ops.constantPadNd(window, [before, size - window.size(0) - before])
}

/** Overlap-add frames [batch, n, frames] at a distance of `hop` samples: [batch, samples]. */
function overlapped(frames: Tensor, hop: number): Tensor {
  const [, n, count] = frames.shape as [number, number, number]
  const length = (count - 1) * hop + n
  return ops.col2im(frames, [1, length], [1, n], [1, 1], [0, 0], [1, hop]).flatten(1)
}

const INVERSE_MEL = MEL_FILTERS.extend({
  /** FFT size. */
  nFft: { type: 'integer', min: 2, required: true },
  /** Logarithm that `melSpectrogram` applied: `'ln'`, `'log10'` or `'none'`. Default `'none'`. */
  log: { type: ['none', 'ln', 'log10'], default: 'none' },
  /** Whether the mel bands are sums of |X|². Default false: sums of |X|, the input of vocoders. */
  power: { type: unchecked<boolean>(), default: false },
  /** Number of iterations. Default 200. */
  iterations: { type: 'integer', min: 1, below: MOST, default: 200 },
})

/** Options of {@link inverseMelSpectrogram}. @interface */
export type InverseMelOptions = ChangesOf<typeof INVERSE_MEL.table>

/**
 * Estimate non-negative magnitudes from a mel spectrogram: [..., nMels, frames] → [..., nFft / 2 + 1, frames]. Pass the options of
 * `melSpectrogram`. Each iteration reduces the squared error (Lee and Seung, "Algorithms for Non-negative Matrix Factorization",
 * 2000).
 */
export async function inverseMelSpectrogram(
  mel: Tensor,
  sampleRate: number,
  options: InverseMelOptions,
): Promise<Tensor> {
  const where = 'inverseMelSpectrogram'
  requireSpectrum(where, 'mel', mel)
  requireNumber(where, 'sampleRate', sampleRate)
  const { nFft, log, power, iterations, ...filterOptions } = INVERSE_MEL.read(where, options)
  return scope(() =>
    noGrad(async () => {
      const dtype = mel.dtype === 'float64' ? 'float64' : 'float32'
      const bands = mel.size(-2)
      const filters = melFilterBank(nFft, bands, sampleRate, filterOptions).to({ device: mel.device, dtype }) // [bands, bins]
      let energies = mel.detach().to({ dtype })
      if (log !== 'none') energies = log === 'ln' ? energies.exp() : ops.pow(ops.fullLike(energies, 10), energies)
      const numerator = await ops.async.matmul(filters.t(), energies)
      // Initial estimate: the energy of each band spread over its filter.
      let estimate = numerator.div(filters.sum([0]).clamp(TINY).unsqueeze(1))
      for (let i = 0; i < iterations; i += 1) {
        const next = await scope(async () => {
          const bandsNow = await ops.async.matmul(filters, estimate)
          const denominator = await ops.async.matmul(filters.t(), bandsNow)
          return estimate.mul(numerator).div(denominator.clamp(1e-30))
        })
        estimate.dispose()
        estimate = next
      }
      return power ? estimate.sqrt() : estimate
    }),
  )
}

function requireSpectrum(where: string, name: string, value: unknown): void {
  if (!(value instanceof Tensor)) throw argumentError(where, name, 'a tensor', value)
  if (value.ndim < 2 || value.size(-1) === 0 || value.size(-2) === 0 || !value.isFloatingPoint()) {
    throw new ShapeError(
      `${where}: ${name}: expected floating-point [..., ${name === 'mel' ? 'bands' : 'bins'}, frames], got ${value.dtype} [${value.shape}]`,
      {},
    )
  }
}
