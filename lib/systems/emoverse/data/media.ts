import { createHash } from 'node:crypto'
import { isAbsolute, join } from 'node:path'
import type { AudioClip } from '../../../audio/clip.js'
import { argumentError, bytesOf } from '../../../base/check.js'
import { DataError } from '../../../base/errors.js'
import { contentHash } from '../../../kit/fingerprint.js'
import { tensorBytes } from '../../../tensor/bytes.js'
import { noGrad, ops, scope, Tensor, withDevice } from '../../../tensor/index.js'
import { type ImageInput, openVideo, readImage, sampleFrames, tileImage, Video } from '../../../vision/index.js'
import type { TileGrid } from '../../../vision/tile.js'
import type { EmoVerseQuestion } from './entry.js'

/**
 * A video: a file or a folder of frames, an open Video (which stays open), a uint8 tensor [frames, height, width, 3], or a list of images
 * as its frames.
 */
export type EmoVerseVideo = string | Video | Tensor | readonly ImageInput[]

/** An audio clip: a path or a part of a file in seconds, the bytes of a file, samples with their rate, or samples at 16 kHz. */
export type EmoVerseAudio = AudioClip

/** Settings that cut images and videos into tiles. */
export interface TilingRecipe {
  /** Side length of a tile in pixels. */
  size: number
  /** Maximum tiles of an image, without the thumbnail; one if the record also has a video, as in ms-swift. */
  maxTiles: number
  /** Whether a thumbnail of the whole image follows if it has several tiles. */
  thumbnail: boolean
  /** Frames per video, each of which is one tile. */
  frames: number
}

/** Tiles of an image or video, as the network receives them. */
export interface EmoVerseLook {
  kind: 'image' | 'video'
  /** RGB, uint8 [tiles, side, side, 3]. */
  pixels: Uint8Array
  tiles: number
  side: number
  /** Tile grid of an image; with several tiles, a thumbnail follows them. Null for a video. */
  grid: TileGrid | null
  /** Indices of a video's sampled frames, from 0. Null for an image. */
  frames: readonly number[] | null
}

/** An image or video whose tiles can be computed. */
export interface Medium {
  kind: 'image' | 'video'
  /** Return a hash of everything that its tiles depend on, without computing them; undefined for data in memory. */
  source(): Promise<string | undefined>
  look(signal?: AbortSignal): Promise<EmoVerseLook>
}

export interface MediaPlace {
  /** Base folder of relative paths. Default: the working directory. */
  mediaRoot?: string | undefined
}

/** Return a function that resolves relative paths. */
export const placeIn =
  (mediaRoot: string | undefined) =>
  (path: string): string =>
    mediaRoot === undefined || isAbsolute(path) ? path : join(mediaRoot, path)

/** Return the SHA-256 of texts and bytes, with their lengths as delimiters. */
export function keyOf(...parts: readonly (string | Uint8Array)[]): string {
  const hash = createHash('sha256')
  for (const part of parts) hash.update(`${part.length} `).update(part)
  return hash.digest('hex')
}

/**
 * Return the images and videos of a record in the order of their markers in its questions.
 * @throws DataError if the numbers of markers and media differ, naming both
 */
export function mediaOf(record: EmoVerseQuestion, recipe: TilingRecipe, { mediaRoot }: MediaPlace = {}): Medium[] {
  const { images = [], videos = [] } = record
  const here = placeIn(mediaRoot)
  const maxTiles = videos.length > 0 ? 1 : recipe.maxTiles
  const list = { '<image>': images.map((one) => imageOf(one, { ...recipe, maxTiles }, here)), '<video>': videos.map((one) => videoOf(one, recipe, here)) } // biome-ignore format: one line
  const texts = [...(record.history ?? []).map(([query]) => query), record.query]
  const markers = texts.flatMap((text) => text.match(/<image>|<video>/g) ?? []) as ('<image>' | '<video>')[]
  for (const marker of ['<image>', '<video>'] as const) {
    const found = markers.filter((one) => one === marker).length
    const given = list[marker].length
    if (found === given) continue
    const what = marker === '<image>' ? 'images' : 'videos'
    throw new DataError(`${what}: expected ${found} for ${found} markers ${marker}, got ${given}.`, {
      reason: 'markers',
      marker,
      markers: found,
      given,
    })
  }
  return markers.map((marker) => list[marker].shift() as Medium)
}

