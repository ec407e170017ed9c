import { describe, expect, it } from 'vitest'
import {
  AdamW,
  BusyError,
  CheckpointError,
  ConfigError,
  getPeftModel,
  Linear,
  memoryStats,
  quantize,
  type Roberta,
  randint,
  randn,
  scope,
  type Tensor,
  zeros,
} from '../../lib/index.js'
import { op, opAsync } from '../../lib/native/call.js'
import type { PackingOptions } from '../../lib/peft/quantize.js'
import { expectClose, fixture, settledTensors, tensorsOf } from '../helpers.js'
import { network, run, type Small } from './networks.js'

const quantizeNf4 = op('voxtorch::quantize_nf4') as (x: Tensor, options?: object) => { codes: Tensor; absmax: Tensor }
const dequantizeNf4 = op('voxtorch::dequantize_nf4') as (c: Tensor, a: Tensor, shape: number[], o?: object) => Tensor
const quantizeInt8 = op('voxtorch::quantize_int8') as typeof quantizeNf4
const dequantizeInt8 = op('voxtorch::dequantize_int8') as (c: Tensor, a: Tensor, o?: object) => Tensor
const quantizeScales = op('voxtorch::quantize_scales') as (scales: Tensor) => { [key: string]: Tensor }
const dequantizeScales = op('voxtorch::dequantize_scales') as (c: Tensor, a: Tensor, offset: Tensor) => Tensor
const roundedScales = (scales: Tensor): Tensor => {
  const { codes, absmax, offset } = quantizeScales(scales) as Record<string, Tensor>
  return dequantizeScales(codes as Tensor, absmax as Tensor, offset as Tensor)
}
const adapted = op('voxtorch::adapted_quantized_linear') as (...args: unknown[]) => Tensor

const file = await fixture('peft/quantized')
const roleOf = (name: string, role: string) => {
  const tensors = tensorsOf(file, name, role)
  return (key: string) => tensors[key] as Tensor
}

describe.each(['odd', 'even', 'narrow'])('packed weights against bitsandbytes: %s', (name) => {
  const given = roleOf(name, 'in')
  const out = roleOf(name, 'out')
  const shape = given('weight').shape as [number, number]

  it('NF4 has its codes, order, scales and values', () => {
    const { codes, absmax } = quantizeNf4(given('weight'))
    expect(codes.shape).toEqual(out('codes').shape)
    expect(codes.toArray()).toEqual(out('codes').toArray())
    expect(absmax.toArray()).toEqual(out('absmax').toArray())
    expect(dequantizeNf4(codes, absmax, shape).toArray()).toEqual(out('values').toArray())
    const half = dequantizeNf4(codes, absmax, shape, { dtype: 'bfloat16' })
    expect(half.to({ dtype: 'float32' }).toArray()).toEqual(out('bfloat16').toArray())
  })

  it('int8 has its codes and scales', () => {
    const { codes, absmax } = quantizeInt8(given('weight'))
    expect(codes.toArray()).toEqual(out('int8.codes').toArray())
    expect(absmax.toArray()).toEqual(out('int8.absmax').toArray())
    expectClose(dequantizeInt8(codes, absmax), out('int8.values'), 1e-6)
  })

  it.each(['nf4', 'int8'] as const)('%s with LoRA: output and gradients', async (scheme) => {
    const { codes, absmax } = scheme === 'nf4' ? quantizeNf4(given('weight')) : quantizeInt8(given('weight'))
    const leaf = (tensor: Tensor) => {
      const copy = tensor.clone()
      copy.requiresGrad = true
      return copy
    }
    const [x, a, b] = [leaf(given('x')), leaf(given('a')), leaf(given('b'))]
    const y = adapted(x, codes, absmax, shape, given('bias'), [a], [b], [2], { scheme })
    expectClose(y.detach(), out(`${scheme}.y`))
    await y.backward({ gradient: roleOf(name, 'cotangent')('y') })
    for (const [key, value] of Object.entries({ x, a, b })) {
      expectClose(value.grad as Tensor, out(`${scheme}.grad_${key}`), 1e-5, key)
    }
  })
})

