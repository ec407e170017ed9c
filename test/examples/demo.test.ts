import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import * as vt from 'voxtorch'
import { planClips } from '../../examples/demo/clips.js'
import { SpeechTextClassifier } from '../../examples/demo/model.js'
import { Vocabulary } from '../../examples/demo/vocabulary.js'
import { expectClose } from '../helpers.js'

const home = mkdtempSync(join(tmpdir(), 'voxtorch-demo-'))
afterAll(() => rmSync(home, { recursive: true, force: true }))

describe('the plan', () => {
  const clips = planClips()
  const words = (text: string) => (text.toLowerCase().match(/[a-z']+/g) ?? []).join(' ')

  it('keeps every sentence and every voice of the test out of training', () => {
    const heard = new Set(clips.train.map((clip) => words(clip.text)))
    expect(clips.test.filter((clip) => heard.has(words(clip.text)))).toEqual([])
    const variants = (part: typeof clips.train) => new Set(part.map((clip) => clip.voice.split('+')[1]))
    const [training, testing] = [variants(clips.train), variants(clips.test)]
    expect([...testing].filter((variant) => training.has(variant))).toEqual([])
    expect(training.size).toBeGreaterThanOrEqual(8)
    expect(testing.size).toBe(4)
    expect(clips.train.length + clips.test.length).toBeGreaterThanOrEqual(1800)
  })

  it('says each test sentence once in each tone, so that words tell nothing about it', () => {
    const tones = new Map<string, number[]>()
    for (const { text, tone } of clips.test) tones.set(text, [...(tones.get(text) ?? []), tone].sort())
    expect([...tones.values()].filter((list) => list.join() !== '0,1')).toEqual([])
  })

  it('draws tones in training by lot', () => {
    // 1,800 fair draws: 4 standard deviations are 5 %.
    const share = (list: typeof clips.train) => list.filter((clip) => clip.tone === 1).length / list.length
    for (const kind of [0, 1]) {
      const own = clips.train.filter((clip) => clip.words === kind)
      expect(Math.abs(share(own) - 0.5)).toBeLessThan(0.067)
    }
    // Nothing but the range differs between the tones.
    const mean = (tone: number, what: 'pitch' | 'speed') => {
      const own = clips.train.filter((clip) => clip.tone === tone).map((clip) => clip[what])
      return own.reduce((sum, value) => sum + value, 0) / own.length
    }
    expect(Math.abs(mean(0, 'pitch') - mean(1, 'pitch'))).toBeLessThan(1.7)
    expect(Math.abs(mean(0, 'speed') - mean(1, 'speed'))).toBeLessThan(2.8)
  })

  it('is the same each time, and another for another seed', () => {
    expect(planClips()).toEqual(clips)
    expect(planClips({ seed: 1 })).not.toEqual(clips)
  })
})

describe('the model', () => {
  const [bands, vocabSize] = [16, 50]
  const config = { vocabSize, bands, classes: 4, dim: 16, heads: 2, dropout: 0.1, text: true, speech: true }
  const collate = vt.padCollate({
    text: { pad: 0, dtype: 'int64', elementShape: [Vocabulary.perWord], mask: 'textMask' },
    speech: { pad: 0, elementShape: [bands], mask: 'speechMask' },
  })
  const random = new vt.Random(3)
  const sample = (words: number, frames: number) => ({
    text: Int32Array.from({ length: words * Vocabulary.perWord }, () => random.below(vocabSize)),
    speech: Float32Array.from({ length: frames * bands }, () => random.float() - 0.5),
  })

  it('gives a clip in a padded batch what it gives the clip alone', async () => {
    vt.manualSeed(0)
    using model = new SpeechTextClassifier(config).eval()
    const samples = [sample(3, 37), sample(9, 90), sample(5, 51)]
    const together = await model.forward(collate(samples))
    for (const [i, one] of samples.entries())
      expectClose(await model.forward(collate([one])), together.narrow(0, i, 1), 1e-5, `clip ${i}`)
  })

  it('that has only text takes nothing from the speech, not even its length', async () => {
    using model = new SpeechTextClassifier({ ...config, speech: false }).eval()
    const [short, long] = [sample(4, 20), sample(4, 200)]
    const logits = await model.forward(collate([short]))
    expectClose(await model.forward(collate([{ ...long, text: short.text }])), logits, 0)
    expect(model.namedParameters().filter(([name]) => name.startsWith('speech'))).toEqual([])
  })
})
