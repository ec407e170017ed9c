import { describe, expect, test } from 'vitest'
import * as voxtorch from '../../lib/index.js'
import {
  AdamW,
  AdaptiveLogSoftmaxWithLoss,
  ConfigError,
  IndexError,
  LazyBatchNorm1d,
  LazyConv2d,
  LazyInstanceNorm1d,
  LazyLinear,
  Linear,
  LSTM,
  Module,
  manualSeed,
  memoryStats,
  ones,
  Parameter,
  ParameterDict,
  ParameterList,
  RNN,
  RNNBase,
  randn,
  Sequential,
  ShapeError,
  scope,
  type Tensor,
  TripletMarginWithDistanceLoss,
  tensor,
  UninitializedParameter,
} from '../../lib/index.js'
import { expectClose, fixture, settledTensors, tensorsOf } from '../helpers.js'

interface Case {
  name: string
  kind: string
  args: unknown[]
  options: Record<string, unknown>
  before: string
  after: string
  state: string[]
}
type AnyLayer = Module & { forward(x: Tensor): Tensor }

const file = await fixture<Case>('nn/lazy')
const of = (name: string, role: string) => tensorsOf(file, name, role)
const camel = (options: Record<string, unknown>) =>
  Object.fromEntries(
    Object.entries(options).map(([key, v]) => [key.replace(/_(.)/g, (_, c: string) => c.toUpperCase()), v]),
  )
const make = ({ kind, args, options }: Case): AnyLayer => {
  const Layer = (voxtorch as unknown as Record<string, new (...args: unknown[]) => AnyLayer>)[kind]!
  return new Layer(...args, camel(options))
}

function expectGradients(name: string, module: Module, inputs: Record<string, Tensor>): void {
  const own = { ...Object.fromEntries(module.namedParameters()), ...inputs }
  const gradients = of(name, 'grad')
  expect(Object.keys(own).sort()).toEqual(Object.keys(gradients).sort())
  for (const [key, value] of Object.entries(gradients)) expectClose(own[key]!.grad!, value, 1e-5, `grad of ${key}`)
}

const lazyCases = file.cases.filter(({ kind }) => kind?.startsWith('Lazy'))

describe('lazy layers as in PyTorch', () => {
  test.each(lazyCases)('$name', (item) =>
    scope(async () => {
      manualSeed(3)
      const layer = make(item)
      expect(layer.toString()).toBe(item.before)
      expect(Object.keys(layer.stateDict())).toEqual(item.state)
      const x = of(item.name, 'in').x!.clone().requiresGrad_(true)
      const output = layer.forward(x)
      expectClose(output, of(item.name, 'out').out!)
      expect(layer.toString()).toBe(item.after)
      for (const [key, value] of Object.entries(layer.stateDict()))
        expectClose(value.detach(), of(item.name, 'state')[key]!, 1e-5, key)
      await output.sin().sum().backward()
      expectGradients(item.name, layer, { x })
      layer.dispose()
    }),
  )

  test.each(lazyCases)('$name from a state dictionary', (item) =>
    scope(() => {
      const layer = make(item)
      layer.loadStateDict(of(item.name, 'state'))
      const weights = Object.values(layer.stateDict()).map((value) => value.detach().clone())
      layer.train(false).forward(of(item.name, 'in').x!)
      // Nothing is initialized again.
      for (const [i, value] of Object.values(layer.stateDict()).entries()) expectClose(value.detach(), weights[i]!, 0)
      expect(layer.toString()).toBe(item.after)
      layer.dispose()
    }),
  )
})

