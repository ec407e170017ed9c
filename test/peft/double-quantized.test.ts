import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import {
  arange,
  BusyError,
  CheckpointError,
  ConfigError,
  DecoderLM,
  getPeftModel,
  Linear,
  loadSafetensors,
  type Module,
  memoryStats,
  quantize,
  randn,
  ShapeError,
  saveSafetensors,
  setNumThreads,
  type Tensor,
  tensor,
  zeros,
} from '../../lib/index.js'
import { op, opAsync } from '../../lib/native/call.js'
import type { PackingOptions } from '../../lib/peft/quantize.js'
import { expectClose, fixture, fixturePath, settledTensors, tensorsOf } from '../helpers.js'
import { network, run, type Small } from './networks.js'

const quantizeNf4 = op('voxtorch::quantize_nf4') as (weight: Tensor) => { codes: Tensor; absmax: Tensor }
const dequantizeNf4 = op('voxtorch::dequantize_nf4') as (c: Tensor, a: Tensor, shape: number[]) => Tensor
const quantizeScales = op('voxtorch::quantize_scales') as (
  scales: Tensor,
) => Record<'codes' | 'absmax' | 'offset', Tensor>
const dequantizeScales = op('voxtorch::dequantize_scales') as (c: Tensor, a: Tensor, offset: Tensor) => Tensor
const packedLinear = op('voxtorch::quantized_linear') as (...args: unknown[]) => Tensor

const file = await fixture('peft/quantized')
const roleOf = (name: string, role: string) => {
  const tensors = tensorsOf(file, name, role)
  return (key: string) => tensors[key] as Tensor
}
const SCALES = ['weight_absmax', 'weight_nested_absmax', 'weight_nested_offset'] as const
const single: PackingOptions = { scheme: 'nf4', doubleQuant: false }
const double: PackingOptions = { scheme: 'nf4', doubleQuant: true }

/** The state dictionary's numbers, with dtypes. */
const bits = (state: Record<string, Tensor>) =>
  Object.entries(state).map(([name, value]) => [name, value.dtype, value.toArray()])

describe.each([
  ['double odd', 14, 1],
  ['double large', 258, 2],
] as const)('double quantisation against bitsandbytes: %s', (name, blocks, nestedBlocks) => {
  const given = roleOf(name, 'in')
  const out = roleOf(name, 'out')
  const weight =
    name === 'double odd'
      ? given('weight')
      : given('levels')
          .float()
          .mul(arange(64, 195).reshape([-1, 1]))
          .div(2 ** 17)
  const shape = weight.shape as [number, number]

  it('has its codes of scales, their absmax, the offset and the values', () => {
    const { codes, absmax: scales } = quantizeNf4(weight)
    const { codes: packed, absmax, offset } = quantizeScales(scales)
    expect([packed.shape, absmax.shape, offset.shape]).toEqual([[blocks], [nestedBlocks], [1]])
    expect(packed.toArray()).toEqual(out('absmax').toArray())
    expect(absmax.toArray()).toEqual(out('nested_absmax').toArray())
    expect(offset.toArray()).toEqual(out('nested_offset').toArray())
    const restored = dequantizeScales(packed, absmax, offset)
    expect(restored.toArray()).toEqual(out('scales').toArray())
    if (name !== 'double odd') return
    expect(codes.toArray()).toEqual(out('codes').toArray())
    expect(dequantizeNf4(codes, restored, shape).toArray()).toEqual(out('values').toArray())
  })

  it('a layer has its state, its output and its gradients under LoRA', async () => {
    const layer = new Linear(shape[1], shape[0], { bias: false })
    layer.weight.setData(weight.clone())
    quantize(layer, { scheme: 'nf4' })
    const state = layer.stateDict()
    expect(Object.keys(state)).toEqual(['weight', ...SCALES])
    for (const key of SCALES) expect(state[key]?.toArray(), key).toEqual(out(key.slice('weight_'.length)).toArray())
    expectClose(layer.forward(given('x')), out('plain'), 1e-6, 'output')
    getPeftModel(layer, { r: 4, loraAlpha: 8, targetModules: '' })
    const found = Object.fromEntries(layer.namedParameters())
    const [a, b] = ['A', 'B'].map((part) => found[`lora_${part}.default.weight`] as Tensor) as [Tensor, Tensor]
    a.setData(given('a').clone())
    b.setData(given('b').clone())
    const x = given('x').clone()
    x.requiresGrad = true
    const y = layer.forward(x)
    expectClose(y.detach(), out('y'), 1e-6, 'output with LoRA')
    await y.backward({ gradient: roleOf(name, 'cotangent')('y') })
    for (const [key, leaf] of Object.entries({ x, a, b })) {
      expectClose(leaf.grad as Tensor, out(`grad_${key}`), 1e-6, `gradient of ${key}`)
    }
  })
})

