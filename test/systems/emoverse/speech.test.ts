import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import {
  ConfigError,
  DataError,
  Salmonn,
  scope,
  type Tensor,
  tensor,
  WhisperEncoder,
  writeWav,
} from '../../../lib/index.js'
import {
  EmoVerse,
  type EmoVerseQuestion,
  emoverseCollate,
  emoverseLoss,
  SpeechBranch,
} from '../../../lib/systems/emoverse/index.js'
import { expectClose, settledTensors } from '../../helpers.js'
import { hearingEmoVerse, ppm, seeingEmoVerse, TINY, TINY_EARS, tinyEmoVerse, voice } from './tiny.js'

const folder = mkdtempSync(join(tmpdir(), 'voxtorch-emoverse-speech-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

const { whisper, qformer } = TINY_EARS

const face = join(folder, 'face.ppm')
writeFileSync(
  face,
  ppm(28, 28, (x, y) => [8 * x, 8 * y, 100]),
)

describe('a speech branch', () => {
  it('hears as SALMONN does with the same weights', async () => {
    const config = { whisper, beats: null, qformer, lora: null, llm: { ...TINY } }
    using salmonn = Salmonn.fromConfig(config, { seed: 4 }).eval() as Salmonn
    const encoder = WhisperEncoder.fromConfig(whisper, { seed: 9 })
    using branch = new SpeechBranch(encoder, qformer, TINY.hiddenSize)
    const state = salmonn.stateDict()
    const part = (prefix: string, to = '') =>
      Object.fromEntries(Object.entries(state).filter(([name]) => name.startsWith(prefix)).map(([name, value]) => [to + name.slice(prefix.length), value]))
    branch.speech_encoder.loadStateDict(part('speech_encoder.'))
    branch.ln_speech.loadStateDict(part('ln_speech.'))
    branch.speech_proj.loadStateDict(part('speech_llama_proj.'))
    branch.qformer.loadStateDict({ ...part('speech_Qformer.', 'Qformer.'), query_tokens: state.speech_query_tokens as Tensor })
    branch.eval()
    // Shorter than a token, and longer than the encoder hears at once.
    const clips = [voice(200, 0.1), voice(330, 1.4), voice(440, 5.3)]
    const before = await settledTensors()
    await scope(async () => {
      const expected = await salmonn.encodeAudio(clips)
      const found = await branch.encode(await branch.read(clips))
      expect(found.map(({ shape }) => shape)).toEqual(expected.map(({ shape }) => shape))
      expect((await branch.read(clips)).map(({ tokens }) => tokens)).toEqual(expected.map((one) => one.size(0)))
      for (const [i, one] of found.entries()) expectClose(one, expected[i] as Tensor, 1e-5)
    })
    // What the frozen encoder gave stays: of windows of two seconds 1, 1 and 4.
    expect((await settledTensors()) - before).toBe(6)
  })

  it('stands beside pictures in the text, at its markers', async () => {
    using model = await hearingEmoVerse()
    const record: EmoVerseQuestion = {
      query: '<image>b<audio>', history: [['<audio>a', 'x']], response: 'c', images: [face], audios: [voice(200, 0.5), voice(300, 1)],
    }
    const { inputIds, labels, audioInputs } = await model.encode(record)
    expect(audioInputs.map(({ tokens }) => tokens)).toEqual([2, 3])
    expect(inputIds.filter((id) => id === -1)).toHaveLength(5)
    expect(inputIds.map((id, i) => id === -1 && labels[i] !== -100).includes(true)).toBe(false)
    const context = model.tokenizer.tokenToId('<IMG_CONTEXT>') as number
    const text = model.tokenizer.decode(inputIds.map((id) => (id === -1 ? (model.tokenizer.tokenToId('#') as number) : id)).filter((id) => id !== context), { skipSpecialTokens: false })
    expect(text).toBe('<|im_start|>user\n<Speech>##</Speech>\na<|im_end|><|im_start|>assistant\nx<|im_end|><|im_start|>user\n<img></img>\nb<Speech>###</Speech>\n<|im_end|><|im_start|>assistant\nc<|im_end|>')
    // A marker that is missing stands in front; a file, its bytes and its samples are the same.
    const file = join(folder, 'voice.wav')
    await writeWav(file, tensor(voice(200, 0.5)).unsqueeze(0), { sampleRate: 16000, format: 'float32' })
    const plain = await model.encode({ query: 'q', audios: [voice(200, 0.5)] }, { answer: false })
    expect((await model.encode({ query: '<audio>q', audios: ['voice.wav'] }, { answer: false, mediaRoot: folder })).audioInputs).toEqual(plain.audioInputs)
    await expect(model.encode({ query: '<audio><audio>', audios: [file] }, { answer: false })).rejects.toThrow(/audios: expected 2 for 2 markers <audio>, got 1/)
    await expect(model.encode({ query: 'q', audios: [join(folder, 'none.wav')] }, { answer: false })).rejects.toThrow(DataError)
    // Left out by the configuration, and refused where there are no ears.
    using deaf = await hearingEmoVerse({ audio: 'ignore' })
    expect(deaf.hearsMedia).toBe(false)
    expect((await deaf.encode({ query: 'a<audio>q', audios: [file] }, { answer: false })).inputIds).toEqual((await model.encode({ query: 'aq' }, { answer: false })).inputIds)
    using none = await seeingEmoVerse()
    await expect(none.encode({ query: 'q', audios: [file] }, { answer: false })).rejects.toThrow(/audios: expected a model with an audio encoder/)
    const { model: network, tokenizer } = await tinyEmoVerse()
    const wide = await SpeechBranch.begin({ whisper, qformer }, 8)
    expect(() => new EmoVerse({ model: network, tokenizer, speech: wide })).toThrow(/speech: expected hiddenSize 32 of the language model, got 8/)
    await expect(SpeechBranch.begin({ whisper, qformer: { ...qformer, encoderWidth: 3 } }, 8)).rejects.toThrow(ConfigError)
    wide.dispose()
    network.dispose()
  })

  it('has gradients behind the encoder, those of differences', async () => {
    using model = await hearingEmoVerse({ dtype: 'float64' })
    const speech = model.speech as SpeechBranch
    const records: EmoVerseQuestion[] = [
      { query: 'a<audio>', response: 'yes', audios: [voice(200, 0.5)], images: [face] },
      { query: '<audio>b<audio>', response: 'no', audios: [voice(300, 0.4), voice(500, 0.8)] },
      { query: 'c', response: 'or' },
    ]
    await scope(async () => {
      const batch = emoverseCollate(await Promise.all(records.map((record) => model.encode(record))))
      const { loss } = await emoverseLoss(model, batch)
      await loss.backward()
      const named = speech.namedParameters()
      expect(named.filter(([name, { grad }]) => name.startsWith('speech_encoder.') && grad !== null)).toEqual([])
      for (const name of ['speech_proj.weight', 'ln_speech.bias', 'qformer.query_tokens']) {
        const parameter = named.find(([own]) => own === name)?.[1] as Tensor
        const grad = (parameter.grad as Tensor).flatten().toArray() as number[]
        const place = grad.indexOf(Math.max(...grad))
        const flat = parameter.detach().flatten()
        const lossAt = async (step: number) => {
          flat.select(0, place).add_(step)
          const { loss: moved } = await emoverseLoss(model, batch)
          flat.select(0, place).sub_(step)
          return moved.item() as number
        }
        // The cross-entropy is float32: a step that its rounding is small to.
        const difference = ((await lossAt(0.02)) - (await lossAt(-0.02))) / 0.04
        expect(Math.abs(difference - (grad[place] as number)), name).toBeLessThan(0.02 * Math.abs(grad[place] as number) + 1e-4)
      }
    })
  }) // biome-ignore format: long lines

  it('changes what is said when only the voice changes, alone and together, and goes on with what it has read', async () => {
    using model = await hearingEmoVerse({ seed: 2 })
    const ask = (pitch: number): EmoVerseQuestion => ({ query: '<audio>what is it, and who says so?', audios: [voice(pitch, 0.6)], images: [face] })
    const questions = [ask(150), ask(900), { query: 'c' }]
    const together = await model.generate(questions, { maxNewTokens: 6 })
    for (const [i, question] of questions.entries()) {
      expect((await model.generate([question], { maxNewTokens: 6 }))[0]).toEqual(together[i])
    }
    const shares = await model.scoreLabels(ask(150), ['a', 'b'])
    const other = await model.scoreLabels(ask(900), ['a', 'b'])
    expect(Math.abs((shares.a as number) - (other.a as number))).toBeGreaterThan(1e-5)
    // Again, from what is kept.
    expect((await model.scoreLabels(ask(150), ['a', 'b'])).a).toBeCloseTo(shares.a as number, 5)
    let text = ''
    for await (const piece of model.stream(ask(150), { maxNewTokens: 6 })) text += piece.text
    expect(text).toBe(together[0]?.text)
  })
}) // biome-ignore format: long lines
