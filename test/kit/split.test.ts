import { describe, expect, it } from 'vitest'
import { DataError } from '../../lib/index.js'
import { nothingToTrainOn, sharedGroups, split } from '../../lib/kit/split.js'

interface Turn {
  id: number
  dialog: string
  audio: string[]
  speaker: string
  part?: 'train' | 'valid' | 'test'
}

const keysOf = ({ dialog, audio }: Turn) => [dialog, ...audio.map((path) => `\0${path}`)]
// Two turns a dialog; some dialogs share a noise, and so stay together.
const turns = Array.from({ length: 30 }, (_, i): Turn => {
  const audio = [`${i}.wav`, ...(i % 7 === 0 ? [`x${i % 3}`] : [])]
  return { id: i, dialog: `d${i >> 1}`, audio, speaker: 'abc'[i % 3] as string }
})
const ids = (list: readonly Turn[]) => list.map(({ id }) => id)

describe('split', () => {
  it('gives by a seed what the splitter of SALMONN gave', () => {
    const of = (options: object) => split(turns, { keysOf, ...options })
    expect(ids(of({ valid: 0.1 }).valid)).toEqual([16, 17, 18, 19])
    const { valid, test, train } = of({ valid: 0.2, test: 0.1, seed: 7 })
    expect([ids(valid), ids(test)]).toEqual([
      [8, 9, 16, 17, 22, 23],
      [0, 1, 20, 21],
    ])
    expect(train.length).toBe(20)
    expect(ids(of({ valid: 0.3, seed: 3 }).valid)).toEqual([2, 3, 4, 5, 8, 9, 10, 11, 14, 15])
    expect(sharedGroups(train, [...valid, ...test], keysOf)).toEqual([])
  })

  it('gives by a seed what the draw of SPECTRA gave, sample by sample', () => {
    const of = (length: number, valid: number, seed: number) =>
      split(
        Array.from({ length }, (_, i) => i),
        { valid, seed },
      ).valid
    expect(of(20, 0.1, 42)).toEqual([2, 15])
    expect(of(33, 0.2, 7)).toEqual([0, 1, 5, 6, 15, 18, 20])
    // Equal samples are two samples.
    expect(split(['a', 'a', 'a', 'a'], { valid: 0.25 })).toMatchObject({ train: ['a', 'a', 'a'], valid: ['a'] })
  })

  it('holds out speakers; what a sample says of itself has the last word', () => {
    const speakerOf = ({ speaker }: Turn) => speaker
    const alone = split(turns, { speakerOf, speakers: { valid: ['a'], test: ['b'] } })
    expect([alone.train, alone.valid, alone.test].map((part) => new Set(part.map(speakerOf)))).toEqual([
      new Set(['c']),
      new Set(['a']),
      new Set(['b']),
    ])
    const own = turns.map((turn): Turn => (turn.id === 0 ? { ...turn, part: 'train' } : turn))
    const partOf = ({ part }: Turn) => part
    expect(ids(split(own, { partOf, speakerOf, speakers: { valid: ['a'] } }).train)).toContain(0)
    expect(() => split(turns, { speakerOf, speakers: { test: ['eve'] }, source: 'x.jsonl' })).toThrow(
      'expected speakers of x.jsonl, got "eve"',
    )
    const both = turns.map((turn): Turn => ({ ...turn, part: turn.id === 0 ? 'train' : 'test' }))
    expect(() => split(both, { keysOf, partOf })).toThrow(/which stay together, got train and test/)
  })

  it('takes fractions from 0 to below 1', () => {
    for (const fraction of [-0.1, 1, Number.NaN, '0.5' as never]) {
      expect(() => split(turns, { valid: fraction })).toThrow(/split: expected valid/)
      expect(() => split(turns, { test: fraction })).toThrow(/split: expected test/)
    }
  })

  it('says what leaves nothing to train on', () => {
    const noisy = turns.map((turn) => ({ ...turn, audio: ['noise.wav'] }))
    expect(split(noisy, { keysOf, valid: 0.1 }).train).toEqual([])
    const words = { groups: 'Dialogs', shared: 'sound file', nameOf: (key: string) => key.slice(1) }
    const error = nothingToTrainOn(noisy, keysOf, words)
    expect(error).toBeInstanceOf(DataError)
    expect(error.message).toMatch(/split of 15 dialogs, got none.*noise.wav is in 15/)
    expect(nothingToTrainOn(turns.slice(0, 1), keysOf, words).message).toMatch(/Add data, or lower the fractions/)
  })
})
