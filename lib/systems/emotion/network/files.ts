import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { makeDirectory } from '../../../base/atomic.js'
import { isSamePlace, partFiles, writeFolderAtomically } from '../../../base/atomic-folder.js'
import { defined, requireOptions, requireString, shown } from '../../../base/check.js'
import { CheckpointError, ConfigError } from '../../../base/errors.js'
import { toCamel, toSnake } from '../../../base/words.js'
import { readCheckpointJson, writeJson } from '../../../files/json/json.js'
import { loadSafetensors, saveSafetensors } from '../../../files/safetensors/safetensors.js'
import { weightFiles } from '../../../files/safetensors/sharded.js'
import { LanguageBind } from '../../../models/languagebind/languagebind.js'
import { requireSaved } from '../../../models/pretrained.js'
import type { Module } from '../../../nn/index.js'
import type { Device, DType } from '../../../tensor/index.js'
import { scope } from '../../../tensor/index.js'
import { type EmotionClassifierConfig, type EmotionModality, MODALITIES } from './config.js'
import type { EmotionEncoder } from './encoders.js'
import { LanguageBindEmotionEncoder, SHARED } from './languagebind-encoders.js'
import type { EmotionClassifier, MakeEmotionOptions } from './network.js'
import { EmotionTextEncoder } from './text-encoder.js'
import { EmotionFbankEncoder, EmotionVoiceEncoder } from './voice-encoder.js'

export interface LoadEmotionOptions {
  device?: Device
  dtype?: DType
  /** Encoders to use instead of those that the folder names, or of a kind that `openEncoder` cannot load. */
  encoders?: readonly EmotionEncoder[]
}

/** Constructor of the classifier, passed in because an import would be circular. */
type Make = (config: EmotionClassifierConfig, options: MakeEmotionOptions) => EmotionClassifier

/** Load an encoder that `save` wrote. @throws CheckpointError for a folder without `encoder.json`, or with an unknown kind in it */
export async function openEncoder(
  folder: string,
  options: Omit<LoadEmotionOptions, 'encoders'> = {},
  models: Map<string, Promise<LanguageBind>> = new Map(),
): Promise<EmotionEncoder> {
  requireString('openEncoder', 'folder', folder)
  const file = join(folder, 'encoder.json')
  const { encoder, from, ...rest } = await readCheckpointJson(file)
  // For a frozen encoder, the folder has only the place of its checkpoint, and its options.
  const place = typeof from === 'string' ? from : folder
  const factory = { ...defined(options), ...(typeof from === 'string' && rest) }
  if (encoder === 'text') return (await EmotionTextEncoder.fromPretrained(place, factory)) as EmotionEncoder
  if (encoder === 'voice')
    return (await EmotionVoiceEncoder.fromPretrained(place, factory)) as unknown as EmotionEncoder
  if (encoder === 'fbank') return new EmotionFbankEncoder(rest) as unknown as EmotionEncoder
  if (encoder === 'languagebind') {
    const shared = typeof from === 'string' ? from : join(folder, '..', SHARED)
    const model = models.get(shared) ?? LanguageBind.fromPretrained(shared, defined(options))
    models.set(shared, model)
    const { modality, useTemp, states } = rest as { modality: EmotionModality; useTemp?: boolean; states?: boolean }
    return new LanguageBindEmotionEncoder(await model, modality, {
      ...defined({ useTemp, states }),
      from: shared,
    }) as unknown as EmotionEncoder
  }
  throw new CheckpointError(
    `${file}: encoder: expected text, voice, fbank or languagebind, got ${shown(encoder)}. Pass encoders of other kinds to EmotionClassifier.fromPretrained.`, // language: key of encoder.json
    { file, encoder },
  )
}

interface SavedNetwork {
  /** The whole file: architecture, model type and configuration. */
  config: object
  head: Module
  /** Encoders that are part of the network. */
  own: readonly EmotionEncoder[]
  /** Encoders that did not train: only the place of their checkpoint is saved. */
  frozen: readonly EmotionEncoder[]
}

/**
 * Save a network with its encoders: config.json, model.safetensors with the head, and a folder for each encoder.
 * @throws ConfigError for an encoder that cannot be saved
 */
