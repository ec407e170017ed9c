import { existsSync } from 'node:fs'
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { readJson, writeJson } from '../data/json.js'
import { loadSafetensors, saveSafetensors } from '../data/safetensors.js'
import { loadTorch } from '../data/torch-file.js'
import { type ResolveModelOptions, resolveModel } from '../hub/index.js'
import { CheckpointError } from '../native/errors.js'
import type { FactoryOptions } from '../nn/parameter.js'
import { noGrad, scope, Tensor } from '../tensor/index.js'
import { type NetworkConfig, toCamel, toSnake } from './config.js'
import type { NativeModule } from './native-module.js'

/** How a network's checkpoints are laid out. */
export interface NetworkKind {
  /** Its name in the native registry. */
  kind: string
  /** `model_type` of its config.json. */
  modelType: string
  /** What `architectures` of a saved config.json names. */
  architecture: string
  /** Under what name a larger published model holds this network, with the dot; '' for none. */
  prefix: string
  /** Names that published files have and this network has no use for. */
  ignored: RegExp[]
  /** The network's names that a file may lack (they get fresh values), or have though the network has no use for them. */
  optional?: RegExp[]
  /** The network's names that a file may lack: they get fresh values. */
  fresh?: RegExp[]
  /** The network's name for a name in a file, where they differ. */
  rename?: (name: string) => string
}

/** For a repository of the hub, its options hold as well (revision, token, offline, progress, ...). */
export interface LoadNetworkOptions extends FactoryOptions, Omit<ResolveModelOptions, 'files'> {
  /** Parameters that the file lacks get fresh values instead of an error (a new head on an old trunk). Default false. */
  allowMissing?: boolean
  /** Maps the file instead of copying it: for weights that stay frozen, on the CPU and in the file's dtype. Default false. */
  mmap?: boolean
}

type Factory = FactoryOptions & { initialize: boolean }

/** Builds a network from a directory that has a config.json and weights, or from a repository of the hub. */
export async function loadNetwork<M extends NativeModule>(
  kind: NetworkKind,
  from: string,
  options: LoadNetworkOptions,
  build: (config: NetworkConfig, factory: Factory, present: (name: string) => boolean, directory: string) => M,
): Promise<M> {
  const { allowMissing = false, mmap = false, device, dtype, ...hub } = options
  const directory = await resolveModel(from, hub)
  const config = await readConfig(directory)
  // In a scope of its own: what the network does not keep is freed, also when something is wrong.
  return scope(async () => {
    const { tensors, file } = await readWeights(directory, mmap)
    const state = renamed(kind, tensors)
    let module: M | undefined
    try {
      module = build(config, { device, dtype, initialize: false }, (name) => state.has(name), directory)
      fill(module, state, file, kind, allowMissing)
      return module.eval()
    } catch (error) {
      module?.dispose()
      throw error
    }
  })
}

export async function readConfig(directory: string, name = 'config.json'): Promise<NetworkConfig> {
  const file = join(directory, name)
  const config = await readJson(file)
  if (typeof config === 'object' && config !== null && !Array.isArray(config)) return toCamel(config)
  throw new CheckpointError(`${file} holds no configuration: it is not an object`, { file })
}

const SINGLE = ['model.safetensors', 'pytorch_model.bin']
const SHARDED = ['model.safetensors.index.json', 'pytorch_model.bin.index.json']

export async function readWeights(
  directory: string,
  mmap: boolean,
): Promise<{ tensors: Record<string, Tensor>; file: string }> {
  const name = [SINGLE[0], SHARDED[0], SINGLE[1], SHARDED[1]].find((name) =>
    existsSync(join(directory, name as string)),
  )
  if (name === undefined) {
    throw new CheckpointError(`${directory} has no weights: none of ${[...SINGLE, ...SHARDED].join(', ')}`, {
      file: directory,
    })
  }
  const file = join(directory, name)
  if (name.includes('safetensors')) return { tensors: (await loadSafetensors(file, { mmap })).tensors, file }
  const parts = name.endsWith('.json') ? await shardsOf(directory, file) : [file]
  const states = await Promise.all(parts.map((part) => loadTorch(part, { mmap })))
  return { tensors: Object.assign({}, ...states.map((state) => tensorsOf(state))), file }
}

async function shardsOf(directory: string, file: string): Promise<string[]> {
  const index = (await readJson(file)) as { weight_map?: Record<string, unknown> } | null
  const names = new Set(Object.values(index?.weight_map ?? {}))
  const bad = [...names].find((name) => typeof name !== 'string' || !/^[^/\\]+$/.test(name))
  if (names.size === 0 || bad !== undefined) {
    throw new CheckpointError(`${file} has no weight_map of file names in its own folder`, { file })
  }
  return [...names].map((name) => join(directory, name as string))
}

