import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { ConfigError, DataError } from '../../../../lib/index.js'
import {
  type DstConfig,
  type DstDialog,
  DstFeaturizer,
  dstExamples,
  dstWords,
  loadDstSplit,
  normalizeDstLabel,
  normalizeDstText,
  normalizeDstTime,
  readDstConfig,
  readDstDialogs,
  readSpokenWoz,
  readSpokenWozList,
  spokenWozConfig,
} from '../../../../lib/systems/spectra/index.js'
import { config, makeTokenizer } from './maker.js'

const folder = mkdtempSync(join(tmpdir(), 'voxtorch-dst-labels-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))
let files = 0
function written(value: unknown, extension = 'json'): string {
  const path = join(folder, `f${files++}.${extension}`)
  writeFileSync(path, typeof value === 'string' ? value : JSON.stringify(value))
  return path
}

describe('text', () => {
  it.each([
    ['at 5pm', 'at 17:00'],
    ['leave at 9:15 pm', 'leave at 21:15'],
    ['12:30 pm', '12:30'],
    ['9 am', '09:00 am'],
    ['by 1130', 'by 11:30'],
    ['after 7', 'after 07:00'],
    ['at 11.45', 'at 11:45'],
    ['24:15', '00:15'],
    ['room 1130', 'room 1130'],
  ])('times: %s', (from, to) => expect(normalizeDstTime(from)).toBe(to))

  it.each([
    ["I don't want a B&B", 'i do not want a bed and breakfast'],
    ['a four-star guesthouse, or three star', 'a 4 star guest house, or 3 star'],
    ['a\tmuseum of archaelogy\n', 'a museum of archaeology '],
  ])('%s', (from, to) => expect(normalizeDstText(from)).toBe(to))

  it('cuts words at runs of other characters, which stay', () => {
    expect(dstWords("Saint John's café, £15.50?! At 5pm.")).toEqual(
      // biome-ignore format: as it is read
      ['saint', 'john', "'", 's', 'café', ',£', '15', '.', '50', '?!', 'at', '17', ':', '00'],
    )
  })

  it('labels have one spelling', () => {
    expect(normalizeDstLabel('hotel-area', 'Not Mentioned ')).toBe('none')
    expect(normalizeDstLabel('hotel-area', [])).toBe('none')
    expect(normalizeDstLabel('hotel-area', ['North', 'south'])).toBe('north')
    expect(normalizeDstLabel('hotel-area', 'dont care')).toBe('dontcare')
    expect(normalizeDstLabel('hotel-parking', 'Yes')).toBe('true')
    expect(normalizeDstLabel('hotel-internet', 'no')).toBe('false')
    expect(normalizeDstLabel('hotel-type', 'guesthouse')).toBe('false')
    expect(normalizeDstLabel('hotel-type', 'hotel')).toBe('true')
    expect(normalizeDstLabel('attraction-name', "Nando's")).toBe('nandos')
    expect(normalizeDstLabel('restaurant-book time', '5pm')).toBe('17:00')
    expect(normalizeDstLabel('taxi-arriveby', '5pm')).toBe('17:00')
    expect(normalizeDstLabel('taxi-arriveby', '5pm', { compat: 'published' })).toBe('5pm')
  })
})

const utterance = (text: string) => ({ text, audio: null })
function dialog(
  ...turns: [user: string, changes: Record<string, string>, informed?: Record<string, string>][]
): DstDialog {
  return {
    id: 'd',
    turns: turns.map(([user, changes, informed = {}]) => ({
      user: utterance(user),
      system: utterance('ok'),
      changes,
      informed,
    })),
  }
}
const label = (...turns: Parameters<typeof dialog>) => dstExamples(dialog(...turns), { config: spoken })
const spoken: DstConfig = spokenWozConfig({ centre: ['downtown'], '4': ['four'], acorn: ['the acorn'] })

describe('labels', () => {
  it('copies the last place where the user says the value, or another spelling of it', () => {
    const [turn] = label([
      'north or downtown , no downtown for four',
      { 'hotel-area': 'centre', 'hotel-book stay': '4' },
    ])
    expect(turn!.classes).toEqual({ 'hotel-area': 'copy_value', 'hotel-book stay': 'copy_value' })
    expect(turn!.spans).toEqual({ 'hotel-area': [5, 6], 'hotel-book stay': [7, 8] })
    expect(turn!.values).toEqual({ 'hotel-area': 'centre', 'hotel-book stay': '4' })
    expect(turn!.stateBefore).toEqual({})
  })

  it('refers to a slot that has the value, and never between numbers of other things', () => {
    const turns = label(
      ['the acorn for 4', { 'hotel-name': 'acorn', 'hotel-book people': '4' }],
      [
        'a taxi there and a table for us',
        { 'taxi-destination': 'acorn', 'restaurant-book people': '4', 'hotel-stars': '4' },
      ],
    )
    expect(turns[1]!.classes).toEqual({ 'taxi-destination': 'refer' })
    expect(turns[1]!.refers).toEqual({ 'taxi-destination': 'hotel-name' })
    // What cannot be pointed at is in the state all the same.
    expect(turns[1]!.values).toMatchObject({ 'restaurant-book people': '4', 'hotel-stars': '4' })
  })

  it('keeps an unpointable value as copied in the state before the next turn', () => {
    const turns = label(['hello', { 'hotel-area': 'north' }], ['well', {}])
    expect(turns[0]!.classes).toEqual({})
    expect(turns[1]!.stateBefore).toEqual({ 'hotel-area': 'copy_value' })
  })

  it('labels a value that is said again, unless several slots have it', () => {
    const again = label(['north', { 'hotel-area': 'north' }], ['yes , north', {}])
    expect(again[1]!.classes).toEqual({ 'hotel-area': 'copy_value' })
    const shared = label(['north', { 'hotel-area': 'north', 'restaurant-area': 'north' }], ['yes , north', {}])
    expect(shared[1]!.classes).toEqual({})
    expect(shared[1]!.spans).toEqual({})
  })

  it('does not repeat true, false and dontcare', () => {
    const turns = label(
      ['hm', { 'hotel-parking': 'true', 'hotel-area': 'dontcare' }],
      ['hm', {}],
      ['hm', { 'hotel-parking': 'false' }],
    )
    expect(turns.map(({ classes }) => classes)).toEqual([
      { 'hotel-parking': 'true', 'hotel-area': 'dontcare' },
      {},
      { 'hotel-parking': 'false' },
    ])
  })

  it('takes what the system told in this turn and the next, where the slot changes', () => {
    const turns = label(
      ['any', {}, { 'hotel-name': 'acorn', 'hotel-area': 'north' }],
      ['the acorn is fine', { 'hotel-name': 'acorn' }],
      ['north', { 'hotel-area': 'north' }],
    )
    expect(turns[1]!.classes).toEqual({ 'hotel-name': 'inform' })
    expect(turns[1]!.informed).toEqual(['hotel-name'])
    // The label is 'inform', and the span that the user said is trained too.
    expect(turns[1]!.spans).toEqual({ 'hotel-name': [1, 2] })
    expect(turns[1]!.informs).toEqual({ 'hotel-name': 'acorn', 'hotel-area': 'north' })
    expect(turns[2]!.classes).toEqual({ 'hotel-area': 'copy_value' })
    const published = dstExamples(dialog(['a', {}, { 'hotel-name': 'acorn' }], ['b', {}]), {
      config: spoken,
      compat: 'published',
    })
    expect(published[1]!.informs).toEqual({})
  })

  it('a one-turn dialog and one without turns', () => {
    expect(label(['hello', {}])).toHaveLength(1)
    expect(label()).toEqual([])
  })
})

const word = (begin: number, end: number) => ({ Word: 'x', BeginTime: begin, EndTime: end })
const spokenFile = {
  SNG0601: {
    goal: {},
    log: [
      { text: 'A cheap one', tag: 'user', metadata: {}, dialog_act: {}, words: [word(250, 400), word(400, 900)] },
      {
        text: 'The Acorn?',
        tag: 'system',
        words: [],
        metadata: {
          hotel: {
            book: { booked: [{ people: '2', name: 'x' }], people: '1', day: '', stay: '' },
            semi: { pricerange: 'cheap', name: 'not mentioned', parking: 'yes', unknown: 'z' },
          },
        },
        dialog_act: {
          'Hotel-Inform': [
            ['Name', 'Acorn '],
            ['none', 'x'],
            ['Area', '?'],
            ['BookDay', 'Monday'],
          ],
          'Hotel-Request': [['Area', 'north']],
        },
      },
      { text: 'bye', metadata: {}, dialog_act: {}, words: [word(50, 50)] },
    ],
  },
  B: {
    log: [
      { text: 'hi', metadata: {} },
      { text: 'user again', metadata: {} },
      { text: 'x', metadata: { hotel: {} } },
    ],
  },
}

describe("SpokenWOZ's own form", () => {
  it('reads states, told values and word times, and counts what is odd', async () => {
    const audio = join(folder, 'audio')
    mkdirSync(join(audio, 'SNG0601'), { recursive: true })
    writeFileSync(join(audio, 'SNG0601', 'speech.wav'), '')
    const { dialogs, report } = await readSpokenWoz(written(spokenFile), { config: spoken, audio })
    expect(dialogs[0]!.turns).toHaveLength(1)
    const { user, system, changes, informed } = dialogs[0]!.turns[0]!
    expect(changes).toEqual({
      'hotel-book people': '2',
      'hotel-name': 'x',
      'hotel-pricerange': 'cheap',
      'hotel-parking': 'true',
    })
    expect(informed).toEqual({ 'hotel-name': 'acorn', 'hotel-book day': 'monday' })
    expect(user.audio).toEqual({ path: join(audio, 'SNG0601', 'speech.wav'), start: 0.25, end: 0.9 })
    expect(system.audio).toBeNull()
    expect(report).toEqual({
      ...{ dialogs: 2, turns: 1, withoutAudio: 1 },
      ...{ cutShort: ['B'], mislabeled: ['SNG0601'], noRecording: ['B'] },
    })
  })

  it('reads lists of both kinds, and names what is missing', async () => {
    expect(await readSpokenWozList(written('SNG1\nSNG2\n\n'))).toEqual(['SNG1', 'SNG2'])
    expect(await readSpokenWozList(written(['A', 'B']))).toEqual(['A', 'B'])
    const path = written(spokenFile)
    await expect(readSpokenWoz(path, { config: spoken, dialogs: ['C'] })).rejects.toThrow(/expected the dialog 'C'/)
    const broken = written({ A: { log: [{ text: 'x', words: [{ BeginTime: 'y' }] }] } })
    await expect(readSpokenWoz(broken, { config: spoken })).rejects.toThrow(/dialog A: log\[0\]\.words\[0\]/)
  })
})

describe('dialogs of your own', () => {
  const line = (turns: unknown[], more: object = {}) => `${JSON.stringify({ dialog: 'd', turns, ...more })}\n`

  it('reads state as the whole state, and finds what changed', async () => {
    const path = written(
      line(
        [
          { user: { text: 'a', start: 1, end: 2 }, state: { 'hotel-area': 'North', 'hotel-parking': 'yes' } },
          {
            user: { text: 'b', audio: 'b.wav' },
            system: { text: 'c', audio: null },
            state: { 'hotel-area': 'south', 'hotel-parking': 'yes' },
          },
          { user: { text: 'd', audio: null } },
        ],
        { audio: 'd.wav' },
      ),
      'jsonl',
    )
    const [read] = await readDstDialogs(path, { config: spoken })
    expect(read!.turns.map((turn) => turn.changes)).toEqual([
      { 'hotel-area': 'north', 'hotel-parking': 'true' },
      { 'hotel-area': 'south' },
      {},
    ])
    expect(read!.turns.map((turn) => turn.user.audio)).toEqual([
      { path: join(folder, 'd.wav'), start: 1, end: 2 },
      { path: join(folder, 'b.wav') },
      null,
    ])
    expect(read!.turns[0]!.system).toEqual({ text: '', audio: null })
  })

  it.each([
    [line([{ usr: { text: 'a' } }]), /turns\[0\]: expected known names, got 'usr', did you mean 'user'/],
    [line([{ user: { text: 'a' }, state: { 'hotel-are': 'x' } }]), /did you mean 'hotel-area'/],
    [line([{ user: { text: 'a' }, state: { 'hotel-area': 4 } }]), /expected a string, got 4/],
    [line([{ user: { text: 'a' } }], { audio: 'd.wav' }), /expected start and end in the dialog/],
    [line([{ user: { text: 'a', start: -1, end: 2 } }]), /expected seconds of at least 0/],
    [line([{}]), /turns\[0\]\.user: expected an object, got undefined/],
    [line([]) + line([]), /line 2: dialog: expected unique names, got 'd' twice/],
  ])('names what is wrong in %s', async (content, message) => {
    const reading = readDstDialogs(written(content, 'jsonl'), { config: spoken })
    await expect(reading).rejects.toThrow(message)
    await expect(reading).rejects.toThrow(DataError)
  })

  it('reads configurations, and refuses unknown names', async () => {
    const path = written({ slots: ['a'], label_maps: { x: ['y'] } })
    expect(await readDstConfig(path)).toMatchObject({ slots: ['a'], labelMaps: { x: ['y'] } })
    await expect(readDstConfig(written({ slots: ['a'], labelmaps: {} }))).rejects.toThrow(/did you mean 'label_maps'/)
    await expect(readDstConfig(written({}))).rejects.toThrow(ConfigError)
    await expect(readDstConfig(join(folder, 'none'))).rejects.toThrow(DataError)
  })

  it('a folder without dialogs says what was looked for', async () => {
    const tokenizer = await makeTokenizer(join(folder, 'tokenizer'))
    await expect(loadDstSplit(folder, 'dev', { config, tokenizer })).rejects.toThrow(/dev\.jsonl.*data\.json/)
  })
})

describe('features', () => {
  it('lays out a turn with its spans, and cuts the longer segment', async () => {
    const tokenizer = await makeTokenizer(join(folder, 'tokenizer'))
    const id = (token: string) => tokenizer.tokenToId(token)!
    const turn = dialog(['a cheap hotel in the north', { 'hotel-pricerange': 'cheap', 'hotel-area': 'north' }])
    const [example] = dstExamples(turn, { config })
    const whole = new DstFeaturizer({ config, tokenizer })
    const features = whole.features({ ...example!, systemWords: ['done'] })
    const words = ['Ġa', 'Ġcheap', 'Ġhotel', 'Ġin', 'Ġthe', 'Ġnorth'].map(id)
    expect(features.inputIds).toEqual([0, ...words, 2, 2, id('Ġdone'), 2, 2])
    expect(features.userLength).toBe(9)
    expect(features.startPositions).toEqual([2, 6, 0, 0, 0, 0])
    expect(features.endPositions).toEqual([2, 6, 0, 0, 0, 0])
    expect(features.classIds).toEqual([2, 2, 0, 0, 0, 0])

    const short = new DstFeaturizer({ config, tokenizer, maxLength: 10 })
    const cut = short.features({ ...example!, systemWords: ['done', 'all', 'good'] })
    expect(cut.inputIds).toEqual([0, ...words.slice(0, 3), 2, 2, id('Ġdone'), id('Ġall'), 2, 2])
    expect(cut.classIds).toEqual([2, 0, 0, 0, 0, 0])
    expect([short.truncated, short.lostSpans]).toEqual([1, 1])
    expect([whole.truncated, whole.lostSpans]).toEqual([0, 0])
  })
})
