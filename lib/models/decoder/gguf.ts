import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { shown } from '../../base/check.js'
import { CheckpointError, ConfigError } from '../../base/errors.js'
import { ggufIn, isGguf } from '../../files/gguf/find.js'
import { type GgufFile, readGguf } from '../../files/gguf/gguf.js'
import { type GgufTensor, type GgufValue, TYPES } from '../../files/gguf/types.js'
import { currentContext } from '../../native/context.js'
import { blockSchemeOf } from '../../nn/quantized-weight.js'
import { type Device, scope, type Tensor } from '../../tensor/index.js'
import type { ForeignCheckpoint } from '../pretrained.js'
import type { FillOptions, Weights } from '../weights.js'
import type { DecoderLMConfig, RopeParameters } from './config.js'
import { type FamilyGguf, familyOf, MODEL_TYPES, type ModelType, mayHaveWindow, POSITION_SCALE } from './families.js'
import { checkKeys, samplingOf } from './gguf-keys.js'
import { llama3Scaling } from './rope-factors.js'

/**
 * Decoders of the LLaMA family in llama.cpp's GGUF files: its names of keys and tensors, and for `llama` its row order of q and k
 * (https://github.com/ggml-org/llama.cpp/blob/master/convert_hf_to_gguf.py).
 */

/**
 * Model types by llama.cpp's architectures. Mistral's files have `llama`, with the same tensors. InternLM2's fused projection is split in
 * them, which makes it a LLaMA.
 */
const ARCHITECTURES: Readonly<Record<string, ModelType>> = {
  ...Object.fromEntries(
    MODEL_TYPES.flatMap((type) => {
      const name = familyOf(type).gguf?.architecture
      return name === undefined ? [] : [[name, type]]
    }),
  ),
  llama: 'llama',
  mistral: 'mistral',
  internlm2: 'llama',
}

/** Return what files of a configuration's family have. */
const formatOf = ({ modelType = 'llama' }: DecoderLMConfig): FamilyGguf => familyOf(modelType).gguf as FamilyGguf

/** Return the GGUF checkpoint at a path or in a folder; undefined for a folder with a config.json. */
export async function ggufCheckpoint(place: string): Promise<ForeignCheckpoint | undefined> {
  const path = ggufPath(place)
  if (path === null) return undefined
  const file = await readGguf(path)
  const config = configOf(file)
  if (file.tensors[FACTORS] !== undefined) config.ropeScaling = await factorScaling(file, config)
  if (config.modelType === 'phi3') Object.assign(config, await longropeOf(file, config))
  Reflect.set(config, SAMPLING, samplingOf(file))
  return { config, weights: (options) => weightsOf(file, config, options) }
}

/** Key of a configuration for the sampling settings that its GGUF file recommends. They are not saved to config.json. */
export const SAMPLING = Symbol('sampling')

function factorScaling(file: GgufFile, { ropeTheta = 10_000, headDim = 0 }: DecoderLMConfig): Promise<RopeParameters> {
  return scope(async () => {
    const { [FACTORS]: factors } = await file.load({ names: [FACTORS] })
    const found = llama3Scaling((await factors!.to('float32').data()) as Float32Array, ropeTheta, headDim)
    if (found !== null) return found
    throw new ConfigError(`${file.path}: ${FACTORS}: expected factors of LLaMA 3.1's RoPE scaling, got others`, {
      file: file.path,
      tensor: FACTORS,
    })
  })
}

/** Return Phi-3's RoPE scaling, whose factors are tensors. */
function longropeOf(file: GgufFile, { maxPositionEmbeddings, originalMaxPositionEmbeddings }: DecoderLMConfig) {
  return scope(async (): Promise<Pick<DecoderLMConfig, 'ropeScaling'>> => {
    const missing = LONGROPE.filter((name) => file.tensors[name] === undefined)
    if (missing.length === LONGROPE.length) return {}
    if (missing.length > 0) {
      throw new ConfigError(`${file.path}: expected the tensor ${missing[0]}, got a file without it`, {
        file: file.path,
        tensor: missing[0],
      })
    }
    const found = await file.load({ names: [...LONGROPE] })
    const lists = LONGROPE.map((name) => (found[name] as Tensor).to('float32'))
    const [shortFactor, longFactor] = await Promise.all(
      lists.map(async (one) => Array.from((await one.data()) as Float32Array, shortest)),
    )
    const written = file.metadata['phi3.rope.scaling.attn_factor']
    // The factor that follows from the lengths, in float32, is not stored.
    const scale = (maxPositionEmbeddings as number) / (originalMaxPositionEmbeddings as number)
    const usual = scale > 1 ? Math.sqrt(1 + Math.log(scale) / Math.log(originalMaxPositionEmbeddings as number)) : 1
    const scaleOption =
      typeof written === 'number' && Math.abs(written - usual) > 1e-6 * usual
        ? { attentionFactor: shortest(written) }
        : {}
    return { ropeScaling: { ropeType: 'longrope', shortFactor, longFactor, ...scaleOption } as RopeParameters }
  })
}