describe('lazy layers', () => {
  test('keep the identity of their parameters, hooks and dtype, and become the plain layer', () =>
    scope(() => {
      const layer = new LazyLinear(2, { dtype: 'float64' })
      const { weight } = layer
      expect(weight).toBeInstanceOf(UninitializedParameter)
      let calls = 0
      layer.registerForwardHook(() => void (calls += 1))
      expect(layer.forward(ones([1, 3], { dtype: 'float64' })).shape).toEqual([1, 2])
      layer.forward(ones([1, 3], { dtype: 'float64' }))
      expect(calls).toBe(2)
      expect(layer.weight).toBe(weight)
      expect(weight).not.toBeInstanceOf(UninitializedParameter)
      expect(weight).toBeInstanceOf(Parameter)
      expect([weight.shape, weight.dtype, weight.requiresGrad, weight.isLeaf]).toEqual([[2, 3], 'float64', true, true])
      expect(layer.constructor).toBe(Linear)
      expect(layer.inFeatures).toBe(3)
      layer.dispose()
    }))

  test('say what is missing before the first forward pass', () =>
    scope(() => {
      const model = new Sequential(new LazyLinear(4), new LazyBatchNorm1d(), new LazyLinear(2))
      expect(() => new AdamW(model.parameters())).toThrow(
        /^AdamW: expected parameters with a shape, got one of a lazy layer\. Run the network once/,
      )
      expect(() => model.parameters()[0]!.shape).toThrow(/UninitializedParameter: expected a tensor with a shape/)
      expect(() => model.summary()).toThrow(/Run the network once/)
      model.to({ dtype: 'float64' })
      model.forward(ones([3, 5], { dtype: 'float64' }))
      expect(model.parameters().map(({ shape }) => shape)).toEqual([[4, 5], [4], [4], [4], [2, 4], [2]])
      new AdamW(model.parameters()).dispose()
      model.dispose()
    }))

  test('reject an input that does not fit, and stay as they are', () =>
    scope(() => {
      const layer = new LazyConv2d(4, 3, { groups: 2 })
      expect(() => layer.forward(ones([1, 3, 8, 8]))).toThrow(/multiple of groups 2 as channels of the input, got 3/)
      expect(() => layer.forward(ones([8, 8]))).toThrow(ShapeError)
      expect(layer.forward(ones([1, 4, 8, 8])).shape).toEqual([1, 4, 6, 6])
      expect(() => new LazyLinear(0)).toThrow(ConfigError)
      layer.dispose()
    }))

  test('leave no tensors', async () => {
    const before = await settledTensors()
    scope(() => {
      const layer = new LazyBatchNorm1d()
      layer.forward(randn([4, 3]))
      layer.dispose()
    })
    expect(await settledTensors()).toBe(before)
  })

  // biome-ignore format: a table
  test.each<[string, () => Module]>([
    ['LazyLinear', () => new LazyLinear(4)],
    ['LazyConv2d', () => new LazyConv2d(4, 3)],
    ['LazyBatchNorm1d', () => new LazyBatchNorm1d()],
    ['LazyInstanceNorm1d', () => new LazyInstanceNorm1d()],
  ])('%s leaves no tensor where no scope is, and takes nothing but an object as its options', (name, make) => {
    const before = memoryStats().liveTensors
    const layer = make()
    layer.dispose()
    expect(memoryStats().liveTensors).toBe(before)
    const Layer = (voxtorch as unknown as Record<string, new (...args: unknown[]) => Module>)[name]!
    const sizes = /Norm/.test(name) ? [] : /Conv/.test(name) ? [4, 3] : [4]
    for (const wrong of [null, 3, new Map(), []])
      expect(() => new Layer(...sizes, wrong), String(wrong)).toThrow(`${name}: expected options to be an object, got`)
    const other = make() as Module & { forward(input: unknown): unknown }
    expect(() => other.forward(3)).toThrow(/: expected a tensor, got 3/)
    other.dispose()
  })
})

test('AdaptiveLogSoftmaxWithLoss as in PyTorch', () =>
  scope(async () => {
    manualSeed(5)
    const layer = new AdaptiveLogSoftmaxWithLoss(8, 20, [4, 10], { divValue: 2, headBias: true })
    const { x: input, target } = of('adaptive', 'in') as { x: Tensor; target: Tensor }
    const x = input.clone().requiresGrad_(true)
    const out = of('adaptive', 'out')
    expect(Object.keys(layer.stateDict())).toEqual(file.cases.find(({ name }) => name === 'adaptive')!.state)
    const { output, loss } = layer.forward(x, target)
    expectClose(output, out.output!)
    expectClose(loss, out.loss!)
    expectClose(layer.forward(x.at(0), target.at(0)).output, out.one!)
    expectClose(layer.logProb(x), out.logs!)
    expect(layer.predict(x.mul(4)).toArray()).toEqual(out.predict!.toArray())
    await loss.backward()
    expectGradients('adaptive', layer, { x })
    expect(() => layer.forward(x, target.add(1))).toThrow(IndexError)
    expect(() => layer.forward(x, target.at(0))).toThrow(ShapeError)
    expect(() => new AdaptiveLogSoftmaxWithLoss(8, 20, [4, 4])).toThrow(/rising integers from 1 to 19/)
    layer.dispose()
  }))

