import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { readTextGrid } from '../../../lib/files/index.js'
import {
  ConfigError,
  DataError,
  publishedWeights,
  readAudio,
  scope,
  tensor,
  Whisper,
  writeWav,
} from '../../../lib/index.js'
import { runCommand } from '../../../lib/kit/command.js'
import { align } from '../../../lib/systems/usdm/commands/align.js'
import { alignUstm, prepareUstm, unitWords, wordsOfTextGrid } from '../../../lib/systems/usdm/index.js'
import { dataPath, hasData } from '../../audio/helpers.js'
import { fixturePath } from '../../helpers.js'
import { byteTokenizer } from './tiny.js'
import { chirp } from './tiny-parts.js'

const home = mkdtempSync(join(tmpdir(), 'voxtorch-align-'))
afterAll(() => rmSync(home, { recursive: true, force: true }))
/** Its window is 0.4 seconds, and it knows few letters. */
const whisper = await Whisper.fromPretrained(fixturePath('models/whisper-tiny'))
const clips = join(home, 'clips')

beforeAll(async () => {
  mkdirSync(join(clips, 'b'), { recursive: true })
  for (const [name, seconds] of [
    ['a', 0.4],
    ['b/c', 0.38],
    ['b/d', 0.9],
  ] as const) {
    await scope(() => writeWav(join(clips, `${name}.wav`), tensor(chirp(seconds, name.length)), { sampleRate: 16_000 }))
  }
  writeFileSync(join(clips, 'a.txt'), 'The mat, hot!')
  writeFileSync(join(clips, 'b/c.txt'), 'a big fat cat')
})

describe('Whisper.alignText', () => {
  const samples = () => tensor(chirp(0.4))

  it('has the times of the tokens, whose words are the text', async () => {
    const words = await whisper.alignText(samples(), 'the mat, hot.')
    expect(words.map(({ text }) => text)).toEqual([' the', ' mat,', ' hot.'])
    const { startOfTranscript, languages, transcribe, noTimestamps, endOfText } = whisper.tokens
    const prompt = [startOfTranscript, languages.en as number, transcribe, noTimestamps]
    const ids = whisper.tokenizer!.encode(' the mat, hot.', { addSpecialTokens: false }).inputIds
    const { spectrogramOf } = await import('../../../lib/models/whisper/options.js')
    const { mel } = await spectrogramOf(whisper, samples())
    const [times = []] = await whisper.tokenTimestamps({
      inputFeatures: mel.narrow(1, 0, 40).unsqueeze(0),
      ...{ prompt, tokens: [[...ids, endOfText]], frames: [20] },
    })
    // " the" are two tokens, " mat," five.
    const lengths = words.map(
      ({ text }) => whisper.tokenizer!.encode(text, { addSpecialTokens: false }).inputIds.length,
    )
    let end = 0
    for (const [i, { start, end: own }] of words.entries()) {
      expect(start).toBe(end === 0 ? 0 : times[end - 1]?.time)
      end += lengths[i] as number
      expect(own).toBe(times[end - 1]?.time)
    }
  })

  it('refuses what cannot be aligned, by a typed error', async () => {
    const long = tensor(chirp(0.41))
    await expect(whisper.alignText(long, 'the')).rejects.toThrow(/expected a clip of at most 0\.4 s, got 0\.41 s/)
    await expect(whisper.alignText(samples(), '  ')).rejects.toThrow(DataError)
    await expect(whisper.alignText(samples(), 'a b '.repeat(40))).rejects.toThrow(/expected at most 43 tokens/)
    await expect(whisper.alignText(samples(), 'a <|endoftext|> b')).rejects.toThrow(/expected no special tokens/)
    await expect(whisper.alignText(samples(), 'the', { language: 'klingon' })).rejects.toThrow(ConfigError)
    await expect(whisper.alignText(samples(), 'the', { lang: 'en' } as never)).rejects.toThrow(/lang/)
    await expect(whisper.alignText(samples(), 'the', { signal: AbortSignal.abort() })).rejects.toThrow(/abort/)
  })
})