export function ggufPath(place: string): string | null {
  if (isGguf(place)) return place
  return existsSync(join(place, 'config.json')) ? null : ggufIn(place)
}

/** Return the configuration of a GGUF file. @throws ConfigError naming the key, for another kind of network */
export function configOf(file: GgufFile): DecoderLMConfig {
  const { metadata, tensors, architecture, path } = file
  const fail = (field: string, what: string): never => {
    throw new ConfigError(`${path}: ${field}: ${what}`, { file: path, field })
  }
  const named = Object.hasOwn(ARCHITECTURES, architecture ?? '') ? ARCHITECTURES[architecture as string] : undefined
  if (named === undefined) {
    const known = Object.keys(ARCHITECTURES).join(', ')
    return fail('general.architecture', `expected ${known}, got ${architecture ?? 'none'}`)
  }
  const get = (key: string): GgufValue | undefined => metadata[`${architecture}.${key}`]
  function number(key: string, usual: number): number
  function number(key: string, usual?: undefined): number | undefined
  function number(key: string, usual?: number): number | undefined {
    const value = get(key)
    if (value === undefined) return usual
    return typeof value === 'number' && value >= 0 && Number.isFinite(value)
      ? shortest(value)
      : fail(`${architecture}.${key}`, `expected a number of at least 0, got ${shown(value)}`)
  }
  const needed = (key: string): number => number(key) ?? fail(`${architecture}.${key}`, 'expected a number, got none')
  const window = number('attention.sliding_window')
  const variant = number('expert_count', 0) > 0 ? 'mixtral' : window === undefined ? 'llama' : 'mistral'
  const modelType = architecture === 'llama' ? variant : named
  const { keys = {}, implies } = formatOf({ modelType })
  const embeddings = tensors['token_embd.weight']
  const vocabSize = embeddings?.shape[0] ?? number('vocab_size')
  if (vocabSize === undefined) fail(`${architecture}.vocab_size`, 'expected a number, got none')
  const hiddenSize = needed('embedding_length')
  const heads = needed('attention.head_count')
  const isPhi3 = modelType === 'phi3'
  const wholeHeads = isPhi3 ? undefined : number('rope.dimension_count')
  const headDim = number('attention.key_length') ?? wholeHeads ?? hiddenSize / heads
  if (!Number.isSafeInteger(headDim)) {
    fail(
      `${architecture}.attention.head_count`,
      `expected a divisor of ${architecture}.embedding_length, ${hiddenSize}, got ${heads}`,
    )
  }
  if (number('attention.value_length', headDim) !== headDim) {
    fail(`${architecture}.attention.value_length`, `expected the key length, ${headDim}, got another`)
  }
  const rotated = number('rope.dimension_count', headDim)
  if (isPhi3 ? !(rotated > 0 && rotated <= headDim && rotated % 2 === 0) : rotated !== headDim) {
    fail(
      `${architecture}.rope.dimension_count`,
      isPhi3
        ? `expected an even number up to the head size, ${headDim}, got ${rotated}`
        : `expected the head size, ${headDim}, got ${rotated}`,
    )
  }
  if (keys.expert_count === undefined && number('expert_count', 0) > 0)
    fail(`${architecture}.expert_count`, 'expected 0, got a mixture of experts, which is not supported')
  const { tokenizer } = file
  const token = (key: string): number | null => (typeof tokenizer[key] === 'number' ? tokenizer[key] : null)
  // llama.cpp ends generation at any of these tokens.
  const ends = (): number | number[] | null => {
    const ids = ['eos_token_id', 'eot_token_id', 'eom_token_id'].map(token).filter((id) => id !== null)
    const different = [...new Set(ids)]
    return different.length > 1 ? different : (different[0] ?? null)
  }
  const ropeTheta = number('rope.freq_base', 10_000)
  const config: DecoderLMConfig = {
    modelType,
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
    eosTokenId: ends(),
    padTokenId: token('padding_token_id'),
  }
  if (modelType === 'phi3') {
    // Python and native code round the product down.
    if (rotated !== headDim) config.partialRotaryFactor = partOf(rotated, headDim)
    config.originalMaxPositionEmbeddings = number('rope.scaling.original_context_length', needed('context_length'))
    config.slidingWindow = window === undefined || window === 0 ? null : window
    // Fused with the gate; llama.cpp uses the name of the second half.
    if (tensors['blk.0.ffn_gate.weight'] !== undefined)
      fail('blk.0.ffn_gate.weight', 'expected it fused into ffn_up for Phi-3, got a separate tensor')
  }
  if (familyOf(modelType).network.has_window && modelType !== 'phi3') config.slidingWindow = window || null
  if (!mayHaveWindow(modelType) && (window ?? 0) > 0) {
    fail(`${architecture}.attention.sliding_window`, `expected 0 for ${modelType}, got ${window}`)
  }
  if ('mlpBias' in familyOf(modelType).defaults) config.mlpBias = tensors['blk.0.ffn_gate.bias'] !== undefined
  if ('attentionBias' in familyOf(modelType).defaults) config.attentionBias = tensors['blk.0.attn_q.bias'] !== undefined
  for (const [theirs, ours] of Object.entries(keys)) {
    const value = theirs.startsWith('expert_') ? needed(theirs) : number(theirs)
    if (value !== undefined && value !== 0) config[ours] = value
    // As in llama.cpp, where 0 is the usual scale.
    else if (theirs === 'attention.scale') config[ours] = headDim ** -0.5
  }
  Object.assign(config, implies?.(config))
  const scaling = scalingOf(file, number, (field, what) => fail(`${architecture}.${field}`, what))
  if (scaling !== undefined) config.ropeScaling = scaling
  if (familyOf(modelType).network.has_position_scale) positionScale(config, number, fail)
  checkKeys(file, config)
  return config
}

