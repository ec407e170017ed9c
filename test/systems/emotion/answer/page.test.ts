import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { delimiter, join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { tensor, writeWav } from '../../../../lib/index.js'
import { EMOTIONS, type EmotionUtterance } from '../../../../lib/kit/emotion/dialog.js'
import type { LabeledDialog } from '../../../../lib/systems/emotion/answer/label.js'
import { writeEmotionReport } from '../../../../lib/systems/emotion/answer/report-files.js'
import { type Page, withPage } from '../../../browser.mjs'
import { fixture, settledTensors } from '../../../helpers.js'
import { nodeAv } from '../../../vision/node-av.js'

const names = ['chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable']
const chromium =
  process.env.CHROMIUM !== undefined ||
  (process.env.PATH ?? '').split(delimiter).some((path) => names.some((name) => existsSync(join(path, name))))

const folder = mkdtempSync(join(tmpdir(), 'voxtorch-emotion-page-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

/** A film as a folder of frames: a face that is another colour in each, and whose mouth turns. */
function writeFrames(path: string, count: number): void {
  mkdirSync(path)
  const [width, height] = [160, 90]
  for (let n = 0; n < count; n++) {
    const pixels = Buffer.alloc(3 * width * height)
    for (let y = 0; y < height; y++) {
      for (let x = 0; x < width; x++) {
        const [dx, dy] = [x - 80, y - 45]
        const inFace = dx * dx + dy * dy < 38 * 38
        const eye = (Math.abs(dx) - 14) ** 2 + (dy + 10) ** 2 < 20
        const mouth = Math.abs(dx) < 18 && Math.abs(dy - 18 - ((n / count - 0.5) * dx * dx) / 20) < 2.5
        const colour = eye || mouth ? [20, 20, 30] : inFace ? [250, 210 - 10 * n, 150] : [30 * n, 90, 140]
        pixels.set(colour, 3 * (y * width + x))
      }
    }
    const head = Buffer.from(`P6 ${width} ${height} 255\n`)
    writeFileSync(join(path, `frame${n}.ppm`), Buffer.concat([head, pixels]))
  }
}

const probabilities = (at: number, p: number) => EMOTIONS.map((_, i) => (i === at ? p : (1 - p) / 6))

/** Two dialogs of a few speakers, with a film, sounds, causes, truths and one word that is no markup. */
function dialogs(): LabeledDialog[] {
  const make = (id: string, count: number, media: boolean): LabeledDialog => {
    const utterances = Array.from({ length: count }, (_, i): EmotionUtterance => {
      const clip = { frames: join(folder, 'film'), audio: join(folder, 'talk.wav'), start: 0.5 * i, end: 0.5 * i + 0.5 }
      return {
        id: i + 1,
        text: ['Did you "see" that?', 'They took it <all> & left.', 'Oh no!', 'Well, it is only a chair.'][
          i % 4
        ] as string,
        speaker: ['Chandler', 'Ross', 'Rachel'][i % 3] as string,
        emotion: EMOTIONS[(2 * i) % 7] as string,
        ...(media && { clip }),
      }
    })
    const felt = utterances.map((_, i) => (i % 3 === 2 ? (2 * i + 1) % 7 : (2 * i) % 7))
    return {
      labels: EMOTIONS,
      dialog: { id, source: 'made', utterances },
      utterances: felt.map((at, i) => ({
        emotion: EMOTIONS[at] as string,
        probabilities: probabilities(at, 0.4 + 0.08 * (i % 7)),
      })),
      causes: [
        { effect: 1, cause: 0, emotion: 'anger' },
        { effect: 3, cause: 1, emotion: 'sadness' },
        { effect: 2, cause: 2, emotion: 'joy' },
      ],
    }
  }
  return [make('7', 8, true), make('of two', 4, false)]
}

// biome-ignore lint/suspicious/noExplicitAny: the page's own world has no types here
declare const document: any, innerWidth: number, Image: any, audio: any, MutationObserver: any

/** Runs in the page. */
async function look() {
  // biome-ignore lint/suspicious/noExplicitAny: elements
  const all = (query: string, root: any = document): any[] => [...root.querySelectorAll(query)]
  const boxOf = (element: { getBoundingClientRect(): { left: number; right: number; top: number; bottom: number } }) =>
    element.getBoundingClientRect()
  const strips = all('figure.dialog svg').map((strip) => {
    const [words, pictures] = [all('.word', strip), all('image', strip)]
    const boxes = [...words, ...pictures].map(boxOf)
    const meet = boxes.flatMap((a, i) =>
      boxes
        .slice(i + 1)
        .filter((b) => a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 1 && b.top < a.bottom - 1),
    )
    // A word that is wider than its field cannot be read.
    const wide = words.filter((word) => {
      const [text, field] = [boxOf(word), boxOf(word.parentElement.querySelector('.felt'))]
      return text.left < field.left || text.right > field.right
    })
    return {
      said: words.map((word) => word.textContent),
      rings: all('.ring', strip).length,
      causes: all('.cause', strip).length,
      sounds: all('[data-audio]', strip).length,
      meet: meet.length,
      wide: wide.length,
      pictures: pictures.map((picture) => picture.getAttribute('href')),
      // Arrows begin and end outside of all fields and pictures.
      hit: all('.cause', strip).filter((path) =>
        [0, path.getTotalLength()].some((length) => {
          const { x, y } = path.getPointAtLength(length)
          return all('.felt, image', strip).some((box) => {
            const [left, top, width, height] = ['x', 'y', 'width', 'height'].map((key) => Number(box.getAttribute(key))) as [number, number, number, number] // biome-ignore format: one line
            return x > left && x < left + width && y > top && y < top + height
          })
        }),
      ).length,
      heights: new Set(words.map((word) => Math.round(boxOf(word).bottom - boxOf(word).top))).size,
    }
  })
  const pictures = await Promise.all(
    [...new Set(strips.flatMap((strip) => strip.pictures))].map(async (address) => {
      const picture = new Image()
      picture.src = address
      await picture.decode()
      return `${picture.naturalWidth} × ${picture.naturalHeight}`
    }),
  )
  return {
    title: document.title,
    headings: all('h2').map((heading) => heading.textContent),
    note: document.querySelector('.note')?.textContent ?? null,
    strips: strips.map(({ pictures, ...strip }) => ({ ...strip, pictures: pictures.length })),
    pictures,
    points: all('.reliability .point').length,
    right: all('.confusion td.right').length,
    wide: document.documentElement.scrollWidth > innerWidth,
  }
}

describe.skipIf(!chromium)('the report, in Chromium', () => {
  const shots = process.env.VOXTORCH_SCREENSHOTS
  const shoot = async (page: Page, name: string) => {
    if (shots) await page.screenshot(join(shots, `emotion-${name}.png`))
  }
  beforeAll(async () => {
    writeFrames(join(folder, 'film'), 8)
    const sound = Float32Array.from(
      { length: 4 * 16_000 },
      (_, i) => 0.3 * Math.sin((2 * Math.PI * (220 + i / 200) * i) / 16_000),
    )
    await writeWav(join(folder, 'talk.wav'), tensor(sound), { sampleRate: 16_000 })
  })

  it('shows strips, pictures and measures in a wide and in a narrow window, and plays what is clicked', async () => {
    const before = await settledTensors()
    const file = await writeEmotionReport(join(folder, 'report.html'), dialogs(), 'Feelings & more')
    expect(await settledTensors()).toBe(before)
    await withPage(pathToFileURL(file).href, async (page) => {
      await page.size(1280, 900)
      const seen = await page.evaluate(look)
      expect(seen).toMatchObject({
        title: 'Feelings & more',
        note: null,
        points: expect.any(Number),
        right: 7,
        wide: false,
        headings: expect.arrayContaining(['Dialog 7', 'Dialog of two']),
      })
      expect(seen.points).toBeGreaterThan(2)
      expect(seen.strips).toEqual([
        { said: expect.any(Array), rings: 2, causes: 3, sounds: 8, meet: 0, wide: 0, hit: 0, pictures: 8, heights: 1 },
        { said: expect.any(Array), rings: 1, causes: 3, sounds: 0, meet: 0, wide: 0, hit: 0, pictures: 0, heights: 1 },
      ])
      expect(seen.strips[0]?.said).toEqual(dialogs()[0]?.utterances.map(({ emotion }) => emotion))
      // The folder has no rate: all pictures are the frame in its middle, 160 × 90 in a field of 120 × 88.
      expect(seen.pictures).toEqual(['120 × 68'])
      await shoot(page, 'wide')
      // Heard when it is clicked, marked meanwhile, and ended by itself. A short sound may be over before anybody looks.
      await page.evaluate(() => {
        const marks: string[] = []
        const note = (changes: { target: { classList: { contains(name: string): boolean }; ariaLabel: string } }[]) => {
          for (const { target } of changes) if (target.classList.contains('playing')) marks.push(target.ariaLabel)
        }
        new MutationObserver(note).observe(document.body, {
          attributes: true,
          attributeFilter: ['class'],
          subtree: true,
        })
        document.marks = marks
      })
      await page.click('figure.dialog [data-audio] .felt')
      await page.until(() => document.marks.length === 1 && document.querySelector('.playing') === null)
      expect(await page.evaluate(() => [audio.duration, audio.currentTime, audio.error])).toEqual([0.5, 0.5, null])
      // The same with the keyboard.
      await page.evaluate(() => document.querySelectorAll('[data-audio]')[1].focus())
      await page.press('Enter')
      await page.until(() => document.marks.length === 2)
      expect(await page.evaluate(() => document.marks)).toEqual([
        'play: Did you "see" that?',
        'play: They took it <all> & left.',
      ])
      await page.until(() => document.querySelector('.playing') === null)
      await page.size(390, 844, true)
      const narrow = await page.evaluate(look)
      expect(narrow).toMatchObject({
        wide: false,
        strips: [
          { meet: 0, wide: 0 },
          { meet: 0, wide: 0 },
        ],
      })
      await shoot(page, 'narrow')
      await page.send('Emulation.setEmulatedMedia', { features: [{ name: 'prefers-color-scheme', value: 'dark' }] })
      await shoot(page, 'dark')
      expect(page.requests.filter((url: string) => !/^(file|data|about|blob):/.test(url))).toEqual([])
      expect(page.problems).toEqual([])
    })
  }, 300_000)

  it('says which pictures are missing, and why', async () => {
    const [dialog] = dialogs() as [LabeledDialog]
    writeFileSync(join(folder, 'broken.mp4'), 'no film')
    const utterances = dialog.dialog.utterances.map((one) => ({
      ...one,
      clip: { video: join(folder, 'broken.mp4'), audio: join(folder, 'talk.wav') },
    }))
    const file = await writeEmotionReport(join(folder, 'broken.html'), [{ ...dialog, dialog: { ...dialog.dialog, utterances } }], 'Broken') // biome-ignore format: one line
    const reason = nodeAv
      ? /expected a video file, got an unknown format/
      : /node-av, which is not installed: npm install node-av/
    expect(readFileSync(file, 'utf8')).toMatch(/<p class="note">Thumbnails of 1 video are missing: .*broken\.mp4/)
    expect(readFileSync(file, 'utf8')).toMatch(reason)
  })
})

it.skipIf(!nodeAv)('takes pictures of a film of its own, at the time of what is said (needs node-av)', async () => {
  const { cases, tensors } = await fixture<{ name: string }>('vision/videos-decoded')
  const film = join(folder, 'film.mp4')
  writeFileSync(film, tensors[`${cases[0]?.name}/file/bytes`]?.dataSync() as Uint8Array)
  const [dialog] = dialogs() as [LabeledDialog]
  const utterances = dialog.dialog.utterances.map((one) => ({
    ...one,
    clip: { video: film, audio: join(folder, 'talk.wav'), start: 0, end: 0.1 },
  }))
  const file = await writeEmotionReport(join(folder, 'film.html'), [{ ...dialog, dialog: { ...dialog.dialog, utterances } }], 'Film') // biome-ignore format: one line
  expect(readFileSync(file, 'utf8').match(/<image href="data:image\/png/g)).toHaveLength(8)
})
