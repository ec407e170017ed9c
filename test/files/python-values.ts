import { readFileSync } from 'node:fs'
import { gunzipSync } from 'node:zlib'
import { isTensor, scope, type Tensor, tensor } from '../../lib/index.js'
import { fixturePath } from '../helpers.js'

/** The other side of test/reference/data_values.py. */

export interface PythonCase {
  name: string
  file: Buffer
  /** What Python reads in the file, as data_values.py describes it. */
  value: unknown
  [fact: string]: unknown
}

export function pythonCases(name: string): PythonCase[] {
  const text = gunzipSync(readFileSync(fixturePath(`data/${name}.json.gz`))).toString()
  return JSON.parse(text).map((entry: PythonCase & { file: string }) => ({
    ...entry,
    file: Buffer.from(entry.file, 'base64'),
  }))
}

type Described = { [tag: string]: unknown }

/** Where a value is not what Python has, and how; undefined where all is equal. */
export function difference(actual: unknown, expected: unknown, path = 'value'): string | undefined {
  const differs = (what: unknown = expected) =>
    `${path} is ${typeof actual === 'bigint' ? `${actual}n` : String(actual)}, expected ${JSON.stringify(what)}`
  if (expected === null || typeof expected !== 'object') return Object.is(actual, expected) ? undefined : differs()
  if (Array.isArray(expected)) {
    if (!Array.isArray(actual) || actual.length !== expected.length) return differs(`${expected.length} items`)
    return first(expected, (item, i) => difference(actual[i], item, `${path}[${i}]`))
  }
  const [[tag, value]] = Object.entries(expected as Described) as [[string, unknown]]
  switch (tag) {
    case 'i': {
      const exact = BigInt(value as string)
      const wanted = Number.isSafeInteger(Number(exact)) ? Number(exact) : exact
      return Object.is(actual, wanted) ? undefined : differs()
    }
    case 'f':
      return Object.is(actual, floatOf(value as string)) ? undefined : differs()
    case 'c': {
      const [re, im] = (value as string[]).map(floatOf)
      const { re: a, im: b } = actual as { re: number; im: number }
      return Object.is(a, re) && Object.is(b, im) ? undefined : differs()
    }
    case 'b':
      return actual instanceof Uint8Array && Buffer.from(actual).toString('base64') === value ? undefined : differs()
    case 'set': {
      const items = value as unknown[]
      if (!(actual instanceof Set) || actual.size !== items.length) return differs()
      return first(items, (item) =>
        [...actual].some((one) => difference(one, item) === undefined) ? undefined : differs(item),
      )
    }
    case 'd':
      return dictDifference(actual, value as [unknown, unknown][], path) ?? undefined
    case 't':
      return tensorDifference(actual, value as TensorDescription, path)
    default:
      throw new Error(`unknown tag ${tag}`)
  }
}

function first<T>(items: T[], check: (item: T, i: number) => string | undefined): string | undefined {
  for (const [i, item] of items.entries()) {
    const found = check(item, i)
    if (found !== undefined) return found
  }
  return undefined
}

function floatOf(text: string): number {
  return text === 'inf' ? Number.POSITIVE_INFINITY : text === '-inf' ? Number.NEGATIVE_INFINITY : Number(text)
}

function dictDifference(actual: unknown, entries: [unknown, unknown][], path: string): string | undefined {
  if (entries.every(([key]) => typeof key === 'string')) {
    if (typeof actual !== 'object' || actual === null || Object.getPrototypeOf(actual) !== null)
      return `${path} is no dict`
    const keys = Object.keys(actual)
    if (keys.length !== entries.length) return `${path} has the keys ${keys}`
    return first(entries, ([key, value]) => {
      if (!Object.hasOwn(actual, key as string)) return `${path} has no ${String(key)}`
      return difference((actual as Described)[key as string], value, `${path}.${String(key)}`)
    })
  }
  if (!(actual instanceof Map) || actual.size !== entries.length) return `${path} is no Map of ${entries.length}`
  const pairs = [...actual]
  return first(entries, ([key, value], i) => {
    const [actualKey, actualValue] = pairs[i]!
    return (
      difference(actualKey, key, `${path}'s key`) ?? difference(actualValue, value, `${path}[${String(actualKey)}]`)
    )
  })
}

export interface TensorDescription {
  dtype: string
  shape: number[]
  strides: number[]
  bytes: string
  grad?: boolean
}

function tensorDifference(actual: unknown, expected: TensorDescription, path: string): string | undefined {
  if (!isTensor(actual)) return `${path} is ${String(actual)}, expected a tensor`
  const facts = { dtype: actual.dtype, shape: actual.shape, strides: actual.strides, grad: actual.requiresGrad }
  const wanted = {
    dtype: expected.dtype,
    shape: expected.shape,
    strides: expected.strides,
    grad: expected.grad === true,
  }
  if (JSON.stringify(facts) !== JSON.stringify(wanted)) {
    return `${path} is ${JSON.stringify(facts)}, expected ${JSON.stringify(wanted)}`
  }
  const bytes = tensorBytes(actual).toString('base64')
  return bytes === expected.bytes ? undefined : `${path} has the bytes ${bytes}, expected ${expected.bytes}`
}

/** A tensor's bytes, row by row. */
export function tensorBytes(value: Tensor): Buffer {
  return scope(() => {
    const flat = value.detach().resolveConj().resolveNeg().contiguous().asStrided([value.numel()], [1])
    const bytes = flat.dtype === 'bool' ? flat.to('uint8') : flat.view('uint8')
    return Buffer.from(bytes.dataSync() as Uint8Array)
  })
}

/** Makes the tensor that a description describes. */
export function describedTensor({ dtype, shape, bytes }: TensorDescription): Tensor {
  return tensor(Buffer.from(bytes, 'base64'), { dtype: dtype as Tensor['dtype'], shape })
}
