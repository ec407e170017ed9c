import { describe, expect, it } from 'vitest'
import { noGrad, randn, ShapeError, scope, type Tensor, tensor } from '../../../../lib/index.js'
import { type EmotionFusion, emotionConfig } from '../../../../lib/systems/emotion/network/config.js'
import { EmotionHead } from '../../../../lib/systems/emotion/network/network.js'
import {
  FrameHead,
  PairHead,
  PointerHead,
  pairLoss,
  pointerLabel,
} from '../../../../lib/systems/emotion/published/heads.js'
import { publishedPairs } from '../../../../lib/systems/emotion/published/pairs.js'
import { expectClose, fixture, ROUNDING, tensorsOf } from '../../../helpers.js'

// test/reference/emotion_heads.py computes in float64 and stores float32; so do these.
const file = await fixture<{
  name: string
  fusion?: EmotionFusion
  causal?: boolean
  compat?: 'published' | null
  pairs?: [number, number][]
}>('emotion/heads')
const TOLERANCE = 4 * ROUNDING.float32
const double = (all: Record<string, Tensor>) =>
  Object.fromEntries(
    Object.entries(all).map(([name, value]) => [
      name,
      /float/.test(value.dtype) ? value.to({ dtype: 'float64' }) : value,
    ]),
  )
const bools = (rows: number[][]) => tensor(rows).ne(0)
const mask = bools([
  [1, 1, 1, 1],
  [1, 1, 1, 0],
])
const speakers = tensor(
  [
    [0, 1, 0, 2],
    [0, 0, 1, 0],
  ],
  { dtype: 'int64' },
)
const present = {
  video: bools([
    [1, 0, 1, 1],
    [1, 1, 0, 0],
  ]),
  audio: bools([
    [1, 1, 0, 1],
    [0, 1, 1, 0],
  ]),
  text: bools([
    [1, 1, 1, 0],
    [1, 1, 1, 0],
  ]),
}

describe('EmotionHead', () => {
  it.each(file.cases.filter((one) => one.fusion).map((one) => [one.fusion as EmotionFusion, one] as const))(
    '%s: what torch.nn gives, forward and backward',
    async (fusion, { name, causal }) => {
      const config = emotionConfig({
        ...{ labels: ['a', 'b', 'c'], sizes: { video: 8, audio: 5, text: 6 }, fusion, hiddenSize: 8, dropout: 0 },
        context: { layers: 2, heads: 2, maxDistance: 2, causal: causal === true },
      })
      const head = new EmotionHead(config, { dtype: 'float64' }).eval()
      head.loadStateDict(double(tensorsOf(file, name, 'weights')))
      const { weight, ...vectors } = double(tensorsOf(file, name, 'inputs'))
      const { logits } = head.forward({ mask, speakers, present, vectors })
      const shown = logits.mul(mask.to({ dtype: 'float64' }).unsqueeze(2))
      expectClose(shown, double(tensorsOf(file, name, 'output')).logits as Tensor, TOLERANCE)
      await logits
        .mul(weight as Tensor)
        .sum()
        .backward()
      const wanted = double(tensorsOf(file, name, 'gradients'))
      const own = Object.fromEntries(head.namedParameters())
      expect(Object.keys(own).sort()).toEqual(Object.keys(wanted).sort())
      for (const [key, gradient] of Object.entries(wanted)) {
        // The bias of keys shifts all of a softmax alike: its gradient is rounding alone.
        if (key.endsWith('in_proj_bias')) continue
        expectClose(own[key]?.grad as Tensor, gradient, 4 * TOLERANCE, key)
      }
    },
  )
})

