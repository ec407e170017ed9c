import { misuse, requireObject } from '../../base/check.js'
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
import { audioFrontEnd, type LanguageBindSound, languageBindAudio } from './audio.js'
import type { LanguageBindModality, LanguageBindVisionConfig } from './config.js'

/** Tokens [texts, time] with their mask, as `ClipTokenizer.encode` gives them. */
export type LanguageBindTokens = Pick<ClipTextInputs, 'inputIds' | 'attentionMask'>

/** What the towers read. */
export interface LanguageBindInputs {
  text?: LanguageBindTokens
  /** [clips, 3, frames, height, width], as `preprocessVideo` gives each. */
  video?: Tensor
  /** Spectrograms [clips, 3, bands, frames], as `languageBindAudio` gives them. */
  audio?: Tensor
  /** [pictures, 3, height, width], as `preprocessImage` gives them. */
  image?: Tensor
  /** As `preprocessDepth` gives them. */
  depth?: Tensor
  thermal?: Tensor
}

/** A video file, a folder of its frames (see `openVideo`), or frames, uint8 [count, height, width, 3]. */
export type LanguageBindClip = string | Tensor

/** The same, or what becomes of it: texts, sounds, pictures and clips as they are. Floating-point tensors go as they are. */
export interface LanguageBindRawInputs {
  text?: string | readonly string[] | LanguageBindTokens
  video?: LanguageBindClip | readonly LanguageBindClip[]
  audio?: LanguageBindSound | readonly LanguageBindSound[]
  image?: ImageInput | readonly ImageInput[]
  depth?: ImageInput | readonly ImageInput[]
  thermal?: ImageInput | readonly ImageInput[]
}

/** Whom raw inputs are for. */
export interface RawReader {
  where: string
  tokenizer: ClipTokenizer | null
  vision: LanguageBindVisionConfig
  batchSize: number
  /** Pictures are made smaller as the original did. */
  compat?: 'published' | undefined
  device: Device
  dtype: DType
}

/** Raw inputs of a modality in batches that its tower reads. */
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
  if (items.length === 0) throw misuse(where, modality, 'at least one item', value)
  for (let from = 0; from < items.length; from += batchSize) {
    yield (await read(modality, items.slice(from, from + batchSize), reader)).to({ device, dtype })
  }
}

/** Whether an input is what the tower reads: of sounds a spectrogram, of pictures and clips numbers that are no pixels. */
const isReady = (modality: LanguageBindModality, value: unknown): value is Tensor =>
  value instanceof Tensor && value.isFloatingPoint() && (modality !== 'audio' || value.ndim > 2)

async function read(modality: LanguageBindModality, items: readonly unknown[], reader: RawReader): Promise<Tensor> {
  const { where, vision, compat } = reader
  if (modality === 'audio') return languageBindAudio(items as LanguageBindSound[], audioFrontEnd(vision))
  const [size, width] = imageSizeOf(vision)
  if (size !== width) {
    throw new ConfigError(`${where}: this ${modality} tower reads ${size} × ${width} pixels; give it tensors`, {
      modality,
    })
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

/** Evenly spread frames of a film or a folder of frames, uint8 [count, height, width, 3]; between two of its seconds where these are given. */
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

/** Which seconds of a file. */
export interface ClipSpan {
  start?: number | undefined
  end?: number | undefined
}

/** A film or a folder of frames as a video tower of that configuration reads it: float32 [3, frames, size, size]. */
export async function readVideoClip(
  path: string,
  vision: LanguageBindVisionConfig,
  span: ClipSpan = {},
): Promise<Tensor> {
  const [size] = imageSizeOf(vision)
  return scope(async () => preprocessVideo(await framesOfFile(path, vision.numFrames ?? 8, span), { size }))
}

/** As many of a clip's frames as the tower reads. */
async function framesOf(clip: unknown, { where, vision }: Pick<RawReader, 'where' | 'vision'>): Promise<Tensor> {
  const count = vision.numFrames ?? 8
  if (typeof clip === 'string') return framesOfFile(clip, count)
  if (!(clip instanceof Tensor) || clip.ndim !== 4) {
    throw misuse(where, 'video', 'a file, a folder of frames, or frames, uint8 [count, height, width, 3]', clip)
  }
  const chosen = sampleFrames(clip.shape[0] as number, { count })
  return stack(chosen.map((place) => clip.select(0, place)))
}

function tokensOf(value: unknown, { where, tokenizer }: RawReader): LanguageBindTokens {
  if (typeof value !== 'string' && !Array.isArray(value)) {
    requireObject(where, 'text', value)
    const tokens = value as LanguageBindTokens
    if (!(tokens.inputIds instanceof Tensor)) throw misuse(where, 'text.inputIds', 'a tensor', tokens.inputIds)
    return tokens
  }
  if (tokenizer) return tokenizer.encode(value as string | string[], { padding: 'longest' })
  throw new ConfigError(`${where}: this LanguageBind has no tokenizer; set \`tokenizer\`, or give tokens`, {})
}

function* starts(tensor: Tensor, size: number): Generator<number> {
  const rows = tensor.shape[0] ?? 0
  // What has no rows is the tower's to refuse.
  for (let from = 0; from < Math.max(rows, 1); from += size) yield from
}

const rowsOf = (tensor: Tensor, from: number, size: number): Tensor =>
  tensor.ndim === 0 ? tensor : tensor.narrow(0, from, Math.min(size, (tensor.shape[0] as number) - from))

function part(tokens: LanguageBindTokens, from: number, size: number, device: Device): LanguageBindTokens {
  const { inputIds, attentionMask } = tokens
  return {
    inputIds: rowsOf(inputIds, from, size).to({ device }),
    // The mask stays on the CPU, where it can be looked at without a wait.
    ...(attentionMask && { attentionMask: rowsOf(attentionMask, from, size) }),
  }
}
