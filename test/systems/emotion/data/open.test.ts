import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { ConfigError, DataError } from '../../../../lib/index.js'
import { openEmotionData, readDialogs } from '../../../../lib/systems/emotion/data/open.js'
import { file, folder } from '../../../kit/emotion/helpers.js'

const HEAD = 'Sr No.,Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID,Season,Episode,StartTime,EndTime'
const table = (dialogs: number, from = 0) =>
  [
    HEAD,
    ...Array.from(
      { length: 2 * dialogs },
      (_, i) => `1,a,Ann,${i % 2 ? 'joy' : 'fear'},positive,${from + (i >> 1)},${i % 2},1,1,"0:0:1,0","0:0:2,0"`,
    ),
    '',
  ].join('\n')
const lines = (...records: object[]) => `${records.map((record) => JSON.stringify(record)).join('\n')}\n`

describe('openEmotionData', () => {
  it('takes the parts of a folder of MELD', async () => {
    const dir = folder({ 'train_sent_emo.csv': table(4), 'dev_sent_emo.csv': table(2), 'test_sent_emo.csv': table(3) })
    const { train, valid, test, labels, notes } = await openEmotionData(dir)
    expect([train.length, valid.length, test.length, labels.length]).toEqual([4, 2, 3, 7])
    expect(notes[0]).toMatch(/4 dialogs, 8 utterances/)
  })

  it('draws whole conversations for what is not there, or utterances as published', async () => {
    const dir = folder({ 'train_sent_emo.csv': table(20) })
    const drawn = await openEmotionData(dir, { testShare: 0.2 })
    expect([drawn.train.length, drawn.valid.length, drawn.test.length]).toEqual([14, 2, 4])
    expect(drawn.notes.at(-1)).toMatch(/4 of 20 conversations were drawn for test/)
    const again = await openEmotionData(dir, { testShare: 0.2 })
    expect(again.valid.map(({ id }) => id)).toEqual(drawn.valid.map(({ id }) => id))
    const other = await openEmotionData(dir, { testShare: 0.2, seed: 7 })
    expect(other.valid.map(({ id }) => id)).not.toEqual(drawn.valid.map(({ id }) => id))
    const single = await openEmotionData(dir, { splitBy: 'utterance', validShare: 0.25 })
    expect([single.train.length, single.valid.length]).toEqual([30, 10])
    expect(single.train.every(({ utterances }) => utterances.length === 1)).toBe(true)
    // Less to learn from; what it is chosen and measured by stays.
    const fewer = await openEmotionData(dir, { testShare: 0.2, trainShare: 0.5 })
    expect([fewer.valid, fewer.test]).toEqual([drawn.valid, drawn.test])
    expect(fewer.train).toHaveLength(Math.round(drawn.train.length / 2))
    expect(drawn.train).toEqual(expect.arrayContaining(fewer.train))
    expect(fewer.notes.at(-1)).toMatch(/dialogs for training were drawn/)
    await expect(openEmotionData(dir, { trainShare: 0 })).rejects.toThrow(ConfigError)
  })

  it('obeys what JSONL says of its parts, and knows its classes', async () => {
    const dir = folder({
      'x.jsonl': lines(
        { dialog: 1, text: 'a', emotion: 'calm', split: 'train' },
        { dialog: 2, text: 'b', emotion: 'wild', split: 'valid' },
        { dialog: 3, text: 'c', emotion: 'wild', split: 'test' },
      ),
    })
    const { train, valid, test, labels } = await openEmotionData(join(dir, 'x.jsonl'))
    expect([train, valid, test].map((part) => part.map(({ id }) => id))).toEqual([['1'], ['2'], ['3']])
    expect(labels).toEqual(['calm', 'wild'])
    expect((await openEmotionData(join(dir, 'x.jsonl'), { labels: ['wild', 'calm'] })).labels).toEqual(['wild', 'calm'])
    expect((await readDialogs(join(dir, 'x.jsonl'))).utterances).toBe(3)
  })

  it('says what it does not know', async () => {
    await expect(openEmotionData(folder({ 'a.txt': 'x' }))).rejects.toThrow(ConfigError)
    await expect(openEmotionData('/no/such')).rejects.toThrow(DataError)
    await expect(openEmotionData(file('x', 'a.csv'), { share: 1 } as never)).rejects.toThrow(ConfigError)
    const dir = folder({ 'train_sent_emo.csv': table(1) })
    await expect(openEmotionData(dir)).rejects.toThrow(/expected dialogs to train on after the draws/)
  })
})
