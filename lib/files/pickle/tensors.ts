import { op } from '../../native/call.js'
import { type DType, dtypeFacts } from '../../tensor/dtype.js'
import { type Device, empty, noGrad, scope, type Tensor, tensor } from '../../tensor/index.js'
import { type ByteSource, MemorySource, type Place } from '../byte-source.js'
import { readPlaces } from '../file-tensors.js'
import { Payload } from './feed.js'
import { contiguous, type NumpyArray } from './numpy.js'
import { encodeLatin1 } from './text.js'
import type { TorchData, TorchTensor } from './torch.js'

export interface TensorPlacement {
  readonly device?: Device | undefined
  /** Dtype of floating-point tensors. */
  readonly dtype?: DType | undefined
  /** Map the file's bytes instead of copying them. */
  readonly mmap?: boolean | undefined
}

/** An array whose numbers are still in the file. */
export class LazyTensor {
  readonly #load: () => Promise<Tensor>

  constructor(
    readonly dtype: DType,
    readonly shape: readonly number[],
    load: () => Promise<Tensor>,
  ) {
    this.#load = load
  }

  /** Read the numbers into a new tensor. Throws the reader's error if the file no longer exists or has changed. */
  read(): Promise<Tensor> {
    return this.#load()
  }
}

/**
 * Load the tensors of NumPy arrays of numbers, with NumPy's strides. Those in one file are read in one job. `release` frees the
 * bytes of an array in memory once its tensor is created, so that not all exist twice.
 */
export async function loadNumpy(
  arrays: readonly NumpyArray[],
  place: Place,
  { release = false }: { release?: boolean } = {},
): Promise<Tensor[]> {
  return scope(async () => {
    const tensors: Tensor[] = new Array(arrays.length)
    const inFile = new Map<ByteSource, number[]>()
    for (const [i, { data }] of arrays.entries()) {
      if (!(data instanceof Payload) || data.form !== 'bytes') continue
      const { source } = data.source.root(data.offset)
      const group = inFile.get(source)
      if (group === undefined) inFile.set(source, [i])
      else group.push(i)
    }
    const lastUse = new Map<ByteSource, number>()
    for (const [i, { data }] of arrays.entries()) if (data instanceof Payload) lastUse.set(data.source, i)
    const used = (i: number): void => {
      const { data } = arrays[i]!
      const source = release && data instanceof Payload ? data.source : undefined
      if (source instanceof MemorySource && lastUse.get(source) === i) source.release()
    }
    for (const [source, group] of inFile) {
      const places = group.map((i) => filePlace(arrays[i]!))
      const flats = await readPlaces(source, places, { device: 'cpu' })
      for (const [k, i] of group.entries()) {
        tensors[i] = arranged(flats[k]!, arrays[i]!)
        used(i)
      }
    }
    for (const [i, array] of arrays.entries()) {
      if (tensors[i] !== undefined) continue
      tensors[i] = await loadFromMemory(array, place)
      used(i)
    }
    return tensors
  })
}

function filePlace({ descr, data }: NumpyArray): { offset: number; dtype: DType; shape: number[] } {
  const { source, offset: start, length } = data as Payload
  const { offset } = source.root(start)
  const dtype = descr!.bigEndian ? 'uint8' : descr!.dtype!
  return { offset, dtype, shape: [length / dtypeFacts(dtype).bytes] }
}

async function loadFromMemory(array: NumpyArray, place: Place): Promise<Tensor> {
  const { descr, data, shape } = array
  if (data instanceof Payload) return arranged(await decodedBytes(data, array, place), array)
  const bytes = Buffer.from((data as Uint8Array).buffer, (data as Uint8Array).byteOffset, (data as Uint8Array).length)
  const dtype = descr!.dtype!
  if (descr!.bigEndian || dtype === 'bool' || !isPlain(array)) {
    return arranged(tensor(bytes, { dtype: 'uint8', device: 'cpu' }), array)
  }
  return tensor(bytes, { dtype, shape, device: 'cpu' })
}

