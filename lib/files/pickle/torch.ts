import { type DType, dtypeFacts, dtypes, dtypesBy } from '../../tensor/dtype.js'
import { callable, type Globals, marker } from './builtins.js'
import type { Payload } from './feed.js'
import { Callable, Marker, PyDict, type Site } from './objects.js'

/** Torch tensors in pickles: in files of `torch.save`, and in plain pickles. */

/** A block of bytes that tensors use. */
export class TorchData {
  constructor(
    /** Number of bytes. */
    readonly length: number,
    /** Return their location. */
    readonly find: () => Promise<Payload>,
  ) {}
}

/** A typed part of a block. */
export class TorchStorage {
  constructor(
    readonly data: TorchData,
    /** Offset in the block. */
    readonly start: number,
    /** Its size in bytes. */
    readonly length: number,
    readonly dtype: DType,
  ) {}

  /** Return all of it as a one-dimensional tensor: the value of a storage that occurs alone. */
  asTensor(): TorchTensor {
    const count = Math.floor(this.length / dtypeFacts(this.dtype).bytes)
    return new TorchTensor(this.data, this.start, this.dtype, [count], [1], false)
  }
}

/** A tensor whose numbers have not been read. */
export class TorchTensor {
  result: unknown

  constructor(
    readonly data: TorchData,
    /** Offset in bytes of its first element in the block. */
    readonly start: number,
    readonly dtype: DType,
    readonly shape: readonly number[],
    readonly strides: readonly number[],
    readonly requiresGrad: boolean,
    /** Whether the numbers in the file are conjugated or negated: torch saves such views without resolving them. */
    readonly bits: { readonly conj: boolean; readonly neg: boolean } = { conj: false, neg: false },
  ) {}

  /** Number of bytes in the block from its first to its last element, inclusive. */
  get extent(): number {
    if (this.shape.includes(0)) return 0
    const last = this.shape.reduce((sum, size, i) => sum + (size - 1) * this.strides[i]!, 0)
    return (last + 1) * dtypeFacts(this.dtype).bytes
  }
}

/** Dtypes by storage type or dtype object. */
const meaning = new Map<unknown, DType>()
const known: [string, Callable | Marker][] = []

for (const [name, dtype] of dtypesBy('storage')) {
  for (const module of ['torch', 'torch.cuda', 'torch.storage']) known.push(meaningful(module, name, dtype))
}
for (const name of ['UntypedStorage', '_UntypedStorage']) {
  for (const module of ['torch', 'torch.storage', 'torch.cuda']) known.push(meaningful(module, name, 'uint8'))
}
for (const dtype of dtypes) {
  const entry = marker('torch', dtype, dtype)
  meaning.set(entry[1], dtype)
  known.push(entry)
}

function meaningful(module: string, name: string, dtype: DType): [string, Marker] {
  const entry = marker(module, name)
  meaning.set(entry[1], dtype)
  return entry
}

const quantized = ['QInt8', 'QUInt8', 'QInt32', 'QUInt4x2', 'QUInt2x4'].map((name) => marker('torch', `${name}Storage`))

/** Return the dtype of a storage class of torch. */
export function storageDType(type: unknown, site: Site): DType {
  const dtype = meaning.get(type)
  if (dtype !== undefined) return dtype
  const name = type instanceof Marker || type instanceof Callable ? type.name : 'something else'
  const advice = quantized.some(([, known]) => known === type)
    ? ', which is quantized. Call dequantize() before saving it'
    : ''
  throw site.error(`it has a storage of the type ${name}${advice}`, { global: name })
}

const isSize = (value: unknown): value is number => Number.isSafeInteger(value) && (value as number) >= 0

function sizesOf(value: unknown, what: string, site: Site): readonly number[] {
  if (Array.isArray(value) && value.length <= 64 && value.every(isSize)) return value
  throw site.error(`it has a tensor whose ${what} is not a list of at most 64 numbers of at least 0`)
}

const BITS = ['conj', 'neg']

function bitsOf(metadata: unknown, site: Site): { conj: boolean; neg: boolean } {
  if (metadata === undefined || metadata === null) return { conj: false, neg: false }
  if (!(metadata instanceof PyDict)) throw site.error('expected a dict as metadata of a tensor')
  for (const [key, value] of metadata) {
    if (!BITS.includes(key as string) || typeof value !== 'boolean') {
      throw site.error(`it has a tensor with unknown metadata ${String(key)}`)
    }
  }
  return { conj: metadata.get('conj') === true, neg: metadata.get('neg') === true }
}

