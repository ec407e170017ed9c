import { isDeepStrictEqual } from 'node:util'
import { argumentError, requireOneOf, requireOptions, requireString, shown } from '../../base/check.js'
import { ConfigError } from '../../base/errors.js'
import type { GgufSaveType, GgufValue, GgufValueType } from '../../files/gguf/types.js'
import { type GgufBlocks, saveGguf } from '../../files/gguf/write.js'
import { type BlockScheme, blockFacts, isBlocks, quantizationOf } from '../../nn/quantized-weight.js'
import { PeftModel } from '../../peft/model.js'
import { warnOfAdapters } from '../../peft/parts.js'
import { noGrad, ops, scope, Tensor, tensor } from '../../tensor/index.js'
import { Tokenizer } from '../../text/index.js'
import { type DecoderLMConfig, hasWindow, type RopeParameters, ropeOf } from './config.js'
import type { DecoderLM } from './decoder-lm.js'
import { type FamilyGguf, familyOf, MODEL_TYPES, POSITION_SCALE } from './families.js'
import { EXPERT, NORM, theirName, toNeighbors } from './gguf.js'
import { llama3Factors } from './rope-factors.js'

export interface SaveDecoderGgufOptions {
  /** Tokenizer whose vocabulary is added, so that llama.cpp can read texts. Without it the file only takes token ids. */
  tokenizer?: Tokenizer
  /** Type of the weights; norms and biases are F32, and with Q4_0, embeddings and head are Q8_0. Default F16. */
  type?: GgufSaveType
  /** Name that tools show to users. */
  name?: string
  /** Omit adapters without a warning: {@link saveGgufAdapter} writes them. Default false. */
  withoutAdapters?: boolean
}

export interface SaveGgufAdapterOptions {
  /** Default: the active adapter. */
  adapterName?: string
  /** F32 or F16. Default F32. */
  type?: 'F32' | 'F16'
}

/** llama.cpp's file type numbers. */
const FILE_TYPES: Readonly<Record<GgufSaveType, number>> = { F32: 0, F16: 1, Q4_0: 2, Q8_0: 7, BF16: 32 }
function formatOf({ modelType = 'llama' }: DecoderLMConfig): FamilyGguf {
  const { gguf } = familyOf(modelType)
  if (gguf?.writes) return gguf
  const supported = MODEL_TYPES.filter((name) => familyOf(name).gguf?.writes)
  throw new ConfigError(
    `DecoderLM.saveGguf: expected a model of type ${supported.join(', ')}, got '${modelType}'. Save it with save() as safetensors.`,
    { modelType },
  )
}

/** See {@link DecoderLM.saveGguf}. */
export async function saveDecoderGguf(model: DecoderLM, path: string, options: SaveDecoderGgufOptions): Promise<void> {
  const where = 'DecoderLM.saveGguf'
  requireOptions(where, options, ['tokenizer', 'type', 'name', 'withoutAdapters'])
  const { tokenizer, type = 'F16', name, withoutAdapters = false } = options
  requireOneOf(where, 'type', type, Object.keys(FILE_TYPES))
  if (name !== undefined) requireString(where, 'name', name)
  if (tokenizer !== undefined && !(tokenizer instanceof Tokenizer)) {
    throw argumentError(where, 'tokenizer', 'a Tokenizer', tokenizer)
  }
  if (!withoutAdapters) warnOfAdapters(model, path)
  const { config } = model
  const format = formatOf(config)
  const { architecture } = format
  requireImplied(config, format)
  const offset = familyOf(config.modelType ?? 'llama').network.norm_offset ?? 0
  await noGrad(() =>
    scope(async () => {
      const tensors: Record<string, Tensor | GgufBlocks> = {}
      const experts = new Map<string, (Tensor | GgufBlocks)[]>()
      const packed = new Map(model.namedModules().map(([path, module]) => [`${path}.weight`, quantizationOf(module)]))
      for (const [own, value] of Object.entries(model.stateDict())) {
        const theirs = theirName(own, format)
        const { scheme, shape } = packed.get(own) ?? {}
        if (theirs === null || (scheme !== undefined && !isBlocks(scheme))) {
          throw new ConfigError(
            `${where}: ${own}: expected a tensor that GGUF supports, got one without a name in llama.cpp, or quantized. Call dequantize() first.`,
            { path: own },
          )
        }
        const heads = headsOf(theirs, config)
        // llama.cpp's norms multiply by their weight alone.
        const shifted = offset !== 0 && NORM.test(theirs) ? value.to('float32').add(offset) : value
        const rows = heads === null || !format.neighbors ? shifted : toNeighbors(value, heads)
        const saved = shape ? { type: blockFacts(scheme as BlockScheme).type, shape, blocks: rows } : rows
        if (EXPERT.test(own)) experts.set(theirs, [...(experts.get(theirs) ?? []), saved])
        else tensors[theirs] = saved
      }
      for (const [theirs, parts] of experts) tensors[theirs] = stacked(where, theirs, parts)
      const sizes = sizesOf(config, tensors)
      const rows = tensors['token_embd.weight']?.shape[0] ?? 0
      const factors = factorsOf(config)
      if (factors !== null) tensors['rope_freqs.weight'] = tensor(factors, { dtype: 'float32' })
      const vocabulary = tokenizer?.ggufMetadata(rows) ?? { 'tokenizer.ggml.model': 'no_vocab', ...idsOf(config) }
      const metadata: Record<string, GgufValue> = {
        'general.architecture': architecture,
        'general.type': 'model',
        'general.name': name ?? 'voxtorch',
        'general.file_type': FILE_TYPES[type],
        'general.quantization_version': 2,
        ...prefixed(architecture, sizes),
        ...vocabulary,
      }
      await saveGguf(path, tensors, {
        metadata,
        metadataTypes: typesOf(metadata),
        type: (tensorName, value) => {
          if (value.ndim < 2 || tensorName.includes('.ffn_gate_inp.')) return 'F32'
          return type === 'Q4_0' && /^(?:token_embd|output)\./.test(tensorName) ? 'Q8_0' : type
        },
      })
    }),
  )
}

