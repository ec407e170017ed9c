import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { writeAtomically } from '../base/atomic.js'
import { OutOfMemoryError, VoxtorchError } from '../base/errors.js'
import { scope } from '../tensor/index.js'
import { openVideo, type RawImage, readImage, type Video } from '../vision/index.js'
import { ApiError, badRequest } from './api-error.js'
import { fromBase64 } from './base64.js'
import type { ChatModel, ChatPart } from './chat-model.js'
import type { ServeLimits } from './options.js'

/** A picture or a film of a request whose address has been checked, not its content. */
export interface EncodedMedia {
  type: 'encoded-image' | 'encoded-video'
  /** A picture or a film in base64, or the frames of one. */
  data: string[]
  /** Its place in the request, for errors. */
  param: string
}

type Fields = Record<string, unknown>
const isFields = (value: unknown): value is Fields =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

/** What stands before the comma of a `data:` address is no longer than this. */
const HEAD = 200
/** Frames that one address may have, whatever the server allows. */
const MOST_PIECES = 2 ** 16

/** What the names of folders for films begin with. */
const FOLDER = 'voxtorch-serve-'
const WORDS = { image_url: ['picture', 'image'], video_url: ['film', 'video'] } as const

/** The types of parts that a model may be sent beside text and sound. */
export type MediaPartType = keyof typeof WORDS
export const isMediaPart = (type: unknown): type is MediaPartType => type === 'image_url' || type === 'video_url'

/**
 * Checks the fields of an `image_url` or `video_url` part: a `data:` address, for nothing is fetched. Frames of a film are
 * `data:video/jpeg;base64,` with a comma between each and the next.
 * @throws ApiError 400 naming the field, and for a model that takes none
 */
export function encodedMedia(type: MediaPartType, value: unknown, param: string, model: ChatModel): EncodedMedia {
  const [word, kind] = WORDS[type]
  const modalities = model.inputModalities ?? ['text', 'audio']
  if (!modalities.includes(kind)) {
    const takes = modalities.join(' and ')
    throw badRequest(`${model.name} takes no ${word}s (${type}), only ${takes}.`, `${param}.type`, 'unsupported_value')
  }
  const place = `${param}.${type}`
  const { url, detail = null, ...rest } = isFields(value) ? value : {}
  const [unknown] = Object.keys(rest)
  if (unknown !== undefined) {
    throw badRequest(
      `There is no field ${JSON.stringify(unknown.slice(0, 100))} in ${type}.`,
      place,
      'unknown_parameter',
    )
  }
  if (detail !== null && detail !== 'auto' && detail !== 'high') {
    throw badRequest('detail must be "auto" or "high".', `${place}.detail`, 'unsupported_value')
  }
  if (typeof url !== 'string' || url === '') throw badRequest(`The ${word}'s url must be a string.`, `${place}.url`)
  const comma = url.slice(0, HEAD).indexOf(',')
  const [, top, sub] = /^data:(\w+)\/([\w.+-]+)(?:;[\w.=+-]+)*;base64$/i.exec(url.slice(0, Math.max(0, comma))) ?? []
  if (top?.toLowerCase() !== kind || sub === undefined) {
    const wanted = `data:${kind}/…;base64,…`
    throw badRequest(`The ${word} must be in the request itself, as ${wanted}: nothing is fetched.`, `${place}.url`)
  }
  const data = url.slice(comma + 1)
  const isFrames = type === 'video_url' && /^(?:jpeg|png|webp|x-portable-pixmap)$/i.test(sub)
  const pieces = isFrames ? data.split(',', MOST_PIECES) : [data]
  if (pieces.length === MOST_PIECES)
    throw badRequest('The film has too many frames.', `${place}.frames`, 'too_many_frames')
  return {
    type: type === 'image_url' ? 'encoded-image' : 'encoded-video',
    data: pieces,
    param: isFrames ? `${place}.frames` : place,
  }
}

/** What is left for the pictures and films of a conversation. */
export interface MediaBudget {
  pixels: number
  frames: number
  /** Files that are open, to be closed when the answer is over. */
  readonly held: (() => Promise<void>)[]
}

export const mediaBudget = ({ maxPixels, maxVideoFrames }: ServeLimits): MediaBudget => ({
  pixels: maxPixels,
  frames: maxVideoFrames,
  held: [],
})