function positionScale(config: DecoderLMConfig, number: NumberOf, fail: (field: string, what: string) => never): void {
  const [all, beta] = POSITION_SCALE.map((key) => number(key) ?? 0) as [number, number]
  const scaling = config.ropeScaling as RopeParameters | undefined
  if (scaling?.ropeType === 'yarn') {
    const { originalMaxPositionEmbeddings = config.maxPositionEmbeddings } = scaling
    Object.assign(scaling, { originalMaxPositionEmbeddings }, all > 0 && { mscale: 1, mscaleAllDim: all })
    if (beta > 0) scaling.llama4ScalingBeta = beta
    return
  }
  const at = all > 0 ? 0 : 1
  if (all > 0 || beta > 0)
    fail(`mistral3.${POSITION_SCALE[at]}`, `expected 0 without a scaling of type yarn, got ${[all, beta][at]}`)
  // The class has a scaling of its own by default.
  if (scaling === undefined) config.ropeParameters = { ropeType: 'default', ropeTheta: config.ropeTheta as number }
}

function partOf(rotated: number, headDim: number): number {
  const factor = rotated / headDim
  return Math.floor(headDim * factor) === rotated ? factor : (rotated + 1e-6) / headDim
}

type NumberOf = (key: string) => number | undefined

function scalingOf(
  { metadata, architecture }: GgufFile,
  number: NumberOf,
  fail: (field: string, what: string) => never,
): RopeParameters | undefined {
  const key = 'rope.scaling.type'
  // As in llama.cpp: the old key if the new one is missing, linear if there is no type, and 0 for no scaling.
  const type = metadata[`${architecture}.${key}`] ?? 'linear'
  const factor = (number('rope.scaling.factor') ?? number('rope.scale_linear') ?? 0) || 1
  const magnitude = ['rope.scaling.attn_factor', 'rope.scaling.yarn_attn_factor']
  if (type !== 'yarn') {
    for (const name of magnitude) {
      const value = number(name) ?? 1
      // Phi-3's belongs to its lists of factors.
      if (value === 1 || (architecture === 'phi3' && name === magnitude[0])) continue
      return fail(name, `expected 1 for a scaling that is not yarn, got ${value}`)
    }
  }
  if (type === 'none' || (type === 'longrope' && architecture === 'phi3')) return undefined
  if (type === 'linear') return factor === 1 ? undefined : { ropeType: 'linear', factor }
  if (type !== 'yarn') return fail(key, `expected linear or yarn, got ${shown(type)}`)
  const optional: [keyof RopeParameters, string][] = [
    ['originalMaxPositionEmbeddings', 'rope.scaling.original_context_length'],
    ['betaFast', 'rope.scaling.yarn_beta_fast'],
    ['betaSlow', 'rope.scaling.yarn_beta_slow'],
  ]
  const found = optional.map(([name, from]) => [name, number(from)]).filter(([, value]) => value !== undefined)
  // llama.cpp multiplies it with the value that follows from the factor.
  const scale = magnitude.reduce((product, name) => product * (number(name) ?? 1), 1)
  const attention = scale === 1 ? {} : { attentionFactor: scale * (factor <= 1 ? 1 : 0.1 * Math.log(factor) + 1) }
  return { ropeType: 'yarn', factor, ...attention, ...Object.fromEntries(found) }
}