/** Return the experts of a layer in one tensor [experts, out, in]. */
function stacked(where: string, name: string, parts: readonly (Tensor | GgufBlocks)[]): Tensor | GgufBlocks {
  const [first] = parts
  const values = parts.filter((part) => part instanceof Tensor)
  if (first instanceof Tensor && values.length === parts.length) return ops.stack(values)
  const blocks = parts.filter((part): part is GgufBlocks => !(part instanceof Tensor))
  if (
    !first ||
    first instanceof Tensor ||
    blocks.some(({ type }) => type !== first.type) ||
    blocks.length < parts.length
  ) {
    throw new ConfigError(
      `${where}: ${name}: expected all experts of the layer in one type, got several. Call dequantize() first.`,
      {
        name,
      },
    )
  }
  return { type: first.type, shape: [parts.length, ...first.shape], blocks: ops.cat(blocks.map((part) => part.blocks)) }
}

/** Check the values that llama.cpp has for every file of the family. */
function requireImplied(config: DecoderLMConfig, { implies }: FamilyGguf): void {
  const { noRopeLayerInterval, ropeLocalBaseFreq, ...implied } = implies?.(config) ?? {}
  const fail = (key: string, expected: unknown, value: unknown): never => {
    throw new ConfigError(
      `DecoderLM.saveGguf: ${key}: expected ${shown(expected)}, which llama.cpp has for every ${config.modelType}, got ${shown(value)}. Save the model with save() as safetensors.`,
      { [key]: value },
    )
  }
  for (const [key, expected] of Object.entries(implied)) {
    // The layers' kinds decide where they are listed.
    if (key === 'slidingWindowPattern' && Array.isArray(config.layerTypes)) continue
    if (!isDeepStrictEqual(config[key], expected)) fail(key, expected, config[key])
  }
  const { local } = ropeOf(config)
  if (local && ((local.ropeType ?? 'default') !== 'default' || local.ropeTheta !== ropeLocalBaseFreq)) {
    fail('the RoPE of windowed layers', { ropeType: 'default', ropeTheta: ropeLocalBaseFreq }, local)
  }
  const { network } = familyOf(config.modelType ?? 'llama')
  const period = network.windowed_period ?? implied.slidingWindowPattern
  if (period !== undefined && Array.isArray(config.layerTypes)) {
    const kind = (i: number) => ((i + 1) % period === 0 ? 'full_attention' : 'sliding_attention')
    const expected = config.layerTypes.map((_, i) => kind(i))
    if (expected.some((one, i) => one !== config.layerTypes?.[i])) fail('layerTypes', expected, config.layerTypes)
  }
  if (noRopeLayerInterval === undefined) return
  const { noRopeLayers: layers, numHiddenLayers = 0 } = config
  if (!Array.isArray(layers)) {
    if (config.noRopeLayerInterval !== noRopeLayerInterval) {
      fail('noRopeLayerInterval', noRopeLayerInterval, config.noRopeLayerInterval)
    }
    return
  }
  const expected = Array.from({ length: numHiddenLayers }, (_, i) => ((i + 1) % noRopeLayerInterval === 0 ? 0 : 1))
  if (expected.some((one, i) => one !== Number(layers[i]))) fail('noRopeLayers', expected, layers)
}

