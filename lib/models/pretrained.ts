import { existsSync } from 'node:fs'
import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { loadSafetensors, saveSafetensors } from '../data/safetensors.js'
import { CheckpointError } from '../native/errors.js'
import type { FactoryOptions } from '../nn/parameter.js'
import { noGrad, scope, type Tensor } from '../tensor/index.js'
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
  /** The network's name for a name in a file, where they differ. */
  rename?: (name: string) => string
}

export interface LoadNetworkOptions extends FactoryOptions {
  /** Parameters that the file lacks get fresh values instead of an error (a new head on an old trunk). Default false. */
  allowMissing?: boolean
}

type Factory = FactoryOptions & { initialize: boolean }

/** Builds a network from a directory that has a config.json and weights. */
export async function loadNetwork<M extends NativeModule>(
  kind: NetworkKind,
  from: string,
  options: LoadNetworkOptions,
  build: (config: NetworkConfig, factory: Factory, present: (name: string) => boolean) => M,
): Promise<M> {
  const { allowMissing = false, device, dtype } = options
  const config = await readConfig(from)
  const { tensors, file } = await readWeights(from)
  const state = renamed(kind, tensors)
  let module: M | undefined
  try {
    module = build(config, { device, dtype, initialize: false }, (name) => state.has(name))
    fill(module, state, file, kind, allowMissing)
    return module.eval()
  } catch (error) {
    module?.dispose()
    throw error
  } finally {
    for (const tensor of Object.values(tensors)) tensor.dispose()
  }
}

async function readConfig(directory: string): Promise<NetworkConfig> {
  const file = join(directory, 'config.json')
  try {
    const config: unknown = JSON.parse(await readFile(file, 'utf8'))
    if (typeof config !== 'object' || config === null || Array.isArray(config)) throw new Error('it is not an object')
    return toCamel(config)
  } catch (cause) {
    throw new CheckpointError(`${file} cannot be read as a configuration: ${(cause as Error).message}`, { file, cause })
  }
}

async function readWeights(directory: string): Promise<{ tensors: Record<string, Tensor>; file: string }> {
  const file = join(directory, 'model.safetensors')
  if (!existsSync(file)) throw new CheckpointError(`${directory} has no model.safetensors`, { file })
  return { tensors: (await loadSafetensors(file)).tensors, file }
}

/** The file's tensors under the network's names; without the prefix where the network hangs inside a larger one. */
function renamed(kind: NetworkKind, tensors: Record<string, Tensor>): Map<string, Tensor> {
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

function fill(
  module: NativeModule,
  state: Map<string, Tensor>,
  file: string,
  kind: NetworkKind,
  allowMissing: boolean,
): void {
  const own = module.stateDict()
  const missing = Object.keys(own).filter((name) => !state.has(name))
  const unexpected = [...state.keys()].filter((name) => !Object.hasOwn(own, name))
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
        if (source) target.copy_(source)
      }
    }),
  )
  if (missing.length > 0) module.initialize(missing)
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
  return `${file} does not hold a ${kind.architecture} of its config.json; ${parts.join('; ')}`
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
  await writeFile(join(directory, 'config.json'), `${JSON.stringify(saved, null, 2)}\n`)
}
