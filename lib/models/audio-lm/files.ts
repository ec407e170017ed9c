import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { optionsOf } from '../../base/arguments.js'
import { filesIn, finalPath, writeFolderAtomically } from '../../base/atomic-folder.js'
import { defined, requireNumber, requireObject, requireOptions, requireString } from '../../base/check.js'
import { CheckpointError, ConfigError } from '../../base/errors.js'
import { toCamel, toSnake } from '../../base/words.js'
import { readJson, writeJson } from '../../files/json/json.js'
import { saveSafetensors } from '../../files/safetensors/safetensors.js'
import { saveSafetensorsSharded } from '../../files/safetensors/sharded.js'
import { readGenerationConfig, writeGenerationConfig } from '../../generation/files.js'
import { resolveModel } from '../../hub/resolve.js'
import { quantizationOf } from '../../nn/quantized-weight.js'
import { type AdapterFileNames, renamed } from '../../peft/file-names.js'
import { ADAPTER_FILES, readAdapter } from '../../peft/files.js'
import { adapterOfFile, type PeftModel } from '../../peft/model.js'
import { warnOfAdapters } from '../../peft/parts.js'
import { Tokenizer } from '../../text/tokenizer.js'
import { keepOthers, partedConfig, withOthers } from '../config-keys.js'
import { published } from '../decoder/config.js'
import { readFeatureExtractor } from '../feature-extractor.js'
import type { ConfigChanges, NetworkConfig } from '../network.js'
import {
  type LoadNetworkOptions,
  loadNetwork,
  type NetworkKind,
  parted,
  readConfig,
  requireModelType,
  type SaveNetworkOptions,
  withFloats,
} from '../pretrained.js'
import { commonDType, type Factory } from '../weights.js'
import type { AudioLM } from './audio-lm.js'
import { type AudioLMConfig, familyOf, STEP_RANGE, withoutAliases } from './config.js'
import { AUDIO_MODEL_TYPES } from './families.js'
import type { AudioFamily } from './family.js'
import { composedCheckpoint } from './sources.js'

const [FIRST, ...ALIKE] = AUDIO_MODEL_TYPES
const ANY = { modelType: FIRST as string, alike: ALIKE as string[], architecture: 'AudioLM' }

/** Return the network's name of a tensor in files, which are older (`language_model.model.`) or of transformers 5 (`model.language_model.`). */
const ownName =
  (family: AudioFamily, config: NetworkConfig = {}) =>
  (name: string): string => {
    const other = family.layoutName?.(name, config)
    if (other !== undefined) return other
    const { encoder = 'audio_tower', connector = 'multi_modal_projector' } = family.prefixes ?? {}
    if (family.aligner !== undefined && name.startsWith('score.')) return name
    const short = name.replace(/^model\./, '')
    if (short.startsWith(`${encoder}.`)) return `audio_tower.${short.slice(encoder.length + 1)}`
    if (short.startsWith(`${connector}.`)) return `multi_modal_projector.${short.slice(connector.length + 1)}`
    if (short.startsWith('lm_head.')) return `language_model.${short}`
    const inside = short.startsWith('language_model.') ? short.slice('language_model.'.length) : short
    return /^(model|lm_head)\./.test(inside) ? `language_model.${inside}` : `language_model.model.${inside}`
  }

/** Return a tensor's name in files. */
const savedName =
  ({ prefixes: { encoder, connector } = {}, hasModelPrefix = false }: AudioFamily) =>
  (name: string): string => {
    if (hasModelPrefix) {
      const short = name.replace(/^language_model\.(model\.|(?=lm_head\.))/, (_, inner) =>
        inner ? 'language_model.' : '',
      )
      return /^(lm_head|score)\./.test(short) ? short : `model.${short}`
    }
    const part = (own: string, other: string | undefined) =>
      other !== undefined && name.startsWith(`${own}.`) ? other + name.slice(own.length) : undefined
    return part('audio_tower', encoder) ?? part('multi_modal_projector', connector) ?? name
  }

