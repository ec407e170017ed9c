/** Right calls of the readers and writers of text files. Files go into the child's own working directory. */
import { readFileSync, rmSync, writeFileSync } from 'node:fs'
import { gunzipSync } from 'node:zlib'
import { add, type Loose, lib, of, options } from './define.js'
import { list } from './values.js'

// ---- readers: each first writes a valid file and then reads it

function reader(name: string, extension: string, text: string, settings: Record<string, unknown>): void {
  const path = `sound.${extension}`
  add(
    name,
    async (...args: Loose[]) => {
      if (args[0] === path) writeFileSync(path, text)
      const rows = await lib[name](...args)
      if (rows?.[Symbol.asyncIterator] === undefined) return undefined
      for await (const _ of rows);
      return undefined
    },
    of(path),
    ...(Object.keys(settings).length > 0 ? [of(path, options(settings))] : []),
  )
}

const table = { encoding: 'mixed', delimiter: ',', columns: list(['a', 'b']), relaxQuotes: true, maxRowLength: 100 }
reader('readJson', 'json', '{"a": [1, 2]}', {})
reader('readJsonl', 'jsonl', '{"a": 1}\n\n[2]\n', { skipBlank: true, maxLineBytes: 100 })
reader('readCsv', 'csv', 'a,b\n1,"2"\n', table)
reader('readCsvStream', 'csv', 'a,b\n1,"2"\n', table)
reader('readYaml', 'yaml', 'a: [1, 2]\n', { maxTokens: 100 })
reader('readConfig', 'yml', 'a: {b: 1e-4}\n', {})
reader('readTextGrid', 'TextGrid', '"ooTextFile" "TextGrid" 0 1 <exists> 0', { gaps: 'fill' })
reader('readUnits', 'txt', '1 2 3', { units: 10 })

const parquet = (
  JSON.parse(gunzipSync(readFileSync(new URL('../fixtures/data/parquet.json.gz', import.meta.url))).toString()) as {
    name: string
    file: string
  }[]
).find(({ name }) => name === 'types') as { file: string }
for (const name of ['readParquet', 'readParquetHeader']) {
  add(
    name,
    async (...args: Loose[]) => {
      if (args[0] === 'types.parquet') writeFileSync('types.parquet', Buffer.from(parquet.file, 'base64'))
      const rows = await lib[name](...args)
      if (rows?.[Symbol.asyncIterator] !== undefined) for await (const _ of rows);
    },
    of('types.parquet'),
    ...(name === 'readParquet' ? [of('types.parquet', options({ columns: list(['text', 'date']) }))] : []),
  )
}

const offline = (settings: Loose) => (settings?.constructor === Object ? { ...settings, offline: true } : settings)
add(
  'loadDataset',
  async (source: Loose, settings: Loose = {}) => {
    writeFileSync('rows.jsonl', '{"a": 1}\n{"a": "x.wav"}\n')
    const dataset = await lib.loadDataset(source, offline(settings))
    for await (const _ of dataset.iterate());
  },
  of('rows.jsonl'),
  of(list(['rows.jsonl', 'rows.{jsonl,jsonl}']), options({ columns: list(['a']), shuffleFiles: true, seed: 1 })),
  of('rows.*', options({ onBadRecord: 'skip', features: options({ a: 'audio' }), mediaRoot: '.', timeout: 1 })),
)

// ---- writers

function writer(name: string, ...right: unknown[][]): void {
  add(
    name,
    async (path, ...rest) => {
      await lib[name](path, ...rest)
      rmSync(path, { force: true })
    },
    ...right.map((args) => of('written.json', ...args)),
  )
}

writer('writeJson', [options({ a: list([1, 2]), b: 'x' })], [list([1]), options({ indent: 4 })])
writer('writeJsonl', [list([1, 2])])

// ---- the hub, which is never asked

add(
  'resolveModel',
  (model, settings = {}) => lib.resolveModel(model, offline(settings)),
  of('.'),
  of('.', options({ revision: 'main', files: list(['*.json']), token: 'x', cacheDir: '.', timeout: 1, retries: 0 })),
)
