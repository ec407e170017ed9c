import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { tensor, writeWav } from '../../../lib/index.js'
import {
  type EmoVerse,
  type EmoVerseRecipe,
  type EmoVerseRecords,
  emoverseRecipe,
  readSwiftDataset,
  type SwiftRecord,
  writeSwiftDataset,
} from '../../../lib/systems/emoverse/index.js'
import { openStage } from '../../../lib/systems/emoverse/training/data.js'
import { asked, hearingEmoVerse, ppm, tinyEmoVerse } from './tiny.js'

const home = mkdtempSync(join(tmpdir(), 'voxtorch-emoverse-data-'))
afterAll(() => rmSync(home, { recursive: true, force: true }))

let model: EmoVerse
const wide = 'wide.ppm'
beforeAll(async () => {
  model = await hearingEmoVerse()
  writeFileSync(join(home, 'face.ppm'), ppm(28, 28, (x, y) => [8 * x, 8 * y, 100]))
  writeFileSync(join(home, wide), ppm(84, 28, (x) => [x, 0, 0]))
  writeFileSync(join(home, 'cut.ppm'), 'P6\n28 28\n255\nxx')
  await writeWav(join(home, 'voice.wav'), tensor(Float32Array.from({ length: 8000 }, (_, i) => Math.sin(i / 9))).unsqueeze(0), { sampleRate: 16000 })
  writeFileSync(join(home, 'cut.wav'), Buffer.from('RIFF'))
}) // biome-ignore format: long lines
afterAll(() => model.dispose())

const good: SwiftRecord[] = asked(6).map((one) => ({ ...one, images: ['face.ppm'], audios: ['voice.wav'] }))
const bad: Record<string, [SwiftRecord, RegExp]> = {
  'too long': [{ query: 'x'.repeat(400), response: 'y' }, /6 records, without 1 that are too long/],
  'a broken picture': [{ query: 'a', response: 'y', images: ['cut.ppm'] }, /^1 records were left out whose media cannot be read, the first: .*cut\.ppm/],
  'a broken sound': [{ query: 'a', response: 'y', audios: ['cut.wav'] }, /^1 records were left out whose media cannot be read, the first: .*cut\.wav/],
  'no picture': [{ query: 'a', response: 'y', images: ['none.ppm'] }, /6 records, without 1 that refer to missing files/],
  'no response': [{ query: 'a', response: null }, /6 records, without 1 that have no response/],
  'more markers than media': [{ query: '<image><image>', response: 'a', images: ['face.ppm'] }, /6 records, without 1 that have different numbers of markers and media/],
  'too many tiles': [{ query: 'a', response: 'y', images: new Array(20).fill(wide) }, /^1 records were left out that are too long with all of their media, the first: .*: expected at most 250 tokens, media included, got \d+/],
} // biome-ignore format: one a line
const forms: Record<string, (records: SwiftRecord[], name: string) => Promise<EmoVerseRecords>> = {
  array: async (records) => records,
  file: async (records, name) => {
    const path = join(home, `${name}.json`)
    await writeSwiftDataset(path, records)
    return path
  },
  dataset: async (records, name) => {
    const path = join(home, `${name}.opened.json`)
    await writeSwiftDataset(path, records)
    return readSwiftDataset(path)
  },
}
const opened = (data: EmoVerseRecords, recipe: Partial<EmoVerseRecipe> = {}, more: object = {}) =>
  openStage(
    model,
    { data },
    emoverseRecipe({ maxLength: 250, maxExpandedLength: 250, validationShare: 0, ...recipe }),
    { mediaRoot: home, ...more },
  )

