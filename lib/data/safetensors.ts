import { closeSync, fstatSync, fsyncSync, openSync, readSync, renameSync, rmSync, writeSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { CheckpointError, VoxtorchError } from '../native/errors.js'
import { type DType, dtypeFacts } from '../tensor/dtype.js'
import { noGrad, scope, Tensor, tensor } from '../tensor/index.js'
import { requireObject, requireString } from './check.js'

/**
 * The safetensors format (https://github.com/huggingface/safetensors): 8 bytes of header length, a JSON header, then the
 * tensors' bytes without gaps. Everything a header says is checked before memory is taken.
 */

const names: Record<string, DType> = {
  F64: 'float64',
  F32: 'float32',
  F16: 'float16',
  BF16: 'bfloat16',
  I64: 'int64',
  I32: 'int32',
  I16: 'int16',
  I8: 'int8',
  U8: 'uint8',
  U16: 'uint16',
  U32: 'uint32',
  U64: 'uint64',
  BOOL: 'bool',
  C64: 'complex64',
  F8_E4M3: 'float8_e4m3fn',
  F8_E5M2: 'float8_e5m2',
}
const codes = new Map(Object.entries(names).map(([code, dtype]) => [dtype, code]))

const MAX_HEADER = 100_000_000

interface Entry {
  name: string
  dtype: DType
  shape: number[]
  begin: number
  end: number
}

export interface SafetensorsFile {
  /** The tensors by name, in the order of their bytes. */
  tensors: Record<string, Tensor>
  /** The texts of `__metadata__`. */
  metadata: Record<string, string>
}

/**
 * Reads a safetensors file into CPU tensors.
 * @throws CheckpointError naming the file and the tensor, for anything that is not a whole, sound file
 */
export async function loadSafetensors(path: string): Promise<SafetensorsFile> {
  requireString('loadSafetensors', 'path', path)
  let file: number
  try {
    file = openSync(path, 'r')
  } catch (cause) {
    throw new CheckpointError(`${path} cannot be opened: ${(cause as Error).message}`, { file: path, cause })
  }
  try {
    // The scope frees what was read before an error.
    return scope(() => {
      const { entries, metadata, start } = readHeader(file, path)
      const tensors: Record<string, Tensor> = Object.create(null)
      for (const entry of entries) {
        const bytes = Buffer.allocUnsafe(entry.end - entry.begin)
        readFully(file, bytes, start + entry.begin, path)
        tensors[entry.name] = tensor(bytes, { dtype: entry.dtype, shape: entry.shape })
      }
      return { tensors, metadata }
    })
  } catch (cause) {
    if (cause instanceof VoxtorchError) throw cause
    throw new CheckpointError(`${path} cannot be read: ${(cause as Error).message}`, { file: path, cause })
  } finally {
    closeSync(file)
  }
}

function readFully(file: number, into: Buffer, position: number, path: string): void {
  let done = 0
  while (done < into.length) {
    const count = readSync(file, into, done, Math.min(into.length - done, 1 << 30), position + done)
    if (count === 0)
      throw new CheckpointError(`${path} ends at byte ${position + done}, in the middle of its data`, { file: path })
    done += count
  }
}

function readHeader(file: number, path: string): { entries: Entry[]; metadata: Record<string, string>; start: number } {
  const fail = (what: string, fields: Record<string, unknown> = {}): never => {
    throw new CheckpointError(`${path} is not a sound safetensors file: ${what}`, { file: path, ...fields })
  }
  const size = fstatSync(file).size
  if (size < 8) fail(`it has ${size} bytes, fewer than the 8 of the header's length`)
  const head = Buffer.alloc(8)
  readFully(file, head, 0, path)
  const long = head.readBigUInt64LE(0)
  if (long > BigInt(MAX_HEADER) || Number(long) > size - 8)
    fail(`its header claims ${long} bytes, the file has ${size}`)
  const length = Number(long)
  const bytes = Buffer.alloc(length)
  readFully(file, bytes, 8, path)
  let text = ''
  try {
    text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes)
  } catch {
    fail('its header is not UTF-8')
  }
  if (!text.startsWith('{')) fail('its header does not start with {')
  let header: Record<string, unknown> = {}
  try {
    header = JSON.parse(text)
  } catch (cause) {
    fail(`its header is not JSON: ${(cause as Error).message}`)
  }
  const metadata: Record<string, string> = Object.create(null)
  const entries: Entry[] = []
  for (const [name, value] of Object.entries(header)) {
    if (typeof value !== 'object' || value === null) fail(`'${name}' is not described by an object`, { tensor: name })
    if (name === '__metadata__') {
      if (Array.isArray(value)) fail('its metadata is a list')
      for (const [key, entry] of Object.entries(value as object)) {
        if (typeof entry !== 'string') fail(`the metadata '${key}' is not a text`)
        metadata[key] = entry
      }
      continue
    }
    entries.push(readEntry(name, value as Record<string, unknown>, fail))
  }
  entries.sort((a, b) => a.begin - b.begin || a.end - b.end)
  let position = 0
  for (const { name, begin, end } of entries) {
    if (begin !== position)
      fail(`'${name}' starts at byte ${begin} of the data, expected ${position}`, { tensor: name })
    position = end
  }
  if (8 + length + position !== size) fail(`its tensors need ${position} bytes, ${size - 8 - length} follow the header`)
  return { entries, metadata, start: 8 + length }
}

