import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { shown } from '../../base/check.js'
import { CheckpointError, ConfigError } from '../../base/errors.js'
import { readJson } from '../../files/json/json.js'
import { loadSafetensors } from '../../files/safetensors/safetensors.js'
import { loadTorch } from '../../files/torch/torch.js'
import { noGrad, type Tensor } from '../../tensor/index.js'
import type { ForeignCheckpoint } from '../pretrained.js'
import { tensorsOf, type Weights } from '../weights.js'
import type { ClipConfig } from './config.js'

/**
 * Loading of OpenCLIP's checkpoints (https://github.com/mlfoundations/open_clip): `open_clip_config.json` with
 * `open_clip_model.safetensors` or `open_clip_pytorch_model.bin`. In them the projections of queries, keys and values are one
 * matrix, and the projections to the shared space are transposed.
 */

const CONFIG = 'open_clip_config.json'
const FILES = ['open_clip_model.safetensors', 'open_clip_pytorch_model.bin']

export async function openClipCheckpoint(directory: string): Promise<ForeignCheckpoint | undefined> {
  // A repository with both layouts has the same weights twice.
  if (existsSync(join(directory, 'config.json')) || !existsSync(join(directory, CONFIG))) return undefined
  const path = join(directory, CONFIG)
  const config = openClipConfig(await readJson(path), path)
  return { config, weights: () => readWeights(directory) }
}

type Fields = Record<string, unknown>

const VISION = ['image_size', 'layers', 'width', 'patch_size', 'head_width', 'mlp_ratio', 'patch_dropout']
const TEXT = ['context_length', 'vocab_size', 'width', 'heads', 'layers', 'mlp_ratio', 'hf_tokenizer_name']
// Keys about tokenization, and keys that only training reads.
const READ_ELSEWHERE = ['tokenizer_kwargs', 'tokenizer_mode', 'output_tokens', 'embed_dim']
// Keys that change the network, with the value at which it is CLIP.
const USUAL: Fields = {
  ls_init_value: null,
  attentional_pool: false,
  no_ln_pre: false,
  pos_embed_type: 'learnable',
  final_ln_after_pool: false,
  act_kwargs: null,
  norm_kwargs: null,
  block_type: null,
  qk_norm: false,
  scaled_cosine_attn: false,
  scale_heads: false,
  scale_attn_inner: false,
  scale_attn: false,
  scale_fc: false,
  timm_model_name: null,
  embed_cls: false,
  no_causal_mask: false,
  proj_bias: false,
  proj_type: 'linear',
  hf_model_name: null,
}
// Keys without effect if the ones above have these values.
const IDLE = /^(attn_pooler_|timm_|hf_|pad_id$|eos_id$)/

function openClipConfig(whole: unknown, file: string): ClipConfig {
  const fail = (what: string, key: string) => new ConfigError(`${file}: ${what}. Use a CLIP model.`, { file, key })
  const object = (value: unknown, key: string): Fields => {
    if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as Fields
    throw fail(`${key}: expected an object, got ${shown(value)}`, key)
  }
  const model = object(object(whole, 'the file').model_cfg ?? whole, 'model_cfg')
  const vision = object(model.vision_cfg, 'vision_cfg')
  const text = object(model.text_cfg, 'text_cfg')
  const check = (fields: Fields, known: string[], pool: string, where: string) => {
    for (const [key, value] of Object.entries(fields)) {
      const usual = key === 'pool_type' ? pool : Object.hasOwn(USUAL, key) ? USUAL[key] : undefined
      const isFine = usual === undefined ? known.includes(key) || IDLE.test(key) : (value ?? null) === usual
      if (!isFine) {
        const expected = usual === undefined ? 'no such key' : shown(usual)
        throw fail(`${where}.${key}: expected ${expected}, got ${shown(value)}`, `${where}.${key}`)
      }
    }
  }
  check(vision, [...VISION, ...READ_ELSEWHERE], 'tok', 'vision_cfg')
  check(text, [...TEXT, ...READ_ELSEWHERE], 'argmax', 'text_cfg')
  if ((model.init_logit_bias ?? null) !== null)
    throw fail(`init_logit_bias: expected null, got ${shown(model.init_logit_bias)}`, 'init_logit_bias')
  const number = (fields: Fields, key: string, fallback: number): number => {
    const value = fields[key] ?? fallback
    if (typeof value === 'number') return value
    throw fail(`${key}: expected a number, got ${shown(value)}`, key)
  }
  const hiddenAct = model.quick_gelu === true ? 'quick_gelu' : 'gelu'
  const [width, textWidth] = [number(vision, 'width', 768), number(text, 'width', 512)]
  return {
    projectionDim: number(model, 'embed_dim', 512),
    textConfig: {
      hiddenAct,
      hiddenSize: textWidth,
      intermediateSize: Math.trunc(textWidth * number(text, 'mlp_ratio', 4)),
      numHiddenLayers: number(text, 'layers', 12),
      numAttentionHeads: number(text, 'heads', 8),
      maxPositionEmbeddings: number(text, 'context_length', 77),
      vocabSize: number(text, 'vocab_size', 49408),
      eosTokenId: 2,
    },
    visionConfig: {
      hiddenAct,
      hiddenSize: width,
      intermediateSize: Math.trunc(width * number(vision, 'mlp_ratio', 4)),
      numHiddenLayers: number(vision, 'layers', 12),
      numAttentionHeads: Math.trunc(width / number(vision, 'head_width', 64)),
      patchSize: number(vision, 'patch_size', 16),
      imageSize: (vision.image_size as number | [number, number] | undefined) ?? 224,
      forcePatchDropout: number(vision, 'patch_dropout', 0),
    },
  }
}

