import { join } from 'node:path'
import { optionsOf } from '../../base/arguments.js'
import { finalPath, writeFolderAtomically } from '../../base/atomic-folder.js'
import { defined, requireObject, requireOptions, requireString } from '../../base/check.js'
import { CheckpointError, ConfigError } from '../../base/errors.js'
import { toSnake } from '../../base/words.js'
import { writeJson } from '../../files/json/json.js'
import { saveSafetensorsSharded } from '../../files/safetensors/sharded.js'
import { readGenerationConfig, writeGenerationConfig } from '../../generation/files.js'
import { quantizationOf } from '../../nn/quantized-weight.js'
import { warnOfAdapters } from '../../peft/parts.js'
import { keepOthers, partedConfig, withOthers } from '../config-keys.js'
import { published } from '../decoder/config.js'
import type { ConfigChanges } from '../network.js'
import {
  type LoadNetworkOptions,
  loadNetwork,
  type NetworkKind,
  type SaveNetworkOptions,
  withFloats,
} from '../pretrained.js'
import { commonDType, type Factory } from '../weights.js'
import { type SmolVLMConfig, smolVLMKeys } from './config.js'
import type { SmolVLM } from './smolvlm.js'

const ARCHITECTURES = { smolvlm: 'SmolVLMForConditionalGeneration', idefics3: 'Idefics3ForConditionalGeneration' }

/** Return the network's name of a tensor of transformers' files. */
const ownName = (name: string): string =>
  name === 'lm_head.weight'
    ? 'language_model.lm_head.weight'
    : name.replace(/^model\./, '').replace(/^text_model\./, 'language_model.model.')

/** Return transformers' name of a tensor of the network. */
const savedName = (name: string): string =>
  name.startsWith('language_model.lm_head.')
    ? name.replace('language_model.', '')
    : `model.${name.replace(/^language_model\.model\./, 'text_model.')}`

const layout: NetworkKind = {
  kind: 'smolvlm',
  modelType: 'smolvlm',
  alike: ['idefics3'],
  architecture: ARCHITECTURES.smolvlm,
  prefix: '',
  ignored: [/\.rotary_emb\.inv_freq$/, /(^|\.)position_ids$/],
  packed: 'language_model.model.layers',
  rename: ownName,
}

export async function loadSmolVLM(
  from: string,
  options: LoadNetworkOptions & ConfigChanges<SmolVLMConfig>,
  build: (config: SmolVLMConfig, factory: Factory) => SmolVLM,
): Promise<SmolVLM> {
  const { config: changes = {}, ...others } = optionsOf(options, 'SmolVLM.fromPretrained')
  requireObject('SmolVLM.fromPretrained', 'config', changes)
  const optional: RegExp[] = []
  const { network, directory } = await loadNetwork({ ...layout, optional }, from, others, (config, factory) => {
    const { known, others } = partedConfig(from, smolVLMKeys, config)
    const network = build({ ...known, ...changes }, factory)
    keepOthers(network, others)
    if (network.config.tieWordEmbeddings) optional.push(/^language_model\.lm_head\.weight$/)
    return network
  })
  try {
    network.generationConfig = await readGenerationConfig(directory, network.config.textConfig)
  } catch (error) {
    network.dispose()
    throw error
  }
  return network
}

export async function saveSmolVLM(model: SmolVLM, directory: string, options: SaveNetworkOptions): Promise<void> {
  requireString('SmolVLM.save', 'directory', directory)
  requireOptions('SmolVLM.save', options, ['maxShardBytes', 'withoutAdapters'])
  const { maxShardBytes, withoutAdapters = false } = options
  const packed = model.namedModules().find(([, module]) => quantizationOf(module))
  if (packed) {
    throw new ConfigError(
      `SmolVLM.save: expected weights without quantization, got '${packed[0]}' quantized. Save before quantize().`,
      { path: packed[0] },
    )
  }
  const { modelType, visionConfig, textConfig, ...rest } = model.config
  const state = Object.fromEntries(Object.entries(model.stateDict()).map(([name, one]) => [savedName(name), one]))
  const config = toSnake(
    withOthers(model, {
      ...rest,
      visionConfig: {
        ...toSnake(visionConfig),
        model_type: modelType === 'smolvlm' ? 'smolvlm_vision' : 'idefics3_vision',
      },
      textConfig: toSnake(published(textConfig)),
    }),
  )
  const saved = { ...config, architectures: [ARCHITECTURES[modelType]], model_type: modelType }
  Object.assign(saved, { dtype: commonDType(Object.values(state)) })
  await writeFolderAtomically(directory, CheckpointError, async (folder) => {
    if (!withoutAdapters) warnOfAdapters(model, finalPath(folder))
    await saveSafetensorsSharded(folder, state, defined({ maxShardBytes }))
    await writeJson(join(folder, 'config.json'), withFloats(saved), { indent: 2 })
    await writeGenerationConfig(folder, model.generationConfig)
  })
}
