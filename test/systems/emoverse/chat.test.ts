import { mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { chatModels } from '../../../lib/cli/chat-models.js'
import { parseServe } from '../../../lib/cli/serve.js'
import { type InternVL, readImage } from '../../../lib/index.js'
import {
  type ChatAnswerOptions,
  type ChatDelta,
  type ChatPart,
  type ChatTurn,
  type Served,
  serve,
} from '../../../lib/serve/index.js'
import {
  EMOTION_LABELS,
  type EmoVerse,
  EmoVerseChat,
  type EmoVerseQuestion,
  SENTIMENT_LABELS,
  trainEmoVerse,
} from '../../../lib/systems/emoverse/index.js'
import { fixture, settledTensors } from '../../helpers.js'
import { ask, begin, call, events, sound, text, user } from '../../serve/client.js'
import { facePpm, sineWav } from '../../serve/models.mjs'
import { nodeAv } from '../../vision/node-av.js'
import { EMOTION_QUESTION, FACES, LESSONS, taughtEmoVerse } from './taught.js'
import { asked, hearingEmoVerse, tinyEmoVerse, voice } from './tiny.js'

let model: EmoVerse
let chat: EmoVerseChat
beforeAll(async () => {
  model = await taughtEmoVerse()
  chat = new EmoVerseChat(model)
})
afterAll(() => model.dispose())

const raw = async (bytes: Uint8Array) => {
  using picture = await readImage(bytes)
  const [height, width] = picture.shape as [number, number]
  return { width, height, data: (await picture.data()) as Uint8Array }
}
const image = async (bytes: Uint8Array): Promise<ChatPart> => ({ type: 'image', image: await raw(bytes) })
const said = (value: string): ChatPart => ({ type: 'text', text: value })
const from = (role: ChatTurn['role'], ...content: ChatPart[]): ChatTurn => ({ role, content })
const settings = (more: Partial<ChatAnswerOptions> = {}): ChatAnswerOptions => ({
  maxNewTokens: 20,
  signal: new AbortController().signal,
  ...more,
})

async function gathered(stream: AsyncIterable<ChatDelta>) {
  const deltas: ChatDelta[] = []
  for await (const delta of stream) deltas.push(delta)
  const found = <K extends keyof ChatDelta>(key: K) => deltas.find((delta) => delta[key] !== undefined)?.[key]
  return {
    text: deltas.map((delta) => delta.text).join(''),
    tokens: deltas.reduce((sum, { tokens }) => sum + tokens, 0),
    ...{ asked: found('asked'), labelScores: found('labelScores'), views: found('views') },
    ...{ promptTokens: found('promptTokens'), finishReason: deltas.at(-1)?.finishReason },
  }
}
const answer = (messages: ChatTurn[], more: Partial<ChatAnswerOptions> = {}) =>
  gathered(chat.stream(messages, settings(more)))

describe('EmoVerseChat', () => {
  it('answers about the picture that it is shown, with shares of the labels and the tiles, then the next turn', async () => {
    for (const [mood, label, why] of [['joy', 'Joy.', 'A smile.'], ['sadness', 'Sadness.', 'No smile.']] as const) {
      const face = await image(FACES[mood])
      const first = await answer([from('user', face)], { task: 'MER', views: true })
      expect(first).toMatchObject({ asked: EMOTION_QUESTION, text: label, finishReason: 'stop' })
      const question = { query: `<image>${EMOTION_QUESTION}`, images: [FACES[mood]] }
      expect(first.promptTokens).toBe((await model.encode(question, { answer: false })).inputIds.length)
      const shares = await model.scoreLabels(question, EMOTION_LABELS.meld)
      for (const one of EMOTION_LABELS.meld) expect(first.labelScores?.[one]).toBeCloseTo(shares[one] as number, 5)
      expect(first.labelScores?.[label]).toBeGreaterThan(0.9)
      expect(first.views).toEqual(await model.look({ images: [FACES[mood]] }))
      expect(first.views?.[0]).toMatchObject({ kind: 'image', grid: [4, 3], tiles: 13, side: 112 })
      const next = [from('user', face, said(EMOTION_QUESTION)), from('assistant', said(label)), from('user', said('Why?'))]
      expect(await answer(next, { views: true })).toMatchObject({ text: why, asked: undefined, views: undefined })
    }
  }) // biome-ignore format: a mood a line

  it('looks at a picture once, and reads of the next turn what is new', async () => {
    const network = model.model as InternVL
    const face = await image(facePpm({ width: 120, height: 120, ground: [1, 99, 3] }))
    const look = vi.spyOn(network, 'encodeImages')
    const encode = vi.spyOn(model, 'encode')
    const take = vi.spyOn(model.prefixCaches, 'take')
    const known = async () => Promise.all(take.mock.results.splice(0).map(async ({ value }) => (await value).known))
    try {
      const first = await answer([from('user', face)], { task: 'MER' })
      // The labels read the question, and the answer goes on with it.
      const [labels, words] = await known()
      expect(look).toHaveBeenCalledTimes(1)
      expect(encode).toHaveBeenCalledTimes(1)
      expect(words).toBe((first.promptTokens as number) - 1)
      expect(labels).toBeLessThan(100)
      const messages = [from('user', face, said(EMOTION_QUESTION)), from('assistant', said(first.text)), from('user', said('Why?'))] // biome-ignore format: one line
      const second = await answer(messages)
      expect(look).toHaveBeenCalledTimes(1)
      expect((await known())[0]).toBeGreaterThanOrEqual(first.promptTokens as number)
      expect(second.promptTokens).toBeGreaterThan(first.promptTokens as number)
    } finally {
      vi.restoreAllMocks()
    }
  })

  it('asks with media at the places of their parts, and its system text', async () => {
    const asked: EmoVerseQuestion[] = []
    const encode = vi.spyOn(model, 'encode').mockImplementation(async (question) => {
      asked.push(question)
      throw new Error('enough')
    })
    const ask = async (messages: ChatTurn[], more: Partial<ChatAnswerOptions> = {}) => {
      await expect(answer(messages, more)).rejects.toThrow('enough')
      return asked.pop()
    }
    try {
      const [joy, sadness] = [await raw(FACES.joy), await raw(FACES.sadness)]
      const [a, b]: ChatPart[] = [{ type: 'image', image: joy }, { type: 'image', image: sadness }]
      const film: ChatPart = { type: 'video', frames: [joy, sadness] }
      const messages = [
        from('system', said('Be '), said('kind.')),
        from('user', said('Is '), a as ChatPart, said('like '), film, said('?')),
        from('assistant', said('No.')),
        from('user', said('And this?'), b as ChatPart),
      ]
      expect(await ask(messages)).toEqual({
        query: 'And this?<image>',
        system: 'Be kind.',
        history: [['Is <image>like <video>?', 'No.']],
        images: [joy, sadness],
        videos: [[joy, sadness]],
      })
      // A task's words stand where the message's first text stood.
      expect((await ask(messages, { task: 'FER' }))?.query).toBe("The person says: 'And this?' <expression> Detail the facial expressions used in the image.<image>")
      expect((await ask([from('user', film, said('Oh, '), said('no!'))], { task: 'ERI' }))?.query).toBe(
        "<video>The person says: 'Oh, no!' <reason> What is the emotional state of the person in the video? Please tell me the reason.",
      )
    } finally {
      encode.mockRestore()
    }
  }) // biome-ignore format: long lines

  it('asks the five tasks in the words that it was taught, with the labels of two', async () => {
    const words = [from('user', said("It's fine."))]
    const sentiment = await answer(words, { task: 'MSA', maxNewTokens: 1 })
    expect(sentiment.asked).toBe("The person says: 'It's fine.' <sentiment> Please determine which sentiment label in the video represents: positive or negative.")
    expect(Object.keys(sentiment.labelScores ?? {})).toEqual(SENTIMENT_LABELS)
    expect((await answer(words, { task: 'FER', maxNewTokens: 1 })).labelScores).toBeUndefined()
    const own = await answer(words, { labels: ['Yes.', 'No.'], maxNewTokens: 1 })
    expect(Object.values(own.labelScores ?? {}).reduce((sum, share) => sum + share, 0)).toBeCloseTo(1, 5)
    const mosei = new EmoVerseChat(model, { names: 'mosei', name: 'faces' })
    const other = await gathered(mosei.stream(words, settings({ task: 'MER', maxNewTokens: 1 })))
    expect(other.asked).toContain('The person says: "It\'s fine." <emotion> ')
    expect(Object.keys(other.labelScores ?? {})).toEqual(EMOTION_LABELS.mosei)
    expect(mosei.name).toBe('faces')

    // Causes: of a conversation, whose emotions are told or guessed.
    const told = 'Anna (joy): We won!\n\n Ben: You lied to me! \nAnna (Surprise): What: me?'
    const causes = await answer([from('user', said(told))], { task: 'ECPE', maxNewTokens: 1 })
    const query = "The person says: 'You lied to me!' "
    const shares = Object.entries(await model.scoreLabels({ query: `${query}${EMOTION_QUESTION}` }, EMOTION_LABELS.meld))
    const guessed = shares.reduce((best, one) => (one[1] > best[1] ? one : best))[0].toLowerCase().replace('.', '')
    expect(causes.asked).toContain(`Input conversation:1_joy. Anna: We won!\n2_${guessed}. Ben: You lied to me!\n3_surprise. Anna: What: me?\n`)
    expect(causes.asked).toContain(`Candidate utterances:1_joy. Anna: We won!\n2_${guessed}. Ben: You lied to me!\nTarget utterance:3_surprise. Anna: What: me?\n`)
    const wrong: [string, RegExp][] = [
      ['', /a line for each utterance/],
      ['Anna: Alone.', /a line for each utterance/],
      ['Anna: One.\nand two', /line 2: expected a speaker and a text/],
      ['Anna: One.\n: two', /line 2: expected a speaker and a text/],
      ['Anna (glee): One.\nBen: Two.', /line 1: expected one of the emotions anger, sadness, .*, got “glee”/],
    ]
    for (const [value, error] of wrong) await expect(answer([from('user', said(value))], { task: 'ECPE' })).rejects.toThrow(error)
  }) // biome-ignore format: long lines

  it('shows the frames of a film, and what a film makes of the picture beside it', async () => {
    const [joy, sadness] = [await raw(FACES.joy), await raw(FACES.sadness)]
    const film: ChatPart = { type: 'video', frames: Array.from({ length: 10 }, (_, i) => (i < 5 ? joy : sadness)) }
    const face: ChatPart = { type: 'image', image: sadness }
    const { views } = await answer([from('user', film, said('?'), face)], { views: true, maxNewTokens: 1 })
    expect(views?.map(({ pixels: _, ...rest }) => rest)).toEqual([
      { kind: 'video', tiles: 8, side: 112, grid: null, frames: [0, 1, 2, 3, 4, 6, 7, 8] },
      expect.objectContaining({ kind: 'image', tiles: 1 }),
    ])
    const later = [from('user', film), from('assistant', said('Oh.')), from('user', face, said('?'))]
    expect((await answer(later, { views: true, maxNewTokens: 1 })).views).toMatchObject([{ kind: 'image', tiles: 1 }])
  })

  it('draws by its seed, stops when nobody listens, and leaves nothing behind', async () => {
    const messages = [from('user', await image(FACES.joy), said('Tell me.'))]
    const draw = (seed: number) => answer(messages, { temperature: 2, seed, maxNewTokens: 12 })
    const [first, again, other] = [await draw(1), await draw(1), await draw(2)]
    expect(again.text).toBe(first.text)
    expect(other.text).not.toBe(first.text)
    model.prefixCaches.dispose()
    const before = await settledTensors()
    const stop = new AbortController()
    const read = async () => {
      for await (const { tokens } of chat.stream(messages, settings({ signal: stop.signal, temperature: 2, maxNewTokens: 500 }))) {
        if (tokens > 0) stop.abort(new Error('gone'))
      }
    }
    await expect(read()).rejects.toThrow('gone')
    for await (const { tokens } of chat.stream(messages, settings())) if (tokens > 0) break
    model.prefixCaches.dispose()
    expect(await settledTensors()).toBe(before)
  }) // biome-ignore format: long lines

  it('refuses what is no conversation, and what leaves no room', async () => {
    const face = await image(FACES.joy)
    const wrong: [ChatTurn[], RegExp, Partial<ChatAnswerOptions>?][] = [
      [[], /list of messages/],
      [[from('user')], /messages\[0\]: expected a text or a file, got an empty message/],
      [[from('user', said('a')), from('user', said('b'))], /expected role 'assistant', got 'user'/],
      [[from('user', said('a')), from('assistant', face), from('user', said('b'))], /expected text in the reply of the assistant/],
      [[from('user', { type: 'audio', samples: new Float32Array(9), seconds: 1 })], /expected parts of type text or image or video, got "audio"/],
      [[from('user', face, said('an <image> of'))], /messages\[0\]: expected text without media markers, got <image>/],
      [[from('user', face, said('a <IMG_CONTEXT>'))], /expected texts without <IMG_CONTEXT>/],
      [[from('user', said('a'))], /expected numBeams 1, got 2/, { numBeams: 2 }],
      ...(['MSA', 'MER', 'FER', 'ERI'] as const).map((task): [ChatTurn[], RegExp, Partial<ChatAnswerOptions>] => [
        [from('user', said(' \n'))],
        /: the task (Sentiment|Emotion|Expression|Reason): expected text or an image or a video, got an empty message/,
        { task },
      ]),
      [[from('user', said('a'.repeat(4000)))], /expected at most \d+ of 4096 tokens for the answer to a conversation of \d+, got maxNewTokens 200/, { maxNewTokens: 200 }],
    ]
    for (const [messages, error, more] of wrong) await expect(answer(messages, more)).rejects.toThrow(error)
    for (const given of [{ concurrent: 0 }, { names: 'friends' }, { nam: 'x' }]) {
      expect(() => new EmoVerseChat(model, given as object)).toThrow(/concurrent|names|nam/)
    }
    expect(() => new EmoVerseChat({} as EmoVerse)).toThrow(/an EmoVerse/)
    using reader = await tinyEmoVerse()
    const blind = new EmoVerseChat(reader)
    expect(blind).toMatchObject({ inputModalities: ['text'], extras: ['label_scores'] })
    await expect(gathered(blind.stream([from('user', face)], settings()))).rejects.toThrow(/expected parts of type text, got "image"/)
    expect((await gathered(blind.stream([from('user', said('Oh.'))], settings({ task: 'MER', maxNewTokens: 2 })))).tokens).toBe(2)
  }) // biome-ignore format: long lines
})

it('hears sounds at the places of their parts, where the model has ears', async () => {
  using hearing = await hearingEmoVerse()
  const ears = new EmoVerseChat(hearing, { name: 'ears' })
  expect(ears.inputModalities).toEqual(['text', 'audio', 'image', 'video'])
  const part = (pitch: number): ChatPart => ({ type: 'audio', samples: voice(pitch, 0.5), seconds: 0.5 })
  const face = await image(facePpm({ width: 28, height: 28 }))
  const asking = (pitch: number) => [from('user', face, said('Is it '), part(pitch), said('?'))]
  const labels = ['Yes.', 'No.']
  const pictured = { images: [facePpm({ width: 28, height: 28 })], audios: [voice(200, 0.5)] }
  const question = { query: '<image>Is it <audio>?', ...pictured }
  const high = await gathered(ears.stream(asking(200), settings({ labels, views: true, maxNewTokens: 4 })))
  expect(high.promptTokens).toBe((await hearing.encode(question, { answer: false })).inputIds.length)
  expect(high.views).toHaveLength(1)
  expect(high.text).toBe((await hearing.generate([question], { maxNewTokens: 4 }))[0]?.text)
  const shares = await hearing.scoreLabels(question, labels)
  expect(high.labelScores?.['Yes.']).toBeCloseTo(shares['Yes.'] as number, 5)
  const deep = await gathered(ears.stream(asking(900), settings({ labels, maxNewTokens: 4 })))
  expect(Math.abs((deep.labelScores?.['Yes.'] as number) - (shares['Yes.'] as number))).toBeGreaterThan(1e-5)
  // A task about a voice alone, and the turn behind it.
  const mood = await gathered(ears.stream([from('user', part(200))], settings({ task: 'MER', maxNewTokens: 1 })))
  expect(mood.asked).toBe(EMOTION_QUESTION)
  const later = [from('user', part(200), said('Who?')), from('assistant', said('A.')), from('user', said('And?'), part(900))]
  const both = { query: 'And?<audio>', history: [['<audio>Who?', 'A.']] as [string, string][], audios: [voice(200, 0.5), voice(900, 0.5)] }
  const { promptTokens } = await gathered(ears.stream(later, settings({ maxNewTokens: 1 })))
  expect(promptTokens).toBe((await hearing.encode(both, { answer: false })).inputIds.length)
  // By the API, and where there are no ears.
  const served = await serve(ears, { defaultNewTokens: 2 })
  const deaf = await serve(chat, { defaultNewTokens: 2 })
  try {
    const heard = user(sound(sineWav({ seconds: 0.5 })), text('Who is it?'))
    expect((await ask(served.url, { messages: [heard] })).status).toBe(200)
    const { status, json } = await ask(deaf.url, { messages: [heard] })
    expect([status, json.error.message]).toEqual([400, expect.stringMatching(/emoverse: .*expected parts of type text or image or video, got/)])
  } finally {
    await served.close({ now: true })
    await deaf.close({ now: true })
  }
}) // biome-ignore format: long lines

describe('the API', () => {
  let served: Served
  const limits = { maxPixels: 400_000, maxVideoFrames: 12, maxMediaParts: 4, maxBodyBytes: 3_000_000, maxNewTokens: 40 }
  beforeAll(async () => {
    served = await serve(chat, { ...limits, maxQueued: 100, queueTimeout: 600, answerTimeout: 600 })
  })
  afterAll(() => served.close({ now: true }))
  const address = (kind: string, ...files: Buffer[]) => `data:${kind};base64,${files.map((one) => one.toString('base64')).join(',')}` // biome-ignore format: one line
  const picture = (bytes: Buffer) => ({
    type: 'image_url',
    image_url: { url: address('image/x-portable-pixmap', bytes) },
  })
  const frames = (...all: Buffer[]) => ({
    type: 'video_url',
    video_url: { url: address('video/x-portable-pixmap', ...all) },
  })

  it('has a conversation about a picture, whole and streamed', async () => {
    const [entry] = (await call(served.url, '/v1/models')).json.data
    expect(entry).toMatchObject({
      id: 'emoverse',
      ...{ input_modalities: ['text', 'image', 'video'], extras: ['label_scores', 'views'] },
      tasks: ['Sentiment', 'Emotion', 'Expression', 'Reason', 'Cause'].map((title) => ({ title })),
    })
    const body = { messages: [user(picture(FACES.sadness))], task: 'MER', views: true, max_tokens: 20 }
    const { json } = await ask(served.url, body)
    const { message, finish_reason } = json.choices[0]
    expect(message).toMatchObject({ content: 'Sadness.', asked: EMOTION_QUESTION })
    expect([finish_reason, json.usage.completion_tokens]).toEqual(['stop', 9])
    expect(message.label_scores['Sadness.']).toBeGreaterThan(0.9)
    expect(message.views[0].tiles).toHaveLength(13)
    const next = [user(picture(FACES.sadness), text(message.asked)), { role: 'assistant', content: 'Sadness.' }, user(text('Why?'))]
    const deltas = events(await ask(served.url, { messages: next, stream: true })).slice(0, -1).map((event) => JSON.parse(event).choices[0].delta)
    expect(deltas.map(({ content = '' }) => content).filter(Boolean).length).toBeGreaterThan(3)
    expect(deltas.map(({ content = '' }) => content).join('')).toBe('No smile.')
  }) // biome-ignore format: long lines

  it('takes a film as frames, and as a file where that can be read', async () => {
    const body = (part: object) => ({ messages: [user(part)], task: 'MSA', views: true, max_tokens: 2 })
    const { json } = await ask(served.url, body(frames(...Array.from({ length: 12 }, () => FACES.joy))))
    expect(json.choices[0].message.views).toMatchObject([{ kind: 'video', frames: { length: 8 } }])
    expect(Object.keys(json.choices[0].message.label_scores)).toEqual(SENTIMENT_LABELS)
    const { cases, tensors } = await fixture<{ name: string; count: number }>('vision/videos-decoded')
    const bytes = Buffer.from(tensors[`${cases[0]?.name}/file/bytes`]?.dataSync() as Uint8Array)
    for (const tensor of Object.values(tensors)) tensor.dispose()
    // Of its own, since others may be serving films on this machine too.
    const temporary = mkdtempSync(join(tmpdir(), 'voxtorch-emoverse-films-'))
    vi.stubEnv('TMPDIR', temporary)
    const file = await ask(served.url, body({ type: 'video_url', video_url: { url: address('video/mp4', bytes) } }))
    vi.unstubAllEnvs()
    if (nodeAv) expect(file.json.choices[0].message.views).toMatchObject([{ kind: 'video', tiles: { length: 8 } }])
    else expect([file.status, file.json.error.code]).toEqual([501, 'decoder_missing'])
    await expect.poll(() => readdirSync(temporary)).toEqual([])
    rmSync(temporary, { recursive: true })
  })

  it('refuses what is too large or hostile, and answers 12 at once among those that leave; memory returns', async () => {
    const large = facePpm({ width: 640, height: 640 })
    const hostile: [object | string, number, RegExp][] = [
      [{ messages: [user(picture(large))] }, 400, /at most 400000 pixels/],
      [{ messages: [user(frames(...Array.from({ length: 13 }, () => FACES.joy)))] }, 400, /maxVideoFrames/],
      [{ messages: [user(...Array.from({ length: 5 }, () => picture(FACES.joy)))] }, 400, /at most 4 images and videos/],
      [{ messages: [user(picture(Buffer.alloc(2_500_000)))] }, 413, /at most .* bytes/],
      [{ messages: [user(picture(FACES.joy), text('<IMG_CONTEXT>'))] }, 400, /IMG_CONTEXT/],
      [{ messages: [user(picture(FACES.joy), text('<image>'))] }, 400, /expected text without media markers, got <image>/],
      [{ messages: [user(text('x'.repeat(5000)))] }, 400, /expected at most 0 of 4096 tokens/],
      [{ messages: [user(text('x'))], num_beams: 3 }, 400, /expected numBeams 1, got 3/],
      ['{"messages":', 400, /JSON/],
    ]
    const round = async () => {
      const good = LESSONS.slice(0, 2).flatMap(({ images = [], response }) =>
        Array.from({ length: 6 }, async (_, i) => {
          const reply = await ask(served.url, { messages: [user(picture(images[0] as Buffer))], task: 'MER', stream: i % 2 === 0 })
          const whole = i % 2 === 0 ? events(reply).slice(0, -1).map((event) => JSON.parse(event).choices[0].delta.content ?? '').join('') : reply.json.choices[0].message.content
          return [whole, response]
        }),
      )
      const left = Array.from({ length: 4 }, (_, i) => {
        const request = begin(served.url, { messages: [user(picture(FACES.joy))], task: 'MER', stream: true })
        if (i % 2) setTimeout(request.abort, 30 * i)
        else void request.first.then(request.abort, () => {})
        return request.first.catch(() => 'gone')
      })
      const refused = Promise.all(hostile.map(([body]) => ask(served.url, body)))
      await Promise.all(left)
      for (const [whole, response] of await Promise.all(good)) expect(whole).toBe(response)
      for (const [i, { status, text: said }] of (await refused).entries()) {
        expect([status, said]).toEqual([hostile[i]?.[1], expect.stringMatching(hostile[i]?.[2] as RegExp)])
      }
    }
    const idle = async () => (await call(served.url, '/health')).json
    const rest = async () => {
      await expect.poll(idle).toMatchObject({ running: 0, queued: 0 })
      model.prefixCaches.dispose()
      return settledTensors()
    }
    await round()
    const before = await rest()
    await round()
    expect(await rest()).toBe(before)
  }) // biome-ignore format: long lines
})

it('`voxtorch serve emoverse` loads a folder of it', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'voxtorch-emoverse-chat-'))
  try {
    await model.save(join(folder, 'saved'))
    const loaded = (await chatModels.emoverse?.(join(folder, 'saved'), { dtype: 'float64' })) as EmoVerseChat
    expect(loaded).toMatchObject({ name: 'emoverse', inputModalities: ['text', 'image', 'video'], concurrent: 2 })
    expect(loaded.model.llm.parameters()[0]?.dtype).toBe('float64')
    const messages = [from('system', said('')), from('user', await image(FACES.joy))]
    expect((await gathered(loaded.stream(messages, settings({ task: 'MER' })))).text).toBe('Joy.')
    loaded.model.dispose()
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
})

