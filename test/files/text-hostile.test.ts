import { execFileSync } from 'node:child_process'
import { closeSync, mkdirSync, mkdtempSync, openSync, rmSync, truncateSync, writeFileSync, writeSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { readConfig, readCsv, readYaml } from '../../lib/files/index.js'
import { DataError, readJson, readJsonl } from '../../lib/index.js'
import { MEMORY_SLACK, PATIENCE } from '../patience.js'

const GB = 2 ** 30

let folder: string
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'voxtorch-hostile-'))
})
afterAll(() => rmSync(folder, { recursive: true, force: true }))

function file(bytes: string | Uint8Array, size?: number): string {
  const path = join(folder, 'file')
  rmSync(path, { recursive: true, force: true })
  writeFileSync(path, bytes)
  if (size !== undefined) truncateSync(path, size)
  return path
}

/** Some bytes again and again: no hole, but without holding them here. */
function repeated(bytes: string, megabytes: number, head = ''): string {
  const path = file('')
  const block = Buffer.from(bytes.repeat(Math.ceil(2 ** 20 / bytes.length)))
  const handle = openSync(path, 'w')
  writeSync(handle, head)
  for (let i = 0; i < megabytes; i++) writeSync(handle, block)
  closeSync(handle)
  return path
}

async function drain(rows: AsyncIterable<unknown>): Promise<void> {
  for await (const _ of rows);
}

const jsonl = (path: string) => drain(readJsonl(path))
const laughs = ['b', 'c', 'd', 'e', 'f', 'g', 'h', 'i', 'j'].reduce(
  ({ text, last }, name) => ({ text: `${text}${name}: &${name} [${Array(9).fill(`*${last}`)}]\n`, last: name }),
  { text: 'a: &a [lol, lol, lol]\n', last: 'a' },
).text

type Read = (path: string) => Promise<unknown>
const hostile: [string, Read, () => string, RegExp][] = [
  ['JSON that nests 100 million times', readJson, () => repeated('[', 100), /deeper than 1000/],
  ['JSON that nests 10 million objects', readJson, () => repeated('{"":', 40), /deeper than 1000/],
  ['a JSON file of 400 MB of nothing', readJson, () => file('[', 4e8), /NUL/],
  ['a JSON file of 4 TB', readJson, () => file('[', 4 * 1024 * GB), /expected a file of at most/],
  ['JSON with a number of a million digits', readJson, () => file('9'.repeat(1e6)), /4300 digits/],
  ['truncated JSON', readJson, () => file('{"a": [1, 2, {"b": "c'), /expected the end of a string/],
  ['JSON that is not UTF-8', readJson, () => file(Buffer.from('{"a": "\xff\xfe"}', 'latin1')), /not UTF-8/],
  ['JSON in UTF-16', readJson, () => file(Buffer.from('\ufeff{}', 'utf16le')), /UTF-16/],
  ['a JSONL line of 5 GB of nothing', jsonl, () => file('{"a": "', 5 * GB), /line 1: .*at most 67108864 bytes/],
  ['a JSONL line of 100 MB', jsonl, () => repeated('x', 100), /line 1: .*at most 67108864 bytes/],
  ['a JSONL line that nests', jsonl, () => repeated('[', 3), /deeper than 1000/],
  ['JSONL with a line of NULs', jsonl, () => file('1\n\0\0\0\n'), /line 2: .*NUL/],
  ['JSONL that is not UTF-8', jsonl, () => file(Buffer.from('1\n"\xff"\n', 'latin1')), /line 2: byte 3 is not UTF-8/],
  ['a CSV with an open quotation mark and 1 GB of nothing', readCsv, () => file('a,b\n1,"', GB), /line 2: .*NUL/],
  [
    'a CSV with an open quotation mark and 100 MB',
    readCsv,
    () => repeated('1,2\n', 100, 'a,b\n1,"'),
    /line 2: expected a row of at most 1048576 characters, got a longer one/,
  ],
  ['a CSV row of 50 million fields', readCsv, () => repeated(',', 50), /at most 1048576 characters/],
  [
    'a CSV with two columns of one long name',
    readCsv,
    () => file(`${'n'.repeat(4e5)},`.repeat(2)),
    /different column names/,
  ],
  ['a CSV with NUL', readCsv, () => file('a,b\n1,\0\n'), /line 2: .*NUL/],
  ['a CSV that is not UTF-8', readCsv, () => file(Buffer.from('a,b\n1,\x92\n', 'latin1')), /line 2: .*windows-1252/],
  ['a truncated CSV', readCsv, () => file('a,b\n1,2\n3'), /line 3/],
  ['YAML: a billion laughs', readYaml, () => file(laughs), /aliases expand/],
  ['YAML: merged laughs', readYaml, () => file(laughs.replaceAll('[', '{<<: [').replaceAll(']', ']}')), /./],
  ['YAML that nests a million times', readYaml, () => file('['.repeat(1e6)), /deeper than 100/],
  ['YAML that nests in dashes', readYaml, () => file('- '.repeat(1e6)), /deeper than 100/],
  ['YAML that nests in keys', readYaml, () => file('? '.repeat(1e6)), /deeper than 100/],
  [
    'YAML that nests in lines',
    readYaml,
    () => file(Array.from({ length: 1500 }, (_, i) => `${' '.repeat(i)}a:`).join('\n')),
    /deeper than 100/,
  ],
  ['YAML of two million values', readYaml, () => file(`[${'1,'.repeat(2e6)}]`), /tokens/],
  ['YAML of half a million wrong escapes', readYaml, () => file(`a: "${'\\q'.repeat(5e5)}"`), /escape sequence/],
  ['YAML with a tag of 2 MB', readYaml, () => file(`!${'t'.repeat(2e6)} 1`), /unknown tag/],
  ['YAML with an alias of 2 MB', readYaml, () => file(`a: *${'t'.repeat(2e6)}`), /names no anchor/],
  ['YAML of a million mistakes', readYaml, () => file('"'.repeat(1e6)), /tokens|Missing|Unexpected/],
  ['YAML of 1 GB of nothing', readYaml, () => file('a: ', GB), /expected a file of at most/],
  ['YAML with NUL', readYaml, () => file('a: \0'), /NUL/],
  ['YAML that runs code', readYaml, () => file('!!python/object/apply:os.system ["touch evil"]'), /unknown tag/],
]

