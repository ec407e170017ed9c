import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { delimiter, join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type Served, serve } from '../../lib/serve/index.js'
import { type Page, withPage } from '../browser.mjs'
import { PATIENCE } from '../patience.js'
import { Parrot, sineWav } from './models.mjs'

const names = ['chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable']
const chromium =
  process.env.CHROMIUM !== undefined ||
  (process.env.PATH ?? '').split(delimiter).some((path) => names.some((name) => existsSync(join(path, name))))

// biome-ignore lint/suspicious/noExplicitAny: the page's own world has no types here
declare const document: any, getComputedStyle: any, innerWidth: number

/** Runs in the page: what someone would see and a screen reader would say. */
function look() {
  // biome-ignore lint/suspicious/noExplicitAny: elements
  const all = (query: string, root: any = document): any[] => [...root.querySelectorAll(query)]
  // biome-ignore lint/suspicious/noExplicitAny: elements
  const clip = (item: any) => ({
    name: item.querySelector('.name').textContent,
    time: item.querySelector('time').textContent,
    buttons: all('button', item).map((button) => button.ariaLabel),
    wave: item.querySelector('canvas').ariaLabel,
    role: item.querySelector('canvas').getAttribute('role'),
    seek: item.querySelector('input[type=range]').ariaLabel,
    // Pixels that are not empty, in the first and the second half of the waveform.
    drawn: [0, 1].map((half) => {
      const canvas = item.querySelector('canvas')
      const width = Math.floor(canvas.width / 2)
      const { data } = canvas.getContext('2d').getImageData(half * width, 0, width, canvas.height)
      return data.filter((value: number, i: number) => i % 4 === 3 && value > 0).length
    }),
  })
  const hidden = (id: string) => document.getElementById(id).hidden
  return {
    title: document.title,
    model: document.getElementById('model').textContent,
    log: { role: document.getElementById('log').getAttribute('role'), hidden: hidden('log') },
    welcome: !hidden('welcome'),
    ideas: all('.ideas button').map((button) => button.textContent),
    turns: all('.turn').map((turn) => ({
      who: turn.ariaLabel,
      text: turn.querySelector('p:not(.note)')?.textContent ?? '',
      note: turn.querySelector('.note')?.textContent ?? null,
      busy: turn.ariaBusy,
      clips: all('.clip', turn).map(clip),
    })),
    clips: all('#clips .clip').map(clip),
    prompt: document.getElementById('prompt').value,
    label: document.querySelector('label[for=prompt]').textContent,
    focus: document.activeElement.id,
    error: hidden('error') ? null : document.getElementById('error').textContent,
    alert: document.getElementById('error').getAttribute('role'),
    status: document.getElementById('status').textContent,
    statusRole: document.getElementById('status').getAttribute('role'),
    buttons: Object.fromEntries(
      ['ask', 'stop', 'record', 'choose', 'fresh'].map((id) => {
        const button = document.getElementById(id)
        return [id, button.hidden ? 'hidden' : button.disabled ? 'disabled' : button.textContent]
      }),
    ),
    // Every control says what it is.
    unnamed: all('button, input, textarea, canvas, summary').filter(
      (control) =>
        !control.closest('[aria-hidden=true]') &&
        !control.hidden &&
        !(control.ariaLabel || control.textContent.trim() || control.labels?.length),
    ).length,
    wide: document.documentElement.scrollWidth > innerWidth,
  }
}

const idle = () => document.getElementById('stop').hidden && document.querySelector('.assistant') !== null