describe('errors of packed values', () => {
  it('are those of the two types on a normal distribution', () => {
    const weight = randn([256, 256])
    const error = (values: Tensor) => values.sub(weight).square().mean().sqrt().item() as number
    const four = quantizeNf4(weight)
    const eight = quantizeInt8(weight)
    // About 0.09 for blocks of 64 in NF4; a uniform step of absmax / 127 has an error of step / sqrt(12).
    expect(error(dequantizeNf4(four.codes, four.absmax, [256, 256]))).toBeGreaterThan(0.07)
    expect(error(dequantizeNf4(four.codes, four.absmax, [256, 256]))).toBeLessThan(0.11)
    const step = (eight.absmax.mean().item() as number) / 127
    expect(error(dequantizeInt8(eight.codes, eight.absmax)) / (step / Math.sqrt(12))).toBeCloseTo(1, 1)
  })
})

const ids = () => randint(1, 20, [3, 8])
const names = ['small', 'roberta'] as const
const packings: PackingOptions[] = [
  { scheme: 'nf4', doubleQuant: false },
  { scheme: 'nf4', doubleQuant: true },
  { scheme: 'int8' },
]
const cases = names.flatMap((name) => packings.map((packing) => [name, packing] as const))
const targets = { small: ['hidden', 'head'], roberta: ['query', 'value'] }

/** A network whose Linear weights are the packed ones' values. */
function rounded(name: (typeof names)[number], packing: PackingOptions): Small | Roberta {
  const model = network(name)
  const own = model.stateDict()
  const packed = network(name)
  for (const path of quantize(packed, packing)) {
    const weight = own[`${path}.weight`] as Tensor
    const isNf4 = packing.scheme === 'nf4'
    const { codes, absmax } = isNf4 ? quantizeNf4(weight.detach()) : quantizeInt8(weight.detach())
    const shape = weight.shape as [number, number]
    const scales = packing.doubleQuant ? roundedScales(absmax) : absmax
    const values = isNf4 ? dequantizeNf4(codes, scales, shape) : dequantizeInt8(codes, absmax)
    weight.setData(values)
  }
  return model
}

describe.each(cases)('%s in %o', (name, packing) => {
  it('computes what the values of its codes do', async () => {
    const model = network(name).eval() as Small
    const paths = quantize(model, packing)
    expect(paths.length).toBe(name === 'small' ? 2 : paths.length)
    expect(paths.length).toBeGreaterThan(1)
    const input = ids()
    expectClose((await run(model, input)).detach(), (await run(rounded(name, packing).eval() as Small, input)).detach())
  })

  it('trains adapters as the network of its values does, and nothing else', async () => {
    const input = ids()
    const results = []
    const firstLora = new Map<string, Tensor>()
    for (const model of [network(name), rounded(name, packing)] as Small[]) {
      const isPacked = results.length === 0
      if (isPacked) quantize(model, packing)
      const peft = getPeftModel(model, { r: 3, targetModules: targets[name] })
      const trained = model.namedParameters().filter(([, parameter]) => parameter.requiresGrad)
      expect(trained.length).toBeGreaterThan(3)
      expect(trained.every(([key]) => key.includes('lora_'))).toBe(true)
      for (const [key, parameter] of trained) {
        if (isPacked) firstLora.set(key, parameter.detach().clone())
        else parameter.setData((firstLora.get(key) as Tensor).clone())
      }
      const before = Object.entries(model.stateDict()).map(([key, value]) => [key, value.detach().clone().toArray()])
      using optimizer = new AdamW(
        trained.map(([, parameter]) => parameter),
        { lr: 0.02 },
      )
      model.eval()
      const losses: number[] = []
      for (let step = 0; step < 8; step++) {
        const loss = (await run(model, input)).square().mean()
        losses.push(loss.item() as number)
        await loss.backward()
        await optimizer.step()
        optimizer.zeroGrad()
      }
      expect(losses[7] as number).toBeLessThan(losses[0] as number)
      expect(Object.entries(model.stateDict()).map(([key, value]) => [key, value.toArray()])).toEqual(before)
      results.push(losses)
      if (isPacked) expect(() => peft.mergeAdapter()).toThrow(/quantized as .* dequantize: true/)
    }
    for (const [step, loss] of (results[0] as number[]).entries()) {
      expect(Math.abs(loss / ((results[1] as number[])[step] as number) - 1)).toBeLessThan(1e-5)
    }
  })
})

