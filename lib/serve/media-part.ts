import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { writeAtomically } from '../base/atomic.js'
import { shown } from '../base/check.js'
import { OutOfMemoryError, VoxtorchError } from '../base/errors.js'
import { scope } from '../tensor/index.js'
import { openVideo, type RawImage, readImage, type Video } from '../vision/index.js'
import { ApiError, badRequest } from './api-error.js'
import { fromBase64 } from './base64.js'
import type { ChatModel, ChatPart } from './chat-model.js'
import type { ServeLimits } from './options.js'

/** An image or a video of a request: its `data:` URL is checked, its content is not decoded yet. */
export interface EncodedMedia {
  type: 'encoded-image' | 'encoded-video'
  /** Base64 of an image, of a video file, or of each frame of a video. */
  data: string[]
  /** Path of the part in the request, for errors. */
  param: string
}

type Fields = Record<string, unknown>
const isFields = (value: unknown): value is Fields =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

/** Longest part of a `data:` URL before its comma, in characters. */
const HEAD = 200
/** Upper bound on the frames of one `data:` URL, whatever the server's limits. */
const MOST_PIECES = 2 ** 16

/** Name prefix of the temporary folders of video files. */
const FOLDER = 'voxtorch-serve-'
const KINDS = { image_url: 'image', video_url: 'video' } as const

/** Types of message parts other than text and audio. */
export type MediaPartType = keyof typeof KINDS
export const isMediaPart = (type: unknown): type is MediaPartType => type === 'image_url' || type === 'video_url'

/**
 * Check the fields of an `image_url` or `video_url` part. Only `data:` URLs are accepted; nothing is fetched. The frames of a
 * video are `data:video/jpeg;base64,` followed by the base64 of each frame, separated by commas.
 * @throws ApiError 400 naming the field, and for a model without that modality
 */
export function encodedMedia(type: MediaPartType, value: unknown, param: string, model: ChatModel): EncodedMedia {
  const kind = KINDS[type]
  const modalities = model.inputModalities ?? ['text', 'audio']
  if (!modalities.includes(kind)) {
    const supported = modalities.join(' or ')
    throw badRequest(
      `expected ${supported}, the input modalities of ${model.name}, got ${type}.`,
      `${param}.type`,
      'unsupported_value',
    )
  }
  const place = `${param}.${type}`
  const { url, detail = null, ...rest } = isFields(value) ? value : {}
  const [unknown] = Object.keys(rest)
  if (unknown !== undefined) {
    throw badRequest(`expected the fields "url" and "detail", got ${shown(unknown)}.`, place, 'unknown_parameter')
  }
  if (detail !== null && detail !== 'auto' && detail !== 'high') {
    throw badRequest(`expected "auto" or "high", got ${shown(detail)}.`, `${place}.detail`, 'unsupported_value')
  }
  if (typeof url !== 'string' || url === '') {
    throw badRequest(`expected a data:${kind}/… URL, got ${shown(url)}.`, `${place}.url`)
  }
  const comma = url.slice(0, HEAD).indexOf(',')
  const [, top, sub] = /^data:(\w+)\/([\w.+-]+)(?:;[\w.=+-]+)*;base64$/i.exec(url.slice(0, Math.max(0, comma))) ?? []
  if (top?.toLowerCase() !== kind || sub === undefined) {
    const start = shown(url.slice(0, 40))
    throw badRequest(
      `expected data:${kind}/…;base64,…, got ${start}. The server fetches no URLs: send the ${kind} in the request.`,
      `${place}.url`,
    )
  }
  const data = url.slice(comma + 1)
  const isFrames = type === 'video_url' && /^(?:jpeg|png|webp|x-portable-pixmap)$/i.test(sub)
  const pieces = isFrames ? data.split(',', MOST_PIECES) : [data]
  if (pieces.length === MOST_PIECES)
    throw badRequest(`expected fewer than ${MOST_PIECES} frames, got more.`, `${place}.frames`, 'too_many_frames')
  return {
    type: type === 'image_url' ? 'encoded-image' : 'encoded-video',
    data: pieces,
    param: isFrames ? `${place}.frames` : place,
  }
}

/** Pixels and frames that the images and videos of a conversation may still use. */
export interface MediaBudget {
  pixels: number
  frames: number
  /** Functions that close open files, called when the answer is complete. */
  readonly held: (() => Promise<void>)[]
}

