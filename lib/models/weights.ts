import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { requireObject, requireOneOf } from '../base/check.js'
import { CheckpointError } from '../base/errors.js'
import { readJson } from '../files/json/json.js'
import { loadSafetensors, readSafetensorsHeader } from '../files/safetensors/safetensors.js'
import { loadTorch } from '../files/torch/torch.js'
import { opAsync } from '../native/call.js'
import { currentContext } from '../native/context.js'
import type { Module } from '../nn/module.js'
import type { NetworkOptions } from '../nn/parameter.js'
import { isBlocks, QUANTIZATION_SCHEMES, quantizationOf } from '../nn/quantized-weight.js'
import { areAlike, differences, misfit } from '../nn/text.js'
import { buffersOf, dequantizeLayer } from '../peft/packed-layer.js'
import { packLayers, type QuantizeOptions } from '../peft/quantize.js'
import { type PackedLayer, packAsSaved } from '../peft/saved-packing.js'
import { type Device, type DType, noGrad, scope, Tensor } from '../tensor/index.js'
import { withSeed } from '../tensor/random.js'
import type { LoadNetworkOptions, NetworkKind } from './pretrained.js'

/** How the values of files come into a network that was built without any. */

export type FillOptions = Pick<LoadNetworkOptions, 'allowMissing' | 'mmap' | 'quantize' | 'device' | 'dtype' | 'seed'>
/** What weights come into: a native network, or a head over one. */
export type Fillable = Module & {
  /** Gives the parameters with these names fresh values. */
  initialize(names: string[]): unknown
}
export type Factory = NetworkOptions & { initialize: boolean }

/** The tensors of one or more files, to be called inside a scope. */
export interface Weights {
  tensors: Record<string, Tensor>
  /** What errors name. */
  file: string
  /** Whether they lie in a mapping of the file. */
  mapped: boolean
  /** Which layers' tensors are packed weights, under the names of the network. */
  packed?: readonly PackedLayer[]
}

const SINGLE = ['model.safetensors', 'pytorch_model.bin']
const SHARDED = ['model.safetensors.index.json', 'pytorch_model.bin.index.json']

/** Reads what is to stay as it is, and maps what is wanted mapped, converted or packed, which then is never there twice. */
export async function readWeights(
  directory: string,
  options: FillOptions,
  { ignored = [] }: Partial<Pick<NetworkKind, 'ignored'>> = {},
): Promise<Weights> {
  const name = [SINGLE[0], SHARDED[0], SINGLE[1], SHARDED[1]].find((name) =>
    existsSync(join(directory, name as string)),
  )
  if (name === undefined) {
    throw new CheckpointError(`${directory} has no weights: none of ${[...SINGLE, ...SHARDED].join(', ')}`, {
      file: directory,
    })
  }
  const file = join(directory, name)
  if (name.includes('safetensors')) {
    const { tensors } = await readSafetensorsHeader(file)
    const names = Object.keys(tensors).filter((name) => !ignored.some((pattern) => pattern.test(name)))
    const mapped = isMapped(
      options,
      names.map((name) => tensors[name]?.dtype),
    )
    return { tensors: (await loadSafetensors(file, { mmap: mapped, names })).tensors, file, mapped }
  }
  // What dtypes a pickle has is known only once it was read.
  const mapped = true
  const parts = name.endsWith('.json') ? await shardsOf(directory, file) : [file]
  const states = await Promise.all(parts.map((part) => loadTorch(part, { mmap: mapped })))
  return { tensors: Object.assign({}, ...states.map((state) => tensorsOf(state))), file, mapped }
}

