import { execFileSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import * as vt from '../../../../lib/index.js'
import * as spectra from '../../../../lib/systems/spectra/index.js'
import { checkPage } from '../../../browser.mjs'
import { settledTensors } from '../../../helpers.js'
import { letters, temporary } from '../pretraining/helpers.js'

interface Spoken {
  word: string
  start: number
  end: number
}

/** A clip in which the sample at a word's begin is its number; silence is 0. */
function clipOf(words: readonly Spoken[], seconds: number): Float32Array {
  const audio = new Float32Array(seconds * 16000)
  for (const [i, { start, end }] of words.entries()) {
    audio.fill((i + 1) / 1000, Math.round(start * 16000), Math.round(end * 16000))
  }
  return audio
}

/**
 * Knows the truth: finds each word in the sound it is given, by the number that is its sound. Words are asked in order, so
 * it goes on from the last one that it was asked for; a word that is not in the sound is put at its end.
 */
class Oracle implements spectra.WordTimesModel {
  calls: { shape: number[]; seconds: number[] }[] = []
  constructor(
    readonly words: readonly Spoken[],
    readonly change: (start: number, end: number, view: number, i: number) => [number, number] = (s, e) => [s, e],
  ) {}

  async predict(inputs: spectra.WordTimesInputs): Promise<{ starts: vt.Tensor; ends: vt.Tensor }> {
    const { inputValues, audioLengths, inputIds, tokenTypeIds, attentionMask } = inputs
    const ids = inputIds.toArray() as number[][]
    const lengths = audioLengths.toArray() as number[]
    this.calls.push({ shape: [...inputIds.shape], seconds: lengths.map((length) => length / 16000) })
    expect(inputValues.shape[0]).toBe(2 * ids.length)
    expect(inputs.audiosPerText).toBe(2)
    expect(attentionMask.all().item()).toBe(true)
    expect((tokenTypeIds.toArray() as number[][])[0]).toEqual(ids[0]!.map((_, i) => (i === 0 ? 0 : 1)))
    // Where no word starts or ends, the heads say nothing that may be used.
    const [starts, ends] = [0, 1].map(() => ids.map((row) => row.map(() => Number.NaN)))
    for (const [v, row] of ids.entries()) {
      expect(lengths[2 * v]).toBe(0)
      const sound = (await inputValues.select(0, 2 * v + 1).data()) as Float32Array
      let at = 1
      for (let k = 0; at < row.length - 1; k++) {
        const text = row
          .slice(at, -1)
          .map((id) => String.fromCharCode(id + 87))
          .join('')
        const number = this.words.findIndex(({ word }) => text.startsWith(plain(word)))
        const length = plain(this.words[number]!.word).length
        const value = Math.fround((number + 1) / 1000)
        const begin = sound.indexOf(value)
        const times = begin < 0 ? [9.9, 9.9] : [begin / 16000, (sound.lastIndexOf(value) + 1) / 16000]
        const [start, end] = this.change(times[0]!, times[1]!, v, k)
        starts![v]![at] = start / 10
        at += length
        ends![v]![at - 1] = end / 10
      }
    }
    return { starts: vt.tensor(starts!, { dtype: 'float32' }), ends: vt.tensor(ends!, { dtype: 'float32' }) }
  }
}

const plain = (word: string) => word.toLowerCase().replace(/[^a-z]/g, '')

/** Words of different letters, so that each is known by its own. */
const name = (i: number) => String.fromCharCode(97 + Math.floor(i / 26), 97 + (i % 26))
const three: Spoken[] = [
  { word: 'Hello,', start: 0.5, end: 1 },
  { word: 'big', start: 1.2, end: 1.5 },
  { word: 'world!', start: 1.6, end: 2.4 },
]
const textOf = (words: readonly Spoken[]) => words.map(({ word }) => word).join(' ')
const ask = (model: spectra.WordTimesModel, words = three, seconds = 3, options = {}) =>
  spectra.alignWords(model, { audio: clipOf(words, seconds), text: textOf(words), tokenizer: letters }, options)

describe('alignWords', () => {
  it('gives each word its time, from two views that are half a second apart', async () => {
    const oracle = new Oracle(three)
    const before = await settledTensors()
    const { words, duration, windows } = await ask(oracle)
    expect(vt.memoryStats().liveTensors).toBeLessThanOrEqual(before)
    expect(duration).toBe(3)
    expect(oracle.calls).toEqual([{ shape: [2, 15], seconds: [0, 3, 0, 3.5] }])
    expect(windows).toEqual([{ start: 0, end: 3, firstWord: 0, endWord: 3 }])
    for (const [i, { word, start, end, confidence }] of words.entries()) {
      expect(word).toBe(three[i]!.word)
      expect(start).toBeCloseTo(three[i]!.start, 4)
      expect(end).toBeCloseTo(three[i]!.end, 4)
      expect(confidence).toBeGreaterThan(0.999)
    }
  })

  it('has half the confidence where the views are 0.2 s apart, and takes their mean', async () => {
    const { words } = await ask(new Oracle(three, (s, e, view, i) => (view === 1 && i === 1 ? [s + 0.2, e] : [s, e])))
    expect(words[1]!.start).toBeCloseTo(1.3, 3)
    expect(words[1]!.confidence).toBeCloseTo(0.5, 3)
    expect(words[0]!.confidence).toBeGreaterThan(0.999)
    // A model that says the same whatever it hears agrees with itself, but not across the shift.
    const deaf = await ask(new Oracle(three, (_s, _e, _view, i) => [1 + i, 1.5 + i]))
    for (const { confidence } of deaf.words) expect(confidence).toBeCloseTo(2 ** (-0.5 / 0.2), 3)
    const one = await ask(new Oracle(three, (_s, _e, _view, i) => [i, i + 0.5]), three, 3, { delay: 0 })
    for (const { confidence } of one.words) expect(confidence).toBe(1)
  })

  it('repairs order: no word starts before the last one ends, and what was moved is trusted less', async () => {
    const said = [
      [0.5, 1.6],
      [1.2, 1.5],
      [2.0, 1.9],
    ]
    const model = new Oracle(three, (_s, _e, view, i) => [said[i]![0]! + 0.5 * view, said[i]![1]! + 0.5 * view])
    const { words } = await ask(model)
    const times = words.flatMap(({ start, end }) => [start, end])
    expect([...times].sort((a, b) => a - b)).toEqual(times)
    // Least squares: 1.6 and 1.2 become their mean, 1.4, and 1.5 is past it; 2.0 and 1.9 theirs.
    for (const [i, time] of [0.5, 1.4, 1.4, 1.5, 1.95, 1.95].entries()) expect(times[i]).toBeCloseTo(time, 4)
    expect(words[0]!.confidence).toBeCloseTo(2 ** (-(1.6 - 1.4 - 0.05) / 0.2), 3)
    // An end 0.1 s before its start is 0.2 s short of a word.
    expect(words[2]!.confidence).toBeCloseTo(0.5, 3)
  })

  it('does not mind an end a tenth of a second into the next word, as training has it', async () => {
    const { words } = await ask(
      new Oracle(three, (s, e, _view, i) => [s, i === 1 ? e + 0.2 : e]), // 1.7 where the next starts at 1.6
    )
    expect([words[1]!.end, words[2]!.start].map((time) => Number(time.toFixed(3)))).toEqual([1.65, 1.65])
    expect(words[1]!.confidence).toBeGreaterThan(0.999)
  })

  it('cuts times to the clip, and gives NaN no confidence', async () => {
    const wild = [
      [-4, 1],
      [Number.NaN, 1.5],
      [1.6, 40],
    ]
    const { words } = await ask(new Oracle(three, (_s, _e, v, i) => [wild[i]![0]! + 0.5 * v, wild[i]![1]! + 0.5 * v]))
    for (const { start, end } of words) expect(start >= 0 && end >= start && end <= 3).toBe(true)
    expect(words[0]!.start).toBe(0)
    expect(words[1]!.confidence).toBe(0)
    expect(words[2]!.end).toBe(3)
    expect(words[2]!.confidence).toBeLessThan(1e-6)
  })

  it('hears long audio in windows, and finds every word where it is', async () => {
    const random = new vt.Random(8)
    let at = 0.4
    const words = Array.from({ length: 120 }, (_, i) => {
      // Pauses of up to four seconds, so that letters tell little about time.
      const start = at + (i % 20 === 19 ? 4 * random.float() : 0.1 * random.float())
      at = start + 0.15 + 0.35 * random.float()
      return { word: name(i), start, end: at }
    })
    const seconds = Math.ceil(at + 1)
    const oracle = new Oracle(words)
    const { words: found, windows, duration } = await ask(oracle, words, seconds)
    expect(duration).toBe(seconds)
    expect(duration).toBeGreaterThan(45)
    expect(found).toHaveLength(120)
    for (const [i, { word, start, end, confidence }] of found.entries()) {
      expect(word).toBe(words[i]!.word)
      expect(Math.abs(start - words[i]!.start)).toBeLessThan(0.01)
      expect(Math.abs(end - words[i]!.end)).toBeLessThan(0.01)
      expect(confidence).toBeGreaterThan(0.9)
    }
    // Every window is at most ten seconds with its delay, and takes up the words where the last one left them.
    expect(oracle.calls.every((call) => call.seconds.every((length) => length <= 10))).toBe(true)
    expect(windows.at(-1)!.endWord).toBe(120)
    for (const [i, window] of windows.entries()) expect(window.firstWord).toBe(windows[i - 1]?.endWord ?? 0)
    expect(windows.length).toBeLessThan(20)
  })

  it('ends whatever the model says, keeps rows within maxLength, and takes words without a sub-word', async () => {
    const words = Array.from({ length: 40 }, (_, i) => ({ word: name(i), start: i, end: i + 0.5 }))
    for (const said of [0, 5, 9.9, Number.NaN]) {
      const stuck = new Oracle(words, () => [said, said])
      const { words: found } = await ask(stuck, words, 41, { maxLength: 12 })
      expect(found).toHaveLength(40)
      expect(stuck.calls.every(({ shape }) => shape[1]! <= 12)).toBe(true)
      for (const [i, { start, end }] of found.entries()) {
        expect(start >= (found[i - 1]?.end ?? 0) && end >= start && end <= 41).toBe(true)
      }
    }
    const audio = clipOf(three, 3)
    const input = { audio, text: 'Hello, ?? big world!', tokenizer: letters }
    const { words: found } = await spectra.alignWords(new Oracle(three), input)
    expect(found[1]).toEqual({ word: '??', start: found[0]!.end, end: found[0]!.end, confidence: 0 })
    expect(found[2]!.start).toBeCloseTo(1.2, 3)
    expect((await spectra.alignWords(new Oracle(three), { ...input, text: '  ' })).words).toEqual([])
  })

  it('refuses empty audio, NaN, two channels, no tokenizer and a model of other counts', async () => {
    const model = new Oracle(three)
    const input = { audio: clipOf(three, 3), text: 'big', tokenizer: letters }
    const refused = (more: object, kind: new (...args: never[]) => Error) =>
      expect(spectra.alignWords(model, { ...input, ...more })).rejects.toThrow(kind)
    await refused({ audio: new Float32Array(0) }, vt.DataError)
    await refused({ audio: new Float32Array(9).fill(Number.NaN) }, vt.DataError)
    await vt.scope(() => refused({ audio: vt.zeros([2, 100]) }, vt.ConfigError))
    await refused({ tokenizer: undefined }, vt.ConfigError)
    await refused({ text: 5 }, vt.ConfigError)
    const short: spectra.WordTimesModel = {
      predict: async () => ({ starts: vt.zeros([1, 5]), ends: vt.zeros([2, 5]) }),
    }
    await vt.scope(() =>
      expect(spectra.alignWords(short, input)).rejects.toThrow(
        /expected times \[2, 5\] from model\.predict\(\), got \[1,5\]/,
      ),
    )
    await expect(spectra.alignWords({} as never, input)).rejects.toThrow(vt.ConfigError)
  })
})

interface Box {
  left: number
  right: number
  top: number
  width: number
  height: number
}
interface Shown {
  textContent: string
  getBoundingClientRect(): Box
}
type Seen = ReturnType<typeof look>

/** Runs in the page. */
function look() {
  const { document } = globalThis as unknown as {
    document: {
      title: string
      documentElement: { scrollWidth: number; clientWidth: number }
      querySelectorAll(query: string): Iterable<Shown>
    }
  }
  const all = (query: string) => [...document.querySelectorAll(query)]
  const { scrollWidth, clientWidth } = document.documentElement
  return {
    title: document.title,
    words: all('[data-word]').map((word) => word.textContent),
    rows: all('tbody th').map((cell) => cell.textContent),
    bars: all('rect.bar').length,
    wide: scrollWidth > clientWidth,
    overlaps: all('[data-word]').map((word) => {
      const { left, right, top } = word.getBoundingClientRect()
      return [left, right, top] as const
    }),
    height: (all('svg')[0] as Shown).getBoundingClientRect().height,
  }
}

describe('the picture', () => {
  const hostile = '<script>"&'
  const alignment = {
    words: [
      { word: hostile, start: 0.2, end: 0.9, confidence: 1 },
      ...Array.from({ length: 30 }, (_, i) => ({
        word: ['seven', 'extraordinary', 'a', 'of'][i % 4]!,
        start: 1 + 0.35 * i,
        end: 1.3 + 0.35 * i,
        confidence: (i % 5) / 4,
      })),
    ],
  }
  const audio = Float32Array.from(
    { length: 12 * 16000 },
    (_, i) => Math.sin(i / 20) * Math.abs(Math.sin(i / 5600)) * (i % 48000 < 40000 ? 0.6 : 0.02),
  )

  it('is an SVG that stands alone, with every word escaped, in lines of six seconds', () => {
    const svg = spectra.alignmentSvg({ audio, alignment, title: 'A <title>' })
    expect(svg).toMatch(/^<svg xmlns="http:\/\/www.w3.org\/2000\/svg"/)
    expect(svg).not.toContain('<script')
    expect(svg.match(/data-word/g)).toHaveLength(31)
    expect(svg.match(/class="wave"/g)).toHaveLength(2)
    expect(svg).toContain('A &lt;title&gt;')
    expect(() => spectra.alignmentSvg({ audio, alignment: {} as never })).toThrow(vt.ConfigError)
    expect(spectra.alignmentSvg({ audio: new Float32Array(0), alignment: { words: [] } })).toContain('</svg>')
  })

  const chromium = ['chromium', 'chromium-browser', 'google-chrome'].some((command) => {
    try {
      execFileSync(process.env.CHROMIUM ?? command, ['--version'], { stdio: 'ignore' })
      return true
    } catch {
      return false
    }
  })
  it.skipIf(!chromium)('shows in Chromium what it was given', async () => {
    const path = join(temporary(), 'alignment.html')
    writeFileSync(path, spectra.alignmentPage({ audio, alignment, title: hostile }))
    const { words, overlaps, ...seen } = await checkPage(
      path,
      look,
      (found: Seen) => found,
      process.env.VOXTORCH_SCREENSHOT,
    )
    expect(seen.title).toBe(hostile)
    expect(words).toEqual(alignment.words.map(({ word }) => word))
    expect(seen.rows).toEqual(words)
    expect(seen.bars).toBeGreaterThanOrEqual(31)
    expect(seen.wide).toBe(false)
    expect(seen.height).toBeGreaterThan(200)
    for (const [i, a] of overlaps.entries()) {
      for (const b of overlaps.slice(i + 1)) {
        if (Math.abs(a[2] - b[2]) < 5) expect(a[1] <= b[0] || b[1] <= a[0]).toBe(true)
      }
    }
  })
})