/** Return the shortest decimal number with the same float32 value: 1e-5 for 9.999999747378752e-6. */
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
const TOP_BACK = Object.fromEntries(Object.entries(TOP).map(([theirs, ours]) => [ours, theirs]))

/** Return transformers' names of the parts of a layer by llama.cpp's. */
function partsOf({ parts = {} }: FamilyGguf): Record<string, string> {
  const renamed = Object.values(parts)
  return { ...Object.fromEntries(Object.entries(LAYER).filter(([, ours]) => !renamed.includes(ours))), ...parts }
}

/** Return transformers' name for one of llama.cpp's, with `*` for the numbers of experts. An unknown name is returned unchanged, so that it is reported. */
function ourName(name: string, format: FamilyGguf): string {
  const parts = partsOf(format)
  const [, layer, part, kind] = /^blk\.(\d+)\.(\w+)\.(weight|bias)$/.exec(name) ?? []
  if (part !== undefined && Object.hasOwn(parts, part)) return `model.layers.${layer}.${parts[part]}.${kind}`
  return TOP[name] ?? name
}

/** Part of the name of an expert's tensor. */
export const EXPERT = /\.experts\.(?:\d+|\*)\./
const ANY_EXPERT = '.experts.*.'

/** Return llama.cpp's name for one of transformers'; null if it has none. All experts have the name of their stack. */
export function theirName(name: string, format: FamilyGguf): string | null {
  const [, layer, part, kind] = /^model\.layers\.(\d+)\.([\w.]+)\.(weight|bias)$/.exec(name) ?? []
  if (part === undefined) return TOP_BACK[name] ?? null
  const ofStack = part.replace(EXPERT, ANY_EXPERT)
  const found = Object.entries(partsOf(format)).find(([, ours]) => ours === ofStack)
  return found === undefined ? null : `blk.${layer}.${found[0]}.${kind}`
}

export const NORM = /norm\.weight$/
/** Tensors that are not weights of a linear layer or an embedding. */
const VALUES = /(?:\.bias|_norm\.weight)$/
/** Divisors of each frequency: LLaMA 3.1's scaling, which has no keys in the metadata. */
const FACTORS = 'rope_freqs.weight'
/** Phi-3's divisors, for short texts and for long ones. */
const LONGROPE = ['rope_factors_short.weight', 'rope_factors_long.weight'] as const

