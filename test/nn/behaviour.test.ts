import { describe, expect, test } from 'vitest'
import {
  autocast,
  autograd,
  DeviceError,
  Dropout,
  Embedding,
  functional as F,
  GRU,
  Identity,
  keepForever,
  LayerNorm,
  Linear,
  LSTM,
  Module,
  MultiheadAttention,
  manualSeed,
  memoryStats,
  noGrad,
  ones,
  randn,
  Sequential,
  SiLU,
  scope,
  type Tensor,
  TransformerEncoder,
  TransformerEncoderLayer,
  tensor,
  Upsample,
} from '../../lib/index.js'
import { expectClose, numbers } from '../helpers.js'

describe('recurrent layers', () => {
  test('what stands in the padding does not matter, and lengths may be a tensor', () =>
    scope(() => {
      for (const layer of [
        new GRU(3, 4, { batchFirst: true, bidirectional: true }),
        new LSTM(3, 4, { batchFirst: true, bidirectional: true }),
      ]) {
        const x = randn([2, 5, 3])
        const { output, hidden } = layer.forward(x, null, { lengths: [2, 4] })
        const spoilt = x.clone().setAt([0, 4], Number.NaN).setAt([1, 4], Number.NaN)
        const again = layer.forward(spoilt, null, { lengths: tensor([2, 4]) })
        expect(output.shape).toEqual([2, 5, 8])
        expectClose(again.output, output, 0)
        expectClose(again.hidden, hidden, 0)
        expect(numbers(output.at(0, 3)).every((value) => value === 0)).toBe(true)
        const alone = layer.forward(x.at([1]).narrow(1, 0, 4))
        expectClose(output.at([1]).narrow(1, 0, 4), alone.output, 1e-6)
        layer.dispose()
      }
    }))
})

describe('attention', () => {
  test('a causal mask may be given twice, and weights of the future are zero', () =>
    scope(() => {
      const layer = new MultiheadAttention(4, 2, { batchFirst: true })
      const x = randn([1, 3, 4])
      const causal = ones([3, 3], { dtype: 'bool' }).triu(1)
      const { output, weights } = layer.forward(x, x, x, { isCausal: true, attnMask: causal })
      expect(numbers(weights!.triu(1)).every((value) => value === 0)).toBe(true)
      expectClose(weights!.sum(-1), ones([1, 3]), 1e-6)
      expectClose(layer.forward(x, x, x, { isCausal: true, needWeights: false }).output, output, 1e-6)
      layer.dispose()
    }))

  test('a copy of the query gives what the query gives', () =>
    scope(() => {
      const layer = new MultiheadAttention(4, 2)
      const x = randn([3, 2, 4])
      expectClose(layer.forward(x, x.clone(), x.clone()).output, layer.forward(x, x, x).output, 1e-6)
      layer.dispose()
    }))

  test('an encoder copies its layer, which stays as it was', () =>
    scope(() => {
      const layer = new TransformerEncoderLayer(4, 2, { dimFeedforward: 8, dtype: 'float64' })
      const encoder = new TransformerEncoder(layer, 2, { norm: new LayerNorm(4, { dtype: 'float64' }) })
      const [first, second] = [encoder.layers.at(0).linear1.weight, encoder.layers.at(1).linear1.weight]
      expect(numbers(first)).toEqual(numbers(layer.linear1.weight))
      noGrad(() => first.zero_())
      expect(numbers(second)).toEqual(numbers(layer.linear1.weight))
      expect(second.dtype).toBe('float64')
      for (const module of [layer, encoder]) module.dispose()
    }))
})

