import { argumentError, requireObject } from '../../base/check.js'
import { ConfigError } from '../../base/errors.js'
import { type Device, type DType, scope, stack, Tensor } from '../../tensor/index.js'
import {
  type ImageInput,
  openVideo,
  preprocessDepth,
  preprocessImage,
  preprocessVideo,
  sampleFrames,
} from '../../vision/index.js'
import type { ClipTextInputs } from '../clip/clip.js'
import { imageSizeOf } from '../clip/config.js'
import type { ClipTokenizer } from '../clip/tokenizer.js'
import { audioFrontEnd, type LanguageBindAudioInput, languageBindAudio } from './audio.js'
import type { LanguageBindModality, LanguageBindVisionConfig } from './config.js'

/** Token ids [texts, time] with their mask, as `ClipTokenizer.encode` returns them. */
export type LanguageBindTokens = Pick<ClipTextInputs, 'inputIds' | 'attentionMask'>

/** Inputs of the encoders. */
export interface LanguageBindInputs {
  text?: LanguageBindTokens
  /** [clips, 3, frames, height, width]; `preprocessVideo` returns one clip. */
  video?: Tensor
  /** Spectrograms [clips, 3, bands, frames], from `languageBindAudio`. */
  audio?: Tensor
  /** [images, 3, height, width], from `preprocessImage`. */
  image?: Tensor
  /** [images, 3, height, width], from `preprocessDepth`. */
  depth?: Tensor
  thermal?: Tensor
}

/** A video file, a folder of its frames (see `openVideo`), or frames, uint8 [count, height, width, 3]. */
export type LanguageBindClip = string | Tensor

/** Raw inputs: texts, audio, images and videos. Floating-point tensors are taken as preprocessed. */
export interface LanguageBindRawInputs {
  text?: string | readonly string[] | LanguageBindTokens
  video?: LanguageBindClip | readonly LanguageBindClip[]
  audio?: LanguageBindAudioInput | readonly LanguageBindAudioInput[]
  image?: ImageInput | readonly ImageInput[]
  depth?: ImageInput | readonly ImageInput[]
  thermal?: ImageInput | readonly ImageInput[]
}

/** Settings of {@link batchesOf}. */
export interface RawReader {
  where: string
  tokenizer: ClipTokenizer | null
  vision: LanguageBindVisionConfig
  batchSize: number
  /** 'published': resize images without antialiasing, as the original. */
  compat?: 'published' | undefined
  device: Device
  dtype: DType
}

/** Preprocess the inputs of a modality, and yield them in batches. */
export async function* batchesOf(
  modality: LanguageBindModality | 'text',
  value: unknown,
  reader: RawReader,
): AsyncGenerator<LanguageBindTokens | Tensor> {
  const { where, batchSize, device, dtype } = reader
  if (modality === 'text') {
    const tokens = tokensOf(value, reader)
    for (const from of starts(tokens.inputIds, batchSize)) yield part(tokens, from, batchSize, device)
    return
  }
  if (isReady(modality, value)) {
    for (const from of starts(value, batchSize)) yield rowsOf(value, from, batchSize).to({ device, dtype })
    return
  }
  const items: readonly unknown[] = Array.isArray(value) ? value : [value]
  if (items.length === 0) throw argumentError(where, modality, 'a list of at least one item', value)
  for (let from = 0; from < items.length; from += batchSize) {
    yield (await read(modality, items.slice(from, from + batchSize), reader)).to({ device, dtype })
  }
}

/** Tell whether an input is preprocessed: a spectrogram for audio, a floating-point tensor for images and videos. */
const isReady = (modality: LanguageBindModality, value: unknown): value is Tensor =>
  value instanceof Tensor && value.isFloatingPoint() && (modality !== 'audio' || value.ndim > 2)

