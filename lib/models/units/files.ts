/**
 * Loads encoders for units from files, only up to the requested layer. XLS-R exists in three layouts: transformers' folders, fairseq's
 * `.pt`, and fairseq2's, such as `xlsr2_1b_v2.pt` of SeamlessM4T.
 */
import { existsSync, statSync } from 'node:fs'
import { argumentError, requireWhole } from '../../base/check.js'
import { CheckpointError, ConfigError } from '../../base/errors.js'
import { loadTorch } from '../../files/torch/torch.js'
import { resolveModel } from '../../hub/resolve.js'
import { scope, type Tensor } from '../../tensor/index.js'
import { keysOf, partedConfig } from '../config-keys.js'
import { fairseqConfig } from '../encoders/fairseq.js'
import { type SpeechEncoderConfig, speechEncoderHeads, speechEncoderName } from '../encoders/speech-encoder.js'
import { Wav2Vec2, type Wav2Vec2Config, wav2vec2Keys } from '../encoders/wav2vec2.js'
import { WavLM, wavlmKeys } from '../encoders/wavlm.js'
import { type LoadNetworkOptions, loadNetwork, parted, readConfig } from '../pretrained.js'
import { type Fillable, filled, renamed, tensorsOf } from '../weights.js'
import { type WhisperConfig, whisperKeys } from '../whisper/config.js'
import { ctranslate2Checkpoint, isCTranslate2 } from '../whisper/ctranslate2.js'
import { WhisperEncoder } from '../whisper/whisper.js'
import { UnitEncoder, type UnitNetwork } from './encoder.js'

export interface LoadUnitEncoderOptions extends LoadNetworkOptions {
  /** Layer whose output is used, from 1; later layers are neither built nor read. */
  layer: number
  /** For a fairseq or fairseq2 file: settings that its weights do not contain, `numAttentionHeads` and `convStride`. */
  config?: Wav2Vec2Config
}

/** Number of attention heads of the published sizes, by hidden size. */
const HEADS: Record<number, number> = { 768: 12, 1024: 16, 1280: 16, 1920: 16 }

/**
 * Load Wav2Vec2 (XLS-R), WavLM or Whisper's encoder up to a layer: from a folder, a Hub repository, the name of published weights, or a `.pt`
 * of fairseq or fairseq2.
 * @throws ConfigError for a layer that the network does not have; CheckpointError for files of another network
 */
export async function loadUnitEncoder(from: string, options: LoadUnitEncoderOptions): Promise<UnitEncoder> {
  const { layer, config, ...load } = options
  requireWhole('UnitEncoder', 'layer', layer, 1)
  if (typeof from !== 'string') throw argumentError('UnitEncoder', 'encoder', 'a folder, a file or a name', from)
  // existsSync comes first: statSync throws for a name that cannot be a path.
  if (existsSync(from) && statSync(from).isFile()) {
    return new UnitEncoder(await readFairseq(from, layer, config, load), layer)
  }
  if (config !== undefined) {
    throw new ConfigError(
      'UnitEncoder: config: expected it only with a .pt file, got it with a folder, which has a config.json. Leave it out.',
      { argument: 'config' },
    )
  }
  const { hub } = parted(load)
  const directory = await resolveModel(from, hub)
  const modelType = isCTranslate2(directory) ? 'whisper' : (await readConfig(directory)).modelType
  return new UnitEncoder(await readFolder(directory, modelType, layer, load), layer)
}

async function readFolder(
  directory: string,
  modelType: unknown,
  layer: number,
  load: LoadNetworkOptions,
): Promise<UnitNetwork> {
  if (modelType === 'whisper') {
    const kind = {
      kind: 'whisper_encoder',
      modelType,
      architecture: 'WhisperModel',
      prefix: 'model.encoder.',
      ignored: [laterLayers(layer)],
      rename: (name: string) => name.replace(/^encoder\./, ''),
      // The final norm comes after the requested layer.
      optional: [/^decoder\./, /^layer_norm\./, /^proj_out\./],
      foreign: ctranslate2Checkpoint,
    }
    const { network } = await loadNetwork(kind, directory, load, (read, factory) => {
      const config: WhisperConfig = partedConfig(directory, whisperKeys, read).known
      requireLayer(directory, layer, config.encoderLayers ?? 4)
      return new WhisperEncoder({ ...config, encoderLayers: layer }, factory) as Fillable & WhisperEncoder
    })
    return network
  }
  if (modelType !== 'wav2vec2' && modelType !== 'wavlm') {
    throw new CheckpointError(
      `${directory}: model_type: expected wav2vec2 (XLS-R), wavlm or whisper, got ${JSON.stringify(modelType)}`,
      { file: directory, modelType },
    )
  }
  const Network = modelType === 'wavlm' ? WavLM : Wav2Vec2
  const kind = speechKind(modelType as 'wav2vec2' | 'wavlm', layer)
  const { network } = await loadNetwork(kind, directory, load, (read, factory) => {
    const keys = modelType === 'wavlm' ? wavlmKeys : wav2vec2Keys
    const config: SpeechEncoderConfig = partedConfig(directory, keysOf(keys, read), read).known
    requireLayer(directory, layer, config.numHiddenLayers ?? 12)
    if (config.doStableLayerNorm === true) kind.optional.push(/^encoder\.layer_norm\./)
    return new Network(cut(config, layer), factory) as Fillable & Wav2Vec2
  })
  return network
}