export async function saveEmotionNetwork(
  where: string,
  folder: string,
  { config, head, own, frozen }: SavedNetwork,
): Promise<void> {
  requireString(where, 'folder', folder)
  // A frozen encoder may have been loaded from this very folder.
  const places = frozen.flatMap(({ reference }) => (typeof reference?.from === 'string' ? [reference.from] : []))
  const earlier = (target: string) => [
    ...weightFiles(target),
    ...partFiles(
      target,
      [...MODALITIES, SHARED].filter((name) => !places.some((place) => isSamePlace(place, join(target, name)))),
    ),
  ]
  const save = async (temporary: string) => {
    await saveEncoders(where, temporary, own, frozen)
    await scope(() => saveSafetensors(join(temporary, 'model.safetensors'), head.stateDict(), { format: 'pt' }))
    await writeJson(join(temporary, 'config.json'), toSnake(config))
  }
  await writeFolderAtomically(folder, CheckpointError, save, earlier)
}

async function saveEncoders(
  where: string,
  folder: string,
  own: readonly EmotionEncoder[],
  frozen: readonly EmotionEncoder[],
): Promise<void> {
  const saved = new Set<object>()
  for (const encoder of [...own, ...frozen]) {
    const { modality } = encoder
    const isFrozen = frozen.includes(encoder)
    if (isFrozen && encoder.reference === undefined) continue
    if (!isFrozen && !encoder.save) {
      throw new ConfigError(
        `${where}: expected a ${modality} encoder with a \`save\` method, got one without. Implement it, or leave the encoder out.`,
        { modality },
      )
    }
    makeDirectory(join(folder, modality), CheckpointError)
    if (isFrozen) await writeJson(join(folder, modality, 'encoder.json'), encoder.reference)
    else await encoder.save?.(join(folder, modality), saved)
  }
}

/** Return the encoders that the caller passes, and load the others that {@link saveEmotionNetwork} wrote. */
export async function loadEncoders(
  folder: string,
  overrides: readonly EmotionEncoder[],
  factory: Omit<LoadEmotionOptions, 'encoders'>,
): Promise<Partial<Record<EmotionModality, EmotionEncoder>>> {
  const encoders: Partial<Record<EmotionModality, EmotionEncoder>> = {}
  const models = new Map<string, Promise<LanguageBind>>()
  for (const name of MODALITIES) {
    const own = overrides.find((encoder) => encoder.modality === name)
    if (own) encoders[name] = own
    else if (existsSync(join(folder, name, 'encoder.json')))
      encoders[name] = await openEncoder(join(folder, name), factory, models)
  }
  return encoders
}

/** Save a classifier to a folder. @throws ConfigError for an encoder that cannot be saved */
export const saveEmotionClassifier = (
  model: EmotionClassifier,
  folder: string,
  frozen: readonly EmotionEncoder[] = [],
): Promise<void> =>
  saveEmotionNetwork('EmotionClassifier.save', folder, {
    config: { architectures: ['EmotionClassifier'], modelType: 'languagebind-emotion', ...model.config },
    head: model.head,
    own: Object.values(model.ownEncoders),
    frozen,
  })

export async function loadEmotionClassifier(
  folder: string,
  options: LoadEmotionOptions,
  make: Make,
): Promise<EmotionClassifier> {
  const where = 'EmotionClassifier.fromPretrained'
  requireString(where, 'folder', folder)
  requireOptions(where, options, ['device', 'dtype', 'encoders'])
  const { encoders: overrides = [], ...factory } = options
  requireSaved(folder, 'EmotionClassifier')
  const file = join(folder, 'config.json')
  const { modelType, architectures: _, ...config } = toCamel(await readCheckpointJson(file))
  if (modelType !== 'languagebind-emotion') {
    throw new CheckpointError(
      `${file}: model_type: expected 'languagebind-emotion', got ${shown(modelType)}. Load the folder with the class that saved it.`,
      { file },
    )
  }
  const encoders = await loadEncoders(folder, overrides, factory)
  const model = make(config as unknown as EmotionClassifierConfig, { encoders, ...defined(factory) })
  await scope(async () => {
    const { tensors } = await loadSafetensors(join(folder, 'model.safetensors'))
    model.head.loadStateDict(tensors)
  })
  return model.eval()
}
