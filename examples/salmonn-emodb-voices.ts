/** Equalize recordings of several actors to the same average spectrum, for salmonn-emodb-data.ts. */
import * as vt from 'voxtorch'
import * as salmonn from 'voxtorch/salmonn'

const [FRAME, MOST] = [512, 4]

/** Samples of 16 kHz, or as many as if the voice were faster. */
export async function listen(path: string, speed = 1): Promise<vt.Tensor> {
  return vt.scope(async () => {
    const { samples } = await vt.readAudio(path, { sampleRate: Math.round(salmonn.SALMONN_RATE / speed) })
    return samples.flatten()
  })
}

/** The mean logarithm of the power in each frequency, over all frames of clips: float32 [257]. */
export async function averageSpectrum(paths: readonly string[]): Promise<vt.Tensor> {
  return vt.scope(async () => {
    const spectra = await Promise.all(
      paths.map((path) =>
        vt.scope(async () => {
          const frames = (await listen(path)).unfold(0, FRAME, FRAME / 2).mul(vt.ops.hannWindow(FRAME))
          return vt.ops.fftRfft(frames).abs().square().add(1e-6).log().mean([0])
        }),
      ),
    )
    return vt.stack(spectra).mean([0])
  })
}

/**
 * A clip [samples] filtered so that frequencies are louder by `gain`, the logarithm of a power [257], and brought back to
 * its highest peak. No frequency changes by more than a factor of e^2.
 */
export function equalised(clip: vt.Tensor, gain: vt.Tensor): vt.Tensor {
  return vt.scope(() => {
    const spectrum = vt.ops.fftRfft(clip)
    const at = gain.clamp(-MOST, MOST).toArray() as number[]
    const factors = Float32Array.from({ length: spectrum.size(0) }, (_, i) => {
      const place = (i * (at.length - 1)) / (spectrum.size(0) - 1)
      const below = Math.min(Math.floor(place), at.length - 2)
      return Math.exp((at[below]! + (place - below) * (at[below + 1]! - at[below]!)) / 2)
    })
    const filtered = vt.ops.fftIrfft(spectrum.mul(vt.tensor(factors)), clip.size(0))
    return filtered.mul(clip.abs().max().div(filtered.abs().max().clampMin(1e-6)))
  })
}
