/** Right calls of `func`. */
import { BatchNorm1d, Linear } from '../../lib/index.js'
import { add, type Loose, lib, many, of, options } from './define.js'
import { dense as f, list, made, type Spec } from './values.js'

const sine = made('(x) => x.sin().sum()', () => (x: Loose) => x.sin().sum())
const product = made('(x, y) => x.mul(y).sum()', () => (x: Loose, y: Loose) => x.mul(y).sum())
const both = made('(x) => [x.sin().sum(), x.cos()]', () => (x: Loose) => [x.sin().sum(), x.cos()])
const each = made('(x) => x.exp()', () => (x: Loose) => x.exp())
const noise = made('(x) => x.add(randn([]))', () => (x: Loose) => x.add(lib.randn([])))
const x = f([3])
const aux = options({ hasAux: true })

/** A transform whose result is a function: arguments are the transform's, as a list, and the function's. */
function transform(name: string, ...right: [Spec[], Spec[]][]): void {
  add(
    `func.${name}`,
    (settings, args) => lib.func[name](...iterable(settings))(...iterable(args)),
    ...right.map(([settings, args]) => of(many(...settings), many(...args))),
  )
}
/** Leave what is not a list to the transform. */
const iterable = (args: unknown): unknown[] => (Array.isArray(args) ? args : [args])

for (const name of ['grad', 'gradAndValue'])
  transform(
    name,
    [[sine], [x]],
    [
      [product, options({ argnums: list([0, 1]) })],
      [x, x],
    ],
    [[both, aux], [x]],
  )
transform('jacrev', [[each], [x]], [[both, options({ hasAux: true, chunkSize: 2 })], [x]])
transform('jacfwd', [[each], [x]], [[both, options({ hasAux: true, randomness: 'same' })], [x]])
transform(
  'hessian',
  [[sine], [x]],
  [
    [product, options({ argnums: 1 })],
    [x, x],
  ],
)
transform(
  'vmap',
  [[sine], [f([2, 3])]],
  [
    [product, options({ inDims: list([1, null]), chunkSize: 2 })],
    [f([3, 4]), f([3])],
  ],
  [[each, options({ outDims: -1 })], [f([2, 3])]],
  [[noise, options({ randomness: 'different' })], [f([2, 3])]],
)
add(
  'func.vjp',
  (fn, inputs, cotangent, ...rest) => {
    const [output, backward, extra] = lib.func.vjp(fn, inputs, ...rest)
    try {
      return [output, backward(cotangent), extra]
    } finally {
      backward.dispose()
    }
  },
  of(sine, many(x), f([])),
  of(both, many(x), f([]), aux),
)
add('func.jvp', (...args) => lib.func.jvp(...args), of(each, many(x), many(x)), of(both, many(x), many(x), aux))
add(
  'func.linearize',
  (fn, inputs, tangent) => {
    const [output, push] = lib.func.linearize(fn, inputs)
    try {
      return [output, push(tangent)]
    } finally {
      push.dispose()
    }
  },
  of(each, many(x), x),
)

const owned = (make: () => Loose, use: (module: Loose) => unknown): unknown => {
  const module = make()
  try {
    return use(module)
  } finally {
    module.dispose()
  }
}
add(
  'func.functionalCall',
  (...args) =>
    owned(
      () => new Linear(3, 2),
      (module) => lib.func.functionalCall(module, ...args),
    ),
  of(options({ weight: f([2, 3]) }), f([4, 3])),
  of(options({ weight: f([2, 3]), bias: f([2]) }), many(f([4, 3])), options({ strict: true, tieWeights: false })),
)
add(
  'func.functionalCall module',
  (module) => lib.scope(() => lib.func.functionalCall(module, {}, [lib.ones([2])])),
  of(made('new Identity()', () => new lib.Identity())),
)
add(
  'func.stackModuleState',
  (...args) => lib.func.stackModuleState(...args),
  of(many(normed(), normed())),
  of(many(normed())),
)
function normed(): Spec {
  return made('new BatchNorm1d(3)', () => new BatchNorm1d(3))
}
