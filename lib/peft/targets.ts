import { ConfigError } from '../base/errors.js'
import { Conv1d } from '../nn/conv.js'
import { Embedding } from '../nn/embedding.js'
import { Linear } from '../nn/linear.js'
import type { Module } from '../nn/module.js'
import { NativeModule, nativeKind } from '../nn/native-module.js'
import { outputLayerOf } from '../nn/output-layer.js'
import { joined } from '../nn/text.js'
import type { ResolvedLoraConfig } from './config.js'
import { groups, matches } from './patterns.js'

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
  const modules = model.namedModules()
  const named = isAllLinear(config) ? undefined : targeted(config, pathsOf(modules))
  const left = isAllLinear(config)
    ? new Set([...outputs(model, config), ...excluded(config, pathsOf(modules))])
    : undefined
  for (const [path, module] of modules) {
    const kind = layerKind(module)
    if (left ? kind !== 'linear' || left.has(path) : !named?.has(path)) continue
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

/**
 * The modules that train as a whole; of one inside another only the outer. As in peft, a name is the end of a path,
 * whether or not a part of the path begins there.
 * @param fromFile whether a name may match nothing: peft writes down all names that a classifier's head may have
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
      throw new ConfigError(`modulesToSave names '${name}', which ${model.constructor.name} does not have`, { name })
    }
  }
  const outer = new Set(savedPaths(names, pathsOf(modules)))
  const both = targets.find(({ path }) => holder(outer, path) !== undefined)
  if (both) {
    throw new ConfigError(
      `'${both.path}' is among the targetModules, and trains as a whole by modulesToSave (${names.join(', ')}); take it ` +
        'out of one of them',
      { path: both.path },
    )
  }
  return modules.filter(([path]) => outer.has(path))
}

/**
 * The language models below `model` whose output layer is tied to their embeddings and that this adapter trains apart: a
 * copy of either in `modulesToSave` is no longer the other, and an adapter of the output layer is none of the embeddings.
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

/** Whether peft saves the weights of embeddings beside their adapters: where it knows their names. */
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

/** Which of the paths has this one in it. */
const holder = (paths: ReadonlySet<string>, path: string): string | undefined =>
  [...paths].find((outer) => path === outer || path.startsWith(`${outer}.`))

/** What 'all-linear' leaves out: the layer that answers. */
function outputs(model: Module, { taskType }: ResolvedLoraConfig): string[] {
  const layer = outputLayerOf(model)
  if (layer) return [layer.head]
  if (taskType !== 'SEQ_CLS') return []
  const head = ['score', 'classifier'].find((name) => Reflect.get(model, name) !== undefined)
  return head === undefined ? [] : [head]
}

/** Those of the paths that the configuration names and does not exclude. */
function targeted(config: ResolvedLoraConfig, paths: readonly string[]): Set<string> {
  const { targetModules, layersToTransform, layersPattern } = config
  const out = excluded(config, paths)
  const found = new Set<string>()
  if (typeof targetModules === 'string') {
    for (const path of matches(targetModules, paths)) found.add(path)
  } else {
    const ends = paths.filter((path) => targetModules.some((name) => path.endsWith(`.${name}`)))
    const layers = layersToTransform === null ? [] : [layersToTransform].flat()
    for (const path of layers.length === 0 ? ends : ofLayers(ends, layers, layersPattern)) found.add(path)
    for (const path of paths) if (targetModules.includes(path)) found.add(path)
  }
  return new Set([...found].filter((path) => !out.has(path)))
}

function excluded({ excludeModules, modulesToSave }: ResolvedLoraConfig, paths: readonly string[]): Set<string> {
  const saved = paths.filter((path) => modulesToSave?.some((name) => `.${path}.`.includes(`.${name}.`)))
  if (typeof excludeModules === 'string') return new Set([...saved, ...matches(excludeModules, paths)])
  return new Set([...saved, ...paths.filter((path) => excludeModules?.some((name) => endsWith(path, name)))])
}

/** Those whose first number in the path, after a name that a pattern gives, is one of these. */
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