describe('double quantisation', () => {
  it('is the default of nf4, and costs 4.127 bits a weight', () => {
    const weigh = (packing: PackingOptions) => {
      const layer = new Linear(1024, 1024, { bias: false })
      quantize(layer, packing)
      const bytes = Object.values(layer.stateDict()).map((own) => own.numel() * (own.dtype === 'float32' ? 4 : 1))
      return (8 * bytes.reduce((a, b) => a + b)) / 1024 ** 2
    }
    expect(weigh({ scheme: 'nf4' })).toBeCloseTo(4.127, 3)
    expect(weigh(double)).toBe(weigh({ scheme: 'nf4' }))
    expect(weigh(single)).toBe(4.5)
  })

  it('adds little to the error of nf4', () => {
    const weight = randn([256, 256])
    const { codes, absmax: scales } = quantizeNf4(weight)
    const error = (scales: Tensor) =>
      dequantizeNf4(codes, scales, [256, 256]).sub(weight).square().mean().sqrt().item() as number
    const { codes: packed, absmax, offset } = quantizeScales(scales)
    const restored = dequantizeScales(packed, absmax, offset)
    expect(restored.toArray()).not.toEqual(scales.toArray())
    expect(error(restored)).toBeLessThan(1.005 * error(scales))
  })

  it('has the same bits on any number of threads', () => {
    const weight = randn([1601, 1601])
    const made = [1, 2].map((threads) => {
      setNumThreads(threads)
      return Object.values(quantizeScales(quantizeNf4(weight).absmax)).map((each) => each.toArray())
    })
    expect(made[0]).toEqual(made[1])
  })

  it('leaves a bias that trains its gradient', async () => {
    const layer = new Linear(64, 8)
    quantize(layer, double)
    const gradient = randn([3, 8])
    await layer.forward(randn([3, 64])).backward({ gradient })
    expectClose(layer.bias?.grad as Tensor, gradient.sum([0]), 1e-6)
    expect(layer.weight.grad).toBeNull()
  })

  it('refuses what is no such packing', () => {
    const layer = new Linear(64, 32)
    expect(() => quantize(layer, { scheme: 'int8', doubleQuant: true })).toThrow(
      /expected scheme 'nf4' with doubleQuant/,
    )
    expect(() => quantize(layer, { scheme: 'nf4', doubleQuant: 1 as never })).toThrow(ConfigError)
    expect(layer.weight.dtype).toBe('float32')
    const bytes = (count: number) => zeros([count], { dtype: 'uint8' })
    expect(() => quantizeScales(zeros([2, 2]))).toThrow(/shape \[blocks\]/)
    expect(() => dequantizeScales(zeros([4]), zeros([1]), zeros([1]))).toThrow(/codes must be uint8/)
    expect(() => dequantizeScales(bytes(257), zeros([1]), zeros([1]))).toThrow(/float32 of shape \[2\]/)
    expect(() => dequantizeScales(bytes(4), zeros([1]), zeros([2]))).toThrow(/offset must be float32 of shape \[1\]/)
    const linear = (options: object) => () =>
      packedLinear(randn([2, 4]), bytes(8).reshape([8, 1]), bytes(1), [4, 4], null, options)
    expect(linear({ scheme: 'nf4', nestedAbsmax: zeros([1]) })).toThrow(/both a nested absmax and a nested offset/)
    expect(linear({ scheme: 'nf4', nestedAbsmax: zeros([2]), nestedOffset: zeros([1]) })).toThrow(ShapeError)
    expect(linear({ scheme: 'nf4' })).toThrow(/absmax must be float32/)
  })
})

