import { mkdtempSync, rmSync } from 'node:fs'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { DecoderLM } from '../../lib/index.js'
import { PATIENCE } from '../patience.js'
import { ask, begin, call, sound, text, user } from './client.js'
import { facePpm, sineWav } from './models.mjs'
import { start } from './spawned.js'
import { writeTextModel } from './text-model.mjs'

it('takes 50 requests of 5 MB at once, among large, broken and aborted ones, and gives the memory back', async () => {
  const { url, stats, child, exit } = await start('load')
  // 3.7 MB of samples are 5 MB of base64.
  const body = JSON.stringify({ messages: [user(sound(sineWav({ seconds: 117 })), text('How long?'))] })
  expect(body.length).toBeGreaterThan(4_900_000)
  const large = Buffer.alloc(7_000_000, 0x20)
  const broken = [
    body.slice(0, -3),
    body.replace('"wav"', '"mp3"'),
    body.replace('"data":"', '"data":"*'),
    '{"messages":7}',
  ]

  const round = async () => {
    const answers = Array.from({ length: 50 }, () => ask(url, body))
    const refusals = Array.from({ length: 4 }, () => ask(url, large))
    const faults = broken.map((text) => ask(url, text))
    const aborted = Array.from({ length: 10 }, (_, i) => {
      const request = begin(url, { messages: [user(sound(sineWav({ seconds: 20 })), text('count 100'))] })
      setTimeout(request.abort, 30 * i)
      return request.first.then(
        () => 'answered',
        () => 'aborted',
      )
    })
    const statuses = async (all: Promise<{ status: number; text: string }>[]) =>
      (await Promise.all(all)).map(({ status }) => status)
    const all = await Promise.all([statuses(answers), statuses(refusals), statuses(faults), Promise.all(aborted)])
    return all
  }
  const check = ([answers, refusals, faults]: Awaited<ReturnType<typeof round>>) => {
    expect(answers).toEqual(Array(50).fill(200))
    expect(refusals).toEqual([413, 413, 413, 413])
    expect(faults).toEqual([400, 400, 400, 400])
  }
  try {
    const before = await stats()
    check(await round())
    const first = await stats()
    check(await round())
    const last = await stats()
    expect(last.liveTensors).toBe(before.liveTensors)
    expect(last.running).toBe(0)
    // Two rounds hold what one did: a round's bodies and samples are 600 MB.
    expect(last.rss - first.rss, `${first.rss} ${last.rss}`).toBeLessThan(200e6)
    // What stays is what allocators keep for the next round.
    expect(last.rss - before.rss, `${before.rss} ${last.rss}`).toBeLessThan(400e6)
    console.log(
      `RSS before ${(before.rss / 1e6).toFixed()} MB, after one round ${(first.rss / 1e6).toFixed()} MB, after three ${(last.rss / 1e6).toFixed()} MB`,
    )
    expect((await call(url, '/health')).json).toEqual({ status: 'ok', running: 0, queued: 0 })
    const { json } = await ask(url, body)
    expect(json.choices[0].message.content).toBe('Turn 1: How long? | 117.00 s at 0.354')
  } finally {
    child.stdin.end()
  }
  expect(await exit).toEqual([0, null])
})

it('takes a flood of pictures of 20 MB among hostile ones, counts them, and gives the memory back', async () => {
  const { url, stats, child, exit } = await start('watch')
  const picture = (bytes: Buffer) => ({
    type: 'image_url',
    image_url: { url: `data:image/x-portable-pixmap;base64,${bytes.toString('base64')}` },
  })
  const [width, height] = [2600, 2600]
  const large = Buffer.concat([Buffer.from(`P6 ${width} ${height} 255\n`), Buffer.alloc(3 * width * height, 77)])
  const body = JSON.stringify({ messages: [user(picture(large), text('What?'))] })
  expect(body.length).toBeGreaterThan(27e6)
  const frames = Array.from({ length: 40 }, () => facePpm().toString('base64'))
  const film = (all: string[]) => ({
    messages: [
      user(
        { type: 'video_url', video_url: { url: `data:video/x-portable-pixmap;base64,${all.join(',')}` } },
        text('?'),
      ),
    ],
  })
  const hostile: [unknown, number][] = [
    [{ messages: [user(picture(Buffer.from('P6 0 0 255\n')))] }, 400],
    [{ messages: [user(picture(Buffer.from('P6 40000 40000 255\n')))] }, 400],
    [{ messages: [user(picture(large.subarray(0, 1e6)))] }, 400],
    [{ messages: [user(picture(Buffer.alloc(24e6)))] }, 413],
    [body.slice(0, -3), 400],
    [film(frames), 200],
    [film([...frames.slice(0, 39), (frames[39] as string).slice(0, 4000)]), 400],
    [film(Array.from({ length: 600 }, () => 'UDYg')), 400],
    [{ messages: [user(text('<IMG_CONTEXT><image>'))] }, 200],
  ]
  const round = async () => {
    const [answers, others] = await Promise.all([
      Promise.all(Array.from({ length: 12 }, () => ask(url, body))),
      Promise.all(hostile.flatMap(([wrong]) => [ask(url, wrong), ask(url, wrong)])),
      Promise.all(
        Array.from({ length: 4 }, (_, i) => {
          const request = begin(url, { messages: [user(picture(large), text('count 100'))], stream: true })
          if (i % 2 === 0) setTimeout(request.abort, 100 * i)
          else void request.first.then(request.abort, () => {})
          return request.first.catch(() => 'gone')
        }),
      ),
    ])
    expect(answers.map(({ json }) => json.choices?.[0].message.content)).toEqual(
      Array(12).fill('Turn 1: What? | 2600 × 2600 in 77 77 77'),
    )
    expect(others.map(({ status }) => status)).toEqual(hostile.flatMap(([, status]) => [status, status]))
  }
  try {
    const before = await stats()
    await round()
    const first = await stats()
    await round()
    const last = await stats()
    expect(last).toMatchObject({ running: 0, liveTensors: before.liveTensors })
    // Two rounds hold what one did: a round's bodies and pixels are 1.5 GB.
    expect(last.rss - first.rss, `${first.rss} ${last.rss}`).toBeLessThan(300e6)
    expect(last.rss - before.rss, `${before.rss} ${last.rss}`).toBeLessThan(700e6)
    const { text: told } = await call(url, '/metrics')
    expect(told).toContain('requests_total{status="413"} 4')
    expect(told).toContain('requests_total{status="400"} 24')
  } finally {
    child.stdin.end()
  }
  expect(await exit).toEqual([0, null])
})

