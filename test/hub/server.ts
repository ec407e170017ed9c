import { createHash } from 'node:crypto'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { fileURLToPath } from 'node:url'

export interface Seen {
  /** 'hub' or 'cdn'. */
  server: string
  method: string
  path: string
  range: string | undefined
  authorization: string | undefined
}

/** Answers a request itself, or leaves it to the server by returning false. `nth` counts the path's requests from 1. */
export type Fault = (request: IncomingMessage, response: ServerResponse, body: Buffer, nth: number) => boolean

/**
 * A small Hugging Face Hub on this machine: one repository at one commit, lists in pages, git files served by itself and
 * large files by redirection to a second server on another port, as the real one does with its CDN. `fault` spoils it.
 */
export class FakeHub {
  readonly seen: Seen[] = []
  readonly files = new Map<string, Buffer>()
  commit = '0123456789abcdef0123456789abcdef01234567'
  pageSize = 1000
  token: string | undefined
  /** Spoils what is asked of the API, what is asked of a file, and what the CDN sends. */
  api: Fault = () => false
  file: Fault = () => false
  cdn: Fault = () => false
  /** Changes the list that is sent. */
  list: (entries: Record<string, unknown>[]) => unknown[] = (entries) => entries
  readonly #hub: Server
  readonly #cdn: Server
  readonly #counts = new Map<string, number>()

  constructor(
    readonly repository = 'org/tiny',
    readonly kind: 'models' | 'datasets' = 'models',
  ) {
    this.#hub = createServer((request, response) => this.#serve('hub', request, response))
    this.#cdn = createServer((request, response) => this.#serve('cdn', request, response))
  }

