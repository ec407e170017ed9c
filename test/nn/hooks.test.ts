import { describe, expect, test } from 'vitest'
import {
  ConfigError,
  checkpoint,
  GradientError,
  type Gradients,
  inferenceMode,
  keepForever,
  Linear,
  LSTM,
  Module,
  memoryStats,
  noGrad,
  ones,
  Parameter,
  Roberta,
  randn,
  Sequential,
  SGD,
  scope,
  Tanh,
  Tensor,
  tensor,
  zeros,
} from '../../lib/index.js'
import { expectClose, fixture, settledTensors, tensorsOf } from '../helpers.js'

type Line = [hook: string, ...values: unknown[]]
const file = await fixture<{ name: string; log: Line[] }>('nn/hooks')
const { x: given, y: givenY } = tensorsOf(file, 'given', 'in') as { x: Tensor; y: Tensor }
const weights = tensorsOf(file, 'given', 'param')

const leaf = (value: Tensor, requiresGrad = true) => value.clone().requiresGrad_(requiresGrad)

function linear(): Linear {
  const layer = new Linear(4, 2)
  layer.loadStateDict({ weight: weights.weight as Tensor, bias: weights.bias as Tensor })
  return layer
}

class Pair extends Module {
  weight = new Parameter((weights.pair as Tensor).clone())
  override forward(x: Tensor, y: Tensor, factor: number): Tensor[] {
    return [x.mul(this.weight).mul(factor), y.sin()]
  }
}

