import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import * as vt from '../../../../lib/index.js'
import * as spectra from '../../../../lib/systems/spectra/index.js'
import { settledTensors } from '../../../helpers.js'
import { tinyTokenizer } from '../tiny.js'

const folder = mkdtempSync(join(tmpdir(), 'voxtorch-own-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))
let tokenizer: vt.Tokenizer
beforeAll(async () => {
  tokenizer = await tinyTokenizer(join(folder, 'tokenizer'))
  const tone = vt.arange(8000, { dtype: 'float32' }).mul(0.2).sin().mul(0.5)
  await vt.writeWav(join(folder, 'a.wav'), tone, { sampleRate: 16_000 })
  await vt.writeWav(join(folder, 'stereo.wav'), vt.stack([tone, tone.neg()]), { sampleRate: 8000 })
  await vt.writeWav(join(folder, 'empty.wav'), tone.narrow(0, 0, 0), { sampleRate: 16_000 })
  await vt.writeWav(join(folder, 'long.wav'), vt.zeros([176_000]), { sampleRate: 16_000 })
  await vt.writeWav(join(folder, 'nan.wav'), vt.full([100], Number.NaN), { sampleRate: 16_000, format: 'float32' })
})

let files = 0
function lines(...records: (object | string)[]): string {
  files += 1
  const path = join(folder, `${files}.jsonl`)
  writeFileSync(
    path,
    records.map((record) => (typeof record === 'string' ? record : JSON.stringify(record))).join('\n'),
  )
  return path
}
const mine = spectra.spectraTask({ name: 'mine', kind: 'classification' })
const read = (file: string, more: Partial<spectra.ReadSpectraJsonlOptions> = {}) =>
  spectra.readSpectraJsonl(file, { task: mine, tokenizer, ...more })

describe('isolated words', () => {
  it('encodes each word without its blank', () => {
    const text = new spectra.SpectraDialogText(tokenizer)
    // ids: a=4, b=5, c=6, ab=7, Ġa=9
    expect(text.words('ab  A abc')).toEqual({ inputIds: [7, 4, 7, 6], spans: [[0, 1], [1, 2], [2, 4]] }) // biome-ignore format: pairs
    expect(text.utterance(['c', '', 'ab'])).toEqual({ inputIds: [0, 6, 7, 2], spans: [[1, 2], [2, 2], [2, 3]] }) // biome-ignore format: pairs
    expect(text.dialog([], 'ab')).toEqual({ inputIds: [0, 7, 2], turnIds: [1, 1, 1] })
    expect(text.dialog(['a', ['b', 'c']], 'ab')).toEqual({
      inputIds: [0, 4, 2, 5, 6, 2, 7, 2],
      turnIds: [0, 0, 0, 0, 0, 0, 1, 1],
    })
    expect(new spectra.SpectraDialogText(tokenizer, { maxContext: 1 }).dialog(['a', 'b'], 'c').inputIds).toEqual([
      0, 5, 2, 6, 2,
    ])
    expect(new spectra.SpectraDialogText(tokenizer, { maxContext: 0 }).dialog(['a'], 'c')).toEqual({
      inputIds: [0, 6, 2],
      turnIds: [1, 1, 1],
    })
    expect(() => text.words(5 as unknown as string)).toThrow(vt.ConfigError)
  })

  it('refuses a tokenizer that adds a blank', async () => {
    const other = await tinyTokenizer(join(folder, 'prefixing'), true)
    expect(() => new spectra.SpectraDialogText(other)).toThrow(/does not add a leading space/)
  })

  const roberta = join(
    process.env.VOXTORCH_DATA ?? fileURLToPath(new URL('../../../../../shared/data', import.meta.url)),
    'tokenizers/roberta-base',
  )
  it.skipIf(!existsSync(roberta))("gives RoBERTa's published ids", async () => {
    const text = new spectra.SpectraDialogText(await vt.Tokenizer.fromPretrained(roberta))
    expect(text.words("it's the")).toEqual({ inputIds: [405, 18, 627], spans: [[0, 2], [2, 3]] }) // biome-ignore format: pairs
    expect(text.utterance("IT'S the").inputIds).toEqual([0, 405, 18, 627, 2])
  })
})

describe('JSONL and WAV', () => {
  it('reads records, collects classes, cuts out times and resamples', () =>
    vt.scope(async () => {
      const file = lines(
        { audio: 'a.wav', text: 'ab c', label: 'joy', speaker: 'x', split: 'train', id: 7, meta: { any: 1 } },
        '',
        { audio: 'stereo.wav', words: ['a'], label: 'anger' },
        { audio: 'a.wav', start: 0.1, end: 0.35, text: 'b', label: 'joy' },
        { text: 'b', label: 'joy' },
        { audio: 'long.wav', text: 'b', label: 'joy', split: 'test' },
      )
      const { samples, task, history, badRecords } = await read(file)
      expect([task.labels, task.numLabels, history, badRecords]).toEqual([['anger', 'joy'], 2, false, 0])
      expect(samples.map(({ label }) => label)).toEqual([1, 0, 1, 1, 1])
      expect(samples[0]).toMatchObject({
        inputIds: [0, 7, 6, 2],
        speaker: 'x',
        split: 'train',
        source: `${file}, line 1`,
      })
      expect(samples[1]!.source).toBe(`${file}, line 3`)
      expect('turnIds' in samples[0]! || 'historyAudio' in samples[0]!).toBe(false)
      const shapes = samples.map(({ audio }) => (audio as vt.Tensor | null)?.shape ?? null)
      expect(shapes).toEqual([[8000], [16_000], [4000], null, [161_600]])
      expect(Number((samples[1]!.audio as vt.Tensor).abs().max().item())).toBeLessThan(1e-4) // both channels' mean
      const collate = spectra.spectraCollate(task, { emptyAudio: 'allow' })
      const batch = await collate(samples)
      expect(batch.audioLengths.toArray()).toEqual([8000, 16_000, 4000, 0, 160_000])
      expect(collate.cuts.audio).toBe(1)
    }))

  it('reads history for all records where one has it', () =>
    vt.scope(async () => {
      const { samples, history } = await read(
        lines(
          { audio: 'a.wav', text: 'c', label: 'x' },
          { audio: 'a.wav', text: 'c', label: 'y', history: ['a', ['b']], historyAudio: 'long.wav', historyEnd: 1 },
        ),
      )
      expect(history).toBe(true)
      expect(samples[0]).toMatchObject({ inputIds: [0, 6, 2], turnIds: [1, 1, 1], historyAudio: null })
      expect(samples[1]).toMatchObject({ inputIds: [0, 4, 2, 5, 2, 6, 2], turnIds: [0, 0, 0, 0, 0, 1, 1] })
      expect((samples[1]!.historyAudio as vt.Tensor).shape).toEqual([16_000])
    }))

  it('serves all four tasks, and a regression', () =>
    vt.scope(async () => {
      for (const [name, label] of [
        ['mosi', -1.5],
        ['mosei', 0],
        ['iemocap', 5],
        ['mintrec', 19],
      ] as const) {
        const { samples } = await read(lines({ audio: 'a.wav', text: 'a', label }), {
          task: spectra.publishedSpectraTask(name),
        })
        expect(samples[0]!.label).toBe(label)
      }
      await expect(
        read(lines({ text: 'a', label: 6 }), { task: spectra.publishedSpectraTask('iemocap') }),
      ).rejects.toThrow(/line 1: label: expected an index of iemocap from 0 to 5, got 6/)
      const wait = spectra.spectraTask({ name: 'wait', kind: 'regression' })
      await expect(read(lines({ text: 'a', label: 'long' }), { task: wait })).rejects.toThrow(
        /line 1: label: expected a number for wait, got "long"/,
      )
    }))

  const good = { audio: 'a.wav', text: 'a', label: 'x' }
  it.each([
    ['no JSON', '{"text": ', /line 2/],
    ['no object', '[1]', /line 2: expected a JSON object, got an array of length 1/],
    [
      'an unknown field',
      { ...good, hystory: ['a'] },
      /line 2: expected known fields, got "hystory"; did you mean history/,
    ],
    ['no text', { audio: 'a.wav', label: 'x' }, /line 2: expected either text or words, got neither/],
    ['no label', { audio: 'a.wav', text: 'a' }, /line 2: label: expected a number or a name, got undefined/],
    ['a missing file', { ...good, audio: 'none.wav' }, /line 2: .*none.wav/],
    ['an empty file', { ...good, audio: 'empty.wav' }, /line 2: its audio empty.wav has no samples/],
    ['NaN', { ...good, audio: 'nan.wav' }, /line 2: its audio nan.wav contains NaN/],
    [
      'a start behind the end',
      { ...good, start: 2, end: 1 },
      /line 2: end of audio: expected seconds above the start, got 1/,
    ],
    ['a start behind the file', { ...good, start: 9 }, /line 2: its audio a.wav has no samples/],
    [
      'times of nothing',
      { text: 'a', label: 'x', start: 1 },
      /line 2: audio: expected an audio file for its start and end, got none/,
    ],
    ['history that is no list', { ...good, history: 'a' }, /line 2: history: expected a list of turns/],
    ['another split', { ...good, split: 'dev' }, /line 2: split: expected 'train', 'valid' or 'test', got "dev"/],
  ])('reports %s with file and line, or skips and counts it', async (_, record, message) => {
    const before = await settledTensors()
    const file = lines(good, record, { ...good, label: 'y' })
    const failure = await vt.scope(() => read(file)).catch((error) => error)
    expect(failure).toBeInstanceOf(vt.DataError)
    expect(failure.message).toMatch(message)
    expect(failure).toMatchObject({ file, line: 2 })
    await vt.scope(async () => {
      const { samples, badRecords, badRecordErrors } = await read(file, { onBadRecord: 'skip' })
      expect([samples.length, badRecords]).toEqual([2, 1])
      expect(badRecordErrors[0]!.message).toMatch(message)
    })
    expect(vt.memoryStats().liveTensors).toBeLessThanOrEqual(before)
  })

  it('refuses other audio where it is told to, and reads late where it is told to', () =>
    vt.scope(async () => {
      const file = lines({ ...good, audio: 'stereo.wav' }, { ...good, label: 'y' })
      await expect(read(file, { otherAudio: 'refuse' })).rejects.toThrow(
        /line 1: its audio stereo.wav: expected 1 channel of 16000 Hz, got 2 channels of 8000 Hz/,
      )
      const late = await read(lines({ ...good, audio: 'none.wav' }, { ...good, label: 'y' }), { audio: 'file' })
      const clips = late.samples.map(({ audio }) => audio as { read(): Promise<vt.Tensor> })
      expect((await clips[1]!.read()).shape).toEqual([8000])
      await expect(clips[0]!.read()).rejects.toThrow(/line 1: .*none.wav/)
    }))
})

describe('openSpectraData', () => {
  const records = Array.from({ length: 20 }, (_, i) => ({ text: 'a', label: i % 2 ? 'x' : 'y', speaker: `s${i % 5}` }))
  const open = (file: string, more: object = {}) => spectra.openSpectraData(file, { task: mine, tokenizer, ...more })

  it('holds out speakers, and draws validation where there is none', async () => {
    const { train, valid, test, notes } = await open(lines(...records), { speakers: { test: ['s0', 's3'] } })
    expect([train.length, valid.length, test.length]).toEqual([11, 1, 8])
    expect(notes.at(-1)).toMatch(/1 of 12 training samples are used instead/)
    const both = await open(lines(...records), { speakers: { test: ['s0'], valid: ['s1'] } })
    expect([both.train.length, both.valid.length, both.test.length]).toEqual([12, 4, 4])
    await expect(open(lines(...records), { speakers: { test: ['s9'] } })).rejects.toThrow(
      /expected speakers of .*jsonl, got "s9"/,
    )
    await expect(spectra.openSpectraData(lines(...records), { task: mine })).rejects.toThrow(
      /expected a tokenizer for your own texts/,
    )
  })

  it('reads a folder of splits with the classes of training', async () => {
    const home = mkdtempSync(join(folder, 'splits-'))
    const put = (name: string, list: object[]) =>
      writeFileSync(join(home, `${name}.jsonl`), list.map((one) => JSON.stringify(one)).join('\n'))
    put('train', [
      { text: 'a', label: 'x' },
      { text: 'b', label: 'y', history: ['c'] },
    ])
    put('valid', [{ text: 'a', label: 'y' }])
    const { train, valid, test, task } = await open(home)
    expect([train.length, valid.length, test.length, task.numLabels]).toEqual([2, 1, 0, 2])
    expect(valid[0]!.turnIds).toEqual([1, 1, 1]) // as training has them
    put('test', [{ text: 'a', label: 'z' }])
    await expect(open(home)).rejects.toThrow(/test.jsonl, line 1: label: expected one of x, y, got "z"/)
  })
})
