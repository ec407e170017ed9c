import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { ConfigError, DecoderLM, randn, ShapeError, scope, type Tensor } from '../../lib/index.js'
import { embedRows, expandPlaceholders } from '../../lib/kit/embed-rows.js'

/** As InternVL's <IMG_CONTEXT>, it is one of the tokens. */
const PICTURE = 9
const hidden = 8
let llm: DecoderLM
let table: number[][]
beforeAll(() => {
  const sizes = { vocabSize: 10, hiddenSize: hidden, intermediateSize: 16, numHiddenLayers: 1, numAttentionHeads: 2 }
  llm = DecoderLM.fromConfig(sizes, { seed: 3 })
  table = (llm.get('model.embed_tokens') as unknown as { weight: Tensor }).weight.toArray() as number[][]
})
afterAll(() => llm.dispose())

const zeros = new Array<number>(hidden).fill(0)
const word = (id: number) => table[id] as number[]
const rows = [
  [1, PICTURE, PICTURE, 4],
  [PICTURE, 2],
  [5, 6, 7],
]

describe('embedRows', () => {
  it.each(['right', 'left'] as const)('puts embeddings in the place of placeholders, padded on the %s', (side) => {
    scope(() => {
      const embeddings = randn([3, hidden])
      const [a, b, c] = embeddings.toArray() as [number[], number[], number[]]
      const labels = [
        [-100, 8, 8, 3],
        [1, 2],
        [0, 0, -100],
      ]
      const made = embedRows(llm, rows, { placeholder: PICTURE, embeddings, side, labels })
      const padded = <T>(row: T[], value: T) => {
        const padding = new Array<T>(4 - row.length).fill(value)
        return side === 'right' ? [...row, ...padding] : [...padding, ...row]
      }
      const wanted = [[word(1), a, b, word(4)], [c, word(2)], [5, 6, 7].map(word)]
      expect(made.inputsEmbeds.toArray()).toEqual(wanted.map((row) => padded(row, zeros)))
      expect(made.attentionMask.dtype).toBe('int64')
      const ones = rows.map((row) => row.map(() => 1))
      expect(made.attentionMask.toArray()).toEqual(ones.map((row) => padded(row, 0)))
      // Nothing is learnt where an embedding stands.
      const told = [
        [-100, -100, -100, 3],
        [-100, 2],
        [0, 0, -100],
      ]
      expect(made.labels.toArray()).toEqual(told.map((row) => padded(row, -100)))
    })
  })

  it('sends gradients back into the embeddings, each from its place', async () => {
    const embeddings = randn([3, hidden], { requiresGrad: true })
    const weights = randn([3, 4, hidden])
    const { inputsEmbeds } = embedRows(llm, rows, { placeholder: PICTURE, embeddings })
    await inputsEmbeds.mul(weights).sum().backward()
    const [one, two] = weights.toArray() as number[][][]
    expect(embeddings.grad?.toArray()).toEqual([one?.[1], one?.[2], two?.[0]])
  })

  it('takes a placeholder that is no token, rows without embeddings, and rows of nothing else', () => {
    scope(() => {
      const plain = embedRows(llm, [[5, 6]], { placeholder: -1, embeddings: null })
      expect(plain.inputsEmbeds.toArray()).toEqual([[word(5), word(6)]])
      expect(plain).not.toHaveProperty('labels')
      const embeddings = randn([2, hidden], { dtype: 'float64' })
      const only = embedRows(llm, [[-1, -1]], { placeholder: -1, embeddings })
      expect([only.inputsEmbeds.dtype, only.inputsEmbeds.shape]).toEqual(['float32', [1, 2, hidden]])
      expect(only.inputsEmbeds.equal(embeddings.float().unsqueeze(0))).toBe(true)
    })
  })

  it('says which counts disagree', () => {
    scope(() => {
      const make = (embeddings: Tensor | null, more = {}) =>
        embedRows(llm, rows, { placeholder: PICTURE, embeddings, ...more })
      expect(() => make(randn([2, hidden]))).toThrow(/expected 3 rows, one for each placeholder, got 2/)
      expect(() => make(null)).toThrow(ShapeError)
      expect(() => make(randn([3, 7]))).toThrow(/expected \[3, 8\], got \[3, 7\]/)
      expect(() => make(randn([3]))).toThrow(ShapeError)
      const labels = [[1], [2], [3]]
      expect(() => make(randn([3, hidden]), { labels })).toThrow(
        /expected the lengths of the rows, 4, 2, 3, got 1, 1, 1/,
      )
      const embeddings = randn([3, hidden])
      expect(() => embedRows(llm, [[10]], { placeholder: -1, embeddings: null })).toThrow(ConfigError)
      expect(() => embedRows(llm, [[-1, -2]], { placeholder: -1, embeddings: embeddings.narrow(0, 0, 1) })).toThrow(
        /expected token ids from 0 to 9, got -2/,
      )
    })
  })
})

describe('expandPlaceholders', () => {
  it('repeats each placeholder for its embeddings', () => {
    expect(expandPlaceholders([1, PICTURE, 2, PICTURE, PICTURE], PICTURE, [2, 1, 3])).toEqual([
      ...[1, PICTURE, PICTURE, 2, PICTURE],
      ...[PICTURE, PICTURE, PICTURE],
    ])
    expect(expandPlaceholders([1, 2], PICTURE, [])).toEqual([1, 2])
    expect(expandPlaceholders([PICTURE], PICTURE, [0])).toEqual([])
  })

  it('refuses other counts', () => {
    expect(() => expandPlaceholders([1], PICTURE, [2], 'prompts[0]')).toThrow(
      'prompts[0]: expected 1 placeholders, one for each input with embeddings, got 0',
    )
    expect(() => expandPlaceholders([PICTURE, PICTURE], PICTURE, [2])).toThrow(ConfigError)
  })
})
