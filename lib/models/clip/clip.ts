import { argumentError, requireObject } from '../../base/check.js'
import { opAsync } from '../../native/call.js'
import { withActiveAdapters } from '../../nn/native-module.js'
import { Tensor } from '../../tensor/index.js'
import { networkClass } from '../network.js'
import {
  bothOf,
  type ClipConfig,
  type ClipTextConfig,
  type ClipVisionConfig,
  clipKeys,
  clipSizes,
  clipTextKeys,
  clipTextSizes,
  clipVisionKeys,
  clipVisionSizes,
  nativeClip,
  nativeVision,
  partOf,
  savedClip,
} from './config.js'
import { openClipCheckpoint } from './open-clip.js'

export interface ClipTextInputs {
  /** Token ids [batch, time], int64. */
  inputIds: Tensor
  /** [batch, time], 1 for real tokens and 0 for padding. */
  attentionMask?: Tensor | null
  /** [batch or 1, time], int64; default 0, 1, 2, … */
  positionIds?: Tensor | null
  outputHiddenStates?: boolean
  outputAttentions?: boolean
}

export interface ClipTextOutput {
  /** [batch, time, hiddenSize], after the last norm. */
  lastHiddenState: Tensor
  /** [batch, hiddenSize]: state of the end token. */
  poolerOutput: Tensor
  /** Input of the first layer and output of each layer, [batch, time, hiddenSize]; [] without `outputHiddenStates`. */
  hiddenStates: Tensor[]
  /** Attention of each layer, [batch, heads, time, time]; [] without `outputAttentions`. */
  attentions: Tensor[]
}

export interface ClipVisionInputs {
  /** Images [batch, channels, height, width], or videos [batch, channels, frames, height, width]. */
  pixelValues: Tensor
  outputHiddenStates?: boolean
  outputAttentions?: boolean
}

export interface ClipVisionOutput {
  /** [batch · frames, patches + 1, hiddenSize]: output of the last layer, the class token first. */
  lastHiddenState: Tensor
  /** [batch, hiddenSize]: class token after the last norm, averaged over the frames. */
  poolerOutput: Tensor
  /** [batch, frames, hiddenSize]: class token of each frame after the last norm. */
  frameOutput: Tensor
  /** Input of the first layer and output of each layer, [batch · frames, patches + 1, hiddenSize]; [] without `outputHiddenStates`. */
  hiddenStates: Tensor[]
  /** Attention of each layer, [batch · frames, heads, patches + 1, patches + 1]; [] without `outputAttentions`. */
  attentions: Tensor[]
}

const families = [
  'LanguageBindVideo',
  'LanguageBindAudio',
  'LanguageBindImage',
  'LanguageBindDepth',
  'LanguageBindThermal',
]
const OTHERS = [/(^|\.)position_ids$/, /^(visual|text)_projection\./, /^logit_scale$/]

/**
 * CLIP's text encoder, as transformers' CLIPTextModel; runs in native code. It also loads folders of a whole CLIP, in transformers'
 * or OpenCLIP's layout.
 */
export class ClipTextModel extends networkClass<ClipTextModel, ClipTextConfig, ClipTextInputs, ClipTextOutput>({
  kind: 'clip_text',
  forward: 'voxtorch::clip_text_forward',
  modelType: 'clip_text_model',
  alike: ['clip', ...families],
  architecture: 'CLIPTextModel',
  sizes: clipTextSizes,
  keys: clipTextKeys,
  prefix: 'text_model.',
  ignored: [...OTHERS, /^vision_model\./],
  found: (config) => partOf(config, 'textConfig'),
  foreign: openClipCheckpoint,
}) {}

/**
 * CLIP's vision encoder, as transformers' CLIPVisionModel; runs in native code. In addition it supports images that are not square,
 * video frames, which are averaged, temporal attention as in LanguageBind (Zhu et al. 2023, https://arxiv.org/abs/2310.01852), and
 * patch dropout in training (Li et al. 2022, https://arxiv.org/abs/2212.00794).
 */
