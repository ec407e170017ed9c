import { createHash } from 'node:crypto'
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { ReadCsvOptions } from '../../lib/files/index.js'
import { readConfig, readCsv, readCsvStream, readYaml } from '../../lib/files/index.js'
import { ConfigError, DataError, readJson, readJsonl } from '../../lib/index.js'
import { fixturePath } from '../helpers.js'

interface Case {
  kind: 'json' | 'jsonl' | 'csv' | 'yaml' | 'bad json'
  name: string
  bytes: string
  value: Tagged
  options?: ReadCsvOptions
  line: number
  column: number
}

type Tagged = null | boolean | string | Tagged[] | { int: string } | { float: string } | { dict: [string, Tagged][] }

const { cases, meld } = JSON.parse(readFileSync(fixturePath('data/text.json'), 'utf8')) as {
  cases: Case[]
  meld: { split: string; rows: number; sha256: string }[]
}

let folder: string
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'voxtorch-text-'))
})
afterAll(() => rmSync(folder, { recursive: true, force: true }))

function file(bytes: string | Uint8Array, name = 'file'): string {
  const path = join(folder, name)
  writeFileSync(path, bytes)
  return path
}

/** A value in the words of the fixture, to be compared with what Python read. */
function compare(actual: unknown, expected: Tagged, path = ''): void {
  if (typeof expected !== 'object' || expected === null) {
    expect(actual, path).toBe(expected)
  } else if (Array.isArray(expected)) {
    expect(Array.isArray(actual) && actual.length, path).toBe(expected.length)
    expected.forEach((item, i) => void compare((actual as unknown[])[i], item, `${path}[${i}]`))
  } else if ('int' in expected) {
    const big = BigInt(expected.int)
    const safe = big >= Number.MIN_SAFE_INTEGER && big <= Number.MAX_SAFE_INTEGER
    expect(typeof actual, path).toBe(safe ? 'number' : 'bigint')
    // Python's whole numbers have no negative zero.
    expect(safe ? (actual as number) + 0 : actual, path).toBe(safe ? Number(big) : big)
  } else if ('float' in expected) {
    const words: Record<string, number> = {
      nan: Number.NaN,
      inf: Number.POSITIVE_INFINITY,
      '-inf': Number.NEGATIVE_INFINITY,
    }
    expect(actual, path).toBe(words[expected.float] ?? Number(expected.float))
  } else {
    const keys = expected.dict.map(([key]) => key)
    expect(Object.keys(actual as object), path).toEqual(keys)
    const prototype = Object.getPrototypeOf(actual)
    // A row of a table refuses names that it does not have, by a prototype of its own without any.
    if (prototype !== Object.prototype) {
      expect(Object.getPrototypeOf(prototype), path).toBe(Object.prototype)
      expect(Reflect.ownKeys(prototype), path).toEqual([])
    }
    for (const [key, item] of expected.dict) {
      compare(Object.getOwnPropertyDescriptor(actual, key)!.value, item, `${path}.${key}`)
    }
  }
}

async function all<T>(items: AsyncIterable<T>): Promise<T[]> {
  const list: T[] = []
  for await (const item of items) list.push(item)
  return list
}

const ofKind = (kind: Case['kind']) => cases.filter((item) => item.kind === kind)
const bytesOf = ({ bytes }: Case) => Buffer.from(bytes, 'base64')

async function failure(work: Promise<unknown>): Promise<DataError & Record<string, unknown>> {
  const error = await work.then(
    (value) => value,
    (caught: unknown) => caught,
  )
  expect(error).toBeInstanceOf(DataError)
  return error as DataError & Record<string, unknown>
}

describe('as Python reads it', () => {
  test.each(ofKind('json'))('JSON: $name', async (item) => compare(await readJson(file(bytesOf(item))), item.value))
  test.each(ofKind('jsonl'))('JSON lines: $name', async (item) =>
    compare(await all(readJsonl(file(bytesOf(item)))), item.value),
  )
  test.each(ofKind('yaml'))('YAML: $name', async (item) => compare(await readYaml(file(bytesOf(item))), item.value))
  test.each(ofKind('csv'))('CSV: $name', async (item) => {
    const path = file(bytesOf(item))
    compare(await readCsv(path, item.options), item.value)
    compare(await all(readCsvStream(path, item.options)), item.value)
  })

  test.each(ofKind('bad json'))('not JSON: $name', async ({ name, line, column }) => {
    const error = await failure(readJson(file(name)))
    expect(error.line).toBe(line)
    // Python points at the comma, or behind the digit, where we point at what must not follow, and the reverse.
    if (error.column !== undefined) expect(Math.abs((error.column as number) - column)).toBeLessThanOrEqual(4)
    expect((await failure(all(readJsonl(file(`1\n${name.replaceAll('\n', ' ')}\n`))))).line).toBe(2)
  })
})