async function readWeights(directory: string): Promise<Weights> {
  const name = FILES.find((name) => existsSync(join(directory, name)))
  if (name === undefined) {
    throw new CheckpointError(
      `${directory}: expected weights in ${FILES.join(' or ')}, because it has ${CONFIG}, got neither. Download them.`,
      { file: directory },
    )
  }
  const file = join(directory, name)
  const tensors = name.endsWith('.bin')
    ? tensorsOf(await loadTorch(file, { mmap: true }))
    : (await loadSafetensors(file, { mmap: true })).tensors
  return { tensors: fromOpenClip(tensors, file), file, mapped: true }
}

const LAYERS: [RegExp, string][] = [
  [/^ln_1\./, 'layer_norm1.'],
  [/^ln_2\./, 'layer_norm2.'],
  [/^attn\.out_proj\./, 'self_attn.out_proj.'],
  [/^mlp\.c_fc\./, 'mlp.fc1.'],
  [/^mlp\.c_proj\./, 'mlp.fc2.'],
]
const OTHERS: Record<string, string> = {
  token_embedding: 'text_model.embeddings.token_embedding.weight',
  positional_embedding: 'text_model.embeddings.position_embedding.weight',
  ln_final: 'text_model.final_layer_norm',
  'visual.class_embedding': 'vision_model.embeddings.class_embedding',
  'visual.positional_embedding': 'vision_model.embeddings.position_embedding.weight',
  'visual.conv1': 'vision_model.embeddings.patch_embedding',
  'visual.ln_pre': 'vision_model.pre_layrnorm',
  'visual.ln_post': 'vision_model.post_layernorm',
}

/** Rename the tensors of OpenCLIP's state dictionary to transformers' names. Call it inside a scope. */
export function fromOpenClip(tensors: Record<string, Tensor>, file: string): Record<string, Tensor> {
  const state: Record<string, Tensor> = {}
  for (const [full, value] of Object.entries(tensors)) {
    // Data-parallel training adds `module.`, and a separate text encoder adds `text.`.
    const name = full.replace(/^module\./, '').replace(/^text\./, '')
    if (name === 'attn_mask') continue
    const [, side, layer, rest] = /^(visual\.)?transformer\.resblocks\.(\d+)\.(.+)$/.exec(name) ?? []
    if (rest === undefined) Object.assign(state, outside(name, value))
    else {
      const path = `${side ? 'vision' : 'text'}_model.encoder.layers.${layer}.`
      const [, kind] = /^attn\.in_proj_(weight|bias)$/.exec(rest) ?? []
      if (kind === undefined) state[path + renamedIn(rest)] = value
      else Object.assign(state, apart(`${path}self_attn.`, kind, value, full, file))
    }
  }
  return state
}

const renamedIn = (rest: string): string => {
  const [pattern, own] = LAYERS.find(([pattern]) => pattern.test(rest)) ?? []
  return pattern ? rest.replace(pattern, own as string) : rest
}

function outside(name: string, value: Tensor): Record<string, Tensor> {
  if (name === 'text_projection' || name === 'visual.proj') {
    const own = name === 'visual.proj' ? 'visual_projection.weight' : 'text_projection.weight'
    return { [own]: noGrad(() => (value.ndim === 2 ? value.t().contiguous() : value)) }
  }
  if (name === 'logit_scale') return { [name]: noGrad(() => value.reshape([])) }
  const [, path = name, end = ''] = /^(.+?)(\.(?:weight|bias))?$/.exec(name) ?? []
  const own = Object.hasOwn(OTHERS, path) ? (OTHERS[path] as string) : undefined
  if (own === undefined) return { [name]: value }
  return { [own.endsWith('.weight') ? own : own + end]: value }
}

function apart(path: string, kind: string, value: Tensor, name: string, file: string): Record<string, Tensor> {
  const rows = value.shape[0] ?? 0
  if (rows % 3 !== 0) {
    throw new CheckpointError(
      `${file}: ${name}: expected a multiple of 3 rows (query, key, value), got ${rows}. Download the file again.`,
      {
        file,
        tensor: name,
      },
    )
  }
  const part = (i: number) => noGrad(() => value.narrow(0, (i * rows) / 3, rows / 3).clone())
  return {
    [`${path}q_proj.${kind}`]: part(0),
    [`${path}k_proj.${kind}`]: part(1),
    [`${path}v_proj.${kind}`]: part(2),
  }
}
