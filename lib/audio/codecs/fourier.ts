/** Discrete cosine transform of type IV: out[n] = sum of in[k] cos(pi/size (n + 1/2)(k + 1/2)); a power of two from 4 on. */
export class CosineTransform {
  readonly #half: number
  readonly #real: Float64Array
  readonly #imaginary: Float64Array
  /** exp(-i pi (8n + 1) / (8 size)). */
  readonly #twistReal: Float64Array
  readonly #twistImaginary: Float64Array
  readonly #rootReal: Float64Array
  readonly #rootImaginary: Float64Array
  readonly #reversed: Uint16Array

  constructor(readonly size: number) {
    const half = size / 2
    const bits = Math.log2(half)
    const angles = (count: number, angle: (i: number) => number, of: (angle: number) => number) =>
      Float64Array.from({ length: count }, (_, i) => of(angle(i)))
    const twist = (i: number) => (-Math.PI * (8 * i + 1)) / (8 * size)
    const root = (i: number) => (-2 * Math.PI * i) / half
    this.#half = half
    this.#real = new Float64Array(half)
    this.#imaginary = new Float64Array(half)
    this.#twistReal = angles(half, twist, Math.cos)
    this.#twistImaginary = angles(half, twist, Math.sin)
    this.#rootReal = angles(half / 2, root, Math.cos)
    this.#rootImaginary = angles(half / 2, root, Math.sin)
    this.#reversed = Uint16Array.from({ length: half }, (_, i) => {
      let reversed = 0
      for (let bit = 0; bit < bits; bit += 1) reversed |= ((i >> bit) & 1) << (bits - 1 - bit)
      return reversed
    })
  }

  /** Transform `values` in place. */
  run(values: Float64Array): void {
    const { size } = this
    const half = this.#half
    const re = this.#real
    const im = this.#imaginary
    for (let n = 0; n < half; n += 1) {
      const a = values[2 * n]!
      const b = values[size - 1 - 2 * n]!
      const c = this.#twistReal[n]!
      const s = this.#twistImaginary[n]!
      const to = this.#reversed[n]!
      re[to] = a * c - b * s
      im[to] = a * s + b * c
    }
    for (let width = 1; width < half; width *= 2) {
      const step = half / 2 / width
      for (let begin = 0; begin < half; begin += 2 * width) {
        for (let i = begin, k = 0; k < width; i += 1, k += 1) {
          const c = this.#rootReal[k * step]!
          const s = this.#rootImaginary[k * step]!
          const j = i + width
          const x = re[j]! * c - im[j]! * s
          const y = re[j]! * s + im[j]! * c
          re[j] = re[i]! - x
          im[j] = im[i]! - y
          re[i] = re[i]! + x
          im[i] = im[i]! + y
        }
      }
    }
    for (let n = 0; n < half; n += 1) {
      const c = this.#twistReal[n]!
      const s = this.#twistImaginary[n]!
      values[2 * n] = re[n]! * c - im[n]! * s
      values[size - 1 - 2 * n] = -(re[n]! * s + im[n]! * c)
    }
  }
}
