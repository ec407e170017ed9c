import { describe, expect, it } from 'vitest'
import {
  abortable,
  bytesOf,
  elementsOf,
  fieldOf,
  isArrayLike,
  isList,
  listOf,
  requireFunction,
  requireNumber,
  requireObject,
  requireOneOf,
  requireOptions,
  requireSignal,
  requireString,
  requireWhole,
  shown,
} from '../../lib/base/check.js'
import { ConfigError, LSTM, ones, ReLU } from '../../lib/index.js'

const revoked = () => {
  const { proxy, revoke } = Proxy.revocable([], {})
  revoke()
  return proxy
}
const holed = (length: number, ...places: number[]) => {
  const list: unknown[] = new Array(length)
  for (const place of places) list[place] = place
  return list
}

describe('checks of one argument', () => {
  const check: Record<string, [check: (value: unknown) => void, good: unknown[], bad: unknown[], message: string]> = {
    number: [
      (value) => requireNumber('f', 'x', value),
      [0, -1.5, Number.POSITIVE_INFINITY],
      [Number.NaN, '1', 1n, null, undefined],
      'f: expected x to be a number, got',
    ],
    'number in [0, 1)': [
      (value) => requireNumber('f', 'x', value, { least: 0, below: 1 }),
      [0, 0.999],
      [-0.001, 1, Number.NaN],
      'f: expected x to be a number of at least 0 and below 1, got',
    ],
    'whole number': [
      (value) => requireWhole('f', 'x', value),
      [0, 1, Number.MAX_SAFE_INTEGER],
      [-1, 0.5, 2 ** 53, Number.NaN, Number.POSITIVE_INFINITY, '1', 1n],
      'f: expected x to be an integer of at least 0, got',
    ],
    'whole number from 2': [
      (value) => requireWhole('f', 'x', value, 2),
      [2, 3],
      [1, 0],
      'f: expected x to be an integer of at least 2, got',
    ],
    string: [
      (value) => requireString('f', 'x', value),
      ['', 'a'],
      [1, null, ['a']],
      'f: expected x to be a string, got',
    ],
    function: [
      (value) => requireFunction('f', 'x', value),
      [() => {}],
      [{}, null, 'f'],
      'f: expected x to be a function, got',
    ],
    object: [
      (value) => requireObject('f', 'x', value),
      [{}, []],
      [null, undefined, 'a', 7],
      'f: expected x to be an object, got',
    ],
    'one of': [
      (value) => requireOneOf('f', 'x', value, ['a', 'b']),
      ['a', 'b'],
      ['c', '', null],
      "f: expected x to be 'a', 'b', got",
    ],
    options: [
      (value) => requireOptions('f', value, ['a']),
      [
        {},
        { a: undefined },
        { a: 1 },
        Object.create(null),
        Object.create({ a: 1 }),
        new (class {
          a = 1
          other = 2
        })(),
      ],
      [
        null,
        undefined,
        'a',
        7,
        [],
        ['a'],
        new Map([['a', 1]]),
        new Date(),
        new Float32Array(1),
        ones([2]),
        new ReLU(),
        new (class {
          other = 2
        })(),
      ],
      'f: expected options to be an object, got',
    ],
  }
  it('requireOptions suggests options for names of TrainingArguments', () => {
    expect(() => requireOptions('f', { learningRate: 1 }, ['lr'])).toThrow(/'learningRate'; did you mean 'lr'\?/)
    expect(() => requireOptions('f', { learningRate: 1 }, ['x'])).toThrow(/'learningRate'$/)
  })
  it('requireOptions shows the first options that exist', () => {
    expect(() => requireOptions('f', 2, ['stride', 'padding', 'bias', 'groups'])).toThrow(
      'f: expected options to be an object, got 2. Write { stride, padding, bias, … }.',
    )
    expect(() => requireOptions('f', 2, ['a'])).toThrow(/got 2\. Write \{ a \}\.$/)
  })
  it.each(Object.entries(check))('%s', (_, [call, good, bad, message]) => {
    for (const value of good) expect(() => call(value)).not.toThrow()
    for (const value of bad) {
      expect(() => call(value), String(value)).toThrow(ConfigError)
      expect(() => call(value), String(value)).toThrow(message)
    }
  })

  it('names an unknown option and the one that was meant', () => {
    expect(() => requireOptions('f', { widht: 1 }, ['width'])).toThrow(
      /f: expected a known option, got 'widht'; did you mean 'width'\?/,
    )
  })

  it('fieldOf reads what can be read', () => {
    expect([fieldOf({ a: 1 }, 'a'), fieldOf('ab', 'length'), fieldOf(null, 'a'), fieldOf(revoked(), 'a')]).toEqual([
      1,
      2,
      undefined,
      undefined,
    ])
  })

  it('bytesOf gives the bytes of a buffer or an array, unless they were transferred', () => {
    const bytes = Uint8Array.of(1, 2)
    expect(bytesOf('f', 'x', bytes)).toBe(bytes)
    expect(bytesOf('f', 'x', bytes.buffer)).toEqual(bytes)
    structuredClone(bytes.buffer, { transfer: [bytes.buffer] })
    expect(() => bytesOf('f', 'x', bytes.buffer)).toThrow(
      /f: expected x to be bytes that were not transferred to another thread, got an ArrayBuffer/,
    )
  })
})

