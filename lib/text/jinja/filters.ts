import { argumentError, bound, type Filter, softText, textFilter } from './arguments.js'
import { typeError, unsupported, type Work } from './errors.js'
import {
  batch,
  dictSort,
  extreme,
  first,
  groupBy,
  joinFilter,
  last,
  lazily,
  map,
  reverse,
  selection,
  slices,
  sort,
  sum,
  unique,
} from './filters-sequences.js'
import {
  escapedText,
  fileSize,
  indent,
  round,
  titled,
  toFloatFilter,
  toInt,
  truncate,
  urlEncode,
  wordWrap,
  xmlAttributes,
} from './filters-text.js'
import { printf } from './format.js'
import type { Interpreter } from './interpreter.js'
import { type JsonOptions, toJson } from './json.js'
import { capitalize, center, escapeHtml, pad, replace, strip } from './strings.js'
import {
  type CallArguments,
  Dict,
  indexOf,
  isNumber,
  isText,
  length,
  Markup,
  plainNumber,
  rawText,
  str,
  Tuple,
  toList,
  truthy,
  typeName,
  Undefined,
  type Value,
  View,
} from './values.js'

function attributes(interpreter: Interpreter, value: Value, callArgs: CallArguments): Value {
  const [name] = bound('attr', callArgs, 1, 'name')
  if (!isText(name!)) throw typeError(`attribute name must be string, not '${typeName(name!)}'`)
  return interpreter.access.ownAttribute(value, rawText(name))
}

function jsonFilter({ work }: Interpreter, value: Value, callArgs: CallArguments): Value {
  const [ascii, indentation, separators, sortKeys] = bound(
    'tojson',
    callArgs,
    0,
    'ensure_ascii',
    'indent',
    'separators',
    'sort_keys',
  )
  const indent =
    indentation === undefined || indentation === null
      ? null
      : isText(indentation)
        ? rawText(indentation)
        : pad(indexOf(indentation), ' ', work)
  const options: JsonOptions = {
    ascii: truthy(ascii ?? false),
    indent,
    itemSeparator: indent === null ? ', ' : ',',
    keySeparator: ': ',
    sortKeys: truthy(sortKeys ?? false),
  }
  if (separators !== undefined && separators !== null) {
    const [item, key, more] = toList(separators, work)
    if (more !== undefined || !isText(item ?? null) || !isText(key ?? null)) {
      throw typeError('separators must be two strings')
    }
    options.itemSeparator = rawText(item as string)
    options.keySeparator = rawText(key as string)
  }
  return toJson(value, options, work)
}

function formatFilter({ work }: Interpreter, value: Value, { args, kwargs }: CallArguments): Value {
  if (args.length > 0 && kwargs.size > 0) {
    throw argumentError("can't handle positional and keyword arguments at the same time")
  }
  return printf(softText(value, work), kwargs.size > 0 ? Dict.of(kwargs) : new Tuple(args), work)
}

/** Python's `\w`. */
const word = /[\p{L}\p{N}_]+/gu

const refused =
  (name: string): Filter =>
  () => {
    throw unsupported(`the filter '${name}'`)
  }

const markup =
  (name: string, use: (value: Value, work: Work) => string): Filter =>
  ({ work }, value, callArgs) => {
    bound(name, callArgs, 0)
    const text = use(value, work)
    work.text(text.length)
    return new Markup(text)
  }

const size: Filter = ({ work }, value, callArgs) => bound('len', callArgs, 0) && BigInt(length(value, work))

const standard: Filter = (_interpreter, value, callArgs) => {
  const [otherwise = '', boolean] = bound('default', callArgs, 0, 'default_value', 'boolean')
  return value instanceof Undefined || (truthy(boolean ?? false) && !truthy(value)) ? otherwise : value
}

