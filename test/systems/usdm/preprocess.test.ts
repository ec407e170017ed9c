import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { ConfigError, DataError, manualSeed, randn, UnitExtractor, Wav2Vec2, writeWav } from '../../../lib/index.js'
import { BadRecords } from '../../../lib/kit/records.js'
import { groupDialogs, pairsOf } from '../../../lib/systems/usdm/data/dialogs.js'
import { formatExample, parseExample } from '../../../lib/systems/usdm/data/examples.js'
import {
  preprocessDailyTalk,
  preprocessUsdmJsonl,
  previewPage,
  previewText,
  readDailyTalk,
  readUsdmExamples,
  readUsdmJsonl,
  type UsdmExample,
  type UsdmSpokenTurn,
  type UsdmTokenizer,
  usdmExample,
  usdmExamples,
  writeUsdmExamples,
} from '../../../lib/systems/usdm/index.js'
import { readDailyTalkTurns } from '../../../lib/systems/usdm/published/dailytalk.js'
import { G1, G3, mistral } from './mistral.js'

const folder = mkdtempSync(join(tmpdir(), 'voxtorch-usdm-data-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))
const shared = process.env.VOXTORCH_DATA ?? fileURLToPath(new URL('../../../../shared/data', import.meta.url))

let tokenizer: UsdmTokenizer
beforeAll(async () => {
  tokenizer = await mistral(50)
})

const write = (name: string, content: string): string => {
  const path = join(folder, name)
  mkdirSync(dirname(path), { recursive: true })
  writeFileSync(path, content)
  return path
}
/** Lines of a phone file, of dialogs given by who speaks in each turn. */
const phones = (dialogs: Record<string, string>): string[] =>
  Object.entries(dialogs).flatMap(([number, speakers]) =>
    [...speakers].map(
      (speaker, turn) => `${turn}_${speaker}_d${number}|${speaker}|{HH AY1}|Text ${number} ${turn}.|none`,
    ),
  )
const clipsOf = (data: string, lines: readonly string[]) => {
  for (const line of lines) {
    const id = line.split('|')[0] as string
    write(`${data}/${id.split('_d')[1]}/${id}.wav`, '')
  }
}
/** Units that say whose they are. */
const counting = { read: async ({ turn, dialog }: UsdmSpokenTurn) => [turn, Number(dialog.replace(/\D/g, '')) % 50] }

async function examplesOf(file: string): Promise<UsdmExample[]> {
  const found: UsdmExample[] = []
  for await (const example of readUsdmExamples(file)) found.push(example)
  return found
}

describe('pairs', () => {
  it('come from both beginnings, so that each turn but the first answers once', () => {
    expect(pairsOf(5, 'single')).toEqual([[[0, 1]], [[2, 3]], [[1, 2]], [[3, 4]]])
    expect(pairsOf(4, 'single')).toEqual([[[0, 1]], [[2, 3]], [[1, 2]]])
    for (const turns of [0, 1, 2, 3, 7, 20]) expect(pairsOf(turns, 'single').length).toBe(Math.max(0, turns - 1))
    expect(pairsOf(5, 'multi')).toEqual([
      [
        [0, 1],
        [2, 3],
      ],
      [
        [1, 2],
        [3, 4],
      ],
    ])
    expect(pairsOf(2, 'multi')).toEqual([[[0, 1]]])
  })
})

describe('DailyTalk', () => {
  // The phone files of DailyTalk's repository (CC-BY-SA 4.0).
  it.runIf(existsSync(join(shared, 'dailytalk/train_phone.txt'))).each([
    ['train_phone.txt', 22_479, 2404, ['d604', 'd1118', 'd1187', 'd2300'], 20_042, 10_071],
    ['val_phone.txt', 1197, 128, ['d1023'], 1058, 526],
  ] as const)('%s: the counts of the original', async (name, lines, count, dropped, pairs, byZero) => {
    const turns = await readDailyTalkTurns(join(shared, 'dailytalk', name))
    expect(turns.length).toBe(lines)
    const grouped = groupDialogs(turns, new BadRecords('stop'))
    expect([...grouped.dropped].sort()).toEqual([...dropped].sort())
    expect(grouped.dialogs.length).toBe(count - dropped.length)
    const all = grouped.dialogs.flatMap(({ turns }) =>
      pairsOf(turns.length, 'single').map(([pair]) => turns[pair![0]]!),
    )
    expect(all.length).toBe(pairs)
    expect(all.filter(({ speaker }) => speaker === '0').length).toBe(byZero)
    const sizes = grouped.dialogs.map(({ turns }) => turns.length)
    expect([Math.min(...sizes), Math.max(...sizes)]).toEqual([5, name.startsWith('train') ? 20 : 18])
  })

  it('drops dialogs in which someone speaks twice, and counts the others', async () => {
    const lines = phones({ 1: '01010', 2: '0110', 3: '10', 44: '010101' })
    const shuffled = [...lines.slice(7), ...lines.slice(0, 7).reverse()]
    clipsOf('corpus/data', lines)
    const file = write('made.txt', `${shuffled.join('\n')}\n`)
    for (const root of ['corpus', 'corpus/data']) {
      const { dialogs, dropped, turns, badRecords } = await readDailyTalk(file, join(folder, root))
      expect([turns, dropped, badRecords]).toEqual([17, ['d2'], 0])
      const sizes = Object.fromEntries(dialogs.map(({ dialog, turns }) => [dialog, turns.length]))
      expect(sizes).toEqual({ d1: 5, d3: 2, d44: 6 })
      for (const { turns } of dialogs) expect(turns.map(({ turn }) => turn)).toEqual(turns.map((_, i) => i))
      expect(dialogs[0]?.turns[0]?.audio.path).toMatch(/corpus\/data\/\d+\/0_\d_d\d+\.wav$/)
    }
    const { examples, report } = await usdmExamples(await readDailyTalk(file, join(folder, 'corpus')), {
      tokenizer,
      units: counting,
    })
    expect(report).toEqual({ turns: 17, dialogs: 4, dropped: ['d2'], kept: 3, pairs: 10, tooLong: 0, examples: 10 })
    expect(examples.length).toBe(10)
  })

  const bad: [string, string, RegExp, number][] = [
    [
      'a turn that is missing',
      phones({ 1: '0101' })
        .filter((_, i) => i !== 1)
        .join('\n'),
      /line 2: dialog d1: expected turn 1, got turn \d+\./,
      2,
    ],
    ['the last turns of the beginning', phones({ 1: '0101' }).slice(1).join('\n'), /expected turn 0, got turn 1/, 1],
    ['a turn that stands twice', [...phones({ 1: '01' }), ...phones({ 1: '01' })].join('\n'), /got turn 0 twice/, 3],
    ['a field that is missing', '0_0_d1|0|{HH}|text', /line 1: expected 5 fields, .*, got 4/, 1],
    ['an id that is none', '0_d1|0|{HH}|text|none', /line 1: expected an id .*, got "0_d1"/, 1],
    ['two speakers', '0_0_d1|1|{HH}|text|none', /line 1: 0_0_d1: expected the speaker of the id, 0, got "1"/, 1],
    ['no text', '0_0_d1|0|{HH}| |none', /line 1: 0_0_d1: expected a text/, 1],
    [
      'a clip that is missing',
      phones({ 99: '01' }).join('\n'),
      /line 1: expected the clip of dialog d99, turn 0: .*99\/0_0_d99\.wav does not exist/,
      1,
    ],
  ]
  it.each(bad)('names file and line: %s', async (what, content, message, line) => {
    clipsOf('short', phones({ 1: '0101' }))
    const file = write(`bad/${what}.txt`, content)
    const error = await readDailyTalk(file, join(folder, 'short')).catch((error: unknown) => error)
    expect(error).toBeInstanceOf(DataError)
    expect(error).toMatchObject({ message: expect.stringMatching(message), file, line })
  })

  it('leaves out what cannot be used where it is told to', async () => {
    clipsOf('skip', phones({ 1: '0101', 2: '01' }))
    const lines = [...phones({ 1: '0101' }), ...phones({ 2: '01' }), ...phones({ 3: '01' }), 'nonsense']
    const file = write('skip.txt', lines.join('\n'))
    const found = await readDailyTalk(file, join(folder, 'skip'), { onBadRecord: 'skip' })
    expect(found.dialogs.map(({ dialog }) => dialog)).toEqual(['d1', 'd2'])
    expect(found.badRecords).toBe(2)
    await expect(readDailyTalk(file, join(folder, 'nowhere'))).rejects.toThrow(ConfigError)
  })
})

describe('examples', () => {
  it('are written as the original writes them, and read again', async () => {
    const whole = await mistral()
    const examples = [G1, G3].map(({ turns }) => usdmExample(whole, turns))
    const path = join(folder, 'examples.txt')
    await writeUsdmExamples(path, examples)
    const text = readFileSync(path, 'utf8')
    expect(text).toBe([G1, G3].map(({ inputIds, labels }) => `${inputIds.join(' ')}|${labels.join(' ')}`).join('\n'))
    expect(text.split('\n').map((line) => line.split('|')[0]?.split(' ').length)).toEqual([75, 83])
    expect(await examplesOf(path)).toEqual(examples)
    expect(parseExample(formatExample(examples[0]!), 'x', 1)).toEqual(examples[0])
    expect(previewText(whole, examples[0]!, false)).toBe(
      "<s> Below is a conversation between the user and the agent. Each turn includes the user's speech and its corresponding transcript, along with the agent's response text and the corresponding speech.\n\n### User\n<|unit0|><|unit9999|><|unit0|><|correspond|>⟦i am looking for a pan.\n⟧### Agent\n⟦no problem. what size would you like?<|correspond|><|unit1|><|unit2|>×2⟧\n</s>",
    )
    const coloured = previewText(whole, examples[0]!, true)
    // What is learnt is green, and nothing else.
    const green = coloured
      .split('\u001b[32m')
      .slice(1)
      .map((part) => part.split('\u001b[0m')[0])
    expect(green).toEqual([
      'i am looking for a pan.\n',
      'no problem. what size would you like?<|correspond|><|unit1|><|unit2|>×2',
    ])
    expect(coloured.replaceAll('\u001b[32m', '⟦').replaceAll('\u001b[0m', '⟧').split(/[⟦⟧]/)).toHaveLength(5)
    const page = await previewPage(whole, examples[0]!, { title: 'a <title>', clips: [write('a.wav', 'RIFF')] })
    expect(page).toContain('<mark>i am looking for a pan.\n</mark>')
    expect(page).toContain('data:audio/wav;base64,UklGRg==')
    expect(page).toContain('a &lt;title&gt;')
    expect(page).not.toContain('<|unit')
  })

  it.each([
    ['1 2 3', /expected 2 lists, .*, got 1/],
    ['1|2|3', /expected 2 lists, .*, got 3/],
    ['1 2|1', /got 1 labels and 2 ids/],
    ['1 x|1 2', /expected an id, got "x"/],
    ['1  2|1 2 3', /expected an id, got ""/],
    ['1 2|1 3', /expected label 2 to be -100 or its id, 2, got 3/],
    ['-100 2|-100 2', /expected ids of at least 0, got -100/],
  ])('refuses %j', async (line, message) => {
    const path = write('wrong.txt', `1 2|-100 2\n${line}`)
    const error = await examplesOf(path).catch((error: unknown) => error)
    expect(error).toMatchObject({ message: expect.stringMatching(message), file: path, line: 2 })
    expect(error).toBeInstanceOf(DataError)
  })

  it('of more tokens than there may be are left out: as many are kept', async () => {
    const file = write('long.txt', phones({ 1: '01' }).join('\n'))
    clipsOf('long', phones({ 1: '01' }))
    const dialogs = await readDailyTalk(file, join(folder, 'long'))
    const withUnits = (count: number) => ({ read: async () => new Int32Array(count).fill(3) })
    const options = { tokenizer, seed: 1 }
    const one = await usdmExamples(dialogs, { ...options, units: withUnits(1) })
    const fixed = one.examples[0]!.inputIds.length - 2
    for (const [units, kept] of [
      [(8192 - fixed) >> 1, 1],
      [((8192 - fixed) >> 1) + 1, 0],
    ] as const) {
      const { report, examples } = await usdmExamples(dialogs, { ...options, units: withUnits(units) })
      expect([report.examples, report.tooLong]).toEqual([kept, 1 - kept])
      for (const { inputIds } of examples) expect(inputIds.length).toBeGreaterThan(8190)
    }
    const length = one.examples[0]!.inputIds.length
    expect((await usdmExamples(dialogs, { ...options, units: withUnits(1), maxLength: length })).report.examples).toBe(
      1,
    )
    expect(
      (await usdmExamples(dialogs, { ...options, units: withUnits(1), maxLength: length - 1 })).report.examples,
    ).toBe(0)
  })

  it('of whole dialogs have all their turns', async () => {
    const file = write('multi.txt', phones({ 7: '01010' }).join('\n'))
    clipsOf('multi', phones({ 7: '01010' }))
    const dialogs = await readDailyTalk(file, join(folder, 'multi'))
    const { examples } = await usdmExamples(dialogs, { tokenizer, units: counting, template: 'multi' })
    const said = examples.map(({ inputIds }) => tokenizer.unitsOf(inputIds).filter((_, i) => i % 2 === 0))
    expect(said.sort((a, b) => a[0]! - b[0]!)).toEqual([
      [0, 1, 2, 3],
      [1, 2, 3, 4],
    ])
  })
})

describe('preprocessDailyTalk', () => {
  const kmeans = () => randn([50, 16]).mul(3)
  const size = {
    hiddenSize: 16,
    numHiddenLayers: 2,
    numAttentionHeads: 2,
    intermediateSize: 24,
    convDim: new Array(7).fill(6),
  }
  const xlsr = {
    ...size,
    featExtractNorm: 'layer' as const,
    doStableLayerNorm: true,
    convBias: true,
    numConvPosEmbeddings: 8,
  }

  it('goes on after a kill, extracts no clip twice, and writes the same bytes for the same seed', async () => {
    manualSeed(3)
    const extractor = await UnitExtractor.fromPretrained({
      encoder: Wav2Vec2.fromConfig({ ...xlsr, numConvPosEmbeddingGroups: 4 }, { seed: 2 }).eval(),
      kmeans: kmeans(),
      layer: 1,
    })
    const train = phones({ 1: '0101', 2: '010' })
    const test = phones({ 3: '10' })
    for (const [i, line] of [...train, ...test].entries()) {
      const id = line.split('|')[0] as string
      const path = write(`whole/data/${id.split('_d')[1]}/${id}.wav`, '')
      await writeWav(path, randn([800 + 160 * i]).mul(0.1), { sampleRate: 16_000 })
    }
    const options = {
      dataDir: join(folder, 'whole'),
      trainMetadata: write('whole/train.txt', train.join('\n')),
      testMetadata: write('whole/test.txt', test.join('\n')),
      output: join(folder, 'whole/preprocessed'),
      modelCacheDir: join(folder, 'whole/cache'),
      tokenizer,
      units: extractor,
    }
    let extracted = 0
    const stopped = new AbortController()
    const original = extractor.extractBatch.bind(extractor)
    extractor.extractBatch = async (clips, more) => {
      const found = await original(clips, more)
      extracted += clips.length
      if (extracted >= 4) stopped.abort(new Error('killed'))
      return found
    }
    const extract = { batchSeconds: 0.05, signal: stopped.signal }
    await expect(preprocessDailyTalk({ ...options, extract })).rejects.toThrow('killed')
    expect(existsSync(join(options.output, 'train.txt'))).toBe(false)
    const result = await preprocessDailyTalk(options)
    expect(extracted).toBe(9)
    expect(result.train).toMatchObject({
      dialogs: 2,
      kept: 2,
      dropped: [],
      pairs: 5,
      examples: 5,
      tooLong: 0,
      turns: 7,
    })
    expect(result.test).toMatchObject({ dialogs: 1, pairs: 1, examples: 1 })
    const bytes = (name: string) => readFileSync(join(options.output, name))
    const [first, firstTest] = [bytes('train.txt'), bytes('test.txt')]
    await preprocessDailyTalk(options)
    expect(extracted).toBe(9)
    expect([bytes('train.txt'), bytes('test.txt')]).toEqual([first, firstTest])
    await preprocessDailyTalk({ ...options, seed: 7 })
    const lines = (content: Buffer) => content.toString().split('\n')
    expect(bytes('train.txt')).not.toEqual(first)
    expect(lines(bytes('train.txt')).sort()).toEqual(lines(first).sort())
    // One that was never ended writes the same.
    const unbroken = { ...options, output: join(folder, 'whole/unbroken') }
    await preprocessDailyTalk(unbroken)
    expect(extracted).toBe(18)
    expect(readFileSync(join(unbroken.output, 'train.txt'))).toEqual(first)
    expect(readFileSync(join(unbroken.output, 'test.txt'))).toEqual(firstTest)
    expect(existsSync(join(options.modelCacheDir, 'tokenizer.json'))).toBe(true)
    await expect(preprocessDailyTalk({ ...options, tokenizer: await mistral(60) })).rejects.toThrow(
      /as in the tokenizer, 60, got 50/,
    )
    extractor.dispose()
  })
})

describe('dialogs of JSONL', () => {
  const turn = (dialog: string, turn: number, speaker: string) => ({
    dialog,
    turn,
    speaker,
    text: 'Hi.',
    wav: `${dialog}${turn}.wav`,
  })
  const jsonl = (name: string, records: object[]) => write(name, records.map((one) => JSON.stringify(one)).join('\n'))

  it('become examples as those of DailyTalk do', async () => {
    const data = jsonl('own/turns.jsonl', [turn('b', 0, 'x'), turn('a', 1, 'y'), turn('a', 0, 'x'), turn('b', 1, 'x')])
    const { dialogs, dropped } = await readUsdmJsonl(data)
    expect(dropped).toEqual(['b'])
    expect(dialogs.map(({ dialog, turns }) => [dialog, turns.map(({ clip }) => clip)])).toEqual([['a', ['a0', 'a1']]])
    expect(dialogs[0]?.turns[0]?.audio.path).toBe(join(folder, 'own/a0.wav'))
    const output = join(folder, 'own/made/examples.txt')
    const result = await preprocessUsdmJsonl({ data, output, tokenizer, units: { read: async () => [5] } })
    expect(result).toMatchObject({ examples: 1, dropped: ['b'], file: output })
    expect(tokenizer.unitsOf((await examplesOf(output))[0]!.inputIds)).toEqual([5, 5])
  })

  it('refuses two clips whose units would have one name', async () => {
    const file = jsonl('two.jsonl', [turn('a', 0, 'x'), { ...turn('a', 1, 'y'), wav: 'a0.flac' }])
    await expect(readUsdmJsonl(file)).rejects.toThrow(
      /line 2: .*a0\.flac and .*a0\.wav, which differ only in the extension/,
    )
  })

  it.each([
    [{ turn: 0, speaker: 'x', text: 'a', wav: 'a.wav' }, /line 1: expected the field 'dialog', got none/],
    [{ ...turn('a', 0, 'x'), txt: 'a' }, /line 1: expected the fields .*, got 'txt'; did you mean 'text'\?/],
    [{ ...turn('a', 0, 'x'), turn: 1.5 }, /line 1: turn: expected an integer of at least 0, got 1.5/],
    [{ ...turn('a', 0, 'x'), text: ' ' }, /line 1: text: expected a non-blank string/],
    [{ ...turn('a', 0, 'x'), wav: 7 }, /line 1: wav: expected the path of an audio file, got 7/],
    [{ ...turn('a', 0, 'x'), dialog: null }, /dialog: expected a non-empty string or an integer, got null/],
    [turn('a', 3, 'x'), /line 1: dialog a: expected turn 0, got turn 3/],
    [[1], /line 1: expected a JSON object, got an array/],
  ])('names file and line of %j', async (record, message) => {
    const file = jsonl('wrong.jsonl', [record])
    const error = await readUsdmJsonl(file).catch((error: unknown) => error)
    expect(error).toMatchObject({ message: expect.stringMatching(message), file, line: 1 })
    expect(error).toBeInstanceOf(DataError)
  })
})
