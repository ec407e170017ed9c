import { mkdtempSync, readdirSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import {
  ConfigError,
  DataError,
  manualSeed,
  noGrad,
  randn,
  type Tensor,
  type TrainerCallback,
} from '../../../lib/index.js'
import type { EmotionDialog } from '../../../lib/kit/emotion/dialog.js'
import { readOptions } from '../../../lib/kit/options.js'
import {
  pointerText,
  pointerTrainingOfArguments,
  unusedEmotionArguments,
} from '../../../lib/systems/emotion/configuration/apply.js'
import { EMOTION_OPTIONS, EMOTION_ORIGINAL_OPTIONS } from '../../../lib/systems/emotion/configuration/arguments.js'
import { emotionCollate, emotionSamples } from '../../../lib/systems/emotion/data/collate.js'
import type { EmotionParts } from '../../../lib/systems/emotion/data/open.js'
import { PairHead } from '../../../lib/systems/emotion/published/heads.js'
import { EmotionPairClassifier } from '../../../lib/systems/emotion/published/pair-network.js'
import { findPairs, type TrainPairsOptions, trainPairs } from '../../../lib/systems/emotion/published/train-pairs.js'
import { trainPointer } from '../../../lib/systems/emotion/published/train-pointer.js'
import { PATIENCE } from '../../patience.js'
import { hot, TinyEncoder } from './tiny.js'

const folder = () => mkdtempSync(join(tmpdir(), 'voxtorch-emotion-pairs-'))
const labels = ['neutral', 'joy', 'stage_fright']

/** Dialogs of three, in which the first is why the last feels so, whatever that is. */
function dialogs(count: number): EmotionDialog[] {
  return Array.from({ length: count }, (_, d) => {
    const emotion = labels[1 + (d % 2)] as string
    const utterances = ['neutral', 'neutral', emotion].map((felt, u) => ({
      ...{ id: u + 1, text: `words ${u}`, speaker: 'AB'[u % 2] as string, emotion: felt },
    }))
    return {
      id: String(d + 1),
      source: `made, dialog ${d + 1}`,
      utterances,
      causes: [{ effect: 2, cause: 0, emotion }],
    }
  })
}
const facts = (dialog: EmotionDialog, place: number) => {
  const utterance = dialog.utterances[place] as EmotionDialog['utterances'][number]
  const which = utterance.emotion === 'neutral' ? utterance.id : 2 + labels.indexOf(utterance.emotion as string)
  return hot(8, which, Number(dialog.id) * 10 + utterance.id)
}
function data(): EmotionParts {
  const all = dialogs(132)
  return { train: all.slice(0, 120), valid: all.slice(120, 126), test: all.slice(126), labels, notes: [] }
}
const options = (more: Partial<TrainPairsOptions> = {}): TrainPairsOptions => ({
  ...{ data: data(), encoders: [new TinyEncoder('text', 8, facts)], outputDir: folder() },
  recipe: { epochs: 12, batchSize: 8, accumulation: 1, headLearningRate: 0.1, bf16: false },
  args: { progress: false, reportTo: 'none' },
  ...more,
})

describe('EmotionPairClassifier', () => {
  it("puts both utterances' vectors side by side, the film before the text, and 0 where one is missing", async () => {
    manualSeed(1)
    const model = new EmotionPairClassifier({ labels, sizes: { text: 2, video: 3 } })
    const [dialog] = dialogs(1) as [EmotionDialog]
    const pair = { ...dialog, utterances: dialog.utterances.slice(0, 2) }
    const film = [undefined, Float32Array.of(1, 2, 3)]
    const text = [Float32Array.of(4, 5), Float32Array.of(6, 7)]
    const samples = emotionSamples([pair], labels, () => ({ video: film, text }))
    const { labels: _, known: __, ...inputs } = await emotionCollate(model.config.sizes)(samples)
    const rows = await noGrad(() => model.encode(inputs))
    expect(rows.reshape([-1]).toArray()).toEqual([0, 0, 0, 4, 5, 1, 2, 3, 6, 7])
    const { emotion, cause } = await noGrad(() => model.forward(inputs))
    const head = new PairHead({ size: 10, labels: 3 })
    head.loadStateDict(model.head.stateDict())
    const alone = noGrad(() => head.forward(rows.reshape([1, 10])))
    expect([emotion.toArray(), cause.toArray()]).toEqual([alone.emotion.toArray(), alone.cause.toArray()])
    await expect(model.forward({ ...inputs, mask: randn([2]) })).rejects.toThrow(/mask: expected a tensor/)
  })
})

describe('trainPairs', () => {
  it(
    'learns emotion and cause of pairs, and finds them among all of a dialog',
    async () => {
      const given = options()
      const { results, model, samples } = await trainPairs(given)
      // Each dialog has one true pair and one that is not.
      expect(results.pairs).toEqual({ train: 240, valid: 12, test: 12 })
      expect(results.test).toMatchObject({ emotionF1: 1, causeF1: 1 })
      expect(results.official?.weightedF1).toBeGreaterThan(0.99)
      const [first] = await findPairs(model, samples.test)
      expect(first?.causes).toMatchObject([
        { effect: 2, cause: 0, emotion: first?.utterances[2]?.emotion, span: [0, 2] },
      ])
      const best = join(given.outputDir, 'best')
      expect(readdirSync(best).sort()).toEqual(['config.json', 'model.safetensors'])
      const again = await EmotionPairClassifier.fromPretrained(best)
      expect(await findPairs(again, samples.test)).toEqual(await findPairs(model, samples.test))
      const found = await trainPairs(given)
      expect(found.results).toEqual(results)
      expect(await findPairs(found.model, samples.test)).toEqual(await findPairs(model, samples.test))
    },
    PATIENCE,
  )

  it(
    'goes on after a kill, to the same bits, with a encoder that trains',
    async () => {
      const given = (outputDir: string, callbacks: TrainerCallback[] = []) => {
        manualSeed(5)
        const recipe = { epochs: 3, batchSize: 8, accumulation: 2, bf16: false, patience: 0 }
        return options({
          encoders: [new TinyEncoder('text', 8, facts, {}, true)],
          tune: 'full',
          recipe,
          outputDir,
          callbacks,
        })
      }
      const whole = await trainPairs(given(folder()))
      const outputDir = folder()
      const kill: TrainerCallback = {
        onStepEnd({ state }) {
          if (state.globalStep === 20) throw new Error('killed')
        },
      }
      await expect(trainPairs(given(outputDir, [kill]))).rejects.toThrow('killed')
      const again = await trainPairs(given(outputDir))
      expect(again.results).toEqual(whole.results)
      const [a, b] = [whole.model.stateDict(), again.model.stateDict()]
      expect(Object.keys(a)).toContain('encoders.text.table.weight')
      for (const [name, tensor] of Object.entries(a)) expect(b[name]?.equal(tensor as Tensor), name).toBe(true)
    },
    PATIENCE,
  )

  it('refuses what it cannot learn from', async () => {
    const mute = data()
    for (const part of ['train', 'valid', 'test'] as const)
      mute[part] = mute[part].map(({ causes: _, ...dialog }) => dialog)
    await expect(trainPairs(options({ data: mute }))).rejects.toThrow(DataError)
    await expect(trainPairs(options({ recipe: { classWeights: 'root' } as never }))).rejects.toThrow(/classWeights/)
    const reading = new TinyEncoder('text', 8, facts, { history: 2 }, true)
    await expect(trainPairs(options({ encoders: [reading], tune: 'full' }))).rejects.toThrow(ConfigError)
    await expect(trainPairs(options({ recipe: { keyMetric: 'macroF1' as never } }))).rejects.toThrow(/keyMetric/)
  })
})

describe('trainPointer', () => {
  // The cause is the utterance whose film says so.
  const film = (dialog: EmotionDialog, place: number) =>
    hot(8, dialog.causes?.[0]?.cause === place ? 7 : dialog.causes?.[0]?.effect === place ? 6 : 5, place)
  const given = (more: object = {}) => ({
    ...{
      data: data(),
      encoders: [new TinyEncoder('video', 8, film), new TinyEncoder('text', 8, facts)],
      outputDir: folder(),
    },
    config: { layers: 1, heads: 2, dropout: 0 },
    recipe: { epochs: 6, batchSize: 8, accumulation: 1, bf16: false, headLearningRate: 3e-3, patience: 0 },
    args: { progress: false, reportTo: 'none' as const },
    ...more,
  })

  it('is reached by the command, which says what has no effect beside it', async () => {
    const { options } = readOptions('emotion', EMOTION_OPTIONS, [...'--pointer --learning-rate 0.01 --output x --tune full --fusion gated --key-metric accuracy'.split(' ')], EMOTION_ORIGINAL_OPTIONS) // biome-ignore format: one line
    const made = pointerTrainingOfArguments(options)
    expect(made).toMatchObject({ outputDir: 'x', recipe: { headLearningRate: 0.01, keyMetric: 'accuracy' } })
    expect(
      unusedEmotionArguments(options)
        .map(({ flag }) => flag)
        .sort(),
    ).toEqual(['--fusion', '--tune'])
    const { results } = await trainPointer(given({ ...made, outputDir: folder(), config: { heads: 2 }, recipe: { ...made.recipe, epochs: 1 }, args: { ...given().args, maxSteps: 3 } })) // biome-ignore format: one line
    expect(results.globalStep).toBe(3)
    expect(pointerText(results)).toMatch(/240 pairs for training, 12 for validation, 12 for test; best at step 3/)
  })

  it('wants video and text of one size, and a recipe that it knows', async () => {
    const text = new TinyEncoder('text', 8, facts)
    await expect(trainPointer(given({ encoders: [text] }))).rejects.toThrow(/expected one video and one text encoder/)
    await expect(trainPointer(given({ encoders: [text, new TinyEncoder('video', 6, film)] }))).rejects.toThrow(
      ConfigError,
    )
    await expect(trainPointer(given({ recipe: { keyMetric: 'emotionF1' } }))).rejects.toThrow(/keyMetric/)
    await expect(trainPointer(given({ config: { heads: 3 } }))).rejects.toThrow(/expected a multiple of heads \(3\)/)
  })
})
