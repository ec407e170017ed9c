// Reads files that would fill V8's heap, and says what came of each. Started with a small heap; the process must live.
import { createWriteStream, rmSync } from 'node:fs'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { createGzip } from 'node:zlib'
import { jsonlStream, readJson, readJsonl, readPickle } from 'voxtorch'
import { readCsv } from 'voxtorch/files'

const folder = process.argv[2]
const latin1 = (text) => Buffer.from(text, 'latin1')

/** `times` repetitions of a text between two others. */
function* repeated(before, text, times, after) {
  yield latin1(before)
  const many = Math.max(1, Math.floor(2 ** 20 / text.length))
  const block = latin1(text.repeat(many))
  let left = times
  for (; left >= many; left -= many) yield block
  yield latin1(text.repeat(left) + after)
}

/** Numbered texts, each once. */
function* numbered(before, of, times, after) {
  yield latin1(before)
  for (let i = 0; i < times; i += 10_000) {
    yield latin1(Array.from({ length: 10_000 }, (_, k) => of(i + k)).join(''))
  }
  yield latin1(after)
}

const le = (value) => String.fromCharCode(value & 255, (value >> 8) & 255, (value >> 16) & 255, value >>> 24)
const array = (code, items) =>
  `cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR(I1\n(I${items}\nt` +
  `cnumpy\ndtype\n(S'${code}'\nI0\nI1\ntR(I3\nS'<'\nNNNI1\nI-1\nI0\ntbI00\nB${le(items)}`

const all = async (values) => {
  let count = 0
  for await (const _ of values) count++
  return count
}

const cases = [
  ['marks', () => repeated('', '(', 30e6, '.'), readPickle],
  ['memos', () => repeated('N', '\x94', 30e6, '.'), readPickle],
  ['values', () => repeated('(', 'N', 30e6, 't.'), readPickle],
  ['lists', () => repeated('', ']', 15e6, '.'), readPickle],
  ['dicts', () => repeated('', '}', 3e6, '.'), readPickle],
  ['scattered memos', () => numbered('N', (i) => `r${le((i * 2654435761) >>> 0)}`, 5e6, '.'), readPickle],
  ['a set of numbers', () => numbered('\x8f(', (i) => `J${le(i)}`, 5e6, '\x90.'), readPickle],
  ['a dict of numbers', () => numbered('}(', (i) => `J${le(i)}N`, 5e6, 'u.'), readPickle],
  ['texts of one byte', () => repeated(array('S1', 5e6), 'x', 5e6, 'tb.'), readPickle],
  ['numbers', () => repeated('[', '0,', 30e6, '0]'), readJson],
  ['empty lists', () => repeated('[', '[],', 5e6, '0]'), readJson],
  ['empty objects', () => repeated('[', '{},', 5e6, '0]'), readJson],
  ['keys', () => numbered('{', (i) => `"${i}k":0,`, 3e6, '"":0}'), readJson],
  ['objects of other keys', () => numbered('[', (i) => `{"${i}k":0},`, 2e6, '0]'), readJson],
  ['numbers in a line', () => repeated('[', '[],', 5e6, '0]'), (path) => all(readJsonl(path))],
  ['numbers in a line of a stream', () => repeated('[', '[],', 5e6, '0]'), (path) => all(jsonlStream(path).iterate())],
  ['only line breaks', () => repeated('', '\n', 30e6, 'x'), readJson],
  ['only closing brackets', () => repeated('', ']', 30e6, ''), readJson],
  ['rows', () => repeated('a,b\n', '1,2\n', 5e6, ''), readCsv],
]

for (const [name, bytes, read] of cases) {
  const path = join(folder, 'file')
  if (read === readPickle) await pipeline(Readable.from(bytes()), createGzip({ level: 1 }), createWriteStream(path))
  else await pipeline(Readable.from(bytes()), createWriteStream(path))
  const outcome = await read(path).then(
    () => 'was read',
    (error) => `${error.name}: ${error.message}`,
  )
  console.log(JSON.stringify([name, outcome]))
  rmSync(path)
}
