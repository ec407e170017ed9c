import { readdirSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { type Served, type ServeOptions, serve } from '../../lib/serve/index.js'
import { pngBytes } from '../../lib/vision/png.js'
import { fixture, settledTensors } from '../helpers.js'
import { PATIENCE } from '../patience.js'
import { nodeAv } from '../vision/node-av.js'
import { ask, call, events, text, user } from './client.js'
import { facePpm, Parrot, Watcher } from './models.mjs'

const flat = (width: number, height: number, colour = [10, 20, 30]) =>
  pngBytes(
    Uint8Array.from({ length: 3 * width * height }, (_, i) => colour[i % 3] as number),
    width,
    height,
  )
const picture = (bytes: Buffer, type = 'png') => ({
  type: 'image_url',
  image_url: { url: `data:image/${type};base64,${bytes.toString('base64')}` },
})
const film = (url: string) => ({ type: 'video_url', video_url: { url } })
const frames = (...all: Buffer[]) => film(`data:video/png;base64,${all.map((one) => one.toString('base64')).join(',')}`)
const left = () => readdirSync(tmpdir()).filter((name) => name.startsWith('voxtorch-serve-') && !/salmonn/.test(name))

describe('pictures and films in messages', () => {
  const model = new Watcher()
  let served: Served
  const running: Served[] = []
  const start = async (options: ServeOptions = {}) => {
    const one = await serve(new Watcher(), options)
    running.push(one)
    return one.url
  }
  beforeAll(async () => {
    served = await serve(model, { maxMediaParts: 4, maxPixels: 10_000, maxVideoFrames: 12, maxBodyBytes: 1_000_000 })
  })
  afterAll(async () => {
    for (const one of [served, ...running]) await one.close({ now: true })
  })
  const content = async (body: object) => {
    const { json, text } = await ask(served.url, body)
    expect(json?.choices, text).toBeDefined()
    return json.choices[0].message.content as string
  }

  it('reach the model as pixels, in their order, over the turns', async () => {
    const [small, wide] = [await flat(8, 6), await flat(10, 2, [200, 0, 7])]
    const messages = [
      user(text('first '), picture(small)),
      { role: 'assistant', content: 'seen' },
      user(picture(wide), frames(small, small, small), text('and now?'), picture(facePpm({ width: 4, height: 4, ground: [9, 9, 9] }), 'x-portable-pixmap')), // biome-ignore format: one line
    ]
    expect(await content({ messages })).toMatch(
      /^Turn 3: and now\? \| 8 × 6 in 10 20 30, 10 × 2 in 200 0 7, film of 3, 4 × 4 in /,
    )
    const [first, , last] = model.turns
    expect(first?.content.map(({ type }) => type)).toEqual(['text', 'image'])
    expect(last?.content.map(({ type }) => type)).toEqual(['image', 'video', 'text', 'image'])
    const image = last?.content[0] as { image: { data: Uint8Array } } | undefined
    expect([...(image?.image.data ?? [])].slice(0, 6)).toEqual([200, 0, 7, 200, 0, 7])
  })

  it('gives tasks their words, probabilities and what was looked at, streamed as whole', async () => {
    const body = { messages: [user(picture(await flat(8, 6)), text('Oh'))], task: 'mood', views: true }
    const { json } = await ask(served.url, body)
    const { message } = json.choices[0]
    expect(message).toMatchObject({
      asked: 'mood of "Oh"?',
      label_scores: { 'Joy.': 1 / 6, 'Fear.': 2 / 6, 'Neutral.': 3 / 6 },
      views: [{ kind: 'image', grid: [2, 1], frames: null, tiles: expect.any(Array) }],
    })
    expect(message.views[0].tiles).toHaveLength(3)
    const [tile] = message.views[0].tiles as [string]
    expect(Buffer.from(tile.replace('data:image/png;base64,', ''), 'base64')).toEqual(await flat(16, 16))
    const deltas = events(await ask(served.url, { ...body, stream: true })).flatMap((event) =>
      event === '[DONE]' ? [] : [JSON.parse(event).choices[0]?.delta],
    )
    expect(deltas.filter((delta) => delta?.asked ?? delta?.views ?? delta?.label_scores)).toEqual([
      { asked: message.asked },
      { views: message.views },
      { label_scores: message.label_scores },
    ])
    expect(deltas.map((delta) => delta?.content ?? '').join('')).toBe(message.content)
    // Labels of one's own; and nothing where nothing is wanted.
    const own = await ask(served.url, { messages: [user(text('Oh'))], score_labels: ['a', 'b'] })
    expect(own.json.choices[0].message).toMatchObject({ label_scores: { a: 1 / 3, b: 2 / 3 } })
    const bare = (await ask(served.url, { messages: [user(text('Oh'))] })).json.choices[0].message
    expect(Object.keys(bare).sort()).toEqual(['content', 'refusal', 'role'])
  })

  it('says in /v1/models what it takes and was taught', async () => {
    const [entry] = (await call(served.url, '/v1/models')).json.data
    expect(entry).toMatchObject({
      input_modalities: ['text', 'image', 'video'],
      extras: ['label_scores', 'views'],
      tasks: [{ id: 'mood', title: 'Mood', hint: 'Which mood it is.' }, { id: 'why' }],
      limits: { maxMediaParts: 4, maxPixels: 10_000, maxVideoFrames: 12 },
    })
  })

  const refusal = async (part: unknown, code: string, what: RegExp, more: object = {}) => {
    const reply = await ask(served.url, { messages: [user(part, text('x'))], ...more })
    expect(reply.json?.error, reply.text).toMatchObject({ code })
    expect(reply.status).toBe(400)
    expect(reply.json.error.message).toMatch(what)
    return reply.json.error.param as string
  }

  it('refuses what is none, too large or too many by name, and leaves nothing behind', async () => {
    const before = await settledTensors()
    const files = left()
    const good = await flat(8, 6)
    const image = (url: unknown, more = {}) => ({ type: 'image_url', image_url: { url, ...more } })
    expect(await refusal(image('https://example.org/a.png'), 'invalid_value', /fetches no URLs/)).toBe('messages[0].content[0].image_url.url') // biome-ignore format: one line
    await refusal(image('file:///etc/passwd'), 'invalid_value', /fetches no URLs/)
    await refusal(image('data:text/html;base64,AAAA'), 'invalid_value', /data:image/)
    await refusal(image(7), 'invalid_value', /expected a data:image\/… URL, got 7/)
    await refusal({ type: 'image_url' }, 'invalid_value', /URL, got undefined/)
    await refusal(image('data:image/png;base64,AAAA', { detail: 'low' }), 'unsupported_value', /detail/)
    await refusal(image('data:image/png;base64,AAAA', { size: 3 }), 'unknown_parameter', /"size"/)
    await refusal(image('data:image/png;base64,*&!'), 'invalid_base64', /base64/)
    await refusal(image('data:image/png;base64,'), 'invalid_base64', /base64/)
    await refusal(picture(Buffer.from('no picture')), 'invalid_image', /expected JPEG.* got an unknown format/)
    await refusal(picture(good.subarray(0, 40)), 'invalid_image', /cannot decode the image/)
    // A picture that says it has no pixels, one that says it has too many, and one that has.
    const sized = (width: number, height: number) => {
      const bytes = Buffer.from(good)
      bytes.writeUInt32BE(width, 16)
      bytes.writeUInt32BE(height, 20)
      return picture(bytes)
    }
    await refusal(sized(0, 0), 'invalid_image', /cannot decode the image/)
    await refusal(sized(40_000, 40_000), 'invalid_image', /cannot decode the image/)
    await refusal(picture(Buffer.from('P6 0 0 255\n'), 'x-portable-pixmap'), 'invalid_image', /0 × 0|width|size/)
    await refusal(picture(Buffer.from('P6 40000 40000 255\nabc'), 'x-portable-pixmap'), 'invalid_image', /40000 × 40000|pixels/) // biome-ignore format: one line
    await refusal(picture(await flat(101, 100)), 'invalid_image', /at most 10000 pixels, got 101 × 100/)
    const half = picture(await flat(100, 60))
    expect((await ask(served.url, { messages: [user(half, half)] })).json.error).toMatchObject({ code: expect.stringMatching(/invalid_image|too_many_pixels/) }) // biome-ignore format: one line
    const five = Array.from({ length: 5 }, () => picture(good))
    expect((await ask(served.url, { messages: [user(...five)] })).json.error).toMatchObject({
      code: 'too_many_pictures',
    })
    await refusal(frames(...Array.from({ length: 13 }, () => good)), 'too_many_frames', /maxVideoFrames/)
    expect(await refusal(frames(good, await flat(6, 8)), 'invalid_video', /expected 8 × 6 as the first frame has, got 6 × 8/)).toBe('messages[0].content[0].video_url.frames[1]') // biome-ignore format: one line
    await refusal(frames(good, Buffer.from('x')), 'invalid_video', /cannot decode the frame/)
    await refusal(film('data:video/png;base64,'), 'invalid_base64', /base64/)
    await refusal(film('data:image/png;base64,AAAA'), 'invalid_value', /data:video/)
    const said = { messages: [user(text('x')), { role: 'assistant', content: [picture(good)] }, user(text('y'))] }
    expect((await ask(served.url, said)).json.error.message).toMatch(
      /in user messages only, got one in the role "assistant"/,
    )
    await refusal(text('x'), 'unsupported_value', /expected a task of .*: mood, why; got "sing"/, { task: 'sing' })
    for (const wrong of [[], ['a'], ['a', 'a'], ['a', ''], 'a', ['a', 7]]) {
      await refusal(text('x'), 'invalid_value', /score_labels: expected 2 to 64/, { score_labels: wrong })
    }
    await refusal(text('x'), 'invalid_value', /views: expected true or false, got "yes"/, { views: 'yes' })
    expect((await ask(served.url, { messages: [user(picture(Buffer.alloc(2_000_000)))] })).status).toBe(413)
    expect(await settledTensors()).toBe(before)
    // What a film was written to is removed behind the answer.
    await vi.waitFor(() => expect(left()).toEqual(files), PATIENCE)
    expect(await content({ messages: [user(picture(good))] })).toMatch(/8 × 6 in 10 20 30/)
  })

  it('a model without eyes, and one without such extras, refuse them by name', async () => {
    const blind = await serve(new Parrot())
    running.push(blind)
    const error = async (body: object) => (await ask(blind.url, { messages: [user(text('x'))], ...body })).json.error
    const good = await flat(2, 2)
    expect(await error({ messages: [user(picture(good))] })).toMatchObject({
      message: 'messages[0].content[0].type: expected text or audio, the input modalities of parrot, got image_url.',
      code: 'unsupported_value',
      param: 'messages[0].content[0].type',
    })
    expect((await error({ messages: [user(frames(good))] })).message).toMatch(
      /expected text or audio, the input modalities of parrot, got video_url/,
    )
    expect((await error({ task: 'mood' })).message).toBe('task: expected none, as parrot has no tasks; got "mood".')
    expect((await error({ score_labels: ['a', 'b'] })).message).toBe(
      'score_labels: not supported by parrot. Leave it out.',
    )
    expect((await error({ views: true })).message).toBe('views: not supported by parrot. Leave it out.')
  })

  it('a film as a file is opened for the answer alone, or says what is missing', async () => {
    const files = left()
    const before = await settledTensors()
    const url = await start()
    const { cases, tensors } = await fixture<{ name: string; count: number }>('vision/videos-decoded')
    const bytes = Buffer.from(tensors[`${cases[0]?.name}/file/bytes`]?.dataSync() as Uint8Array)
    for (const tensor of Object.values(tensors)) tensor.dispose()
    const asked = (data: Buffer) =>
      ask(url, { messages: [user(film(`data:video/mp4;base64,${data.toString('base64')}`))] })
    const [whole, cut, none] = [
      await asked(bytes),
      await asked(bytes.subarray(0, 300)),
      await asked(Buffer.from('no film')),
    ]
    if (nodeAv) {
      expect(whole.json.choices[0].message.content).toBe(`Turn 1:  | film of ${cases[0]?.count}`)
      for (const { json } of [cut, none]) expect(json.error).toMatchObject({ code: 'invalid_video' })
      expect(cut.json.error.message).not.toContain('voxtorch-serve-')
    } else {
      for (const { status, json } of [whole, cut, none]) {
        expect([status, json.error.code]).toEqual([501, 'decoder_missing'])
        expect(json.error.message).toMatch(/npm's node-av is missing/)
      }
    }
    // What a film was written to is removed behind the answer.
    await vi.waitFor(() => expect(left()).toEqual(files), PATIENCE)
    expect(await settledTensors()).toBe(before)
  })
})
