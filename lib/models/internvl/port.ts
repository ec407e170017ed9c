import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { ConfigError } from '../../base/errors.js'
import { toCamel, toSnake } from '../../base/words.js'
import { cat, type Tensor } from '../../tensor/index.js'
import { type DecoderLMConfig, published } from '../decoder/config.js'
import type { NetworkConfig } from '../network.js'
import { type ForeignCheckpoint, readConfig } from '../pretrained.js'
import { readWeights } from '../weights.js'
import type { CompleteInternVLConfig, InternViTConfig, InternVLConfig } from './config.js'

// transformers' port of InternVL (https://huggingface.co/docs/transformers/model_doc/internvl) has other names, splits the vision encoder's
// qkv projection into three, and stores InternLM2 as LLaMA with split projections.

/** Keys of the vision encoder: the port's and voxtorch's. */
const VISION: Readonly<Record<string, keyof InternViTConfig>> = {
  hiddenSize: 'hiddenSize',
  numHiddenLayers: 'numHiddenLayers',
  numAttentionHeads: 'numAttentionHeads',
  intermediateSize: 'intermediateSize',
  numChannels: 'numChannels',
  attentionBias: 'qkvBias',
  useQkNorm: 'qkNormalization',
  normType: 'normType',
  layerNormEps: 'layerNormEps',
  hiddenAct: 'hiddenAct',
  initializerRange: 'initializerRange',
  layerScaleInitValue: 'initializerFactor',
  projectionDropout: 'dropout',
  attentionDropout: 'attentionDropout',
}
/** Fixed values in a port's file, of the vision encoder and of the whole model. */
const FIXED_VISION = {
  useMeanPooling: true,
  useMaskToken: false,
  useAbsolutePositionEmbeddings: true,
  hiddenDropoutProb: 0,
}
const FIXED = { visionFeatureSelectStrategy: 'default', projectorHiddenAct: 'gelu' }
const VISION_DEFAULTS: InternViTConfig = {
  hiddenSize: 1024,
  numHiddenLayers: 24,
  numAttentionHeads: 16,
  intermediateSize: 4096,
  imageSize: 448,
  qkvBias: false,
  qkNormalization: false,
  normType: 'layer_norm',
}

/** Replacements from the port's names to voxtorch's, in order; each occurs once in a name. */
const VISION_NAMES: readonly (readonly [string, string])[] = [
  ['vision_tower.', 'vision_model.'],
  ['.encoder.layer.', '.encoder.layers.'],
  ['.cls_token', '.class_embedding'],
  ['.position_embeddings', '.position_embedding'],
  ['.patch_embeddings.projection.', '.patch_embedding.'],
  ['.lambda_', '.ls'],
  ['.attention.projection_layer.', '.attn.proj.'],
  ['.attention.', '.attn.'],
  ['.layernorm_before.', '.norm1.'],
  ['.layernorm_after.', '.norm2.'],
]
const PROJECTOR_NAMES = { layer_norm: '0', linear_1: '1', linear_2: '3' } as const
const LLAMA_NAMES: readonly (readonly [string, string])[] = [
  ['language_model.output.', 'language_model.lm_head.'],
  ['.tok_embeddings.', '.embed_tokens.'],
  ['.attention_norm.', '.input_layernorm.'],
  ['.ffn_norm.', '.post_attention_layernorm.'],
  ['.attention.wo.', '.self_attn.o_proj.'],
  ['.feed_forward.w1.', '.mlp.gate_proj.'],
  ['.feed_forward.w2.', '.mlp.down_proj.'],
  ['.feed_forward.w3.', '.mlp.up_proj.'],
]

/** Return the checkpoint of a folder in the port's layout, or undefined. */
export async function portCheckpoint(directory: string): Promise<ForeignCheckpoint | undefined> {
  if (!existsSync(join(directory, 'config.json'))) return undefined
  const config = await readConfig(directory)
  if (config.modelType !== 'internvl') return undefined
  return {
    config: ownConfig(config, join(directory, 'config.json')),
    weights: async (options) => {
      const read = await readWeights(directory, options)
      return { ...read, tensors: ownState(read.tensors) }
    },
  }
}

