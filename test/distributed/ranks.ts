import { type ChildProcess, spawn } from 'node:child_process'
import { createServer } from 'node:net'
import { fileURLToPath } from 'node:url'
import { PATIENCE } from '../patience.js'

const scenarios = fileURLToPath(new URL('./scenarios.mjs', import.meta.url))
export const cli = fileURLToPath(new URL('../../dist/cli/main.js', import.meta.url))

export interface Ending {
  code: number | null
  signal: NodeJS.Signals | null
  stdout: string
  stderr: string
  /** What it printed, as JSON. */
  // biome-ignore lint/suspicious/noExplicitAny: each scenario prints its own.
  values: any[]
  /** Milliseconds that it lived. */
  ms: number
}

export interface Running {
  child: ChildProcess
  ended: Promise<Ending>
}

/** Starts a process, which is killed by its own number when it lives longer than `limit`. */
export function start(
  args: string[],
  options: {
    env?: Record<string, string | undefined>
    limit?: number
    extra?: number[]
    onLine?: (line: string) => void
  } = {},
): Running {
  const { env = {}, limit = PATIENCE, extra = [], onLine } = options
  const started = performance.now()
  const child = spawn(process.execPath, args, {
    env: { ...process.env, NODE_OPTIONS: '', ...env },
    stdio: ['ignore', 'pipe', 'pipe', ...extra],
  })
  const output = { stdout: '', stderr: '' }
  for (const name of ['stdout', 'stderr'] as const) {
    child[name]?.setEncoding('utf8').on('data', (chunk: string) => {
      output[name] += chunk
      if (name === 'stdout') for (const line of chunk.trimEnd().split('\n')) onLine?.(line)
    })
  }
  const timer = setTimeout(() => child.kill('SIGKILL'), limit)
  const ended = new Promise<Ending>((resolve, reject) => {
    child.on('error', reject)
    child.on('close', (code, signal) => {
      clearTimeout(timer)
      const values = output.stdout
        .split('\n')
        .filter((line) => /^["{[](?!\d\] )/.test(line))
        .map((line) => JSON.parse(line))
      resolve({ code, signal, ...output, values, ms: performance.now() - started })
    })
  })
  return { child, ended }
}

/** The ranks of scenarios as a cluster's launcher would start them; rank 0 gets the listening socket. */
export async function startRanks(names: string | string[], timeout = PATIENCE, count = 2): Promise<Running[]> {
  const server = createServer()
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as { port: number }
  const { fd } = (server as unknown as { _handle: { fd: number } })._handle
  const ranks = Array.from({ length: count }, (_, rank) =>
    start(['--no-warnings', '--expose-gc', scenarios, '--timeout', String(timeout), ...[names].flat()], {
      extra: rank === 0 ? [fd] : [],
      env: {
        RANK: String(rank),
        WORLD_SIZE: String(count),
        MASTER_ADDR: '127.0.0.1',
        MASTER_PORT: String(port),
        GLOO_SOCKET_IFNAME: 'lo',
        OMP_NUM_THREADS: '1',
        VOXTORCH_STORE_FD: rank === 0 ? '3' : undefined,
      },
    }),
  )
  server.close()
  return ranks
}

/** What each rank of each scenario printed, all run by the same processes; throws with their output unless they end well. */
export async function runRanks<Name extends string>(names: Name[]): Promise<Record<Name, Ending['values'][]>> {
  const endings = await Promise.all((await startRanks(names)).map(({ ended }) => ended))
  for (const { code, signal, stdout, stderr } of endings) {
    if (code !== 0 || stderr !== '') throw new Error(`ended with ${code ?? signal}: ${stderr}\nafter ${stdout}`)
  }
  const results = Object.fromEntries(names.map((name) => [name, endings.map((): Ending['values'] => [])]))
  for (const [rank, { values }] of endings.entries()) {
    let printed: Ending['values'] | undefined
    for (const value of values) {
      if (value?.scenario) printed = results[value.scenario]?.[rank]
      else printed?.push(value)
    }
  }
  return results as Record<Name, Ending['values'][]>
}

/** `voxtorch launch` with these arguments. */
export const launch = (args: string[], options: Parameters<typeof start>[1] = {}): Running =>
  start([cli, 'launch', ...args], options)

export const scenarioFile = scenarios