export const mediaBudget = ({ maxPixels, maxVideoFrames }: ServeLimits): MediaBudget => ({
  pixels: maxPixels,
  frames: maxVideoFrames,
  held: [],
})

/** Close video files and delete their temporary folders. */
export async function release({ held }: MediaBudget): Promise<void> {
  await Promise.allSettled(held.splice(0).map((end) => end()))
}

/** Decode an image or the frames of a video to pixels, or open a video file. */
export async function decodeMedia(
  part: EncodedMedia,
  budget: MediaBudget,
  model: ChatModel,
  signal: AbortSignal,
): Promise<ChatPart> {
  const { data, param } = part
  if (part.type === 'encoded-image') {
    return { type: 'image', image: await decodeImage(data[0] as string, 'image', param, budget, signal) }
  }
  if (!param.endsWith('.frames')) return { type: 'video', frames: await decodeVideo(part, budget, model, signal) }
  budget.frames -= data.length
  if (budget.frames < 0) {
    throw badRequest(
      'expected no more frames than the server allows for all videos of a conversation (maxVideoFrames).',
      param,
      'too_many_frames',
    )
  }
  const frames: RawImage[] = []
  for (const [i, one] of data.entries()) {
    const frame = await decodeImage(one, 'frame', `${param}[${i}]`, budget, signal)
    const [first = frame] = frames
    if (frame.width !== first.width || frame.height !== first.height) {
      const sizes = `${first.width} × ${first.height} as the first frame has, got ${frame.width} × ${frame.height}`
      throw badRequest(`expected ${sizes}.`, `${param}[${i}]`, 'invalid_video')
    }
    frames.push(frame)
  }
  return { type: 'video', frames }
}

async function decodeImage(
  data: string,
  kind: 'image' | 'frame',
  param: string,
  budget: MediaBudget,
  signal: AbortSignal,
): Promise<RawImage> {
  const bytes = fromBase64(data, param)
  return typed(kind, param, signal, async () => {
    const image = await scope(async () => {
      const pixels = await readImage(bytes, { maxPixels: Math.max(1, budget.pixels), signal })
      const [height, width] = pixels.shape as [number, number]
      return { width, height, data: (await pixels.data()) as Uint8Array }
    })
    take(budget, image.width * image.height, param)
    return image
  })
}

async function decodeVideo(
  { data, param }: EncodedMedia,
  budget: MediaBudget,
  { videoFrames = 8 }: ChatModel,
  signal: AbortSignal,
): Promise<Video> {
  const bytes = fromBase64(data[0] as string, param)
  // The decoder reads files only.
  const folder = await mkdtemp(join(tmpdir(), FOLDER))
  budget.held.push(() => rm(folder, { recursive: true, force: true }))
  const file = join(folder, 'video')
  await writeAtomically(file, VoxtorchError, (write) => write(bytes))
  return typed('video', param, signal, async () => {
    const video = await openVideo(file, { maxPixels: Math.max(1, budget.pixels), signal })
    budget.held.unshift(() => video.close())
    take(budget, video.width * video.height * Math.min(video.frameCount, videoFrames), param)
    return video
  })
}

function take(budget: MediaBudget, pixels: number, param: string): void {
  budget.pixels -= pixels
  if (budget.pixels < 0) {
    throw badRequest(
      'expected no more pixels than the server allows for all images and videos of a conversation (maxPixels).',
      param,
      'too_many_pixels',
    )
  }
}

/** Run `work` and convert a decoder's error to a 400 error, or to a 501 error if the server lacks the decoder. */
async function typed<T>(
  kind: 'image' | 'frame' | 'video',
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
        `The server cannot decode this ${kind}: npm's ${Reflect.get(error, 'missing')} is missing. Install it there.`,
        {
          code: 'decoder_missing',
          param,
        },
      )
    }
    // Clients must not see the paths of the server's temporary files.
    const [name = ''] = /^\S+: /.exec(error.message) ?? []
    const isTemporary = name.includes(FOLDER)
    const what = isTemporary ? error.message.slice(name.length) : error.message.replace(/^the image in memory: /, '')
    const code = kind === 'image' ? 'invalid_image' : 'invalid_video'
    throw badRequest(`cannot decode the ${kind}: ${what.replace(/\.$/, '')}.`, param, code)
  }
}
