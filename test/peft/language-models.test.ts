import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import {
  DecoderLM,
  getPeftModel,
  type LoraConfig,
  loadSafetensors,
  noGrad,
  PeftModel,
  RobertaForMaskedLM,
  type Tensor,
  Whisper,
} from '../../lib/index.js'
import { expectClose, type Fixture, fixture, tensorsOf } from '../helpers.js'
import { camelKeys } from '../models/networks.js'
import { adapterFolder, temporary } from './adapter-folder.js'

interface Case {
  name: string
  config: Record<string, unknown>
  second?: Record<string, unknown>
}
type Network = DecoderLM | Whisper | RobertaForMaskedLM

const names = ['llama', 'llama-tied', 'whisper', 'roberta']
const files = new Map(
  await Promise.all(names.map(async (name) => [name, await fixture<Case>(`peft/networks/${name}`)] as const)),
)
const cases = [...files].flatMap(([net, { cases }]) => cases.slice(1).map((item) => ({ net, ...item })))

function network(net: string): Network {
  const file = files.get(net) as Fixture<Case>
  const config = camelKeys(file.cases[0]?.config ?? {})
  const model =
    net === 'whisper' ? new Whisper(config) : net === 'roberta' ? new RobertaForMaskedLM(config) : new DecoderLM(config)
  model.eval().loadStateDict({ ...model.stateDict(), ...tensorsOf(file, 'base', 'param') })
  return model
}

/** [batch, time, vocabulary] */
async function run(net: string, model: Network): Promise<Tensor> {
  const inputs = tensorsOf(files.get(net) as Fixture<Case>, 'base', 'in') as Record<string, Tensor>
  const { logits } = await model.forward(camelKeys(inputs) as never)
  return logits as Tensor
}

/** A parameter's name here, from that of peft's model. */
const own = (name: string) => name.replace(/(^|\.)(base_layer|modules_to_save\.default)\./, '$1')

/** The same tensors under the same names, but for what peft writes a second or third time with `bias: 'all'`. */
async function expectFile(directory: string, wanted: Record<string, Tensor>): Promise<void> {
  const { tensors } = await loadSafetensors(join(directory, 'adapter_model.safetensors'))
  const once = Object.keys(wanted).filter((name) => !/\.(original_module|modules_to_save)\./.test(name))
  expect(Object.keys(tensors).sort()).toEqual(once.sort())
  for (const name of once) expect(tensors[name]?.equal(wanted[name] as Tensor), name).toBe(true)
}

describe('as peft has it', () => {
  it.each(cases)('$net $name', async ({ net, name, config, second }) => {
    const file = files.get(net) as Fixture<Case>
    const out = tensorsOf(file, name, 'out')
    const wanted = tensorsOf(file, name, 'file')
    const model = network(net)
    const names = Object.keys(model.stateDict())
    const plain = await noGrad(() => run(net, model))

    // peft's file computes the same here, and has the same gradients.
    const peft = await PeftModel.fromPretrained(model, await adapterFolder(config, wanted), { isTrainable: true })
    const first = await run(net, model)
    expectClose(first, out.first as Tensor, 1e-5, 'with the adapter')
    const without = await noGrad(() => peft.disableAdapter(() => run(net, model)))
    expectClose(without, out.plain as Tensor, 1e-5, 'without')
    expectClose(without, plain, 1e-6, 'as before')
    await first
      .mul(tensorsOf(file, 'base', 'cotangent').logits as Tensor)
      .sum()
      .backward()
    const grads = Object.entries(tensorsOf(file, name, 'grad')).map(([key, grad]) => [own(key), grad] as const)
    const parameters = new Map(model.namedParameters())
    const trained = [...parameters].filter(([, { grad }]) => grad !== null)
    const tied = new Set(grads.filter(([key]) => !parameters.has(key)).map(([key]) => key))
    expect(trained.map(([key]) => key).sort()).toEqual(
      grads
        .map(([key]) => key)
        .filter((key) => !tied.has(key))
        .sort(),
    )
    const largest = Math.max(...grads.map(([, grad]) => Number(grad.abs().max().item()))) / 100
    for (const [key, grad] of grads) {
      if (tied.has(key)) continue
      const error = Number((parameters.get(key)?.grad as Tensor).sub(grad).abs().max().item())
      expect(error / Math.max(largest, Number(grad.abs().max().item())), `gradient of ${key}`).toBeLessThanOrEqual(1e-5)
    }

    // What is saved here is what peft saved.
    const saved = temporary()
    await peft.savePretrained(saved)
    await expectFile(saved, wanted)

    // The same configuration makes an adapter with the same names and shapes.
    const fresh = network(net)
    const made = getPeftModel(fresh, camelKeys(config) as unknown as LoraConfig)
    expectClose(await noGrad(() => run(net, fresh)), plain, 1e-6, 'a new adapter')
    const directory = temporary()
    await made.savePretrained(directory)
    const { tensors } = await loadSafetensors(join(directory, 'adapter_model.safetensors'))
    const shapes = (all: Record<string, Tensor>) =>
      Object.fromEntries(
        Object.entries(all)
          .filter(([key]) => !/\.(original_module|modules_to_save)\./.test(key))
          .map(([key, { shape }]) => [key, shape]),
      )
    expect(shapes(tensors)).toEqual(shapes(wanted))

    if (second) {
      await peft.loadAdapter(await adapterFolder(second, tensorsOf(file, name, 'file2')), { adapterName: 'second' })
      expectClose(await noGrad(() => run(net, model)), out.first as Tensor, 1e-5, 'a second one waits')
      peft.setAdapter('second')
      expectClose(await noGrad(() => run(net, model)), out.second as Tensor, 1e-5, 'the second')
      await peft.savePretrained(saved)
      await expectFile(join(saved, 'second'), tensorsOf(file, name, 'file2'))
      peft.setAdapter('default')
      expectClose(await noGrad(() => run(net, model)), out.again as Tensor, 1e-5, 'the first again')
      if (out.together) {
        peft.setAdapter(['default', 'second'])
        expectClose(await noGrad(() => run(net, model)), out.together, 1e-5, 'both')
        peft.setAdapter('default')
      }
    }

    // Merged, also where peft would change the tied weight in both places.
    const adapted = await noGrad(() => run(net, model))
    peft.mergeAdapter()
    const merged = await noGrad(() => run(net, model))
    expectClose(merged, adapted, 1e-5, 'merged and not')
    if (out.merged) expectClose(merged, out.merged, 1e-5, 'merged')
    peft.unmergeAdapter()
    peft.unload()
    expect(Object.keys(model.stateDict())).toEqual(names)
    expectClose(await noGrad(() => run(net, model)), plain, 1e-6, 'unloaded')
  })
})