describe.each(cases)('%s in %o, merged and saved', (name, packing) => {
  const { scheme, doubleQuant = false } = packing

  it('merges only with dequantize, and comes back', async () => {
    const input = ids()
    const model = network(name).eval() as Small
    quantize(model, packing)
    const peft = getPeftModel(model, { r: 3, targetModules: targets[name], initLoraWeights: false })
    expect(() => peft.mergeAdapter()).toThrow(ConfigError)
    expect(() => peft.mergeAndUnload()).toThrow(/dequantize: true/)
    const with_ = (await run(model, input)).detach()
    const without = (await peft.disableAdapter(() => run(model, input))).detach()
    peft.mergeAdapter('default', { dequantize: true })
    expectClose((await run(model, input)).detach(), with_)
    peft.unmergeAdapter()
    expectClose((await peft.disableAdapter(() => run(model, input))).detach(), without)
    peft.mergeAndUnload({ dequantize: true })
    expectClose((await run(model, input)).detach(), with_)
  })

  it('saves codes and scales, and loads them', async () => {
    const input = ids()
    const model = network(name).eval() as Small
    const [path] = quantize(model, packing) as [string]
    const state = model.stateDict()
    expect(state[`${path}.weight`]?.dtype).toBe(scheme === 'nf4' ? 'uint8' : 'int8')
    expect(state[`${path}.weight_absmax`]?.dtype).toBe(doubleQuant ? 'uint8' : 'float32')
    expect(Object.hasOwn(state, `${path}.weight_nested_absmax`)).toBe(doubleQuant)
    const other = network(name).eval() as Small
    for (const parameter of other.parameters()) parameter.detach().mul_(2)
    quantize(other, packing)
    const expected = (await run(model, input)).detach()
    other.loadStateDict(state)
    expect((await run(other, input)).detach().toArray()).toEqual(expected.toArray())
    expect(() => network(name).loadStateDict(state)).toThrow(CheckpointError)
    expect(() => other.loadStateDict(network(name).stateDict())).toThrow(/weight_absmax/)
  })

  it('keeps codes and scales under to({ dtype })', async () => {
    const input = ids()
    const model = network(name).eval() as Small
    const [path] = quantize(model, packing) as [string]
    const expected = (await run(model, input)).detach()
    model.to({ dtype: 'bfloat16' })
    const scales = Object.entries(model.stateDict()).filter(([name]) => name.startsWith(`${path}.weight_`))
    expect(scales.map(([, { dtype }]) => dtype)).toEqual(doubleQuant ? ['uint8', 'float32', 'float32'] : ['float32'])
    const half = (await run(model, input)).detach()
    expect(half.dtype).toBe('bfloat16')
    expectClose(half.to({ dtype: 'float32' }), expected, 0.05)
  })
})