const ids = () => tensor([[3, 1, 4, 1, 5, 9, 2, 6]], { dtype: 'int64' })
const packed = (name: 'small' | 'roberta', packing: PackingOptions, factor = 1) => {
  const model = network(name).eval()
  for (const parameter of model.parameters()) parameter.detach().mul_(factor)
  quantize(model, packing)
  return model
}

describe.each(['small', 'roberta'] as const)('state dictionaries of %s', (name) => {
  it.each([
    ['float32 scales come into a network that packs them', single, double],
    ['packed scales come into a network that has them in float32', double, single],
    ['packed scales come into such a network', double, double],
  ])('%s, bit for bit', async (_, from, to) => {
    const source = packed(name, from)
    const target = packed(name, to, 1.5) as Small
    const parameters = target.parameters()
    const before = await settledTensors()
    expect(target.loadStateDict(source.stateDict())).toEqual({ missing: [], unexpected: [] })
    const layers = Object.keys(source.stateDict()).filter((key) => key.endsWith('weight_absmax')).length
    const grown = from === to ? 0 : from.doubleQuant ? 2 * layers : -2 * layers
    expect((await settledTensors()) - before).toBe(grown)
    expect(bits(target.stateDict())).toEqual(bits(source.stateDict()))
    expect(target.parameters().every((own, i) => own === parameters[i])).toBe(true)
    const wanted = (await run(source, ids())).detach()
    expect((await run(target, ids())).detach().toArray()).toEqual(wanted.toArray())
    // The form goes with the network: it converts and becomes numbers again as one that was packed so.
    target.to({ dtype: 'bfloat16' })
    expect(bits(target.stateDict()).filter(([key]) => SCALES.some((scale) => String(key).endsWith(scale)))).toEqual(
      bits(source.stateDict()).filter(([key]) => SCALES.some((scale) => String(key).endsWith(scale))),
    )
    const peft = getPeftModel(target as Module, { r: 2, targetModules: 'all-linear' })
    peft.mergeAndUnload({ dequantize: true })
    expect(Object.keys(target.stateDict()).filter((key) => key.includes('weight_'))).toEqual([])
  })

  it('that do not fit are refused with the names of their tensors, and change nothing', async () => {
    const target = packed(name, double)
    const [path] = Object.keys(target.stateDict()).flatMap((key) => key.match(/(.*)\.weight_absmax$/)?.[1] ?? [])
    const key = (scale: (typeof SCALES)[number]) => `${path}.${scale}`
    const before = bits(target.stateDict())
    const refused = (packing: PackingOptions, change: (state: Record<string, unknown>) => void, named: string) => {
      const state: Record<string, unknown> = { ...packed(name, packing, 2).stateDict() }
      change(state)
      const live = memoryStats().liveTensors
      let error: unknown
      try {
        target.loadStateDict(state as Record<string, Tensor>)
      } catch (caught) {
        error = caught
      }
      expect(memoryStats().liveTensors).toBe(live)
      expect(error).toBeInstanceOf(CheckpointError)
      expect((error as Error).message).toContain(named)
      expect(bits(target.stateDict())).toEqual(before)
    }
    for (const scale of SCALES) {
      refused(double, (state) => delete state[key(scale)], key(scale))
      refused(double, (state) => (state[key(scale)] = zeros([777])), key(scale))
      refused(double, (state) => (state[key(scale)] = 'scales'), `${key(scale)} is`)
      const shape = (target.stateDict()[key(scale)] as Tensor).shape
      refused(double, (state) => (state[key(scale)] = zeros(shape, { dtype: 'int64' })), `${key(scale)} is`)
    }
    refused(double, (state) => (state[`${path}.weight`] = zeros([3, 3])), `${path}.weight is`)
    // Both forms at once, and each with the other's dtype.
    refused(single, (state) => (state[key('weight_nested_offset')] = zeros([1])), key('weight_nested_absmax'))
    refused(single, (state) => (state[key('weight_absmax')] = zeros([777])), `${key('weight_absmax')} is`)
    const asBytes = (state: Record<string, unknown>) =>
      (state[key('weight_absmax')] = (state[key('weight_absmax')] as Tensor).to({ dtype: 'uint8' }))
    refused(single, asBytes, key('weight_nested_absmax'))
    const wanted = (await run(packed(name, double), ids())).detach()
    expect((await run(target, ids())).detach().toArray()).toEqual(wanted.toArray())
  })
})

