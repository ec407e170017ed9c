import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { ConfigError, DataError, manualSeed, noGrad, randn } from '../../../../lib/index.js'
import type { EmotionDialog } from '../../../../lib/kit/emotion/dialog.js'
import { causeCollate, completeVectors } from '../../../../lib/systems/emotion/causes/data.js'
import { CauseScorer } from '../../../../lib/systems/emotion/causes/network.js'
import { trainCausesOf } from '../../../../lib/systems/emotion/causes/run.js'
import {
  bestF1,
  causeSampleOf,
  findCauses,
  loadCauses,
  trainCauses,
  withFoundCauses,
} from '../../../../lib/systems/emotion/causes/train.js'
import { emotionSamples } from '../../../../lib/systems/emotion/data/collate.js'
import { EmotionClassifier } from '../../../../lib/systems/emotion/network/network.js'
import { trainEmotion } from '../../../../lib/systems/emotion/training/train.js'
import { difference } from '../../../helpers.js'
import { PATIENCE } from '../../../patience.js'
import { hot, TinyEncoder } from '../tiny.js'

// One that files of ECF do not know, and that could not stand in one.
const labels = ['neutral', 'joy', 'wild_rage']

/** Whoever is angry is so because of what was said just before; whoever is glad, because of what they say. */
function made(id: number): EmotionDialog {
  const emotions = Array.from({ length: 5 }, (_, i) => labels[(id * (i + 3) + ((i * i) % 4)) % 3] as string)
  const causes = emotions.flatMap((emotion, effect) => {
    const cause = emotion === 'joy' ? effect : effect - 1
    return emotion === 'neutral' || cause < 0 ? [] : [{ effect, cause, emotion }]
  })
  const utterances = emotions.map((emotion, i) => ({
    id: i + 1,
    text: `so it is ${id} ${i} .`,
    speaker: 'AB'[i % 2] as string,
    emotion,
  }))
  return { id: String(id), source: `dialog ${id}`, utterances, causes }
}
const facts = (dialog: EmotionDialog, place: number) =>
  hot(8, labels.indexOf(dialog.utterances[place]?.emotion as string), Number(dialog.id) * 10 + place)

describe('trainCauses', () => {
  it(
    'learns which utterance causes what is felt',
    async () => {
      const all = Array.from({ length: 60 }, (_, i) => made(i + 1))
      const data = { train: all.slice(0, 40), valid: all.slice(40, 50), test: all.slice(50), labels, notes: [] }
      const outputDir = mkdtempSync(join(tmpdir(), 'voxtorch-causes-'))
      const args = { progress: false, reportTo: 'none' } as const
      const encoders = [new TinyEncoder('text', 8, facts)]
      const trained = await trainEmotion({
        ...{ data, encoders, outputDir, args, recipe: { epochs: 8, batchSize: 4, headLearningRate: 1e-2 } },
      })
      const options = {
        classifier: trained.model,
        samples: trained.samples,
        outputDir: join(outputDir, 'causes'),
        args,
      }
      const small = {
        ...options,
        config: { hiddenSize: 32 },
        recipe: { epochs: 30, batchSize: 8, learningRate: 5e-3, patience: 30 },
      }
      const { results, scorer, threshold } = await trainCauses(small)
      expect(results.official.test?.weightedF1).toBeGreaterThan(0.9)
      const found = await findCauses(trained.model, { scorer, threshold }, trained.samples.test)
      expect(found[0]?.causes?.map(({ effect, cause }) => [effect, cause])).toEqual(
        data.test[0]?.causes?.map(({ effect, cause }) => [effect, cause]),
      )
      // A whole utterance without the mark at its end.
      expect(found[0]?.causes?.[0]?.span).toEqual([0, 5])
      // An official file could not say these.
      const { text } = await trainCausesOf(trained, { outputDir: join(outputDir, 'all'), encoders })
      expect(text).toMatch(/^causes: weighted F1 of pairs [\d.]+ on validation data, [\d.]+ on test data$/)
      const again = await loadCauses(join(outputDir, 'causes/best'))
      expect(again.threshold).toEqual(threshold)
      expect(await findCauses(trained.model, again, trained.samples.test)).toEqual(found)
      // All that a run ends with is written at once: one that was killed then goes on from there.
      rmSync(join(outputDir, 'causes/official.json'), { force: true })
      expect((await trainCauses(small)).results).toEqual(results)
      const bare = trained.samples.train.map(({ dialog, ...rest }) => {
        const { causes: _, ...open } = dialog
        return { ...rest, dialog: open }
      })
      const strange = trained.samples.test.map(({ dialog, ...rest }) => {
        const causes = dialog.causes?.map((cause) => ({ ...cause, emotion: 'calm' }))
        return { ...rest, dialog: { ...dialog, causes: causes ?? [] } }
      })
      const unknown = trainCauses({ ...options, samples: { ...trained.samples, test: strange } })
      await expect(unknown).rejects.toThrow(/expected one of neutral, joy, wild_rage, got "calm"/)
      const none = trainCauses({ ...options, samples: { ...trained.samples, train: bare } })
      await expect(none).rejects.toThrow(DataError)
    },
    PATIENCE,
  )
})

