/**
 * The layout of fairseq's wav2vec 2.0 checkpoints and of the original WavLM files: a torch file with `model` (the
 * weights) and `cfg` (the configuration; {@link https://github.com/microsoft/unilm/tree/master/wavlm}).
 */
import { shown } from '../../base/arguments.js'
import { CheckpointError } from '../../base/errors.js'
import type { NetworkConfig } from '../network.js'

// Names of a layer's parts in fairseq and in transformers.
const layerParts: Record<string, string> = {
  'self_attn.relative_attention_bias': 'attention.rel_attn_embed',
  'self_attn.grep_linear': 'attention.gru_rel_pos_linear',
  'self_attn.grep_a': 'attention.gru_rel_pos_const',
  self_attn_layer_norm: 'layer_norm',
  self_attn: 'attention',
  fc1: 'feed_forward.intermediate_dense',
  fc2: 'feed_forward.output_dense',
}

const renamings: [RegExp, string | ((...match: string[]) => string)][] = [
  // In a fine-tuned model, the network is inside another one.
  [/^w2v_encoder\.w2v_model\./, ''],
  [/^mask_emb$/, 'masked_spec_embed'],
  [/^post_extract_proj\./, 'feature_projection.projection.'],
  [/^layer_norm\./, 'feature_projection.layer_norm.'],
  [/^encoder\.pos_conv\.0\./, 'encoder.pos_conv_embed.conv.'],
  // A convolution is the first module of its block. Its norm is the third; a layer norm is between two transposes.
  [/^(feature_extractor\.conv_layers\.\d+)\.0\./, '$1.conv.'],
  [/^(feature_extractor\.conv_layers\.\d+)\.2\.(1\.)?/, '$1.layer_norm.'],
  [
    new RegExp(`^(encoder\\.layers\\.\\d+)\\.(${Object.keys(layerParts).join('|').replaceAll('.', '\\.')})(?=\\.|$)`),
    (_, layer, part) => `${layer}.${layerParts[part as string]}`,
  ],
]

/** Convert fairseq's name of a weight to transformers' name. Names of transformers are unchanged. */
export function fairseqName(name: string): string {
  return renamings.reduce((result, [pattern, to]) => result.replace(pattern, to as string), name)
}

const fairseq2Renamings: [RegExp, string][] = [
  [/^encoder_frontend\.feature_extractor\.layers\.(\d+)\.conv\./, 'feature_extractor.conv_layers.$1.0.'],
  [/^encoder_frontend\.feature_extractor\.layers\.(\d+)\.layer_norm\./, 'feature_extractor.conv_layers.$1.2.1.'],
  [/^encoder_frontend\.feature_extractor\.layers\.(\d+)\.group_norm\./, 'feature_extractor.conv_layers.$1.2.'],
  [/^encoder_frontend\.post_extract_layer_norm\./, 'layer_norm.'],
  [/^encoder_frontend\.model_dim_proj\./, 'post_extract_proj.'],
  [/^encoder_frontend\.pos_encoder\.conv\./, 'encoder.pos_conv.0.'],
  [/^encoder_frontend\.layer_norm\./, 'encoder.layer_norm.'],
  [/^(encoder\.layers\.\d+\.self_attn)\.output_proj\./, '$1.out_proj.'],
  [/^(encoder\.layers\.\d+)\.ffn\.inner_proj\./, '$1.fc1.'],
  [/^(encoder\.layers\.\d+)\.ffn\.output_proj\./, '$1.fc2.'],
  [/^(encoder\.layers\.\d+)\.ffn_layer_norm\./, '$1.final_layer_norm.'],
  [/^(encoder_frontend\.)?masker\.temporal_mask_embed$/, 'mask_emb'],
]

/** Convert fairseq2's name of a wav2vec 2.0 weight to fairseq's. Other names are unchanged. */
export const fairseq2Name = (name: string): string =>
  fairseq2Renamings.reduce((result, [pattern, to]) => result.replace(pattern, to), name)

