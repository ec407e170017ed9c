import {
  closeSync,
  ftruncateSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { readFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { NameRegistry, Parser } from 'pickleparser'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import type { ReadPickleOptions } from '../../lib/files/index.js'
import { LazyTensor } from '../../lib/files/index.js'
import {
  ConfigError,
  DataError,
  isTensor,
  memoryStats,
  readPickle,
  scope,
  type Tensor,
  tensor,
} from '../../lib/index.js'
import { Random } from '../fuzz/random.js'
import { settledTensors } from '../helpers.js'
import { canonical, type Fault, Point, pair, randomPickle } from './pickle-writer.js'
import { pythonCases } from './python-values.js'

/** The other side is npm's pickleparser, whose resolvers readPickle takes. */

const folder = mkdtempSync(join(tmpdir(), 'voxtorch-pickleparser-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))
// pickleparser tells of ints that it cannot hold.
beforeAll(() => void vi.spyOn(console, 'warn').mockImplementation(() => {}))

const path = join(folder, 'value.pkl')
const latin1 = (text: string): Buffer => Buffer.from(text, 'latin1')

function ours<T = unknown>(bytes: Buffer | string, options: ReadPickleOptions = {}): Promise<T> {
  writeFileSync(path, typeof bytes === 'string' ? latin1(bytes) : bytes)
  return readPickle<T>(path, options)
}

const MAPS = { unpicklingTypeOfSet: 'Set', unpicklingTypeOfDictionary: 'Map' } as const
type TheirOptions = ConstructorParameters<typeof Parser>[0]

function theirs<T = unknown>(bytes: Buffer | string, options: TheirOptions = MAPS): T {
  return new Parser(options).parse<T>(typeof bytes === 'string' ? latin1(bytes) : bytes)
}

const encode = (text: string): Uint8Array => new Uint8Array(latin1(text))
const setOf = (items: unknown[] = []): Set<unknown> => new Set(items)

/** What a user of pickleparser registers. */
const registry = (): NameRegistry =>
  new NameRegistry()
    .register('app.shapes', 'Point', Point)
    .register('app.shapes', 'pair', pair)
    .register('_codecs', 'encode', encode)
    .register('__builtin__', 'set', setOf)
    .register('__builtin__', 'frozenset', setOf)

describe('random pickles', () => {
  it.each([0, 1, 2, 3, 4, 5])('of protocol %i: equal wherever pickleparser is right', async (protocol) => {
    const seen = new Map<Fault | 'none', number>()
    for (let seed = 0; seed < 400; seed += 1) {
      const { file, value, faults, calls } = randomPickle(new Random('pickle', protocol, seed), protocol)
      const label = `protocol ${protocol}, seed ${seed}`
      const nameResolver = registry()
      expect(canonical(await ours(file, { nameResolver, encoding: 'latin1' })), label).toEqual(value)
      if (!calls) expect(canonical(await ours(file, { encoding: 'latin1' })), label).toEqual(value)
      for (const fault of faults.size === 0 ? (['none'] as const) : faults) seen.set(fault, (seen.get(fault) ?? 0) + 1)
      if (faults.size === 0) expect(canonical(theirs(file, { ...MAPS, nameResolver })), label).toEqual(value)
    }
    expect(seen.get('none')).toBeGreaterThan(100)
    expect(seen.size).toBeGreaterThan(protocol === 0 ? 4 : protocol === 1 ? 6 : 12)
  })

  it('that CPython wrote: equal where pickleparser is right', async () => {
    let equal = 0
    for (const { name, file } of pythonCases('pickle-random')) {
      if (/[\x8a\x8b]|numpy|torch/.test(file.toString('latin1'))) continue
      const mine = canonical(await ours(file, { nameResolver: registry(), encoding: 'latin1' }))
      const other = canonical(theirs(file, { ...MAPS, nameResolver: registry() }))
      if (JSON.stringify(mine) === JSON.stringify(other)) equal += 1
      // Protocols 0 and 1 have texts with escapes and ints in decimals.
      else expect(file[0], name).not.toBe(0x80)
    }
    expect(equal).toBeGreaterThan(20)
  })
})

describe('what pickleparser 0.2.1 reads wrongly, and readPickle as CPython', () => {
  const wrong: [Fault | string, string, unknown][] = [
    ['LONG1 of a negative int', '\x8a\x01\xff.', -1],
    ['LONG1 beyond 2^53', `\x8a\x08${'\x01'.repeat(8)}.`, 0x0101010101010101n],
    ['LONG1 of more than 8 bytes', `\x8a\x09${'\x01'.repeat(9)}.`, 0x010101010101010101n],
    ['LONG4, a bigint for any int', '\x8b\x01\0\0\0\x05.', 5],
    ['LONG4 of a negative int', '\x8b\x01\0\0\0\xfb.', -5],
    ['decimal int beyond 2^53', 'L12345678901234567890L\n.', 12345678901234567890n],
    ['FLOAT that is infinite', 'F-inf\n.', Number.NEGATIVE_INFINITY],
    ['STRING with escapes', "S'a\\x41'\n.", 'aA'],
    ['UNICODE with escapes', 'Va\\u0041\\u000a\n.', 'aA\n'],
    ['text that begins with a byte order mark', 'X\x04\0\0\0\xef\xbb\xbfa.', '\ufeffa'],
    ['text with a single surrogate', 'X\x03\0\0\0\xed\xa0\x80.', '\ud800'],
    ['DICT with Map', '(Va\nI7\nd.', new Map([['a', 7]])],
    ['DICT with Map, extended', '(Va\nI7\ndVb\nI8\ns.', new Map([['a', 7], ['b', 8]])], // biome-ignore format: a pair a line
    ['POP of a mark', 'K\x05(0.', 5],
    ['OBJ', '(capp.shapes\nPoint\nI7\nI8\no.', new Point(7, 8)],
    ['REDUCE of a class', 'capp.shapes\nPoint\n(I7\nI8\ntR.', new Point(7, 8)],
    ['state of __slots__', '(iapp.shapes\nPoint\n}Vx\nI7\ns}Vy\nI8\ns\x86b.', new Point(7, 8)],
  ]
  it.each(wrong)('%s', async (_name, file, value) => {
    const nameResolver = registry()
    expect(canonical(await ours(file, { nameResolver, encoding: 'latin1' }))).toEqual(canonical(value))
    const other = (() => {
      try {
        return canonical(theirs(file, { ...MAPS, nameResolver }))
      } catch (error) {
        return `throws ${String(error)}`
      }
    })()
    expect(other).not.toEqual(canonical(value))
  })

  it('keys of a dict that are no text, without Map', async () => {
    const file = '}(I1\nI2\n\x86Va\nI3\nVb\nu.'
    expect(Object.keys(theirs(file, {}) as object)).toEqual(['3', '1,2'])
    expect(canonical(await ours(file))).toEqual(canonical(new Map<unknown, string>([[[1, 2], 'a'], [3, 'b']]))) // biome-ignore format: pairs
  })

  it('a key __proto__, which replaces the prototype', async () => {
    const file = '}V__proto__\n}Vevil\nI1\nss.'
    expect(theirs<{ evil?: number }>(file, {}).evil).toBe(1)
    const dict = await ours<Record<string, unknown>>(file)
    expect(dict.evil).toBeUndefined()
    expect(Object.keys(dict)).toEqual(['__proto__'])
    const state = '(iapp.shapes\nPoint\n}V__proto__\n}Vevil\nI1\nssb.'
    expect(theirs<Point>(state, { ...MAPS, nameResolver: registry() })).not.toBeInstanceOf(Point)
    const point = await ours<Point & { evil?: number }>(state, { nameResolver: registry() })
    expect(point).toBeInstanceOf(Point)
    expect(point.evil).toBeUndefined()
  })

  it('arguments by keyword, which are lost where a class does not take them', async () => {
    const file = 'capp.shapes\nPoint\n)}Vx\nI7\ns\x92.'
    expect(theirs(file, { nameResolver: registry() })).toEqual(new Point())
    await expect(ours(file, { nameResolver: registry() })).rejects.toThrow(
      /app.shapes.Point needs a method __setnewargs_ex__/,
    )
    class Keyed {
      given: unknown
      __setnewargs_ex__(keywords: unknown) {
        this.given = keywords
      }
    }
    const keyed = await ours<Keyed>(file, { nameResolver: { resolve: () => Keyed } })
    expect(keyed.given).toEqual({ x: 7 })
  })

  it('two hundred thousand items in one go', async () => {
    const file = `](${'N'.repeat(200_000)}e.`
    expect(() => theirs(file)).toThrow(RangeError)
    expect(await ours<unknown[]>(file)).toHaveLength(200_000)
  })

  it('what is broken: values of nothing', async () => {
    for (const file of ['.', 'h\x07.', '0N.', '(lN\x93.', 'K\x05}Va\ns.']) {
      let other: unknown
      try {
        other = theirs(file)
      } catch (error) {
        expect(error).toBeInstanceOf(Error)
      }
      expect(other === undefined || file !== '.').toBe(true)
      await expect(ours(file)).rejects.toThrow(DataError)
    }
    expect(theirs('.')).toBeUndefined()
    expect(theirs('h\x07.')).toBeUndefined()
  })

  it('a file larger than a Buffer may be: only what is needed is read', async () => {
    const big = join(folder, 'big.pkl')
    const size = 5 * 2 ** 30
    const length = Buffer.alloc(9, 0x8e)
    length.writeBigUInt64LE(BigInt(size), 1)
    const file = openSync(big, 'w')
    writeSync(file, length)
    ftruncateSync(file, 9 + size)
    writeSync(file, latin1('0K\x07.'), 0, 4, 9 + size)
    closeSync(file)
    await expect(readFile(big)).rejects.toThrow(/2 ?GiB|too large|greater than/i)
    expect(await readPickle(big)).toBe(7)
    rmSync(big)
  })
})

describe('resolvers', () => {
  it('of pickleparser are taken as they are', async () => {
    // Names that nobody registered become objects that keep what they were made with.
    const file = '\x80\x02capp\nThing\nK\x01K\x02\x86\x81}Vname\nVx\nsb.'
    type Thing = { args: unknown[]; name: string; __module__: string; __name__: string }
    for (const thing of [theirs<Thing>(file), await ours<Thing>(file, { nameResolver: new NameRegistry() })]) {
      expect([thing.args, thing.name, thing.__module__, thing.__name__]).toEqual([[1, 2], 'x', 'app', 'Thing'])
    }
    const options = {
      persistentResolver: { resolve: (pid: string): unknown => ({ outside: pid }) },
      extensionResolver: {
        resolve:
          (code: number): unknown =>
          (value: unknown) => [code, value],
      },
    }
    for (const [text, value] of [
      ['Pkey\n.', { outside: 'key' }],
      ['Vkey\nQ.', { outside: 'key' }],
      ['\x82\x05(I1\ntR.', [5, 1]],
      ['\x83\x05\x01(I1\ntR.', [261, 1]],
      ['\x84\x05\x01\x01\0(I1\ntR.', [65797, 1]],
    ] as const) {
      expect(theirs(text, { ...MAPS, ...options })).toEqual(value)
      expect(await ours(text, options)).toEqual(value)
    }
  })

  it('leave data to the reader by undefined, and see what it makes of it', async () => {
    const { file } = pythonCases('pickle-protocols').find(({ name }) => name === 'array <f4, protocol 2')!
    const asked: string[] = []
    const nameResolver = {
      resolve: (module: string, name: string) => {
        asked.push(`${module}.${name}`)
        return module === 'app' ? (value: unknown) => ({ wrapped: value }) : undefined
      },
    }
    const call = Buffer.concat([latin1('\x80\x02capp\nwrap\n'), file.subarray(2, -1), latin1('\x85R.')])
    const before = await settledTensors()
    await scope(async () => {
      const { wrapped } = await ours<{ wrapped: Tensor }>(call, { nameResolver })
      expect(isTensor(wrapped)).toBe(true)
      expect(wrapped.shape).toEqual([2, 3])
      const lazy = await ours<{ wrapped: LazyTensor }>(call, { nameResolver, arrays: 'lazy' })
      expect(lazy.wrapped).toBeInstanceOf(LazyTensor)
    })
    expect(asked).toContain('app.wrap')
    expect(asked.some((name) => name.startsWith('numpy'))).toBe(true)
    // What the caller's code made belongs to the caller; what a failure leaves belongs to nobody.
    await scope(async () => {
      const made = await ours<Tensor>('capp\nmake\n)R.', { nameResolver: { resolve: () => () => tensor([1, 2]) } })
      expect(made.toArray()).toEqual([1, 2])
    })
    const failing = { resolve: (module: string) => (module === 'app' ? () => fail() : undefined) }
    const fail = (): never => {
      throw new RangeError('mine')
    }
    await expect(ours(call, { nameResolver: failing })).rejects.toThrow(new RangeError('mine'))
    expect(memoryStats().liveTensors).toBeLessThanOrEqual(before)
  })

  it('make objects in each other, in themselves, as keys and in sets', async () => {
    class Node {
      next: unknown
      readonly id: number
      constructor(id: number) {
        this.id = id
      }
    }
    const nameResolver = { resolve: (_module: string, name: string) => (name === 'Node' ? Node : undefined) }
    const read = <T>(text: string) => ours<T>(text, { nameResolver })
    const node = (id: string) => `capp\nNode\n(I${id}\nt\x81`
    const self = await read<Node>(`${node('1')}q\0}Vnext\nh\0sb.`)
    expect(self.next).toBe(self)
    const list = await read<Node[]>(`]q\0${node('1')}}Vnext\nh\0sba.`)
    expect(list[0]!.next).toBe(list)
    const dict = await read<Map<unknown, unknown>>(`}(Va\nI1\n${node('2')}I3\n${node('4')}${node('5')}I6\nI7\nu.`)
    expect([...dict.keys()].map((key) => (key instanceof Node ? key.id : key))).toEqual(['a', 2, 4, 6])
    expect([...dict.values()].map((value) => (value instanceof Node ? value.id : value))).toEqual([1, 3, 5, 7])
    const set = await read<Set<unknown>>(`\x8f(I1\n${node('2')}I3\n\x90.`)
    expect([...set].map((item) => (item instanceof Node ? item.id : item))).toEqual([1, 2, 3])
    const old = await read<Node>('ccopy_reg\n_reconstructor\n(capp\nNode\nc__builtin__\nobject\nNtR}Vnext\nI7\nsb.')
    expect(old).toBeInstanceOf(Node)
    expect(old.next).toBe(7)
  })

  it('fill classes that extend Array, Map and Set, and call __setstate__', async () => {
    class Items extends Array<unknown> {}
    class Table extends Map<unknown, unknown> {}
    class Bag extends Set<unknown> {}
    class Stateful {
      state: unknown
      __setstate__(state: unknown) {
        this.state = state
      }
    }
    const classes = { Items, Table, Bag, Stateful }
    const nameResolver = { resolve: (_module: string, name: string) => classes[name as keyof typeof classes] }
    const read = <T>(text: string) => ours<T>(`capp\n${text}`, { nameResolver })
    const items = await read<Items>('Items\n)\x81(I1\nI2\neI3\na.')
    expect([items instanceof Items, ...items]).toEqual([true, 1, 2, 3])
    const table = await read<Table>('Table\n)\x81(I1\nVa\nuI2\n]s}Vname\nVx\nsb.')
    expect([...table]).toEqual([[1, 'a'], [2, []]]) // biome-ignore format: pairs
    expect((table as Table & { name: string }).name).toBe('x')
    expect([...(await read<Bag>('Bag\n)\x81(I1\nI2\n\x90.'))]).toEqual([1, 2])
    expect((await read<Stateful>('Stateful\n)\x81(I1\nI2\ntb.')).state).toEqual([1, 2])
  })

  it.each([
    ['names without a resolver', 'cposix\nsystem\n.', /posix.system.*which is not data/],
    ['what is no function', 'capp\nconstant\n)R.', /expected app.constant to be a function/],
    ['what is no class', 'capp\narrow\n)\x81.', /expected app.arrow to be a class/],
    [
      'a change of what the file did not make',
      'capp\nPoint\n}Vprototype\nI1\nsb.',
      /changes app.Point, which it did not/,
    ],
    ['items of what has none', 'capp\nPoint\n)\x81(I1\ne.', /expected a method push/],
    ['a state that is no dict', 'capp\nPoint\n)\x81I1\nb.', /expected a dict as state.*__setstate__/],
    ['a state for nothing', 'capp\nnothing\n)R}b.', /to be an object/],
    ['arguments that are no list', 'capp\narrow\nI1\nR.', /without a list/],
    ['an extension without a resolver', '\x82\x05.', /extensionResolver/],
    ['an id without a resolver', 'Pkey\n.', /persistentResolver/],
    ['one large state again and again', `${'q\0'.padStart(3, ']')}.`, /./],
  ])('refuse %s', async (_name, file, message) => {
    const names = { constant: 5, arrow: () => 1, Point, nothing: () => null }
    const nameResolver = {
      resolve: (module: string, name: string) => (module === 'app' ? names[name as 'Point'] : undefined),
    }
    if (file === ']q\0.') {
      const state = `}(${Array.from({ length: 50_000 }, (_, i) => `I${i}\nN`).join('')}uq\0`
      file = `${state}capp\nPoint\n)\x81${'h\0b'.repeat(100_000)}.`
      message = /same data too often/
    }
    await expect(ours(file, { nameResolver })).rejects.toThrow(
      expect.objectContaining({ name: 'DataError', file: path }),
    )
    await expect(readPickle(path, { nameResolver })).rejects.toThrow(message)
  })

  it('refuse an extension that there cannot be, or that nobody knows', async () => {
    const extensionResolver = { resolve: () => undefined }
    await expect(ours('\x82\0.', { extensionResolver })).rejects.toThrow(/code 0; they begin at 1/)
    await expect(ours('\x84\xff\xff\xff\xff.', { extensionResolver })).rejects.toThrow(/code -1/)
    await expect(ours('\x82\x05.', { extensionResolver })).rejects.toThrow(/value for extension code 5/)
  })

  it('refuse what is no resolver', async () => {
    for (const name of ['nameResolver', 'persistentResolver', 'extensionResolver']) {
      for (const value of [null, {}, () => 1, { resolve: 1 }]) {
        await expect(readPickle('x.pkl', { [name]: value } as never)).rejects.toThrow(ConfigError)
      }
    }
  })
})

it('nothing runs without a resolver', async () => {
  const before = readFileSync(import.meta.filename).length
  await expect(ours('cos\nsystem\n(Vtrue\ntR.', { records: ['Point'] })).rejects.toThrow(/os.system/)
  expect(readFileSync(import.meta.filename).length).toBe(before)
})
