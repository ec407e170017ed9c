import { describe, expect, it, test } from 'vitest'
import { DecoderLM, manualSeed, noGrad, ops, randint, randn, scope, type Tensor, tensor } from '../../lib/index.js'
import { op } from '../../lib/native/call.js'

// Of whole numbers all sums are exact, in whatever order: there is one right word, and no rounding to excuse another.

const likeliestWord = op('voxtorch::likeliest_word') as unknown as (
  input: Tensor,
  weight: Tensor,
) => { word: number; multiplied: number }

const WORDS = 20_000
const whole = (shape: number[], most: number) => randint(-most, most + 1, shape).to({ dtype: 'float32' })
const exactWord = async (input: Tensor, weight: Tensor) =>
  Number((await ops.mv(weight.double(), input.double()).argmax().data())[0])

describe('the likeliest word of a head', () => {
  it.each(['float32', 'bfloat16', 'float16'] as const)('is found without most of its weights, of %s', async (dtype) => {
    manualSeed(1)
    await noGrad(() =>
      scope(async () => {
        for (const width of [64, 100, 333, 896]) {
          const weight = randn([WORDS, width]).to({ dtype })
          const input = randn([width])
          const { word, multiplied } = likeliestWord(input, weight)
          const logits = ops.mv(weight.double(), input.double())
          const [best, found] = [Number((await logits.max().data())[0]), Number((await logits.data())[word])]
          expect(best - found).toBeLessThanOrEqual(1e-5 * best)
          expect(multiplied).toBeGreaterThan(0)
          expect(multiplied).toBeLessThan(WORDS / 50)
        }
      }),
    )
  })

  it.each([
    [1, 64],
    [2, 100],
    [3, 512],
  ])('is the right one among thousands that int8 cannot tell apart (seed %i, %i wide)', async (seed, width) => {
    manualSeed(seed)
    await noGrad(() =>
      scope(async () => {
        const one = whole([1, width], 1000)
        // All differ from it by a thousandth of their weights' range here and there.
        const weight = one.add(whole([WORDS, width], 1)).contiguous()
        const input = whole([width], 3)
        const { word } = likeliestWord(input, weight)
        expect(word).toBe(await exactWord(input, weight))
      }),
    )
  })

  it('is the right one where all that int8 leaves out points one way', async () => {
    await noGrad(() =>
      scope(async () => {
        const rows = (made: number[][]) => {
          const weight = randn([WORDS, 64]).mul(0.01)
          for (const [i, row] of made.entries())
            weight.select(0, 100 * (i + 1)).copy_(tensor(row, { dtype: 'float32' }))
          return weight
        }
        const each = (of: (i: number) => number) => Array.from({ length: 64 }, (_, i) => of(i))
        // A code is 1: 63 times 0.4 are left out of the first row, and nothing of the second, which is less by 1.2.
        const weight = rows([each((i) => (i === 0 ? 127 : 10.4)), each((i) => (i === 0 ? 127 : i < 25 ? 11 : 10))])
        expect(
          likeliestWord(
            tensor(
              each(() => 1),
              { dtype: 'float32' },
            ),
            weight,
          ).word,
        ).toBe(100)
        // The same of the input, which the first row takes as it is and the second where nothing is left out.
        const input = tensor(
          each((i) => (i % 32 === 0 ? 127 : 10.4)),
          { dtype: 'float32' },
        )
        expect(likeliestWord(input, rows([each(() => 1), each((i) => (i % 32 === 0 ? 3.53 : 0))])).word).toBe(100)
      }),
    )
  })

  it('is the first of equal ones', async () => {
    manualSeed(4)
    await noGrad(() =>
      scope(async () => {
        const weight = whole([WORDS, 64], 50)
        const input = whole([64], 20)
        const best = weight.select(0, await exactWord(input, weight)).clone()
        for (const place of [17_001, 444, 19_999]) weight.select(0, place).copy_(best)
        expect(likeliestWord(input, weight).word).toBe(await exactWord(input, weight))
        expect(likeliestWord(input, weight).word).toBeLessThanOrEqual(444)
      }),
    )
  })

  it('is found whatever the lengths of rows, and where numbers are none', async () => {
    manualSeed(5)
    await noGrad(() =>
      scope(async () => {
        const input = whole([64], 20)
        const weight = whole([WORDS, 64], 50)
        const expectRight = async () => expect(likeliestWord(input, weight).word).toBe(await exactWord(input, weight))
        weight.select(0, 5).fill_(0)
        weight.select(0, 7).mul_(1e-35)
        await expectRight()
        weight.select(0, 9).mul_(2 ** 40)
        weight.select(0, 11).mul_(-(2 ** 40))
        await expectRight()
        const small = weight.mul(2 ** -120)
        expect(likeliestWord(input, small).word).toBe(await exactWord(input, small))
        weight.select(0, 12_345).fill_(Number.POSITIVE_INFINITY)
        await expectRight()
        weight.select(0, 15_000).fill_(Number.NaN)
        expect(likeliestWord(input, weight).word).toBe(await exactWord(input, weight))
        const none = whole([64], 20)
        none.select(0, 3).fill_(Number.NaN)
        expect(likeliestWord(none, whole([WORDS, 64], 5))).toEqual({ word: 0, multiplied: WORDS })
      }),
    )
  })

  test('heads and inputs that do not fit are refused by name', () => {
    const weight = randn([WORDS, 64])
    expect(() => likeliestWord(randn([63]), weight)).toThrow('[words, 63]')
    expect(() => likeliestWord(randn([1, 64]), weight)).toThrow('float32 [in]')
    expect(() => likeliestWord(randn([64]), randn([0, 64]))).toThrow('no word')
  })
})

