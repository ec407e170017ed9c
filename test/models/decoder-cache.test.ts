import { describe, expect, it } from 'vitest'
import {
  DecoderLM,
  type DecoderLMInputs,
  inferenceMode,
  KvCache,
  ops,
  randint,
  type Tensor,
  tensor,
} from '../../lib/index.js'
import { expectClose, fixture } from '../helpers.js'
import { atReal, file, get, open } from './decoder.js'
import { FAMILIES } from './decoder-families.js'

const families = Object.keys(FAMILIES)
const familiesLeft = families.map((name) => `${name}-left`)
const fused = await fixture<{ name: string; config: Record<string, unknown> }>('models/decoder-fused')

describe('the cache', () => {
  // One pass over all, and the same in parts of these lengths.
  const PARTS = [[8], [5, 1, 1, 1], [1, 1, 1, 1, 1, 1, 1, 1], [3, 4, 1], [2, 2, 4]]

  it.each([
    ...['llama', 'llama-gqa', 'llama3', 'yarn', 'mistral', 'mistral-full', 'qwen2-tied', 'qwen2-window'],
    ...families,
  ])('%s: a text read in parts has the answers of one pass', async (name) => {
    const { model, inputs } = open(name)
    const inputIds = get(inputs.inputIds)
    const whole = await model.forward({ inputIds, outputAttentions: true })
    for (const parts of PARTS) {
      using cache = new KvCache()
      let start = 0
      const answers: Tensor[] = []
      for (const length of parts) {
        const part = inputIds.narrow(1, start, length)
        const { logits, lastHiddenState } = await model.forward({ inputIds: part, cache })
        expect(lastHiddenState.requiresGrad).toBe(false)
        answers.push(get(logits))
        start += length
        expect(cache.length).toBe(start)
      }
      expectClose(ops.cat(answers, 1), get(whole.logits), 1e-5, parts.join())
    }
    using cache = new KvCache()
    await model.forward({ inputIds: inputIds.narrow(1, 0, 5), cache })
    const { attentions } = await model.forward({ inputIds: inputIds.narrow(1, 5, 3), cache, outputAttentions: true })
    attentions.forEach((attention, i) => {
      expectClose(attention, get(whole.attentions[i]).narrow(2, 5, 3), 1e-5, `attention ${i}`)
    })
  })

  it.each(['llama-left', 'mistral-left', 'qwen2-window', 'llama-gqa', 'qwen2', ...familiesLeft])(
    '%s: so do the rows of a padded batch',
    async (name) => {
      const { model, real, inputs, expected } = open(name)
      const mask = get(inputs.attentionMask)
      const columns = (from: number, length: number): DecoderLMInputs =>
        inputs.inputsEmbeds
          ? { inputsEmbeds: inputs.inputsEmbeds.narrow(1, from, length) }
          : { inputIds: get(inputs.inputIds).narrow(1, from, length) }
      for (const parts of PARTS) {
        using cache = new KvCache()
        let start = 0
        const answers: Tensor[] = []
        for (const length of parts) {
          const attentionMask = mask.narrow(1, 0, start + length)
          answers.push(get((await model.forward({ ...columns(start, length), attentionMask, cache })).logits))
          start += length
        }
        expectClose(atReal(ops.cat(answers, 1), real, 1), get(expected.logits), 1e-5, parts.join())
      }
    },
  )

  // A prompt's last layer makes only keys and values of tokens that nobody asks about.
  it.each([
    ['llama-gqa', file],
    ['yarn', file],
    ['mistral', file],
    ['mistral-left', file],
    ['qwen2-window', file],
    ['llama-left', file],
    ['internlm2', fused],
    ['phi3', fused],
    ['phi3-left', fused],
    ['internlm2-each', fused],
    ...[...families, ...familiesLeft].map((name) => [name, file] as const),
  ] as const)('%s: a prompt that is read for what follows it leaves the cache of a whole pass', async (name, from) => {
    const { model, inputs } = open(name, from)
    const { inputIds: ids, attentionMask, inputsEmbeds } = inputs
    const given = ids ?? get(inputsEmbeds)
    const time = given.size(1)
    const columns = (begin: number, length: number): Pick<DecoderLMInputs, 'inputIds' | 'inputsEmbeds'> => {
      const part = given.narrow(1, begin, length)
      return ids ? { inputIds: part } : { inputsEmbeds: part }
    }
    const seen = (length: number) => (attentionMask ? attentionMask.narrow(1, 0, length) : null)
    const whole = get((await model.forward({ ...columns(0, time), attentionMask })).logits)
    const config = { maxNewTokens: 3, eosTokenId: null, padTokenId: 0, outputLogits: true }
    const more = ops.zeros([given.size(0), 3]).to('int64')
    const texts = ops.cat([ids ?? ops.zeros([given.size(0), time]).to('int64'), more], 1)
    for (const [before, at] of [
      [0, time - 1],
      [0, time - 3],
      [3, time - 4],
    ] as const) {
      using cache = new KvCache()
      if (before > 0) await model.forward({ ...columns(0, before), attentionMask: seen(before), cache })
      const output = await model.generate(
        { ...columns(before, time - before), attentionMask: seen(time), cache },
        config,
        { promptLogitsAt: at - before },
      )
      const logits = get(output.logits) // [steps, batch, vocabulary]
      expectClose(logits.select(0, 0), whole.select(1, time - 1), 1e-5, `behind ${time} from ${before}`)
      expectClose(get(output.promptLogits), whole.select(1, at), 1e-5, `behind ${at} from ${before}`)
      if (!ids) continue
      // What is written next reads the keys and values.
      for (const [row, tokens] of output.tokens.entries()) {
        for (const [i, token] of tokens.entries())
          texts
            .select(0, row)
            .narrow(0, time + i, 1)
            .fill_(token)
      }
      const mask = attentionMask ? ops.cat([attentionMask, ops.ones(more.shape).to(attentionMask.dtype)], 1) : null
      const all = get((await model.forward({ inputIds: texts, attentionMask: mask })).logits)
      for (const step of [1, 2]) {
        expectClose(logits.select(0, step), all.select(1, time - 1 + step), 1e-5, `token ${step} from ${before}`)
      }
    }
  })

  it('grows past its first memory, also under inference mode, and can be cropped', async () => {
    const { model } = open('llama3')
    const inputIds = randint(0, 23, [2, 200])
    const whole = get((await model.forward({ inputIds })).logits)
    using cache = new KvCache()
    await inferenceMode(() => model.forward({ inputIds: inputIds.narrow(1, 0, 50), cache }))
    for (let at = 50; at < 200; at += 50) {
      const { logits } = await model.forward({ inputIds: inputIds.narrow(1, at, 50), cache })
      expectClose(get(logits), whole.narrow(1, at, 50), 1e-5, `from ${at}`)
    }
    await cache.crop(70)
    expect(cache.length).toBe(70)
    const { logits } = await model.forward({ inputIds: inputIds.narrow(1, 70, 30), cache })
    expectClose(get(logits), whole.narrow(1, 70, 30), 1e-5, 'after crop')
    await expect(cache.crop(101)).rejects.toThrow(/from 0 to 100/)
    await cache.crop(0)
    const other = await model.forward({ inputIds: inputIds.narrow(0, 0, 1), cache })
    expectClose(get(other.logits), whole.narrow(0, 0, 1), 1e-5, 'a new text')
  })

  it('goes on from chosen rows', async () => {
    const { model } = open('mistral')
    const inputIds = randint(0, 23, [3, 6])
    const next = randint(0, 23, [4, 2])
    const rows = tensor([2, 0, 0, 1])
    using cache = new KvCache()
    await model.forward({ inputIds, cache })
    await cache.reorder(rows)
    const { logits } = await model.forward({ inputIds: next, cache })
    const whole = await model.forward({ inputIds: ops.cat([inputIds.indexSelect(0, rows), next], 1), logitsToKeep: 2 })
    expectClose(get(logits), get(whole.logits), 1e-5)
    await expect(cache.reorder(tensor([4]))).rejects.toThrow(/from 0 to 3/)
    await expect(cache.reorder(tensor([0.5]))).rejects.toThrow(/int64/)
  })

  it('stays as it was when a pass fails, and says what does not fit', async () => {
    const { model } = open('llama')
    const inputIds = randint(0, 23, [2, 4])
    using cache = new KvCache()
    await model.forward({ inputIds, cache })
    await expect(model.forward({ inputIds: tensor([[1000], [1]]), cache })).rejects.toThrow(/out of range/)
    await expect(model.forward({ inputIds: tensor([[1]]), cache })).rejects.toThrow(/2 rows.*1/)
    const mask = { inputIds: tensor([[1], [2]]), attentionMask: tensor([[1], [1]]), cache }
    await expect(model.forward(mask)).rejects.toThrow(/\[2, 5\]/)
    await expect(open('mistral').model.forward({ inputIds, cache })).rejects.toThrow(/another network/)
    const { config } = model
    await expect(DecoderLM.fromConfig({ ...config, numHiddenLayers: 1 }).forward({ inputIds, cache })).rejects.toThrow(
      /another network/,
    )
    await expect(open('llama').model.to({ dtype: 'float64' }).forward({ inputIds, cache })).rejects.toThrow(/dtype/)
    expect(cache.length).toBe(4)
    cache.dispose()
    await expect(async () => model.forward({ inputIds, cache })).rejects.toThrow(/disposed/)
  })
})
