import { execFileSync } from 'node:child_process'
import { describe, expect, it } from 'vitest'
import {
  autocast,
  autograd,
  emptyCache,
  functional,
  manualSeed,
  noGrad,
  ops,
  Roberta,
  randint,
  randn,
  type Tensor,
} from '../../lib/index.js'
import { difference, expectAsExact } from '../helpers.js'

// Large enough for oneDNN's kernel, and not.
const sizes: [batch: number[], from: number, to: number][] = [
  [[2, 70], 96, 128],
  [[200], 100, 77],
  [[3], 5, 4],
]

describe('linear on the CPU', () => {
  it.each(sizes)('equals ATen in float32, gradients too: %j, %j to %j', async (batch, from, to) => {
    manualSeed(1)
    const input = randn([...batch, from]).requiresGrad_()
    const weight = randn([to, from]).requiresGrad_()
    const bias = randn([to]).requiresGrad_()
    const cotangent = randn([...batch, to])
    for (const inputs of [[input, weight, bias], [input, weight], [weight], [bias]]) {
      const offset = inputs.includes(bias) ? bias : null
      const ours = functional.linear(input, weight, offset)
      const theirs = ops.linear(input, weight, offset)
      expect(difference(ours, theirs)).toBeLessThan(2e-6)
      const [a, b] = await Promise.all(
        [ours, theirs].map((y) => autograd.grad(y, inputs, { gradOutputs: [cotangent] })),
      )
      inputs.forEach((_, i) => {
        expect(difference(a?.[i] as Tensor, b?.[i] as Tensor)).toBeLessThan(2e-6)
      })
      expect(noGrad(() => functional.linear(input, weight, offset)).equal(ours)).toBe(true)
    }
  })

  it('multiplies in bfloat16 where oneDNN cannot, as on processors without AVX-512', () => {
    const program = `
      import { functional, noGrad, ones } from '${new URL('../../dist/modules/index.js', import.meta.url)}'
      const [x, w] = [ones([70, 96], { dtype: 'bfloat16' }), ones([256, 96], { dtype: 'bfloat16' })]
      const there = functional.linear(x, w.requiresGrad_()).float().mean().item()
      console.log(there, noGrad(() => functional.linear(x, w.detach())).float().mean().item())`
    const out = execFileSync(process.execPath, ['--input-type=module', '-e', program], {
      env: { ...process.env, ONEDNN_MAX_CPU_ISA: 'AVX2' },
      encoding: 'utf8',
    })
    expect(out).toBe('96 96\n')
  })

  it('equals the rounded float32 product in bfloat16', () => {
    manualSeed(2)
    const [input, weight, bias] = [randn([2, 70, 96]), randn([128, 96]), randn([128])].map((x) => x.to('bfloat16'))
    const ours = functional.linear(input!, weight!, bias!).float()
    const exact = ops.linear(input!.float(), weight!.float(), bias!.float())
    expect(difference(ours, exact)).toBeLessThan(2 ** -8)
    expect(difference(ours, ops.linear(input!, weight!, bias!).float())).toBeLessThan(2 ** -7)
  })

  // The second is multiplied in two panels where the processor has no products of that dtype.
  it.each([
    ['bfloat16', [2, 70], 96, 128],
    ['bfloat16', [70], 1024, 1536],
    ['float16', [2, 70], 96, 128],
    ['float16', [70], 1024, 1536],
  ] as const)('comes as near to float64 as ATen in %s, gradients too: %j, %j to %j', async (dtype, batch, from, to) => {
    manualSeed(4)
    const wide = [randn([...batch, from]), randn([to, from]).div(Math.sqrt(from)), randn([to])]
    const inputs = wide.map((x) => x.to(dtype).requiresGrad_())
    const cotangent = randn([...batch, to]).to(dtype)
    const run = async (linear: (...args: Tensor[]) => Tensor, given: Tensor[], gradOutput: Tensor) => {
      const result = linear(...given)
      return [result, ...(await autograd.grad([result], given, { gradOutputs: [gradOutput] }))] as Tensor[]
    }
    const doubles = inputs.map((x) => x.detach().double().requiresGrad_())
    const exact = await run(ops.linear as never, doubles, cotangent.double())
    const theirs = await run(ops.linear as never, inputs, cotangent)
    const ours = await run(functional.linear as never, inputs, cotangent)
    const rows = batch.reduce((product: number, size) => product * size, 1)
    for (const [i, terms] of [from, to, rows, rows].entries()) {
      expectAsExact(ours[i] as Tensor, theirs[i] as Tensor, exact[i] as Tensor, terms, `${i}`)
    }
    expect(noGrad(() => functional.linear(...(inputs as [Tensor, Tensor, Tensor]))).equal(ours[0] as Tensor)).toBe(true)
  })

  it('can be differentiated twice', async () => {
    manualSeed(3)
    const input = randn([2, 70, 96]).requiresGrad_()
    const weight = randn([128, 96]).requiresGrad_()
    const second = async (y: Tensor) => {
      const [first] = await autograd.grad(y.pow(3).sum(), [input], { createGraph: true })
      return (await autograd.grad((first as Tensor).pow(2).sum(), [input, weight])) as Tensor[]
    }
    const [ours, theirs] = [
      await second(functional.linear(input, weight)),
      await second(ops.linear(input, weight, null)),
    ]
    ours.forEach((one, i) => {
      expect(difference(one, theirs[i] as Tensor)).toBeLessThan(1e-5)
    })
  })

  it('follows autocast, and leaves what it does not know to ATen', () => {
    const [input, weight] = [randn([2, 70, 96]), randn([128, 96])]
    expect(autocast({ device: 'cpu', dtype: 'bfloat16' }, () => functional.linear(input, weight)).dtype).toBe(
      'bfloat16',
    )
    const strided = randn([96, 140]).t()
    expect(difference(functional.linear(strided, weight), ops.linear(strided, weight, null))).toBeLessThan(2e-6)
    expect(functional.linear(input.double(), weight.double()).dtype).toBe('float64')
    expect(functional.linear(input.slice(0, 0, 0), weight).shape).toEqual([0, 70, 128])
  })
})

