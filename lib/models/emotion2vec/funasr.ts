import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { shown } from '../../base/arguments.js'
import { CheckpointError, ConfigError } from '../../base/errors.js'
import { chunksOf, utf8 } from '../../files/text.js'
import { loadTorch } from '../../files/torch/torch.js'
import { readYaml } from '../../files/yaml/yaml.js'
import { isConfiguration } from '../../nn/native-module.js'
import type { Tensor } from '../../tensor/index.js'
import { convolutions } from '../encoders/fairseq.js'
import type { NetworkConfig } from '../network.js'
import type { ForeignCheckpoint } from '../pretrained.js'
import { tensorsOf } from '../weights.js'

/** FunASR's folders, as published: config.yaml, model.pt of torch.save, and tokens.txt with the names of the classes. */

const CONFIG = 'config.yaml'
const WEIGHTS = 'model.pt'
const TOKENS = 'tokens.txt'
const MAX_TOKENS_BYTES = 1 << 20

type Node = Record<string, unknown>

/** Return the model type of a folder of FunASR with an emotion2vec; undefined for other folders. */
export async function describedEmotion2Vec(place: string): Promise<NetworkConfig | undefined> {
  return (await published(place)) === undefined ? undefined : { modelType: 'emotion2vec' }
}

/** Return the checkpoint of a folder of FunASR; undefined for other folders. */
export async function funasrCheckpoint(place: string): Promise<ForeignCheckpoint | undefined> {
  const described = await published(place)
  if (described === undefined) return undefined
  const { config, prenet } = convertedConfig(join(place, CONFIG), described)
  const labels = await readLabels(join(place, TOKENS))
  const id2label = labels && Object.fromEntries(labels.map((label, i) => [i, label]))
  return {
    config: { ...config, ...(id2label && { id2label }) },
    weights: async () => {
      const file = join(place, WEIGHTS)
      const tensors: Record<string, Tensor> = {}
      for (const [name, tensor] of Object.entries(tensorsOf(await loadTorch(file, { mmap: true })))) {
        const short = name.replace(/^(?:module\.)?(?:d2v_model\.)?/, '')
        if (!PRETRAINING.test(short)) tensors[networkName(short, prenet)] = tensor
      }
      return { tensors, file, mapped: true }
    },
  }
}

/** Return the content of a folder's config.yaml, if it describes an emotion2vec. */
async function published(place: string): Promise<Node | undefined> {
  const file = join(place, CONFIG)
  if (existsSync(join(place, 'config.json')) || !existsSync(file)) return undefined
  const described = await readYaml(file)
  return isConfiguration(described) && (described as Node).model === 'Emotion2vec' ? (described as Node) : undefined
}

async function readLabels(file: string): Promise<string[] | undefined> {
  if (!existsSync(file)) return undefined
  const parts: Buffer[] = []
  for await (const part of chunksOf(file, MAX_TOKENS_BYTES)) parts.push(part)
  return utf8(Buffer.concat(parts), file)
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => line !== '')
}

/** Parts of pre-training: the decoder that predicts masked frames, and the teacher. */
const PRETRAINING = /^(?:_ema$|modality_encoders\.AUDIO\.decoder\.)/

const LAYER_PARTS: Record<string, string> = {
  norm1: 'layer_norm',
  norm2: 'final_layer_norm',
  'attn.qkv': 'attention.qkv',
  'attn.proj': 'attention.proj',
  'mlp.fc1': 'feed_forward.intermediate_dense',
  'mlp.fc2': 'feed_forward.output_dense',
}

/** Return the network's name of a tensor. Unknown names are unchanged. @internal */
export function networkName(name: string, prenet: number): string {
  const layer =
    /^(modality_encoders\.AUDIO\.context_encoder\.)?blocks\.(\d{1,9})\.(\w+(?:\.\w+)?)\.(weight|bias)$/.exec(name)
  if (layer) {
    const [, inPrenet, index, part = '', kind] = layer
    const to = Object.hasOwn(LAYER_PARTS, part) ? LAYER_PARTS[part] : undefined
    // A block beyond the prenet must not take the place of one after it.
    if (to === undefined || (inPrenet && Number(index) >= prenet)) return name
    return `encoder.layers.${Number(index) + (inPrenet ? 0 : prenet)}.${to}.${kind}`
  }
  return name
    .replace(/^proj\./, 'classifier.')
    .replace(/^modality_encoders\.AUDIO\.(extra_tokens|alibi_scale)$/, 'encoder.$1')
    .replace(/^modality_encoders\.AUDIO\.context_encoder\.norm\./, 'encoder.layer_norm.')
    .replace(/^modality_encoders\.AUDIO\.project_features\.1\./, 'feature_projection.layer_norm.')
    .replace(/^modality_encoders\.AUDIO\.project_features\.2\./, 'feature_projection.projection.')
    .replace(
      /^modality_encoders\.AUDIO\.local_encoder\.conv_layers\.(\d{1,9})\.(0|2\.1)\./,
      (_, index: string, part: string) =>
        `feature_extractor.conv_layers.${index}.${part === '0' ? 'conv' : 'layer_norm'}.`,
    )
    .replace(
      // The first module is a transpose.
      /^modality_encoders\.AUDIO\.relative_positional_encoder\.([1-9]\d{0,8})\.0\./,
      (_, index: string) => `encoder.pos_conv_embed.layers.${Number(index) - 1}.conv.`,
    )
}