describe('the published heads', () => {
  it.each(['null', 'published'])('of experiments 7 and 8, compat %s', (kind) => {
    const name = `frames-${kind === 'null' ? 'None' : kind}`
    const compat = kind === 'published' ? { compat: 'published' as const } : {}
    const head = new FrameHead({ videoSize: 10, textSize: 8, ...compat }).to({ dtype: 'float64' }) as FrameHead
    head.loadStateDict(double(tensorsOf(file, name, 'weights')))
    const {
      video,
      text,
      mask: tokens,
    } = double(tensorsOf(file, name, 'inputs')) as Record<'video' | 'text' | 'mask', Tensor>
    const logits = noGrad(() => head.forward(video, text, tokens))
    expectClose(logits, double(tensorsOf(file, name, 'output')).logits as Tensor, TOLERANCE)
    // As published an answer depends on the other clips, and not on the video; ours on its own alone.
    const alone = noGrad(() => head.forward(video.narrow(0, 0, 1), text.narrow(0, 0, 1), tokens.narrow(0, 0, 1)))
    const other = noGrad(() => head.forward(video.mul(2), text, tokens))
    const near = (a: Tensor, b: Tensor) => Number(a.sub(b).abs().max().item()) < 1e-9
    expect(near(alone, logits.narrow(0, 0, 1))).toBe(kind === 'null')
    expect(near(other, logits)).toBe(kind === 'published')
  })

  it('of experiments 9 and 10: counts and loss', async () => {
    const head = new PairHead()
    const count = (part: { parameters(): Tensor[] }) => part.parameters().reduce((sum, one) => sum + one.numel(), 0)
    expect([count(head.emotion), count(head.cause)]).toEqual([21511, 6146])
    const logits = head.forward(randn([2, 3072]))
    const loss = pairLoss(logits, tensor([1, 6], { dtype: 'int64' }), tensor([0, 1], { dtype: 'int64' }))
    const each = (rows: Tensor, at: number[]) => {
      const values = rows.logSoftmax(1).toArray() as number[][]
      return -at.reduce((sum, label, i) => sum + (values[i]?.[label] as number), 0) / 2
    }
    expect(loss.item()).toBeCloseTo(each(logits.emotion, [1, 6]) + each(logits.cause, [0, 1]), 4)
  })

  it('of experiment 11', () => {
    const head = new PointerHead({ size: 12, heads: 4, maxUtterances: 5, dropout: 0 }).to({
      dtype: 'float64',
    }) as PointerHead
    head.loadStateDict(double(tensorsOf(file, 'pointer', 'weights')))
    const { video, text } = double(tensorsOf(file, 'pointer', 'inputs')) as Record<'video' | 'text', Tensor>
    const { pairs } = file.cases.find(({ name }) => name === 'pointer') as { pairs: [number, number][] }
    const logits = noGrad(() => scope(() => head.forward(video, text, pairs)))
    expectClose(logits, double(tensorsOf(file, 'pointer', 'output')).logits as Tensor, TOLERANCE)
    expect(logits.shape).toEqual([2, 14])
    expect([pointerLabel(2, true), pointerLabel(2, false)]).toEqual([6, 0])
    expect(() => head.forward(randn([6, 12]), randn([6, 12]), [[0, 1]])).toThrow(ShapeError)
  })
})

describe('publishedPairs', () => {
  const dialog = (id: string, count: number, causes: [number, number][]) => ({
    ...{
      id,
      source: id,
      utterances: Array.from({ length: count }, (_, i) => ({ id: i + 1, text: 'a', speaker: 'A', emotion: 'joy' })),
    },
    causes: causes.map(([effect, cause]) => ({ effect, cause, emotion: 'joy' })),
  })

  it('draws as many pairs that are none as there are different true ones', () => {
    const pairs = publishedPairs([
      dialog('a', 4, [
        [1, 0],
        [1, 0],
        [2, 2],
      ]),
      dialog('b', 1, [[0, 0]]),
      dialog('c', 3, []),
    ])
    const of = (id: string, cause: number) => pairs.filter((pair) => pair.dialog.id === id && pair.cause === cause)
    expect([of('a', 1).length, of('a', 0).length]).toEqual([3, 2])
    for (const { initial, causal } of of('a', 0))
      expect([
        [1, 0],
        [2, 2],
      ]).not.toContainEqual([initial, causal])
    // Of one utterance there is no other pair.
    expect([of('b', 1).length, of('b', 0).length, of('c', 0).length]).toEqual([1, 0, 0])
    expect(publishedPairs([dialog('a', 4, [[1, 0]])], { seed: 3 })).toEqual(
      publishedPairs([dialog('a', 4, [[1, 0]])], { seed: 3 }),
    )
    const drawn = new Set(
      Array.from({ length: 200 }, (_, seed) => publishedPairs([dialog('a', 2, [[1, 0]])], { seed })[1]).map(
        (pair) => `${pair?.initial}${pair?.causal}`,
      ),
    )
    expect([...drawn].sort()).toEqual(['00', '01', '11'])
  })
})
