/** Right calls of lazy layers, hooks, and the methods of modules that take other modules. */
import { Linear, Module, ReLU, Sequential } from '../../lib/index.js'
import { type Args, add, type Loose, lib, of, options } from './define.js'
import { layer } from './layers.js'
import { dense as f, indices, made } from './values.js'

for (const dims of [1, 2, 3]) {
  const image = f([2, 3, ...[5, 4, 4].slice(0, dims)])
  layer(
    `LazyConv${dims}d`,
    [of(4, 2), of(4, 2, options({ stride: 2, padding: 1, bias: false }))],
    [of(image), of(image)],
  )
  layer(
    `LazyConvTranspose${dims}d`,
    [of(4, 2), of(4, 2, options({ stride: 2, outputPadding: 1 }))],
    [of(image), of(image)],
  )
  layer(`LazyBatchNorm${dims}d`, [of(), of(options({ momentum: null, affine: false }))], [of(image), of(image)])
  layer(`LazyInstanceNorm${dims}d`, [of(), of(options({ affine: true }))], [of(image), of(image)])
}
layer('LazyLinear', [of(4), of(4, options({ bias: false }))], [of(f([2, 3])), of(f([3]))])
layer(
  'AdaptiveLogSoftmaxWithLoss',
  [of(4, 8, [2, 5], options({ divValue: 1 })), of(8, 8, [2, 5], options({ divValue: 2, headBias: true }))],
  [of(f([3, 4]), indices([3]))],
)
layer(
  'TripletMarginWithDistanceLoss',
  [of(), of(options({ margin: 0.5, swap: true }))],
  [of(f([2, 3]), f([2, 3]), f([2, 3]))],
)

const network = (): Sequential => new Sequential(new Linear(3, 2), new ReLU())

/** A method that takes a hook: the network runs forward, backward, and through its state. */
function hooked(name: string, ...hooks: (() => unknown)[]): void {
  add(
    `Module.${name}`,
    async (...args) => {
      const module = network() as Loose
      try {
        const remove = module[name](...args)
        const state = module.stateDict()
        module.loadStateDict(state)
        const output = lib.scope(() => module.forward(lib.ones([2, 3])).sum())
        await output.backward()
        output.dispose()
        remove()
      } finally {
        module.zeroGrad()
        module.dispose()
      }
    },
    ...hooks.map((hook): Args => of(made(String(hook()), hook))),
    ...(name.startsWith('registerF')
      ? [
          of(
            made('() => {}', () => () => {}),
            options({ prepend: true }),
          ),
        ]
      : []),
  )
}
const nothing = (): (() => void) => () => {}
hooked('registerForwardPreHook', nothing, () => (_: Loose, args: Loose[]) => args)
hooked('registerFullBackwardHook', nothing)
hooked('registerFullBackwardPreHook', nothing)
hooked('registerStateDictPreHook', nothing)
hooked('registerStateDictPostHook', nothing)
hooked('registerLoadStateDictPreHook', nothing)
hooked('registerLoadStateDictPostHook', nothing)

add(
  'Module.setSubmodule',
  (path, module) => {
    const outer = network()
    const before = outer.parameters()
    try {
      outer.setSubmodule(path, module)
    } finally {
      outer.dispose()
      for (const parameter of before) parameter.dispose()
      if (module instanceof Module) module.dispose()
    }
  },
  of(
    '0',
    made('new Linear(3, 2)', () => new Linear(3, 2)),
  ),
  of(
    '1',
    made('new ReLU()', () => new ReLU()),
  ),
)