describe('MELD as published', () => {
  const data = process.env.VOXTORCH_DATA ?? fileURLToPath(new URL('../../../shared/data', import.meta.url))
  for (const { split, rows, sha256 } of meld) {
    const path = join(data, `meld/${split}_sent_emo.csv`)
    test.skipIf(!existsSync(path))(`${split}: ${rows} utterances, every field as Python reads it`, async () => {
      const table = await readCsv(path)
      expect(table).toHaveLength(rows)
      const lists = [Object.keys(table[0]!), ...table.map((row) => Object.values(row))]
      expect(createHash('sha256').update(JSON.stringify(lists)).digest('hex')).toBe(sha256)
      expect(new Set(table.map(({ Emotion }) => Emotion)).size).toBe(7)
    })
  }
})

describe('JSON', () => {
  test('a name twice, __proto__ and constructor change nothing outside', async () => {
    const value = (await readJson(file('{"__proto__": {"evil": 1}, "a": [{"__proto__": 2, "n": NaN}]}'))) as Record<
      string,
      unknown
    >
    expect(({} as Record<string, unknown>).evil).toBeUndefined()
    expect(Object.hasOwn(value, '__proto__')).toBe(true)
    expect(value.evil).toBeUndefined()
  })

  test('nests 1000 levels and no more', async () => {
    const deep = (levels: number) => file('[1,'.repeat(levels) + '2'.padEnd(20, '2') + ']'.repeat(levels))
    await readJson(deep(1000))
    expect((await failure(readJson(deep(1001)))).message).toMatch(/deeper than 1000/)
    expect((await failure(all(readJsonl(deep(1001))))).message).toMatch(/deeper than 1000/)
    // Brackets in strings are no nesting.
    await readJson(file(JSON.stringify(`"${'['.repeat(5000)}`)))
  })

  test('errors name file, line, column and byte', async () => {
    const path = file('{\n  "a": 1,\n  "b": x\n}')
    expect(await failure(readJson(path))).toMatchObject({ file: path, line: 3, column: 8, code: 'ERR_DATA' })
    expect(await failure(readJson(file(Buffer.from([0x22, 0x0a, 0xc3, 0x28, 0x22]))))).toMatchObject({
      line: 2,
      byte: 2,
    })
    expect(await failure(readJson(file('[1,\n2,\0]')))).toMatchObject({ line: 2, byte: 6 })
  })
})

describe('JSON lines', () => {
  test('blank lines are an error with the line, or passed over', async () => {
    const path = file('1\n\n2\n \n')
    expect(await failure(all(readJsonl(path)))).toMatchObject({ line: 2, file: path })
    expect(await all(readJsonl(path, { skipBlank: true }))).toEqual([1, 2])
    expect(await all(readJsonl(file('')))).toEqual([])
    expect(await all(readJsonl(file('1\n')))).toEqual([1])
  })

  test('lines and characters that cross the pieces in which the file is read', async () => {
    const rows = Array.from({ length: 2000 }, (_, i) => ({ i, text: 'é😀'.repeat((i * 37) % 301) }))
    const path = file(rows.map((row) => JSON.stringify(row)).join('\r\n'))
    expect(await all(readJsonl(path))).toEqual(rows)
    writeFileSync(path, Buffer.concat([readFileSync(path), Buffer.from('\n{"i": \xff}\n', 'latin1')]))
    expect(await failure(all(readJsonl(path)))).toMatchObject({ line: 2001 })
  })

  test('what comes before the bad line is given; leaving early closes the file', async () => {
    const path = file(`${'{"a": 1}\n'.repeat(1000)}{\n`)
    let count = 0
    const error = await failure(
      (async () => {
        for await (const _ of readJsonl(path)) count++
      })(),
    )
    expect(count).toBe(1000)
    expect(error.line).toBe(1001)
    for await (const row of readJsonl(path)) {
      expect(row).toEqual({ a: 1 })
      break
    }
  })

  test('lines above the limit are refused, in the middle and at the end', async () => {
    for (const text of [`"${'x'.repeat(98)}"\n1\n`, `1\n"${'é'.repeat(49)}"`]) {
      expect(await all(readJsonl(file(text), { maxLineBytes: 100 }))).toHaveLength(2)
      expect((await failure(all(readJsonl(file(text), { maxLineBytes: 99 })))).message).toMatch(/at most 99 bytes/)
    }
  })
})

