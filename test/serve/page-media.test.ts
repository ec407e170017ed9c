import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { delimiter, join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type Served, serve } from '../../lib/serve/index.js'
import { pngBytes } from '../../lib/vision/png.js'
import { type Page, withPage } from '../browser.mjs'
import { PATIENCE } from '../patience.js'
import { Watcher } from './models.mjs'

const names = ['chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable']
const chromium =
  process.env.CHROMIUM !== undefined ||
  (process.env.PATH ?? '').split(delimiter).some((path) => names.some((name) => existsSync(join(path, name))))

// biome-ignore lint/suspicious/noExplicitAny: the page's own world has no types here
declare const document: any, innerWidth: number, MediaRecorder: any, Blob: any, File: any, DataTransfer: any

/** Runs in the page: what someone would see. */
function look() {
  // biome-ignore lint/suspicious/noExplicitAny: elements
  const all = (query: string, root: any = document): any[] => [...root.querySelectorAll(query)]
  const hidden = (id: string) => document.getElementById(id).hidden
  // biome-ignore lint/suspicious/noExplicitAny: elements
  const item = (one: any) => ({
    name: one.querySelector('.name').textContent,
    kind: one.classList.contains('video') ? 'film' : 'picture',
    buttons: all('button', one).map((button) => button.ariaLabel),
    size: [one.querySelector('img').naturalWidth, one.querySelector('img').naturalHeight],
  })
  return {
    title: document.getElementById('welcome-title').textContent,
    tasks: hidden('tasks') ? [] : all('#tasks button').map((button) => button.textContent),
    buttons: Object.fromEntries(
      ['camera', 'choose', 'record', 'ask', 'stop', 'viewer'].map((id) => [id, hidden(id) ? 'hidden' : 'shown']),
    ),
    clips: all('#clips .clip').map(item),
    turns: all('.turn').map((turn) => ({
      who: turn.ariaLabel,
      task: turn.querySelector('.task')?.textContent ?? null,
      text: turn.querySelector('p:not(.note)')?.textContent ?? '',
      busy: turn.ariaBusy,
      clips: all('.clip', turn).map(item),
      bars: all('.bars li', turn).map((row) => [
        row.querySelector('.bar-label').textContent,
        row.querySelector('.bar-share').textContent,
        // As long as it says.
        Math.round(
          (100 * row.querySelector('.bar-fill').getBoundingClientRect().width) /
            row.querySelector('.bar-track').getBoundingClientRect().width,
        ),
      ]),
      views: turn.querySelector('.views summary')?.textContent ?? null,
      tiles: all('.view img', turn).map((tile) => `${tile.alt} ${tile.naturalWidth}`),
    })),
    error: hidden('error') ? null : document.getElementById('error').textContent,
    unnamed: all('button, input, textarea, canvas, summary, video').filter(
      (control) =>
        !control.closest('[aria-hidden=true]') &&
        !control.hidden &&
        !(control.ariaLabel || control.textContent.trim() || control.labels?.length),
    ).length,
    wide: document.documentElement.scrollWidth > innerWidth,
  }
}
const idle = () => document.getElementById('stop').hidden && document.querySelector('.assistant') !== null

