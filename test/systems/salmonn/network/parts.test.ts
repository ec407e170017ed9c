import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import {
  ConfigError,
  logMelSpectrogram,
  noGrad,
  Salmonn,
  scope,
  setNumThreads,
  type Tensor,
  tensor,
} from '../../../../lib/index.js'
import {
  buildSalmonnPrompt,
  type LoadSalmonnOptions,
  SalmonnChat,
  SalmonnFrames,
  salmonnMemory,
  salmonnTemplate,
  trainSalmonnParts,
} from '../../../../lib/systems/salmonn/index.js'
import { expectClose, numbers } from '../../../helpers.js'
import { writeChatParts } from './chat-parts.js'
import { clip, tinySalmonn } from './tiny.js'

const folder = mkdtempSync(join(tmpdir(), 'voxtorch-salmonn-parts-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))
const config = { qformer: { hiddenSize: 16, numAttentionHeads: 2, intermediateSize: 32, numHiddenLayers: 1, window: 8, stride: 8 }, lora: { r: 2 } } // biome-ignore format: one line
let parts: { whisper: string; llm: string }
beforeAll(async () => {
  setNumThreads(1)
  parts = await writeChatParts(folder)
})
const load = (more: object = {}, options: LoadSalmonnOptions = {}): Promise<Salmonn> =>
  Salmonn.fromPretrained(
    { ...parts, beats: null },
    { dtype: 'float32', seed: 3, config: { ...config, ...more }, ...options },
  )

describe('Whisper alone, and a language model of a GGUF file', () => {
  it('has neither BEATs nor its norm, and counts them in no memory', async () => {
    using model = await load()
    expect(model.beats).toBe(null)
    expect(model.ln_audio).toBe(null)
    expect(model.namedParameters().filter(([name]) => /^(beats|ln_audio)/.test(name))).toEqual([])
    expect(model.config.qformer.encoderWidth).toBe(16)
    expect(salmonnMemory({ ...model.config }).beats).toBe(0)
    expect(() => trainSalmonnParts(model, ['beats'])).toThrow(/got beats, which it does not have/)
  })

  it('hears what encoder, norm, Q-Former and projection give one after the other', async () => {
    using model = await load()
    await scope(async () => {
      const sound = clip(4, 1.3)
      const [heard] = (await noGrad(() => model.encodeAudio([sound]))) as [Tensor]
      const { qformer, projection, weight, bias } = pieces(model)
      const steps = Math.ceil(sound.length / 160)
      const length = 160 * Math.ceil((sound.length + 400) / 160)
      const mel = (await logMelSpectrogram(tensor(sound).unsqueeze(0), { nMels: 80, length })).narrow(2, 0, steps)
      const { lastHiddenState } = await noGrad(() => model.speech_encoder!.forward({ inputFeatures: mel }))
      const states = lastHiddenState.to({ dtype: 'float64' })
      const centred = states.sub(states.mean([-1], true))
      const normal = centred
        .div(centred.square().mean([-1], true).add(1e-5).sqrt())
        .mul(weight)
        .add(bias)
      const read = await noGrad(() => qformer(normal.to({ dtype: 'float32' })))
      const { weight: w, bias: b } = projection
      const wanted = read
        .to({ dtype: 'float64' })
        .matmul(w.to({ dtype: 'float64' }).t())
        .add(b!)
      // 130 steps of the spectrogram are 65 frames, in windows of 8.
      expect(heard.shape).toEqual([9, 32])
      expectClose(heard, wanted.squeeze(0).detach(), 1e-5, 'audio embeddings')
    })
  })

  it('hears a clip beyond 30 s in windows, each token once', async () => {
    using model = await load()
    const [heard] = (await noGrad(() => model.encodeAudio([clip(1, 61)]))) as [Tensor]
    // 50 frames a second, in windows of 8.
    expect(heard.size(0)).toBe(Math.ceil((61 * 50) / 8))
    heard.dispose()
  })

  it('ends answers as the tokenizer does, and begins a chat template once', async () => {
    using model = await load()
    expect(model.config.endSymbol).toBe('<|im_end|>')
    const template = salmonnTemplate(model.tokenizer, { system: 'Listen.' })
    expect(template).toBe(
      '<|im_start|>system\nListen.<|im_end|>\n<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n',
    )
    expect(salmonnTemplate(model.tokenizer)).toMatch(/^<\|im_start\|>system\nHi<\|im_end\|>/)
    const text = buildSalmonnPrompt({ prompt: '<SpeechHere> What?', template })
    const { rows } = await noGrad(() => model.read([{ text, clips: [clip(2, 1)] }], model.encoding('test', {})))
    const begin = model.tokenizer.bosTokenId
    expect(rows[0]?.slice(0, 2).filter((id) => id === begin)).toHaveLength(1)
    const plain = await noGrad(() => model.read([{ text: 'USER: <SpeechHere>', clips: [clip(2, 1)] }], model.encoding('test', {}))) // biome-ignore format: one line
    expect(plain.rows[0]?.[0]).toBe(begin)
    // The loss counts the answer's bytes, and its end as one.
    model.eval()
    const { total } = await model.forward({ prompts: [{ text, clips: [clip(2, 1)] }], targets: ['yes'] })
    expect(total).toBe(4)
  })

  it('has a conversation as it was trained to, also when it was saved and loaded', async () => {
    // A packed language model is not saved whole.
    const template = '<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n'
    using model = await load({ template }, { quantize: false })
    await model.save(join(folder, 'own'))
    await model.save(join(folder, 'whole'), { whole: true })
    const question = { text: 'A <SpeechHere> B', clips: [clip(5, 0.9)] }
    const said = async (one: Salmonn) => (await one.generate([question], { maxNewTokens: 6 })).tokens
    const wanted = await said(model)
    for (const name of ['own', 'whole']) {
      using again = await Salmonn.fromPretrained(join(folder, name), { dtype: 'float32', quantize: false })
      expect(again.config.beats).toBe(null)
      expect(again.config.template).toBe(model.config.template)
      expect(again.config.endSymbol).toBe('<|im_end|>')
      expect(await said(again)).toEqual(wanted)
      using chat = new SalmonnChat(again)
      const texts: string[] = []
      const stream = vi.spyOn(again, 'stream').mockImplementation(async function* ({ text }) {
        texts.push(text)
        yield { text: '', tokens: [], promptTokens: 0 }
      })
      for await (const _ of chat.stream([{ role: 'user', content: [{ type: 'text', text: 'Hello' }] }])) _
      stream.mockRestore()
      expect(texts).toEqual(['<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n'])
    }
  })

  it('refuses a tokenizer without a chat template, and templates without a place', async () => {
    using model = await tinySalmonn()
    expect(() => salmonnTemplate(model.tokenizer)).toThrow(/template/)
    expect(() => Salmonn.fromConfig({ template: 'USER:' }, { device: 'meta' })).toThrow(ConfigError)
  })
})

describe('SalmonnFrames', () => {
  const prompts = [0.7, 1.6, 1.1].map((seconds, i) => ({ text: 'A <SpeechHere> B', clips: [clip(i, seconds)] }))
  const batch = { prompts, targets: ['one', 'two', 'three'] }

  /** Loss and gradient of the projection. */
  async function step(model: Salmonn): Promise<{ loss: Tensor; gradient: Tensor }> {
    const { loss } = await model.forward(batch)
    await loss!.backward()
    const { weight } = model.speech_llama_proj
    const gradient = weight.grad!.clone()
    weight.grad = null
    return { loss: loss!.detach(), gradient }
  }

  it('gives loss and gradients as without, and lets the encoders hear each clip once', async () => {
    using model = await tinySalmonn()
    trainSalmonnParts(model, ['qformer', 'projection'])
    const wanted = await step(model)
    model.frames = new SalmonnFrames()
    const whisper = vi.spyOn(model.speech_encoder!, 'forward')
    const first = await step(model)
    expect(whisper).toHaveBeenCalledTimes(3)
    const second = await step(model)
    expect(whisper).toHaveBeenCalledTimes(3)
    const { hits, misses, length } = model.frames
    expect({ hits, misses, length }).toEqual({ hits: 3, misses: 3, length: 3 })
    expectClose(first.loss, wanted.loss, 1e-5, 'loss')
    expectClose(first.gradient, wanted.gradient, 1e-5, 'gradient')
    // What is kept is what was heard, to the last bit.
    expect(numbers(second.loss)).toEqual(numbers(first.loss))
    expect(numbers(second.gradient)).toEqual(numbers(first.gradient))
  })

  it('keeps as much as it may, and the clip that was not heard for the longest time goes first', async () => {
    using model = await tinySalmonn()
    const clips = [clip(1, 0.6), clip(2, 0.6), clip(3, 0.6)]
    const heard = async (i: number) => scope(() => noGrad(() => model.encodeAudio([clips[i]!]).then(() => undefined)))
    model.frames = new SalmonnFrames()
    await heard(0)
    const each = model.frames.bytes
    expect(each).toBeGreaterThan(0)
    model.frames.clear()
    expect(model.frames.bytes).toBe(0)
    const two = new SalmonnFrames(2.5 * each)
    model.frames = two
    for (const i of [0, 1, 0, 2]) await heard(i)
    expect([two.length, two.bytes, two.misses]).toEqual([2, 2 * each, 3])
    await heard(0)
    expect(two.misses).toBe(3)
    await heard(1)
    expect(two.misses).toBe(4)
    model.frames = new SalmonnFrames(0)
    await heard(0)
    expect(model.frames.length).toBe(0)
    expect(() => new SalmonnFrames(-1)).toThrow(ConfigError)
  })

  it('keeps nothing of an encoder that trains, nor of published padding', async () => {
    using model = await tinySalmonn()
    model.frames = new SalmonnFrames()
    await scope(() => noGrad(() => model.encodeAudio([clip(1, 0.6)], { compat: 'published' }).then(() => undefined)))
    trainSalmonnParts(model, ['whisper', 'projection'])
    await step(model)
    expect(model.frames.length).toBe(0)
  })
})

/** The parts behind the encoder, as functions. */
function pieces(model: Salmonn) {
  const { weight, bias } = model.ln_speech
  const qformer = async (states: Tensor): Promise<Tensor> => {
    const { QFormer } = await import('../../../../lib/index.js')
    const own = QFormer.fromConfig(model.config.qformer)
    const state = model.stateDict()
    const names = Object.keys(own.stateDict())
    own.loadStateDict(Object.fromEntries(names.map((name) => [name, state[`speech_${name}`]])) as never)
    own.eval()
    return (await own.forward({ encoderHiddenStates: states })).lastHiddenState
  }
  return { qformer, projection: model.speech_llama_proj, weight: weight as Tensor, bias: bias as Tensor }
}
