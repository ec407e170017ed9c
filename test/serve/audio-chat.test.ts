import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { chatModels } from '../../lib/cli/chat-models.js'
import { AudioLM, ConfigError, readClip, scope } from '../../lib/index.js'
import { AudioChat, type Served, serve } from '../../lib/serve/index.js'
import { fixturePath } from '../helpers.js'
import { ask, call, events, sound, text, user } from './client.js'
import { sineWav } from './models.mjs'

const folder = fixturePath('models/audio-lm-folder-qwen2_audio')
let chat: AudioChat
let served: Served
beforeAll(async () => {
  chat = (await chatModels.audio?.(folder, {})) as AudioChat
  served = await serve(chat)
})
afterAll(async () => {
  await served?.close({ now: true })
  chat?.dispose()
  chat?.model.dispose()
})

/** A tone of a number of seconds. */
const tone = (seconds: number) => sineWav({ seconds })
const asking = (...content: unknown[]) => ({ messages: [user(...content)], max_tokens: 12, temperature: 0 })

/** The answer of the network by itself. */
const alone = (...content: (string | Buffer)[]) =>
  scope(async () => {
    const { model } = chat
    const parts = []
    for (const part of content) {
      if (typeof part === 'string') parts.push({ type: 'text' as const, text: part })
      else parts.push({ type: 'audio' as const, audio: await readClip(part) })
    }
    const inputs = await model.prepare([{ role: 'user', content: parts }])
    const { tokens } = await model.generate(inputs, { maxNewTokens: 12 })
    return model.tokenizer?.decode(tokens[0] as number[], { skipSpecialTokens: true })
  })

describe('a speech language model that is served', () => {
  it('answers clips and texts of several clients at once, whole and streamed, as alone', async () => {
    const contents = [[tone(0.5), 'Who?'], ['Compare', tone(0.2), tone(0.9)], ['Only text'], [tone(0.7), 'Who?']]
    const expected = []
    for (const content of contents) expected.push(await alone(...content))
    const bodies = contents.map((content) =>
      asking(...content.map((part) => (typeof part === 'string' ? text(part) : sound(part)))),
    )
    const replies = await Promise.all(bodies.map((body) => ask(served.url, body)))
    expect(replies.map(({ json }) => json.choices?.[0].message.content)).toEqual(expected)
    expect(replies[0]?.json.usage.prompt_tokens).toBeGreaterThan(20)
    const streamed = await ask(served.url, { ...bodies[1], stream: true })
    const pieces = events(streamed)
      .filter((event) => event !== '[DONE]')
      .flatMap((event) => JSON.parse(event).choices.map((one: { delta: { content?: string } }) => one.delta.content))
    expect(pieces.join('')).toBe(expected[1])
    const { json } = await call(served.url, '/v1/models')
    expect(json.data[0]).toMatchObject({ id: 'audio-lm-folder-qwen2_audio' })
    expect(JSON.stringify(json)).toContain('audio')
  })

  it('computes a prefix once, of texts and of the same clips, and none of other clips', async () => {
    const cached = async (...messages: unknown[]) => {
      const { json } = await ask(served.url, { messages, max_tokens: 12, temperature: 0 })
      return {
        answer: json.choices[0].message.content as string,
        tokens: json.usage.prompt_tokens as number,
        cached: (json.usage.prompt_tokens_details?.cached_tokens ?? 0) as number,
      }
    }
    const written = text('The same question, asked twice')
    const [first, again] = [await cached(user(written)), await cached(user(written))]
    expect(again.answer).toBe(first.answer)
    expect(again.cached).toBeGreaterThan(8)
    const encoded = vi.spyOn(chat.model.audio_tower, 'forward')
    const turn = user(sound(tone(0.4)), written)
    const one = await cached(turn)
    // What comes before the clip may be that of another test's.
    const before = one.cached
    expect(encoded).toHaveBeenCalledTimes(1)
    const expected = await alone(tone(0.4), 'The same question, asked twice')
    expect(one.answer).toBe(expected)
    encoded.mockClear()
    const same = await cached(turn)
    expect(same).toEqual({ answer: expected, tokens: one.tokens, cached: one.tokens - 1 })
    const more = await cached(turn, { role: 'assistant', content: one.answer }, user(text('And now?')))
    // Encoding the answer's text again may merge its tokens with others.
    expect(more.cached).toBeGreaterThanOrEqual(one.tokens - 1)
    expect(more.tokens).toBeGreaterThan(more.cached)
    expect(encoded).not.toHaveBeenCalled()
    // Another clip of the same length, and the same clip in another place.
    const other = await cached(user(sound(sineWav({ seconds: 0.4, rising: true })), written))
    expect(other.tokens).toBe(one.tokens)
    expect(other.cached).toBe(before)
    expect(encoded).toHaveBeenCalledTimes(1)
    const moved = await cached(user(written, sound(tone(0.4))))
    expect(moved.cached).toBeLessThanOrEqual(first.tokens)
    expect(encoded).toHaveBeenCalledTimes(1)
    encoded.mockRestore()
    expect(chat.metrics()).toMatchObject({ media_cache_windows: expect.any(Number) })
  })

  it('refuses bad clips and conversations with a typed error', async () => {
    const status = async (body: unknown) => {
      const { status, json } = await ask(served.url, body)
      return [status, json.error?.message] as const
    }
    expect(await status(asking(sound(tone(1.5))))).toEqual([400, expect.stringMatching(/1\.50 s, more than 1\.00 s/)])
    expect(await status(asking(sound(Buffer.from('no audio'))))).toEqual([400, expect.stringMatching(/cannot decode/)])
    expect(await status(asking({ type: 'input_audio', input_audio: { data: '' } }))).toEqual([
      400,
      expect.stringMatching(/base64/),
    ])
    expect((await status(asking({ type: 'image_url', image_url: { url: 'data:image/png;base64,AA==' } })))[0]).toBe(400)
    const long = asking(...Array.from({ length: 30 }, () => sound(tone(0.9))))
    expect(await status(long)).toEqual([400, expect.stringMatching(/at most 512 tokens/)])
    expect(await status(asking(text('a <|AUDIO|> in the text')))).toEqual([
      400,
      expect.stringMatching(/expected 1 clips for 1 times/),
    ])
    expect((await ask(served.url, asking(text('still there')))).status).toBe(200)
  })
})

it('AudioChat refuses a model without a tokenizer or a template, and unknown settings', async () => {
  const { model } = chat
  expect(() => new AudioChat(model, { names: 'x' } as never)).toThrow(/names/)
  const bare = AudioLM.fromConfig(model.config)
  expect(() => new AudioChat(bare)).toThrow(ConfigError)
  bare.dispose()
})
