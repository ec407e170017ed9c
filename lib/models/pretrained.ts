import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { finalPath, writeFolderAtomically } from '../base/atomic-folder.js'
import { defined, requireOptions, shown } from '../base/check.js'
import { CheckpointError } from '../base/errors.js'
import { toCamel, toSnake } from '../base/words.js'
import { ggufIn, isGguf } from '../files/gguf/find.js'
import { readJson, writeJson } from '../files/json/json.js'
import { JsonFloat } from '../files/json/write.js'
import { saveSafetensorsSharded } from '../files/safetensors/sharded.js'
import { HUB_OPTIONS, type ResolveModelOptions, resolveModel } from '../hub/resolve.js'
import { requireWeightsOf } from '../hub/weights.js'
import type { Module } from '../nn/module.js'
import { isConfiguration } from '../nn/native-module.js'
import { isUntied } from '../nn/output-layer.js'
import type { NetworkOptions } from '../nn/parameter.js'
import { isBlocks, type QuantizationScheme } from '../nn/quantized-weight.js'
import { warnOfAdapters } from '../peft/parts.js'
import type { QuantizeOptions } from '../peft/quantize.js'
import { type PackedLayer, packedLayers } from '../peft/saved-packing.js'
import { type DType, NETWORK_DTYPES, requireDevice, requireNetworkDType } from '../tensor/dtype.js'
import { scope } from '../tensor/index.js'
import { withOthers } from './config-keys.js'
import { MODEL_TYPES } from './decoder/families.js'
import type { NetworkConfig } from './network.js'
import {
  commonDType,
  type Factory,
  type Fillable,
  type FillOptions,
  filled,
  readWeights,
  renamed,
  type Weights,
} from './weights.js'

/** Layout of a network's checkpoints. */
export interface NetworkKind {
  /** Name in the native registry. */
  kind: string
  /** `model_type` of its config.json. */
  modelType: string
  /** Other model types whose files have the same names and keys. */
  alike?: string[]
  /** Name in `architectures` of a saved config.json. */
  architecture: string
  /** Prefix of this network's names in a larger published model, with the dot; '' for none. */
  prefix: string
  /** Patterns of names in published files that this network does not use. */
  ignored: RegExp[]
  /** Patterns of names that a file may lack, which are then initialized, or may have although the network does not use them. */
  optional?: RegExp[]
  /** Patterns of names that a file may lack: they are initialized. */
  fresh?: RegExp[]
  /** Convert a name in a file to the network's name. */
  rename?: (name: string) => string
  /** Pattern of the layers that `quantize` quantizes by default; all without it. */
  packed?: string
  /** Read a checkpoint of another format; undefined for a place without one. */
  foreign?: (place: string) => Promise<ForeignCheckpoint | undefined>
}

/** A checkpoint in the format of another program. */
export interface ForeignCheckpoint {
  config: NetworkConfig
  /** Read the weights under transformers' names. Called inside a scope. */
  weights(options: FillOptions): Promise<Weights>
}

/** Options of loading; for a hub repository also revision, token, offline, progress and others. */
export interface LoadNetworkOptions extends NetworkOptions, Omit<ResolveModelOptions, 'files'> {
  /**
   * Dtype of the weights. Default: `dtype` or `torch_dtype` of config.json, otherwise that of most values in the file, as
   * transformers' `dtype: 'auto'`. Train in float32, or in bfloat16; float16 weights lose small updates.
   */
  dtype?: DType | undefined
  /** Whether to initialize parameters that the file lacks, instead of an error, such as a new head. Default false. */
  allowMissing?: boolean
  /** Whether to map the file into memory instead of copying it, for frozen weights on the CPU in the file's dtype. Default false. */
  mmap?: boolean
  /**
   * Quantization of Linear layers while they are loaded, so that their full-precision weights are never in memory together; see
   * {@link quantize}. Without `modules` all are quantized, in a language model those of its layers; 'q8_0' and 'q4_0' include its
   * embeddings and output layer. GGUF blocks of Q8_0, Q4_0, Q4_1, Q4_K and Q6_K, and layers that were saved quantized, stay so on the
   * CPU; with false they are converted to `dtype`, which can train.
   */
  quantize?: QuantizationScheme | QuantizeOptions | false
}

export const LOAD_OPTIONS: readonly (keyof LoadNetworkOptions)[] = [
  'allowMissing',
  'mmap',
  'quantize',
  'device',
  'dtype',
  'seed',
  ...HUB_OPTIONS,
]