describe('samples without vectors of all modalities', () => {
  const labels = ['neutral', 'joy', 'wild_rage']
  const samples = emotionSamples([made(1), made(2)], labels)

  it('get them from the encoders that trained with the classifier, and are refused where there is none', async () => {
    manualSeed(2)
    const encoder = new TinyEncoder('text', 6, facts, {}, true)
    const classifier = new EmotionClassifier({ labels, sizes: { text: 6 } }, { encoders: { text: encoder } })
    const complete = await completeVectors('here', classifier, samples)
    const wanted = await noGrad(async () =>
      encoder.encode(await Promise.all([0, 1, 2, 3, 4].map((i) => facts(made(2), i)))),
    )
    expect(complete[1]?.vectors.text?.map((row) => [...(row as Float32Array)])).toEqual(wanted.toArray())
    expect(await completeVectors('here', classifier, complete)).toEqual(complete)
    const scorer = new CauseScorer({ size: 6, emotions: 3, hiddenSize: 8 })
    const both = { scorer, threshold: { probability: 0.5, neutral: 0 } }
    const found = await findCauses(classifier, both, samples)
    expect(found).toEqual(await findCauses(classifier, both, complete))
    const without = new EmotionClassifier({ labels, sizes: { text: 6 } })
    await expect(findCauses(without, both, samples)).rejects.toThrow(/samples: expected vectors of text/)
    const outputDir = mkdtempSync(join(tmpdir(), 'voxtorch-causes-'))
    const parts = { train: samples, valid: samples, test: [] }
    const trained = trainCauses({ classifier: without, samples: parts, outputDir })
    await expect(trained).rejects.toThrow(ConfigError)
  })

  it('learn what tells causes apart, where zeros would not', async () => {
    manualSeed(2)
    // The cause is the utterance that its encoder marks, wherever it is: neither emotion nor distance says so.
    const marked = (dialog: EmotionDialog) => (Number(dialog.id) * 7) % 5
    const own = (dialog: EmotionDialog, place: number) => hot(8, place === marked(dialog) ? 1 : 0, place)
    const all = Array.from({ length: 60 }, (_, i) => {
      const dialog = made(i + 1)
      const utterances = dialog.utterances.map((one) => ({ ...one, emotion: 'joy' }))
      const causes = utterances.map((_, effect) => ({ effect, cause: marked(dialog), emotion: 'joy' }))
      return { ...dialog, utterances, causes }
    })
    const encoder = new TinyEncoder('text', 8, own, {}, true)
    const classifier = new EmotionClassifier({ labels, sizes: { text: 8 } }, { encoders: { text: encoder } }).eval()
    const open = emotionSamples(all, labels)
    const outputDir = mkdtempSync(join(tmpdir(), 'voxtorch-causes-'))
    const { results } = await trainCauses({
      ...{ classifier, outputDir, args: { progress: false, reportTo: 'none' }, config: { hiddenSize: 16 } },
      samples: { train: open.slice(0, 44), valid: open.slice(44), test: [] },
      recipe: { epochs: 8, batchSize: 8, learningRate: 1e-2 },
    })
    expect(results.valid?.f1).toBeGreaterThan(0.95)
  })
})