function ownConfig(config: NetworkConfig, file: string): InternVLConfig {
  const part = (key: string): NetworkConfig => {
    const value = config[key]
    return typeof value === 'object' && value !== null && !Array.isArray(value) ? toCamel(value) : {}
  }
  const [vision, text] = [part('visionConfig'), part('textConfig')]
  const check = (given: NetworkConfig, fixed: Record<string, unknown>) => {
    for (const [key, value] of Object.entries(fixed)) {
      if (given[key] === undefined || given[key] === value) continue
      throw new ConfigError(
        `${file}: ${key}: expected ${JSON.stringify(value)}, got ${JSON.stringify(given[key])}. voxtorch supports no other value.`,
        {
          file,
          key,
        },
      )
    }
  }
  check(vision, FIXED_VISION)
  check(config, FIXED)
  const ofVision = new Set([...Object.keys(VISION), ...Object.keys(FIXED_VISION), ...NAMES, 'imageSize', 'patchSize'])
  // Unknown keys of the vision encoder are reported like those of any file.
  const visionConfig: InternViTConfig = { ...VISION_DEFAULTS, ...without(vision, ofVision) }
  for (const [theirs, ours] of Object.entries(VISION))
    if (vision[theirs] !== undefined) visionConfig[ours] = vision[theirs]
  for (const key of ['imageSize', 'patchSize'] as const) {
    const given = vision[key]
    const [height, width] = Array.isArray(given) ? given : [given, given]
    if (height !== width)
      throw new ConfigError(`${file}: ${key}: expected a square, got ${JSON.stringify(given)}.`, { file, key })
    if (height !== undefined) visionConfig[key] = height as number
  }
  const {
    tieWordEmbeddings = text.tieWordEmbeddings,
    imageTokenId = null,
    downsampleRatio,
    visionFeatureLayer,
  } = config
  const read = new Set([
    ...Object.keys(FIXED),
    ...NAMES,
    ...PARTS,
    'imageTokenId',
    'visionFeatureLayer',
    'tieWordEmbeddings',
  ])
  return {
    // imageSeqLength follows from the other sizes.
    ...without(config, read.add('imageSeqLength')),
    visionConfig,
    llmConfig: { ...text, ...(tieWordEmbeddings !== undefined && { tieWordEmbeddings }) } as DecoderLMConfig,
    imgContextTokenId: imageTokenId as number | null,
    ...(downsampleRatio !== undefined && { downsampleRatio: downsampleRatio as number }),
    ...(visionFeatureLayer !== undefined && { selectLayer: visionFeatureLayer as number }),
  }
}

/** Keys that identify the port. */
const NAMES = ['modelType', 'architectures']
const PARTS = ['visionConfig', 'textConfig']

const without = (config: NetworkConfig, keys: ReadonlySet<string>): NetworkConfig =>
  Object.fromEntries(Object.entries(config).filter(([key]) => !keys.has(key)))

const replaced = (name: string, pairs: readonly (readonly [string, string])[], back = false): string =>
  pairs.reduce((made, [theirs, ours]) => (back ? made.replace(ours, theirs) : made.replace(theirs, ours)), name)

/** Rename the port's tensors to voxtorch's names. Call it in a scope. */
function ownState(tensors: Record<string, Tensor>): Record<string, Tensor> {
  const state: Record<string, Tensor> = {}
  const apart = new Map<string, Tensor[]>()
  for (const [given, tensor] of Object.entries(tensors)) {
    const name = given.replace(/^model\./, '')
    if (name.startsWith('vision_tower.')) {
      const ours = replaced(name, VISION_NAMES)
      const [, letter] = /\.attn\.([qkv])_proj\./.exec(ours) ?? []
      if (letter === undefined) {
        state[ours] = tensor
        continue
      }
      const whole = ours.replace(`.${letter}_proj.`, '.qkv.')
      const rows = apart.get(whole) ?? []
      rows['qkv'.indexOf(letter)] = tensor
      apart.set(whole, rows)
    } else if (name.startsWith('multi_modal_projector.')) {
      const [, layer, kind] = name.split('.') as [string, string, string]
      const number = Object.hasOwn(PROJECTOR_NAMES, layer) ? PROJECTOR_NAMES[layer as 'linear_1'] : layer
      state[`mlp1.${number}.${kind}`] = tensor
    } else if (name === 'lm_head.weight') {
      state['language_model.lm_head.weight'] = tensor
    } else {
      state[name.replace(/^language_model\.(?!model\.|lm_head\.)/, 'language_model.model.')] = tensor
    }
  }
  for (const [name, rows] of apart) {
    // A tensor with a missing part is reported as missing.
    if (rows[0] && rows[1] && rows[2]) state[name] = cat(rows, 0)
  }
  return state
}

