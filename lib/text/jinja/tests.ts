import { bound, type Test } from './arguments.js'
import type { Work } from './errors.js'
import { filters } from './filters.js'
import type { Interpreter } from './interpreter.js'
import { binary } from './operators.js'
import { isLower, isUpper } from './strings.js'
import {
  Callable,
  compare,
  contains,
  Dict,
  equal,
  hasLength,
  Instance,
  isIterable,
  isNumber,
  isText,
  Markup,
  ordered,
  rawText,
  str,
  Undefined,
  type Value,
  View,
} from './values.js'

const comparison =
  (operator: string): Test =>
  ({ work }, value, callArgs) => {
    const [other] = bound(operator, callArgs, 1, 'other')
    if (operator === '==') return equal(value, other!, work)
    if (operator === '!=') return !equal(value, other!, work)
    return ordered(operator, compare(value, other!, operator, work))
  }

const kind =
  (name: string, test: (value: Value, interpreter: Interpreter) => boolean): Test =>
  (interpreter, value, callArgs) => {
    bound(name, callArgs, 0)
    return test(value, interpreter)
  }

const remainder = (value: Value, by: Value, work: Work): Value => binary('%', value, by, work)

/** Python's `in` for a dict with names as keys, which raises for lists and dicts. */
const isNameIn = (value: Value, names: ReadonlyMap<string, unknown>): boolean =>
  !new Dict().has(value) && isText(value) && names.has(rawText(value))

/** jinja2's tests. */
export const tests: ReadonlyMap<string, Test> = new Map<string, Test>([
  ['odd', kind('odd', (value, { work }) => equal(remainder(value, 2n, work), 1n, work))],
  ['even', kind('even', (value, { work }) => equal(remainder(value, 2n, work), 0n, work))],
  [
    'divisibleby',
    ({ work }, value, callArgs) => {
      const [by] = bound('divisibleby', callArgs, 1, 'num')
      return equal(remainder(value, by!, work), 0n, work)
    },
  ],
  ['defined', kind('defined', (value) => !(value instanceof Undefined))],
  ['undefined', kind('undefined', (value) => value instanceof Undefined)],
  ['filter', kind('filter', (value) => isNameIn(value, filters))],
  ['test', kind('test', (value) => isNameIn(value, tests))],
  ['none', kind('none', (value) => value === null)],
  ['boolean', kind('boolean', (value) => typeof value === 'boolean')],
  ['false', kind('false', (value) => value === false)],
  ['true', kind('true', (value) => value === true)],
  ['integer', kind('integer', (value) => typeof value === 'bigint')],
  ['float', kind('float', (value) => typeof value === 'number')],
  ['lower', kind('lower', (value, { work }) => isLower(str(value, work)))],
  ['upper', kind('upper', (value, { work }) => isUpper(str(value, work)))],
  ['string', kind('string', isText)],
  ['mapping', kind('mapping', (value) => value instanceof Dict)],
  ['number', kind('number', isNumber)],
  ['sequence', kind('sequence', (value) => hasLength(value) && !(value instanceof View || value instanceof Instance))],
  ['iterable', kind('iterable', (value) => isIterable(value))],
  [
    'callable',
    kind(
      'callable',
      (value) =>
        value instanceof Callable ||
        value instanceof Undefined ||
        (value instanceof Instance && value.call !== undefined),
    ),
  ],
  [
    'sameas',
    (_interpreter, value, callArgs) => {
      const [other] = bound('sameas', callArgs, 1, 'other')
      return value === other
    },
  ],
  ['escaped', kind('escaped', (value) => value instanceof Markup)],
  [
    'in',
    ({ work }, value, callArgs) => {
      const [container] = bound('in', callArgs, 1, 'seq')
      return contains(container!, value, work)
    },
  ],
  ['==', comparison('==')],
  ['eq', comparison('==')],
  ['equalto', comparison('==')],
  ['!=', comparison('!=')],
  ['ne', comparison('!=')],
  ['>', comparison('>')],
  ['gt', comparison('>')],
  ['greaterthan', comparison('>')],
  ['ge', comparison('>=')],
  ['>=', comparison('>=')],
  ['<', comparison('<')],
  ['lt', comparison('<')],
  ['lessthan', comparison('<')],
  ['<=', comparison('<=')],
  ['le', comparison('<=')],
])
