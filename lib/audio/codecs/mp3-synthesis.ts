import { synthesisWindow } from './mp3-tables.js'

const BANDS = 32
const LINES = 18

/** Weights of the windowed IMDCT: [block type][36][18], and [12][6] for short blocks. */
const longWeights = [0, 1, 2, 3].map((type) =>
  type === 2 ? new Float32Array(0) : inverseTransform(36, (i) => longWindow(type, i)),
)
const shortWeights = inverseTransform(12, (i) => Math.sin((Math.PI / 12) * (i + 0.5)))

function longWindow(type: number, i: number): number {
  const slope = (at: number, length: number) => Math.sin((Math.PI / length) * (at + 0.5))
  // Start and stop blocks have one short slope, and are mirror images.
  const at = type === 3 ? 35 - i : i
  if (type === 0 || at < 18) return slope(at, 36)
  if (at < 24) return 1
  return at < 30 ? slope(at - 18, 12) : 0
}

function inverseTransform(size: number, window: (i: number) => number): Float32Array {
  const half = size / 2
  const weight = (i: number, k: number) => Math.cos((Math.PI / (2 * size)) * (2 * i + 1 + half) * (2 * k + 1))
  return Float32Array.from({ length: size * half }, (_, at) => {
    const i = Math.floor(at / half)
    return weight(i, at % half) * window(i)
  })
}

/** Cosines of the filter bank for even and odd outputs, each computed from 16 sums or differences of inputs. */
const cosines = Float32Array.from({ length: BANDS * 16 }, (_, at) => {
  const k = at % 16
  return Math.cos((Math.PI / 64) * Math.floor(at / 16) * (2 * k + 1))
})

/** Synthesis of samples from the spectra of a channel, granule by granule (ISO/IEC 11172-3, 2.4.3.4). */
export class Synthesis {
  /** Overlap of the previous block: [band][18]. */
  readonly #overlap = new Float32Array(BANDS * LINES)
  readonly #block = new Float32Array(36)
  /** The last 16 outputs of the cosine transform, 64 values each; `#at` is the newest. */
  readonly #history = new Float32Array(1024)
  #at = 0
  readonly #halves = new Float32Array(BANDS)
  readonly #outputs = new Float32Array(BANDS)

  /**
   * @param spectrum 576 values, which are overwritten
   * @param type block type; with `mixed` the two lowest bands have type 0
   * @param into receives 576 samples from `at`
   */
  run(spectrum: Float32Array, type: number, mixed: boolean, into: Float32Array, at: number): void {
    for (let band = 0; band < BANDS; band += 1) {
      const begin = band * LINES
      this.#invert(spectrum, begin, mixed && band < 2 ? 0 : type)
      const block = this.#block
      for (let i = 0; i < LINES; i += 1) {
        const sample = block[i]! + this.#overlap[begin + i]!
        // Frequency inversion of every second band.
        spectrum[begin + i] = band % 2 === 1 && i % 2 === 1 ? -sample : sample
        this.#overlap[begin + i] = block[i + LINES]!
      }
    }
    for (let i = 0; i < LINES; i += 1) this.#filter(spectrum, i, into, at + BANDS * i)
  }

  #invert(spectrum: Float32Array, begin: number, type: number): void {
    const block = this.#block.fill(0)
    if (type !== 2) {
      const weights = longWeights[type]!
      for (let i = 0, at = 0; i < 36; i += 1) {
        let sum = 0
        for (let k = 0; k < LINES; k += 1, at += 1) sum += weights[at]! * spectrum[begin + k]!
        block[i] = sum
      }
      return
    }
    for (let window = 0; window < 3; window += 1) {
      for (let i = 0, at = 0; i < 12; i += 1) {
        let sum = 0
        for (let k = 0; k < 6; k += 1, at += 1) sum += shortWeights[at]! * spectrum[begin + 3 * k + window]!
        const to = 6 + 6 * window + i
        block[to] = block[to]! + sum
      }
    }
  }

  /** Convert one sample of each band to 32 output samples. */
  #filter(samples: Float32Array, index: number, into: Float32Array, at: number): void {
    const halves = this.#halves
    for (let k = 0; k < 16; k += 1) {
      const a = samples[k * LINES + index]!
      const b = samples[(31 - k) * LINES + index]!
      halves[k] = a + b
      halves[16 + k] = a - b
    }
    const outputs = this.#outputs
    for (let j = 0; j < BANDS; j += 1) {
      const from = j % 2 === 0 ? 0 : 16
      const row = 16 * j
      let sum = 0
      for (let k = 0; k < 16; k += 1) sum += cosines[row + k]! * halves[from + k]!
      outputs[j] = sum
    }
    // The 64 cosines of the standard are these 32 and their mirror images.
    this.#at = (this.#at + 960) & 1023
    const history = this.#history
    const newest = this.#at
    for (let i = 0; i < 16; i += 1) {
      history[newest + i] = outputs[16 + i]!
      history[newest + 17 + i] = -outputs[31 - i]!
      history[newest + 48 + i] = -outputs[i]!
    }
    history[newest + 16] = 0
    for (let i = 33; i < 48; i += 1) history[newest + i] = -outputs[48 - i]!
    for (let j = 0; j < BANDS; j += 1) {
      let sum = 0
      for (let i = 0; i < 8; i += 1) {
        const even = (newest + 128 * i + j) & 1023
        const odd = (newest + 128 * i + 96 + j) & 1023
        sum += history[even]! * synthesisWindow[64 * i + j]! + history[odd]! * synthesisWindow[64 * i + 32 + j]!
      }
      into[at + j] = sum
    }
  }
}
