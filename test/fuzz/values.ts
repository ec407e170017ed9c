/**
 * Arguments as descriptions: they can be made afresh for every call, changed one at a time, and printed as the JavaScript
 * that makes them.
 */
import { type DType, Generator, inferenceMode, Module, ops, slice, Tensor, tensor, zeros } from '../../lib/index.js'
import { Random } from './random.js'

export type Fill = 'normal' | 'unit' | 'zeros' | 'ones' | 'small' | 'indices' | 'nan' | 'huge' | 'negative'
export type Kind =
  | 'dense'
  | 'transposed'
  | 'strided'
  | 'expanded'
  | 'sparse'
  | 'csr'
  | 'csc'
  | 'conjugate'
  | 'negated'
  | 'inference'
export type State = 'live' | 'disposed' | 'forged' | 'foreign' | 'cloned'

export interface TensorSpec {
  is: 'tensor'
  shape: number[]
  dtype: DType
  fill: Fill
  seed: number
  device?: 'cpu' | 'meta'
  kind?: Kind
  grad?: boolean
  state?: State
}

export type Spec =
  | TensorSpec
  | { is: 'value'; value: unknown }
  | { is: 'list'; items: Spec[] }
  | { is: 'object'; entries: [string, Spec][] }
  | { is: 'made'; text: string; make: () => unknown }

export const value = (it: unknown): Spec => ({ is: 'value', value: it })
export const list = (items: readonly unknown[]): Spec => ({ is: 'list', items: items.map(value) })
export const made = (text: string, make: () => unknown): Spec => ({ is: 'made', text, make })
export const dense = (shape: number[], fill: Fill = 'normal', dtype: DType = 'float32', seed = 1): TensorSpec => ({
  is: 'tensor',
  shape,
  dtype,
  fill,
  seed,
})
export const indices = (shape: number[], dtype: DType = 'int64'): TensorSpec => dense(shape, 'indices', dtype)

const numberOf: Record<Fill, (random: Random) => number> = {
  normal: (random) => (random.next() + random.next() + random.next() - 1.5) * 2,
  unit: (random) => random.next(),
  zeros: () => 0,
  ones: () => 1,
  small: (random) => random.below(4),
  indices: (random) => random.below(2),
  nan: (random) => random.pick([Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, 1]),
  huge: (random) => random.pick([2 ** 31, 2 ** 53, 2 ** 62, -(2 ** 62), 2 ** 31 - 1, 2 ** 40, 3.4e38, 1e300]),
  negative: (random) => -1 - random.below(1000),
}

/** Numbers of tensors that belong to a worker thread, set by the child. */
export const foreignHandles: number[] = []

const forgedHandles = [
  12345,
  0,
  1,
  -1,
  0.5,
  Number.NaN,
  Number.POSITIVE_INFINITY,
  Number.MAX_SAFE_INTEGER,
  2 ** 63,
  -(2 ** 63),
  2 ** 24,
]

function base(spec: TensorSpec): Tensor {
  const { shape, dtype, fill, seed } = spec
  if (spec.device === 'meta') return zeros(shape, { dtype, device: 'meta' })
  const random = new Random(seed)
  const count = shape.reduce((product, size) => product * size, 1)
  if (count > 100_000) return base({ ...spec, shape: [0] })
  const values = new Float64Array(count)
  const numbers = numberOf[fill]
  for (let i = 0; i < count; i += 1) values[i] = numbers(random)
  const made = tensor(values, { shape })
  if (dtype === 'float64') return made
  const result = made.to(dtype)
  made.dispose()
  return result
}

/** Replaces a tensor by what `change` makes of it. */
function changed(source: Tensor, change: (source: Tensor) => Tensor): Tensor {
  try {
    return change(source)
  } catch {
    return source.clone() // a kind that this shape or dtype has not
  } finally {
    source.dispose()
  }
}

const kinds: Record<Exclude<Kind, 'dense'>, (source: Tensor) => Tensor> = {
  transposed(source) {
    using other = source.transpose(0, -1)
    using copy = other.contiguous()
    return copy.transpose(0, -1)
  },
  strided(source) {
    using wide = ops.stack([source, source], -1)
    return wide.select(-1, 1)
  },
  expanded(source) {
    using first = source.narrow(0, 0, 1)
    return first.expand(source.shape)
  },
  sparse: (source) => source.toSparse(),
  csr: (source) => source.toSparseCsr(),
  csc: (source) => source.toSparseCsc(),
  conjugate(source) {
    using complex = source.to('complex64')
    return complex.conj()
  },
  negated(source) {
    using complex = source.to('complex64')
    using mirrored = complex.conj()
    return mirrored.imag()
  },
  inference: (source) => inferenceMode(() => source.clone()),
}

export function makeTensor(spec: TensorSpec): unknown {
  if (spec.state === 'forged') return new Tensor(forgedHandles[spec.seed % forgedHandles.length]!)
  if (spec.state === 'foreign') return new Tensor(foreignHandles[spec.seed % foreignHandles.length] ?? 7)
  let made = base(spec)
  if (spec.kind !== undefined && spec.kind !== 'dense') made = changed(made, kinds[spec.kind])
  if (spec.grad) {
    try {
      made.requiresGrad_(true)
    } catch {}
  }
  if (spec.state === 'cloned') {
    // Tensors refuse it themselves; what a copy by hand has is their own fields.
    const copy = { ...made }
    made.dispose()
    return copy
  }
  if (spec.state === 'disposed') made.dispose()
  return made
}

