import { connect } from 'node:net'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { memoryStats, ShapeError, tensor } from '../../lib/index.js'
import { type ChatModel, type Served, type ServeOptions, serve } from '../../lib/serve/index.js'
import { fixture, settledTensors } from '../helpers.js'
import { PATIENCE } from '../patience.js'
import { ask, begin, call, events, raw, sound, text, until, user } from './client.js'
import { Parrot, sineWav } from './models.mjs'

const running: Served[] = []
const start = async (model: ChatModel = new Parrot(), options: ServeOptions = {}) => {
  const served = await serve(model, options)
  running.push(served)
  return served
}
afterEach(async () => {
  for (const served of running.splice(0)) await served.close({ now: true })
})

describe('POST /v1/chat/completions', () => {
  const model = new Parrot()
  let served: Served
  let url: string
  beforeAll(async () => {
    served = await serve(model, { maxAudioSeconds: 20, maxAudioParts: 3, maxMessages: 6, maxNewTokens: 100 })
    url = served.url
  })
  afterAll(() => served.close({ now: true }))

  const refusal = async (body: unknown, status: number, code: string, param: string | null = null) => {
    const reply = await ask(url, body)
    expect(reply.json?.error, reply.text).toMatchObject({ code, param })
    expect(reply.status).toBe(status)
    expect(typeof reply.json.error.message).toBe('string')
    return reply.json.error.message as string
  }

  it('answers as a whole, in the shape of OpenAI', async () => {
    const { status, json } = await ask(url, { model: 'parrot', messages: [user(text('Who speaks?'), sound())] })
    expect(status).toBe(200)
    expect(json).toMatchObject({
      object: 'chat.completion',
      model: 'parrot',
      choices: [
        {
          index: 0,
          // A sine of 0.5 has a root mean square of 0.354.
          message: { role: 'assistant', content: 'Turn 1: Who speaks? | 1.00 s at 0.354' },
          finish_reason: 'stop',
        },
      ],
      usage: { prompt_tokens: 7, completion_tokens: 9, total_tokens: 16 },
    })
    expect(json.id).toMatch(/^chatcmpl-/)
    expect(Math.abs(json.created - Date.now() / 1000)).toBeLessThan(60)
  })

  it('streams: a role, the pieces, the end, the usage where asked, [DONE]', async () => {
    const messages = [{ role: 'user', content: 'count 5' }]
    const reply = await ask(url, { messages, stream: true, stream_options: { include_usage: true } })
    expect(reply.headers['content-type']).toBe('text/event-stream; charset=utf-8')
    const all = events(reply)
    expect(all.pop()).toBe('[DONE]')
    const chunks = all.map((event) => JSON.parse(event))
    expect(new Set(chunks.map(({ id, object }) => `${object} ${id}`)).size).toBe(1)
    expect(chunks.map(({ choices }) => choices[0]?.delta)).toEqual([
      { role: 'assistant', content: '' },
      ...['1 ', '2 ', '3 ', '4 ', '5 '].map((content) => ({ content })),
      {},
      undefined,
    ])
    expect(chunks.map(({ choices }) => choices[0]?.finish_reason)).toEqual([...Array(6).fill(null), 'stop', undefined])
    expect(chunks.at(-1).usage).toEqual({ prompt_tokens: 7, completion_tokens: 5, total_tokens: 12 })
    const without = events(await ask(url, { messages, stream: true }))
    expect(without).toHaveLength(8)
    expect(without.some((event) => event.includes('usage'))).toBe(false)
  })

  it('passes several turns on, in their order, with audio and text where they stood', async () => {
    const { json } = await ask(url, {
      messages: [
        { role: 'system', content: 'Be brief.' },
        user(text('First'), sound(sineWav({ seconds: 0.5 })), text('and'), sound(sineWav({ rate: 8000 }))),
        { role: 'assistant', content: [text('Two tones.')] },
        user(text('And now?'), sound(sineWav({ amplitude: 0.1 }))),
      ],
    })
    expect(json.choices[0].message.content).toBe(
      // The resampled one begins and ends softly.
      'Turn 4: And now? | 0.50 s at 0.354, 1.00 s at 0.353, 1.00 s at 0.071',
    )
    expect(model.turns.map(({ role }) => role)).toEqual(['system', 'user', 'assistant', 'user'])
    expect(model.turns[1]?.content.map(({ type }) => type)).toEqual(['text', 'audio', 'text', 'audio'])
    const [, , , clip] = model.turns[1]?.content ?? []
    expect(clip?.type === 'audio' && clip.samples.length).toBe(16_000)
  })

  it('passes the settings on, and leaves the others to the model', async () => {
    await ask(url, {
      messages: [user(text('hm'))],
      max_completion_tokens: 11,
      max_tokens: 12,
      temperature: 0.5,
      top_p: 0.9,
      top_k: 40,
      num_beams: 4,
      seed: 3,
      stop: 'x',
      n: 1,
      user: 'someone',
      frequency_penalty: 0,
      logit_bias: null,
    })
    const { signal, ...options } = model.options!
    expect(options).toEqual({
      maxNewTokens: 11,
      temperature: 0.5,
      topP: 0.9,
      topK: 40,
      numBeams: 4,
      seed: 3,
      stop: ['x'],
    })
    expect(signal).toBeInstanceOf(AbortSignal)
    await ask(url, { messages: [user(text('hm'))] })
    const { signal: _, ...plain } = model.options!
    expect(plain).toEqual({ maxNewTokens: 100 })
  })

  it('says that the answer was cut at its longest', async () => {
    const { json } = await ask(url, { messages: [user(text('count 50'))], max_tokens: 3 })
    expect(json.choices[0]).toMatchObject({ message: { content: '1 2 3 ' }, finish_reason: 'length' })
  })

  it('ends at a stop text, also one that comes in pieces, and ends the generation there', async () => {
    const given = model.given
    const { json } = await ask(url, { messages: [user(text('count 90'))], stop: ['5 6 7', '9'] })
    expect(json.choices[0]).toMatchObject({ message: { content: '1 2 3 4 ' }, finish_reason: 'stop' })
    expect(model.given - given).toBe(7)
    const whole = await ask(url, { messages: [user(text('count 6'))], stop: ['6 7'] })
    expect(whole.json.choices[0].message.content).toBe('1 2 3 4 5 6 ')
  })

  it.each([
    ['flac', 'flac'],
    ['mp3', 'mp3'],
    ['vorbis', 'ogg'],
    ['opus', 'ogg'],
  ])('hears %s', async (kind, format) => {
    const { tensors } = await fixture('audio/compressed')
    const name = Object.keys(tensors).find((key) => key.includes(kind) && tensors[key]!.dtype === 'uint8')
    expect(name, Object.keys(tensors).join()).toBeDefined()
    const bytes = Buffer.from((await tensors[name!]!.data()) as Uint8Array)
    const { status, text: body } = await ask(url, { messages: [user(sound(bytes, format))] })
    expect(status, body).toBe(200)
    expect(body).toMatch(/\d\.\d\d s at 0\.\d*[1-9]/)
  })

  it('refuses what is no request, naming the field', async () => {
    await refusal('{"messages": [', 400, 'invalid_json')
    await refusal(Buffer.from([0x22, 0xff, 0x22]), 400, 'invalid_json')
    await refusal('[]', 400, 'invalid_value')
    await refusal({}, 400, 'invalid_value', 'messages')
    await refusal({ messages: [] }, 400, 'invalid_value', 'messages')
    await refusal({ messages: [3] }, 400, 'invalid_value', 'messages[0]')
    await refusal({ messages: [{ role: 'robot', content: 'x' }] }, 400, 'invalid_value', 'messages[0].role')
    await refusal({ messages: [{ role: 'user' }] }, 400, 'invalid_value', 'messages[0].content')
    await refusal({ messages: [user(7)] }, 400, 'invalid_value', 'messages[0].content[0]')
    const image = { type: 'image_url', image_url: {} }
    await refusal({ messages: [user(text('x'), image)] }, 400, 'unsupported_value', 'messages[0].content[1].type')
    const smell = { type: 'smell' }
    await refusal({ messages: [user(text('x'), smell)] }, 400, 'invalid_value', 'messages[0].content[1].type')
    await refusal({ messages: [{ role: 'assistant', content: 'x' }] }, 400, 'invalid_value', 'messages')
    await refusal({ messages: [{ role: 'system', content: [sound()] }] }, 400, 'invalid_value', 'messages[0].content')
    const messages = [user(text('x'))]
    await refusal({ messages: Array(7).fill(messages[0]) }, 400, 'invalid_value', 'messages')
    await refusal({ messages, n: 2 }, 400, 'unsupported_parameter', 'n')
    await refusal({ messages, logprobs: true }, 400, 'unsupported_parameter', 'logprobs')
    await refusal({ messages, temperature: 'hot' }, 400, 'invalid_value', 'temperature')
    await refusal({ messages, max_tokens: 101 }, 400, 'invalid_value', 'max_tokens')
    await refusal({ messages, max_tokens: 1.5 }, 400, 'invalid_value', 'max_tokens')
    await refusal({ messages, stop: ['a', ''] }, 400, 'invalid_value', 'stop')
    await refusal({ messages, stream: 1 }, 400, 'invalid_value', 'stream')
    expect(await refusal({ messages, temprature: 1 }, 400, 'unknown_parameter', 'temprature')).toContain(
      '"temperature"',
    )
    await refusal('{"messages": "x", "__proto__": {"n": 2}}', 400, 'unknown_parameter', '__proto__')
    await refusal({ messages, model: 'other' }, 404, 'model_not_found', 'model')
    await refusal({ messages, model: { toString: 1 } }, 404, 'model_not_found', 'model')
    expect(await refusal({ messages, prompt: 'x' }, 400, 'unknown_parameter', 'prompt')).toContain(
      'Did you mean "messages"?',
    )
    const named = await refusal({ messages, ['y'.repeat(1_000_000)]: 1 }, 400, 'unknown_parameter', 'y'.repeat(100))
    expect(named.length).toBeLessThan(300)
    const wordy = { messages: Array(6).fill(user(text('x'.repeat(200_000)))) }
    await refusal(wordy, 400, 'text_too_long', 'messages[5].content')
    await refusal(`{"messages": ${'['.repeat(200_000)}`, 400, 'invalid_json')
    await refusal(`{"messages": ${'['.repeat(20_000)}${']'.repeat(20_000)}}`, 400, 'invalid_json')
  })

  it('refuses audio that is none, of another format, too long or too much, and leaves no tensors', async () => {
    const before = await settledTensors()
    const place = 'messages[0].content[0].input_audio'
    const encoded = (data: unknown, format: unknown = 'wav') => ({
      messages: [user({ type: 'input_audio', input_audio: { data, format } })],
    })
    const wav = sineWav().toString('base64')
    await refusal(encoded(undefined), 400, 'invalid_value', `${place}.data`)
    await refusal(encoded('*** no base64 ***'), 400, 'invalid_base64', `${place}.data`)
    await refusal(encoded(`${wav.slice(0, 99)}*${wav.slice(100)}`), 400, 'invalid_base64', `${place}.data`)
    await refusal(encoded(`${wav.slice(0, 100)}=${wav.slice(101)}`), 400, 'invalid_base64', `${place}.data`)
    await refusal(encoded(wav, 'webm'), 400, 'unsupported_format', `${place}.format`)
    await refusal(encoded(wav, 'constructor'), 400, 'unsupported_format', `${place}.format`)
    await refusal(encoded(wav, 'flac'), 400, 'unsupported_format', `${place}.format`)
    const noise = Buffer.alloc(4000, 'no sound at all ').toString('base64')
    expect(await refusal(encoded(noise), 400, 'invalid_audio', `${place}.data`)).not.toContain('in memory')
    await refusal(encoded(sineWav().subarray(0, 30).toString('base64')), 400, 'invalid_audio', `${place}.data`)
    await refusal(encoded(sineWav({ seconds: 0 }).toString('base64')), 400, 'invalid_audio', `${place}.data`)
    // A header that promises samples at a rate for which no resampling filter can be made.
    const odd = sineWav()
    odd.writeUInt32LE(4_294_967_291, 24)
    await refusal(encoded(odd.toString('base64')), 400, 'invalid_audio', `${place}.data`)
    const long = sineWav({ seconds: 20.2, rate: 8000 })
    await refusal(encoded(long.toString('base64')), 400, 'audio_too_long', `${place}.data`)
    const [a, b] = [sound(sineWav({ seconds: 15, rate: 8000 })), sound(sineWav({ seconds: 6, rate: 8000 }))]
    await refusal({ messages: [user(a, b)] }, 400, 'audio_too_long', 'messages[0].content[1].input_audio.data')
    const tiny = sound(sineWav({ seconds: 0.1 }))
    const four = { messages: [user(tiny, tiny), user(tiny, tiny)] }
    await refusal(four, 400, 'too_many_clips', 'messages[1].content')
    expect(memoryStats().liveTensors).toBeLessThanOrEqual(before)
  })

  it('refuses other methods, paths, media types and encodings', async () => {
    const path = '/v1/chat/completions'
    const get = await call(url, path)
    expect([get.status, get.headers.allow, get.json.error.code]).toEqual([405, 'POST', 'method_not_allowed'])
    const headers = { 'content-type': 'text/plain' }
    expect((await call(url, path, { method: 'POST', headers, body: '{}' })).status).toBe(415)
    expect((await ask(url, '{}', { 'content-encoding': 'gzip' })).status).toBe(415)
    expect((await call(url, '/v1/models', { method: 'DELETE' })).status).toBe(405)
    expect((await call(url, '/', { method: 'POST' })).status).toBe(405)
    for (const elsewhere of [
      '/x',
      '/../package.json',
      '/..%2f..%2fpackage.json',
      '/app.js/../api.js',
      '//',
      '/api.js',
      '*',
    ]) {
      expect((await call(url, elsewhere)).status, elsewhere).toBe(404)
    }
  })
})