describe.skipIf(!chromium)('the page of a model with eyes, in Chromium', () => {
  const folder = mkdtempSync(join(tmpdir(), 'voxtorch-page-media-'))
  const photo = join(folder, 'face.png')
  const shots = process.env.VOXTORCH_SCREENSHOTS
  const shoot = async (page: Page, name: string) => {
    if (shots) await page.screenshot(join(shots, `see-${name}.png`), false)
  }
  const model = new Watcher()
  let served: Served
  beforeAll(async () => {
    const [width, height] = [300, 200]
    const pixels = Uint8Array.from({ length: 3 * width * height }, (_, i) => [200, 120, 40][i % 3] as number)
    for (let y = 60; y < 140; y++) {
      for (let x = 110; x < 190; x++)
        if ((x - 150) ** 2 + (y - 100) ** 2 < 1600) pixels.set([250, 220, 170], 3 * (y * width + x))
    }
    writeFileSync(photo, await pngBytes(pixels, width, height))
    writeFileSync(join(folder, 'notes.txt'), 'nothing to see')
    writeFileSync(join(folder, 'broken.png'), 'no picture')
    writeFileSync(join(folder, 'broken.webm'), 'no film')
    served = await serve(model, { maxNewTokens: 300 })
  })
  afterAll(async () => {
    await served?.close({ now: true })
    rmSync(folder, { recursive: true })
  })
  const ready = (page: Page) => page.until(() => document.getElementById('model').textContent === 'watcher')
  const own = (page: Page) => {
    const foreign = page.requests.filter((url) => !url.startsWith(served.url) && !/^(about|data|blob):/.test(url))
    expect(foreign).toEqual([])
    expect(page.problems).toEqual([])
  }

  it('takes a dropped picture, asks a task: streamed words, bars, tiles; then a second turn, wide and narrow', async () => {
    await withPage(served.url, async (page) => {
      await page.size(1280, 900)
      await ready(page)
      expect(await page.evaluate(look)).toMatchObject({
        title: 'Ask about a face',
        tasks: ['Mood', 'Reason'],
        buttons: { camera: 'shown', choose: 'shown', record: 'hidden', viewer: 'hidden' },
        unnamed: 0,
        wide: false,
      })
      await shoot(page, 'welcome')
      await page.drop('main', [photo])
      await page.until(() => document.querySelectorAll('#clips .clip').length === 1)
      expect((await page.evaluate(look)).clips).toEqual([
        { name: 'face.png', kind: 'picture', buttons: ['Remove face.png'], size: [300, 200] },
      ])
      await page.type('You lied to me!')
      await shoot(page, 'dropped')
      model.pause = 60
      await page.click('#tasks button')
      await page.until(() => (document.querySelector('.assistant p')?.textContent ?? '').startsWith('Turn 1'))
      const during = await page.evaluate(look)
      expect(during.turns).toMatchObject([
        { who: 'You', task: 'Mood', text: 'You lied to me!', clips: [{ name: 'face.png', buttons: [] }] },
        {
          who: 'Answer',
          busy: 'true',
          bars: [['Neutral.', '50 %', 50], ['Fear.', '33 %', 33], ['Joy.', '17 %', 17]],
          views: 'Input of the vision encoder: 2 tiles and a thumbnail',
          tiles: ['Tile 1 of 2 16', 'Tile 2 of 2 16', 'Thumbnail 16'],
        },
      ]) // biome-ignore format: the bars side by side
      await page.until(idle)
      model.pause = 0
      const mean = / \| 300 × 200 in \d+ \d+ \d+$/
      expect((await page.evaluate(look)).turns[1]?.text).toMatch(mean)
      await shoot(page, 'answer')
      // The picture comes as it is, and the first turn again in the task's words.
      await page.click('#prompt')
      await page.type('And now?')
      await page.press('Enter')
      await page.until(() => document.querySelectorAll('.turn').length === 4 && document.getElementById('stop').hidden)
      const { turns } = await page.evaluate(look)
      expect(turns[3]).toMatchObject({
        bars: [],
        views: null,
        text: expect.stringMatching(/^Turn 3: And now\? \| 300 × 200/),
      })
      expect(
        model.turns.map(({ content }) => content.map((part) => (part.type === 'text' ? part.text : part.type))),
      ).toEqual([['image', 'mood of "You lied to me!"?'], [expect.stringMatching(/^Turn 1/)], ['And now?']])
      // A task about what was sent before.
      await page.click('#tasks button:nth-child(2)')
      await page.until(() => document.querySelectorAll('.turn').length === 6 && document.getElementById('stop').hidden)
      expect((await page.evaluate(look)).turns.slice(4)).toMatchObject([
        { task: 'Reason', text: '' },
        { bars: [], views: null },
      ])
      await shoot(page, 'turns')
      await page.size(390, 844, true)
      expect((await page.evaluate(look)).wide).toBe(false)
      await page.evaluate(() => document.querySelector('.assistant').scrollIntoView())
      await shoot(page, 'narrow')
      await page.send('Emulation.setEmulatedMedia', { features: [{ name: 'prefers-color-scheme', value: 'dark' }] })
      await page.drop('main', [photo])
      await page.until(() => document.querySelectorAll('#clips .clip').length === 1)
      await shoot(page, 'narrow-dark')
      own(page)
    })
  })

  it('takes photos and films with the camera, and a film from a file', async () => {
    await withPage(served.url, async (page) => {
      await page.size(390, 844, true)
      await ready(page)
      await page.click('#camera')
      await page.until(() => document.getElementById('finder').videoWidth > 0)
      expect((await page.evaluate(look)).buttons.viewer).toBe('shown')
      await page.click('#shoot')
      await page.until(() => document.querySelectorAll('#clips .clip').length === 1)
      await page.click('#video')
      await page.until(() => Number.parseFloat(document.getElementById('video-time').textContent) >= 1.5)
      expect(await page.evaluate(() => document.getElementById('video').ariaPressed)).toBe('true')
      await shoot(page, 'camera-narrow')
      await page.size(1280, 900)
      await shoot(page, 'camera')
      await page.click('#video')
      await page.until(() => document.querySelectorAll('#clips .clip').length === 2)
      const { clips } = await page.evaluate(look)
      expect(clips).toMatchObject([
        { name: 'Image 1', kind: 'picture', buttons: ['Remove Image 1'] },
        { name: 'Video 2', kind: 'film', buttons: ['Play Video 2', 'Remove Video 2'] },
      ])
      for (const { size } of clips) expect(Math.min(...size)).toBeGreaterThan(100)
      await page.click('#camera-off')
      expect((await page.evaluate(look)).buttons.viewer).toBe('hidden')
      await page.evaluate(() => document.querySelectorAll('#tasks button')[1].click())
      await page.until(idle)
      const [, answer] = (await page.evaluate(look)).turns
      const [, width, height, count] = /(\d+) × (\d+) in \d+ \d+ \d+, film of (\d+)$/.exec(answer?.text ?? '') ?? []
      expect([Number(width), Number(height)]).toEqual(clips[0]?.size)
      expect(Number(count)).toBeGreaterThanOrEqual(1)
      expect(Number(count)).toBeLessThanOrEqual(32)
      expect(answer?.views).toBe('Input of the vision encoder: 2 tiles and a thumbnail, 8 frames')
      expect(answer?.tiles).toHaveLength(11)
      await shoot(page, 'film')
      await page.size(390, 844, true)
      expect((await page.evaluate(look)).wide).toBe(false)
      await page.evaluate(() => document.querySelector('.assistant').scrollIntoView())
      await shoot(page, 'film-narrow')
      await page.click('#fresh')

      // A film that the browser itself wrote, as somebody drops it.
      await page.evaluate(async () => {
        const canvas = Object.assign(document.createElement('canvas'), { width: 160, height: 120 })
        const paint = canvas.getContext('2d')
        const recorder = new MediaRecorder(canvas.captureStream(25), { mimeType: 'video/webm' })
        const parts: unknown[] = []
        recorder.ondataavailable = ({ data }: { data: unknown }) => parts.push(data)
        const ended = new Promise((done) => {
          recorder.onstop = done
        })
        recorder.start()
        for (let i = 0; i < 40; i++) {
          paint.fillStyle = `hsl(${9 * i} 80% 50%)`
          paint.fillRect(0, 0, 160, 120)
          await new Promise((next) => setTimeout(next, 40))
        }
        recorder.stop()
        await ended
        const files = new DataTransfer()
        files.items.add(new File([new Blob(parts, { type: 'video/webm' })], 'colours.webm', { type: 'video/webm' }))
        document.getElementById('files').files = files.files
        document.getElementById('files').onchange()
      })
      await page.until(() => document.querySelectorAll('#clips .clip').length === 1 || !document.getElementById('error').hidden, PATIENCE / 1000) // biome-ignore format: one line
      expect(await page.evaluate(look)).toMatchObject({
        error: null,
        clips: [{ name: 'colours.webm', kind: 'film', size: [160, 120] }],
      })
      await page.click('#clips .clip button')
      await page.until(() => /^data:image\/jpeg/.test(document.querySelector('#clips img').src))
      await page.click('#prompt')
      await page.press('Enter')
      await page.until(idle)
      expect((await page.evaluate(look)).turns[1]?.text).toBe('Turn 1:  | film of 32')
      own(page)
    })
  })

  it('says what it cannot read, and gives back what the server refuses', async () => {
    const small = await serve(model, { maxPixels: 1000 })
    try {
      await withPage(small.url, async (page) => {
        await ready(page)
        const files = ['notes.txt', 'broken.png', 'broken.webm'].map((name) => join(folder, name))
        const errors = [
          'notes.txt: watcher does not support files of type text/plain.',
          'broken.png: this browser cannot decode the image. Convert it to PNG or JPEG.',
          'broken.webm: this browser cannot decode the video. Convert it to MP4 or WebM.',
        ]
        for (const [i, file] of files.entries()) {
          await page.drop('main', [file])
          await page.until(() => !document.getElementById('error').hidden)
          await expect.poll(async () => (await page.evaluate(look)).error, { timeout: PATIENCE }).toBe(errors[i])
        }
        await page.drop('main', [photo])
        await page.until(() => document.querySelectorAll('#clips .clip').length === 1)
        await page.click('#ask')
        await page.until(() => /at most 1000 pixels/.test(document.getElementById('error').textContent))
        expect(await page.evaluate(look)).toMatchObject({ turns: [], clips: [{ name: 'face.png' }] })
        expect(page.problems).toEqual([expect.stringMatching(/status of 400/)])
      })
    } finally {
      await small.close({ now: true })
    }
  })
})