describe('isArrayLike', () => {
  it.each([
    ['no elements', []],
    ['elements', [1, undefined]],
    ['a hole in the middle', holed(3, 0, 2)],
    ['a typed array', new Float32Array(2)],
    ['numbered fields', { 0: 'a', 1: 'b', length: 2 }],
    ['no fields and no length to them', { length: 0 }],
  ])('takes %s', (_, value) => expect(isArrayLike(value)).toBe(true))

  it.each([
    ['null', null],
    ['a text', 'ab'],
    ['a function', (_: unknown) => {}],
    ['a view without elements', new DataView(new ArrayBuffer(2))],
    ['a hole at the beginning', holed(2, 1)],
    ['a hole at the end', holed(2, 0)],
    ['fewer fields than it claims', { 0: 'a', length: 3 }],
    ['no length', { 0: 'a' }],
    ['a broken length', { 0: 'a', length: 0.5 }],
    ['a negative length', { length: -1 }],
    ['a list of four billion', new Array(2 ** 32 - 1)],
    ['a revoked proxy', revoked()],
  ])('refuses %s', (_, value) => expect(isArrayLike(value)).toBe(false))
})

it('isList is for arrays', () => {
  expect([[1], [], new Float32Array(1), { 0: 1, length: 1 }, holed(2, 0), revoked()].map(isList)).toEqual([
    true,
    true,
    false,
    false,
    false,
    false,
  ])
})

describe('what an iterable gives', () => {
  it('is its items', () => {
    expect(listOf('f', 'xs', new Set([1, 2]), 'numbers')).toEqual([1, 2])
    expect(listOf('f', 'xs', [1, undefined], 'numbers')).toEqual([1, undefined])
    expect(listOf('f', 'xs', new Uint8Array([3]), 'numbers')).toEqual([3])
    const transferred = new Uint8Array(3)
    structuredClone(transferred.buffer, { transfer: [transferred.buffer] })
    expect(listOf('f', 'xs', transferred, 'numbers')).toEqual([])
  })

  it('and is refused where there is none, or a hole', () => {
    for (const value of ['ab', 7, null, undefined, { 0: 1, length: 1 }, revoked()]) {
      expect(() => listOf('f', 'xs', value as never, 'numbers')).toThrow(
        /f: expected xs to be an iterable of numbers, got/,
      )
    }
    expect(() => listOf('f', 'xs', holed(3, 0, 2), 'numbers')).toThrow(/xs to be a list without holes, as at \[1\]/)
  })
})

it('elementsOf gives index and value, and names where reading fails', () => {
  expect(elementsOf('f', 'xs', { 0: 'a', 1: 'b', length: 2 }, (value, i) => `${i}${value}`)).toEqual(['0a', '1b'])
  const fails = () => elementsOf('f', 'xs', revoked(), (value) => value)
  expect(fails).toThrow(ConfigError)
  expect(fails).toThrow(/f, xs/)
})

it('requireSignal takes what can be aborted, or nothing', () => {
  const { throwIfAborted, addEventListener } = AbortSignal.prototype
  for (const signal of [undefined, null, new AbortController().signal, { throwIfAborted, addEventListener }]) {
    expect(() => requireSignal('f', signal)).not.toThrow()
  }
  for (const signal of ['no', {}, { throwIfAborted }, { addEventListener }]) {
    expect(() => requireSignal('f', signal)).toThrow(/f: expected signal to be an AbortSignal, got/)
  }
})

it('abortable ends as soon as its signal does', async () => {
  const gone = new Error('gone')
  const never = new Promise<never>(() => {})
  await expect(abortable(AbortSignal.abort(gone), never)).rejects.toBe(gone)
  const later = new AbortController()
  const ended = abortable(later.signal, never)
  later.abort(gone)
  await expect(ended).rejects.toBe(gone)
  await expect(abortable(new AbortController().signal, Promise.resolve(7))).resolves.toBe(7)
  await expect(abortable(new AbortController().signal, Promise.reject(gone))).rejects.toBe(gone)
  await expect(abortable(undefined, Promise.resolve(7))).resolves.toBe(7)
})

describe('shown', () => {
  it.each([
    [{}, 'an Object'],
    [new ArrayBuffer(1), 'an ArrayBuffer'],
    [new Int8Array(1), 'an Int8Array'],
    [new Uint8Array(1), 'a Uint8Array'],
    [new Map(), 'a Map'],
    [new LSTM(1, 1), 'an LSTM'],
    [new ReLU(), 'a ReLU'],
    [new (class Upload {})(), 'an Upload'],
  ])('puts the article by the sound of the class: %#', (value, text) => {
    expect(shown(value)).toBe(text)
  })
})