/** Return names in PEFT's files: those of the family's class in Python. Older ones of transformers are read too. */
export function adapterFileNames(family: AudioFamily, hasHead: boolean): AdapterFileNames {
  const toModel = ownName(family)
  if (family.hasOwnModuleNames) {
    const copied = (names: readonly string[]) => [...names]
    return { toFile: (name) => name, toModel, savedToFile: copied, savedToModel: copied }
  }
  const { encoder = 'audio_tower', connector = 'multi_modal_projector' } = family.prefixes ?? {}
  const parts = new Map([
    ['audio_tower', encoder],
    ['multi_modal_projector', connector],
  ])
  const own = new Map([...parts].map(([name, file]) => [file, name]))
  return {
    toFile: (name) =>
      name
        .replace(/^language_model\.(?=lm_head(\.|$))/, '')
        .replace(/^language_model(\.model)?(?=\.|$)/, 'model.language_model')
        .replace(/^(audio_tower|multi_modal_projector)(?=\.|$)/, (part) => `model.${parts.get(part)}`),
    toModel,
    savedToFile: (names) =>
      names.flatMap((name) => {
        if (name === 'language_model.model') return ['language_model']
        if (name === 'language_model') return hasHead ? ['language_model', 'lm_head'] : ['language_model']
        return [parts.get(name) ?? name]
      }),
    savedToModel: (names) => {
      const isWhole = names.includes('lm_head') || !hasHead
      const found = names.map((given) => {
        const name = given.replace(/^model\./, '')
        return name === 'language_model' && !isWhole ? 'language_model.model' : (own.get(name) ?? name)
      })
      return found.includes('language_model') ? found.filter((name) => name !== 'lm_head') : found
    },
  }
}

export async function loadAudioLM(
  from: string,
  options: LoadNetworkOptions & ConfigChanges<AudioLMConfig>,
  build: (config: AudioLMConfig, factory: Factory) => AudioLM,
): Promise<AudioLM> {
  const { config: given = {}, ...others } = optionsOf(options, 'AudioLM.fromPretrained')
  requireObject('AudioLM.fromPretrained', 'config', given)
  const { hub, ...load } = parted(others)
  const directory = await resolveModel(from, hub)
  const found = await readConfig(directory)
  requireModelType(directory, found, ANY)
  const family = familyOf(found)
  const described = family.layout?.(found) ?? found
  // Places of parts are not part of the configuration of the network.
  const isPlace = (key: string) => Object.hasOwn(family.sources ?? {}, key)
  const entries = Object.entries(given)
  const changes = Object.fromEntries(entries.filter(([key]) => !isPlace(key))) as AudioLMConfig
  const places = Object.fromEntries(entries.filter(([key]) => isPlace(key)))
  const composed = family.sources && (await composedCheckpoint(directory, family, { ...described, ...places }, hub))
  const reason = family.unreadable?.(composed?.config ?? found)
  if (reason !== undefined) {
    const file = join(directory, 'config.json')
    throw new CheckpointError(`${file}: ${reason}`, { file })
  }
  const optional: RegExp[] = []
  const kind: NetworkKind = {
    ...{
      kind: 'audio_lm',
      ...ANY,
      architecture: family.architecture,
      prefix: '',
      optional,
      rename: ownName(family, described),
    },
    ...{ ignored: [/\.rotary_emb\.inv_freq$/], packed: 'language_model.model.layers' },
    ...(composed && { foreign: async () => composed }),
  }
  const { network } = await loadNetwork(kind, directory, defined(load) as LoadNetworkOptions, (config, factory) => {
    const own = family.layout?.(config) ?? config
    const { known, others } = partedConfig(directory, family.keys, withoutAliases(family, own))
    const network = build({ ...known, ...changes }, factory)
    keepOthers(network, others)
    if (network.config.textConfig.tieWordEmbeddings) optional.push(/^language_model\.lm_head\.weight$/)
    return network
  })
  try {
    const { textConfig: textFolder = directory } = composed?.folders ?? {}
    const isOwn = existsSync(join(directory, 'generation_config.json'))
    network.generationConfig = await readGenerationConfig(isOwn ? directory : textFolder, network.config.textConfig)
    await readFeatureExtractor(directory, family.features(network.config).keys)
    network.tokenizer = (await tokenizerIn(directory)) ?? (await tokenizerIn(textFolder))
    if (network.score !== null) await readStep(directory, network, family)
    if (network.config.hasLoraAdapter === true) network.audioAdapter = await folderAdapter(directory, network)
  } catch (error) {
    network.dispose()
    throw error
  }
  return network
}

/** Return the tokenizer of a folder, with the chat template of its processor; null without one. */
async function tokenizerIn(directory: string): Promise<Tokenizer | null> {
  if (!['tokenizer.json', 'tekken.json', 'vocab.json'].some((name) => existsSync(join(directory, name)))) return null
  const tokenizer = await Tokenizer.fromPretrained(directory)
  // transformers 4 wrote a processor's template here.
  const file = join(directory, 'chat_template.json')
  if (tokenizer.chatTemplate === null && existsSync(file)) {
    const { chat_template: template } = ((await readJson(file)) ?? {}) as { chat_template?: unknown }
    requireString(file, 'chat_template', template)
    tokenizer.chatTemplate = template as string
  }
  return tokenizer
}

