import type { Tensor } from '../../tensor/index.js'
import { networkClass } from '../network.js'
import { type InternViTConfig, internViTKeys, internViTSizes } from './config.js'

export interface InternViTInputs {
  /** Pictures [pictures, channels, height, width], floating-point; both sides a multiple of `patchSize`. */
  pixelValues: Tensor
  outputHiddenStates?: boolean
  outputAttentions?: boolean
}

export interface InternViTOutput {
  /** [pictures, 1 + patches, hiddenSize], of the last layer: no norm follows it. The first state is that of no patch. */
  lastHiddenState: Tensor
  /** The embeddings and the output of each layer; empty unless asked for. */
  hiddenStates: Tensor[]
  /** Per layer [pictures, heads, 1 + patches, 1 + patches]; empty unless asked for. */
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
 * InternViT (Chen et al. 2023, https://arxiv.org/abs/2312.14238), InternVL's picture encoder: a vision transformer with layer
 * scale. By configuration the 300M network with layer norms (https://huggingface.co/OpenGVLab/InternViT-300M-448px) or the 6B
 * one with RMS norms, of queries and keys too. Pictures of another size than `imageSize` have its table of positions resized
 * (bicubic). Published sizes: `'internvit-300m-448px'`, `'internvit-6b-448px'`. Runs in native code.
 */
export class InternViT extends networkClass<InternViT, InternViTConfig, InternViTInputs, InternViTOutput>(layout) {}