describe('precision and devices', () => {
  test('layers can be made in bfloat16 and float64', () =>
    scope(() => {
      for (const dtype of ['bfloat16', 'float64'] as const) {
        const net = new Sequential(new Linear(4, 4, { dtype }), new LayerNorm(4, { dtype }), new SiLU())
        expect(net.forward(ones([2, 4], { dtype })).dtype).toBe(dtype)
        net.dispose()
      }
    }))

  test('autocast reaches layers, masks and gradients', () =>
    scope(async () => {
      const layer = new TransformerEncoderLayer(8, 2, { dimFeedforward: 8, dropout: 0 })
      const attention = new MultiheadAttention(8, 2)
      const gru = new GRU(8, 4)
      const x = randn([3, 2, 8])
      const padding = tensor([
        [false, false, true],
        [false, false, false],
      ])
      await autocast({ dtype: 'bfloat16' }, async () => {
        const encoded = layer.forward(x, { keyPaddingMask: padding, isCausal: true })
        const { output, weights } = attention.forward(encoded, encoded, encoded, { keyPaddingMask: padding })
        expect(output.dtype).toBe('bfloat16')
        expect(weights!.isnan().any().item()).toBe(false)
        await gru.forward(output).output.float().sum().backward()
      })
      expect(layer.linear1.weight.grad!.dtype).toBe('float32')
      for (const module of [layer, attention, gru]) module.dispose()
    }))

  test('the meta device holds shapes, and refuses to be loaded', () =>
    scope(() => {
      const device = 'meta'
      const net = new TransformerEncoder(new TransformerEncoderLayer(512, 8, { device }), 12)
      expect(net.summary()).toMatch(/TransformerEncoder: 37,828,608 parameters/)
      expect(net.layers.at(3).linear1.forward(ones([2, 3, 512], { device })).shape).toEqual([2, 3, 2048])
      expect(() => net.loadStateDict(net.stateDict())).toThrow(DeviceError)
      net.dispose()
    }))
})

describe('memory', () => {
  test('what changes nothing still returns a tensor of its own', () => {
    for (const layer of [new Identity(), new Dropout(0.5).eval(), new Sequential()]) {
      const x = ones([2])
      const y = layer.forward(x)
      y.dispose()
      expect(numbers(x)).toEqual([1, 1])
      x.dispose()
    }
  })

  test('a hook can hold on to an activation', () => {
    using net = new Sequential(new Linear(2, 3), new SiLU())
    let seen: Tensor | undefined
    net.get('0').registerForwardHook((_, __, output) => {
      seen = keepForever((output as Tensor).detach())
    })
    const y = scope(() => net.forward(ones([1, 2])))
    expect(seen!.shape).toEqual([1, 3])
    seen!.dispose()
    y.dispose()
  })

  test('training by hand: the loss falls and nothing piles up', async () => {
    class Classifier extends Module {
      embed = new Embedding(12, 8, { paddingIdx: 0 })
      encoder: TransformerEncoder
      head = new Linear(8, 2)

      constructor() {
        super()
        const layer = new TransformerEncoderLayer(8, 2, { dimFeedforward: 16, dropout: 0.1, batchFirst: true })
        this.encoder = new TransformerEncoder(layer, 1)
        layer.dispose()
      }

      override forward(ids: Tensor): Tensor {
        return scope(() => {
          const encoded = this.encoder.forward(this.embed.forward(ids), { keyPaddingMask: ids.eq(0) })
          return this.head.forward(encoded.mean([1]))
        })
      }
    }
    manualSeed(1)
    using net = new Classifier()
    using ids = tensor([
      [3, 4, 5, 0],
      [6, 7, 0, 0],
      [3, 5, 4, 8],
      [7, 6, 9, 0],
    ])
    using labels = tensor([0, 1, 0, 1])
    const parameters = net.parameters()
    const losses: number[] = []
    const counts: number[] = []
    for (let step = 0; step < 60; step++) {
      await scope(async () => {
        const loss = F.crossEntropy(net.forward(ids), labels)
        const gradients = await autograd.grad([loss], parameters)
        noGrad(() => {
          for (const [i, parameter] of parameters.entries()) parameter.sub_(gradients[i]!, { alpha: 0.1 })
        })
        losses.push(loss.item() as number)
      })
      counts.push(memoryStats().liveTensors)
    }
    expect(losses.at(-1)).toBeLessThan(losses[0]! / 3)
    expect(new Set(counts.slice(1)).size).toBe(1)
  })
})

test('Upsample takes every option of interpolate', () => {
  using image = randn([1, 2, 5, 5])
  for (const options of [
    { size: [3, 3], mode: 'bilinear', antialias: true },
    { scaleFactor: 1.5, mode: 'bilinear', recomputeScaleFactor: true },
  ] as ConstructorParameters<typeof Upsample>[0][]) {
    using layer = new Upsample(options)
    using got = layer.forward(image)
    using wanted = F.interpolate(image, options)
    expect(got.equal(wanted)).toBe(true)
  }
})
