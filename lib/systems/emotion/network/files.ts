import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { makeDirectory } from '../../../base/atomic.js'
import { defined, requireOptions, requireString, shown } from '../../../base/check.js'
import { CheckpointError, ConfigError } from '../../../base/errors.js'
import { toCamel, toSnake } from '../../../base/words.js'
import { readCheckpointJson, writeJson } from '../../../files/json/json.js'
import { loadSafetensors, saveSafetensors } from '../../../files/safetensors/safetensors.js'
import { LanguageBind } from '../../../models/languagebind/languagebind.js'
import { requireSaved } from '../../../models/pretrained.js'
import type { Device, DType } from '../../../tensor/index.js'
import { scope } from '../../../tensor/index.js'
import { type EmotionClassifierConfig, type EmotionModality, MODALITIES } from './config.js'
import { LanguageBindTower, SHARED } from './languagebind-towers.js'
import type { EmotionClassifier, MakeEmotionOptions } from './network.js'
import { TextTower } from './text-tower.js'
import type { EmotionTower } from './towers.js'
import { FbankTower, VoiceTower } from './voice-tower.js'

export interface LoadEmotionOptions {
  device?: Device
  dtype?: DType
  /** Encoders to use instead of those that the folder names, or of a kind that `openTower` cannot load. */
  towers?: readonly EmotionTower[]
}

/** Constructor of the classifier, passed in because an import would be circular. */
type Make = (config: EmotionClassifierConfig, options: MakeEmotionOptions) => EmotionClassifier

/** Load an encoder that `save` wrote. @throws CheckpointError for a folder without `tower.json`, or with an unknown kind in it */
export async function openTower(
  folder: string,
  options: Omit<LoadEmotionOptions, 'towers'> = {},
  models: Map<string, Promise<LanguageBind>> = new Map(),
): Promise<EmotionTower> {
  requireString('openTower', 'folder', folder)
  const file = join(folder, 'tower.json')
  const { tower, from, ...rest } = await readCheckpointJson(file)
  // For a frozen encoder, the folder has only the place of its checkpoint, and its options.
  const place = typeof from === 'string' ? from : folder
  const factory = { ...defined(options), ...(typeof from === 'string' && rest) }
  if (tower === 'text') return (await TextTower.fromPretrained(place, factory)) as EmotionTower
  if (tower === 'voice') return (await VoiceTower.fromPretrained(place, factory)) as unknown as EmotionTower
  if (tower === 'fbank') return new FbankTower(rest) as unknown as EmotionTower
  if (tower === 'languagebind') {
    const shared = typeof from === 'string' ? from : join(folder, '..', SHARED)
    const model = models.get(shared) ?? LanguageBind.fromPretrained(shared, defined(options))
    models.set(shared, model)
    const { modality, useTemp, states } = rest as { modality: EmotionModality; useTemp?: boolean; states?: boolean }
    return new LanguageBindTower(await model, modality, {
      ...defined({ useTemp, states }),
      from: shared,
    }) as unknown as EmotionTower
  }
  throw new CheckpointError(
    `${file}: tower: expected text, voice, fbank or languagebind, got ${shown(tower)}. Pass encoders of other kinds to EmotionClassifier.fromPretrained.`, // language: key of tower.json
    { file, tower },
  )
}

/** Save encoders that are part of a network, and for frozen ones the place of their checkpoint. */
export async function saveTowers(
  where: string,
  folder: string,
  own: readonly EmotionTower[],
  frozen: readonly EmotionTower[],
): Promise<void> {
  requireString(where, 'folder', folder)
  makeDirectory(folder, CheckpointError)
  const saved = new Set<object>()
  for (const tower of [...own, ...frozen]) {
    const { modality } = tower
    const isFrozen = frozen.includes(tower)
    if (isFrozen && tower.reference === undefined) continue
    if (!isFrozen && !tower.save) {
      throw new ConfigError(
        `${where}: expected a ${modality} encoder with a \`save\` method, got one without. Implement it, or leave the encoder out.`,
        { modality },
      )
    }
    makeDirectory(join(folder, modality), CheckpointError)
    if (isFrozen) await writeJson(join(folder, modality, 'tower.json'), tower.reference)
    else await tower.save?.(join(folder, modality), saved)
  }
}

/** Return the encoders that the caller passes, and load the others that {@link saveTowers} wrote. */
export async function loadTowers(
  folder: string,
  overrides: readonly EmotionTower[],
  factory: Omit<LoadEmotionOptions, 'towers'>,
): Promise<Partial<Record<EmotionModality, EmotionTower>>> {
  const towers: Partial<Record<EmotionModality, EmotionTower>> = {}
  const models = new Map<string, Promise<LanguageBind>>()
  for (const name of MODALITIES) {
    const own = overrides.find((tower) => tower.modality === name)
    if (own) towers[name] = own
    else if (existsSync(join(folder, name, 'tower.json')))
      towers[name] = await openTower(join(folder, name), factory, models)
  }
  return towers
}

/** Save a classifier to a folder. @throws ConfigError for an encoder that cannot be saved */
export async function saveEmotionClassifier(
  model: EmotionClassifier,
  folder: string,
  frozen: readonly EmotionTower[] = [],
): Promise<void> {
  const where = 'EmotionClassifier.save'
  await saveTowers(where, folder, Object.values(model.ownTowers), frozen)
  await scope(() => saveSafetensors(join(folder, 'model.safetensors'), model.head.stateDict(), { format: 'pt' }))
  const file = { architectures: ['EmotionClassifier'], modelType: 'languagebind-emotion', ...model.config }
  await writeJson(join(folder, 'config.json'), toSnake(file))
}

export async function loadEmotionClassifier(
  folder: string,
  options: LoadEmotionOptions,
  make: Make,
): Promise<EmotionClassifier> {
  const where = 'EmotionClassifier.fromPretrained'
  requireString(where, 'folder', folder)
  requireOptions(where, options, ['device', 'dtype', 'towers'])
  const { towers: overrides = [], ...factory } = options
  requireSaved(folder, 'EmotionClassifier')
  const file = join(folder, 'config.json')
  const { modelType, architectures: _, ...config } = toCamel(await readCheckpointJson(file))
  if (modelType !== 'languagebind-emotion') {
    throw new CheckpointError(
      `${file}: model_type: expected 'languagebind-emotion', got ${shown(modelType)}. Load the folder with the class that saved it.`,
      { file },
    )
  }
  const towers = await loadTowers(folder, overrides, factory)
  const model = make(config as unknown as EmotionClassifierConfig, { towers, ...defined(factory) })
  await scope(async () => {
    const { tensors } = await loadSafetensors(join(folder, 'model.safetensors'))
    model.head.loadStateDict(tensors)
  })
  return model.eval()
}