/** Keys of `cfg`, and their names in a config.json. */
const configKeys: Record<string, string> = {
  encoder_layers: 'numHiddenLayers',
  encoder_embed_dim: 'hiddenSize',
  encoder_ffn_embed_dim: 'intermediateSize',
  encoder_attention_heads: 'numAttentionHeads',
  activation_fn: 'hiddenAct',
  layer_norm_first: 'doStableLayerNorm',
  conv_bias: 'convBias',
  conv_pos: 'numConvPosEmbeddings',
  conv_pos_groups: 'numConvPosEmbeddingGroups',
  num_buckets: 'numBuckets',
  max_distance: 'maxBucketDistance',
  dropout: 'hiddenDropout',
  attention_dropout: 'attentionDropout',
  activation_dropout: 'activationDropout',
  dropout_input: 'featProjDropout',
  encoder_layerdrop: 'layerdrop',
}

/**
 * Convert the `cfg` of a fairseq file to a configuration. SpecAugment keeps its defaults, because `mask_prob` is that of pre-training,
 * which masks half of the audio.
 * @param cfg the file's `cfg`; if it has a `model`, that is used
 * @throws CheckpointError for convolution layers that cannot be parsed
 */
export function fairseqConfig(cfg: Record<string, unknown>, depth = 0): NetworkConfig {
  const inner = cfg.model
  if (typeof inner === 'object' && inner !== null) {
    // A pickle may contain itself.
    if (depth === DEEPEST)
      throw new CheckpointError(`cfg: expected at most ${DEEPEST} nested models, got more. Load another file.`, {
        tensor: null,
      })
    return fairseqConfig(inner as Record<string, unknown>, depth + 1)
  }
  const config: NetworkConfig = { activationDropout: 0, layerdrop: 0 } // fairseq's own defaults
  for (const [key, name] of Object.entries(configKeys)) {
    if (cfg[key] !== undefined && cfg[key] !== null) config[name] = cfg[key]
  }
  const layers = convolutions(cfg.conv_feature_layers ?? '[(512,10,5)] + [(512,3,2)] * 4 + [(512,2,2)] * 2')
  config.convDim = layers.map(([dim]) => dim)
  config.convKernel = layers.map(([, kernel]) => kernel)
  config.convStride = layers.map(([, , stride]) => stride)
  config.featExtractNorm = cfg.extractor_mode === 'layer_norm' ? 'layer' : 'group'
  return config
}

const DEEPEST = 10
const MOST_CONVOLUTIONS = 64

/** Parse lists of (channels, kernel, stride), repeated and joined: `[(512,10,5)] + [(512,3,2)] * 4`. */
export function convolutions(text: unknown, where = 'conv_feature_layers'): [number, number, number][] {
  const refuse = (expected: string) =>
    new CheckpointError(`${where}: expected ${expected}, got ${shown(text).slice(0, 200)}. Load another file.`, {
      tensor: null,
    })
  if (typeof text !== 'string' || text.length > 4096) throw refuse('a list of (channels, kernel, stride)')
  const layers: [number, number, number][] = []
  for (const term of text.replaceAll(/\s/g, '').split('+')) {
    const found = /^\[((?:\(\d+,\d+,\d+\),?)+)\](?:\*(\d+))?$/.exec(term)
    if (!found) throw refuse('lists of (channels, kernel, stride)')
    const triples = [...(found[1] as string).matchAll(/\((\d+),(\d+),(\d+)\)/g)].map(
      ([, dim, kernel, stride]): [number, number, number] => [Number(dim), Number(kernel), Number(stride)],
    )
    const times = Number(found[2] ?? 1)
    if (layers.length + triples.length * times > MOST_CONVOLUTIONS)
      throw refuse(`at most ${MOST_CONVOLUTIONS} convolutions`)
    for (let i = 0; i < times; i += 1) layers.push(...triples)
  }
  return layers
}