describe('what a network fuses into its products where no gradient is needed', () => {
  it.each(['gelu', 'gelu_new', 'relu'])('activation %s and residual: as with a graph', async (hiddenAct) => {
    manualSeed(4)
    const config = { vocabSize: 50, hiddenSize: 64, numHiddenLayers: 2, numAttentionHeads: 4, intermediateSize: 256 }
    const network = new Roberta({ ...config, hiddenAct }).eval()
    const inputs = { inputIds: randint(5, 50, [4, 64]) }
    const recorded = await network.forward(inputs)
    // A checkpointed layer's first run has no graph, and must not differ from the second.
    const checkpointed = await network.gradientCheckpointing(true).forward(inputs)
    expect(checkpointed.lastHiddenState.equal(recorded.lastHiddenState)).toBe(true)
    network.gradientCheckpointing(false)
    const fused = await noGrad(() => network.forward(inputs))
    expect(difference(fused.lastHiddenState, recorded.lastHiddenState)).toBeLessThan(1e-5)
  })

  it('keeps frozen weights packed, and packs them again when they change', async () => {
    manualSeed(5)
    const network = new Roberta({
      vocabSize: 50,
      hiddenSize: 64,
      numHiddenLayers: 1,
      numAttentionHeads: 4,
      intermediateSize: 256,
    }).eval()
    const inputs = { inputIds: randint(5, 50, [4, 64]) }
    const run = async () => (await noGrad(() => network.forward(inputs))).lastHiddenState
    const plain = await run()
    network.freeze()
    // Seen, packed, used.
    for (let use = 0; use < 4; use += 1) expect(difference(await run(), plain)).toBeLessThan(1e-5)
    const weights = [...network.namedParameters()].filter(
      ([name]) => name.startsWith('encoder') && name.endsWith('dense.weight'),
    )
    for (const [, weight] of weights) weight.mul_(1.5)
    const changed = await run()
    expect(difference(changed, plain)).toBeGreaterThan(1e-2)
    emptyCache()
    for (let use = 0; use < 3; use += 1) expect(difference(await run(), changed)).toBeLessThan(1e-5)
    network.to({ dtype: 'bfloat16' })
    for (let use = 0; use < 3; use += 1) expect(difference((await run()).float(), changed)).toBeLessThan(0.1)
    // Trained again, the products are those of the weights as they are.
    network.to({ dtype: 'float32' })
    network.unfreeze()
    const loss = (await network.forward(inputs)).lastHiddenState.pow(3).sum()
    await loss.backward()
    for (const [, weight] of weights) expect(weight.grad?.isfinite().all().item()).toBe(true)
  })
})
