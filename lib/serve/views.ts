import { scope, tensor } from '../tensor/index.js'
import { resizeImage } from '../vision/index.js'
import { pngAddress } from '../vision/png.js'
import type { ChatView } from './chat-model.js'

/** The longest side of a tile or frame as it is shown, in pixels. */
const SIDE = 224

/** What a model looked at, as pictures that a page shows. */
export async function viewsOf(views: readonly ChatView[]): Promise<object[]> {
  const shown: object[] = []
  for (const { kind, grid, frames, pixels, tiles, side } of views) {
    shown.push({ kind, grid, frames, tiles: await pictures(pixels, tiles, side) })
  }
  return shown
}

async function pictures(pixels: Uint8Array, tiles: number, side: number): Promise<string[]> {
  const shown = Math.min(side, SIDE)
  const small = shown === side ? pixels : await scaled(pixels, tiles, side, shown)
  const size = 3 * shown * shown
  const all: string[] = []
  for (let i = 0; i < tiles; i++) all.push(await pngAddress(small.subarray(i * size, (i + 1) * size), shown, shown))
  return all
}

const scaled = (pixels: Uint8Array, tiles: number, side: number, to: number): Promise<Uint8Array> =>
  scope(async () => {
    const small = await resizeImage(tensor(pixels, { shape: [tiles, side, side, 3] }), [to, to], { filter: 'bilinear' })
    return (await small.data()) as Uint8Array
  })
