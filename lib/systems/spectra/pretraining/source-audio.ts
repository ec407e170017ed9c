import { readAudio } from '../../../audio/index.js'
import { DataError } from '../../../base/errors.js'
import { readNpy } from '../../../files/npy/npy.js'
import { scope, Tensor } from '../../../tensor/index.js'
import { SPECTRA_RATE } from './entry.js'

/** Pieces of recordings at 16 kHz. A compressed file is decoded once, and held until another one is asked for. */
export class SourceAudio {
  #held: { file: string; samples: Float32Array } | undefined

  /** Samples of `seconds` from `start` on, or what there is of them; NaN and infinities are a DataError. */
  async piece(file: string, start: number, seconds: number): Promise<Float32Array> {
    if (this.#held?.file !== file) {
      this.#held = undefined
      const { samples, format } = await read(file, { start, duration: seconds })
      if (format === 'wav') return finite(samples, file)
      this.#held = { file, samples: (await read(file)).samples }
    }
    const from = Math.round(start * SPECTRA_RATE)
    return finite(this.#held.samples.slice(from, from + Math.round(seconds * SPECTRA_RATE)), file)
  }
}

async function read(file: string, range: { start?: number; duration?: number } = {}) {
  return scope(async () => {
    const { samples, source } = await readAudio(file, { sampleRate: SPECTRA_RATE, ...range })
    return { samples: (await samples.data()) as Float32Array, format: source.format as string }
  })
}

/** A whole slice: a .npy file of [samples] at 16 kHz, or anything that `readAudio` reads. */
export async function readSlice(file: string): Promise<Float32Array> {
  if (!file.endsWith('.npy')) return finite((await read(file)).samples, file)
  const samples = await scope(async () => {
    const value = await readNpy(file)
    if (!(value instanceof Tensor) || value.ndim !== 1 || value.dtype.startsWith('complex')) {
      const found = value instanceof Tensor ? `${value.dtype} [${value.shape}]` : 'texts'
      throw new DataError(`${file} holds ${found}, not the samples of a clip: save them as [samples]`, { file })
    }
    return (await value.to({ dtype: 'float32' }).contiguous().data()) as Float32Array
  })
  return finite(samples, file)
}

function finite(samples: Float32Array, file: string): Float32Array {
  const bad = samples.findIndex((value) => !Number.isFinite(value))
  if (bad < 0) return samples
  throw new DataError(`${file}: sample ${bad} is ${samples[bad]}: mend the recording`, { file, sample: bad })
}
