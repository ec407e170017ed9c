import {
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import {
  CancelledError,
  CheckpointError,
  ConfigError,
  HubError,
  type ResolveModelOptions,
  resolveModel,
  Tokenizer,
} from '../../lib/index.js'
import { PATIENCE } from '../patience.js'
import { content, FakeHub, ids, json, refuse, tiny } from './server.js'

let hub: FakeHub
let cacheDir: string

beforeEach(async () => {
  hub = await tiny(new FakeHub()).start()
  cacheDir = mkdtempSync(join(tmpdir(), 'voxtorch-hub-'))
  for (const name of Object.keys(process.env))
    if (/^(?:HF|HUGGING_?FACE|TRANSFORMERS)_/.test(name)) vi.stubEnv(name, undefined)
  vi.stubEnv('HF_ENDPOINT', hub.endpoint)
  vi.stubEnv('HF_HOME', join(cacheDir, 'home'))
  vi.stubEnv('HF_HUB_CACHE', cacheDir)
})

afterEach(async () => {
  vi.unstubAllEnvs()
  await hub.stop()
  rmSync(cacheDir, { recursive: true, force: true })
})

const fast: ResolveModelOptions = { timeout: 20, retries: 2 }
const impatient: ResolveModelOptions = { timeout: 2 }
const fetchTiny = (options: ResolveModelOptions = {}) => resolveModel('org/tiny', { ...fast, ...options })
const store = () => join(cacheDir, 'models--org--tiny')
const blobs = () => readdirSync(join(store(), 'blobs')).sort()
const weights = () => hub.files.get('model.safetensors')!
const partial = () => join(store(), 'blobs', `${ids(weights()).sha256}.voxtorch.incomplete`)

async function failure(work: Promise<unknown>): Promise<HubError> {
  const error = await work.then(
    () => undefined,
    (caught: unknown) => caught,
  )
  expect(error).toBeInstanceOf(HubError)
  return error as HubError
}

test('a folder is returned as it is, and a path without a folder is refused', async () => {
  expect(await resolveModel(cacheDir)).toBe(cacheDir)
  for (const path of ['./nothing', '/nothing/here', '../nothing', '~/nothing', '']) {
    await expect(resolveModel(path), path).rejects.toThrow(CheckpointError)
  }
  const file = join(cacheDir, 'file')
  writeFileSync(file, '')
  await expect(resolveModel(file)).rejects.toThrow(/expected a folder, got a file/)
  expect(hub.seen).toEqual([])
})

test('a misspelt name of published weights is told from a repository, and asks nobody', async () => {
  for (const [name, meant] of [
    ['whisper-bse', 'whisper-base'],
    ['whisperbase', 'whisper-base'],
    ['smollm2-135m-instuct', 'smollm2-135m-instruct'],
    ['minlm', 'minilm'],
    ['silero-vda', 'silero-vad'],
  ]) {
    const error = await resolveModel(name as string).catch((caught: unknown) => caught as Error)
    expect(error).toBeInstanceOf(CheckpointError)
    expect(String(error)).toContain(`${name}: there is no such folder and no such weights. Did you mean '${meant}'?`)
    await expect(Tokenizer.fromPretrained(name as string)).rejects.toThrow(`Did you mean '${meant}'?`)
  }
  expect(hub.seen).toEqual([])
  // Old repositories of the Hub have no owner, and names that are not near.
  for (const name of ['gpt2', 'roberta-base', 'bert-base-uncased', 't5-small', 'distilbert-base-uncased', 'nix']) {
    await expect(resolveModel(name, { offline: true }), name).rejects.toThrow(
      `${name}: there is no such folder and no such weights (there are whisper-base, `,
    )
  }
})

test('arguments are checked before anything is asked', async () => {
  for (const name of ['a/b/c', 'a b', '-a/b', 'a/b.', 'a--b/c', 'org/na..me', 'org/', 'é/b', `a/${'x'.repeat(97)}`]) {
    await expect(resolveModel(name), name).rejects.toThrow(ConfigError)
  }
  const wrong: Record<string, unknown>[] = [
    { revision: '../x' },
    { revision: 'a//b' },
    { revision: 'x?y' },
    { revision: 3 },
    { files: 'config.json' },
    { files: [3] },
    { token: 'a b' },
    { token: 3 },
    { timeout: 0 },
    { timeout: '3' },
    { retries: -1 },
    { retries: 1.5 },
    { signal: {} },
    { progress: 'yes' },
    { cacheDir: 3 },
    { offline: 1 },
  ]
  for (const options of wrong) await expect(fetchTiny(options), JSON.stringify(options)).rejects.toThrow(ConfigError)
  expect(await fetchTiny({ token: 'hf_sec ret' }).catch(String)).not.toContain('ret')
  vi.stubEnv('HF_ENDPOINT', 'ftp://x')
  await expect(fetchTiny()).rejects.toThrow(ConfigError)
  expect(hub.seen).toEqual([])
})

test('fetches what a model needs into the layout of huggingface_hub', async () => {
  const folder = await fetchTiny()
  expect(folder).toBe(join(store(), 'snapshots', hub.commit))
  expect(readdirSync(folder).sort()).toEqual(['config.json', 'model.safetensors', 'vocab.json'])
  for (const name of readdirSync(folder)) {
    const bytes = hub.files.get(name)!
    expect(readFileSync(join(folder, name)).equals(bytes)).toBe(true)
    const { oid, sha256 } = ids(bytes)
    expect(readlinkSync(join(folder, name))).toBe(`../../blobs/${name.endsWith('.safetensors') ? sha256 : oid}`)
  }
  expect(readFileSync(join(store(), 'refs/main'), 'utf8')).toBe(hub.commit)
  expect(blobs()).toHaveLength(3)
  expect(readdirSync(join(cacheDir, '.locks/models--org--tiny'))).toEqual([])
  const tree = JSON.parse(readFileSync(join(store(), 'trees', `${hub.commit}.json`), 'utf8'))
  expect(tree.format_version).toBe(1)
  expect(tree.files['model.safetensors']).toEqual({
    size: 3_000_000,
    blob_id: ids(weights()).oid,
    lfs_sha256: ids(weights()).sha256,
    lfs_size: 3_000_000,
  })
})

test('asks once more for the commit, and for nothing that is there', async () => {
  await fetchTiny()
  hub.seen.length = 0
  await fetchTiny()
  expect(hub.seen.map(({ path }) => path)).toEqual(['/api/models/org/tiny/revision/main'])
  hub.seen.length = 0
  await fetchTiny({ revision: hub.commit })
  expect(hub.seen).toEqual([])
})

test('a new commit shares the contents that did not change', async () => {
  const before = await fetchTiny()
  hub.commit = 'f'.repeat(40)
  hub.put('config.json', '{"hidden_size": 8}')
  hub.seen.length = 0
  const after = await fetchTiny()
  expect(hub.seen.filter(({ path }) => path.includes('/resolve/')).map(({ path }) => path.split('/').pop())).toEqual([
    'config.json',
  ])
  expect(readFileSync(join(after, 'config.json'), 'utf8')).toContain('8')
  expect(readFileSync(join(before, 'config.json'), 'utf8')).toContain('4')
})

test('pickled weights come only where there are no safetensors, in one form', async () => {
  hub.files.delete('model.safetensors')
  hub.put('training_args.bin', 'x')
  hub.put('consolidated.pth', 'x')
  expect(readdirSync(await fetchTiny()).sort()).toEqual(['config.json', 'pytorch_model.bin', 'vocab.json'])
})

test('patterns choose files as in huggingface_hub', async () => {
  expect(readdirSync(await fetchTiny({ files: ['onnx/', 'READ?E.[lm]d', '*fig.json'] })).sort()).toEqual([
    'README.md',
    'config.json',
    'onnx',
  ])
  expect((await failure(fetchTiny({ files: ['nothing*'] }))).reason).toBe('not-found')
  // Exponential in a pattern compiled to a regular expression.
  hub.put('a'.repeat(200), 'x')
  hub.commit = 'e'.repeat(40)
  expect((await failure(fetchTiny({ files: [`${'*a'.repeat(50)}b`] }))).reason).toBe('not-found')
})

test('long lists come in pages', async () => {
  hub.pageSize = 2
  expect(readdirSync(await fetchTiny())).toHaveLength(3)
  expect(hub.seen.filter(({ path }) => path.includes('/tree/'))).toHaveLength(4)
})

test('the token goes to the hub and not to the CDN, nor to where a list leads', async () => {
  hub.token = 'hf_secret'
  vi.stubEnv('HF_TOKEN', 'hf_secret')
  const elsewhere = await tiny(new FakeHub()).start()
  try {
    hub.api = (request, response) => {
      if (!request.url!.includes('/tree/')) return false
      response.setHeader('link', `<${elsewhere.endpoint}${request.url}>; rel="next"`)
      json(response, [])
      return true
    }
    await fetchTiny()
    expect(
      hub.seen
        .filter(({ server }) => server === 'hub')
        .every(({ authorization }) => authorization === 'Bearer hf_secret'),
    ).toBe(true)
    expect(hub.fromCdn('model.safetensors')).toHaveLength(1)
    expect(hub.fromCdn('model.safetensors')[0]!.authorization).toBeUndefined()
    expect(elsewhere.seen.length).toBeGreaterThan(0)
    expect(elsewhere.seen.every(({ authorization }) => authorization === undefined)).toBe(true)
  } finally {
    await elsewhere.stop()
  }
})

test('the token comes from the file that a login wrote, and false sends none', async () => {
  hub.token = 'hf_stored'
  mkdirSync(join(cacheDir, 'home'))
  writeFileSync(join(cacheDir, 'home/token'), 'hf_stored\n')
  expect((await failure(fetchTiny({ token: false }))).reason).toBe('access')
  vi.stubEnv('HF_HUB_DISABLE_IMPLICIT_TOKEN', '1')
  expect((await failure(fetchTiny())).reason).toBe('access')
  vi.stubEnv('HF_HUB_DISABLE_IMPLICIT_TOKEN', undefined)
  await fetchTiny()
})

test.each([
  [401, undefined, 'access', /HF_TOKEN/],
  [403, undefined, 'access', /HF_TOKEN/],
  [403, 'GatedRepo', 'access', /gated/],
  [401, 'RepoNotFound', 'not-found', /Check the name/],
  [404, 'RepoNotFound', 'not-found', /Check the name/],
  [404, 'RevisionNotFound', 'not-found', /revision/],
  [418, undefined, 'network', /418/],
] as const)('status %d %s is a HubError at once', async (status, code, reason, message) => {
  hub.api = (_request, response) => {
    refuse(response, status, code)
    return true
  }
  const error = await failure(fetchTiny())
  expect(error).toMatchObject({ reason, status, code: 'ERR_HUB' })
  expect(error.message).toMatch(message)
  expect(hub.seen).toHaveLength(1)
  expect(existsSync(store())).toBe(false)
})

test('an unknown revision is not found', async () => {
  expect((await failure(fetchTiny({ revision: 'v9' }))).reason).toBe('not-found')
})

test.each([500, 502, 503, 504, 429, 408])('status %d is tried again, by the list and by the file', async (status) => {
  const twice = (_request: unknown, response: Parameters<typeof refuse>[0], _bytes: Buffer, nth: number) => {
    if (nth > 2) return false
    refuse(response, status, undefined, { 'retry-after': '0' })
    return true
  }
  hub.api = twice
  hub.file = twice
  await fetchTiny()
  expect(hub.downloads('config.json')).toHaveLength(3)
})

test('a status that stays is a network error with the status', async () => {
  hub.file = (_request, response) => {
    refuse(response, 503)
    return true
  }
  expect(await failure(fetchTiny({ retries: 1 }))).toMatchObject({ reason: 'network', status: 503 })
  hub.file = (_request, response) => {
    refuse(response, 429, undefined, { 'retry-after': '3600' })
    return true
  }
  const start = performance.now()
  expect(await failure(fetchTiny({ retries: 1 }))).toMatchObject({ reason: 'network', status: 429 })
  expect(performance.now() - start).toBeLessThan(PATIENCE)
})

test('a connection dropped in the middle is continued, not begun again', async () => {
  hub.cdn = (request, response, bytes, nth) => {
    if (nth > 3) return false
    // What follows the range asked for, 700 kB of it.
    const from = Number(/\d+/.exec(request.headers.range ?? '0')![0])
    response.writeHead(from > 0 ? 206 : 200, {
      'content-length': bytes.length - from,
      ...(from > 0 && { 'content-range': `bytes ${from}-${bytes.length - 1}/${bytes.length}` }),
    })
    response.write(bytes.subarray(from, from + 700_000), () => setTimeout(() => response.destroy(), 20))
    return true
  }
  const folder = await fetchTiny()
  expect(readFileSync(join(folder, 'model.safetensors')).equals(weights())).toBe(true)
  const ranges = hub.fromCdn('model.safetensors').map(({ range }) => Number(/\d+/.exec(range ?? '0')![0]))
  expect(ranges).toHaveLength(4)
  expect(ranges[0]).toBe(0)
  for (let i = 1; i < 4; i++) expect(ranges[i]).toBeGreaterThan(ranges[i - 1]! + 600_000)
})

test('what an earlier call left is continued from', async () => {
  hub.cdn = (_request, response, bytes) => {
    response.writeHead(200, { 'content-length': bytes.length })
    response.write(bytes.subarray(0, 1_000_000), () => setTimeout(() => response.destroy(), 20))
    return true
  }
  expect((await failure(fetchTiny({ retries: 0 }))).reason).toBe('network')
  expect(existsSync(join(store(), 'snapshots', hub.commit, 'model.safetensors'))).toBe(false)
  expect(existsSync(join(store(), 'refs'))).toBe(false)
  const left = lstatSync(partial()).size
  expect(left).toBeGreaterThan(900_000)
  hub.cdn = () => false
  hub.seen.length = 0
  await fetchTiny()
  expect(hub.fromCdn('model.safetensors').map(({ range }) => range)).toEqual([`bytes=${left}-`])
  expect(existsSync(partial())).toBe(false)
})

test('a damaged or too long rest is thrown away and fetched anew', async () => {
  for (const rest of [Buffer.alloc(1_000_000, 'x'), Buffer.alloc(3_000_000, 'x'), Buffer.alloc(4_000_000, 'x')]) {
    mkdirSync(join(store(), 'blobs'), { recursive: true })
    writeFileSync(partial(), rest)
    expect(readFileSync(join(await fetchTiny(), 'model.safetensors')).equals(weights())).toBe(true)
    rmSync(store(), { recursive: true })
  }
})

test('a server without ranges is asked for the whole file', async () => {
  mkdirSync(join(store(), 'blobs'), { recursive: true })
  writeFileSync(partial(), weights().subarray(0, 1000))
  hub.cdn = (_request, response, bytes) => {
    response.writeHead(200, { 'content-length': bytes.length })
    response.end(bytes)
    return true
  }
  expect(readFileSync(join(await fetchTiny(), 'model.safetensors')).equals(weights())).toBe(true)
})

test('a stall is given up after the timeout and continued', async () => {
  hub.cdn = (_request, response, bytes, nth) => {
    if (nth > 1) return false
    response.writeHead(200, { 'content-length': bytes.length })
    response.write(bytes.subarray(0, 1_000_000))
    return true
  }
  const start = performance.now()
  await fetchTiny(impatient)
  expect(performance.now() - start).toBeGreaterThan(1990)
  expect(hub.fromCdn('model.safetensors')[1]!.range).toMatch(/^bytes=[1-9]/)
})

test('servers that never answer, or trickle without getting anywhere, are a network error', async () => {
  hub.api = () => true
  expect((await failure(fetchTiny({ ...impatient, retries: 1 }))).message).toMatch(
    /less than 1024 bytes arrived within 2 s/,
  )
  hub.api = (_request, response) => {
    const more = () => response.write(' ', () => response.destroyed || setTimeout(more, 200))
    more()
    return true
  }
  expect((await failure(fetchTiny({ ...impatient, retries: 1 }))).message).toMatch(/less than 1024 bytes arrived/)
  hub.api = () => false
  hub.cdn = (request, response, bytes) => {
    const from = Number(/\d+/.exec(request.headers.range ?? '0')![0])
    response.writeHead(from > 0 ? 206 : 200, {
      'content-length': bytes.length - from,
      ...(from > 0 && { 'content-range': `bytes ${from}-${bytes.length - 1}/${bytes.length}` }),
    })
    response.write(bytes.subarray(from, from + 1), () => setTimeout(() => response.destroy(), 5))
    return true
  }
  expect((await failure(fetchTiny({ retries: 2 }))).reason).toBe('network')
  expect(hub.fromCdn('model.safetensors').length).toBe(3)
})

test('no server at all is a network error', async () => {
  vi.stubEnv('HF_ENDPOINT', 'http://127.0.0.1:9')
  expect(await failure(fetchTiny({ retries: 0 }))).toMatchObject({ reason: 'network' })
})

test.each([
  ['another content of the same length', (bytes: Buffer) => Buffer.alloc(bytes.length, 'evil')],
  ['one bit', (bytes: Buffer) => Buffer.from(bytes.map((byte, i) => (i === bytes.length >> 1 ? byte ^ 1 : byte)))],
])('%s is never shown: the hash is checked', async (_name, spoil) => {
  hub.cdn = (request, response, bytes) => {
    content(request, response, spoil(bytes), {})
    return true
  }
  expect((await failure(fetchTiny())).reason).toBe('integrity')
  hub.cdn = () => false
  hub.file = (request, response, bytes) => {
    content(request, response, spoil(bytes), {})
    return true
  }
  hub.files.delete('model.safetensors')
  hub.commit = 'd'.repeat(40)
  expect((await failure(fetchTiny())).message).toMatch(/hash/)
  for (const commit of readdirSync(join(store(), 'snapshots'))) {
    expect(
      readdirSync(join(store(), 'snapshots', commit)).filter((name) => name !== 'vocab.json' && name !== 'config.json'),
    ).toEqual([])
  }
  expect(blobs().filter((name) => name.endsWith('.incomplete'))).toEqual([])
})

test.each([
  ['more than listed, announced', (bytes: Buffer) => ({ bytes: Buffer.concat([bytes, bytes]), announce: true })],
  ['more than listed, not announced', (bytes: Buffer) => ({ bytes: Buffer.concat([bytes, bytes]), announce: false })],
  ['less than listed, announced', (bytes: Buffer) => ({ bytes: bytes.subarray(0, 5), announce: true })],
])('a lie about the size: %s', async (_name, spoil) => {
  hub.cdn = (_request, response, whole) => {
    const { bytes, announce } = spoil(whole)
    response.writeHead(200, announce ? { 'content-length': bytes.length } : {})
    response.end(bytes)
    return true
  }
  expect((await failure(fetchTiny())).reason).toBe('integrity')
  expect(hub.fromCdn('model.safetensors')).toHaveLength(1)
  if (existsSync(partial())) expect(lstatSync(partial()).size).toBeLessThanOrEqual(3_000_000)
})

test('a truncated answer without a length is asked on, then given up', async () => {
  hub.cdn = (_request, response, bytes) => {
    response.writeHead(200)
    response.end(bytes.subarray(0, 100))
    return true
  }
  expect((await failure(fetchTiny({ retries: 1 }))).message).toMatch(/ended after 100 of 3000000 bytes/)
})

test('a range that is not the one asked for is a lie', async () => {
  mkdirSync(join(store(), 'blobs'), { recursive: true })
  writeFileSync(partial(), weights().subarray(0, 1000))
  hub.cdn = (_request, response, bytes) => {
    response.writeHead(206, { 'content-range': `bytes 500-${bytes.length - 1}/${bytes.length}` })
    response.end(bytes.subarray(500))
    return true
  }
  expect((await failure(fetchTiny())).reason).toBe('integrity')
})

const entry = { type: 'file', oid: '0'.repeat(40), size: 4, path: 'x.json' }
test.each([
  ['../evil', { path: '../evil.json' }],
  ['a/../../evil', { path: 'a/../../evil.json' }],
  ['/evil', { path: '/evil.json' }],
  ['a dot', { path: './x.json' }],
  ['an empty part', { path: 'a//x.json' }],
  ['NUL', { path: 'x\0.json' }],
  ['half a character', { path: 'x\ud800.json' }],
  ['no path', { path: 3 }],
  ['an endless path', { path: 'x/'.repeat(5000) }],
  ['a negative size', { size: -1 }],
  ['a size above 2^53', { size: 2 ** 60 }],
  ['a size that is a text', { size: '4' }],
  ['an id that is a path', { oid: '../../../evil' }],
  ['a sha256 that is a path', { lfs: { oid: '../../../evil', size: 4, pointerSize: 1 } }],
  ['null', null],
])('a list with %s is refused', async (_name, change) => {
  hub.list = (entries) => [...entries, change === null ? null : { ...entry, ...change }]
  // An entry that is no file is none of ours.
  if (change === null) await fetchTiny()
  else expect((await failure(fetchTiny())).reason).toBe('integrity')
  expect(existsSync(join(cacheDir, 'evil.json'))).toBe(false)
  expect(readdirSync(cacheDir).filter((name) => !/^(?:models--org--tiny|\.locks)$/.test(name))).toEqual([])
})

test.each([
  ['no JSON', '<html>log in</html>'],
  ['no list', '{"error": 3}'],
  ['null', 'null'],
  ['nested without end', '['.repeat(100_000)],
  ['twenty megabytes of lists', `[${'[],'.repeat(7e6)}0]`],
])('an API that answers %s is refused', async (_name, text) => {
  hub.api = (_request, response) => {
    response.end(text)
    return true
  }
  expect((await failure(fetchTiny())).reason).toBe('integrity')
})

test('lists and answers without end are refused', async () => {
  hub.api = (request, response) => {
    if (!request.url!.includes('/tree/')) return false
    response.setHeader('link', `<${hub.endpoint}${request.url}>; rel="next"`)
    json(response, [])
    return true
  }
  expect((await failure(fetchTiny())).message).toMatch(
    /expected a file list of at most|expected JSON with limited nesting/,
  )
  // Pages of nothing, all of which are allowed one by one.
  const page = JSON.stringify(Array.from({ length: 300_000 }, () => 'no file at all: padding padding'))
  hub.api = (request, response) => {
    if (!request.url!.includes('/tree/')) return false
    response.setHeader('link', `<${hub.endpoint}${request.url}>; rel="next"`)
    response.end(page)
    return true
  }
  expect((await failure(fetchTiny())).message).toMatch(
    /expected a file list of at most|expected JSON with limited nesting/,
  )
  expect(hub.seen.length).toBeLessThan(1100)
  hub.api = (_request, response) => {
    const more = () => response.write(Buffer.alloc(1 << 20, ' '), () => response.destroyed || setImmediate(more))
    more()
    return true
  }
  expect((await failure(fetchTiny())).message).toMatch(/at most .* got more/)
})

test('a commit that is a path is refused', async () => {
  hub.commit = '../../evil'
  expect((await failure(fetchTiny())).reason).toBe('integrity')
})

test('offline uses the cache and asks nobody', async () => {
  expect((await failure(fetchTiny({ offline: true }))).reason).toBe('offline')
  const folder = await fetchTiny()
  await hub.stop()
  hub.seen.length = 0
  expect(await fetchTiny({ offline: true })).toBe(folder)
  vi.stubEnv('HF_HUB_OFFLINE', '1')
  expect(await fetchTiny()).toBe(folder)
  expect(await fetchTiny({ revision: hub.commit })).toBe(folder)
  expect((await failure(fetchTiny({ revision: 'v2' }))).reason).toBe('offline')
  expect((await failure(fetchTiny({ files: ['onnx/*'] }))).message).toMatch(
    /1 files \(first: onnx\/model.bin\) are missing/,
  )
  rmSync(join(folder, 'model.safetensors'))
  expect((await failure(fetchTiny())).message).toMatch(/model.safetensors/)
})

test('a server that is down is a warning when the cache has the revision', async () => {
  const folder = await fetchTiny()
  await hub.stop()
  const warnings: string[] = []
  const warn = vi.spyOn(process, 'emitWarning').mockImplementation((warning) => void warnings.push(String(warning)))
  expect(await fetchTiny()).toBe(folder)
  warn.mockRestore()
  expect(warnings).toHaveLength(1)
  expect(warnings[0]).toMatch(/using the cached version/)
})

test('a cache without a list, from older versions of huggingface_hub, is taken as it is', async () => {
  const folder = await fetchTiny()
  rmSync(join(store(), 'trees'), { recursive: true })
  expect(await fetchTiny({ offline: true })).toBe(folder)
  rmSync(join(folder, 'model.safetensors'))
  await fetchTiny({ revision: hub.commit })
  expect(existsSync(join(folder, 'model.safetensors'))).toBe(true)
  rmSync(join(store(), 'trees'), { recursive: true })
  writeFileSync(join(store(), 'refs/main'), '../../..')
  expect((await failure(fetchTiny({ offline: true }))).reason).toBe('offline')
})

test('a blob of the wrong length is fetched again', async () => {
  const folder = await fetchTiny()
  writeFileSync(join(store(), 'blobs', ids(weights()).sha256), 'torn')
  expect(readFileSync(join(await fetchTiny(), 'model.safetensors')).equals(weights())).toBe(true)
  expect(folder).toContain(hub.commit)
})

test('a full disk says so', async () => {
  mkdirSync(join(store(), 'blobs'), { recursive: true })
  symlinkSync('/dev/full', partial())
  const error = await failure(fetchTiny())
  expect(error).toMatchObject({ reason: 'storage' })
  expect(error.message).toMatch(/disk is full/)
  hub.list = (entries) =>
    entries.map((item) =>
      item.path === 'model.safetensors'
        ? { ...item, size: 2 ** 52, lfs: { oid: ids(weights()).sha256, size: 2 ** 52, pointerSize: 1 } }
        : item,
    )
  hub.commit = 'c'.repeat(40)
  rmSync(partial(), { force: true })
  expect((await failure(fetchTiny())).message).toMatch(/bytes of free space, got/)
})

test('a cache that cannot be written is a storage error', async () => {
  const file = join(cacheDir, 'file')
  writeFileSync(file, '')
  for (const bad of [join(file, 'x'), '/sys/voxtorch']) {
    expect(await failure(fetchTiny({ cacheDir: bad }))).toMatchObject({ reason: 'storage' })
  }
})

test('an aborted signal ends it at once, and the next call continues', async () => {
  const controller = new AbortController()
  hub.cdn = (_request, response, bytes) => {
    response.writeHead(200, { 'content-length': bytes.length })
    response.write(bytes.subarray(0, 1_000_000))
    return true
  }
  let start = 0
  const watch = setInterval(() => {
    if (!existsSync(partial()) || lstatSync(partial()).size === 0) return
    clearInterval(watch)
    start = performance.now()
    controller.abort()
  }, 10)
  await expect(fetchTiny({ signal: controller.signal, timeout: 10 })).rejects.toThrow(CancelledError)
  expect(performance.now() - start).toBeLessThan(PATIENCE)
  expect(lstatSync(partial()).size).toBeGreaterThan(0)
  await expect(fetchTiny({ signal: AbortSignal.abort() })).rejects.toThrow(CancelledError)
  hub.cdn = () => false
  await fetchTiny()
  expect(hub.fromCdn('model.safetensors').at(-1)!.range).toMatch(/^bytes=[1-9]/)
})

test('two calls at once fetch each file once', async () => {
  hub.cdn = (request, response, bytes) => {
    setTimeout(() => content(request, response, bytes, {}), 200)
    return true
  }
  const [a, b] = await Promise.all([fetchTiny(), fetchTiny()])
  expect(a).toBe(b)
  expect(hub.fromCdn('model.safetensors')).toHaveLength(1)
})

test('nothing is printed unless asked for, and then a bar that ends full', async () => {
  const written = vi.spyOn(process.stderr, 'write').mockReturnValue(true)
  const out = vi.spyOn(console, 'debug')
  await fetchTiny()
  expect(written).not.toHaveBeenCalled()
  expect(out).not.toHaveBeenCalled()
  written.mockRestore()
  rmSync(store(), { recursive: true })
  const lines: string[] = []
  await fetchTiny({ progress: { write: (text) => lines.push(text), isTTY: true, columns: 100 } })
  expect(lines.at(-2)).toMatch(/org\/tiny 100%.*4\/4.*MB\/s/)
})

test('the folder of the cache follows the environment as in Python', async () => {
  const at = async (variables: Record<string, string>) => {
    for (const name of ['HF_HUB_CACHE', 'HUGGINGFACE_HUB_CACHE', 'HF_HOME', 'XDG_CACHE_HOME', 'HOME'])
      vi.stubEnv(name, variables[name])
    return (await fetchTiny({ files: ['config.json'] })).split('/models--')[0]
  }
  const [a, b, c, d, e] = ['a', 'b', 'c', 'd', 'e'].map((name) => join(cacheDir, name)) as [
    string,
    string,
    string,
    string,
    string,
  ]
  const all = { HF_HUB_CACHE: a, HUGGINGFACE_HUB_CACHE: b, HF_HOME: c, XDG_CACHE_HOME: d, HOME: e }
  expect(await at(all)).toBe(a)
  expect(await at({ ...all, HF_HUB_CACHE: '' })).toBe(b)
  expect(await at({ HF_HOME: c, HOME: e })).toBe(`${c}/hub`)
  expect(await at({ XDG_CACHE_HOME: d, HOME: e })).toBe(`${d}/huggingface/hub`)
  expect(await at({ HOME: e })).toBe(`${e}/.cache/huggingface/hub`)
  expect(await at({ HF_HOME: '~/x', HOME: e })).toBe(`${e}/x/hub`)
  expect(await at({ HF_HUB_CACHE: '$HOME/y', HOME: e })).toBe(`${e}/y`)
})
