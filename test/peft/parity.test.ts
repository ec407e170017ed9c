import { describe, expect, it } from 'vitest'
import { AdamW, functional, noGrad, PeftModel, scope, type Tensor } from '../../lib/index.js'
import { expectClose, fixturePath, tensorsOf } from '../helpers.js'
import { type Case, files, type Name, network, run } from './networks.js'

const cases = (Object.keys(files) as Name[]).flatMap((name) =>
  files[name].cases.map((item) => ({ ...item, net: name })),
)

describe('an adapter that peft wrote', () => {
  it.each(cases)('$name computes the same', async (item) => {
    const { model, peft, ids, expected } = await prepare(item)
    const first = await run(model, ids.select(0, 0))
    expectClose(first, expected.first as Tensor, 1e-5, 'with the adapter')
    const plain = await peft.disableAdapter(() => run(model, ids.select(0, 0)))
    expectClose(plain, expected.plain as Tensor, 1e-5, 'without')
    expect(plain.equal(first)).toBe(false)
  })

  it.each(cases)('$name trains alike for 20 steps', async (item) => {
    const { file, model, peft, ids, targets, expected } = await prepare(item)
    const optimizer = new AdamW(
      model.parameters().filter((parameter) => parameter.requiresGrad),
      { lr: item.lr, weightDecay: item.decay },
    )
    const losses = (expected.losses as Tensor).toArray() as number[]
    for (let step = 0; step < losses.length; step++) {
      await scope(async () => {
        const output = await run(model, ids.select(0, step))
        const loss = functional.mseLoss(output, targets.select(0, step))
        optimizer.zeroGrad()
        await loss.backward()
        if (step === 0) expectGradients(peft, tensorsOf(file, item.name, 'grad'))
        await optimizer.step()
        const error = Math.abs((loss.item() as number) - losses[step]!) / losses[step]!
        expect(error, `loss of step ${step}`).toBeLessThanOrEqual(1e-5)
      })
    }
    const after = tensorsOf(file, item.name, 'after')
    const own = savedTensors(peft)
    const names = Object.keys(after).filter((key) => !/\.(original_module|modules_to_save)\./.test(key))
    expect(Object.keys(own).sort()).toEqual(names.sort())
    for (const key of names) expectClose(own[key] as Tensor, after[key] as Tensor, 1e-4, key)

    const before = Object.entries(model.stateDict()).map(([key, tensor]) => [key, tensor.clone()] as const)
    const ours = await noGrad(() => run(model, ids.select(0, 0)))
    peft.mergeAdapter()
    const merged = await noGrad(() => run(model, ids.select(0, 0)))
    expectClose(merged, expected.merged as Tensor, 1e-4, 'merged')
    expectClose(merged, ours, 1e-5, 'merged and not')
    expect(before.some(([key, value]) => !value.equal(model.stateDict()[key] as Tensor))).toBe(true)
    peft.unmergeAdapter()
    for (const [key, value] of before) expect(value.equal(model.stateDict()[key] as Tensor), key).toBe(true)
  })
})

async function prepare(item: Case & { net: Name }) {
  const file = files[item.net]
  const model = network(item.net)
  const peft = await PeftModel.fromPretrained(model, fixturePath(`peft/${item.name}`), { isTrainable: true })
  const { ids, targets } = tensorsOf(file, item.name, 'in') as { ids: Tensor; targets: Tensor }
  return { file, model, peft, ids, targets, expected: tensorsOf(file, item.name, 'out') }
}

/** Names as a file has them, from those that the network's parameters have. */
function savedTensors(peft: PeftModel): Record<string, Tensor> {
  const adapted = new Set(peft.model.namedParameters().flatMap(([name]) => /^(.*)\.lora_/.exec(name)?.[1] ?? []))
  const trained = peft.model.namedParameters().filter(([, parameter]) => parameter.requiresGrad)
  return Object.fromEntries(
    trained.map(([name, parameter]) => {
      const [, path, bias] = /^(.*)\.(bias)$/.exec(name) ?? []
      const key = path !== undefined && adapted.has(path) ? `${path}.base_layer.${bias}` : name
      return [
        `base_model.model.${key.replace('.default', '').replace('magnitude_vector.weight', 'magnitude_vector')}`,
        parameter,
      ]
    }),
  )
}

function expectGradients(peft: PeftModel, expected: Record<string, Tensor>): void {
  const named = new Map(
    Object.entries(expected).map(([name, tensor]) => [
      name.replace(/base_layer\.|modules_to_save\.default\./, ''),
      tensor,
    ]),
  )
  const largest = (tensor: Tensor) => tensor.abs().max().item() as number
  const scale = Math.max(...[...named.values()].map(largest)) / 100
  const own = peft.model.namedParameters().flatMap(([name, { grad }]) => (grad ? [[name, grad] as const] : []))
  expect(own.map(([name]) => name).sort()).toEqual([...named.keys()].sort())
  for (const [name, grad] of own) {
    const wanted = named.get(name) as Tensor
    expect(largest(grad.sub(wanted)) / Math.max(largest(wanted), scale), `gradient of ${name}`).toBeLessThanOrEqual(
      1e-5,
    )
  }
}