describe('CauseScorer', () => {
  const sample = (count: number) => ({
    dialog: { ...made(3), utterances: made(3).utterances.slice(0, count) },
    vectors: Array.from({ length: count }, (_, i) => Float32Array.from(hot(6, i, i))),
    emotions: [0, 1, 2, 1, 0].slice(0, count),
    neutral: 0,
    pairs: new Set(['1,0', '2,2']),
  })

  it('asks about each utterance with an emotion and all of its dialog', () => {
    const batch = causeCollate([sample(3), sample(2)])
    expect(batch.candidates.toArray()).toEqual([3, 4, 5, 6, 7, 8, 12, 13])
    expect(batch.labels.toArray()).toEqual([1, 0, 0, 0, 0, 1, 1, 0])
    expect(batch.mask.toArray()).toEqual([
      [true, true, true],
      [true, true, false],
    ])
  })

  it('asks about no utterance of which nobody says what is felt, and takes it for no emotion', () => {
    const unknown = { ...sample(3), emotions: [-1, 1, 0], neutral: 2 }
    expect(causeCollate([unknown]).candidates.toArray()).toEqual([3, 4, 5, 6, 7, 8])
    manualSeed(3)
    const scorer = new CauseScorer({ size: 6, emotions: 3, hiddenSize: 16 }).eval()
    const scores = () => {
      const { labels: _, candidates: __, ...inputs } = causeCollate([unknown])
      return noGrad(() => scorer.forward(inputs))
    }
    const before = scores()
    // What the class of number 0 looks like shows in the third utterance, and not in the first by itself.
    noGrad(() => scorer.emotion.weight.narrow(0, 1, 2).zero_())
    const rest = scores()
    noGrad(() => scorer.emotion.weight.zero_())
    expect(difference(before, rest)).toBeGreaterThan(1e-4)
    const alone = { ...sample(1), emotions: [-1] }
    const one = () => {
      const { labels: _, candidates: __, ...inputs } = causeCollate([alone])
      return noGrad(() => scorer.forward(inputs))
    }
    const none = one()
    noGrad(() => scorer.emotion.weight.fill_(3))
    expect(difference(one(), none)).toBe(0)
  })

  it('takes what is felt from the causes where the utterance does not say it', () => {
    const dialog = made(4)
    const effect = dialog.causes?.[0]?.effect as number
    const utterances = dialog.utterances.map(({ emotion, ...rest }, i) => (i === effect ? rest : { ...rest, emotion }))
    const [open] = emotionSamples([{ ...dialog, utterances }], labels)
    expect(open?.labels[effect]).toBe(-100)
    const classifier = new EmotionClassifier({ labels, sizes: { text: 8 } })
    const vectors = { text: utterances.map(() => new Float32Array(8)) }
    const made_ = causeSampleOf({ ...(open as NonNullable<typeof open>), vectors }, classifier)
    expect(made_?.emotions[effect]).toBe(labels.indexOf(dialog.causes?.[0]?.emotion as string))
    const bare = causeSampleOf(
      { ...(open as NonNullable<typeof open>), vectors, dialog: { ...dialog, utterances, causes: [] } },
      classifier,
    )
    expect(bare?.emotions[effect]).toBe(-1)
  })

  it('does not see padding, and knows before from behind', () => {
    manualSeed(3)
    const scorer = new CauseScorer({ size: 6, emotions: 3, hiddenSize: 16 }).eval()
    noGrad(() => scorer.context.distance.copy_(randn(scorer.context.distance.shape)))
    const of = (...samples: ReturnType<typeof sample>[]) => {
      const { labels: _, candidates: __, ...inputs } = causeCollate(samples)
      return noGrad(() => scorer.forward(inputs))
    }
    const both = of(sample(2), sample(5))
    expect(difference(both.select(0, 0).narrow(0, 0, 2).narrow(1, 0, 2), of(sample(2)).select(0, 0))).toBeLessThan(1e-5)
    expect(difference(both.select(0, 1), of(sample(5)).select(0, 0))).toBeLessThan(1e-5)
    const rows = both.select(0, 1)
    expect(difference(rows, rows.transpose(0, 1))).toBeGreaterThan(0.01)
  })
})

it('the best F1 over all thresholds', () => {
  // After 1, 2, 3, 4 of the highest scores: 2/3, 2/4, 4/5, 4/6.
  expect(bestF1([0.9, 0.8, 0.3, -1], [1, 0, 1, 0])).toBeCloseTo(0.8, 12)
  expect(bestF1([1, 2], [0, 0])).toBe(0)
})

it('what is taken from neutral finds more emotions', () => {
  const scored = {
    dialog: made(1),
    logits: [
      [2, 1, 0],
      [0, 0, 3],
      [5, 0, 0],
      [5, 0, 0],
      [5, 0, 0],
    ],
    causes: Array.from({ length: 5 }, () => [0.6, 0.1, 0.1, 0.1, 0.1]),
  }
  const pairs = (neutral: number, probability = 0.5) =>
    withFoundCauses(scored, labels, { neutral, probability }).causes?.map(
      ({ effect, cause, emotion }) => `${effect} ${cause} ${emotion}`,
    )
  expect(pairs(0)).toEqual(['1 0 wild_rage'])
  expect(pairs(1.5)).toEqual(['0 0 joy', '1 0 wild_rage'])
  expect(pairs(0, 0.7)).toEqual([])
})
