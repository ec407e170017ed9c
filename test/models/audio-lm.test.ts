import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { AudioLM, type AudioLMConfig, KvCache, ops, ShapeError, scope, type Tensor, tensor } from '../../lib/index.js'
import { expectClose, fixture, ROUNDING, tensorsOf } from '../helpers.js'
import { atReal, get } from './decoder.js'
import { camelKeys, expectGradients, loadParameters } from './networks.js'

interface Case {
  name: string
  config: Record<string, unknown>
  tokens: number[][]
}
interface Given {
  inputIds: Tensor
  attentionMask: Tensor
  labels: Tensor
  inputFeatures: Tensor
  featuresMask?: Tensor
}

const FAMILIES = ['qwen2_audio', 'voxtral', 'audioflamingo3'] as const
type Family = (typeof FAMILIES)[number]
const files = new Map(
  await Promise.all(FAMILIES.map(async (name) => [name, await fixture<Case>(`models/audio-lm-${name}`)] as const)),
)
const directory = mkdtempSync(join(tmpdir(), 'voxtorch-audio-lm-'))
afterAll(() => rmSync(directory, { recursive: true }))

function open(name: Family) {
  const file = get(files.get(name))
  const [one] = file.cases
  const model = new AudioLM(camelKeys(get(one).config) as AudioLMConfig).eval()
  loadParameters(model, file, name)
  const inputs = camelKeys(tensorsOf(file, name, 'in')) as unknown as Given
  const real = inputs.attentionMask.to({ dtype: 'float32' })
  return { file, model, inputs, expected: tensorsOf(file, name, 'out'), real, tokens: get(one).tokens }
}

/** Move the padding of rows to the left. */
function paddedLeft({ inputIds, attentionMask }: Given) {
  const masks = attentionMask.toArray() as number[][]
  const moved = (list: number[], i: number) => {
    const real = get(masks[i]).reduce((a, b) => a + b, 0)
    return [...list.slice(real), ...list.slice(0, real)]
  }
  const all = (rows: number[][]) => tensor(rows.map(moved), { dtype: 'int64' })
  return { inputIds: all(inputIds.toArray() as number[][]), attentionMask: all(masks) }
}

describe.each(FAMILIES)('%s against transformers', (name) => {
  it('encoder, connector, logits, loss and gradients', async () => {
    const { file, model, inputs, expected, real } = open(name)
    const { inputFeatures, featuresMask } = inputs
    inputFeatures.requiresGrad_()
    const states = await model.encodeAudio(inputs)
    expectClose(await rowsOf(states, featuresMask), get(expected.states), 1e-5, 'states')
    const { logits, loss, audioEmbeds } = await model.forward({ ...inputs, logitsToKeep: 0 })
    expectClose(get(audioEmbeds), get(expected.embeds), 1e-5, 'embeddings')
    expectClose(atReal(get(logits), real, 1), get(expected.logits), 1e-5, 'logits')
    expectClose(get(loss), get(expected.loss), 1e-5, 'loss')
    await get(loss).backward()
    expectClose(get(inputFeatures.grad), get(expected['features.grad']), 1e-5, 'gradient of features')
    await expectGradients(model, file, name, {
      // transformers computes the language model's norms, rotations and softmax in float32.
      exact: 32 * ROUNDING.float32,
      again: async (as) => {
        const again = await model.forward({ ...inputs, inputFeatures: as(inputFeatures) })
        await get(again.loss).backward()
      },
    })
  })

  it('generates the same tokens, padded on the left, streamed, and after a cached prefix', async () => {
    const { model, inputs, tokens } = open(name)
    const { inputFeatures, featuresMask } = inputs
    const audio = { inputFeatures, ...(featuresMask && { featuresMask }) }
    const greedy = { maxNewTokens: 6, eosTokenId: [] }
    const prompt = paddedLeft(inputs)
    expect((await model.generate({ ...prompt, ...audio }, greedy)).tokens).toEqual(tokens)
    const audioEmbeds = await model.projectAudio(await model.encodeAudio(audio), featuresMask ?? null)
    expect((await model.generate({ ...prompt, audioEmbeds }, greedy)).tokens).toEqual(tokens)
    // A row without audio, streamed.
    const length = Number(get(inputs.attentionMask.sum(1).toArray() as number[])[2])
    const text = inputs.inputIds.narrow(0, 2, 1).narrow(1, 0, length)
    const streamed: (number | null)[] = []
    for await (const step of model.stream({ inputIds: text }, greedy)) streamed.push(get(step.tokens)[0] ?? null)
    expect(streamed).toEqual(get(tokens)[2])
    // The first row in two turns: the first clip and the text after it are in the cache of the second.
    const row = inputs.inputIds.narrow(0, 0, 1)
    const ids = get(row.toArray() as number[][])[0] as number[]
    const end = ids.indexOf(28) + 3
    const counts = (ids.slice(0, end) as number[]).filter((id) => id === 26).length
    const rest = ids.filter((id) => id === 26).length - counts
    const cache = new KvCache()
    await model.forward({ inputIds: row.narrow(1, 0, end), audioEmbeds: audioEmbeds.narrow(0, 0, counts), cache })
    const next = { inputIds: row.narrow(1, end, ids.length - end), audioEmbeds: audioEmbeds.narrow(0, counts, rest) }
    expect((await model.generate({ ...next, cache }, greedy)).tokens[0]).toEqual(tokens[0])
  })
})

/** Return the states of audio, one after the other; all of them without a mask. */
async function rowsOf(states: Tensor, mask?: Tensor): Promise<Tensor> {
  if (!mask) return states
  const lengths = mask.sum(1).toArray() as number[]
  const kept = lengths.map((steps, i) => states.select(0, i).narrow(0, 0, Math.floor(Math.ceil(Number(steps) / 2) / 2)))
  return ops.cat(kept, 0)
}

const sizes = await fixture<{ name: string; parameters: number }>('models/audio-lm-sizes')
it.each(sizes.cases)('$name has $parameters parameters', ({ name, parameters }) => {
  const model = AudioLM.fromConfig(name, { device: 'meta' })
  expect(model.parameters().reduce((sum, parameter) => sum + parameter.numel(), 0)).toBe(parameters)
})