describe.skipIf(!chromium)('the page, in Chromium', () => {
  const folder = mkdtempSync(join(tmpdir(), 'voxtorch-page-'))
  const wav = join(folder, 'rising tone.wav')
  const other = join(folder, 'short.wav')
  const model = new Parrot()
  let served: Served
  beforeAll(async () => {
    writeFileSync(wav, sineWav({ seconds: 2.5, rate: 44_100, rising: true }))
    writeFileSync(other, sineWav({ seconds: 0.5, amplitude: 0.1 }))
    writeFileSync(join(folder, 'notes.txt'), 'no sound')
    served = await serve(model, { maxNewTokens: 300 })
  })
  afterAll(async () => {
    await served.close({ now: true })
    rmSync(folder, { recursive: true })
  })
  const own = ({ requests }: Page) =>
    expect(requests.filter((url) => !url.startsWith(served.url) && !/^(about|data|blob):/.test(url))).toEqual([])

  it('takes a dropped file, asks, shows the answer as it streams, goes on, stops, begins anew', async () => {
    await withPage(served.url, async (page) => {
      await page.until(() => document.getElementById('model').textContent === 'parrot')
      const first = await page.evaluate(look)
      expect(first).toMatchObject({
        title: 'parrot · voxtorch',
        welcome: true,
        log: { role: 'log', hidden: true },
        ideas: ['What does the speaker say?', 'How does the speaker feel?', 'Describe what you hear.'],
        turns: [],
        clips: [],
        label: 'Your question',
        error: null,
        alert: 'alert',
        statusRole: 'status',
        buttons: { ask: 'disabled', stop: 'hidden', record: 'Record', choose: 'Add audio', fresh: 'disabled' },
        unnamed: 0,
        wide: false,
      })

      await page.drop('main', [wav, other])
      await page.until(() => document.querySelectorAll('#clips .clip').length === 2)
      // A waveform is drawn when its place has a size, some frames behind its clip.
      await page.until(() => {
        const waves = [...document.querySelectorAll('#clips canvas')]
        return waves.every((wave) =>
          wave
            .getContext('2d')
            .getImageData(0, 0, wave.width, wave.height)
            .data.some((value: number) => value > 0),
        )
      })
      const dropped = await page.evaluate(look)
      expect(dropped.clips).toMatchObject([
        {
          name: 'rising tone.wav',
          time: '0:02.5',
          buttons: ['Play rising tone.wav', 'Remove rising tone.wav'],
          wave: 'Waveform of rising tone.wav, 2.5 seconds',
          role: 'img',
          seek: 'Position in rising tone.wav',
        },
        { name: 'short.wav', time: '0:00.5' },
      ])
      const [rising, even] = dropped.clips.map(({ drawn: [before, after] }) => after! / before!)
      // Areas of the halves of a triangle, and of a rectangle.
      expect(rising).toBeGreaterThan(2.7)
      expect(rising).toBeLessThan(3.3)
      expect(even).toBeCloseTo(1, 1)
      expect(dropped).toMatchObject({ focus: 'prompt', status: 'short.wav added', unnamed: 0, buttons: { ask: 'Ask' } })
      await page.click('#clips .clip:nth-child(2) button:last-of-type')
      expect(await page.evaluate(look)).toMatchObject({
        clips: [{ name: 'rising tone.wav' }],
        status: 'short.wav removed',
      })

      await page.click('#clips .clip button')
      await page.until(() => document.querySelector('#clips .clip button').ariaLabel === 'Pause rising tone.wav')
      await page.until(() => document.querySelector('#clips input').value > 0.02)
      await page.click('#clips .clip button')
      await page.until(() => document.querySelector('#clips .clip button').ariaLabel === 'Play rising tone.wav')

      await page.click('.ideas button')
      expect((await page.evaluate(look)).prompt).toBe('What does the speaker say?')
      model.pause = 60
      await page.press('Enter')
      await page.until(() => (document.querySelector('.assistant p')?.textContent ?? '').startsWith('Turn 1: '))
      const during = await page.evaluate(look)
      expect(during.turns).toMatchObject([
        {
          who: 'You',
          text: 'What does the speaker say?',
          clips: [{ name: 'rising tone.wav', buttons: ['Play rising tone.wav'] }],
        },
        { who: 'Answer', busy: 'true' },
      ])
      // A rising sine of 0.5 has a root mean square of 0.5 / sqrt(6).
      const wanted = 'Turn 1: What does the speaker say? | 2.50 s at 0.204'
      expect(during.turns[1]?.text.length).toBeLessThan(wanted.length)
      expect(wanted.startsWith(during.turns[1]!.text)).toBe(true)
      expect(during).toMatchObject({
        clips: [],
        prompt: '',
        status: 'Listening…',
        log: { hidden: false },
        welcome: false,
      })
      expect(during.buttons).toMatchObject({ ask: 'hidden', stop: 'Stop', record: 'disabled', choose: 'disabled' })
      await page.until(idle)
      model.pause = 0
      const after = await page.evaluate(look)
      expect(after.turns[1]).toMatchObject({ text: wanted, busy: 'false', note: null })
      expect(after).toMatchObject({
        status: `Answer: ${wanted}`,
        focus: 'prompt',
        buttons: { fresh: 'New conversation' },
      })

      // The second turn, with one more clip: the server gets the first clip again.
      await page.drop('#prompt', [other])
      await page.until(() => document.querySelectorAll('#clips .clip').length === 1)
      await page.type('And now?')
      await page.click('#ask')
      await page.until(() => document.querySelectorAll('.turn').length === 4 && document.getElementById('stop').hidden)
      const second = await page.evaluate(look)
      expect(second.turns[3]?.text).toBe('Turn 3: And now? | 2.50 s at 0.204, 0.50 s at 0.071')
      expect(model.turns.map(({ role }) => role)).toEqual(['user', 'assistant', 'user'])

      // Stopped in the middle; what came stays.
      model.pause = 20
      await page.type('count 300')
      await page.press('Enter', { shift: true })
      expect((await page.evaluate(look)).prompt).toBe('count 300\n')
      await page.press('Enter')
      await page.until(() => document.querySelectorAll('.turn')[5]?.textContent.includes('3 4 '))
      await page.click('#stop')
      await page.until(() => document.getElementById('stop').hidden)
      const stopped = (await page.evaluate(look)).turns[5]
      expect(stopped).toMatchObject({ note: 'Stopped.', busy: 'false' })
      expect(stopped?.text).toMatch(/^1 2 3 4 /)
      expect(stopped?.text.length).toBeLessThan(500)
      await expect.poll(() => model.running, { timeout: PATIENCE }).toBe(0)
      model.pause = 0

      await page.click('#fresh')
      expect(await page.evaluate(look)).toMatchObject({ turns: [], welcome: true, log: { hidden: true } })

      // Begun anew in the middle of an answer: nothing of it is sent any more.
      model.pause = 20
      await page.type('count 300')
      await page.press('Enter')
      await page.until(() => document.querySelector('.assistant p')?.textContent.includes('3 '))
      await page.click('#fresh')
      await page.until(() => document.getElementById('stop').hidden)
      expect(await page.evaluate(look)).toMatchObject({ turns: [], clips: [], prompt: '', error: null })
      model.pause = 0
      await page.type('hello')
      await page.press('Enter')
      await page.until(idle)
      expect((await page.evaluate(look)).turns[1]?.text).toBe('Turn 1: hello | no sound')
      own(page)
      expect(page.problems).toEqual([])
    })
  })

  it('records from the microphone', async () => {
    await withPage(served.url, async (page) => {
      await page.until(() => document.getElementById('model').textContent === 'parrot')
      await page.click('#record')
      await page.until(() => Number(document.getElementById('time').textContent.slice(2)) >= 1.2)
      const during = await page.evaluate(() => ({
        pressed: document.getElementById('record').ariaPressed,
        shown: !document.getElementById('recording').hidden,
        ask: document.getElementById('ask').disabled,
      }))
      expect(during).toEqual({ pressed: 'true', shown: true, ask: true })
      const pictures = process.env.VOXTORCH_SCREENSHOTS
      if (pictures) await page.screenshot(join(pictures, 'recording.png'), false)
      await page.click('#record')
      await page.until(() => document.querySelectorAll('#clips .clip').length === 1)
      const { clips, buttons, status } = await page.evaluate(look)
      expect(clips[0]).toMatchObject({ name: 'Recording 1', buttons: ['Play Recording 1', 'Remove Recording 1'] })
      expect([buttons.record, status]).toEqual(['Record', 'Recording added'])
      await page.click('#ask')
      await page.until(idle)
      const { turns } = await page.evaluate(look)
      // The browser's own false microphone beeps.
      expect(turns[1]?.text).toMatch(/^Turn 1: {2}\| [1-9]\.\d\d s at 0\.\d*[1-9]/)
      expect(page.problems).toEqual([])
      own(page)
    })
  })

  it('shows what went wrong, and gives the question back', async () => {
    await withPage(served.url, async (page) => {
      await page.until(() => document.getElementById('model').textContent === 'parrot')
      await page.drop('main', [join(folder, 'notes.txt'), other])
      await page.until(() => document.querySelectorAll('#clips .clip').length === 1)
      expect((await page.evaluate(look)).error).toBe(
        'notes.txt: this browser cannot decode the audio. Convert it to WAV.',
      )
      await page.click('.settings summary')
      await page.click('#tokens')
      await page.type('9999')
      await page.press('Escape')
      expect(await page.evaluate(() => document.querySelector('.settings').open)).toBe(false)
      await page.click('#prompt')
      await page.type('too much')
      await page.evaluate(() => document.getElementById('ask').click())
      await page.until(() => /max_tokens/.test(document.getElementById('error').textContent))
      const refused = await page.evaluate(look)
      expect(refused).toMatchObject({ turns: [], prompt: 'too much', clips: [{ name: 'short.wav' }], welcome: true })
      // An error in the middle of the answer.
      await page.evaluate(() => {
        document.getElementById('tokens').value = ''
      })
      const stream = model.stream
      model.stream = async function* () {
        yield { text: 'so far', tokens: 1 }
        throw new Error('inside')
      }
      await page.click('#ask')
      await page.until(() => /Internal error/.test(document.getElementById('error').textContent))
      model.stream = stream
      expect(await page.evaluate(look)).toMatchObject({ turns: [], prompt: 'too much', clips: [{ name: 'short.wav' }] })
      await page.click('#ask')
      await page.until(idle)
      expect(await page.evaluate(look)).toMatchObject({ error: null, turns: [{}, { note: null }] })
      expect(page.problems).toEqual([expect.stringMatching(/status of 400/)])
    })
  })

  it('offers nothing for audio where the model takes none', async () => {
    const silent = await serve(Object.assign(new Parrot(), { inputModalities: ['text'] as const }))
    try {
      await withPage(silent.url, async (page) => {
        await page.until(() => document.getElementById('model').textContent === 'parrot')
        expect((await page.evaluate(look)).buttons).toMatchObject({ record: 'hidden', choose: 'hidden' })
        // biome-ignore lint/performance/useDomNodeTextContent: what is to be seen
        expect(await page.evaluate(() => document.body.innerText)).not.toMatch(/audio|hear|record/i)
        await page.drop('main', [wav])
        await page.click('#prompt')
        await page.type('hello')
        await page.press('Enter')
        await page.until(idle)
        expect(await page.evaluate(look)).toMatchObject({
          clips: [],
          error: null,
          turns: [{ clips: [] }, { note: null }],
        })
        const pictures = process.env.VOXTORCH_SCREENSHOTS
        if (pictures) await page.screenshot(join(pictures, 'text.png'), false)
        expect(page.problems).toEqual([])
      })
    } finally {
      await silent.close({ now: true })
    }
  })

  it('asks for the key of a server that has one', async () => {
    const locked = await serve(model, { apiKey: 'open-sesame' })
    try {
      await withPage(locked.url, async (page) => {
        await page.until(() => document.activeElement.id === 'key')
        expect((await page.evaluate(look)).error).toMatch(/API key/)
        await page.type('wrong-key-here')
        await page.press('Enter')
        await page.until(() => document.getElementById('key').value === '' && !document.getElementById('error').hidden)
        await page.click('#key')
        await page.type('open-sesame')
        await page.press('Enter')
        await page.until(() => document.getElementById('model').textContent === 'parrot')
        expect(await page.evaluate(() => document.getElementById('key-row').hidden)).toBe(true)
        await page.click('#prompt')
        await page.type('hello')
        await page.press('Enter')
        await page.until(idle)
        expect((await page.evaluate(look)).turns[1]?.text).toBe('Turn 1: hello | no sound')
      })
    } finally {
      await locked.close({ now: true })
    }
  })

  it('fits a narrow screen, by night and by day, and is read with the keyboard alone', async () => {
    const pictures = process.env.VOXTORCH_SCREENSHOTS
    await withPage(served.url, async (page) => {
      await page.until(() => document.getElementById('model').textContent === 'parrot')
      const scheme = (value: string) =>
        page.send('Emulation.setEmulatedMedia', { features: [{ name: 'prefers-color-scheme', value }] })
      const back = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor)
      await scheme('light')
      if (pictures) await page.screenshot(join(pictures, 'welcome.png'), false)
      const order: string[] = []
      for (let i = 0; i < 9; i++) {
        await page.press('Tab')
        order.push(await page.evaluate(() => document.activeElement.id || document.activeElement.textContent))
      }
      const ideas = ['What does the speaker say?', 'How does the speaker feel?', 'Describe what you hear.']
      expect(order.slice(0, 7)).toEqual([...ideas, 'prompt', 'record', 'choose', 'Settings'])
      await page.drop('main', [wav])
      await page.until(() => document.querySelectorAll('#clips .clip').length === 1)
      await page.type('What tone is this, and how long does it last?')
      await page.press('Enter')
      await page.until(idle)
      await page.drop('main', [other, wav])
      await page.until(() => document.querySelectorAll('#clips .clip').length === 2)
      await page.type('And these two?')
      const light = await back()
      if (pictures) await page.screenshot(join(pictures, 'light.png'), false)
      await scheme('dark')
      expect(await back()).not.toBe(light)
      if (pictures) await page.screenshot(join(pictures, 'dark.png'), false)
      await page.size(360, 700, true)
      expect((await page.evaluate(look)).wide).toBe(false)
      if (pictures) await page.screenshot(join(pictures, 'narrow.png'), false)
      await page.click('.settings summary')
      expect((await page.evaluate(look)).wide).toBe(false)
      if (pictures) await page.screenshot(join(pictures, 'settings.png'), false)
      expect(page.problems).toEqual([])
    })
  })
})
