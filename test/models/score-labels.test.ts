import { describe, expect, it } from 'vitest'
import {
  ConfigError,
  DecoderLM,
  InternVL,
  KvCache,
  memoryStats,
  ops,
  randint,
  randn,
  scope,
  scoreLabels,
  type Tensor,
  Tokenizer,
  tensor,
} from '../../lib/index.js'
import { settledTensors } from '../helpers.js'
import { published } from '../text/helpers.js'
import { get } from './decoder.js'

const SIZES = { vocabSize: 40, hiddenSize: 16, intermediateSize: 24, numHiddenLayers: 2, numAttentionHeads: 2 }
const llm = DecoderLM.fromConfig({ ...SIZES, initializerRange: 0.4 }, { seed: 4 }).eval()
const LABELS = [[3], [4, 5, 6], [4, 5], [9, 8, 7, 6, 5], [4, 5, 7]]

/** By a pass over prompt and label for each. */
async function apart(model: DecoderLM, prompt: Tensor, label: number[]): Promise<number> {
  const ids = ops.cat([prompt, tensor([label], { dtype: 'int64' })], 1)
  const logits = get((await model.forward({ inputIds: ids })).logits).double()
  const scores = ops.logSoftmax(logits.narrow(1, prompt.size(1) - 1, label.length), -1)
  return label.reduce((sum, id, i) => sum + (scores.select(0, 0).select(0, i).select(0, id).item() as number), 0)
}

