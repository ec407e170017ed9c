import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import {
  BatchNorm1d,
  CheckpointError,
  ConfigError,
  Dropout,
  DTypeError,
  Identity,
  type Layer,
  Linear,
  Module,
  ModuleDict,
  ModuleList,
  memoryStats,
  ones,
  Parameter,
  ReLU,
  Roberta,
  randn,
  Sequential,
  scope,
  type Tensor,
  tensor,
  zeros,
} from '../../lib/index.js'
import { numbers } from '../helpers.js'

class Block extends Module {
  scale = scope(() => new Parameter(ones([2])))
  first: Linear
  norm: BatchNorm1d
  second = new Linear(3, 2, { bias: false })
  declare offset: Tensor
  declare cache: Tensor
  note = 'not a parameter'

  constructor() {
    super()
    this.first = new Linear(2, 3)
    this.norm = new BatchNorm1d(3)
    this.registerBuffer('offset', zeros([2]))
    this.registerBuffer('cache', zeros([1]), { persistent: false })
  }

  override forward(x: Tensor): Tensor {
    return scope(() =>
      this.second
        .forward(this.norm.forward(this.first.forward(x)))
        .mul(this.scale)
        .add(this.offset),
    )
  }
}

/** Two layers with one weight. */
class Tied extends Module {
  encode = new Linear(3, 3)
  decode = new Linear(3, 3)

  constructor() {
    super()
    this.decode.weight.dispose()
    this.decode.weight = this.encode.weight
  }
}

let block: Block
let before: number
beforeEach(() => {
  before = memoryStats().liveTensors
  block = new Block()
})
afterEach(() => block.dispose())