describe('CSV', () => {
  test('a column that is not there is refused, with the nearest name', async () => {
    const [row] = await readCsv(file('Emotion,Speaker,__proto__\njoy,Ross,x\n'))
    expect(() => row!.emotion).toThrow(DataError)
    expect(() => row!.Emotoin).toThrow(/expected a column of the file, got "Emotoin"; did you mean "Emotion"\?/)
    expect(() => row!.xyz).toThrow(/got "xyz"; its columns are Emotion, Speaker/)
    expect('start' in row!).toBe(false)
    expect({ ...row }).toEqual({ Emotion: 'joy', Speaker: 'Ross', ['__proto__']: 'x' })
    expect(Object.getOwnPropertyDescriptor(row, '__proto__')?.value).toBe('x')
    const [other] = await readCsv(file('a,b\n1,2\n'))
    expect(() => other!.toolong).toThrow(/its columns are a, b/)
    // What others ask of any object.
    expect(await other).toEqual({ a: '1', b: '2' })
    expect(JSON.stringify(other)).toBe('{"a":"1","b":"2"}')
    expect(structuredClone(other)).toEqual({ a: '1', b: '2' })
    expect(`${other}`).toBe('[object Object]')
    for await (const streamed of readCsvStream(file('a\n1\n'))) expect(() => streamed.A).toThrow(/did you mean "a"/)
  })

  test('ragged rows name the line on which they begin', async () => {
    expect(await failure(readCsv(file('a,b\n1,2\n\n"x\ny",2\n\n"3\n4",5,6\n')))).toMatchObject({ line: 7 })
    expect((await failure(readCsv(file('a,b\n1\n')))).message).toMatch(
      /line 2: expected 2 fields, as in the header, got 1/,
    )
  })

  test('quotation marks out of place', async () => {
    expect(await failure(readCsv(file('a,b\n1,2\n"x,2\n3,4\n')))).toMatchObject({ line: 3 })
    expect((await failure(readCsv(file('a,b\n1,5" disk\n')))).message).toMatch(/line 2: .*relaxQuotes/)
    expect((await failure(readCsv(file('a,b\n1,"x"y\n')))).message).toMatch(/line 2: .*relaxQuotes/)
    // What list(csv.DictReader(...)) of Python gives.
    expect(await readCsv(file('a,b\n1,"x"y\n2,"x"y"z"\n'), { relaxQuotes: true })).toEqual([
      { a: '1', b: 'xy' },
      { a: '2', b: 'xy"z"' },
    ])
  })

  test('a header may be missing, empty or doubled', async () => {
    expect(await readCsv(file('1,2\n'), { columns: ['a', 'b'] })).toEqual([{ a: '1', b: '2' }])
    expect(await readCsv(file(''), { columns: ['a'] })).toEqual([])
    expect(await readCsv(file('a,b\n'))).toEqual([])
    expect((await failure(readCsv(file('')))).message).toMatch(/empty/)
    expect((await failure(readCsv(file('a,b,a\n1,2,3\n')))).message).toMatch(
      /expected different column names, got "a" twice/,
    )
  })

  test('bytes that are not UTF-8: refused, or read as windows-1252, or only they', async () => {
    const path = file(
      Buffer.concat([
        Buffer.from('a,b\nthéy,1\nthey'),
        Buffer.from([0x92]),
        Buffer.from('re,5 '),
        Buffer.from([0x80, 0x0a]),
      ]),
    )
    expect(await failure(readCsv(path))).toMatchObject({ line: 3, byte: 16 })
    expect((await readCsv(path, { encoding: 'windows-1252' }))[1]).toEqual({ a: 'they’re', b: '5 €' })
    expect(await readCsv(path, { encoding: 'mixed' })).toEqual([
      { a: 'théy', b: '1' },
      { a: 'they’re', b: '5 €' },
    ])
    expect((await failure(readCsv(file(Buffer.from('a\n\xc3', 'latin1'))))).message).toMatch(/cut off/)
    expect(await readCsv(file(Buffer.from('a\n\xc3', 'latin1')), { encoding: 'mixed' })).toEqual([{ a: 'Ã' }])
  })

  test('characters that cross the pieces in which the file is read', async () => {
    const rows = Array.from({ length: 3000 }, (_, i) => `${i},${'é😀'.repeat((i * 37) % 101)}`)
    for (const encoding of ['utf-8', 'mixed'] as const) {
      const table = await readCsv(file(`i,text\n${rows.join('\n')}\n`), { encoding })
      expect(table.map(({ i, text }) => `${i},${text}`)).toEqual(rows)
    }
  })

  test('leaving early closes the file; wrong options are refused', async () => {
    const path = file(`a\n${'1\n'.repeat(500_000)}`)
    const before = process.getActiveResourcesInfo().length
    for await (const row of readCsvStream(path)) {
      expect(row).toEqual({ a: '1' })
      break
    }
    await new Promise((resolve) => setTimeout(resolve, 50))
    expect(process.getActiveResourcesInfo().length).toBeLessThanOrEqual(before + 1)
    const wrong: unknown[] = [null, { encoding: 'latin1' }, { delimiter: ',,' }, { delimiter: '"' }, { columns: [] }]
    wrong.push({ columns: ['a', 'a'] }, { relaxQuotes: 1 }, { maxRowLength: 0 })
    for (const options of wrong) {
      await expect(readCsv(path, options as ReadCsvOptions), JSON.stringify(options)).rejects.toThrow(ConfigError)
    }
    for (const read of [readJson, readYaml, readConfig]) await expect(read(3 as never)).rejects.toThrow(ConfigError)
    expect(() => readJsonl(3 as never)).toThrow(ConfigError)
    expect(() => readJsonl(path, { maxLineBytes: 0 })).toThrow(ConfigError)
    await expect(readYaml(path, { maxTokens: 0 })).rejects.toThrow(ConfigError)
  })
})