describe('scoreLabels', () => {
  it.each([1, 2, 16])('has what a pass for each label has, %i at a time', async (batchSize) => {
    const inputIds = randint(1, 40, [1, 7])
    const { logprobs, probabilities, best } = await scoreLabels(llm, { inputIds }, LABELS, { batchSize })
    const wanted: number[] = []
    for (const label of LABELS) wanted.push(await apart(llm, inputIds, label))
    get(logprobs[0]).forEach((value, i) => {
      expect(Math.abs(value - get(wanted[i]))).toBeLessThan(1e-5 * Math.abs(get(wanted[i])))
    })
    expect(best).toEqual([wanted.indexOf(Math.max(...wanted))])
    expect(get(probabilities[0]).reduce((a, b) => a + b)).toBeCloseTo(1, 12)
    const ratio = get(get(probabilities[0])[0]) / get(get(probabilities[0])[1])
    expect(Math.log(ratio)).toBeCloseTo(get(get(logprobs[0])[0]) - get(get(logprobs[0])[1]), 9)
    const mean = await scoreLabels(llm, { inputIds }, LABELS, { batchSize, perToken: true })
    get(mean.logprobs[0]).forEach((value, i) => {
      expect(value).toBeCloseTo(get(get(logprobs[0])[i]) / get(LABELS[i]).length, 12)
    })
  })

  it('scores several prompts that are padded on the left, as each alone', async () => {
    const rows = [randint(1, 40, [1, 7]), randint(1, 40, [1, 3])]
    const inputIds = ops.cat([get(rows[0]), ops.cat([ops.zeros([1, 4], { dtype: 'int64' }), get(rows[1])], 1)], 0)
    const attentionMask = inputIds.ne(0).to({ dtype: 'int64' })
    for (const batchSize of [1, 3]) {
      const together = await scoreLabels(llm, { inputIds, attentionMask }, LABELS, { batchSize })
      for (const [i, row] of rows.entries()) {
        const alone = await scoreLabels(llm, { inputIds: row }, LABELS)
        together.logprobs[i]?.forEach((value, k) => {
          expect(Math.abs(value - get(get(alone.logprobs[0])[k]))).toBeLessThan(1e-4)
        })
      }
    }
    await expect(scoreLabels(llm, { inputIds, attentionMask: attentionMask.flip([1]) }, LABELS)).rejects.toThrow(/left/)
  })

  it('leaves a cache as it was, for the next question about the same picture', async () => {
    const first = randint(1, 40, [1, 6])
    const [a, b] = [randint(1, 40, [1, 3]), randint(1, 40, [1, 5])]
    using cache = new KvCache()
    await llm.forward({ inputIds: first, cache })
    for (const question of [a, b, a]) {
      const behind = await scoreLabels(llm, { inputIds: question, cache }, LABELS)
      expect(cache.length).toBe(6)
      const whole = await scoreLabels(llm, { inputIds: ops.cat([first, question], 1) }, LABELS)
      behind.logprobs[0]?.forEach((value, k) => {
        expect(Math.abs(value - get(get(whole.logprobs[0])[k]))).toBeLessThan(1e-4)
      })
    }
    await expect(scoreLabels(llm, { inputIds: tensor([[99]]), cache }, LABELS)).rejects.toThrow(/out of range/)
    expect(cache.length).toBe(6)
  })

  it('looks at pictures', async () => {
    const model = InternVL.fromConfig(
      {
        visionConfig: {
          hiddenSize: 8,
          numHiddenLayers: 1,
          numAttentionHeads: 2,
          intermediateSize: 8,
          imageSize: 8,
          patchSize: 2,
          initializerFactor: 1,
        },
        llmConfig: { ...SIZES, initializerRange: 0.4 },
        imgContextTokenId: 39,
      },
      { seed: 2 },
    ).eval()
    const inputIds = tensor([[1, 39, 39, 39, 39, 5]])
    const [one, other] = [randn([1, 3, 8, 8]), randn([1, 3, 8, 8])]
    const a = await scoreLabels(model, { inputIds, pixelValues: one }, LABELS)
    const b = await scoreLabels(model, { inputIds, pixelValues: other }, LABELS)
    expect(a.logprobs).not.toEqual(b.logprobs)
    const kept = await model.projectImages(await model.encodeImages(one))
    expect((await scoreLabels(model, { inputIds, imageEmbeds: kept }, LABELS)).logprobs).toEqual(a.logprobs)
    await expect(scoreLabels(model, { inputIds }, LABELS)).rejects.toThrow(
      /InternVL\.embed: expected 0 times <IMG_CONTEXT> \(39\) for the image tokens, got 4 in inputIds/,
    )
    await expect(scoreLabels(llm, { inputIds, pixelValues: one }, LABELS)).rejects.toThrow(/InternVL/)
  })

  it('takes texts, with what ends them', async () => {
    const tokenizer = await Tokenizer.fromFile(published.qwen2)
    const model = DecoderLM.fromConfig({ ...SIZES, vocabSize: 151_700 }, { seed: 4 }).eval()
    const inputIds = randint(1, 1000, [1, 4])
    const labels = ['Joy.', 'Anger.', 'Neutral.']
    const end = '<|im_end|>'
    const texts = await scoreLabels(model, { inputIds }, labels, { tokenizer, end })
    const ids = labels.map((label) => [...tokenizer.encode(label + end, { addSpecialTokens: false }).inputIds])
    expect(ids.every((list) => list.at(-1) === tokenizer.tokenToId(end))).toBe(true)
    expect(texts).toEqual(await scoreLabels(model, { inputIds }, ids))
  })

  it('refuses what is none, and leaves nothing behind', async () => {
    const inputIds = randint(1, 40, [1, 4])
    const refused = async (promise: Promise<unknown>, message: RegExp) => {
      await expect(promise).rejects.toThrow(ConfigError)
      await expect(promise).rejects.toThrow(message)
    }
    await refused(scoreLabels(llm, { inputIds }, []), /labels/)
    await refused(
      scoreLabels(llm, { inputIds }, [[]]),
      /scoreLabels: labels\[0\]: expected at least one token id from 0 to 39, got an array of length 0\. Correct it/,
    )
    await refused(
      scoreLabels(llm, { inputIds }, [[3], [40]]),
      /scoreLabels: labels\[1\]: expected at least one token id from 0 to 39, got an array of length 1\. Correct it/,
    )
    await refused(scoreLabels(llm, { inputIds }, ['Joy.']), /tokenizer/)
    await refused(scoreLabels(llm, {}, [[3]]), /inputIds or inputsEmbeds/)
    await refused(scoreLabels(llm, { inputIds }, [[3]], { batchSize: 0 }), /batchSize/)
    await refused(scoreLabels(llm, { inputIds }, [[3]], { batches: 1 } as never), /batches/)
    await refused(scoreLabels(llm, { ids: inputIds } as never, [[3]]), /ids/)
    await refused(scoreLabels({} as never, { inputIds }, [[3]]), /DecoderLM/)
    await expect(scoreLabels(llm, { inputIds }, [[3]], { signal: AbortSignal.abort() })).rejects.toThrow(/abort/i)
    const before = await settledTensors()
    await scope(() => scoreLabels(llm, { inputIds }, LABELS))
    await scoreLabels(llm, { inputIds }, LABELS)
    expect(memoryStats().liveTensors).toBeLessThanOrEqual(before)
  })
})
