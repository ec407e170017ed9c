import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { requireObject, requireOneOf, shown } from '../base/check.js'
import { CheckpointError } from '../base/errors.js'
import { readJson } from '../files/json/json.js'
import { loadSafetensors, readSafetensorsHeader } from '../files/safetensors/safetensors.js'
import { loadTorch } from '../files/torch/torch.js'
import { opAsync } from '../native/call.js'
import { currentDevice } from '../native/context.js'
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

/** Loading of weights into a network that was built without initialization. */

export type FillOptions = Pick<LoadNetworkOptions, 'allowMissing' | 'mmap' | 'quantize' | 'device' | 'dtype' | 'seed'>
/** Network that weights are loaded into: a native network, or a head over one. */
export type Fillable = Module & {
  /** Initialize the parameters with these names. */
  initialize(names: string[]): unknown
}
export type Factory = NetworkOptions & { initialize: boolean }

/** The tensors of one or more files. Call the function inside a scope. */
export interface Weights {
  tensors: Record<string, Tensor>
  /** File name in errors. */
  file: string
  /** Whether the tensors are in a memory mapping of the file. */
  mapped: boolean
  /** Layers whose tensors are quantized, with the network's names. */
  packed?: readonly PackedLayer[]
}

const SINGLE = ['model.safetensors', 'pytorch_model.bin']
const SHARDED = ['model.safetensors.index.json', 'pytorch_model.bin.index.json']

/** Read a checkpoint's tensors. They are memory-mapped if requested, or if they will be converted or quantized, which saves a copy. */
export async function readWeights(
  directory: string,
  options: FillOptions,
  { ignored = [] }: Partial<Pick<NetworkKind, 'ignored'>> = {},
): Promise<Weights> {
  const name = [SINGLE[0], SHARDED[0], SINGLE[1], SHARDED[1]].find((name) =>
    existsSync(join(directory, name as string)),
  )
  if (name === undefined) {
    throw new CheckpointError(
      `${directory}: expected weights in ${[...SINGLE, ...SHARDED].join(', ')}, got none of these files. ${existsSync(join(directory, 'model.bin')) ? 'Its model.bin is of CTranslate2. Load it with Whisper.' : 'Check the folder.'}`,
      {
        file: directory,
      },
    )
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
  // The dtypes of a pickle are known only after it was read, so it is always mapped.
  const mapped = true
  const parts = name.endsWith('.json') ? await shardsOf(directory, file) : [file]
  const states = await Promise.all(parts.map((part) => loadTorch(part, { mmap: mapped })))
  return { tensors: Object.assign({}, ...states.map((state) => tensorsOf(state))), file, mapped }
}

function isMapped(options: FillOptions, dtypes: readonly (DType | null | undefined)[]): boolean {
  const { mmap = false, quantize, dtype = dtypes[0], device = currentDevice() ?? 'cpu' } = options
  return mmap || (quantize ?? false) !== false || device !== 'cpu' || dtypes.some((one) => one !== dtype)
}

async function shardsOf(directory: string, file: string): Promise<string[]> {
  const index = (await readJson(file)) as { weight_map?: Record<string, unknown> } | null
  const names = new Set(Object.values(index?.weight_map ?? {}))
  const bad = [...names].find((name) => typeof name !== 'string' || !/^[^/\\]+$/.test(name))
  if (names.size === 0 || bad !== undefined) {
    throw new CheckpointError(
      `${file}: weight_map: expected file names in the same folder, got ${bad === undefined ? 'none' : shown(bad)}. Check the file.`,
      { file },
    )
  }
  return [...names].map((name) => join(directory, name as string))
}

/** Return the tensors of a state dictionary, which some files have under `model` or `state_dict`. */
export function tensorsOf(loaded: unknown): Record<string, Tensor> {
  const root = (loaded ?? {}) as Record<string, unknown>
  const state = ['model', 'state_dict']
    .map((key) => root[key])
    .find((value) => typeof value === 'object' && value !== null)
  return onlyTensors(state ?? root)
}

export const onlyTensors = (state: object): Record<string, Tensor> =>
  Object.fromEntries(Object.entries(state).filter((entry): entry is [string, Tensor] => entry[1] instanceof Tensor))

/** Rename a file's tensors to the network's names; remove the prefix of a network inside a larger one. */
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
  /** The network's dtype, unless the caller asks for another. Default: that of most values. */
  dtype?: DType | undefined
  /** Tensors by the network's names. Those that the network has taken over are disposed. */
  state: Map<string, Tensor>
}

/**
 * Build a network, load the values of a file into it, and set evaluation mode. Returns the names that the file lacks, which were
 * initialized.
 */
export async function filled<M extends Fillable>(
  kind: NetworkKind,
  source: Source,
  options: FillOptions,
  build: (factory: Factory) => M,
): Promise<{ network: M; fresh: string[] }> {
  const { device, mmap = false, allowMissing = false } = options
  const common = commonDType(source.state.values())
  const dtype = options.dtype ?? source.dtype ?? common
  const packing = packingOf(kind, options.quantize)
  let network: M | undefined
  try {
    // Layers to quantize are loaded as they are in the file.
    const place = packing ? { device: 'cpu' as const, dtype: common } : { device, dtype }
    network = build({ ...place, initialize: false })
    if (source.packed) packAsSaved(network, source.packed, { ...source, copies: source.mapped && !mmap })
    check(network, source, kind, allowMissing)
    const fresh = await take(network, source, mmap || packing !== undefined || !source.mapped, options)
    if (packing) await pack(network, packing, { ...options, dtype })
    if (options.quantize === false) for (const layer of network.modules()) dequantizeLayer(layer)
    return { network: network.eval(), fresh }
  } catch (error) {
    network?.dispose()
    throw error
  }
}

function packingOf(kind: NetworkKind, requested: LoadNetworkOptions['quantize']): QuantizeOptions | undefined {
  if (requested === undefined || requested === false) return undefined
  if (typeof requested === 'string') {
    requireOneOf('fromPretrained', 'quantize', requested, QUANTIZATION_SCHEMES)
    return packingOf(kind, { scheme: requested })
  }
  requireObject('fromPretrained', 'quantize', requested)
  if (requested.modules !== undefined || kind.packed === undefined) return requested
  return { embeddings: isBlocks(String(requested.scheme)), ...requested, modules: kind.packed }
}

/** Return the floating-point dtype of most values; float32 without one. */
export function commonDType(tensors: Iterable<Tensor>): DType {
  const count = new Map<DType, number>()
  for (const value of tensors) {
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

/** Load values into a network. With `keep` it takes over the source's memory if dtype and device match, so a mapped file stays mapped. */
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
    // Free its memory before the next tensor is read.
    const left = (uses.get(source) as number) - 1
    uses.set(source, left)
    if (left === 0) source.dispose()
  }
  const absent = own.filter(([name]) => !state.has(name)).map(([name]) => name)
  if (absent.length > 0) withSeed(seed, () => network.initialize(absent), device)
  return absent
}

async function pack(
  network: Fillable,
  packing: QuantizeOptions,
  { mmap = false, dtype, ...options }: FillOptions & { dtype: DType },
): Promise<void> {
  const device = options.device ?? (currentDevice() as Device | undefined) ?? 'cpu'
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
