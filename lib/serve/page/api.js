// Client of the server's API.

import { fromPcm } from './player.js'

const KEY = 'voxtorch-api-key'

export const apiKey = {
  get: () => sessionStorage.getItem(KEY) ?? '',
  set: (key) => sessionStorage.setItem(KEY, key),
}

/** An HTTP error of the server; `status` 401 means that an API key is missing or wrong. */
export class ApiError extends Error {
  constructor(status, message) {
    super(message)
    this.status = status
  }
}

async function request(path, options = {}) {
  const key = apiKey.get()
  const headers = { ...options.headers, ...(key && { Authorization: `Bearer ${key}` }) }
  let response
  try {
    response = await fetch(path, { ...options, headers })
  } catch (error) {
    if (error.name === 'AbortError') throw error
    throw new Error('The server does not answer. Check that it is still running.')
  }
  if (response.ok) return response
  const body = await response.json().catch(() => undefined)
  throw new ApiError(response.status, body?.error?.message ?? `The server responded with status ${response.status}.`)
}

/** Return the model of the server, with its limits. */
export async function readModel() {
  const { data } = await (await request('/v1/models')).json()
  return data[0]
}

/** Stream an answer: `{ asked }`, `{ views }`, `{ scores }`, `{ heard }`, `{ text }` and `{ samples, sampleRate }`, then `{ finish }`. */
export async function* streamAnswer(body, signal) {
  const response = await request('/v1/chat/completions', {
    method: 'POST',
    headers: { 'Content-Type': 'application/json' },
    body: JSON.stringify({ ...body, stream: true, stream_options: { include_usage: true } }),
    signal,
  })
  let finish
  let tokens
  for await (const data of events(response.body)) {
    if (data === '[DONE]') {
      yield { finish, tokens }
      return
    }
    const { error, choices, usage } = JSON.parse(data)
    if (error) throw new Error(error.message)
    tokens = usage?.completion_tokens ?? tokens
    const [choice] = choices
    const { content, audio, input_transcript: heard, asked, views, label_scores: scores } = choice?.delta ?? {}
    if (asked) yield { asked }
    if (views) yield { views }
    if (scores) yield { scores }
    if (heard) yield { heard }
    if (content || audio?.transcript) yield { text: content || audio.transcript }
    if (audio?.data) yield { samples: fromPcm(audio.data), sampleRate: audio.sample_rate }
    finish = choice?.finish_reason ?? finish
  }
  throw new Error('The connection was lost before the answer ended.')
}

/** Yield the data of server-sent events. */
async function* events(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader()
  let rest = ''
  for (;;) {
    const { value, done } = await reader.read()
    if (done) return
    const lines = (rest + value).split('\n\n')
    rest = lines.pop()
    for (const line of lines) if (line.startsWith('data: ')) yield line.slice(6)
  }
}
