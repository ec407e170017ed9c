import { requireRecord } from '../../base/arguments.js'
import { CheckpointError, DTypeError } from '../../base/errors.js'
import { dtypeFacts } from '../../tensor/dtype.js'
import { scope, Tensor } from '../../tensor/index.js'
import { type ByteSource, quoted } from '../byte-source.js'
import { bytePart, readPlaces, type TensorPlace, writeFileParts } from '../file-tensors.js'
import { buildHeader, type HeaderEntry, isSafetensorsDType, readHeader } from './header.js'
import type { LoadSafetensorsOptions, SafetensorsFile } from './types.js'

/** Load the tensors of a valid source. Call inside a scope. */
export async function loadFrom(source: ByteSource, options: LoadSafetensorsOptions = {}): Promise<SafetensorsFile> {
  const { tensors: entries, metadata } = await readHeader(source)
  const names = chosenNames(Object.keys(entries), options.names, source.place.file)
  const places = names.map((name): TensorPlace => {
    const { dtype, format, offset, shape } = entries[name]!
    if (dtype !== null) return { dtype, offset, shape }
    const { file } = source.place
    throw new DTypeError(
      `${file}: expected a supported dtype, but ${quoted(name)} is ${format}. Leave it out with \`names\``,
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

/** Return the names that a caller selected, in the order of `all`. */
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
  throw new CheckpointError(
    `${file}: expected the tensor ${missing}${left.size > 10 ? ` and ${left.size - 10} more` : ''}`,
    {
      file,
      tensor: [...left][0],
    },
  )
}

export interface SavedEntry extends HeaderEntry {
  value: Tensor
}

/** Check the tensors to be saved, in the given order. */
export function savedEntries(
  where: string,
  path: string,
  tensors: Readonly<Record<string, Tensor>>,
  metadata: Readonly<Record<string, string>>,
): SavedEntry[] {
  requireRecord(where, tensors, [], 'tensors')
  requireRecord(where, metadata, [], 'metadata')
  const fail = (what: string, fields: Record<string, unknown> = {}): never => {
    throw new CheckpointError(`${path}: ${what}`, { file: path, ...fields })
  }
  for (const [key, value] of Object.entries(metadata)) {
    if (typeof value !== 'string') fail(`expected the metadata '${key}' to be a string, got ${typeof value}`)
    if (!isWellFormed(key) || !isWellFormed(value))
      fail(`expected well-formed text in the metadata '${key}', got a lone surrogate`)
  }
  return Object.entries(tensors).map(([name, value]) => {
    if (!(value instanceof Tensor))
      fail(`'${name}' is not a tensor. Write other values with writeJson.`, { tensor: name })
    const { dtype, shape } = value
    if (!isSafetensorsDType(dtype))
      fail(`expected a dtype that safetensors can store, but '${name}' is ${dtype}`, { tensor: name })
    if (value.device === 'meta') fail(`'${name}' is on the meta device and has no values`, { tensor: name })
    if (name === '__metadata__') fail('a tensor cannot be named __metadata__', { tensor: name })
    if (!isWellFormed(name)) fail(`expected a well-formed name, but '${name}' has a lone surrogate`, { tensor: name })
    return { name, value, dtype, shape }
  })
}

/** Return whether a text has no lone surrogates, which UTF-8 cannot encode. */
function isWellFormed(text: string): boolean {
  return !/\p{Surrogate}/u.test(text)
}

export async function writeEntries(
  path: string,
  entries: readonly SavedEntry[],
  metadata: Readonly<Record<string, string>>,
): Promise<void> {
  // Writing wider elements first keeps every tensor aligned for readers that map the file.
  const order = [...entries].sort((a, b) => dtypeFacts(b.dtype).bytes - dtypeFacts(a.dtype).bytes)
  const header = buildHeader(path, order, metadata)
  await scope(() => writeFileParts(path, [bytePart(header), ...order.map(({ value }) => value)], CheckpointError))
}
