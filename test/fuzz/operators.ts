/** Calls of ATen's public operators, made from their schemas. */

import type { DType } from '../../lib/index.js'
import { op } from '../../lib/native/call.js'
import { functionNames, methodNames } from '../../lib/native/generated/names.js'
import { type Argument, camel, publicSchemas, type Schema } from '../../scripts/schemas.js'
import type { Random } from './random.js'
import { samples } from './samples.js'
import { type Fill, type Kind, type Spec, type TensorSpec, value, wildNumbers, wrongValues } from './values.js'

export type Form = 'function' | 'method' | 'queued'

/** One call: arguments by place, then options. */
export interface Call {
  form: Form
  args: Spec[]
  options: [string, Spec][]
}

export interface OperatorTarget {
  /** Such as `aten::add`. */
  operator: string
  functionName: string | null
  methodName: string | null
  /** A call that may well be right. */
  plausible(random: Random, attempt: number): Call
  /** A call with something wrong in it, made from a right one when there is any. */
  hostile(random: Random, valid: Call | null): Call
}

const shapes: readonly number[][] = [
  [],
  [3],
  [4],
  [2, 3],
  [3, 3],
  [4, 4],
  [2, 3, 4],
  [2, 4, 4],
  [1, 2, 4, 4],
  [2, 3, 4, 4],
  [1, 2, 4, 4, 4],
]
const shapeWeights = [1, 2, 3, 4, 4, 3, 4, 3, 4, 2, 2]
const weighted: number[][] = shapes.flatMap((shape, i) => new Array(shapeWeights[i]!).fill(shape))

const oddShapes: readonly number[][] = [
  [],
  [0],
  [1],
  [2],
  [5],
  [0, 3],
  [3, 0],
  [2, 0, 4],
  [7, 5],
  [1, 1],
  [1, 9],
  [3, 3, 3],
  [1, 1, 1, 1],
  [2, 2, 2, 2, 2],
  [1, 2, 1, 2, 1, 2],
  [1, 1, 1, 1, 1, 1, 1, 3],
  new Array(64).fill(1),
  new Array(66).fill(1),
  [0, 2 ** 31],
  [300],
  [17, 33],
]

export const dtypes: readonly DType[] = [
  'float32',
  'float64',
  'float16',
  'bfloat16',
  'int64',
  'int32',
  'int16',
  'int8',
  'uint8',
  'bool',
  'complex64',
  'complex128',
  'complex32',
  'uint16',
  'uint32',
  'uint64',
  'float8_e4m3fn',
  'float8_e5m2',
]
const commonDtypes: readonly DType[] = [
  ...new Array<DType>(14).fill('float32'),
  'float64',
  'float64',
  'int64',
  'int64',
  'int64',
  'bool',
  'complex64',
  'bfloat16',
]
const kinds: readonly Kind[] = [
  'transposed',
  'strided',
  'expanded',
  'sparse',
  'csr',
  'csc',
  'conjugate',
  'negated',
  'inference',
]
const fills: readonly Fill[] = ['normal', 'unit', 'zeros', 'ones', 'small', 'indices', 'nan', 'huge', 'negative']

const strings = [
  'sum',
  'mean',
  'none',
  'max',
  'prod',
  'amax',
  'constant',
  'reflect',
  'replicate',
  'circular',
  'floor',
  'trunc',
  'tanh',
  'reduced',
  'complete',
  'right',
  'left',
  'linear',
  'nearest',
  'fro',
  'nuc',
  'ij',
  'xy',
  'L',
  'U',
  'gelsy',
  'ij,jk->ik',
  'ii->i',
  '...i->...',
  'nonsense',
  '',
]

/** Properties that the arguments of one plausible call share. */
interface World {
  shape: number[]
  dtype: DType
}

const integers =
  /^(ind(ex|ices)|target|labels?|.*offsets?|.*lengths?|offset2bag|crow_indices|ccol_indices|col_indices|row_indices|repeats|pivots|LU_pivots|batch_sizes|sorter|counts?|input_ids)$/
const booleans = /^(.*mask|condition|found_inf)$/
const dimensions = /^(.*dims?|axis|.*dim\d|axis\d|source|destination)$/

