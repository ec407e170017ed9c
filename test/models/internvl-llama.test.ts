import { describe, expect, it } from 'vitest'
import { getPeftModel, noGrad, type Tensor } from '../../lib/index.js'
import { expectClose, type Fixture, fixture, ROUNDING, tensorsOf } from '../helpers.js'
import { atReal, get } from './decoder.js'
import { type InternVLCase, openInternVL } from './internvl.js'
import { expectGradients } from './networks.js'

// The largest published sizes have a LLaMA under the vision part; a Mistral can stand there too.

const file = await fixture<InternVLCase>('models/internvl')
const more = await fixture<InternVLCase>('models/internvl-llama')
const CASES: [string, Fixture<InternVLCase>][] = [
  ['llama', file],
  ['mistral', more],
]

describe('against transformers', () => {
  it('mistral, whose window is shorter than a picture', async () => {
    // The row without padding: in the others transformers' eager attention has windows of padding alone, and no numbers.
    const { model, inputs, expected } = openInternVL(more, 'mistral')
    const inputIds = inputs.inputIds.narrow(0, 0, 1)
    const { logits } = await model.forward({
      inputIds,
      pixelValues: inputs.pixelValues.narrow(0, 0, 2),
      logitsToKeep: 0,
    })
    expectClose(get(logits), get(expected.logits).narrow(0, 0, 1), 1e-5, 'logits')
    expectClose(
      await model.projectImages(await model.encodeImages(inputs.pixelValues)),
      get(expected.features),
      1e-5,
      'features',
    )
  })

  it('llama: gradients of all parts', async () => {
    const { model, inputs } = openInternVL(file, 'llama')
    await get((await model.forward(inputs)).loss).backward()
    await expectGradients(model, more, 'llama', {
      // transformers takes the language model's norms through float32.
      exact: 16 * ROUNDING.float32,
      again: async (as) => {
        const again = await model.forward({ ...inputs, pixelValues: as(inputs.pixelValues) })
        await get(again.loss).backward()
      },
    })
  })

  it.each(CASES)('%s: tokens over a cache, at once and streamed', async (name, from) => {
    const { model, inputs } = openInternVL(from, name)
    const wanted = get(get(more.cases.find((one) => one.name === name)).tokens)
    const first = { inputIds: inputs.inputIds.narrow(0, 0, 1), pixelValues: inputs.pixelValues.narrow(0, 0, 2) }
    const greedy = { maxNewTokens: 6, eosTokenId: null }
    expect((await model.generate(first, greedy)).tokens).toEqual([wanted])
    const streamed: (number | null)[] = []
    for await (const { tokens } of model.stream(first, greedy)) streamed.push(get(tokens)[0] ?? null)
    expect(streamed).toEqual(wanted)
  })

  it("llama: PEFT's adapters of language model and projector, with their gradients, merged as unmerged", async () => {
    const { model, inputs, real } = openInternVL(file, 'llama')
    const given = tensorsOf(more, 'llama-lora', 'param')
    const { logits, loss } = tensorsOf(more, 'llama-lora', 'out')
    const targetModules = '^(language_model|mlp1)(?!.*(lm_head|output|emb|wte|shared)).*'
    const peft = getPeftModel(model, { r: 2, loraAlpha: 8, targetModules })
    const trained = new Map<string, Tensor>()
    for (const [name, one] of model.namedParameters()) {
      if (one.requiresGrad) trained.set(name.replace('.default', ''), one)
    }
    expect([...trained.keys()].sort()).toEqual(Object.keys(given).sort())
    noGrad(() => trained.forEach((parameter, name) => void parameter.copy_(get(given[name]))))
    const answer = () => model.forward({ ...inputs, logitsToKeep: 0 })
    const output = await answer()
    expectClose(atReal(get(output.logits), real, 1), get(logits))
    expectClose(get(output.loss), get(loss))
    await get(output.loss).backward()
    const grads = tensorsOf(more, 'llama-lora', 'grad')
    expect(Object.keys(grads).filter((name) => name.startsWith('mlp1.'))).toHaveLength(4)
    for (const [name, parameter] of trained) expectClose(get(parameter.grad), get(grads[name]), 1e-5, name)
    peft.mergeAdapter()
    expectClose(atReal(get((await answer()).logits), real, 1), get(logits), 1e-5, 'merged')
  })
})