it('`voxtorch serve emoverse` takes a base with adapters, by the names that `emoverse infer` has', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'voxtorch-emoverse-chat-'))
  try {
    const base = join(folder, 'base')
    using words = await tinyEmoVerse({ seed: 3, system: 'Own.' })
    await words.save(base)
    const recipe = { learningRate: 1e-2, batchSize: 6, accumulation: 1, epochs: 2, gradientCheckpointing: false }
    const stages = [{ data: asked(18), recipe }, { data: asked(12), recipe }]
    const args = { progress: false, reportTo: 'none' } as const
    const { stages: done } = await trainEmoVerse(words, { stages, outputDir: join(folder, 'run'), args, saveModel: false })
    const adapters = done.map(({ adapter }) => adapter)
    const line = ['emoverse', '--model', base, '--ckpt_dir', ...adapters, '--system', 'Own.', '--media', 'ignore', '--dtype', 'fp32', '--port', '0']
    const { load, directory, loading } = parseServe(line)
    expect(loading).toEqual({ adapters, system: 'Own.', media: 'ignore', dtype: 'fp32' })
    const loaded = (await load(directory, loading)) as EmoVerseChat
    const question = { query: 'Say it.' }
    const labels = ['Joy.', 'Fear.']
    const [own, found] = [await words.scoreLabels(question, labels), await loaded.model.scoreLabels(question, labels)]
    expect(found['Joy.']).toBeCloseTo(own['Joy.'] as number, 6)
    loaded.model.dispose()
    expect(() => parseServe(['salmonn', '--model', base, '--adapters', 'a'])).toThrow('serve: --adapters: an option of emoverse, not of salmonn. Leave it out.')
    expect(() => parseServe([...line, '--quantize', 'int3'])).toThrow(/--quantize: expected nf4 or int8/)
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}) // biome-ignore format: long lines