test('TripletMarginWithDistanceLoss as in PyTorch', () =>
  scope(async () => {
    const [a, b, c] = ['a', 'b', 'c'].map((key) => of('triplet', 'in')[key]!.clone().requiresGrad_(true)) as [
      Tensor,
      Tensor,
      Tensor,
    ]
    const distanceFunction = (p: Tensor, q: Tensor) => voxtorch.functional.cosineSimilarity(p, q).neg().add(1)
    const losses = {
      plain: new TripletMarginWithDistanceLoss().forward(a, b, c),
      swap: new TripletMarginWithDistanceLoss({ swap: true, margin: 2, reduction: 'sum' }).forward(a, b, c),
      cosine: new TripletMarginWithDistanceLoss({ distanceFunction, reduction: 'none' }).forward(a, b, c),
    }
    for (const [key, value] of Object.entries(of('triplet', 'out')))
      expectClose(losses[key as 'plain'], value, 1e-5, key)
    await losses.plain.add(losses.swap).add(losses.cosine.sum()).backward()
    const gradients = of('triplet', 'grad')
    for (const [key, leaf] of Object.entries({ a, b, c })) expectClose(leaf.grad!, gradients[key]!, 1e-5, key)
  }))

describe('containers of parameters', () => {
  test('register, name and train what they hold', () =>
    scope(async () => {
      class Mixed extends Module {
        scales = new ParameterList([ones([2]), new Parameter(ones([3]))])
        named = new ParameterDict({ left: ones([1]), right: tensor([2, 3]).float() })
        override forward(): Tensor {
          return this.scales.at(-1).sum().add(this.named.at('right').sum())
        }
      }
      const model = new Mixed()
      expect(Object.keys(model.stateDict())).toEqual(['scales.0', 'scales.1', 'named.left', 'named.right'])
      expect(model.parameters().every((parameter) => parameter instanceof Parameter && parameter.requiresGrad)).toBe(
        true,
      )
      await model.forward().backward()
      expect(model.scales.at(1).grad!.toArray()).toEqual([1, 1, 1])
      expect([...model.scales].length).toBe(model.scales.length)
      expect([...model.named].map(([name]) => name)).toEqual([...model.named.keys()])
      expect([model.named.has('left'), model.named.has('up')]).toEqual([true, false])
      expect(voxtorch.func.functionalCall(model, { 'scales.1': tensor([5, 6, 7]).float() }).item()).toBe(23)
      expect(model.forward().item()).toBe(8)
      expect(() => model.scales.at(2)).toThrow(/index below 2, got 2/)
      expect(() => model.named.at('up')).toThrow(/one of left, right, got 'up'/)
      expect(() => model.scales.push(3 as never)).toThrow(/ParameterList: expected a tensor, got number/)
      for (const name of ['', 'a.b', '__proto__']) expect(() => model.named.set(name, ones([1]))).toThrow(ConfigError)
      model.dispose()
    }))

  test('RNNBase is what RNN, GRU and LSTM have in common', () => {
    const [lstm, rnn] = [new LSTM(3, 4), new RNN(3, 4, { nonlinearity: 'relu' })]
    expect([lstm instanceof RNNBase, lstm.mode, rnn.mode]).toEqual([true, 'LSTM', 'RNN_RELU'])
    const base = new RNNBase('GRU', 3, 4, { bidirectional: true })
    expect(base.parameters()[0]!.shape).toEqual([12, 3])
    expect(() => new RNNBase('lstm' as 'LSTM', 3, 4)).toThrow(/RNNBase: expected mode to be 'LSTM', 'GRU'/)
    for (const module of [lstm, rnn, base]) module.dispose()
  })
})
