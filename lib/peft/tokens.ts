import { argumentError, requireObject, requireWhole } from '../base/check.js'
import { ConfigError } from '../base/errors.js'
import type { Module } from '../nn/module.js'
import type { NativeModule } from '../nn/native-module.js'
import { isUntied, outputLayerOf } from '../nn/output-layer.js'
import type { Parameter } from '../nn/parameter.js'
import { quantizationOf } from '../nn/quantized-weight.js'
import { joined } from '../nn/text.js'
import type { Tensor } from '../tensor/index.js'
import type { ResolvedLoraConfig } from './config.js'
import { layerKind, type Target } from './targets.js'

/** Trained rows that replace those of a layer's weight [count, dim]. */
export interface TokenRows {
  /** Row indices, int64 [rows]. */
  indices: Tensor
  /** Values, [rows, dim]. */
  delta: Parameter
  /** Whether `delta` belongs to the embeddings with this layer's weight. */
  follows: boolean
}

export interface TokenTarget extends Target {
  indices: readonly number[]
  /** Embeddings whose rows this layer uses, if they share one weight. */
  follows?: Module
}

const KEY = 'trainableTokenIndices'

/** Check token indices. @throws ConfigError unless they are lists of token ids */
export function requireTokenIndices(where: string, given: unknown): void {
  if (given === null) return
  const requireIds = (what: string, ids: unknown) => {
    if (!Array.isArray(ids) || ids.length === 0) throw argumentError(where, what, 'a list of token ids', ids)
    for (const id of ids) requireWhole(where, what, id)
    const twice = ids.find((id, i) => ids.indexOf(id) !== i)
    if (twice !== undefined)
      throw new ConfigError(`${where}: expected each id once in ${what}, got ${twice} twice`, { id: twice })
  }
  if (Array.isArray(given)) return requireIds(KEY, given)
  requireObject(where, KEY, given)
  const entries = Object.entries(given as object)
  if (entries.length === 0) throw argumentError(where, KEY, 'a list of token ids, or lists by layer name', given)
  for (const [name, ids] of entries) requireIds(`${KEY} of '${name}'`, ids)
}

/**
 * Return the layers of which a configuration trains rows, layers with shared rows last.
 * @param targets layers with low-rank adapters, which cannot train rows as well
 * @param whole modules that train in full
 * @throws ConfigError that names the layer
 */
export function findTokenTargets(
  model: Module,
  config: ResolvedLoraConfig,
  targets: readonly Target[],
  whole: readonly [string, Module][],
): TokenTarget[] {
  if (config.trainableTokenIndices === null) return []
  const modules = model.namedModules()
  const named = namedLayers(
    model,
    config,
    modules.map(([path]) => path),
  )
  const found = new Map<Module, TokenTarget>()
  for (const [path, module] of modules) {
    const indices = named.get(path)
    const kind = layerKind(module)
    if (!indices) continue
    if (kind === null || kind === 'conv1d') {
      throw new ConfigError(`LoraConfig.${KEY}: expected an Embedding or a Linear, got '${path}'`, { path })
    }
    found.set(module, { path, module, kind, indices })
  }
  for (const [embeddings, path, head] of sharers(modules)) {
    const source = found.get(embeddings)
    const headIndices = found.get(head)?.indices
    if (!source || (headIndices && headIndices.join() !== source.indices.join())) continue
    found.delete(head)
    found.set(head, { path, module: head, kind: 'linear', indices: source.indices, follows: embeddings })
  }
  const inside = new Set(whole.flatMap(([, module]) => module.modules()))
  for (const { path, module, indices, follows } of found.values()) {
    const title = follows ? `'${path}', whose weight is that of the embeddings,` : `'${path}'`
    const fail = (what: string) =>
      new ConfigError(`LoraConfig.${KEY}: expected a layer whose rows can train, but ${title} ${what}`, { path })
    if (targets.some((target) => target.module === module)) throw fail('is among the targetModules')
    if (inside.has(module)) throw fail('is among the modulesToSave')
    if (quantizationOf(module)) throw fail('is quantized')
    const count = (Reflect.get(module, 'weight') as Parameter).shape[0] as number
    const beyond = indices.find((id) => id >= count)
    if (beyond !== undefined) throw fail(`has ${count} rows, so no row ${beyond}`)
  }
  return [...found.values()]
}

