import { expect, it } from 'vitest'
import { ConfigError, scope, tensor } from '../../lib/index.js'
import { lengthMask, lengthsTensor, padClips, padTokens } from '../../lib/kit/pad.js'

it('padClips: tensors, arrays and silence side by side', () => {
  scope(() => {
    const clips = [tensor([1, 2, 3], { dtype: 'float32' }), Float32Array.of(4), null]
    const { inputValues, lengths } = padClips(clips)
    expect(inputValues.toArray()).toEqual([
      [1, 2, 3],
      [4, 0, 0],
      [0, 0, 0],
    ])
    expect([inputValues.dtype, lengths]).toEqual(['float32', [3, 1, 0]])
    const cut = padClips(clips, { length: 2 })
    expect(cut.inputValues.toArray()).toEqual([
      [1, 2],
      [4, 0],
      [0, 0],
    ])
    expect(cut.lengths).toEqual([2, 1, 0])
    expect(padClips([null], { leastLength: 4 }).inputValues.toArray()).toEqual([[0, 0, 0, 0]])
    expect(lengthsTensor(lengths).dtype).toBe('int64')
    expect(lengthMask(lengths, 3).toArray()).toEqual([
      [true, true, true],
      [true, false, false],
      [false, false, false],
    ])
  })
})

it('padTokens: int64 rows, padded on either side', () => {
  scope(() => {
    const rows = [[5, 6, 7], [8], []]
    expect(padTokens(rows, { value: 1 }).toArray()).toEqual([
      [5, 6, 7],
      [8, 1, 1],
      [1, 1, 1],
    ])
    expect(padTokens(rows, { value: -100, side: 'left', length: 4 }).toArray()).toEqual([
      [-100, 5, 6, 7],
      [-100, -100, -100, 8],
      [-100, -100, -100, -100],
    ])
    expect(padTokens(rows).dtype).toBe('int64')
    expect(padTokens([]).shape).toEqual([0, 0])
    expect(() => padTokens(rows, { length: 2 })).toThrow(/expected rows of at most 2 tokens \(length\), got one of 3/)
    expect(() => padTokens([[0.5]])).toThrow(ConfigError)
    expect(() => padTokens([[undefined as never]])).toThrow(/rows\[0\]\[0\] to be an integer/)
  })
})
