import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { createServer } from 'node:net'
import { availableParallelism } from 'node:os'
import { dirname, join } from 'node:path'
import { measureRates } from './duel.js'
import type { Options } from './options.js'
import { BenchError, checkBuilt, root } from './peer.js'
import type { Report, Row } from './report.js'
import { compare, median, summarise } from './statistics.js'

/** Requests of each client in a round, one after the other, and the tokens of each answer. */
const REQUESTS = 3
const TOKENS = 48

const sides = ['voxtorch', 'torch'] as const
type Side = (typeof sides)[number]

const nameOf = (clients: number) => (clients === 1 ? '1 client' : `${clients} clients`)

/** Times of one round in ms: per token of all clients together, between two tokens of a client (95th percentile), to the first token (median). */
interface Measured {
  perToken: number
  between: number
  first: number
}

/**
 * Clients of `voxtorch serve text` against those of llama.cpp's `llama-server` (peers/native.sh) on one GGUF file (VOXTORCH_BENCH_GGUF).
 * Every prompt is another, of about 60 tokens; while one client's prompt is read, others wait for their next token. Both servers have all
 * cores, and as many places as there are clients. The client's own time on the cores is the same for both.
 */
export async function run({ rounds = 3, only = '' }: Options): Promise<Report> {
  checkBuilt()
  const file = process.env.VOXTORCH_BENCH_GGUF
  const llama = process.env.VOXTORCH_BENCH_LLAMA
  if (!file || !existsSync(file))
    throw new BenchError('serving: set VOXTORCH_BENCH_GGUF to a GGUF file with a chat template.')
  const program = join(dirname(llama ?? ''), 'llama-server')
  if (!llama || !existsSync(program))
    throw new BenchError(
      'serving: bench/peers/native.sh DIR builds llama.cpp; set VOXTORCH_BENCH_LLAMA to what it prints.',
    )
  const { rates, versions } = await measureRates()
  const rows: Row[] = []
  for (const clients of [1, 8, 32].filter((count) => nameOf(count).includes(only))) {
    const servers = {
      voxtorch: await start(process.execPath, (port) => [
        join(root, 'dist/cli/main.js'),
        ...[
          'serve',
          'text',
          '--model',
          file,
          '--port',
          `${port}`,
          '--concurrent',
          `${clients}`,
          '--queue',
          '64',
          '--quiet',
        ],
      ]),
      torch: await start(program, (port) => [
        ...['-m', file, '--port', `${port}`, '--parallel', `${clients}`, '--ctx-size', `${clients * 512}`],
        ...['--threads', `${availableParallelism()}`, '--log-disable'],
      ]),
    }
    try {
      const measured: Record<Side, Measured[]> = { voxtorch: [], torch: [] }
      for (let round = -1; round < rounds; round++) {
        for (const side of round % 2 === 0 ? sides : [...sides].reverse()) {
          const one = await answers(servers[side].port, clients, round)
          if (round >= 0) measured[side].push(one)
        }
      }
      const row = (label: string, key: keyof Measured, target: number): void => {
        const [ours, theirs] = sides.map((side) => measured[side].map((one) => one[key])) as [number[], number[]]
        const time = compare(ours, theirs)
        rows.push({
          label: `${nameOf(clients)}, ${label}`,
          unit: 'ms',
          voxtorch: summarise(ours),
          torch: summarise(theirs),
          against: 'llama-server',
          ...time,
          target,
          met: time.ratio <= target,
        })
      }
      row('a token of all together', 'perToken', 1 / 1.6)
      row('between two tokens, 95th percentile', 'between', 1)
      row('first token', 'first', 0.8)
    } finally {
      for (const { child } of Object.values(servers)) child.kill()
    }
  }
  return { question: 'serving', rounds, rows, rates, versions }
}

async function start(
  program: string,
  args: (port: number) => string[],
): Promise<{ child: ChildProcess; port: number }> {
  const port = await freePort()
  const child = spawn(program, args(port), { stdio: ['ignore', 'ignore', 'inherit'] })
  const ended = once(child, 'exit').then(() => {
    throw new BenchError(`serving: ${program} ended before it answered.`)
  })
  ended.catch(() => {})
  const ready = async (): Promise<void> => {
    for (;;) {
      const reply = await fetch(`http://127.0.0.1:${port}/health`).catch(() => null)
      if (reply?.ok) return
      await new Promise((resolve) => setTimeout(resolve, 100))
    }
  }
  await Promise.race([ready(), ended])
  return { child, port }
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  server.close()
  await once(server, 'close')
  return (address as { port: number }).port
}

async function answers(port: number, clients: number, round: number): Promise<Measured> {
  const begin = performance.now()
  const all = await Promise.all(
    Array.from({ length: clients }, async (_, client) => {
      const replies: Awaited<ReturnType<typeof answer>>[] = []
      for (let i = 0; i < REQUESTS; i++)
        replies.push(await answer(port, promptOf((round + 1) * 1000 + client * 10 + i)))
      return replies
    }),
  )
  const took = performance.now() - begin
  const replies = all.flat()
  const gaps = replies.flatMap(({ gaps }) => gaps).sort((a, b) => a - b)
  return {
    perToken: took / replies.reduce((sum, { tokens }) => sum + tokens, 0),
    between: gaps[Math.floor(gaps.length * 0.95)] as number,
    first: median(replies.map(({ first }) => first)),
  }
}

/** Words in an order that no other prompt has, so that no cache knows more than the chat template. */
function promptOf(seed: number): string {
  const words =
    'river stone lamp garden winter bread engine letter window market bridge orange silver doctor island music'.split(
      ' ',
    )
  let state = seed + 1
  const picked = Array.from({ length: 40 }, () => {
    state = (state * 1103515245 + 12345) % 2147483648
    return words[state % words.length]
  })
  return `Write a long story with these words: ${picked.join(', ')}.`
}

async function answer(port: number, content: string): Promise<{ first: number; gaps: number[]; tokens: number }> {
  const begin = performance.now()
  const body = {
    messages: [{ role: 'user', content }],
    ...{ max_tokens: TOKENS, temperature: 0, stream: true, stream_options: { include_usage: true } },
  }
  // A server closes connections that are idle while it is the other's turn.
  const headers = { 'content-type': 'application/json', connection: 'close' }
  const reply = await fetch(`http://127.0.0.1:${port}/v1/chat/completions`, {
    method: 'POST',
    headers,
    body: JSON.stringify(body),
  })
  if (!reply.ok || reply.body === null) throw new BenchError(`serving: ${reply.status} ${await reply.text()}`)
  const times: number[] = []
  let tokens = 0
  let rest = ''
  const decoder = new TextDecoder()
  for await (const bytes of reply.body) {
    const lines = (rest + decoder.decode(bytes as Uint8Array, { stream: true })).split('\n')
    rest = lines.pop() as string
    for (const line of lines) {
      if (!line.startsWith('data: {')) continue
      const { choices, usage } = JSON.parse(line.slice(6))
      if (choices?.[0]?.delta?.content) times.push(performance.now())
      if (usage?.completion_tokens) tokens = usage.completion_tokens
    }
  }
  if (times.length === 0 || tokens === 0) throw new BenchError('serving: an answer without tokens.')
  return {
    first: (times[0] as number) - begin,
    gaps: times.slice(1).map((time, i) => time - (times[i] as number)),
    tokens,
  }
}
