import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import * as vt from '../../../../lib/index.js'
import type { SpectraConfig } from '../../../../lib/systems/spectra/index.js'
import * as sp from '../../../../lib/systems/spectra/index.js'
import { SpectraForPreTraining, SpectraForSequenceClassification } from '../../../../lib/systems/spectra/index.js'
import { settledTensors } from '../../../helpers.js'
import { smallSpectra } from '../network.js'
import { tinyTokenizer } from '../tiny.js'

const folder = mkdtempSync(join(tmpdir(), 'voxtorch-classify-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))
vt.setNumThreads(1)

let tokenizer: vt.Tokenizer
beforeAll(async () => {
  tokenizer = await tinyTokenizer(join(folder, 'tokenizer'))
})

const noise = (samples: number, seed: number) => {
  const random = new vt.Random(seed)
  return Float32Array.from({ length: samples }, () => random.float() - 0.5)
}
const task = sp.spectraTask({ name: 'mood', kind: 'classification', labels: ['calm', 'glad', 'sad'] })
function classifierOf(more: Partial<sp.SpectraClassifierOptions> = {}, config: Partial<SpectraConfig> = {}) {
  vt.manualSeed(3)
  const size = smallSpectra(10, { numLabels: 3, ...config })
  return new sp.SpectraClassifier(SpectraForSequenceClassification.fromConfig(size), {
    tokenizer,
    task,
    ...more,
  })
}
/** Of different length in every respect. */
const turns = (): sp.SpectraTurn[] => [
  { text: 'ab a', audio: noise(9000, 1) },
  { text: ['c', 'b', 'a', 'ab'], audio: noise(3333, 2) },
  { text: 'a', audio: null },
  { text: 'b b b b b b', audio: { samples: noise(8000, 3), sampleRate: 8000 } },
]
const numbers = (answer: sp.SpectraAnswer) =>
  answer.kind === 'regression' ? [answer.value] : answer.probabilities.map(({ probability }) => probability)
function expectClose(found: ArrayLike<number>, wanted: ArrayLike<number>): void {
  expect(found.length).toBe(wanted.length)
  for (let i = 0; i < found.length; i++) expect(Math.abs(found[i]! - wanted[i]!)).toBeLessThan(1e-5)
}

describe('SpectraClassifier.classify', () => {
  it('gives probabilities by name, the same for a turn alone and among others', async () => {
    using classifier = classifierOf()
    const all = await classifier.classify(turns(), { batchSize: 3 })
    for (const [i, turn] of turns().entries()) {
      const [alone] = await classifier.classify([turn])
      expectClose(numbers(all[i]!), numbers(alone!))
    }
    const distinct = new Set(all.map((answer) => numbers(answer)[0]!.toFixed(6)))
    expect(distinct.size).toBe(4)
    for (const answer of all) {
      if (answer.kind !== 'classification') throw new Error('a class was asked for')
      expect(answer.probabilities.map(({ label }) => label)).toEqual(['calm', 'glad', 'sad'])
      expect(numbers(answer).reduce((sum, value) => sum + value)).toBeCloseTo(1, 5)
      expect(answer.probability).toBe(Math.max(...numbers(answer)))
      expect(answer.probabilities.find(({ label }) => label === answer.label)?.probability).toBe(answer.probability)
    }
    expect(all[0]).toMatchObject({ windows: [{ start: 0, end: 9000 / 16000 }], cut: [] })
  })

  it('is the softmax of what the network says of the same batch', async () => {
    using classifier = classifierOf()
    const [answer] = await classifier.classify([{ text: 'ab a', audio: noise(9000, 1) }])
    const expected = await vt.noGrad(() =>
      vt.scope(async () => {
        const { logits } = await classifier.model.eval().forward({
          inputIds: vt.tensor([[0, 7, 4, 2]], { dtype: 'int64' }),
          attentionMask: vt.ones([1, 4], { dtype: 'bool' }),
          inputValues: vt.tensor(noise(9000, 1)).unsqueeze(0),
          audioLengths: vt.tensor([9000], { dtype: 'int64' }),
        })
        return logits.softmax(-1).toArray() as number[][]
      }),
    )
    expectClose(numbers(answer!), expected[0]!)
  })

  it('takes files, parts of files, tensors and other rates for the same sound', async () => {
    using classifier = classifierOf()
    const path = join(folder, 'clip.wav')
    const wave = noise(12000, 4)
    await vt.scope(() => vt.writeWav(path, vt.tensor(wave), { sampleRate: 16000, format: 'float32' }))
    await vt.scope(async () => {
      const text = 'ab'
      const [bare, tensor, read, file, part, half] = await classifier.classify([
        { text, audio: wave },
        { text, audio: vt.tensor(wave) },
        { text, audio: await vt.readAudio(path) },
        { text, audio: path },
        { text, audio: { path, start: 0.25, end: 0.5 } },
        { text, audio: wave.slice(4000, 8000) },
      ])
      for (const other of [tensor, read, file]) {
        numbers(other!).forEach((value, i) => void expect(value).toBeCloseTo(numbers(bare!)[i]!, 3))
      }
      numbers(part!).forEach((value, i) => void expect(value).toBeCloseTo(numbers(half!)[i]!, 3))
      expect(Math.abs(numbers(part!)[0]! - numbers(bare!)[0]!)).toBeGreaterThan(1e-4)
    })
  })

  it('reads history and its audio, together with turns that have none', async () => {
    using classifier = classifierOf({ history: true, historyAudio: true })
    const spoken: sp.SpectraTurn[] = [
      { text: 'ab a', audio: noise(5000, 1), history: ['b', 'c c'], historyAudio: noise(4000, 5) },
      { text: 'ab a', audio: noise(5000, 1), history: ['b', 'c c'] },
      { text: 'ab a', audio: noise(5000, 1), history: ['b'], historyAudio: noise(4000, 5) },
      { text: 'ab a', audio: noise(5000, 1) },
    ]
    const all = await classifier.classify(spoken, { batchSize: 4 })
    expect(new Set(all.map((answer) => numbers(answer)[0]!.toFixed(5))).size).toBe(4)
    for (const [i, turn] of spoken.entries()) {
      const [alone] = await classifier.classify([turn])
      expectClose(numbers(all[i]!), numbers(alone!))
    }
    using without = classifierOf()
    await expect(without.classify([spoken[1]!])).rejects.toThrow(/trained without history/)
    await expect(without.classify([{ text: 'a', historyAudio: noise(4000, 5) }])).rejects.toThrow(/trained without it/)
  })

  it('hears long audio in windows, cuts it, or refuses it', async () => {
    using classifier = classifierOf({}, { maxAudioLength: 8000 })
    const long = noise(18_000, 6)
    const turn = { text: 'ab', audio: long }
    const [whole] = await classifier.classify([turn])
    // 8000 samples at 0, 3333, 6667 and 10000.
    expect(whole!.windows.map(({ start }) => Math.round(start * 16000))).toEqual([0, 3333, 6667, 10_000])
    const parts = await classifier.classify(
      whole!.windows.map(({ start, end }) => {
        return { text: 'ab', audio: long.slice(Math.round(start * 16000), Math.round(end * 16000)) }
      }),
    )
    const mean = [0, 1, 2].map((c) => parts.reduce((sum, part) => sum + numbers(part)[c]! / 4, 0))
    expectClose(numbers(whole!), mean)
    expect(whole!.cut).toEqual([])
    const [cut] = await classifier.classify([turn], { longAudio: 'cut' })
    expectClose(numbers(cut!), numbers(parts[0]!))
    expect(cut).toMatchObject({ cut: ['audio'], windows: [{ start: 0, end: 0.5 }] })
    await expect(classifier.classify([turn], { longAudio: 'error' })).rejects.toThrow(
      /turn 0: its audio has 1.13 s, more than 0.50 s/,
    )
    await expect(classifier.classify([turn], { longAudio: 'cuts' as never })).rejects.toThrow(vt.ConfigError)
    const [wordy] = await classifier.classify([{ text: 'a '.repeat(40), audio: noise(4000, 1) }], {})
    expect(wordy!.cut).toEqual([])
    using short = classifierOf({ maxTextLength: 10 })
    expect((await short.classify([{ text: 'a '.repeat(40), audio: null }]))[0]!.cut).toEqual(['text'])
  })

  it('gives quantities for a regression', async () => {
    const mosi = sp.publishedSpectraTask('mosi')
    using classifier = classifierOf({ task: mosi }, { numLabels: 1 })
    const all = await classifier.classify(turns())
    expect(all.map(({ kind }) => kind)).toEqual(Array(4).fill('regression'))
    expect(new Set(all.map((answer) => numbers(answer)[0])).size).toBe(4)
    expect(classifier.labels).toEqual([])
  })

  it('shows what is attended to, without padding', async () => {
    using classifier = classifierOf({ history: true, historyAudio: true })
    await vt.scope(async () => {
      const asked: sp.SpectraTurn[] = [
        { text: 'ab a', audio: noise(3200, 1) },
        { text: 'c c c c c', audio: noise(9600, 2), history: ['a'], historyAudio: noise(3200, 3) },
      ]
      const answers = await classifier.classify(asked, { attentions: true })
      const [one, two] = answers.map(({ attentions }) => attentions![0]!)
      expect(one!.tokens).toEqual(['<s>', 'ab', 'a', '</s>'])
      expect(two!.tokens).toEqual(['<s>', 'a', '</s>', 'c', 'c', 'c', 'c', 'c', '</s>'])
      for (const { layers, tokens, frames } of [one!, two!]) {
        expect(layers.map(({ shape }) => shape)).toEqual([[2, tokens.length + frames, tokens.length + frames]])
        // Each row is a distribution over what is no padding.
        expectClose(layers[0]!.sum([2]).reshape([-1]).toArray() as number[], Array(2 * layers[0]!.size(1)).fill(1))
      }
      const alone = (await classifier.classify([asked[0]!], { attentions: true }))[0]!.attentions![0]!
      expectClose(
        one!.layers[0]!.reshape([-1]).toArray() as number[],
        alone.layers[0]!.reshape([-1]).toArray() as number[],
      )
      expect((await classifier.classify(asked))[0]).not.toHaveProperty('attentions')
    })
  })

  it('leaves no tensors, and the network in the mode it had', async () => {
    using classifier = classifierOf({}, {})
    classifier.model.train()
    await classifier.classify(turns())
    const before = await settledTensors()
    await vt.scope(() => classifier.classify(turns(), { attentions: true }).then(() => undefined))
    await classifier.classify(turns())
    expect(vt.memoryStats().liveTensors).toBeLessThanOrEqual(before)
    expect(classifier.model.training).toBe(true)
  })

  it('says what is wrong with a turn', async () => {
    using classifier = classifierOf()
    const ask = (audio: unknown) =>
      classifier.classify([
        { text: 'a', audio: null },
        { text: 'a', audio: audio as never },
      ])
    await expect(ask(new Float32Array(0))).rejects.toThrow(
      /turn 1: its audio: expected at least one sample, got none. Use null/,
    )
    await expect(ask(Float32Array.of(0, Number.NaN))).rejects.toThrow(
      /turn 1: its audio contains NaN or infinities, the first at sample 1/,
    )
    await expect(ask(join(folder, 'none.wav'))).rejects.toBeInstanceOf(vt.DataError)
    await expect(ask(7)).rejects.toThrow(/to be a path, the bytes of a file, samples/)
    await vt.scope(() => expect(ask(vt.zeros([2, 100]))).rejects.toThrow(/expected \[samples\], one channel/))
    await expect(classifier.classify('a' as never)).rejects.toThrow(vt.ConfigError)
    expect(() => classifierOf({}, { numLabels: 4 })).toThrow(/task.numLabels/)
    expect(await classifier.classify([])).toEqual([])
  })
})

describe('embedTurns and SpectraClassifier.embed', () => {
  it('gives the state on which the heads stand, alone and among others', async () => {
    using classifier = classifierOf()
    const states = await classifier.embed(turns(), { batchSize: 2 })
    expect(states.map(({ length }) => length)).toEqual([32, 32, 32, 32])
    for (const [i, turn] of turns().entries()) expectClose(states[i]!, (await classifier.embed([turn]))[0]!)
    // The head, computed by hand from the state, gives the answer.
    const [answer] = await classifier.classify([turns()[0]!])
    const scores = vt.scope(() => {
      const state = Object.fromEntries(classifier.model.namedParameters())
      const { linear } = vt.functional
      const hidden = linear(vt.tensor(states[0]!).unsqueeze(0), state['head.0.weight']!, state['head.0.bias']!).gelu()
      return linear(hidden, state['head.2.weight']!, state['head.2.bias']!)
        .softmax(-1)
        .reshape([-1])
        .toArray() as number[]
    })
    expectClose(numbers(answer!), scores)
  })

  it('works with a network that was only pre-trained, of turns with and without history', async () => {
    vt.manualSeed(5)
    const config = smallSpectra(10)
    using spectra = vt.Spectra.fromConfig(config)
    using pretrained = SpectraForPreTraining.fromConfig(config)
    const mixed = [...turns(), { text: 'a', audio: noise(5000, 9), history: ['b'], historyAudio: noise(2000, 8) }]
    for (const model of [spectra, pretrained]) {
      const all = await sp.embedTurns(model, mixed, { tokenizer })
      for (const [i, turn] of mixed.entries()) {
        expectClose(all[i]!, (await sp.embedTurns(model, [turn], { tokenizer }))[0]!)
      }
    }
    await expect(sp.embedTurns({} as never, [], { tokenizer })).rejects.toThrow(/a Spectra/)
  })
})

describe('rankResponses', () => {
  it('orders answers by the probability of class 0 of 4, the same alone and among others', async () => {
    vt.manualSeed(6)
    using model = SpectraForPreTraining.fromConfig(smallSpectra(10))
    const responses = [
      { text: 'a', audio: noise(4000, 1) },
      { text: 'b b', audio: noise(6000, 2) },
      { text: 'c', audio: noise(5000, 3) },
    ]
    const input = { history: ['ab', 'a c'], historyAudio: noise(5000, 4) }
    const ranked = await sp.rankResponses(model, { ...input, responses }, { tokenizer })
    expect([...ranked].map(({ index }) => index).sort()).toEqual([0, 1, 2])
    for (const [i, { index, probability, probabilities }] of ranked.entries()) {
      if (i > 0) expect(probability).toBeLessThanOrEqual(ranked[i - 1]!.probability)
      expect(Object.values(probabilities).reduce((sum, value) => sum + value)).toBeCloseTo(1, 5)
      const [alone] = await sp.rankResponses(model, { ...input, responses: [responses[index]!] }, { tokenizer })
      expect(alone!.probability).toBeCloseTo(probability, 5)
    }
    // By hand: history, then the turn before, type 0; the answer, type 1.
    const expected = await vt.noGrad(() =>
      vt.scope(async () => {
        const ids = [0, 7, 2, 4, 6, 2, 4, 2]
        const clips = vt.zeros([2, 5000])
        clips.select(0, 0).copy_(vt.tensor(input.historyAudio))
        clips.select(0, 1).narrow(0, 0, 4000).copy_(vt.tensor(responses[0]!.audio))
        const { crsLogits } = await model.eval().predict({
          inputIds: vt.tensor([ids], { dtype: 'int64' }),
          attentionMask: vt.ones([1, 8], { dtype: 'bool' }),
          tokenTypeIds: vt.tensor([[0, 0, 0, 0, 0, 0, 1, 1]], { dtype: 'int64' }),
          inputValues: clips,
          audioLengths: vt.tensor([5000, 4000], { dtype: 'int64' }),
          audiosPerText: 2,
        })
        return crsLogits.softmax(-1).toArray() as number[][]
      }),
    )
    expect(ranked.find(({ index }) => index === 0)!.probability).toBeCloseTo(expected[0]![0]!, 5)
    await expect(sp.rankResponses(model, { history: [], responses }, { tokenizer })).rejects.toThrow(/a list of turns/)
  })
})

describe('what finetuneSpectra leaves', () => {
  it('answers from its folder as the network did that was trained', async () => {
    const lines = Array.from({ length: 12 }, (_, i) =>
      JSON.stringify({ text: i % 2 ? 'a b' : 'c', label: i % 2 ? 'yes' : 'no' }),
    )
    writeFileSync(join(folder, 'turns.jsonl'), `${lines.join('\n')}\n`)
    await vt.scope(async () => {
      const data = await sp.openSpectraData(join(folder, 'turns.jsonl'), {
        task: sp.spectraTask({ name: 'yes', kind: 'classification' }),
        tokenizer,
        validShare: 0.25,
        lowercase: false,
      })
      vt.manualSeed(1)
      const model = SpectraForSequenceClassification.fromConfig(smallSpectra(10, { numLabels: 2 }))
      const outputDir = join(folder, 'trained')
      await sp.finetuneSpectra({
        ...{ model, data, outputDir, preset: { epochs: 12, learningRate: 0.01, patience: 12, batchSize: 4 } },
        args: { reportTo: 'none', progress: false },
      })
      using classifier = await sp.SpectraClassifier.fromPretrained(join(outputDir, 'best'))
      expect(classifier.labels).toEqual(['no', 'yes'])
      const answers = await classifier.classify([{ text: 'a b' }, { text: 'c' }])
      expect(answers.map((answer) => answer.kind === 'classification' && answer.label)).toEqual(['yes', 'no'])
      using same = new sp.SpectraClassifier(model, { tokenizer, task: data.task, lowercase: false })
      const again = await same.classify([{ text: 'a b' }, { text: 'c' }])
      for (const [i, answer] of answers.entries()) expectClose(numbers(answer), numbers(again[i]!))
      await expect(classifier.classify([{ text: 'a', history: ['b'] }])).rejects.toThrow(/trained without/)
    })
    await expect(sp.SpectraClassifier.fromPretrained(join(folder, 'tokenizer'))).rejects.toThrow(vt.DataError)
  })
})

describe('heads that no file gave', () => {
  it('answer nobody, before they are trained', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'voxtorch-heads-'))
    const warn = process.emitWarning
    process.emitWarning = () => {}
    try {
      const config = smallSpectra(10)
      await SpectraForSequenceClassification.fromConfig(config).save(join(folder, 'classifier'))
      const pretrained = await SpectraForPreTraining.fromPretrained(join(folder, 'classifier'))
      const audio = new Float32Array(16000).fill(0.1)
      const align = () => sp.alignWords(pretrained, { audio, text: 'a', tokenizer })
      await expect(align()).rejects.toThrow(vt.ConfigError)
      await expect(align()).rejects.toThrow(/got random values in .*start_prediction_head\S*weight/)
      const rank = () => sp.rankResponses(pretrained, { history: ['a'], responses: [{ text: 'b' }] }, { tokenizer })
      await expect(rank()).rejects.toThrow(/got random values in .*selection_head\S*weight/)
      for (const parameter of pretrained.parameters()) vt.noGrad(() => parameter.mul_(1.01))
      expect((await rank()).length).toBe(1)
      expect((await align()).words).toHaveLength(1)

      await pretrained.save(join(folder, 'pretrained'))
      const model = await SpectraForSequenceClassification.fromPretrained(join(folder, 'pretrained'))
      const task = sp.spectraTask({ name: 'mood', kind: 'classification', labels: ['calm', 'glad'] })
      const classifier = new sp.SpectraClassifier(model, { tokenizer, task })
      await expect(classifier.classify([{ text: 'a', audio }])).rejects.toThrow(
        /got random values in .*head\.0\.weight/,
      )
      for (const parameter of model.parameters()) vt.noGrad(() => parameter.mul_(1.01))
      expect(await classifier.classify([{ text: 'a', audio }])).toHaveLength(1)
    } finally {
      process.emitWarning = warn
      rmSync(folder, { recursive: true, force: true })
    }
  })
})