describe('YAML', () => {
  test.each([
    ['a key twice', 'a: 1\nb: 2\na: 3\n', 3, /got "a" twice/],
    ['a number and its text as keys', '1: a\n"1": b\n', 2, /expected different keys/],
    ['a tag that runs code', 'a: 1\nb: !!python/object/apply:os.system ["x"]\n', 2, /unknown tag/],
    ['a tag of ones own', 'a: !foo 1\n', 1, /unknown tag/],
    ['binary', 'a: !!binary aGk=\n', 1, /unknown/],
    ['a tag that does not fit', 'a: !!int x\n', 1, /expected a value of type !!int/],
    ['a collection as key', '? [1, 2]\n: 3\n', 1, /got a collection/],
    ['two documents', 'a: 1\n---\nb: 2\n', 2, /second document/],
    ['an alias of nothing', 'a: *x\n', 1, /names no anchor/],
    ['an alias in itself', 'a: &x [*x]\n', 1, /inside of what it names/],
    ['an alias in itself as merge', 'a: &x\n  <<: *x\n', 2, /inside of what it names/],
    ['a merge of a text', 'a: 1\n<<: x\n', 2, /merge with <</],
    ['a tab', 'a:\n\t- 1\n', 2, /Tabs/],
    ['a control character', 'a: 1\nb: \x07\n', 2, /control character/],
    ['no end', 'a: [1, 2\n', 2, /./],
  ])('%s is refused with its line', async (_name, text, line, message) => {
    const error = await failure(readYaml(file(text)))
    expect(error.message).toMatch(message)
    expect(error.line).toBe(line)
  })

  test('keys keep their spelling, and numbers of YAML 1.2 are numbers', async () => {
    expect(await readYaml(file('on: 1\n010: 2\n~: 3\n1.50: 4\n'))).toEqual({ on: 1, '010': 2, '~': 3, '1.50': 4 })
    expect(await readYaml(file('[0o17, -.5, .5e3, 1.5e+3]'))).toEqual([15, -0.5, 500, 1500])
  })

  test('an alias is a copy', async () => {
    const { a, b } = (await readYaml(file('a: &x {n: [1]}\nb: *x\n'))) as Record<string, { n: number[] }>
    a!.n.push(2)
    expect(b).toEqual({ n: [1] })
  })
})

test('readConfig goes by the extension', async () => {
  expect(await readConfig(file('{"lr": 1e-4}', 'a.json'))).toEqual({ lr: 1e-4 })
  expect(await readConfig(file('lr: 1e-4', 'a.yaml'))).toEqual({ lr: 1e-4 })
  expect(await readConfig(file('lr: 1e-4', 'a.YML'))).toEqual({ lr: 1e-4 })
  await expect(readConfig(join(folder, 'a.toml'))).rejects.toThrow(ConfigError)
  await expect(readConfig(join(folder, 'missing.yaml'))).rejects.toThrow(DataError)
})
