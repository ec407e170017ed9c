import { describe, expect, it } from 'vitest'
import { Bert, embedSentences, type RobertaInputs, scope, type Tensor } from '../../lib/index.js'
import { expectClose, fixture, settledTensors, tensorsOf } from '../helpers.js'
import { camelKeys, expectGradients, loadParameters } from './networks.js'
import { wordPieces } from './word-pieces.js'

const file = await fixture<{ name: string; config: Record<string, unknown> }>('models/bert')

describe('against transformers', () => {
  it.each(file.cases)('$name', async ({ name, config }) => {
    const model = new Bert(camelKeys(config))
    loadParameters(model, file, name)
    const inputs = camelKeys(tensorsOf(file, name, 'in')) as RobertaInputs
    const expected = tensorsOf(file, name, 'out')
    const { main } = tensorsOf(file, name, 'cotangent') as { main: Tensor }
    const { lastHiddenState, poolerOutput } = await model.forward(inputs)
    expectClose(lastHiddenState, expected.states as Tensor, 1e-5, 'states')
    if (expected.pooler) expectClose(poolerOutput as Tensor, expected.pooler, 1e-5, 'pooler')
    else expect(poolerOutput).toBeNull()
    await lastHiddenState.mul(main).sum().backward()
    await expectGradients(model, file, name, {
      exact: 5e-6,
      again: async () => (await model.forward(inputs)).lastHiddenState.mul(main).sum().backward(),
    })
  })
})

describe('embedSentences', () => {
  const texts = ['one two three', 'three', 'two two one three two', 'one']
  it('is the mean over the tokens, whatever stands beside a text in its batch', async () => {
    const tokenizer = await wordPieces()
    const model = Bert.fromConfig({
      vocabSize: 12,
      hiddenSize: 8,
      numHiddenLayers: 1,
      numAttentionHeads: 2,
      intermediateSize: 16,
      maxPositionEmbeddings: 16,
    }).eval()
    const before = await settledTensors()
    await scope(async () => {
      const alone: Tensor[] = []
      for (const text of texts) {
        const { inputIds } = tokenizer.encodeBatch([text], { returnTensors: true })
        alone.push((await model.forward({ inputIds })).lastHiddenState.mean([1]))
      }
      for (const batchSize of [1, 3, 32]) {
        const vectors = await embedSentences(model, tokenizer, texts, { batchSize })
        expect([vectors.shape, vectors.requiresGrad]).toEqual([[4, 8], false])
        for (const [i, row] of alone.entries()) expectClose(vectors.select(0, i), row.select(0, 0), 1e-5)
      }
      const texted = (...values: unknown[]) => embedSentences(model, tokenizer, values as string[])
      await expect(texted('a', 1)).rejects.toThrow('embedSentences: expected texts[1] to be a string, got 1')
      using small = Bert.fromConfig({ ...model.config, vocabSize: 6 })
      await expect(embedSentences(small, tokenizer, texts)).rejects.toThrow(
        /tokenizer: expected the tokenizer of the network, with at most 6 tokens, got one with \d+/,
      )
      const unit = await embedSentences(model, tokenizer, texts, { normalize: true, pooling: 'cls' })
      for (const row of unit.square().sum([1]).toArray() as number[]) expect(row).toBeCloseTo(1, 5)
      const cut = await embedSentences(model, tokenizer, ['one two three two one'], { maxLength: 4 })
      expectClose(cut, await embedSentences(model, tokenizer, ['one two']), 1e-6)
    })
    expect(await settledTensors()).toBeLessThanOrEqual(before)
  })

  it('refuses what it does not know', async () => {
    const tokenizer = await wordPieces()
    const model = Bert.fromConfig('minilm-l6', { device: 'meta' })
    for (const [options, says] of [
      [{ pooling: 'max' }, /pooling/],
      [{ normalise: true }, /did you mean.*normalize/],
      [{ batchSize: 0 }, /batchSize/],
    ] as const) {
      await expect(embedSentences(model, tokenizer, ['one'], options as never)).rejects.toThrow(says)
    }
    await expect(embedSentences(model, tokenizer, [])).rejects.toThrow(/texts/)
    await expect(embedSentences({} as never, tokenizer, ['one'])).rejects.toThrow(/a Bert or a Roberta/)
    expect(() => Bert.fromConfig({ positionEmbeddingType: 'relative_key' })).toThrow(/positionEmbeddingType/)
  })
})