export class ClipVisionModel extends networkClass<
  ClipVisionModel,
  ClipVisionConfig,
  ClipVisionInputs,
  ClipVisionOutput
>({
  kind: 'clip_vision',
  forward: 'voxtorch::clip_vision_forward',
  modelType: 'clip_vision_model',
  alike: ['clip', ...families],
  architecture: 'CLIPVisionModel',
  sizes: clipVisionSizes,
  keys: clipVisionKeys,
  prefix: 'vision_model.',
  ignored: [...OTHERS, /^text_model\./],
  found: (config) => partOf(config, 'visionConfig'),
  native: nativeVision,
  foreign: openClipCheckpoint,
}) {}

export interface ClipInputs {
  /** Token ids [texts, time], int64. */
  inputIds: Tensor
  /** [images, channels, height, width] */
  pixelValues: Tensor
  /** [texts, time], 1 for real tokens and 0 for padding. */
  attentionMask?: Tensor | null
  positionIds?: Tensor | null
  /** Whether to compute the contrastive loss, where text i and image i are a pair. Default false. */
  returnLoss?: boolean
}

export interface ClipOutput {
  /** null without `returnLoss`. */
  loss: Tensor | null
  /** [images, texts] */
  logitsPerImage: Tensor
  /** [texts, images]: cosines multiplied by the temperature. */
  logitsPerText: Tensor
  /** [texts, projectionDim], of length 1. */
  textEmbeds: Tensor
  /** [images, projectionDim], of length 1. */
  imageEmbeds: Tensor
}

const textFeatures = opAsync('voxtorch::clip_text_features')
const imageFeatures = opAsync('voxtorch::clip_image_features')

/**
 * CLIP (Radford et al. 2021, https://arxiv.org/abs/2103.00020), as transformers' CLIPModel: a text encoder and a vision encoder with
 * a shared embedding space. Runs in native code.
 *
 * ```ts
 * const clip = await Clip.fromPretrained('openai/clip-vit-base-patch32')
 * const { logitsPerImage } = await clip.forward({ inputIds, attentionMask, pixelValues })
 * ```
 *
 * Published sizes: `'vit-base-patch32'`, `'vit-base-patch16'`, `'vit-large-patch14'`, `'vit-large-patch14-336'`. Folders of
 * OpenCLIP (`open_clip_config.json`) work as well as transformers', which is what `save` writes.
 */
export class Clip extends networkClass<Clip, ClipConfig, ClipInputs, ClipOutput>({
  kind: 'clip',
  forward: 'voxtorch::clip_forward',
  modelType: 'clip',
  architecture: 'CLIPModel',
  sizes: clipSizes,
  keys: clipKeys,
  prefix: '',
  ignored: [/(^|\.)position_ids$/],
  found: bothOf,
  native: nativeClip,
  saved: savedClip,
  foreign: openClipCheckpoint,
}) {
  /** Compute text embeddings [texts, projectionDim], without normalization to unit length. Runs on the executor. */
  textFeatures(inputs: Pick<ClipInputs, 'inputIds' | 'attentionMask' | 'positionIds'>): Promise<Tensor> {
    requireObject('Clip.textFeatures', 'inputs', inputs)
    return textFeatures(withActiveAdapters(this), inputs) as Promise<Tensor>
  }

  /** Compute image embeddings [images, projectionDim], without normalization to unit length. Runs on the executor. */
  imageFeatures(inputs: { pixelValues: Tensor }): Promise<Tensor> {
    requireObject('Clip.imageFeatures', 'inputs', inputs)
    if (!(inputs.pixelValues instanceof Tensor)) {
      throw argumentError('Clip.imageFeatures', 'pixelValues', 'a tensor', inputs.pixelValues)
    }
    return imageFeatures(withActiveAdapters(this), inputs) as Promise<Tensor>
  }
}