describe('what belongs to a module', () => {
  const STATE = [
    'scale',
    'offset',
    'first.weight',
    'first.bias',
    'norm.weight',
    'norm.bias',
    'norm.running_mean',
    'norm.running_var',
    'norm.num_batches_tracked',
    'second.weight',
  ]

  test('own fields in the order of their definition, as in PyTorch', () => {
    expect(block.namedParameters().map(([name]) => name)).toEqual([
      'scale',
      'first.weight',
      'first.bias',
      'norm.weight',
      'norm.bias',
      'second.weight',
    ])
    expect(Object.keys(block.stateDict())).toEqual(STATE)
    expect(block.namedBuffers().map(([name]) => name)).toContain('cache')
    expect(block.namedChildren().map(([name]) => name)).toEqual(['first', 'norm', 'second'])
    expect(block.namedModules().map(([name]) => name)).toEqual(['', 'first', 'norm', 'second'])
    expect(block.parameters().every((parameter) => parameter instanceof Parameter && parameter.isLeaf)).toBe(true)
  })

  test('get walks a path and names what is there', () => {
    const net = new Sequential(new ReLU(), new Sequential(new Linear(2, 2)))
    expect(net.get('1.0')).toBeInstanceOf(Linear)
    expect(net.get('')).toBe(net)
    expect(() => net.get('1.weight')).toThrow(/Module\.get\('1\.weight'\): expected a child of .*\(0\), got/)
    net.dispose()
  })

  test('setSubmodule replaces a child wherever it is, and nothing else', () => {
    const net = new Sequential(
      new ReLU(),
      new ModuleDict({ in: block, list: new ModuleList([new Linear(2, 2)]) }) as never,
    )
    const replaced = [net.get('1.in.first'), net.get('1.list.0')]
    const [first, second] = [new Identity(), new Linear(2, 2)]
    net.setSubmodule('1.in.first', first)
    net.setSubmodule('1.list.0', second)
    expect([block.first, net.get('1.list.0')]).toEqual([first, second])
    expect(net.modules()).not.toContain(replaced[0])
    expect(() => net.setSubmodule('1.in.third', first)).toThrow(/expected a child of Block .*got 'third'/)
    expect(() => net.setSubmodule('1.in.scale', first)).toThrow(/got 'scale'/)
    expect(() => net.setSubmodule('', first)).toThrow("Module.setSubmodule: expected the path of a child, got ''")
    expect(() => net.setSubmodule('0', tensor([1]) as never)).toThrow(
      /setSubmodule: expected module to be a Module, got a Tensor/,
    )
    net.dispose()
    for (const module of replaced) module.dispose()
  })

  test('setSubmodule refuses a part that native code calls, and replaces a whole network', () => {
    const sizes = { hiddenSize: 8, numHiddenLayers: 1, numAttentionHeads: 2, intermediateSize: 8, vocabSize: 12 }
    const outer = new ModuleDict<Module>({ network: Roberta.fromConfig(sizes) })
    const network = outer.at('network')
    const [[first]] = network.namedChildren() as [[string, Module]]
    const replacement = new Identity()
    expect(() => network.setSubmodule(first, replacement)).toThrow(/got a part of .* that native code calls/)
    expect(() => outer.setSubmodule(`network.${first}`, replacement)).toThrow(/that native code calls/)
    outer.setSubmodule('network', replacement)
    expect(outer.at('network')).toBe(replacement)
    network.dispose()
  })

  test('a tied parameter is listed once, and saved under both names', () => {
    using tied = new Tied()
    expect(tied.namedParameters().map(([name]) => name)).toEqual(['encode.weight', 'encode.bias', 'decode.bias'])
    const state = tied.stateDict()
    expect(Object.keys(state)).toEqual(['encode.weight', 'encode.bias', 'decode.weight', 'decode.bias'])
    expect(state['decode.weight']).toBe(state['encode.weight'])
  })

  test('modules in a plain array, and cycles, are errors', () => {
    class Wrong extends Module {
      layers = [new ReLU()]
    }
    expect(() => new Wrong().parameters()).toThrow(/Wrong\.layers: expected a ModuleList, got a plain array/)
    class Child extends Module {
      parent: Module | null = null
    }
    class Parent extends Module {
      child = new Child()
    }
    const parent = new Parent()
    parent.child.parent = parent
    expect(() => parent.stateDict()).toThrow(/a reference at 'child\.parent' to a module that contains it/)
  })

  test('containers', () => {
    const list = new ModuleList([new Linear(2, 2), new Linear(2, 2)])
    expect(list.push(new Linear(2, 1)).length).toBe(3)
    expect(Object.keys(list.stateDict())[4]).toBe('2.weight')
    expect(list.at(-1).outFeatures).toBe(1)
    expect(() => list.at(3)).toThrow(ConfigError)
    expect([...list]).toHaveLength(3)
    expect(() => list.forward()).toThrow(/ModuleList: expected a forward\(\) method/)
    const dict = new ModuleDict({ speech: new Linear(2, 2) }).set('text', new Linear(3, 2))
    expect(Object.keys(dict.stateDict())).toEqual(['speech.weight', 'speech.bias', 'text.weight', 'text.bias'])
    expect(dict.at('text').inFeatures).toBe(3)
    expect(() => dict.set('a.b', new Linear(1, 1))).toThrow(/dot/)
    expect([...dict.keys()]).toEqual(['speech', 'text'])
    const net = new Sequential(...list, new ReLU())
    scope(() => expect(net.forward(randn([4, 2])).shape).toEqual([4, 1]))
    for (const module of [list, dict]) module.dispose()
  })
})

describe('loadStateDict', () => {
  const copy = () => Object.fromEntries(Object.entries(block.stateDict()).map(([name, value]) => [name, value.clone()]))

  test('copies in place and converts dtype', () =>
    scope(() => {
      const state = copy()
      state['first.weight'] = ones([3, 2], { dtype: 'float64' })
      const target = block.first.weight
      expect(block.loadStateDict(state)).toEqual({ missing: [], unexpected: [] })
      expect(block.first.weight).toBe(target)
      expect(target.dtype).toBe('float32')
      expect(numbers(target)).toEqual([1, 1, 1, 1, 1, 1])
      expect(target.requiresGrad).toBe(true)
    }))

  test('lists everything that does not fit in one error, and changes nothing', () =>
    scope(() => {
      const { 'first.bias': _, ...state } = copy()
      state.extra = ones([1])
      state['second.weight'] = ones([2, 4])
      state.scale = ones([2]).mul(5)
      let caught: unknown
      try {
        block.loadStateDict(state)
      } catch (error) {
        caught = error
      }
      expect(caught).toBeInstanceOf(CheckpointError)
      expect(caught).toMatchObject({
        code: 'ERR_CHECKPOINT',
        missing: ['first.bias'],
        unexpected: ['extra'],
        mismatched: [{ name: 'second.weight', expected: [2, 3], actual: [2, 4] }],
      })
      expect((caught as Error).message).toMatch(
        /Block.*missing: first.bias; unexpected: extra; mis-shaped: second.weight/,
      )
      expect(numbers(block.scale)).toEqual([1, 1])
      expect(() => block.loadStateDict(state, { strict: false })).toThrow(CheckpointError)
      delete state['second.weight']
      expect(block.loadStateDict(state, { strict: false })).toEqual({
        missing: ['first.bias', 'second.weight'],
        unexpected: ['extra'],
      })
      expect(numbers(block.scale)).toEqual([5, 5])
      expect(() => block.loadStateDict({ ...state, scale: 3 as unknown as Tensor }, { strict: false })).toThrow(
        /number/,
      )
    }))
})

