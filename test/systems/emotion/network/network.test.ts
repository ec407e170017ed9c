import { mkdtempSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import {
  ConfigError,
  manualSeed,
  noGrad,
  ops,
  randn,
  ShapeError,
  scope,
  type Tensor,
  tensor,
} from '../../../../lib/index.js'
import { EMOTIONS } from '../../../../lib/kit/emotion/dialog.js'
import { emotionCollate, emotionSamples, speakersOf } from '../../../../lib/systems/emotion/data/collate.js'
import { emotionAnswers } from '../../../../lib/systems/emotion/evaluation/evaluate.js'
import {
  type EmotionClassifierConfig,
  type EmotionFusion,
  emotionConfig,
  FUSIONS,
} from '../../../../lib/systems/emotion/network/config.js'
import { EmotionClassifier, type EmotionInputs } from '../../../../lib/systems/emotion/network/network.js'
import { difference, relativeError, settledTensors } from '../../../helpers.js'
import { dialogs, hot, TinyEncoder } from '../tiny.js'

const sizes = { text: 6, video: 8, audio: 5 }
// 'frames' is for states: languagebind.test.ts.
const VECTORS = FUSIONS.filter((fusion) => fusion !== 'frames')
const bools = (rows: number[][]) => tensor(rows).ne(0)

function inputs(seed: number, rows = 2, time = 3): EmotionInputs {
  manualSeed(seed)
  const all = ops.ones([rows, time]).ne(0)
  return {
    mask: all,
    speakers: tensor(
      Array.from({ length: rows }, () => Array.from({ length: time }, (_, i) => i % 2)),
      { dtype: 'int64' },
    ),
    present: { text: all, video: all, audio: all },
    vectors: { text: randn([rows, time, 6]), video: randn([rows, time, 8]).mul(40), audio: randn([rows, time, 5]) },
  }
}
function make(config: Partial<EmotionClassifierConfig> = {}): EmotionClassifier {
  manualSeed(1)
  const model = new EmotionClassifier({ sizes, hiddenSize: 16, ...config })
  // Biases that begin with zeros would hide what they do.
  noGrad(() => {
    for (const [name, parameter] of model.namedParameters())
      if (/context\.(distance|speaker)|kinds/.test(name)) parameter.copy_(randn(parameter.shape))
  })
  return model.eval()
}
const logits = async (model: EmotionClassifier, given: EmotionInputs) =>
  (await noGrad(() => model.forward(given))).logits

describe('EmotionClassifier', () => {
  it('is the published head where vectors stand side by side: video, audio, text, times a matrix', async () => {
    const model = make({ fusion: 'concat', headBias: false })
    expect(Object.entries(model.stateDict()).map(([name, { shape }]) => [name, shape])).toEqual([
      ['head.linear.weight', [7, 19]],
    ])
    const given = inputs(2)
    const { video, audio, text } = given.vectors as Record<string, Tensor>
    const z = ops.cat([video!, audio!, text!], 2)
    expect(difference(await logits(model, given), z.matmul(model.head.linear.weight.transpose(0, 1)))).toBeLessThan(
      1e-6,
    )
    // Counts of the published heads, without bias.
    const counts = (some: Record<string, number>) =>
      new EmotionClassifier({ sizes: some, fusion: 'concat', headBias: false })
        .parameters()
        .reduce((sum, p) => sum + p.numel(), 0)
    expect([counts({ video: 768, text: 768 }), counts({ video: 768, audio: 768, text: 768 })]).toEqual([10752, 16128])
  })

  it.each(VECTORS)('%s: what is missing counts for nothing, wherever it stands', async (fusion) => {
    const model = make({ fusion })
    const given = inputs(3)
    const some = {
      ...given,
      present: {
        ...given.present,
        audio: bools([
          [1, 0, 1],
          [0, 1, 1],
        ]),
      },
    }
    const other = {
      ...some,
      vectors: {
        ...some.vectors,
        audio: some.vectors!.audio!.add(
          bools([
            [0, 1, 0],
            [1, 0, 0],
          ])
            .to({ dtype: 'float32' })
            .unsqueeze(2)
            .mul(1e3),
        ),
      },
    }
    const [a, b, all] = [await logits(model, some), await logits(model, other), await logits(model, given)]
    expect(a.equal(b)).toBe(true)
    // Where it is there, it counts; and nothing else is touched.
    expect(a.select(0, 0).select(0, 0).equal(all.select(0, 0).select(0, 0))).toBe(true)
    expect(a.select(0, 0).select(0, 1).equal(all.select(0, 0).select(0, 1))).toBe(false)
    const none = {
      ...given,
      present: {
        text: bools([
          [0, 0, 0],
          [1, 1, 1],
        ]),
        video: bools([
          [0, 0, 0],
          [1, 1, 1],
        ]),
        audio: bools([
          [0, 0, 0],
          [1, 1, 1],
        ]),
      },
    }
    expect((await logits(model, none)).isfinite().all().item()).toBe(true)
  })

  it.each(VECTORS)('%s with context has gradients for all that it has', async (fusion: EmotionFusion) => {
    const model = make({ fusion, context: { layers: 2, heads: 2 } }).train()
    const given = inputs(4)
    const present = {
      ...given.present,
      audio: bools([
        [1, 0, 1],
        [1, 1, 0],
      ]),
      text: bools([
        [1, 1, 0],
        [0, 1, 1],
      ]),
    }
    const { logits: rows } = await model.forward({ ...given, present: { ...present, video: present.text } })
    await rows.square().mean().backward()
    const without = model.namedParameters().filter(([, { grad }]) => grad === null || grad.abs().max().item() === 0)
    expect(without.map(([name]) => name)).toEqual([])
  })

  it('does not see padding, and other dialogs of a batch', async () => {
    const model = make({ context: { layers: 2, heads: 4 } })
    const given = inputs(5)
    const alone = await logits(model, given)
    const padded = scope(() => {
      const grown = (t: Tensor, fill: number) =>
        ops.cat([t, ops.full([2, 2, ...t.shape.slice(2)], fill, { dtype: t.dtype })], 1)
      const flags = (t: Tensor) => ops.cat([t, ops.zeros([2, 2]).ne(0)], 1)
      const each = <T>(all: Record<string, T>, f: (t: T) => T) =>
        Object.fromEntries(Object.entries(all).map(([k, v]) => [k, f(v)]))
      return {
        mask: flags(given.mask),
        speakers: grown(given.speakers, 0),
        present: each(given.present as Record<string, Tensor>, flags),
        vectors: each(given.vectors as Record<string, Tensor>, (t) => grown(t, 7)),
      }
    })
    expect(difference((await logits(model, padded)).narrow(1, 0, 3), alone)).toBeLessThan(1e-5)
    const second = {
      ...given,
      vectors: Object.fromEntries(Object.entries(given.vectors!).map(([k, v]) => [k, v.narrow(0, 0, 1)])),
    }
    const one = (t: Tensor) => t.narrow(0, 0, 1)
    const first = {
      mask: one(given.mask),
      speakers: one(given.speakers),
      present: { text: one(given.mask), video: one(given.mask), audio: one(given.mask) },
      vectors: second.vectors,
    }
    expect(difference(await logits(model, first), alone.narrow(0, 0, 1))).toBeLessThan(1e-5)
  })

  it('knows who speaks, how far apart utterances are, and, if causal, not what comes', async () => {
    const given = inputs(6)
    const model = make({ context: { layers: 1, heads: 2 } })
    const base = await logits(model, given)
    expect((await logits(model, { ...given, speakers: ops.zerosLike(given.speakers) })).equal(base)).toBe(false)
    // Who is number 0 does not matter.
    expect(difference(await logits(model, { ...given, speakers: given.speakers.neg().add(9) }), base)).toBeLessThan(
      1e-6,
    )
    const turned = (t: Tensor) => t.flip([1])
    const backwards = {
      ...given,
      speakers: turned(given.speakers),
      vectors: Object.fromEntries(Object.entries(given.vectors!).map(([k, v]) => [k, turned(v)])),
    }
    expect(difference((await logits(model, backwards)).flip([1]), base)).toBeGreaterThan(1e-3)
    const causal = make({ context: { layers: 2, heads: 2, causal: true } })
    const before = await logits(causal, given)
    const changed = {
      ...given,
      vectors: {
        ...given.vectors,
        text: given.vectors!.text!.clone().indexFill(1, tensor([2], { dtype: 'int64' }), 5),
      },
    }
    const after = await logits(causal, changed)
    expect(after.narrow(1, 0, 2).equal(before.narrow(1, 0, 2))).toBe(true)
    expect(after.equal(before)).toBe(false)
  })

  it('drops modalities in training alone, and never all that an utterance has', async () => {
    const model = make({ fusion: 'concat', dropout: 0, modalityDropout: 0.9 })
    noGrad(() => model.head.linear.weight.fill_(0))
    noGrad(() => model.head.linear.weight.select(0, 0).fill_(1))
    noGrad(() => model.head.linear.bias?.zero_())
    const ones = (size: number) => ops.ones([40, 25, size])
    const all = ops.ones([40, 25]).ne(0)
    const given = {
      mask: all,
      speakers: ops.zeros([40, 25], { dtype: 'int64' }),
      present: { text: all, video: all, audio: all },
      vectors: { text: ones(6), video: ones(8), audio: ones(5) },
    }
    const seen = async () =>
      ((await logits(model, given)).select(2, 0).reshape([-1]).toArray() as number[]).map(Math.round)
    expect(new Set(await seen())).toEqual(new Set([19]))
    model.train()
    const drawn = await seen()
    expect([...new Set(drawn)].sort((a, b) => a - b)).toEqual(expect.arrayContaining([5, 6, 8]))
    expect(Math.min(...drawn)).toBe(5)
    expect(drawn.filter((count) => count < 11).length).toBeGreaterThan(700)
    const text = { ...given, present: { ...given.present, video: all.logicalNot(), audio: all.logicalNot() } }
    expect((await logits(model, text)).select(2, 0).min().item() as number).toBeCloseTo(6, 4)
  })

  it('reads with encoders that are part of it, and saves and loads', async () => {
    const facts = (dialog: { id: string }, place: number) =>
      place === 1 ? undefined : hot(8, place, Number(dialog.id))
    manualSeed(1)
    const text = new TinyEncoder('text', 6, facts, {}, true)
    const model = new EmotionClassifier(
      { sizes: { text: 6 }, labels: EMOTIONS.slice(0, 3) },
      { encoders: { text } },
    ).eval()
    const samples = emotionSamples(dialogs(3, EMOTIONS.slice(0, 3)), model.config.labels)
    const answers = await emotionAnswers(model, samples, { batchSize: 2, states: true })
    expect(answers.map(({ logits, states }) => [logits.length, logits[0]?.length, states?.length])).toEqual([
      [4, 3, 4],
      [4, 3, 4],
      [4, 3, 4],
    ])
    // What has nothing to read is told by nothing.
    const [first, , last] = answers
    expect(relativeError(first?.logits[1] as number[], last?.logits[1] as number[])).toBeLessThan(1e-5)
    const folder = mkdtempSync(join(tmpdir(), 'voxtorch-emotion-'))
    model.config.temperature = 1.5
    await model.save(folder)
    const again = await EmotionClassifier.fromPretrained(folder, { encoders: [text] })
    expect(again.config).toEqual(model.config)
    // In batches of another size, which a processor may round in another way.
    const same = await emotionAnswers(again, samples)
    const flat = (all: typeof answers) => all.flatMap((one) => one.logits.flat())
    expect(relativeError(flat(same), flat(answers))).toBeLessThan(1e-5)
  })

  it('leaves no tensors behind', async () => {
    const model = make({ context: {}, fusion: 'cross-attention' })
    const given = inputs(7)
    ;(await logits(model, given)).dispose()
    const before = await settledTensors()
    const output = await noGrad(() => model.forward(given))
    output.logits.dispose()
    output.states.dispose()
    expect(await settledTensors()).toBe(before)
  })

  it('says what is wrong', async () => {
    const model = make()
    const given = inputs(8)
    await expect(model.forward({ ...given, vectors: {} })).rejects.toThrow(
      /expected vectors\.video, because there is no video encoder/,
    )
    await expect(model.forward({ ...given, present: {} })).rejects.toThrow(ShapeError)
    await expect(model.forward({ ...given, mask: tensor([1]) })).rejects.toThrow(/mask: expected a tensor/)
    await expect(model.forward({ ...given, vectors: { ...given.vectors, video: randn([2, 3, 7]) } })).rejects.toThrow(
      /vectors\.video: expected \[2,3,8\], got \[2,3,7\]/,
    )
    expect(() => emotionConfig({ sizes: {} })).toThrow(/sizes: expected the vector size of at least one modality/)
    expect(() => emotionConfig({ sizes: { text: 4, smell: 2 } as never })).toThrow(ConfigError)
    expect(() => emotionConfig({ sizes: { text: 4 }, hiddenSize: 10, context: { heads: 4 } })).toThrow(
      /EmotionClassifier: hiddenSize: expected a multiple of context\.heads \(4\), got 10\. Change one of them/,
    )
    expect(() => emotionConfig({ sizes: { text: 4 }, fusion: 'sum' as never })).toThrow(ConfigError)
    expect(
      () => new EmotionClassifier({ sizes: { text: 4 } }, { encoders: { text: new TinyEncoder('text', 6, () => []) } }),
    ).toThrow(/expected 6, the size of the \w+ encoder's vectors/)
  })
})

describe('emotionCollate', () => {
  it('puts dialogs of unlike length side by side', async () => {
    const [long, short] = [
      dialogs(1, ['joy'], 3)[0]!,
      {
        ...dialogs(2, ['joy'], 2)[1]!,
        utterances: [
          { id: 1, text: 'a', speaker: '' },
          { id: 2, text: 'b', speaker: '', emotion: 'fear' },
        ],
      },
    ]
    expect(speakersOf(short)).toEqual([0, 1])
    const vectors = (dialog: typeof long) => ({
      text: dialog.utterances.map((_, i) => (i === 1 ? undefined : Float32Array.of(i, 9))),
    })
    const batch = await emotionCollate({ text: 2 })(emotionSamples([long, short], EMOTIONS, vectors))
    expect(batch.mask.toArray()).toEqual([
      [true, true, true],
      [true, true, false],
    ])
    expect(batch.speakers.toArray()).toEqual([
      [0, 1, 0],
      [0, 1, 0],
    ])
    expect(batch.present.text?.toArray()).toEqual([
      [true, false, true],
      [true, false, false],
    ])
    expect(batch.vectors?.text?.toArray()).toEqual([
      [
        [0, 9],
        [0, 0],
        [2, 9],
      ],
      [
        [0, 9],
        [0, 0],
        [0, 0],
      ],
    ])
    expect([batch.labels.toArray(), batch.known.toArray()]).toEqual([
      [4, 4, 4, 1],
      [0, 1, 2, 4],
    ])
    expect(() => emotionSamples([long], ['fear', 'anger'])).toThrow(/emotion: expected one of fear, anger, got "joy"/)
  })
})
