import { scope, tensor } from '../tensor/index.js'
import { resizeImage } from '../vision/index.js'
import { pngAddress } from '../vision/png.js'
import type { ChatView } from './chat-model.js'

/** Largest side of a tile or frame in a response, in pixels. */
const SIDE = 224

/** Convert the tiles and frames that a model encoded to PNG `data:` URLs. */
export async function viewsOf(views: readonly ChatView[]): Promise<object[]> {
  const responses: object[] = []
  for (const { kind, grid, frames, pixels, tiles, side } of views) {
    responses.push({ kind, grid, frames, tiles: await pngUrls(pixels, tiles, side) })
  }
  return responses
}

async function pngUrls(pixels: Uint8Array, tiles: number, side: number): Promise<string[]> {
  const small = Math.min(side, SIDE)
  const bytes = small === side ? pixels : await scaled(pixels, tiles, side, small)
  const size = 3 * small * small
  const all: string[] = []
  for (let i = 0; i < tiles; i++) all.push(await pngAddress(bytes.subarray(i * size, (i + 1) * size), small, small))
  return all
}

const scaled = (pixels: Uint8Array, tiles: number, side: number, to: number): Promise<Uint8Array> =>
  scope(async () => {
    const small = await resizeImage(tensor(pixels, { shape: [tiles, side, side, 3] }), [to, to], { filter: 'bilinear' })
    return (await small.data()) as Uint8Array
  })
