import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { syncBuiltinESMExports } from 'node:module'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import v8 from 'node:v8'
import { gunzipSync } from 'node:zlib'
import { afterAll, describe, expect, it } from 'vitest'
import { type ReadParquetOptions, readParquet, readParquetHeader } from '../../lib/files/index.js'
import { ParquetFile } from '../../lib/files/parquet/file.js'
import { loadPackages, unpacked } from '../../lib/files/parquet/packages.js'
import { type Page, readDataPage, readDictionary } from '../../lib/files/parquet/page.js'
import { DataError } from '../../lib/index.js'

interface Case {
  name: string
  file: string
  groups: number[]
  rows: unknown[]
}

const cases = JSON.parse(
  gunzipSync(readFileSync(new URL('../fixtures/data/parquet.json.gz', import.meta.url))).toString(),
) as Case[]
const caseOf = (name: string) => cases.find((one) => one.name === name) as Case
const directory = mkdtempSync(join(tmpdir(), 'voxtorch-parquet-'))
afterAll(() => rmSync(directory, { recursive: true }))
let files = 0
function written(bytes: Uint8Array): string {
  const path = join(directory, `${files++}.parquet`)
  writeFileSync(path, bytes)
  return path
}
const pathOf = (name: string) => written(Buffer.from(caseOf(name).file, 'base64'))

async function rowsOf(path: string, options?: ReadParquetOptions): Promise<Record<string, unknown>[]> {
  const rows: Record<string, unknown>[] = []
  for await (const row of readParquet(path, options)) rows.push(row)
  return rows
}

/** A value as test/reference/data_parquet.py writes it. */
function described(value: unknown): unknown {
  if (typeof value === 'bigint') return { bigint: String(value) }
  if (typeof value === 'number' && !Number.isFinite(value)) {
    return { float: String(value).toLowerCase().replace('infinity', 'inf') }
  }
  if (value instanceof Uint8Array) return { bytes: Buffer.from(value).toString('base64') }
  if (value instanceof Date) return { date: value.getTime() }
  if (Array.isArray(value)) return value.map(described)
  if (typeof value !== 'object' || value === null) return value
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, described(item)]))
}

describe('readParquet', () => {
  it.each(cases.map(({ name }) => name))('reads what pyarrow reads: %s', async (name) => {
    const path = pathOf(name)
    expect(described(await rowsOf(path))).toEqual(caseOf(name).rows)
    const { rows, rowGroups } = await readParquetHeader(path)
    expect(rowGroups).toEqual(caseOf(name).groups)
    expect(rows).toBe(caseOf(name).rows.length)
  })
})

const plain = () => Buffer.from(caseOf('none, pages 1.0').file, 'base64')

describe('readParquet: a part of a file', () => {
  it('reads the columns that are named, in the order of the file', async () => {
    const rows = await rowsOf(pathOf('zstd, pages 2.0'), { columns: ['messages', 'id'] })
    const expected = caseOf('zstd, pages 2.0').rows as Record<string, unknown>[]
    expect(rows.map(described)).toEqual(expected.map(({ id, messages }) => ({ id, messages })))
    expect(Object.keys(rows[0] as object)).toEqual(['id', 'messages'])
  })

  it.each(['none, pages 1.0', 'snappy, pages 2.0', 'one row group, one page'])(
    'passes over rows at any position: %s',
    async (name) => {
      const file = await ParquetFile.open(pathOf(name))
      const expected = caseOf(name).rows
      for (const from of [0, 1, 7, 24, 25, 26, 40, 59, 60, 61]) {
        const read: unknown[] = []
        for await (const { row, record } of file.read({ from, wants: (row) => row % 3 !== 1 })) {
          read.push([row, described(record)])
        }
        expect(read).toEqual(expected.flatMap((row, i) => (i >= from && i % 3 !== 1 ? [[i, row]] : [])))
      }
      await file.close()
    },
  )

  it('describes the columns', async () => {
    const { columns } = await readParquetHeader(pathOf('none, pages 1.0'))
    expect(columns.map(({ name, type }) => `${name}: ${type}`)).toEqual([
      'id: int64',
      'speaker: string',
      'score: double',
      'good: bool',
      'audio: struct<bytes: binary, path: string>',
      'messages: list<struct<role: string, content: string, tags: list<string>>>',
      'tokens: list<list<int32>>',
      'scores: map<string, int32>',
    ])
    expect(columns[0]).toMatchObject({ nullable: false })
  })
})

