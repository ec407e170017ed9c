import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { CheckpointError, ConfigError } from '../../base/errors.js'
import { ggufIn, isGguf } from '../../files/gguf/find.js'
import { type GgufFile, readGguf } from '../../files/gguf/gguf.js'
import type { GgufTensor, GgufValue } from '../../files/gguf/types.js'
import { currentContext } from '../../native/context.js'
import { blockSchemeOf } from '../../nn/quantized-weight.js'
import { type Device, scope, type Tensor } from '../../tensor/index.js'
import type { ForeignCheckpoint } from '../pretrained.js'
import type { FillOptions, Weights } from '../weights.js'
import type { DecoderLMConfig, RopeParameters } from './config.js'
import { llama3Scaling } from './rope-factors.js'

/**
 * Decoders of the LLaMA family as llama.cpp's GGUF files hold them: its names of keys and tensors, and for `llama` the rows
 * of q and k in the order in which it turns them (https://github.com/ggml-org/llama.cpp/blob/master/convert_hf_to_gguf.py).
 */

/** Its architectures, and what ours they are. Mistral's files say `llama`, with the same tensors. */
const MODEL_TYPES: Readonly<Record<string, 'llama' | 'mistral' | 'qwen2'>> = {
  llama: 'llama',
  mistral: 'mistral',
  qwen2: 'qwen2',
}

/** The GGUF file that a place is or has; undefined for a folder with a configuration of its own. */
export async function ggufCheckpoint(place: string): Promise<ForeignCheckpoint | undefined> {
  const path = ggufPath(place)
  if (path === null) return undefined
  const file = await readGguf(path)
  const config = configOf(file)
  if (file.tensors[FACTORS] !== undefined) config.ropeScaling = await factorScaling(file, config)
  return { config, weights: (options) => weightsOf(file, config, options) }
}

function factorScaling(file: GgufFile, { ropeTheta = 10_000, headDim = 0 }: DecoderLMConfig): Promise<RopeParameters> {
  return scope(async () => {
    const { [FACTORS]: factors } = await file.load({ names: [FACTORS] })
    const found = llama3Scaling((await factors!.to('float32').data()) as Float32Array, ropeTheta, headDim)
    if (found !== null) return found
    throw new ConfigError(`${file.path}: ${FACTORS} is no scaling of LLaMA 3.1's kind`, {
      file: file.path,
      tensor: FACTORS,
    })
  })
}

export function ggufPath(place: string): string | null {
  if (isGguf(place)) return place
  return existsSync(join(place, 'config.json')) ? null : ggufIn(place)
}

