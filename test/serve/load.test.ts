import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { expect, it } from 'vitest'
import { PATIENCE } from '../patience.js'
import { ask, begin, call, sound, text, user } from './client.js'
import { sineWav } from './models.mjs'

it('takes 50 requests of 5 MB at once, among large, broken and aborted ones, and gives the memory back', async () => {
  const script = fileURLToPath(new URL('process.mjs', import.meta.url))
  const child = spawn(process.execPath, ['--expose-gc', script, 'load'], { stdio: ['pipe', 'pipe', 'inherit'] })
  const exit = once(child, 'exit')
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]()
  const line = async () => (await lines.next()).value as string
  const url = await line()
  const stats = async () => {
    // Those that were aborted may still be decoded.
    await expect.poll(async () => (await call(url, '/health')).json.running, { timeout: PATIENCE }).toBe(0)
    child.stdin.write('\n')
    return JSON.parse(await line()) as { rss: number; liveTensors: number; running: number; begun: number }
  }
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
    check(await round())
    const last = await stats()
    expect(last.liveTensors).toBe(before.liveTensors)
    expect(last.running).toBe(0)
    // Three rounds hold what one did: a round's bodies and samples are 600 MB.
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