it('a layer that a queued call reads keeps the form of its scales', async () => {
  const model = packed('roberta', double)
  const before = (await run(model, ids())).detach()
  const large = randn([1500, 1500])
  const first = opAsync('aten::matmul')(large, large)
  const pending = run(model, ids())
  expect(() => model.loadStateDict(packed('roberta', single, 2).stateDict())).toThrow(BusyError)
  const during = (await Promise.all([pending, first]))[0].detach()
  expect(during.toArray()).toEqual(before.toArray())
  expect(Object.keys(model.stateDict()).some((key) => key.endsWith('weight_nested_offset'))).toBe(true)
  expect((await run(model, ids())).detach().toArray()).toEqual(before.toArray())
})

describe('a language model in shards', () => {
  const folder = fixturePath('models/llama-sharded')
  const directory = mkdtempSync(join(tmpdir(), 'voxtorch-double-'))
  afterAll(() => rmSync(directory, { recursive: true }))

  it.each([
    ['nf4', 'nf4', double],
    ['nf4 with its options', { scheme: 'nf4', doubleQuant: true }, double],
    ['nf4 without double quantisation', single, single],
  ] as const)('has the same bits packed as it is read and packed later: %s', async (_, given, packing) => {
    const loaded = await DecoderLM.fromPretrained(folder)
    quantize(loaded, { ...packing, modules: 'model.layers' })
    for (const mmap of [false, true]) {
      const read = await DecoderLM.fromPretrained(folder, { quantize: given, mmap })
      expect(bits(read.stateDict())).toEqual(bits(loaded.stateDict()))
      const inputIds = ids()
      const wanted = (await loaded.forward({ inputIds })).logits as Tensor
      expect(((await read.forward({ inputIds })).logits as Tensor).toArray()).toEqual(wanted.toArray())
    }
  })

  it('keeps its bits when it is saved and loaded', async () => {
    const model = await DecoderLM.fromPretrained(folder, { quantize: 'nf4' })
    const saved = join(directory, 'packed.safetensors')
    await saveSafetensors(saved, model.stateDict())
    const again = await DecoderLM.fromPretrained(folder)
    for (const parameter of again.parameters()) parameter.detach().mul_(3)
    quantize(again, { scheme: 'nf4', modules: 'model.layers' })
    again.loadStateDict((await loadSafetensors(saved)).tensors)
    expect(bits(again.stateDict())).toEqual(bits(model.stateDict()))
    const inputIds = ids()
    const wanted = (await model.forward({ inputIds })).logits as Tensor
    expect(((await again.forward({ inputIds })).logits as Tensor).toArray()).toEqual(wanted.toArray())
  })
})