/** Keys of config.yaml for which the network supports one value only, the published one. */
const ONLY: Record<string, unknown> = { layer_norm_first: false, norm_eps: 1e-5, norm_affine: true }
const ONLY_AUDIO: Record<string, unknown> = {
  ...{ extractor_mode: 'layer_norm', conv_pos_pre_ln: false, use_alibi_encoder: true, learned_alibi: false },
}
/** Keys with an effect in the original's training, which this library does not have. Their published values have none. */
const UNUSED: Record<string, unknown> = { start_drop_path_rate: 0, end_drop_path_rate: 0, dropout_input: 0 }
const UNUSED_AUDIO: Record<string, unknown> = {
  ...{ start_drop_path_rate: 0, end_drop_path_rate: 0, local_grad_mult: 1, learned_alibi_scale: true },
}

/** Convert config.yaml. @throws ConfigError with the key of a value that is missing or not supported @internal */
export function convertedConfig(file: string, described: Node): { config: NetworkConfig; prenet: number } {
  const model = nodeIn(file, described, 'model_conf')
  const audio = nodeIn(file, nodeIn(file, model, 'modalities', 'model_conf.'), 'audio', 'model_conf.modalities.')
  const wrong = (key: string, expected: string, value: unknown) =>
    new ConfigError(`${file}: ${key}: expected ${expected}, got ${shown(value)}. Load another checkpoint.`, {
      file,
      key,
    })
  const requireValues = (node: Node, values: Record<string, unknown>) => {
    for (const [key, value] of Object.entries(values))
      if (node[key] !== undefined && node[key] !== value) throw wrong(key, shown(value), node[key])
  }
  const count = (node: Node, key: string): number => {
    const value = node[key]
    if (Number.isSafeInteger(value) && (value as number) >= 0 && (value as number) <= 2 ** 20) return value as number
    throw wrong(key, 'an integer from 0 to 2^20', value)
  }
  requireValues(model, ONLY)
  requireValues(audio, ONLY_AUDIO)
  const warnOfValues = (node: Node, values: Record<string, unknown>) => {
    for (const [key, value] of Object.entries(values))
      if (node[key] !== undefined && node[key] !== value)
        process.emitWarning(`${file}: ${key} ${shown(node[key])} has no effect in training`, 'VoxtorchWarning')
  }
  warnOfValues(model, UNUSED)
  warnOfValues(audio, { ...UNUSED_AUDIO, prenet_layerdrop: model.layerdrop ?? 0 })
  const prenet = count(audio, 'prenet_depth')
  const hiddenSize = count(model, 'embed_dim')
  const ratio = model.mlp_ratio
  if (typeof ratio !== 'number' || !(ratio > 0 && ratio <= 1024)) throw wrong('mlp_ratio', 'a number above 0', ratio)
  const depth = count(audio, 'conv_pos_depth')
  if (depth === 0) throw wrong('conv_pos_depth', 'at least 1', depth)
  const layers = convolutions(audio.feature_encoder_spec, `${file}: feature_encoder_spec`)
  const config: NetworkConfig = {
    hiddenSize,
    numHiddenLayers: prenet + count(model, 'depth'),
    numAttentionHeads: model.num_heads,
    intermediateSize: Math.trunc(hiddenSize * ratio),
    convDim: layers.map(([dim]) => dim),
    convKernel: layers.map(([, kernel]) => kernel),
    convStride: layers.map(([, , stride]) => stride),
    numConvPosEmbeddings: depth,
    convPosKernelSize: Math.max(3, Math.floor(count(audio, 'conv_pos_width') / depth)),
    numConvPosEmbeddingGroups: audio.conv_pos_groups,
    numExtraTokens: audio.num_extra_tokens,
    numAlibiHeads: audio.num_alibi_heads,
    alibiScale: audio.alibi_scale,
    learnedAlibiScalePerLayer: audio.learned_alibi_scale_per_layer,
    learnedAlibiScalePerHead: audio.learned_alibi_scale_per_head,
    hiddenDropout: model.encoder_dropout,
    postMlpDrop: model.post_mlp_drop,
    prenetDropout: audio.prenet_dropout,
    attentionDropout: model.attention_dropout,
    activationDropout: model.activation_dropout,
    layerdrop: model.layerdrop,
    normalize: model.normalize,
  }
  return { config, prenet }
}

function nodeIn(file: string, node: Node, key: string, path = ''): Node {
  const value = node[key]
  if (isConfiguration(value)) return value as Node
  throw new CheckpointError(`${file}: ${path}${key}: expected a mapping, got ${shown(value)}. Check the file.`, {
    file,
  })
}