type Recipe = Pick<TilingRecipe, 'size' | 'maxTiles' | 'thumbnail'>

/** Run `look` on the CPU, whatever the default device is. */
const looking = (look: () => Promise<EmoVerseLook>): Promise<EmoVerseLook> =>
  noGrad(() => withDevice('cpu', () => scope(look)))

function imageOf(image: ImageInput, { size, maxTiles, thumbnail }: Recipe, here: (path: string) => string): Medium {
  const input = typeof image === 'string' ? here(image) : image
  return {
    kind: 'image',
    async source() {
      const recipe = `image ${size} ${maxTiles} ${thumbnail}`
      if (typeof input === 'string') return keyOf(recipe, await contentHash(input))
      const bytes = input instanceof ArrayBuffer ? bytesOf('readImage', 'image', input) : input
      return bytes instanceof Uint8Array ? keyOf(recipe, createHash('sha256').update(bytes).digest('hex')) : undefined
    },
    look: (signal) =>
      looking(async (): Promise<EmoVerseLook> => {
        const image = (await readImage(input, signal ? { signal } : {})).to({ device: 'cpu' })
        const { tiles, grid } = await tileImage(image, { size, maxTiles, thumbnail })
        const pixels = await tensorBytes(tiles)
        return { kind: 'image', pixels, tiles: tiles.size(0), side: size, grid, frames: null }
      }),
  }
}

function videoOf(video: EmoVerseVideo, { size, frames: count }: TilingRecipe, here: (path: string) => string): Medium {
  const input = typeof video === 'string' ? here(video) : video
  const cut = async (frames: Tensor, places: readonly number[]): Promise<EmoVerseLook> => {
    const tiles: Tensor[] = []
    for (let i = 0; i < frames.size(0); i++) {
      tiles.push((await tileImage(frames.select(0, i).to({ device: 'cpu' }), { size, maxTiles: 1 })).tiles)
    }
    const pixels = await tensorBytes(await ops.async.cat(tiles))
    return { kind: 'video', pixels, tiles: tiles.length, side: size, grid: null, frames: places }
  }
  const placesOf = (length: number) => sampleFrames(length, { count, method: 'segments' })
  const look = async (signal?: AbortSignal): Promise<EmoVerseLook> => {
    const options = signal ? { signal } : {}
    if (typeof input === 'string') {
      const opened = await openVideo(input, options)
      try {
        return await fromVideo(opened, input)
      } finally {
        await opened.close()
      }
    }
    if (input instanceof Video) return fromVideo(input, 'the video')
    if (input instanceof Tensor) {
      const places = placesOf(input.size(0))
      return cut(ops.stack(places.map((place) => input.select(0, place))), places)
    }
    if (!Array.isArray(input) || input.length === 0)
      throw argumentError('EmoVerse', 'videos', 'a path, a Video or frames', input)
    const places = placesOf(input.length)
    const looks: EmoVerseLook[] = []
    for (const place of places) {
      looks.push(await imageOf(input[place] as ImageInput, { size, maxTiles: 1, thumbnail: false }, here).look(signal))
    }
    const pixels = new Uint8Array(Buffer.concat(looks.map((one) => one.pixels)))
    return { kind: 'video', pixels, tiles: places.length, side: size, grid: null, frames: places }

    async function fromVideo(opened: Video, name: string): Promise<EmoVerseLook> {
      if (opened.frameCount === 0)
        throw new DataError(`${name}: expected at least one frame, got none.`, { file: name })
      const places = placesOf(opened.frameCount)
      return cut(await opened.frames(places, options), places)
    }
  }
  return {
    kind: 'video',
    source: async () =>
      typeof input === 'string' ? keyOf(`video ${size} ${count}`, await contentHash(input)) : undefined,
    look: (signal) => looking(() => look(signal)),
  }
}