test.each(hostile)('%s', async (_name, read, make, message) => {
  const path = make()
  const before = process.memoryUsage().rss
  let peak = 0
  const watch = setInterval(() => (peak = Math.max(peak, process.memoryUsage().rss)), 5)
  const start = performance.now()
  const error = await read(path).then(
    () => undefined,
    (caught: unknown) => caught,
  )
  const time = performance.now() - start
  clearInterval(watch)
  peak = Math.max(peak, process.memoryUsage().rss)
  expect(error).toBeInstanceOf(DataError)
  expect((error as DataError).message).toMatch(message)
  expect((error as DataError).message.length).toBeLessThan(1000)
  expect((error as DataError & { file: string }).file).toBe(path)
  expect(time).toBeLessThan(PATIENCE)
  expect((peak - before) / 1e6).toBeLessThan(200 * MEMORY_SLACK)
})

test('all of it together took less than 300 MB at its highest', () => {
  // What the kernel measured, which no timer of ours can miss.
  expect(process.resourceUsage().maxRSS * 1024 - atStart).toBeLessThan(300e6)
})

test('YAML with thirty thousand names for a text of 3 MB that is nearly a number is read', async () => {
  const start = performance.now()
  const { a, b } = (await readYaml(file(`a: &a ${'1'.repeat(3e6)}x\nb: [${'*a,'.repeat(30_000)}]`))) as {
    a: string
    b: string[]
  }
  expect(a.length).toBe(3e6 + 1)
  expect(b.length).toBe(30_000)
  expect(b.every((text) => text === a)).toBe(true)
  expect(performance.now() - start).toBeLessThan(PATIENCE)
})

const atStart = process.memoryUsage().rss

test.each([
  ['a folder', () => mkdirSync(join(folder, 'folder.json/x'), { recursive: true })!, /a folder/],
  ['nothing', () => join(folder, 'missing.json'), /cannot be opened/],
  [
    'a pipe that nobody writes',
    () => {
      const path = join(folder, 'pipe.json')
      execFileSync('mkfifo', [path])
      return path
    },
    /expected a regular file/,
  ],
  ['a device without end', () => '/dev/zero', /expected a regular file/],
  ['a name with NUL', () => 'a\0.json', /cannot be opened/],
])('%s instead of a file', async (_name, make, message) => {
  const path = make()
  const reads: Read[] = [readJson, jsonl, readCsv, readYaml]
  if (path.endsWith('.json')) reads.push(readConfig)
  for (const read of reads)
    await expect(read(path)).rejects.toThrow(
      expect.objectContaining({ name: 'DataError', message: expect.stringMatching(message) }),
    )
})