async function weightsOf(
  file: GgufFile,
  config: DecoderLMConfig,
  { dtype, mmap = false, quantize, device = (currentContext().deviceName as Device | undefined) ?? 'cpu' }: FillOptions,
): Promise<Weights> {
  const { path } = file
  const format = formatOf(config)
  const names = Object.keys(file.tensors).filter(
    (name) => name !== FACTORS && !(LONGROPE as readonly string[]).includes(name),
  )
  // Kernels for the CPU compute with these block types directly.
  const stays = quantize === undefined && device.startsWith('cpu')
  const packed = names.flatMap((name) => {
    const scheme = stays && !VALUES.test(name) ? blockSchemeOf((file.tensors[name] as GgufTensor).type) : undefined
    return scheme === undefined ? [] : [{ name, path: ourName(name, format).replace(/\.weight$/, ''), scheme }]
  })
  const blocks = new Set(packed.map(({ name }) => name))
  const dense = names.map((name) => file.tensors[name] as GgufTensor)
  const own = blocks.size > 0 ? 'float32' : denseDType(dense)
  const loadDtype = dtype === 'float64' ? 'float32' : ((dtype as typeof own | undefined) ?? own)
  const read = async (wanted: readonly string[]): Promise<Record<string, Tensor>> => ({
    ...(await file.load({ names: wanted.filter((name) => !blocks.has(name)), dtype: loadDtype, mmap })),
    ...(await file.blocksOf(
      wanted.filter((name) => blocks.has(name)),
      { mmap },
    )),
  })
  const heads = { q: config.numAttentionHeads as number, k: config.numKeyValueHeads as number }
  const headsOf = (name: string): number | undefined => {
    if (!format.neighbors) return undefined
    return heads[/\.attn_([qk])\.(?:weight|bias)$/.exec(name)?.[1] as 'q' | 'k']
  }
  const tensors: Record<string, Tensor> = {}
  const offset = familyOf(config.modelType as ModelType).network.norm_offset ?? 0
  const isShifted = (name: string): boolean => offset !== 0 && NORM.test(name)
  const straight = await read(names.filter((name) => headsOf(name) === undefined && !isShifted(name)))
  for (const [name, value] of Object.entries(straight)) {
    const ours = ourName(name, format)
    if (!EXPERT.test(ours)) tensors[ours] = value
    else for (const [i, one] of expertsOf(file, name, value).entries()) tensors[expertName(ours, i)] = one
  }
  // llama.cpp's norms multiply by their weight alone. In half precision the difference would lose digits.
  const norms = await file.load({ names: names.filter(isShifted), dtype: 'float32', mmap })
  for (const [name, value] of Object.entries(norms)) {
    tensors[ourName(name, format)] = value.sub(offset).to({ dtype: loadDtype })
  }
  // The largest first, one after the other: the next is read into the memory of the last one.
  const turned = names.filter((name) => headsOf(name) !== undefined)
  turned.sort((a, b) => (file.tensors[b] as GgufTensor).bytes - (file.tensors[a] as GgufTensor).bytes)
  for (const name of turned) {
    const value = (await read([name]))[name] as Tensor
    tensors[ourName(name, format)] = toHalves(file, name, value, headsOf(name) as number)
    value.dispose()
  }
  // The caller copies shared or converted tensors; others it owns.
  const layers = packed.flatMap(({ name, path, scheme }) =>
    EXPERT.test(path)
      ? Array.from({ length: countOf(file, name) }, (_, i) => ({ path: expertName(path, i), scheme }))
      : [{ path, scheme }],
  )
  return { tensors, file: path, mapped: mmap, packed: layers }
}

const expertName = (name: string, expert: number): string => name.replace('*', String(expert))

/** Return the number of experts in a stack [experts, out, in]. */
function countOf({ path, tensors }: GgufFile, name: string): number {
  const shape = tensors[name]?.shape ?? []
  if (shape.length === 3) return shape[0] as number
  throw new CheckpointError(`${path}: ${name}: expected a stack of experts with 3 dimensions, got ${shape.length}`, {
    file: path,
    tensor: name,
  })
}

/** Return views of the experts in a stack of values, or of rows of blocks. */
function expertsOf(file: GgufFile, name: string, stack: Tensor): Tensor[] {
  const count = countOf(file, name)
  if (count === 0) return []
  const parts = stack.dtype === 'uint8' ? stack.unflatten(0, [count, -1]) : stack
  return parts.unbind(0)
}

type DenseDType = 'float32' | 'bfloat16' | 'float16'

/** Return the dtype of most values of a file without tensors that stay quantized. Others become float32. */
function denseDType(tensors: readonly GgufTensor[]): DenseDType {
  const counts: Record<DenseDType, number> = { float32: 0, bfloat16: 0, float16: 0 }
  for (const { type, shape } of tensors) {
    const { dtype = 'float32' } = TYPES[type]
    if (Object.hasOwn(counts, dtype)) counts[dtype as DenseDType] += shape.reduce((product, size) => product * size, 1)
  }
  return (Object.keys(counts) as DenseDType[]).reduce((best, one) => (counts[one] > counts[best] ? one : best))
}

/** Reorder rows from llama.cpp's RoPE order (neighboring rows of a head are a pair) to transformers' (first half with second half). */
function toHalves({ path }: GgufFile, tensor: string, rows: Tensor, heads: number): Tensor {
  const [count, ...rest] = rows.shape as [number, ...number[]]
  if (!(heads > 0) || count % (2 * heads) !== 0) {
    throw new CheckpointError(
      `${path}: ${tensor}: expected a multiple of ${2 * heads} rows, for ${heads} heads, got ${count}`,
      { file: path, tensor },
    )
  }
  // Views keep the memory of `rows` until their scope ends.
  return scope(() =>
    rows
      .reshape([heads, count / heads / 2, 2, ...rest])
      .transpose(1, 2)
      .reshape([count, ...rest]),
  )
}

/** Reorder rows [heads * dim, ...] from transformers' RoPE order to llama.cpp's. */
export function toNeighbors(rows: Tensor, heads: number): Tensor {
  const [count, ...rest] = rows.shape as [number, ...number[]]
  return rows
    .reshape([heads, 2, count / heads / 2, ...rest])
    .transpose(1, 2)
    .reshape([count, ...rest])
}
