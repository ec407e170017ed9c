import { ConfigError } from '../native/errors.js'
import { Conv1d } from '../nn/conv.js'
import { Embedding } from '../nn/embedding.js'
import { Linear } from '../nn/linear.js'
import type { Module } from '../nn/module.js'
import { NativeModule, nativeKind } from '../nn/native-module.js'
import type { ResolvedLoraConfig } from './config.js'

export type LayerKind = 'linear' | 'conv1d' | 'embedding'

const kinds: Record<string, LayerKind> = { Linear: 'linear', Conv1d: 'conv1d', Embedding: 'embedding' }

/** What a layer is to an adapter; null for all that cannot have one. */
export function layerKind(module: Module): LayerKind | null {
  if (module instanceof NativeModule) return kinds[nativeKind(module)] ?? null
  if (module instanceof Linear) return 'linear'
  if (module instanceof Conv1d) return 'conv1d'
  return module instanceof Embedding ? 'embedding' : null
}

export interface Target {
  path: string
  module: Module
  kind: LayerKind
}

/**
 * The layers that a configuration names, in the order of the network.
 * @throws ConfigError where it names none, or one that cannot have an adapter
 */
export function findTargets(model: Module, config: ResolvedLoraConfig): Target[] {
  const found: Target[] = []
  const wanted = targetTest(config)
  const modules = model.namedModules()
  for (const [path, module] of modules) {
    const kind = layerKind(module)
    if (isAllLinear(config) ? kind !== 'linear' : !wanted(path)) continue
    if (isExcluded(config, path)) continue
    if (kind === null) {
      // A regular expression may well match the modules around a layer.
      if (typeof config.targetModules === 'string') continue
      throw new ConfigError(
        `targetModules names '${path}', a ${typeName(module)}; adapters are for Linear, Conv1d and Embedding`,
        { path },
      )
    }
    found.push({ path, module, kind })
  }
  if (found.length === 0) {
    const some = modules.filter(([, module]) => layerKind(module) !== null).slice(0, 8)
    throw new ConfigError(
      `targetModules ${JSON.stringify(config.targetModules)} matches no layer of ${model.constructor.name}; it has ` +
        (some.map(([path]) => path).join(', ') || 'none that takes an adapter'),
      { targetModules: config.targetModules },
    )
  }
  return found
}

/** The modules that train as a whole; of one inside another only the outer. */
export function findModulesToSave(model: Module, config: ResolvedLoraConfig): [string, Module][] {
  const names = config.modulesToSave ?? []
  const found = model.namedModules().filter(([path]) => path !== '' && names.some((name) => endsWith(path, name)))
  for (const name of names) {
    if (!found.some(([path]) => endsWith(path, name))) {
      throw new ConfigError(`modulesToSave names '${name}', which ${model.constructor.name} does not have`, { name })
    }
  }
  return found.filter(([path]) => !found.some(([outer]) => path.startsWith(`${outer}.`)))
}

/** The value that a pattern gives this layer, or the one for all. */
export function patternValue(patterns: Record<string, number>, path: string, otherwise: number): number {
  const found = Object.keys(patterns).find((key) => regExp(`(.*\\.)?(${key})`).test(path))
  return found === undefined ? otherwise : (patterns[found] as number)
}

const typeName = (module: Module) => (module instanceof NativeModule ? nativeKind(module) : module.constructor.name)
const endsWith = (path: string, name: string) => path === name || path.endsWith(`.${name}`)
const isAllLinear = ({ targetModules }: ResolvedLoraConfig) =>
  typeof targetModules === 'string' && targetModules.toLowerCase() === 'all-linear'

function targetTest(config: ResolvedLoraConfig): (path: string) => boolean {
  const { targetModules } = config
  if (typeof targetModules === 'string') {
    const pattern = regExp(targetModules)
    return (path) => pattern.test(path)
  }
  const layers = config.layersToTransform === null ? null : [config.layersToTransform].flat()
  return (path) => {
    if (targetModules.includes(path)) return true
    if (!targetModules.some((name) => path.endsWith(`.${name}`))) return false
    if (layers === null || layers.length === 0) return true
    const number = layerNumber(path, config.layersPattern)
    return number !== null && layers.includes(number)
  }
}

function isExcluded({ excludeModules, modulesToSave }: ResolvedLoraConfig, path: string): boolean {
  if (modulesToSave?.some((name) => `.${path}.`.includes(`.${name}.`))) return true
  if (excludeModules === null) return false
  if (typeof excludeModules === 'string') return regExp(excludeModules).test(path)
  return excludeModules.some((name) => endsWith(path, name))
}

/** The first number in a path, after a name that a pattern gives. */
function layerNumber(path: string, patterns: string | string[] | null): number | null {
  const names = patterns === null || patterns.length === 0 ? ['[^.]*'] : [patterns].flat()
  for (const name of names) {
    const before = patterns === null || patterns.length === 0 ? '.*?\\.' : '(?:.*?\\.)?'
    const found = regExp(`${before}${name}\\.(\\d+)\\..*`).exec(path)
    if (found) return Number(found[1])
  }
  return null
}

/** Matches the whole of a path. Python writes a named group with a P. */
function regExp(source: string): RegExp {
  try {
    return new RegExp(`^(?:${source.replaceAll('(?P<', '(?<')})$`)
  } catch (cause) {
    throw new ConfigError(`'${source}' is no regular expression: ${(cause as Error).message}`, { source, cause })
  }
}