/** @throws ConfigError naming the key, for a network that is none of these */
export function configOf(file: GgufFile): DecoderLMConfig {
  const { metadata, tensors, architecture, path } = file
  const fail = (field: string, what: string): never => {
    throw new ConfigError(`${path}: ${field} ${what}`, { file: path, field })
  }
  const parts = metadata['split.count']
  if (typeof parts === 'number' && parts > 1) {
    fail('split.count', `says that it is one of ${parts} files; join them with llama.cpp's gguf-split --merge`)
  }
  const modelType = MODEL_TYPES[architecture ?? '']
  if (modelType === undefined) {
    const known = Object.keys(MODEL_TYPES).join(', ')
    return fail('general.architecture', `is ${architecture ?? 'missing'}, and DecoderLM reads ${known}`)
  }
  const get = (key: string): GgufValue | undefined => metadata[`${architecture}.${key}`]
  function number(key: string, usual: number): number
  function number(key: string, usual?: undefined): number | undefined
  function number(key: string, usual?: number): number | undefined {
    const value = get(key)
    if (value === undefined) return usual
    return typeof value === 'number' && value >= 0 && Number.isFinite(value)
      ? shortest(value)
      : fail(`${architecture}.${key}`, 'is no number')
  }
  const needed = (key: string): number => number(key) ?? fail(`${architecture}.${key}`, 'is missing')
  const embeddings = tensors['token_embd.weight']
  const vocabSize = embeddings?.shape[0] ?? number('vocab_size')
  if (vocabSize === undefined) fail(`${architecture}.vocab_size`, 'is missing')
  const hiddenSize = needed('embedding_length')
  const heads = needed('attention.head_count')
  const headDim = number('attention.key_length') ?? number('rope.dimension_count') ?? hiddenSize / heads
  if (number('attention.value_length', headDim) !== headDim) {
    fail(`${architecture}.attention.value_length`, `is not the ${headDim} of the keys`)
  }
  if (number('rope.dimension_count', headDim) !== headDim) {
    fail(`${architecture}.rope.dimension_count`, `is not the ${headDim} of a head`)
  }
  if (number('expert_count', 0) > 0)
    fail(`${architecture}.expert_count`, 'says that it has experts, which are not read')
  const { tokenizer } = file
  const token = (key: string): number | null => (typeof tokenizer[key] === 'number' ? tokenizer[key] : null)
  const window = number('attention.sliding_window')
  const ropeTheta = number('rope.freq_base', 10_000)
  const config: DecoderLMConfig = {
    modelType: modelType === 'llama' && window !== undefined ? 'mistral' : modelType,
    vocabSize: vocabSize as number,
    hiddenSize,
    intermediateSize: needed('feed_forward_length'),
    numHiddenLayers: needed('block_count'),
    numAttentionHeads: heads,
    numKeyValueHeads: number('attention.head_count_kv', heads),
    headDim,
    maxPositionEmbeddings: needed('context_length'),
    rmsNormEps: number('attention.layer_norm_rms_epsilon', 1e-5),
    tieWordEmbeddings: tensors['output.weight'] === undefined,
    ropeTheta,
    bosTokenId: token('bos_token_id'),
    eosTokenId: token('eos_token_id'),
    padTokenId: token('padding_token_id'),
  }
  if (config.modelType === 'mistral') config.slidingWindow = window ?? null
  if (config.modelType === 'llama') config.attentionBias = tensors['blk.0.attn_q.bias'] !== undefined
  const scaling = scalingOf(file, number, (field, what) => fail(`${architecture}.${field}`, what))
  if (scaling !== undefined) config.ropeScaling = scaling
  return config
}

type NumberOf = (key: string) => number | undefined

function scalingOf(
  { metadata, architecture }: GgufFile,
  number: NumberOf,
  fail: (field: string, what: string) => never,
): RopeParameters | undefined {
  const key = 'rope.scaling.type'
  const type = metadata[`${architecture}.${key}`] ?? 'none'
  if (type === 'none') return undefined
  const factor = number('rope.scaling.factor') ?? 1
  if (type === 'linear') return { ropeType: 'linear', factor }
  if (type !== 'yarn') return fail(key, `is ${String(type)}; linear and yarn can be read`)
  const optional: [keyof RopeParameters, string][] = [
    ['originalMaxPositionEmbeddings', 'rope.scaling.original_context_length'],
    ['betaFast', 'rope.scaling.yarn_beta_fast'],
    ['betaSlow', 'rope.scaling.yarn_beta_slow'],
  ]
  const found = optional.map(([name, from]) => [name, number(from)]).filter(([, value]) => value !== undefined)
  return { ropeType: 'yarn', factor, ...Object.fromEntries(found) }
}

/** The shortest number that is the same float32: 1e-5, where the file has 9.999999747378752e-6. */
function shortest(value: number): number {
  if (Math.fround(value) !== value) return value
  for (let digits = 1; digits < 10; digits++) {
    const short = Number(value.toPrecision(digits))
    if (Math.fround(short) === value) return short
  }
  return value
}

const TOP: Readonly<Record<string, string>> = {
  'token_embd.weight': 'model.embed_tokens.weight',
  'output_norm.weight': 'model.norm.weight',
  'output.weight': 'lm_head.weight',
}
const LAYER: Readonly<Record<string, string>> = {
  attn_norm: 'input_layernorm',
  attn_q: 'self_attn.q_proj',
  attn_k: 'self_attn.k_proj',
  attn_v: 'self_attn.v_proj',
  attn_output: 'self_attn.o_proj',
  ffn_norm: 'post_attention_layernorm',
  ffn_gate: 'mlp.gate_proj',
  ffn_up: 'mlp.up_proj',
  ffn_down: 'mlp.down_proj',
}
const BACK = Object.fromEntries(Object.entries(LAYER).map(([theirs, ours]) => [ours, theirs]))
const TOP_BACK = Object.fromEntries(Object.entries(TOP).map(([theirs, ours]) => [ours, theirs]))