describe('quantize', () => {
  it('takes DoRA and dropout on top', async () => {
    const layer = new Linear(32, 16)
    quantize(layer, { scheme: 'nf4' })
    getPeftModel(layer, { r: 2, targetModules: '', useDora: true, loraDropout: 0.5 })
    const plain = new Linear(32, 16)
    expect(layer.forward(randn([2, 32])).shape).toEqual(plain.forward(randn([2, 32])).shape)
  })

  it('chooses by pattern', () => {
    const model = network('small') as Small
    expect(quantize(model, { scheme: 'nf4', modules: ['head'] })).toEqual(['head'])
    expect(quantize(model, { scheme: 'int8', modules: /^hid/ })).toEqual(['hidden'])
    expect(model.head.weight.requiresGrad).toBe(false)
    expect(model.conv.weight.requiresGrad).toBe(true)
  })

  it('refuses what it cannot pack', () => {
    const model = network('small') as Small
    expect(() => quantize(model, { scheme: 'fp4' as never })).toThrow(/scheme to be .*nf4.*int8.*q8_0.*q4_0/)
    expect(() => quantize(model, undefined as never)).toThrow(ConfigError)
    expect(() => quantize({} as never, { scheme: 'nf4' })).toThrow(ConfigError)
    expect(() => quantize(model, { scheme: 'nf4', blockSize: 63 })).toThrow(/blockSize/)
    expect(() => quantize(model, { scheme: 'nf4', modules: 'tail' })).toThrow(/none of Small matches tail/)
    expect(() => quantize(model, { scheme: 'nf4', module: 'head' } as never)).toThrow(
      /expected one of the options .*, got 'module'/,
    )
    expect(() => quantize(model, { scheme: 'nf4', blockSize: 65538 })).toThrow(/an even number up to 65536/)
    expect(() => quantize(model, { scheme: 'q8_0', blockSize: 32 })).toThrow(
      /quantize: expected scheme 'nf4' with blockSize, got 'q8_0', whose blocks have 32 elements/,
    )
    expect(() => quantize(model, { scheme: 'q8_0', doubleQuant: true })).toThrow(
      /quantize: expected scheme 'nf4' with doubleQuant, got 'q8_0', which has float16 scales in its blocks/,
    )
    expect(() => quantize(model, { scheme: 'int8', doubleQuant: true })).toThrow(
      /quantize: expected scheme 'nf4' with doubleQuant, got 'int8', which has one float32 scale for each row/,
    )
    expect(() => quantize(model, { scheme: 'nf4', doubleQuant: 1 as never })).toThrow(
      /quantize: expected doubleQuant to be true or false, got 1/,
    )
    const onMeta = new Linear(32, 16, { device: 'meta' })
    expect(() => quantize(onMeta, { scheme: 'nf4' })).toThrow(
      /quantize: '' is on the meta device, which has no values to quantize\. Load the weights first/,
    )
    const wide = new Linear(32, 16, { dtype: 'float64' })
    expect(() => quantize(wide, { scheme: 'nf4' })).toThrow(
      /has a float64 weight, expected float32, bfloat16 or float16/,
    )
    expect(() => quantize(new Linear(48, 16), { scheme: 'q4_0' })).toThrow(
      /quantize: '' has rows of 48, which is not a multiple of 32 as q4_0 requires\. Leave it out with `modules`/,
    )
    quantize(model, { scheme: 'nf4', modules: 'head' })
    expect(() => quantize(model, { scheme: 'nf4' })).toThrow(/'head' is quantized already/)
    getPeftModel(model, { targetModules: ['hidden'] })
    expect(() => quantize(model, { scheme: 'nf4', modules: 'hidden' })).toThrow(/has an adapter/)
    expect(() => dequantizeNf4(zeros([3], { dtype: 'uint8' }), zeros([1]), [4, 4])).toThrow(/8 bytes of codes/)
    expect(() => dequantizeNf4(zeros([8], { dtype: 'uint8' }), zeros([2]), [4, 4])).toThrow(/absmax/)
    expect(() => dequantizeNf4(zeros([8], { dtype: 'uint8' }), zeros([1]), [-4, 4])).toThrow(/no tensor/)
  })

  it('waits for no one: a network that a queued call reads is refused, and works on', async () => {
    const model = network('roberta').eval() as Roberta
    const input = ids()
    const before = (await run(model, input)).detach()
    // Keeps the executor busy, so that the pass is still to come.
    const large = randn([1500, 1500])
    const first = opAsync('aten::matmul')(large, large)
    const pending = model.forward({ inputIds: input })
    expect(() => quantize(model, { scheme: 'nf4' })).toThrow(BusyError)
    await Promise.all([first, pending])
    expect((await run(model, input)).detach().toArray()).toEqual(before.toArray())
    expect(model.parameters().every(({ requiresGrad }) => requiresGrad)).toBe(true)
  })

  it.each([
    [{ scheme: 'int8' }, 1],
    [{ scheme: 'nf4', doubleQuant: false }, 1],
    [{ scheme: 'nf4' }, 3],
  ] as const)('leaves no tensors behind: %o', async (packing, buffers) => {
    const layer = new Linear(64, 32)
    const before = await settledTensors()
    quantize(layer, packing)
    expect(memoryStats().liveTensors).toBe(before + buffers)
    scope(() => void layer.forward(randn([2, 64])))
    expect(memoryStats().liveTensors).toBe(before + buffers)
    const peft = getPeftModel(layer, { r: 2, targetModules: '' })
    peft.mergeAndUnload({ dequantize: true })
    expect(memoryStats().liveTensors).toBe(before)
    // Numbers again, which convert.
    expect(layer.to({ dtype: 'bfloat16' }).weight.dtype).toBe('bfloat16')
  })
})
