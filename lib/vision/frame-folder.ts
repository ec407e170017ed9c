import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { DataError } from '../base/errors.js'
import type { Tensor } from '../tensor/index.js'
import { openImage } from './image.js'
import type { FrameSource } from './video.js'

const PICTURE = /^[^.].*\.(?:jpe?g|png|webp|gif|tiff?|avif|bmp|ppm|pgm)$/i

/** Pictures of one size, a frame each. */
export class FrameFolder implements FrameSource {
  readonly codec = null
  readonly times = null
  readonly audio = null
  readonly #names: readonly string[]
  readonly #maxPixels: number

  private constructor(
    readonly file: string,
    names: readonly string[],
    readonly rate: number | null,
    maxPixels: number,
    readonly width: number,
    readonly height: number,
  ) {
    this.#names = names
    this.#maxPixels = maxPixels
  }

  static async open(path: string, rate: number | null, maxPixels: number, signal?: AbortSignal): Promise<FrameFolder> {
    const names = (await readdir(path)).filter((name) => PICTURE.test(name))
    // Numbers in names count as numbers, and names that then are alike by their letters.
    const order = new Intl.Collator('en', { numeric: true })
    names.sort((a, b) => order.compare(a, b) || (a < b ? -1 : 1))
    if (names.length === 0) {
      throw new DataError(
        `${path}: it is a folder without pictures (JPEG, PNG, WebP, GIF, TIFF, AVIF, BMP, PPM, PGM)`,
        { file: path },
      )
    }
    const first = await openImage('openVideo', join(path, names[0]!), { maxPixels }, signal)
    const [height, width] = first.shape as [number, number]
    first.dispose()
    return new FrameFolder(path, names, rate, maxPixels, width, height)
  }

  get frameCount(): number {
    return this.#names.length
  }

  async *frames(places: readonly number[], signal?: AbortSignal): AsyncGenerator<{ place: number; pixels: Tensor }> {
    const read = (place: number | undefined) =>
      place === undefined
        ? undefined
        : openImage('openVideo', this.#path(place), { maxPixels: this.#maxPixels }, signal)
    let next = read(places[0])
    try {
      for (const [i, place] of places.entries()) {
        const pixels = (await next)!
        // One ahead, while this one is used.
        next = read(places[i + 1])
        next?.catch(() => {})
        const [height, width] = pixels.shape as [number, number]
        if (height !== this.height || width !== this.width) {
          const what = `it is ${width} × ${height} pixels, the first of its folder ${this.width} × ${this.height}`
          throw new DataError(`${this.#path(place)}: ${what}`, { file: this.#path(place), width, height })
        }
        yield { place, pixels }
      }
    } finally {
      await next?.then(
        (unused) => unused.dispose(),
        () => {},
      )
    }
  }

  sound(): never {
    throw new DataError(`${this.file}: a folder of pictures has no sound`, { file: this.file })
  }

  async close(): Promise<void> {}

  #path(place: number): string {
    return join(this.file, this.#names[place]!)
  }
}