describe('readParquet: bad input', () => {
  const refused = async (path: string, options?: ReadParquetOptions) => {
    const error = await rowsOf(path, options).then(
      () => undefined,
      (cause: unknown) => cause,
    )
    expect(error).toBeInstanceOf(DataError)
    return error as DataError & Record<string, unknown>
  }

  it('names a column that is missing, and the nearest', async () => {
    const error = await refused(pathOf('none, pages 1.0'), { columns: ['mesages'] })
    expect(error).toMatchObject({ column: 'mesages' })
    expect(error.message).toContain("did you mean 'messages'?")
  })

  it('names file, row group, row and column of a string that is not UTF-8', async () => {
    const bytes = plain()
    const { rows } = caseOf('none, pages 1.0') as unknown as { rows: { speaker: string }[] }
    // The dictionary of the second row group.
    const found = bytes.indexOf('bob', bytes.indexOf('bob', bytes.indexOf('bob') + 300) + 1)
    bytes[found] = 0xff
    const path = written(bytes)
    const file = await ParquetFile.open(path)
    const bad: unknown[] = []
    for await (const { row, error } of file.read()) if (error) bad.push([row, error])
    await file.close()
    expect(bad.length).toBeGreaterThan(0)
    for (const [row, error] of bad as [number, DataError][]) {
      expect(rows[row]?.speaker).toBe('bob')
      expect(error).toMatchObject({ file: path, row, rowGroup: Math.floor(row / 25), column: 'speaker' })
    }
    // The others of that row group are read, and of the others all.
    expect(await refused(path)).toMatchObject({ row: (bad[0] as [number])[0], column: 'speaker' })
  })

  it('refuses what is no Parquet file, is truncated or has a broken footer', async () => {
    const bytes = plain()
    expect((await refused(written(Buffer.from('PAR1')))).message).toContain('got 4 bytes')
    expect((await refused(written(bytes.subarray(0, -1)))).message).toContain('begins and ends with PAR1')
    const long = Buffer.from(bytes)
    long.writeUInt32LE(0xffffffff, bytes.length - 8)
    expect((await refused(written(long))).message).toContain('a footer of at most')
    const encrypted = Buffer.from(bytes)
    encrypted.write('PARE', bytes.length - 4)
    expect((await refused(written(encrypted))).message).toContain('encrypted')
    // A file that lost a part in its middle has offsets beyond its data.
    const cut = Buffer.concat([bytes.subarray(0, 100), bytes.subarray(5000)])
    await refused(written(cut))
  })

  /** A file whose footer is these bytes of Thrift. */
  const withFooter = (footer: readonly number[] | Uint8Array) => {
    const bytes = Buffer.alloc(12 + footer.length)
    bytes.write('PAR1', 0)
    bytes.set(footer, 4)
    bytes.writeUInt32LE(footer.length, 4 + footer.length)
    bytes.write('PAR1', 8 + footer.length)
    return written(bytes)
  }

  it('bounds lists, numbers and depth of the footer before it is parsed', async () => {
    // A list of 2^31 structs; a number of a megabyte; structs in structs.
    expect((await refused(withFooter([0x29, 0xfc, 0xff, 0xff, 0xff, 0xff, 0x07]))).message).toContain('footer')
    expect((await refused(withFooter([0x16, ...new Array<number>(100_000).fill(0x80), 0]))).message).toContain('footer')
    expect((await refused(withFooter(Buffer.alloc(1 << 20, 0x1c)))).message).toContain('footer')
    // Five million empty structs.
    const many = Buffer.alloc(5_000_010)
    many.set([0x29, 0xfc, 0xc0, 0x96, 0xb1, 0x02])
    expect((await refused(withFooter(many))).message).toContain('more than 4000000 values')
  })

  it('refuses with a typed error whatever byte is changed', async () => {
    const bytes = Buffer.from(caseOf('snappy, pages 1.0').file, 'base64')
    let failures = 0
    // test/fuzz/readers.slow.test.ts changes hundreds of files more.
    for (let at = 4; at < bytes.length; at += 61) {
      const changed = Buffer.from(bytes)
      changed[at] = (changed[at] as number) ^ (1 << (at % 8))
      try {
        await rowsOf(written(changed))
      } catch (error) {
        expect(error).toBeInstanceOf(DataError)
        expect((error as Error).message).toContain('.parquet')
        failures++
      }
    }
    expect(failures).toBeGreaterThan(20)
  })

  /** A block of LZ4: a zero, a match of the byte before it, and five zeros. */
  const zeros = (size: number) => {
    const more = size - 6 - 4 - 15
    const lengths = Buffer.alloc(Math.floor(more / 255) + 1, 255)
    lengths[lengths.length - 1] = more % 255
    return Buffer.concat([Buffer.from([0x1f, 0, 1, 0]), lengths, Buffer.from([0x50, 0, 0, 0, 0, 0])])
  }

  it('decompresses a large page in a thread of its own', async () => {
    for (const size of [2 ** 20, 2 ** 24]) {
      const bytes = await unpacked('LZ4_RAW', zeros(size), size)
      expect(bytes).toHaveLength(size)
      expect(Buffer.compare(bytes, Buffer.alloc(size))).toBe(0)
      await expect(unpacked('LZ4_RAW', zeros(size).subarray(0, -10), size)).rejects.toThrow('its LZ4 data is broken')
      await expect(unpacked('SNAPPY', zeros(size), size)).rejects.toThrow(`expected ${size} decompressed bytes`)
    }
    let turns = 0
    const timer = setInterval(() => turns++, 1)
    await unpacked('LZ4_RAW', zeros(2 ** 27), 2 ** 27)
    clearInterval(timer)
    expect(turns).toBeGreaterThan(3)
  })

  it('refuses packed data of another length', async () => {
    const sample = Buffer.from('tests of tests of tests of text, and 123456789 others')
    const packed = {
      // Blocks of pyarrow 26.0.1: pa.Codec(name).compress(sample).
      SNAPPY: '35207465737473206f66204e09005c78742c20616e6420313233343536373839206f7468657273',
      ZSTD: '28b52ffd203545010014027465737473206f662078742c20616e6420313233343536373839206f74686572730100a4cb11',
      LZ4_RAW: '9f7465737473206f6620090001f00978742c20616e6420313233343536373839206f7468657273',
    }
    for (const [codec, hex] of Object.entries(packed)) {
      const bytes = Buffer.from(hex, 'hex')
      expect(Buffer.from(await unpacked(codec, bytes, sample.length))).toEqual(sample)
      for (const size of [sample.length - 1, sample.length + 1]) {
        await expect(unpacked(codec, bytes, size), `${codec} ${size}`).rejects.toThrow(`expected ${size} decompressed`)
      }
      for (let cut = 1; cut < bytes.length; cut++) {
        await expect(unpacked(codec, bytes.subarray(0, -cut), sample.length), `${codec} ${cut}`).rejects.toThrow()
      }
    }
    const lz4 = Buffer.from(packed.LZ4_RAW, 'hex')
    const head = Buffer.alloc(8)
    head.writeUInt32BE(sample.length)
    head.writeUInt32BE(lz4.length, 4)
    const hadoop = Buffer.concat([head, lz4])
    expect(Buffer.from(await unpacked('LZ4', lz4, sample.length))).toEqual(sample)
    expect(Buffer.from(await unpacked('LZ4', hadoop, sample.length))).toEqual(sample)
    const twice = Buffer.concat([hadoop, hadoop])
    expect(Buffer.from(await unpacked('LZ4', twice, 2 * sample.length)).toString()).toBe(`${sample}${sample}`)
    // Two blocks of one write.
    const chunk = Buffer.concat([head.subarray(4), lz4])
    head.writeUInt32BE(2 * sample.length)
    const chunked = Buffer.concat([head.subarray(0, 4), chunk, chunk])
    expect(Buffer.from(await unpacked('LZ4', chunked, 2 * sample.length)).toString()).toBe(`${sample}${sample}`)
    await expect(unpacked('LZ4', chunked.subarray(0, -lz4.length), 2 * sample.length)).rejects.toThrow('broken')
    await expect(unpacked('LZ4', twice.subarray(0, -3), 2 * sample.length)).rejects.toThrow('LZ4 data is broken')
    await expect(unpacked('LZ4', twice, 3 * sample.length)).rejects.toThrow('LZ4 data is broken')
  })

  it('refuses more byte arrays than fit on the heap, however small their page is', async () => {
    const packages = await loadPackages('a.parquet')
    const leaf = { node: { element: { type: 'BYTE_ARRAY' } }, path: 'a', maxDefinition: 0, maxRepetition: 0 }
    const read = (num_values: number): Promise<Page> => {
      // Blocks of 128 lengths, all of them 0, in 5 bytes each.
      const bytes = Buffer.alloc(10 + 5 * Math.ceil(num_values / 128))
      bytes.set([0x80, 0x01, 0x04, (num_values & 127) | 128, ((num_values >> 7) & 127) | 128, num_values >> 14])
      const header = {
        ...{ type: 'DATA_PAGE', compressed_page_size: bytes.length, uncompressed_page_size: bytes.length },
        data_page_header: { num_values, encoding: 'DELTA_LENGTH_BYTE_ARRAY' },
      }
      return readDataPage(packages, leaf as never, header as never, bytes, async (packed) => packed, num_values)
    }
    const dictionary = (num_values: number) => {
      const header = { dictionary_page_header: { num_values, encoding: 'PLAIN' } }
      return readDictionary(packages, leaf as never, header as never, new Uint8Array(4 * num_values))
    }
    const { getHeapStatistics } = v8
    const limit = 2 ** 28
    v8.getHeapStatistics = () => ({
      ...getHeapStatistics(),
      heap_size_limit: limit,
      // A megabyte above the reserve.
      used_heap_size: limit - limit / 10 - 2 ** 26 - 2 ** 20,
    })
    syncBuiltinESMExports()
    try {
      expect((await read(1000)).values).toHaveLength(1000)
      expect(dictionary(1000)).toHaveLength(1000)
      await expect(read(100_000)).rejects.toThrow("more than fits in JavaScript's memory")
      expect(() => dictionary(100_000)).toThrow("more than fits in JavaScript's memory")
    } finally {
      v8.getHeapStatistics = getHeapStatistics
      syncBuiltinESMExports()
    }
  })
})
