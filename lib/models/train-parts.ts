import { argumentError, requireObject, requireOneOf, requireOptions } from '../base/check.js'
import { ConfigError } from '../base/errors.js'
import type { Module } from '../nn/module.js'
import { NativeModule, nativeKind } from '../nn/native-module.js'
import type { LoraConfig } from '../peft/config.js'
import { fileNamesOf } from '../peft/file-names.js'
import { getPeftModel, type PeftModel, peftModelOf } from '../peft/model.js'

/** Training of a part: not at all, by an adapter of its linear layers, or in full. */
export type PartTraining = 'frozen' | 'lora' | 'full'

/** Training of each part. Default `'frozen'`. */
export interface PartsTraining {
  encoder?: PartTraining
  connector?: PartTraining
  decoder?: PartTraining
}

/** Names of the fields of a model's parts. */
export type PartNames = Readonly<Record<keyof PartsTraining, string>>

/** Freeze, adapt or unfreeze each part of a model; return its adapters, or null without one. */
export function trainParts<M extends Module>(
  model: M,
  names: PartNames,
  training: PartsTraining,
  lora: Partial<LoraConfig>,
): PeftModel<M> | null {
  const where = `${model.constructor.name}.trainParts`
  const freezeConstants = () => {
    const encoder = Reflect.get(model, names.encoder) as { freezeConstants?(): void }
    encoder.freezeConstants?.()
  }
  requireOptions(where, training, ['encoder', 'connector', 'decoder'])
  requireObject(where, 'lora', lora)
  const parts = (['encoder', 'connector', 'decoder'] as const).map((part) => {
    const how = training[part] ?? 'frozen'
    requireOneOf(where, part, how, ['frozen', 'lora', 'full'])
    return { path: names[part], how }
  })
  const pathsOf = (how: PartTraining) => parts.filter((one) => one.how === how).map(({ path }) => path)
  const [adapted, whole] = [pathsOf('lora'), pathsOf('full')]
  if (adapted.length + whole.length === 0) {
    throw new ConfigError(`${where}: expected a part with 'lora' or 'full', got none. Train at least one part.`, {})
  }
  if (peftModelOf(model) !== undefined) {
    throw new ConfigError(
      `${where}: expected a model without adapters, got one with them. Merge or unload them first.`,
      {},
    )
  }
  const { targetModules, modulesToSave, ...rest } = lora
  if (modulesToSave != null) throw argumentError(where, 'lora.modulesToSave', 'left out: parts in full', modulesToSave)
  const isAll =
    targetModules == null || (typeof targetModules === 'string' && targetModules.toLowerCase() === 'all-linear')
  const isNames =
    Array.isArray(targetModules) && targetModules.length > 0 && targetModules.every((name) => typeof name === 'string')
  if (!isAll && !isNames) {
    throw argumentError(where, 'lora.targetModules', "a list of names of layers, or 'all-linear'", targetModules)
  }
  if (adapted.length === 0) {
    if (Object.keys(lora).length > 0) {
      throw new ConfigError(`${where}: expected no lora without a part that has 'lora', got one. Leave it out.`, {})
    }
    model.freeze()
    for (const path of whole) model.unfreeze(path)
    freezeConstants()
    return null
  }
  const layers = isNames ? (targetModules as string[]) : linearNames(model, adapted)
  if (isNames) requireLayers(where, model, adapted, layers)
  const paths = layers.map((name) => name.replaceAll('.', '\\.'))
  // PEFT matches the whole name in transformers' network, which may have other prefixes.
  const files = fileNamesOf(model)
  const prefixes = new Set(
    adapted.flatMap((path) => [path, ...(files ? [files.toFile(path).replaceAll('.', '\\.')] : [])]),
  )
  const peft = getPeftModel(model, {
    ...rest,
    targetModules: `^(${[...prefixes].join('|')})\\.(.*\\.)?(${paths.join('|')})$`,
    ...(whole.length > 0 && { modulesToSave: whole }),
  })
  freezeConstants()
  return peft
}

/** Refuse names of layers that no part has, and parts without any of the layers. */
function requireLayers(where: string, model: Module, parts: readonly string[], layers: readonly string[]): void {
  const paths = model.namedModules().map(([path]) => path)
  const has = (part: string, layer: string) =>
    paths.some((path) => path.startsWith(`${part}.`) && (path === `${part}.${layer}` || path.endsWith(`.${layer}`)))
  const layer = layers.find((one) => !parts.some((part) => has(part, one)))
  const part = parts.find((one) => !layers.some((name) => has(one, name)))
  if (layer === undefined && part === undefined) return
  const what = layer === undefined ? `${part} has none of ${layers.join(', ')}` : `none is named '${layer}'`
  throw new ConfigError(
    `${where}: lora.targetModules: expected layers in each part that has 'lora', but ${what}. Correct the names.`,
    { argument: 'lora' },
  )
}

/** Return the names of the linear layers of parts, without the output layer. */
function linearNames(model: Module, parts: readonly string[]): string[] {
  const inside = model
    .namedModules()
    .filter(([path, module]) => {
      if (!parts.some((part) => path.startsWith(`${part}.`))) return false
      return module instanceof NativeModule && nativeKind(module) === 'Linear'
    })
    .map(([path]) => path.split('.').at(-1) as string)
  return [...new Set(inside)].filter((name) => name !== 'lm_head')
}
