import { mkdtempSync, readdirSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { ConfigError, manualSeed, noGrad, type TrainerCallback, withDevice } from '../../../lib/index.js'
import { EMOTIONS, type EmotionDialog } from '../../../lib/kit/emotion/dialog.js'
import { labelDialogs } from '../../../lib/systems/emotion/answer/label.js'
import { emotionCollate } from '../../../lib/systems/emotion/data/collate.js'
import type { EmotionParts } from '../../../lib/systems/emotion/data/open.js'
import { emotionAnswers } from '../../../lib/systems/emotion/evaluation/evaluate.js'
import { EmotionClassifier } from '../../../lib/systems/emotion/network/network.js'
import { encodersDevice } from '../../../lib/systems/emotion/training/samples.js'
import { type TrainEmotionOptions, trainEmotion } from '../../../lib/systems/emotion/training/train.js'
import { PATIENCE } from '../../patience.js'
import { dialogs, hot, TinyEncoder } from './tiny.js'

const folder = () => mkdtempSync(join(tmpdir(), 'voxtorch-emotion-train-'))
const three = EMOTIONS.slice(0, 3)

function data(): EmotionParts {
  const all = dialogs(24, three)
  return { train: all.slice(0, 16), valid: all.slice(16, 20), test: all.slice(20), labels: three, notes: [] }
}
const classOf = (dialog: EmotionDialog, place: number) => three.indexOf(dialog.utterances[place]?.emotion as never)
const facts = (dialog: EmotionDialog, place: number) => hot(8, classOf(dialog, place), Number(dialog.id) * 10 + place)
const options = (more: Partial<TrainEmotionOptions> = {}): TrainEmotionOptions => ({
  data: data(),
  encoders: [new TinyEncoder('text', 8, facts)],
  outputDir: folder(),
  config: { hiddenSize: 16, context: { layers: 1, heads: 2 } },
  recipe: { epochs: 12, batchSize: 4, headLearningRate: 1e-2 },
  args: { progress: false, reportTo: 'none' },
  ...more,
})

describe('trainEmotion', () => {
  it(
    'learns what encoders tell, keeps the best epoch, and saves it',
    async () => {
      const given = options()
      const { results, model, samples } = await trainEmotion(given)
      expect(results.test?.macroF1).toBe(1)
      expect(results.samples).toEqual({ train: 16, valid: 4, test: 4 })
      expect(readdirSync(join(given.outputDir, 'best')).sort()).toEqual(['config.json', 'model.safetensors'])
      const again = await EmotionClassifier.fromPretrained(join(given.outputDir, 'best'))
      expect(again.config).toEqual(model.config)
      const [a, b] = [await emotionAnswers(model, samples.test), await emotionAnswers(again, samples.test)]
      expect(a.map(({ logits }) => logits)).toEqual(b.map(({ logits }) => logits))
      // The same call on the same folder finds what was done.
      const encoder = new TinyEncoder('text', 8, facts)
      const found = await trainEmotion({ ...given, encoders: [encoder] })
      expect(found.results).toEqual(results)
      expect(encoder.encoded).toBe(0)
    },
    PATIENCE,
  )

  it(
    'goes on after a kill, to the same bits',
    async () => {
      const config = { hiddenSize: 16, context: { layers: 1, heads: 2 }, dropout: 0.3, fusion: 'gated' as const }
      const recipe = { epochs: 4, batchSize: 4, accumulation: 2, patience: 0, headLearningRate: 1e-2 }
      const given = (outputDir: string, more: Partial<TrainEmotionOptions> = {}) => {
        manualSeed(5)
        const encoders = [new TinyEncoder('text', 8, facts), new TinyEncoder('audio', 8, facts, {}, true)]
        return options({
          config: { ...config, modalityDropout: 0.3 },
          encoders,
          recipe,
          tune: 'full',
          outputDir,
          ...more,
        })
      }
      const whole = await trainEmotion(given(folder()))
      expect(whole.results.globalStep).toBe(8)
      const outputDir = folder()
      const kill: TrainerCallback = {
        onStepEnd({ state }) {
          if (state.globalStep === 5) throw new Error('killed')
        },
      }
      await expect(trainEmotion(given(outputDir, { callbacks: [kill] }))).rejects.toThrow('killed')
      const again = await trainEmotion(given(outputDir))
      expect(again.results).toEqual(whole.results)
      const [a, b] = [whole.model.stateDict(), again.model.stateDict()]
      expect(Object.keys(a)).toContain('encoders.audio.table.weight')
      for (const [name, tensor] of Object.entries(a)) expect(b[name]?.equal(tensor), name).toBe(true)
    },
    PATIENCE,
  )

  it(
    'gives a classifier that is evaluated twice to the same bits, whatever is drawn in between',
    async () => {
      manualSeed(5)
      const encoders = (['text', 'audio'] as const).map((name) => new TinyEncoder(name, 8, facts, {}, true))
      const config = { hiddenSize: 16, context: { layers: 1, heads: 2 }, dropout: 0.3, modalityDropout: 0.3 }
      const { model, samples } = await trainEmotion(
        options({ encoders, tune: 'full', config: { ...config, fusion: 'cross-attention' }, recipe: { epochs: 2 } }),
      )
      // Training mode, in which the same is asked twice and answered twice otherwise.
      model.train()
      const {
        labels: _,
        known: __,
        ...batch
      } = await emotionCollate(model.config.sizes, model.ownEncoders)(samples.test)
      const drawn = async () => (await noGrad(() => model.forward(batch))).logits
      expect((await drawn()).equal(await drawn())).toBe(false)
      const dialogs = samples.test.map(({ dialog }) => dialog)
      const evaluated = async () => ({
        answers: await emotionAnswers(model, samples.test, { states: true }),
        labeled: await labelDialogs(model, dialogs),
      })
      const first = await evaluated()
      manualSeed(99)
      await drawn()
      expect(await evaluated()).toEqual(first)
      expect(model.training).toBe(true)
      expect(first.answers.flatMap(({ logits }) => logits).flat().length).toBeGreaterThan(40)
    },
    PATIENCE,
  )

  it('gives what it gave, temperature and adapters too, when the run had ended before', async () => {
    const given = (outputDir: string) => {
      manualSeed(5)
      const encoders = [new TinyEncoder('text', 8, facts, {}, true)]
      const tune = { r: 2, loraAlpha: 4, targetModules: ['table'] }
      return options({ encoders, tune, outputDir, recipe: { epochs: 2, batchSize: 4 } })
    }
    const outputDir = folder()
    const [first, again] = [await trainEmotion(given(outputDir)), await trainEmotion(given(outputDir))]
    expect(again.model.config).toEqual(first.model.config)
    expect(again.model.config.temperature).not.toBe(1)
    const [a, b] = [first.model.stateDict(), again.model.stateDict()]
    expect(Object.keys(b)).toEqual(Object.keys(a))
    for (const [name, tensor] of Object.entries(a)) expect(b[name]?.equal(tensor), name).toBe(true)
  })

  it('puts the rest of the network beside encoders that train, and wants these on one device', async () => {
    const on = (modality: 'text' | 'audio', device: 'cpu' | 'meta') =>
      withDevice(device, () => new TinyEncoder(modality, 8, facts, {}, true))
    const [text, audio] = [on('text', 'meta'), on('audio', 'cpu')]
    expect(encodersDevice('here', { text }, [audio])).toBe('meta')
    expect(encodersDevice('here', {}, [audio, text])).toBe('meta')
    expect(encodersDevice('here', {}, [new TinyEncoder('text', 8, facts)])).toBe(undefined)
    // Where the caller wants it, who without networks among the encoders is all that says so.
    expect(encodersDevice('here', {}, [new TinyEncoder('text', 8, facts)], 'meta')).toBe('meta')
    expect(encodersDevice('here', {}, [text], 'cpu')).toBe('cpu')
    expect(() => encodersDevice('here', { text }, [], 'cpu')).toThrow(
      /device: expected meta, where the encoders that train are, got cpu/,
    )
    await expect(trainEmotion(options({ encoders: [text, audio], tune: 'full' }))).rejects.toThrow(
      /expected encoders that train on one device, got (meta and cpu|cpu and meta)/,
    )
  })

  it('refuses what it does not know', async () => {
    await expect(trainEmotion(options({ encoders: [] }))).rejects.toThrow(ConfigError)
    await expect(trainEmotion(options({ tune: 'full' }))).rejects.toThrow(/tune: expected an encoder with a network/)
    await expect(trainEmotion(options({ recipe: { rate: 1 } as never }))).rejects.toThrow(ConfigError)
    const twice = [new TinyEncoder('text', 8, facts), new TinyEncoder('text', 8, facts)]
    await expect(trainEmotion(options({ encoders: twice }))).rejects.toThrow(
      /expected at most one encoder per modality, got two of text/,
    )
  })
})
