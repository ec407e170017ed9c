import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import * as files from '../../../../lib/files/index.js'
import * as vt from '../../../../lib/index.js'
import * as spectra from '../../../../lib/systems/spectra/index.js'
import { SourceAudio } from '../../../../lib/systems/spectra/pretraining/source-audio.js'
import { settledTensors } from '../../../helpers.js'
import { dataPath, hasData, letters, sine, temporary, writeClip } from './helpers.js'

const folder = temporary()
let count = 0
const output = () => join(folder, `out-${count++}`)
const entriesOf = (directory: string) =>
  readFileSync(join(directory, 'entries.jsonl'), 'utf8')
    .trim()
    .split('\n')
    .filter(Boolean)
    .map((line) => JSON.parse(line) as spectra.SpectraEntry)
const said = (...words: [string, number, number][]): spectra.SpectraSpokenWord[] =>
  words.map(([word, start, end]) => ({ word, start, end }))
const turn = (number: number, words: spectra.SpectraSpokenWord[], more: Partial<spectra.SpectraDialogTurn> = {}) => ({
  dialog: 'd',
  turn: number,
  wav: 'long.wav',
  words,
  ...more,
})
await writeClip(join(folder, 'long.wav'), sine(40))
await writeClip(join(folder, 'short.wav'), sine(2, 330))
async function prepared(turns: spectra.SpectraDialogTurn[], more: Partial<spectra.PrepareSpectraOptions> = {}) {
  const directory = output()
  const options = { output: directory, tokenizer: letters, audioRoot: folder, ...more }
  const summary = await spectra.prepareSpectraPretraining(turns, options)
  return { directory, summary, entries: entriesOf(directory) }
}

async function preparedFrom(turns: AsyncIterable<spectra.SpectraDialogTurn>, audioRoot: string) {
  const directory = output()
  const summary = await spectra.prepareSpectraPretraining(turns, { output: directory, tokenizer: letters, audioRoot })
  return { directory, summary, entries: entriesOf(directory) }
}