async function read(modality: LanguageBindModality, items: readonly unknown[], reader: RawReader): Promise<Tensor> {
  const { where, vision, compat } = reader
  if (modality === 'audio') return languageBindAudio(items as LanguageBindAudioInput[], audioFrontEnd(vision))
  const [size, width] = imageSizeOf(vision)
  if (size !== width) {
    throw new ConfigError(
      `${where}: ${modality}: expected tensors, because its encoder takes ${size} × ${width} pixels, got files or pixels. Preprocess them.`,
      {
        modality,
      },
    )
  }
  const recipe = { size, ...(compat === 'published' && { antialias: false }) }
  if (modality === 'image' || modality === 'thermal') return preprocessImage(items as ImageInput[], recipe)
  if (modality === 'depth') {
    const { maxDepth } = vision
    return preprocessDepth(items as ImageInput[], { ...recipe, ...(maxDepth !== undefined && { maxDepth }) })
  }
  const clips: Tensor[] = []
  for (const clip of items) clips.push(await preprocessVideo(await framesOf(clip, reader), { size }))
  return stack(clips)
}

/** Read frames at regular intervals from a video or a folder of frames, uint8 [count, height, width, 3], within a span of seconds. */
async function framesOfFile(path: string, count: number, { start = 0, end }: ClipSpan = {}): Promise<Tensor> {
  const video = await openVideo(path)
  try {
    const [first, last] = video.framesBetween(start, end)
    const places = sampleFrames(last - first, { count })
    return await video.frames(places.map((place) => first + place))
  } finally {
    await video.close()
  }
}

/** Part of a file, in seconds. */
export interface ClipSpan {
  start?: number | undefined
  end?: number | undefined
}

/** Read a video or a folder of frames as input of a video encoder: float32 [3, frames, size, size]. */
export async function readVideoClip(
  path: string,
  vision: LanguageBindVisionConfig,
  span: ClipSpan = {},
): Promise<Tensor> {
  const [size] = imageSizeOf(vision)
  return scope(async () => preprocessVideo(await framesOfFile(path, vision.numFrames ?? 8, span), { size }))
}

/** Return the frames of a clip that the encoder takes, at regular intervals. */
async function framesOf(clip: unknown, { where, vision }: Pick<RawReader, 'where' | 'vision'>): Promise<Tensor> {
  const count = vision.numFrames ?? 8
  if (typeof clip === 'string') return framesOfFile(clip, count)
  if (!(clip instanceof Tensor) || clip.ndim !== 4) {
    throw argumentError(where, 'video', 'a file, a folder of frames, or frames, uint8 [count, height, width, 3]', clip)
  }
  const chosen = sampleFrames(clip.shape[0] as number, { count })
  return stack(chosen.map((place) => clip.select(0, place)))
}

function tokensOf(value: unknown, { where, tokenizer }: RawReader): LanguageBindTokens {
  if (typeof value !== 'string' && !Array.isArray(value)) {
    requireObject(where, 'text', value)
    const tokens = value as LanguageBindTokens
    if (!(tokens.inputIds instanceof Tensor)) throw argumentError(where, 'text.inputIds', 'a tensor', tokens.inputIds)
    return tokens
  }
  if (tokenizer) return tokenizer.encode(value as string | string[], { padding: 'longest' })
  throw new ConfigError(
    `${where}: text: expected token ids, because this LanguageBind has no tokenizer, got text. Set its \`tokenizer\`.`,
    {},
  )
}

function* starts(tensor: Tensor, size: number): Generator<number> {
  const rows = tensor.shape[0] ?? 0
  // Yield once without rows, so that the encoder reports the shape.
  for (let from = 0; from < Math.max(rows, 1); from += size) yield from
}

const rowsOf = (tensor: Tensor, from: number, size: number): Tensor =>
  tensor.ndim === 0 ? tensor : tensor.narrow(0, from, Math.min(size, (tensor.shape[0] as number) - from))

function part(tokens: LanguageBindTokens, from: number, size: number, device: Device): LanguageBindTokens {
  const { inputIds, attentionMask } = tokens
  return {
    inputIds: rowsOf(inputIds, from, size).to({ device }),
    // The mask stays on the CPU, where the encoder reads it without a synchronization.
    ...(attentionMask && { attentionMask: rowsOf(attentionMask, from, size) }),
  }
}