function plausibleTensor(random: Random, argument: Argument, world: World): TensorSpec {
  const spec: TensorSpec = {
    is: 'tensor',
    shape: world.shape,
    dtype: world.dtype,
    fill: 'normal',
    seed: 1 + random.below(50),
  }
  if (integers.test(argument.name)) {
    spec.dtype = 'int64'
    spec.fill = 'indices'
    if (random.chance(0.5))
      spec.shape = random.pick([[1], [2], [3], [4], world.shape.slice(0, 1), world.shape.slice(0, -1)])
  } else if (booleans.test(argument.name) && random.chance(0.8)) {
    spec.dtype = 'bool'
    spec.fill = 'indices'
  } else {
    const roll = random.next()
    if (roll > 0.95) spec.dtype = random.pick(commonDtypes)
    if (roll < 0.1) spec.fill = random.pick(['unit', 'ones', 'small', 'indices'])
    else if (world.dtype === 'int64' || world.dtype === 'bool') spec.fill = 'small'
  }
  if (argument.name !== 'self' && argument.name !== 'input' && !integers.test(argument.name)) {
    const roll = random.next()
    if (roll < 0.08) spec.shape = world.shape.slice(-1)
    else if (roll < 0.14) spec.shape = world.shape.slice(1, 2)
    else if (roll < 0.2) spec.shape = []
    else if (roll < 0.26) spec.shape = [...world.shape.slice(0, -2), ...world.shape.slice(-2).reverse()]
    else if (roll < 0.32) spec.shape = random.pick(weighted)
  }
  if (random.chance(0.12) && (spec.dtype === 'float32' || spec.dtype === 'float64')) spec.grad = true
  if (random.chance(0.06)) spec.kind = random.pick(kinds)
  return spec
}

function plausibleInt(random: Random, name: string, world: World): number {
  if (dimensions.test(name)) return random.pick([-1, 0, 0, 1, 1, -2])
  if (name === 'reduction') return random.below(3)
  return random.pick([1, 1, 2, 2, 3, 0, 4, world.shape[0] ?? 1])
}

function plausibleInts(random: Random, argument: Argument, world: World): number[] {
  const fixed = /\[(\d+)\]/.exec(argument.type)?.[1]
  if (dimensions.test(argument.name))
    return random.pick([[0], [1], [-1], [0, 1], [-2, -1], [1, 0], [], [0, 1, 2], world.shape.map((_, i) => i)])
  if (/size|shape/.test(argument.name) && !/kernel/.test(argument.name) && random.chance(0.6)) {
    return random.pick([
      world.shape,
      world.shape,
      [2, 2],
      [-1],
      [1],
      [4],
      world.shape.slice(-2),
      world.shape.slice(-1),
      [2, 3, 4, 4],
    ])
  }
  const count = fixed === undefined ? random.pick([1, 2, 2, 3, 4, 6, world.shape.length]) : Number(fixed)
  const one = random.pick([1, 1, 2, 2, 3, 0])
  return Array.from({ length: count }, () => (random.chance(0.8) ? one : random.pick([0, 1, 2, 3])))
}

function plausible(random: Random, argument: Argument, world: World): Spec {
  const { type, name } = argument
  switch (type) {
    case 'Tensor':
      return plausibleTensor(random, argument, world)
    case 'Tensor[]':
    case 'Tensor?[]':
      return {
        is: 'list',
        items: Array.from({ length: random.pick([1, 2, 2, 3, 4]) }, () => plausibleTensor(random, argument, world)),
      }
    case 'int':
    case 'SymInt':
      return value(plausibleInt(random, name, world))
    case 'float':
    case 'SymFloat':
      return value(random.pick([0, 0.5, 1, 1, 2, 0.1, 1e-5]))
    case 'float[]':
      return { is: 'list', items: Array.from({ length: 1 + random.below(4) }, () => value(random.pick([0.5, 1, 2]))) }
    case 'bool':
    case 'SymBool':
      return value(random.chance(0.5))
    case 'bool[]':
      return { is: 'list', items: Array.from({ length: 1 + random.below(3) }, () => value(random.chance(0.5))) }
    case 'Scalar':
    case 'number':
      return value(random.pick([1, 2, 0, 0.5, -1, 3]))
    case 'str':
      return value(random.pick(strings))
    case 'ScalarType':
      return value(random.pick(commonDtypes))
    case 'Device':
      return value(random.pick(['cpu', 'cpu', 'meta']))
    case 'Layout':
      return value(random.pick(['strided', 'strided', 'sparse_coo']))
    case 'MemoryFormat':
      return value(random.pick(['contiguous', 'preserve', 'channels_last', 'channels_last_3d']))
    case 'Generator':
      return value(null)
  }
  if (/^(Sym)?[iI]nt\[\d*\]$/.test(type)) {
    return { is: 'list', items: plausibleInts(random, argument, world).map(value) }
  }
  if (/^bool\[\d\]$/.test(type))
    return { is: 'list', items: [value(true), value(true), value(true)].slice(0, Number(type[5])) }
  if (/^(Scalar|number)\[\]$/.test(type)) return { is: 'list', items: [value(1), value(2)] }
  return value(null)
}

