import { CheckpointError, ConfigError } from '../base/errors.js'
import type { Tensor } from '../tensor/index.js'

export const sameShape = (a: number[], b: number[]): boolean =>
  a.length === b.length && a.every((size, dim) => size === b[dim])

/** Return the path of the member `name` of a module at `path`. */
export const joined = (path: string, name: string): string => (path === '' ? name : `${path}.${name}`)

/** Return names for a message: the first ones, and how many more there are. */
export const listed = (names: readonly string[], most = 10): string =>
  names.length > most ? `${names.slice(0, most).join(', ')} and ${names.length - most} more` : names.join(', ')

/** Differences between the tensors of a file and those of a network, by name. */
export interface Differences {
  missing: string[]
  unexpected: string[]
  /** `actual` is the file's shape, or a description of the file's entry if that is not a tensor. */
  mismatched: { name: string; expected: number[]; actual: number[] | string }[]
}

/** Compare the tensors of `given` with the expected ones. */
export function differences(
  own: Record<string, Tensor>,
  given: { has(name: string): boolean; get(name: string): Tensor | undefined; keys(): Iterable<string> },
): Differences {
  const mismatched = Object.entries(own).flatMap(([name, { shape: expected }]) => {
    const actual = given.get(name)?.shape
    return actual && !sameShape(expected, actual) ? [{ name, expected, actual }] : []
  })
  return {
    missing: Object.keys(own).filter((name) => !given.has(name)),
    unexpected: [...given.keys()].filter((name) => !Object.hasOwn(own, name)),
    mismatched,
  }
}

export const areAlike = ({ missing, unexpected, mismatched }: Differences): boolean =>
  missing.length + unexpected.length + mismatched.length === 0

/** Return the error for a file or state dictionary that does not match: `sentence`, followed by the differences. */
export function misfit(
  sentence: string,
  { missing, unexpected, mismatched }: Differences,
  fields: Record<string, unknown> = {},
  describe = (name: string, actual: string, expected: string): string => `${name} is ${actual}, expected ${expected}`,
): CheckpointError {
  const shapes = mismatched.map(({ name, expected, actual }) =>
    describe(name, typeof actual === 'string' ? actual : `[${actual}]`, `[${expected}]`),
  )
  const parts = Object.entries({ missing, unexpected, 'mis-shaped': shapes })
    .filter(([, names]) => names.length > 0)
    .map(([what, names]) => `; ${what}: ${listed(names)}`)
  return new CheckpointError(sentence + parts.join(''), { ...fields, missing, unexpected, mismatched })
}

/** Return a predicate for parameter names: RegExp, full name, module path, or glob in which `*` and `?` also match dots. */
export function matcher(pattern: string | RegExp): (name: string) => boolean {
  if (pattern instanceof RegExp) return (name) => name.search(pattern) >= 0
  if (typeof pattern !== 'string')
    throw new ConfigError(`expected a pattern that is a string or RegExp, got ${typeof pattern}`)
  if (!/[*?]/.test(pattern)) return (name) => name === pattern || name.startsWith(`${pattern}.`)
  const source = pattern
    .replace(/[.+^${}()|[\]\\]/g, '\\$&')
    .replaceAll('*', '.*')
    .replaceAll('?', '.')
  const glob = new RegExp(`^${source}$`, 's')
  return (name) => glob.test(name)
}

/** Format columns padded to their widest cell, with numbers aligned to the right. */
export function summaryTable(title: string, parameters: [string, Tensor][], buffers: [string, Tensor][]): string {
  const size = (named: [string, Tensor][]) => named.reduce((sum, [, tensor]) => sum + tensor.numel(), 0)
  const trainable = parameters.filter(([, tensor]) => tensor.requiresGrad)
  const rows = [
    ['parameter', 'shape', 'dtype', 'trained', 'count'],
    ...parameters.map(([name, tensor]) => [
      name,
      `[${tensor.shape.join(', ')}]`,
      tensor.dtype,
      tensor.requiresGrad ? 'yes' : 'no',
      group(tensor.numel()),
    ]),
  ]
  const widths = [0, 1, 2, 3, 4].map((column) => Math.max(...rows.map((row) => row[column]!.length)))
  const lines = rows.map((row) =>
    row.map((cell, column) => (column === 4 ? cell.padStart(widths[4]!) : cell.padEnd(widths[column]!))).join('  '),
  )
  const total = `${title}: ${group(size(parameters))} parameters, ${group(size(trainable))} trained`
  return [...lines, buffers.length > 0 ? `${total}, ${group(size(buffers))} in buffers` : total].join('\n')
}

const group = (count: number): string => count.toLocaleString('en-US')
