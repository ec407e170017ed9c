import { ConfigError } from '../base/errors.js'
import { Conv1d } from '../nn/conv.js'
import { Embedding } from '../nn/embedding.js'
import { Linear } from '../nn/linear.js'
import type { Module } from '../nn/module.js'
import { NativeModule, nativeKind } from '../nn/native-module.js'
import { outputLayerOf } from '../nn/output-layer.js'
import { joined } from '../nn/text.js'
import type { ResolvedLoraConfig } from './config.js'
import { fileNamesOf } from './file-names.js'
import { groups, matches, withinOneLimit } from './patterns.js'

export type LayerKind = 'linear' | 'conv1d' | 'embedding'

const kinds: Record<string, LayerKind> = { Linear: 'linear', Conv1d: 'conv1d', Embedding: 'embedding' }

/** Return the kind of a layer for adapters; null for modules that cannot have one. */
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
 * Return the layers that a configuration selects, in the order of the network.
 * @throws ConfigError if it selects none, or one that cannot have an adapter
 */
export function findTargets(model: Module, config: ResolvedLoraConfig): Target[] {
  const found: Target[] = []
  const modules = model.namedModules()
  const either = inEitherName(model, pathsOf(modules))
  const named = isAllLinear(config) ? undefined : targeted(config, pathsOf(modules), either)
  const left = isAllLinear(config)
    ? new Set([...outputs(model, config), ...either((paths) => excluded(config, paths))])
    : undefined
  for (const [path, module] of modules) {
    const kind = layerKind(module)
    if (left ? kind !== 'linear' || left.has(path) : !named?.has(path)) continue
    if (kind === null) {
      // A regular expression may also match the parents of a layer.
      if (typeof config.targetModules === 'string') continue
      throw new ConfigError(
        `LoraConfig.targetModules: expected Linear, Conv1d or Embedding layers, but '${path}' is a ${typeName(module)}`,
        { path },
      )
    }
    found.push({ path, module, kind })
  }
  if (found.length === 0) {
    const some = modules.filter(([, module]) => layerKind(module) !== null).slice(0, 8)
    throw new ConfigError(
      `LoraConfig.targetModules: expected names of layers of ${model.constructor.name}, got ${JSON.stringify(config.targetModules)}; its layers are ` +
        (some.map(([path]) => path).join(', ') || 'none that takes an adapter'),
      { targetModules: config.targetModules },
    )
  }
  return found
}

/**
 * Return the modules that train in full; of nested ones only the outer. As in peft, a name is the end of a path, even within a
 * path component.
 * @param fromFile whether a name may match nothing: peft writes all names that a classifier's head may have
 */
export function findModulesToSave(
  model: Module,
  config: ResolvedLoraConfig,
  targets: Target[],
  fromFile = false,
): [string, Module][] {
  const names = config.modulesToSave ?? []
  const modules = model.namedModules()
  for (const name of fromFile ? [] : names) {
    if (!modules.some(([path]) => path !== '' && path.endsWith(name))) {
      throw new ConfigError(`LoraConfig.modulesToSave: expected modules of ${model.constructor.name}, got '${name}'`, {
        name,
      })
    }
  }
  const outer = new Set(savedPaths(names, pathsOf(modules)))
  const both = targets.find(({ path }) => holder(outer, path) !== undefined)
  if (both) {
    throw new ConfigError(
      `LoraConfig: expected '${both.path}' in targetModules or modulesToSave (${names.join(', ')}), got both. Take it ` +
        'out of one of them',
      { path: both.path },
    )
  }
  return modules.filter(([path]) => outer.has(path))
}

/**
 * Return the language models below `model` whose output layer is tied to the embeddings, but which this adapter trains
 * separately: a copy of either in `modulesToSave` is no longer shared, and an adapter of the output layer must not affect the
 * embeddings.
 */
export function headsToUntie(model: Module, config: ResolvedLoraConfig): NativeModule[] {
  const modules = model.namedModules()
  return modules.flatMap(([path, module]) => {
    const layer = outputLayerOf(module)
    if (!layer?.tied) return []
    const [head, embeddings] = [joined(path, layer.head), joined(path, layer.embeddings)]
    const saved = new Set(savedPaths(config.modulesToSave ?? [], [...pathsOf(modules), head]))
    const apart = holder(saved, head) !== holder(saved, embeddings)
    return apart || (!isAllLinear(config) && targeted(config, [head]).has(head)) ? [module as NativeModule] : []
  })
}

/**
 * Return `targetModules` for adapter_config.json: those of the configuration if they select the same layers by their names in files, or
 * else those names.
 * @param paths the layers that have the adapter
 */
export function fileTargets(model: Module, config: ResolvedLoraConfig, paths: string[]): string | string[] {
  const names = fileNamesOf(model)
  const wanted = names === undefined ? paths : paths.map((path) => names.toFile(path))
  if (isAllLinear(config)) return wanted
  if (names === undefined) return config.targetModules
  const layers = pathsOf(model.namedModules().filter(([, module]) => layerKind(module) !== null))
  const modulesToSave = config.modulesToSave && names.savedToFile(config.modulesToSave)
  const found = withinOneLimit(() =>
    targeted(
      { ...config, modulesToSave },
      layers.map((path) => names.toFile(path)),
    ),
  )
  return found.size === wanted.length && wanted.every((path) => found.has(path)) ? config.targetModules : wanted
}

