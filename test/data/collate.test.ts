import { describe, expect, it } from 'vitest'
import { ConfigError, DataError, memoryStats, padCollate, scope } from '../../lib/index.js'

describe('padCollate', () => {
  it('pads lists and adds the attention mask', () => {
    const collate = padCollate({ inputIds: { pad: 1 }, labels: {}, score: { dtype: 'float32' } })
    const batch = collate([
      { inputIds: [0, 7, 2], labels: 1, score: 0.5 },
      { inputIds: [0], labels: 0, score: 2 },
    ])
    expect(Object.keys(batch)).toEqual(['inputIds', 'attentionMask', 'labels', 'score'])
    expect(batch.inputIds.toArray()).toEqual([
      [0, 7, 2],
      [0, 1, 1],
    ])
    expect(batch.attentionMask.toArray()).toEqual([
      [1, 1, 1],
      [1, 0, 0],
    ])
    expect(batch.labels.toArray()).toEqual([1, 0])
    expect(Object.values(batch).map((t) => t.dtype)).toEqual(['int64', 'int64', 'int64', 'float32'])
    for (const t of Object.values(batch)) t.dispose()
  })

  it('pads on the left, to a multiple, with several masks', () => {
    scope(() => {
      const { ids, wave, idMask, waveMask } = padCollate({
        ids: { pad: 0, side: 'left', mask: 'idMask' },
        wave: { pad: -1, multipleOf: 4, mask: 'waveMask' },
      })([
        { ids: [5], wave: Float32Array.of(1, 2, 3, 4, 5) },
        { ids: [6, 7], wave: Float32Array.of(1) },
      ])
      expect(ids.toArray()).toEqual([
        [0, 5],
        [6, 7],
      ])
      expect(idMask.toArray()).toEqual([
        [0, 1],
        [1, 1],
      ])
      expect(wave.toArray()).toEqual([
        [1, 2, 3, 4, 5, -1, -1, -1],
        [1, -1, -1, -1, -1, -1, -1, -1],
      ])
      expect(wave.dtype).toBe('float32')
      expect(waveMask.sum([1]).toArray()).toEqual([5, 1])
    })
  })

  it('reads flat features as [length, ...elementShape]', () => {
    scope(() => {
      const { mel, attentionMask } = padCollate({ mel: { pad: 0, elementShape: [2], side: 'left' } })([
        { mel: Float32Array.of(1, 2, 3, 4) },
        { mel: Float32Array.of(5, 6) },
      ])
      expect(mel.toArray()).toEqual([
        [
          [1, 2],
          [3, 4],
        ],
        [
          [0, 0],
          [5, 6],
        ],
      ])
      expect(attentionMask.toArray()).toEqual([
        [1, 1],
        [0, 1],
      ])
    })
  })

  it('takes dtypes from typed arrays, booleans and bigints', () => {
    scope(() => {
      const fields = { a: {}, b: {}, c: {}, d: {}, e: { dtype: 'bfloat16' }, f: { dtype: 'bool' } } as const
      const sample = {
        a: Int32Array.of(1),
        b: true,
        c: 2n ** 40n,
        d: BigInt64Array.of(3n),
        e: [0.5],
        f: [1, 0],
      }
      const batch = padCollate(fields)([sample, sample])
      expect(Object.values(batch).map((t) => t.dtype)).toEqual(['int32', 'bool', 'int64', 'int64', 'bfloat16', 'bool'])
      expect(batch.c.toArray()).toEqual([2 ** 40, 2 ** 40])
      expect(batch.f.toArray()).toEqual([
        [true, false],
        [true, false],
      ])
    })
  })

  it('leaves nothing behind but the batch', () => {
    const collate = padCollate({ ids: { pad: 0 }, labels: {} })
    const before = memoryStats().liveTensors
    const batch = collate([{ ids: [1, 2], labels: 1 }])
    expect(memoryStats().liveTensors).toBe(before + 3)
    for (const t of Object.values(batch)) t.dispose()
    expect(memoryStats().liveTensors).toBe(before)
  })

  it('names field and sample in its errors', () => {
    const collate = (value: unknown, field = {}) => padCollate({ x: field })([{ x: [1, 2] }, { x: value as number[] }])
    expect(() => collate(undefined)).toThrow(/field x of sample 1/)
    expect(() => collate('text')).toThrow(DataError)
    expect(() => collate(3)).toThrow(DataError)
    expect(() => collate([1])).toThrow(/pad/)
    expect(() => collate([1, 0.5])).toThrow(/dtype/)
    expect(() => collate([1, Number.NaN])).toThrow(DataError)
    expect(() => collate([1, 'a'])).toThrow(DataError)
    expect(() => collate([1, 2, 3], { elementShape: [2], pad: 0 })).toThrow(/elementShape/)
    expect(() => padCollate({ x: {} })([])).toThrow(DataError)
    expect(() => padCollate({ x: { mask: 'm' } })).toThrow(ConfigError)
    expect(() => padCollate({ x: { multipleOf: 0 } })).toThrow(ConfigError)
  })
})