describe('alignUstm', () => {
  it('writes TextGrids of transcripts, and of what Whisper hears; what is there stays', async () => {
    const { clips: count, files, aligned, byTranscript } = await alignUstm({ whisper, data: clips })
    expect({ count, files, aligned, byTranscript }).toEqual({ count: 3, files: 3, aligned: 3, byTranscript: 2 })
    for (const [name, seconds, said] of [
      ['a', 0.4, 'the mat hot'],
      ['b/c', 0.38, 'a big fat cat'],
    ] as const) {
      const grid = await readTextGrid(join(home, `clips-textgrid/${name}.TextGrid`))
      expect([grid.minTime, grid.maxTime]).toEqual([0, seconds])
      const words = wordsOfTextGrid(grid)
      expect(
        words
          .map(({ text }) => text)
          .filter(Boolean)
          .join(' '),
      ).toBe(said)
      expect(words.at(-1)?.end).toBe(seconds)
      unitWords(words, 20)
    }
    const before = statSync(join(home, 'clips-textgrid/a.TextGrid')).mtimeMs
    rmSync(join(home, 'clips-textgrid/b/c.TextGrid'))
    expect(await alignUstm({ whisper, data: `${clips}/` })).toMatchObject({ files: 3, aligned: 1, byTranscript: 1 })
    expect(statSync(join(home, 'clips-textgrid/a.TextGrid')).mtimeMs).toBe(before)
  })

  it('is what prepare reads', async () => {
    const tokenizer = await byteTokenizer(join(home, 'bytes'), 6)
    for (const name of ['a', 'b/c', 'b/d']) {
      writeFileSync(join(clips, `${name}_unit.txt`), Array.from({ length: 40 }, (_, i) => i % 6).join(' '))
    }
    const textGrids = join(home, 'clips-textgrid')
    const report = await prepareUstm({ textGrids, output: join(home, 'ustm'), tokenizer, onBadRecord: 'skip' })
    expect(report).toMatchObject({ utterances: 3, badRecords: 0 })
    expect(report.sequences + report.tooShort).toBe(3)
  })

  it('names the clip that cannot be aligned, or leaves it out', async () => {
    writeFileSync(join(clips, 'b/d.txt'), 'too long for its window')
    const output = join(home, 'other')
    await expect(alignUstm({ whisper, data: clips, output })).rejects.toThrow(/d\.wav: .*got 0\.9\d s/)
    const { files, badRecords, badRecordErrors } = await alignUstm({
      whisper,
      data: clips,
      output,
      onBadRecord: 'skip',
    })
    expect([files, badRecords]).toEqual([2, 1])
    expect(badRecordErrors[0]).toMatchObject({ file: join(clips, 'b/d.wav') })
    rmSync(join(clips, 'b/d.txt'))
    await expect(alignUstm({ whisper, data: home, output, transcrips: 'x' } as never)).rejects.toThrow(/transcripts/)
    await expect(alignUstm({ whisper: {} as never, data: clips })).rejects.toThrow(/whisper to be a Whisper/)
    await expect(alignUstm({ whisper, data: join(home, 'ustm') })).rejects.toThrow(/expected audio files in/)
    await expect(alignUstm({ whisper, data: clips, output: join(home, 'x'), signal: AbortSignal.abort() })).rejects.toThrow(/abort/) // biome-ignore format: one line
    expect(existsSync(join(home, 'x'))).toBe(false)
  })

  it('is a command', async () => {
    const log = vi.spyOn(console, 'log').mockImplementation(() => {})
    try {
      const words = ['--data', clips, '--whisper', fixturePath('models/whisper-tiny'), '--output', join(home, 'verb')]
      expect(await runCommand('voxtorch usdm align', align, words)).toBe(0)
      expect(log.mock.calls.flat().join()).toBe('3 TextGrids, 3 written by this run, 2 of them from transcripts')
    } finally {
      log.mockRestore()
    }
    const same = ['a.TextGrid', 'b/c.TextGrid'].map((file) =>
      readFileSync(join(home, 'verb', file)).equals(readFileSync(join(home, 'clips-textgrid', file))),
    )
    expect(same).toEqual([true, true])
  })
})

const isHere = publishedWeights().some(({ name, present }) => name === 'whisper-base' && present)
it.skipIf(!isHere || !hasData('whisper'))(
  'finds the words of a published clip where Whisper base writes them',
  async () => {
    using base = await Whisper.fromPretrained('whisper-base', { offline: true })
    const { samples } = await readAudio(dataPath('whisper/jfk.flac'), { sampleRate: 16_000 })
    const wave = samples.flatten()
    const { text, segments } = await base.transcribe(wave, { language: 'en', timestamps: 'word' })
    const own = segments.flatMap(({ words = [] }) => words)
    const found = await base.alignText(wave, text)
    expect(found.map((word) => word.text)).toEqual(own.map((word) => word.text))
    const off = found.map(({ end }, i) => Math.abs(end - (own[i]?.end as number)))
    // Other tokens stand before the words: at pauses the end of a word lies elsewhere in them.
    expect(off.filter((seconds) => seconds > 0.25).length).toBeLessThanOrEqual(off.length / 8)
    expect(Math.max(...off)).toBeLessThan(1)
  },
)
