import { createHash } from 'node:crypto'
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, beforeEach, expect, it, vi } from 'vitest'
import { CancelledError, CheckpointError, ConfigError, HubError, pushToHub } from '../../lib/index.js'

const home = mkdtempSync(join(tmpdir(), 'voxtorch-push-'))
const folder = join(home, 'model')
const weights = Buffer.from(Array.from({ length: 3000 }, (_, i) => i % 251))
mkdirSync(join(folder, 'nested'), { recursive: true })
mkdirSync(join(folder, '.git'))
writeFileSync(join(folder, 'config.json'), '{"model_type": "llama"}')
writeFileSync(join(folder, 'nested/model.safetensors'), weights)
writeFileSync(join(folder, '.git/HEAD'), 'a')

/** A server with the Hub's requests of an upload. */
const hub = {
  seen: [] as string[],
  tokens: new Set<string | undefined>(),
  stored: new Map<string, Buffer>(),
  created: [] as unknown[],
  commits: [] as { summary: string; files: Record<string, string> }[],
  exists: false,
  /** Answers a request itself. */
  fault: (_path: string, _response: ServerResponse): boolean => false,
}
async function serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
  const parts: Buffer[] = []
  for await (const part of request) parts.push(part as Buffer)
  const body = Buffer.concat(parts)
  const path = new URL(request.url as string, 'http://x').pathname
  hub.seen.push(`${request.method} ${path}`)
  const json = (value: unknown, status = 200) =>
    response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(value))
  if (hub.fault(path, response)) return
  if (path.startsWith('/lfs/')) {
    hub.stored.set(path.slice(5), body)
    response.writeHead(200).end()
    return
  }
  hub.tokens.add(request.headers.authorization)
  const own = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  if (path === '/api/repos/create') {
    hub.created.push(JSON.parse(body.toString()))
    json({ url: `${own}/me/tiny`, id: '1' })
  } else if (path.includes('/preupload/')) {
    const { files } = JSON.parse(body.toString()) as { files: { path: string }[] }
    const modeOf = (name: string) => (name.endsWith('.safetensors') ? 'lfs' : 'regular')
    json({ files: files.map(({ path }) => ({ path, uploadMode: modeOf(path) })) })
  } else if (path === '/me/tiny.git/info/lfs/objects/batch') {
    const { objects } = JSON.parse(body.toString()) as { objects: { oid: string }[] }
    const actionsOf = (oid: string) => ({ upload: { href: `${own}/lfs/${oid}` } })
    json({ transfer: 'basic', objects: objects.map((one) => ({ ...one, actions: actionsOf(one.oid) })) })
  } else if (path.startsWith('/api/models/me/tiny/commit/')) {
    const lines = body.toString().split('\n').map((line) => JSON.parse(line)) // biome-ignore format: one line
    const files = lines.slice(1).map(({ key, value }): [string, string] => {
      if (key === 'lfsFile') return [value.path, `lfs ${value.oid}`]
      return [value.path, Buffer.from(value.content, value.encoding).toString()]
    })
    hub.commits.push({ summary: lines[0].value.summary, files: Object.fromEntries(files) })
    json({ commitOid: 'a'.repeat(40), commitUrl: `${own}/me/tiny/commit/${'a'.repeat(40)}` })
  } else if (path.startsWith('/api/models/me/tiny')) {
    json(hub.exists ? { id: 'me/tiny' } : { error: 'Repository not found' }, hub.exists ? 200 : 404)
  } else {
    json({ error: 'unknown' }, 500)
  }
}
const server = createServer((request, response) => void serve(request, response))

beforeAll(() => new Promise<void>((resolve) => void server.listen(0, '127.0.0.1', resolve)))
afterAll(async () => {
  server.closeAllConnections()
  await new Promise((resolve) => server.close(resolve))
  rmSync(home, { recursive: true, force: true })
})
beforeEach(() => {
  for (const list of [hub.seen, hub.created, hub.commits]) list.length = 0
  hub.tokens.clear()
  hub.stored.clear()
  hub.exists = false
  hub.fault = () => false
  vi.stubEnv('HF_ENDPOINT', `http://127.0.0.1:${(server.address() as AddressInfo).port}`)
  vi.stubEnv('HF_TOKEN', 'hf_test')
})
afterEach(() => vi.unstubAllEnvs())

