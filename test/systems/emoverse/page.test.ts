import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { delimiter, join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { readImage } from '../../../lib/index.js'
import { type ChatAnswerOptions, type ChatTurn, type Served, serve } from '../../../lib/serve/index.js'
import { EMOTION_LABELS, type EmoVerse, EmoVerseChat } from '../../../lib/systems/emoverse/index.js'
import { pngBytes } from '../../../lib/vision/png.js'
import { type Page, withPage } from '../../browser.mjs'
import { facePpm, sineWav } from '../../serve/models.mjs'
import { EMOTION_QUESTION, taughtEmoVerse } from './taught.js'
import { hearingEmoVerse, tinyEmoVerse } from './tiny.js'

const names = ['chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable']
const chromium =
  process.env.CHROMIUM !== undefined ||
  (process.env.PATH ?? '').split(delimiter).some((path) => names.some((name) => existsSync(join(path, name))))

// biome-ignore lint/suspicious/noExplicitAny: the page's own world has no types here
declare const document: any, innerWidth: number

/** Runs in the page: what someone would see. */
function look() {
  // biome-ignore lint/suspicious/noExplicitAny: elements
  const all = (query: string, root: any = document): any[] => [...root.querySelectorAll(query)]
  return {
    tasks: document.getElementById('tasks').hidden ? [] : all('#tasks button').map((button) => button.textContent),
    camera: !document.getElementById('camera').hidden,
    clips: all('#clips .clip .name').map((name) => name.textContent),
    turns: all('.turn').map((turn) => ({
      task: turn.querySelector('.task')?.textContent ?? null,
      text: turn.querySelector('p:not(.note)')?.textContent ?? '',
      busy: turn.ariaBusy,
      pictures: all('.clip img', turn).length,
      bars: Object.fromEntries(
        all('.bars li', turn).map((row) => [
          row.querySelector('.bar-label').textContent,
          Number.parseInt(row.querySelector('.bar-share').textContent, 10),
        ]),
      ),
      views: turn.querySelector('.views summary')?.textContent ?? null,
      tiles: all('.view img', turn).filter((tile) => tile.naturalWidth > 0).length,
    })),
    error: document.getElementById('error').hidden ? null : document.getElementById('error').textContent,
    wide: document.documentElement.scrollWidth > innerWidth,
  }
}
const idle = () => document.getElementById('stop').hidden && document.querySelector('.assistant') !== null
const ready = (page: Page) => page.until(() => document.getElementById('model').textContent === 'emoverse')

/** Answers that come slowly enough to be seen coming. */
class SlowChat extends EmoVerseChat {
  pause = 0
  turns: readonly ChatTurn[] = []

  override async *stream(messages: readonly ChatTurn[], options: ChatAnswerOptions) {
    this.turns = messages
    for await (const delta of super.stream(messages, options)) {
      if (this.pause > 0) await new Promise((next) => setTimeout(next, this.pause))
      yield delta
    }
  }
}

describe.skipIf(!chromium)('the page of an EmoVerse, in Chromium', () => {
  const folder = mkdtempSync(join(tmpdir(), 'voxtorch-emoverse-page-'))
  const shots = process.env.VOXTORCH_SCREENSHOTS
  const shoot = async (page: Page, name: string) => {
    if (shots) await page.screenshot(join(shots, `emoverse-${name}.png`), false)
  }
  const photo = (mood: string) => join(folder, `${mood}.png`)
  let model: EmoVerse
  let chat: SlowChat
  let served: Served
  beforeAll(async () => {
    for (const [mood, smile, ground] of [['joy', 1, [40, 90, 160]], ['sadness', -1, [160, 60, 40]]] as const) {
      using picture = await readImage(facePpm({ smile, ground: [...ground] }))
      const [height, width] = picture.shape as [number, number]
      writeFileSync(photo(mood), await pngBytes((await picture.data()) as Uint8Array, width, height))
    } // biome-ignore format: a mood beside the other
    model = await taughtEmoVerse()
    chat = new SlowChat(model)
    served = await serve(chat, { defaultNewTokens: 24 })
  })
  afterAll(async () => {
    await served?.close({ now: true })
    model?.dispose()
    rmSync(folder, { recursive: true })
  })
  const own = (page: Page) => {
    const foreign = page.requests.filter((url) => !url.startsWith(served.url) && !/^(about|data|blob):/.test(url))
    expect(foreign).toEqual([])
    expect(page.problems).toEqual([])
  }

  it('says what a dropped face shows, with bars and tiles; then why, in a second turn; and another face otherwise', async () => {
    await withPage(served.url, async (page) => {
      await page.size(1280, 900)
      await ready(page)
      const tasks = ['Sentiment', 'Emotion', 'Expression', 'Reason', 'Cause']
      expect(await page.evaluate(look)).toMatchObject({ tasks, camera: true, wide: false })
      await page.drop('main', [photo('joy')])
      await page.until(() => document.querySelectorAll('#clips .clip').length === 1)
      chat.pause = 150
      await page.click('#tasks button:nth-child(2)')
      // Letter by letter.
      await page.until(() => /^J/.test(document.querySelector('.assistant p')?.textContent ?? ''))
      const during = (await page.evaluate(look)).turns[1]
      expect(during).toMatchObject({
        busy: 'true',
        views: 'Input of the vision encoder: 12 tiles and a thumbnail',
        tiles: 13,
      })
      expect('Joy.'.startsWith(during?.text ?? '-')).toBe(true)
      expect(Object.keys(during?.bars ?? {}).sort()).toEqual([...EMOTION_LABELS.meld].sort())
      expect(during?.bars['Joy.']).toBeGreaterThan(90)
      await page.until(idle)
      chat.pause = 0
      expect((await page.evaluate(look)).turns).toMatchObject([
        { task: 'Emotion', text: '', pictures: 1 },
        { text: 'Joy.', busy: 'false' },
      ])
      await shoot(page, 'answer')
      await page.click('#prompt')
      await page.type('Why?')
      await page.press('Enter')
      await page.until(() => document.querySelectorAll('.turn').length === 4 && document.getElementById('stop').hidden)
      expect((await page.evaluate(look)).turns.slice(2)).toMatchObject([
        { text: 'Why?', pictures: 0 },
        { text: 'A smile.', bars: {}, views: null },
      ])
      // The picture is sent again as it was, behind it the words that it was asked in.
      expect(chat.turns[0]?.content.map((part) => (part.type === 'text' ? part.text : part.type))).toEqual([
        'image',
        EMOTION_QUESTION,
      ])
      await shoot(page, 'turns')
      await page.size(390, 844, true)
      expect((await page.evaluate(look)).wide).toBe(false)
      await page.evaluate(() => document.querySelector('.assistant').scrollIntoView({ behavior: 'instant' }))
      await shoot(page, 'answer-narrow')
      await page.click('#fresh')
      await page.drop('main', [photo('sadness')])
      await page.until(() => document.querySelectorAll('#clips .clip').length === 1)
      await shoot(page, 'dropped-narrow')
      await page.click('#tasks button:nth-child(2)')
      await page.until(idle)
      const [, other] = (await page.evaluate(look)).turns
      expect(other?.text).toBe('Sadness.')
      expect(other?.bars['Sadness.']).toBeGreaterThan(90)
      own(page)
    })
  })

  it('sees what the camera shows, as a photo and as a film, and is told what it cannot read', async () => {
    await withPage(served.url, async (page) => {
      await page.size(1280, 900)
      await ready(page)
      await page.click('#camera')
      await page.until(() => document.getElementById('finder').videoWidth > 0)
      await page.click('#video')
      await page.until(() => Number.parseFloat(document.getElementById('video-time').textContent) >= 1)
      await page.click('#video')
      await page.until(() => document.querySelectorAll('#clips .clip').length === 1)
      await page.click('#camera-off')
      await page.click('#prompt')
      await page.type('Look at me.')
      await page.click('#tasks button')
      await page.until(idle)
      const [asked, answer] = (await page.evaluate(look)).turns
      expect(asked).toMatchObject({ task: 'Sentiment', text: 'Look at me.', pictures: 1 })
      expect(answer).toMatchObject({ views: 'Input of the vision encoder: 8 frames', tiles: 8 })
      expect(Object.keys(answer?.bars ?? {}).sort()).toEqual(['Negative.', 'Positive.'])
      await shoot(page, 'film')
      await page.size(390, 844, true)
      await page.evaluate(() => document.querySelector('.assistant').scrollIntoView({ behavior: 'instant' }))
      await shoot(page, 'film-narrow')
      await page.click('#fresh')
      await page.click('#camera')
      await page.until(() => document.getElementById('finder').videoWidth > 0)
      await shoot(page, 'camera-narrow')
      await page.click('#shoot')
      await page.until(() => document.querySelectorAll('#clips .clip').length === 1)
      await page.click('#camera-off')
      // Words that stand for a picture are refused, and given back.
      await page.click('#prompt')
      await page.type('<image>')
      await page.press('Enter')
      await page.until(() =>
        /text without media markers, got <image>/.test(document.getElementById('error').textContent),
      )
      expect(await page.evaluate(look)).toMatchObject({ turns: [], clips: ['Image 2'] })
      expect(page.problems).toEqual([expect.stringMatching(/status of 400/)])
    })
  })

  it('takes voices beside pictures where the model has ears, dropped and recorded', async () => {
    const wav = join(folder, 'voice.wav')
    writeFileSync(wav, sineWav({ seconds: 0.5 }))
    using hearing = await hearingEmoVerse()
    const ears = new SlowChat(hearing)
    const voices = await serve(ears, { defaultNewTokens: 2 })
    try {
      await withPage(voices.url, async (page) => {
        await page.size(390, 844, true)
        await ready(page)
        expect(await page.evaluate(look)).toMatchObject({ tasks: { length: 5 }, camera: true, wide: false })
        expect(await page.evaluate(() => document.getElementById('choose').textContent)).toBe('Add an image, a video or audio')
        await page.drop('main', [wav, photo('joy')])
        await page.until(() => document.querySelectorAll('#clips .clip').length === 2)
        await page.click('#record')
        await page.until(() => Number.parseFloat(document.getElementById('time').textContent.slice(2)) >= 0.4)
        await page.click('#record')
        await page.until(() => document.querySelectorAll('#clips .clip').length === 3)
        expect((await page.evaluate(look)).clips).toEqual(['voice.wav', 'joy.png', 'Recording 1'])
        await shoot(page, 'voice-narrow')
        await page.click('#tasks button:nth-child(2)')
        await page.until(idle)
        const { turns, error } = await page.evaluate(look)
        expect([error, Object.keys(turns[1]?.bars ?? {}).length, turns[1]?.views]).toEqual([null, 7, expect.stringMatching(/^Input of the vision encoder/)])
        expect(ears.turns[0]?.content.map((part) => (part.type === 'audio' ? part.seconds > 0.3 : part.type))).toEqual([true, 'image', true])
      })
    } finally {
      await voices.close({ now: true })
    }
  }) // biome-ignore format: long lines

  it('has the tasks for one that reads alone, without anything for pictures', async () => {
    using reader = await tinyEmoVerse()
    const words = await serve(new EmoVerseChat(reader), { defaultNewTokens: 4 })
    try {
      await withPage(words.url, async (page) => {
        await page.size(390, 844, true)
        await ready(page)
        expect(await page.evaluate(look)).toMatchObject({ tasks: { length: 5 }, camera: false, wide: false })
        await page.click('#prompt')
        await page.type('Oh no.')
        await page.click('#tasks button')
        await page.until(idle)
        const { turns, error } = await page.evaluate(look)
        expect([error, Object.values(turns[1]?.bars ?? {}).length]).toEqual([null, 2])
        // Where a task cannot be done it says why, and the words are there again.
        await page.click('#fresh')
        await page.type('Nobody said it')
        await page.click('#tasks button:nth-child(5)')
        await page.until(() => /a line for each utterance/.test(document.getElementById('error').textContent))
        expect(await page.evaluate(() => document.getElementById('prompt').value)).toBe('Nobody said it')
        await shoot(page, 'words-narrow')
      })
    } finally {
      await words.close({ now: true })
    }
  })
})
