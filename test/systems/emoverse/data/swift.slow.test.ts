import { execFileSync } from 'node:child_process'
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync, statSync, writeFileSync, writeSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { DataError, DataLoader } from '../../../../lib/index.js'
import {
  insertMarkers,
  type ReadSwiftDatasetOptions,
  readSwiftDataset,
  type SwiftRecord,
  writeSwiftDataset,
} from '../../../../lib/systems/emoverse/index.js'
import { MEMORY_SLACK, PATIENCE } from '../../../patience.js'

const folder = mkdtempSync(join(tmpdir(), 'voxtorch-swift-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))
const file = (name: string, content: string | Buffer | unknown[]): string => {
  const path = join(folder, name)
  writeFileSync(path, Array.isArray(content) ? JSON.stringify(content) : content)
  return path
}
async function all(path: string | string[], options: ReadSwiftDatasetOptions = {}): Promise<SwiftRecord[]> {
  const found: SwiftRecord[] = []
  for await (const record of await readSwiftDataset(path, options)) found.push(record)
  return found
}

const two = [
  { query: 'How?', response: 'So.', images: ['a.png'] },
  { query: 'And <video> then?', response: '', videos: ['b.mp4'], images: [] },
]

describe('readSwiftDataset', () => {
  it('reads a JSON array and JSON lines alike, with a mark, blanks and line breaks where they may be', async () => {
    const expected = [
      { query: '<image>How?', response: 'So.', images: ['a.png'] },
      { query: 'And <video> then?', response: '', videos: ['b.mp4'] },
    ]
    expect(await all(file('a.json', two))).toEqual(expected)
    expect(await all(file('b.json', `\ufeff \n${JSON.stringify(two, null, 4)}\n \n`))).toEqual(expected)
    expect(await all(file('c.jsonl', two.map((one) => JSON.stringify(one)).join('\n\n')))).toEqual(expected)
    expect(await all([file('a.json', two), file('d.jsonl', JSON.stringify(two[0]))])).toHaveLength(3)
    expect(await all(file('none.json', ' [ \n ] '))).toEqual([])
  })

  it.each<[string, unknown, Partial<SwiftRecord>]>([
    ['history', { query: 'c', response: 'd', history: [['a', 'b']] }, { query: 'c', response: 'd', history: [['a', 'b']] }],
    ['a system of its own', { query: 'q', response: 'r', system: 's' }, { query: 'q', response: 'r', system: 's' }],
    ['an empty system', { query: 'q', response: 'r', system: '' }, { query: 'q', response: 'r' }],
    ['a single path', { query: 'q', response: 'r', images: 'x.png' }, { query: '<image>q', response: 'r', images: ['x.png'] }],
    ['no query', { response: 'r' }, { query: '', response: 'r' }],
    [
      'messages',
      { messages: [{ role: 'system', content: 's' }, { role: 'user', content: 'a' }, { role: 'assistant', content: 'b' }, { role: 'user', content: 'c' }, { role: 'assistant', content: 'd' }], videos: ['v'] },
      { query: 'c', response: 'd', history: [['<video>a', 'b']], system: 's', videos: ['v'] },
    ],
    [
      'conversations',
      { conversations: [{ from: 'human', value: 'a' }, { from: 'gpt', value: 'b' }] },
      { query: 'a', response: 'b' },
    ],
    ['paths in the text', { query: '<img>a b.png</img>what?', response: 'r' }, { query: '<image>what?', response: 'r', images: ['a b.png'] }],
    ['a key that is a name of every object', JSON.parse('{"query": "q", "response": "r", "__proto__": 1}'), { query: 'q', response: 'r' }],
  ])('reads %s', async (_, entry, expected) => {
    expect(await all(file('one.json', [entry]))).toEqual([expected])
  }) // biome-ignore format: cases

  it('puts the markers that are missing in front of the first question', () => {
    const record = { query: 'c <image>', response: 'd', history: [['a', 'b']] as [string, string][] }
    const marked = insertMarkers({ ...record, images: ['1', '2', '3'], videos: ['4'], audios: ['5'] })
    expect(marked.history).toEqual([['<audio><image><image><video>a', 'b']])
    expect(marked.query).toBe('c <image>')
    expect(record.history).toEqual([['a', 'b']])
  })

  const bad: [string, string | Buffer, string][] = [
    ['json', '{"query": "a", "response" "b"}', 'json'],
    ['bad UTF-8', Buffer.from('{"query": "\xff", "response": "b"}', 'latin1'), 'encoding'],
    ['NUL', '{"query": "\0", "response": "b"}', 'encoding'],
    ['no object', '[1]', 'form'],
    ['a query that is a number', '{"query": 1, "response": "b"}', 'form'],
    ['neither', '{"text": "b"}', 'form'],
    ['boxes', '{"query": "a", "response": "b", "objects": [1]}', 'form'],
    ['pictures that are no paths', '{"query": "a", "response": "b", "images": [{"path": "x"}]}', 'form'],
    ['a history that is a text', '{"query": "a", "response": "b", "history": "[]"}', 'form'],
    ['no turns', '{"messages": [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]}', 'form'],
    ['an unknown role', '{"messages": [{"role": "tool", "content": "a"}]}', 'form'],
    ['null', '{"query": "a", "response": null}', 'response'],
    ['a question alone', '{"messages": [{"role": "user", "content": "a"}]}', 'response'],
    ['more markers than pictures', '{"query": "<image><image>", "response": "b", "images": ["a"]}', 'markers'],
    ['a marker without a picture', '{"query": "<video>", "response": "b"}', 'markers'],
    ['a path twice', '{"query": "<img>a</img>", "response": "b", "images": ["a"]}', 'markers'],
  ]
  it.each(bad)('leaves out %s and counts it by cause, or stops', async (_, line, cause) => {
    const good = Buffer.from('{"query": "q", "response": "r"}')
    const lines = Buffer.concat([good, Buffer.from('\n'), Buffer.from(line), Buffer.from('\n'), good])
    const array = Buffer.concat([
      Buffer.from('['),
      good,
      Buffer.from(',\n'),
      Buffer.from(line),
      Buffer.from(','),
      good,
      Buffer.from(']'),
    ])
    // A list in a list is a value of it.
    for (const path of [file('bad.jsonl', lines), ...(line === '[1]' ? [] : [file('bad.json', array)])]) {
      const data = await readSwiftDataset(path)
      expect(data.length).toBe(2)
      expect(data.dropped).toEqual({ [cause]: 1 })
      expect(data.errors[0]).toBeInstanceOf(DataError)
      expect(data.errors[0]).toMatchObject({ file: path, line: 2 })
      await expect(readSwiftDataset(path, { onBadRecord: 'stop' })).rejects.toThrow(DataError)
    }
  })

  it('refuses what is no array to its end, whatever is done with bad records', async () => {
    const ends: [string, RegExp][] = [
      ['[{"query": "a", "response": "b"}', /expected the end of the array/],
      ['[{"query": "a", "respo', /expected the end of the array/],
      ['[{"query": "a", "response": "b"}] []', /expected the end of the file after the array/],
      ['[,{"query": "a", "response": "b"}]', /expected a value in the array/],
      ['[{"query": "a", "response": "b"},]', /expected a value in the array/],
    ]
    for (const [text, message] of ends) {
      await expect(readSwiftDataset(file('cut.json', text))).rejects.toThrow(message)
      await expect(readSwiftDataset(file('cut.json', text))).rejects.toBeInstanceOf(DataError)
    }
    await expect(readSwiftDataset(join(folder, 'nowhere.json'))).rejects.toThrow(/cannot be opened/)
    await expect(readSwiftDataset(folder)).rejects.toThrow(/folder/)
  })

  it('takes questions alone where answers are not needed, and tells of keys that nobody reads', async () => {
    const data = await readSwiftDataset(file('q.json', [{ query: 'a', label: 1 }, { query: 'b', response: null, label: 2 }]), {
      requireResponse: false,
    }) // biome-ignore format: one record each
    expect(await data.get(1)).toEqual({ query: 'b', response: null })
    expect(data.unread).toEqual({ label: 2 })
    expect(await all(file('q2.json', two), { markers: false })).toMatchObject([{ query: 'How?' }, {}])
  })

  it('leaves out what is too long, before and after its media are expanded, and looks for files', async () => {
    const records = [1, 5, 9].map((size) => ({ query: 'x'.repeat(size), response: 'y', images: [`${size}.png`] }))
    const path = file('long.json', records)
    const lengthOf = ({ query, images = [] }: SwiftRecord) => {
      const text = query.replaceAll('<image>', '').length + images.length
      return { text, expanded: text + 255 * images.length }
    }
    const text = await readSwiftDataset(path, { lengthOf, maxLength: 6 })
    expect([text.length, text.dropped, text.longest]).toEqual([2, { length: 1 }, { text: 6, expanded: 261 }])
    const expanded = await readSwiftDataset(path, { lengthOf, maxLength: 100, maxExpandedLength: 260 })
    expect([expanded.length, expanded.dropped]).toEqual([1, { length: 2 }])
    file('5.png', '')
    expect((await readSwiftDataset(path, { mediaRoot: folder })).dropped).toEqual({ media: 2 })
    await expect(readSwiftDataset(path, { maxLength: 5 })).rejects.toThrow(/lengthOf/)
    await expect(readSwiftDataset(path, { nothing: 1 } as never)).rejects.toThrow(/nothing/)
  })

  it("with compat 'published' puts another record in a bad one's place, drawn by seed, epoch and place", async () => {
    const records = Array.from({ length: 40 }, (_, i) => ({ query: `${i}`, response: i % 4 === 0 ? 'y' : null }))
    const path = file('holes.json', records)
    const read = async (seed: number, epoch: number) => {
      const data = await readSwiftDataset(path, { compat: 'published', seed })
      expect(data.length).toBe(40)
      return Promise.all(Array.from({ length: 40 }, (_, i) => data.get(i, epoch)))
    }
    const first = await read(1, 0)
    expect(first.every(({ response }) => response === 'y')).toBe(true)
    expect(first.filter((_, i) => i % 4 === 0).map(({ query }) => query)).toEqual(
      records.filter((_, i) => i % 4 === 0).map(({ query }) => query),
    )
    expect(await read(1, 0)).toEqual(first)
    expect(await read(1, 1)).not.toEqual(first)
    expect(await read(2, 0)).not.toEqual(first)
    const none = await readSwiftDataset(file('none.json', records.slice(1, 4)), { compat: 'published' })
    await expect(none.get(0)).rejects.toThrow(/expected a usable record within 3 draws/)
  })

  it('gives a loader the same samples in any order', async () => {
    const path = file(
      'many.json',
      Array.from({ length: 50 }, (_, i) => ({ query: `${i}`, response: `${i}` })),
    )
    const data = await readSwiftDataset(path)
    const loader = new DataLoader(data, { batchSize: 7, shuffle: true, seed: 3 })
    const seen: string[] = []
    for await (const batch of loader) seen.push(...(batch as SwiftRecord[]).map(({ query }) => query))
    expect([...seen].sort((a, b) => Number(a) - Number(b))).toEqual(Array.from({ length: 50 }, (_, i) => `${i}`))
  })

  it('streams 500 MB of JSON in less than 300 MB', { timeout: 2 * PATIENCE }, () => {
    const path = join(folder, 'large.json')
    const handle = openSync(path, 'w')
    const record = `    ${JSON.stringify({ query: 'What is [felt] in "this", {really}? '.repeat(30), response: 'Joy.', images: ['a.png'] })}`
    const block = Buffer.from(`${record},\n`.repeat(900))
    writeSync(handle, '[\n')
    const blocks = Math.ceil(500e6 / block.length)
    for (let i = 0; i < blocks; i++) writeSync(handle, block)
    writeSync(handle, `${record}\n]`)
    closeSync(handle)
    expect(statSync(path).size).toBeGreaterThan(500e6)
    // In a process of its own, whose peak the kernel has measured.
    const module = new URL('../../../../dist/modules/systems/emoverse/data/dataset.js', import.meta.url).href
    const source = `const { readSwiftDataset } = await import('${module}')
      const data = await readSwiftDataset(process.argv[1])
      const last = await data.get(data.length - 1)
      console.log(JSON.stringify([data.length, last.response, process.resourceUsage().maxRSS]))`
    const said = execFileSync(process.execPath, ['--input-type=module', '-e', source, path], { timeout: 2 * PATIENCE })
    const [length, response, kilobytes] = JSON.parse(said.toString())
    rmSync(path)
    expect([length, response]).toEqual([blocks * 900 + 1, 'Joy.'])
    expect(kilobytes * 1024).toBeLessThan(300e6 * MEMORY_SLACK)
  })
})

describe('writeSwiftDataset', () => {
  const records: SwiftRecord[] = [
    { query: 'Wie „geht” es?\n', response: 'Gut.', videos: ['a.mp4'] },
    { videos: [], query: '', response: '' } as unknown as SwiftRecord,
  ]

  it("writes as Python's json.dump with indent 4, keys in their order", async () => {
    const path = join(folder, 'out.json')
    expect(await writeSwiftDataset(path, records)).toBe(2)
    expect(readFileSync(path, 'utf8')).toBe(`[
    {
        "query": "Wie „geht” es?\\n",
        "response": "Gut.",
        "videos": [
            "a.mp4"
        ]
    },
    {
        "videos": [],
        "query": "",
        "response": ""
    }
]`)
    expect(await all(path)).toEqual([
      { ...records[0], query: '<video>Wie „geht” es?\n' },
      { query: '', response: '' },
    ])
    await writeSwiftDataset(path, [])
    expect(readFileSync(path, 'utf8')).toBe('[]')
  })

  it('writes JSON lines by the name, and reads back what it wrote', async () => {
    const path = join(folder, 'out.jsonl')
    async function* some() {
      yield* records
    }
    expect(await writeSwiftDataset(path, some())).toBe(2)
    expect(readFileSync(path, 'utf8').split('\n')).toHaveLength(3)
    expect(await all(path, { markers: false, requireResponse: false })).toHaveLength(2)
  })

  it('refuses what is no record, and writes nothing then', async () => {
    const path = join(folder, 'refused.json')
    await expect(writeSwiftDataset(path, [{ query: 1 } as never])).rejects.toThrow(
      /record 1: query: expected a string, got 1/,
    )
    await expect(writeSwiftDataset(path, 'abc' as never)).rejects.toThrow(/iterable/)
    await expect(writeSwiftDataset(path, [], { tab: 1 } as never)).rejects.toThrow(/tab/)
    expect(() => statSync(path)).toThrow()
  })
})
