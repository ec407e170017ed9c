import { type ChildProcess, spawn } from 'node:child_process'
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { hostname, tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { PATIENCE } from '../patience.js'
import { content, FakeHub, ids, tiny } from './server.js'

const script = fileURLToPath(new URL('./fetch.mjs', import.meta.url))
const library = new URL('../../dist/index.js', import.meta.url).href

let hub: FakeHub
let cacheDir: string

beforeEach(async () => {
  hub = await tiny(new FakeHub()).start()
  cacheDir = mkdtempSync(join(tmpdir(), 'voxtorch-hub-'))
})

afterEach(async () => {
  await hub.stop()
  rmSync(cacheDir, { recursive: true, force: true })
})

interface Run {
  child: ChildProcess
  ended: Promise<{ code: number | null; text: string }>
}

function run(options: Record<string, unknown> = {}, flags: string[] = []): Run {
  const env = {
    ...Object.fromEntries(
      Object.entries(process.env).filter(([name]) => !/^(?:HF|HUGGING_?FACE|TRANSFORMERS)_/.test(name)),
    ),
    HF_ENDPOINT: hub.endpoint,
    HF_HOME: join(cacheDir, 'home'),
    HF_HUB_CACHE: cacheDir,
  }
  const child = spawn(process.execPath, [...flags, script, library, 'org/tiny', JSON.stringify(options)], { env })
  let text = ''
  for (const stream of [child.stdout!, child.stderr!]) stream.on('data', (data) => (text += data))
  return { child, ended: new Promise((resolve) => child.on('close', (code) => resolve({ code, text }))) }
}

const store = () => join(cacheDir, 'models--org--tiny')
const weights = () => hub.files.get('model.safetensors')!
const partial = () => join(store(), 'blobs', `${ids(weights()).sha256}.voxtorch.incomplete`)
const lock = () => join(cacheDir, '.locks/models--org--tiny', `${ids(weights()).sha256}.voxtorch`)

/** Sends a megabyte and no more. */
const hang: FakeHub['cdn'] = (_request, response, bytes) => {
  response.writeHead(200, { 'content-length': bytes.length })
  response.write(bytes.subarray(0, 1_000_000))
  return true
}

async function until(condition: () => boolean): Promise<void> {
  for (const end = performance.now() + PATIENCE; !condition() && performance.now() < end; ) await sleep(25)
  expect(condition()).toBe(true)
}

test('three processes at once fetch each file once', async () => {
  hub.cdn = (request, response, bytes) => {
    setTimeout(() => content(request, response, bytes, {}), 1500)
    return true
  }
  const runs = [run(), run(), run()]
  const results = await Promise.all(runs.map(({ ended }) => ended))
  for (const { code, text } of results) {
    expect(text).toBe(`${join(store(), 'snapshots', hub.commit)}\n`)
    expect(code).toBe(0)
  }
  expect(hub.fromCdn('model.safetensors')).toHaveLength(1)
  expect(hub.downloads('config.json')).toHaveLength(1)
  expect(readFileSync(join(store(), 'snapshots', hub.commit, 'model.safetensors')).equals(weights())).toBe(true)
  expect(readdirSync(join(store(), 'blobs'))).toHaveLength(3)
  expect(readdirSync(join(store(), 'snapshots', hub.commit))).toHaveLength(3)
  expect(existsSync(lock())).toBe(false)
})

test('a killed process leaves what it fetched, and the next continues at once', async () => {
  hub.cdn = hang
  const first = run({ timeout: 60 })
  await until(() => existsSync(partial()) && statSync(partial()).size >= 1_000_000)
  first.child.kill('SIGKILL')
  await first.ended
  expect(existsSync(lock())).toBe(true)
  hub.cdn = () => false
  hub.seen.length = 0
  const { code, text } = await run().ended
  expect(text).toContain(hub.commit)
  expect(code).toBe(0)
  expect(hub.fromCdn('model.safetensors').map(({ range }) => range)).toEqual(['bytes=1000000-'])
  expect(existsSync(lock())).toBe(false)
})

test('a process takes over when the one it waits for is killed', async () => {
  hub.cdn = (request, response, bytes, nth) => nth === 1 && hang(request, response, bytes, nth)
  const first = run({ timeout: 60 })
  await until(() => existsSync(partial()) && statSync(partial()).size >= 1_000_000)
  const second = run({ timeout: 60 })
  await until(() => hub.seen.filter(({ path }) => path.endsWith('/revision/main')).length === 2)
  await sleep(300)
  expect(hub.fromCdn('model.safetensors')).toHaveLength(1)
  first.child.kill('SIGKILL')
  expect((await second.ended).code).toBe(0)
  expect(hub.fromCdn('model.safetensors').map(({ range }) => range)).toEqual([undefined, 'bytes=1000000-'])
})

test("another machine's lock holds while it is touched, and not for ever", async () => {
  mkdirSync(join(cacheDir, '.locks/models--org--tiny'), { recursive: true })
  const write = (host: string) => writeFileSync(lock(), JSON.stringify({ host, pid: process.pid, id: 'x' }))
  write('another')
  const waiting = run()
  await until(() => hub.downloads('config.json').length === 1)
  await sleep(500)
  expect(waiting.child.exitCode).toBeNull()
  expect(hub.fromCdn('model.safetensors')).toHaveLength(0)
  const old = new Date(Date.now() - 120_000)
  utimesSync(lock(), old, old)
  expect((await waiting.ended).code).toBe(0)
  // The same for a process of this machine that lives.
  rmSync(store(), { recursive: true })
  write(hostname())
  const again = run()
  await sleep(1500)
  expect(again.child.exitCode).toBeNull()
  rmSync(lock())
  expect((await again.ended).code).toBe(0)
})

test('without the optional package, fetching says which command installs it; the cache works', async () => {
  const hook = `import { register } from 'node:module'
register('data:text/javascript,' + encodeURIComponent(\`export async function resolve(name, context, next) {
  if (name !== '@huggingface/hub') return next(name, context)
  throw Object.assign(new Error('Cannot find package'), { code: 'ERR_MODULE_NOT_FOUND' })
}\`))`
  const flags = ['--import', `data:text/javascript,${encodeURIComponent(hook)}`]
  const missing = await run({}, flags).ended
  expect(missing.text).toMatch(/^ConfigError .*npm install @huggingface\/hub/)
  expect((await run().ended).code).toBe(0)
  expect((await run({ offline: true }, flags).ended).text).toContain(hub.commit)
})
