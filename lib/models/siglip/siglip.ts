import { shown } from '../../base/check.js'
import { ConfigError } from '../../base/errors.js'
import { toCamel } from '../../base/words.js'
import { isConfiguration } from '../../nn/native-module.js'
import type { Tensor } from '../../tensor/index.js'
import type { ConfigKeys } from '../config-keys.js'
import { type NetworkConfig, networkClass } from '../network.js'

/** Keys of a published vision_config, in camelCase. Defaults are those of transformers' SiglipVisionConfig. */
export interface SiglipVisionConfig extends NetworkConfig {
  hiddenSize?: number
  intermediateSize?: number
  numHiddenLayers?: number
  numAttentionHeads?: number
  numChannels?: number
  /** Side of the images of the position table, in pixels. Default 224. */
  imageSize?: number
  /** Side of a patch, in pixels. Default 16. */
  patchSize?: number
  /** Activation of the MLPs. Default `'gelu_pytorch_tanh'`. */
  hiddenAct?: string
  layerNormEps?: number
  attentionDropout?: number
  /** Whether a head pools the patches by attention. Default true. */
  visionUseHead?: boolean
}

const siglipVisionKeys: ConfigKeys = {
  defaults: {
    hiddenSize: 768,
    intermediateSize: 3072,
    numHiddenLayers: 12,
    numAttentionHeads: 12,
    numChannels: 3,
    imageSize: 224,
    patchSize: 16,
    hiddenAct: 'gelu_pytorch_tanh',
    layerNormEps: 1e-6,
    attentionDropout: 0,
    visionUseHead: true,
  },
  // transformers initializes without them, and the vision encoder has no projection.
  unused: ['initializerRange', 'initializerFactor', 'projectionDim', 'projectionSize'],
}

const WIDTHS: Readonly<Record<string, SiglipVisionConfig>> = {
  base: {},
  large: { hiddenSize: 1024, intermediateSize: 4096, numHiddenLayers: 24, numAttentionHeads: 16 },
  so400m: { hiddenSize: 1152, intermediateSize: 4304, numHiddenLayers: 27, numAttentionHeads: 16 },
  'giant-opt': { hiddenSize: 1536, intermediateSize: 6144, numHiddenLayers: 40, numAttentionHeads: 16 },
}
const PUBLISHED: readonly (readonly [width: string, patchSize: number, ...imageSizes: number[]])[] = [
  ['base', 16, 224, 256, 384, 512],
  ['base', 32, 256],
  ['large', 16, 256, 384, 512],
  ['so400m', 14, 224, 384],
  ['so400m', 16, 256, 384, 512],
  ['giant-opt', 16, 256, 384],
]

/** Vision encoders of the published SigLIP and SigLIP 2 by name. */
export const siglipVisionSizes: Record<string, SiglipVisionConfig> = Object.fromEntries(
  PUBLISHED.flatMap(([width, patchSize, ...imageSizes]) =>
    imageSizes.map((imageSize) => [
      `${width}-patch${patchSize}-${imageSize}`,
      { ...WIDTHS[width], patchSize, imageSize },
    ]),
  ),
)

export interface SiglipVisionInputs {
  /** Images [batch, channels, height, width], floating-point; the sides are `imageSize` unless `interpolatePosEncoding`. */
  pixelValues: Tensor
  /** Whether to resize the position table (bicubic) for images of another size. Default false. */
  interpolatePosEncoding?: boolean
  outputHiddenStates?: boolean
  outputAttentions?: boolean
}

export interface SiglipVisionOutput {
  /** [batch, patches, hiddenSize], after the last norm. */
  lastHiddenState: Tensor
  /** [batch, hiddenSize]: the patches pooled by attention; null without a head. */
  poolerOutput: Tensor | null
  /** Input of the first layer and output of each layer, [batch, patches, hiddenSize]; [] without `outputHiddenStates`. */
  hiddenStates: Tensor[]
  /** Attention of each layer, [batch, heads, patches, patches]; [] without `outputAttentions`. */
  attentions: Tensor[]
}

/** Return the vision encoder's keys of a configuration; in a whole SigLIP they are one level deeper. */
function visionOf(config: NetworkConfig): NetworkConfig {
  const { visionConfig, textConfig } = config
  if (visionConfig === undefined && textConfig === undefined) return { ...config }
  if (visionConfig === undefined) return {}
  if (isConfiguration(visionConfig)) return toCamel(visionConfig)
  throw new ConfigError(
    `SiglipVisionModel: visionConfig: expected an object, got ${shown(visionConfig)}. Correct the configuration.`,
    { key: 'visionConfig' },
  )
}

/**
 * SigLIP's vision encoder (Zhai et al. 2023, https://arxiv.org/abs/2303.15343), as transformers' SiglipVisionModel: a vision
 * transformer without a class token, and a head that pools its patches by attention. Runs in native code. It also loads folders of
 * a whole SigLIP, such as https://huggingface.co/google/siglip-so400m-patch14-384, and of SigLIP 2 with a fixed resolution, such
 * as https://huggingface.co/google/siglip2-base-patch16-224.
 *
 * ```ts
 * const encoder = await SiglipVisionModel.fromPretrained('google/siglip-base-patch16-224')
 * const { poolerOutput } = await encoder.forward({ pixelValues })
 * ```
 *
 * Published sizes: `'base-patch16-224'`, `'so400m-patch14-384'` and others; the error for an unknown name lists them.
 */
export class SiglipVisionModel extends networkClass<
  SiglipVisionModel,
  SiglipVisionConfig,
  SiglipVisionInputs,
  SiglipVisionOutput
>({
  kind: 'siglip_vision',
  forward: 'voxtorch::siglip_vision_forward',
  modelType: 'siglip_vision_model',
  alike: ['siglip'],
  architecture: 'SiglipVisionModel',
  sizes: siglipVisionSizes,
  keys: siglipVisionKeys,
  prefix: 'vision_model.',
  ignored: [/(^|\.)position_ids$/, /^text_model\./, /^logit_(scale|bias)$/],
  found: visionOf,
}) {}
