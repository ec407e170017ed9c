import { join } from 'node:path'
import { optionsOf } from '../../base/arguments.js'
import { finalPath, writeFolderAtomically } from '../../base/atomic-folder.js'
import { defined, requireObject, requireOneOf, requireOptions, requireString } from '../../base/check.js'
import { CheckpointError, ConfigError } from '../../base/errors.js'
import { toCamel, toSnake } from '../../base/words.js'
import { writeJson } from '../../files/json/json.js'
import { saveSafetensorsSharded } from '../../files/safetensors/sharded.js'
import { readGenerationConfig, writeGenerationConfig } from '../../generation/files.js'
import { isConfiguration } from '../../nn/native-module.js'
import { quantizationOf } from '../../nn/quantized-weight.js'
import { warnOfAdapters } from '../../peft/parts.js'
import { noGrad, scope, type Tensor } from '../../tensor/index.js'
import { addedTokenId } from '../../text/added-token-id.js'
import { keepOthers, partedConfig } from '../config-keys.js'
import { architectureOf, published } from '../decoder/config.js'
import type { ConfigChanges } from '../network.js'
import {
  type LoadNetworkOptions,
  loadNetwork,
  type NetworkKind,
  type SaveNetworkOptions,
  saveNetwork,
} from '../pretrained.js'
import type { Factory } from '../weights.js'
import { type InternVLConfig, internVLKeys } from './config.js'
import type { InternVL } from './internvl.js'
import { portCheckpoint, portConfig, portState } from './port.js'

export interface SaveInternVLOptions extends SaveNetworkOptions {
  /** Names and configuration: those of the published checkpoints (default), or of transformers' port. */
  layout?: 'published' | 'transformers'
}

const IMAGE_TOKEN = '<IMG_CONTEXT>'

const layout: NetworkKind = {
  kind: 'internvl',
  modelType: 'internvl_chat',
  architecture: 'InternVLChatModel',
  prefix: '',
  ignored: [/\.rotary_emb\.inv_freq$/],
  packed: 'language_model.model.layers',
  foreign: portCheckpoint,
}

export async function loadInternVL(
  from: string,
  options: LoadNetworkOptions & ConfigChanges<InternVLConfig>,
  build: (config: InternVLConfig, factory: Factory) => InternVL,
): Promise<InternVL> {
  const { config: changes = {}, ...others } = optionsOf(options, 'InternVL.fromPretrained')
  requireObject('InternVL.fromPretrained', 'config', changes)
  const optional: RegExp[] = []
  const { network, directory } = await loadNetwork({ ...layout, optional }, from, others, (config, factory) => {
    const { known, others } = partedConfig(from, internVLKeys, config)
    const network = build(changed(known, changes), factory)
    keepOthers(network, others)
    if (network.config.llmConfig.tieWordEmbeddings) optional.push(/^language_model\.(lm_head|output)\.weight$/)
    return network
  })
  try {
    network.config.imgContextTokenId ??= await addedTokenId(directory, IMAGE_TOKEN)
    network.generationConfig = await readGenerationConfig(directory, network.config.llmConfig)
  } catch (error) {
    network.dispose()
    throw error
  }
  return network
}

/** Apply changes key by key, also within the configurations of parts. */
function changed(config: InternVLConfig, changes: Partial<InternVLConfig>): InternVLConfig {
  const part = (key: 'visionConfig' | 'llmConfig') => {
    const given = changes[key]
    return isConfiguration(given) ? { [key]: { ...toCamel(config[key] ?? {}), ...given } } : {}
  }
  return { ...config, ...changes, ...part('visionConfig'), ...part('llmConfig') }
}

export async function saveInternVL(model: InternVL, directory: string, options: SaveInternVLOptions): Promise<void> {
  const where = 'InternVL.save'
  requireString(where, 'directory', directory)
  requireOptions(where, options, ['layout', 'maxShardBytes', 'withoutAdapters'])
  const { layout: form = 'published', ...saving } = options
  requireOneOf(where, 'layout', form, ['published', 'transformers'])
  await writeFolderAtomically(directory, CheckpointError, async (folder) => {
    if (form === 'transformers') await savePort(model, folder, saving)
    else await saveNetwork(layout, folder, model, publishedConfig(model), saving)
    await writeGenerationConfig(folder, model.generationConfig)
  })
}

function publishedConfig({ config }: InternVL): InternVLConfig {
  const { visionConfig, llmConfig, imgContextTokenId, ...rest } = config
  const llm = { ...toSnake(published(llmConfig)), architectures: [architectureOf(llmConfig)] }
  const vision = { ...toSnake(visionConfig), model_type: 'intern_vit_6b', architectures: ['InternVisionModel'] }
  // The published files have it in the tokenizer.
  const token = imgContextTokenId == null ? {} : { imgContextTokenId }
  return { ...rest, ...token, visionConfig: vision, llmConfig: llm } as InternVLConfig
}

async function savePort(model: InternVL, directory: string, options: SaveNetworkOptions): Promise<void> {
  const { maxShardBytes, withoutAdapters = false } = options
  const packed = model.namedModules().find(([, module]) => quantizationOf(module))
  if (packed) {
    throw new ConfigError(
      `InternVL.save: expected weights without quantization for the layout 'transformers', got '${packed[0]}' quantized. Use the layout 'published'.`,
      {
        path: packed[0],
      },
    )
  }
  const config = portConfig(model.config)
  if (!withoutAdapters) warnOfAdapters(model, finalPath(directory))
  await noGrad(() =>
    scope(async () => {
      const state: Record<string, Tensor> = portState(model.config, model.stateDict())
      await saveSafetensorsSharded(directory, state, defined({ maxShardBytes }))
    }),
  )
  await writeJson(join(directory, 'config.json'), config, { indent: 2 })
}
