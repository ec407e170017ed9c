import { openClip, SPEECH_RATE } from '../../../audio/clip.js'
import { scope, type Tensor } from '../../../tensor/index.js'
import { keepForever } from '../../../tensor/scope.js'

/** Reads pieces of recordings at 16 kHz. A compressed file is decoded once, and kept until another file is requested. */
export class SourceAudio {
  #held: { file: string; samples: Tensor } | undefined

  /** Return float32 [n]: `seconds` from `start`, or less at the end of the file. @throws DataError for NaN and infinities */
  piece(file: string, start: number, seconds: number): Promise<Tensor> {
    return scope(async () => {
      if (this.#held?.file !== file) {
        this.dispose()
        const { samples, source } = await read({ path: file, start }, seconds)
        if (source?.format === 'wav') return samples
        this.#held = { file, samples: keepForever((await read(file)).samples) }
      }
      const { samples } = this.#held as { samples: Tensor }
      const from = Math.min(samples.size(0), Math.round(start * SPEECH_RATE))
      return samples.narrow(0, from, Math.min(samples.size(0) - from, Math.round(seconds * SPEECH_RATE)))
    })
  }

  [Symbol.dispose](): void {
    this.dispose()
  }

  /** Free the kept recording. */
  dispose(): void {
    this.#held?.samples.dispose()
    this.#held = undefined
  }
}

const read = (clip: Parameters<typeof openClip>[1], maxSeconds?: number) =>
  openClip({ where: 'SPECTRA' }, clip, { allowEmpty: true, maxSeconds })

/** Read a whole slice: a .npy file of [samples] at 16 kHz, or any file that `readAudio` supports. */
export const readSlice = (file: string): Promise<Float32Array> =>
  scope(async () => (await (await read(file)).samples.data()) as Float32Array)
