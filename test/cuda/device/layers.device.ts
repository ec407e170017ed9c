import { describe, expect, it } from 'vitest'
import {
  Adagrad,
  Adam,
  AdamW,
  AdamW8bit,
  autograd,
  type DType,
  Generator,
  getPeftModel,
  noGrad,
  RMSprop,
  Roberta,
  randint,
  randn,
  SGD,
  scope,
  type Tensor,
} from '../../../lib/index.js'
import { op } from '../../../lib/native/call.js'
import { expectClose } from '../../helpers.js'
import { counted } from './counts.js'

const adaptedLinear = op('voxtorch::adapted_linear') as (
  input: Tensor,
  weight: Tensor,
  bias: Tensor | null,
  a: Tensor[],
  b: Tensor[],
  scaling: number[],
  options?: { dropout?: number; training?: boolean },
) => Tensor

const generator = new Generator(11)
const made = (shape: number[], dtype: DType = 'float32') => randn(shape, { device: 'cpu', generator }).to({ dtype })

/** A layer 24 → 16 with adapters of rank 4, as leaves on a device; the base is frozen. */
function layer(base: DType, adapter: DType, device: 'cpu' | 'cuda', adapters = 1) {
  const [input, weight, bias] = [made([5, 24], base), made([16, 24], base), made([16], base)]
  const [a, b]: [Tensor[], Tensor[]] = [[], []]
  for (let i = 0; i < adapters; i++) {
    a.push(made([4, 24], adapter))
    b.push(made([16, 4], adapter))
  }
  const there = (one: Tensor) => one.to(device).detach()
  return {
    ...{ input: there(input).requiresGrad_(true), weight: there(weight), bias: there(bias) },
    ...{ a: a.map((one) => there(one).requiresGrad_(true)), b: b.map((one) => there(one).requiresGrad_(true)) },
  }
}
type Layer = ReturnType<typeof layer>

const forward = ({ input, weight, bias, a, b }: Layer, dropout = 0) =>
  adaptedLinear(
    input,
    weight,
    bias,
    a,
    b,
    a.map(() => 1.5),
    { dropout, training: true },
  )
const gradients = (output: Tensor, { input, a, b }: Layer) =>
  autograd.grad(output.float().square().sum(), [input, ...a, ...b])

/** Launches of a forward and of the backward behind it, once what is kept is there. */
async function launches(one: Layer, dropout = 0) {
  const spent = { forward: 0, backward: 0 }
  for (const _ of ['first', 'then']) {
    await scope(async () => {
      let output: Tensor | undefined
      spent.forward = (
        await counted(() => {
          output = forward(one, dropout)
        })
      ).launches
      const gradient = (output as Tensor).detach()
      const { launches } = await counted(() =>
        autograd.grad(output as Tensor, [one.input, ...one.a, ...one.b], { gradOutputs: [gradient] }),
      )
      spent.backward = launches
    })
  }
  return spent
}

