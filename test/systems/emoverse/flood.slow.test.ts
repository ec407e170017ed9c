import { fileURLToPath } from 'node:url'
import { expect, it } from 'vitest'
import { EMOTION_LABELS } from '../../../lib/systems/emoverse/index.js'
import { ask, begin, call, events, type Reply, sound, text, user } from '../../serve/client.js'
import { facePpm } from '../../serve/models.mjs'
import { start } from '../../serve/spawned.js'

const address = (kind: string, ...files: Buffer[]) =>
  `data:${kind}/x-portable-pixmap;base64,${files.map((file) => file.toString('base64')).join(',')}`
const picture = (bytes: Buffer) => ({ type: 'image_url', image_url: { url: address('image', bytes) } })
const film = (...frames: Buffer[]) => ({ type: 'video_url', video_url: { url: address('video', ...frames) } })

it('an EmoVerse takes a flood of pictures of 20 MB among hostile ones: each refusal is typed and counted, and memory returns', async () => {
  const module = fileURLToPath(new URL('tiny-model.mjs', import.meta.url))
  const { url, stats, child, exit } = await start('model', module)
  const [width, height] = [2600, 2600]
  const large = Buffer.concat([Buffer.from(`P6 ${width} ${height} 255\n`), Buffer.alloc(3 * width * height, 77)])
  const question = { messages: [user(picture(large))], task: 'MER', max_tokens: 4 }
  const [body, streamed] = [JSON.stringify(question), JSON.stringify({ ...question, stream: true })]
  expect(body.length).toBeGreaterThan(27e6)
  const face = facePpm()
  const asked = (...content: unknown[]) => ({ messages: [user(...content)], max_tokens: 4 })
  const hostile: [unknown, number, RegExp][] = [
    [asked(picture(Buffer.from('P6 0 0 255\n'))), 400, /cannot decode the image/],
    [asked(picture(Buffer.from('P6 40000 40000 255\n'))), 400, /at most 64000000 pixels/],
    [asked(picture(large.subarray(0, 1e6))), 400, /cannot decode the image/],
    [asked(picture(Buffer.alloc(24e6))), 413, /./],
    [body.slice(0, -3), 400, /JSON/],
    [asked(film(...Array.from({ length: 39 }, () => face), face.subarray(0, 4000))), 400, /frame/],
    [asked(film(...Array.from({ length: 600 }, () => Buffer.from('P6 ')))), 400, /maxVideoFrames/],
    [asked(picture(face), text('<IMG_CONTEXT>')), 400, /IMG_CONTEXT/],
    [asked(picture(face), text('an <image>')), 400, /expected text without media markers, got <image>/],
    [asked(sound()), 400, /expected parts of type text or image or video, got/],
    [asked(text('a '.repeat(200))), 400, /expected at most 0 of 128 tokens/],
    [{ ...asked(picture(face)), task: 'MOOD' }, 400, /expected a task of/],
    [{ ...asked(picture(face)), num_beams: 2 }, 400, /expected numBeams 1, got 2/],
  ]
  // As texts from the start: a client that writes 100 MB of JSON while it sends holds its own bodies up.
  const refusals = hostile.map(([wrong]) => (typeof wrong === 'string' ? wrong : JSON.stringify(wrong)))
  const counts: Record<string, number> = {}
  const counted = async (reply: Promise<Reply>) => {
    const one = await reply
    counts[one.status] = (counts[one.status] ?? 0) + 1
    return one
  }
  let first: unknown
  const round = async () => {
    const good = Array.from({ length: 8 }, (_, i) => counted(ask(url, i % 2 ? body : streamed)))
    const refused = refusals.map((wrong) => counted(ask(url, wrong)))
    const left = Array.from({ length: 4 }, (_, i) => {
      const request = begin(url, streamed)
      if (i % 2 === 0) setTimeout(request.abort, 100 * i)
      else void request.first.then(request.abort, () => {})
      return request.first.catch(() => 'gone')
    })
    await Promise.all(left)
    for (const [i, reply] of (await Promise.all(good)).entries()) {
      expect(reply.status, reply.text.slice(0, 300)).toBe(200)
      const deltas = i % 2 ? [reply.json.choices[0].message] : events(reply).slice(0, -1).map((event) => JSON.parse(event).choices[0].delta)
      const shares = deltas.find((delta) => delta.label_scores)?.label_scores as Record<string, number>
      expect(Object.keys(shares).sort()).toEqual([...EMOTION_LABELS.meld].sort())
      const answer = { words: deltas.map(({ content = '' }) => content).join(''), joy: shares['Joy.']?.toFixed(5) }
      first ??= answer
      expect(answer).toEqual(first)
    }
    for (const [i, { status, json }] of (await Promise.all(refused)).entries()) {
      const [, wanted, message] = hostile[i] as (typeof hostile)[number]
      expect([status, json.error], String(message)).toEqual([wanted, expect.objectContaining({ type: 'invalid_request_error', message: expect.stringMatching(message) })])
    }
  }
  try {
    const before = await stats()
    await round()
    const once = await stats()
    await round()
    await round()
    const last = await stats()
    expect([once.liveTensors, last.liveTensors]).toEqual([before.liveTensors, before.liveTensors])
    // Three rounds hold what one did: a round's bodies and pixels are 0.7 GB.
    expect(last.rss - once.rss, `${once.rss} ${last.rss}`).toBeLessThan(300e6)
    expect(last.rss - before.rss, `${before.rss} ${last.rss}`).toBeLessThan(700e6)
    const { text: told } = await call(url, '/metrics')
    for (const status of ['400', '413']) expect(told).toContain(`requests_total{status="${status}"} ${counts[status]}\n`)
    expect(counts).toEqual({ 200: 24, 400: 36, 413: 3 })
  } finally {
    child.stdin.end()
  }
  expect(await exit).toEqual([0, null])
}) // biome-ignore format: long lines