/** Closes what films hold. */
export async function release({ held }: MediaBudget): Promise<void> {
  await Promise.allSettled(held.splice(0).map((end) => end()))
}

/** Decodes a picture or the frames of a film to pixels, and opens a film. */
export async function decodeMedia(
  part: EncodedMedia,
  budget: MediaBudget,
  model: ChatModel,
  signal: AbortSignal,
): Promise<ChatPart> {
  const { data, param } = part
  if (part.type === 'encoded-image') {
    return { type: 'image', image: await decodePicture(data[0] as string, 'picture', param, budget, signal) }
  }
  if (!param.endsWith('.frames')) return { type: 'video', frames: await decodeFilm(part, budget, model, signal) }
  budget.frames -= data.length
  if (budget.frames < 0) {
    throw badRequest('The films have more frames than the server allows.', param, 'too_many_frames')
  }
  const frames: RawImage[] = []
  for (const [i, one] of data.entries()) {
    const frame = await decodePicture(one, 'frame', `${param}[${i}]`, budget, signal)
    const [first = frame] = frames
    if (frame.width !== first.width || frame.height !== first.height) {
      const sizes = `${frame.width} × ${frame.height} and not ${first.width} × ${first.height}`
      throw badRequest(`The frames of a film have one size, this one is ${sizes}.`, `${param}[${i}]`, 'invalid_video')
    }
    frames.push(frame)
  }
  return { type: 'video', frames }
}

async function decodePicture(
  data: string,
  word: 'picture' | 'frame',
  param: string,
  budget: MediaBudget,
  signal: AbortSignal,
): Promise<RawImage> {
  const bytes = fromBase64(data, word === 'frame' ? 'video' : 'image', param)
  return typed(word, param, signal, async () => {
    const image = await scope(async () => {
      const pixels = await readImage(bytes, { maxPixels: Math.max(1, budget.pixels), signal })
      const [height, width] = pixels.shape as [number, number]
      return { width, height, data: (await pixels.data()) as Uint8Array }
    })
    take(budget, image.width * image.height, param)
    return image
  })
}

async function decodeFilm(
  { data, param }: EncodedMedia,
  budget: MediaBudget,
  { videoFrames = 8 }: ChatModel,
  signal: AbortSignal,
): Promise<Video> {
  const bytes = fromBase64(data[0] as string, 'video', param)
  // The decoder reads files.
  const folder = await mkdtemp(join(tmpdir(), FOLDER))
  budget.held.push(() => rm(folder, { recursive: true, force: true }))
  const file = join(folder, 'film')
  await writeAtomically(file, VoxtorchError, (write) => write(bytes))
  return typed('film', param, signal, async () => {
    const video = await openVideo(file, { maxPixels: Math.max(1, budget.pixels), signal })
    budget.held.unshift(() => video.close())
    take(budget, video.width * video.height * Math.min(video.frameCount, videoFrames), param)
    return video
  })
}

function take(budget: MediaBudget, pixels: number, param: string): void {
  budget.pixels -= pixels
  if (budget.pixels < 0) {
    throw badRequest('The pictures and films have more pixels than the server allows.', param, 'too_many_pixels')
  }
}

/** A decoder's error as the client's, but for what the server lacks. */
async function typed<T>(
  word: 'picture' | 'frame' | 'film',
  param: string,
  signal: AbortSignal,
  work: () => Promise<T>,
): Promise<T> {
  try {
    return await work()
  } catch (error) {
    if (signal.aborted || !(error instanceof VoxtorchError) || error instanceof OutOfMemoryError) throw error
    if (typeof Reflect.get(error, 'missing') === 'string') {
      throw new ApiError(
        501,
        `The server cannot read this ${word}: npm's ${Reflect.get(error, 'missing')} is missing.`,
        {
          code: 'decoder_missing',
          param,
        },
      )
    }
    // Not the names of the server's own files.
    const [name = ''] = /^\S+: /.exec(error.message) ?? []
    const isOurs = name.includes(FOLDER)
    const what = isOurs ? error.message.slice(name.length) : error.message.replace(/^the picture in memory: /, '')
    const code = word === 'film' || word === 'frame' ? 'invalid_video' : 'invalid_image'
    throw badRequest(`The ${word} cannot be read: ${what}.`, param, code)
  }
}