function rebuild(
  args: readonly unknown[],
  requiresGrad: unknown,
  typed: unknown,
  site: Site,
  metadata?: unknown,
): TorchTensor {
  const [storage, offset, size, stride] = args
  if (!(storage instanceof TorchStorage)) throw site.error('it has a tensor without a storage')
  const dtype = typed === undefined ? storage.dtype : meaning.get(typed)
  if (dtype === undefined) throw site.error('it has a tensor without a dtype')
  const shape = sizesOf(size, 'shape', site)
  const strides = sizesOf(stride, 'stride', site)
  if (shape.length !== strides.length || !isSize(offset)) {
    throw site.error(`it has a tensor of shape [${shape}], strides [${strides}] and offset ${String(offset)}`)
  }
  const { bytes, kind } = dtypeFacts(dtype)
  const begin = offset * bytes
  const grad = requiresGrad === true && (kind === 'float' || kind === 'complex')
  const bits = bitsOf(metadata, site)
  if (bits.conj && kind !== 'complex') throw site.error(`it has a conjugated tensor of the dtype ${dtype}`)
  const tensor = new TorchTensor(storage.data, storage.start + begin, dtype, shape, strides, grad, bits)
  const { extent } = tensor
  const elements = shape.reduce((product, length) => product * BigInt(length), 1n)
  if (!(begin + extent <= storage.length) || elements > 2n ** 53n) {
    throw site.error(
      `it has a tensor of shape [${shape}], strides [${strides}] and offset ${offset}, ` +
        `which reach beyond its storage of ${storage.length / bytes} elements`,
    )
  }
  return tensor
}

const rebuildTensor = (args: readonly unknown[], site: Site) => rebuild(args, false, undefined, site)
const rebuildTensorV2 = (args: readonly unknown[], site: Site) => rebuild(args, args[4], undefined, site, args[6])
const rebuildTensorV3 = (args: readonly unknown[], site: Site) => rebuild(args, args[4], args[6] ?? null, site, args[7])

function rebuildParameter(args: readonly unknown[], site: Site): TorchTensor {
  const [value, requiresGrad] = args
  if (!(value instanceof TorchTensor)) throw site.error('it has a parameter without a tensor')
  const { data, start, dtype, shape, strides, bits } = value
  return new TorchTensor(data, start, dtype, shape, strides, requiresGrad === true, bits)
}

/** Rebuild a tensor with attributes, or of a class of its own: returns the plain tensor. */
function rebuildFromType(args: readonly unknown[], site: Site): unknown {
  const [rebuilder, type, inner] = args
  if (!(rebuilder instanceof Callable) || !rebuilders.has(rebuilder) || !Array.isArray(inner)) {
    throw site.error('it rebuilds a tensor in an unknown way', { global: 'torch._tensor._rebuild_from_type_v2' })
  }
  if (!tensorTypes.some(([, known]) => known === type)) throw site.error('it has a tensor of an unknown class')
  return rebuilder.call(inner, site)
}

function refused(name: string, what: string): [string, Callable] {
  return callable('torch._utils', name, (_args, site) => {
    throw site.error(`it has ${what}`, { global: `torch._utils.${name}` })
  })
}

const tensorTypes = [
  marker('torch', 'Tensor'),
  marker('torch._tensor', 'Tensor'),
  marker('torch.nn.parameter', 'Parameter'),
  marker('torch.nn.parameter', 'Buffer'),
]

const rebuilds = [
  callable('torch._utils', '_rebuild_tensor', rebuildTensor),
  callable('torch._utils', '_rebuild_tensor_v2', rebuildTensorV2),
  callable('torch._utils', '_rebuild_tensor_v3', rebuildTensorV3),
  callable('torch._utils', '_rebuild_parameter', rebuildParameter),
  callable('torch._utils', '_rebuild_parameter_with_state', rebuildParameter),
]
const rebuilders = new Set(rebuilds.map(([, rebuilder]) => rebuilder))

/** Build a torch.Size: a list of numbers. */
function makeSize(args: readonly unknown[], site: Site): readonly unknown[] {
  return sizesOf(args[0] ?? [], 'size', site)
}

/** Return the name of a torch.device, such as `'cuda:0'`. */
function makeDevice(args: readonly unknown[], site: Site): string {
  const [type, index] = args
  if (typeof type !== 'string' || (index !== undefined && !isSize(index)))
    throw site.error('expected the name of a device')
  return index === undefined ? type : `${type}:${index}`
}

export const torchGlobals: Globals = new Map<string, Callable | Marker>([
  ...known,
  ...quantized,
  ...tensorTypes,
  ...rebuilds,
  callable('torch', 'Size', makeSize),
  callable('torch', 'device', makeDevice),
  callable('torch._tensor', '_rebuild_from_type_v2', rebuildFromType),
  callable('torch.serialization', '_get_layout', (args) => String(args[0])),
  refused('_rebuild_qtensor', 'a quantized tensor. Call dequantize() before saving it'),
  refused('_rebuild_sparse_tensor', 'a sparse tensor. Call to_dense() before saving it'),
  refused('_rebuild_sparse_csr_tensor', 'a sparse tensor. Call to_dense() before saving it'),
  refused('_rebuild_nested_tensor', 'a nested tensor. Save its parts as a list'),
  refused('_rebuild_meta_tensor_no_storage', 'a meta tensor, which has no numbers'),
])