/** The tensors of a state dict, which some files have under `model` or `state_dict` beside other things. */
function tensorsOf(loaded: unknown): Record<string, Tensor> {
  const root = loaded as Record<string, unknown>
  const state = ['model', 'state_dict']
    .map((key) => root[key])
    .find((value) => typeof value === 'object' && value !== null)
  return Object.fromEntries(
    Object.entries((state as Record<string, unknown>) ?? root).filter(
      (entry): entry is [string, Tensor] => entry[1] instanceof Tensor,
    ),
  )
}

/** The file's tensors under the network's names; without the prefix where the network hangs inside a larger one. */
export function renamed(kind: NetworkKind, tensors: Record<string, Tensor>): Map<string, Tensor> {
  const names = Object.keys(tensors)
  const inside = kind.prefix !== '' && names.some((name) => name.startsWith(kind.prefix))
  const state = new Map<string, Tensor>()
  for (const name of names) {
    if (kind.ignored.some((pattern) => pattern.test(name))) continue
    if (inside && !name.startsWith(kind.prefix)) continue // the larger model's own head
    const short = inside ? name.slice(kind.prefix.length) : name
    state.set(kind.rename?.(short) ?? short, tensors[name] as Tensor)
  }
  return state
}

/** Puts a file's tensors into a network. Returns the names that it lacks, which have fresh values. */
export function fill(
  module: NativeModule,
  state: Map<string, Tensor>,
  file: string,
  kind: NetworkKind,
  allowMissing: boolean,
): string[] {
  const own = module.stateDict()
  const isOptional = (name: string) => kind.optional?.some((pattern) => pattern.test(name)) ?? false
  const absent = Object.keys(own).filter((name) => !state.has(name))
  const mayLack = (name: string) => isOptional(name) || (kind.fresh?.some((pattern) => pattern.test(name)) ?? false)
  const missing = absent.filter((name) => !mayLack(name))
  const unexpected = [...state.keys()].filter((name) => !Object.hasOwn(own, name) && !isOptional(name))
  const mismatched: { name: string; expected: number[]; actual: number[] }[] = []
  for (const [name, target] of Object.entries(own)) {
    const actual = state.get(name)?.shape
    if (actual && actual.join() !== target.shape.join()) mismatched.push({ name, expected: target.shape, actual })
  }
  if (mismatched.length > 0 || unexpected.length > 0 || (missing.length > 0 && !allowMissing)) {
    throw new CheckpointError(describe(file, kind, missing, unexpected, mismatched), {
      file,
      missing,
      unexpected,
      mismatched,
    })
  }
  scope(() =>
    noGrad(() => {
      for (const [name, target] of Object.entries(own)) {
        const source = state.get(name)
        if (!source) continue
        // The same bytes need no second place; so a mapped file stays mapped.
        if (source.dtype === target.dtype && source.device === target.device) target.setData(source)
        else target.copy_(source)
      }
    }),
  )
  if (absent.length > 0) module.initialize(absent)
  return absent
}

function describe(
  file: string,
  kind: NetworkKind,
  missing: string[],
  unexpected: string[],
  mismatched: { name: string; expected: number[]; actual: number[] }[],
): string {
  const list = (names: string[]) =>
    names.length > 10 ? `${names.slice(0, 10).join(', ')} and ${names.length - 10} more` : names.join(', ')
  const parts = [
    missing.length > 0 && `missing: ${list(missing)}`,
    unexpected.length > 0 && `unexpected: ${list(unexpected)}`,
    mismatched.length > 0 &&
      `mis-shaped: ${list(mismatched.map(({ name, expected, actual }) => `${name} is [${actual}], expected [${expected}]`))}`,
  ].filter(Boolean)
  return `${file} does not hold a ${kind.architecture} of its configuration; ${parts.join('; ')}`
}

/** Writes config.json and model.safetensors, which transformers reads. */
export async function saveNetwork(
  kind: NetworkKind,
  directory: string,
  module: NativeModule,
  config: NetworkConfig,
): Promise<void> {
  await mkdir(directory, { recursive: true })
  const saved = { ...toSnake(config), architectures: [kind.architecture], model_type: kind.modelType }
  await saveSafetensors(join(directory, 'model.safetensors'), module.stateDict(), { format: 'pt' })
  await writeJson(join(directory, 'config.json'), saved, { indent: 2 })
}
