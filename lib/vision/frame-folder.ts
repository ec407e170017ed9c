import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { DataError } from '../base/errors.js'
import type { Tensor } from '../tensor/index.js'
import { openImage } from './image.js'
import type { FrameSource } from './video.js'

const IMAGE = /^[^.].*\.(?:jpe?g|png|webp|gif|tiff?|avif|bmp|ppm|pgm)$/i

/** A folder of images of one size as the frames of a video. */
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
    const names = (await readdir(path)).filter((name) => IMAGE.test(name))
    // Numbers in names are compared as numbers; names that are then equal by their characters.
    const order = new Intl.Collator('en', { numeric: true })
    names.sort((a, b) => order.compare(a, b) || (a < b ? -1 : 1))
    if (names.length === 0) {
      throw new DataError(
        `${path}: expected a folder of images (JPEG, PNG, WebP, GIF, TIFF, AVIF, BMP, PPM or PGM), found none`,
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
        // Reads the next frame while the caller uses this one.
        next = read(places[i + 1])
        next?.catch(() => {})
        const [height, width] = pixels.shape as [number, number]
        if (height !== this.height || width !== this.width) {
          const what = `expected ${this.width} × ${this.height} pixels, as the folder's first image has, got ${width} × ${height}`
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

  decodeAudio(): never {
    throw new DataError(`${this.file}: expected a video with audio, got a folder of images`, { file: this.file })
  }

  async close(): Promise<void> {}

  #path(place: number): string {
    return join(this.file, this.#names[place]!)
  }
}