/** Transformers' name for one of llama.cpp's; one that is not known stays, so that it is reported. */
export function ourName(name: string): string {
  const [, layer, part, kind] = /^blk\.(\d+)\.(\w+)\.(weight|bias)$/.exec(name) ?? []
  if (part !== undefined && Object.hasOwn(LAYER, part)) return `model.layers.${layer}.${LAYER[part]}.${kind}`
  return TOP[name] ?? name
}

/** The other way round; null where llama.cpp has no place for it. */
export function theirName(name: string): string | null {
  const [, layer, part, kind] = /^model\.layers\.(\d+)\.([\w.]+)\.(weight|bias)$/.exec(name) ?? []
  if (part !== undefined) return Object.hasOwn(BACK, part) ? `blk.${layer}.${BACK[part]}.${kind}` : null
  return TOP_BACK[name] ?? null
}

/** What is no Linear's weight and no embedding's. */
const VALUES = /(?:\.bias|_norm\.weight)$/
/** Factors by which each frequency is divided: LLaMA 3.1's scaling, which has no keys in the metadata. */
const FACTORS = 'rope_freqs.weight'

async function weightsOf(
  file: GgufFile,
  config: DecoderLMConfig,
  { dtype, mmap = false, quantize, device = (currentContext().deviceName as Device | undefined) ?? 'cpu' }: FillOptions,
): Promise<Weights> {
  const { path, architecture } = file
  const names = Object.keys(file.tensors).filter((name) => name !== FACTORS)
  // Kernels compute with these as they are, on the CPU.
  const stays = quantize === undefined && device.startsWith('cpu')
  const packed = names.flatMap((name) => {
    const scheme = stays && !VALUES.test(name) ? blockSchemeOf((file.tensors[name] as GgufTensor).type) : undefined
    return scheme === undefined ? [] : [{ name, path: ourName(name).replace(/\.weight$/, ''), scheme }]
  })
  const blocks = new Set(packed.map(({ name }) => name))
  const made = dtype === 'bfloat16' || dtype === 'float16' ? dtype : 'float32'
  const loaded = await file.load({ names: names.filter((name) => !blocks.has(name)), dtype: made, mmap })
  for (const name of blocks) {
    const found = await file.blocks(name)
    loaded[name] = mmap ? found : found.clone()
    if (!mmap) found.dispose()
  }
  const heads = { q: config.numAttentionHeads as number, k: config.numKeyValueHeads as number }
  const tensors: Record<string, Tensor> = {}
  for (const [name, value] of Object.entries(loaded)) {
    const part = /\.attn_([qk])\.(?:weight|bias)$/.exec(name)?.[1] as 'q' | 'k' | undefined
    const turns = part !== undefined && architecture !== 'qwen2'
    tensors[ourName(name)] = turns ? halvesApart(file, name, value, heads[part]) : value
    if (turns) value.dispose()
  }
  // What is shared or converted is copied by whoever takes it; what is whole is theirs.
  return { tensors, file: path, mapped: mmap, packed }
}

/** llama.cpp turns neighbouring rows of a head together, transformers the first half with the second. */
function halvesApart({ path }: GgufFile, tensor: string, rows: Tensor, heads: number): Tensor {
  const [count, ...rest] = rows.shape as [number, ...number[]]
  if (!(heads > 0) || count % (2 * heads) !== 0) {
    throw new CheckpointError(`${path}: ${tensor} has ${count} rows, which are no ${heads} heads`, {
      file: path,
      tensor,
    })
  }
  return rows
    .reshape([heads, count / heads / 2, 2, ...rest])
    .transpose(1, 2)
    .reshape([count, ...rest])
}

/** The other way round. [heads * dim, ...] */
export function neighboursTogether(rows: Tensor, heads: number): Tensor {
  const [count, ...rest] = rows.shape as [number, ...number[]]
  return rows
    .reshape([heads, 2, count / heads / 2, ...rest])
    .transpose(1, 2)
    .reshape([count, ...rest])
}
