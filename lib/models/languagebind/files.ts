/**
 * Files of LanguageBind: the published checkpoints (https://huggingface.co/LanguageBind), each with the encoder of one modality and
 * a text encoder in `pytorch_model.bin`, some with adapters; and the format of `save`.
 */
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { writeFolderAtomically } from '../../base/atomic-folder.js'
import { requireObject, requireOneOf, requireOptions, requireString, shown } from '../../base/check.js'
import { CheckpointError, ConfigError } from '../../base/errors.js'
import { writeJson } from '../../files/json/json.js'
import { saveSafetensors } from '../../files/safetensors/safetensors.js'
import { weightFiles } from '../../files/safetensors/sharded.js'
import { resolveModel } from '../../hub/resolve.js'
import { getPeftModel } from '../../peft/model.js'
import { loadParts, PARTS_INDEX, saveParts } from '../../peft/parts.js'
import { noGrad, scope, type Tensor } from '../../tensor/index.js'
import type { ClipVisionModel } from '../clip/clip.js'
import { imageSizeOf } from '../clip/config.js'
import { ClipTokenizer } from '../clip/tokenizer.js'
import { partedConfig } from '../config-keys.js'
import type { NetworkConfig } from '../network.js'
import { LOAD_OPTIONS, type LoadNetworkOptions, parted, readConfig, requireModelType } from '../pretrained.js'
import { type Factory, filled, readWeights } from '../weights.js'
import {
  type CompleteLanguageBindConfig,
  completeConfig,
  type LanguageBindEncoderConfig,
  type LanguageBindModality,
  languageBindEncoderKeys,
  MODALITIES,
  modelTypeOf,
  readSavedConfig,
  savedConfig,
} from './config.js'
import type { LanguageBind } from './languagebind.js'
import { knownRows } from './positions.js'

/** Directory or hub repository of each modality, published or from `save`. The text encoder is that of the last one. */
export type LanguageBindFrom = { [M in LanguageBindModality]?: string }

export interface LoadLanguageBindOptions extends LoadNetworkOptions {
  /**
   * Handling of adapters in a checkpoint: `'merge'` (default) adds them to the weights; `'keep'` keeps them as adapters, which can
   * train and are saved as adapters.
   */
  lora?: 'merge' | 'keep'
}

type Build = (config: CompleteLanguageBindConfig, factory: Factory) => LanguageBind

const KIND = {
  kind: 'languagebind',
  modelType: 'languagebind',
  architecture: 'LanguageBind',
  prefix: '',
  ignored: [/(^|\.)position_ids$/],
}
const WHERE = 'LanguageBind.fromPretrained'

export async function loadLanguageBind(
  from: LanguageBindFrom | string,
  options: LoadLanguageBindOptions,
  build: Build,
): Promise<LanguageBind> {
  requireOptions(WHERE, options, [...LOAD_OPTIONS, 'lora'])
  const { lora = 'merge', ...load } = options
  requireOneOf(WHERE, 'lora', lora, ['merge', 'keep'])
  const { hub, ...fill } = parted(load)
  const places = typeof from === 'string' ? undefined : await placesOf(from, hub)
  const saved = places && wholeOf(places)
  if (places && saved === undefined) return loadPublished(places, { ...fill, lora }, build)
  const directory = saved ?? (await resolveModel(from as string, hub))
  const config = await readConfig(directory)
  const modality = MODALITIES.find((one) => modelTypeOf(one) === config.modelType)
  if (modality) return loadPublished([{ modality, directory }], { ...fill, lora }, build)
  requireModelType(directory, config, KIND)
  if (typeof config.encoders !== 'object' || config.encoders === null) {
    throw new CheckpointError(
      `${join(directory, 'config.json')}: encoders: expected an object, got ${shown(config.encoders)}. Save the model again.`, // language: key of config.json
      { file: directory },
    )
  }
  for (const { modality } of places ?? []) savedEncoder(directory, config, modality)
  const complete = completeConfig(join(directory, 'config.json'), readSavedConfig(config.encoders))
  return scope(async () => {
    const { tensors, ...rest } = await readWeights(directory, fill, KIND)
    const state = new Map(Object.entries(tensors))
    const { network } = await filled(KIND, { ...rest, state }, fill, (factory) => build(complete, factory))
    try {
      await loadParts(directory, network)
      network.tokenizer = await tokenizerIn([directory])
    } catch (error) {
      network.dispose()
      throw error
    }
    return network
  })
}

