import { mkdtempSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { gzipSync } from 'node:zlib'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { withMedia } from '../../lib/datasets/features.js'
import { expandBraces, matching } from '../../lib/datasets/patterns.js'
import { decodeAudio, decodeImage, loadDataset, type MediaFile } from '../../lib/files/index.js'
import { BadRecord, ConfigError, DataError, DataLoader } from '../../lib/index.js'
import { archive, makeTar } from '../files/tar-maker.js'
import { FakeHub } from '../hub/server.js'
import {
  bytesOf,
  directory,
  expectResumes,
  folder,
  gather,
  ids,
  library,
  lines,
  loaderOf,
  mixed,
  type Row,
  sharded,
  shards,
  url,
} from './streams.js'

const idsOf = async (source: string | string[], options = {}) =>
  (await gather((await loadDataset<Row>(source, options)).iterate())).map(({ id }) => id)

async function failure(work: Promise<unknown>): Promise<Error & Record<string, unknown>> {
  const error = await work.then(
    () => undefined,
    (cause: unknown) => cause,
  )
  expect(error).toBeInstanceOf(Error)
  return error as Error & Record<string, unknown>
}

describe('patterns', () => {
  it('expand braces like a shell', () => {
    expect(expandBraces('s-{00008..00010}.tar')).toEqual(['s-00008.tar', 's-00009.tar', 's-00010.tar'])
    expect(expandBraces('{a,b}{2..1}')).toEqual(['a2', 'a1', 'b2', 'b1'])
    expect(expandBraces('{0..10}')).toEqual(ids(0, 11).map(String))
    expect(expandBraces('x{y}z{')).toEqual(['x{y}z{'])
    expect(() => expandBraces('{0..99999}{0..9}')).toThrow(ConfigError)
    expect(() => expandBraces('{0..999999999}')).toThrow(ConfigError)
  })

  it('match as globs do', () => {
    const paths = ['a.json', 'data/a.json', 'data/x/b.json', 'data/c.txt']
    expect(matching(paths, '*.json')).toEqual(['a.json'])
    expect(matching(paths, 'data/*')).toEqual(['data/a.json', 'data/c.txt'])
    expect(matching(paths, '**/*.json')).toEqual(['a.json', 'data/a.json', 'data/x/b.json'])
    expect(matching(paths, 'data/**')).toEqual(['data/a.json', 'data/x/b.json', 'data/c.txt'])
    expect(matching(paths, 'data/{a,c}.*')).toEqual(['data/a.json', 'data/c.txt'])
    // Many stars take no exponential time.
    expect(matching(['a'.repeat(5000)], `${'*a'.repeat(2000)}b`)).toEqual([])
    expect(matching([`${'a/'.repeat(500)}b`], `${'**/'.repeat(500)}c`)).toEqual([])
    expect(matching(ids(0, 100_000).map(String), '{00000..99999}')).toHaveLength(90_000)
  })

  it('of a hostile README.md take bounded time', async () => {
    expect(() => expandBraces('a'.repeat(5000))).toThrow(ConfigError)
    expect(() => expandBraces(`{0..99999}${'a'.repeat(4000)}`)).toThrow(ConfigError)
    const paths = ids(0, 50_000).map((id) => `data/train-${id}.jsonl`)
    const start = performance.now()
    expect(() => matching(paths, '*/{0..99999}*.jsonl')).toThrow(ConfigError)
    expect(() => matching(paths, `*/${'*n'.repeat(2000)}`)).toThrow(ConfigError)
    const card = `---\nconfigs:\n- data_files:\n${'  - "**/{0..9999}*.jsonl"\n'.repeat(1000)}---\n`
    const path = folder({ 'README.md': card, ...Object.fromEntries(ids(0, 50).map((id) => [`${id}.jsonl`, ''])) })
    expect((await failure(loadDataset(path))).message).toContain('less time')
    expect(performance.now() - start).toBeLessThan(30_000)
  })
})

describe('loadDataset: folders', () => {
  it('reads shards by their usual names, with the audio that the files state', async () => {
    const dataset = await loadDataset<{ id: number; audio: MediaFile | null }>(sharded())
    expect(dataset.features).toEqual({ audio: 'audio' })
    expect(dataset.files).toHaveLength(4)
    const rows = await gather(dataset.iterate())
    expect(rows.map(({ id }) => id)).toEqual(ids(0, 100))
    expect(rows[7]?.audio).toBeNull()
    const samples = await decodeAudio(rows[30]?.audio as MediaFile, { sampleRate: 8000 })
    expect(samples.shape).toEqual([16])
    expect(await samples.max().item()).toBeCloseTo(30 / 32768, 6)
  })

  it('reads the configurations and patterns of the front matter', async () => {
    const files = {
      'README.md': [
        '---',
        'license: mit',
        'configs:',
        '- config_name: small',
        '  data_files:',
        '  - split: train',
        '    path: a/*.jsonl',
        '  - split: test',
        '    path: [b/x.jsonl]',
        '- config_name: all',
        '  default: true',
        '  data_files: "**/*.jsonl"',
        '---',
        '# A dataset',
        '',
      ].join('\n'),
      'a/1.jsonl': lines(0, 3),
      'a/2.jsonl': lines(3, 5),
      'b/x.jsonl': lines(5, 6),
    }
    const path = folder(files)
    expect(await idsOf(path, { config: 'small' })).toEqual([0, 1, 2, 3, 4])
    expect(await idsOf(path, { config: 'small', split: 'test' })).toEqual([5])
    expect(await idsOf(path)).toEqual(ids(0, 6))
    expect((await failure(loadDataset(path, { config: 'smal' }))).message).toContain("did you mean 'small'")
    expect((await failure(loadDataset(path, { config: 'small', split: 'tset' }))).message).toContain('train, test')
    const none = folder({ ...files, 'a/1.jsonl': '', 'README.md': '---\nconfigs:\n- data_files: c/*\n---\n' })
    expect(await failure(loadDataset(none))).toBeInstanceOf(DataError)
    expect(await failure(loadDataset(folder({ 'README.md': '---\na: [\n---\n', 'a.jsonl': '' })))).toMatchObject({
      line: 3,
    })
  })

  it('finds splits in names of files and folders', async () => {
    const path = folder({
      'train/a.jsonl': lines(0, 2),
      'train/b.jsonl': lines(2, 3),
      'x-dev.jsonl': lines(3, 4),
      'eval.jsonl': lines(4, 6),
      'notes.txt': 'no data',
    })
    expect(await idsOf(path)).toEqual([0, 1, 2])
    expect(await idsOf(path, { split: 'validation' })).toEqual([3])
    expect(await idsOf(path, { split: 'test' })).toEqual([4, 5])
    expect(await idsOf(folder({ 'anything.json': `[${lines(0, 2).trim().replace('\n', ',')}]` }))).toEqual([0, 1])
    expect(await failure(loadDataset(folder({ 'a.arrow': '' })))).toBeInstanceOf(DataError)
  })

  it('refuses a missing shard, a missing column and a missing file', async () => {
    const missing = folder(Object.fromEntries(shards.slice(0, 3).map((name) => [name, bytesOf(name)])))
    expect((await failure(loadDataset(missing))).message).toContain('number 00003 is missing')
    const other = await loadDataset(sharded(), { columns: ['id', 'adio'] })
    expect(await failure(gather(other.iterate()))).toMatchObject({ column: 'adio' })
    const json = await loadDataset(folder({ 'a.jsonl': '{"id":1}\n{"i":2}\n' }), { columns: ['id'] })
    expect(await failure(gather(json.iterate()))).toMatchObject({ column: 'id', line: 2 })
    expect(await failure(loadDataset(join(directory, 'none.parquet')))).toBeInstanceOf(DataError)
    expect(await failure(loadDataset(sharded(), { colums: [] } as object))).toBeInstanceOf(ConfigError)
  })

  it('refuses shards of two sets, and names files that no split has', async () => {
    const parquet = bytesOf(shards[0] as string)
    const named = (...names: string[]) => folder(Object.fromEntries(names.map((name) => [name, parquet])))
    const twice = named('train-00000-of-00001-aa.parquet', 'train-00000-of-00001-bb.parquet')
    const error = await failure(loadDataset(twice))
    expect(error).toBeInstanceOf(DataError)
    expect(error.message).toContain('-aa.parquet, train-00000-of-00001-bb.parquet')
    const counts = named('train-00000-of-00001.parquet', 'train-00000-of-00002.parquet', 'train-00001-of-00002.parquet')
    expect((await failure(loadDataset(counts))).message).toContain('got two')
    const warn = vi.spyOn(process, 'emitWarning').mockImplementation(() => {})
    await loadDataset(named('train-00000-of-00001.parquet', 'extra.parquet', 'train.jsonl', 'vocab.json'))
    expect(warn.mock.calls.map(([text]) => text)).toEqual([
      expect.stringMatching(/left out extra\.parquet, train\.jsonl, in addition to train-00000-of-00001\.parquet/),
    ])
    warn.mockRestore()
  })

  it('refuses options without effect', async () => {
    const path = folder({ 'a.jsonl': lines(0, 2) })
    for (const [options, argument] of [
      [{ seed: 1 }, 'seed'],
      [{ revision: 'main' }, 'revision'],
      [{ columns: ['id'], features: { adio: 'audio' } }, 'features'],
    ] as const) {
      expect(await failure(loadDataset(path, options))).toMatchObject({ name: 'ConfigError', argument })
    }
    const warn = vi.spyOn(process, 'emitWarning').mockImplementation(() => {})
    await idsOf(path, { features: { adio: 'audio' } })
    expect(warn.mock.calls.map(([text]) => text)).toEqual([expect.stringContaining('no record has a column "adio"')])
    warn.mockRestore()
  })

  it('does not skip all records for a misspelled column', async () => {
    const tar = folder({ 'a.tar': archive(...['x.txt', 'y.txt'].map((name) => makeTar(name, {}, Buffer.from('a')))) })
    for (const [source, column] of [
      [join(tar, 'a.tar'), 'text'],
      [folder({ 'a.jsonl': lines(0, 6) }), 'ids'],
    ] as const) {
      const dataset = await loadDataset(source, { columns: [column], onBadRecord: 'skip' })
      expect(await failure(gather(dataset.iterate()))).toMatchObject({ column })
      expect(await failure(gather(dataset.iterate({ shard: 1, shards: 2 })))).toMatchObject({ column })
      expect(await failure(gather(new DataLoader(dataset, { batchSize: 2 })))).toMatchObject({ column })
    }
    // One of two readers has only a bad record.
    const mixed = await loadDataset(folder({ 'a.jsonl': '{"id":1}\n{"i":2}\n' }), {
      columns: ['id'],
      onBadRecord: 'skip',
    })
    expect(await gather(mixed.iterate({ shard: 1, shards: 2 }))).toEqual([])
    expect(mixed.badRecords).toBe(1)
  })

  it('reads media by path within the folder only', async () => {
    const pgm = Buffer.from('P5 1 1 255\n\x07', 'latin1')
    const card =
      '---\ndataset_info:\n  features:\n  - name: id\n    dtype: int64\n  - name: images\n    list: image\n---\n'
    const records = [
      { id: 0, images: ['i/a.pgm'] },
      { id: 1, images: ['../secret'] },
      { id: 2, images: ['/etc/passwd'] },
      { id: 3, images: ['https://x/y.png'] },
      { id: 4, images: [{ bytes: null, path: null }] },
      { id: 5, images: null },
    ]
    const path = folder({
      'README.md': card,
      'i/a.pgm': pgm,
      'a.jsonl': records.map((one) => JSON.stringify(one)).join('\n'),
    })
    const dataset = await loadDataset<{ id: number; images: MediaFile[] }>(path, { onBadRecord: 'skip' })
    const rows = await gather(dataset.iterate())
    expect(rows.map(({ id }) => id)).toEqual([0, 5])
    expect(dataset.badRecords).toBe(4)
    const image = await decodeImage(rows[0]?.images[0] as MediaFile)
    expect(image.shape).toEqual([1, 1, 3])
    const strict = await loadDataset(path)
    const error = await failure(gather(strict.iterate()))
    expect(error).toMatchObject({ line: 2, column: 'images[0]' })
    expect(error.message).toContain('leads out')
  })
})

describe('withMedia', () => {
  it('refuses bytes and dates where a struct is expected', () => {
    const feature = { clip: 'audio' } as const
    for (const value of [new Uint8Array(3), Buffer.alloc(3), new Date()]) {
      expect(() => withMedia(feature, value, '/', 'a')).toThrow(/column 'a': expected an object with fields/)
    }
    const bytes = new Uint8Array(1)
    expect(withMedia(feature, { clip: bytes, id: 1 }, '/', 'a')).toEqual({ clip: { bytes, path: null }, id: 1 })
  })
})

describe('loadDataset: the Hub', () => {
  let hub: FakeHub
  beforeEach(async () => {
    hub = await new FakeHub('org/speech', 'datasets').start()
    const cache = mkdtempSync(join(directory, 'hub-'))
    for (const name of Object.keys(process.env))
      if (/^(?:HF|HUGGING_?FACE|TRANSFORMERS)_/.test(name)) vi.stubEnv(name, undefined)
    vi.stubEnv('HF_ENDPOINT', hub.endpoint)
    vi.stubEnv('HF_HUB_CACHE', cache)
  })
  afterEach(async () => {
    vi.unstubAllEnvs()
    await hub.stop()
  })

  it('downloads the files of the split, once', async () => {
    hub.put(
      'README.md',
      '---\nconfigs:\n- data_files:\n  - split: train\n    path: data/train-*\n  - split: test\n    path: t.jsonl\n---\n',
    )
    for (const name of shards) hub.put(`data/${name}`, bytesOf(name))
    hub.put('t.jsonl', lines(0, 2))
    hub.put('other.bin', 'not needed')
    const dataset = await loadDataset<Row>('org/speech')
    expect((await gather(dataset.iterate())).map(({ id }) => id)).toEqual(ids(0, 100))
    expect(dataset.features).toEqual({ audio: 'audio' })
    expect(hub.downloads('other.bin')).toHaveLength(0)
    expect(hub.downloads('t.jsonl')).toHaveLength(0)
    expect(await idsOf('org/speech', { split: 'test' })).toEqual([0, 1])
    expect(await idsOf('org/speech', { offline: true })).toEqual(ids(0, 100))
    expect(hub.downloads(`data/${shards[0]}`)).toHaveLength(1)
    expect(hub.downloads('README.md')).toHaveLength(1)
    expect(await failure(loadDataset('org/other', { retries: 0 }))).toMatchObject({ code: 'ERR_HUB' })
  })

  it('needs no README.md', async () => {
    hub.put('train.jsonl', lines(0, 3))
    hub.put('test.jsonl', lines(3, 4))
    expect(await idsOf('org/speech')).toEqual([0, 1, 2])
    expect(hub.downloads('test.jsonl')).toHaveLength(0)
    expect(await failure(loadDataset('org/speech', { split: 'dev' }))).toBeInstanceOf(ConfigError)
  })
})

describe('loadDataset: tar files', () => {
  const text = (value: string) => Buffer.from(value)
  const shard = (from: number, to: number) =>
    archive(
      ...ids(from, to).flatMap((id) => [
        makeTar(`d/${id}.json`, {}, text(JSON.stringify({ id }))),
        makeTar(`d/${id}.txt`, {}, text(`text ${id}`)),
        makeTar(`d/${id}.cls`, {}, text(`${id}\n`)),
        makeTar(`d/${id}.left.wav`, {}, text(`wav ${id}`)),
        makeTar(`d/${id}.bin`, {}, text('\0')),
      ]),
    )

  it('groups files by key over shards with braces', async () => {
    const path = folder({ 's-0.tar': shard(0, 3), 's-1.tar': shard(3, 5), 's-2.tar': shard(5, 6) })
    const rows = await gather((await loadDataset(join(path, 's-{0..2}.tar'))).iterate())
    expect(rows.map(({ __key__ }) => __key__)).toEqual(ids(0, 6).map((id) => `d/${id}`))
    expect(rows[4]).toEqual({
      __key__: 'd/4',
      __url__: join(path, 's-1.tar'),
      json: { id: 4 },
      txt: 'text 4',
      cls: 4,
      'left.wav': { bytes: text('wav 4'), path: 'd/4.left.wav' },
      bin: text('\0'),
    })
    const third = (await loadDataset(join(path, 's-?.tar'), { columns: ['cls'] })).iterate({
      shard: 1,
      shards: 3,
      skip: 2,
    })
    expect(await gather(third)).toEqual([{ cls: 4 }])
    const packed = folder({ 'a.tar.gz': gzipSync(shard(0, 2)) })
    expect(await gather((await loadDataset(packed)).iterate())).toHaveLength(2)
  })

  it('refuses hostile and damaged archives by key', async () => {
    const rowsOf = async (...parts: Buffer[]) => {
      const dataset = await loadDataset(join(folder({ 'a.tar': archive(...parts) }), 'a.tar'))
      return gather(dataset.iterate())
    }
    const member = (name: string, content = 'x') => makeTar(name, {}, text(content))
    expect(await failure(rowsOf(member('../a.txt')))).toMatchObject({ entry: '../a.txt' })
    expect(await failure(rowsOf(member('a.txt'), member('a.txt')))).toMatchObject({ key: 'a' })
    expect((await failure(rowsOf(member('a.json', '{')))).message).toContain('"a.json"')
    expect(await failure(rowsOf(member('a.cls', '1.5')))).toMatchObject({ key: 'a' })
    expect(await failure(rowsOf(member('a.__proto__')))).toMatchObject({ key: 'a' })
    expect(await failure(rowsOf(makeTar('a.wav', { size: '77777777777' }, text('x'))))).toBeInstanceOf(DataError)
    const many = Array.from({ length: 1001 }, (_, i) => member(`a.x${i}`))
    expect((await failure(rowsOf(...many))).message).toContain('at most 1000 files')
    // Files without an extension are left out; a bad record does not end the stream.
    expect(await rowsOf(member('.DS_Store'), member('LICENSE'), member('a.txt'))).toHaveLength(1)
    const path = join(folder({ 'a.tar': archive(member('a.json', '{'), member('b.json', '{}')) }), 'a.tar')
    const dataset = await loadDataset(path, { onBadRecord: 'skip' })
    expect((await gather(dataset.iterate())).map(({ __key__ }) => __key__)).toEqual(['b'])
    expect((await gather(dataset.iterate({ takesBadRecords: true })))[0]).toBeInstanceOf(BadRecord)
  })
})

describe('a StreamingDataset in a DataLoader', () => {
  it('begins at any record, for any number of readers', async () => {
    const dataset = await loadDataset<Row>(mixed())
    for (const skip of [0, 1, 24, 25, 60, 99, 100, 101, 136, 137, 200]) {
      for (const shards of [1, 3]) {
        for (let shard = 0; shard < shards; shard++) {
          const expected = ids(0, 137).filter((id) => id >= skip && id % shards === shard)
          expect((await gather(dataset.iterate({ skip, shard, shards }))).map(({ id }) => id)).toEqual(expected)
        }
      }
    }
  })

  it('shuffles files in another order each epoch', async () => {
    const dataset = await loadDataset<Row>(mixed(), { shuffleFiles: true, seed: 1 })
    const orders = await Promise.all([0, 0, 1].map((epoch) => gather(dataset.iterate({ epoch }))))
    expect(orders[0]).toEqual(orders[1])
    expect(orders[0]).not.toEqual(orders[2])
    expect((orders[2] as Row[]).map(({ id }) => id).sort((a, b) => a - b)).toEqual(ids(0, 137))
  })

  // A worker takes a quarter of a second to start: streams.slow.test.ts tries more of them, and kills.
  it.each([
    [0, 0, ids(0, 35)],
    [0, 20, ids(0, 35)],
    [0, 500, ids(0, 35)],
    [2, 20, [16]],
  ])('goes on after each batch without loss or repetition: %i workers, buffer %i, 2 ranks', expectResumes)

  it('does not read again what came before', async () => {
    const source = folder({ 'a.jsonl': lines(0, 500) })
    const path = join(source, 'a.jsonl')
    const first = new DataLoader<Row>(await loadDataset<Row>(source), { batchSize: 10, shuffleBuffer: 20 })
    let state = first.state()
    let batches = 0
    for await (const _ of first) {
      state = first.state()
      if (++batches === 40) break
    }
    // The first lines are no longer JSON, and nobody parses them.
    const bytes = readFileSync(path)
    bytes.fill('x', 0, 5)
    writeFileSync(path, bytes)
    const second = new DataLoader<Row>(await loadDataset<Row>(source), { batchSize: 10, shuffleBuffer: 20 })
    second.loadState(state)
    expect((await gather(second)).flat()).toHaveLength(100)
  })

  it('counts bad records once, before and after resuming', async () => {
    const bad = lines(0, 40).replace('{"id":3}', '{').replace('{"id":30}', '[]')
    const source = folder({ 'a.jsonl': bad })
    for (const shuffleBuffer of [0, 8]) {
      const make = async () =>
        new DataLoader<Row>(await loadDataset<Row>(source, { onBadRecord: 'skip' }), { batchSize: 5, shuffleBuffer })
      const whole = (await gather(await make())).flat().map(({ id }) => id)
      expect(whole).toHaveLength(38)
      for (const stop of [1, 3, 7]) {
        const first = await make()
        const taken: number[] = []
        let batches = 0
        for await (const batch of first) {
          taken.push(...batch.map(({ id }) => id))
          if (++batches === stop) break
        }
        const second = await make()
        second.loadState(JSON.parse(JSON.stringify(first.state())))
        taken.push(...(await gather(second)).flat().map(({ id }) => id))
        expect(taken).toEqual(whole)
        expect(second.badRecords).toBe(2)
      }
    }
  })

  it.each([0, 2])("names the place of a bad record in the loader's error: %i workers", async (workers) => {
    const path = join(folder({ 'a.tar': archive(makeTar('x/a.json', {}, Buffer.from('{'))) }), 'a.tar')
    const loader = await loaderOf([path], { workers, shuffleBuffer: 0 })
    expect(await failure(gather(loader))).toMatchObject({ code: 'ERR_DATA', file: path, key: 'x/a' })
    const missing = await loaderOf([mixed()[0] as string], { workers, shuffleBuffer: 0 })
    expect(await gather(missing)).toHaveLength(7)
  })

  it.each([0, 4])('refuses the state of another stream: buffer %i', async (shuffleBuffer) => {
    const stateOf = async (loader: DataLoader<Row>, after: number) => {
      let batches = 0
      for await (const _ of loader) if (++batches === after) break
      return JSON.parse(JSON.stringify(loader.state())) as ReturnType<typeof loader.state>
    }
    const options = { batchSize: 2, shuffleBuffer }
    // Streams that state no order.
    const plain = (length: number) =>
      new DataLoader<Row>({ iterate: () => ids(0, length).map((id) => ({ id })) }, options)
    const long = plain(10)
    long.loadState(await stateOf(plain(100), 30))
    expect((await failure(gather(long))).message).toContain('the stream that the state belongs to')
    const same = plain(100)
    same.loadState(await stateOf(plain(100), 50))
    expect(await gather(same)).toHaveLength(0)
    const source = folder({ 'train-a.jsonl': lines(0, 40), 'train-b.jsonl': lines(40, 80), 'test.jsonl': lines(0, 80) })
    const make = async (from: string, more: object) =>
      new DataLoader<Row>(await loadDataset<Row>(from, { shuffleFiles: true, seed: 1, ...more }), options)
    const state = await stateOf(await make(source, {}), 5)
    const other = folder({ 'train-a.jsonl': lines(0, 40), 'train-b.jsonl': lines(40, 81) })
    for (const [from, more, argument] of [
      [other, {}, 'dataset.files'],
      [source, { split: 'test' }, 'dataset.files'],
      [source, { shuffleFiles: false, seed: undefined }, 'dataset.shuffleFiles'],
      [source, { seed: 2 }, 'dataset.seed'],
    ] as const) {
      const loader = await make(from, more)
      expect(() => loader.loadState(state)).toThrow(expect.objectContaining({ argument }))
      const workerData = { source: from, options: { shuffleFiles: true, seed: 1, ...more }, library }
      const threads = new DataLoader<Row>(url, { ...options, workers: 1, workerData })
      threads.loadState(state)
      expect(await failure(gather(threads))).toMatchObject({ argument })
    }
  })

  it('leaves no requests to persistent workers behind after resuming', async () => {
    const make = () => {
      const options = { batchSize: 4, workers: 2, prefetch: 16, shuffleBuffer: 20, persistentWorkers: true }
      return new DataLoader<Row>(url, { ...options, workerData: { source: mixed(), library } })
    }
    const first = make()
    const states: string[] = []
    const epochs: Row[][][] = [[], []]
    for await (const batch of first) {
      epochs[0]?.push(batch)
      states.push(JSON.stringify(first.state()))
    }
    for await (const batch of first) epochs[1]?.push(batch)
    await first.close()
    const second = make()
    second.loadState(JSON.parse(states.at(-3) as string))
    expect(await gather(second)).toEqual(epochs[0]?.slice(-2))
    expect(await gather(second)).toEqual(epochs[1])
    await second.close()
  })
})