describe.each(Object.keys(forms))('data as %s', (form) => {
  it.each(Object.keys(bad))('leaves out beforehand what has %s, and says why', async (what) => {
    const [one, note] = bad[what] as [SwiftRecord, RegExp]
    const data = await forms[form]?.([...good.slice(0, 3), one, ...good.slice(3)], what.replaceAll(' ', '-')) as EmoVerseRecords
    for (const remembers of [false, true]) {
      const { train, notes } = await opened(data, {}, { remembers })
      expect(train.length).toBe(6)
      for (let i = 0; i < 6; i++) await train.get(i, 0)
      expect(notes.some((said) => note.test(said)), notes.join('\n')).toBe(true)
    }
  }) // biome-ignore format: long lines

  it('replaces it as published where that is wanted, by the same other each time', async () => {
    const data = await forms[form]?.([...good, ...Object.values(bad).map(([one]) => one)], 'published') as EmoVerseRecords
    const heard: string[] = []
    const { train, notes } = await opened(data, {}, { compat: 'published', onNote: (note: string) => void heard.push(note) })
    // What has been opened before has lost what is no record to it.
    expect(train.length).toBe(form === 'dataset' ? 11 : 13)
    const read = async () => {
      const lengths: number[] = []
      for (let i = 0; i < train.length; i++) lengths.push((await train.get(i, 0)).inputIds.length)
      return lengths
    }
    const lengths = await read()
    expect(Math.max(...lengths)).toBeLessThanOrEqual(250)
    expect(await read()).toEqual(lengths)
    expect(heard[0]).toMatch(/are replaced by others, the first: /)
    // Nothing is looked at beforehand.
    expect(notes.filter((note) => /longest|media cannot/.test(note))).toEqual([])
  }) // biome-ignore format: long lines
})

describe('lengths', () => {
  it('are told of each record, before its media become tokens and after', async () => {
    const record: SwiftRecord = { query: 'a', response: 'bc', images: [wide, 'face.ppm'], audios: ['voice.wav'] }
    const { inputIds } = await model.encode(record, { mediaRoot: home })
    const lengths = await model.lengthsOf(record, { mediaRoot: home })
    expect(lengths).toEqual({ text: model.lengthOf(record), expanded: inputIds.length })
    // Four tokens for each of 3 tiles and their thumbnail, and of one more.
    expect(inputIds.filter((id) => id === model.vision?.contextTokenId)).toHaveLength(4 * 4 + 4)
    await expect(model.lengthsOf({ ...record, images: ['cut.ppm'] }, { mediaRoot: home })).rejects.toThrow(/cut\.ppm/)
    await expect(model.lengthsOf(record, { size: 1 } as never)).rejects.toThrow(/size/)
  })

  it('are limits, each of its own number, and the longest is told', async () => {
    const records = [...good, { query: 'a', response: 'b', images: new Array(3).fill(wide) }]
    const lengths = await Promise.all(records.map((record) => model.lengthsOf(record, { mediaRoot: home })))
    const [text, expanded] = (['text', 'expanded'] as const).map((key) => Math.max(...lengths.map((one) => one[key]))) as [number, number]
    expect(expanded).toBe(lengths.at(-1)?.expanded)
    expect(lengths.at(-1)?.text).toBeLessThan(text)
    const all = await opened(records, { maxLength: text, maxExpandedLength: expanded })
    expect(all.train.length).toBe(7)
    expect(all.notes).toEqual([`the longest record has ${text} tokens, with each of its media counted as one; the longest has ${expanded} with all tokens of its media`])
    expect((await opened(records, { maxExpandedLength: expanded - 1 })).train.length).toBe(6)
    expect((await opened(records, { maxExpandedLength: null })).train.length).toBe(7)
    const short = await opened(records, { maxLength: text - 1, maxExpandedLength: null })
    expect(short.train.length).toBe(lengths.filter((one) => one.text < text).length)
    await expect(opened(records, { maxLength: 3 })).rejects.toThrow(/at least one record to train on, got none\. the data: 0 records, without 7 that are too long/)
    expect(() => emoverseRecipe({ maxExpandedLength: 0 })).toThrow(/maxExpandedLength/)
  }) // biome-ignore format: long lines

  it('are one number where only words are read', async () => {
    using reader = await tinyEmoVerse()
    const data = asked(4)
    const longest = Math.max(...data.map((one) => reader.lengthOf(one)))
    const open = (recipe: Partial<EmoVerseRecipe>) => openStage(reader, { data }, emoverseRecipe({ validationShare: 0, ...recipe }), {})
    expect((await open({})).notes).toEqual([`the longest record has ${longest} tokens, with each of its media counted as one`])
    expect((await open({ maxExpandedLength: longest - 1 })).train.length).toBe(data.filter((one) => reader.lengthOf(one) < longest).length)
  }) // biome-ignore format: long lines
})