describe('prepareSpectraPretraining', () => {
  it('cuts turns into slices in tenths of a second, with the sub-words of each word', async () => {
    const { entries, summary, directory } = await prepared([
      turn(0, said(['Ab', 1, 1.42], ['cd', 1.46, 2], ['e', 10.5, 10.79], ['f', 10.8, 10.9])),
    ])
    // The second slice begins where a word ends more than 9.9 s after the first one's start.
    expect(entries.map(({ inputIds, words, previous, samples }) => ({ inputIds, words, previous, samples }))).toEqual([
      {
        inputIds: [0, 10, 11, 12, 13, 14, 2],
        words: [
          ['ab', 1, 3, 0, 8000],
          ['cd', 3, 5, 8000, 17600],
          ['e', 5, 6, 152000, 158400],
        ],
        previous: -1,
        samples: 158400,
      },
      { inputIds: [0, 15, 2], words: [['f', 1, 2, 0, 3200]], previous: 0, samples: 3200 },
    ])
    expect(summary).toMatchObject({ dialogs: 1, turns: 1, entries: 2, examples: 1, skipped: {} })
    expect(summary.hours).toBeCloseTo(161600 / 16000 / 3600, 12)
    await vt.scope(async () => {
      const { samples } = await vt.readAudio(join(directory, entries[1]!.audio))
      const whole = sine(40)
      const found = samples.toArray() as number[]
      expect(found).toHaveLength(3200)
      // Second 10.8 of the recording, in the steps of 16 bits.
      expect(Math.max(...found.map((value, i) => Math.abs(value - whole[172800 + i]!)))).toBeLessThan(1e-4)
    })
  })

  it('cuts words of more than three seconds: to their end with a capital, to their start without', async () => {
    const { entries } = await prepared([turn(0, said(['Well', 0, 5], ['um', 5, 9.5])), turn(1, said(['Él', 20, 24]))], {
      tokenizer: () => [9],
    })
    expect(entries[0]!.words).toEqual([
      ['well', 1, 2, 0, 31 * 1600],
      ['um', 2, 3, 30 * 1600, 61 * 1600],
    ])
    expect(entries[1]!.words).toEqual([['él', 1, 2, 0, 31 * 1600]])
  })

  it('never makes a slice of more than ten seconds', async () => {
    const random = new vt.Random(4)
    let at = 0
    const words = Array.from({ length: 60 }, () => {
      const start = at + random.float() * 0.3
      at = start + random.float() * 0.5
      return { word: 'abc', start, end: at }
    })
    const { entries } = await prepared([turn(0, words)])
    expect(entries.length).toBeGreaterThan(1)
    expect(entries.flatMap((entry) => entry.words)).toHaveLength(60)
    for (const { samples, words: own } of entries) {
      expect(samples).toBeLessThanOrEqual(160000)
      for (const [, , , start, end] of own) expect(start >= 0 && start < end && end <= samples!).toBe(true)
    }
  })

  it('links a slice to the one before in its dialog, if less than five seconds lie between', async () => {
    const own = { wav: 'short.wav' }
    const { entries, summary } = await prepared([
      turn(0, said(['a', 0, 0.9])), // ends after the tenth that is added: 1.0 s
      turn(1, said(['b', 5.9, 6.9])), // 4.9 s later
      turn(2, said(['c', 12, 13])), // 5 s later
      turn(0, said(['d', 0, 1]), { dialog: 'e', ...own }),
      turn(4, said(['e', 14, 15])), // its dialog goes on although another was between
      turn(1, said(['f', 1, 2]), { dialog: 'e', ...own }), // the same file, no gap
      turn(0, said(['g', 0, 1]), { dialog: 'f' }),
      turn(1, said(['h', 0, 1]), { dialog: 'f', ...own }), // files of their own: no pause known
      turn(0, said(['i', 0, 1]), { dialog: 'g', offset: 0 }),
      turn(1, said(['j', 0, 1]), { dialog: 'g', ...own, offset: 6.2 }), // 5.1 s on the dialog's clock
    ])
    expect(entries.map(({ previous }) => previous)).toEqual([-1, 0, -1, -1, 2, 3, -1, 6, -1, -1])
    expect(summary).toMatchObject({ dialogs: 4, turns: 10, entries: 10, examples: 4 })
    // Every link leads to an entry of the same dialog.
    for (const entry of entries) if (entry.previous >= 0) expect(entries[entry.previous]!.dialog).toBe(entry.dialog)
  })

  it('leaves out, with a count, what cannot be trained on', async () => {
    const turns = [
      turn(0, []),
      turn(1, said(['a', 0, 0.5], ['?!', 0.5, 0.6], ['b', 0.8, 0.7], ['c', 0.4, 0.9], ['d', 0.9, 1]), {
        wav: 'short.wav',
      }),
      turn(2, said(['e', 1.5, 2.5], ['f', 2.6, 3]), { wav: 'short.wav' }),
      turn(3, said(['g', 50, 51])),
    ]
    const { entries, summary } = await prepared(turns)
    expect(summary.badRecordErrors.length).toBe(7)
    expect(summary.badRecordErrors[0]).toMatchObject({ reason: 'noWords', line: 1 })
    // One word ends before it starts, and "c" starts before the word before it.
    expect(summary.skipped).toEqual({ noWords: 1, wordTokens: 1, wordTimes: 2, wordPastEnd: 2, emptySlice: 1 })
    expect(entries.map(({ words }) => words.map(([word]) => word))).toEqual([['a', 'd'], ['e']])
    expect(entries[1]!.samples).toBe(8000)
    expect(entries[1]!.words).toEqual([['e', 1, 2, 0, 8000]])
    for (const [i, message] of [
      [0, /expected words, got none/],
      [1, /from 0.8 to 0.7 s/],
      [2, /expected a start within the audio, got at sample/],
      [3, /expected a start within the audio, got at sample 0 of 0/],
    ] as const) {
      await expect(prepared([turns[i]!], { onBadRecord: 'stop' })).rejects.toThrow(message)
    }
    await expect(prepared([turns[0]!], { onProblem: 'error' })).rejects.toThrow(/expected words, got none/)
    await expect(prepared([turns[0]!], { onProblem: 'error', onBadRecord: 'stop' })).rejects.toThrow(
      /expected one of onBadRecord and onProblem/,
    )
  })

  it('refuses lines of another form, by line, and writes nothing', async () => {
    const path = join(folder, 'bad.jsonl')
    writeFileSync(path, `${JSON.stringify(turn(0, said(['a', 0, 1])))}\n{"dialog":"d","turn":1,"wav":"x.wav"}\n`)
    const directory = output()
    const options = { output: directory, tokenizer: letters }
    await expect(spectra.prepareSpectraPretraining(path, options)).rejects.toThrow(
      /turn 2: words: expected a list, got undefined/,
    )
    expect(() => readFileSync(join(directory, 'entries.jsonl'))).toThrow()
    const other = async (row: object) =>
      prepared([{ ...turn(0, said(['a', 0, 1])), ...row } as spectra.SpectraDialogTurn])
    await expect(other({ words: [{ word: 'a', start: '0', end: 1 }] })).rejects.toThrow(
      /words\[0\]: expected \{ word, start, end \}/,
    )
    await expect(other({ wav: 'none.wav' })).rejects.toThrow(vt.DataError)
    await expect(prepared([turn(1, said(['a', 0, 1])), turn(1, said(['b', 2, 3]))])).rejects.toThrow(/Sort them/)
    await expect(prepared([], { tokenizer: 5 as never })).rejects.toThrow(vt.ConfigError)
  })

  it('reads other rates, from a JSONL file, and opens what it wrote', async () => {
    const rate = 8000
    await writeClip(
      join(folder, 'low.wav'),
      sine(6).filter((_, i) => i % 2 === 0),
      rate,
    )
    const path = join(folder, 'good.jsonl')
    const turns = [turn(0, said(['a', 0, 1]), { wav: 'low.wav' }), turn(1, said(['b', 2, 3]), { wav: 'low.wav' })]
    writeFileSync(path, `\n${turns.map((row) => JSON.stringify(row)).join('\n')}\n\n`)
    const directory = output()
    await spectra.prepareSpectraPretraining(path, { output: directory, tokenizer: letters, format: 'float32' })
    const source = await spectra.openSpectraPretraining(directory)
    expect(source.length).toBe(2)
    expect([...source.previous]).toEqual([-1, 0])
    const second = await source.get(1)
    const samples = await source.audio(second)
    expect(samples).toHaveLength(17600)
    const whole = sine(6)
    const error = samples.slice(1000, 16000).map((value, i) => Math.abs(value - whole[32000 + 1000 + i]!))
    expect(Math.max(...error)).toBeLessThan(0.01)
    await expect(spectra.openSpectraPretraining(join(folder, 'nowhere'))).rejects.toThrow(vt.DataError)
    const info = JSON.parse(readFileSync(join(directory, 'info.json'), 'utf8'))
    expect(info).toMatchObject({ form: 'spectra-pretraining-1', sampleRate: 16000, entries: 2, wordTimes: 'as given' })
  })
})