function isMapped(options: FillOptions, dtypes: readonly (DType | null | undefined)[]): boolean {
  const { mmap = false, quantize, dtype = 'float32', device = currentContext().deviceName ?? 'cpu' } = options
  return mmap || (quantize ?? false) !== false || device !== 'cpu' || dtypes.some((one) => one !== dtype)
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
export function tensorsOf(loaded: unknown): Record<string, Tensor> {
  const root = (loaded ?? {}) as Record<string, unknown>
  const state = ['model', 'state_dict']
    .map((key) => root[key])
    .find((value) => typeof value === 'object' && value !== null)
  return onlyTensors(state ?? root)
}

export const onlyTensors = (state: object): Record<string, Tensor> =>
  Object.fromEntries(Object.entries(state).filter((entry): entry is [string, Tensor] => entry[1] instanceof Tensor))

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

interface Source extends Pick<Weights, 'file' | 'mapped' | 'packed'> {
  /** Under the network's names. What the network has taken over is disposed of. */
  state: Map<string, Tensor>
}

/**
 * Builds a network and gives it the values of a file: in evaluation mode, with the names that the file lacks, which have
 * fresh values.
 */
export async function filled<M extends Fillable>(
  kind: NetworkKind,
  source: Source,
  options: FillOptions,
  build: (factory: Factory) => M,
): Promise<{ network: M; fresh: string[] }> {
  const { device, dtype, mmap = false, allowMissing = false } = options
  const packing = packingOf(kind, options.quantize)
  let network: M | undefined
  try {
    // What is packed is taken as it lies in the file.
    const place = packing ? { device: 'cpu' as const, dtype: commonDType(source.state) } : { device, dtype }
    network = build({ ...place, initialize: false })
    if (source.packed) packAsSaved(network, source.packed, { ...source, copies: source.mapped && !mmap })
    check(network, source, kind, allowMissing)
    const fresh = await take(network, source, mmap || packing !== undefined || !source.mapped, options)
    if (packing) await pack(network, packing, options)
    if (options.quantize === false) for (const layer of network.modules()) dequantizeLayer(layer)
    return { network: network.eval(), fresh }
  } catch (error) {
    network?.dispose()
    throw error
  }
}

function packingOf(kind: NetworkKind, given: LoadNetworkOptions['quantize']): QuantizeOptions | undefined {
  if (given === undefined || given === false) return undefined
  if (typeof given === 'string') {
    requireOneOf('fromPretrained', 'quantize', given, QUANTIZATION_SCHEMES)
    return packingOf(kind, { scheme: given })
  }
  requireObject('fromPretrained', 'quantize', given)
  if (given.modules !== undefined || kind.packed === undefined) return given
  return { embeddings: isBlocks(String(given.scheme)), ...given, modules: kind.packed }
}

/** Of most of the values. */
function commonDType(state: Map<string, Tensor>): DType {
  const count = new Map<DType, number>()
  for (const value of state.values()) {
    if (/^b?float/.test(value.dtype)) count.set(value.dtype, (count.get(value.dtype) ?? 0) + value.numel())
  }
  return [...count].sort(([, a], [, b]) => b - a)[0]?.[0] ?? 'float32'
}

function check(network: Fillable, { state, file }: Source, kind: NetworkKind, allowMissing: boolean): void {
  const own = network.stateDict()
  const isOptional = (name: string) => kind.optional?.some((pattern) => pattern.test(name)) ?? false
  const mayLack = (name: string) => isOptional(name) || (kind.fresh?.some((pattern) => pattern.test(name)) ?? false)
  const found = differences(own, state)
  const missing = found.missing.filter((name) => !mayLack(name))
  const unexpected = found.unexpected.filter((name) => !isOptional(name))
  if (areAlike({ ...found, unexpected, missing: allowMissing ? [] : missing })) return
  const sentence = `${file} does not hold a ${kind.architecture} of its configuration`
  throw misfit(sentence, { ...found, missing, unexpected }, { file })
}

const copyAll = opAsync('aten::_foreach_copy_')

/** With `keep` the same bytes need no second place: a mapped file stays mapped. */
async function take(
  network: Fillable,
  { state }: Source,
  keep: boolean,
  { device, seed }: FillOptions,
): Promise<string[]> {
  const own = Object.entries(network.stateDict())
  const uses = new Map<Tensor, number>()
  for (const [name] of own) {
    const source = state.get(name)
    if (source) uses.set(source, (uses.get(source) ?? 0) + 1)
  }
  for (const [name, target] of own) {
    const source = state.get(name)
    if (!source) continue
    if (keep && source.dtype === target.dtype && source.device === target.device) target.setData(source)
    else await noGrad(() => copyAll([target], [source]))
    // Its pages go before those of the next one come.
    const left = (uses.get(source) as number) - 1
    uses.set(source, left)
    if (left === 0) source.dispose()
  }
  const absent = own.filter(([name]) => !state.has(name)).map(([name]) => name)
  if (absent.length > 0) withSeed(seed, () => network.initialize(absent), device)
  return absent
}

async function pack(network: Fillable, packing: QuantizeOptions, options: FillOptions): Promise<void> {
  const { mmap = false, dtype = 'float32' } = options
  const device = options.device ?? (currentContext().deviceName as Device | undefined) ?? 'cpu'
  await packLayers(network, packing)
  const packed = new Set<Tensor>()
  for (const layer of network.modules()) {
    const found = quantizationOf(layer)
    if (!found) continue
    found.dtype = dtype
    for (const own of [found.codes, ...Object.values(buffersOf(found))]) packed.add(own)
  }
  const borrowed = Object.values(network.stateDict()).filter(
    (own) => !packed.has(own) && own.dtype === dtype && device === 'cpu',
  )
  network.to({ device, dtype })
  if (mmap) return
  noGrad(() => {
    for (const own of borrowed) scope(() => own.setData(own.detach().clone()))
  })
}
