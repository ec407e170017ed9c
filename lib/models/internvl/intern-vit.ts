import type { Tensor } from '../../tensor/index.js'
import { networkClass } from '../network.js'
import { type InternViTConfig, internViTKeys, internViTSizes } from './config.js'

export interface InternViTInputs {
  /** Images [images, channels, height, width], floating-point; both sides a multiple of `patchSize`. */
  pixelValues: Tensor
  outputHiddenStates?: boolean
  outputAttentions?: boolean
}

export interface InternViTOutput {
  /** Last layer's output [images, 1 + patches, hiddenSize], without a final norm. The first state is the class token's. */
  lastHiddenState: Tensor
  /** Embeddings and output of each layer; empty without `outputHiddenStates`. */
  hiddenStates: Tensor[]
  /** Per layer [images, heads, 1 + patches, 1 + patches]; empty without `outputAttentions`. */
  attentions: Tensor[]
}

const layout = {
  kind: 'intern_vit',
  forward: 'voxtorch::intern_vit_forward',
  modelType: 'intern_vit_6b',
  architecture: 'InternVisionModel',
  prefix: 'vision_model.',
  ignored: [],
  sizes: internViTSizes,
  keys: internViTKeys,
}

/**
 * InternViT (Chen et al. 2023, https://arxiv.org/abs/2312.14238), InternVL's image encoder: a vision transformer with layer scale. The
 * configuration selects the 300M network with layer norms (https://huggingface.co/OpenGVLab/InternViT-300M-448px) or the 6B network with RMS
 * norms, also of queries and keys. For images of another size than `imageSize` the position table is resized (bicubic). Published sizes:
 * `'internvit-300m-448px'`, `'internvit-6b-448px'`, `'internvit-6b-448px-v2.5'`. Runs in native code.
 */
export class InternViT extends networkClass<InternViT, InternViTConfig, InternViTInputs, InternViTOutput>(layout) {}
