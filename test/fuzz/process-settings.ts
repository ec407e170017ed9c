/** Right calls of what holds for the whole process, which is then set back; and of `save` and `load`. */
import { rmSync } from 'node:fs'
import { add, type Loose, lib, many, of, options } from './define.js'
import { dense as f, list } from './values.js'

/** A setting, its right values, and the call that sets it back. */
function setting(name: string, reset: () => unknown, ...right: Parameters<typeof of>[]): void {
  add(
    name,
    (...args) => {
      try {
        lib[name](...args)
        return lib.scope(() => String(lib.rand([2, 2])).length)
      } finally {
        reset()
      }
    },
    ...right.map((args) => of(...args)),
  )
}
setting('setDefaultDtype', () => lib.setDefaultDtype('float32'), ['float64'], ['bfloat16'])
setting('setDefaultDevice', () => lib.setDefaultDevice('cpu'), ['meta'], ['cpu'])
setting(
  'setPrintoptions',
  () => lib.setPrintoptions({ profile: 'default' }),
  [options({ precision: 2, linewidth: 40, threshold: 1, edgeitems: 1 })],
  [options({ profile: 'full', sciMode: true })],
)
setting(
  'useDeterministicAlgorithms',
  () => lib.useDeterministicAlgorithms(false),
  [true],
  [true, options({ warnOnly: true })],
)
for (const name of ['getDefaultDtype', 'getDefaultDevice', 'areDeterministicAlgorithmsEnabled'])
  add(name, () => lib[name](), of())

add(
  'unique',
  (...args) => lib.unique(...args),
  of(f([4], 'small')),
  of(f([2, 3], 'small'), options({ sorted: true, returnInverse: true, returnCounts: true, dim: 0 })),
)
const values = options({ a: f([2, 3]), b: list([1, 'x', null, true]), c: many(f([1], 'normal', 'bfloat16')) })
add(
  'save',
  async (value, path, ...rest) => {
    await lib.save(value, path, ...rest)
    rmSync(path, { force: true })
  },
  of(values, 'saved.pt'),
  of(f([2]), 'saved.pt'),
)
add(
  'load',
  (path: Loose, ...rest: Loose[]) =>
    lib.scope(async () => {
      if (path === 'loaded.pt') await lib.save({ a: lib.ones([2]), b: [1, 'x'] }, path)
      return Object.keys(await lib.load(path, ...rest))
    }),
  of('loaded.pt'),
  of('loaded.pt', options({ device: 'cpu', mmap: true })),
)
