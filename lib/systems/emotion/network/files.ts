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
import { type EmotionModality, MODALITIES } from './config.js'
import type { EmotionEncoder } from './encoders.js'
import { LanguageBindEmotionEncoder, SHARED } from './languagebind-encoders.js'
import type { MakeEmotionOptions } from './network.js'
import { EmotionTextEncoder } from './text-encoder.js'
import { EmotionFbankEncoder, EmotionVoiceEncoder } from './voice-encoder.js'

export interface LoadEmotionOptions {
  device?: Device
  dtype?: DType
  /** Encoders to use instead of those that the folder names, or of a kind that `openEncoder` cannot load. */
  encoders?: readonly EmotionEncoder[]
}

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
    const model = models.get(shared) ?? LanguageBind.fromPretrained(shared, { dtype: 'float32', ...defined(options) })
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

/** Return the encoders that the caller passes, and load the others that {@link saveClassifier} wrote. */
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

/** A network of encoders and a head. */
type Classifier = Module & {
  readonly config: object
  readonly head: Module
  readonly ownEncoders: Readonly<Partial<Record<EmotionModality, EmotionEncoder>>>
}

/**
 * Save a classifier: config.json, model.safetensors with the head, and a folder for each encoder.
 * @throws ConfigError for an encoder that cannot be saved
 */
export async function saveClassifier(
  modelType: string,
  model: Classifier,
  folder: string,
  frozen: readonly EmotionEncoder[],
): Promise<void> {
  const { name } = model.constructor
  const where = `${name}.save`
  requireString(where, 'folder', folder)
  // A frozen encoder may have been loaded from this very folder.
  const places = frozen.flatMap(({ reference }) => (typeof reference?.from === 'string' ? [reference.from] : []))
  const earlier = (target: string) => [
    ...weightFiles(target),
    ...partFiles(
      target,
      [...MODALITIES, SHARED].filter((part) => !places.some((place) => isSamePlace(place, join(target, part)))),
    ),
  ]
  const save = async (temporary: string) => {
    await saveEncoders(where, temporary, Object.values(model.ownEncoders), frozen)
    await scope(() => saveSafetensors(join(temporary, 'model.safetensors'), model.head.stateDict(), { format: 'pt' }))
    await writeJson(join(temporary, 'config.json'), toSnake({ architectures: [name], modelType, ...model.config }))
  }
  await writeFolderAtomically(folder, CheckpointError, save, earlier)
}

/** Load a classifier that {@link saveClassifier} wrote. @throws CheckpointError for a folder of another kind */
export async function loadClassifier<C extends object, M extends Classifier>(
  modelType: string,
  Network: new (config: C, options: MakeEmotionOptions) => M,
  folder: string,
  options: LoadEmotionOptions,
): Promise<M> {
  const where = `${Network.name}.fromPretrained`
  requireString(where, 'folder', folder)
  requireOptions(where, options, ['device', 'dtype', 'encoders'])
  const { encoders: overrides = [], ...factory } = options
  requireSaved(folder, Network.name)
  const file = join(folder, 'config.json')
  const { modelType: found, architectures: _, ...config } = toCamel(await readCheckpointJson(file))
  if (found !== modelType) {
    throw new CheckpointError(
      `${file}: model_type: expected '${modelType}', got ${shown(found)}. Load the folder with the class that saved it.`,
      { file },
    )
  }
  const encoders = await loadEncoders(folder, overrides, factory)
  const model = new Network(config as C, { encoders, ...defined(factory) })
  await scope(async () => {
    const { tensors } = await loadSafetensors(join(folder, 'model.safetensors'))
    model.head.loadStateDict(tensors)
  })
  return model.eval()
}