/** Return whether the array is contiguous, so that no strides need be set. */
function isPlain({ shape, strides }: NumpyArray): boolean {
  return contiguous(shape, 'C').every((step, i) => step === strides[i] || shape[i] === 1)
}

/** Return a flat tensor, of the array's dtype or of its bytes, in the array's shape. */
function arranged(flat: Tensor, array: NumpyArray): Tensor {
  const { descr, shape, strides } = array
  return noGrad(() =>
    scope(() => {
      const items = flat.dtype === descr!.dtype ? flat : reinterpreted(flat, descr!.dtype!, descr!.bigEndian)
      return isPlain(array) ? items.view([...shape]) : items.asStrided([...shape], [...strides])
    }),
  )
}

/** Reinterpret a flat uint8 tensor as another dtype, on the same memory if possible. */
function reinterpreted(bytes: Tensor, dtype: DType, bigEndian = false): Tensor {
  const { bytes: width, kind } = dtypeFacts(dtype)
  // libtorch requires a bool to be 0 or 1; in a file it may be any byte.
  if (kind === 'bool') return bytes.ne(0)
  if (!bigEndian || width === 1) return bytes.view(dtype)
  const unit = kind === 'complex' ? width / 2 : width
  const count = bytes.numel()
  return bytes
    .view([count / unit, unit])
    .flip([1])
    .view([count])
    .view(dtype)
}

/** Decode bytes that were written as one UTF-8 character each, in pieces. */
async function decodedBytes(payload: Payload, array: NumpyArray, place: Place): Promise<Tensor> {
  const length = array.shape.reduce((product, size) => product * size, array.descr!.itemSize)
  const whole = empty([length], { dtype: 'uint8', device: 'cpu' })
  let done = 0
  let held: Buffer = Buffer.alloc(0)
  for await (const piece of payload.source.stream(payload.offset, payload.length, 1 << 22)) {
    const chunk = held.length === 0 ? piece : Buffer.concat([held, piece])
    // A character of two bytes may cross the border of chunks.
    const border = chunk[chunk.length - 1]! >= 0xc0 ? chunk.length - 1 : chunk.length
    held = chunk.subarray(border)
    const bytes = encodeLatin1(chunk.toString('utf8', 0, border))
    if (bytes === undefined) throw place.error('expected bytes written as latin1 text, got other characters')
    if (done + bytes.length > length) throw place.error(`expected ${length} bytes in an array, got more`)
    noGrad(() =>
      scope(() => whole.narrow(0, done, bytes.length).copy_(tensor(bytes, { dtype: 'uint8', device: 'cpu' }))),
    )
    done += bytes.length
  }
  if (done !== length || held.length > 0) throw place.error(`expected ${length} bytes in an array, got ${done}`)
  return whole
}

/**
 * Load tensors; each block of bytes is read once, and only the part that is needed. Views of one
 * block of memory stay views of one block.
 */
export async function loadTorchTensors(
  tensors: Iterable<TorchTensor>,
  placement: TensorPlacement,
): Promise<Map<TorchTensor, Tensor>> {
  return scope(async () => {
    const blocks = new Map<TorchData, TorchTensor[]>()
    for (const item of tensors) {
      const views = blocks.get(item.data)
      if (views === undefined) blocks.set(item.data, [item])
      else views.push(item)
    }
    const { mmap = false, device, dtype: wanted } = placement
    const sorted = await Promise.all([...blocks].map(([data, views]) => blockOf(data, views)))
    sorted.sort((one, other) => one.offset - other.offset)
    const found = new Map<TorchTensor, Tensor>()
    for (const batch of batches(sorted, wanted !== undefined)) {
      const places = batch.map(({ offset, dtype, alignment, count }) => ({ offset, dtype, alignment, shape: [count] }))
      await scope(async () => {
        const flats = await readPlaces(batch[0]!.source, places, { mmap, device: device ?? 'cpu' })
        for (const [i, block] of batch.entries()) lookAt(flats[i]!, block, wanted, found)
        return batch.flatMap(({ views }) => views.map((view) => found.get(view)))
      })
    }
    return found
  })
}