it('creates the repository, and uploads all files in one commit', async () => {
  const { commit, url } = await pushToHub(folder, 'me/tiny', { private: true, commitMessage: 'First' })
  expect(commit).toBe('a'.repeat(40))
  expect(url).toContain('/me/tiny/commit/')
  expect(hub.created).toEqual([{ name: 'tiny', organization: 'me', visibility: 'private', type: 'model' }])
  const sha = createHash('sha256').update(weights).digest('hex')
  const files = { 'config.json': '{"model_type": "llama"}', 'nested/model.safetensors': `lfs ${sha}` }
  expect(hub.commits).toEqual([{ summary: 'First', files }])
  expect(hub.stored.get(sha)).toEqual(weights)
  expect([...hub.tokens]).toEqual(['Bearer hf_test'])
})

it('uses a repository that exists, a branch and another token', async () => {
  hub.exists = true
  await pushToHub(folder, 'me/tiny', { revision: 'dev/1', token: 'hf_other' })
  expect(hub.created).toEqual([])
  expect(hub.seen.at(-1)).toBe('POST /api/models/me/tiny/commit/dev%2F1')
  expect(hub.commits[0]?.summary).toBe('Upload folder with voxtorch')
  expect([...hub.tokens]).toEqual(['Bearer hf_other'])
})

it('errors say what is wrong, and nothing is committed', async () => {
  const push = (path = folder, name = 'me/tiny', options = {}) => pushToHub(path, name, options)
  await expect(push(join(home, 'none'))).rejects.toThrow(CheckpointError)
  await expect(push(join(folder, 'config.json'))).rejects.toThrow(/config\.json: expected a folder/)
  mkdirSync(join(home, 'empty'))
  await expect(push(join(home, 'empty'))).rejects.toThrow(/empty: expected at least one file/)
  mkdirSync(join(home, 'broken'))
  symlinkSync('/nowhere/at/all', join(home, 'broken/link'))
  await expect(push(join(home, 'broken'))).rejects.toThrow(/broken: expected files and folders, got another kind: link/)
  for (const name of ['tiny', '../x', 'a/b/c', 'a/..', 'me/ti ny', '']) {
    await expect(push(folder, name)).rejects.toThrow(/repository/)
  }
  await expect(push(folder, 'me/tiny', { revision: '../x' })).rejects.toThrow(/revision/)
  await expect(push(folder, 'me/tiny', { commitMessage: ' ' })).rejects.toThrow(/commitMessage/)
  await expect(push(folder, 'me/tiny', { branch: 'x' })).rejects.toThrow(/branch/)
  const secret = push(folder, 'me/tiny', { token: 'secret' })
  await expect(secret).rejects.toThrow(ConfigError)
  await expect(secret).rejects.not.toThrow(/secret/)
  vi.stubEnv('HF_TOKEN', '')
  vi.stubEnv('HF_TOKEN_PATH', join(home, 'no-token'))
  await expect(push()).rejects.toThrow(/token: expected an access token, hf_…, got none/)
  vi.stubEnv('HF_TOKEN', 'hf_test')
  expect(hub.seen).toEqual([])
  for (const [at, status, reason, message] of [
    ['/preupload/', 403, 'access', /write access/],
    ['/preupload/', 404, 'not-found', /does not have this branch/],
    ['/lfs/', 500, 'network', /the upload failed/],
    ['/commit/', 502, 'network', /the upload failed/],
    ['/api/repos/create', 401, 'access', /write access/],
  ] as const) {
    hub.fault = (path, response) => {
      if (!path.includes(at)) return false
      response.writeHead(status).end()
      return true
    }
    const error = await push().catch((error: unknown) => error)
    expect(error).toBeInstanceOf(HubError)
    expect((error as HubError).reason).toBe(reason)
    expect((error as HubError).message).toMatch(message)
  }
  const controller = new AbortController()
  hub.fault = (path) => {
    if (path.includes('/preupload/')) controller.abort()
    return false
  }
  await expect(push(folder, 'me/tiny', { signal: controller.signal })).rejects.toThrow(CancelledError)
  expect(hub.commits).toEqual([])
})
