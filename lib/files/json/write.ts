import { DataError } from '../../base/errors.js'
import { withArticle } from '../../base/words.js'
import { MAX_DEPTH } from './scan.js'

/** A number that is written with a decimal point, for programs that distinguish `4.0` from `4`, like Python's. */
export class JsonFloat {
  constructor(readonly value: number) {}
}

/**
 * Return the JSON text of a value. Where `JSON.stringify` would silently lose data, or fail, this throws an error with the
 * path: NaN and the infinities, typed arrays, cycles. A bigint is written as an integer.
 * @param indent spaces per level; 0 writes everything on one line
 * @throws DataError for a value that JSON cannot store
 */
export function stringifyJson(value: unknown, indent = 0): string {
  const [colon, space] = indent > 0 ? [': ', ' '.repeat(indent)] : [':', '']
  const above: object[] = []
  const path: (string | number)[] = []

  const fail = (what: string): never => {
    const where =
      path.length === 0 ? 'the value' : path.map((key) => (typeof key === 'number' ? `[${key}]` : `.${key}`)).join('')
    throw new DataError(`${where.replace(/^\./, '')} is ${what}`, { path: [...path] })
  }

  function text(item: unknown): string | undefined {
    switch (typeof item) {
      case 'string':
        return JSON.stringify(item)
      case 'boolean':
        return item ? 'true' : 'false'
      case 'bigint':
        return String(item)
      case 'number':
        if (!Number.isFinite(item)) fail(`${item}, which JSON cannot hold; write null or a text instead`)
        return Object.is(item, -0) ? '-0.0' : String(item)
      case 'object':
        if (item === null) return 'null'
        return item instanceof JsonFloat ? float(item.value) : collection(item)
      case 'undefined':
        return undefined
      default:
        return fail(`${withArticle(typeof item)}, which JSON cannot hold`)
    }
  }

  function float(value: number): string {
    const written = text(value) as string
    return /^-?\d+$/.test(written) ? `${written}.0` : written
  }

  function collection(item: object): string | undefined {
    if ('toJSON' in item && typeof item.toJSON === 'function') return text(item.toJSON())
    if (ArrayBuffer.isView(item) || item instanceof ArrayBuffer) {
      fail(`${withArticle(item.constructor.name)}; write Array.from(…) of it`)
    }
    if (item instanceof Map || item instanceof Set)
      fail(`${withArticle(item.constructor.name)}; write an object or an array`)
    if (above.includes(item)) fail('part of itself')
    if (above.length >= MAX_DEPTH) fail(`nested deeper than ${MAX_DEPTH} levels`)
    above.push(item)
    const result = Array.isArray(item) ? array(item) : object(item as Record<string, unknown>)
    above.pop()
    return result
  }

  function array(items: readonly unknown[]): string {
    const parts: string[] = []
    for (let i = 0; i < items.length; i++) {
      path.push(i)
      parts.push(text(items[i]) ?? fail('undefined; write null instead'))
      path.pop()
    }
    return wrapped('[', parts, ']')
  }

  function object(items: Record<string, unknown>): string {
    const parts: string[] = []
    for (const [name, item] of Object.entries(items)) {
      path.push(name)
      const written = text(item)
      if (written !== undefined) parts.push(JSON.stringify(name) + colon + written)
      path.pop()
    }
    return wrapped('{', parts, '}')
  }

  function wrapped(open: string, parts: string[], close: string): string {
    if (parts.length === 0) return open + close
    if (space === '') return open + parts.join(',') + close
    const [inner, outer] = [`\n${space.repeat(above.length)}`, `\n${space.repeat(above.length - 1)}`]
    return open + inner + parts.join(`,${inner}`) + outer + close
  }

  return text(value) ?? fail('undefined, which JSON cannot hold')
}
