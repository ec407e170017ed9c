import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { delimiter, join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { readAudio, resample, scope, setNumThreads, tensor, writeWav } from '../../../lib/index.js'
import { type Served, serve } from '../../../lib/serve/index.js'
import { Usdm, UsdmChat, unitFrames } from '../../../lib/systems/usdm/index.js'
import { type Page, withPage } from '../../browser.mjs'
import { PATIENCE } from '../../patience.js'
import { chirp, SCRIPT, scriptedLlm, TinyVocoder, TinyVoicebox, tinyTokenizer, tinyUnits } from './tiny-parts.js'

const names = ['chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable']
const chromium =
  process.env.CHROMIUM !== undefined ||
  (process.env.PATH ?? '').split(delimiter).some((path) => names.some((name) => existsSync(join(path, name))))

// biome-ignore lint/suspicious/noExplicitAny: the page's own world has no types here
declare const document: any, innerWidth: number, window: any

/** Runs in the page: what someone would see. */
function look() {
  // biome-ignore lint/suspicious/noExplicitAny: elements
  const all = (query: string, root: any = document): any[] => [...root.querySelectorAll(query)]
  const hidden = (id: string) => document.getElementById(id).hidden
  return {
    title: document.getElementById('welcome-title').textContent,
    prompt: hidden('prompt'),
    turns: all('.turn').map((turn) => ({
      who: turn.ariaLabel,
      text: turn.querySelector('p:not(.note)')?.textContent ?? '',
      note: turn.querySelector('.note')?.textContent ?? null,
      busy: turn.ariaBusy,
      voice: turn.dataset.voice ?? null,
      clips: all('.clip', turn).map((item) => ({
        name: item.querySelector('.name').textContent,
        time: item.querySelector('time').textContent,
        buttons: all('button', item).map((button) => button.ariaLabel),
      })),
    })),
    clips: all('#clips .clip').length,
    error: hidden('error') ? null : document.getElementById('error').textContent,
    record: document.getElementById('record-text').textContent,
    pressed: document.getElementById('record').ariaPressed,
    stop: hidden('stop') ? 'hidden' : 'shown',
    ask: hidden('ask') ? 'hidden' : document.getElementById('ask').textContent,
    values: all('.speech .value').map((value) => value.textContent),
    unnamed: all('button, input, textarea, canvas, summary').filter(
      (control) =>
        !control.closest('[aria-hidden=true]') &&
        !control.hidden &&
        !(control.ariaLabel || control.textContent.trim() || control.labels?.length),
    ).length,
    wide: document.documentElement.scrollWidth > innerWidth,
  }
}
const recorded = () => Number(document.getElementById('time').textContent.slice(2)) >= 0.7

describe.skipIf(!chromium)('the page of a model that speaks, in Chromium', () => {
  const folder = mkdtempSync(join(tmpdir(), 'voxtorch-usdm-page-'))
  const wav = join(folder, 'question.wav')
  const voice = join(folder, 'voice.wav')
  const pictures = process.env.VOXTORCH_SCREENSHOTS
  const voicebox = new TinyVoicebox()
  let chat: UsdmChat
  let served: Served
  beforeAll(async () => {
    setNumThreads(1)
    const [tokenizer, units] = [await tinyTokenizer(join(folder, 'text')), await tinyUnits()]
    // It would speak without end: 200 units are four seconds.
    const llm = scriptedLlm(tokenizer, { ...SCRIPT, '<|unit12|>': '<|unit5|>' })
    chat = new UsdmChat(new Usdm({ llm, tokenizer, units, voicebox, vocoder: new TinyVocoder() }), { steps: 2 })
    served = await serve(chat, { defaultNewTokens: 200 })
    await writeWav(wav, tensor(chirp(3, 0, 48_000)), { sampleRate: 48_000 })
    await writeWav(voice, tensor(chirp(0.6, 2)), { sampleRate: 16_000 })
  })
  afterAll(async () => {
    await served?.close({ now: true })
    chat?.dispose()
    rmSync(folder, { recursive: true })
  })
  const talk = async (page: Page) => {
    await page.click('#record')
    await page.until(recorded)
    await page.click('#record')
  }
  const own = (page: Page) => {
    const foreign = page.requests.filter((url) => !url.startsWith(served.url) && !/^(about|data|blob):/.test(url))
    expect(foreign).toEqual([])
    expect(page.problems).toEqual([])
  }

  it('records, shows what was heard and the reply, and plays it before it is complete; then a second turn', async () => {
    await withPage(
      served.url,
      async (page) => {
        await page.until(() => document.getElementById('model').textContent === 'usdm')
        const first = await page.evaluate(look)
        expect(first).toMatchObject({
          title: 'Say something',
          prompt: true,
          record: 'Talk',
          stop: 'hidden',
          unnamed: 0,
        })
        expect(first.values).toEqual(['0', '1', 'all', '15'])
        if (pictures) await page.screenshot(join(pictures, 'talk-welcome.png'), false)
        // Pieces come slowly, so that sound is there before the end.
        voicebox.pause = 250
        await page.click('#record')
        await page.until(recorded)
        expect(await page.evaluate(look)).toMatchObject({ record: 'Send', pressed: 'true', ask: 'hidden' })
        if (pictures) await page.screenshot(join(pictures, 'talk-recording.png'), false)
        await page.click('#record')
        await page.until(() => document.querySelector('.assistant')?.dataset.voice === 'playing')
        const during = await page.evaluate(look)
        expect(during.turns).toMatchObject([
          { who: 'You', text: 'hi!', clips: [{ buttons: ['Play Recording 1'] }] },
          { who: 'Answer', text: 'ok.', busy: 'true', voice: 'playing', clips: [] },
        ])
        await page.until(() => document.querySelector('.assistant').ariaBusy === 'false')
        const after = await page.evaluate(look)
        const seconds = (256 * unitFrames(200)) / 22_050
        expect(after.turns[1]).toMatchObject({
          note: 'The answer reached the maximum length.',
          clips: [{ name: 'Answer', time: `0:0${seconds.toFixed(1)}`, buttons: ['Play Answer'] }],
        })
        voicebox.pause = 0
        await page.until(() => document.querySelector('.assistant').dataset.voice === 'silent', PATIENCE / 1000)
        expect(await page.evaluate(look)).toMatchObject({ stop: 'hidden', error: null })
        // It is heard again.
        await page.click('.assistant .clip button')
        await page.until(() => document.querySelector('.assistant .clip button').ariaLabel === 'Pause Answer')
        await page.until(() => document.querySelector('.assistant .clip input').value > 0.05)
        await page.click('.assistant .clip button')

        // The second turn, with the button held; the server gets the whole conversation.
        await page.hold('#record', 900)
        await page.until(() => document.querySelectorAll('.turn').length === 4)
        await page.until(() => document.querySelectorAll('.assistant')[1].ariaBusy === 'false', PATIENCE / 1000)
        const second = await page.evaluate(look)
        expect(second.turns.slice(2)).toMatchObject([
          { who: 'You', text: 'hi!', clips: [{ name: 'Recording 2' }] },
          { who: 'Answer', text: 'ok.', clips: [{ name: 'Answer' }] },
        ])
        await page.size(1280, 900)
        if (pictures) await page.screenshot(join(pictures, 'talk.png'), false)
        await page.size(390, 844, true)
        expect((await page.evaluate(look)).wide).toBe(false)
        if (pictures) await page.screenshot(join(pictures, 'talk-narrow.png'), false)
        await page.click('.settings summary')
        expect((await page.evaluate(look)).wide).toBe(false)
        if (pictures) await page.screenshot(join(pictures, 'talk-settings.png'), false)
        own(page)
      },
      wav,
    )
  }, 300_000)

  it('is interrupted by who speaks, and by the button', async () => {
    await withPage(
      served.url,
      async (page) => {
        await page.until(() => document.getElementById('model').textContent === 'usdm')
        voicebox.pause = 100
        await talk(page)
        await page.until(() => document.querySelector('.assistant')?.dataset.voice === 'playing')
        await page.click('#record')
        await page.until(() => document.querySelector('.assistant').dataset.voice === 'silent')
        await page.until(() => document.querySelector('.assistant').ariaBusy === 'false')
        expect((await page.evaluate(look)).turns[1]).toMatchObject({ text: 'ok.', note: 'Stopped.', clips: [{}] })
        await expect.poll(() => chat.metrics().batch_running, { timeout: PATIENCE }).toBe(0)
        await page.until(recorded)
        // What was said of the reply is part of the conversation that goes on.
        voicebox.pause = 0
        await page.click('#record')
        await page.until(() => document.querySelectorAll('.turn').length === 4)
        await page.until(() => document.querySelectorAll('.assistant')[1].ariaBusy === 'false', PATIENCE / 1000)
        expect((await page.evaluate(look)).turns[3]).toMatchObject({ text: 'ok.', voice: 'playing' })
        // All has come, and is still played: the button ends that.
        expect((await page.evaluate(look)).stop).toBe('shown')
        await page.click('#stop')
        expect((await page.evaluate(look)).turns[3]).toMatchObject({
          voice: 'silent',
          note: expect.stringMatching(/maximum length/),
        })
        await page.click('#fresh')
        expect((await page.evaluate(look)).turns).toEqual([])
        own(page)
      },
      wav,
    )
  }, 300_000)

  it('sends clips at their own rate, which the server resamples as units are made', async () => {
    const [rate, file] = [44_100, join(folder, 'own rate.wav')]
    await scope(async () => writeWav(file, tensor(chirp(0.7, 1, rate)), { sampleRate: rate }))
    const [heard, voices] = [vi.spyOn(Usdm.prototype, 'hear'), vi.spyOn(Usdm.prototype, 'voice')]
    const { bodies, microphone } = await withPage(
      served.url,
      async (page) => {
        await page.until(() => document.getElementById('model').textContent === 'usdm')
        await page.evaluate(() => {
          const { fetch } = window
          window.bodies = []
          window.fetch = (url: string, options?: { body?: string }) => {
            if (options?.body) window.bodies.push(options.body)
            return fetch(url, options)
          }
        })
        await page.click('.settings summary')
        await page.choose('#voice-file', [file])
        await page.until(() => document.querySelectorAll('#voice-clip .clip').length === 1)
        await page.press('Escape')
        await page.drop('main', [file])
        await page.until(() => document.querySelectorAll('#clips .clip').length === 1)
        await page.click('#ask')
        await page.until(() => document.querySelector('.assistant')?.ariaBusy === 'false', PATIENCE / 1000)
        await talk(page)
        await page.until(() => document.querySelectorAll('.assistant')[1]?.ariaBusy === 'false', PATIENCE / 1000)
        const found = await page.evaluate(() => ({
          bodies: window.bodies,
          microphone: new window.AudioContext().sampleRate,
        }))
        own(page)
        return found
      },
      wav,
    )
    const [first, second] = bodies.map((body: string) => JSON.parse(body))
    const bytes = readFileSync(file).toString('base64')
    expect(first.audio.reference).toEqual({ data: bytes, format: 'wav' })
    expect(first.messages[0].content[0].input_audio).toEqual({ data: bytes, format: 'wav' })
    const recording = Buffer.from(second.messages[2].content[0].input_audio.data, 'base64')
    expect(microphone).toBeGreaterThan(16_000)
    expect(recording.readUInt32LE(24)).toBe(microphone)
    await scope(async () => {
      const samples = (await readAudio(file)).samples.flatten()
      const wanted = await (await resample(samples, rate, 16_000, { quality: 'high' })).data()
      expect(heard.mock.calls[0]?.[0]).toEqual(wanted)
      expect(voices.mock.calls[0]?.[0]).toEqual({ samples: await samples.data(), sampleRate: rate })
    })
    heard.mockRestore()
    voices.mockRestore()
  }, 300_000)

  it('takes a voice and the sliders, and shows what is refused', async () => {
    await withPage(
      served.url,
      async (page) => {
        await page.until(() => document.getElementById('model').textContent === 'usdm')
        await page.click('.settings summary')
        await page.choose('#voice-file', [voice])
        await page.until(() => document.querySelectorAll('#voice-clip .clip').length === 1)
        expect(await page.evaluate(() => document.getElementById('voice').hidden)).toBe(true)
        await page.evaluate(() => {
          for (const [name, value] of Object.entries({
            steps: '7',
            'top-k': '1',
            'top-p': '0.9',
            temperature: '0.5',
          })) {
            const slider = document.getElementById(`slide-${name}`)
            slider.value = value
            slider.oninput()
          }
        })
        expect((await page.evaluate(look)).values).toEqual(['0.5', '0.9', '1', '7'])
        if (pictures) await page.screenshot(join(pictures, 'talk-voice.png'), false)
        await page.press('Escape')
        voicebox.calls = []
        const asked = vi.spyOn(Usdm.prototype, 'stream')
        await talk(page)
        await page.until(() => document.querySelector('.assistant')?.ariaBusy === 'false', PATIENCE / 1000)
        expect(asked.mock.calls.at(-1)?.[1]).toMatchObject({ sampling: { temperature: 0.5, topP: 0.9, topK: 1 } })
        asked.mockRestore()
        // 0.6 seconds of voice are 29 units.
        expect(voicebox.calls[0]).toMatchObject({ steps: 7, prompt: unitFrames(29) })
        await page.click('.settings summary')
        await page.click('#voice-clip button:last-of-type')
        expect(await page.evaluate(() => document.getElementById('voice').hidden)).toBe(false)
        // A click that is too short to be anything: it is given back with the reason.
        await page.click('#fresh')
        const short = join(folder, 'short.wav')
        await writeWav(short, tensor(chirp(0.01)), { sampleRate: 16_000 })
        await page.drop('main', [short])
        await page.until(() => document.querySelectorAll('#clips .clip').length === 1)
        expect((await page.evaluate(look)).ask).toBe('Send')
        await page.click('#ask')
        await page.until(() =>
          /expected at least .* samples at 16 kHz, one unit/.test(document.getElementById('error').textContent),
        )
        expect(await page.evaluate(look)).toMatchObject({ turns: [], clips: 1 })
        expect(page.problems).toEqual([expect.stringMatching(/status of 400/)])
      },
      wav,
    )
  }, 300_000)
})
