import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from 'vitest'
import { chatModels } from '../../../lib/cli/chat-models.js'
import { parseServe } from '../../../lib/cli/serve.js'
import { readAudio, resample, setNumThreads, tensor, writeWav } from '../../../lib/index.js'
import { type ChatDelta, type ChatTurn, type Served, serve } from '../../../lib/serve/index.js'
import { GriffinLimVocoder, Usdm, UsdmChat, unitFrames } from '../../../lib/systems/usdm/index.js'
import { settledTensors } from '../../helpers.js'
import { ask, begin, call, events, sound, text, until, user } from '../../serve/client.js'
import { sineWav } from '../../serve/models.mjs'
import { chirp, SCRIPT, type Script, scriptedLlm, TinyVoicebox, tinyTokenizer, tinyUnits } from './tiny-parts.js'

const folder = mkdtempSync(join(tmpdir(), 'voxtorch-usdm-chat-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

afterEach(() => {
  vi.restoreAllMocks()
})

let parts: { tokenizer: Awaited<ReturnType<typeof tinyTokenizer>>; units: Awaited<ReturnType<typeof tinyUnits>> }
beforeAll(async () => {
  setNumThreads(1)
  parts = { tokenizer: await tinyTokenizer(join(folder, 'text')), units: await tinyUnits() }
})

const open = (script: Script = {}, silent = false) => {
  const voicebox = new TinyVoicebox()
  const llm = scriptedLlm(parts.tokenizer, { ...SCRIPT, ...script })
  const usdm = new Usdm({ llm, ...parts, ...(silent ? {} : { voicebox, vocoder: new GriffinLimVocoder() }) })
  return { usdm, voicebox, llm }
}
const ENDLESS: Script = { '<|unit12|>': '<|unit5|>' }

const said = (samples: Float32Array): ChatTurn => ({
  role: 'user',
  content: [{ type: 'audio', samples, seconds: samples.length / 16_000 }],
})
const replied = (reply: string): ChatTurn => ({ role: 'assistant', content: [{ type: 'text', text: reply }] })
const settings = () => ({ maxNewTokens: 100, signal: new AbortController().signal })

async function gathered(stream: AsyncIterable<ChatDelta>) {
  const deltas: ChatDelta[] = []
  for await (const delta of stream) deltas.push(delta)
  return {
    deltas,
    heard: deltas.map(({ heard = '' }) => heard).join(''),
    text: deltas.map((delta) => delta.text).join(''),
    tokens: deltas.reduce((sum, { tokens }) => sum + tokens, 0),
    samples: deltas.reduce((sum, { audio }) => sum + (audio?.length ?? 0), 0),
    audioId: deltas.at(-1)?.audioId,
    finishReason: deltas.at(-1)?.finishReason,
  }
}

describe('UsdmChat', () => {
  it('gives what was heard, the reply, and its sound', async () => {
    const { usdm } = open()
    using chat = new UsdmChat(usdm)
    expect(chat).toMatchObject({ outputModalities: ['text', 'audio'], inputModalities: ['audio'], audioRate: 22_050 })
    const whole = await gathered(chat.stream([said(chirp(0.5))], { ...settings(), speech: {} }))
    expect(whole).toMatchObject({ heard: 'hi!', text: 'ok.', samples: 256 * unitFrames(8), finishReason: 'stop' })
    // Three letters and their end, eight units.
    expect(whole.tokens).toBe(4 + 8)
    expect(whole.deltas[0]?.promptTokens).toBeGreaterThan(200)
    const silent = await gathered(chat.stream([said(chirp(0.5))], settings()))
    expect(silent).toMatchObject({ heard: 'hi!', text: 'ok.', samples: 0 })
  })

  it('hears no clip twice, and knows earlier turns by their words, their ids, or by saying them again', async () => {
    const { usdm, llm } = open()
    using chat = new UsdmChat(usdm)
    const extract = vi.spyOn(usdm.units, 'extract')
    const read: number[] = []
    const stream = llm.stream.bind(llm)
    vi.spyOn(llm, 'stream').mockImplementation((inputs, ...rest) => {
      read.push(inputs.inputIds?.shape[1] ?? 0)
      return stream(inputs, ...rest)
    })
    const prompts = () => read.splice(0)
    const first = await gathered(chat.stream([said(chirp(0.5))], settings()))
    const [all = 0, second = 0, third = 0] = prompts()
    // The second and third pass read what is new of their prompts and the last token.
    expect(all).toBeGreaterThan(200)
    expect(second).toBe('\n### Agent\n'.length)
    expect(third).toBe(1)
    const messages = [said(chirp(0.5)), replied('ok.'), said(chirp(0.4, 1))]
    const next = await gathered(chat.stream(messages, settings()))
    expect(next.text).toBe('ok.')
    expect(extract).toHaveBeenCalledTimes(2)
    // What the first turn was is not read again.
    const [after = 0] = prompts()
    expect(after).toBeLessThan(60)
    const byId: ChatTurn[] = [
      said(chirp(0.5)),
      { role: 'assistant', content: [], audioId: first.audioId! },
      messages[2]!,
    ]
    expect(await gathered(chat.stream(byId, settings()))).toMatchObject({ text: 'ok.', audioId: next.audioId })
    expect(prompts()).toHaveLength(3)
    // A reply that was never given.
    const other = [said(chirp(0.5)), replied('no way'), said(chirp(0.4, 1))]
    expect(await gathered(chat.stream(other, settings()))).toMatchObject({ text: 'ok.' })
    expect(prompts()).toHaveLength(2 + 3)
    expect(await gathered(chat.stream(other, settings()))).toMatchObject({ text: 'ok.' })
    expect(prompts()).toHaveLength(3)
    expect(extract).toHaveBeenCalledTimes(2)
    const unknown: ChatTurn[] = [said(chirp(0.5)), { role: 'assistant', content: [], audioId: 'audio_x' }, messages[2]!]
    await expect(gathered(chat.stream(unknown, settings()))).rejects.toThrow(/got audio_x, which is no longer cached/)
  })

  it('who leaves while a clip is heard waits no longer, and who else waits for it gets it', async () => {
    const { usdm } = open()
    using chat = new UsdmChat(usdm)
    let heard = () => {}
    const gate = new Promise<void>((resolve) => {
      heard = resolve
    })
    const extract = usdm.units.extract.bind(usdm.units)
    const spy = vi.spyOn(usdm.units, 'extract').mockImplementation(async (...given) => {
      await gate
      return extract(...given)
    })
    const ask = (signal: AbortSignal) => gathered(chat.stream([said(chirp(0.5))], { ...settings(), signal }))
    const [first, second] = [new AbortController(), new AbortController()]
    const leaving = [ask(first.signal), ask(second.signal)]
    const staying = ask(new AbortController().signal)
    const left = leaving.map((one) => expect(one).rejects.toThrow('enough'))
    for (const one of [first, second]) one.abort(new Error('enough'))
    await Promise.all(left)
    heard()
    expect(await staying).toMatchObject({ heard: 'hi!', text: 'ok.' })
    expect(spy).toHaveBeenCalledTimes(1)
  })

  it('speaks in the voice of a clip, which is heard once', async () => {
    const { usdm, voicebox } = open()
    using chat = new UsdmChat(usdm)
    const voice = { samples: chirp(0.6, 2, 22_050), sampleRate: 22_050 }
    const extract = vi.spyOn(usdm.units, 'extract')
    for (let i = 0; i < 2; i++) {
      await gathered(chat.stream([said(chirp(0.5))], { ...settings(), speech: { voice, steps: 3 } }))
    }
    expect(extract).toHaveBeenCalledTimes(2)
    expect(voicebox.calls.map(({ prompt, steps }) => [prompt > 40, steps])).toEqual([
      [true, 3],
      [true, 3],
    ])
    await gathered(chat.stream([said(chirp(0.5))], { ...settings(), speech: {} }))
    expect(voicebox.calls.at(-1)).toMatchObject({ prompt: 0, steps: 15 })
    // More voices than are kept.
    const before = await settledTensors()
    for (let seed = 3; seed < 9; seed++) {
      const other = { samples: chirp(0.5, seed, 22_050), sampleRate: 22_050 }
      await gathered(chat.stream([said(chirp(0.5))], { ...settings(), speech: { voice: other } }))
    }
    expect(await settledTensors()).toBeLessThanOrEqual(before + 3)
  })

  it('refuses what is no conversation in speech, and reads a reply that has no sound', async () => {
    const { usdm } = open()
    using chat = new UsdmChat(usdm)
    const clip = said(chirp(0.5))
    const wrong: [ChatTurn[], RegExp][] = [
      [[], /list of messages/],
      [
        [{ role: 'user', content: [{ type: 'text', text: 'hello' }] }],
        /expected only audio in messages\[0\], got text/,
      ],
      [[{ role: 'user', content: [] }], /got an empty message/],
      [
        [{ role: 'system', content: [{ type: 'text', text: 'be kind' }] }, clip],
        /got a system message in messages\[0\]/,
      ],
      [[clip, { role: 'assistant', content: [] }, clip], /the id of its audio in messages\[1\], got neither/],
      [[clip, clip], /expected role 'assistant', got 'user'/],
      [[said(new Float32Array(300))], /expected at least .* samples at 16 kHz, one unit/],
    ]
    for (const [messages, error] of wrong)
      await expect(gathered(chat.stream(messages, settings()))).rejects.toThrow(error)
    await expect(gathered(chat.stream([clip], { ...settings(), numBeams: 2 }))).rejects.toThrow(/expected 1 beam/)
    const mute = open({ '<|correspond|>': ['h', '\n'] })
    using reader = new UsdmChat(mute.usdm)
    expect(await gathered(reader.stream([clip], { ...settings(), speech: {} }))).toMatchObject({
      text: 'ok.',
      samples: 0,
    })
    for (const given of [{ steps: 0 }, { chunkUnits: 0 }, { named: 'x' }, { conversations: 1.5 }]) {
      expect(() => new UsdmChat(usdm, given as object)).toThrow(/steps|chunkUnits|named|conversations/)
    }
    expect(() => new UsdmChat({} as Usdm)).toThrow(/a Usdm/)
  })
})

describe('the API', () => {
  let served: Served
  let chat: UsdmChat
  afterEach(async () => {
    await served.close({ now: true })
    chat.dispose()
  })
  const start = async (script: Script = {}, options: object = {}) => {
    const made = open(script)
    chat = new UsdmChat(made.usdm, { steps: 2 })
    served = await serve(chat, options)
    return { url: served.url, ...made }
  }
  const spoken = { modalities: ['text', 'audio'] }
  const question = (seconds = 0.5) => user(sound(sineWav({ seconds })))

  it('gives a WAV file and its transcript, and 16-bit samples as they come', async () => {
    const { url } = await start()
    const entry = (await call(url, '/v1/models')).json.data[0]
    expect(entry).toMatchObject({
      id: 'usdm',
      ...{ input_modalities: ['audio'], output_modalities: ['text', 'audio'], audio_rate: 22_050 },
    })
    const whole = await ask(url, { messages: [question()], ...spoken, seed: 3 })
    expect(whole.status).toBe(200)
    const { message, finish_reason } = whole.json.choices[0]
    expect(message).toMatchObject({ role: 'assistant', content: null, input_transcript: 'hi!' })
    expect(finish_reason).toBe('stop')
    const { audio } = message
    expect(audio).toMatchObject({
      transcript: 'ok.',
      sample_rate: 22_050,
      id: expect.stringMatching(/^audio_[0-9a-f]{40}$/),
    })
    expect(audio.expires_at).toBeGreaterThan(Date.now() / 1000 + 3000)
    const wav = await readAudio(Buffer.from(audio.data, 'base64'))
    expect([wav.sampleRate, wav.samples.shape]).toEqual([22_050, [256 * unitFrames(8)]])
    expect(whole.json.usage).toMatchObject({ completion_tokens: 12 })

    const streamed = await ask(url, { messages: [question()], ...spoken, seed: 3, stream: true })
    const deltas = events(streamed)
      .slice(0, -1)
      .map((event) => JSON.parse(event).choices[0].delta)
    expect(events(streamed).at(-1)).toBe('[DONE]')
    expect(deltas.map((delta) => delta.input_transcript ?? '').join('')).toBe('hi!')
    expect(deltas.map((delta) => delta.audio?.transcript ?? '').join('')).toBe('ok.')
    expect(deltas.map((delta) => delta.content ?? '').join('')).toBe('')
    const pcm = Buffer.concat(deltas.flatMap(({ audio }) => (audio?.data ? [Buffer.from(audio.data, 'base64')] : [])))
    // The one piece of so short a reply is the whole.
    expect(pcm).toEqual(Buffer.from(audio.data, 'base64').subarray(44))
    expect(deltas.find(({ audio }) => audio?.data).audio.sample_rate).toBe(22_050)
    expect(deltas.find(({ audio }) => audio?.expires_at).audio.id).toBe(audio.id)

    const words = await ask(url, { messages: [question()], modalities: ['text'] })
    expect(words.json.choices[0].message).toMatchObject({ content: 'ok.', input_transcript: 'hi!' })
    expect(words.json.choices[0].message.audio).toBeUndefined()
    const raw = await ask(url, {
      messages: [question()],
      ...spoken,
      audio: { format: 'pcm16', voice: 'default' },
      seed: 3,
    })
    expect(Buffer.from(raw.json.choices[0].message.audio.data, 'base64')).toEqual(pcm)
    // The next turn, by the id, as OpenAI's clients say it.
    const turns = [question(), { role: 'assistant', audio: { id: audio.id } }, question(0.4)]
    expect((await ask(url, { messages: turns, ...spoken })).json.choices[0].message.audio.transcript).toBe('ok.')
  })

  it('hears a clip of 44.1 kHz as units want it resampled', async () => {
    const { url, usdm } = await start()
    const hear = vi.spyOn(usdm, 'hear')
    const path = join(folder, 'wide.wav')
    const wide = tensor(Float32Array.from({ length: 22_050 }, (_, i) => 0.3 * Math.sin(i * i * 1e-4)))
    await writeWav(path, wide, { sampleRate: 44_100, format: 'float32' })
    const whole = await ask(url, { messages: [user(sound(readFileSync(path)))], ...spoken })
    expect(whole.status).toBe(200)
    const given = hear.mock.calls[0]?.[0]
    expect(given).toEqual(await (await resample(wide, 44_100, 16_000, { quality: 'high' })).data())
    expect(given).not.toEqual(await (await resample(wide, 44_100, 16_000)).data())
  })

  it('takes a voice, steps and limits, and refuses what it cannot do by name', async () => {
    const { url, voicebox } = await start(ENDLESS)
    const reference = { data: sineWav({ seconds: 0.6, rate: 44_100 }).toString('base64'), format: 'wav' }
    const voiced = await ask(url, { messages: [question()], ...spoken, audio: { reference, steps: 7 }, max_tokens: 30 })
    expect(voiced.status).toBe(200)
    expect(voiced.json.choices[0].finish_reason).toBe('length')
    expect(voicebox.calls[0]).toMatchObject({ steps: 7 })
    expect(voicebox.calls[0]!.prompt).toBeGreaterThan(40)
    const wav = await readAudio(Buffer.from(voiced.json.choices[0].message.audio.data, 'base64'))
    expect(wav.samples.shape).toEqual([256 * unitFrames(30)])
    const audio = (given: object) => ({ ...spoken, audio: given })
    const wrong: [object, string][] = [
      [{ modalities: ['audio'] }, 'modalities'],
      [{ modalities: 'text' }, 'modalities'],
      [{ modalities: [] }, 'modalities'],
      [{ audio: { format: 'wav' } }, 'audio'],
      [audio([]), 'audio'],
      [audio({ format: 'mp3' }), 'audio.format'],
      [{ ...audio({ format: 'wav' }), stream: true }, 'audio.format'],
      [audio({ voice: 'alloy' }), 'audio.voice'],
      [audio({ steps: 0 }), 'audio.steps'],
      [audio({ steps: 1e9 }), 'audio.steps'],
      [audio({ referense: reference }), 'audio'],
      [audio({ reference: { ...reference, format: 'mp3' } }), 'audio.reference.format'],
      [audio({ reference: { data: 'x', format: 'wav' } }), 'audio.reference.data'],
      [{ ...spoken, stop: ['k'] }, 'stop'],
      [{ messages: [user({ type: 'image_url', image_url: { url: 'data:x' } })] }, 'messages[0].content[0].type'],
      [{ messages: [user({ type: 'video_url', video_url: { url: 'data:x' } })] }, 'messages[0].content[0].type'],
    ]
    for (const [fields, param] of wrong) {
      const { status, json } = await ask(url, { messages: [question()], ...fields })
      expect([status, json.error.param], JSON.stringify(fields).slice(0, 80)).toEqual([400, param])
    }
    const long = { data: sineWav({ seconds: 61 }).toString('base64'), format: 'wav' }
    const tooLong = await ask(url, { messages: [question()], ...audio({ reference: long }) })
    expect(tooLong.json.error).toMatchObject({ code: 'audio_too_long', param: 'audio.reference.data' })
    for (const messages of [
      [user(text('hello'))],
      [question(), question()],
      [user(sound(sineWav({ seconds: 0.01 })))],
    ]) {
      expect((await ask(url, { messages })).status).toBe(400)
    }
  })

  it('an aborted request ends its reply, in the middle of its words and of its sound', async () => {
    const { url, voicebox } = await start(ENDLESS, { maxNewTokens: 5000, defaultNewTokens: 5000 })
    let stepping = false
    voicebox.onStep = () => {
      stepping = true
    }
    const request = begin(url, { messages: [question()], ...spoken, stream: true })
    await request.first
    await until(() => stepping)
    request.abort()
    await expect.poll(async () => (await call(url, '/health')).json.running).toBe(0)
    expect(chat.metrics().batch_running).toBe(0)
    const after = voicebox.calls.length
    await new Promise((resolve) => setTimeout(resolve, 100))
    expect(voicebox.calls.length).toBe(after)
  })
})

it('`voxtorch serve usdm` takes the model cache that the demo of the original has in its environment', () => {
  const parse = (env: NodeJS.ProcessEnv, ...words: string[]) => parseServe(words, chatModels, env)
  expect(parse({ MODEL_CACHE_DIR: 'cache' }, 'usdm')).toMatchObject({ directory: 'cache' })
  expect(parse({ MODEL_CACHE_DIR: 'cache' }, 'usdm', '--model', 'own')).toMatchObject({ directory: 'own' })
  expect(() => parse({}, 'usdm')).toThrow(/--model: expected the folder of the model, got none/)
  expect(() => parse({ MODEL_CACHE_DIR: 'cache' }, 'salmonn')).toThrow(
    /--model: expected the folder of the model, got none/,
  )
})

it('`voxtorch serve usdm --offload` keeps parts on the CPU while they do not work', async () => {
  expect(parseServe(['usdm', '--model', 'own', '--device', 'cuda', '--offload'], chatModels, {}).loading).toEqual({
    device: 'cuda',
    offload: true,
  })
  expect(() => parseServe(['salmonn', '--model', 'own', '--offload'], chatModels, {})).toThrow(
    /--offload: an option of usdm, not of salmonn/,
  )
  const loaded = vi.spyOn(Usdm, 'fromPretrained').mockRejectedValue(new Error('enough'))
  await expect(chatModels.usdm!('own', { device: 'cuda', offload: true } as never)).rejects.toThrow('enough')
  expect(loaded).toHaveBeenCalledWith('own', { device: 'cuda', offload: true })
  loaded.mockRestore()
})