describe('SourceAudio', () => {
  it('gives pieces of a recording, holds one that must be decoded whole, and frees it', async () => {
    const ramp = Float32Array.from({ length: 4000 }, (_, i) => ((i % 31) - 15) / 16)
    const [wav, npy] = [join(folder, 'pieces.wav'), join(folder, 'pieces.npy')]
    await vt.scope(async () => {
      await vt.writeWav(wav, vt.tensor(ramp), { sampleRate: 16_000, format: 'float32' })
      await files.saveNpy(npy, vt.tensor(ramp))
    })
    const before = await settledTensors()
    {
      using audio = new SourceAudio()
      const piece = (file: string, start: number, seconds: number) =>
        vt.scope(async () => (await (await audio.piece(file, start, seconds)).data()) as Float32Array)
      for (const file of [wav, npy, wav, npy]) {
        expect(await piece(file, 0.1, 0.05)).toEqual(ramp.subarray(1600, 2400))
        expect(await piece(file, 0.2, 0.2)).toEqual(ramp.subarray(3200))
        expect(await piece(file, 9, 1)).toHaveLength(0)
      }
      expect(vt.memoryStats().liveTensors).toBe(before + 1)
    }
    expect(vt.memoryStats().liveTensors).toBeLessThanOrEqual(before)
  })
})

describe.skipIf(!hasData('librispeech-other'))('../shared/data/librispeech-other', () => {
  it('cuts slices out of a compressed recording, and takes transcripts that lie elsewhere', async () => {
    const root = dataPath('librispeech-other')
    // The folder has no transcripts; these words are made up, as only their times matter here.
    const list = join(folder, 'words.txt')
    writeFileSync(list, ['0000', '0001'].map((n) => `1688-142285-${n} ${'WORD '.repeat(30)}`).join('\n'))
    const { entries, summary, directory } = await preparedFrom(spectra.clipTurns(root, { transcripts: list }), root)
    expect(summary).toMatchObject({ dialogs: 1, turns: 2, skipped: {} })
    expect(entries.flatMap(({ words }) => words)).toHaveLength(60)
    const source = await spectra.openSpectraPretraining(directory)
    const { audio, sampleRate } = await vt.scope(async () => {
      const read = await vt.readAudio(join(root, '1688/1688-142285-0001.flac'))
      return { audio: (await read.samples.data()) as Float32Array, sampleRate: read.sampleRate }
    })
    expect(sampleRate).toBe(16000)
    const own = entries.filter(({ turn: number }) => number === 1)
    const last = await source.audio(own.at(-1)!)
    expect(last).toHaveLength(own.at(-1)!.samples!)
    // The slice is a piece of the recording, sample by sample.
    const at = audio.findIndex((_, i) => i % 1600 === 0 && last.every((value, k) => value === audio[i + k]))
    expect(at).toBeGreaterThanOrEqual(0)
    await expect(spectra.clipTurns(root).next()).rejects.toThrow(/expected \*\.trans\.txt or labels\.csv, got neither/)
  })
})