/** A head in which many words are nearly as likely as each other, and some exactly. */
async function alike(dtype: 'float32' | 'bfloat16', tied: boolean): Promise<DecoderLM> {
  const config = {
    modelType: 'qwen2' as const,
    vocabSize: WORDS,
    hiddenSize: 64,
    intermediateSize: 96,
    numHiddenLayers: 2,
    numAttentionHeads: 4,
    numKeyValueHeads: 2,
    tieWordEmbeddings: tied,
    initializerRange: 0.3,
  }
  const model = DecoderLM.fromConfig(config, { seed: 3, dtype }).eval().freeze()
  const heads = model.parameters().filter(({ shape }) => shape[0] === WORDS)
  noGrad(() =>
    scope(() => {
      for (const weight of heads) {
        const few = weight.narrow(0, 0, WORDS / 100).clone()
        const many = ops.cat(Array.from({ length: 100 }, () => few))
        weight.copy_(many.add(randn([WORDS, 64]).mul(1e-3).to({ dtype })))
        weight.narrow(0, WORDS / 2, WORDS / 2).copy_(weight.narrow(0, 0, WORDS / 2).clone())
      }
    }),
  )
  return model
}

describe('greedy generation', () => {
  it.each([
    ['float32', true, 1],
    ['float32', false, 3],
    ['bfloat16', true, 2],
    ['float32', true, 8],
  ] as const)('writes the words that all logits give, of %s, tied: %s, %i rows', async (dtype, tied, rows) => {
    manualSeed(6)
    const model = await alike(dtype, tied)
    const inputIds = randint(0, WORDS, [rows, 7])
    const attentionMask = ops.ones([rows, 7]).to('int64')
    if (rows > 1) noGrad(() => attentionMask.select(0, 0).narrow(0, 0, 3).fill_(0))
    const config = { maxNewTokens: 40, eosTokenId: null, padTokenId: 0 }
    const screened = await model.generate({ inputIds, attentionMask }, config)
    const whole = await model.generate({ inputIds, attentionMask }, { ...config, outputScores: true })
    expect(screened.tokens).toEqual(whole.tokens)
    expect(new Set(whole.tokens[0]).size).toBeGreaterThan(5)
    const step: number[] = []
    for await (const { tokens } of model.stream({ inputIds, attentionMask }, config)) step.push(tokens[0] as number)
    expect(step).toEqual(whole.tokens[0])
    model.dispose()
  })
})