describe('the rest of the server', () => {
  it('lists its model, and says that it is well', async () => {
    const { url } = await start()
    const { json } = await call(url, '/v1/models')
    const entry = { id: 'parrot', object: 'model', owned_by: 'voxtorch', input_modalities: ['text', 'audio'] }
    expect(json).toMatchObject({ object: 'list', data: [entry] })
    expect((await call(url, '/health')).json).toEqual({ status: 'ok', running: 0, queued: 0 })
  })

  it('sends the page with headers that let nothing else in', async () => {
    const { url } = await start()
    for (const [path, type] of [
      ['/', 'text/html'],
      ['/?x=1', 'text/html'],
      ['/style.css', 'text/css'],
      ['/app.js', 'text/javascript'],
      ['/recorder-worklet.js', 'text/javascript'],
      ['/icon.svg', 'image/svg+xml'],
    ] as const) {
      const { status, headers, text: body } = await call(url, path)
      expect([status, headers['content-type']], path).toEqual([200, `${type}; charset=utf-8`])
      expect(Buffer.byteLength(body)).toBe(Number(headers['content-length']))
      expect(headers['content-security-policy']).toMatch(/^default-src 'none'; script-src 'self';/)
      expect(headers['content-security-policy']).not.toContain('unsafe')
      expect(headers['x-content-type-options']).toBe('nosniff')
      expect(headers['access-control-allow-origin']).toBeUndefined()
      // What is not allowed by these headers would not work.
      if (path === '/') expect(body).not.toMatch(/<script>|style=|onclick=|https?:/)
    }
  })

  it('is for its own page and programs of this machine', async () => {
    const { url, port } = await start()
    // Any address of the loopback, if it is where the server listens; macOS has one alone.
    if (process.platform !== 'darwin') {
      const other = await start(new Parrot(), { host: '127.0.0.2' })
      expect((await call(other.url, '/v1/models')).status).toBe(200)
    }
    expect((await call(url, '/v1/models', { headers: { host: `127.0.0.2:${port}` } })).status).toBe(403)
    const status = async (headers: Record<string, string>) => (await call(url, '/v1/models', { headers })).status
    expect(await status({ host: `localhost:${port}` })).toBe(200)
    expect(await status({ host: `[::1]:${port}` })).toBe(200)
    expect(await status({ host: `evil.example:${port}` })).toBe(403)
    expect(await status({ host: '127.0.0.1.evil.example' })).toBe(403)
    expect(await status({ origin: url })).toBe(200)
    expect(await status({ origin: 'https://evil.example' })).toBe(403)
    expect(await status({ origin: `http://127.0.0.1:${port + 1}` })).toBe(403)
    expect(await status({ origin: 'null' })).toBe(403)
    const named = await start(new Parrot(), { allowedHosts: ['Speech.example'] })
    const host = (name: string) => call(named.url, '/health', { headers: { host: name } })
    expect((await host('speech.example')).status).toBe(200)
    expect((await host(`127.0.0.1:${named.port}`)).status).toBe(403)
  })

  it('wants the key where there is one, and one where others can reach it', async () => {
    const { url } = await start(new Parrot(), { apiKey: 'a-secret-key' })
    const status = async (authorization?: string) =>
      (await call(url, '/v1/models', { headers: authorization === undefined ? {} : { authorization } })).status
    expect(await status()).toBe(401)
    expect(await status('Bearer a-secret-kez')).toBe(401)
    expect(await status('Basic a-secret-key')).toBe(401)
    expect(await status('Bearer a-secret-key')).toBe(200)
    expect((await ask(url, { messages: [user(text('x'))] })).headers['www-authenticate']).toBe('Bearer')
    expect((await call(url, '/')).status).toBe(200)
    await expect(serve(new Parrot(), { host: '0.0.0.0' })).rejects.toThrow(
      /expected a key, because other machines can reach host '0.0.0.0'/,
    )
    const open = await start(new Parrot(), { host: '0.0.0.0', apiKey: 'a-secret-key' })
    const headers = { host: 'any.example', authorization: 'Bearer a-secret-key' }
    expect((await call(`http://127.0.0.1:${open.port}`, '/v1/models', { headers })).status).toBe(200)
  })

  it('refuses large bodies before it has them', async () => {
    const model = new Parrot()
    const { url, port } = await start(model, { maxBodyBytes: 100_000 })
    const large = await ask(url, { messages: [user(sound(sineWav({ seconds: 4 })))] })
    expect([large.status, large.json.error.code, large.headers.connection]).toEqual([413, 'request_too_large', 'close'])
    const head = 'POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n'
    // Nothing of the body is sent, and the answer is there.
    const started = performance.now()
    const chunk = `${(60_000).toString(16)}\r\n${'x'.repeat(60_000)}\r\n`
    const refused = await Promise.all([
      raw(port, `${head}Content-Length: 100001\r\nExpect: 100-continue\r\n\r\n`),
      raw(port, `${head}Content-Length: 99999999999\r\n\r\n`),
      // Chunks do not say how much will come.
      raw(port, `${head}Transfer-Encoding: chunked\r\n\r\n`, chunk, chunk),
    ])
    for (const answer of refused) expect(answer).toMatch(/^HTTP\/1.1 413 /)
    expect(performance.now() - started).toBeLessThan(PATIENCE)
    const small = JSON.stringify({ messages: [user(text('x'))] })
    const continued = `${head}Connection: close\r\nContent-Length: ${small.length}\r\nExpect: 100-continue\r\n\r\n`
    expect(await raw(port, continued, small)).toMatch(/^HTTP\/1.1 100 Continue\r\n\r\nHTTP\/1.1 200 OK/)
    expect(model.begun).toBe(1)
  })

  it('gives up on headers, bodies and clients that do not come to an end', async () => {
    const model = new Parrot()
    const { url, port } = await start(model, { headerTimeout: 0.5, bodyTimeout: 0.3, answerTimeout: 0.5 })
    const head = 'POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n'
    const [opened, cutShort, other] = await Promise.all([
      raw(port, 'GET / HTTP/1.1\r\nHost:'),
      raw(port, `${head}Content-Length: 100\r\n\r\n{"messages":`),
      raw(port, 'no http at all\r\n\r\n'),
    ])
    expect(opened).toMatch(/^HTTP\/1.1 408 /)
    expect(cutShort).toMatch(/^HTTP\/1.1 408 [\s\S]*"timeout"/)
    expect(other).toMatch(/^HTTP\/1.1 400 /)
    model.pause = 100
    const late = await ask(url, { messages: [user(text('count 90'))] })
    expect([late.status, late.json.error.code]).toEqual([504, 'answer_timeout'])
    const cut = events(await ask(url, { messages: [user(text('count 90'))], stream: true }))
    expect(JSON.parse(cut.at(-1)!).error.code).toBe('answer_timeout')
    expect(model.running).toBe(0)
    expect((await call(url, '/health')).json).toEqual({ status: 'ok', running: 0, queued: 0 })
  })

  it('answers others while many clients send their bodies drop by drop', async () => {
    const model = new Parrot()
    const { url, port } = await start(model, { maxConcurrent: 2, maxQueued: 2, queueTimeout: 1 })
    const head = 'POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n'
    const sockets = Array.from({ length: 20 }, () => connect(port, '127.0.0.1'))
    for (const socket of sockets) socket.on('error', () => {}).write(`${head}Content-Length: 1000000\r\n\r\n{`)
    const drops = setInterval(() => {
      for (const socket of sockets) socket.write(' ')
    }, 20)
    try {
      for (let i = 0; i < 3; i++) {
        expect((await ask(url, { messages: [user(text('Who speaks?'))] })).status).toBe(200)
        await new Promise((resolve) => setTimeout(resolve, 100))
      }
      expect((await call(url, '/health')).json).toEqual({ status: 'ok', running: 0, queued: 0 })
    } finally {
      clearInterval(drops)
      for (const socket of sockets) socket.destroy()
    }
  })

  it('holds as many bytes of bodies as it says, and reads on the one that came first', async () => {
    const { url, port } = await start(new Parrot(), { maxConcurrent: 1, maxBodyBytes: 100_000 })
    const head = 'POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n'
    const whole = JSON.stringify({ messages: [user(text('x'.repeat(99_000)))] })
    const openings = Array.from({ length: 6 }, () => connect(port, '127.0.0.1').on('error', () => {}))
    const answers = openings.map(() => '')
    for (const [i, socket] of openings.entries()) {
      socket.on('data', (part) => {
        answers[i] += part
      })
      socket.write(`${head}Connection: close\r\nContent-Length: ${whole.length}\r\n\r\n${whole.slice(0, -1)}`)
    }
    // Four take all that there is: the last two wait, as does who comes now.
    await new Promise((resolve) => setTimeout(resolve, 200))
    const late = ask(url, whole)
    // Each that comes to its end makes room for others.
    for (const socket of openings) socket.write(whole.slice(-1))
    expect((await late).status).toBe(200)
    await expect
      .poll(() => answers.filter((one) => one.startsWith('HTTP/1.1 200 ')).length, { timeout: PATIENCE })
      .toBe(6)
  })

  it('ends a model that never waits, and hears others meanwhile', async () => {
    const model = new Parrot()
    const { url } = await start(model, { answerTimeout: 0.3 })
    let isRunning = true
    model.stream = async function* () {
      // As long as the test is patient: without an end it could not fail.
      for (const end = performance.now() + PATIENCE / 10; isRunning && performance.now() < end; ) {
        yield { text: 'x', tokens: 1 }
      }
    }
    const spinning = ask(url, { messages: [user(text('Go on'))] })
    const health = call(url, '/health')
    try {
      expect((await health).json.status).toBe('ok')
      const late = await spinning
      expect([late.status, late.json.error.code]).toEqual([504, 'answer_timeout'])
      const cut = events(await ask(url, { messages: [user(text('Go on'))], stream: true }))
      expect(JSON.parse(cut.at(-1)!).error.code).toBe('answer_timeout')
    } finally {
      isRunning = false
    }
  })

  it('answers for a model that hangs, and gives its place to the next', async () => {
    const model = new Parrot()
    const { url } = await start(model, { maxConcurrent: 1, answerTimeout: 0.3, queueTimeout: 30 })
    const { stream } = Parrot.prototype
    const hang = () => new Promise<never>(() => {})
    model.stream = async function* (turns, options) {
      if (JSON.stringify(turns).includes('at once')) await hang()
      yield* stream.call(model, turns, options)
      if (JSON.stringify(turns).includes('in the end')) await hang()
    }
    const late = await ask(url, { messages: [user(text('Hang at once'))] })
    expect([late.status, late.json.error.code]).toEqual([504, 'answer_timeout'])
    const cut = events(await ask(url, { messages: [user(text('Hang in the end'))], stream: true }))
    expect(JSON.parse(cut.at(-1)!).error.code).toBe('answer_timeout')
    // A client that goes leaves no place behind either.
    const gone = begin(url, { messages: [user(text('Hang in the end'))], stream: true })
    await gone.first
    gone.abort()
    expect((await ask(url, { messages: [user(text('Who speaks?'))] })).status).toBe(200)
    expect((await call(url, '/health')).json).toEqual({ status: 'ok', running: 0, queued: 0 })
  })

  it('counts 0 tokens of a prompt for a model that does not tell', async () => {
    const { url } = await start({
      name: 'silent',
      async *stream() {
        yield { text: 'Hm.', tokens: 2 }
      },
    })
    const { json } = await ask(url, { messages: [user(text('x'))] })
    expect(json.usage).toEqual({ prompt_tokens: 0, completion_tokens: 2, total_tokens: 2 })
  })

  it('ends a generation within a token of its client', async () => {
    const model = new Parrot(30)
    const { url } = await start(model, { maxConcurrent: 1 })
    const one = begin(url, { messages: [user(text('count 100'))], stream: true })
    await one.first
    const waiting = begin(url, { messages: [user(text('count 100'))], stream: true })
    await until(() => model.running === 1)
    one.abort()
    const given = model.given
    // The next gets the place, and is dropped before it sends anything.
    await waiting.first
    expect(model.begun).toBe(2)
    expect(model.given - given).toBeLessThanOrEqual(3)
    waiting.abort()
    await until(() => model.running === 0)
    // Not streamed: nothing has come yet.
    const silent = begin(url, { messages: [user(text('count 100'))] })
    await until(() => model.running === 1)
    silent.abort()
    await until(() => model.running === 0)
    expect((await call(url, '/health')).json).toEqual({ status: 'ok', running: 0, queued: 0 })
  })

  it('gives up on a client that does not read what it asked for', async () => {
    const model = new Parrot()
    model.words = () => Array(200).fill('x'.repeat(500_000))
    const { port } = await start(model, { writeTimeout: 0.3 })
    const body = JSON.stringify({ messages: [user(text('x'))], stream: true })
    const socket = connect(port, '127.0.0.1').pause()
    socket.on('error', () => {})
    const head = `POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: ${body.length}\r\n`
    socket.write(`${head}Content-Type: application/json\r\n\r\n${body}`)
    await until(() => model.running === 1)
    await until(() => model.running === 0)
    // What was made is what fits between the two, not the 100 MB of the answer.
    expect(model.given).toBeLessThan(100)
    socket.destroy()
  })

  it('works on so many at once, lets so many wait, and turns the rest away', async () => {
    const model = new Parrot()
    const { url } = await start(model, { maxConcurrent: 2, maxQueued: 3, queueTimeout: 30 })
    let [most, refusals, goOn] = [0, 0, () => {}]
    const others = new Promise<void>((resolve) => (goOn = resolve))
    const { stream } = Parrot.prototype
    model.stream = async function* (turns, options) {
      for await (const delta of stream.call(model, turns, options)) {
        most = Math.max(most, model.running)
        await others
        yield delta
      }
    }
    const asked = Array.from({ length: 9 }, () => ask(url, { messages: [user(text('count 100'))] }))
    for (const reply of asked) void reply.then(({ status }) => (refusals += status === 429 ? 1 : 0))
    // Those that are turned away have their answer before the others do.
    await expect.poll(() => refusals).toBe(4)
    goOn()
    const replies = await Promise.all(asked)
    expect(replies.map(({ status }) => status).sort()).toEqual([200, 200, 200, 200, 200, 429, 429, 429, 429])
    expect(most).toBe(2)
    const refused = replies.find(({ status }) => status === 429)!
    expect(refused.json.error).toMatchObject({ type: 'rate_limit_error', code: 'too_many_requests' })
    expect(Number(refused.headers['retry-after'])).toBeGreaterThan(0)
  })

  it('lets nobody wait for ever, and forgets those who left the queue', async () => {
    const model = new Parrot(20)
    const { url } = await start(model, { maxConcurrent: 1, maxQueued: 1, queueTimeout: 3 })
    const first = begin(url, { messages: [user(text('count 100000'))], stream: true })
    await first.first
    const late = await ask(url, { messages: [user(text('x'))] })
    expect([late.status, late.json.error.code, late.headers['retry-after']]).toEqual([503, 'queue_timeout', '3'])
    const left = begin(url, { messages: [user(text('x'))] })
    const queued = async () => (await call(url, '/health')).json.queued
    let seen = 0
    await expect.poll(async () => (seen = Math.max(seen, await queued())), { interval: 10 }).toBe(1)
    left.abort()
    await expect.poll(queued, { interval: 10, timeout: 2500 }).toBe(0)
    first.abort()
  })

  it("tells a model's typed errors, and keeps others to its log", async () => {
    const lines: string[] = []
    const model = new Parrot()
    const { url } = await start(model, { log: (line) => lines.push(line) })
    let fault: () => unknown = () => tensor([1, 2]).reshape([3])
    model.words = () => {
      fault()
      return []
    }
    const body = { messages: [user(text('x'))] }
    const typed = await ask(url, body)
    expect([typed.status, typed.json.error.code]).toEqual([400, 'invalid_request'])
    fault = () => {
      throw new ShapeError('the prompt has 5000 tokens, the model takes 2048')
    }
    expect((await ask(url, { ...body, stream: true })).json.error.message).toContain('2048')
    fault = () => {
      throw new Error('secret detail')
    }
    const hidden = await ask(url, body)
    expect([hidden.status, hidden.text.includes('secret')]).toEqual([500, false])
    expect(lines.join('\n')).toContain('secret detail')
    expect(lines.filter((line) => line.startsWith('POST /v1/chat/completions'))).toHaveLength(3)
    // In the middle of a stream.
    model.stream = async function* () {
      yield { text: 'so far', tokens: 1 }
      throw new Error('secret detail')
    }
    const events_ = events(await ask(url, { ...body, stream: true }))
    expect(JSON.parse(events_.at(-1)!).error).toMatchObject({ type: 'server_error', code: 'internal_error' })
    expect(events_).not.toContain('[DONE]')
    expect((await call(url, '/health')).json.running).toBe(0)
  })

  it('closes: those who wait are refused, answers finish in their time or are aborted', async () => {
    const model = new Parrot(20)
    const { url, close } = await start(model, { maxConcurrent: 1 })
    const finishing = ask(url, { messages: [user(text('count 10'))] })
    await until(() => model.running === 1)
    const waiting = ask(url, { messages: [user(text('count 10'))] })
    await expect.poll(async () => (await call(url, '/health')).json.queued, { interval: 10 }).toBe(1)
    await close()
    expect((await finishing).json.choices[0].message.content).toBe('1 2 3 4 5 6 7 8 9 10 ')
    expect((await waiting).status).toBe(503)
    await expect(call(url, '/health')).rejects.toThrow(/ECONNREFUSED/)

    const short = await start(model, { shutdownTimeout: 0.2 })
    const cut = ask(short.url, { messages: [user(text('count 100'))], stream: true })
    await until(() => model.running === 1)
    await short.close()
    expect(JSON.parse(events(await cut).at(-1)!).error.code).toBe('shutting_down')
    expect(model.running).toBe(0)

    // One that does not listen to its signal holds nobody up for long.
    const deaf = await start(model)
    let wake = () => {}
    model.stream = async function* () {
      model.running += 1
      await new Promise<void>((resolve) => (wake = resolve))
      yield { text: '', tokens: 0 }
    }
    const lost = ask(deaf.url, { messages: [user(text('x'))] })
    await until(() => model.running === 1)
    await deaf.close({ now: true })
    wake()
    expect((await lost).json.error.code).toBe('shutting_down')
  })

  it('refuses wrong options with typed errors', async () => {
    // biome-ignore lint/suspicious/noExplicitAny: wrong on purpose
    const wrong = (model: any, options: any, message: RegExp) =>
      expect(serve(model, options)).rejects.toMatchObject({
        code: 'ERR_CONFIG',
        message: expect.stringMatching(message),
      })
    const model = new Parrot()
    await wrong(null, {}, /model to be an object/)
    await wrong({ name: 'x' }, {}, /model.stream to be a function/)
    await wrong(model, null, /options to be an object/)
    await wrong(model, { maxConcurent: 1 }, /did you mean 'maxConcurrent'/)
    await wrong(model, { port: 70_000 }, /port/)
    await wrong(model, { maxConcurrent: 0 }, /maxConcurrent/)
    await wrong(model, { maxBodyBytes: '1' }, /maxBodyBytes/)
    await wrong(model, { bodyTimeout: Number.NaN }, /bodyTimeout/)
    await wrong(model, { apiKey: 'short' }, /apiKey/)
    await wrong(model, { allowedHosts: 'x' }, /allowedHosts/)
    await wrong(model, { defaultNewTokens: 10, maxNewTokens: 5 }, /defaultNewTokens/)
    const { port } = await start()
    await wrong(model, { port }, /cannot listen .* EADDRINUSE/)
  })
})
