import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { ConfigError, DataError, readJson, readJsonl, writeJson, writeJsonl } from '../../lib/index.js'

let folder: string
let path: string
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'voxtorch-write-'))
  path = join(folder, 'file')
})
afterEach(() => rmSync(folder, { recursive: true, force: true }))

const text = () => readFileSync(path, 'utf8')

const samples: unknown[] = [
  { a: 1, b: [true, false, null, -0.5, 1e-7, 1e21, 'é😀\u2028"\\\n'], c: {}, d: [], e: { f: [[1], [{}]] } },
  [],
  {},
  null,
  'x',
  -12.25,
  { '': 1, constructor: 2, a: [undefined, 1].slice(1) },
  '\ud800',
]

test.each([0, 1, 2, 4])('what JSON.stringify writes with indent %d, and a line break', async (indent) => {
  for (const value of samples) {
    await writeJson(path, value, { indent })
    expect(text()).toBe(`${JSON.stringify(value, null, indent)}\n`)
    expect(await readJson(path)).toEqual(value)
  }
})

test('what JSON.stringify loses comes back', async () => {
  const value = { id: 12345678901234567890n, zero: -0, big: [2n ** 64n, 2 ** 53 - 1] }
  await writeJson(path, value)
  expect(await readJson(path)).toEqual(value)
  const proto = JSON.parse('{"__proto__": {"x": 1}}') as unknown
  await writeJson(path, proto)
  expect(text()).toContain('__proto__')
  await writeJson(path, { at: new Date(0), left: undefined, own: { toJSON: () => [1] } })
  expect(await readJson(path)).toEqual({ at: '1970-01-01T00:00:00.000Z', own: [1] })
})

const cycle: Record<string, unknown> = { a: [] }
cycle.a = [cycle]
let deep: unknown = 1
for (let i = 0; i < 1001; i++) deep = [deep]

test.each([
  ['NaN', { metrics: { loss: [1, Number.NaN] } }, /metrics\.loss\[1\] is NaN/],
  ['an infinity', [Number.NEGATIVE_INFINITY], /\[0\] is -Infinity/],
  ['a typed array', { x: new Float32Array(2) }, /x is a Float32Array; write Array.from/],
  ['a map', { x: new Map() }, /x is a Map/],
  ['a cycle', cycle, /a\[0\] is part of itself/],
  ['a function', { f: () => 1 }, /f is a function/],
  ['a symbol', [Symbol('x')], /a symbol/],
  ['undefined', undefined, /the value is undefined/],
  ['undefined in an array', [undefined], /\[0\] is undefined/],
  ['nesting', deep, /deeper than 1000/],
])('%s is refused, and what stood there stays', async (_name, value, message) => {
  writeFileSync(path, 'before')
  await expect(writeJson(path, value)).rejects.toThrow(
    expect.objectContaining({ name: 'DataError', file: path, message: expect.stringMatching(message) }),
  )
  await expect(writeJsonl(path, [1, value])).rejects.toThrow(expect.objectContaining({ name: 'DataError', line: 2 }))
  expect(text()).toBe('before')
  expect(readdirSync(folder)).toEqual(['file'])
})

test('the same object twice is no cycle', async () => {
  const shared = { x: 1 }
  await writeJson(path, [shared, shared])
  expect(await readJson(path)).toEqual([shared, shared])
})

test('lines from arrays, generators and asynchronous generators', async () => {
  const rows = Array.from({ length: 5000 }, (_, i) => ({ i, text: 'é'.repeat(i % 700) }))
  async function* slow() {
    for (const row of rows) {
      if (row.i % 1000 === 0) await new Promise((resolve) => setImmediate(resolve))
      yield row
    }
  }
  for (const source of [rows, new Set(rows), slow()]) {
    await writeJsonl(path, source)
    expect(text()).toBe(rows.map((row) => `${JSON.stringify(row)}\n`).join(''))
    const back: unknown[] = []
    for await (const row of readJsonl(path)) back.push(row)
    expect(back).toEqual(rows)
  }
  await writeJsonl(path, [])
  expect(text()).toBe('')
})

test('when the source throws half way its error comes out, and nothing is written', async () => {
  const mine = new TypeError('mine')
  async function* breaking() {
    for (let i = 0; i < 3000; i++) yield { text: 'x'.repeat(1000) }
    expect(readdirSync(folder).some((name) => name.endsWith('.tmp'))).toBe(true)
    expect(existsSync(path)).toBe(false)
    throw mine
  }
  await expect(writeJsonl(path, breaking())).rejects.toBe(mine)
  expect(readdirSync(folder)).toEqual([])
})

test('a place that cannot be written is a DataError that names it', async () => {
  mkdirSync(join(folder, 'folder'))
  const places = [
    join(folder, 'missing/x'),
    join(folder, 'folder'),
    '/dev/full/x',
    'a\0b',
    join(folder, 'x'.repeat(300)),
  ]
  for (const place of places) {
    const error = await writeJson(place, 1).catch((caught: unknown) => caught)
    expect(error, place).toBeInstanceOf(DataError)
    expect(error).toMatchObject({ file: place })
  }
  expect(readdirSync(folder)).toEqual(['folder'])
  chmodSync(folder, 0o755)
})

test('a reader sees the old file or the new one, never a part', async () => {
  const [a, b] = [{ v: 'a'.repeat(200_000) }, { v: 'b'.repeat(300_000) }]
  await writeJson(path, a)
  let writing = true
  const writer = (async () => {
    for (let i = 0; i < 20; i++) await writeJson(path, i % 2 ? a : b)
    writing = false
  })()
  let reads = 0
  while (writing) {
    const { v } = (await readJson(path)) as { v: string }
    expect([a.v, b.v]).toContain(v)
    reads++
  }
  await writer
  expect(reads).toBeGreaterThan(3)
})

test('arguments', async () => {
  await expect(writeJson(3 as never, 1)).rejects.toThrow(ConfigError)
  await expect(writeJson(path, 1, { indent: 11 })).rejects.toThrow(ConfigError)
  await expect(writeJson(path, 1, { indent: -1 })).rejects.toThrow(ConfigError)
  for (const rows of [3, null, 'text', {}, undefined])
    await expect(writeJsonl(path, rows as never)).rejects.toThrow(ConfigError)
})