interface Place {
  modality: LanguageBindModality
  directory: string
}

async function placesOf(from: LanguageBindFrom, hub: object): Promise<Place[]> {
  requireObject(WHERE, 'from', from)
  const strange = Object.keys(from).find((name) => !(MODALITIES as readonly string[]).includes(name))
  const given = Object.entries(from).filter(([, place]) => place !== undefined) as [LanguageBindModality, string][]
  if (strange !== undefined || given.length === 0) {
    const value = strange === undefined ? 'no modality' : JSON.stringify(strange)
    throw new ConfigError(
      `${WHERE}: from: expected modalities of ${MODALITIES.join(', ')}, got ${value}. Correct the key.`,
      {
        from,
      },
    )
  }
  const places: Place[] = []
  for (const [modality, place] of given) {
    requireString(WHERE, modality, place)
    places.push({ modality, directory: await resolveModel(place, hub) })
  }
  return places
}

/** Return the one folder with adapters from `save`, which belong to the whole model; undefined without adapters. */
function wholeOf(places: readonly Place[]): string | undefined {
  const folders = [...new Set(places.map(({ directory }) => directory))]
  const withAdapters = folders.find((folder) => existsSync(join(folder, PARTS_INDEX)))
  if (withAdapters === undefined || folders.length === 1) return withAdapters
  throw new CheckpointError(
    `${join(withAdapters, PARTS_INDEX)}: expected a LanguageBind without adapters in combination with another folder, got one with adapters. Merge them (mergeAndUnload) and save it again.`,
    { file: join(withAdapters, PARTS_INDEX) },
  )
}

/** Return a modality's configuration in a config.json of `save`. @throws CheckpointError if the model has no such modality */
function savedEncoder(directory: string, { encoders }: NetworkConfig, modality: LanguageBindModality) {
  const given = readSavedConfig(typeof encoders === 'object' && encoders !== null ? encoders : {})
  if (given[modality] !== undefined) return given[modality]
  const file = join(directory, 'config.json')
  throw new CheckpointError(
    `${file}: expected an encoder of ${modality}, got ${Object.keys(given).join(', ') || 'none'}. Give the folder of a LanguageBind that has it.`,
    { file, modality },
  )
}

type Fill = Omit<LoadLanguageBindOptions, 'lora'> & { lora: 'merge' | 'keep' }

async function loadPublished(places: Place[], { lora, ...fill }: Fill, build: Build): Promise<LanguageBind> {
  return scope(async () => {
    const encoders: CompleteLanguageBindConfig = {}
    const state = new Map<string, Tensor>()
    const files: string[] = []
    const kept: { modality: LanguageBindModality; adapters: Adapters }[] = []
    let mapped = false
    for (const [i, { modality, directory }] of places.entries()) {
      const given = await readConfig(directory)
      const file = join(directory, 'config.json')
      // A model from `save` has several encoders.
      const isSaved = given.modelType === KIND.modelType
      if (!isSaved) requireModelType(directory, given, { ...KIND, modelType: modelTypeOf(modality) })
      const own = isSaved ? savedEncoder(directory, given, modality) : given
      const whole = completeConfig(file, { [modality]: own })[modality] as LanguageBindEncoderConfig
      const config = partedConfig(file, languageBindEncoderKeys, whole).known
      const source = await readWeights(directory, fill, KIND)
      mapped ||= source.mapped
      files.push(source.file)
      const isLast = i === places.length - 1
      const { encoder, adapters } = isSaved
        ? { encoder: encoderOf(modality, source.tensors, isLast), adapters: new Map() as Adapters }
        : sorted(modality, source.tensors, isLast)
      checkShapes(modality, config, encoder, source.file)
      const scaled = checkAdapters(config, adapters, source.file)
      if (scaled && lora === 'merge') merge(modality, adapters, scaled.scale, encoder, source.file)
      else if (scaled) kept.push({ modality, adapters })
      encoders[modality] = config
      for (const [name, value] of encoder) state.set(name, value)
    }
    const { network } = await filled(KIND, { file: files.join(', '), mapped, state }, fill, (factory) =>
      build(encoders, factory),
    )
    try {
      for (const { modality, adapters } of kept) attach(network, modality, encoders[modality], adapters)
      // The adapters are merged now, or PEFT saves them.
      for (const { modality } of places) Object.assign(network.config[modality]?.visionConfig ?? {}, { loraR: 0 })
      network.tokenizer = await tokenizerIn(places.map(({ directory }) => directory).reverse())
    } catch (error) {
      network.dispose()
      throw error
    }
    return network
  })
}