/** Return whether peft saves the weights of embeddings with their adapters: it does for the names that it knows. */
export function namesEmbeddings({ targetModules }: ResolvedLoraConfig, model: Module): boolean {
  const known = ['embed_tokens', 'lm_head']
  if (typeof targetModules !== 'string') return known.some((name) => targetModules.includes(name))
  const paths = pathsOf(model.namedModules()).filter((path) => known.some((name) => endsWith(path, name)))
  return matches(targetModules, paths).size > 0
}

const pathsOf = (modules: [string, Module][]) => modules.map(([path]) => path)
const typeName = (module: Module) => (module instanceof NativeModule ? nativeKind(module) : module.constructor.name)
const endsWith = (path: string, name: string) => path === name || path.endsWith(`.${name}`)
const isAllLinear = ({ targetModules }: ResolvedLoraConfig) =>
  typeof targetModules === 'string' && targetModules.toLowerCase() === 'all-linear'

function savedPaths(names: readonly string[], paths: readonly string[]): string[] {
  const found = paths.filter((path) => path !== '' && names.some((name) => path.endsWith(name)))
  return found.filter((path) => !found.some((outer) => path.startsWith(`${outer}.`)))
}

/** Return the path of which this one is a part. */
const holder = (paths: ReadonlySet<string>, path: string): string | undefined =>
  [...paths].find((outer) => path === outer || path.startsWith(`${outer}.`))

/** Return the paths that 'all-linear' excludes: the output layers. */
function outputs(model: Module, { taskType }: ResolvedLoraConfig): string[] {
  const layer = outputLayerOf(model)
  if (layer) return [layer.head]
  const inner: unknown = Reflect.get(model, 'language_model')
  const head = inner instanceof NativeModule ? outputLayerOf(inner)?.head : undefined
  if (head !== undefined) return [joined('language_model', head)]
  if (taskType !== 'SEQ_CLS') return []
  const classifier = ['score', 'classifier'].find((name) => Reflect.get(model, name) !== undefined)
  return classifier === undefined ? [] : [classifier]
}

/** Return the paths that the configuration selects and does not exclude. */
function targeted(
  config: ResolvedLoraConfig,
  all: readonly string[],
  either: (select: Select) => Set<string> = (select) => select(all),
): Set<string> {
  const out = either((paths) => excluded(config, paths))
  return new Set([...either((paths) => selected(config, paths))].filter((path) => !out.has(path)))
}

type Select = (paths: readonly string[]) => Set<string>

/** Return a function that selects of these paths those that are selected by their name in the network, or by that in files. */
function inEitherName(model: Module, paths: readonly string[]): (select: Select) => Set<string> {
  const names = fileNamesOf(model)
  return (select) => {
    const own = select(paths)
    if (names === undefined) return own
    const found = select(paths.map((path) => names.toFile(path)))
    return new Set(paths.filter((path) => own.has(path) || found.has(names.toFile(path))))
  }
}

function selected(config: ResolvedLoraConfig, paths: readonly string[]): Set<string> {
  const { targetModules, layersToTransform, layersPattern } = config
  const found = new Set<string>()
  if (typeof targetModules === 'string') {
    for (const path of matches(targetModules, paths)) found.add(path)
  } else {
    const ends = paths.filter((path) => targetModules.some((name) => path.endsWith(`.${name}`)))
    const layers = layersToTransform === null ? [] : [layersToTransform].flat()
    for (const path of layers.length === 0 ? ends : ofLayers(ends, layers, layersPattern)) found.add(path)
    for (const path of paths) if (targetModules.includes(path)) found.add(path)
  }
  return found
}

function excluded({ excludeModules, modulesToSave }: ResolvedLoraConfig, paths: readonly string[]): Set<string> {
  const saved = paths.filter((path) => modulesToSave?.some((name) => `.${path}.`.includes(`.${name}.`)))
  if (typeof excludeModules === 'string') return new Set([...saved, ...matches(excludeModules, paths)])
  return new Set([...saved, ...paths.filter((path) => excludeModules?.some((name) => endsWith(path, name)))])
}

/** Return the paths whose layer index, the first number after a name that the pattern defines, is in the list. */
function ofLayers(paths: string[], layers: number[], given: string | string[] | null): string[] {
  const patterns = given === null || given.length === 0 ? [] : [given].flat()
  const sources = patterns.length === 0 ? ['.*?\\.[^.]*'] : patterns.map((pattern) => `(?:.*?\\.)?${pattern}`)
  const numbers = new Map<string, number>()
  for (const source of sources) {
    const found = groups(`${source}\\.(?<layer_number>\\d+)\\..*`, 'layer_number', paths)
    for (const [path, number] of found) if (!numbers.has(path)) numbers.set(path, Number(number))
  }
  return paths.filter((path) => layers.includes(numbers.get(path) ?? -1))
}