function hostileTensor(random: Random, spec: TensorSpec): TensorSpec {
  const changed: TensorSpec = { ...spec }
  switch (random.below(8)) {
    case 0:
    case 1:
      changed.shape = random.pick(random.chance(0.7) ? oddShapes : shapes)
      break
    case 2:
      changed.dtype = random.pick(dtypes)
      break
    case 3:
      changed.device = 'meta'
      break
    case 4:
      changed.state = random.pick(['disposed', 'disposed', 'forged', 'foreign', 'cloned'])
      break
    case 5:
      changed.fill = random.pick(fills)
      break
    case 6:
      changed.kind = random.pick(kinds)
      break
    default:
      changed.shape = random.pick(oddShapes)
      changed.dtype = random.pick(dtypes)
      changed.fill = random.pick(fills)
      if (random.chance(0.3)) changed.kind = random.pick(kinds)
      if (random.chance(0.2)) changed.grad = true
  }
  return changed
}

/** An entry of a name that is not there yet. */
function fresh(random: Random, entries: [string, Spec][]): [string, Spec][] {
  const name = random.pick(['nonsense', 'dim', 'dtype', 'device', '__proto__'])
  return entries.some(([other]) => other === name) ? [] : [[name, random.pick(wrongValues)]]
}

/** The same kind of value with something off, or another kind of value. */
export function spoil(random: Random, spec: Spec): Spec {
  if (random.chance(0.12)) return random.pick(wrongValues)
  switch (spec.is) {
    case 'tensor':
      return random.chance(0.03) ? value(random.pick(wildNumbers)) : hostileTensor(random, spec)
    case 'list': {
      const items = [...spec.items]
      const roll = random.next()
      if (items.length === 0 || roll < 0.15)
        items.push(items.length > 0 ? random.pick(items) : value(random.pick(wildNumbers)))
      else if (roll < 0.3) items.splice(random.below(items.length), 1)
      else if (roll < 0.34) return { is: 'list', items: [] }
      else if (roll < 0.38) return { is: 'list', items: Array.from({ length: 70 }, () => random.pick(items)) }
      else if (roll < 0.45 && items.every((item) => item.is === 'value')) {
        const wild = value(random.pick(wildNumbers))
        return { is: 'list', items: items.map(() => wild) }
      } else {
        const at = random.below(items.length)
        items[at] = spoil(random, items[at]!)
      }
      return { is: 'list', items }
    }
    case 'value':
      if (typeof spec.value === 'number' || typeof spec.value === 'bigint') return value(random.pick(wildNumbers))
      if (typeof spec.value === 'boolean') return random.chance(0.5) ? value(!spec.value) : random.pick(wrongValues)
      if (typeof spec.value === 'string')
        return value(
          random.pick<unknown>([...strings, ...dtypes, 'cuda', 'cuda:0', 'cuda:99', 'meta', 'cpu:3', 'xla', 7]),
        )
      return random.chance(0.5) ? value(random.pick(wildNumbers)) : random.pick(wrongValues)
    case 'object': {
      const entries = [...spec.entries]
      const roll = random.next()
      if (entries.length === 0 || roll < 0.1) entries.push(...fresh(random, entries))
      else if (roll < 0.2) entries.splice(random.below(entries.length), 1)
      else {
        const at = random.below(entries.length)
        entries[at] = [entries[at]![0], spoil(random, entries[at]![1])]
      }
      return { is: 'object', entries }
    }
    case 'made':
      return random.pick(wrongValues)
  }
}

/** A value of the argument's type, whatever the others are. */
function wild(random: Random, argument: Argument): Spec {
  const spec = plausible(random, argument, {
    shape: random.pick(random.chance(0.5) ? oddShapes : shapes),
    dtype: random.pick(dtypes),
  })
  return random.chance(0.5) ? spoil(random, spec) : spec
}

const isOut = (schema: Schema): boolean => schema.arguments.some((argument) => argument.keywordOnly && argument.written)