/** Adapters by the path of their layer in the vision encoder. */
type Adapters = Map<string, { A?: Tensor; B?: Tensor }>

/** Separate a checkpoint's tensors, renamed, from its adapters. */
function sorted(modality: LanguageBindModality, tensors: Record<string, Tensor>, withText: boolean) {
  const encoder = new Map<string, Tensor>()
  const adapters: Adapters = new Map()
  for (const [name, value] of Object.entries(tensors)) {
    if (KIND.ignored.some((pattern) => pattern.test(name))) continue
    // Remove the prefixes that PEFT adds to the encoder and, in newer versions, to each layer.
    const plain = name.replace('.encoder.base_model.model.', '.encoder.').replace('.base_layer.', '.')
    const [, path, part] = /^vision_model\.(.+)\.lora_(A|B)\.(?:default\.)?weight$/.exec(plain) ?? []
    if (path !== undefined) {
      adapters.set(path, { ...adapters.get(path), [part as 'A' | 'B']: value })
      continue
    }
    const isText = /^text_(model|projection)\./.test(plain)
    if (!isText || withText) encoder.set(renamed(modality, plain), value)
  }
  return { encoder, adapters }
}

/** Return a modality's tensors of a model from `save`. */
function encoderOf(modality: LanguageBindModality, tensors: Record<string, Tensor>, withText: boolean) {
  const parts = [modality, ...(withText ? ['language'] : [])]
  const own = new RegExp(`^modality_(?:encoder|proj|scale)\\.(?:${parts.join('|')})(?:\\.|$)`)
  return new Map(Object.entries(tensors).filter(([name]) => own.test(name)))
}

const renamed = (modality: LanguageBindModality, name: string): string =>
  name === 'logit_scale'
    ? `modality_scale.${modality}`
    : name
        .replace(/^vision_model\./, `modality_encoder.${modality}.`)
        .replace(/^visual_projection\./, `modality_proj.${modality}.`)
        .replace(/^text_model\./, 'modality_encoder.language.')
        .replace(/^text_projection\./, 'modality_proj.language.')

/** Check the positions, whose number often shows that the configuration belongs to another checkpoint. */
function checkShapes(
  modality: LanguageBindModality,
  config: LanguageBindEncoderConfig,
  encoder: Map<string, Tensor>,
  file: string,
): void {
  const vision = config.visionConfig ?? {}
  // Not every configuration has clip_type.
  if (vision.addTimeAttn && vision.clipType === undefined) {
    const own = encoder.get(`modality_encoder.${modality}.embeddings.class_embedding`)
    if (own?.ndim === 2) vision.clipType = 'vl_new'
  }
  const tensor = `modality_encoder.${modality}.embeddings.position_embedding.weight`
  const rows = encoder.get(tensor)?.shape[0]
  const [height, width] = imageSizeOf(vision)
  const patch = vision.patchSize ?? 32
  const [down, across] = [Math.floor(height / patch), Math.floor(width / patch)]
  const expected = down * across + 1
  if (rows === undefined || rows === expected) return
  throw new CheckpointError(
    `${file}: ${tensor}: expected ${expected} positions for ${down} × ${across} patches of ${height} × ${width}` +
      `${knownRows(expected)}, got ${rows}${knownRows(rows)}. ` +
      'Use the config.json of this checkpoint, or convert the table with resizePositions.',
    { file, tensor, rows, wanted: expected },
  )
}

