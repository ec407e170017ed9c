import { mkdtempSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { arange, LanguageBind, manualSeed, noGrad, type Tensor, tensor, WavLM, writeWav } from '../../../lib/index.js'
import type { EmotionDialog } from '../../../lib/kit/emotion/dialog.js'
import { emotionAnswers } from '../../../lib/systems/emotion/evaluation/evaluate.js'
import {
  type EmotionEncoder,
  EmotionTextEncoder,
  EmotionVoiceEncoder,
  findPairs,
  findSpans,
  LanguageBindEmotionEncoder,
  trainCauses,
  trainEmotion,
  trainPairs,
  trainSpans,
} from '../../../lib/systems/emotion/index.js'
import { PATIENCE } from '../../patience.js'
import { dialogs, tinyBert } from '../../systems/emotion/tiny.js'

// Training with encoders on the device. Networks are made where tensors are by default, which is the CPU in these tests, as it
// is for who calls `voxtorch emotion train --device cuda`.

const shape = { numHiddenLayers: 1, hiddenSize: 8, intermediateSize: 12, numAttentionHeads: 2, hiddenAct: 'gelu' }
const END = 19
const tokenizer = {
  endTokenId: END,
  tokenizer: { saveTo: () => {} },
  encode: (text: string) => {
    const ids = [18, ...text.split(' ').map((word) => (word.charCodeAt(0) + 5 * word.length) % 17), END].slice(0, 6)
    const row = [...ids, ...new Array(6 - ids.length).fill(END)]
    return { inputIds: tensor([row], { dtype: 'int64', device: 'cpu' }) }
  },
}

function encoder(device: 'cpu' | 'cuda'): LanguageBindEmotionEncoder {
  manualSeed(4)
  const bind = LanguageBind.fromConfig(
    {
      video: {
        textConfig: { ...shape, vocabSize: 20, maxPositionEmbeddings: 6 },
        visionConfig: { ...shape, imageSize: 8, patchSize: 4, addTimeAttn: true, numFrames: 2 },
        projectionDim: 6,
      },
    },
    { device: 'cpu' },
  ).to({ device })
  bind.tokenizer = tokenizer as never
  return new LanguageBindEmotionEncoder(bind, 'text')
}

const emotions = ['joy', 'anger', 'neutral']
const withCauses = (all: EmotionDialog[]) =>
  all.map((dialog) => ({
    ...dialog,
    causes: [{ effect: 1, cause: 0, emotion: dialog.utterances[1]?.emotion as string }],
  }))
const data = () => {
  const all = withCauses(dialogs(12, emotions))
  return { train: all.slice(0, 8), valid: all.slice(8, 10), test: all.slice(10), labels: emotions, notes: [] }
}
const given = (device: 'cpu' | 'cuda', tune: 'head' | 'full') => ({
  ...{ data: data(), encoders: [encoder(device) as unknown as EmotionEncoder], tune },
  outputDir: mkdtempSync(join(tmpdir(), 'voxtorch-emotion-device-')),
  args: { progress: false, reportTo: 'none' as const },
})
const devicesOf = (model: { parameters(): readonly Tensor[] }) => [
  ...new Set(model.parameters().map((one) => one.device)),
]
/** The largest difference of numbers side by side. */
const apart = (a: number[], b: number[]) => Math.max(...a.map((value, i) => Math.abs(value - (b[i] as number))))

describe('training with a encoder on the device, where networks are made on the CPU', () => {
  it.each(['head', 'full'] as const)(
    'has all of a classifier there, and learns what it learns without one: %s',
    async (tune) => {
      const run = async (device: 'cpu' | 'cuda') => {
        const { model, samples } = await trainEmotion({
          ...given(device, tune),
          config: { hiddenSize: 8, context: { layers: 1, heads: 2 }, dropout: 0 },
          recipe: { epochs: 2, batchSize: 4, patience: 0 },
        })
        const answers = await emotionAnswers(model, samples.test)
        return { devices: devicesOf(model), logits: answers.flatMap(({ logits }) => logits.flat()) }
      }
      const [there, here] = [await run('cuda'), await run('cpu')]
      expect(there.devices).toEqual(['cuda:0'])
      expect(here.devices).toEqual(['cpu'])
      expect(here.logits.every(Number.isFinite)).toBe(true)
      // Adam makes a whole step of a gradient that is nothing but rounding.
      expect(apart(there.logits, here.logits)).toBeLessThan(1e-2)
    },
    PATIENCE,
  )

  it(
    'has all of a classifier of pairs there, and finds pairs with it',
    async () => {
      const run = async (device: 'cpu' | 'cuda') => {
        const recipe = { epochs: 2, batchSize: 4, accumulation: 1, bf16: false, patience: 0, headLearningRate: 1e-3 }
        const { model, samples, results } = await trainPairs({ ...given(device, 'full'), recipe })
        const found = await findPairs(model, samples.test)
        return { devices: devicesOf(model), loss: results.test?.loss as number, dialogs: found.length }
      }
      const [there, here] = [await run('cuda'), await run('cpu')]
      expect([there.devices, there.dialogs]).toEqual([['cuda:0'], 2])
      expect(Math.abs(there.loss - here.loss)).toBeLessThan(1e-2)
    },
    PATIENCE,
  )

  it(
    'has the scorer of causes beside the classifier, and learns what it learns without one',
    async () => {
      const run = async (device: 'cpu' | 'cuda') => {
        const { data: parts, args, ...rest } = given(device, 'head')
        const recipe = { epochs: 1, batchSize: 4, patience: 0 }
        const { model, samples } = await trainEmotion({ ...rest, data: parts, args, recipe })
        const outputDir = join(rest.outputDir, 'causes')
        const { scorer, results } = await trainCauses({
          ...{ classifier: model, samples, outputDir, args, config: { hiddenSize: 8, dropout: 0 } },
          recipe: { epochs: 2, batchSize: 4 },
        })
        return { devices: devicesOf(scorer), loss: results.valid?.loss as number, test: results.official.test }
      }
      const [there, here] = [await run('cuda'), await run('cpu')]
      expect([there.devices, here.devices]).toEqual([['cuda:0'], ['cpu']])
      expect(Math.abs(there.loss - here.loss)).toBeLessThan(1e-2)
      expect(there.test).not.toBeNull()
    },
    PATIENCE,
  )
})

describe('encoders of words and voices on the device', () => {
  const words = ['words', ...Array.from({ length: 12 }, (_, i) => String(i))]

  it('give the vectors that the CPU gives', async () => {
    const audio = join(mkdtempSync(join(tmpdir(), 'voxtorch-emotion-device-')), 'a.wav')
    await writeWav(audio, arange(4000, { device: 'cpu' }).mul(0.3).sin(), { sampleRate: 16000 })
    const all = dialogs(2, emotions).map((dialog) => ({
      ...dialog,
      utterances: dialog.utterances.map((one) => ({ ...one, clip: { audio } })),
    }))
    const bert = await tinyBert(words)
    const shape = { hiddenSize: 8, numHiddenLayers: 2, numAttentionHeads: 2, intermediateSize: 12 }
    const front = {
      convDim: [8],
      convKernel: [10],
      convStride: [5],
      numConvPosEmbeddings: 8,
      numConvPosEmbeddingGroups: 2,
    }
    const voice = (device: 'cpu' | 'cuda') => {
      manualSeed(5)
      return new EmotionVoiceEncoder(
        WavLM.fromConfig({ ...shape, ...front }, { device: 'cpu' })
          .eval()
          .to({ device }),
      )
    }
    const text = (device: 'cpu' | 'cuda') => EmotionTextEncoder.fromPretrained(bert, { device })
    for (const make of [text, voice] as ((device: 'cpu' | 'cuda') => Promise<EmotionEncoder> | EmotionEncoder)[]) {
      const vectors = async (device: 'cpu' | 'cuda') => {
        const own = await make(device)
        const inputs = await Promise.all([0, 1, 2].map((place) => own.read(all[1] as EmotionDialog, place)))
        const made = await noGrad(() => own.encode(inputs))
        return { device: made.device, numbers: made.to({ device: 'cpu' }).flatten().toArray() as number[] }
      }
      const [there, here] = [await vectors('cuda'), await vectors('cpu')]
      expect(there.device).toBe('cuda:0')
      expect(apart(there.numbers, here.numbers)).toBeLessThan(1e-4)
    }
  })

  it(
    'and words of causes are found from what such a encoder reads',
    async () => {
      const reader = await EmotionTextEncoder.fromPretrained(await tinyBert(words), { device: 'cuda' })
      const all = withCauses(dialogs(8, emotions)).map(({ causes, ...dialog }) => ({
        ...dialog,
        causes: causes.map((cause) => ({ ...cause, span: [0, 2] as [number, number] })),
      }))
      const outputDir = mkdtempSync(join(tmpdir(), 'voxtorch-emotion-device-'))
      const args = { progress: false, reportTo: 'none' as const }
      const parts = { train: all.slice(0, 6), valid: all.slice(6) }
      const spans = await trainSpans({ reader, ...parts, labels: emotions, outputDir, recipe: { epochs: 1 }, args })
      const found = await findSpans(spans, reader, parts.valid, emotions)
      for (const { causes = [] } of found) {
        const [from, to] = causes[0]?.span ?? [0, 0]
        expect(from).toBeLessThan(to)
        expect(to).toBeLessThanOrEqual(3)
      }
    },
    PATIENCE,
  )
})