/** Return config.json in the port's format. @throws ConfigError for a value that the port does not support */
export function portConfig(config: CompleteInternVLConfig): Record<string, unknown> {
  const {
    visionConfig,
    llmConfig,
    downsampleRatio = 0.5,
    selectLayer = -1,
    psVersion = 'v2',
    imgContextTokenId,
  } = config
  if (psVersion !== 'v2')
    throw new ConfigError("InternVL.save: psVersion: expected 'v2' for the layout 'transformers', got 'v1'.", {
      psVersion,
    })
  const complete: InternViTConfig = {
    hiddenSize: 3200,
    numHiddenLayers: 48,
    numAttentionHeads: 25,
    intermediateSize: 12800,
    qkvBias: false,
    qkNormalization: true,
    normType: 'rms_norm',
    layerNormEps: 1e-6,
    initializerFactor: 0.1,
    ...visionConfig,
  }
  const vision: NetworkConfig = { modelType: 'internvl_vision', ...FIXED_VISION }
  for (const [theirs, ours] of Object.entries(VISION)) if (complete[ours] !== undefined) vision[theirs] = complete[ours]
  // transformers rejects an integer here, and JSON cannot write 1.0. The key only affects new weights.
  if (Number.isInteger(vision.layerScaleInitValue)) Reflect.deleteProperty(vision, 'layerScaleInitValue')
  const { imageSize = 224, patchSize = 14 } = visionConfig
  Object.assign(vision, { imageSize: [imageSize, imageSize], patchSize: [patchSize, patchSize] })
  const side = (imageSize / patchSize) * downsampleRatio
  return {
    architectures: ['InternVLForConditionalGeneration'],
    model_type: 'internvl',
    ...toSnake(FIXED),
    downsample_ratio: downsampleRatio,
    image_seq_length: side * side,
    vision_feature_layer: selectLayer,
    ...(imgContextTokenId != null && { image_token_id: imgContextTokenId }),
    tie_word_embeddings: llmConfig.tieWordEmbeddings ?? false,
    vision_config: toSnake(vision),
    text_config: toSnake(published(textConfig(llmConfig))),
  }
}

/** Convert an InternLM2 configuration to LLaMA, as in the port. */
function textConfig({ architectures: _, autoMap: __, bias, ...llm }: DecoderLMConfig): DecoderLMConfig {
  if (llm.modelType !== 'internlm2') return { ...llm, ...(bias !== undefined && { bias }) }
  return { ...llm, modelType: 'llama', attentionBias: bias ?? true }
}

/** Rename tensors to the port's names. Call it in a scope. */
export function portState(config: CompleteInternVLConfig, own: Record<string, Tensor>): Record<string, Tensor> {
  const state: Record<string, Tensor> = {}
  for (const [name, tensor] of Object.entries(own)) {
    if (name.startsWith('mlp1.')) {
      const [, number, kind] = name.split('.') as [string, string, string]
      const layer = Object.entries(PROJECTOR_NAMES).find(([, ours]) => ours === number)?.[0]
      state[`multi_modal_projector.${layer}.${kind}`] = tensor
    } else if (name.startsWith('vision_model.')) {
      const theirs = replaced(name.replace('.attn.proj.', '.attention.projection_layer.'), VISION_NAMES, true)
      if (theirs.includes('.qkv.')) {
        for (const [i, rows] of tensor.chunk(3, 0).entries())
          state[theirs.replace('.qkv.', `.${'qkv'[i]}_proj.`)] = rows.clone()
      } else {
        state[theirs] = tensor
      }
    } else if (config.llmConfig.modelType !== 'internlm2') {
      state[name] = tensor
    } else if (name.includes('.attention.wqkv.')) {
      for (const [letter, rows] of takenApart(config.llmConfig, tensor)) {
        state[name.replace('.attention.wqkv.', `.self_attn.${letter}_proj.`)] = rows
      }
    } else {
      state[replaced(name, LLAMA_NAMES)] = tensor
    }
  }
  return state
}

/** Split InternLM2's projection, grouped by key-value head, into the rows of queries, keys and values. */
function takenApart({ numAttentionHeads: heads = 32, numKeyValueHeads: groups = heads }: DecoderLMConfig, all: Tensor) {
  const each = heads / groups
  const dim = all.size(0) / (heads + 2 * groups)
  const rest = all.shape.slice(1)
  const slots = all.reshape([groups, each + 2, dim, ...rest])
  const part = (letter: string, from: number, count: number): [string, Tensor] => [
    letter,
    slots
      .narrow(1, from, count)
      .reshape([groups * count * dim, ...rest])
      .clone(),
  ]
  return [part('q', 0, each), part('k', each, 1), part('v', each + 1, 1)]
}
