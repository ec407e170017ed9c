import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { makeDirectory } from '../base/atomic.js'
import { defined, requireOptions, shown } from '../base/check.js'
import { CheckpointError } from '../base/errors.js'
import { toCamel, toSnake } from '../base/words.js'
import { isGguf } from '../files/gguf/find.js'
import { readJson, writeJson } from '../files/json/json.js'
import { saveSafetensorsSharded } from '../files/safetensors/sharded.js'
import { HUB_OPTIONS, type ResolveModelOptions, resolveModel } from '../hub/resolve.js'
import type { Module } from '../nn/module.js'
import { isUntied } from '../nn/output-layer.js'
import type { NetworkOptions } from '../nn/parameter.js'
import { isBlocks, type QuantizationScheme } from '../nn/quantized-weight.js'
import { warnOfAdapters } from '../peft/parts.js'
import type { QuantizeOptions } from '../peft/quantize.js'
import { type PackedLayer, packedLayers } from '../peft/saved-packing.js'
import { scope } from '../tensor/index.js'
import { withOthers } from './config-keys.js'
import type { NetworkConfig } from './network.js'
import { type Factory, type Fillable, type FillOptions, filled, readWeights, renamed, type Weights } from './weights.js'

/** How a network's checkpoints are laid out. */
export interface NetworkKind {
  /** Its name in the native registry. */
  kind: string
  /** `model_type` of its config.json. */
  modelType: string
  /** Other model types whose files have the same names and keys. */
  alike?: string[]
  /** What `architectures` of a saved config.json names. */
  architecture: string
  /** Under what name a larger published model holds this network, with the dot; '' for none. */
  prefix: string
  /** Names that published files have and this network has no use for. */
  ignored: RegExp[]
  /** The network's names that a file may lack (they get fresh values), or have though the network has no use for them. */
  optional?: RegExp[]
  /** The network's names that a file may lack: they get fresh values. */
  fresh?: RegExp[]
  /** The network's name for a name in a file, where they differ. */
  rename?: (name: string) => string
  /** Which layers are packed where `quantize` does not say; all by default. */
  packed?: string
  /** What reads files of other programs, with the network's configuration and names; undefined for a place that has none. */
  foreign?: (place: string) => Promise<ForeignCheckpoint | undefined>
}

/** Weights in the format of another program. */
export interface ForeignCheckpoint {
  config: NetworkConfig
  /** Under the names of transformers. Called inside a scope. */
  weights(options: FillOptions): Promise<Weights>
}

