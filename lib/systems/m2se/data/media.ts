import { createHash } from 'node:crypto'
import { isAbsolute, join } from 'node:path'
import type { AudioClip } from '../../../audio/clip.js'
import { bytesOf, misuse } from '../../../base/check.js'
import { DataError } from '../../../base/errors.js'
import { contentHash, tensorBytes } from '../../../kit/fingerprint.js'
import { noGrad, ops, scope, Tensor, withDevice } from '../../../tensor/index.js'
import {
  type ImageInput,
  openVideo,
  readImage,
  sampleFrames,
  type TileGrid,
  tileImage,
  Video,
} from '../../../vision/index.js'
import type { EmoVerseQuestion } from './entry.js'

/**
 * A film: a file or a folder of frames, a video that is open (and stays so), uint8 [frames, height, width, 3], or pictures that are
 * its frames.
 */
export type EmoVerseVideo = string | Video | Tensor | readonly ImageInput[]

/** A sound: a file or a part of one in seconds, the bytes of a file, samples with their rate, or samples of 16 kHz. */
export type EmoVerseAudio = AudioClip

/** How pictures and films become tiles. */
export interface TilingRecipe {
  /** Side of a tile in pixels. */
  size: number
  /** Most tiles of a picture, the thumbnail not counted; one where there is a film beside it, as in ms-swift. */
  maxTiles: number
  /** Whether the whole picture comes behind several tiles. */
  thumbnail: boolean
  /** Frames of a film, each of which is one tile. */
  frames: number
}

/** A picture or film as the network looks at it. */
export interface EmoVerseLook {
  kind: 'image' | 'video'
  /** RGB, uint8 [tiles, side, side, 3]. */
  pixels: Uint8Array
  tiles: number
  side: number
  /** Of a picture; behind the tiles of several stands the thumbnail. */
  grid: TileGrid | null
  /** Of a film: which of its frames these are, from 0. */
  frames: readonly number[] | null
}

/** A picture or film that can be looked at. */
export interface Medium {
  kind: 'image' | 'video'
  /** What its tiles depend on, without looking at them; undefined for what is in memory. */
  source(): Promise<string | undefined>
  look(signal?: AbortSignal): Promise<EmoVerseLook>
}

export interface MediaPlace {
  /** What paths are relative to. Default: the working directory. */
  mediaRoot?: string | undefined
}

/** The SHA-256 of texts and bytes, of which each is told from the next. */
export function keyOf(...parts: readonly (string | Uint8Array)[]): string {
  const hash = createHash('sha256')
  for (const part of parts) hash.update(`${part.length} `).update(part)
  return hash.digest('hex')
}

/**
 * The pictures and films of a record in the order of their markers in its questions.
 * @throws DataError where there are not as many markers as media, naming both numbers
 */
export function mediaOf(record: EmoVerseQuestion, recipe: TilingRecipe, { mediaRoot }: MediaPlace = {}): Medium[] {
  const { images = [], videos = [] } = record
  const here = (path: string) => (mediaRoot === undefined || isAbsolute(path) ? path : join(mediaRoot, path))
  const maxTiles = videos.length > 0 ? 1 : recipe.maxTiles
  const list = { '<image>': images.map((one) => imageOf(one, { ...recipe, maxTiles }, here)), '<video>': videos.map((one) => videoOf(one, recipe, here)) } // biome-ignore format: one line
  const texts = [...(record.history ?? []).map(([query]) => query), record.query]
  const markers = texts.flatMap((text) => text.match(/<image>|<video>/g) ?? []) as ('<image>' | '<video>')[]
  for (const marker of ['<image>', '<video>'] as const) {
    const found = markers.filter((one) => one === marker).length
    const given = list[marker].length
    if (found === given) continue
    const what = marker === '<image>' ? 'pictures' : 'films'
    throw new DataError(`its questions have ${marker} ${found} times, and there are ${given} ${what}`, {
      reason: 'markers',
      marker,
      markers: found,
      given,
    })
  }
  return markers.map((marker) => list[marker].shift() as Medium)
}

type Recipe = Pick<TilingRecipe, 'size' | 'maxTiles' | 'thumbnail'>

/** Pictures are read and cut on the CPU, whatever device others are made on. */
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
        const picture = (await readImage(input, signal ? { signal } : {})).to({ device: 'cpu' })
        const { tiles, grid } = await tileImage(picture, { size, maxTiles, thumbnail })
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
    if (input instanceof Video) return fromVideo(input, 'the film')
    if (input instanceof Tensor) {
      const places = placesOf(input.size(0))
      return cut(ops.stack(places.map((place) => input.select(0, place))), places)
    }
    if (!Array.isArray(input) || input.length === 0)
      throw misuse('EmoVerse', 'a film', 'a path, a Video, frames', input)
    const places = placesOf(input.length)
    const looks: EmoVerseLook[] = []
    for (const place of places) {
      looks.push(await imageOf(input[place] as ImageInput, { size, maxTiles: 1, thumbnail: false }, here).look(signal))
    }
    const pixels = new Uint8Array(Buffer.concat(looks.map((one) => one.pixels)))
    return { kind: 'video', pixels, tiles: places.length, side: size, grid: null, frames: places }

    async function fromVideo(opened: Video, name: string): Promise<EmoVerseLook> {
      if (opened.frameCount === 0) throw new DataError(`${name}: it has no frames`, { file: name })
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