function idsOf(config: DecoderLMConfig): Record<string, number> {
  const names = { bosTokenId: 'bos_token_id', eosTokenId: 'eos_token_id', padTokenId: 'padding_token_id' }
  return Object.fromEntries(
    Object.entries(names).flatMap(([own, theirs]) => {
      const id = [config[own]].flat()[0]
      return typeof id === 'number' && id >= 0 ? [[`tokenizer.ggml.${theirs}`, id]] : []
    }),
  )
}

/** Return the number of heads whose rows need llama.cpp's order; null for other tensors. */
function headsOf(theirs: string, config: DecoderLMConfig): number | null {
  const part = /\.attn_([qk])\./.exec(theirs)?.[1]
  if (part === undefined) return null
  const { numAttentionHeads = 32, numKeyValueHeads = numAttentionHeads } = config
  return part === 'q' ? numAttentionHeads : numKeyValueHeads
}

function sizesOf(
  config: DecoderLMConfig,
  tensors: Record<string, { readonly shape: readonly number[] }>,
): Record<string, GgufValue> {
  const { numAttentionHeads: heads = 32, numKeyValueHeads = heads, numHiddenLayers = 32 } = config
  const { maxPositionEmbeddings = 2048, rmsNormEps = 1e-6, slidingWindow } = config
  const [vocabSize = 0, hidden = 0] = tensors['token_embd.weight']?.shape ?? []
  const dim = (tensors['blk.0.attn_q.weight']?.shape[0] ?? hidden) / heads
  const scaling = scalingOf(config)
  const window = hasWindow(config) ? slidingWindow : null
  const result: Record<string, GgufValue> = {
    vocab_size: vocabSize,
    block_count: numHiddenLayers,
    context_length: maxPositionEmbeddings,
    embedding_length: hidden,
    feed_forward_length: tensors['blk.0.ffn_gate.weight']?.shape[0] ?? config.intermediateSize ?? 0,
    'attention.head_count': heads,
    'attention.head_count_kv': numKeyValueHeads,
    'attention.layer_norm_rms_epsilon': rmsNormEps,
    'rope.freq_base': scaling?.ropeTheta ?? config.ropeTheta ?? 10_000,
    'rope.dimension_count': dim,
    'attention.key_length': dim,
    'attention.value_length': dim,
  }
  if (typeof window === 'number')
    result['attention.sliding_window'] = window + (config.windowInclusive === true ? 1 : 0)
  for (const [theirs, ours] of Object.entries(formatOf(config).keys ?? {})) {
    if (typeof config[ours] === 'number') result[theirs] = config[ours]
  }
  const kind = kindOf(scaling)
  if (kind === 'default' || kind === 'llama3') return result
  if (kind !== 'linear' && kind !== 'yarn') {
    throw new ConfigError(`DecoderLM.saveGguf: ropeType: expected default, llama3, linear or yarn, got '${kind}'`, {
      ropeType: kind,
    })
  }
  const { factor = 1, originalMaxPositionEmbeddings, betaFast, betaSlow } = scaling as RopeParameters
  const { attentionFactor, mscale, mscaleAllDim, llama4ScalingBeta } = scaling as RopeParameters
  const magnitude = (scale: number) => (factor <= 1 ? 1 : 0.1 * scale * Math.log(factor) + 1)
  if (familyOf(config.modelType ?? 'llama').network.has_position_scale) {
    if (attentionFactor || (mscale && mscaleAllDim && mscale !== 1)) {
      const [key, value] = attentionFactor ? ['attentionFactor', attentionFactor] : ['mscale', mscale]
      throw new ConfigError(
        `DecoderLM.saveGguf: ropeParameters.${key}: expected ${attentionFactor ? 'none' : 'mscale 1'}, which llama.cpp has for every ${config.modelType}, got ${value}. Save the model with save() as safetensors.`,
        { [key as string]: value },
      )
    }
    const [all, beta] = POSITION_SCALE
    if (mscale && mscaleAllDim) result[all] = mscaleAllDim
    if (llama4ScalingBeta) result[beta] = llama4ScalingBeta
  } else if (kind === 'yarn') {
    // llama.cpp multiplies it with the magnitude that follows from the factor.
    const scale =
      attentionFactor ?? (mscale && mscaleAllDim ? magnitude(mscale) / magnitude(mscaleAllDim) : magnitude(1))
    if (scale !== magnitude(1)) result['rope.scaling.attn_factor'] = scale / magnitude(1)
  }
  result['rope.scaling.type'] = kind
  result['rope.scaling.factor'] = factor
  if (originalMaxPositionEmbeddings) result['rope.scaling.original_context_length'] = originalMaxPositionEmbeddings
  if (betaFast !== undefined) result['rope.scaling.yarn_beta_fast'] = betaFast
  if (betaSlow !== undefined) result['rope.scaling.yarn_beta_slow'] = betaSlow
  return result
}