describe('state of a module', () => {
  test('train and eval reach everything below', () => {
    const net = new Sequential(new Dropout(0.5), new Sequential(new Dropout(0.5)))
    expect(
      net
        .eval()
        .modules()
        .map(({ training }) => training),
    ).toEqual([false, false, false, false])
    expect(net.train().get('1.0').training).toBe(true)
  })

  test('to keeps identity and integer buffers, and moves gradients', () =>
    scope(async () => {
      await block
        .forward(randn([4, 2]))
        .sum()
        .backward()
      const weight = block.first.weight
      block.to({ dtype: 'float64' })
      expect(block.first.weight).toBe(weight)
      expect([weight.dtype, weight.grad?.dtype, weight.isLeaf, weight.requiresGrad]).toEqual([
        'float64',
        'float64',
        true,
        true,
      ])
      expect(block.norm.running_mean?.dtype).toBe('float64')
      expect(block.norm.num_batches_tracked?.dtype).toBe('int64')
      await block
        .zeroGrad()
        .forward(randn([4, 2], { dtype: 'float64' }))
        .sum()
        .backward()
      expect(weight.grad?.dtype).toBe('float64')
      expect(() => block.to({ dtype: 'int64' })).toThrow(DTypeError)
      expect(() => block.to('int64')).toThrow(DTypeError)
      expect(block.to('float32').to('cpu').first.weight.dtype).toBe('float32')
    }))

  test('freeze by name, path, glob and RegExp', () => {
    const trained = () => block.namedParameters().flatMap(([name, { requiresGrad }]) => (requiresGrad ? [name] : []))
    block.freeze('first')
    expect(trained()).toEqual(['scale', 'norm.weight', 'norm.bias', 'second.weight'])
    block.freeze('*.weight')
    expect(trained()).toEqual(['scale', 'norm.bias'])
    block.unfreeze(/^first\.b/).freeze('scale')
    expect(trained()).toEqual(['first.bias', 'norm.bias'])
    block.freeze()
    expect(trained()).toEqual([])
    block.unfreeze()
    expect(trained()).toHaveLength(6)
    expect(() => block.freeze('frist')).toThrow(/expected a pattern that matches parameters \(scale.* got frist/)
  })

  test('a frozen parameter gets no gradient', () =>
    scope(async () => {
      await block
        .freeze('first')
        .forward(randn([4, 2]))
        .sum()
        .backward()
      expect(block.first.weight.grad).toBeNull()
      expect(block.second.weight.grad).not.toBeNull()
      block.zeroGrad()
      expect(block.second.weight.grad).toBeNull()
    }))

  test('apply goes from the leaves up', () => {
    const seen: string[] = []
    block.apply((module) => seen.push(module.constructor.name))
    expect(seen).toEqual(['Linear', 'BatchNorm1d', 'Linear', 'Block'])
  })

  test('summary', () => {
    block.freeze('scale')
    const lines = block.summary().split('\n')
    expect(lines[0]).toMatch(/^parameter +shape +dtype +trained +count$/)
    expect(lines).toContainEqual(expect.stringMatching(/^first.weight +\[3, 2\] +float32 +yes +6$/))
    expect(lines.at(-1)).toBe('Block: 23 parameters, 21 trained, 10 in buffers')
  })
})

describe('hooks', () => {
  test('see and replace the output, in order, until removed', () =>
    scope(() => {
      const layer: Layer = new Linear(2, 2)
      const net = new Sequential(layer)
      const x = ones([1, 2])
      const plain = numbers(net.forward(x)).map(Number)
      const calls: unknown[] = []
      const removeFirst = layer.registerForwardHook((module, args, output) => {
        calls.push(module, ...args)
        return (output as Tensor).mul(2)
      })
      const removeSecond = layer.registerForwardHook((_, __, output) => (output as Tensor).add(1))
      expect(numbers(net.forward(x)).map(Number)).toEqual(
        plain.map((value) => Math.fround(value * 2) + 1).map(Math.fround),
      )
      expect(calls).toEqual([layer, x])
      removeFirst()
      removeFirst()
      expect(numbers(net.forward(x)).map(Number)).toEqual(plain.map((value) => Math.fround(value + 1)))
      removeSecond()
      expect(Object.hasOwn(layer, 'forward')).toBe(false)
      expect(numbers(net.forward(x)).map(Number)).toEqual(plain)
      net.dispose()
    }))

  test('run on the result of an asynchronous forward', async () => {
    class Later extends Module {
      override async forward(x: number): Promise<number> {
        return x + 1
      }
    }
    const module = new Later()
    const remove = module.registerForwardHook(async (_, __, output) => (output as number) * 10)
    expect(await module.forward(1)).toBe(20)
    remove()
    expect(await module.forward(1)).toBe(2)
  })

  test('give back a forward that was put on the instance', () => {
    const module = new Identity()
    const own = (x: Tensor) => x.neg()
    module.forward = own
    const remove = module.registerForwardHook(() => 1)
    expect(scope(() => module.forward(ones([1])))).toBe(1)
    remove()
    expect(module.forward).toBe(own)
  })

  test('an asynchronous hook on a synchronous forward is an error', () =>
    scope(() => {
      block.registerForwardHook(async () => undefined)
      expect(() => block.forward(ones([3, 2]))).toThrow(/Block: expected a synchronous forward hook/)
    }))
})

describe('memory', () => {
  test('parameters outlive the scope they are made in, and dispose frees them', () => {
    const inside = memoryStats().liveTensors
    const layer = scope(() => {
      const made = new Linear(2, 2)
      return { made }.made
    })
    let hidden: Linear | undefined
    scope(() => {
      hidden = new Linear(2, 2)
    })
    expect(memoryStats().liveTensors - inside).toBe(4)
    expect(numbers(hidden!.weight)).toHaveLength(4)
    layer.dispose()
    hidden!.dispose()
    hidden!.dispose()
    expect(memoryStats().liveTensors).toBe(inside)
    expect(() => layer.weight.shape).toThrow(/dispose/)
  })

  test('a Parameter is a leaf on the memory of its tensor', () => {
    const live = memoryStats().liveTensors
    const data = tensor([1, 2.5])
    const parameter = new Parameter(data)
    expect(memoryStats().liveTensors - live).toBe(2)
    data.dispose()
    expect([parameter.requiresGrad, parameter.isLeaf, numbers(parameter)]).toEqual([true, true, [1, 2.5]])
    const fixed = scope(() => new Parameter(tensor([1, 2]), { requiresGrad: false }))
    expect([fixed.requiresGrad, fixed.dtype]).toEqual([false, 'int64'])
    scope(() => expect(() => new Parameter(tensor([1, 2]))).toThrow(DTypeError))
    parameter.dispose()
    fixed.dispose()
    expect(memoryStats().liveTensors).toBe(live)
  })

  test('a parameter made of a computed tensor is a leaf', () =>
    scope(() => {
      const parameter = new Parameter(block.scale.mul(2))
      expect([parameter.isLeaf, parameter.requiresGrad]).toEqual([true, true])
      parameter.dispose()
    }))

  test('a whole module', () => {
    expect(memoryStats().liveTensors).toBeGreaterThan(before)
    block.dispose()
    expect(memoryStats().liveTensors).toBe(before)
  })
})