/** Return the language models below `model` that train rows of the tied output layer or of the embeddings. */
export function headsOfTokens(model: Module, config: ResolvedLoraConfig): NativeModule[] {
  if (config.trainableTokenIndices === null) return []
  return model.namedModules().flatMap(([path, network]) => {
    const layer = outputLayerOf(network)
    if (!layer?.tied) return []
    const paths = [joined(path, layer.head), joined(path, layer.embeddings)]
    return namedLayers(model, config, paths).size > 0 ? [network as NativeModule] : []
  })
}

/** Return the token ids by selected path: as in peft by the end of the path, or as the input embeddings. */
function namedLayers(model: Module, config: ResolvedLoraConfig, paths: string[]): Map<string, readonly number[]> {
  const given = config.trainableTokenIndices ?? {}
  const lists: [string, readonly number[]][] = Array.isArray(given)
    ? [[inputEmbeddings(model), given]]
    : Object.entries(given)
  const all = model.namedModules().map(([path]) => path)
  const found = new Map<string, readonly number[]>()
  for (const [name, indices] of lists) {
    const matches = (path: string) => path !== '' && (Array.isArray(given) ? path === name : path.endsWith(name))
    if (!all.some(matches) && !paths.some(matches)) {
      const heads = model.namedModules().map(([path, network]) => joined(path, outputLayerOf(network)?.head ?? ''))
      if (heads.some(matches)) continue
      throw new ConfigError(`LoraConfig.${KEY}: expected layers of ${model.constructor.name}, got '${name}'`, { name })
    }
    for (const path of paths.filter(matches)) {
      if (found.has(path))
        throw new ConfigError(`LoraConfig.${KEY}: expected each layer once, got '${path}' twice`, { path })
      found.set(path, indices)
    }
  }
  return found
}

/** Return the path of a network's input embeddings. */
function inputEmbeddings(model: Module): string {
  const modules = model.namedModules()
  const known = modules.flatMap(([path, network]) => {
    const layer = outputLayerOf(network)
    return layer ? [joined(path, layer.embeddings)] : []
  })
  const titled = modules.flatMap(([path, module]) =>
    layerKind(module) === 'embedding' && /(^|\.)(embed_tokens|word_embeddings)$/.test(path) ? [path] : [],
  )
  const found = known.length > 0 ? known : titled
  if (found.length === 1) return found[0] as string
  throw new ConfigError(
    `LoraConfig.${KEY}: expected lists by layer name, since ${model.constructor.name} has ${found.length > 1 ? found.join(', ') : 'no embed_tokens'}, got one list. ` +
      "Pass { 'name of the embedding': [...] }",
    {},
  )
}

/** Return embeddings, with path and module of the output layers with the same weight. */
function sharers(modules: [string, Module][]): [Module, string, Module][] {
  const byPath = new Map(modules)
  const found: [Module, string, Module][] = []
  for (const [path, module] of modules) {
    const layer = outputLayerOf(module)
    if (layer && isUntied(module)) {
      const [head, embeddings] = [joined(path, layer.head), joined(path, layer.embeddings)]
      found.push([byPath.get(embeddings) as Module, head, byPath.get(head) as Module])
    }
    if (layerKind(module) !== 'embedding') continue
    const weight: unknown = Reflect.get(module, 'weight')
    for (const [other, head] of modules) {
      if (layerKind(head) === 'linear' && Reflect.get(head, 'weight') === weight) found.push([module, other, head])
    }
  }
  return found
}