const speechKind = (modelType: 'wav2vec2' | 'wavlm', layer: number) => ({
  kind: modelType,
  modelType,
  architecture: modelType === 'wavlm' ? 'WavLMModel' : 'Wav2Vec2Model',
  prefix: `${modelType}.`,
  ignored: [...speechEncoderHeads, laterLayers(layer), /^(\w+\.)*adapter\./],
  rename: speechEncoderName,
  optional: [/^masked_spec_embed$/],
})

/** Return the configuration without masking, without later layers, and without an adapter. @internal */
export const cut = <C extends SpeechEncoderConfig>(config: C, layer: number): C => ({
  ...config,
  numHiddenLayers: layer,
  maskTimeProb: 0,
  maskFeatureProb: 0,
  addAdapter: false,
})

/** Return a pattern for the names of later layers. fairseq2's convolutions are called layers too. */
function laterLayers(layer: number): RegExp {
  const numbers = Array.from({ length: Math.max(0, MAX_LAYERS - layer) }, (_, i) => layer + i)
  return numbers.length === 0 ? /^$/ : new RegExp(`(^|(?<!feature_extractor)\\.)layers\\.(${numbers.join('|')})\\.`)
}
const MAX_LAYERS = 256

function requireLayer(file: string, layer: number, layers: number): void {
  if (layer <= layers) return
  throw new ConfigError(`${file}: layer: expected 1 to ${layers}, the encoder's number of layers, got ${layer}`, {
    layer,
    layers,
  })
}

async function readFairseq(
  file: string,
  layer: number,
  overrides: Wav2Vec2Config | undefined,
  load: LoadNetworkOptions,
): Promise<Wav2Vec2> {
  const { hub: _, ...fill } = parted(load)
  return scope(async () => {
    const later = laterLayers(layer)
    const loaded = await loadTorch(file, { mmap: true, names: (name) => !later.test(name) })
    const tensors = tensorsOf(loaded)
    const kind = speechKind('wav2vec2', layer)
    const state = renamed(kind, tensors)
    const config = { ...sizesOf(file, state), ...configIn(loaded), ...overrides }
    requireLayer(file, layer, layersOf(state))
    if (config.doStableLayerNorm) kind.optional.push(/^encoder\.layer_norm\./)
    const { network } = await filled(kind, { file, mapped: true, state }, fill, (factory) => {
      return new Wav2Vec2(cut(config, layer), factory) as Fillable & Wav2Vec2
    })
    return network
  })
}

/** Return the settings in the file's `cfg` that weights do not contain; fairseq2's files have none. */
function configIn(loaded: unknown): Wav2Vec2Config {
  const { cfg } = (loaded ?? {}) as { cfg?: unknown }
  if (typeof cfg !== 'object' || cfg === null) return {}
  const { numAttentionHeads, convStride, hiddenAct } = fairseqConfig(cfg as Record<string, unknown>) as Wav2Vec2Config
  return {
    ...(numAttentionHeads !== undefined && { numAttentionHeads }),
    ...((cfg as { model?: object }).model && convStride && { convStride }),
    ...(hiddenAct !== undefined && { hiddenAct }),
  }
}

const layersOf = (state: ReadonlyMap<string, Tensor>): number => {
  let count = 0
  while (state.has(`encoder.layers.${count}.attention.k_proj.weight`)) count += 1
  return count
}

/** Return the sizes of a network from the shapes of its weights. */
function sizesOf(file: string, state: ReadonlyMap<string, Tensor>): Wav2Vec2Config {
  const shape = (name: string): number[] => {
    const found = state.get(name)
    if (found) return found.shape
    throw new CheckpointError(`${file}: expected a wav2vec 2.0 network with the tensor ${name}, got one without`, {
      file,
      tensor: name,
    })
  }
  const convolutions: number[][] = []
  for (let i = 0; state.has(`feature_extractor.conv_layers.${i}.conv.weight`); i++) {
    convolutions.push(shape(`feature_extractor.conv_layers.${i}.conv.weight`))
  }
  const [hiddenSize = 0] = shape('feature_projection.projection.weight')
  const [, perGroup = 1, kernel = 128] = shape('encoder.pos_conv_embed.conv.parametrizations.weight.original1')
  const [intermediateSize = 0] = shape('encoder.layers.0.feed_forward.intermediate_dense.weight')
  const isLayer = state.has('feature_extractor.conv_layers.1.layer_norm.weight')
  const heads = HEADS[hiddenSize]
  return {
    hiddenSize,
    intermediateSize,
    ...(heads !== undefined && { numAttentionHeads: heads }),
    convDim: convolutions.map(([out = 0]) => out),
    convKernel: convolutions.map(([, , size = 0]) => size),
    convStride: convolutions.map((_, i) => (i === 0 ? 5 : 2)),
    convBias: state.has('feature_extractor.conv_layers.0.conv.bias'),
    featExtractNorm: isLayer ? 'layer' : 'group',
    doStableLayerNorm: isLayer,
    numConvPosEmbeddings: kernel,
    numConvPosEmbeddingGroups: Math.max(1, Math.round(hiddenSize / perGroup)),
  }
}