it('writes for 30 clients at once, among disconnects and bad requests, what each gets alone, and gives the memory back', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'voxtorch-load-text-'))
  await writeTextModel(directory, DecoderLM)
  const { url, stats, child, exit } = await start('text', directory)
  const system = {
    role: 'system',
    content: 'All of these conversations begin with the same sentence, which is read once.',
  }
  const body = (question: string, more: object = {}) => ({
    messages: [system, { role: 'user', content: question }],
    max_tokens: 20,
    ...more,
  })
  const questions = Array.from({ length: 30 }, (_, i) => `${'Go on. '.repeat((i * 7) % 40)}What is ${i}?`)
  const bad: [unknown, number][] = [
    ['{"messages":', 400],
    [{ messages: [] }, 400],
    [body('x', { model: 'another' }), 404],
    [body('x', { temperature: -1 }), 400],
    [body('x'.repeat(5000)), 400],
    [{ messages: [user(sound(sineWav({ seconds: 1 })))] }, 400],
    [body('x', { logit_bias: { 3: 100 } }), 400],
  ]
  /** Connections that end in the middle of a request, of reading the prompt and of the answer. */
  const gone = (i: number) => {
    if (i % 3 === 0) {
      const socket = connect(Number(new URL(url).port), '127.0.0.1', () => {
        socket.write('POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n')
        socket.write('Content-Length: 1000\r\n\r\n{"messages":')
        setTimeout(() => socket.destroy(), 10 * i)
      })
      socket.on('error', () => {})
      return new Promise((resolve) => socket.once('close', resolve))
    }
    const request = begin(url, body('Long. '.repeat(i * 30), { stream: true, max_tokens: 1500 }))
    if (i % 3 === 1) setTimeout(request.abort, 15 * i)
    else void request.first.then(request.abort, () => {})
    return request.first.catch(() => {})
  }
  const round = async () => {
    const [answers, refusals] = await Promise.all([
      Promise.all(questions.map((question) => ask(url, body(question)))),
      Promise.all(bad.map(([wrong]) => ask(url, wrong))),
      Promise.all(Array.from({ length: 12 }, (_, i) => gone(i))),
    ])
    expect(refusals.map(({ status }) => status)).toEqual(bad.map(([, status]) => status))
    return answers.map(({ status, json }) => [status, json.choices?.[0].message.content])
  }
  try {
    const alone: unknown[] = []
    for (const question of questions) {
      const { status, json } = await ask(url, body(question))
      alone.push([status, json.choices[0].message.content])
    }
    expect(await round()).toEqual(alone)
    const first = await stats()
    for (let i = 0; i < 3; i++) expect(await round()).toEqual(alone)
    const last = await stats()
    expect(last).toMatchObject({ batch_running: 0, batch_waiting: 0, liveTensors: first.liveTensors })
    // What is kept of beginnings is all that is left of keys and values.
    await expect.poll(async () => (await stats()).kvCacheBytes, { timeout: PATIENCE }).toBeLessThanOrEqual(2_000_000)
    expect(last.rss - first.rss, `${first.rss} ${last.rss}`).toBeLessThan(100e6)
    const { text: told } = await call(url, '/metrics')
    expect(told).toContain(`requests_total{status="200"} ${questions.length * 5}`)
    expect(Number(/cached_prompt_tokens_total (\d+)/.exec(told)?.[1])).toBeGreaterThan(30 * 4 * 80)
  } finally {
    child.stdin.end()
    rmSync(directory, { recursive: true, force: true })
  }
  expect(await exit).toEqual([0, null])
})