const scalingOf = (config: DecoderLMConfig): RopeParameters & { type?: string } => ropeOf(config).full
const kindOf = ({ ropeType, type }: ReturnType<typeof scalingOf>): string => ropeType ?? type ?? 'default'

function factorsOf(config: DecoderLMConfig): number[] | null {
  const scaling = scalingOf(config)
  if (scaling === undefined || kindOf(scaling) !== 'llama3') return null
  const { hiddenSize = 4096, numAttentionHeads = 32, headDim = hiddenSize / numAttentionHeads } = config
  return llama3Factors(scaling, scaling.ropeTheta ?? config.ropeTheta ?? 10_000, headDim)
}

const prefixed = (prefix: string, values: Record<string, GgufValue>): Record<string, GgufValue> =>
  Object.fromEntries(Object.entries(values).map(([key, value]) => [`${prefix}.${key}`, value]))

/** Return the types of keys that are floats in llama.cpp, even with an integer value. */
function typesOf(metadata: Record<string, GgufValue>): Record<string, GgufValueType> {
  const real =
    /\.(?:freq_base|layer_norm_rms_epsilon|(?:attn_)?factor|yarn_beta_\w+|alpha|(?:\w+_)?scale|yarn_log_multiplier|\w+_softcapping)$/
  return Object.fromEntries(Object.keys(metadata).flatMap((key) => (real.test(key) ? [[key, 'float32']] : [])))
}

/**
 * Save a LoRA adapter of a {@link DecoderLM} as a GGUF file, for llama.cpp's option `--lora`.
 * @throws ConfigError for an adapter that llama.cpp does not support: DoRA, biases, fully trained modules
 */
export async function saveGgufAdapter(
  path: string,
  peft: PeftModel<DecoderLM>,
  options: SaveGgufAdapterOptions = {},
): Promise<void> {
  const where = 'saveGgufAdapter'
  if (!(peft instanceof PeftModel)) throw argumentError(where, 'peft', 'a PeftModel of a DecoderLM', peft)
  requireOptions(where, options, ['adapterName', 'type'])
  const { adapterName = peft.activeAdapters[0], type = 'F32' } = options
  requireOneOf(where, 'type', type, ['F32', 'F16'])
  if (adapterName === undefined) {
    throw new ConfigError(`${where}: adapterName: expected an active adapter or a name, got neither`)
  }
  const { config } = peft.model
  const format = formatOf(config)
  const { architecture } = format
  const alpha = peft.peftConfig[adapterName]?.loraAlpha ?? 1
  await noGrad(() =>
    scope(async () => {
      const tensors: Record<string, Tensor> = {}
      const experts = new Map<string, Tensor[]>()
      for (const { path: layer, A, B, scaling, magnitude } of peft.loraParts(adapterName)) {
        const theirs = theirName(`${layer}.weight`, format)
        if (theirs === null || magnitude !== null) {
          throw new ConfigError(
            `${where}: ${layer}: expected LoRA on a layer that llama.cpp has, got ${magnitude ? 'DoRA' : 'another layer'}`,
            { path: layer },
          )
        }
        // llama.cpp multiplies with alpha / rank, whatever the scaling of the adapter.
        const rank = A.shape[0] as number
        const ratio = (scaling * rank) / alpha
        const heads = headsOf(theirs, config)
        const rows = ratio === 1 ? B : B.mul(ratio)
        const parts = { lora_a: A, lora_b: heads === null || !format.neighbors ? rows : toNeighbors(rows, heads) }
        for (const [part, value] of Object.entries(parts)) {
          const key = `${theirs}.${part}`
          if (EXPERT.test(layer)) experts.set(key, [...(experts.get(key) ?? []), value])
          else tensors[key] = value
        }
      }
      const count = config.numExperts ?? config.numLocalExperts
      for (const [key, parts] of experts) {
        if (parts.length !== count || parts.some(({ shape }) => !isDeepStrictEqual(shape, parts[0]?.shape))) {
          throw new ConfigError(
            `${where}: ${key}: expected LoRA of one rank on all ${count} experts of the layer, got ${parts.length} with ranks ${[...new Set(parts.map(({ shape }) => Math.min(...shape)))].join(', ')}`,
            { path: key },
          )
        }
        tensors[key] = ops.stack(parts)
      }
      const metadata: Record<string, GgufValue> = {
        'general.architecture': architecture,
        'general.type': 'adapter',
        'general.name': adapterName,
        'general.file_type': FILE_TYPES[type],
        'adapter.type': 'lora',
        'adapter.lora.alpha': alpha,
      }
      await saveGguf(path, tensors, { metadata, metadataTypes: typesOf(metadata), type: () => type })
    }),
  )
}