export function build(spec: Spec): unknown {
  switch (spec.is) {
    case 'tensor':
      return makeTensor(spec)
    case 'value':
      return spec.value
    case 'list':
      return spec.items.map(build)
    case 'object':
      return Object.fromEntries(spec.entries.map(([name, entry]) => [name, build(entry)]))
    case 'made':
      return spec.make()
  }
}

/** Frees every tensor in a value, however deep. */
export function free(it: unknown, depth = 0): void {
  if (typeof it !== 'object' || it === null || depth > 6) return
  if (it instanceof Tensor || it instanceof Generator || it instanceof Module) it.dispose()
  else if (Array.isArray(it)) for (const entry of it.slice(0, 100_000)) free(entry, depth + 1)
  else if (Object.getPrototypeOf(it) === Object.prototype) for (const entry of Object.values(it)) free(entry, depth + 1)
}

export function describe(spec: Spec): string {
  switch (spec.is) {
    case 'tensor': {
      const words = [
        `${spec.dtype}[${spec.shape.join(', ')}]`,
        spec.fill,
        spec.device === 'meta' ? 'meta' : '',
        spec.kind ?? '',
        spec.grad ? 'grad' : '',
        spec.state ?? '',
      ]
      return `<${words.filter((word) => word !== '').join(' ')} #${spec.seed}>`
    }
    case 'value':
      return literal(spec.value)
    case 'list': {
      const items = spec.items.slice(0, 20).map(describe)
      return `[${items.join(', ')}${spec.items.length > 20 ? `, ... ${spec.items.length}` : ''}]`
    }
    case 'object':
      return `{ ${spec.entries.map(([name, entry]) => `${name}: ${describe(entry)}`).join(', ')} }`
    case 'made':
      return spec.text
  }
}

function literal(it: unknown): string {
  if (typeof it === 'bigint') return `${it}n`
  if (Object.is(it, -0)) return '-0'
  if (typeof it === 'string') return JSON.stringify(it.length > 60 ? `${it.slice(0, 60)}... ${it.length}` : it)
  return String(it)
}

/** Sizes and positions that no tensor has. */
export const wildNumbers: unknown[] = [
  -1,
  -2,
  0,
  1,
  2,
  3,
  5,
  8,
  64,
  65,
  1000,
  -1000,
  2 ** 31 - 1,
  2 ** 31,
  -(2 ** 31),
  -(2 ** 31) - 1,
  2 ** 32,
  2 ** 53 - 1,
  2 ** 53,
  -(2 ** 53),
  2n ** 63n - 1n,
  -(2n ** 63n),
  2n ** 62n,
  2n ** 63n,
  0.5,
  -0,
  1e300,
  Number.NaN,
  Number.POSITIVE_INFINITY,
  Number.NEGATIVE_INFINITY,
]

/** Values that no argument of an operator is. */
export const wrongValues: Spec[] = [
  value(undefined),
  value(null),
  value(true),
  value(3),
  value(-7),
  value(1.5),
  value(Number.NaN),
  value(2n ** 64n),
  value(''),
  value('float32'),
  value('nonsense'),
  value('é\u{1f600}\0'),
  value('x'.repeat(5000)),
  value('cuda'),
  value('meta'),
  list([]),
  list([1, 2]),
  list(['a']),
  list([null]),
  list([1, [2, [3]]]),
  list([Number.NaN, 2 ** 60]),
  { is: 'object', entries: [] },
  { is: 'object', entries: [['dim', value(0)]] },
  { is: 'object', entries: [['nonsense', value(0)]] },
  { is: 'object', entries: [['out', dense([2])]] },
  { is: 'object', entries: [['self', dense([2])]] },
  {
    is: 'object',
    entries: [
      ['re', value(1)],
      ['im', value(2)],
    ],
  },
  made('() => 1', () => () => 1),
  made("Symbol('s')", () => Symbol('s')),
  made('new Date(0)', () => new Date(0)),
  made('new Map()', () => new Map()),
  made('Object.create(null)', () => Object.create(null)),
  made('new Float32Array(3)', () => new Float32Array(3)),
  made('new BigInt64Array(3)', () => new BigInt64Array(3)),
  made('new DataView(new ArrayBuffer(4))', () => new DataView(new ArrayBuffer(4))),
  made('new Array(3)', () => new Array(3)),
  made('Promise.resolve(1)', () => Promise.resolve(1)),
  made('slice(0, 1)', () => slice(0, 1)),
  made('new Generator(1)', () => new Generator({ seed: 1 })),
  made('disposed Generator', () => {
    const generator = new Generator({ seed: 1 })
    generator.dispose()
    return generator
  }),
  made('an array that holds itself', () => {
    const cycle: unknown[] = []
    cycle.push(cycle)
    return cycle
  }),
  made('an array 5000 deep', () => {
    let nested: unknown[] = []
    for (let i = 0; i < 5000; i += 1) nested = [nested]
    return nested
  }),
  made('an array of 10000 numbers', () => new Array(10_000).fill(1)),
]
