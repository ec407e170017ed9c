import { describe, expect, it } from 'vitest'
import { ConfigError, DataError } from '../../lib/index.js'
import { BadRecords, onBadRecordOf } from '../../lib/kit/records.js'

describe('BadRecords', () => {
  it('counts all, names the first hundred, and says where they stand', () => {
    const bad = new BadRecords('skip')
    for (let line = 1; line <= 120; line += 1) bad.add(new DataError('it is no object', {}), { file: 'x.jsonl', line })
    expect([bad.count, bad.errors.length]).toEqual([120, 100])
    expect(bad.errors[99]).toMatchObject({ file: 'x.jsonl', line: 100, message: 'x.jsonl, line 100: it is no object' })
    const more = new BadRecords('skip')
    more.addAll(bad.count, bad.errors)
    more.addAll(3, [new DataError('one more', {})])
    expect([more.count, more.errors.length]).toEqual([123, 100])
  })

  it('counts by reason', () => {
    const bad = new BadRecords('skip')
    for (let i = 0; i < 150; i += 1) bad.note(i % 3 ? 'times' : 'tokens', `word ${i}`, { word: i })
    expect(bad.reasons).toEqual({ times: 100, tokens: 50 })
    expect([bad.count, bad.errors.length]).toEqual([150, 100])
    expect(bad.errors[1]).toMatchObject({ reason: 'times', word: 1 })
    expect(() => new BadRecords('stop').note('times', 'word 1', {})).toThrow(DataError)
  })

  it('stops, and never counts what is no fault of the data', () => {
    expect(() => new BadRecords('stop').add(new DataError('no', {}), { file: 'x', line: 2 })).toThrow('x, line 2: no')
    expect(() => new BadRecords('skip').add(new TypeError('a slip'))).toThrow(TypeError)
  })
})

it('the policy has one name, and an older one', () => {
  expect(onBadRecordOf('read', {}, 'skip')).toBe('skip')
  expect(onBadRecordOf('read', { onBadRecord: 'stop' }, 'skip')).toBe('stop')
  expect(onBadRecordOf('read', { onProblem: 'error' }, 'skip')).toBe('stop')
  expect(() => onBadRecordOf('read', { onBadRecord: 'stop', onProblem: 'skip' }, 'skip')).toThrow(
    /expected one of onBadRecord and onProblem/,
  )
  expect(() => onBadRecordOf('read', { onBadRecord: 'error' as never }, 'skip')).toThrow(ConfigError)
})