describe('a linear layer with LoRA, on the device', () => {
  it('is three launches, and two for each gradient', async () => {
    expect(await launches(layer('float32', 'float32', 'cuda'))).toEqual({ forward: 3, backward: 5 })
    expect(await launches(layer('bfloat16', 'bfloat16', 'cuda'))).toEqual({ forward: 3, backward: 5 })
  })

  it('of float32 over bfloat16: its values are cast once, its gradients back', async () => {
    expect(await launches(layer('bfloat16', 'float32', 'cuda'))).toEqual({ forward: 3, backward: 7 })
  })

  it('with dropout: one launch more, and two for the gradients', async () => {
    expect(await launches(layer('float32', 'float32', 'cuda'), 0.1)).toEqual({ forward: 4, backward: 7 })
  })

  it('of several adapters is as many launches where none learns', async () => {
    const one = layer('bfloat16', 'float32', 'cuda', 3)
    const run = () => noGrad(() => scope(() => void forward(one)))
    run()
    expect((await counted(run)).launches).toBe(3)
    const [near, far] = [layer('float32', 'float32', 'cpu', 3), layer('float32', 'float32', 'cuda', 3)]
    noGrad(() => {
      for (const name of ['input', 'weight', 'bias'] as const) far[name].copy_(near[name])
      for (const name of ['a', 'b'] as const)
        for (const [i, part] of far[name].entries()) part.copy_(near[name][i] as Tensor)
      expectClose(forward(far).to('cpu'), forward(near), 1e-5)
      expectClose(forward(far).to('cpu'), forward(near), 1e-5, 'again')
      // A change of any is seen.
      for (const from of [near, far]) (from.b[2] as Tensor).mul_(-2)
      expectClose(forward(far).to('cpu'), forward(near), 1e-5, 'changed')
    })
  })

  it('gives what the CPU gives, and so do its gradients, also with float32 adapters on bfloat16', async () => {
    for (const [adapter, tolerance] of [
      ['float32', 1e-5],
      ['bfloat16', 0.05],
    ] as const) {
      const base = adapter === 'float32' ? 'float32' : 'bfloat16'
      const near = layer(base, 'float32', 'cpu')
      const far = layer(base, 'float32', 'cuda')
      noGrad(() => {
        for (const name of ['input', 'weight', 'bias'] as const) far[name].copy_(near[name])
        for (const name of ['a', 'b'] as const) (far[name][0] as Tensor).copy_(near[name][0] as Tensor)
      })
      const [there, here] = [forward(far), forward(near)]
      expectClose(there.float().to('cpu'), here.float(), tolerance)
      const [a, b] = [await gradients(there, far), await gradients(here, near)]
      for (const [i, grad] of a.entries()) {
        expect(grad?.dtype).toBe(i === 0 ? base : 'float32')
        expectClose((grad as Tensor).float().to('cpu'), (b[i] as Tensor).float(), tolerance)
      }
    }
  })

  it.each([
    ['in place', (one: Tensor) => void noGrad(() => one.mul_(3))],
    ['by a copy', (one: Tensor) => void noGrad(() => one.copy_(one.mul(3)))],
    ...[AdamW8bit, AdamW, Adam, SGD, RMSprop, Adagrad].map(
      (Optimizer) =>
        [
          `by ${Optimizer.name}`,
          async (one: Tensor) => {
            const optimizer = new Optimizer([one], { lr: 0.5 })
            one.grad = one.detach().clone()
            await optimizer.step()
          },
        ] as const,
    ),
  ] as [string, (one: Tensor) => unknown][])('sees a change of its adapter: %s', async (_, change) => {
    const one = layer('bfloat16', 'float32', 'cuda')
    await scope(async () => {
      const before = noGrad(() => forward(one)).to('cpu')
      await change(one.b[0] as Tensor)
      const after = noGrad(() => forward(one)).to('cpu')
      expect(after.equal(before)).toBe(false)
      const fresh = { ...one, b: [(one.b[0] as Tensor).detach().clone()] }
      expect(after.equal(noGrad(() => forward(fresh)).to('cpu'))).toBe(true)
    })
  })
})

describe('bias and activation, on the device', () => {
  const CONFIG = {
    ...{ vocabSize: 60, hiddenSize: 32, numHiddenLayers: 2, numAttentionHeads: 4, intermediateSize: 48 },
    ...{ maxPositionEmbeddings: 40, typeVocabSize: 2 },
  }
  const inputIds = randint(3, 60, [2, 9], { device: 'cpu', generator })

  it.each([
    ['gelu_new', 2],
    ['relu', 2],
    ['gelu', 0],
    ['tanh', 0],
  ])('of %s are in the product of %i layers, with the same result', async (hiddenAct, fused) => {
    const far = Roberta.fromConfig({ ...CONFIG, hiddenAct }, { device: 'cuda' }).eval()
    const near = Roberta.fromConfig({ ...CONFIG, hiddenAct }, { device: 'cpu' }).eval()
    near.loadStateDict(Object.fromEntries(Object.entries(far.stateDict()).map(([name, one]) => [name, one.to('cpu')])))
    await scope(() =>
      noGrad(async () => {
        let states: Tensor | undefined
        const { launchesBy } = await counted(async () => {
          states = (await far.forward({ inputIds: inputIds.to('cuda') })).lastHiddenState
        })
        expect(launchesBy['aten::_addmm_activation'] ?? 0).toBe(fused)
        expectClose((states as Tensor).to('cpu'), (await near.forward({ inputIds })).lastHiddenState, 1e-5)
      }),
    )
    // Where a gradient is needed there are parts, which have one.
    const { launchesBy } = await counted(() =>
      scope(async () => void (await far.forward({ inputIds: inputIds.to('cuda') }))),
    )
    expect(launchesBy['aten::_addmm_activation'] ?? 0).toBe(0)
  })

  it('are apart from an adapter', async () => {
    const model = Roberta.fromConfig({ ...CONFIG, hiddenAct: 'relu' }, { device: 'cuda' }).eval()
    getPeftModel(model, { r: 2, targetModules: ['intermediate.dense'] })
    const { launchesBy } = await counted(() =>
      scope(() => noGrad(async () => void (await model.forward({ inputIds: inputIds.to('cuda') })))),
    )
    expect(launchesBy['aten::_addmm_activation'] ?? 0).toBe(0)
  })
})
