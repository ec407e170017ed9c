import { request as httpRequest, type IncomingHttpHeaders } from 'node:http'
import { connect } from 'node:net'
import { PATIENCE } from '../patience.js'
import { sineWav } from './models.mjs'

export interface Reply {
  status: number
  headers: IncomingHttpHeaders
  text: string
  // biome-ignore lint/suspicious/noExplicitAny: any JSON
  json: any
}

interface Call {
  method?: string
  headers?: Record<string, string>
  body?: string | Buffer
}

/** One request on a connection of its own. Unlike fetch, it sends any Host. */
export function call(url: string, path: string, { method = 'GET', headers = {}, body }: Call = {}): Promise<Reply> {
  return new Promise((resolve, reject) => {
    const request = httpRequest(new URL(url), { method, path, headers, agent: false }, (response) => {
      const parts: Buffer[] = []
      response.on('data', (part) => parts.push(part))
      response.on('error', reject)
      response.on('end', () => {
        const text = Buffer.concat(parts).toString()
        const json = /json/.test(response.headers['content-type'] ?? '') && text !== '' ? JSON.parse(text) : undefined
        resolve({ status: response.statusCode ?? 0, headers: response.headers, text, json })
      })
    })
    request.on('error', reject)
    request.end(body)
  })
}

export const ask = (url: string, body: unknown, headers: Record<string, string> = {}): Promise<Reply> =>
  call(url, '/v1/chat/completions', {
    method: 'POST',
    headers: { 'content-type': 'application/json', ...headers },
    body: typeof body === 'string' || Buffer.isBuffer(body) ? body : JSON.stringify(body),
  })

export const user = (...content: unknown[]) => ({ role: 'user', content })
export const text = (value: string) => ({ type: 'text', text: value })
export const sound = (bytes: Buffer = sineWav(), format = 'wav') => ({
  type: 'input_audio',
  input_audio: { data: bytes.toString('base64'), format },
})

/** The events of a stream, `[DONE]` included. */
export const events = ({ text }: Reply): string[] =>
  text
    .split('\n\n')
    .filter(Boolean)
    .map((event) => event.replace(/^data: /, ''))

/** Begins a request; `abort` drops the connection. */
export function begin(url: string, body: unknown): { first: Promise<string>; abort: () => void } {
  let abort = () => {}
  const first = new Promise<string>((resolve, reject) => {
    const headers = { 'content-type': 'application/json' }
    const request = httpRequest(
      new URL(url),
      { method: 'POST', path: '/v1/chat/completions', headers, agent: false },
      (response) => {
        response.on('error', () => {})
        response.once('data', (part) => resolve(String(part)))
      },
    )
    request.on('error', reject)
    request.end(typeof body === 'string' ? body : JSON.stringify(body))
    abort = () => request.destroy()
  })
  first.catch(() => {})
  return { first, abort }
}

/** Sends bytes as they are and gives what comes back until the server closes the connection. */
export function raw(port: number, ...parts: (string | Buffer)[]): Promise<string> {
  return new Promise((resolve) => {
    let answer = ''
    const socket = connect(port, '127.0.0.1', () => {
      for (const part of parts) socket.write(part)
    })
    socket.on('data', (part) => {
      answer += part
    })
    socket.on('error', () => {})
    socket.on('close', () => resolve(answer))
  })
}

/** Waits until something holds. */
export async function until(what: () => boolean, milliseconds = PATIENCE): Promise<void> {
  const end = performance.now() + milliseconds
  while (!what()) {
    if (performance.now() > end) throw new Error(`not within ${milliseconds} ms: ${what}`)
    await new Promise((resolve) => setTimeout(resolve, 10))
  }
}