  async start(port = 0): Promise<this> {
    for (const server of [this.#hub, this.#cdn]) {
      await new Promise<void>((resolve) => server.listen(server === this.#hub ? port : 0, '127.0.0.1', resolve))
    }
    return this
  }

  async stop(): Promise<void> {
    for (const server of [this.#hub, this.#cdn]) {
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
    }
  }

  get endpoint(): string {
    return `http://127.0.0.1:${(this.#hub.address() as AddressInfo).port}`
  }

  get cdnEndpoint(): string {
    return `http://127.0.0.1:${(this.#cdn.address() as AddressInfo).port}`
  }

  put(path: string, content: string | Buffer): Buffer {
    const bytes = Buffer.from(content)
    this.files.set(path, bytes)
    return bytes
  }

  /** Requests for the content of a file, wherever they went. */
  downloads(path: string): Seen[] {
    return this.seen.filter(
      (seen) => seen.method === 'GET' && seen.path.endsWith(`/${path}`) && seen.path.includes('/resolve/'),
    )
  }

  fromCdn(path: string): Seen[] {
    return this.seen.filter((seen) => seen.server === 'cdn' && seen.path === `/cdn/${path}`)
  }

  #serve(server: 'hub' | 'cdn', request: IncomingMessage, response: ServerResponse): void {
    const url = new URL(request.url!, 'http://x')
    const path = decodeURIComponent(url.pathname)
    const { range, authorization } = request.headers
    this.seen.push({ server, method: request.method!, path, range, authorization })
    const nth = (this.#counts.get(server + path) ?? 0) + 1
    this.#counts.set(server + path, nth)
    // A client may leave at any moment.
    response.on('error', () => {})
    if (server === 'cdn') {
      const bytes = this.files.get(path.replace('/cdn/', ''))!
      if (!this.cdn(request, response, bytes, nth)) content(request, response, bytes, {})
      return
    }
    if (this.token !== undefined && authorization !== `Bearer ${this.token}`) {
      refuse(response, 401, authorization === undefined ? undefined : 'RepoNotFound')
      return
    }
    if (path.startsWith('/api/')) {
      if (!this.api(request, response, Buffer.alloc(0), nth)) this.#api(url, path, response)
      return
    }
    const address = this.kind === 'models' ? path : path.replace('/datasets/', '/')
    const [, file] = /^\/[^/]+\/[^/]+\/resolve\/[^/]+\/(.*)$/.exec(address) ?? []
    const bytes = file === undefined ? undefined : this.files.get(file)
    if (bytes === undefined || !address.startsWith(`/${this.repository}/`)) {
      refuse(response, 404, 'EntryNotFound')
      return
    }
    if (this.file(request, response, bytes, nth)) return
    const { oid, sha256 } = ids(bytes)
    const head = { 'x-repo-commit': this.commit, 'access-control-expose-headers': '*' }
    if (!isLarge(file!)) {
      content(request, response, bytes, { ...head, etag: `"${oid}"` })
      return
    }
    response.writeHead(302, {
      ...head,
      location: `${this.cdnEndpoint}/cdn/${encodeURI(file!)}`,
      etag: `"${oid}"`,
      'x-linked-etag': `"${sha256}"`,
      'x-linked-size': bytes.length,
    })
    response.end()
  }

  #api(url: URL, path: string, response: ServerResponse): void {
    const [, repository, what, revision] =
      /^\/api\/(?:models|datasets)\/([^/]+\/[^/]+)\/(revision|tree)\/([^?]*)$/.exec(path) ?? []
    if (repository !== this.repository || !path.startsWith(`/api/${this.kind}/`)) {
      refuse(response, 404, 'RepoNotFound')
      return
    }
    if (revision !== 'main' && revision !== this.commit) {
      refuse(response, 404, 'RevisionNotFound')
      return
    }
    if (what === 'revision') {
      json(response, {
        _id: '1',
        id: repository,
        sha: this.commit,
        private: false,
        gated: false,
        downloads: 0,
        likes: 0,
        lastModified: '2024-01-01T00:00:00.000Z',
        tags: [],
        siblings: [...this.files.keys()].map((rfilename) => ({ rfilename })),
      })
      return
    }
    const folders = new Set([...this.files.keys()].flatMap((name) => name.split('/').slice(0, -1)))
    const entries = this.list([
      ...[...folders].map((folder) => ({ type: 'directory', oid: '0'.repeat(40), size: 0, path: folder })),
      ...[...this.files].map(([name, bytes]) => {
        const { oid, sha256 } = ids(bytes)
        const lfs = isLarge(name) && { lfs: { oid: sha256, size: bytes.length, pointerSize: 134 } }
        return { type: 'file', oid, size: bytes.length, path: name, ...lfs }
      }),
    ])
    const from = Number(url.searchParams.get('cursor') ?? 0)
    const next = from + this.pageSize
    url.searchParams.set('cursor', String(next))
    if (next < entries.length) response.setHeader('link', `<${this.endpoint}${url.pathname}${url.search}>; rel="next"`)
    json(response, entries.slice(from, next))
  }
}

const isLarge = (name: string): boolean => /\.(?:safetensors|bin|model)$/.test(name)

export function ids(bytes: Buffer): { oid: string; sha256: string } {
  return {
    oid: createHash('sha1').update(`blob ${bytes.length}\0`).update(bytes).digest('hex'),
    sha256: createHash('sha256').update(bytes).digest('hex'),
  }
}

export function content(
  request: IncomingMessage,
  response: ServerResponse,
  bytes: Buffer,
  headers: Record<string, string>,
): void {
  const from = /^bytes=(\d+)-$/.exec(request.headers.range ?? '')
  if (from === null) {
    response.writeHead(200, { ...headers, 'content-length': bytes.length, 'accept-ranges': 'bytes' })
    response.end(request.method === 'HEAD' ? undefined : bytes)
    return
  }
  const start = Number(from[1])
  if (start >= bytes.length) {
    response.writeHead(416, { 'content-range': `bytes */${bytes.length}` })
    response.end()
    return
  }
  response.writeHead(206, {
    ...headers,
    'content-length': bytes.length - start,
    'content-range': `bytes ${start}-${bytes.length - 1}/${bytes.length}`,
  })
  response.end(bytes.subarray(start))
}

export function json(response: ServerResponse, value: unknown): void {
  response.writeHead(200, { 'content-type': 'application/json; charset=utf-8' })
  response.end(JSON.stringify(value))
}

export function refuse(
  response: ServerResponse,
  status: number,
  code?: string,
  headers: Record<string, string> = {},
): void {
  response.writeHead(status, { 'content-type': 'application/json', ...(code && { 'x-error-code': code }), ...headers })
  response.end(JSON.stringify({ error: code ?? `status ${status}` }))
}

/** The repository of the tests. */
export function tiny(hub: FakeHub): FakeHub {
  hub.put('config.json', '{"hidden_size": 4}\n')
  hub.put('vocab.json', '{"a": 0}')
  hub.put('README.md', '# tiny\n')
  hub.put('model.safetensors', Buffer.alloc(3_000_000, 'weights '))
  hub.put('pytorch_model.bin', Buffer.alloc(1000, 'p'))
  hub.put('onnx/model.bin', Buffer.alloc(1000, 'o'))
  return hub
}

// For test/reference/hub_check.py: serve until the input ends, and say what was asked.
if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const hub = await tiny(new FakeHub()).start()
  console.log(hub.endpoint)
  process.stdin.on('data', () => console.log(JSON.stringify(hub.seen.splice(0))))
  process.stdin.on('end', () => hub.stop())
}
