import { ConfigError } from '../base/errors.js'
import type { Tensor } from '../tensor/index.js'

export const sameShape = (a: number[], b: number[]): boolean =>
  a.length === b.length && a.every((size, dim) => size === b[dim])

/** A test for parameter names: RegExp, full name, module path, or glob in which `*` and `?` also match dots. */
export function matcher(pattern: string | RegExp): (name: string) => boolean {
  if (pattern instanceof RegExp) return (name) => name.search(pattern) >= 0
  if (typeof pattern !== 'string') throw new ConfigError(`a pattern is a string or RegExp, not ${typeof pattern}`)
  if (!/[*?]/.test(pattern)) return (name) => name === pattern || name.startsWith(`${pattern}.`)
  const source = pattern
    .replace(/[.+^${}()|[\]\\]/g, '\\$&')
    .replaceAll('*', '.*')
    .replaceAll('?', '.')
  const glob = new RegExp(`^${source}$`, 's')
  return (name) => glob.test(name)
}

/** Columns padded to their widest cell, numbers to the right. */
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
