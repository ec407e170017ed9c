import { requireObject } from '../../base/check.js'
import { CheckpointError, DTypeError } from '../../base/errors.js'
import { dtypeFacts } from '../../tensor/dtype.js'
import { scope, Tensor } from '../../tensor/index.js'
import { type ByteSource, quoted } from '../byte-source.js'
import { bytePart, readPlaces, type TensorPlace, writeFileParts } from '../file-tensors.js'
import { buildHeader, type HeaderEntry, isSafetensorsDType, readHeader } from './header.js'
import type { LoadSafetensorsOptions, SafetensorsFile } from './types.js'

/** The tensors of a sound source. Call inside a scope. */
export async function loadFrom(source: ByteSource, options: LoadSafetensorsOptions = {}): Promise<SafetensorsFile> {
  const { tensors: entries, metadata } = await readHeader(source)
  const names = chosenNames(Object.keys(entries), options.names, source.place.file)
  const places = names.map((name): TensorPlace => {
    const { dtype, format, offset, shape } = entries[name]!
    if (dtype !== null) return { dtype, offset, shape }
    const { file } = source.place
    throw new DTypeError(
      `${file}: ${quoted(name)} is ${format}, for which voxtorch has no dtype; leave it out with \`names\``,
      { file, tensor: name, dtype: format },
    )
  })
  const loaded = await readPlaces(source, places, options)
  const tensors: Record<string, Tensor> = Object.create(null)
  names.forEach((name, i) => {
    tensors[name] = loaded[i]!
  })
  return { tensors, metadata }
}

/** The names that a caller asked for, in the order of `all`. */
export function chosenNames(
  all: readonly string[],
  wanted: LoadSafetensorsOptions['names'],
  file: string,
): readonly string[] {
  if (wanted === undefined) return all
  if (typeof wanted === 'function') return all.filter((name) => wanted(name))
  const left = new Set(wanted)
  const chosen = all.filter((name) => left.delete(name))
  if (left.size === 0) return chosen
  const missing = [...left].slice(0, 10).join(', ')
  throw new CheckpointError(`${file} has no tensor ${missing}${left.size > 10 ? ` and ${left.size - 10} more` : ''}`, {
    file,
    tensor: [...left][0],
  })
}

export interface SavedEntry extends HeaderEntry {
  value: Tensor
}

/** Checks what is to be saved, in the given order. */
export function savedEntries(
  where: string,
  path: string,
  tensors: Readonly<Record<string, Tensor>>,
  metadata: Readonly<Record<string, string>>,
): SavedEntry[] {
  requireObject(where, 'tensors', tensors)
  requireObject(where, 'metadata', metadata)
  const fail = (what: string, fields: Record<string, unknown> = {}): never => {
    throw new CheckpointError(`${path}: ${what}`, { file: path, ...fields })
  }
  for (const [key, value] of Object.entries(metadata)) {
    if (typeof value !== 'string') fail(`the metadata '${key}' must be a text, got ${typeof value}`)
    if (!isWellFormed(key) || !isWellFormed(value)) fail(`the metadata '${key}' has half a character`)
  }
  return Object.entries(tensors).map(([name, value]) => {
    if (!(value instanceof Tensor)) fail(`'${name}' is not a tensor`, { tensor: name })
    const { dtype, shape } = value
    if (!isSafetensorsDType(dtype)) fail(`safetensors cannot hold '${name}', which is ${dtype}`, { tensor: name })
    if (value.device === 'meta') fail(`'${name}' is on the meta device and has no values`, { tensor: name })
    if (name === '__metadata__') fail('a tensor cannot be named __metadata__', { tensor: name })
    if (!isWellFormed(name)) fail(`the name '${name}' has half a character`, { tensor: name })
    return { name, value, dtype, shape }
  })
}

/** A surrogate without its other half has no place in UTF-8. */
function isWellFormed(text: string): boolean {
  return !/\p{Surrogate}/u.test(text)
}

export async function writeEntries(
  path: string,
  entries: readonly SavedEntry[],
  metadata: Readonly<Record<string, string>>,
): Promise<void> {
  // Wider elements first keeps every tensor aligned for readers that map the file.
  const order = [...entries].sort((a, b) => dtypeFacts(b.dtype).bytes - dtypeFacts(a.dtype).bytes)
  const header = buildHeader(path, order, metadata)
  await scope(() => writeFileParts(path, [bytePart(header), ...order.map(({ value }) => value)], CheckpointError))
}