/** Build a network from a directory with config.json and weights, or from a hub repository. */
export async function loadNetwork<M extends Fillable>(
  kind: NetworkKind,
  from: string,
  options: LoadNetworkOptions,
  build: (config: NetworkConfig, factory: Factory, has: (name: string) => boolean) => M,
): Promise<{ network: M; directory: string }> {
  const { hub, ...fill } = parted(options)
  requireWeightsOf('fromPretrained', from, CLASSES[kind.modelType] ?? kind.architecture)
  const directory = isGguf(from) || /\.nemo$/i.test(from) ? from : await resolveModel(from, hub)
  const foreign = await kind.foreign?.(directory)
  const gguf = foreign !== undefined || existsSync(join(directory, 'config.json')) ? null : ggufAt(directory)
  if (gguf !== null) {
    throw new CheckpointError(`${gguf}: expected a ${kind.architecture}, got a GGUF file. Load it with DecoderLM.`, {
      file: gguf,
    })
  }
  const config = foreign?.config ?? (await readConfig(directory))
  requireModelType(directory, config, kind)
  // In its own scope, so that tensors which the network does not keep are freed, also on errors.
  return scope(async () => {
    const weights = foreign
      ? await foreign.weights(fill)
      : { ...(await readWeights(directory, fill, kind)), packed: savedPacking(directory, config) }
    const state = renamed(kind, weights.tensors)
    const source = { ...weights, dtype: declaredDType(config), state }
    const { network } = await filled(kind, source, fill, (factory) => build(config, factory, (name) => state.has(name)))
    return { network, directory }
  })
}

/** Return the floating-point dtype that a configuration names, under either of transformers' keys. */
function declaredDType({ dtype, torchDtype }: NetworkConfig): DType | undefined {
  return NETWORK_DTYPES.find((one) => one === (dtype ?? torchDtype))
}

/** Return the GGUF file at a path or in a folder; null without one. */
const ggufAt = (place: string): string | null => (isGguf(place) ? place : ggufIn(place))

/** Value of quant_method in config.json for layers quantized by this library; other programs write other values. */
const PACKING = 'voxtorch'

function savedPacking(directory: string, { quantizationConfig }: NetworkConfig): PackedLayer[] {
  const { quant_method: method, layers } = (quantizationConfig ?? {}) as Record<string, unknown>
  if (method !== PACKING) return []
  const file = join(directory, 'config.json')
  const fail = () =>
    new CheckpointError(
      `${file}: quantization_config.layers: expected a list of layers with path and scheme. Save the model again.`,
      { file },
    )
  if (!Array.isArray(layers)) throw fail()
  return layers.map((one: unknown) => {
    const { path, scheme, block_size: blockSize } = (one ?? {}) as Record<string, unknown>
    if (typeof path !== 'string' || typeof scheme !== 'string') throw fail()
    if (!isBlocks(scheme) && scheme !== 'nf4' && scheme !== 'int8') throw fail()
    if (scheme !== 'nf4') return { path, scheme }
    if (!Number.isSafeInteger(blockSize) || (blockSize as number) < 2) throw fail()
    return { path, scheme, blockSize: blockSize as number }
  })
}

/** Separate the hub's options from those about weights. */
export function parted<O extends LoadNetworkOptions>(options: O) {
  requireOptions('fromPretrained', options, LOAD_OPTIONS)
  const { allowMissing, mmap, quantize, device, dtype, seed, ...hub } = options
  requireDevice('fromPretrained: device', device)
  requireNetworkDType('fromPretrained: dtype', dtype)
  return { allowMissing, mmap, quantize, device, dtype, seed, hub }
}

/** Check that a directory exists. @throws CheckpointError if it does not */
export function requireSaved(directory: string, architecture: string): void {
  if (existsSync(directory)) return
  throw new CheckpointError(
    `${directory}: expected a folder that save() of ${architecture}, or its training, wrote, got a path that does not exist. Check the path.`,
    { file: directory },
  )
}

export async function readConfig(directory: string, name = 'config.json'): Promise<NetworkConfig> {
  const file = join(directory, name)
  const config = await readJson(file)
  if (typeof config === 'object' && config !== null && !Array.isArray(config)) return toCamel(config)
  throw new CheckpointError(`${file}: expected an object, got ${shown(config)}. Check the file.`, { file })
}