function readEntry(
  name: string,
  value: Record<string, unknown>,
  fail: (what: string, fields?: Record<string, unknown>) => never,
): Entry {
  const { dtype: code, shape, data_offsets: offsets } = value
  const dtype =
    typeof code === 'string' && Object.hasOwn(names, code)
      ? names[code]!
      : fail(`'${name}' has the unknown dtype ${JSON.stringify(code)}`, { tensor: name })
  const isSize = (item: unknown): item is number => Number.isSafeInteger(item) && (item as number) >= 0
  if (!Array.isArray(shape) || !shape.every(isSize))
    fail(`'${name}' has the shape ${JSON.stringify(shape)}`, { tensor: name })
  if (!Array.isArray(offsets) || offsets.length !== 2 || !offsets.every(isSize)) {
    fail(`'${name}' has the data_offsets ${JSON.stringify(offsets)}`, { tensor: name })
  }
  const [begin, end] = offsets as [number, number]
  const wanted = (shape as number[]).reduce((product, item) => product * BigInt(item), BigInt(dtypeFacts(dtype).bytes))
  if (end < begin || wanted !== BigInt(end - begin)) {
    fail(`'${name}' has ${end - begin} bytes, its shape and dtype need ${wanted}`, { tensor: name })
  }
  return { name, dtype, shape: shape as number[], begin, end }
}

/**
 * Writes tensors to a safetensors file. The file appears whole or not at all: it is written under another name, synced
 * and renamed.
 * @throws CheckpointError when the file cannot be written, or something has no place in the format
 */
export async function saveSafetensors(
  path: string,
  tensors: Readonly<Record<string, Tensor>>,
  metadata: Readonly<Record<string, string>> = {},
): Promise<void> {
  requireString('saveSafetensors', 'path', path)
  requireObject('saveSafetensors', 'tensors', tensors)
  requireObject('saveSafetensors', 'metadata', metadata)
  const fail = (what: string, fields: Record<string, unknown> = {}): never => {
    throw new CheckpointError(`${path}: ${what}`, { file: path, ...fields })
  }
  const header: Record<string, unknown> = Object.create(null)
  for (const [key, value] of Object.entries(metadata)) {
    if (typeof value !== 'string') fail(`the metadata '${key}' must be a text, got ${typeof value}`)
  }
  if (Object.keys(metadata).length > 0) header.__metadata__ = metadata
  // Wider elements first keeps every tensor aligned for readers that map the file.
  const order = Object.entries(tensors)
    .map(([name, value]) => {
      if (!(value instanceof Tensor)) fail(`'${name}' is not a tensor`, { tensor: name })
      return { name, value, dtype: value.dtype, shape: value.shape }
    })
    .sort((a, b) => dtypeFacts(b.dtype).bytes - dtypeFacts(a.dtype).bytes)
  let offset = 0
  for (const { name, dtype, shape } of order) {
    const code = codes.get(dtype)
    if (code === undefined) fail(`safetensors cannot hold '${name}', which is ${dtype}`, { tensor: name })
    if (name === '__metadata__') fail('a tensor cannot be named __metadata__', { tensor: name })
    const bytes = shape.reduce((product, size) => product * size, dtypeFacts(dtype).bytes)
    header[name] = { dtype: code, shape, data_offsets: [offset, offset + bytes] }
    offset += bytes
  }
  const json = Buffer.from(JSON.stringify(header))
  const padded = Buffer.alloc(Math.ceil(json.length / 8) * 8, ' ')
  json.copy(padded)
  const length = Buffer.alloc(8)
  length.writeBigUInt64LE(BigInt(padded.length))

  // Short, whatever the path: names end at 255 bytes.
  const temporary = join(dirname(path), `.voxtorch-${process.pid}-${Math.random().toString(36).slice(2)}.tmp`)
  let file: number | undefined
  let made = false
  try {
    file = openSync(temporary, 'wx')
    made = true
    writeFully(file, length)
    writeFully(file, padded)
    for (const { value } of order) writeFully(file, await bytesOf(value))
    fsyncSync(file)
    closeSync(file)
    file = undefined
    renameSync(temporary, path)
    syncDirectory(dirname(path))
  } catch (cause) {
    if (file !== undefined) closeSync(file)
    if (made) rmSync(temporary, { force: true })
    if (cause instanceof VoxtorchError) throw cause
    throw new CheckpointError(`${path} cannot be written: ${(cause as Error).message}`, { file: path, cause })
  }
}

/** A tensor's bytes, whatever its dtype: seen as uint8, so that nothing is converted. */
async function bytesOf(value: Tensor): Promise<Uint8Array> {
  return scope(async () => {
    const whole = noGrad(() => value.detach().to({ device: 'cpu' }).resolveConj().resolveNeg().contiguous())
    // A contiguous tensor of one element may still have any stride.
    const flat = whole.asStrided([whole.numel()], [1])
    const bytes = value.dtype === 'bool' ? flat.to('uint8') : flat.view('uint8')
    return (await bytes.data()) as Uint8Array
  })
}

function writeFully(file: number, bytes: Uint8Array): void {
  let done = 0
  while (done < bytes.length) done += writeSync(file, bytes, done, Math.min(bytes.length - done, 1 << 30))
}

function syncDirectory(path: string): void {
  const directory = openSync(path, 'r')
  try {
    fsyncSync(directory)
  } finally {
    closeSync(directory)
  }
}