/** With gradients. */
function recorded(spec: Spec): Spec {
  if (spec.is === 'list') return { is: 'list', items: spec.items.map(recorded) }
  return spec.is === 'tensor' && /^b?float/.test(spec.dtype) ? { ...spec, grad: true } : spec
}

/** Arguments given by place as far as there are no gaps, the rest by name. */
function arrange(random: Random, schema: Schema, specs: Map<Argument, Spec>, forms: readonly Form[]): Call {
  const args: Spec[] = []
  const options: [string, Spec][] = []
  let open = true
  for (const argument of schema.arguments) {
    const spec = specs.get(argument)
    if (spec === undefined) {
      open = false
      continue
    }
    if (argument.keywordOnly) open = false
    if (open) args.push(spec)
    else options.push([camel(argument.name), spec])
  }
  return { form: random.pick(forms), args, options }
}

export function operatorTargets(): OperatorTarget[] {
  const schemas = publicSchemas(op('voxtorch::operator_schemas')())
  const functions = new Map(functionNames.map(([name, operator]) => [operator, name]))
  const methods = new Map(methodNames.map(([name, operator]) => [operator, name]))
  return [...new Set([...functions.keys(), ...methods.keys()])].sort().map((operator) => {
    const name = operator.slice('aten::'.length)
    const all = schemas.get(name)!
    const usual = all.filter((schema) => !isOut(schema))
    const functionName = functions.get(operator) ?? null
    const methodName = methods.get(operator) ?? null
    const formsOf = (schema: Schema): Form[] => {
      const forms: Form[] = ['function', 'function', 'function', 'queued']
      const first = schema.arguments[0]
      if (methodName !== null && first?.name === 'self' && first.type === 'Tensor')
        forms.push('method', 'method', 'method')
      return forms
    }
    const known = samples[name] ?? []
    return {
      operator,
      functionName,
      methodName,
      plausible(random, attempt) {
        if (attempt < known.length) return { form: 'function', options: [], ...known[attempt] } as Call
        const schema = random.pick(usual.length > 0 ? usual : all)
        const world: World = { shape: random.pick(weighted), dtype: random.pick(commonDtypes) }
        const specs = new Map<Argument, Spec>()
        for (const argument of schema.arguments) {
          if (argument.hasDefault && random.chance(0.7)) continue
          specs.set(
            argument,
            argument.optional && random.chance(0.55) ? value(null) : plausible(random, argument, world),
          )
        }
        return arrange(random, schema, specs, formsOf(schema))
      },
      hostile(random, valid) {
        if (valid !== null && random.chance(0.1)) return { ...valid, args: valid.args.map(recorded) }
        if (valid !== null && random.chance(0.6)) {
          const call: Call = { form: valid.form, args: [...valid.args], options: [...valid.options] }
          const count = random.chance(0.75) ? 1 : 2
          for (let i = 0; i < count; i += 1) {
            const place = random.below(call.args.length + call.options.length + 1)
            if (place < call.args.length) call.args[place] = spoil(random, call.args[place]!)
            else if (place < call.args.length + call.options.length) {
              const [key, spec] = call.options[place - call.args.length]!
              call.options[place - call.args.length] = random.chance(0.1)
                ? [`${key}x`, spec]
                : [key, spoil(random, spec)]
            } else {
              // An argument that was left to its default, one too many, one too few, or an out= that does not fit.
              const roll = random.next()
              const schema = random.pick(all)
              const argument = schema.arguments.length > 0 ? random.pick(schema.arguments) : undefined
              if (roll < 0.6 && argument !== undefined && !call.options.some(([key]) => key === camel(argument.name))) {
                call.options.push([camel(argument.name), wild(random, argument)])
              } else if (roll < 0.8 || call.args.length === 0) call.args.push(random.pick(wrongValues))
              else call.args.pop()
            }
          }
          return call
        }
        const schema = random.pick(random.chance(0.9) && usual.length > 0 ? usual : all)
        const world: World = {
          shape: random.pick(weighted),
          dtype: random.pick(random.chance(0.5) ? commonDtypes : dtypes),
        }
        const specs = new Map<Argument, Spec>()
        for (const argument of schema.arguments) {
          if (argument.hasDefault && random.chance(0.5)) continue
          if (argument.optional && random.chance(0.3)) specs.set(argument, value(null))
          else specs.set(argument, random.chance(0.35) ? wild(random, argument) : plausible(random, argument, world))
        }
        return arrange(random, schema, specs, formsOf(schema))
      },
    } satisfies OperatorTarget
  })
}