/** Class that loads a model type. */
const CLASSES: Record<string, string> = {
  ...Object.fromEntries(MODEL_TYPES.map((type) => [type, 'DecoderLM'])),
  mistral3: 'DecoderLM',
  whisper: 'Whisper',
  wavlm: 'WavLM',
  wav2vec2: 'Wav2Vec2',
  hubert: 'Hubert',
  'data2vec-audio': 'Data2VecAudio',
  'wav2vec2-conformer': 'Wav2Vec2Conformer',
  'wav2vec2-bert': 'Wav2Vec2Bert',
  roberta: 'Roberta',
  bert: 'Bert',
  beats: 'Beats',
  q_former: 'QFormer',
  clip: 'Clip',
  languagebind: 'LanguageBind',
  LanguageBindVideo: 'LanguageBind',
  LanguageBindAudio: 'LanguageBind',
  LanguageBindImage: 'LanguageBind',
  LanguageBindDepth: 'LanguageBind',
  LanguageBindThermal: 'LanguageBind',
  clip_text_model: 'ClipTextModel',
  clip_vision_model: 'ClipVisionModel',
  qwen2_audio: 'AudioLM',
  voxtral: 'AudioLM',
  audioflamingo3: 'AudioLM',
  qwen3_asr: 'AudioLM',
  glmasr: 'AudioLM',
  granite_speech: 'AudioLM',
  ultravox: 'AudioLM',
  smolvlm: 'SmolVLM',
  idefics3: 'SmolVLM',
  siglip: 'SiglipVisionModel',
  siglip_vision_model: 'SiglipVisionModel',
  bigvgan: 'BigVGAN',
  unit_voicebox: 'UnitVoicebox',
  spectra: 'Spectra',
  salmonn: 'Salmonn',
  internvl_chat: 'InternVL',
  internvl: 'InternVL',
  intern_vit_6b: 'InternViT',
  emotion2vec: 'Emotion2Vec',
  parakeet_encoder: 'FastConformerEncoder',
  parakeet_ctc: 'ParakeetForCTC',
  parakeet_rnnt: 'ParakeetForRNNT',
  parakeet_tdt: 'ParakeetForTDT',
  moonshine: 'Moonshine',
  mimi: 'Mimi',
}

/**
 * Check the model type of a configuration. One without a type is accepted.
 * @throws CheckpointError with both model types
 */
export function requireModelType(
  directory: string,
  { modelType }: NetworkConfig,
  { modelType: own, alike = [], architecture }: Pick<NetworkKind, 'modelType' | 'alike' | 'architecture'>,
): void {
  if (modelType === undefined || modelType === null || modelType === own) return
  if (typeof modelType === 'string' && alike.includes(modelType)) return
  const file = join(directory, 'config.json')
  const other = typeof modelType === 'string' && Object.hasOwn(CLASSES, modelType) ? CLASSES[modelType] : undefined
  throw new CheckpointError(
    `${file}: model_type: expected '${own}' for ${architecture}, got ${shown(modelType)}.${other ? ` Load it with ${other}.` : ' Load another checkpoint.'}`,
    { file, modelType, expected: own },
  )
}

export interface SaveNetworkOptions {
  /** Maximum number of bytes of weights per file; larger models are written as shards with an index. Default 5e9. */
  maxShardBytes?: number
  /** Whether to leave out adapters without a warning; `savePretrained` of the PeftModel saves them. Default false. */
  withoutAdapters?: boolean
}

/** Write config.json and model.safetensors, or its shards, in transformers' layout. They replace those of an earlier save, all or none. */
export async function saveNetwork(
  kind: NetworkKind,
  directory: string,
  module: Module,
  config: NetworkConfig,
  options: SaveNetworkOptions = {},
): Promise<void> {
  requireOptions('save', options, ['maxShardBytes', 'withoutAdapters'])
  const { maxShardBytes, withoutAdapters = false } = options
  if (!withoutAdapters) warnOfAdapters(module, finalPath(directory))
  const saved = {
    ...toSnake(withOthers(module, config)),
    architectures: [kind.architecture],
    model_type: kind.modelType,
  }
  // As transformers does, so that another program loads the weights in the dtype that they have.
  Reflect.deleteProperty(saved, 'torch_dtype')
  Object.assign(saved, { dtype: commonDType(Object.values(module.stateDict())) })
  const layers = packedLayers(module).map((one) => toSnake({ ...one }))
  const before = (config as Record<string, unknown>).quantizationConfig as Record<string, unknown> | undefined
  if (layers.length > 0) Object.assign(saved, { quantization_config: { quant_method: PACKING, layers } })
  else if (before?.quant_method === PACKING) Reflect.deleteProperty(saved, 'quantization_config')
  // Merging an adapter may have untied a weight.
  if (isUntied(module)) Object.assign(saved, { tie_word_embeddings: false })
  await writeFolderAtomically(directory, CheckpointError, async (folder) => {
    await saveSafetensorsSharded(folder, module.stateDict(), defined({ maxShardBytes }))
    await writeJson(join(folder, 'config.json'), withFloats(saved), { indent: 2 })
  })
}

/** Keys for which transformers 5 refuses an integer. */
const FLOATS: ReadonlySet<string> = new Set([
  ...['contrastive_logits_temperature', 'diversity_loss_weight', 'init_std', 'initializer_factor', 'initializer_range'],
  ...['layer_norm_eps', 'rms_norm_eps', 'attn_logit_softcapping', 'final_logit_softcapping', 'router_aux_loss_coef'],
  ...['router_jitter_noise', 'norm_eps', 'layer_scale_initial_scale', 'trim_right_ratio'],
])

/** Return the configuration with a decimal point in the numbers that Python must read as floats. */
export const withFloats = (config: object): object =>
  Object.fromEntries(
    Object.entries(config).map(([key, value]) => [
      key,
      FLOATS.has(key) && typeof value === 'number'
        ? new JsonFloat(value)
        : isConfiguration(value)
          ? withFloats(value)
          : value,
    ]),
  )
