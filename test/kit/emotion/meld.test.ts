import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { ConfigError, DataError } from '../../../lib/index.js'
import { readMeld } from '../../../lib/kit/emotion/meld.js'
import { data, file, folder, hasData } from './helpers.js'

const HEAD = 'Sr No.,Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID,Season,Episode,StartTime,EndTime'
const row = (text: string, dialog: number | string, id: number | string, emotion = 'joy', speaker = 'Ann') =>
  `1,${text},${speaker},${emotion},positive,${dialog},${id},8,21,"00:16:16,059","0:16:21,731"`
const table = (...rows: string[]) => [HEAD, ...rows, ''].join('\r\n')

describe('readMeld', () => {
  it('groups the rows of a dialog in the order of their numbers', async () => {
    const path = file(table(row('a', 0, 3), row('"b, ""c""\nd"', 1, 0), row('e', 0, 1, 'anger', 'Ben')), 'x.csv')
    const { dialogs, utterances } = await readMeld(path)
    expect(utterances).toBe(3)
    expect(dialogs.map(({ id, utterances }) => [id, utterances.map(({ id }) => id)])).toEqual([
      ['0', [1, 3]],
      ['1', [0]],
    ])
    expect(dialogs[0]?.utterances[0]).toEqual({
      ...{ id: 1, text: 'e', speaker: 'Ben', emotion: 'anger', sentiment: 'positive', clipName: 'dia0_utt1' },
      broadcast: { episode: 'S08E21', start: 976.059, end: 981.731 },
    })
    expect(dialogs[1]?.utterances[0]?.text).toBe('b, "c"\nd')
    expect(dialogs[0]).not.toHaveProperty('part')
  })

  it('reads a byte order mark, bytes of windows-1252 and what was made of them', async () => {
    const bytes = Buffer.concat([
      Buffer.from([0xef, 0xbb, 0xbf]),
      Buffer.from(`${HEAD}\r\n1,"It`),
      Buffer.from([0x92]),
      Buffer.from('s Joe’s caf\u00e9'),
      Buffer.from([0x85]),
      Buffer.from(` and that\u0092s it ",Ann,joy,positive,0,0,1,2,"0:0:1,5","0:0:2,5"\r\n`),
    ])
    const { dialogs } = await readMeld(file(bytes, 'x.csv'))
    expect(dialogs[0]?.utterances[0]?.text).toBe('It’s Joe’s café… and that’s it')
  })

  it('knows the clips that are of no use, by the part of the data', async () => {
    const rows = [row('a', 38, 4), row('b', 38, 5), row('c', 125, 3)]
    const clips = folder({ 'dia38_utt4.mp4': 'x', 'final_videos_testdia38_utt5.mp4': 'x', 'dia125_utt3.mp4': 'x' })
    const named = async (name: string) =>
      (await readMeld(file(table(...rows), name), { clips })).dialogs.flatMap(({ utterances }) =>
        utterances.map(({ clip }) => clip?.video?.split('/').at(-1)),
      )
    expect(await named('test_sent_emo.csv')).toEqual([undefined, 'final_videos_testdia38_utt5.mp4', 'dia125_utt3.mp4'])
    expect(await named('train_sent_emo.csv')).toEqual(['dia38_utt4.mp4', 'final_videos_testdia38_utt5.mp4', undefined])
    expect(await named('mine.csv')).toEqual(['dia38_utt4.mp4', 'final_videos_testdia38_utt5.mp4', 'dia125_utt3.mp4'])
    const given = await readMeld(file(table(...rows), 'mine.csv'), { clips, part: 'test' })
    expect([given.missingClips, given.dialogs[0]?.part]).toEqual([1, 'test'])
    const foreign = folder({ 'dia38utt4.mp4': 'x' })
    await expect(readMeld(file(table(...rows), 'x.csv'), { clips: foreign })).rejects.toThrow(/clips of ECF/)
  })

  it('says which row is bad, or counts it', async () => {
    const rows = [row('a', 0, 0), row('b', 'x', 1), row('c', 0, 0), row('d', 0, 2, 'love'), row('e', 0, 3, '')]
    await expect(readMeld(file(table(...rows), 'x.csv'))).rejects.toThrow(
      /row 2: Dialogue_ID and Utterance_ID: expected integers, got x and 1/,
    )
    const found = await readMeld(file(table(...rows), 'x.csv'), { onBadRecord: 'skip' })
    expect(found.dialogs[0]?.utterances.map(({ emotion }) => emotion)).toEqual(['joy', undefined, undefined])
    expect(found.reasons).toEqual({ number: 2, 'unknown emotion': 1 })
    await expect(readMeld(file(`${HEAD.replace('Speaker', 'Who')}\n`, 'x.csv'))).rejects.toThrow(
      /expected at least one usable row/,
    )
    await expect(readMeld(file(table(row('a', 0, 0)).replace('Speaker', 'Who'), 'x.csv'))).rejects.toThrow(
      /expected a column of the file, got "Speaker"; did you mean "Season"\?/,
    )
    await expect(readMeld('/no/such.csv')).rejects.toThrow(DataError)
    await expect(readMeld(folder({ 'train_sent_emo.csv': table(row('a', 0, 0)) }))).rejects.toThrow(/Set part: 'train'/)
    await expect(readMeld('x.csv', { part: 'dev' as never })).rejects.toThrow(ConfigError)
  })
})

describe.skipIf(!hasData('meld'))('the corpus', () => {
  it.each([
    ['train', 1038, 9989],
    ['valid', 114, 1109],
    ['test', 280, 2610],
  ] as const)('%s has %d dialogs of %d utterances', async (part, dialogs, utterances) => {
    const found = await readMeld(join(data, 'meld'), { part })
    expect([found.dialogs.length, found.utterances, found.badRecords]).toEqual([dialogs, utterances, 0])
    const all = found.dialogs.flatMap(({ utterances }) => utterances)
    expect(all.filter(({ emotion }) => emotion === undefined)).toEqual([])
    expect(all.filter(({ text, speaker }) => /[\x80-\x9f]/.test(text + speaker))).toEqual([])
    expect(all.filter(({ broadcast }) => broadcast === undefined || broadcast.end < broadcast.start)).toEqual([])
  })
})