/** Keeps what hooks are called with. */
class Log {
  lines: Line[] = []
  #keep = (value: unknown): unknown => {
    if (Array.isArray(value)) return value.map(this.#keep)
    return value instanceof Tensor ? keepForever(value.detach().clone()) : value
  }
  add(hook: string, ...values: unknown[]): void {
    this.lines.push([hook, ...values.map(this.#keep)])
  }

  /** Compare with the log of PyTorch. */
  expect(name: string, gradients: Record<string, Tensor | null> = {}): void {
    const out = tensorsOf(file, name, 'out')
    const { log } = file.cases.find((one) => one.name === name)!
    const tensors: [string, Tensor][] = []
    const shape = (value: unknown, expected: unknown): unknown => {
      if (Array.isArray(value))
        return value.map((one, i) => shape(one, Array.isArray(expected) ? expected[i] : undefined))
      if (!(value instanceof Tensor)) return value
      if (typeof expected === 'string') tensors.push([expected, value])
      return expected
    }
    expect(this.lines.map((line, i) => shape(line, log[i]))).toEqual(log)
    for (const [key, value] of [...tensors, ...Object.entries(gradients)]) {
      if (value === null) expect(out[key], key).toBeUndefined()
      else expectClose(value, out[key] as Tensor, 1e-5, key)
    }
  }
}

describe('as in PyTorch', () => {
  test('every kind on one layer', () =>
    scope(async () => {
      const [log, layer, x] = [new Log(), linear(), leaf(given)]
      layer.registerForwardPreHook((_, args) => log.add('pre 1', args))
      layer.registerForwardPreHook((_, args) => {
        log.add('pre 2', args)
        return (args[0] as Tensor).mul(2)
      })
      layer.registerForwardPreHook((_, args) => log.add('pre 0', args), { prepend: true })
      layer.registerForwardHook((_, args, output) => {
        log.add('forward 1', args, output)
        return (output as Tensor).add(1)
      })
      layer.registerForwardHook((_, args, output) => log.add('forward 0', args, output), { prepend: true })
      layer.registerFullBackwardPreHook((_, gradients) => {
        log.add('backward pre 1', gradients)
        return [gradients[0]!.mul(3)]
      })
      layer.registerFullBackwardPreHook((_, gradients) => log.add('backward pre 2', gradients))
      layer.registerFullBackwardHook((_, inputs, outputs) => {
        log.add('backward 1', inputs, outputs)
        return [inputs[0]!.mul(5)]
      })
      layer.registerFullBackwardHook((_, inputs, outputs) => log.add('backward 2', inputs, outputs))
      layer.registerFullBackwardHook((_, inputs, outputs) => log.add('backward 0', inputs, outputs), { prepend: true })
      await layer.forward(x).sin().sum().backward()
      log.expect('linear', { x: x.grad, weight: layer.weight.grad, bias: layer.bias!.grad })
      layer.dispose()
    }))

  test.each([
    ['pair', [true, true], [0, 1]],
    ['pair unused', [true, true], [0]],
    ['pair half', [false, true], [0, 1]],
    ['pair none', [false, false], [0]],
  ] as const)('%s', (name, needs, used) =>
    scope(async () => {
      const [log, module] = [new Log(), new Pair()]
      const [x, y] = [leaf(given, needs[0]), leaf(givenY, needs[1])]
      module.registerFullBackwardPreHook((_, gradients) => log.add('pre', gradients))
      module.registerFullBackwardHook((_, inputs, outputs) => log.add('full', inputs, outputs))
      const outputs = module.forward(x, y, 3)
      const terms = used.map((i) => outputs[i]!.cos().sum())
      await terms.reduce((sum, term) => sum.add(term)).backward()
      log.expect(name, { x: x.grad, y: y.grad, weight: module.weight.grad })
      module.dispose()
    }),
  )

  test('children before and after their parent', () =>
    scope(async () => {
      const [log, model, x] = [new Log(), new Sequential(linear(), new Tanh()), leaf(given)]
      for (const [name, module] of [
        ['model', model],
        ['linear', model.at(0)],
        ['tanh', model.at(1)],
      ] as const) {
        module.registerForwardPreHook(() => log.add(`${name} pre`))
        module.registerForwardHook(() => log.add(`${name} forward`))
        module.registerFullBackwardPreHook((_: Module, gradients: Gradients) =>
          log.add(`${name} backward pre`, gradients),
        )
        module.registerFullBackwardHook((_: Module, inputs: Gradients, outputs: Gradients) =>
          log.add(`${name} backward`, inputs, outputs),
        )
      }
      await model.forward(x).pow(2).sum().backward()
      log.expect('tree', { x: x.grad })
      model.dispose()
    }))

  test('state dictionaries', () =>
    scope(() => {
      const inner = new Sequential(linear())
      const [log, model] = [new Log(), new Sequential(linear(), inner)]
      for (const [name, module] of [
        ['model', model],
        ['inner', inner],
        ['linear', inner.at(0)],
      ] as [string, Module][]) {
        module.registerStateDictPreHook((_, prefix) => log.add(`${name} save pre`, prefix))
        module.registerStateDictPostHook((_, state, prefix) =>
          log.add(`${name} save post`, prefix, Object.keys(state).sort()),
        )
        module.registerLoadStateDictPreHook((_, state, prefix) =>
          log.add(`${name} load pre`, prefix, Object.keys(state).sort()),
        )
        module.registerLoadStateDictPostHook((_, { missing, unexpected }) =>
          log.add(`${name} load post`, [...missing].sort(), [...unexpected].sort()),
        )
      }
      const state = model.stateDict()
      delete state['1.0.bias']
      state.extra = zeros([1])
      model.loadStateDict(state, { strict: false })
      log.expect('state')
      model.dispose()
    }))

  test('tensors, and what was accumulated', () =>
    scope(async () => {
      const [log, p, q] = [new Log(), leaf(given), leaf(givenY)]
      p.registerHook((gradient) => {
        log.add('p hook', gradient)
        return gradient.mul(2)
      })
      p.registerPostAccumulateGradHook((tensor) => log.add('p accumulated', tensor.grad))
      q.registerPostAccumulateGradHook((tensor) => {
        log.add('q accumulated 1', tensor.grad)
        tensor.grad!.mul_(10)
      })
      q.registerPostAccumulateGradHook((tensor) => log.add('q accumulated 2', tensor.grad))
      const inner = p.mul(q)
      inner.registerHook((gradient) => log.add('inner', gradient))
      await inner.sin().sum().backward()
      log.expect('tensors', { p: p.grad, q: q.grad })
    }))

  test('an update inside the backward pass, which leaves no gradient', () =>
    scope(async () => {
      const layer = linear()
      for (const parameter of layer.parameters()) {
        parameter.registerPostAccumulateGradHook((own) => {
          expect(own).toBe(parameter)
          noGrad(() => own.add_(own.grad!, { alpha: -0.1 }))
          own.grad = null
        })
      }
      for (let step = 0; step < 3; step++) {
        await layer.forward(given).pow(2).mean().backward()
        expect(layer.weight.grad).toBeNull()
      }
      new Log().expect('update', { weight: layer.weight.detach(), bias: layer.bias!.detach() })
      layer.dispose()
    }))
})

describe('each kind', () => {
  test('is removed by the function that registering returns, and then leaves the forward as it was', () =>
    scope(async () => {
      const layer = linear()
      let calls = 0
      const count = () => {
        calls += 1
      }
      const removers = [
        layer.registerForwardPreHook(count),
        layer.registerForwardHook(count),
        layer.registerFullBackwardPreHook(count),
        layer.registerFullBackwardHook(count),
        layer.registerStateDictPreHook(count),
        layer.registerStateDictPostHook(count),
        layer.registerLoadStateDictPreHook(count),
        layer.registerLoadStateDictPostHook(count),
        layer.weight.registerPostAccumulateGradHook(count),
      ]
      const pass = async () => {
        await layer.forward(leaf(given)).sum().backward()
        layer.loadStateDict(layer.stateDict())
      }
      await pass()
      expect(calls).toBe(9)
      expect(Object.hasOwn(layer, 'forward')).toBe(true)
      for (const remove of [...removers, ...removers]) remove()
      await pass()
      expect(calls).toBe(9)
      expect(Object.hasOwn(layer, 'forward')).toBe(false)
      layer.dispose()
    }))

  test('refuses what is no function, and unknown options, by its name', () => {
    const layer = linear()
    for (const name of [
      'registerForwardPreHook',
      'registerForwardHook',
      'registerFullBackwardPreHook',
      'registerFullBackwardHook',
      'registerStateDictPreHook',
      'registerStateDictPostHook',
      'registerLoadStateDictPreHook',
      'registerLoadStateDictPostHook',
    ] as const) {
      expect(() => layer[name](3 as never)).toThrow(new RegExp(`^${name}: expected hook to be a function, got 3`))
    }
    expect(() => layer.registerForwardHook(() => {}, { first: true } as never)).toThrow(ConfigError)
    expect(() => layer.weight.registerPostAccumulateGradHook(3 as never)).toThrow(/registerPostAccumulateGradHook/)
    expect(() => ones([2]).registerPostAccumulateGradHook(() => {})).toThrow(GradientError)
    layer.dispose()
  })

  test('rejects the pass with the error that it throws, and a promise', () =>
    scope(async () => {
      const layer = linear()
      const attempts: [() => () => void, RegExp][] = [
        [() => layer.registerFullBackwardHook(() => Promise.resolve() as never), /got a promise|got an object|Promise/],
        [() => layer.registerFullBackwardHook(() => [zeros([1]), zeros([1])]), /to return 1 gradients \(or null\)/],
        [
          () =>
            layer.registerFullBackwardPreHook(() => {
              throw new Error('stop here')
            }),
          /stop here/,
        ],
        [
          () =>
            layer.weight.registerPostAccumulateGradHook(() => {
              throw new Error('stop here')
            }),
          /stop here/,
        ],
      ]
      for (const [register, message] of attempts) {
        const remove = register()
        await expect(layer.forward(leaf(given)).sum().backward()).rejects.toThrow(message)
        remove()
      }
      layer.registerForwardPreHook(async () => {})
      expect(() => layer.forward(given)).toThrow(/synchronous forward pre-hook/)
      layer.dispose()
    }))
})

describe('backward hooks', () => {
  test('see the gradients of named results, and leave others alone', () =>
    scope(async () => {
      const lstm = new LSTM(4, 3)
      const seen: unknown[] = []
      lstm.registerFullBackwardHook((_, inputs, outputs) => {
        seen.push(
          inputs.map((one) => one?.shape ?? null),
          outputs.map((one) => one?.shape ?? null),
        )
      })
      const { output, hidden, cell } = lstm.forward(leaf(randn([5, 2, 4])))
      expect([hidden.shape, cell.shape]).toEqual([
        [1, 2, 3],
        [1, 2, 3],
      ])
      await output.sum().backward()
      expect(seen).toEqual([[[5, 2, 4]], [[5, 2, 3], null, null]])
      lstm.dispose()
    }))

  test('do nothing where no gradient is recorded, and need tensors as result', () =>
    scope(() => {
      const layer = linear()
      const remove = layer.registerFullBackwardHook(() => {
        throw new Error('not called')
      })
      expect(noGrad(() => layer.forward(given)).requiresGrad).toBe(false)
      inferenceMode(() => layer.forward(given))
      remove()
      class Text extends Module {
        override forward(x: Tensor): string {
          return String(x.shape)
        }
      }
      const text = new Text()
      text.registerFullBackwardHook(() => {})
      expect(() => text.forward(given)).toThrow(/^Text: expected a forward that returns a tensor/)
      layer.dispose()
    }))

  test('run for a pass that is differentiated again, and inside a checkpoint', () =>
    scope(async () => {
      const layer = new Tanh()
      let calls = 0
      layer.registerFullBackwardHook((_, [gradient]) => {
        calls += 1
        return gradient!.mul(2)
      })
      const x = tensor([0.5], { requiresGrad: true })
      await layer.forward(x).sum().backward({ createGraph: true })
      const first = x.grad!
      expectClose(first.detach(), x.detach().tanh().square().neg().add(1).mul(2))
      expect(first.requiresGrad).toBe(true)
      const y = tensor([0.5], { requiresGrad: true })
      await (checkpoint((z: Tensor) => layer.forward(z), y) as Tensor).sum().backward()
      expect(calls).toBe(2)
      expectClose(y.grad!, first.detach())
    }))

  test('leave no tensors behind', async () => {
    const layer = linear()
    const before = await settledTensors()
    await scope(async () => {
      layer.registerFullBackwardPreHook((_, [gradient]) => [gradient!.mul(2)])
      layer.registerFullBackwardHook((_, [gradient]) => [gradient!.mul(2)])
      for (let i = 0; i < 3; i++) await scope(() => layer.forward(leaf(given)).sum().backward())
      layer.zeroGrad()
    })
    expect(await settledTensors()).toBe(before)
    expect(memoryStats().liveScopes).toBe(0)
    layer.dispose()
  })
})

describe('a native network', () => {
  const config = {
    vocabSize: 20,
    hiddenSize: 8,
    numHiddenLayers: 1,
    numAttentionHeads: 2,
    intermediateSize: 12,
    maxPositionEmbeddings: 16,
  }

  test('runs hooks as a whole; its parts run forward hooks only, and say so', () =>
    scope(async () => {
      const model = new Roberta(config)
      const seen: string[] = []
      model.registerForwardPreHook(() => void seen.push('pre'))
      model.registerForwardHook(() => void seen.push('forward'))
      const part = model.get('encoder.layer.0')
      part.registerForwardHook(() => void seen.push('part'))
      for (const name of [
        'registerForwardPreHook',
        'registerFullBackwardHook',
        'registerFullBackwardPreHook',
      ] as const) {
        expect(() => part[name](() => {})).toThrow(
          new RegExp(`^${name}: expected a module with a forward in TypeScript`),
        )
      }
      await model.forward({ inputIds: tensor([[3, 4]]) })
      expect(seen).toEqual(['pre', 'part', 'forward'])
      model.dispose()
    }))
})

describe('state-dictionary hooks', () => {
  test('rename entries of an older version, without a change to the dictionary that was given', () =>
    scope(() => {
      const model = new Sequential(linear())
      const old = Object.fromEntries(Object.entries(model.stateDict()).map(([name, value]) => [`old.${name}`, value]))
      const names = Object.keys(old)
      model.registerLoadStateDictPreHook((_, state) => {
        for (const [name, value] of Object.entries(state)) {
          state[name.replace('old.', '')] = value
          delete state[name]
        }
      })
      model.loadStateDict(old)
      expect(Object.keys(old)).toEqual(names)
      model.registerStateDictPostHook((_, state, prefix) => {
        delete state[`${prefix}0.bias`]
      })
      expect(Object.keys(model.stateDict())).toEqual(['0.weight'])
      model.dispose()
    }))

  test('forgive missing names; what they leave throws, after the values that fit were copied', () =>
    scope(() => {
      const layer = linear()
      const state = { weight: zeros([2, 4]) }
      const remove = layer.registerLoadStateDictPostHook((_, { missing }) => void missing.splice(0))
      expect(layer.loadStateDict(state)).toEqual({ missing: [], unexpected: [] })
      remove()
      layer.registerLoadStateDictPostHook(() => {})
      expect(() => layer.loadStateDict({ weight: ones([2, 4]) })).toThrow(/the values that fit were copied/)
      expect(layer.weight.toArray()).toEqual(ones([2, 4]).toArray())
      layer.dispose()
    }))
})

test('an optimizer steps in a hook after the pass', () =>
  scope(async () => {
    const layer = linear()
    using optimizer = new SGD([layer.weight], { lr: 0.1 })
    const before = layer.weight.detach().clone()
    let stepped: Promise<void> | undefined
    layer.weight.registerPostAccumulateGradHook(() => {
      stepped = optimizer.step()
    })
    await layer.forward(given).sum().backward()
    await stepped
    expectClose(layer.weight.detach(), before.sub(layer.weight.grad!.mul(0.1)))
    layer.dispose()
  }))