describe('spotifyTurns', () => {
  it("reads the last result's words of each episode", async () => {
    const root = join(folder, 'spotify')
    mkdirSync(join(root, 'show'), { recursive: true })
    const words = [{ startTime: '1.300s', endTime: '1.700s', word: 'Hello,' }]
    const transcript = { results: [{ alternatives: [{ transcript: 'x' }] }, { alternatives: [{ words }] }] }
    writeFileSync(join(root, 'show', 'b.json'), JSON.stringify(transcript))
    writeFileSync(join(root, 'show', 'a.json'), JSON.stringify({ results: [{ alternatives: [{}] }] }))
    const turns = []
    for await (const row of spectra.spotifyTurns(root)) turns.push(row)
    expect(turns).toEqual([
      { dialog: 'show/a', turn: 0, wav: 'show/a.ogg', words: [] },
      { dialog: 'show/b', turn: 0, wav: 'show/b.ogg', words: [{ word: 'Hello,', start: 1.3, end: 1.7 }] },
    ])
    writeFileSync(join(root, 'c.json'), JSON.stringify({ results: [{ alternatives: [{ words: [{ word: 'a' }] }] }] }))
    await expect(spectra.spotifyTurns(root).next()).rejects.toThrow(/c\.json: word 0: expected word/)
  })
})

describe('clipTurns', () => {
  it('gives the words of a clip equal shares of its sounding part', async () => {
    const root = join(folder, 'clips')
    mkdirSync(join(root, '7'), { recursive: true })
    const quiet = new Float32Array(16000 * 4)
    quiet.set(sine(2), 16000)
    await writeClip(join(root, '7', '7-1-0.wav'), quiet)
    await writeClip(join(root, '7', '7-1-1.wav'), sine(1))
    writeFileSync(join(root, '7', '7-1.trans.txt'), '7-1-0 FOUR WORDS ARE SAID\n7-1-1 ONE\n7-1-9 NOT HERE\n')
    const turns = []
    for await (const row of spectra.clipTurns(root)) turns.push(row)
    expect(turns.map(({ dialog, turn: number, wav }) => [dialog, number, wav])).toEqual([
      ['7', 0, '7/7-1-0.wav'],
      ['7', 1, '7/7-1-1.wav'],
    ])
    const [first] = turns
    expect(first!.words.map(({ word }) => word)).toEqual(['four', 'words', 'are', 'said'])
    expect(first!.words[0]!.start).toBeCloseTo(0.9, 1)
    expect(first!.words[3]!.end).toBeCloseTo(3.1, 1)
    const lengths = first!.words.map(({ start, end }) => end - start)
    for (const length of lengths) expect(length).toBeCloseTo(lengths[0]!, 9)
    await expect(spectra.clipTurns(join(root, '..', 'spotify')).next()).rejects.toThrow(
      /expected \*\.trans\.txt or labels\.csv, got neither/,
    )
  })

  it.skipIf(!hasData('emodb'))('makes dialogs of ../shared/data/emodb', async () => {
    const directory = output()
    const turns = spectra.clipTurns(dataPath('emodb'))
    const few = async function* () {
      for (let i = 0; i < 6; i++) {
        const { value } = await turns.next()
        if (value) yield value
      }
    }
    const options = { output: directory, tokenizer: letters, audioRoot: dataPath('emodb') }
    const summary = await spectra.prepareSpectraPretraining(few(), {
      ...options,
      wordTimes: spectra.UNIFORM_WORD_TIMES,
    })
    expect(summary).toMatchObject({ dialogs: 1, turns: 6, entries: 6, examples: 5, skipped: {} })
    expect(summary.wordTimes).toMatch(/uniform/)
    const [first] = entriesOf(directory)
    expect(first!.words.map(([word]) => word).join(' ')).toBe('der lappen liegt auf dem eisschrank.')
  })
})

describe.skipIf(!hasData('tokenizers/roberta-base'))("RoBERTa's sub-words, ../shared/data/tokenizers", () => {
  it('encodes each word alone and without a space before it', async () => {
    const tokenizer = await vt.Tokenizer.fromPretrained(dataPath('tokenizers/roberta-base'))
    const { entries } = await prepared([turn(0, said(["It's", 0, 0.4], ['The', 0.4, 0.5]))], { tokenizer })
    expect(entries[0]!.inputIds).toEqual([0, 405, 18, 627, 2])
    expect(entries[0]!.words).toEqual([
      ["it's", 1, 3, 0, 8000],
      ['the', 3, 4, 6400, 9600],
    ])
  })
})