/** For a repository of the hub, its options hold as well (revision, token, offline, progress, ...). */
export interface LoadNetworkOptions extends NetworkOptions, Omit<ResolveModelOptions, 'files'> {
  /** Parameters that the file lacks get fresh values instead of an error (a new head on an old trunk). Default false. */
  allowMissing?: boolean
  /** Maps the file instead of copying it: for weights that stay frozen, on the CPU and in the file's dtype. Default false. */
  mmap?: boolean
  /**
   * Packs Linear layers as they come from the file, so that their weights never stand in memory as a whole; see
   * {@link quantize}. Without `modules` it packs what is usual: all of them, and of a language model those of its layers; with
   * 'q8_0' and 'q4_0' its embeddings and output layer too. A GGUF file's blocks in Q8_0, Q4_0, Q4_1, Q4_K and Q6_K, and what
   * was saved packed, stay as they are on the CPU; with false they become values of `dtype`, which can be trained.
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

/** Builds a network from a directory that has a config.json and weights, or from a repository of the hub. */
export async function loadNetwork<M extends Fillable>(
  kind: NetworkKind,
  from: string,
  options: LoadNetworkOptions,
  build: (config: NetworkConfig, factory: Factory, has: (name: string) => boolean) => M,
): Promise<{ network: M; directory: string }> {
  const { hub, ...fill } = parted(options)
  const directory = isGguf(from) ? from : await resolveModel(from, hub)
  const foreign = await kind.foreign?.(directory)
  if (foreign === undefined && directory === from && isGguf(from)) {
    throw new CheckpointError(`${from}: a GGUF file holds no ${kind.architecture}; DecoderLM reads them`, {
      file: from,
    })
  }
  const config = foreign?.config ?? (await readConfig(directory))
  requireModelType(directory, config, kind)
  // In a scope of its own: what the network does not keep is freed, also when something is wrong.
  return scope(async () => {
    const weights = foreign
      ? await foreign.weights(fill)
      : { ...(await readWeights(directory, fill, kind)), packed: savedPacking(directory, config) }
    const state = renamed(kind, weights.tensors)
    const { network } = await filled(kind, { ...weights, state }, fill, (factory) =>
      build(config, factory, (name) => state.has(name)),
    )
    return { network, directory }
  })
}

/** What `save` says of packed layers in config.json; other programs say other things at the same key. */
const PACKING = 'voxtorch'

function savedPacking(directory: string, { quantizationConfig }: NetworkConfig): PackedLayer[] {
  const { quant_method: method, layers } = (quantizationConfig ?? {}) as Record<string, unknown>
  if (method !== PACKING) return []
  const file = join(directory, 'config.json')
  const fail = () => new CheckpointError(`${file}: quantization_config has no list of layers and schemes`, { file })
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

/** The options that are the hub's, and those that say how weights come into a network. */
export function parted<O extends LoadNetworkOptions>(options: O) {
  requireOptions('fromPretrained', options, LOAD_OPTIONS)
  const { allowMissing, mmap, quantize, device, dtype, seed, ...hub } = options
  return { allowMissing, mmap, quantize, device, dtype, seed, hub }
}

/** @throws CheckpointError where there is no folder that `save` of this class could have written */
export function requireSaved(directory: string, architecture: string): void {
  if (existsSync(directory)) return
  throw new CheckpointError(
    `${directory}: there is no such folder. Give one that the save() of ${architecture}, or its training, wrote.`,
    { file: directory },
  )
}

export async function readConfig(directory: string, name = 'config.json'): Promise<NetworkConfig> {
  const file = join(directory, name)
  const config = await readJson(file)
  if (typeof config === 'object' && config !== null && !Array.isArray(config)) return toCamel(config)
  throw new CheckpointError(`${file} holds no configuration: it is not an object`, { file })
}

/** Which class loads a model type. */
const CLASSES: Record<string, string> = {
  llama: 'DecoderLM',
  mistral: 'DecoderLM',
  qwen2: 'DecoderLM',
  phi3: 'DecoderLM',
  internlm2: 'DecoderLM',
  whisper: 'Whisper',
  wavlm: 'WavLM',
  wav2vec2: 'Wav2Vec2',
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
  bigvgan: 'BigVGAN',
  unit_voicebox: 'UnitVoicebox',
  spectra: 'Spectra',
  salmonn: 'Salmonn',
  internvl_chat: 'InternVL',
  internvl: 'InternVL',
  intern_vit_6b: 'InternViT',
}

/**
 * A file that says what it is must be one of these; one that does not is taken at its keys.
 * @throws CheckpointError naming both model types
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
    `${file} is of model type ${shown(modelType)}, and ${architecture} needs '${own}'${other ? `: load it with ${other}` : ''}`,
    { file, modelType, expected: own },
  )
}

export interface SaveNetworkOptions {
  /** The most bytes of weights in one file; more go into shards with an index. Default 5e9. */
  maxShardBytes?: number
  /** Whether adapters are left out on purpose: their files are those of `savePretrained` of the PeftModel. Default false: a warning says so. */
  withoutAdapters?: boolean
}

/** Writes config.json and model.safetensors, or its shards, which transformers reads. */
export async function saveNetwork(
  kind: NetworkKind,
  directory: string,
  module: Module,
  config: NetworkConfig,
  options: SaveNetworkOptions = {},
): Promise<void> {
  requireOptions('save', options, ['maxShardBytes', 'withoutAdapters'])
  const { maxShardBytes, withoutAdapters = false } = options
  if (!withoutAdapters) warnOfAdapters(module, directory)
  makeDirectory(directory, CheckpointError)
  const saved = {
    ...toSnake(withOthers(module, config)),
    architectures: [kind.architecture],
    model_type: kind.modelType,
  }
  const layers = packedLayers(module).map((one) => toSnake({ ...one }))
  const before = (config as Record<string, unknown>).quantizationConfig as Record<string, unknown> | undefined
  if (layers.length > 0) Object.assign(saved, { quantization_config: { quant_method: PACKING, layers } })
  else if (before?.quant_method === PACKING) Reflect.deleteProperty(saved, 'quantization_config')
  // An adapter that was merged may have made two weights of a tied one.
  if (isUntied(module)) Object.assign(saved, { tie_word_embeddings: false })
  await saveSafetensorsSharded(directory, module.stateDict(), defined({ maxShardBytes }))
  await writeJson(join(directory, 'config.json'), saved, { indent: 2 })
}
