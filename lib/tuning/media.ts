import type { AudioClip } from '../audio/clip.js'
import { ConfigError } from '../base/errors.js'
import type { AudioLM } from '../models/audio-lm/audio-lm.js'
import { familyOf } from '../models/audio-lm/config.js'
import { templateMessages } from '../models/audio-lm/processor.js'
import type { InternVL } from '../models/internvl/internvl.js'
import { INTERNVL_TEMPLATES, internVLChatTemplate, internVLTemplate } from '../models/internvl/prompt.js'
import { cat, noGrad, scope, type Tensor, withDevice } from '../tensor/index.js'
import type { ChatMessage } from '../text/chat.js'
import type { Tokenizer } from '../text/tokenizer.js'
import { type ImageInput, readImage } from '../vision/image.js'
import { IMAGENET_STATISTICS, normalizeImage } from '../vision/resize.js'
import { tileGrid, tileImage } from '../vision/tile.js'
import { audioIdOf } from './audio.js'
import type { MediaValue } from './clips.js'
import type { SftSettings } from './settings.js'

/** Tokens of a clip or an image. */
export interface MediaTokens {
  text: string
  /** Number of those whose embeddings are replaced. */
  count: number
}

/** Audio or images in the conversations of a model. */
export interface ConversationMedia {
  /** Type of the parts, and their field; with an `s`, the field of a list. */
  type: 'audio' | 'image'
  /** Noun in errors. */
  name: 'clip' | 'image'
  /** Text that the chat template renders in its place. */
  token: string
  /** Id of the tokens whose embeddings are replaced. */
  id: number
  /** Ids of tokens that the model does not generate: that one, and those around it. */
  ignoredIds: readonly number[]
  /** Id with which each text begins. */
  beginId?: number
  /** Template of the model, in place of the tokenizer's. */
  chatTemplate?: string
  /** Return messages as the chat template takes them. */
  templateMessages?(messages: ChatMessage[]): ChatMessage[]
  /** Return the tokens in place of the token. @throws DataError for one that cannot be read */
  tokensOf(value: MediaValue): Promise<MediaTokens>
  /** Return inputs of the network for all of a batch, in order. */
  inputsOf(values: readonly MediaValue[]): Promise<Record<string, Tensor>>
}

/** Return the audio of an AudioLM's conversations. */
export function audioMedia(
  model: AudioLM,
  { chatTemplate }: Tokenizer,
  { longAudio }: Pick<SftSettings, 'longAudio'>,
): ConversationMedia {
  const token = model.audioToken
  const own = familyOf(model.config).chatTemplate
  const id = audioIdOf(model) as number
  return {
    ...{ type: 'audio', name: 'clip', token, id, ignoredIds: [id] },
    ...(chatTemplate === null && own !== undefined && { chatTemplate: own }),
    templateMessages: (messages) => templateMessages(model, messages),
    tokensOf: (clip) =>
      scope(async () => {
        const count = (await model.features(clip as AudioClip, { longAudio })).audioTokens[0] as number
        return { text: token.repeat(count), count }
      }),
    async inputsOf(clips) {
      const { inputFeatures, featuresMask } = await model.features(clips as readonly AudioClip[], { longAudio })
      return { inputFeatures, ...(featuresMask && { featuresMask }) }
    },
  }
}

const [IMAGE, CONTEXT] = ['<image>', '<IMG_CONTEXT>']

/** Return the images of an InternVL's conversations. @throws ConfigError without an id of `<IMG_CONTEXT>` */
export function imageMedia(where: string, model: InternVL, tokenizer: Tokenizer): ConversationMedia {
  const { config } = model
  const {
    minDynamicPatch,
    maxDynamicPatch,
    useThumbnail = true,
    dynamicImageSize = true,
    forceImageSize,
    visionConfig,
  } = config
  const size = forceImageSize ?? visionConfig.imageSize ?? 224
  const [minTiles, maxTiles] = dynamicImageSize ? [minDynamicPatch ?? 1, maxDynamicPatch ?? 12] : [1, 1]
  const tiling = { size, minTiles, maxTiles, thumbnail: useThumbnail }
  const id = config.imgContextTokenId ?? tokenizer.tokenToId(CONTEXT)
  if (id === undefined || tokenizer.tokenToId(CONTEXT) !== id) {
    throw new ConfigError(
      `${where}: tokenizer: expected ${CONTEXT} with the id of the model, ${id}, got ${tokenizer.tokenToId(CONTEXT)}. Use the tokenizer of the model.`,
      { argument: 'tokenizer' },
    )
  }
  config.imgContextTokenId = id
  // The published code has its own template; transformers' port that of the tokenizer.
  const template = config.template == null ? null : internVLTemplate(config.template)
  const ignoredIds = ['<img>', CONTEXT, '</img>'].flatMap((token) => tokenizer.tokenToId(token) ?? [])
  const begin = tokenizer.bosTokenId
  const begins = begin !== null && tokenizer.encode('').inputIds.includes(begin)
  const after = template === null ? '' : INTERNVL_TEMPLATES[template].afterImage
  return {
    ...{ type: 'image', name: 'image', token: template === null ? CONTEXT : IMAGE, id, ignoredIds },
    ...(template !== null && begins && { beginId: begin }),
    ...(template !== null && { chatTemplate: internVLChatTemplate(template) }),
    async tokensOf(image) {
      const [height, width] = await onCpu(async () => (await readImage(image as ImageInput)).shape)
      const [columns, rows] = tileGrid(width as number, height as number, tiling)
      const tiles = columns * rows
      const count = (tiles + Number(useThumbnail && tiles > 1)) * model.tileTokens(size)
      return { text: `<img>${CONTEXT.repeat(count)}</img>${after}`, count }
    },
    inputsOf: (images) =>
      onCpu(async () => {
        const parts: Tensor[] = []
        for (const image of images) {
          const { tiles } = await tileImage(await readImage(image as ImageInput), tiling)
          parts.push(await normalizeImage(tiles.permute([0, 3, 1, 2]).float().div(255), IMAGENET_STATISTICS))
        }
        return { pixelValues: cat(parts, 0) }
      }),
  }
}

/** Run `fn` without gradients, with tensors on the CPU whatever the default device is. */
const onCpu = <T>(fn: () => Promise<T>): Promise<T> => noGrad(() => withDevice('cpu', () => scope(fn)))
