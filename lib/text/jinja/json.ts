import { typeError, type Work } from './errors.js'
import { floatText } from './numbers.js'
import {
  Dict,
  integerText,
  isInteger,
  isList,
  isText,
  plainNumber,
  rawText,
  sorted,
  Tuple,
  typeName,
  type Value,
} from './values.js'

export interface JsonOptions {
  ascii: boolean
  /** Indentation of one level; null for a single line. */
  indent: string | null
  itemSeparator: string
  keySeparator: string
  sortKeys: boolean
}

/** Python's `json.dumps`. */
export function toJson(value: Value, options: JsonOptions, work: Work): string {
  const text = written(value, options, '\n', work)
  work.text(text.length)
  return text
}

function written(value: Value, options: JsonOptions, line: string, work: Work): string {
  work.spend(1)
  if (value === null) return 'null'
  if (typeof value === 'boolean') return String(value)
  if (typeof value === 'bigint') return integerText(value)
  if (typeof value === 'number') return jsonFloat(value)
  if (isText(value)) return quoted(rawText(value), options.ascii, work)
  work.enter()
  const inner = options.indent === null ? line : line + options.indent
  let parts: string[]
  let brackets = '[]'
  if (isList(value) || value instanceof Tuple) {
    const items = isList(value) ? value : value.items
    parts = items.map((item) => written(item, options, inner, work))
  } else if (value instanceof Dict) {
    brackets = '{}'
    let entries = [...value.entries()]
    if (options.sortKeys) entries = sorted(entries, ([key]) => key, false, work)
    parts = entries.map(
      ([key, item]) =>
        quoted(keyText(key), options.ascii, work) + options.keySeparator + written(item, options, inner, work),
    )
  } else throw typeError(`Object of type ${typeName(value)} is not JSON serializable`)
  work.leave()
  const [open, close] = brackets
  if (parts.length === 0) return brackets
  let size = 0
  for (const part of parts) size += part.length + inner.length + options.itemSeparator.length
  work.text(size)
  if (options.indent === null) return open + parts.join(options.itemSeparator) + close
  return open + inner + parts.join(options.itemSeparator + inner) + line + close
}

const jsonFloat = (value: number): string =>
  Number.isFinite(value) ? floatText(value) : Number.isNaN(value) ? 'NaN' : value > 0 ? 'Infinity' : '-Infinity'

function keyText(key: Value): string {
  if (isText(key)) return rawText(key)
  if (key === null) return 'null'
  if (typeof key === 'boolean') return String(key)
  if (isInteger(key)) return integerText(plainNumber(key) as bigint)
  if (typeof key === 'number') return jsonFloat(key)
  throw typeError(`keys must be str, int, float, bool or None, not ${typeName(key)}`)
}

const escapes: Record<string, string> = {
  '"': '\\"',
  '\\': '\\\\',
  '\n': '\\n',
  '\r': '\\r',
  '\t': '\\t',
  '\f': '\\f',
  '\b': '\\b',
}

function quoted(text: string, ascii: boolean, work: Work): string {
  work.text(text.length)
  // biome-ignore lint/suspicious/noControlCharactersInRegex: JSON escapes them
  const pattern = ascii ? /["\\]|[^ -~]/g : /["\\\x00-\x1f]/g
  return `"${text.replace(pattern, (unit) => escapes[unit] ?? `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`)}"`
}
