import { argumentError, requireObject, requireOneOf, requireOptions } from '../../base/check.js'
import { ConfigError } from '../../base/errors.js'
import { NativeModule, nativeKind } from '../../nn/native-module.js'
import type { LoraConfig } from '../../peft/config.js'
import { getPeftModel, type PeftModel, peftModelOf } from '../../peft/model.js'
import type { AudioLM } from './audio-lm.js'

/** Training of a part: not at all, by an adapter of its linear layers, or in full. */
export type PartTraining = 'frozen' | 'lora' | 'full'

/** Training of each part. Default `'frozen'`. */
export interface AudioLMTraining {
  encoder?: PartTraining
  connector?: PartTraining
  decoder?: PartTraining
}

const PATHS = { encoder: 'audio_tower', connector: 'multi_modal_projector', decoder: 'language_model' } as const
const WHERE = 'AudioLM.trainParts'

/** Freeze, adapt or unfreeze each part of a model; return its adapters, or null without one. */
export function trainParts(
  model: AudioLM,
  training: AudioLMTraining,
  lora: Partial<LoraConfig>,
): PeftModel<AudioLM> | null {
  requireOptions(WHERE, training, ['encoder', 'connector', 'decoder'])
  requireObject(WHERE, 'lora', lora)
  const parts = (Object.keys(PATHS) as (keyof typeof PATHS)[]).map((part) => {
    const how = training[part] ?? 'frozen'
    requireOneOf(WHERE, part, how, ['frozen', 'lora', 'full'])
    return { path: PATHS[part], how }
  })
  const pathsOf = (how: PartTraining) => parts.filter((one) => one.how === how).map(({ path }) => path)
  const [adapted, whole] = [pathsOf('lora'), pathsOf('full')]
  if (adapted.length + whole.length === 0) {
    throw new ConfigError(`${WHERE}: expected a part with 'lora' or 'full', got none. Train at least one part.`, {})
  }
  if (peftModelOf(model) !== undefined) {
    throw new ConfigError(
      `${WHERE}: expected a model without adapters, got one with them. Merge or unload them first.`,
      {},
    )
  }
  const { targetModules, modulesToSave, ...rest } = lora
  if (modulesToSave != null) throw argumentError(WHERE, 'lora.modulesToSave', 'left out: parts in full', modulesToSave)
  if (typeof targetModules === 'string' && targetModules.toLowerCase() !== 'all-linear') {
    throw argumentError(WHERE, 'lora.targetModules', "a list of names of layers, or 'all-linear'", targetModules)
  }
  if (adapted.length === 0) {
    if (Object.keys(lora).length > 0) {
      throw new ConfigError(`${WHERE}: expected no lora without a part that has 'lora', got one. Leave it out.`, {})
    }
    model.freeze()
    for (const path of whole) model.unfreeze(path)
    model.audio_tower.freezeConstants?.()
    return null
  }
  const names = Array.isArray(targetModules) ? targetModules : linearNames(model, adapted)
  const paths = names.map((name) => name.replaceAll('.', '\\.'))
  // PEFT matches the whole name in transformers' network, which has other prefixes.
  const prefixes = adapted.flatMap((path) => [path, model.adapterFileNames.toFile(path).replaceAll('.', '\\.')])
  const peft = getPeftModel(model, {
    ...rest,
    targetModules: `^(${prefixes.join('|')})\\.(.*\\.)?(${paths.join('|')})$`,
    ...(whole.length > 0 && { modulesToSave: whole }),
  })
  model.audio_tower.freezeConstants?.()
  return peft
}

/** Return the names of the linear layers of parts, without the output layer. */
function linearNames(model: AudioLM, parts: readonly string[]): string[] {
  const inside = model
    .namedModules()
    .filter(([path, module]) => {
      if (!parts.some((part) => path.startsWith(`${part}.`))) return false
      return module instanceof NativeModule && nativeKind(module) === 'Linear'
    })
    .map(([path]) => path.split('.').at(-1) as string)
  return [...new Set(inside)].filter((name) => name !== 'lm_head')
}