/** jinja2's filters, with transformers' `tojson`. */
export const filters: ReadonlyMap<string, Filter> = new Map<string, Filter>([
  [
    'abs',
    (_interpreter, value, callArgs) => {
      bound('abs', callArgs, 0)
      if (value instanceof Undefined) value.fail()
      if (!isNumber(value)) throw typeError(`bad operand type for abs(): '${typeName(value)}'`)
      const number = plainNumber(value)
      return typeof number === 'bigint' ? (number < 0n ? -number : number) : Math.abs(number)
    },
  ],
  ['attr', attributes],
  ['batch', batch],
  ['capitalize', textFilter('capitalize', capitalize)],
  [
    'center',
    ({ work }, value, callArgs) => {
      const [width = 80n] = bound('center', callArgs, 0, 'width')
      const text = center(softText(value, work), indexOf(width), ' ', work)
      return value instanceof Markup ? new Markup(text) : text
    },
  ],
  ['count', size],
  ['d', standard],
  ['default', standard],
  ['dictsort', dictSort],
  ['e', markup('escape', escapedText)],
  ['escape', markup('escape', escapedText)],
  ['filesizeformat', fileSize],
  ['first', first],
  ['float', toFloatFilter],
  ['forceescape', markup('forceescape', (value, work) => escapeHtml(str(value, work)))],
  ['format', formatFilter],
  ['groupby', groupBy],
  ['indent', indent],
  ['int', toInt],
  [
    'items',
    ({ work }, value, callArgs) => {
      bound('items', callArgs, 0)
      return lazily(function* () {
        if (value instanceof Undefined) return
        if (!(value instanceof Dict)) throw typeError('Can only get item pairs from a mapping.')
        yield* toList(new View(value, 'items'), work)
      })
    },
  ],
  ['join', joinFilter],
  ['last', last],
  ['length', size],
  ['list', ({ work }, value, callArgs) => bound('list', callArgs, 0) && toList(value, work)],
  ['lower', textFilter('lower', (text) => text.toLowerCase())],
  ['map', map],
  ['max', extreme('max')],
  ['min', extreme('min')],
  ['pprint', refused('pprint')],
  ['random', refused('random')],
  ['reject', selection('reject', false, false)],
  ['rejectattr', selection('rejectattr', false, true)],
  [
    'replace',
    ({ work }, value, callArgs) => {
      const [old, by, count] = bound('replace', callArgs, 2, 'old', 'new', 'count')
      const most = count === undefined || count === null ? -1 : indexOf(count)
      return replace(str(value, work), str(old!, work), str(by!, work), most, work)
    },
  ],
  ['reverse', reverse],
  ['round', round],
  ['safe', markup('safe', str)],
  ['select', selection('select', true, false)],
  ['selectattr', selection('selectattr', true, true)],
  ['slice', slices],
  ['sort', sort],
  ['string', ({ work }, value, callArgs) => bound('string', callArgs, 0) && (isText(value) ? value : str(value, work))],
  ['striptags', refused('striptags')],
  ['sum', sum],
  ['title', textFilter('title', titled)],
  ['tojson', jsonFilter],
  [
    'trim',
    ({ work }, value, callArgs) => {
      const [chars] = bound('trim', callArgs, 0, 'chars')
      if (chars !== undefined && chars !== null && !isText(chars)) throw typeError('strip arg must be None or str')
      const text = strip(softText(value, work), chars === undefined || chars === null ? null : rawText(chars), 'both')
      work.text(text.length)
      return value instanceof Markup ? new Markup(text) : text
    },
  ],
  ['truncate', truncate],
  ['unique', unique],
  ['upper', textFilter('upper', (text) => text.toUpperCase())],
  ['urlencode', urlEncode],
  ['urlize', refused('urlize')],
  [
    'wordcount',
    ({ work }, value, callArgs) => {
      bound('wordcount', callArgs, 0)
      const text = softText(value, work)
      work.text(text.length)
      return BigInt(text.match(word)?.length ?? 0)
    },
  ],
  ['wordwrap', wordWrap],
  ['xmlattr', xmlAttributes],
])
