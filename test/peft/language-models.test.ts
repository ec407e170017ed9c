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
  const { dtype } = model.parameters()[0] as Tensor
  const given = Object.entries(inputs).map(([key, value]) => [
    key,
    value.dtype === 'int64' ? value : value.to({ dtype }),
  ])
  const { logits } = await model.forward(camelKeys(Object.fromEntries(given)) as never)
  return logits as Tensor
}

/** A parameter's name here, from that of peft's model; RoBERTa's decoder has the bias of its head. */
const own = (name: string) =>
  name
    .replace(/(^|\.)(base_layer|modules_to_save\.default)\./, '$1')
    .replace(/^lm_head\.decoder\.bias$/, 'lm_head.bias')

/** The same tensors under the same names, but for what peft writes a second or third time with `bias: 'all'`. */
async function expectFile(directory: string, wanted: Record<string, Tensor>): Promise<void> {
  const { tensors } = await loadSafetensors(join(directory, 'adapter_model.safetensors'))
  const once = Object.keys(wanted).filter((name) => !/\.(original_module|modules_to_save)\./.test(name))
  expect(Object.keys(tensors).sort()).toEqual(once.sort())
  for (const name of once) expect(tensors[name]?.equal(wanted[name] as Tensor), name).toBe(true)
}

/** In float64, as the reference. */
async function expectGradients(net: string, name: string, config: Record<string, unknown>): Promise<void> {
  const file = files.get(net) as Fixture<Case>
  const exact = network(net).to({ dtype: 'float64' })
  const folder = await adapterFolder(config, tensorsOf(file, name, 'file'))
  await PeftModel.fromPretrained(exact, folder, { isTrainable: true })
  const { logits } = tensorsOf(file, 'base', 'cotangent')
  const output = await run(net, exact)
  await output
    .mul(logits as Tensor)
    .sum()
    .backward()
  const wanted = new Map(Object.entries(tensorsOf(file, name, 'grad')).map(([key, grad]) => [own(key), grad]))
  const trained = exact.namedParameters().flatMap(([key, { grad }]) => (grad ? [[key, grad] as const] : []))
  expect(trained.map(([key]) => key).sort()).toEqual([...wanted.keys()].sort())
  const largest = (tensor: Tensor) => Number(tensor.abs().max().item())
  const scale = Math.max(...[...wanted.values()].map(largest)) / 100
  for (const [key, grad] of trained) {
    const expected = wanted.get(key) as Tensor
    const error = largest(grad.sub(expected)) / Math.max(largest(expected), scale)
    expect(error, `gradient of ${key}`).toBeLessThanOrEqual(1e-5)
  }
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
    if ((config.bias ?? 'none') === 'none') expectClose(without, plain, 1e-6, 'as before')
    await expectGradients(net, name, config)

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
    const unloaded = await noGrad(() => run(net, model))
    // Biases that an adapter trained stay as they are, also in peft.
    expectClose(unloaded, (config.bias ?? 'none') === 'none' ? plain : (out.plain as Tensor), 1e-5, 'unloaded')
  })
})