/** The part of a block that its tensors use. */
interface Block {
  source: ByteSource
  offset: number
  /** Offset of the part in the block. */
  begin: number
  dtype: DType
  /** Size of its largest element. */
  alignment: number
  count: number
  views: readonly TorchTensor[]
}

async function blockOf(data: TorchData, views: readonly TorchTensor[]): Promise<Block> {
  const { source, offset } = await data.find()
  const root = source.root(offset)
  const [{ dtype: first }] = views as [TorchTensor]
  // A block with views of several dtypes, which is rare, is read as bytes.
  const dtype = views.every((view) => view.dtype === first) ? first : 'uint8'
  const alignment = views.reduce((most, view) => Math.max(most, dtypeFacts(view.dtype).bytes), 1)
  const used = views.filter((view) => view.extent > 0)
  if (used.length === 0) return { ...root, begin: 0, dtype, alignment, count: 0, views }
  const least = used.reduce((low, view) => Math.min(low, view.start), Number.MAX_SAFE_INTEGER)
  // The widest element has 16 bytes: from a multiple of them any dtype can be viewed.
  const begin = dtype === 'uint8' ? least - (least % 16) : least
  const end = used.reduce((high, view) => Math.max(high, view.start + view.extent), 0)
  return {
    source: root.source,
    offset: root.offset + begin,
    begin,
    dtype,
    alignment,
    count: (end - begin) / dtypeFacts(dtype).bytes,
    views,
  }
}

// Converted tensors exist twice in memory, so limit the bytes that are converted at once.
const CONVERTED_AT_ONCE = 2 ** 28

/** Split the blocks of one file into batches, each read in one job. */
function batches(blocks: readonly Block[], converted: boolean): Block[][] {
  const found: Block[][] = []
  const open = new Map<ByteSource, { batch: Block[]; bytes: number }>()
  for (const block of blocks) {
    let current = open.get(block.source)
    if (current === undefined || (converted && current.bytes > CONVERTED_AT_ONCE)) {
      current = { batch: [], bytes: 0 }
      open.set(block.source, current)
      found.push(current.batch)
    }
    current.batch.push(block)
    current.bytes += block.count * dtypeFacts(block.dtype).bytes
  }
  return found
}

/** Create the tensors of a block from its flat memory. */
function lookAt(
  flat: Tensor,
  { begin, views }: Block,
  wanted: DType | undefined,
  found: Map<TorchTensor, Tensor>,
): void {
  noGrad(() =>
    scope(() => {
      const flats = new Map<DType, Tensor>()
      return views.map((view) => {
        const { dtype, start, extent, shape, strides, requiresGrad, bits } = view
        let items = flats.get(dtype)
        if (items === undefined) {
          items = converted(flat.dtype === dtype ? flat : whole(flat, dtype), wanted)
          flats.set(dtype, items)
        }
        const offset = extent === 0 ? 0 : (start - begin) / dtypeFacts(dtype).bytes
        const stored = items.asStrided([...shape], [...strides], offset)
        const conjugated = bits.conj ? conjugate(stored) : stored
        const made = bits.neg ? opposite(conjugated) : conjugated
        const leaf = requiresGrad ? made.detach().requiresGrad_(true) : made
        found.set(view, leaf)
        return leaf
      })
    }),
  )
}

// As in torch, these are views on the memory of the file's tensor, which others may share.
const conjugate = op('aten::_conj') as (tensor: Tensor) => Tensor
const opposite = op('aten::_neg_view') as (tensor: Tensor) => Tensor

/** Return the whole elements that the bytes contain. */
function whole(bytes: Tensor, dtype: DType): Tensor {
  const count = bytes.numel()
  return reinterpreted(bytes.narrow(0, 0, count - (count % dtypeFacts(dtype).bytes)), dtype)
}

function converted(flat: Tensor, wanted: DType | undefined): Tensor {
  return wanted === undefined || dtypeFacts(flat.dtype).kind !== 'float' ? flat : flat.to({ dtype: wanted })
}
