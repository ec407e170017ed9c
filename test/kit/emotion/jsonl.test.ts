import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { DataError } from '../../../lib/index.js'
import { readEmotionJsonl } from '../../../lib/kit/emotion/jsonl.js'
import { folder } from './helpers.js'

function write(lines: readonly unknown[], more: Record<string, string> = {}) {
  const text = lines.map((line) => (typeof line === 'string' ? line : JSON.stringify(line))).join('\n')
  const dir = folder({ 'x.jsonl': `${text}\n`, ...more })
  return { dir, file: join(dir, 'x.jsonl') }
}

describe('readEmotionJsonl', () => {
  it('reads utterances line by line, with files, times and causes', async () => {
    const { dir, file } = write(
      [
        {
          dialog: 1,
          speaker: 'Ann',
          text: 'They took it !',
          emotion: 'anger',
          video: 'a.mp4',
          causes: [1],
          split: 'train',
        },
        { dialog: 'b', text: 'Fine .' },
        {
          ...{ dialog: 1, speaker: 'Ben', text: 'Who ?', emotion: 'surprise', audio: 'all.wav', start: 3, end: 4.5 },
          ...{ causes: [{ utterance: 1, words: [0, 3] }, 2], meta: { any: 1 } },
        },
      ],
      { 'a.mp4': 'x', 'all.wav': 'x' },
    )
    const { dialogs, utterances, causes } = await readEmotionJsonl(file)
    expect([utterances, causes]).toEqual([3, 3])
    expect(dialogs).toEqual([
      {
        ...{ id: '1', part: 'train', source: `${file}, dialog 1` },
        utterances: [
          { id: 1, text: 'They took it !', speaker: 'Ann', emotion: 'anger', clip: { video: join(dir, 'a.mp4') } },
          {
            ...{ id: 2, text: 'Who ?', speaker: 'Ben', emotion: 'surprise' },
            clip: { audio: join(dir, 'all.wav'), start: 3, end: 4.5 },
          },
        ],
        causes: [
          { effect: 0, cause: 0, emotion: 'anger' },
          { effect: 1, cause: 0, emotion: 'surprise', span: [0, 3] },
          { effect: 1, cause: 1, emotion: 'surprise' },
        ],
      },
      { id: 'b', source: `${file}, dialog b`, utterances: [{ id: 1, text: 'Fine .', speaker: '' }] },
    ])
  })

  it.each<[string, unknown, RegExp]>([
    ['no JSON', '{', /line 2/],
    ['no object', [1], /line 2: expected an object/],
    [
      'an unknown field',
      { dialog: 1, text: 'a', emotoin: 'joy' },
      /line 2: "emotoin": expected only known fields.* Did you mean emotion\?/,
    ],
    ['no dialog', { text: 'a' }, /dialog: expected a name or an integer/],
    ['no text', { dialog: 1 }, /text: expected a string/],
    [
      'a file that is not there',
      { dialog: 1, text: 'a', audio: 'no.wav' },
      /audio: expected a file or folder, got no\.wav/,
    ],
    ['times without a clip', { dialog: 1, text: 'a', start: 1 }, /start, end: expected video, frames or audio/],
    [
      'times that run back',
      { dialog: 1, text: 'a', audio: 'x.jsonl', start: 2, end: 1 },
      /end: expected seconds after start \(2\), got 1/,
    ],
    ['a part', { dialog: 1, text: 'a', split: 'dev' }, /split: expected 'train', 'valid' or 'test', got "dev"/],
    ['two parts', { dialog: 0, text: 'a', split: 'test' }, /expected one part for dialog 0, got train and test/],
    ['causes', { dialog: 1, text: 'a', emotion: 'joy', causes: ['1'] }, /causes: expected a list of utterance numbers/],
    [
      'a cause outside',
      { dialog: 1, text: 'a', emotion: 'joy', causes: [2] },
      /causes: expected utterances from 1 to 1/,
    ],
    ['a cause of nothing', { dialog: 1, text: 'a', causes: [1] }, /causes: expected none without an emotion/],
    [
      'words outside',
      { dialog: 1, text: 'a b', emotion: 'joy', causes: [{ utterance: 1, words: [1, 3] }] },
      /causes: expected words within the 2 of the utterance/,
    ],
    ['an emotion', { dialog: 1, text: 'a', emotion: 'love' }, /expected one of joy, anger, got "love"/],
  ])('refuses %s, or counts it', async (_what, line, message) => {
    const { file } = write([{ dialog: 0, text: 'a', emotion: 'joy', split: 'train' }, line])
    const emotions = ['joy', 'anger']
    await expect(readEmotionJsonl(file, { emotions })).rejects.toThrow(message)
    await expect(readEmotionJsonl(file, { emotions })).rejects.toThrow(DataError)
    // Of a dialog in two parts the first line is named.
    await expect(readEmotionJsonl(file, { emotions })).rejects.toMatchObject({ file, line: expect.any(Number) })
    await expect(readEmotionJsonl(file, { emotions })).rejects.not.toThrow(/line \d.*line \d/)
    const found = await readEmotionJsonl(file, { emotions, onBadRecord: 'skip' })
    expect(found.badRecords).toBe(1)
    expect(found.dialogs[0]?.utterances[0]).toMatchObject({ emotion: 'joy' })
  })

  it('takes at least two different emotions', async () => {
    const { file } = write([{ dialog: 0, text: 'a', emotion: 'joy' }])
    for (const emotions of [[], ['joy'], ['joy', 'joy'], ['joy', 1], 'joy']) {
      const found = readEmotionJsonl(file, { emotions } as never)
      await expect(found).rejects.toThrow(/emotions to be a list of at least two different names/)
    }
  })

  it('counts lines that it leaves out, so that causes and clips still name the same utterances', async () => {
    const asked: string[] = []
    const at = (text: string, more: object = {}) => ({ dialog: 'a', text, emotion: 'joy', ...more })
    const { file } = write([
      ...['{"dialog": "a", "text": "no end', { dialog: 'b', text: 'b one' }, at('two', { causes: [2, 1, 4] })],
      ...[{ dialog: 'a', txet: 'three' }, at('four', { causes: [{ utterance: 5, words: [0, 1] }, 6] }), at('five')],
      // Of no dialog that could be read: that of the line before.
      ...['nothing', at('seven', { causes: [7] }), { dialog: 'b', text: 'b two' }, { dialog: 'c' }],
    ])
    const { dialogs, badRecords, reasons } = await readEmotionJsonl(file, {
      onBadRecord: 'skip',
      clips: ({ name, dialog, utterance }) => {
        expect(name).toBe(`${dialog}/${utterance}`)
        asked.push(name)
        return undefined
      },
    })
    expect(dialogs.map(({ id }) => id)).toEqual(['a', 'b'])
    expect(dialogs[0]?.utterances.map(({ id, text }) => [id, text])).toEqual([
      ...([[2, 'two'], [4, 'four'], [5, 'five'], [7, 'seven']] as const), // biome-ignore format: one line
    ])
    expect(asked).toEqual(['a/2', 'a/4', 'a/5', 'a/7', 'b/1', 'b/2'])
    expect(dialogs[0]?.causes).toEqual([
      { effect: 0, cause: 0, emotion: 'joy' },
      { effect: 0, cause: 1, emotion: 'joy' },
      { effect: 1, cause: 2, emotion: 'joy', span: [0, 1] },
      { effect: 3, cause: 3, emotion: 'joy' },
    ])
    // Four lines, and two causes in them.
    expect([badRecords, reasons]).toEqual([6, { outside: 2 }])
  })

  it('leaves an utterance without the file that is not there, and no more', async () => {
    const { dir, file } = write(
      [
        { dialog: 1, text: 'one', audio: 'a.wav', video: 'no.mp4', start: 1, end: 2 },
        { dialog: 1, text: 'two', emotion: 'joy', frames: 'none', causes: [1] },
      ],
      { 'a.wav': 'x' },
    )
    await expect(readEmotionJsonl(file)).rejects.toMatchObject({ line: 1, message: expect.stringContaining('no.mp4') })
    const { dialogs, reasons, missingClips } = await readEmotionJsonl(file, {
      onBadRecord: 'skip',
      clips: { '1/2': 'other.wav' },
    })
    expect(dialogs[0]?.utterances).toEqual([
      { id: 1, text: 'one', speaker: '', clip: { audio: join(dir, 'a.wav'), start: 1, end: 2 } },
      { id: 2, text: 'two', speaker: '', emotion: 'joy' },
    ])
    expect(dialogs[0]?.causes).toEqual([{ effect: 1, cause: 0, emotion: 'joy' }])
    expect([reasons, missingClips]).toEqual([{ 'no such file': 2 }, 1])
  })

  it('gives no causes to an emotion that was left out', async () => {
    const { file } = write([
      { dialog: 1, text: 'a', emotion: 'love', causes: [1, 2] },
      { dialog: 1, text: 'b', emotion: 'joy', causes: [1] },
    ])
    const { dialogs, reasons } = await readEmotionJsonl(file, { emotions: ['joy', 'anger'], onBadRecord: 'skip' })
    expect(dialogs[0]?.utterances.map(({ emotion }) => emotion)).toEqual([undefined, 'joy'])
    expect(dialogs[0]?.causes).toEqual([{ effect: 1, cause: 0, emotion: 'joy' }])
    expect(reasons).toEqual({ 'unknown emotion': 1, cause: 2 })
  })
})