function checkAdapters(config: LanguageBindEncoderConfig, adapters: Adapters, file: string) {
  const { loraR = 0, loraAlpha = 16 } = config.visionConfig ?? {}
  if (adapters.size === 0) {
    if (loraR === 0) return undefined
    throw new CheckpointError(
      `${file}: expected adapters of rank ${loraR} (lora_r), got none. If they are merged already, set lora_r to 0.`,
      { file, loraR },
    )
  }
  for (const [path, { A, B }] of adapters) {
    const fault = !A || !B ? `expected lora_A and lora_B, got only ${A ? 'lora_A' : 'lora_B'}` : wrongRank(A, B, loraR)
    if (fault) throw new CheckpointError(`${file}: ${path}: ${fault}. Load another checkpoint.`, { file, tensor: path })
  }
  return { scale: loraAlpha / loraR }
}

function wrongRank(A: Tensor, B: Tensor, rank: number): string | undefined {
  const fits = A.ndim === 2 && B.ndim === 2 && A.shape[0] === rank && B.shape[1] === rank
  if (fits) return undefined
  return `expected lora_A [${rank}, in] and lora_B [out, ${rank}] (lora_r ${rank}), got [${A.shape}] and [${B.shape}]`
}

/** Add adapters to their weights: W + scale · B A, in float32. */
function merge(
  modality: LanguageBindModality,
  adapters: Adapters,
  scale: number,
  encoder: Map<string, Tensor>,
  file: string,
): void {
  for (const [path, { A, B }] of adapters) {
    const name = `modality_encoder.${modality}.${path}.weight`
    const weight = encoder.get(name)
    const [rows, columns] = [(B as Tensor).shape[0], (A as Tensor).shape[1]]
    if (weight?.ndim !== 2 || weight.shape[0] !== rows || weight.shape[1] !== columns) {
      throw new CheckpointError(
        `${file}: ${path}: expected a weight [${rows}, ${columns}] for its adapter, got ${weight ? `[${weight.shape}]` : 'none'}. Load another checkpoint.`,
        {
          file,
          tensor: path,
        },
      )
    }
    const merged = noGrad(() =>
      scope(() => {
        const product = (B as Tensor).float().matmul((A as Tensor).float())
        return weight.float().add(product.mul(scale)).to(weight.dtype)
      }),
    )
    weight.dispose()
    encoder.set(name, merged)
  }
}

function attach(
  model: LanguageBind,
  modality: LanguageBindModality,
  config: LanguageBindEncoderConfig | undefined,
  adapters: Adapters,
): void {
  const { loraR = 0, loraAlpha = 16, loraDropout = 0 } = config?.visionConfig ?? {}
  const encoder = model.encoder(modality) as ClipVisionModel
  getPeftModel(encoder, { r: loraR, loraAlpha, loraDropout, targetModules: [...adapters.keys()] })
  const own = new Map<string, Tensor>(encoder.namedParameters())
  noGrad(() => {
    for (const [path, pair] of adapters) {
      for (const part of ['A', 'B'] as const) {
        const parameter = own.get(`${path}.lora_${part}.default.weight`)
        if (parameter?.shape.join() !== pair[part]?.shape.join()) {
          throw new CheckpointError(
            `${modality}: ${path}.lora_${part}: expected [${parameter?.shape}], got [${pair[part]?.shape}]. Load another checkpoint.`,
            { tensor: path },
          )
        }
        parameter?.copy_(pair[part] as Tensor)
      }
    }
  })
}

async function tokenizerIn(directories: readonly string[]): Promise<ClipTokenizer | null> {
  const found = directories.find((directory) =>
    ['tokenizer.json', 'vocab.json'].some((name) => existsSync(join(directory, name))),
  )
  return found === undefined ? null : ClipTokenizer.fromPretrained(found)
}

export async function saveLanguageBind(model: LanguageBind, directory: string): Promise<void> {
  const where = 'LanguageBind.save'
  requireString(where, 'directory', directory)
  const config = {
    architectures: [KIND.architecture],
    model_type: KIND.modelType,
    encoders: savedConfig(model.config),
  }
  await writeFolderAtomically(
    directory,
    CheckpointError,
    async (folder) => {
      await saveSafetensors(join(folder, 'model.safetensors'), model.stateDict(), { format: 'pt' })
      await saveParts(where, folder, model)
      await writeJson(join(folder, 'config.json'), config, { indent: 2 })
      model.tokenizer?.tokenizer.saveTo(folder)
    },
    weightFiles,
  )
}