/** Read the duration of a class of an aligner, which transformers has in the processor's file. */
async function readStep(directory: string, { config }: AudioLM, { aligner }: AudioFamily): Promise<void> {
  const file = join(directory, 'processor_config.json')
  if (aligner === undefined || !existsSync(file)) return
  const processor = await readJson(file)
  requireObject(file, 'the processor', processor)
  const step: unknown = toCamel(processor as object)[aligner.stepKey]
  if (step === undefined) return
  requireNumber(file, aligner.stepKey, step, STEP_RANGE)
  config[aligner.stepKey] = step
}

/** Load the adapter of a folder, which the original uses for texts with audio; null without one. */
async function folderAdapter(directory: string, network: AudioLM): Promise<PeftModel<AudioLM> | null> {
  if (!existsSync(join(directory, 'adapter_config.json'))) return null
  return adapterOfFile(network, await readAdapter(directory))
}

/** Write the adapter of a folder with the names of the family's published files. */
async function saveFolderAdapter(folder: string, adapter: PeftModel<AudioLM>, family: AudioFamily): Promise<void> {
  await adapter.savePretrained(folder)
  const { file, tensors } = await readAdapter(folder)
  const [own, saved] = [ownName(family), savedName(family)]
  try {
    await saveSafetensors(
      file,
      renamed(tensors, (name) => saved(own(name))),
      { format: 'pt' },
    )
  } finally {
    for (const tensor of Object.values(tensors)) tensor.dispose()
  }
}

/** Return config.json of a model. */
function configOf(model: AudioLM, family: AudioFamily): NetworkConfig {
  const { modelType, ...config } = model.config
  const parts = Object.keys(family.keys.parts ?? {}).map((key) => {
    const part = config[key] as NetworkConfig
    if (key === 'textConfig') return [key, toSnake(published(part))]
    return [key, { ...toSnake(part), ...defined({ model_type: family.partTypes[key] }) }]
  })
  return toSnake(withOthers(model, { ...config, ...Object.fromEntries(parts) }))
}

export async function saveAudioLM(model: AudioLM, directory: string, options: SaveNetworkOptions): Promise<void> {
  requireString('AudioLM.save', 'directory', directory)
  requireOptions('AudioLM.save', options, ['maxShardBytes', 'withoutAdapters'])
  const { maxShardBytes, withoutAdapters = false } = options
  const packed = model.namedModules().find(([, module]) => quantizationOf(module))
  if (packed) {
    throw new ConfigError(
      `AudioLM.save: expected weights without quantization, got '${packed[0]}' quantized. Save before quantize().`,
      { path: packed[0] },
    )
  }
  const { audioAdapter } = model
  const isAdapted = audioAdapter !== null && audioAdapter.adapterNames.length > 0 && !withoutAdapters
  if (isAdapted && audioAdapter.isMerged) {
    throw new ConfigError(
      'AudioLM.save: audioAdapter: expected an adapter that is not merged, got a merged one. Call unmergeAdapter() or mergeAndUnload() first.',
      { path: 'audioAdapter' },
    )
  }
  const family = familyOf(model.config)
  const nameOf = savedName(family)
  const state = Object.fromEntries(Object.entries(model.stateDict()).map(([name, one]) => [nameOf(name), one]))
  const { modelType } = model.config
  const { aligner } = family
  const architecture = model.score === null || aligner === undefined ? family.architecture : aligner.architecture
  const config = { ...configOf(model, family), architectures: [architecture], model_type: modelType }
  // Python's configuration classes take no null for the number of classes.
  if (model.score === null) Reflect.deleteProperty(config, 'num_labels')
  const saved = { ...config, dtype: commonDType(Object.values(state)) }
  const fill = async (folder: string) => {
    if (isAdapted) await saveFolderAdapter(folder, audioAdapter, family)
    else if (!withoutAdapters) warnOfAdapters(model, finalPath(folder))
    await saveSafetensorsSharded(folder, state, defined({ maxShardBytes }))
    await writeJson(join(folder, 'config.json'), withFloats(saved), { indent: 2 })
    await writeGenerationConfig(folder, model.generationConfig)
    const extractor = { ...family.features(model.config).saved, processor_class: family.processor }
    await writeJson(join(folder, 'preprocessor_config.json'), extractor, { indent: 2 })
    model.tokenizer?.saveTo(folder)
  }
  // Loading attaches the adapter of a folder: one of an earlier save would be applied to weights that have it.
  const isRead = model.config.hasLoraAdapter === true
  await writeFolderAtomically(directory, CheckpointError, fill, (folder) =>
    isRead ? filesIn(folder, ADAPTER_FILES) : [],
  )
}
